"""TimePooling, and losses behind it."""

import numpy as np
import pytest

from brainstorm import layers
from brainstorm.handlers import NumpyHandler
from brainstorm.structure.network import Network
from brainstorm.utils import LayerValidationError
from tests.golden import golden
from tests.layers.single_layer import SingleLayer, normal

POOL = {
    "max": lambda x: x.max(0),
    "mean": lambda x: x.mean(0),
    "sum": lambda x: x.sum(0),
    "last": lambda x: x[-1],
}


def some_steps():
    """A mask with gaps, with other numbers than 1, and an end."""
    mask = np.ones((6, 4, 1))
    mask[4:, 0] = 0
    mask[[0, 2], 1] = 0
    mask[1:4, 2] = [[0.5], [-3], [0]]
    return mask


@pytest.mark.parametrize("features", [(3,), (2, 3)])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", POOL)
def test_formulas(kind, masked, features):
    x, dy = normal(6, 4, *features), normal(4, *features, seed=1)
    inputs = {"default": x, **({"mask": some_steps()} if masked else {})}
    run = SingleLayer(layers.TimePooling(kind), inputs).forward()
    y, dx = np.zeros(dy.shape), np.zeros(x.shape)
    for b in range(4):
        used = np.flatnonzero(inputs["mask"][:, b]) if masked else np.arange(6)
        y[b] = POOL[kind](x[used, b])
        if kind == "max":
            here = used[x[used, b].argmax(0)]
            np.put_along_axis(dx[:, b], here[None], dy[b][None], 0)
        else:
            used = used[-1:] if kind == "last" else used
            dx[used, b] = dy[b] / (len(used) if kind == "mean" else 1)
    np.testing.assert_allclose(run.y, y, rtol=1e-14)
    assert run.y.shape == dy.shape
    run.backward(default=dy)
    np.testing.assert_allclose(run["input_deltas.default"], dx, rtol=1e-14)


@pytest.mark.parametrize("kind", POOL)
def test_where_no_step_counts_there_are_zeros(kind):
    mask = np.ones((3, 2, 1))
    mask[:, 1] = 0
    x = -1.0 - np.arange(6.0).reshape(3, 2, 1)
    run = SingleLayer(layers.TimePooling(kind), {"default": x, "mask": mask}).forward()
    run.backward(default=np.ones((2, 1)))
    assert run.y[0, 0] != 0 == run.y[1, 0]
    assert run["input_deltas.default"][:, 0].any()
    assert not run["input_deltas.default"][:, 1].any()


def test_of_equal_values_the_first_gets_the_deltas():
    x = np.array([1.0, 2, 2, 0, 2]).reshape(5, 1, 1)
    run = SingleLayer(layers.TimePooling(), {"default": x}).forward()
    run.backward(default=[[3.0]])
    assert run["internals.argmax"].tolist() == [[1]]
    assert run["input_deltas.default"].ravel().tolist() == [0, 3, 0, 0, 0]


@pytest.mark.parametrize(
    ("kind", "shapes", "message"),
    [
        ("min", {}, r"one of 'max', 'mean', 'sum', 'last' as 'type', got 'min'"),
        (None, {}, r"as 'type', got None"),
        ("max", {"mask": ("T", "B", 2)}, r"\(T, B, 1\) at input 'mask', got.*2\)"),
        ("max", {"mask": ("B", 1)}, r"\(T, B, 1\) at input 'mask', got \('B', 1\)"),
        ("max", {"default": ("B", 2)}, r"at input 'default', got \('B', 2\)"),
        ("max", {"weight": ("T", "B", 1)}, r"TimePooling"),
    ],
)
def test_bad_input(kind, shapes, message):
    layer, shapes = layers.TimePooling(kind), {"default": ("T", "B", 2), **shapes}
    inp = layers.Input(shapes)
    for name in shapes:
        inp - name >> name - layer
    with pytest.raises(LayerValidationError, match=f"TimePooling.*{message}"):
        Network.from_layer(inp)


def loss_of(values, targets, wire, importance=1.0):
    """The loss, and its derivative by the values."""
    leading = ("T", "B") if targets.ndim == 3 else ("B",)
    shapes = {"default": ("T", "B", values.shape[2])}
    shapes["targets"] = (*leading, targets.shape[-1])
    inp = layers.Input(shapes)
    start, error = layers.NoOp("Start"), wire[-1]
    last = inp >> start
    for layer in wire:
        last = last >> layer
    inp - "targets" >> "targets" - error
    error - "loss" >> layers.Loss(importance)
    net = Network.from_layer(inp)
    net.set_handler(NumpyHandler(np.float64))
    net.provide_external_data({"default": values, "targets": targets})
    net.forward_pass(training_pass=True)
    net.backward_pass()
    return net.get_loss_values()["total_loss"], net.get("Start.input_deltas.default")


@pytest.mark.parametrize(
    "name", ["ce_rate", "ce_count", "ce_max_membrane", "mse_count", "mse_membrane"]
)
def test_losses_of_spikes_and_membranes_are_wired(name):
    z = golden("losses_snntorch")
    values = z["membrane" if "membrane" in name else "spikes"]
    T, _, K = values.shape
    classes = z["labels"].reshape(-1, 1)
    one_hot = np.eye(K)[z["labels"]]
    every_step = (T, 1, 1)
    targets, wire, importance = {
        "ce_rate": (np.tile(classes, every_step), [layers.SoftmaxCE()], 1 / T),
        "ce_count": (classes, [layers.TimePooling("sum"), layers.SoftmaxCE()], 1),
        "ce_max_membrane": (classes, [layers.TimePooling(), layers.SoftmaxCE()], 1),
        "mse_count": (
            np.where(one_hot > 0, int(0.8 * T), int(0.2 * T)),
            [layers.TimePooling("sum"), layers.SquaredError()],
            2 / (K * T),
        ),
        "mse_membrane": (
            np.tile(one_hot, every_step),
            [layers.SquaredError()],
            2 / (K * T),
        ),
    }[name]
    loss, deltas = loss_of(values, targets, wire, importance)
    np.testing.assert_allclose(loss, z[name], rtol=1e-6)  # theirs are in float32
    np.testing.assert_allclose(deltas, z[f"d_{name}"], rtol=1e-6, atol=1e-9)

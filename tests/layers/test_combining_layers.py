"""Highway, Merge, SquaredDifference and DeltasScaling."""

import numpy as np
import pytest

from brainstorm import layers
from brainstorm.handlers import DebugHandler, NumpyHandler
from brainstorm.structure.network import Network
from brainstorm.utils import LayerValidationError
from tests.layers.single_layer import SingleLayer, normal


def test_highway_mixes():
    H, T, x, dy = (normal(3, 2, 4, seed=i) for i in range(4))
    run = SingleLayer(layers.Highway(), {"H": H, "T": T, "x": x}).forward()
    assert np.allclose(run.y, T * H + (1 - T) * x)
    run.backward(default=dy)
    assert np.allclose(run["input_deltas.H"], T * dy)
    assert np.allclose(run["input_deltas.T"], (H - x) * dy)
    assert np.allclose(run["input_deltas.x"], (1 - T) * dy)


def test_merge_joins_the_last_dimension():
    a, b, dy = normal(3, 2, 4, 2), normal(3, 2, 4, 1, seed=1), normal(3, 2, 4, 3)
    run = SingleLayer(layers.Merge(), {"inputs_1": a, "inputs_2": b}).forward()
    assert np.array_equal(run.y, np.concatenate([a, b], 3))
    run.backward(default=dy)
    assert np.array_equal(run["input_deltas.inputs_1"], dy[..., :2])
    assert np.array_equal(run["input_deltas.inputs_2"], dy[..., 2:])


def test_squared_difference():
    a, b, dy = normal(3, 2, 4), normal(3, 2, 4, seed=1), normal(3, 2, 4, seed=2)
    layer = layers.SquaredDifference()
    run = SingleLayer(layer, {"inputs_1": a, "inputs_2": b}).forward()
    assert np.allclose(run.y, (a - b) ** 2)
    assert np.allclose(run["internals.diff"], a - b)
    run.backward(default=dy)
    assert np.allclose(run["input_deltas.inputs_1"], 2 * (a - b) * dy)
    assert np.allclose(run["input_deltas.inputs_2"], -2 * (a - b) * dy)


@pytest.mark.parametrize("factor", [-2.0, 0, 1])
def test_deltas_scaling(factor):
    x, dy = normal(3, 2, 4), normal(3, 2, 4, seed=1)
    run = SingleLayer(layers.DeltasScaling(factor), {"default": x}).forward()
    run.backward(default=dy)
    assert np.array_equal(run.y, x)
    assert np.allclose(run["input_deltas.default"], factor * dy)


WIRED = {
    "Highway": (layers.Highway, "HTx"),
    "Merge": (layers.Merge, ("inputs_1", "inputs_2")),
    "SquaredDifference": (layers.SquaredDifference, ("inputs_1", "inputs_2")),
}


def sum_of_outputs(kind, x, W, handler):
    """One output into the first two inputs, the Input into the others; and back."""
    make, names = WIRED[kind]
    inp, layer = layers.Input({"default": ("T", "B", 3)}), make()
    hidden = layers.FullyConnected(3, "tanh", name="Hid")
    inp >> hidden
    for i, name in enumerate(names):
        (hidden if i < 2 else inp) >> name - layer
    layer >> layers.Loss(name="Loss")
    hidden >> layers.Loss(0.5, name="Second")  # a further consumer
    net = Network.from_layer(inp)
    net.set_handler(handler)
    net.initialize({"Hid": {"W": W, "bias": 0.1}})
    net.provide_external_data({"default": x})
    net.forward_pass()
    return net


@pytest.mark.parametrize("all_deltas", [True, False])
@pytest.mark.parametrize("kind", WIRED)
def test_inputs_may_share_their_source(kind, all_deltas):
    x, W = normal(2, 3, 3), normal(3, 3, seed=1)

    def run(W):
        net = sum_of_outputs(kind, x, W, DebugHandler(NumpyHandler(np.float64)))
        return net, net.get_loss_values()["total_loss"]

    net, _ = run(W)
    net.backward_pass(all_deltas=all_deltas)
    gradients = net.get("Hid.gradients.W")
    for index in np.ndindex(3, 3):
        step = np.zeros((3, 3))
        step[index] = 1e-6
        numeric = (run(W + step)[1] - run(W - step)[1]) / 2e-6
        assert gradients[index] == pytest.approx(numeric, 1e-5, 1e-7)


@pytest.mark.parametrize("odd_one", ["H", "T", "x"])
def test_highway_needs_equal_shapes(odd_one):
    inputs = {name: normal(1, 2, 3) for name in "HTx"}
    inputs[odd_one] = normal(1, 2, 4)
    with pytest.raises(LayerValidationError, match=r"Highway.*same shape.*'B', 4"):
        SingleLayer(layers.Highway(), inputs)


def test_squared_difference_needs_equal_shapes():
    inputs = {"inputs_1": normal(1, 2, 3), "inputs_2": normal(1, 2, 3, 1)}
    with pytest.raises(LayerValidationError, match=r"'inputs_2'.*'B', 3\).*3, 1"):
        SingleLayer(layers.SquaredDifference(), inputs)


@pytest.mark.parametrize("shape", [(1, 2, 4, 2), (1, 2, 3)])
def test_merge_needs_equal_shapes_but_for_the_last_dimension(shape):
    inputs = {"inputs_1": normal(1, 2, 3, 2), "inputs_2": normal(*shape)}
    with pytest.raises(LayerValidationError, match=r"Merge.*3, 'any'\).*'inputs_1'"):
        SingleLayer(layers.Merge(), inputs)


@pytest.mark.parametrize("factor", ["half", None, float("nan"), float("inf")])
def test_deltas_scaling_needs_a_number(factor):
    with pytest.raises(LayerValidationError, match="a finite number as 'factor'"):
        SingleLayer(layers.DeltasScaling(factor), {"default": normal(1, 2, 3)})


def test_missing_inputs_are_named():
    with pytest.raises(LayerValidationError, match=r"'H', 'T', 'x'.*got 'H', 'T'"):
        SingleLayer(layers.Highway(), {"H": normal(1, 2, 3), "T": normal(1, 2, 3)})


# -- Add, Concat, GlobalPooling and Reshape ------------------------------------


def test_add_sums_all_inputs():
    inputs = {f"inputs_{i}": normal(3, 2, 4, seed=i) for i in (1, 2, 3)}
    run = SingleLayer(layers.Add(), inputs).forward()
    assert np.allclose(run.y, sum(inputs.values()))
    dy = normal(3, 2, 4)
    run.backward(default=dy)
    for name in inputs:
        assert np.array_equal(run[f"input_deltas.{name}"], dy)


def test_add_around_a_block():
    x, W = normal(2, 3, 4), normal(4, 4, seed=1)
    inp, add = layers.Input({"default": ("T", "B", 4)}), layers.Add()
    inp >> "inputs_1" - add
    inp >> layers.FullyConnected(activation="tanh", name="Block") >> "inputs_2" - add
    net = Network.from_layer(add)
    net.set_handler(NumpyHandler(np.float64))
    net.initialize({"Block": {"W": W, "bias": 0}})
    assert np.allclose(net.predict(x), x + np.tanh(x @ W.T))


def test_concat_joins_the_last_dimension():
    inputs = {f"inputs_{i}": normal(3, 2, 4, i, seed=i) for i in (1, 2, 3)}
    run = SingleLayer(layers.Concat(), inputs).forward()
    assert np.array_equal(run.y, np.concatenate(list(inputs.values()), 3))
    dy = normal(3, 2, 4, 6)
    run.backward(default=dy)
    assert np.array_equal(run["input_deltas.inputs_1"], dy[..., :1])
    assert np.array_equal(run["input_deltas.inputs_2"], dy[..., 1:3])
    assert np.array_equal(run["input_deltas.inputs_3"], dy[..., 3:])


@pytest.mark.parametrize("make", [layers.Add, layers.Concat])
@pytest.mark.parametrize("names", [["inputs_1"], ["inputs_1", "inputs_3"], ["default"]])
def test_inputs_are_numbered_without_gaps(make, names):
    inputs = {name: normal(1, 2, 3) for name in names}
    with pytest.raises(LayerValidationError, match="'inputs_1', 'inputs_2' to be"):
        SingleLayer(make(), inputs)


def test_add_needs_equal_shapes():
    inputs = {"inputs_1": normal(1, 2, 3), "inputs_2": normal(1, 2, 3)}
    inputs["inputs_3"] = normal(1, 2, 4)
    with pytest.raises(LayerValidationError, match=r"Add.*'inputs_3'.*3\).*'B', 4"):
        SingleLayer(layers.Add(), inputs)


def test_concat_needs_equal_shapes_but_for_the_last_dimension():
    inputs = {"inputs_1": normal(1, 2, 3, 2), "inputs_2": normal(1, 2, 4, 2)}
    with pytest.raises(LayerValidationError, match=r"Concat.*'any'\).*'inputs_2'"):
        SingleLayer(layers.Concat(), inputs)


@pytest.mark.parametrize(("kind", "reduce"), [("max", np.max), ("avg", np.mean)])
@pytest.mark.parametrize("shape", [(5, 4, 3), (6, 3), (2, 3, 2, 3)])
def test_global_pooling(kind, reduce, shape):
    x = normal(2, 3, *shape)
    run = SingleLayer(layers.GlobalPooling(kind), {"default": x}).forward()
    inner = tuple(range(2, x.ndim - 1))
    assert run.y.shape == (2, 3, 3)
    assert np.allclose(run.y, reduce(x, axis=inner))


def test_global_pooling_needs_something_to_pool():
    with pytest.raises(LayerValidationError, match=r"GlobalPooling.*got.*'B', 3\)"):
        SingleLayer(layers.GlobalPooling(), {"default": normal(1, 2, 3)})
    with pytest.raises(LayerValidationError, match="'max' or 'avg' as 'type'.*'min'"):
        SingleLayer(layers.GlobalPooling("min"), {"default": normal(1, 2, 3, 3)})


@pytest.mark.parametrize(
    ("shape", "expected"), [(12, (12,)), ((2, 6), (2, 6)), ((-1, 3), (4, 3))]
)
def test_reshape_keeps_the_order(shape, expected):
    x, dy = normal(3, 2, 6, 2), normal(3, 2, *expected)
    run = SingleLayer(layers.Reshape(shape), {"default": x}).forward()
    assert np.array_equal(run.y, x.reshape(3, 2, *expected))
    run.backward(default=dy)
    assert np.array_equal(run["input_deltas.default"], dy.reshape(x.shape))


@pytest.mark.parametrize("shape", [11, (5, -1), (-1, 13), (24,)])
def test_reshape_needs_as_many_features(shape):
    with pytest.raises(LayerValidationError, match=r"Reshape.*12 features.*\(6, 2\)"):
        SingleLayer(layers.Reshape(shape), {"default": normal(1, 2, 6, 2)})


@pytest.mark.parametrize("shape", [None, "large", (-1, -1), (0, 12), (1.5, 8), ()])
def test_reshape_needs_a_shape(shape):
    with pytest.raises(LayerValidationError, match="expected a shape as 'shape'"):
        SingleLayer(layers.Reshape(shape), {"default": normal(1, 2, 6, 2)})

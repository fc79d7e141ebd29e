"""Ctc, against all paths one by one."""

import itertools

import numpy as np
import pytest

from brainstorm import layers
from brainstorm.initializers import Gaussian
from brainstorm.structure.network import Network
from brainstorm.training import SgdStepper
from brainstorm.utils import HandlerError, LayerValidationError
from tests.layers.single_layer import SingleLayer, normal


def softmax(x):
    p = np.exp(x)
    return p / p.sum(-1, keepdims=True)


def collapse(path):
    return [c for c, _ in itertools.groupby(path) if c != 0]


def by_brute_force(p, labels):
    """The probability of the labels, as the sum over all paths."""
    return sum(
        np.prod([step[c] for step, c in zip(p, path, strict=True)])
        for path in itertools.product(range(p.shape[1]), repeat=len(p))
        if collapse(path) == list(labels)
    )


def targets(all_labels, steps):
    values = np.zeros((steps, len(all_labels), 1))
    for b, labels in enumerate(all_labels):
        values[: len(labels), b, 0] = labels
    return values


LABELS = [[1], [1, 2], [2, 2], [], [1, 2, 1, 2], [2, 1, 1]]


def test_the_loss_sums_over_all_paths():
    x = 2 * normal(4, len(LABELS), 3)
    inputs = {"default": x, "targets": targets(LABELS, 4)}
    run = SingleLayer(layers.Ctc(), inputs).forward()
    p = softmax(x)
    expected = [-np.log(by_brute_force(p[:, b], a)) for b, a in enumerate(LABELS)]
    assert np.allclose(run["outputs.loss"][:, 0], expected)
    assert np.allclose(run["outputs.predictions"], p)


def test_sequences_end_where_the_mask_does():
    lengths = [1, 4, 3, 2, 4, 4]
    mask = (np.arange(5)[:, None, None] < np.array(lengths)[:, None]).astype(float)
    x = normal(5, 6, 3)
    inputs = {"default": x, "targets": targets(LABELS, 5), "mask": mask}
    run = SingleLayer(layers.Ctc(), inputs).forward()
    expected = [
        -np.log(by_brute_force(softmax(x[:n, b]), LABELS[b]))
        for b, n in enumerate(lengths)
    ]
    assert np.allclose(run["outputs.loss"][:, 0], expected)
    dloss = normal(6, 1, seed=2)
    run.backward(loss=dloss)
    deltas = run["input_deltas.default"]
    assert not (deltas * (1 - mask)).any()
    for index in [(0, 0, 1), (2, 1, 0), (3, 4, 2), (1, 5, 1)]:
        losses = []
        for step in (1e-6, -1e-6):
            shifted = x.copy()
            shifted[index] += step
            other = SingleLayer(layers.Ctc(), {**inputs, "default": shifted}).forward()
            losses.append((other["outputs.loss"] * dloss).sum())
        numeric = (losses[0] - losses[1]) / 2e-6
        assert deltas[index] == pytest.approx(numeric, 1e-5, 1e-7)


def test_zeros_between_labels_are_left_out():
    x, losses = normal(5, 1, 3), []
    for labels in ([1, 2], [0, 1, 0, 0, 2]):
        inputs = {"default": x, "targets": targets([labels], 5)}
        losses.append(SingleLayer(layers.Ctc(), inputs).forward()["outputs.loss"])
    assert losses[0] == losses[1]


def test_long_sequences_and_sure_predictions_stay_finite():
    labels = [np.tile([1, 2], 100).tolist(), []]
    x = 100 * normal(500, 2, 3)
    inputs = {"default": x, "targets": targets(labels, 500)}
    run = SingleLayer(layers.Ctc(), inputs).forward()
    run.backward(loss=np.ones((2, 1)))
    assert np.isfinite(run["outputs.loss"]).all()
    assert np.isfinite(run["input_deltas.default"]).all()
    assert np.allclose(run["input_deltas.default"].sum(2), 0)


def test_labels_are_learned():
    rnd = np.random.RandomState(0)
    seen = np.zeros((12, 8, 3))
    labels = [rnd.randint(1, 3, rnd.randint(1, 4)).tolist() for _ in range(8)]
    for b, sequence in enumerate(labels):
        for i, label in enumerate(sequence):
            seen[4 * i : 4 * i + 2, b, label] = 1
    inp = layers.Input({"default": ("T", "B", 3), "targets": ("T", "B", 1)})
    ctc = layers.Ctc(name="Ctc")
    inp >> layers.FullyConnected(3, "linear", name="FC") >> ctc
    inp - "targets" >> "targets" - ctc
    ctc - "loss" >> layers.Loss()
    net = Network.from_layer(inp)
    net.initialize(Gaussian(0.1), seed=1)
    stepper = SgdStepper(0.5)
    stepper.start(net)
    net.provide_external_data({"default": seen, "targets": targets(labels, 12)})
    for _ in range(100):
        stepper.run()
    best = net.get("Ctc.outputs.predictions").argmax(2)
    assert [collapse(path) for path in best.T] == labels


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ([1, 2, 1, 2], "sequence 1 has 4 labels.*takes 4 steps, but it has 3"),
        ([1, 1, 2], "3 labels, 1 of which repeat.*takes 4 steps, but it has 3"),
        ([1, 3], "from 1 to 2, or 0 for none, for sequence 1, got 3"),
        ([1, -1], "from 1 to 2.* got -1"),
        ([1.5], "whole numbers.* got 1.5"),
        ([float("nan")], "whole numbers.* got nan"),
    ],
)
def test_labels_that_can_not_be(labels, text):
    mask = np.ones((5, 2, 1))
    mask[3:, 1] = 0
    inputs = {"default": normal(5, 2, 3), "targets": targets([[1], labels], 5)}
    run = SingleLayer(layers.Ctc(), {**inputs, "mask": mask})
    with pytest.raises(HandlerError, match=text):
        run.forward()
    run.inputs["targets"] = targets([[1], [2]], 5)
    assert np.isfinite(run.forward()["outputs.loss"]).all()


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"default": (1,)}, "at least one label"),
        ({"default": (3, 2)}, "'default'"),
        ({"targets": (2,)}, "'targets'"),
        ({"mask": (2,)}, "'mask'"),
    ],
)
def test_shapes_that_do_not_fit(changed, text):
    shapes = {"default": (3,), "targets": (1,), **changed}
    inputs = {name: np.zeros((2, 2, *shape)) for name, shape in shapes.items()}
    with pytest.raises(LayerValidationError, match=f"Ctc.*{text}"):
        SingleLayer(layers.Ctc(), inputs)

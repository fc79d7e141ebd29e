"""Bidirectional layers, and sequences of different lengths."""

import numpy as np
import pytest

from brainstorm import layers
from brainstorm.describable import get_description
from brainstorm.handlers import NumpyHandler
from brainstorm.initializers import Gaussian
from brainstorm.structure.network import Network
from brainstorm.utils import LayerValidationError, NetworkValidationError
from tests.handlers.handler_cases import HANDLERS, check, handler_params
from tests.layers.single_layer import SingleLayer, normal

T, B, I, N = 6, 4, 3, 2  # noqa: E741
LENGTHS = [6, 4, 1, 5]
KINDS = [layers.Recurrent, layers.Lstm, layers.Gru]


def network(layer, masked=True):
    shapes = {"default": ("T", "B", I), "mask": ("T", "B", 1)}
    inp = layers.Input(shapes if masked else {"default": shapes["default"]})
    inp >> layer
    out = layers.Mask(name="Out") if masked else layers.NoOp(name="Out")
    if masked:
        if "Bidirectional" in layer.layer.layer_type:
            inp - "mask" >> "mask" - layer
        inp - "mask" >> "mask" - out
    layer >> out >> layers.Loss()
    net = Network.from_layer(inp)
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(Gaussian(0.7), seed=1)
    return net


def run(net, x, mask=None):
    data = {"default": x} if mask is None else {"default": x, "mask": mask}
    net.provide_external_data(data)
    net.forward_pass(training_pass=True)
    net.backward_pass()
    return net.get("Out.outputs.default")


def padded():
    x, mask = normal(T, B, I), np.ones((T, B, 1))
    for b, length in enumerate(LENGTHS):
        mask[length:, b] = 0
    return x, mask


@pytest.mark.parametrize("make", KINDS)
def test_it_is_two_layers_that_read_in_both_directions(make):
    x = normal(T, B, I)
    net = network(layers.Bidirectional(make(N), name="L"), masked=False)
    y = run(net, x)
    for prefix, part in (("forward_", y[..., :N]), ("backward_", y[..., N:])):
        names = net.layers["L"].halves[0].parameter_shapes
        values = {n: net.get(f"L.parameters.{prefix}{n}") for n in names}
        seen = x if prefix == "forward_" else x[::-1]
        one = SingleLayer(make(N), {"default": seen}, values).forward()
        expected = one.y[:-1]
        assert np.allclose(part, expected if seen is x else expected[::-1])


@pytest.mark.parametrize("make", KINDS)
def test_sequences_end_where_the_mask_does(make):
    """Each sequence is treated as it is alone, without padding."""
    x, mask = padded()
    net = network(layers.Bidirectional(make(N), name="L"))
    y = run(net, x, mask)
    names = net.layers["L"].parameter_shapes
    gradients = {n: net.get(f"L.gradients.{n}") for n in names}
    dx = net.get("L.input_deltas.default")
    sums = dict.fromkeys(names, 0.0)
    for b, length in enumerate(LENGTHS):
        part = slice(length), slice(b, b + 1)
        alone = run(net, x[part], mask[part])
        assert np.allclose(alone, y[part])
        # The loss is divided by the number of sequences.
        assert np.allclose(net.get("L.input_deltas.default") / B, dx[part])
        assert not dx[length:, b].any()
        sums = {n: sums[n] + net.get(f"L.gradients.{n}") / B for n in names}
    for name in names:
        assert np.allclose(sums[name], gradients[name])


def test_padding_has_no_influence():
    x, mask = padded()
    net = network(layers.Bidirectional(layers.Lstm(N), name="L"))
    y = run(net, x, mask)
    assert np.array_equal(run(net, np.where(mask, x, 1e3), mask), y)
    assert not net.get("L.outputs.default")[4:, 1, N:].any()
    assert net.get("L.internals.lengths")[:, 0].tolist() == LENGTHS


def test_masks_may_have_holes():
    x, mask = padded()
    mask[2, 0] = mask[0, 1] = 0
    net = network(layers.Bidirectional(layers.Gru(N), name="L"))
    run(net, x, mask)
    assert net.get("L.internals.lengths")[:, 0].tolist() == LENGTHS


def test_a_context_is_ignored():
    x = normal(T, B, I)
    net = network(layers.Bidirectional(layers.Lstm(N), name="L"), masked=False)
    y = run(net, x)
    net.forward_pass(context=net.get_context())
    assert np.array_equal(net.get("Out.outputs.default"), y)


def test_it_is_saved(tmp_path):
    x = normal(T, B, I)
    layer = layers.Bidirectional(layers.Lstm(N, peepholes=False), name="L")
    net = network(layer, masked=False)
    y = run(net, x)
    net.save_as_hdf5(tmp_path / "net.hdf5")
    loaded = Network.from_hdf5(tmp_path / "net.hdf5")
    assert get_description(loaded) == get_description(net)
    assert np.array_equal(run(loaded, x), y)


def test_layers_of_it_can_share_their_parameters():
    first = layers.Bidirectional(layers.Lstm(2), name="First")
    second = layers.Bidirectional(layers.Lstm(2), name="Second").share(first)
    inp = layers.Input({"default": ("T", "B", 4)})
    inp >> first >> second >> layers.Loss()
    net = Network.from_layer(inp)
    net.initialize(Gaussian())
    assert net.get("Second.parameters.backward_Rz").any()


def test_reservoirs_stay_frozen():
    for trainable in (False, True):
        both = layers.Bidirectional(layers.Reservoir(3, trainable=trainable))
        net = network(both, masked=False)
        assert net.layers["Bidirectional"].frozen == (
            set() if trainable else set(net.layers["Bidirectional"].parameter_shapes)
        )


@pytest.mark.parametrize("layer", ["Lstm", None, layers.Lstm])
def test_it_needs_a_layer(layer):
    with pytest.raises(LayerValidationError, match="expected a layer, got"):
        layers.Bidirectional(layer)


def test_it_needs_a_layer_that_is_not_wired():
    lstm = layers.Lstm(2)
    layers.Input({"default": ("T", "B", 2)}) >> lstm
    with pytest.raises(LayerValidationError, match="'Lstm' is wired already"):
        layers.Bidirectional(lstm)


@pytest.mark.parametrize("layer", [layers.FullyConnected(3), layers.Dropout()])
def test_it_needs_a_recurrent_layer(layer):
    with pytest.raises(LayerValidationError, match="a recurrent layer as 'layer'"):
        SingleLayer(layers.Bidirectional(layer), {"default": normal(2, 2, 3)})


def test_the_layer_refuses_its_arguments():
    with pytest.raises(LayerValidationError, match="Lstm.*'size'"):
        SingleLayer(layers.Bidirectional(layers.Lstm(0)), {"default": normal(2, 2, 3)})


def test_the_mask_has_one_value_a_step():
    inputs = {"default": normal(2, 2, 3), "mask": normal(2, 2, 3)}
    with pytest.raises(LayerValidationError, match=r"\(T, B, 1\) at input 'mask'"):
        SingleLayer(layers.Bidirectional(layers.Gru(2)), inputs)


def test_unknown_inputs_are_refused():
    inputs = {"default": normal(2, 2, 3), "masks": normal(2, 2, 1)}
    with pytest.raises((LayerValidationError, NetworkValidationError), match="'masks'"):
        SingleLayer(layers.Bidirectional(layers.Gru(2)), inputs)


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("lengths", [None, [0, 2, 3]])
@pytest.mark.parametrize("handler", handler_params())
def test_reversing_steps(handler, lengths, fresh):
    handler = HANDLERS[handler]()
    x, start = normal(3, 3, 5), normal(3, 3, 5, seed=1)
    out = handler.create_from_numpy(start)
    expected = np.zeros_like(x) if fresh else start.copy()
    for b, end in enumerate(lengths or [3] * 3):
        expected[:end, b] += x[:end, b][::-1]
    column = None
    if lengths:
        mask = np.arange(3)[:, None, None] < np.array(lengths)[:, None]
        column = handler.zeros((3, 1))
        handler.sequence_lengths(handler.create_from_numpy(2.0 * mask), column)
        check(handler, column, np.array(lengths)[:, None])
    handler.reverse_steps(handler.create_from_numpy(x), column, out, fresh_out=fresh)
    check(handler, out, expected)

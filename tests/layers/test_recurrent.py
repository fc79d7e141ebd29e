"""What all recurrent layers have in common, and Recurrent itself.

Their derivatives are checked in test_all_layers.py and, more sharply, with the
operations in tests/handlers/test_recurrent_operations.py.
"""

import numpy as np
import pytest

from brainstorm import layers
from brainstorm.handlers import NumpyHandler
from brainstorm.initializers import Gaussian
from brainstorm.structure.network import Network
from brainstorm.utils import LayerValidationError
from tests.layers.single_layer import normal

TIMING = {"timing": [1, 2, 3, 5]}
KINDS = {
    "Recurrent": (lambda name: layers.Recurrent(4, name=name), {}),
    "Lstm": (lambda name: layers.Lstm(4, name=name), {}),
    "Lstm without peepholes": (
        lambda name: layers.Lstm(4, name=name, peepholes=False),
        {},
    ),
    "Clockwork": (lambda name: layers.Clockwork(4, name=name), TIMING),
    "ClockworkLstm": (lambda name: layers.ClockworkLstm(4, name=name), TIMING),
}
SHAPE = (3, 2)  # of the inputs

every_kind = pytest.mark.parametrize("kind", KINDS)


def network(kind, *consumers):
    """A network with a recurrent layer called R."""
    make, parameters = KINDS[kind]
    inp = layers.Input({"default": ("T", "B", *SHAPE)})
    layer = inp >> make("R")
    for consumer in consumers:
        layer >> consumer
    net = Network.from_layer(layer)
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(Gaussian(0.5), R={"default": Gaussian(0.5), **parameters}, seed=1)
    return net


def run(net, x, context=None):
    net.provide_external_data({"default": x})
    net.forward_pass(context=context)
    return net.get("R.outputs.default")[:-1]


def differences(function, values):
    """Central differences of a function of no arguments by each of some values."""
    slopes = np.zeros(values.shape)
    for index in np.ndindex(values.shape):
        centre, results = values[index], []
        for step in (1e-6, -1e-6):
            values[index] = centre + step
            results.append(function())
        values[index] = centre
        slopes[index] = (results[0] - results[1]) / 2e-6
    return slopes


# -- all of them -----------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("start", ["zeros", "carried"])
def test_a_sequence_can_be_cut_anywhere(kind, start):
    net, x = network(kind), normal(12, 3, *SHAPE)
    context = None
    if start == "carried":
        run(net, normal(3, 3, *SHAPE, seed=1))
        context = net.get_context()
    whole = run(net, x, context)
    internals = {n: net.get(f"R.internals.{n}") for n in forward_internals(net)}
    begin, parts = 0, {"y": [], **{n: [] for n in internals}}
    for steps in (5, 4, 3):
        parts["y"].append(run(net, x[begin : begin + steps], context))
        for name in internals:
            parts[name].append(net.get(f"R.internals.{name}")[:-1])
        context, begin = net.get_context(), begin + steps
    close = {"rtol": 0, "atol": 1e-12}
    np.testing.assert_allclose(np.concatenate(parts["y"]), whole, **close)
    for name, values in internals.items():
        np.testing.assert_allclose(np.concatenate(parts[name]), values[:-1], **close)


def forward_internals(net):
    shapes = net.layers["R"].internal_shapes
    return [name for name, s in shapes.items() if not s.is_backward_only]


@every_kind
def test_without_a_context_each_pass_starts_anew(kind):
    net, x = network(kind), normal(4, 2, *SHAPE)
    first = run(net, x)
    np.testing.assert_array_equal(run(net, x), first)


@every_kind
def test_sequences_of_a_batch_are_independent(kind):
    net, x = network(kind), normal(4, 3, *SHAPE)
    together = run(net, x)
    for b in range(3):
        alone = run(net, x[:, b : b + 1])
        np.testing.assert_allclose(together[:, b : b + 1], alone, rtol=0, atol=1e-14)


@every_kind
def test_the_past_has_no_knowledge_of_the_future(kind):
    net, x = network(kind), normal(6, 2, *SHAPE)
    whole = run(net, x)
    np.testing.assert_allclose(run(net, x[:4]), whole[:4], rtol=0, atol=1e-14)


@every_kind
def test_consumers_see_no_carried_state(kind):
    net = network(kind, layers.NoOp(name="N"))
    y = run(net, normal(5, 2, *SHAPE))
    assert net.get("R.outputs.default").shape == (6, 2, 4)
    np.testing.assert_array_equal(net.get("N.inputs.default"), y)


@every_kind
def test_deltas_of_two_consumers_add_up(kind):
    factors = (2.0, -0.5)
    net = network(kind, *(layers.Loss(f) for f in factors))
    alone = network(kind, layers.Loss(sum(factors)))
    for n in (net, alone):
        run(n, normal(5, 2, *SHAPE))
        n.backward_pass()
    for path in ("gradients", "R.input_deltas.default", "R.output_deltas.default"):
        np.testing.assert_allclose(net.get(path), alone.get(path), atol=1e-12)


@every_kind
def test_two_layers_add_their_deltas_to_a_shared_input(kind):
    make, parameters = KINDS[kind]
    inp = layers.Input({"default": ("T", "B", *SHAPE)})
    shared = inp >> layers.FullyConnected(3, "linear", name="F")
    for name in ("R1", "R2"):
        shared >> make(name) >> layers.Loss()
    net = Network.from_layer(inp)
    net.set_handler(NumpyHandler(np.float64))
    init = {"default": Gaussian(0.5), **parameters}
    net.initialize(Gaussian(0.5), R1=init, R2=init, seed=2)
    net.provide_external_data({"default": normal(4, 2, *SHAPE)})

    def total_loss():
        net.forward_pass()
        return net.get_loss_values()["total_loss"]

    total_loss()
    net.backward_pass()
    gradient = net.get("F.gradients.W")
    expected = differences(total_loss, net.buffer.F.parameters.W)
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-5)


@every_kind
def test_deltas_of_the_carried_state_can_be_read(kind):
    net, x = network(kind, layers.Loss()), normal(3, 2, *SHAPE)
    run(net, normal(4, 2, *SHAPE, seed=1))
    context = net.get_context()

    def total_loss(context):
        run(net, x, context)
        return net.get_loss_values()["total_loss"]

    total_loss(context)
    net.backward_pass()
    found = {"R.outputs.default": net.get("R.output_deltas.default")[-1:]}
    if "Ca" in net.layers["R"].internal_shapes:
        found["R.internals.Ca"] = net.get("R.internals.dCa")[-1:]
    for path, deltas in found.items():
        expected = differences(lambda: total_loss(context), context[path])
        np.testing.assert_allclose(deltas, expected, rtol=1e-3, atol=1e-5)
        assert np.abs(expected).max() > 1e-3


@every_kind
def test_output_deltas_stay_what_came_in(kind):
    net = network(kind, layers.Loss())
    run(net, normal(5, 2, *SHAPE))
    net.backward_pass()
    deltas = net.get("R.output_deltas.default")[:-1]
    np.testing.assert_array_equal(deltas, np.full(deltas.shape, 0.5))


@every_kind
def test_running_forward_needs_no_memory_for_backward(kind):
    net = network(kind, layers.Loss())
    run(net, normal(5, 2, *SHAPE))
    for hub, memory in zip(
        net._buffer_manager.hubs, net._buffer_manager.hub_buffers, strict=True
    ):
        assert (memory is None) == hub.is_backward_only


# -- how they are declared -------------------------------------------------------


ARGUMENTS = {
    "Recurrent": layers.Recurrent,
    "Lstm": layers.Lstm,
    "Clockwork": layers.Clockwork,
    "ClockworkLstm": layers.ClockworkLstm,
}


def alone(layer):
    inp = layers.Input({"default": ("T", "B", *SHAPE)})
    return Network.from_layer(inp >> layer).layers[layer.name]


@pytest.mark.parametrize("make", ARGUMENTS.values(), ids=ARGUMENTS)
@pytest.mark.parametrize("size", [0, -3, 2.5, None, "4", (4,)])
def test_bad_sizes_are_refused(make, size):
    with pytest.raises(LayerValidationError, match="'R': expected a positive integer"):
        alone(make(size, name="R"))


@pytest.mark.parametrize("make", ARGUMENTS.values(), ids=ARGUMENTS)
def test_unknown_activations_are_refused(make):
    with pytest.raises(LayerValidationError, match="as 'activation', got 'sine'"):
        alone(make(3, "sine"))


@pytest.mark.parametrize("make", ARGUMENTS.values(), ids=ARGUMENTS)
def test_tanh_is_the_default(make):
    assert alone(make(3)).activation == "tanh"
    assert alone(make(3, "el")).activation == "el"


def test_buffers_of_recurrent():
    layer = alone(layers.Recurrent(4))
    shapes = {n: s.shape for n, s in layer.parameter_shapes.items()}
    assert list(shapes.items()) == [("W", (4, 6)), ("R", (4, 4)), ("bias", (4,))]
    assert list(layer.internal_shapes) == ["Ha", "dHa", "dHb"]
    for structure in (*layer.internal_shapes.values(), layer.out_shapes["default"]):
        assert structure.shape == ("T", "B", 4)
        assert structure.context_size == 1
    backward = [s.is_backward_only for s in layer.internal_shapes.values()]
    assert backward == [False, True, True]


def test_recurrent_is_its_formula():
    net, x = network("Recurrent"), normal(3, 2, *SHAPE)
    y = run(net, x)
    W, R, bias = (net.get(f"R.parameters.{name}") for name in ("W", "R", "bias"))
    before = np.zeros((2, 4))
    for t in range(3):
        h = x[t].reshape(2, 6) @ W.T + before @ R.T + bias
        np.testing.assert_allclose(net.get("R.internals.Ha")[t], h, atol=1e-13)
        np.testing.assert_allclose(y[t], np.tanh(h), atol=1e-13)
        before = y[t]

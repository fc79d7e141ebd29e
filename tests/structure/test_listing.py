import json
import warnings

import numpy as np
import pytest

import brainstorm as bs
from brainstorm import Network, layers
from brainstorm.handlers import DebugHandler, NumpyHandler
from brainstorm.initializers import Gaussian
from brainstorm.layers.base_layer import Layer
from brainstorm.layers.fully_connected_layer import FullyConnectedLayerImpl
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.structure.twins import twin_of
from brainstorm.tools import create_net_from_spec
from brainstorm.training import MomentumStepper
from brainstorm.utils import NetworkValidationError, ValidationError
from tests.handlers.handler_cases import HANDLERS, ComposedHandler, handler_params


def net_of(spec, inputs=4, handler=None):
    net = create_net_from_spec("classification", inputs, 3, spec)
    net.set_handler(handler or NumpyHandler(np.float64, seed=1))
    net.initialize(Gaussian(0.5), seed=1)
    return net


def batch(shape=(4,), steps=1, size=5, seed=0):
    rnd = np.random.RandomState(seed)
    targets = rnd.randint(3, size=(steps, size, 1))
    return {"default": rnd.randn(steps, size, *shape), "targets": targets}


def test_a_perceptron_operation_by_operation():
    net = net_of("F6")
    net.provide_external_data(batch())
    listed = net.program(training_pass=True)
    rows = [(r.pass_name, r.layer, r.operation, r.multiplications) for r in listed]
    projection = "Output_projection"
    assert rows == [
        ("forward", "FullyConnected", "affine", 5 * 4 * 6),
        ("forward", projection, "affine", 5 * 6 * 3),
        ("forward", "Output", "softmax_ce_forward", 0),
        ("forward", "Loss", "sum_t", 0),
        ("forward", "Loss", "mult_st", 0),
        ("backward", "Loss", "fill", 0),
        ("backward", "Output", "softmax_ce_backward", 0),
        ("backward", projection, "affine_backward", 2 * 5 * 6 * 3),
        ("backward", "FullyConnected", "affine_backward", 5 * 4 * 6),  # no dx
    ]
    assert listed.multiplications == 2 * 5 * 4 * 6 + 3 * 5 * 6 * 3
    assert [str(a) for a in listed[0].arguments] == [
        "x: FullyConnected.inputs.default (5, 4)",
        "W: FullyConnected.parameters.W (6, 4)",
        "bias: FullyConnected.parameters.bias (6,)",
        "h: FullyConnected.internals.H (5, 6)",
        "y: FullyConnected.outputs.default (5, 6)",
    ]
    assert listed[0].settings == {"activation": "rel"}
    assert [str(a) for a in listed[-1].arguments] == [
        "x: FullyConnected.inputs.default (5, 4)",
        "W: FullyConnected.parameters.W (6, 4)",
        "h: FullyConnected.internals.H (5, 6)",
        "y: FullyConnected.outputs.default (5, 6)",
        "dy: FullyConnected.output_deltas.default (5, 6)",
        "dh: FullyConnected.internals.dH (5, 6)",
        "dW: FullyConnected.gradients.W (6, 4)",
        "dbias: FullyConnected.gradients.bias (6,)",
    ]


def test_an_evaluation_has_no_backward_pass():
    listed = net_of("F6").program()
    assert {row.pass_name for row in listed} == {"forward"}
    assert listed.multiplications == 4 * 6 + 6 * 3


def test_multiplications_of_a_convolutional_network():
    net = net_of("C2:3 P2s2 F5", (6, 6, 3))
    net.provide_external_data(batch((6, 6, 3)))
    convolution = 5 * (4 * 4 * 2) * (3 * 3 * 3)  # batch, outputs, kernel
    hidden, projection = 5 * (2 * 2 * 2) * 5, 5 * 5 * 3
    # No deltas of the images are wanted.
    expected = 2 * convolution + 3 * hidden + 3 * projection
    assert net.program(training_pass=True).multiplications == expected


@pytest.mark.parametrize(
    ("layer", "gates"),
    [(layers.Recurrent, 1), (layers.Lstm, 4), (layers.Gru, 3)],
    ids=["recurrent", "lstm", "gru"],
)
@pytest.mark.parametrize("name", handler_params("numpy64"))
def test_multiplications_of_recurrent_networks(layer, gates, name):
    inp, out = bs.tools.get_in_out_layers("classification", 4, 3)
    net = Network.from_layer(inp >> layer(6, name="A") >> layer(7, name="B") >> out)
    net.set_handler(HANDLERS[name]())
    net.provide_external_data(batch(steps=3))
    rows = 3 * 5
    a_inputs, a_before = rows * gates * 6 * 4, rows * gates * 6 * 6
    b_inputs, b_before = rows * gates * 7 * 6, rows * gates * 7 * 7
    projection = rows * 7 * 3
    forward = a_inputs + a_before + b_inputs + b_before + projection
    backward = a_inputs + 2 * (a_before + b_inputs + b_before + projection)
    assert net.program().multiplications == forward
    listed = net.program(training_pass=True)
    assert listed.multiplications == forward + backward
    assert "A.parameters" in str(listed)


class CountingHandler(ComposedHandler):
    """Counts the multiplications of its matrix products, of which all else consists."""

    counted = 0

    def dot_mm(self, a, b, out, transa=False, transb=False):
        super().dot_mm(a, b, out, transa, transb)
        CountingHandler.counted += out.size * a.shape[0 if transa else 1]

    def dot_add_mm(self, a, b, out, transa=False, transb=False):
        super().dot_add_mm(a, b, out, transa, transb)
        CountingHandler.counted += out.size * a.shape[0 if transa else 1]


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.FullyConnected(5, "gelu"),
        lambda: layers.Recurrent(5),
        lambda: layers.ClockworkLstm(5),
        lambda: layers.Lstm(5, peepholes=False),
        lambda: layers.Gru(5, initial_state="learned"),
        lambda: layers.Bidirectional(layers.Gru(5)),
        lambda: layers.LayerNorm(),
    ],
    ids=["affine", "rnn", "clockwork", "lstm", "gru", "bidirectional", "norm"],
)
def test_multiplications_are_those_that_are_made(make):
    inp, out = bs.tools.get_in_out_layers("classification", 4, 3)
    net = Network.from_layer(inp >> make() >> layers.Recurrent(4, name="B") >> out)
    net.set_handler(CountingHandler(np.float64))
    net.initialize(1.0)  # also the timing of a clockwork
    net.provide_external_data(batch(steps=3))
    expected = net.program(training_pass=True).multiplications
    CountingHandler.counted = 0
    net.forward_pass(training_pass=True)
    net.backward_pass(all_deltas=False)
    assert CountingHandler.counted == expected


def test_parts_of_buffers_and_several_at_once_have_names():
    net = net_of("L4")
    arguments = {
        a.name: (a.buffer, a.shape)
        for row in net.program()
        if row.layer == "Lstm"
        for a in row.arguments
    }
    assert arguments["weights.W"] == ("Lstm.parameters.Wz ... Wo", (16, 4))
    assert arguments["cells.Ca"] == ("Lstm.internals.Ca", (2, 1, 4))
    (clear,) = (row for row in net.program() if row.operation == "clear")
    assert [str(a) for a in clear.arguments] == [
        "arrays[0]: Lstm.outputs.default (1, 1, 4)",
        "arrays[1]: Lstm.internals.Ca (1, 1, 4)",
    ]


def test_buffers_side_by_side_are_told_apart():
    inp = layers.Input({"default": ("T", "B", 2)})
    one, two = (
        layers.FullyConnected(2, name="One"),
        layers.FullyConnected(3, name="Two"),
    )
    joined = layers.FullyConnected(4, name="Joined")
    inp >> one >> joined
    inp >> two >> joined
    rows = list(Network.from_layer(inp).program())
    arguments = [{a.name: (a.buffer, a.shape) for a in row.arguments} for row in rows]
    named = {row.layer: a for row, a in zip(rows, arguments, strict=True) if "W" in a}
    assert named["One"]["y"][0] == "One.outputs.default"
    assert named["Two"]["y"][0] == "Two.outputs.default"
    assert named["Joined"]["x"] == ("Joined.inputs.default", (1, 5))


@pytest.mark.parametrize("spec", ["F5 B D", "L4", "R4", "C2:3 P2 F5"])
@pytest.mark.parametrize("name", handler_params("numpy32"))
def test_it_lists_what_is_recorded(name, spec):
    """The same operations and leaf calls as in programs that have run."""
    shape = (6, 6, 1) if "C" in spec else (4,)
    net = net_of(spec, shape if "C" in spec else 4, HANDLERS[name]())
    net.provide_external_data(batch(shape))
    listed = net.program(training_pass=True)
    for _ in range(2):  # the first backward pass needs other memory
        net.forward_pass(training_pass=True)
        net.backward_pass(all_deltas=False)
    recorded_at = net._buffer_manager.sized.programs
    programs = [recorded_at[key] for key in sorted(recorded_at, key=_backward_last)]
    recorded = [
        (step.layer, step.operation)
        for program in programs
        for step in program.steps
        if step.operation != "clear"
    ]
    assert recorded == [
        (row.layer, row.operation) for row in listed if row.operation != "clear"
    ]
    assert sum(map(len, programs)) == listed.leaf_calls


def _backward_last(place):
    return place[0][0] == "backward"


def seen(net):
    """All that training can depend on, but for the handler's random numbers."""
    return {
        path: net.get(path)
        for path in (
            *("parameters", "gradients", "BatchNorm.internals.x_hat"),
            *("Dropout.internals.mask", "Output.outputs.predictions"),
        )
    }


def test_nothing_changes(monkeypatch):
    """A training goes on to the bit, and nothing is drawn, computed or recorded."""

    def train(look):
        bs.global_rnd.set_seed(3)
        net = net_of("F6 B D L5", handler=NumpyHandler(np.float64))
        stepper = MomentumStepper(0.1, 0.9)
        stepper.start(net)
        results = []
        for nr in range(4):
            net.provide_external_data(batch(steps=2, seed=nr))
            stepper.context = net.get_context()
            stepper.run()
            if look:
                before, state = seen(net), bs.global_rnd.get_state()
                programs = dict(net._buffer_manager.sized.programs)
                net.program(training_pass=True)
                net.program()
                after = seen(net)
                assert all(np.array_equal(before[p], after[p]) for p in before)
                assert state[2] == bs.global_rnd.get_state()[2]
                assert programs == net._buffer_manager.sized.programs
            results.append((seen(net), net.get_loss_values(), net.get_context()))
        return results, bs.global_rnd.rand(), net.rnd.rand()

    (results, *drawn), (expected, *expected_drawn) = train(True), train(False)
    assert drawn == expected_drawn
    for (arrays, losses, context), (arrays2, losses2, context2) in zip(
        results, expected, strict=True
    ):
        assert losses == losses2
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, arrays2[name])
        for name, array in context.items():
            np.testing.assert_array_equal(array, context2[name])


def test_it_draws_nothing_where_nothing_has_been_drawn():
    """The handler's numbers begin after it as they would have begun before it."""

    def mask(look):
        bs.global_rnd.set_seed(5)
        net = net_of("D", handler=NumpyHandler(np.float64))
        if look:
            net.program(training_pass=True)
        net.provide_external_data(batch())
        net.forward_pass(training_pass=True)
        return net.get("Dropout.internals.mask")

    np.testing.assert_array_equal(mask(True), mask(False))


class NoisyLayerImpl(FullyConnectedLayerImpl):
    """Draws, looks at values, counts its passes; may do something else each time."""

    computes_no_gradients_for = ()

    def setup(self, kwargs, in_shapes):
        self.seen = []
        return super().setup(kwargs, in_shapes)

    def forward_pass(self, buffers, training_pass=True):
        self.seen.append(self.handler.get_numpy_copy(buffers.inputs.default).sum())
        super().forward_pass(buffers, training_pass)
        noise = self.handler.rnd.normal(size=buffers.outputs.default.shape)
        self.handler.copy_to(
            self.handler.create_from_numpy(noise), buffers.outputs.default
        )


class PickyLayerImpl(Layer):
    """Can only work with what has been computed."""

    def setup(self, kwargs, in_shapes):
        return {"default": self.like(in_shapes["default"])}, {}, {}

    def forward_pass(self, buffers, training_pass=True):
        scale = self.handler.get_numpy_copy(buffers.inputs.default).max()
        if not scale > 0:
            raise ValueError("all of it is zero")
        self.handler.mult_st(1 / scale, buffers.inputs.default, buffers.outputs.default)


def own_net(cls, **kwargs):
    inp, out = bs.tools.get_in_out_layers("classification", 4, 3)
    own = ConstructionWrapper.create(cls, name="Own", **kwargs)
    net = Network.from_layer(inp >> layers.FullyConnected(4) >> own >> out)
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(Gaussian(0.5), seed=1)
    return net


def test_layers_that_may_do_something_else_each_time_are_looked_into():
    bs.global_rnd.set_seed(7)
    net = own_net(NoisyLayerImpl, size=6)
    net.provide_external_data(batch())
    net.forward_pass()
    before, own = seen_of_handler(net), list(net.layers["Own"].seen)
    rows = [row for row in net.program() if row.layer == "Own"]
    assert [row.operation for row in rows] == ["affine", "copy_to"]
    assert rows[0].multiplications == 5 * 4 * 6
    assert [a.buffer for a in rows[1].arguments] == ["scratch", "Own.outputs.default"]
    assert net.layers["Own"].seen == own
    assert seen_of_handler(net) == before


def seen_of_handler(net):
    return net.handler.get_random_state()["rnd"]


def test_layers_that_depend_on_values_are_one_operation():
    net = own_net(PickyLayerImpl)
    (row,) = (row for row in net.program() if row.layer == "Own")
    assert (row.operation, row.leaf_calls) == ("forward_pass", 1)
    names = {a.buffer for a in row.arguments}
    assert {"Own.inputs.default", "Own.outputs.default"} <= names


def test_what_was_set_by_hand_counts():
    net = net_of("D")
    net.layers["Dropout"].drop_prob = 0.125
    (row,) = (row for row in net.program(True) if row.operation == "dropout_forward")
    assert row.settings == {"drop_prob": 0.125}


def test_frozen_layers_need_no_backward_pass():
    net = net_of("F6 F5")
    net.set_trainable({"FullyConnected*": False})
    rows = [row for row in net.program(True) if row.pass_name == "backward"]
    assert "FullyConnected" not in {row.layer for row in rows}


def test_deltas_that_somebody_wants_are_listed():
    net = net_of("F6")
    assert "FullyConnected.input_deltas" not in str(net.program(True))
    net.ask_for_deltas()
    assert "FullyConnected.input_deltas" in str(net.program(True))


def test_the_table():
    text = str(net_of("F6").program())
    lines = text.split("\n")
    assert lines[0] == (
        "A step of evaluation with 1 time step of 1 sequence, by NumpyHandler"
    )
    titles = "Pass Layer Operation Argument Buffer Shape Multiplications Calls"
    assert lines[2].split() == titles.split()
    assert lines[4].split() == [
        *("forward", "FullyConnected", "affine", "x", "FullyConnected.inputs.default"),
        *("1", "x", "4", "24", "3"),
    ]
    start = lines[4].index("x ")
    assert [line[start:].split()[0] for line in lines[5:7]] == ["W", "bias"]
    assert lines[-1].split()[:2] == ["All", "42"]
    assert len(set(map(len, lines[2:4]))) == 1


def test_the_table_for_notebooks():
    html = net_of("F6").program()._repr_html_()
    assert html.count("<tr>") == html.count("</tr>") == 2 + 5
    assert "FullyConnected.inputs.default<br>FullyConnected.parameters.W" in html


def test_it_is_a_list_and_becomes_records():
    listed = net_of("C2:3", (6, 6, 1)).program(True)
    assert len(listed) == len(list(listed)) == len(listed.to_records())
    assert [r.layer for r in listed[:1]] == ["Convolution2D"]
    assert listed[:1].multiplications == 4 * 4 * 2 * 9
    record = json.loads(json.dumps(listed.to_records()))[0]
    assert record == {
        "pass": "forward",
        "layer": "Convolution2D",
        "operation": "conv2d_forward_batch",
        "arguments": [
            {
                "name": "inputs",
                "buffer": "Convolution2D.inputs.default",
                "shape": [1, 6, 6, 1],
            },
            {
                "name": "weights",
                "buffer": "Convolution2D.parameters.W",
                "shape": [2, 3, 3, 1],
            },
            {
                "name": "bias",
                "buffer": "Convolution2D.parameters.bias",
                "shape": [2],
            },
            {
                "name": "outputs",
                "buffer": "Convolution2D.outputs.default",
                "shape": [1, 4, 4, 2],
            },
        ],
        "settings": {"padding": 0, "stride": [1, 1], "activation": "rel"},
        "multiplications": 4 * 4 * 2 * 9,
        "leaf_calls": listed[0].leaf_calls,
    }


def test_other_sizes_than_those_of_the_data():
    net = net_of("R5")
    net.provide_external_data(batch(size=2))
    rows = 7 * 3
    count = net.program(time_size=7, batch_size=3).multiplications
    assert count == rows * (5 * 4 + 5 * 5 + 5 * 3)
    assert "7 time steps of 2 sequences" in net.program(time_size=7).title
    assert (net.time_size, net.batch_size) == (1, 2)
    with pytest.raises(ValidationError, match="time_size"):
        net.program(time_size=0)


def test_it_works_on_what_no_pass_could():
    """Nothing is computed: neither zeros nor unset weights are in the way."""
    net = create_net_from_spec("classification", 4, 3, "F5 B")
    net.set_handler(DebugHandler(NumpyHandler(np.float32)))
    net.handler.fill(net.buffer.parameters, float("nan"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(net.program()) > 4


@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_bad_arguments(value):
    with pytest.raises(ValidationError, match="training_pass: expected True or False"):
        net_of("F6").program(training_pass=value)


class ClingingLayerImpl(PickyLayerImpl):
    def __deepcopy__(self, memo):
        raise TypeError("there is only one")


def test_layers_that_can_not_be_copied_are_named():
    net = own_net(ClingingLayerImpl)
    with pytest.raises(NetworkValidationError, match="'Own' can not be copied: there"):
        net.program()


def test_twins_compute_the_same():
    net = net_of("F6 B L5 D")
    twin = twin_of(net)
    for each in (net, twin):
        each.provide_external_data(batch(steps=2))
        each.forward_pass()
    assert net.get_loss_values() == twin.get_loss_values()
    assert not np.shares_memory(net.buffer.parameters, twin.buffer.parameters)

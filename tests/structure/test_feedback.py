"""Feedback, ``r << o``: wiring, running, gradients."""

import itertools
import json
import pickle
import sys

import numpy as np
import pytest

import brainstorm as bs
from brainstorm import layers, tools
from brainstorm.describable import create_from_description, get_description
from brainstorm.handlers import DebugHandler, NumpyHandler
from brainstorm.layers.base_layer import Layer
from brainstorm.structure.buffer_structure import BufferStructure, StructureTemplate
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.structure.network import Network
from brainstorm.utils import (
    LayerValidationError,
    NetworkValidationError,
    UnknownNameError,
    ValidationError,
)
from tests.golden import golden
from tests.handlers.handler_cases import HANDLERS, handler_params


class MixLayerImpl(Layer):
    """Computes ``y = tanh(x W^T + f V^T)``, where f is what is fed back."""

    expected_inputs = {
        "default": StructureTemplate("T", "B", "F"),
        "feedback": StructureTemplate("T", "B", "F"),
    }
    expected_kwargs = ("size",)

    def setup(self, kwargs, in_shapes):
        n = kwargs["size"]
        parameters = {
            name: BufferStructure(n, in_shapes[kind].feature_size)
            for name, kind in (("W", "default"), ("V", "feedback"))
        }
        return {"default": BufferStructure("T", "B", n)}, parameters, {}

    def forward_pass(self, buffers, training_pass=True):
        h, (x, f), y = self.handler, buffers.inputs, buffers.outputs.default
        for t in range(len(x)):
            h.dot_mm(x[t], buffers.parameters.W, y[t], transb=True)
            h.dot_add_mm(f[t], buffers.parameters.V, y[t], transb=True)
            h.tanh(y[t], y[t])

    def backward_pass(self, buffers):
        h, (x, f), y = self.handler, buffers.inputs, buffers.outputs.default
        dx, df = buffers.input_deltas
        deltas = h.zeros(tuple(y.shape[1:]))
        for t in range(len(x)):
            h.tanh_deriv(y[t], y[t], buffers.output_deltas.default[t], deltas)
            h.dot_add_mm(deltas, x[t], buffers.gradients.W, transa=True)
            h.dot_add_mm(deltas, f[t], buffers.gradients.V, transa=True)
            if "default" not in self.unwanted:
                h.dot_add_mm(deltas, buffers.parameters.W, dx[t])
            h.dot_add_mm(deltas, buffers.parameters.V, df[t])


class CumulateLayerImpl(Layer):
    """Computes ``y[t] = x[t] + 0.5 y[t-1]``, as custom recurrent layers do."""

    can_be_stepped = True

    def setup(self, kwargs, in_shapes):
        structure = in_shapes["default"]
        return {"default": BufferStructure(*structure.shape, context_size=1)}, {}, {}

    def forward_pass(self, buffers, training_pass=True):
        x, y = buffers.inputs.default, buffers.outputs.default
        for t in range(len(x)):
            self.handler.mult_st(0.5, y[t - 1], y[t])
            self.handler.add_tt(x[t], y[t], y[t])

    def backward_pass(self, buffers):
        dx, dy = buffers.input_deltas.default, buffers.output_deltas.default
        for t in reversed(range(len(dx))):
            self.handler.add_tt(dy[t], dx[t], dx[t])
            self.handler.mult_add_st(0.5, dy[t], dy[t - 1])


def Mix(size, name):
    return ConstructionWrapper.create(MixLayerImpl, name=name, size=size)


def Dense(size, name, **kwargs):
    return layers.FullyConnected(size, "tanh", name=name, **kwargs)


def reservoir(x):
    r = x >> Dense(3, "Before") >> layers.Recurrent(4, name="R")
    out = r >> Dense(2, "O")
    r << out
    return out


def several(x):
    r = x >> layers.Recurrent(4, name="R")
    g = r >> layers.Gru(3, name="G")
    x >> g
    out = g >> layers.FullyConnected(2, "sigmoid", name="O")
    r << out << g  # the second one adds a connection from g to r
    g << out
    after = out >> layers.Recurrent(3, name="After")
    r >> after
    return after


def self_feedback(x):
    r = x >> layers.Recurrent(4, name="R", initial_state="learned", bias=False)
    r << r
    return r


def feed_forward(x):
    a = x >> Dense(4, "A")
    a << a
    b = a >> layers.Dropout(0.0) >> Dense(3, "B")
    a << b
    return b


def two_loops(x):
    a = x >> layers.Recurrent(4, name="A")
    a << a
    b = x >> layers.Recurrent(3, name="B")
    c = b >> Dense(2, "C")
    b << c
    a >> b
    joined = a >> Dense(3, "Joined")
    b >> joined
    c >> joined
    return joined


def custom(x):
    mix = x >> Mix(3, "M")
    out = (
        mix >> ConstructionWrapper.create(CumulateLayerImpl, name="C") >> Dense(2, "O")
    )
    "feedback" - mix << out
    return out


def shared(x):
    out = reservoir(x)
    return out >> Dense(2, "Q").share(out, "bias")


def frozen(x):
    r = x >> Dense(3, "Before") >> layers.Recurrent(4, name="R", trainable=False)
    out = r >> Dense(2, "O")
    r << out
    return out


KINDS = [reservoir, several, self_feedback, feed_forward, two_loops]
KINDS += [custom, shared, frozen]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda f: f.__name__)


def network(kind, handler=None):
    """A loop, a layer behind it and a loss."""
    inp = layers.Input({"default": ("T", "B", 3), "targets": ("T", "B", 2)})
    error = layers.SquaredError(name="Error")
    kind(inp) >> Dense(2, "Z") >> error
    inp - "targets" >> "targets" - error
    net = Network.from_layer(error - "loss" >> layers.Loss())
    net.set_handler(handler or NumpyHandler(np.float64))
    net.initialize(bs.Gaussian(0.7), seed=2)
    return net


def data(steps, batch=2, seed=0):
    rnd = np.random.RandomState(seed)
    x, t = rnd.randn(steps, batch, 3), rnd.randn(steps, batch, 2)
    return {"default": x, "targets": t}


def run(net, given, **kwargs):
    net.provide_external_data(given)
    net.forward_pass(training_pass=True, **kwargs)
    return net.get_loss_values()["total_loss"]


def small(wire, **inputs):
    """A network of what `wire` makes of an Input."""
    inp = layers.Input(inputs or {"default": ("T", "B", 3)})
    net = Network.from_layer(wire(inp))
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(bs.Gaussian(0.7), seed=2)
    return net


# -- wiring ------------------------------------------------------------------


def test_wiring_gives_the_receiver_and_is_part_of_the_architecture():
    inp = layers.Input({"default": ("T", "B", 3)})
    r = inp >> layers.Recurrent(4, name="R")
    out = r >> layers.FullyConnected(2, "linear", name="O")
    assert (r << out) is r
    net = Network.from_layer(out)
    entry = net.architecture["O"]
    assert entry["@feedback_connections"] == {"default": ["R.default"]}
    assert entry["@outgoing_connections"] == {}
    assert "@feedback_connections" not in net.architecture["R"]
    assert list(net.layers) == ["Input", "R", "O"]
    assert net.layers["R"].in_shapes["default"].shape == ("T", "B", 5)
    again = Network.from_architecture(json.loads(json.dumps(net.architecture)))
    assert again.layers["R"].in_shapes == net.layers["R"].in_shapes


def test_a_connection_made_twice_is_refused():
    a = layers.FullyConnected(2, name="A")
    a << a
    with pytest.raises(NetworkValidationError, match="'A' is connected already"):
        a << a
    with pytest.raises(TypeError):
        a << 3


def test_layers_of_a_loop_run_together():
    """Z, which canonical order puts between them, runs behind, as it needs R."""

    def wire(inp):
        r = inp >> layers.Recurrent(4, name="R")
        r >> layers.Recurrent(2, name="Z")
        inp >> Dense(2, "Y") >> (out := Dense(3, "O"))
        r >> layers.Elementwise("tanh", name="E") >> out
        return r << out

    net = small(wire)
    order = list(net.layers)
    assert sorted(order) == ["E", "Input", "O", "R", "Y", "Z"]
    assert order[:2] == ["Input", "Y"]
    assert order[2:5] == ["R", "E", "O"]


def test_what_is_fed_back_comes_behind_the_other_columns():
    def wire(inp):
        a = inp >> layers.Recurrent(4, name="A")
        return a << (a >> layers.FullyConnected(2, "linear", name="AA"))

    net = small(wire)
    x = data(4)["default"]
    net.predict(x)
    np.testing.assert_array_equal(net.get("A.inputs.default")[..., :3], x)


def test_shapes_are_found_around_the_loop():
    def wire(inp):
        total = layers.Add(name="Sum")
        inp >> "inputs_1" - total
        out = total >> layers.Elementwise("tanh", name="O")
        "inputs_2" - total << out
        return out

    net = small(wire)
    assert net.layers["O"].out_shapes["default"].shape == ("T", "B", 3)


def test_shapes_that_grow_are_refused():
    def wire(inp):
        a = inp >> layers.Elementwise("tanh", name="A")
        return a << a

    with pytest.raises(
        NetworkValidationError, match="depend on themselves: 'A.default'"
    ):
        small(wire)


def test_a_cycle_without_feedback_stays_an_error():
    def wire(inp):
        a = inp >> Dense(3, "A")
        return a >> Dense(3, "B") >> a

    with pytest.raises(NetworkValidationError, match=r"r << o .* cycle: A >> B >> A"):
        small(wire)


def test_feedback_needs_a_path():
    def wire(inp):
        a = inp >> Dense(3, "A")
        b = inp >> Dense(3, "B")
        return a << b

    with pytest.raises(
        NetworkValidationError, match="'A' can not get feedback from 'B'"
    ):
        small(wire)
    with pytest.raises(NetworkValidationError, match="Input layer can not have"):
        small(lambda inp: inp << (inp >> Dense(3, "A")))


def test_names_and_forms_are_checked():
    def wire(source="default", sink="default"):
        def wired(inp):
            a = inp >> Dense(3, "A")
            sink - a << a - source
            return a

        return wired

    with pytest.raises(NetworkValidationError, match="'A' has no output 'no' to feed"):
        small(wire(source="no"))
    with pytest.raises(LayerValidationError, match="'A': expected the inputs"):
        small(wire(sink="no"))
    architecture = small(wire()).architecture
    for wrong in ({"default": "A.default"}, 3, {"default": ["A.b.c"]}):
        changed = {**architecture, "A": {**architecture["A"]}}
        changed["A"]["@feedback_connections"] = wrong
        with pytest.raises(NetworkValidationError, match="'@feedback_connections'"):
            Network.from_architecture(changed)
    changed["A"]["@feedback_connections"] = ["Nobody"]
    with pytest.raises(NetworkValidationError, match="'Nobody', which does not exist"):
        Network.from_architecture(changed)


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.Lstm(3, name="L"),
        lambda: layers.ClockworkLstm(3, name="L"),
        lambda: layers.BatchNorm(name="L"),
        lambda: layers.Delay(2, name="L"),
        lambda: layers.Bidirectional(layers.Recurrent(3), name="L"),
    ],
)
def test_what_can_not_be_in_a_loop_is_refused(make):
    def wire(inp):
        a = inp >> Dense(3, "A")
        return a << (a >> make() >> Dense(3, "B"))

    with pytest.raises(NetworkValidationError, match="'L': .*A >> L >> B.*one by one"):
        small(wire)


def test_outputs_without_time_are_not_fed_back():
    def wire(inp):
        a = inp >> Dense(3, "A")
        return a << (a >> layers.TimePooling() >> Dense(3, "B"))

    with pytest.raises(NetworkValidationError, match="'B' can not be fed back to 'A'"):
        small(wire)


def test_outputs_that_take_no_deltas_are_not_fed_back():
    def wire(output):
        def wired(inp):
            a = inp >> Dense(2, "A")
            error = a >> layers.SquaredError(name="E")
            inp - "targets" >> "targets" - error
            loss = error - "loss" >> layers.Loss()
            a << (loss - "loss" if output == "loss" else error - "predictions")
            return loss

        return wired

    inputs = {"default": ("T", "B", 3), "targets": ("T", "B", 2)}
    with pytest.raises(NetworkValidationError, match="no deltas .* 'predictions'"):
        small(wire("predictions"), **inputs)
    with pytest.raises(NetworkValidationError, match="'loss' .* has no time steps"):
        small(wire("loss"), **inputs)


def test_networks_without_feedback_have_no_mirrors():
    net = small(lambda inp: inp >> layers.Recurrent(4) >> Dense(2, "O"))
    assert all(hub.mirror_of is None for hub in net._buffer_manager.hubs)


# -- running -----------------------------------------------------------------


def by_hand(net, x, forced=None, state=None):
    """What a Recurrent R, with what O feeds back, gives; and what is fed back."""
    W, R, b = (net.get(f"R.parameters.{n}") for n in ("W", "R", "bias"))
    V, c = (net.get(f"O.parameters.{n}") for n in ("W", "bias"))
    h, y = state or (np.zeros((x.shape[1], len(R))), np.zeros((x.shape[1], len(c))))
    found = []
    for t, now in enumerate(x):
        fed_back = y if forced is None else forced[t]
        h = np.tanh(np.hstack([now, fed_back]) @ W.T + h @ R.T + b)
        y = h @ V.T + c
        found.append((h, y, fed_back))
    return [np.array(part) for part in zip(*found, strict=True)]


def echo():
    def wire(inp):
        r = inp >> layers.Recurrent(4, name="R")
        return r << (r >> layers.FullyConnected(2, "linear", name="O"))

    return small(wire)


def test_a_loop_does_what_its_formula_says():
    net, x = echo(), data(6)["default"]
    h, y, fed_back = by_hand(net, x)
    for _ in range(3):  # recorded, replayed
        np.testing.assert_allclose(net.predict(x), y, 1e-12)
        np.testing.assert_allclose(net.get("R.outputs.default")[:-1], h, 1e-12)
        np.testing.assert_allclose(
            net.get("R.inputs.default")[..., 3:], fed_back, 1e-12
        )
        name = "fed_back_default_to_R_default"
        np.testing.assert_allclose(net.get(f"O.internals.{name}"), fed_back, 1e-12)
    assert (net.get("R.outputs.default")[-1] == 0).all()


def test_inner_states_are_those_of_the_steps():
    net, x = echo(), data(5)["default"]
    h, _, fed_back = by_hand(net, x)
    net.provide_external_data({"default": x})
    net.forward_pass()
    before = np.concatenate([np.zeros((1, 2, 4)), h[:-1]])
    W, R, b = (net.get(f"R.parameters.{n}") for n in ("W", "R", "bias"))
    expected = np.concatenate([x, fed_back], axis=2) @ W.T + before @ R.T + b
    np.testing.assert_allclose(net.get("R.internals.Ha")[:-1], expected, 1e-12)


def differences(net, given, context):
    parameters, step = net.buffer.parameters, 1e-6
    slopes = np.empty(parameters.shape)
    for i in range(parameters.size):
        losses = []
        for sign in (1, -1):
            parameters[i] += sign * step
            losses.append(run(net, given, context=context))
            parameters[i] -= sign * step
        slopes[i] = (losses[0] - losses[1]) / (2 * step)
    for layer in net.layers.values():
        for name in layer.frozen:
            hub = net._buffer_manager.hubs[0]
            slopes[slice(*hub.slices[f"{layer.name}.parameters.{name}"])] = 0
    return slopes


@every_kind
@pytest.mark.parametrize("steps", [1, 4])
def test_gradients(kind, steps):
    net, given = network(kind), data(steps)
    run(net, data(3, seed=7))
    context = net.get_context()
    for begin, all_deltas in itertools.product((None, context), (True, False)):
        expected = differences(net, given, begin)
        run(net, given, context=begin)
        net.backward_pass(all_deltas)
        np.testing.assert_allclose(net.get("gradients"), expected, 1e-5, 1e-8)
        assert np.abs(expected).max() > 1e-2


@every_kind
def test_deltas_of_inputs(kind):
    net, given = network(kind), data(4)
    run(net, given)
    net.backward_pass()
    got = net.get("Input.output_deltas.default")
    x, step = given["default"], 1e-6
    for index in np.ndindex(x.shape):
        losses = []
        for sign in (1, -1):
            x[index] += sign * step
            losses.append(run(net, given))
            x[index] -= sign * step
        slope = (losses[0] - losses[1]) / (2 * step)
        np.testing.assert_allclose(got[index], slope, 1e-5, 1e-8)


@every_kind
@pytest.mark.parametrize("name", handler_params("numpy64"))
def test_the_same_on_every_handler(kind, name):
    results = []
    for handler in (NumpyHandler(np.float64), HANDLERS[name]()):
        net = network(kind, handler)
        for steps in (3, 5, 1, 3):  # memory comes and goes
            given = data(steps)
            run(net, given)
            net.backward_pass(all_deltas=steps != 5)
        paths = ["gradients", "Z.outputs.default"]
        paths += [f"{n}.output_deltas.default" for n in net.layers if n != "Error"][
            1:-1
        ]
        results.append(
            [net.get(path) for path in paths] + [*net.get_context().values()]
        )
    for expected, got in zip(*results, strict=True):
        np.testing.assert_allclose(got, expected, 1e-3, 1e-5)


@every_kind
def test_single_steps_are_one_pass_exactly(kind):
    net, given = network(kind), data(5)
    run(net, given)
    whole = net.get("Z.outputs.default")
    end = net.get_context()
    context = None
    for t in range(5):
        run(net, {n: v[t : t + 1] for n, v in given.items()}, context=context)
        context = net.get_context()
        np.testing.assert_array_equal(net.get("Z.outputs.default")[0], whole[t])
    assert set(context) == set(end)
    for name, state in end.items():
        np.testing.assert_array_equal(context[name], state)


def test_the_context_has_what_is_fed_back():
    net, x = echo(), data(6)["default"]
    _, y, _ = by_hand(net, x)
    net.predict(x[:4])
    context = net.get_context()
    np.testing.assert_allclose(context["O.outputs.default"][0], y[3], 1e-12)
    net.provide_external_data({"default": x[4:]})
    net.forward_pass(context=context)
    np.testing.assert_allclose(net.get("O.outputs.default"), y[4:], 1e-12)
    net.forward_pass()  # begins anew
    np.testing.assert_allclose(
        net.get("O.outputs.default"), by_hand(net, x[4:])[1], 1e-12
    )


def test_generating_goes_on():
    net = small(
        lambda inp: (
            (r := inp >> layers.Recurrent(4, name="R"))
            << (r >> layers.FullyConnected(3, "linear", name="O"))
        )
    )
    x = data(4)["default"]
    made = net.generate(3, x, {"O.outputs.default": "default"})
    expected = list(x)
    for _ in range(3):
        expected.append(by_hand(net, np.array(expected))[1][-1])
    np.testing.assert_allclose(made, expected[4:], 1e-10)


def test_replays_call_no_python_for_steps():
    """Longer sequences call more functions of NumPy, but none of Python."""
    net = network(several)
    counts = []
    for steps in (3, 30):
        given, calls = data(steps), []
        for _ in range(3):
            run(net, given)
            net.backward_pass(all_deltas=False)
        sys.setprofile(lambda frame, event, arg, to=calls: to.append(event))
        try:
            net.forward_pass(training_pass=True)
            net.backward_pass(all_deltas=False)
        finally:
            sys.setprofile(None)
        counts.append(calls.count("call"))
    assert counts[0] == counts[1]


# -- forced feedback ---------------------------------------------------------


def test_forced_feedback_replaces_the_outputs():
    net, x = echo(), data(5)["default"]
    values = np.random.RandomState(3).randn(5, 2, 2)
    h, y, _ = by_hand(net, x, forced=values)
    np.testing.assert_allclose(net.predict(x, forced={"R": values}), y, 1e-12)
    np.testing.assert_allclose(
        net.predict(x, batch_size=1, forced={"R.default": values.tolist()}), y, 1e-12
    )
    np.testing.assert_allclose(net.predict(x), by_hand(net, x)[1], 1e-12)
    net.provide_external_data({"default": x})
    net.forward_pass(forced={"R": values})
    np.testing.assert_allclose(net.get("R.outputs.default")[:-1], h, 1e-12)


def test_forcing_what_would_be_fed_back_changes_nothing():
    net, given = network(several), data(5)
    loss = run(net, given)
    path = "internals.fed_back_default_to_R_default"
    fed_back = np.concatenate([net.get(f"{n}.{path}") for n in "GO"], axis=2)
    output = net.get("O.outputs.default")
    shifted = np.concatenate([np.zeros_like(output[:1]), output[:-1]])
    got = net.get("O.internals.fed_back_default_to_G_default")
    np.testing.assert_array_equal(got, shifted)
    for forced in ({"R": fed_back}, {"G": shifted}, {"R": fed_back, "G": shifted}):
        assert run(net, given, forced=forced) == pytest.approx(loss, rel=1e-12)
    assert run(net, given) == loss


@pytest.mark.parametrize("names", [("R",), ("G",), ("R", "G")])
def test_gradients_stop_at_forced_feedback(names):
    net, given = network(several), data(4)
    sizes = {"R": 5, "G": 2}
    forced = {n: np.random.RandomState(4).randn(4, 2, sizes[n]) for n in names}
    run(net, given, forced=forced)
    net.backward_pass()
    got, step, parameters = net.get("gradients"), 1e-6, net.buffer.parameters
    for i in range(parameters.size):
        losses = []
        for sign in (1, -1):
            parameters[i] += sign * step
            losses.append(run(net, given, forced=forced))
            parameters[i] -= sign * step
        slope = (losses[0] - losses[1]) / (2 * step)
        np.testing.assert_allclose(got[i], slope, 1e-5, 1e-8)


def test_wrong_forced_feedback_is_refused():
    net, x = echo(), data(5)["default"]
    expected = net.predict(x)
    good = np.zeros((5, 2, 2))
    for wrong, message in (
        ({"R": good[:4]}, r"shape \(5, 2, 2\) for 'R.default', got \(4, 2, 2\)"),
        ({"R": good[..., :1]}, r"got \(5, 2, 1\)"),
        ({"R": np.zeros((5, 3, 2))}, r"shape \(T, 2, ...\) for 'R', got \(5, 3, 2\)"),
        ({"O": good}, "nothing is fed back to 'O'; choices are: 'R.default'"),
        ({"R.feedback": good}, "nothing is fed back to 'R.feedback'"),
        ([good], "expected a dict"),
    ):
        with pytest.raises((NetworkValidationError, UnknownNameError), match=message):
            net.predict(x, forced=wrong)
    np.testing.assert_array_equal(net.predict(x), expected)


# -- showing, saving, copying --------------------------------------------------


def test_it_is_shown():
    net = network(several)
    info = tools.get_network_info(net)
    assert "<< O" in info
    assert "<< G" in info
    assert "&lt;&lt; O" in net._repr_html_()


def test_drawings_show_it(tmp_path):
    pytest.importorskip("pygraphviz")
    tools.draw_network(network(several), tmp_path / "net.svg")
    assert (tmp_path / "net.svg").read_text().count("stroke-dasharray") == 3


def test_programs_list_the_steps():
    net = network(reservoir)
    listed = net.program(training_pass=True, time_size=3, batch_size=2)
    steps = [row for row in listed if row.operation == "recurrent_forward"]
    assert [row.layer for row in steps] == ["R"] * 3
    names = {a.name: a.buffer for a in steps[1].arguments}
    assert names["y"] == "R.outputs.default"
    assert names["x"] == "R.inputs.default"
    assert listed.multiplications == 3 * (
        net.program(training_pass=True, time_size=1, batch_size=2).multiplications
    )


def test_onnx_export_refuses_it(tmp_path):
    pytest.importorskip("onnx")
    with pytest.raises(ValidationError, match="with feedback can not .* 'R' gets some"):
        tools.export_onnx(echo(), tmp_path / "net.onnx")


def test_files_copies_and_descriptions_keep_it(tmp_path):
    net, given = network(several), data(4)
    loss = run(net, given)
    net.save_as_hdf5(tmp_path / "net.hdf5")
    loaded = Network.from_hdf5(tmp_path / "net.hdf5")
    made = create_from_description(get_description(net))
    assert made.layers["R"].incoming == net.layers["R"].incoming
    for other in (loaded, pickle.loads(pickle.dumps(net))):
        assert run(other, given) == pytest.approx(loss, rel=1e-12)


def test_training_continues_sequences():
    """Trained in pieces with the carried context, as a whole for the forward passes."""
    net = network(reservoir, DebugHandler(NumpyHandler(np.float64)))
    given = data(6)
    outputs = bs.tools.extract(
        net, bs.data_iterators.Undivided(**given), ["Z.outputs.default"]
    )
    run(net, given)
    np.testing.assert_array_equal(
        outputs["Z.outputs.default"], net.get("Z.outputs.default")
    )
    trainer = bs.Trainer(bs.training.SgdStepper(0.05), verbose=False)
    before = run(net, given)
    iterator = bs.data_iterators.Subsequences(bs.data_iterators.Undivided(**given), 2)
    trainer.add_hook(bs.hooks.StopAfterEpoch(5))
    trainer.train(net, iterator)
    assert run(net, given) < before


STEPPED = {
    "recurrent": layers.Recurrent(4, name="L", initial_state="learned"),
    "gru": layers.Gru(4, name="L"),
    "clockwork": layers.Clockwork(4, name="L"),
    "leaky": layers.Leaky(3.0, name="L", learn_tau=True),
    "lif": layers.Lif(3.0, name="L", threshold=0.3),
    "refractory": layers.Lif(3.0, name="L", threshold=0.3, refractory=2, reset="soft"),
    "recurrent lif": layers.RecurrentLif(4, 3.0, name="L", threshold=0.3),
    "layer norm": layers.LayerNorm(name="L"),
    "highway": layers.Elementwise("swish", name="L"),
    "dropout": layers.Dropout(0.0, name="L"),
}


@pytest.mark.parametrize("name", handler_params("numpy32", "composed", "onednn"))
@pytest.mark.parametrize("kind", STEPPED)
def test_steps_are_what_a_whole_sequence_is(kind, name):
    """Feedback that is multiplied by zeros changes nothing, forward and backward."""
    details = STEPPED[kind].layer

    def wire(inp):
        first = inp >> Dense(4, "First")
        middle = ConstructionWrapper.create(
            f"{details.layer_type}LayerImpl", name="L", **details.layer_kwargs
        )
        out = first >> middle >> Dense(2, "O")
        first << out
        return out

    net = network(wire, HANDLERS[name]())
    if kind == "clockwork":
        net.handler.set_from_numpy(net.buffer.L.parameters.timing, [1, 2, 3, 1])
    W = net.get("First.parameters.W")
    W[:, 3:] = 0
    net.handler.set_from_numpy(net.buffer.First.parameters.W, W)
    given, results = data(7), []
    fed_back = np.zeros((7, 2, 2))
    for forced in (None, {"First": fed_back}):
        run(net, given, forced=forced)
        fed_back[:] = net.get("First.inputs.default")[..., 3:]
        net.backward_pass()
        paths = [
            f"L.{c}.{n}"
            for c in ("outputs", "output_deltas")
            for n in net.layers["L"].out_shapes
        ]
        paths += [f"L.internals.{n}" for n in net.layers["L"].internal_shapes]
        paths += ["gradients", "First.input_deltas.default"]
        results.append({path: net.get(path) for path in paths})
        results[-1].update(net.get_context())
    assert np.abs(fed_back).max() > 0.01
    tolerance = 1e-10 if name == "numpy64" else 1e-4
    for path, expected in results[1].items():
        np.testing.assert_allclose(
            results[0][path], expected, tolerance, tolerance, err_msg=path
        )


# -- the numbers of others -----------------------------------------------------


def reservoir_of(z, W, bias):
    """A leaky reservoir of which each part is a layer, with its readout fed back."""
    size, outputs = z["Wrec"].shape[0], z["Wfb"].shape[0]
    inp = layers.Input(
        {"default": ("T", "B", z["x"].shape[2]), "targets": ("T", "B", outputs)}
    )
    tau = -1 / np.log(1 - z["leaky_rate"])
    drive = inp >> Dense(size, "Drive", bias=False)
    r = drive >> layers.Leaky(float(tau), "R", gain="integrate")
    out = r >> layers.FullyConnected(outputs, "linear", name="O")
    drive << out
    drive << r
    error = out >> layers.SquaredError(name="Error")
    inp - "targets" >> "targets" - error
    net = Network.from_layer(error - "loss" >> layers.Loss())
    net.set_handler(NumpyHandler(np.float64))
    weights = np.concatenate([z["Wff"], z["Wfb"], z["Wrec"]]).T
    net.initialize({"Drive": weights, "O": {"W": W.T, "bias": bias}})
    return net


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)


def test_a_reservoir_with_feedback_by_others():
    z = golden("feedback_reservoir")
    net = reservoir_of(z, z["W"], z["b"])
    close(net.predict(z["x"], output_name="O.outputs.default"), z["y"])
    close(net.get("R.outputs.default")[:-1], z["states"])
    close(net.get("Drive.inputs.default")[..., 3:5], z["feedback"])
    forced = {"Drive": np.concatenate([z["feedback"], z["states"] * 0], axis=2)}
    forced["Drive"][1:, :, 2:] = z["states"][:-1]
    close(net.predict(z["x"], output_name="O.outputs.default", forced=forced), z["y"])


def test_force_learning_by_others():
    z = golden("force_feedback")
    net = reservoir_of(z, z["W0"], z["b0"])
    stepper = bs.training.RlsStepper(ridge=1.0)
    stepper.start(net)
    for t in range(len(z["x"])):
        now = slice(t, t + 1)
        net.provide_external_data(
            {"default": z["x"][now], "targets": z["targets"][now]}
        )
        stepper.run()
        stepper.context = net.get_context()
        close(net.get("O.outputs.default")[0], z["output"][t])
        close(net.get("R.outputs.default")[0], z["states"][t])
        close(net.get("O.parameters.W").T, z["W"][t])
        close(net.get("O.parameters.bias"), z["b"][t])
        close(stepper.get_state()["P"], z["P"][t])

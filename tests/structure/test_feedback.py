"""Feedback, ``r << o``: wiring, shapes, what is refused; showing and saving it."""

import json
import pickle

import numpy as np
import pytest

from brainstorm import layers, tools
from brainstorm.describable import create_from_description, get_description
from brainstorm.structure.network import Network
from brainstorm.utils import (
    LayerValidationError,
    NetworkValidationError,
    ValidationError,
)
from tests.structure.loops import (
    Dense,
    data,
    echo,
    network,
    reservoir,
    run,
    several,
    small,
)

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


@pytest.mark.parametrize("make", [layers.Recurrent, layers.Gru, layers.FullyConnected])
def test_layers_without_an_input_for_feedback_take_it_into_their_default_one(make):
    def wire(name):
        def wired(inp):
            a = inp >> make(4, name="A")
            return name - a << (a >> Dense(2, "O"))

        return wired

    nets = [small(wire(name)) for name in ("default", "feedback")]
    assert nets[1].architecture["O"]["@feedback_connections"]["default"] == [
        "A.feedback"
    ]
    x = data(4)["default"]
    expected = nets[0].predict(x)
    np.testing.assert_array_equal(nets[1].predict(x), expected)
    forced = np.random.RandomState(2).randn(4, 2, 2)
    results = [nets[1].predict(x, forced={k: forced}) for k in ("A", "A.feedback")]
    np.testing.assert_array_equal(*results)
    assert np.abs(results[0] - expected).max() > 1e-3


def test_a_connection_made_twice_is_refused():
    a = layers.FullyConnected(2, name="A")
    a << a
    with pytest.raises(NetworkValidationError, match="'A' is connected already"):
        a << a
    with pytest.raises(TypeError):
        a << 3


def test_an_input_is_nothing_to_feed_back():
    lif, r = layers.Lif(name="Lif"), layers.Recurrent(2, name="R")
    with pytest.raises(NetworkValidationError, match="expected Lif - 'membrane'"):
        r << "membrane" - lif
    r << lif - "membrane"


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


@pytest.mark.parametrize(
    "receiver",
    [
        [layers.Lif([2.0, 3.0, 4.0, 5.0, 6.0], name="A")],
        [layers.Elementwise(name="A"), layers.Reshape((5, 1))],
        [layers.Elementwise(name="A"), layers.Leaky([2.0, 3.0, 4.0, 5.0, 6.0])],
    ],
)
def test_layers_may_ask_for_what_they_get_in_the_end(receiver):
    a, *others = receiver
    last = layers.Input({"default": ("T", "B", 3)}) >> a
    for layer in others:
        last = last >> layer
    a << (last >> layers.FullyConnected(2, name="B"))
    assert Network.from_layer(a).layers["A"].out_shapes["default"].feature_size == 5


def test_a_layer_that_asks_for_something_else_is_named():
    a = layers.Input({"default": ("T", "B", 3)}) >> layers.Lif([2.0, 3.0], name="A")
    a << (a >> layers.FullyConnected(2, name="B"))
    with pytest.raises(LayerValidationError, match="'A': expected 5 numbers as 'tau'"):
        Network.from_layer(a)


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
    ("make", "reason"),
    [
        (lambda: layers.Lstm(3, name="L"), "deltas of what it carries"),
        (lambda: layers.ClockworkLstm(3, name="L"), "deltas of what it carries"),
        (lambda: layers.Delay(2, name="L"), "deltas of what it carries"),
        (lambda: layers.BatchNorm(name="L"), "at all time steps"),
        (lambda: layers.Bidirectional(layers.Recurrent(3), name="L"), "at all time"),
    ],
)
def test_what_can_not_be_in_a_loop_is_refused(make, reason):
    def wire(inp):
        a = inp >> Dense(3, "A")
        return a << (a >> make() >> Dense(3, "B"))

    with pytest.raises(NetworkValidationError, match=f"'L': .*A >> L >> B.*{reason}"):
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

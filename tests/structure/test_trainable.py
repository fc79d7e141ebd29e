"""Freezing parameters, and sharing them between layers."""

import numpy as np
import pytest

import brainstorm as bs
from brainstorm import layers, training
from brainstorm.handlers import NumpyHandler
from brainstorm.utils import NetworkValidationError
from brainstorm.value_modifiers import ClipGlobalNorm, ConstrainL2Norm, L2Decay

STEPPERS = [
    training.SgdStepper(0.1),
    training.MomentumStepper(0.1, 0.9),
    training.NesterovStepper(0.1, 0.9),
    training.AdamWStepper(0.1, weight_decay=0.5),
    training.RmsPropStepper(0.1),
    training.AdaDeltaStepper(),
    training.AdaGradStepper(),
]


def as_network(*chain, inputs=4):
    """A network of layers one after the other, with the loss 0.5 y^2."""
    inp = layers.Input({"default": ("T", "B", inputs)})
    last = inp
    for layer in chain:
        last = last >> layer
    last >> layers.L2Decay(name="Half") - "loss" >> layers.Loss()
    net = bs.Network.from_layer(inp)
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(bs.Gaussian(), seed=1)
    x = np.random.RandomState(2).randn(3, 5, inputs)
    net.provide_external_data({"default": x})
    return net


def perceptron(**arguments):
    return as_network(
        layers.FullyConnected(4, "tanh", name="A", **arguments),
        layers.FullyConnected(4, "tanh", name="B"),
        layers.FullyConnected(2, "tanh", name="C"),
    )


def parameters(net):
    return {
        f"{layer}.{name}": net.get(f"{layer}.parameters.{name}")
        for layer in net.layers
        for name in net.layers[layer].parameter_shapes
    }


def changed(net, stepper, steps=3):
    """Names of parameters that some updates change."""
    before = parameters(net)
    stepper.start(net)
    for _ in range(steps):
        stepper.run()
        net.apply_weight_modifiers()
    after = parameters(net)
    return {name for name in before if np.any(before[name] != after[name])}


def gradients(net, all_deltas=True):
    net.forward_pass(training_pass=True)
    net.backward_pass(all_deltas)
    return {name: net.get(name.replace(".", ".gradients.")) for name in parameters(net)}


def check_gradients(net):
    """The gradients against central differences in all parameters."""
    gradients(net)
    exact = net.get("gradients")
    values, expected = net.get("parameters"), []
    for i in range(len(values)):
        losses = []
        for step in (1e-5, -1e-5):
            moved = values.copy()
            moved[i] += step
            net.handler.set_from_numpy(net.buffer.parameters, moved)
            net.forward_pass(training_pass=True)
            losses.append(net.get_loss_values()["total_loss"])
        expected.append((losses[0] - losses[1]) / 2e-5)
    net.handler.set_from_numpy(net.buffer.parameters, values)
    np.testing.assert_allclose(exact, expected, rtol=1e-6, atol=1e-8)


# -- freezing ----------------------------------------------------------------


def test_large_parameters_are_updated_apart(monkeypatch):
    """What follows goes with them; frozen ones are left out."""
    monkeypatch.setattr("brainstorm.structure.trainable._LARGE", 16)
    net = perceptron()
    where = [slice(0, 20), slice(20, 50)]  # A.W, A.bias; B.W, B.bias, C.W, C.bias
    assert net.modifiers.updated_slices == where
    assert net.trained_slices == [slice(0, 50)]
    net.set_trainable(A={"bias": False}, B={"bias": False})
    assert net.modifiers.updated_slices == [
        slice(0, 16),
        slice(20, 36),
        slice(40, 50),
    ]
    stepper = training.SgdStepper(0.5)
    stepper.start(net)
    before = net.get("parameters")
    stepper.run()
    step = net.get("parameters") - before
    np.testing.assert_allclose(step, -0.5 * net.get("gradients"))
    assert np.count_nonzero(step) == 42


@pytest.mark.parametrize("stepper", STEPPERS, ids=lambda s: type(s).__name__)
def test_frozen_parameters_stay(stepper):
    net = perceptron()
    net.set_trainable({"A": False, "C": {"bias": False}})
    net.set_weight_modifiers({"*": {"W": ConstrainL2Norm(0.1)}})
    net.set_gradient_modifiers({"*": {"*": L2Decay(1.0)}})
    assert changed(net, stepper) == {"B.W", "B.bias", "C.W"}


@pytest.mark.parametrize("stepper", STEPPERS, ids=lambda s: type(s).__name__)
def test_the_others_are_trained_as_before(stepper):
    """One layer on top of a fixed one, against that layer alone."""
    net = perceptron()
    net.set_trainable({"A": False, "B": False})
    net.forward_pass()
    features = net.get("B.outputs.default")
    alone = as_network(layers.FullyConnected(2, "tanh", name="C"))
    alone.initialize({"C": {n: net.get(f"C.parameters.{n}") for n in ("W", "bias")}})
    alone.provide_external_data({"default": features})
    changed(net, stepper, 5)
    changed(alone, stepper, 5)
    np.testing.assert_allclose(
        net.get("C.parameters.W"), alone.get("C.parameters.W"), rtol=1e-12
    )


def test_momentum_does_not_outlive_freezing():
    net = perceptron()
    stepper = training.MomentumStepper(0.1, 0.9)
    assert len(changed(net, stepper)) == 6
    net.set_trainable({"B": False})
    assert changed(net, stepper) == {"A.W", "A.bias", "C.W", "C.bias"}
    net.set_trainable(True)
    assert len(changed(net, stepper)) == 6


@pytest.mark.parametrize("all_deltas", [True, False])
def test_gradients_of_frozen_parameters_are_zero(all_deltas):
    net = perceptron()
    free = gradients(net)
    net.set_trainable({"A": False, "C": {"W": False}})
    for name, values in gradients(net, all_deltas).items():
        expected = 0 if name in ("A.W", "A.bias", "C.W") else free[name]
        np.testing.assert_allclose(values, expected, rtol=1e-12)


def test_the_global_norm_is_that_of_the_others():
    net = perceptron()
    net.set_trainable({"A": False})
    free = gradients(net)
    norm = np.sqrt(sum(np.sum(v**2) for v in free.values()))
    net.set_gradient_modifiers(ClipGlobalNorm(norm / 2))
    for name, values in gradients(net).items():
        np.testing.assert_allclose(values, free[name] / 2, rtol=1e-12)


def test_frozen_layers_at_the_bottom_have_no_backward_pass(monkeypatch):
    net = perceptron()
    net.set_trainable({"A": False, "B": False})
    ran = []
    for name, layer in net.layers.items():
        monkeypatch.setattr(
            layer, "backward_pass", lambda buffers, name=name: ran.append(name)
        )
    net.backward_pass(all_deltas=False)
    assert ran == ["Loss", "Half", "C"]
    net.set_trainable(True)
    ran.clear()
    net.backward_pass(all_deltas=False)
    assert ran == ["Loss", "Half", "C", "B", "A"]


def test_everything_frozen():
    net = perceptron()
    net.set_trainable(False)
    assert changed(net, training.AdamStepper()) == set()


def test_at_construction():
    net = perceptron(trainable=False)
    assert net.architecture["A"]["@trainable"] is False
    assert "@trainable" not in net.architecture["B"]
    assert changed(net, training.SgdStepper()) == {"B.W", "B.bias", "C.W", "C.bias"}


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.FullyConnected(3, trainable=False),
        lambda: layers.Recurrent(3, trainable=False),
        lambda: layers.Lstm(3, trainable=False),
        lambda: layers.Clockwork(3, trainable=False),
        lambda: layers.ClockworkLstm(3, trainable=False),
        lambda: layers.BatchNorm(trainable=False),
    ],
)
def test_every_layer_can_be_frozen(make):
    layer = make()
    net = as_network(layers.FullyConnected(3, name="First"), layer)
    net.initialize(bs.Gaussian(), **{layer.name: 1})
    names = {f"{layer.name}.{n}" for n in net.layers[layer.name].parameter_shapes}
    moved = changed(net, training.AdamWStepper()) & names
    # A training pass has statistics of its own.
    assert moved <= {"BatchNorm.mu", "BatchNorm.sigma"}


def test_convolutions_can_be_frozen():
    inp = layers.Input({"default": ("T", "B", 4, 4, 1)})
    inp >> layers.Convolution2D(2, 3, trainable=False) >> layers.Loss()
    net = bs.Network.from_layer(inp)
    net.provide_external_data({"default": np.ones((1, 2, 4, 4, 1))})
    net.initialize(1)
    assert changed(net, training.SgdStepper()) == set()


def test_what_has_no_gradient_does_not_decay():
    net = as_network(layers.Clockwork(3, name="A"), layers.BatchNorm(name="B"))
    net.initialize(bs.Gaussian(), A={"timing": [1, 2, 4]}, B=1)
    changed(net, training.AdamWStepper(0.1, weight_decay=1.0))
    np.testing.assert_array_equal(net.get("A.parameters.timing"), [1, 2, 4])


def test_it_is_saved_and_described(tmp_path):
    net = perceptron()
    given = net.architecture
    net.set_trainable({"A": False, "C": {"bias": False}})
    assert "@trainable" not in given["A"]
    net.save_as_hdf5(tmp_path / "net.hdf5")
    again = bs.Network.from_hdf5(tmp_path / "net.hdf5")
    assert again.architecture["C"]["@trainable"] == {"bias": False}
    again.provide_external_data({"default": net.get_input("default")})
    assert changed(again, training.SgdStepper()) == {"B.W", "B.bias", "C.W"}
    again.set_trainable(True)
    assert bs.get_description(again) == bs.get_description(perceptron())


@pytest.mark.parametrize(
    ("references", "text"),
    [
        ({"X": False}, "'X' matches no parameter"),
        ({"A": 0}, "expected True or False for A.W, got 0"),
        ({"A": False, "*": True}, "several patterns match A.W"),
        ({"A": False, "fallback": False}, "trainable can not have a 'fallback'"),
        ({"A": {"fallback": False}}, "trainable can not have a 'fallback'"),
        ({3: False}, "expected names or patterns of names, got 3"),
        ({"A": {None: False}}, "expected names or patterns of names, got None"),
        ("A", "expected True or False for A.W, got 'A'"),
    ],
)
def test_bad_choices(references, text):
    net = perceptron()
    with pytest.raises(NetworkValidationError, match=text):
        net.set_trainable(references)
    assert len(changed(net, training.SgdStepper())) == 6


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("no", "layer 'A': expected True, False"),
        ({"V": False}, "'A' has no parameter 'V' .* choices are: 'W', 'bias'"),
        ({"W": None}, "layer 'A': expected True, False"),
    ],
)
def test_bad_architectures(value, text):
    architecture = perceptron().architecture
    architecture["A"]["@trainable"] = value
    with pytest.raises(NetworkValidationError, match=text):
        bs.Network.from_architecture(architecture)


# -- sharing -----------------------------------------------------------------


def tied(*names):
    a = layers.FullyConnected(4, "tanh", name="A")
    b = layers.FullyConnected(4, "sigmoid", name="B").share(a, *names)
    return as_network(a, layers.FullyConnected(4, name="Between"), b)


@pytest.mark.parametrize("names", [(), ("W",), ("bias",), ("bias", "W")])
def test_there_is_one_buffer(names):
    net = tied(*names)
    shared = names or ("W", "bias")
    sizes = {"W": 16, "bias": 4}
    assert len(net.get("parameters")) == 60 - sum(sizes[n] for n in shared)
    for name in shared:
        net.handler.fill(net.buffer.A.parameters[name], 7)
        np.testing.assert_array_equal(net.get(f"B.parameters.{name}"), 7)


@pytest.mark.parametrize("names", [(), ("W",), ("bias",)])
def test_gradients_are_summed(names):
    check_gradients(tied(*names))


def test_gradients_are_the_sum_of_those_of_separate_layers():
    net = tied("W")
    apart = as_network(
        layers.FullyConnected(4, "tanh", name="A"),
        layers.FullyConnected(4, name="Between"),
        layers.FullyConnected(4, "sigmoid", name="B"),
    )
    apart.initialize(
        {
            name: {n: net.get(f"{name}.parameters.{n}") for n in ("W", "bias")}
            for name in ("A", "Between", "B")
        }
    )
    for all_deltas in (True, False, True):
        found, expected = gradients(net, all_deltas), gradients(apart)
        total = expected["A.W"] + expected["B.W"]
        np.testing.assert_allclose(found["A.W"], total, rtol=1e-12)
        np.testing.assert_allclose(found["B.W"], total, rtol=1e-12)
        for name in ("A.bias", "B.bias", "Between.W"):
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-12)


@pytest.mark.parametrize("kind", [layers.Lstm, layers.Recurrent])
def test_recurrent_layers(kind):
    a = kind(4, name="A")
    check_gradients(as_network(a, kind(4, name="B").share(a)))


def test_the_owner_can_come_later():
    a, b = layers.FullyConnected(4, name="A"), layers.FullyConnected(4, name="B")
    net = as_network(a.share(b), b)
    check_gradients(net)
    assert changed(net, training.SgdStepper()) == {"A.W", "A.bias", "B.W", "B.bias"}


def test_three_layers():
    a = layers.FullyConnected(4, "tanh", name="A")
    b, c = (layers.FullyConnected(4, "tanh", name=n).share(a) for n in "BC")
    net = as_network(a, b, c)
    assert len(net.get("parameters")) == 20
    check_gradients(net)


def test_freezing_the_owner_freezes_it_everywhere():
    net = tied("W")
    net.set_trainable({"A": False})
    assert changed(net, training.AdamWStepper()) == {
        "B.bias",
        "Between.W",
        "Between.bias",
    }
    net.set_trainable({"B": False})
    assert changed(net, training.AdamWStepper()) == {
        *("A.W", "A.bias", "B.W", "Between.W", "Between.bias")
    }


def test_initializers_and_modifiers_see_the_owner_only():
    net = tied("W")
    net.initialize({"A": 1, "Between": 2, "B": 3})
    assert net.get("B.parameters.W").max() == 1
    assert net.get("B.parameters.bias").max() == 3
    net.set_gradient_modifiers(L2Decay(0.1))
    plain = tied("W")
    plain.initialize({"A": 1, "Between": 2, "B": 3})
    np.testing.assert_allclose(
        gradients(net)["A.W"], gradients(plain)["A.W"] + 0.1, rtol=1e-12
    )
    with pytest.raises(NetworkValidationError, match=r"B\.W' matches no parameter"):
        net.initialize(1, B={"W": 1})


@pytest.mark.parametrize("names", [(), ("W",)])
def test_sharing_is_saved_and_described(names, tmp_path):
    net = tied(*names)
    net.save_as_hdf5(tmp_path / "net.hdf5")
    again = bs.Network.from_hdf5(tmp_path / "net.hdf5")
    assert bs.get_description(again) == bs.get_description(net)
    x = net.get_input("default")
    name = "B.outputs.default"
    np.testing.assert_array_equal(
        again.predict(x, output_name=name), net.predict(x, output_name=name)
    )


def test_shared_parameters_count_once():
    info = bs.tools.get_network_info(tied())
    rows = {line.split()[0]: line for line in info.splitlines() if line}
    assert "40" in rows["All"] or "40" in info


def wrong(architecture, shared):
    architecture["B"]["@shared"] = shared
    return architecture


@pytest.mark.parametrize(
    ("shared", "text"),
    [
        ({"V": "A.W"}, "'B' has no parameter 'V' to share; choices are: 'W', 'bias'"),
        ({"W": "A.V"}, "can not share 'W' with 'A.V'; choices are: 'A.W'"),
        ({"W": "B.W"}, "can not share 'W' with 'B.W'"),
        ({"W": "A.bias"}, r"'W' of the shape \(4, 4\) with 'A.bias' of .* \(4,\)"),
        ("X", "can not share 'W' with 'X.W'"),
        (3, "layer 'B': expected the name of a layer, or a dict"),
        ({"W": 3}, "layer 'B': expected the name of a layer, or a dict"),
    ],
)
def test_bad_sharing(shared, text):
    with pytest.raises(NetworkValidationError, match=text):
        bs.Network.from_architecture(wrong(perceptron().architecture, shared))


def test_bad_wiring():
    a, b = layers.FullyConnected(4, name="A"), layers.FullyConnected(4, name="B")
    with pytest.raises(NetworkValidationError, match=r"not with <Layer: .* A"):
        a.share(a)
    with pytest.raises(NetworkValidationError, match="not with 'B'"):
        a.share("B")
    for wrong in (None, 3, ["W"]):
        with pytest.raises(NetworkValidationError, match="'B': expected names of para"):
            b.share(a, wrong)
    with pytest.raises(
        NetworkValidationError, match="with 'B', which is not connected"
    ):
        as_network(a.share(b))


def test_stacked_parameters_are_shared_together():
    a = layers.Lstm(4, name="A")
    with pytest.raises(NetworkValidationError, match="'B' can share all of its"):
        as_network(a, layers.Lstm(4, name="B").share(a, "Wz"))

"""Using a network: `net.predict(x)` and `net(x)`."""

import h5py
import numpy as np
import pytest

import brainstorm as bs
from brainstorm import layers
from brainstorm.handlers import NumpyHandler
from brainstorm.tools import create_net_from_spec
from brainstorm.utils import BrainstormError, NetworkValidationError, ValidationError


def in_float64(net):
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(bs.Gaussian(), seed=3)
    return net


def classifier(spec="D.5 Ft5"):
    return in_float64(create_net_from_spec("classification", 4, 3, spec))


def values(*shape):
    return np.random.RandomState(1).randn(*shape)


def by_hand(net, x):
    """Softmax of a perceptron with one hidden layer."""
    p = {
        n: net.get(f"{n}.parameters.W") for n in ("FullyConnected", "Output_projection")
    }
    b = {n: net.get(f"{n}.parameters.bias") for n in p}
    h = np.tanh(x @ p["FullyConnected"].T + b["FullyConnected"])
    e = np.exp(h @ p["Output_projection"].T + b["Output_projection"])
    return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("shape", [(1, 4), (7, 4), (250, 4), (1, 7, 4), (3, 7, 4)])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_predictions(shape, batch_size):
    net = classifier()
    net.output_name = None
    x = values(*shape)
    expected = by_hand(net, x)
    predictions = net.predict(x, batch_size=batch_size)
    assert predictions.dtype == np.float64
    np.testing.assert_allclose(predictions, expected, rtol=1e-12)
    np.testing.assert_array_equal(net(x, batch_size), predictions)


def test_no_data():
    net = classifier()
    assert net.predict(np.zeros((0, 4))).shape == (0, 3)
    assert net.predict(np.zeros((5, 0, 4))).shape == (5, 0, 3)


def test_lists_integers_and_files(tmp_path):
    net = classifier()
    x = [[0, 1, 2, 3], [4, 5, 6, 7]]
    expected = by_hand(net, np.array(x))
    np.testing.assert_allclose(net(x), expected)
    with h5py.File(tmp_path / "x.hdf5", "w") as f:
        f["x"] = np.array([x])
        np.testing.assert_allclose(net(f["x"], 1), [expected])
        f["flat"] = np.array(x)
        np.testing.assert_allclose(net(f["flat"], 1), expected)


def test_it_leaves_no_traces():
    net = classifier()
    before = net.get("parameters")
    net(values(30, 4), batch_size=7)
    np.testing.assert_array_equal(net.get("parameters"), before)
    net.provide_external_data(
        {"default": values(1, 2, 4), "targets": np.zeros((1, 2, 1))}
    )
    net.forward_pass()
    np.testing.assert_allclose(
        net.get("Output.outputs.predictions"), by_hand(net, values(1, 2, 4))
    )


def test_images():
    net = in_float64(create_net_from_spec("classification", (6, 6, 2), 3, "C4:3"))
    assert net(values(9, 6, 6, 2), 4).shape == (9, 3)
    assert net(values(1, 9, 6, 6, 2), 4).shape == (1, 9, 3)


def test_sequences_start_from_zero_each():
    net = in_float64(create_net_from_spec("regression", 4, 2, "L3"))
    x = values(6, 5, 4)
    together = net(x)
    assert together.shape == (6, 5, 2)
    for i in range(5):
        np.testing.assert_allclose(net(x[:, i : i + 1])[:, 0], together[:, i])


def test_context_is_cut_off():
    inp = layers.Input({"default": ("T", "B", 4)})
    net = in_float64(bs.Network.from_layer(inp >> layers.Recurrent(3)))
    assert net(values(6, 5, 4)).shape == (6, 5, 3)


def test_output_name():
    net = classifier()
    x = values(5, 4)
    hidden = net.predict(x, output_name="FullyConnected.outputs.default")
    W, b = (
        net.get("FullyConnected.parameters.W"),
        net.get("FullyConnected.parameters.bias"),
    )
    np.testing.assert_allclose(hidden, np.tanh(x @ W.T + b))
    net.output_name = "FullyConnected.outputs.default"
    np.testing.assert_array_equal(net(x), hidden)


def two_inputs():
    inp = layers.Input(
        {"a": ("T", "B", 2), "b": ("T", "B", 2), "targets": ("T", "B", 2)}
    )
    merge, error = layers.Merge(), layers.SquaredError(name="Output")
    inp - "a" >> "inputs_1" - merge
    inp - "b" >> "inputs_2" - merge
    merge >> layers.FullyConnected(2) >> error
    inp - "targets" >> "targets" - error
    error - "loss" >> layers.Loss()
    return in_float64(bs.Network.from_layer(inp))


def test_several_inputs():
    net = two_inputs()
    a, b = values(5, 2), values(5, 4)[:, 2:]
    predictions = net({"a": a, "b": b})
    np.testing.assert_array_equal(
        net({"a": a[None], "b": b[None], "targets": values(1, 5, 2)})[0], predictions
    )
    with pytest.raises(NetworkValidationError, match="inputs 'a', 'b': give a dict"):
        net(a)
    with pytest.raises(KeyError, match="no data for the input 'b'; got 'a'"):
        net({"a": a})
    with pytest.raises(KeyError, match="no input 'c'; choices are: 'a'"):
        net({"a": a, "b": b, "c": b})


def test_a_mask_that_matters_is_asked_for():
    inp = layers.Input({"default": ("T", "B", 2), "mask": ("T", "B", 1)})
    mask = layers.Mask()
    inp >> layers.FullyConnected(2) >> mask
    inp - "mask" >> "mask" - mask
    net = in_float64(bs.Network.from_layer(inp))
    with pytest.raises(NetworkValidationError, match="'default', 'mask': give a dict"):
        net(values(5, 2))
    ones = net({"default": values(5, 2), "mask": np.ones((5, 1))})
    halves = net({"default": values(5, 2), "mask": np.array([1, 0, 1, 0, 1])})
    np.testing.assert_array_equal(halves[::2], ones[::2])
    np.testing.assert_array_equal(halves[1::2], 0)


def test_a_mask_of_the_loss_is_not():
    net = create_net_from_spec("classification", 4, 3, "F3", mask_name="mask")
    assert in_float64(net)(values(5, 4)).shape == (5, 3)


def test_several_outputs():
    inp = layers.Input({"default": ("T", "B", 2)})
    inp >> layers.FullyConnected(2, name="A")
    inp >> layers.FullyConnected(3, name="B")
    net = in_float64(bs.Network.from_layer(inp))
    with pytest.raises(NetworkValidationError, match="found 'A', 'B': say which"):
        net(values(5, 2))
    assert net.predict(values(5, 2), output_name="B.outputs.default").shape == (5, 3)


@pytest.mark.parametrize("shape", [(4,), (5, 3), (2, 5, 3), (1, 2, 5, 4), ()])
def test_bad_shapes(shape):
    with pytest.raises(NetworkValidationError, match="expected data of the shape"):
        classifier()(values(*shape))


@pytest.mark.parametrize(
    ("x", "text"),
    [
        ([[1, 2], [3]], "data for the input 'default' does not form an array"),
        (None, "expected data of the shape"),
        (values(5, 4) * 1j, "data for the input 'default': .* dtype complex"),
        (np.full((5, 4), "a"), "data for the input 'default': .* dtype <U1"),
        (np.full((5, 4), None), "data for the input 'default': .* dtype object"),
        ({"default": values(5, 4), "targets": [[1, 2], [3]]}, "input 'targets' does"),
        ({"default": values(5, 4), "targets": values(2, 1)}, "the input 'targets', T"),
    ],
)
def test_bad_data(x, text):
    net = classifier()
    with pytest.raises(BrainstormError, match=text):
        net.predict(x)
    assert net(values(5, 4)).shape == (5, 3)


def test_sparse_data():
    sparse = pytest.importorskip("scipy.sparse").csr_matrix(np.eye(5, 4))
    with pytest.raises(BrainstormError, match="input 'default' is sparse, a csr_mat"):
        classifier().predict(sparse)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"batch_size": 0}, ValidationError, "batch_size .* at least 1, got 0"),
        ({"batch_size": 1.5}, ValidationError, "batch_size .* whole number.* got 1.5"),
        ({"batch_size": None}, ValidationError, "batch_size .* got None"),
        ({"output_name": ""}, KeyError, "no output ''; choices are: 'Input"),
        ({"output_name": 3}, KeyError, "no output 3; choices are: 'Input"),
        ({"output_name": "a.b.c.d"}, KeyError, "no output 'a.b.c.d'; choices"),
        ({"output_name": "Nope"}, KeyError, "no output 'Nope'; choices are: 'Input"),
        ({"output_name": "Output.inputs.default"}, KeyError, "no output 'Output.inp"),
        ({"output_name": "Loss.outputs.loss"}, NetworkValidationError, "no values for"),
    ],
)
def test_bad_arguments(arguments, error, text):
    net = classifier()
    with pytest.raises(error, match=text):
        net.predict(values(5, 4), **arguments)
    assert net(values(5, 4)).shape == (5, 3)


@pytest.mark.parametrize("sizes", [(1, 10, 5), (1, 5, 10), (1, 10, 15), (2, 10, 10)])
def test_what_is_not_needed_has_the_same_sizes(sizes):
    T, B, nr_targets = sizes
    data = {"default": values(1, B, 4), "targets": np.zeros((T, nr_targets, 1))}
    for batch_size in (5, 100):
        with pytest.raises(NetworkValidationError, match="'targets', T = 1, B = "):
            classifier().predict(data, batch_size)


@pytest.mark.parametrize("name", ["default", "targets"])
def test_closed_files(name, tmp_path):
    data = {"default": values(1, 5, 4), "targets": np.zeros((1, 5, 1))}
    with h5py.File(tmp_path / "data.hdf5", "w") as f:
        f[name] = data[name]
        data[name] = f[name]
    net = classifier()
    for use in (
        lambda: net.predict(data),
        lambda: net.provide_external_data(data),
        lambda: bs.Trainer.fit(net, data, epochs=1),
    ):
        with pytest.raises(NetworkValidationError, match=f"{name!r} is closed"):
            use()
    assert net.predict(values(5, 4)).shape == (5, 3)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: layers.TimePooling("mean", "Last"), ("B", 2)),
        (lambda: layers.Mask("Last"), ("T", "B", 2)),
        (lambda: layers.Bidirectional(layers.Recurrent(1, "sigmoid"), "Last"), None),
    ],
)
def test_a_layer_with_a_mask_may_be_what_is_compared(make, shape):
    shapes = {"default": ("T", "B", 3), "targets": shape or ("T", "B", 2)}
    inp = layers.Input({**shapes, "mask": ("T", "B", 1)})
    last, error = make(), layers.BinomialCrossEntropy()
    inp >> layers.FullyConnected(2, "sigmoid") >> last >> error >> layers.Loss()
    inp - "mask" >> "mask" - last
    inp - "targets" >> "targets" - error
    net = bs.Network.from_layer(inp)
    net.initialize(bs.Gaussian(0.1))
    data = {"default": values(4, 5, 3), "mask": np.ones((4, 5, 1))}
    predicted = net.predict(data)
    assert predicted.shape == ((5, 2) if shape == ("B", 2) else (4, 5, 2))
    np.testing.assert_array_equal(
        predicted, net.predict(data, 100, "Last.outputs.default")
    )

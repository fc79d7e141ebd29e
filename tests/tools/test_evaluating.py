import h5py
import numpy as np
import pytest

import brainstorm as bs
from brainstorm import layers
from brainstorm.data_iterators import DataIterator, Minibatches, Undivided
from brainstorm.handlers import NumpyHandler
from brainstorm.scorers import Accuracy, MeanSquaredError
from brainstorm.tools import (
    create_net_from_spec,
    evaluate,
    extract,
    extract_and_save,
    get_in_out_layers,
)
from brainstorm.utils import (
    IteratorValidationError,
    NetworkValidationError,
    ValidationError,
)

PREDICTIONS = "Output.outputs.predictions"


def linear_net(mask_name=None):
    """Predictions are x W' + b, the loss is 0.5 (x W' + b - t)^2."""
    inp, out = get_in_out_layers(
        "regression", 3, 2, projection_name="Fc", mask_name=mask_name
    )
    net = bs.Network.from_layer(inp >> out)
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(bs.Gaussian(1), seed=1)
    return net


def predictions(net, x):
    return x @ net.get("Fc.parameters.W").T + net.get("Fc.parameters.bias")


def data(T=1, B=10, seed=0):
    rnd = np.random.RandomState(seed)
    return {"default": rnd.randn(T, B, 3), "targets": rnd.randn(T, B, 2)}


def ragged(lengths, T=5):
    """Sequences of different lengths with their mask, batches of 3."""
    mask = np.zeros((T, len(lengths), 1))
    for i, length in enumerate(lengths):
        mask[:length, i] = 1
    return {**data(T, len(lengths)), "mask": mask}


# -- evaluate ----------------------------------------------------------------


def test_losses_and_scores_are_means_over_all_sequences():
    net, d = linear_net(), data()
    squares = 0.5 * (predictions(net, d["default"]) - d["targets"]) ** 2
    scores = evaluate(
        net, Minibatches(4, **d), [MeanSquaredError()], out_name=PREDICTIONS
    )
    expected = squares.sum() / 10
    assert scores == pytest.approx(
        {"total_loss": expected, "MeanSquaredError": expected}
    )


def test_evaluating_without_scorers_gives_the_loss():
    net, d = linear_net(), data()
    squares = 0.5 * (predictions(net, d["default"]) - d["targets"]) ** 2
    scores = evaluate(net, Undivided(**d))
    assert scores == {"total_loss": pytest.approx(squares.sum() / 10)}


def test_output_name_of_the_network_is_the_default():
    net = linear_net()
    net.output_name = PREDICTIONS
    scores = evaluate(net, Undivided(**data()), [MeanSquaredError()])
    assert scores["MeanSquaredError"] > 0


def test_masked_steps_of_cut_sequences_do_not_count():
    net, d = linear_net("mask"), ragged([1, 3, 2, 4, 1, 2, 3])
    squares = 0.5 * (predictions(net, d["default"]) - d["targets"]) ** 2 * d["mask"]
    scores = evaluate(
        net, Minibatches(3, **d), [MeanSquaredError()], PREDICTIONS, "targets", "mask"
    )
    assert scores["total_loss"] == pytest.approx(squares.sum() / 7)
    assert scores["MeanSquaredError"] == pytest.approx(squares.sum() / 16)


def test_targets_can_have_another_name():
    inp, out = get_in_out_layers("classification", 3, 2, targets_name="classes")
    net = bs.Network.from_layer(inp >> out)
    net.set_handler(NumpyHandler(np.float64))
    net.initialize({"Output_projection": {"W": np.eye(2, 3), "bias": 0}})
    x = np.array([[[1, 0, 9], [0, 1, 9], [5, 1, 9], [1, 5, 9.0]]])
    classes = np.array([0, 1, 1, 1]).reshape(1, 4, 1)
    iterator = Undivided(default=x, classes=classes)
    scores = evaluate(net, iterator, [Accuracy()], PREDICTIONS, targets_name="classes")
    assert scores["Accuracy"] == 0.75


def test_what_is_evaluated_is_checked_first():
    net = linear_net()
    with pytest.raises(IteratorValidationError, match=r"iter provides .*'default'"):
        evaluate(net, Undivided(default=data()["default"]))
    with pytest.raises(IteratorValidationError, match="expected a data iterator"):
        evaluate(net, data())
    with pytest.raises(ValidationError, match="list of scorers"):
        evaluate(net, Undivided(**data()), MeanSquaredError())
    with pytest.raises(KeyError, match="'predictions', 'loss'"):
        evaluate(net, Undivided(**data()), [MeanSquaredError()], "Output.outputs.foo")


# -- extract -----------------------------------------------------------------


def test_batches_are_put_together_in_their_order():
    net, d = linear_net(), data(T=2, B=10)
    found = extract(
        net,
        Minibatches(4, shuffle=False, **d),
        [PREDICTIONS, "Fc.inputs.default", "Output.internals.diff"],
    )
    expected = predictions(net, d["default"])
    np.testing.assert_allclose(found[PREDICTIONS], expected)
    np.testing.assert_array_equal(found["Fc.inputs.default"], d["default"])
    np.testing.assert_allclose(
        found["Output.internals.diff"], expected - d["targets"], atol=1e-12
    )
    assert list(found) == [PREDICTIONS, "Fc.inputs.default", "Output.internals.diff"]
    assert found[PREDICTIONS].dtype == np.float64


def test_images_keep_their_shape():
    net = create_net_from_spec("classification", (6, 5, 2), 3, "C4:3")
    x = np.random.RandomState(0).randn(2, 7, 6, 5, 2)
    path = "Convolution2D.outputs.default"
    found = extract(net, Minibatches(3, shuffle=False, default=x), [path])
    assert found[path].shape == (2, 7, 4, 3, 4)


def test_inputs_that_are_not_provided_are_zero():
    net, d = linear_net(), data()
    evaluate(net, Undivided(**d))  # leaves its targets in the network
    path = "Output.internals.diff"
    found = extract(
        net, Undivided(default=d["default"]), [path, "Input.outputs.targets"]
    )
    np.testing.assert_allclose(found[path], predictions(net, d["default"]))
    assert not found["Input.outputs.targets"].any()


def test_classes_need_not_be_provided():
    net = create_net_from_spec("classification", 3, 4, "F5")
    evaluate(net, Undivided(default=np.ones((1, 6, 3)), targets=np.full((1, 6, 1), 3)))
    found = extract(net, Undivided(default=np.ones((1, 6, 3))), [PREDICTIONS])
    np.testing.assert_allclose(found[PREDICTIONS].sum(axis=2), 1, rtol=1e-5)


def test_cut_sequences_are_filled_up_with_zeros():
    lengths = [1, 2, 1, 4, 1, 2, 3]
    net, d = linear_net("mask"), ragged(lengths)
    found = extract(net, Minibatches(3, shuffle=False, **d), [PREDICTIONS])[PREDICTIONS]
    expected = predictions(net, d["default"])
    assert found.shape == (4, 7, 2)  # the longest sequence has 4 of 5 steps
    for start, steps in ((0, 2), (3, 4), (6, 3)):
        batch = slice(start, start + 3)
        np.testing.assert_allclose(found[:steps, batch], expected[:steps, batch])
        assert not found[steps:, batch].any()


def test_carried_state_is_left_out():
    net = create_net_from_spec("regression", 3, 2, "R4")
    net.set_handler(NumpyHandler(np.float64))
    x = data(T=5, B=6)["default"]
    found = extract(
        net,
        Minibatches(4, shuffle=False, default=x),
        ["Recurrent.outputs.default", "Recurrent.internals.Ha"],
    )
    W, R, bias = (net.get(f"Recurrent.parameters.{n}") for n in ("W", "R", "bias"))
    y, a = np.zeros((6, 6, 4)), np.zeros((5, 6, 4))
    for t in range(5):
        a[t] = x[t] @ W.T + y[t - 1] @ R.T + bias
        y[t] = np.tanh(a[t])
    np.testing.assert_allclose(found["Recurrent.outputs.default"], y[:5])
    np.testing.assert_allclose(found["Recurrent.internals.Ha"], a)


class StaticBatches(DataIterator):
    """Two batches of 3 and 1 sequences with an input that has no time."""

    def __init__(self):
        super().__init__({"default": (2, 4, 3), "static": (4, 5)}, 2)

    def __call__(self, handler):
        for size in (3, 1):
            yield {
                "default": np.full((2, size, 3), 7.0),
                "static": np.arange(size * 5.0).reshape(size, 5) + size,
            }


def test_buffers_without_time(tmp_path):
    inp = layers.Input({"default": ("T", "B", 3), "static": ("B", 5)})
    inp >> layers.Loss(name="Loss1")
    inp - "static" >> layers.Loss(name="Loss2")
    net = bs.Network.from_layer(inp)
    paths = ["Loss2.inputs.default", "Loss1.inputs.default"]
    found = extract(net, StaticBatches(), paths)
    expected = np.vstack([np.arange(15).reshape(3, 5) + 3, np.arange(5) + 1])
    np.testing.assert_array_equal(found["Loss2.inputs.default"], expected)
    assert found["Loss1.inputs.default"].shape == (2, 4, 3)
    extract_and_save(net, StaticBatches(), paths, tmp_path / "buffers.hdf5")
    with h5py.File(tmp_path / "buffers.hdf5") as f:
        np.testing.assert_array_equal(f["Loss2.inputs.default"], expected)


@pytest.mark.parametrize(
    ("path", "exception", "words"),
    [
        ("Output.outputs.probabilities", KeyError, ["'predictions', 'loss'"]),
        ("Hid.outputs.default", KeyError, ["'Hid'", "'Fc'"]),
        ("Fc.outputs", KeyError, ["'Fc.outputs'", "'default'"]),
        ("Fc.parameters.W", ValidationError, ["'Fc.parameters.W'", "'outputs'"]),
        ("parameters", ValidationError, ["'parameters'", "'outputs'"]),
        ("Loss.outputs.loss", ValidationError, ["single sequences"]),
    ],
)
def test_bad_paths(path, exception, words):
    with pytest.raises(exception) as error:
        extract(linear_net(), Undivided(**data()), [PREDICTIONS, path])
    for word in words:
        assert word in str(error.value)


def test_only_backward_passes_fill_some_buffers():
    net = create_net_from_spec("classification", 3, 2, "F5")
    d = {**data(), "targets": np.zeros((1, 10, 1))}
    with pytest.raises(ValidationError, match="only backward passes"):
        extract(net, Undivided(**d), ["Output.internals.t_bin"])


def test_one_path_needs_no_list(tmp_path):
    net, d = linear_net(), data()
    found = extract(net, Undivided(**d), PREDICTIONS)
    np.testing.assert_allclose(
        found[PREDICTIONS], predictions(net, d["default"]), atol=1e-12
    )
    assert list(found) == [PREDICTIONS]
    extract_and_save(net, Undivided(**d), PREDICTIONS, tmp_path / "buffers.hdf5")
    with h5py.File(tmp_path / "buffers.hdf5") as f:
        np.testing.assert_array_equal(f[PREDICTIONS], found[PREDICTIONS])


def test_items_that_are_no_inputs_are_left_out():
    net, d = linear_net(), data()
    more = Minibatches(4, shuffle=False, names=np.zeros((1, 10, 7)), **d)
    expected = evaluate(net, Undivided(**d))
    assert evaluate(net, more) == pytest.approx(expected)
    trainer = bs.Trainer(bs.training.SgdStepper(), verbose=False)
    assert trainer.evaluate(net, more=more)["more"] == pytest.approx(expected)
    assert extract(net, more, PREDICTIONS)[PREDICTIONS].shape == (1, 10, 2)
    assert [*bs.training.utils.run_network(net, more)] == [0, 1, 2]
    with pytest.raises(IteratorValidationError, match="provides 'default', 'names'"):
        trainer.train(net, more)


def test_other_bad_arguments():
    net, d = linear_net(), data()
    with pytest.raises(KeyError, match="'Fc.outputs'"):
        extract(net, Undivided(**d), "Fc.outputs")
    with pytest.raises(ValidationError, match="buffer_names: expected at least one"):
        extract(net, Undivided(**d), [])
    with pytest.raises(IteratorValidationError, match=r"iter: expected .*, got dict"):
        extract(net, d, [PREDICTIONS])
    with pytest.raises(IteratorValidationError, match="iter provides no batches"):
        extract(net, lambda handler: [], [PREDICTIONS])
    with pytest.raises(NetworkValidationError, match="no input 'foo'"):
        extract(net, Undivided(foo=d["default"]), [PREDICTIONS])


# -- extract_and_save --------------------------------------------------------


@pytest.mark.parametrize("lengths", [[1, 2, 1, 4, 1, 2, 3], [4, 1, 1, 2, 5, 1, 1]])
def test_file_has_what_extract_returns(tmp_path, lengths):
    net, d = linear_net("mask"), ragged(lengths)
    paths = [PREDICTIONS, "Fc.outputs.default", "Input.outputs.mask"]
    file_name = tmp_path / "buffers.hdf5"
    extract_and_save(net, Minibatches(3, shuffle=False, **d), paths, file_name)
    expected = extract(net, Minibatches(3, shuffle=False, **d), paths)
    with h5py.File(file_name) as f:
        assert f.attrs["format"] == b"Buffers file v1.0"
        assert sorted(f) == sorted(paths)
        for path in paths:
            np.testing.assert_array_equal(f[path], expected[path])
            assert f[path].dtype == np.float64


def test_failing_extraction_leaves_the_old_file(tmp_path):
    file_name = tmp_path / "buffers.hdf5"
    net, d = linear_net(), data()
    extract_and_save(net, Undivided(**d), [PREDICTIONS], file_name)
    before = file_name.read_bytes()

    def batches(handler):
        yield d
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="on fire"):
        extract_and_save(net, batches, [PREDICTIONS], file_name)
    assert file_name.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file_name]


def test_folder_has_to_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        extract_and_save(
            linear_net(), Undivided(**data()), [PREDICTIONS], tmp_path / "no" / "b.hdf5"
        )


# -- what is computed when it is read ----------------------------------------


@pytest.mark.parametrize("cuts", [False, True])
def test_weights_of_attention_are_extracted(tmp_path, cuts):
    inp = layers.Input({"default": ("T", "B", 3), "mask": ("T", "B", 1)})
    net = bs.Network.from_layer(inp >> layers.Attention(4, heads=2, name="A"))
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(bs.Gaussian(1), seed=1)
    lengths = [5, 5, 3, 2, 5]
    d = ragged(lengths)
    name, file = "A.internals.weights", tmp_path / "weights.hdf5"
    batches = Minibatches(2, False, cut_according_to="mask" if cuts else None, **d)
    weights = extract(net, batches, name)[name]
    assert weights.shape == (5, 5, 2, 5)
    extract_and_save(net, batches, name, file)
    with h5py.File(file) as f:
        np.testing.assert_array_equal(f[name], weights)
    x = d["default"]
    W = {n: net.get(f"A.parameters.{n}") for n in ("Wq", "Wk", "bq", "bk")}
    expected = np.zeros((5, 5, 2, 5))
    for b, length in enumerate([5, 5, 3, 3, 5] if cuts else [5] * 5):
        q, k = x[:length, b] @ W["Wq"].T + W["bq"], x[:length, b] @ W["Wk"].T + W["bk"]
        for head in range(2):
            half = slice(2 * head, 2 * head + 2)
            e = np.exp(q[:, half] @ k[:, half].T / np.sqrt(2))
            expected[:length, b, head, :length] = e / e.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(weights, expected, rtol=1e-10, atol=1e-14)

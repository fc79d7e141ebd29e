"""Averages of the parameters."""

import numpy as np
import pytest

from brainstorm import Network, Trainer, hooks, layers
from brainstorm.data_iterators import Minibatches
from brainstorm.describable import create_from_description, get_description
from brainstorm.training import SgdStepper
from brainstorm.utils import ValidationError


def data():
    rnd = np.random.RandomState(0)
    x, t = rnd.randn(1, 6, 3), rnd.randn(1, 6, 2)
    return Minibatches(2, shuffle=False, default=x, targets=t)


class Recorder(hooks.Hook):
    """Keeps the parameters after each update, or epoch."""

    def __init__(self, timescale):
        super().__init__("recorder", timescale)
        self.found = []

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        if update_nr:
            self.found.append(net.get("parameters").copy())


def train(net, *added, epochs=4):
    trainer = Trainer(SgdStepper(0.1), verbose=False)
    for hook in (*added, hooks.StopAfterEpoch(epochs)):
        trainer.add_hook(hook)
    trainer.train(net, data())
    return trainer


@pytest.mark.parametrize("timescale", ["update", "epoch"])
@pytest.mark.parametrize("begin", [0, 2])
def test_formulas(net, timescale, begin):
    ema = hooks.AveragedWeights("ema", 0.7, begin, timescale, name="ema")
    swa = hooks.AveragedWeights("swa", begin=begin, timescale=timescale, name="swa")
    recorder = Recorder(timescale)
    train(net, recorder, ema, swa)
    found = recorder.found[begin:]
    expected = found[0]
    for p in found[1:]:
        expected = 0.7 * expected + 0.3 * p
    np.testing.assert_allclose(ema.average, expected, rtol=1e-12)
    np.testing.assert_allclose(swa.average, np.mean(found, 0), rtol=1e-12)
    assert ema.count == swa.count == len(found)
    np.testing.assert_array_equal(net.get("parameters"), recorder.found[-1])


def test_networks_use_them_for_a_while(net):
    hook = hooks.AveragedWeights("swa")
    train(net, hook)
    last, x = net.get("parameters").copy(), np.ones((1, 1, 3))
    outputs = net.predict(x).copy()
    with hook.in_use(net):
        np.testing.assert_array_equal(net.get("parameters"), hook.average)
        assert not np.allclose(net.predict(x), outputs)
    np.testing.assert_array_equal(net.get("parameters"), last)
    with pytest.raises(KeyboardInterrupt), hook.in_use(net):
        raise KeyboardInterrupt
    np.testing.assert_array_equal(net.get("parameters"), last)
    hook.put_into(net)
    np.testing.assert_array_equal(net.get("parameters"), hook.average)


def test_evaluating_and_saving_with_them(net, tmp_path):
    hook = hooks.AveragedWeights("ema", 0.5)
    trainer = train(net, hook)
    average, plain = hook.average.copy(), trainer.evaluate(net, test=data())
    with hook.in_use(net):
        found = trainer.evaluate(net, test=data())
        net.save_as_hdf5(tmp_path / "net.hdf5")
    assert found != plain
    np.testing.assert_array_equal(hook.average, average)
    saved = Network.from_hdf5(tmp_path / "net.hdf5")
    np.testing.assert_allclose(saved.get("parameters"), average, rtol=1e-6)


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_resumed_trainings_have_the_same(net, tmp_path, kind):
    start = net.get("parameters").copy()
    whole = hooks.AveragedWeights(kind, 0.8, 1)
    train(net, whole, epochs=5)
    net.handler.set_from_numpy(net.buffer.parameters, start)
    half = train(net, hooks.AveragedWeights(kind, 0.8, 1), epochs=2)
    half.save(tmp_path / "half.hdf5")
    hook = hooks.AveragedWeights(kind, 0.8, 1)
    stop = hooks.StopAfterEpoch(5)
    again, other = Trainer.load(tmp_path / "half.hdf5", hooks=[hook, stop])
    other.set_handler(net.handler)
    again.train(other, data())
    np.testing.assert_array_equal(hook.average, whole.average)
    assert hook.count == whole.count


def test_description():
    hook = hooks.AveragedWeights("swa", begin=3, timescale="epoch", interval=2)
    again = create_from_description(get_description(hook))
    names = "kind", "begin", "timescale", "interval", "decay"
    assert [getattr(again, n) for n in names] == ["swa", 3, "epoch", 2, 0.999]
    assert get_description(hooks.AveragedWeights())["@type"] == "AveragedWeights"


def test_errors(net):
    hook = hooks.AveragedWeights(begin=99)
    train(net, hook)
    with pytest.raises(ValidationError, match="nothing has been averaged.*update 99"):
        hook.put_into(net)
    with pytest.raises(ValidationError, match="nothing has been averaged"):
        hook.in_use(net).__enter__()
    hook = hooks.AveragedWeights()
    train(net, hook)
    inp = layers.Input({"default": ("T", "B", 1)})
    other = Network.from_layer(inp >> layers.FullyConnected(1))
    with pytest.raises(ValidationError, match="with 8 parameters.*got one with 2"):
        hook.put_into(other)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"kind": "mean"}, "kind has to be 'ema' or 'swa', not 'mean'"),
        ({"decay": 1}, "decay"),
        ({"decay": "a"}, "decay"),
        ({"begin": -1}, "begin has to be an integer of at least 0"),
        ({"begin": 0.5}, "begin"),
        ({"timescale": "day"}, "timescale"),
    ],
)
def test_bad_arguments(arguments, text):
    with pytest.raises(ValidationError, match=f"AveragedWeights: {text}"):
        hooks.AveragedWeights(**arguments)

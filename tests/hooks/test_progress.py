import io
import re
import sys

import pytest

from brainstorm.data_iterators import Minibatches, Undivided
from brainstorm.hooks import (
    Hook,
    MonitorLoss,
    ProgressBar,
    SaveCheckpoint,
    StopAfterEpoch,
)
from brainstorm.training import SgdStepper, Trainer


class Terminal(io.StringIO):
    def isatty(self):
        return True


class StopAt(Hook):
    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        if update_nr == 2:
            raise StopIteration


@pytest.fixture
def terminal():
    return Terminal()


@pytest.fixture
def pretend(monkeypatch, terminal):
    """To be called in the test: pytest exchanges the streams after the set-up."""
    return lambda: monkeypatch.setattr(sys, "stderr", terminal)


def train(net, batches, *hooks, verbose=True):
    trainer = Trainer(SgdStepper(0.1), verbose=verbose)
    for hook in hooks:
        trainer.add_hook(hook)
    trainer.train(net, batches)
    return trainer


def states(text):
    """Epoch, updates done and updates in all, for each time the bar was drawn."""
    drawn = re.findall(r"Epoch (\d+):.*?\| (\d+)/(\d+)", text.replace("\r", "\n"))
    return [tuple(map(int, state)) for state in drawn]


def test_each_epoch_fills_a_bar(net, batches, terminal, pretend):
    pretend()
    trainer = train(net, batches, ProgressBar(), StopAfterEpoch(2))
    text = terminal.getvalue()
    seen = states(text)
    assert seen == sorted(seen)
    assert {(1, 1, 3), (1, 3, 3), (2, 1, 3), (2, 3, 3)} <= set(seen)
    assert text.count("\n") == 2
    assert "batch/s" in text
    assert f"loss={net.get_loss_values()['total_loss']:.4g}" in text
    trainer.hooks["StopAfterEpoch"].max_epochs = 3
    trainer.train(net, batches)
    resumed = states(terminal.getvalue()[len(text) :])
    assert resumed[0] == (3, 1, 3)
    assert resumed[-1] == (3, 3, 3)


def test_an_epoch_that_is_cut_short(net, batches, terminal, pretend):
    pretend()
    train(net, batches, ProgressBar(), StopAt(timescale="update"))
    assert states(terminal.getvalue())[-1] == (1, 2, 3)
    assert terminal.getvalue().endswith("\n")


def test_an_iterator_that_is_wrong_about_its_length(net, batches, terminal, pretend):
    pretend()
    batches.length = 5
    train(net, batches, ProgressBar(), StopAfterEpoch(2))
    assert (1, 3, 5) in states(terminal.getvalue())
    assert states(terminal.getvalue())[-1] == (2, 3, 5)


def test_every_update_is_shown_if_it_takes_long(
    net, batches, terminal, pretend, monkeypatch
):
    pretend()
    monkeypatch.setattr(ProgressBar, "REDRAW_SECONDS", 0)
    train(net, batches, ProgressBar(), StopAfterEpoch(1))
    assert [(1, n, 3) in states(terminal.getvalue()) for n in (1, 2, 3)] == [True] * 3


def test_quiet_without_a_terminal(net, batches, capfd):
    train(net, batches, ProgressBar(), StopAfterEpoch(1))
    assert capfd.readouterr().err == ""


def test_quiet_if_the_trainer_is(net, batches, terminal, pretend):
    pretend()
    train(net, batches, ProgressBar(), StopAfterEpoch(1), verbose=False)
    assert terminal.getvalue() == ""


def test_without_standard_error(net, batches, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    train(net, batches, ProgressBar(), StopAfterEpoch(1), verbose=False)
    hook = ProgressBar()
    hook.start(net, None, True, {"training_data_iter": batches})
    assert hook(1, 1, net, None, {}) is None


class NoLength:
    def __init__(self, batches):
        self.batches, self.data_shapes = batches, batches.data_shapes

    def __call__(self, handler):
        return self.batches(handler)


def test_an_iterator_of_unknown_length(net, batches, terminal, pretend):
    pretend()

    class Look(Hook):
        def __call__(self, epoch_nr, update_nr, net, stepper, logs):
            if epoch_nr:
                drawn = terminal.getvalue().splitlines()[-1].rpartition("\r")[2]
                seen.append(drawn)
                loss = net.get_loss_values()["total_loss"]
                assert f"loss={loss:.4g}" in drawn

    seen = []
    train(net, NoLength(batches), Look(), ProgressBar(), StopAfterEpoch(2))
    assert [re.match(r"Epoch (.): (.)batch", s).groups() for s in seen] == [
        ("1", "3"),
        ("2", "3"),
    ]


def test_the_loss_is_that_of_the_training_data(
    net, data, batches, terminal, pretend, monkeypatch
):
    pretend()
    monkeypatch.setattr(ProgressBar, "REDRAW_SECONDS", 0)
    valid = Undivided(**{**data, "targets": data["targets"] + 1000})
    monitor = MonitorLoss("valid", timescale="update")
    trainer = Trainer(SgdStepper(0.1), verbose=True)
    for hook in (monitor, ProgressBar(), StopAfterEpoch(1)):
        trainer.add_hook(hook)
    trainer.train(net, batches, valid=valid)
    losses = re.findall(r"loss=([0-9.e+]+)", terminal.getvalue())
    assert len(losses) >= 3
    assert (
        max(map(float, losses)) < 1000 < min(trainer.logs["MonitorLoss"]["total_loss"])
    )


class Interrupt(Hook):
    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        if update_nr == 7:
            raise RuntimeError


def test_an_epoch_that_goes_on(net, data, tmp_path, terminal, pretend):
    pretend()
    path = tmp_path / "training.hdf5"
    batches = Minibatches(3, **data)  # four of them
    save = SaveCheckpoint(path, timescale="update")
    interrupt = Interrupt("i", "update")
    with pytest.raises(RuntimeError):
        train(net, batches, ProgressBar(), StopAfterEpoch(2), save, interrupt)
    hooks = [ProgressBar(), StopAfterEpoch(2), save, Hook("i")]
    trainer, net = Trainer.load(path, hooks)
    before = len(terminal.getvalue())
    trainer.train(net, Minibatches(3, **data))
    drawn = states(terminal.getvalue()[before:])
    assert drawn[0] == (2, 3, 4)
    assert drawn[-1] == (2, 4, 4)

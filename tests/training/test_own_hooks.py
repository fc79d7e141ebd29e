"""Hooks and steppers as users write them, and what a trainer makes of them."""

import os
import sys

import numpy as np
import pytest

from brainstorm.data_iterators import Minibatches, Undivided
from brainstorm.handlers import NumpyHandler
from brainstorm.hooks import (
    Hook,
    MonitorLoss,
    SaveBestNetwork,
    SaveNetwork,
    StopAfterEpoch,
    StopAfterThresholdReached,
    StopOnNan,
)
from brainstorm.hooks.base_hook import NetworkReader
from brainstorm.scorers import MeanSquaredError
from brainstorm.training import SgdStepper, Trainer
from brainstorm.utils import ValidationError


def make_trainer(*hooks, stepper=None, verbose=False):
    trainer = Trainer(stepper or SgdStepper(0.1), verbose=verbose)
    for hook in hooks:
        trainer.add_hook(hook)
    return trainer


def test_functions_as_hooks(net, batches):
    def count(epoch_nr, update_nr, net, stepper, logs):
        return {"epoch": epoch_nr, "update": update_nr}

    count.timescale, count.interval = "update", 2
    trainer = make_trainer(count, StopAfterEpoch(2))
    trainer.train(net, batches)
    assert trainer.logs["count"] == {"epoch": [0, 1, 2, 2], "update": [0, 2, 4, 6]}
    assert [hook.priority for hook in trainer.hooks.values()] == [1, 2]


class NoConstructor(Hook):
    def __init__(self, value):  # does not call that of the base class
        self.value = value

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        return self.value


def test_hooks_whose_constructor_does_not_call_that_of_the_base_class(net, batches):
    hook = NoConstructor(3)
    hook.__name__ = "mine"
    trainer = make_trainer(hook, StopAfterEpoch(2))
    trainer.train(net, batches)
    assert trainer.logs["mine"] == [3, 3, 3]
    with pytest.raises(ValidationError, match=r"without '\.' and '/', not 'a\.b'"):
        hook.__name__ = "a.b"


def test_a_hook_that_does_nothing(net, batches):
    trainer = make_trainer(Hook(), StopAfterEpoch(1))
    trainer.train(net, batches)
    assert "Hook" not in trainer.logs


class StopWith(Hook):
    def __init__(self, value, log=None):
        super().__init__(timescale="update")
        self.value, self.log = value, log

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        if update_nr == 2:
            raise StopIteration(*self.value)
        return self.log


@pytest.mark.parametrize(
    ("value", "log", "expected"),
    [
        ((), None, None),
        ((0.5,), None, [0.5]),
        ((0.5,), 1.0, [1.0, 1.0, 0.5]),
        (({"a": 3},), {"a": 1, "b": 2}, {"a": [1, 1, 3], "b": [2, 2]}),
        (("enough",), None, ["enough"]),
        (("enough",), 1.0, [1.0, 1.0]),
    ],
)
def test_the_value_of_stop_iteration_is_logged(net, batches, value, log, expected):
    trainer = make_trainer(StopWith(value, log))
    trainer.train(net, batches)
    assert trainer.current_update_nr == 2
    assert trainer.logs.get("StopWith") == expected


class Changing(Hook):
    def __init__(self, *logs):
        super().__init__()
        self.of_epoch = logs

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        return self.of_epoch[epoch_nr]


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        ({"a": 1.0}, 2.0, "'Changing' has got a dict .* get a single value now: 2.0"),
        (2.0, {"a": 1.0}, "'Changing' has got a single value .* get a dict now"),
        (
            {"b": 1, "a": {"c": 1}},
            {"b": 2, "a": 1},
            "'Changing.a' has got a dict",
        ),
    ],
)
def test_logs_that_change_their_kind(net, batches, first, second, text):
    trainer = make_trainer(Changing(first, second), StopAfterEpoch(2))
    with pytest.raises(ValidationError, match=f"the log {text}"):
        trainer.train(net, batches)
    once = make_trainer(Changing(first), StopAfterEpoch(0))
    once.train(net, batches)
    assert trainer.logs["Changing"] == once.logs["Changing"]


class WritesLogs(Hook):
    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        logs.setdefault("mine", {}).setdefault("x", []).append(-epoch_nr)


def test_a_log_that_a_hook_writes_itself_may_be_watched(net, batches):
    stop = StopAfterThresholdReached("mine.x", -2)
    trainer = make_trainer(WritesLogs(), stop, StopAfterEpoch(9))
    trainer.train(net, batches)
    assert trainer.current_epoch_nr == 2


def test_hooks_do_not_write_different_things_to_one_file(tmp_path):
    path = tmp_path / "net.hdf5"
    in_memory = SaveBestNetwork("a.c", name="in memory")
    trainer = make_trainer(SaveBestNetwork("a.b", path), in_memory)
    other = os.path.join(tmp_path, ".", "net.hdf5")
    for hook in (SaveNetwork(other), SaveBestNetwork("a.c", other, name="c")):
        with pytest.raises(ValidationError, match="would write to the same file"):
            trainer.add_hook(hook)
    trainer.add_hook(SaveNetwork(tmp_path / "x.hdf5"))
    trainer.add_hook(SaveNetwork(tmp_path / "x.hdf5", "often", "update", 100))


class OnlyStartAndRun:
    def start(self, net):
        self.net = net

    def run(self):
        self.net.forward_pass(training_pass=True)
        self.net.backward_pass()
        p = self.net.buffer.parameters
        self.net.handler.mult_add_st(-0.1, self.net.buffer.gradients, p)


def test_steppers_need_only_start_and_run(net, batches, tmp_path):
    initial = net.get("parameters")
    make_trainer(StopAfterEpoch(2), stepper=SgdStepper(0.1)).train(net, batches)
    expected = net.get("parameters")
    net.handler.set_from_numpy(net.buffer.parameters, initial)
    trainer = make_trainer(StopAfterEpoch(2), stepper=OnlyStartAndRun())
    trainer.train(net, batches)
    np.testing.assert_allclose(net.get("parameters"), expected, rtol=1e-12)
    with pytest.raises(ValidationError, match="OnlyStartAndRun"):
        trainer.save(tmp_path / "training.hdf5")
    with pytest.raises(ValidationError, match="carry_context needs a TrainingStepper"):
        Trainer(OnlyStartAndRun(), carry_context=True)


def test_train_scorers_can_be_appended():
    scorer = MeanSquaredError()
    scorer.__name__ = "mse"
    trainer = make_trainer()
    trainer.train_scorers.append(scorer)
    assert [s.__name__ for s in trainer.train_scorers] == ["mse"]
    assert make_trainer().train_scorers == []


def test_without_standard_output(net, batches, monkeypatch):
    trainer = make_trainer(StopAfterEpoch(1), verbose=True)
    monkeypatch.setattr(sys, "stdout", None)
    trainer.train(net, batches)
    trainer.evaluate(net, valid=batches)
    assert trainer.current_epoch_nr == 1


class Activity(NetworkReader):
    """As docs/own_hook.rst advises those who mean the training data."""

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        return self.seen(net, update_nr)

    def read(self, net):
        return float(net.get("Fc.outputs.default").sum())


def test_hooks_that_look_at_training_data(net, data, batches):
    initial = net.get("parameters")
    logs = []
    for hooks in ([], [MonitorLoss("valid", timescale="update"), MonitorLoss("valid")]):
        net.handler.set_from_numpy(net.buffer.parameters, initial)
        if hooks:
            hooks[1].__name__ = "at the end"
        trainer = make_trainer(*hooks, Activity(), StopAfterEpoch(3))
        valid = Undivided(**{name: array[:, :3] for name, array in data.items()})
        trainer.train(net, batches, valid=valid)
        logs.append(trainer.logs["Activity"][1:])
    assert logs[0] == logs[1]


# -- what stands in for networks and steppers in users' own tests ----------------------


class InputStub:
    out_shapes = {"default": ("T", "B", 3), "targets": ("T", "B", 1)}


class NetworkStub:
    """A network as a test of a hook or of an iterator makes it up."""

    def __init__(self):
        self.layers = {"Input": InputStub()}
        self.nr_batches = self.nr_modified = 0

    def provide_external_data(self, data, all_inputs=True):
        self.nr_batches += 1

    def get_loss_values(self):
        return {"total_loss": float(self.nr_batches)}

    def apply_weight_modifiers(self):
        self.nr_modified += 1


class StepperStub:
    def __init__(self):
        self.net, self.nr_runs = None, 0

    def start(self, net):
        self.net = net

    def run(self):
        self.nr_runs += 1


class EpochLogger(Hook):
    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        return epoch_nr


def test_trainers_take_what_stands_in_for_a_network():
    net, stepper = NetworkStub(), StepperStub()
    trainer = Trainer(stepper, verbose=False)
    trainer.add_hook(EpochLogger())
    trainer.add_hook(StopAfterEpoch(2))
    data = Minibatches(2, default=np.ones((1, 4, 3)), targets=np.ones((1, 4, 1)))
    trainer.train(net, data)
    assert stepper.net is net
    assert (stepper.nr_runs, net.nr_batches, net.nr_modified) == (4, 4, 4)
    losses = {"total_loss": [1.5, 3.5]}
    assert trainer.logs == {"EpochLogger": [0, 1, 2], "rolling_training": losses}


class BufferStub:
    parameters = np.array([1.0, np.nan])


class BrokenStub:
    handler, buffer = NumpyHandler(), BufferStub()


def test_hooks_take_what_stands_in_for_a_network():
    hook = StopOnNan(check_training_loss=False)
    with pytest.raises(StopIteration, match="the parameters"):
        hook(1, 1, BrokenStub(), None, {})
    hook = StopOnNan(["a.b"], False, False)
    hook(1, 1, None, None, {"a": {"b": [1.0]}})
    with pytest.raises(StopIteration, match="the log a.b"):
        hook(1, 1, None, None, {"a": {"b": [1.0, np.inf]}})

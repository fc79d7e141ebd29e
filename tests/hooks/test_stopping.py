import math
import os
import signal
import threading

import numpy as np
import pytest

from brainstorm.data_iterators import Minibatches, Undivided
from brainstorm.hooks import (
    EarlyStopper,
    Hook,
    MonitorLoss,
    StopAfterEpoch,
    StopAfterThresholdReached,
    StopOnNan,
    StopOnSigQuit,
)
from brainstorm.training import SgdStepper, Trainer
from brainstorm.utils import ValidationError

NAN = math.nan


def call(hook, epoch_nr=1, update_nr=1, net=None, logs=None):
    """Whether the hook wants to stop."""
    try:
        assert hook(epoch_nr, update_nr, net, None, logs or {}) is None
    except StopIteration as reason:
        return str(reason)
    return ""


def stops_after(hook, values):
    """How many entries the log has when the hook stops, None for never."""
    for i in range(len(values) + 1):
        if call(hook, logs={"valid": {"loss": values[:i]}} if i else {}):
            return i
    return None


@pytest.mark.parametrize("value", [[[3, 1], [0, 2]], np.eye(2), "low", None])
@pytest.mark.parametrize(
    "hook",
    [
        EarlyStopper("valid.loss", name="Hook"),
        StopAfterThresholdReached("valid.loss", 0.5, name="Hook"),
    ],
)
def test_logs_that_are_no_numbers_are_refused(hook, value):
    """Lists were compared item by item, in silence."""
    with pytest.raises(ValidationError, match=r"Hook: expected numbers .*'valid.loss'"):
        call(hook, logs={"valid": {"loss": [value, value]}})


# -- EarlyStopper ------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "patience", "criterion", "expected"),
    [
        ([5, 4, 3, 2, 1], 1, "min", None),
        ([5, 4, 4, 3], 1, "min", 3),
        ([5, 4, 6, 3, 4, 5], 1, "min", 3),
        ([5, 4, 6, 3, 4, 5], 2, "min", 6),
        ([5, 6, 7, 8, 9], 3, "min", 4),
        ([1, 2, 3, 2, 4, 4, 4], 2, "max", 7),
        ([NAN, 3, NAN, NAN, 2, 1], 3, "min", None),
        ([3, NAN, NAN, 2], 2, "min", 3),
        ([NAN, NAN], 2, "max", 2),
        ([math.inf, 5, 4], 1, "min", None),
    ],
)
def test_early_stopper(values, patience, criterion, expected):
    hook = EarlyStopper("valid.loss", patience, criterion)
    assert stops_after(hook, values) == expected


def test_early_stopper_counts_entries_not_calls():
    hook = EarlyStopper("valid.loss", patience=2)
    for _ in range(5):
        assert not call(hook, logs={"valid": {"loss": [1.0]}})
    assert not call(hook, logs={"valid": {"loss": [1.0, 2.0]}})
    message = call(hook, logs={"valid": {"loss": [1.0, 2.0, 3.0]}})
    assert message == "valid.loss did not improve for 2 entries; the best was 1.0."


def test_early_stopper_sees_all_entries_since_its_last_call():
    assert call(EarlyStopper("x", 2), logs={"x": [1, 2, 3]})
    assert not call(EarlyStopper("x", 2), logs={"x": [1, 2, 3, 0, 1]})


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"criterion": "best"}, "criterion has to be 'min' or 'max', not 'best'"),
        ({"patience": 0}, "patience .* not 0"),
        ({"log_name": ""}, "log_name has to be a string, not ''"),
        ({"log_name": ["a"]}, "log_name has to be a string"),
    ],
)
def test_bad_arguments_of_early_stopper(kwargs, text):
    with pytest.raises(ValidationError, match=f"EarlyStopper: {text}"):
        EarlyStopper(**{"log_name": "a.b", **kwargs})


# -- thresholds and epochs ---------------------------------------------------


@pytest.mark.parametrize(
    ("values", "criterion", "expected"),
    [
        ([0.9, 0.7, 0.5, 0.4], "min", 3),
        ([0.9, 0.51], "min", None),
        ([0.1, 0.5], "max", 2),
        ([0.1, NAN, 0.6], "max", 3),
        ([math.inf], "max", 1),
    ],
)
def test_stop_after_threshold_reached(values, criterion, expected):
    hook = StopAfterThresholdReached("valid.loss", 0.5, criterion)
    assert stops_after(hook, values) == expected


def test_bad_arguments_of_stop_after_threshold_reached():
    with pytest.raises(ValidationError, match=r"threshold .* not nan"):
        StopAfterThresholdReached("a.b", NAN)
    with pytest.raises(ValidationError, match=r"criterion .* not None"):
        StopAfterThresholdReached("a.b", 1, None)


def test_stop_after_epoch():
    hook = StopAfterEpoch(3)
    assert [bool(call(hook, epoch_nr=e)) for e in range(5)] == [False] * 3 + [True] * 2
    assert call(StopAfterEpoch(0), epoch_nr=0, update_nr=0)


def test_stop_after_epoch_as_update_hook_lets_the_epoch_finish():
    hook = StopAfterEpoch(3, timescale="update")
    assert [bool(call(hook, epoch_nr=e)) for e in range(5)] == [False] * 4 + [True]


@pytest.mark.parametrize("max_epochs", [-1, 2.5, None, "3"])
def test_bad_arguments_of_stop_after_epoch(max_epochs):
    with pytest.raises(ValidationError, match="max_epochs has to be an integer"):
        StopAfterEpoch(max_epochs)


# -- StopOnNan ---------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_stop_on_nan_names_the_parameters(net, value):
    hook = StopOnNan()
    assert not call(hook, net=net)
    net.buffer.Fc.parameters.W[0, 1] = value
    assert call(hook, net=net) == "Infinite or NaN: parameter W of layer Fc."
    net.buffer.Fc.parameters.bias[0] = value
    assert call(hook, net=net) == (
        "Infinite or NaN: parameter W of layer Fc, parameter bias of layer Fc."
    )
    assert not call(StopOnNan(check_parameters=False), net=net)


def test_stop_on_nan_checks_logs(net):
    hook = StopOnNan(["a.b", "c"])
    assert hook.watched_logs() == ("a.b", "c")
    assert not call(hook, net=net, logs={})
    assert not call(hook, net=net, logs={"a": {"b": [1.0, 2]}, "c": [np.ones(3)]})
    message = call(hook, net=net, logs={"a": {"b": [1.0, NAN]}, "c": [[1, math.inf]]})
    assert message == "Infinite or NaN: the log a.b, the log c."


def test_stop_on_nan_checks_the_training_loss_after_epochs(net):
    logs = {"rolling_training": {"total_loss": [NAN]}}
    assert "the training loss" in call(StopOnNan(), net=net, logs=logs)
    assert not call(StopOnNan(check_training_loss=False), net=net, logs=logs)
    logs["rolling_training"]["total_loss"].append(1.0)
    assert not call(StopOnNan(), net=net, logs=logs)


def test_stop_on_nan_checks_the_training_loss_after_updates(net, data):
    data["default"][0, 0, 0] = np.inf
    net.provide_external_data(data)
    net.forward_pass()
    assert "the training loss" in call(StopOnNan(timescale="update"), net=net)
    assert not call(StopOnNan(timescale="update"), net=net, update_nr=0)


def test_stop_on_nan_in_a_training(net, batches, data, capsys):
    data["targets"][0, 5] = np.inf
    trainer = Trainer(SgdStepper())
    trainer.add_hook(StopOnNan(timescale="update"))
    with np.errstate(all="ignore"):
        trainer.train(net, batches)
    assert trainer.current_update_nr == 2
    assert (
        "StopOnNan >> Stopping the training. Infinite or NaN: parameter W of layer"
        in (capsys.readouterr().out)
    )


def test_stop_on_nan_takes_one_log():
    assert call(StopOnNan("a.b", False, False), logs={"a": {"b": [1, NAN]}})
    assert not call(StopOnNan("a.b", False, False), logs={"a": {"b": [1]}})


# -- StopOnSigQuit -----------------------------------------------------------

needs_sigquit = pytest.mark.skipif(
    not hasattr(signal, "SIGQUIT"), reason="this system has no SIGQUIT"
)


class Quit(Hook):
    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        if update_nr == 2:
            os.kill(os.getpid(), signal.SIGQUIT)


@needs_sigquit
@pytest.mark.parametrize(("timescale", "updates"), [("update", 2), ("epoch", 3)])
def test_stop_on_sig_quit(net, batches, timescale, updates, capsys):
    previous = signal.getsignal(signal.SIGQUIT)
    trainer = Trainer(SgdStepper())
    trainer.add_hook(Quit(timescale="update"))
    trainer.add_hook(StopOnSigQuit(timescale=timescale))
    trainer.train(net, batches)
    assert trainer.current_update_nr == updates
    assert signal.getsignal(signal.SIGQUIT) == previous
    assert "StopOnSigQuit >> Received the signal to quit" in capsys.readouterr().out


@needs_sigquit
def test_sig_quit_of_an_earlier_training_is_forgotten(net, batches):
    trainer = Trainer(SgdStepper(), verbose=False)
    trainer.add_hook(Quit(timescale="update"))
    trainer.add_hook(StopOnSigQuit())
    trainer.add_hook(StopAfterEpoch(3))
    trainer.train(net, batches)
    assert trainer.current_epoch_nr == 1
    trainer.train(net, batches)
    assert trainer.current_epoch_nr == 3


@needs_sigquit
def test_stop_on_sig_quit_needs_the_main_thread():
    errors = []

    def start():
        try:
            StopOnSigQuit().start(None, None, False, {})
        except ValidationError as error:
            errors.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "StopOnSigQuit works only in the main thread" in errors[0]


@pytest.mark.parametrize("interval", [1, 2])
@pytest.mark.parametrize("timescale", ["update", "epoch"])
def test_stop_on_nan_looks_at_the_training_data_alone(
    net, batches, data, timescale, interval
):
    broken = {**data, "default": data["default"] * NAN}
    trainer = Trainer(SgdStepper(0.01), verbose=False)
    trainer.add_hook(MonitorLoss("valid", timescale=timescale))
    trainer.add_hook(StopOnNan(timescale="update", interval=interval))
    trainer.add_hook(StopAfterEpoch(2))
    trainer.train(net, batches, valid=Undivided(**broken))
    assert trainer.current_epoch_nr == 2
    trainer.hooks["StopAfterEpoch"].max_epochs = 3
    trainer.train(net, batches, valid=Undivided(**broken))
    assert trainer.current_epoch_nr == 3


def test_stop_on_nan_sees_training_data_that_others_hide(net, data):
    data["targets"][0, 5] = np.inf
    trainer = Trainer(SgdStepper(0.01), verbose=False)
    good = {name: array[:, :2] for name, array in data.items()}
    trainer.add_hook(MonitorLoss("valid", timescale="update"))
    trainer.add_hook(StopOnNan(check_parameters=False, timescale="update"))
    batches = Minibatches(4, shuffle=False, **data)
    with np.errstate(all="ignore"):
        trainer.train(net, batches, valid=Undivided(**good))
    assert trainer.current_update_nr == 2


def test_the_whole_log_counts_for_a_threshold():
    hook = StopAfterThresholdReached("a", 0.5)
    assert call(hook, logs={"a": [0.9, 0.4, 0.8]}) == "a was 0.4 and has reached 0.5."
    assert call(hook, logs={"a": [0.9, 0.4, 0.8, 0.7]})
    hook.threshold = 0.3
    assert not call(hook, logs={"a": [0.9, 0.4, 0.8, 0.7]})

import json

import numpy as np
import pytest

from brainstorm.data_iterators import Minibatches, Undivided
from brainstorm.describable import create_from_description, get_description
from brainstorm.hooks import (
    EarlyStopper,
    Hook,
    MonitorScores,
    SaveBestNetwork,
    SaveNetwork,
    StopAfterEpoch,
)
from brainstorm.randomness import global_rnd
from brainstorm.scorers import MeanSquaredError
from brainstorm.structure.network import Network
from brainstorm.tools import create_net_from_spec
from brainstorm.training import MomentumStepper, SgdStepper, Trainer
from brainstorm.utils import IteratorValidationError, ValidationError
from brainstorm.value_modifiers import ClipValues, FreezeValues

PREDICTIONS = "Output.outputs.predictions"


class Recorder(Hook):
    """Notes its calls in a list that hooks can share, and returns a given log."""

    def __init__(self, calls, log=None, **kwargs):
        super().__init__(**kwargs)
        self.calls = calls
        self.log = log

    def start(self, net, stepper, verbose, named_data_iters):
        super().start(net, stepper, verbose, named_data_iters)
        self.calls.append((self.__name__, "start"))
        self.iterators = named_data_iters

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        self.calls.append((self.__name__, epoch_nr, update_nr))
        return self.log(logs) if callable(self.log) else self.log

    def stop(self):
        self.calls.append((self.__name__, "stop"))


class StopAtUpdate(Hook):
    def __init__(self, at):
        super().__init__(timescale="update")
        self.at = at

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        if update_nr == self.at:
            raise StopIteration("That is enough.")


def make_trainer(*hooks, stepper=None, verbose=False):
    trainer = Trainer(stepper or SgdStepper(0.1), verbose=verbose)
    for hook in hooks:
        trainer.add_hook(hook)
    return trainer


def mean_loss(net, data):
    W, bias = net.get("Fc.parameters.W"), net.get("Fc.parameters.bias")
    error = data["default"][0] @ W.T + bias - data["targets"][0]
    return 0.5 * (error**2).sum() / len(error)


# -- the order of things -----------------------------------------------------


def test_when_hooks_are_called(net, batches):
    calls = []
    trainer = make_trainer(
        Recorder(calls, name="e2", interval=2),
        Recorder(calls, name="u", timescale="update"),
        Recorder(calls, name="e"),
        Recorder(calls, name="u3", timescale="update", interval=4),
        StopAfterEpoch(2),
    )
    trainer.train(net, batches)
    names = ("e2", "u", "e", "u3")
    assert calls == [
        *[(name, "start") for name in names],
        *[(name, 0, 0) for name in names],
        ("u", 1, 1),
        ("u", 1, 2),
        ("u", 1, 3),
        ("e", 1, 3),
        ("u", 2, 4),
        ("u3", 2, 4),
        ("u", 2, 5),
        ("u", 2, 6),
        ("e2", 2, 6),
        ("e", 2, 6),
        *[(name, "stop") for name in reversed(names)],
    ]
    assert (trainer.current_epoch_nr, trainer.current_update_nr) == (2, 6)


def test_hooks_get_all_iterators(net, data, batches):
    hook = Recorder([])
    valid = Undivided(**data)
    make_trainer(hook, StopAfterEpoch(0)).train(net, batches, valid=valid)
    assert hook.iterators == {"valid": valid, "training_data_iter": batches}


def test_the_round_is_finished_after_a_stop(net, batches):
    calls = []
    trainer = make_trainer(StopAfterEpoch(1), Recorder(calls, name="later"))
    trainer.train(net, batches)
    assert calls[-2:] == [("later", 1, 3), ("later", "stop")]


def test_stopping_before_training(net, batches):
    parameters = net.get("parameters")
    trainer = make_trainer(StopAfterEpoch(0))
    trainer.train(net, batches)
    assert trainer.current_update_nr == 0
    assert trainer.logs == {}
    np.testing.assert_array_equal(net.get("parameters"), parameters)


def test_stopping_within_an_epoch(net, batches):
    calls = []
    trainer = make_trainer(StopAtUpdate(5), Recorder(calls, name="e"))
    trainer.train(net, batches)
    assert trainer.current_update_nr == 5
    assert ("e", 2, 5) in calls
    assert len(trainer.logs["rolling_training"]["total_loss"]) == 2


# -- training ----------------------------------------------------------------


def test_training_updates_the_parameters_with_each_batch(net, data, batches):
    W, bias = net.get("Fc.parameters.W"), net.get("Fc.parameters.bias")
    for _ in range(2):
        for part in (slice(0, 4), slice(4, 8), slice(8, 10)):
            x, t = data["default"][0, part], data["targets"][0, part]
            error = x @ W.T + bias - t
            W = W - 0.1 * error.T @ x / len(x)
            bias = bias - 0.1 * error.mean(axis=0)
    make_trainer(StopAfterEpoch(2)).train(net, batches)
    np.testing.assert_allclose(net.get("Fc.parameters.W"), W, rtol=1e-12)
    np.testing.assert_allclose(net.get("Fc.parameters.bias"), bias, rtol=1e-12)


def test_weight_modifiers_are_applied_after_each_update(net, batches):
    net.set_weight_modifiers({"Fc": {"W": ClipValues(-0.2, 0.2)}})

    class Largest(Hook):
        def __call__(self, epoch_nr, update_nr, net, stepper, logs):
            return float(np.abs(net.get("Fc.parameters.W")).max())

    hook = Largest(timescale="update")
    trainer = make_trainer(hook, StopAfterEpoch(2))
    trainer.train(net, batches)
    before, *after = trainer.logs["Largest"]
    assert before > 0.2
    assert len(after) == 6
    assert max(after) <= 0.2


def test_rolling_training_averages_over_the_epoch(net, data, batches):
    expected = mean_loss(net, data)
    trainer = make_trainer(StopAfterEpoch(2), stepper=SgdStepper(0.0))
    trainer.train_scorers = [MeanSquaredError(out_name=PREDICTIONS, name="mse")]
    trainer.train(net, batches)
    rolling = trainer.logs["rolling_training"]
    assert rolling["total_loss"] == pytest.approx([expected] * 2)
    assert rolling["mse"] == pytest.approx([expected] * 2)


def test_equal_seeds_give_equal_results(data, net):
    results = []
    for _ in range(2):
        global_rnd.set_seed(7)
        again = Network.from_architecture(net.architecture)
        again.initialize(default=0.1)
        trainer = make_trainer(StopAfterEpoch(3), stepper=MomentumStepper(0.1, 0.9))
        trainer.train(again, Minibatches(3, **data))
        results.append((again.get("parameters"), trainer.logs))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


# -- logs --------------------------------------------------------------------


def test_logs_are_nested_dicts_of_lists(net, batches):
    trainer = make_trainer(
        Recorder([], log={"a": 1, "b": {"c": 2.5}}, name="nested"),
        Recorder([], log="text", name="single", interval=2),
        Recorder([], log=None, name="nothing"),
        StopAfterEpoch(2),
    )
    trainer.train(net, batches)
    logs = dict(trainer.logs)
    assert logs.pop("rolling_training").keys() == {"total_loss"}
    assert logs == {
        "nested": {"a": [1, 1, 1], "b": {"c": [2.5, 2.5, 2.5]}},
        "single": ["text", "text"],
    }


def test_later_hooks_see_the_newest_logs(net, batches):
    lengths = Recorder(
        [],
        name="lengths",
        log=lambda logs: [
            len(logs["first"]),
            len(logs.get("rolling_training", {}).get("total_loss", [])),
        ],
    )
    trainer = make_trainer(
        Recorder([], log=1, name="first"), lengths, StopAfterEpoch(2)
    )
    trainer.train(net, batches)
    assert trainer.logs["lengths"] == [[1, 0], [2, 1], [3, 2]]


@pytest.mark.parametrize("timescale", ["epoch", "update"])
def test_the_saved_network_has_the_logged_score(net, data, batches, timescale):
    valid = Undivided(**data)
    best = SaveBestNetwork(
        "validation.total_loss", criterion="min", timescale=timescale
    )
    monitor = MonitorScores("valid", [], name="validation")
    trainer = make_trainer(monitor, best, StopAfterEpoch(4), stepper=SgdStepper(0.3))
    trainer.train(net, batches, valid=valid)
    assert best.best_so_far == min(trainer.logs["validation"]["total_loss"])
    assert mean_loss(best.load_best_network(), data) == pytest.approx(best.best_so_far)


# -- resuming ----------------------------------------------------------------


def test_resumed_training_equals_uninterrupted_training(net, data, batches):
    initial = net.get("parameters")

    def make(epochs):
        monitor = MonitorScores("valid", [], name="validation")
        stepper = MomentumStepper(0.1, 0.9)
        return make_trainer(monitor, StopAfterEpoch(epochs), stepper=stepper)

    whole = make(5)
    whole.train(net, batches, valid=Undivided(**data))
    expected = net.get("parameters")

    net.handler.set_from_numpy(net.buffer.parameters, initial)
    parts = make(2)
    parts.train(net, batches, valid=Undivided(**data))
    parts.hooks["StopAfterEpoch"].max_epochs = 5
    parts.train(net, batches, valid=Undivided(**data))
    np.testing.assert_array_equal(net.get("parameters"), expected)
    assert parts.logs == whole.logs
    assert parts.current_update_nr == whole.current_update_nr == 15


def test_a_finished_training_does_not_go_on(net, data, batches):
    valid = Undivided(**data)
    for stopper in (
        StopAfterEpoch(2),
        StopAfterEpoch(2, timescale="update"),
        EarlyStopper("constant", patience=2),
    ):
        trainer = make_trainer(Recorder([], log=1, name="constant"), stopper)
        trainer.train(net, batches, valid=valid)
        logs = repr(trainer.logs)
        parameters = net.get("parameters")
        trainer.train(net, batches, valid=valid)
        assert repr(trainer.logs) == logs
        np.testing.assert_array_equal(net.get("parameters"), parameters)


# -- evaluating --------------------------------------------------------------


def test_evaluate(net, data, batches):
    trainer = make_trainer()
    trainer.train_scorers = [MeanSquaredError(out_name=PREDICTIONS)]
    first = {name: array[:, :4] for name, array in data.items()}
    results = trainer.evaluate(net, all=batches, first=Undivided(**first))
    expected = {
        name: {"total_loss": mean_loss(net, d), "MeanSquaredError": mean_loss(net, d)}
        for name, d in (("all", data), ("first", first))
    }
    assert results.keys() == expected.keys()
    for name in expected:
        assert results[name] == pytest.approx(expected[name])
    assert trainer.results == results
    trainer.evaluate(net, more=batches)
    assert list(trainer.results) == ["all", "first", "more"]
    assert trainer.logs == {}


def test_evaluate_runs_the_hooks_and_logs_into_results(net, data, batches, tmp_path):
    calls = []
    path = tmp_path / "net.hdf5"
    trainer = make_trainer(
        MonitorScores("valid", [], name="validation", timescale="update"),
        Recorder(calls, log=lambda logs: 3.0, name="recorder", interval=5),
        MonitorScores("other", [], name="not given"),
        SaveNetwork(path, timescale="update"),
        StopAfterEpoch(0),
    )
    trainer.current_update_nr = 7
    logged = {"validation": {"total_loss": [1.0]}}
    trainer.logs = {"validation": {"total_loss": [1.0]}}
    scores = trainer.evaluate(net, valid=batches)
    loss = mean_loss(net, data)
    assert scores == {"valid": {"total_loss": pytest.approx(loss)}}
    assert trainer.results == {
        "valid": {"total_loss": pytest.approx(loss)},
        "validation": {"total_loss": [pytest.approx(loss)]},
        "recorder": [3.0],
    }
    assert trainer.logs == logged
    assert not path.exists()


def test_evaluate_checks_the_names(net, data):
    trainer = make_trainer()
    with pytest.raises(IteratorValidationError, match="test provides 'default'"):
        trainer.evaluate(net, test=Undivided(default=data["default"]))
    assert trainer.results == {}


# -- errors ------------------------------------------------------------------


def test_names_of_hooks_are_unique():
    trainer = make_trainer(StopAfterEpoch(1))
    with pytest.raises(ValueError, match="the name 'StopAfterEpoch' is taken"):
        trainer.add_hook(StopAfterEpoch(2))
    with pytest.raises(ValidationError, match="'rolling_training' is taken"):
        trainer.add_hook(StopAfterEpoch(2, name="rolling_training"))
    trainer.add_hook(StopAfterEpoch(2, name="other"))
    assert list(trainer.hooks) == ["StopAfterEpoch", "other"]


@pytest.mark.parametrize("hook", [StopAfterEpoch, print, None, "hook"])
def test_only_hooks_can_be_added(hook):
    with pytest.raises(ValidationError, match="expected a Hook"):
        make_trainer(hook)


@pytest.mark.parametrize("stepper", [SgdStepper, None, 0.1])
def test_only_steppers_can_step(stepper):
    with pytest.raises(ValidationError, match="stepper has to be a TrainingStepper"):
        Trainer(stepper)


def test_training_data_with_other_names(net, data):
    trainer = make_trainer(StopAfterEpoch(1))
    with pytest.raises(
        IteratorValidationError,
        match="training_data_iter provides 'default', 'labels', but the inputs of the"
        " network are 'default', 'targets'",
    ):
        trainer.train(net, Undivided(default=data["default"], labels=data["targets"]))


@pytest.mark.parametrize(
    ("log_name", "text"),
    [
        ("valid.total_loss", "choices are: 'validation', 'rolling_training'"),
        ("rolling_training.Accuracy", "choices are: 'rolling_training.total_loss'"),
        ("rolling_training", "choices are: 'rolling_training.total_loss'"),
        ("validation.Accuracy", "no 'Accuracy' in path .* choices are: 'total_loss'"),
        ("validation", "group of logs; choices are: 'validation.total_loss'"),
    ],
)
def test_unknown_logs_are_found_before_training(net, data, batches, log_name, text):
    monitor = MonitorScores("valid", [], name="validation")
    trainer = make_trainer(monitor, EarlyStopper(log_name), StopAfterEpoch(1))
    with pytest.raises(KeyError, match=text):
        trainer.train(net, batches, valid=Undivided(**data))
    assert trainer.current_update_nr == 0


def test_hooks_that_wait_for_the_first_log(net, batches):
    # At 0 neither the log of a later hook is there, nor that of the first epoch.
    trainer = make_trainer(
        EarlyStopper("later", patience=9),
        EarlyStopper("rolling_training.total_loss", patience=9, name="other"),
        Recorder([], log=1, name="later"),
        StopAfterEpoch(1),
    )
    trainer.train(net, batches)
    assert trainer.hooks["other"].seen == 1


def test_train_scorers_are_checked(net, batches):
    trainer = make_trainer(StopAfterEpoch(1))
    trainer.train_scorers = [MeanSquaredError(), MeanSquaredError()]
    for use in (trainer.train, lambda net, data: trainer.evaluate(net, data=data)):
        with pytest.raises(ValidationError, match="train_scorers: there is more than"):
            use(net, batches)


class Faulty(Undivided):
    broken = True

    def __call__(self, handler):
        yield from super().__call__(handler)
        if self.broken:
            raise OSError("the disk is gone")


def test_an_iterator_that_fails_midway(net, data):
    calls = []
    faulty = Faulty(**data)
    trainer = make_trainer(Recorder(calls), StopAfterEpoch(2))
    with pytest.raises(OSError, match="the disk is gone"):
        trainer.train(net, faulty)
    assert trainer.current_update_nr == 1
    assert calls[-1] == ("Recorder", "stop")
    faulty.broken = False
    trainer.train(net, faulty)
    assert trainer.current_update_nr == 2
    assert calls[-2:] == [("Recorder", 2, 2), ("Recorder", "stop")]


def test_a_hook_that_fails(net, batches):
    calls = []

    def fail(logs):
        raise ZeroDivisionError

    trainer = make_trainer(Recorder(calls, name="a"), Recorder([], log=fail, name="b"))
    with pytest.raises(ZeroDivisionError):
        trainer.train(net, batches)
    assert calls[-1] == ("a", "stop")


def test_a_hook_that_fails_to_start(net, batches):
    calls = []
    trainer = make_trainer(
        Recorder(calls, name="a"), MonitorScores("valid", []), Recorder(calls, name="b")
    )
    with pytest.raises(KeyError, match=r"MonitorScores: .* 'valid'; choices are: 'tr"):
        trainer.train(net, batches)
    assert calls == [("a", "start"), ("a", "stop")]


def test_an_iterator_without_batches(net, data):
    class Empty(Undivided):
        def __call__(self, handler):
            return iter(())

    with pytest.raises(IteratorValidationError, match="provides no batches"):
        make_trainer(StopAfterEpoch(1)).train(net, Empty(**data))


# -- printing ----------------------------------------------------------------


def test_what_is_printed_in_full(net, batches, capsys):
    trainer = make_trainer(
        Recorder([], log={"a": 0.123456789, "b": {"c": 2}}, name="monitor"),
        Recorder([], log=1, name="quiet", verbose=False),
        StopAfterEpoch(1),
        stepper=SgdStepper(0.0),
        verbose=2,
    )
    trainer.train(net, batches)
    loss = trainer.logs["rolling_training"]["total_loss"][0]
    monitor = [
        "monitor",
        "  a                             : 0.123457",
        "  b",
        "    c                           : 2",
    ]
    assert capsys.readouterr().out.splitlines() == [
        "",
        "- - - - - - - - Before Training - - - - - - - -",
        *monitor,
        "",
        "- - - - - - - - Epoch 1 - - - - - - - -",
        "rolling_training",
        f"  total_loss                    : {loss:.6g}",
        *monitor,
        "StopAfterEpoch >> Stopping the training. Trained for 1 epochs.",
    ]


def test_nothing_is_printed(net, data, batches, capsys):
    trainer = make_trainer(Recorder([], log=1), StopAfterEpoch(1))
    trainer.train(net, batches)
    trainer.evaluate(net, valid=batches)
    assert capsys.readouterr() == ("", "")


def test_a_verbose_hook_of_a_quiet_trainer(net, batches, capsys):
    hook = Recorder([], log=1, name="loud", verbose=True)
    make_trainer(hook, StopAfterEpoch(0)).train(net, batches)
    assert capsys.readouterr().out == f"{'loud':<32}: 1\n"


def test_results_are_printed(net, batches, capsys):
    trainer = make_trainer(verbose=True)
    trainer.evaluate(net, test=batches)
    loss = trainer.results["test"]["total_loss"]
    assert capsys.readouterr().out.splitlines() == [
        "test",
        f"  total_loss                    : {loss:.6g}",
    ]


class Reader(Hook):
    """A user's hook that reads deltas, but not yet in the round before training."""

    def __init__(self):
        super().__init__(timescale="update")
        self.seen = []

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        if update_nr:
            self.seen.append(net.get("Fc.input_deltas.default"))


def test_hooks_may_read_deltas_that_training_does_not_need(net, batches):
    reader = Reader()
    make_trainer(reader, StopAfterEpoch(1)).train(net, batches)
    assert len(reader.seen) == 3
    assert all(np.all(np.isfinite(d)) and np.any(d) for d in reader.seen)


def test_training_without_such_hooks_leaves_them_out(net, batches):
    make_trainer(StopAfterEpoch(1)).train(net, batches)
    with pytest.raises(KeyError, match="nobody had asked"):
        net.get("Fc.input_deltas.default")


def test_frozen_weights_do_not_change_at_all(net, batches):
    before = net.get("Fc.parameters.W")
    net.set_weight_modifiers(Fc={"W": FreezeValues()})
    make_trainer(StopAfterEpoch(2)).train(net, batches)
    assert np.array_equal(net.get("Fc.parameters.W"), before)


def test_only_networks_are_trained(batches):
    with pytest.raises(ValidationError, match="net: expected a Network, got int"):
        make_trainer().train(3, batches)


def test_description():
    stepper = MomentumStepper(0.1, 0.9)
    monitor = MonitorScores("valid", [MeanSquaredError()], name="z")
    stopper = EarlyStopper("z.total_loss", name="a")
    trainer = make_trainer(monitor, stopper, StopAfterEpoch(3), stepper=stepper)
    trainer.train_scorers = [MeanSquaredError(name="mse")]
    trainer.current_epoch_nr, trainer.logs = 3, {"z": [1.0]}
    description = get_description(trainer)
    text = json.dumps(description, sort_keys=True)
    again = create_from_description(json.loads(text))
    assert get_description(again) == description
    assert list(again.hooks) == ["z", "a", "StopAfterEpoch"]
    assert again.hooks["z"].scorers[0].__name__ == "MeanSquaredError"
    assert again.train_scorers[0].name == "mse"
    assert (again.stepper.momentum, again.verbose) == (0.9, False)
    assert (again.current_epoch_nr, again.logs, again.results) == (0, {}, {})
    description["hooks"]["x"] = {"@type": "MeanSquaredError"}
    with pytest.raises(ValidationError, match="expected a Hook"):
        create_from_description(description)


def test_fit_of_an_instance_is_refused():
    """It ignored the stepper and the hooks of the trainer it was called on."""
    net = create_net_from_spec("classification", 2, 2, "F4")
    with pytest.raises(ValidationError, match=r"stepper=.*trainer.train\(net"):
        Trainer(SgdStepper(0.1)).fit(net, np.eye(2), [0, 1])
    assert type(Trainer.fit(net, np.eye(2), [0, 1], epochs=1)) is Trainer

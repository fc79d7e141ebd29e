"""Logs by epochs, and the hooks that use them."""

import csv
import math
import pickle

import numpy as np
import pytest

import brainstorm as bs
from brainstorm.data_iterators import Minibatches
from brainstorm.hooks import (
    CsvLog,
    Hook,
    MonitorLoss,
    ReduceOnPlateau,
    RestoreBest,
    SaveCheckpoint,
    StopAfterEpoch,
)
from brainstorm.tools import create_net_from_spec
from brainstorm.training import SgdStepper, Trainer
from brainstorm.utils import ValidationError

X = np.random.default_rng(0).normal(size=(1, 12, 3))
Y = np.arange(12).reshape(1, 12, 1) % 2


def data():
    return Minibatches(4, default=X, targets=Y, shuffle=False)


class Falling(Hook):
    """Logs given numbers, one after the other."""

    def __init__(self, values, **common):
        super().__init__(**common)
        self.values = values

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        return {"loss": self.values[epoch_nr]}


def trained(*hooks, epochs=4, net=None):
    net = net or create_net_from_spec("classification", 3, 2, "F4")
    trainer = Trainer(SgdStepper(0.1), verbose=False)
    for hook in (*hooks, StopAfterEpoch(epochs)):
        trainer.add_hook(hook)
    trainer.train(net, data(), valid=data())
    return trainer


def test_rows_are_epochs():
    every = MonitorLoss("valid", name="every")
    second = MonitorLoss("valid", name="second", interval=2)
    often = MonitorLoss("valid", name="often", timescale="update")
    trainer = trained(every, second, often)
    history, logs = trainer.history, trainer.logs
    assert [row["epoch"] for row in history] == [0, 1, 2, 3, 4]
    assert history.columns == [
        "epoch",
        "every.total_loss",
        "second.total_loss",
        "rolling_training.total_loss",
    ]
    losses = logs["every"]["total_loss"]
    assert [row["every.total_loss"] for row in history] == losses
    assert {r["epoch"]: r.get("second.total_loss") for r in history} == {
        **{0: losses[0], 2: losses[2], 4: losses[4]},
        **{1: None, 3: None},
    }
    assert "rolling_training.total_loss" not in history[0]
    assert (
        history[1]["rolling_training.total_loss"]
        == (logs["rolling_training"]["total_loss"][0])
    )


def test_a_hook_that_was_added_late_has_the_last_epochs():
    net = create_net_from_spec("classification", 3, 2, "F4")
    trainer = trained(epochs=2, net=net)
    trainer.hooks.clear()
    trainer.add_hook(Falling([None, None, None, 3, 4], name="late"))
    trainer.add_hook(StopAfterEpoch(4))
    trainer.train(net, data())
    found = {row["epoch"]: row.get("late.loss") for row in trainer.history}
    assert found == {1: None, 2: None, 3: 3, 4: 4}


def test_tables_and_plots():
    pytest.importorskip("matplotlib")
    history = trained(MonitorLoss("valid")).history
    lines = str(history).splitlines()
    assert lines[0].split() == history.columns
    assert len(lines) == 6
    assert lines[1].split()[-1] == "-"
    (axes,) = history.plot().axes
    drawn = {line.get_label(): line.get_xdata().tolist() for line in axes.lines}
    assert drawn == {
        "MonitorLoss.total_loss": [0, 1, 2, 3, 4],
        "rolling_training.total_loss": [1, 2, 3, 4],
    }
    (axes,) = history.plot("MonitorLoss.total_loss").axes
    assert all(tick == int(tick) for tick in axes.get_xticks())
    assert len(axes.lines) == 1
    with pytest.raises(KeyError, match="did you mean 'MonitorLoss.total_loss'"):
        history.plot("MonitorLoss.total_los")


def test_in_notebooks():
    pytest.importorskip("matplotlib")
    history = trained(MonitorLoss("valid")).history
    html = history._repr_html_()
    assert html.count("<tr>") == 6
    assert html.count("<th") == 3
    figure = history.plot()
    assert figure._repr_png_()[1:4] == b"PNG"
    assert pickle.loads(pickle.dumps(figure)).axes


def test_a_data_frame():
    pytest.importorskip("pandas")
    frame = trained(MonitorLoss("valid")).history.to_frame()
    assert frame.index.tolist() == [0, 1, 2, 3, 4]
    assert math.isnan(frame["rolling_training.total_loss"][0])


def test_csv_log(tmp_path):
    file = tmp_path / "log.csv"
    trainer = trained(CsvLog(file), MonitorLoss("valid"))
    with open(file, newline="") as f:
        rows = list(csv.DictReader(f))
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3", "4"]
    losses = trainer.logs["MonitorLoss"]["total_loss"]
    assert [float(row["MonitorLoss.total_loss"]) for row in rows] == losses
    other = tmp_path / "script.csv"
    other.write_text("something else")
    with pytest.raises(OSError, match="CsvLog .*table of logs"):
        trained(CsvLog(other))
    with pytest.raises(ValidationError, match="end in .csv"):
        CsvLog("log.txt")


@pytest.mark.parametrize("criterion", ["min", "max"])
def test_restore_best(criterion):
    values = [5, 4, 1, 2, 3]
    seen = {}

    class Look(Hook):
        def __call__(self, epoch_nr, update_nr, net, stepper, logs):
            seen[epoch_nr] = net.get("parameters")

    net = create_net_from_spec("classification", 3, 2, "F4")
    log = "Falling.loss"
    trained(Falling(values), Look(), RestoreBest(log, criterion), net=net)
    best = 2 if criterion == "min" else 0
    np.testing.assert_array_equal(net.get("parameters"), seen[best])
    assert not np.array_equal(seen[4], seen[best])


def test_restore_best_after_resuming(tmp_path):
    file = tmp_path / "checkpoint.hdf5"
    log = [9, 1, 5, 6, 7]
    hooks = [Falling(log), RestoreBest("Falling.loss"), SaveCheckpoint(file)]
    net = create_net_from_spec("classification", 3, 2, "F4")
    initial = net.get("parameters")
    trained(*hooks, epochs=2, net=net)
    best = net.get("parameters")
    assert not np.array_equal(initial, best)
    resumed, again = Trainer.load(file)
    resumed.hooks["StopAfterEpoch"].max_epochs = 4
    resumed.train(again, data(), valid=data())
    np.testing.assert_array_equal(again.get("parameters"), best)


def test_reduce_on_plateau():
    values = [5, 4, 4, 4, 3, 3, 3, 3, 3]
    rates = []

    class Look(Hook):
        def __call__(self, epoch_nr, update_nr, net, stepper, logs):
            rates.append(stepper.learning_rate)

    plateau = ReduceOnPlateau(
        "Falling.loss", factor=0.5, patience=2, minimum=0.03, timescale="epoch"
    )
    trained(Falling(values), plateau, Look(), epochs=8)
    assert rates == [0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.03, 0.03, 0.03]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"factor": 1}, "factor has to be between 0 and 1"),
        ({"factor": "x"}, "factor"),
        ({"patience": 0}, "patience"),
        ({"criterion": "least"}, "criterion"),
    ],
)
def test_bad_arguments(arguments, text):
    with pytest.raises(ValidationError, match=text):
        ReduceOnPlateau("a.b", **arguments)


def test_unknown_attributes():
    with pytest.raises(ValidationError, match="did you mean 'learning_rate'"):
        trained(Falling([1] * 9), ReduceOnPlateau("Falling.loss", attr_name="learning"))


@pytest.mark.parametrize(
    "hook",
    [
        RestoreBest("a.b", "max"),
        ReduceOnPlateau("a.b", patience=3),
        CsvLog("log.csv", interval=2),
    ],
)
def test_hooks_are_described(hook):
    description = bs.get_description(hook)
    again = bs.create_from_description(description)
    assert bs.get_description(again) == description
    assert repr(again) == repr(hook)

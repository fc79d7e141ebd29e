"""The table that a training prints."""

import copy
import gc
import os
import pickle
import re
import struct
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

import brainstorm as bs
from brainstorm.data_iterators import Minibatches
from brainstorm.hooks import (
    EarlyStopper,
    Hook,
    ModifyStepperAttribute,
    MonitorLayerParameters,
    MonitorLoss,
    MonitorScores,
    SaveCheckpoint,
    StopAfterEpoch,
)
from brainstorm.training import ForwardStepper, SgdStepper, Trainer
from brainstorm.training.epoch_table import text_of
from brainstorm.utils import ValidationError

X = np.random.default_rng(0).normal(size=(1, 12, 3))
MOST_CALLS = 76
"""Of Python functions in an update of a trainer that has nothing else to do."""
Y = np.arange(12).reshape(1, 12, 1) % 2


def data():
    return Minibatches(4, default=X, targets=Y, shuffle=False)


class Give(Hook):
    """Logs given values, one after the other."""

    def __init__(self, values, **common):
        super().__init__(**common)
        self.values = values

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        count = epoch_nr if self.timescale == "epoch" else update_nr
        return self.values[count % len(self.values)]


def network():
    net = bs.tools.create_net_from_spec("classification", 3, 2, "F4")
    net.initialize("glorot", seed=1)
    return net


def make_trainer(*hooks, epochs=2, verbose=True, stepper=None):
    trainer = Trainer(stepper or SgdStepper(0.1), verbose)
    for hook in (*hooks, StopAfterEpoch(epochs)):
        trainer.add_hook(hook)
    return trainer


def train(*hooks, net=None, **arguments):
    trainer = make_trainer(*hooks, **arguments)
    trainer.train(net or network(), data(), valid=data())
    return trainer


@pytest.fixture
def lines(capsys):
    """The lines that were printed, without those that are empty."""
    return lambda: [x for x in capsys.readouterr().out.splitlines() if x]


def rows_of(lines):
    """The cells of all rows, by epoch."""
    return {int(line.split()[0]): line.split() for line in lines if line[4:5].isdigit()}


def test_a_line_for_each_epoch(lines):
    accuracy = bs.scorers.Accuracy()
    trainer = make_trainer(MonitorScores("valid", [accuracy], name="validation"))
    trainer.train_scorers = [accuracy]
    trainer.train(network(), data(), valid=data())
    titles, names, rule, *rows, last = lines()
    assert titles.split() == ["training", "validation"]
    scores = ["total_loss", "Accuracy"]
    assert names.split() == ["epoch", *scores, *scores, "learning_rate", "seconds"]
    assert {len(line) for line in (names, rule, *rows)} == {len(rule)}
    ends = [m.end() for m in re.finditer("-+", rule)]
    assert [m.end() for m in re.finditer(r"\S+", names)] == ends
    for nr, row in enumerate(rows):
        assert [m.end() for m in re.finditer(r"\S+", row)] == ends
        cells = row.split()
        assert cells[0] == str(nr)
        logs = trainer.logs["validation"]
        assert cells[3:5] == [f"{logs[score][nr]:.4f}" for score in scores]
        logs = trainer.logs["rolling_training"]
        expected = [f"{logs[s][nr - 1]:.4f}" if nr else "-" for s in scores]
        assert cells[1:3] == expected
        assert cells[5] == ("0.1" if nr else "-")
        assert float(cells[6]) >= 0
    assert len(rows) == 3
    assert last == "StopAfterEpoch >> Stopping the training. Trained for 2 epochs."


@pytest.mark.parametrize(
    ("verbose", "expected"), [(False, ""), (0, ""), (2, "- Epoch 1 -"), (1, "seconds")]
)
def test_how_much_is_printed(verbose, expected, capsys):
    train(MonitorLoss("valid"), verbose=verbose)
    out = capsys.readouterr().out
    assert expected in out
    assert bool(out) == bool(expected)
    assert ("seconds" in out) == (verbose == 1)


@pytest.mark.parametrize("verbose", [3, -1, "yes", None, [1], 1.5])
def test_verbose_is_checked(verbose):
    with pytest.raises(ValidationError, match="Trainer: verbose has to be False, True"):
        Trainer(SgdStepper(), verbose)


def test_the_rate_is_that_of_the_epoch(lines):
    halve = ModifyStepperAttribute(bs.training.Exponential(0.8, 0.5))
    train(halve)
    found = lines()
    assert "Modify" not in "".join(found)
    assert [row[-2] for row in rows_of(found).values()] == ["0.8", "0.4"]


def test_a_stepper_without_a_rate(lines):
    train(stepper=ForwardStepper())
    assert lines()[1].split() == ["epoch", "total_loss", "seconds"]


def test_late_logs_open_a_new_header(lines):
    train(Give([None, None, {"late": 1.0}], name="own"), epochs=3)
    found = lines()
    headers = [line.split() for line in found if "epoch " in line]
    assert ["late" in header for header in headers] == [False, True]
    assert found.index(next(x for x in found if "late" in x)) > 3
    assert rows_of(found)[2][2] == "1.0000"
    assert rows_of(found)[3][2] == "-"


def test_logs_of_updates_have_their_last_entry(lines):
    train(Give([0.5, 1.5, 2.5, 3.5, 4.5], timescale="update", name="often"))
    rows = rows_of(lines())
    assert [row[2] for row in rows.values()] == ["0.5000", "3.5000", "1.5000"]


def test_verbosity_of_hooks(lines):
    hidden = Give([0.25], name="hidden", verbose=False)
    full = Give([0.75], name="full", verbose=2)
    train(hidden, full, Give([0.5], name="shown", verbose=True))
    found = lines()
    assert "shown" in found[2]
    assert found.count(f"{'full':<32}: 0.75") == 3
    assert "hidden" not in "".join(found)


STRANGE = [
    *(None, float("nan"), float("inf"), -np.inf, [1, [2]], "a\nb\t\x1b[31mc", True),
    *(np.float32(0.5), np.arange(3), np.array(0.125), 10**400, 1e300, -1e-200),
    *(object(), Fraction(1, 3), 1j, b"bytes", np.int64(-3), "\ud800", "ä" * 50, set()),
]


def test_strange_values(lines):
    values = [{"x": value} for value in STRANGE]
    trainer = train(Give(values, name="own"), epochs=len(STRANGE) - 1)
    rows = [line for line in lines() if line[4:5].isdigit()]
    assert len(rows) == len(STRANGE)
    assert len({len(row) for row in rows}) == 1
    assert trainer.current_epoch_nr == len(STRANGE) - 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0000"),
        (0.123456, "0.1235"),
        (-999.99999, "-1000.0000"),
        (1234.567, "1234.57"),
        (1e7, "1.00e+07"),
        (0.00012, "1.20e-04"),
        (-1e-250, "-1.0e-250"),
        (3, "3"),
        (10**12, "1.00e+12"),
        (float("nan"), "nan"),
        (None, "-"),
        ("a\nb", "a b"),
    ],
)
def test_texts_of_values(value, text):
    assert text_of(value) == text
    assert len(text) <= 10


def test_the_width_is_bounded(lines):
    train(
        MonitorLayerParameters("FullyConnected"), Give([{"l" * 60: 1}], name="n" * 60)
    )
    found = lines()
    assert max(map(len, found)) <= 100
    assert re.match(r"\(no room for \S+ and \d+ more\)", found[0])
    assert "nnn..nnn" in "".join(found) or "MonitorParameters" in "".join(found)


def test_long_names_are_shortened(lines):
    name = "a_score_with_a_name_that_is_very_long_for_a_column"
    train(
        Give([{f"{name}_{i}": i for i in range(4)}], name="own"),
        Give([7], name="plain"),
    )
    found = lines()
    assert max(map(len, found)) <= 100
    labels = found[1].split()
    assert len(labels) == 9
    for i, label in enumerate(labels[2:6]):
        assert re.fullmatch(rf"a_sc.*\.\..*_{i}", label)
    assert labels[6] == "plain"


def test_a_training_that_goes_on(lines):
    net = network()
    trainer = train(MonitorLoss("valid"), net=net)
    assert [*rows_of(lines())] == [0, 1, 2]
    trainer.hooks["StopAfterEpoch"].max_epochs = 4
    trainer.train(net, data(), valid=data())
    found = lines()
    assert found[1].split()[0] == "epoch"
    assert [*rows_of(found)] == [3, 4]


def test_a_training_from_a_checkpoint(lines, tmp_path):
    path = tmp_path / "checkpoint.hdf5"
    train(MonitorLoss("valid"), SaveCheckpoint(path, timescale="update", interval=4))
    lines()
    trainer, net = Trainer.load(path)
    assert trainer.verbose is True
    trainer.train(net, data(), valid=data())
    assert [*rows_of(lines())] == [2]
    trainer.verbose = 2
    trainer.save(path)
    assert Trainer.load(path)[0].verbose == 2


def test_a_hook_that_trains(lines):
    class Inner(Hook):
        def __call__(self, epoch_nr, update_nr, net, stepper, logs):
            train(epochs=1)
            return {"inner": 1.0}

    train(Inner(), epochs=2)
    found = lines()
    headers = [i for i, line in enumerate(found) if line.startswith("epoch")]
    for i, line in enumerate(found):
        if line[4:5].isdigit():
            header = found[max(h for h in headers if h < i)]
            assert len(header) == len(line)
    assert len(headers) == 6


def test_the_best_so_far_has_a_colour(lines, monkeypatch):
    """Of losses the lowest, of scores what is good, also of earlier trainings."""
    monkeypatch.setattr("brainstorm.training.epoch_table._has_colours", lambda: True)

    class Scores(Give):
        scorers = (bs.scorers.Accuracy(), bs.scorers.ConfusionMatrix(name="other"))

    nan, net = float("nan"), network()
    values = [3.0, 1.0, 2.0, nan, 0.5, 4.0]
    own = [dict.fromkeys(("total_loss", "Accuracy", "other"), v) for v in values]
    trainer = train(Scores(own, name="own"), net=net, stepper=SgdStepper(0.0))
    trainer.hooks["StopAfterEpoch"].max_epochs = 5
    trainer.train(net, data(), valid=data())
    marked = {
        int(line.split()[0]): re.findall(r"\x1b\[32m *(\S+)\x1b", line)
        for line in lines()
        if line[4:5].isdigit()
    }
    expected = [["3.0000"] * 2, ["1.0000"], [], [], ["0.5000"], ["4.0000"]]
    for epoch, cells in enumerate(expected):
        assert [c for c in marked[epoch] if c[1:] == ".0000" or c == "0.5000"] == cells


def test_messages_come_below_their_epoch(lines):
    train(Give([1, 2, 3], name="own"), EarlyStopper("own", patience=1), epochs=3)
    found = lines()
    assert found[-2].split()[0] == "1"
    assert found[-1].startswith("EarlyStopper >> Stopping the training. own did not")


def test_errors_leave_the_messages(lines):
    class Fail(Hook):
        def __call__(self, epoch_nr, update_nr, net, stepper, logs):
            if epoch_nr:
                raise ZeroDivisionError

    class Stop(Hook):
        def __call__(self, epoch_nr, update_nr, net, stepper, logs):
            if epoch_nr:
                raise StopIteration("enough")

    with pytest.raises(ZeroDivisionError):
        train(Stop(), Fail())
    assert lines()[-1] == "Stop >> Stopping the training. enough"


def test_evaluating_meanwhile(lines):
    class Evaluate(Hook):
        repeatable = True  # so that it is left out of the evaluation

        def __call__(self, epoch_nr, update_nr, net, stepper, logs):
            if epoch_nr == 1:
                trainer.evaluate(net, other=data())

    trainer = make_trainer(Evaluate(), epochs=2)
    trainer.add_hook(MonitorLoss("other", name="loss"))
    trainer.train(network(), data(), other=data())
    found = lines()
    assert "other" in found  # the results, in full
    losses = trainer.logs["loss"]["total_loss"]
    assert [row[2] for row in rows_of(found).values()] == [f"{x:.4f}" for x in losses]
    assert rows_of(found)[1][2] == f"{losses[1]:.4f}"


def test_trainers_can_be_copied_meanwhile():
    class Copy(Hook):
        def __call__(self, epoch_nr, update_nr, net, stepper, logs):
            report = around["trainer"]._report
            pickle.loads(pickle.dumps(report))
            copy.deepcopy(report)

    around = {"trainer": make_trainer(Copy())}
    around["trainer"].train(network(), data())


def calls(verbose, batches):
    """The number of functions that are called in a training."""
    count = 0

    def note(frame, event, arg):
        nonlocal count
        count += event == "call"

    trainer = make_trainer(epochs=1, verbose=verbose)
    x, y = np.repeat(X, batches, axis=1), np.repeat(Y, batches, axis=1)
    many = Minibatches(12, default=x, targets=y, shuffle=False)
    net = network()
    gc.collect()
    gc.disable()
    sys.setprofile(note)
    try:
        trainer.train(net, many)
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


def test_no_update_costs_more():
    """In a process where nothing else has been imported that could change numbers."""
    code = "from tests.training.test_epoch_table import calls; calls(True, 2)"
    for verbose in (False, True):
        code += f"; print('calls', calls({verbose}, 12) - calls({verbose}, 2))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    without, with_table = re.findall(r"^calls (\d+)$", done.stdout, re.MULTILINE)
    assert abs(int(with_table) - int(without)) < 0.5 * 10
    assert max(int(with_table), int(without)) < MOST_CALLS * 10


# -- on a terminal -----------------------------------------------------------

SCRIPT = """
import numpy as np
import brainstorm as bs
from brainstorm.hooks import *

x = np.random.RandomState(1).randn(1, 40, 2)
data = bs.Minibatches(4, default=x, targets=x[:, :, :1] > 0)
net = bs.tools.create_net_from_spec("classification", 2, 2, "F3")
net.initialize("glorot", seed=1)
trainer = bs.Trainer(bs.training.SgdStepper(0.3), {verbose})
trainer.train_scorers = [bs.scorers.Accuracy()]
for hook in (ProgressBar(), MonitorLoss("data"), StopAfterEpoch(3)):
    trainer.add_hook(hook)
trainer.train(net, data, data=data)
"""


def on_a_terminal(verbose=True, columns=100, **environment):
    """What a training writes to a pseudo terminal, and what is to be seen there."""
    pty, fcntl, termios = map(pytest.importorskip, ("pty", "fcntl", "termios"))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS")}
    environment = {**kept, "TERM": "xterm", "LINES": "", **environment}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(verbose=verbose)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment, "PYTHONPATH": str(bs.__path__[0] + "/..")},
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # Linux says so when the other side is closed
            break
        if not piece:
            break
        written += piece
    os.close(ours)
    assert process.wait() == 0, written
    text = written.decode()
    return text, screen(text)


def screen(text):
    """The lines on the screen in the end."""
    lines = []
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    for line in plain.replace("\r\n", "\n").split("\n"):
        shown = ""
        for piece in line.split("\r"):
            shown = piece + shown[len(piece) :]
        lines.append(shown.rstrip())
    return [line for line in lines if line]


def test_table_and_bar_on_a_terminal():
    text, seen = on_a_terminal()
    assert re.search(r"Epoch 3: 100%\|█+\| 10/10 \[00:00<00:00,", text)
    # The bar is gone, and has left nothing behind.
    assert len(seen) == 3 + 4 + 1
    assert [line.split()[0] for line in seen[3:7]] == ["0", "1", "2", "3"]
    assert len({len(line) for line in seen[2:7]}) == 1
    green = re.findall(r"\x1b\[32m *(\S+)\x1b\[0m", text)
    assert seen[3].split()[3] in green
    assert seen[4].split()[1] in green


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_terminals_without_colours(environment):
    text, seen = on_a_terminal(columns=50, **environment)
    assert "\x1b[3" not in text
    assert max(map(len, seen[1:-1])) < 50


@pytest.mark.slow
def test_bars_stay_where_all_is_printed():
    _, seen = on_a_terminal(verbose=2)
    bars = [line for line in seen if line.startswith("Epoch ")]
    assert [bar[:14] for bar in bars] == [f"Epoch {i}: 100%|" for i in (1, 2, 3)]

"""The benchmarks: all contestants do each work, and do the same. Nothing is timed."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import reservoirs, spiking, turns, with_brainstorm
from benchmarks.contestants import (
    Contestant,
    ContestantError,
    extract,
    find_contestants,
)
from benchmarks.works import NAMES, load
from tests.handlers.handler_cases import onednn_handler

ROOT = Path(__file__).resolve().parents[1]


def do(library, work, kind, variant=""):
    """Have a contestant work in this process."""
    contestant = Contestant(f"{kind} {variant}", kind, variant)
    for mode, run in library.make_runs(work, kind, variant).items():
        contestant.first_losses[mode] = run(2)
    return contestant


def _marked(name):
    return pytest.param(name, marks=pytest.mark.slow) if name == "hutter" else name


@pytest.fixture(scope="module", params=map(_marked, NAMES))
def done(request):
    """A work, and what NumpyHandler made of it."""
    work = load(request.param)
    if request.param == "tiny_gpt":
        work = work.with_little_data()
    return work, do(with_brainstorm, work, "NumpyHandler")


def test_onednn_does_the_same(done):
    onednn_handler()
    work, expected = done
    others = [do(with_brainstorm, work, "OneDnnHandler", v) for v in work.our_variants]
    command.check_losses([expected, *others], work)


@pytest.mark.slow
def test_pytorch_does_the_same(done):
    pytest.importorskip("torch")
    from benchmarks import with_pytorch

    work, expected = done
    others = [do(with_pytorch, work, "eager", v) for v in work.torch_variants]
    command.check_losses([expected, *others], work)


def test_other_losses_are_found_out(done):
    work, expected = done
    other = Contestant("Other", "eager")
    for mode, (first, second) in expected.first_losses.items():
        other.first_losses = {**expected.first_losses, mode: [first, 2 * second]}
        with pytest.raises(AssertionError, match=f"Other and NumpyHandler.*{mode}"):
            command.check_losses([expected, other], work)


@pytest.mark.parametrize("name", ["small", "mnist_pi", "cifar10_cnn", "embedding"])
def test_operations_are_those_that_pytorch_counts(name):
    pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks import with_pytorch

    work = load(name)
    for mode, run in with_pytorch.make_runs(work, "eager", "").items():
        with FlopCounterMode(display=False) as counter:
            run(1)
        assert counter.get_total_flops() == work.flops(mode)


@pytest.mark.slow
def test_a_contestant_has_a_process_of_its_own(capsys):
    ours, unknown = Contestant("Ours", "NumpyHandler"), Contestant("Odd", "OddHandler")
    with command.started([unknown, ours], "small", gpu=False) as running:
        assert running == [ours]
        assert capsys.readouterr().out.startswith("left out: Odd: AttributeError")
        losses = ours.first_losses["training"]
        assert losses[-1] < losses[0] == ours.first_losses["evaluation"][0]
        with pytest.raises(ContestantError, match="no_order"):
            ours.ask("no_order")
        seconds = command.interleaved_times(running, "evaluation", 2)
        assert np.all(np.array(seconds) > 0)
    assert ours.process.returncode == 0


@pytest.mark.slow
def test_an_older_library_does_the_same_work(tmp_path):
    if shutil.which("git") is None or (
        subprocess.run(
            ["git", "rev-parse", "HEAD:brainstorm"], cwd=ROOT, capture_output=True
        ).returncode
    ):
        pytest.skip("this is no clone, or there is no git")
    with pytest.raises(ContestantError, match="no_such_commit"):
        extract("no_such_commit", tmp_path)
    extract("HEAD", tmp_path)
    now, before = (
        c
        for c in find_contestants(gpu=False, before=tmp_path)
        if c.kind == "NumpyHandler"
    )
    assert (now.root, before.root) == (ROOT, tmp_path)
    with command.started([now, before], "small", gpu=False) as running:
        command.check_losses(running, load("small"))
    columns = {"ms": [1.0, 6.0, 2.0, 3.0], "min": [1.0] * 4, "MB": [2.0] * 4}
    ratios = command.with_ratios_to_before({"/eager": [1.0], **columns}, "MB")
    assert ratios["ms /before"] == [0.5, 2, 1, 1]
    assert "/eager" not in ratios


PEAK_OF_STEPS = """
import numpy as np
from benchmarks.worker import Worker
from benchmarks.works import load

def make_runs(work):
    kept, first = np.ones(128 << 17), [1]  # 128 MiB

    def run(steps):
        while first:  # taken once, not in each step
            np.ones(512 << 17)
            first.pop()
        return [float(np.ones(64 << 17)[0] * kept[0])] if kept.size else []

    return {"training": run}

worker = Worker.__new__(Worker)
worker._peaks = {}
worker._make_and_measure(make_runs, load("small"))
print(worker.megabytes("training"))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_memory_is_the_peak_of_steps_above_nothing():
    # In a process of its own: what others freed goes back to Linux at any time.
    run = [sys.executable, "-c", PEAK_OF_STEPS]
    megabytes = float(subprocess.check_output(run, cwd=ROOT, text=True))
    if np.isnan(megabytes):
        pytest.skip("needs glibc")
    # Linux sums what each processor has counted now and then, and rounds to huge pages.
    assert abs(megabytes - (128 + 64) * 1.048576) < 16


def test_table():
    contestants = find_contestants(gpu=False)
    assert [c.kind for c in contestants[2:]] == ["eager", "eager"]
    times = [[1.0, 3.0, 2.0], [4.0], [8.0], [5.0]]
    columns = command.columns_of_times(contestants, times, seconds_at_peak=0.5)
    assert columns["ms"] == [2000, 4000, 8000, 5000]
    assert columns["min"][0] == 1000
    assert columns["max"][0] == 3000
    assert columns["/eager"] == [0.25, 0.5, 1, 0.625]
    assert columns["/tuned"] == [0.4, 0.8, 1.6, 1]
    assert columns["% peak"] == [25, 12.5, 6.25, 10]
    assert np.all(np.isnan(command.ratios([1.0], contestants[:1], tuned=False)))
    columns = {"ms": [1.23456, 0.001], "MB": [0.5, float("nan")]}
    assert command.table("title", contestants[:2], columns).splitlines() == [
        "title                                 ms      MB",
        "NumpyHandler                        1.23   0.500",
        "OneDnnHandler                    0.00100       -",
    ]


@pytest.mark.slow
def test_command():
    pytest.importorskip("torch")
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks", "small", "--rounds", "1", "--no-compile"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stderr
    assert "small: 20-32-3 perceptron" in result.stdout


@pytest.mark.parametrize("handler", ["NumpyHandler", "OneDnnHandler"])
def test_the_spiking_network_learns(handler):
    if handler == "OneDnnHandler":
        onednn_handler()
    step = spiking.brainstorm(handler)
    losses = [step() for _ in range(4)]
    assert losses[-1] < losses[0] < 3
    peers = set(spiking.CONTESTANTS) - {"NumpyHandler", "OneDnnHandler"}
    assert peers == {"snnTorch", "BrainPy, jitted"}


@pytest.mark.parametrize("handler", ["NumpyHandler", "OneDnnHandler"])
def test_the_reservoir_is_fitted(handler, monkeypatch):
    if handler == "OneDnnHandler":
        onednn_handler()
    monkeypatch.setattr(reservoirs, "UNITS", 30)
    monkeypatch.setattr(reservoirs, "STEPS", 500)
    assert 0 < reservoirs.brainstorm(handler)() < 0.3
    assert np.isfinite(reservoirs.closed_loop(handler)())


def test_contestants_take_turns_in_processes_of_their_own(capsys, monkeypatch):
    contestants = dict.fromkeys(["OneDnnHandler", "NumpyHandler", "Nobody"])
    title = "us for a closed loop's step"
    turns._compare("benchmarks.reservoirs", title, contestants, 2, 1)
    shown = capsys.readouterr().out
    assert "left out: Nobody" in shown
    assert "NumpyHandler" in shown.split("left out: Nobody")[1]

"""The benchmarks: all contestants do each work, and do the same. Nothing is timed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import contestants as parties
from benchmarks import machine, reservoirs, spiking, turns, verdicts, with_brainstorm
from benchmarks.contestants import (
    Contestant,
    ContestantError,
    extract,
    find_contestants,
    pairs,
    us_and_us_before,
)
from benchmarks.works import NAMES, load
from tests.handlers.handler_cases import onednn_handler

ROOT = Path(__file__).resolve().parents[1]


def do(library, work, kind, variant="", precision="f32"):
    """Have a contestant work in this process."""
    name = f"{kind} {variant} {precision}"
    contestant = Contestant(name, kind, variant, precision=precision)
    for mode, run in library.make_runs(work, kind, variant, precision).items():
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
def test_onednn_does_nearly_the_same_with_rounded_factors(done):
    onednn_handler()
    work, expected = done
    other = do(with_brainstorm, work, "OneDnnHandler", precision="bf16")
    command.check_losses([expected, other], work)


@pytest.mark.slow
def test_pytorch_does_the_same(done):
    pytest.importorskip("torch")
    from benchmarks import with_pytorch

    work, expected = done
    others = [do(with_pytorch, work, "eager", v) for v in work.torch_variants]
    others.append(do(with_pytorch, work, "eager", work.torch_variants[0], "bf16"))
    command.check_losses([expected, *others], work)


JAX_LOSSES = """
import json, sys
from benchmarks import with_jax
from benchmarks.works import load

work = load(sys.argv[1])
if sys.argv[1] == "tiny_gpt":
    work = work.with_little_data()
runs = with_jax.make_runs(work, "jitted", "")
print(json.dumps({mode: run(2) for mode, run in runs.items()}))
"""


@pytest.mark.slow
def test_jax_does_the_same(done, request):
    pytest.importorskip("jax")
    work, expected = done
    # In a process of its own: JAX's threads do not allow others to fork this one.
    name = request.node.callspec.params["done"]
    run = [sys.executable, "-c", JAX_LOSSES, name]
    losses = json.loads(subprocess.check_output(run, cwd=ROOT, timeout=600))
    assert losses.keys() == expected.first_losses.keys()
    other = Contestant("JAX", "jitted", first_losses=losses)
    command.check_losses([expected, other], work)


@pytest.mark.parametrize(("precision", "factor"), [("f32", 2), ("bf16", 1.6)])
def test_other_losses_are_found_out(done, precision, factor):
    work, expected = done
    other = Contestant("Other", "eager", precision=precision)
    for mode, (first, second) in expected.first_losses.items():
        other.first_losses = {**expected.first_losses, mode: [first, factor * second]}
        with pytest.raises(AssertionError, match=f"Other and NumpyHandler.*{mode}"):
            command.check_losses([expected, other], work)


def test_rounded_factors_may_change_losses_a_little():
    work, losses = load("small"), {"training": [2.0], "evaluation": [2.0]}
    expected = Contestant("Ours", "NumpyHandler", first_losses=losses)
    near = {"training": [2.04], "evaluation": [2.004]}
    rounded = Contestant("Rounded", "eager", precision="bf16", first_losses=near)
    command.check_losses([expected, rounded], work)
    exact = Contestant("Exact", "eager", first_losses=near)
    with pytest.raises(AssertionError, match="Exact and Ours"):
        command.check_losses([expected, exact], work)
    rounded.first_losses = {"evaluation": [2.04]}
    with pytest.raises(AssertionError, match="Rounded and Ours, evaluation"):
        command.check_losses([expected, rounded], work)


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


def _skip_unless_cloned():
    if shutil.which("git") is None or (
        subprocess.run(
            ["git", "rev-parse", "HEAD:brainstorm"], cwd=ROOT, capture_output=True
        ).returncode
    ):
        pytest.skip("this is no clone, or there is no git")


@pytest.mark.slow
def test_an_older_library_does_the_same_work(tmp_path):
    _skip_unless_cloned()
    with pytest.raises(ContestantError, match="no_such_commit"):
        extract("no_such_commit", tmp_path)
    extract("HEAD", tmp_path)
    everybody = us_and_us_before(find_contestants(gpu=False), tmp_path)
    now, before = (c for c in everybody if c.kind == "NumpyHandler")
    assert (now.root, before.root) == (ROOT, tmp_path)
    with command.started([now, before], "small", gpu=False) as running:
        command.check_losses(running, load("small"))


def test_ratios_to_before_are_those_of_who_is_there_twice(tmp_path):
    everybody = us_and_us_before(find_contestants(gpu=False), tmp_path)
    numpy, onednn, bf16, numpy_before, onednn_before, _ = everybody
    assert {c.kind for c in everybody} == {"NumpyHandler", "OneDnnHandler"}
    assert bf16.precision == "bf16"
    running = [numpy, onednn, bf16, numpy_before, onednn_before]  # bf16 was not there
    assert pairs(running) == [(0, 3), (1, 4)]
    columns = {"ms": [1.0, 6.0, 5.0, 2.0, 3.0], "min": [1.0] * 5, "MB": [2.0] * 5}
    ratios = command.with_ratios_to_before({"/eager": [1.0], **columns}, "MB", running)
    np.testing.assert_equal(ratios["ms /before"], [0.5, 2, np.nan, 1, 1])
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
    everybody = find_contestants(gpu=False)
    contestants = [c for c in everybody if c.precision == "f32"][:4]
    assert [c.kind for c in contestants[2:]] == ["eager", "eager"]
    times = [[1.0, 3.0, 2.0], [4.0], [8.0], [5.0]]
    columns = command.columns_of_times(contestants, times, seconds_at_peak=0.5)
    assert columns["ms"] == [2000, 4000, 8000, 5000]
    assert columns["min"][0] == 1000
    assert columns["max"][0] == 3000
    assert columns["/eager"] == [0.25, 0.5, 1, 0.625]
    assert columns["/tuned"] == [0.4, 0.8, 1.6, 1]
    assert columns["/best"] == [0.4, 0.8, 1.6, 1]
    assert columns["% peak"] == [25, 12.5, 6.25, 10]
    assert np.all(np.isnan(command.ratios([1.0], contestants[:1], tuned=False)))
    columns = {"ms": [1.23456, 0.001], "MB": [0.5, float("nan")]}
    assert command.table("title", contestants[:2], columns).splitlines() == [
        "title                                 ms      MB",
        "NumpyHandler                        1.23   0.500",
        "OneDnnHandler                    0.00100       -",
    ]


def test_the_best_peer_is_the_fastest_of_all_others():
    ours = Contestant("Ours", "OneDnnHandler")
    eager = Contestant("Eager", "eager")
    autocast = Contestant("Autocast", "eager", precision="bf16")
    jax = Contestant("JAX", "jitted")
    times = [[1.0], [6.0, 3.0, 4.0], [2.0], [5.0]]  # 3.0 is no median
    everybody = [ours, eager, autocast, jax]
    columns = command.columns_of_times(everybody, times, 1.0)
    assert columns["/best"] == [0.5, 2, 1, 2.5]
    line = "best peer: Autocast, 2000 ms; in float32: Eager, 4000 ms"
    assert command.best_peers(everybody, times) == line
    line = "best peer: Eager, 4000 ms"
    assert command.best_peers([ours, eager, jax], [times[i] for i in (0, 1, 3)]) == line
    assert command.best_peers([ours], [[1.0]]) == ""
    assert np.isnan(command.columns_of_times([ours], [[1.0]], 1.0)["/best"]).all()


def test_peers_that_are_not_installed_are_left_out(capsys, monkeypatch):
    monkeypatch.setitem(parties.PACKAGES, "jitted", "no_such_package")
    monkeypatch.setitem(parties.PACKAGES, "eager", "json")  # which is there
    everybody = find_contestants(gpu=False)
    assert parties.missing_packages(everybody) == ["no_such_package"]
    absent = [c for c in everybody if c.kind == "jitted"]
    with command.started(absent, "small", gpu=False) as running:
        assert running == []
    assert capsys.readouterr().out == ""  # it was said once, above the tables


def test_every_work_has_all_peers():
    for name in NAMES:
        kinds = {c.kind for c in find_contestants(False, True, load(name))}
        peers = {"eager", "compiled", "jitted"}
        assert kinds == {"NumpyHandler", "OneDnnHandler", *peers}


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
    assert "best peer: " in result.stdout


@pytest.mark.slow
def test_command_against_a_commit():
    _skip_unless_cloned()
    options = ["small", "--rounds", "1", "--threads", "1", "--against", "HEAD"]
    run = [sys.executable, "-m", "benchmarks", *options]
    result = subprocess.run(run, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert "against HEAD: " in result.stdout
    assert "PyTorch eager" not in result.stdout


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


# -- the machine ----------------------------------------------------------------------

INTEL = """\
processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8488C
stepping\t: 8
cpu MHz\t\t: 2400.000
cache size\t: 107520 KB
flags\t\t: fpu sse4_2 avx fma avx2 avx512f avx512bw avx_vnni avx512_bf16 avx512_vnni\
 amx_bf16 avx512_fp16 amx_tile amx_int8

processor\t: 1
model name\t: another one
"""
AMD = """\
processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC
stepping\t: 1
flags\t\t: fpu avx fma avx2 avx512f avx512_bf16 avx512_vnni
"""
ARM = """\
processor\t: 0
BogoMIPS\t: 2100.00
Features\t: fp asimd asimdhp asimddp sve i8mm bf16
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: 0xd40
"""


@pytest.mark.parametrize(
    ("text", "name", "extensions"),
    [
        (
            INTEL,
            "Intel(R) Xeon(R) Platinum 8488C (family 6, model 143, stepping 8)",
            "SSE4.2, AVX, AVX2, FMA, AVX-VNNI, AVX-512, AVX-512 BW, AVX-512 VNNI,"
            " AVX-512 BF16, AVX-512 FP16, AMX, AMX INT8, AMX BF16",
        ),
        (
            AMD,
            "AMD EPYC (family 25, model 17, stepping 1)",
            "AVX, AVX2, FMA, AVX-512, AVX-512 VNNI, AVX-512 BF16",
        ),
        (
            ARM,
            "aarch64 (implementer 0x41, part 0xd40, variant 0x1)",
            "NEON, NEON FP16, NEON DotProd, I8MM, BF16, SVE",
        ),
        (None, "aarch64", ""),
    ],
    ids=["Intel", "AMD", "ARM", "no file"],
)
def test_the_machine_is_described(text, name, extensions, tmp_path, monkeypatch):
    monkeypatch.setattr(machine.platform, "processor", lambda: "")
    monkeypatch.setattr(machine.platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 3)
    monkeypatch.setattr(machine, "onednn", lambda threads: "")
    cpuinfo, cpu = tmp_path / "cpuinfo", tmp_path / "cpu0"
    if text is not None:
        cpuinfo.write_text(text, encoding="utf-8")
    clock = ", 2.40 GHz" if text is INTEL else ""
    expected = f"{name}, 3 cores{clock}\n{extensions}"
    assert machine.describe(1, cpuinfo, cpu) == expected.rstrip("\n")
    for number, (level, kind, size) in enumerate(
        [(3, "Unified", "32768K"), (1, "Data", "32K"), (1, "Instruction", "64K")]
    ):
        folder = cpu / "cache" / f"index{number}"
        folder.mkdir(parents=True)
        for field, value in (("level", level), ("type", kind), ("size", size)):
            (folder / field).write_text(f"{value}\n")
    (cpu / "cpufreq").mkdir()
    (cpu / "cpufreq" / "cpuinfo_max_freq").write_text("3700000\n")
    expected = f"{name}, 3 cores, 3.70 GHz, L1 32 KiB, L3 32 MiB"
    assert machine.describe(1, cpuinfo, cpu).splitlines()[0] == expected


# -- regressions ----------------------------------------------------------------------

QUIET = [1.00, 1.01, 1.00, 1.01, 1.02, 1.00]
RESTLESS = [1.0, 1.4, 1.0, 1.5, 1.1, 1.6]  # every second round is disturbed


def scaled(times, factor):
    return [factor * t for t in times]


@pytest.mark.parametrize(
    ("now", "before", "worse"),
    [
        (QUIET, QUIET, False),
        (scaled(QUIET, 1.04), QUIET, False),  # below the bound
        (scaled(QUIET, 1.08), QUIET, True),
        (scaled(QUIET, 0.5), QUIET, False),
        (scaled(RESTLESS, 1.3), RESTLESS, False),  # noise of 40 percent
        (scaled(RESTLESS, 1.7), RESTLESS, True),
        (scaled(RESTLESS, 1.02), QUIET, False),
        ([1.0, 1.3, 1.3, 1.3, 1.3, 1.3], QUIET, False),  # once it was as fast
        (scaled(QUIET[:3], 2), QUIET[:3], False),  # too few to tell
    ],
)
def test_verdicts_on_times(now, before, worse):
    verdict = verdicts.of_times("x", now, before, 1.05)
    assert verdict.worse == worse
    assert verdict.ratio == pytest.approx(np.median(now) / np.median(before))
    assert np.isnan(verdict.noise) == (len(now) < 4)


def test_noise_is_what_rounds_differ_by_though_they_should_not():
    assert verdicts.noise([2.0, 3.0, 2.0, 3.0]) == 0.5
    assert verdicts.noise([3.0, 2.0, 3.0, 2.0]) == 0.5
    assert verdicts.noise([2.0, 2.0, 3.0, 3.0]) == 0
    assert np.isnan(verdicts.noise([1.0, 1.0, 1.0]))


@pytest.mark.parametrize(
    ("now", "before", "worse"),
    [
        (100.0, 100.0, False),
        (105.9, 100.0, False),  # 5 percent and 1 MB
        (106.1, 100.0, True),
        (1.0, 0.1, False),
        (9.0, 0.0, True),
        (float("nan"), float("nan"), False),
    ],
)
def test_verdicts_on_memory(now, before, worse):
    assert verdicts.of_memory("x", now, before, 1.05).worse == worse


@pytest.mark.parametrize("worse", [True, False])
def test_the_status_tells_whether_anything_is_worse(worse, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "small", "--against", "v1"])
    for variable in command.THREADS:
        monkeypatch.setenv(variable, "1")  # set by the command, restored here
    monkeypatch.setattr(command, "extract", lambda revision, folder: None)
    found = [verdicts.Verdict("a work", 1.2, 0.01, worse)]
    monkeypatch.setattr(command, "compare", lambda *arguments: found)
    assert command.main() == worse
    shown = capsys.readouterr().out
    assert "against v1: 1 comparisons" in shown
    assert ("worse: a work: 1.200 (noise 0.010)" in shown) == worse


def test_a_comparison_with_before_names_what_is_worse(tmp_path):
    everybody = us_and_us_before(find_contestants(gpu=False)[:1], tmp_path)
    times, megabytes = [scaled(QUIET, 2), QUIET], [50.0, 50.0]
    found = command.judge("lstm, training", "MB", everybody, times, megabytes, 1.05)
    assert [verdict.worse for verdict in found] == [True, False]
    assert verdicts.summary(found, 1.05).splitlines() == [
        "2 comparisons, 1 worse by more than a factor of 1.05 and the noise",
        "worse: lstm, training, NumpyHandler, ms: 2.000 (noise 0.010)",
    ]
    assert "worse:" not in verdicts.summary(found[1:], 1.05)
    unknown = verdicts.of_times("x", [9.0], [1.0], 1.05)
    assert "not known: 1" in verdicts.summary([unknown], 1.05)

"""What is run on a GPU in one go; suites and tools stand for the real ones."""

import json
import os
import re
import stat
import subprocess
import sys
import time

import pytest

from benchmarks import gpu, suites, toolkit
from benchmarks.contestants import ROOT, find_contestants
from benchmarks.suites import (
    FAILED,
    LATE,
    LEFT_OUT,
    PASSED,
    LateError,
    LeftOutError,
    Outcome,
    Suite,
    run_command,
    run_suites,
)
from benchmarks.works import load

FOREVER = "import time; print('began', flush=True); time.sleep(600)"


def python(code):
    return [sys.executable, "-c", code]


def runs(code):
    """A suite's function that runs Python."""

    def run(seconds, log):
        done = run_command(python(code), seconds, log)
        return Outcome(FAILED if done.status else PASSED, suites.last_line(log))

    return run


def raises(error):
    def run(seconds, log):
        raise error

    return run


def verdicts(printed):
    """Verdict and text of each suite, by name."""
    table = printed.partition("VERDICTS\n")[2]
    found = re.findall(r"^(\w+|left out) +(\S+) +[\d.]+ s +(.*)$", table, re.MULTILINE)
    return {name: (verdict, text) for verdict, name, text in found}


def test_every_suite_gets_a_verdict(tmp_path, capsys):
    chosen = [
        Suite("good", 1, runs("print('all is well')")),
        Suite("bad", 1, runs("print('it is not'); raise SystemExit(3)")),
        Suite("hangs", 0.001, runs(FOREVER)),
        Suite("broken", 1, raises(ValueError("no number"))),
        Suite("missing", 1, raises(LeftOutError("there is no tool"))),
        Suite("last", 1, runs("print('done')")),
    ]
    # That of "hangs" is about a second.
    assert run_suites(chosen, 4000, tmp_path) == 1
    printed = capsys.readouterr().out
    found = verdicts(printed)
    assert list(found) == [suite.name for suite in chosen]
    assert found["good"] == (PASSED, "all is well")
    assert found["bad"] == (FAILED, "it is not")
    verdict, text = found["hangs"]
    assert verdict == LATE
    assert re.fullmatch(r"did not end in its \d s; last: \w.*", text)
    assert found["broken"] == (FAILED, "ValueError: no number")
    assert found["missing"] == (LEFT_OUT, "there is no tool")
    assert found["last"] == (PASSED, "done")
    assert "2 passed, 2 FAILED, 1 LATE, 1 left out" in printed
    assert (tmp_path / "good.log").read_text() == "all is well\n"


def test_what_is_left_out_is_no_failure(tmp_path, capsys):
    chosen = [Suite("missing", 1, raises(LeftOutError("no tool")))]
    assert run_suites(chosen, 60, tmp_path) == 0
    assert run_suites([Suite("good", 1, runs("pass"))], 60, tmp_path) == 0


def test_time_that_is_not_needed_goes_to_the_others(tmp_path, capsys):
    given = {}

    def note(seconds, log):
        given[log.stem] = seconds
        return Outcome(PASSED, "")

    chosen = [Suite("a", 1, note), Suite("b", 1, note), Suite("c", 2, note)]
    run_suites(chosen, 1000, tmp_path)
    assert given["a"] == pytest.approx(250, rel=0.1)
    assert given["b"] == pytest.approx(1000 / 3, rel=0.1)
    assert given["c"] == pytest.approx(1000, rel=0.1)
    assert run_suites(chosen, 0.5, tmp_path) == 0
    shown = verdicts(capsys.readouterr().out.partition("VERDICTS")[2])
    assert set(shown.values()) == {(LEFT_OUT, "no time is left")}


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs Linux")
def test_nothing_outlives_its_time(tmp_path):
    # The child has a group of its own, and is stopped, as contestants are.
    code = (
        "import os, signal, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {FOREVER!r}],"
        " preexec_fn=os.setpgrp)\n"
        "child.send_signal(signal.SIGSTOP)\n"
        "print('child', child.pid, flush=True)\n"
        "time.sleep(600)"
    )
    log = tmp_path / "log"
    seconds = 1.0
    while True:  # until there was time to start it
        with pytest.raises(LateError):
            run_command(python(code), seconds, log)
        children = re.findall(r"child (\d+)", log.read_text())
        if children:
            break
        seconds *= 2
    for child in map(int, children):
        with pytest.raises(ProcessLookupError):
            _signal_if_alive(child)


def _signal_if_alive(pid):
    """Orphans may remain for a while as entries of what is dead."""
    for _ in range(6000):
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as file:
            if file.read().rpartition(")")[2].split()[0] == "Z":
                raise ProcessLookupError
        time.sleep(0.1)


def test_programs_that_are_not_there(tmp_path):
    with pytest.raises(LeftOutError, match="can not run no_such_program: No such"):
        run_command(["no_such_program"], 60, tmp_path / "log")


# -- the suites for a GPU ------------------------------------------------------


@pytest.fixture
def sanitizer(tmp_path, monkeypatch):
    """Writes a program in place of compute-sanitizer."""
    path = tmp_path / "bin" / "compute-sanitizer"
    path.parent.mkdir()
    monkeypatch.setenv("PATH", str(path.parent), prepend=os.pathsep)

    def write(*lines, status=0):
        path.write_text(
            f"#!{sys.executable}\nimport sys\n"
            + "".join(f"print({line!r})\n" for line in lines)
            + f"print('asked', *sys.argv[1:])\nsys.exit({status})\n"
        )
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return write


HEADER = "========= COMPUTE-SANITIZER"
FINE = "========= ERROR SUMMARY: 0 errors"


@pytest.mark.parametrize(
    ("lines", "status", "expected"),
    [
        (
            [HEADER, "5 passed in 2.1s", FINE],
            0,
            (PASSED, "ERROR SUMMARY: 0 errors; tests: 5 passed in 2.1s"),
        ),
        (
            [HEADER, "FAILED tests/a.py::b - x", "1 failed, 4 passed in 2s", FINE],
            1,
            (FAILED, "ERROR SUMMARY: 0 errors; tests: 1 failed, 4 passed in 2s; "
             "tests/a.py::b"),
        ),
        (
            [HEADER, "5 passed in 2s", "========= ERROR SUMMARY: 2 errors"],
            gpu.FOUND,
            (FAILED, "ERROR SUMMARY: 2 errors; tests: 5 passed in 2s"),
        ),
        (
            ["5 passed in 2s", "========= RACECHECK SUMMARY: 0 hazards displayed"],
            0,
            (PASSED, "RACECHECK SUMMARY: 0 hazards displayed; tests: 5 passed in 2s"),
        ),
    ],
)  # fmt: skip
def test_verdict_of_a_sanitizer(sanitizer, tmp_path, lines, status, expected):
    sanitizer(*lines, status=status)
    log = tmp_path / "log"
    assert gpu.run_sanitizer("racecheck", 60, log) == expected
    asked = log.read_text().splitlines()[-1]
    assert asked.startswith("asked --tool racecheck --error-exitcode 86")
    assert "-m pytest -q -m gpu" in asked
    assert "tests/handlers/test_cuda_kernels.py" in asked


def test_what_was_found_when_time_is_over(tmp_path):
    printed = [
        *("...F.s.                [ 70%]", "=", "..E"),
        *("========= Invalid __global__ read of size 4 bytes", "=========     at f"),
    ]
    code = f"import time; print({chr(10).join(printed)!r}, flush=True); time.sleep(600)"
    log, seconds = tmp_path / "log", 0.5
    while True:  # until there was time to print
        with pytest.raises(LateError) as caught:
            gpu._run_tests(python(code), seconds, log)
        if "at f" in log.read_text():
            break
        seconds *= 2
    assert str(caught.value).endswith(
        "s: 7 tests had passed, 2 failed, 1 problems were found"
    )


def test_sanitizers_that_do_not_work(sanitizer, tmp_path, monkeypatch):
    sanitizer("========= Error: Device not supported. Please refer to the", status=1)
    with pytest.raises(LeftOutError, match="does not work on this machine"):
        gpu.run_sanitizer("memcheck", 60, tmp_path / "a")
    sanitizer("Segmentation fault", status=139)
    verdict, text = gpu.run_sanitizer("memcheck", 60, tmp_path / "b")
    assert verdict == FAILED
    assert text.startswith("no summary; last: asked --tool memcheck")
    monkeypatch.setattr(gpu, "find_sanitizer", lambda: None)
    with pytest.raises(LeftOutError, match="there is no compute-sanitizer"):
        gpu.run_sanitizer("memcheck", 60, tmp_path / "c")


def test_what_pytest_says(tmp_path):
    log = tmp_path / "log"
    say = gpu._of_pytest
    assert say("..\n12 passed, 3 skipped in 1.20s\n", log) == (
        "12 passed, 3 skipped in 1.20s"
    )
    text = "=== 1 failed, 2 passed in 62.10s (0:01:02) ===\n"
    assert say(text, log) == "1 failed, 2 passed in 62.10s"
    assert say("no tests ran in 0.01s\n", log) == "no tests ran in 0.01s"
    failed = "".join(f"FAILED tests/x.py::test_{k} - why\n" for k in range(5))
    names = "; ".join(f"tests/x.py::test_{k}" for k in range(3))
    assert say(failed + text, log).endswith(f"; {names}; ...")
    log.write_text("Fatal Python error\n")
    assert say("", log) == "no summary; last: Fatal Python error"


def test_ratios_in_words():
    times = {"PyCudaHandler": 1.5, "PyCudaHandler, no peepholes": 1.0}
    peers = {"PyTorch eager": 2.0, "PyTorch eager, TF32": 1.25}
    assert gpu.in_words({"training": times | peers, "evaluation": times}) == (
        "training: 1.50 ms (0.75 of eager, 1.20 of TF32),"
        " no peepholes 1.00 ms (0.50 of eager, 0.80 of TF32);"
        " evaluation: 1.50 ms, no peepholes 1.00 ms; no PyTorch with CUDA"
    )


def test_who_takes_part_on_a_gpu():
    found = find_contestants(gpu=True, work=load("embedding"))
    assert [contestant.name for contestant in found] == [
        *("PyCudaHandler", "PyCudaHandler, graphs"),
        *("PyTorch eager, sparse", "PyTorch eager, dense"),
        "PyTorch eager, sparse, TF32",
    ]
    assert [contestant.is_tuned for contestant in found] == [False] * 4 + [True]


def test_works_are_told_by_their_last_line(tmp_path, monkeypatch):
    answers = {"good": "import json; print('x'); print('{}')".format(
        json.dumps({"training": {"PyCudaHandler": 2.0, "PyTorch eager": 1.0}})
    )}  # fmt: skip
    answers["absent"] = (
        "print('left out: PyCudaHandler: ImportError: no PyCUDA');raise SystemExit('x')"
    )
    answers["bad"] = "raise AssertionError('the losses differ')"
    monkeypatch.setattr(gpu, "_ourselves", lambda what: python(answers[what]))
    outcomes = {name: gpu.run_work(name, 60, tmp_path / name) for name in answers}
    assert outcomes == {
        "good": (PASSED, "training: 2.00 ms (2.00 of eager)"),
        "absent": (FAILED, "PyCudaHandler: ImportError: no PyCUDA"),
        "bad": (FAILED, "AssertionError: the losses differ"),
    }


def test_facts_of_a_machine_without_a_gpu(tmp_path, monkeypatch, sanitizer):
    sanitizer("Copyright (c)", "Version 2026.1.0 (build 1)")
    path = str(tmp_path / "bin")
    monkeypatch.setenv("PATH", path)
    found = dict(gpu.facts(tmp_path / "log"))
    assert found["GPU"] == "can not run nvidia-smi: No such file or directory"
    assert found["compute-sanitizer"] == "2026.1.0 (build 1)"
    assert found["numpy"][0].isdigit()


def test_suites_that_do_not_exist(capsys):
    with pytest.raises(SystemExit):
        gpu.main(["memchekc"])
    assert "unknown: ['memchekc']" in capsys.readouterr().err


@pytest.mark.slow
def test_without_a_gpu_it_fails_in_time(tmp_path):
    options = ["--minutes", "8", "--folder", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "start", *options],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    [(verdict, text)] = verdicts(done.stdout).values()
    assert verdict == FAILED
    assert re.search("PyCUDA|PyCudaHandler", text)


# -- the toolkit of wheels -----------------------------------------------------


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """What Nvidia's wheels put into a folder of packages, with an older toolkit."""
    for version in ("cu12", "cu13"):
        for folder in ("bin", "include", "lib"):
            (tmp_path / "nvidia" / version / folder).mkdir(parents=True)
        (tmp_path / "nvidia" / version / "bin" / "nvcc").touch()
    (tmp_path / "nvidia" / "cu13" / "lib" / "libcurand.so.10").write_text("x")
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return tmp_path / "nvidia" / "cu13"


def test_the_toolkit_of_wheels_is_found(wheels, tmp_path, monkeypatch):
    assert toolkit.find_toolkit() == wheels
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.delenv("CPATH", raising=False)
    links = tmp_path / "links"
    links.mkdir()
    found = toolkit.environment(wheels, "/usr/lib/libcuda.so.580", links)
    assert found["PATH"] == f"{wheels}/bin{os.pathsep}/usr/bin"
    assert found["CPATH"] == f"{wheels}/include"
    assert found["LIBRARY_PATH"].split(os.pathsep)[:2] == [str(links), f"{wheels}/lib"]
    assert os.readlink(links / "libcuda.so") == "/usr/lib/libcuda.so.580"
    assert (links / "libcurand.so").read_text() == "x"


def test_without_wheels_or_driver(wheels, monkeypatch):
    (wheels / "bin" / "nvcc").unlink()
    (wheels.parent / "cu12" / "bin" / "nvcc").unlink()
    with pytest.raises(SystemExit, match="pip install cuda-toolkit"):
        toolkit.find_toolkit()
    monkeypatch.setattr(toolkit, "DRIVER", "libno_such_driver.so.1")
    with pytest.raises(SystemExit, match="no driver for Nvidia GPUs: libno_such"):
        toolkit.find_driver()


def test_sanitizers_of_wheels_are_found(wheels, monkeypatch):
    monkeypatch.setenv("PATH", "")
    path = wheels / "bin" / "compute-sanitizer"
    path.touch(mode=0o755)
    monkeypatch.setenv("CUDA_HOME", str(wheels / "nothing"))
    if not os.path.exists("/usr/local/cuda/bin/compute-sanitizer"):
        assert gpu.find_sanitizer() == str(path)

"""All that asks for a GPU, within minutes: ``python -m benchmarks.gpu``.

It prints what the machine is, runs suites one after the other, and ends with a verdict
on each: whether the handler starts, the GPU tests, those of the kernels under each
tool of compute-sanitizer, and each work of the benchmarks beside PyTorch. A suite that
fails or takes too long does not keep the others from running. The exit status is 0 if
none did.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import brainstorm as bs
from benchmarks.__main__ import MODES, check_losses, interleaved_times, started
from benchmarks.contestants import ROOT, Contestant, find_contestants
from benchmarks.suites import (
    FAILED,
    PASSED,
    Command,
    LateError,
    LeftOutError,
    Outcome,
    Suite,
    last_line,
    run_command,
    run_suites,
)
from benchmarks.works import NAMES, load

ROUNDS = 5
# Files with tests that have the mark `gpu`; others may need what is not there.
TESTED = ("handlers", "layers", "structure", "tools", "training")
# Every operation, against NumPy.
KERNELS = ("tests/handlers/test_cuda_kernels.py", "-k", "compute_what or options_of")
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
# How compute-sanitizer begins to tell of each thing that it finds.
PROBLEM = r"^=+ (?:Invalid|Uninitialized|Error: Race|Warning: Race|Barrier|Program hit)"
FOUND = 86  # exit status if compute-sanitizer finds something
DISTRIBUTIONS = (
    *("numpy", "pycuda", "scikit-cuda", "torch", "pytest", "pytest-xdist"),
    *("nvidia-cublas", "nvidia-cublas-cu12", "nvidia-cuda-nvrtc"),
)


def main(arguments: list[str] | None = None) -> int:
    everything = ("start", "tests", *TOOLS, *NAMES)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("suites", nargs="*", help=f"any of {everything}; default: all")
    parser.add_argument("--minutes", type=float, default=8, help="default: 8")
    parser.add_argument("--folder", type=Path, help="for what is printed; default: new")
    parser.add_argument("--do", choices=["start", *NAMES], help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if unknown := set(args.suites) - set(everything):
        parser.error(f"unknown: {sorted(unknown)}; choose from {everything}")
    if args.do:
        do_start() if args.do == "start" else do_work(args.do)
        return 0
    end = time.monotonic() + 60 * args.minutes
    folder = args.folder or Path(tempfile.mkdtemp(prefix="brainstorm-gpu-"))
    folder.mkdir(parents=True, exist_ok=True)
    for name, fact in facts(folder / "facts.log"):
        print(f"{name:18} {fact}", flush=True)
    os.environ |= {
        "REQUIRE_GPU": "1",  # tests without one fail instead of being skipped
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "XDG_CACHE_HOME": str(folder / "cache"),  # so that kernels are compiled
        "PYTHONUNBUFFERED": "1",
    }
    suites = [s for s in all_suites() if not args.suites or s.name in args.suites]
    # Some seconds are for what is to be killed and printed.
    return run_suites(suites, end - time.monotonic() - 5, folder)


def all_suites() -> list[Suite]:
    """What tells most comes first, and gets more of the time."""
    return [
        Suite("start", 5, run_start),
        Suite("tests", 8, run_tests),
        Suite("memcheck", 4, lambda *how: run_sanitizer("memcheck", *how)),
        *[Suite(name, 1.5, _runs_work(name)) for name in NAMES],
        Suite("racecheck", 4, lambda *how: run_sanitizer("racecheck", *how)),
        Suite("initcheck", 3, lambda *how: run_sanitizer("initcheck", *how)),
        Suite("synccheck", 2, lambda *how: run_sanitizer("synccheck", *how)),
    ]


# -- the machine ---------------------------------------------------------------


def facts(log: Path) -> Iterator[tuple[str, str]]:
    """What the machine is, by name."""
    what = "name,compute_cap,driver_version,memory.total,clocks.max.sm"
    query = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader"]
    yield "GPU", _told(query, log, r"(.+)")
    yield "CUDA of driver", _told(["nvidia-smi"], log, r"CUDA Version: *([\d.]+)")
    yield "nvcc", _told(["nvcc", "--version"], log, r"release (.+)")
    sanitizer = find_sanitizer()
    version = r"[Vv]ersion (.+)"
    yield "compute-sanitizer", _told([sanitizer, "--version"], log, version)
    yield "Python", f"{platform.python_version()}, {platform.platform()}"
    yield "CPU", f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    yield "brainstorm", bs.__version__
    for name in DISTRIBUTIONS:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield name, "-"


def _told(command: list[str | None], log: Path, pattern: str) -> str:
    """What a command says about itself."""
    if command[0] is None:
        return "not found"
    before = log.stat().st_size if log.exists() else 0
    try:
        output = run_command(command, 20, log).output.encode()[before:].decode()
    except (LeftOutError, LateError) as error:
        return str(error)
    match = re.search(pattern, output)
    return match.group(1).strip() if match else last_line(log)


def find_sanitizer() -> str | None:
    """Path of compute-sanitizer: on PATH, in a toolkit, or in Nvidia's wheel."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    spec = importlib.util.find_spec("nvidia")
    wheels = (spec and spec.submodule_search_locations) or ()
    folders = [Path(home) for home in (*homes, "/usr/local/cuda") if home]
    folders += [path for folder in wheels for path in sorted(Path(folder).glob("cu*"))]
    paths = [str(f / part) for f in folders for part in ("bin", "compute-sanitizer")]
    return shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path=os.pathsep.join(paths)
    )


# -- the suites ----------------------------------------------------------------


def run_start(seconds: float, log: Path) -> Outcome:
    """Open the GPU, compile the kernels, and train a little."""
    done = run_command(_ourselves("start"), seconds, log, ROOT)
    return Outcome(FAILED if done.status else PASSED, last_line(log))


def run_tests(seconds: float, log: Path) -> Outcome:
    """The tests with the mark `gpu`, several at once if that is possible."""
    command = [*_pytest(), *[f"tests/{folder}" for folder in TESTED]]
    if importlib.util.find_spec("xdist") is not None:
        command += ["-n", str(min(8, os.cpu_count() or 1))]
    done = _run_tests(command, seconds, log)
    return Outcome(FAILED if done.status else PASSED, _of_pytest(done.output, log))


def run_sanitizer(tool: str, seconds: float, log: Path) -> Outcome:
    """The tests of the kernels under a tool of compute-sanitizer."""
    sanitizer = find_sanitizer()
    if sanitizer is None:
        raise LeftOutError("there is no compute-sanitizer on this machine")
    options = ["--tool", tool, "--error-exitcode", str(FOUND)]
    options += ["--target-processes", "all"]
    command = [sanitizer, *options, *_pytest(), *KERNELS]
    done = _run_tests(command, seconds, log)
    if "Device not supported" in done.output:
        raise LeftOutError("compute-sanitizer does not work on this machine")
    summaries = re.findall(r"^=+ (.*SUMMARY: .*)$", done.output, re.MULTILINE)
    if not summaries:
        return Outcome(FAILED, f"no summary; last: {last_line(log)}")
    text = f"{summaries[-1]}; tests: {_of_pytest(done.output, log)}"
    return Outcome(FAILED if done.status else PASSED, text)


def run_work(name: str, seconds: float, log: Path) -> Outcome:
    """A work of the benchmarks, beside PyTorch where that has CUDA."""
    done = run_command(_ourselves(name), seconds, log, ROOT)
    if done.status:
        ours = re.findall(r"^left out: (PyCudaHandler: .*)$", done.output, re.MULTILINE)
        return Outcome(FAILED, ours[0] if ours else last_line(log))
    return Outcome(PASSED, in_words(json.loads(done.output.splitlines()[-1])))


def _runs_work(name: str):
    return lambda seconds, log: run_work(name, seconds, log)


def _ourselves(what: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.gpu", "--do", what]


def _pytest() -> list[str]:
    options = ["-q", "-m", "gpu", "-p", "no:cacheprovider", "--tb=short"]
    return [sys.executable, "-m", "pytest", *options, "--continue-on-collection-errors"]


def _run_tests(command: list[str], seconds: float, log: Path) -> Command:
    """Run pytest; if time is over, tell what was found until then."""
    try:
        return run_command(command, seconds, log, ROOT)
    except LateError as error:
        output = log.read_text(encoding="utf-8", errors="replace")
        lines = re.findall(r"^([.FEsxX]+)(?: +\[ *\d+%\])?$", output, re.MULTILINE)
        letters = "".join(lines)
        failed = letters.count("F") + letters.count("E")
        text = f"{letters.count('.')} tests had passed, {failed} failed"
        problems = len(re.findall(PROBLEM, output, re.MULTILINE))
        if problems:
            text += f", {problems} problems were found"
        raise LateError(f"{error}: {text}") from None


def _of_pytest(output: str, log: Path) -> str:
    """How many tests there were, and those that failed first."""
    found = re.findall(
        r"^=* ?((?:no tests|\d+ \w+)\b.* in [\d.:]+\S*)", output, re.MULTILINE
    )
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    text = found[-1] if found else f"no summary; last: {last_line(log)}"
    return "; ".join([text, *failed[:3], *(["..."] if failed[3:] else [])])


def in_words(found: dict[str, dict[str, float]]) -> str:
    """Milliseconds of each of ours, and their ratios to PyTorch."""
    modes = []
    for mode, times in found.items():
        eager = [name for name in times if name.startswith("PyTorch")]
        peers = {"eager": [n for n in eager if "TF32" not in n]}
        peers["TF32"] = [n for n in eager if "TF32" in n]
        ours = []
        for name in times:
            if name not in eager:
                ratios = [
                    f"{times[name] / times[names[0]]:.2f} of {kind}"
                    for kind, names in peers.items()
                    if names
                ]
                told = f" ({', '.join(ratios)})" if ratios else ""
                _, _, variant = name.partition(", ")
                ms = f"{times[name]:#.3g}".rstrip(".")
                ours.append(f"{variant} {ms} ms{told}".strip())
        modes.append(f"{mode}: {', '.join(ours)}")
    return "; ".join(modes) + ("" if eager else "; no PyTorch with CUDA")


# -- what is done in processes of their own ------------------------------------


def do_start() -> None:
    began = time.perf_counter()
    handler = bs.handlers.PyCudaHandler(seed=1)
    seconds = time.perf_counter() - began
    losses = []
    for chosen in (handler, bs.handlers.NumpyHandler(np.float64, seed=1)):
        bs.global_rnd.set_seed(1)
        spec = ("classification", (6, 6, 2), 3, "C4:3 P2 F8")
        net = bs.tools.create_net_from_spec(*spec)
        net.set_handler(chosen)
        stepper = bs.training.AdamStepper(0.01)
        stepper.start(net)
        rnd = np.random.RandomState(0)
        data = {"default": rnd.randn(1, 20, 6, 6, 2)}
        data["targets"] = rnd.randint(0, 3, (1, 20, 1))
        losses.append([])
        for _ in range(5):
            net.provide_external_data(data)
            stepper.run()
            losses[-1].append(net.get_loss_values()["total_loss"])
    np.testing.assert_allclose(*losses, rtol=1e-4)
    products = type(handler.context._cublas).__name__
    print(
        f"{handler.context.name}: ready after {seconds:.1f} s, products by {products}"
    )


def do_work(name: str) -> None:
    """Print tables for a work, and at last the medians in milliseconds as JSON."""
    work = load(name)
    everybody = find_contestants(gpu=True, work=work)
    found: dict[str, dict[str, float]] = {}
    with started(everybody, name, gpu=True) as contestants:
        if not any(contestant.kind == "PyCudaHandler" for contestant in contestants):
            sys.exit("PyCudaHandler does not run here")
        check_losses(contestants, work)
        for mode in MODES:
            times = interleaved_times(contestants, mode, ROUNDS)
            found[mode] = _medians(contestants, times)
    print(json.dumps(found))


def _medians(
    contestants: list[Contestant], times: list[list[float]]
) -> dict[str, float]:
    pairs = zip(contestants, times, strict=True)
    return {c.name: 1e3 * statistics.median(ts) for c, ts in pairs}


if __name__ == "__main__":
    sys.exit(main())

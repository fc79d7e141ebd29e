"""Run benchmarks: ``python -m benchmarks lstm gru``, with ``--gpu`` on the GPU."""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import brainstorm as bs
from benchmarks import machine, verdicts
from benchmarks.contestants import (
    TF32,
    Contestant,
    ContestantError,
    extract,
    find_contestants,
    missing_packages,
    pairs,
    us_and_us_before,
)
from benchmarks.verdicts import Verdict
from benchmarks.work import Work
from benchmarks.worker import product_size
from benchmarks.works import NAMES, load

MODES = ("training", "evaluation")
SECONDS_PER_TURN = 0.1
# How much losses may differ from those of `NumpyHandler`, relatively; in training as
# the work says, unless factors are rounded to bfloat16
TOLERANCES = {
    ("evaluation", "f32"): 1e-4,
    ("evaluation", "bf16"): 5e-3,
    ("training", "bf16"): 0.05,
}
# The contestants' libraries read these when they are loaded; the last is XLA's.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "PJRT_NPROC")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("works", nargs="*", help=f"any of {NAMES}; default: all")
    parser.add_argument("--threads", type=int, default=2, help="default: 2")
    parser.add_argument("--rounds", type=int, default=20, help="default: 20")
    parser.add_argument("--gpu", action="store_true", help="PyCudaHandler and PyTorch")
    parser.add_argument("--no-compile", action="store_true", help="no torch.compile")
    parser.add_argument(
        "--against",
        metavar="COMMIT",
        help="compare with this commit, not with others; fails if anything is worse",
    )
    parser.add_argument(
        "--worse",
        type=float,
        default=1.05,
        metavar="RATIO",
        help="the ratio to the commit above which a work fails, default: 1.05",
    )
    args = parser.parse_args()
    if unknown := set(args.works) - set(NAMES):
        parser.error(f"unknown: {sorted(unknown)}; choose from {NAMES}")

    for variable in THREADS:
        os.environ[variable] = str(args.threads)
    print(describe_run(args.threads))
    peak = math.nan
    if not args.against:
        for package in missing_packages(find_contestants(args.gpu)):
            print(f"left out: {package} is not installed; pip install {package}")
        peak = product_rate(args.gpu)
    found: list[Verdict] = []
    with TemporaryDirectory() as folder:
        if args.against:
            try:
                extract(args.against, Path(folder))
            except ContestantError as error:
                parser.error(str(error))
        before = Path(folder) if args.against else None
        for name in args.works or NAMES:
            found += compare(name, args, peak, before)
    if args.against:
        print(f"\nagainst {args.against}: {verdicts.summary(found, args.worse)}")
    return int(any(verdict.worse for verdict in found))


def describe_run(threads: int) -> str:
    """Versions, and the machine."""
    versions = [f"brainstorm {bs.__version__}"]
    for name, package in (("PyTorch", "torch"), ("JAX", "jax"), ("NumPy", "numpy")):
        with suppress(metadata.PackageNotFoundError):
            versions.append(f"{name} {metadata.version(package)}")
    return (
        f"{', '.join(versions)}, Python {platform.python_version()},"
        f" {platform.machine()}, {threads} threads,"
        f" load {os.getloadavg()[0]:.1f} (0: nothing else runs)\n"
        f"{machine.describe(threads)}"
    )


def product_rate(gpu: bool, rounds: int = 5) -> float:
    """Floating point operations per second in the fastest large matrix product."""
    size, rates = product_size(gpu), [math.nan]
    everybody = [c for c in find_contestants(gpu) if c.precision != "bf16"]
    with started(everybody, "product", gpu) as contestants:
        for contestant in contestants:
            runs = [contestant.ask("run", "product", 5) for _ in range(rounds)]
            rates.append(2 * size**3 / min(run["seconds"] for run in runs))
            name = f"product of {size} x {size} matrices, {contestant.name}"
            print(f"{name}: {rates[-1] / 1e9:.0f} GFLOP/s", flush=True)
    return np.nanmax(rates)


def compare(
    name: str, args: argparse.Namespace, peak: float, before: Path | None = None
) -> list[Verdict]:
    """Have everybody do a work, and print what it took; tells what changed."""
    work = load(name)
    print(f"\n{name}: {work.description}", flush=True)
    everybody = find_contestants(args.gpu, not args.no_compile, work)
    if before is not None:
        everybody = us_and_us_before(everybody, before)
    found: list[Verdict] = []
    order, unit = ("gpu_ms", "GPU ms") if args.gpu else ("megabytes", "MB")
    with started(everybody, name, args.gpu) as contestants:
        if not contestants:
            return found
        check_losses(contestants, work)
        times = {m: interleaved_times(contestants, m, args.rounds) for m in MODES}
        for mode in MODES:
            extra = [_asked(contestant, order, mode) for contestant in contestants]
            at_peak = work.flops(mode) / peak
            columns = columns_of_times(contestants, times[mode], at_peak)
            if args.gpu:
                columns = {k.replace("tuned", TF32): v for k, v in columns.items()}
            columns[unit] = extra
            if before is None:
                columns["/ eager"] = ratios(extra, contestants, tuned=False)
            else:
                columns = with_ratios_to_before(columns, unit, contestants)
                title = f"{name}, {mode}"
                found += judge(title, unit, contestants, times[mode], extra, args.worse)
            print(table(mode, contestants, columns), flush=True)
            if best := best_peers(contestants, times[mode]):
                print(best, flush=True)
    return found


def judge(
    title: str,
    unit: str,
    contestants: list[Contestant],
    times: list[list[float]],
    extra: list[float],
    bound: float,
) -> list[Verdict]:
    """Whether we take more time or memory than we did before."""
    found = []
    for now, before in pairs(contestants):
        what = f"{title}, {contestants[now].name}, {{}}"
        found.append(
            verdicts.of_times(what.format("ms"), times[now], times[before], bound)
        )
        if unit == "MB":
            found.append(
                verdicts.of_memory(what.format(unit), extra[now], extra[before], bound)
            )
    return found


def _asked(contestant: Contestant, order: str, mode: str) -> float:
    """A number, NaN where it can not be measured."""
    try:
        return contestant.ask(order, mode)
    except ContestantError as error:
        print(f"{contestant.name} has no {order}: {error}", flush=True)
        return math.nan


@contextmanager
def started(
    contestants: list[Contestant], work: str, gpu: bool
) -> Iterator[list[Contestant]]:
    """Those who can run here; the others are left out with a line.

    Of those whose package is missing it is known already.
    """
    missing = missing_packages(contestants)
    able = [c for c in contestants if c.package not in missing]
    # On a GPU all at once: its libraries take seconds to load. Elsewhere one by one, as
    # each measures how much memory it takes.
    with ExitStack() as stack, ThreadPoolExecutor(len(able) + 1 if gpu else 1) as pool:
        for contestant in able:
            contestant.spawn()
            stack.callback(contestant.stop)
        errors = list(pool.map(lambda c: _start(c, work, gpu), able))
        running = []
        for contestant, error in zip(able, errors, strict=True):
            if error is None:
                running.append(contestant)
            else:
                print(f"left out: {contestant.name}: {error}", flush=True)
        yield running


def _start(contestant: Contestant, work: str, gpu: bool) -> ContestantError | None:
    """What keeps a contestant from taking part, if anything."""
    try:
        contestant.start(work, gpu)
    except ContestantError as error:
        return error
    return None


def check_losses(contestants: list[Contestant], work: Work) -> None:
    """Make sure that all contestants do the same work, but for those with TF32."""
    expected = contestants[0].first_losses
    for contestant in contestants[1:]:
        if TF32 in contestant.variant:
            continue
        for mode, losses in contestant.first_losses.items():
            bound = TOLERANCES.get((mode, contestant.precision), work.tolerance)
            if mode == "training":
                bound = max(bound, work.tolerance)  # everybody may draw other masks
            np.testing.assert_allclose(
                losses,
                expected[mode],
                rtol=bound,
                err_msg=f"{contestant.name} and {contestants[0].name}, {mode}",
            )


def interleaved_times(
    contestants: list[Contestant], mode: str, rounds: int
) -> list[list[float]]:
    """Each contestant's seconds per step in each round, all taking turns in each.

    Taking turns spreads what else the machine does over all of them.
    """
    steps = [
        max(1, round(SECONDS_PER_TURN / contestant.ask("run", mode, 3)["seconds"]))
        for contestant in contestants
    ]
    found: list[list[float]] = [[] for _ in contestants]
    for _ in range(rounds):
        for contestant, times, n in zip(contestants, found, steps, strict=True):
            times.append(contestant.ask("run", mode, n)["seconds"])
    return found


def columns_of_times(
    contestants: list[Contestant], times: list[list[float]], seconds_at_peak: float
) -> dict[str, list[float]]:
    """Milliseconds, ratios of medians, and the share of the product's speed."""
    medians = [statistics.median(ts) for ts in times]
    return {
        "ms": [1e3 * seconds for seconds in medians],
        "min": [1e3 * min(ts) for ts in times],
        "max": [1e3 * max(ts) for ts in times],
        "/eager": ratios(medians, contestants, tuned=False),
        "/tuned": ratios(medians, contestants, tuned=True),
        "/best": ratios_to_best(medians, contestants),
        "% peak": [100 * seconds_at_peak / seconds for seconds in medians],
    }


def ratios(
    values: list[float], contestants: list[Contestant], tuned: bool
) -> list[float]:
    """Values over that of the first "PyTorch eager", tuned or with TF32, or not."""
    for value, contestant in zip(values, contestants, strict=True):
        if contestant.kind != "eager" or contestant.precision == "bf16":
            continue
        if contestant.is_tuned == tuned:
            return [v / value if value else math.nan for v in values]
    return [math.nan] * len(values)


def best_peer(
    values: list[float], contestants: list[Contestant], precisions: tuple[str, ...]
) -> int | None:
    """The number of the peer with the lowest value, if there are any peers."""
    peers = [
        number
        for number, contestant in enumerate(contestants)
        if contestant.is_peer and contestant.precision in precisions
    ]
    return min(peers, key=values.__getitem__, default=None)


def ratios_to_best(values: list[float], contestants: list[Contestant]) -> list[float]:
    """Values over that of the best peer, whatever its precision."""
    best = best_peer(values, contestants, ("f32", "bf16"))
    return [math.nan if best is None else value / values[best] for value in values]


def best_peers(contestants: list[Contestant], times: list[list[float]]) -> str:
    """Who is meant by "/best", and in float32 if that is another one."""
    medians = [statistics.median(ts) for ts in times]
    best = best_peer(medians, contestants, ("f32", "bf16"))
    in_f32 = best_peer(medians, contestants, ("f32",))
    if best is None:
        return ""
    line = f"best peer: {contestants[best].name}, {1e3 * medians[best]:.4g} ms"
    if in_f32 not in (best, None):
        name, ms = contestants[in_f32].name, 1e3 * medians[in_f32]
        line += f"; in float32: {name}, {ms:.4g} ms"
    return line


def with_ratios_to_before(
    columns: dict[str, list[float]], unit: str, contestants: list[Contestant]
) -> dict[str, list[float]]:
    """Ratios to what we took before, in place of those to others."""
    kept = {k: v for k, v in columns.items() if k[0] not in "/%"}
    for name in ("ms", "min", unit):
        values = columns[name]
        kept[f"{name} /before"] = [math.nan] * len(values)
        for now, before in pairs(contestants):
            ratio = values[now] / values[before] if values[before] else math.nan
            kept[f"{name} /before"][now] = ratio
            kept[f"{name} /before"][before] = 1.0
    return kept


def table(
    title: str, contestants: list[Contestant], columns: dict[str, list[float]]
) -> str:
    """Three significant digits, and "-" for what there is not."""
    width = max(8, *(len(header) + 1 for header in columns))
    lines = [f"{title:32}" + "".join(f"{header:>{width}}" for header in columns)]
    for contestant, *values in zip(contestants, *columns.values(), strict=True):
        numbers = ["-" if math.isnan(v) else f"{v:#.3g}".rstrip(".") for v in values]
        line = "".join(f"{number:>{width}}" for number in numbers)
        lines.append(f"{contestant.name:32}{line}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

"""How training scales with the number of ranks: ``python -m benchmarks.scaling``.

Measures steps of works in one process, and messages between ranks of this machine;
predicts from both how long a step takes with 1 to 4,096 ranks, and checks the
prediction for as many ranks as there are here. With ``--turns`` ranks of one thread
each compete with one process of one thread, and of as many threads as there are ranks.
With ``--overlap`` ranks that send gradients while lower layers still compute compete
with the same that send all of them at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import brainstorm as bs
from benchmarks import machine
from benchmarks.allreduce import LINKS, Link, Message, Step, allreduce, fit
from benchmarks.ranks import BUCKET_SIZE
from benchmarks.works import NAMES, load

ROOT = Path(__file__).resolve().parents[1]
RANKS = tuple(2**i for i in range(13))
GOOD = 0.8  # an efficiency below which it is said what limits
ALL = 2**62  # bytes of a bucket that takes everything
PAUSE = 0.2  # seconds between turns, for threads that go on spinning


class Group:
    """A process, or ranks, of `benchmarks.ranks`.

    Args:
        ranks: Number of ranks, or 0 for a process without MPI.
        threads: Number of threads of each.
    """

    def __init__(self, ranks: int, threads: int = 1):
        variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        command = [sys.executable, "-m", "benchmarks.ranks"]
        if ranks:  # mpi4py ends all ranks if one of them fails
            command[1:1] = ["-m", "mpi4py"]
            command = [find_mpiexec(), "-n", str(ranks), *command, "--mpi"]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ
            | dict.fromkeys(variables, str(threads))
            | {"OMPI_MCA_rmaps_base_oversubscribe": "1"},
        )

    def ask(self, order: str, *arguments: Any) -> Any:
        """Have a method of `ranks.Member` called, and return what it does."""
        self._process.stdin.write(json.dumps([order, *arguments]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process died that was to do {order!r}")
        return json.loads(line)

    def stop(self) -> None:
        self._process.communicate()


@contextmanager
def groups(*wanted: tuple[int, int]) -> Iterator[list[Group]]:
    """Groups of so many ranks of so many threads, while this lasts."""
    with ExitStack() as stack:
        started = []
        for ranks, threads in wanted:
            started.append(Group(ranks, threads))
            stack.callback(started[-1].stop)
        yield started


def find_mpiexec() -> str:
    """The launcher beside Python, which is that of a wheel, or of the system."""
    beside = Path(sys.executable).parent / "mpiexec"
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        raise SystemExit("there is no mpiexec; install an MPI, or: pip install mpich")
    return found


# -- measuring ------------------------------------------------------------------------


@dataclass
class Settings:
    """What to measure.

    Args:
        handler: Name of the handler.
        ranks: Number of ranks here.
        steps: Steps for each median.
        largest: Bytes of the largest message.
    """

    handler: str
    ranks: int = 2
    steps: int = 20
    largest: int = 2**24


def measure_step(group: Group, name: str, settings: Settings) -> Step:
    """A step of one rank, which is alone, with batches of all sizes."""
    batches = [settings.ranks * load(name).shape[1]]
    while batches[-1] > 1:
        batches.append(batches[-1] // 2)
    handler, steps = settings.handler, settings.steps
    stages = [
        group.ask("stages", name, handler, batch, steps, False)
        for batch in reversed(batches)
    ]
    messages = [Message(*pair) for pair in group.ask("messages", name, handler)]
    extra = group.ask("extra", name, handler, steps)
    return Step(batches[::-1], *zip(*stages, strict=True), messages, extra)


def measure_link(group: Group, settings: Settings) -> Link:
    """The link between ranks here; prints what it is fitted to."""
    sizes = [16]
    while sizes[-1] < settings.largest:
        sizes.append(min(8 * sizes[-1], settings.largest))
    seconds = [group.ask("exchange", size, settings.steps) for size in sizes]
    link = fit("this machine", sizes, seconds, settings.ranks)
    print(f"\n{'sum of bytes over ranks':26}{'measured us':>14}{'model us':>14}")
    for size, measured in zip(sizes, seconds, strict=True):
        modelled = allreduce(size, settings.ranks, link)
        print(f"{size:<26,}{1e6 * measured:14.4g}{1e6 * modelled:14.4g}")
    print(
        f"latency {1e6 * link.latency:.3g} us, bandwidth {1e-9 * link.bandwidth:.3g}"
        " GB/s, adding included",
        flush=True,
    )
    return link


def reduction_here(size: int = 2**24, times: int = 5) -> float:
    """Seconds to add a byte to others."""
    a, b = np.ones(size // 4, np.float32), np.ones(size // 4, np.float32)
    found = []
    for _ in range(times):
        start = time.perf_counter()
        np.add(a, b, a)
        found.append(time.perf_counter() - start)
    return min(found) / size


# -- the prediction for the ranks that there are --------------------------------------


@dataclass
class Check:
    """A step on several ranks of this machine, in seconds.

    Args:
        alone: Computing, by one rank while the others sleep.
        together: Computing, by all ranks at the same time.
        overlapped, serial: The whole step, as predicted with and without overlap.
        measured: The whole step.
    """

    alone: float
    together: float
    overlapped: float
    serial: float
    measured: float

    def limit(self) -> str:
        """What keeps the ranks from being as fast as they are alone."""
        sharing, rest = self.together - self.alone, self.measured - self.together
        predicted = self.serial - self.alone
        both = max(0.0, self.measured - self.alone)
        lost = f"{1e3 * both:.3g} ms are lost"
        if sharing >= rest:
            return (
                f"{lost}, {1e3 * min(sharing, both):.3g} of them since ranks that"
                " compute at the same time share caches and memory"
            )
        return (
            f"{lost}, {1e3 * min(rest, both):.3g} of them in the exchange, for which"
            f" {1e3 * predicted:.3g} are predicted, and in waiting for the slower rank"
        )


def check(group: Group, name: str, step: Step, link: Link, settings: Settings) -> Check:
    """Compare the prediction for these ranks with a training by them."""
    ranks, handler, steps = settings.ranks, settings.handler, settings.steps
    batch = load(name).shape[1]
    together = sum(group.ask("stages", name, handler, batch, steps, True))
    measured = group.ask("train", name, handler, ranks * batch, steps)
    predicted = [step.seconds(batch, ranks, link, overlap) for overlap in (True, False)]
    found = Check(step.compute(batch), together, *predicted, measured)
    print(f"\n{name}: {ranks} ranks of {batch} sequences each, ms per step")
    for text, seconds in (
        ("one rank alone", found.alone),
        ("without exchange", found.together),
        ("predicted, with overlap", found.overlapped),
        ("predicted, without", found.serial),
        ("measured", found.measured),
    ):
        print(f"{text:26}{1e3 * seconds:14.4g}")
    print(f"{'measured / predicted':26}{measured / predicted[0]:14.3f}")
    print(f"{'efficiency':26}{found.alone / measured:14.1%}")
    print(found.limit(), flush=True)
    return found


# -- the prediction for many ranks ----------------------------------------------------


def batches_of(step: Step, whole: int, weak: bool, ranks: int) -> float | None:
    """The batch of each rank, or None if there are more ranks than sequences."""
    if weak:
        return whole
    return None if ranks > whole else whole / ranks


def table(name: str, step: Step, links: Sequence[Link], whole: int, weak: bool) -> str:
    """Milliseconds, and efficiency with and without overlap, by ranks and links."""
    kind = "weak scaling, each rank has" if weak else "strong scaling, all ranks have"
    lines = [
        f"{name}: {kind} {whole} sequences; ms per step, efficiency in percent with"
        " and without overlap",
        f"{'ranks':>5} " + "".join(f"{link.name:^24}" for link in links).rstrip(),
        " " * 6 + f"{'ms':>8}{'with':>8}{'without':>8}" * len(links),
    ]
    for ranks in RANKS:
        batch = batches_of(step, whole, weak, ranks)
        if batch is None:
            break
        line = f"{ranks:5} "
        for link in links:
            ms = 1e3 * step.seconds(batch, ranks, link, overlap=True)
            line += f"{ms:#8.3g}" + "".join(
                f"{100 * step.efficiency(whole, batch, ranks, link, overlap):8.0f}"
                for overlap in (True, False)
            )
        lines.append(line)
    lines += [limits(step, link, whole, weak) for link in links]
    return "\n".join(lines)


def limits(step: Step, link: Link, whole: int, weak: bool) -> str:
    """From which number of ranks on efficiency is low, and why."""
    for ranks in RANKS:
        batch = batches_of(step, whole, weak, ranks)
        if batch is None:
            break
        if step.efficiency(whole, batch, ranks, link, overlap=True) < GOOD:
            why = step.limit(whole, batch, ranks, link)
            return f"{link.name}: below {GOOD:.0%} from {ranks} ranks on, by {why}"
    return f"{link.name}: {GOOD:.0%} and more as far as this goes"


def plot(
    steps: dict[str, Step],
    links: Sequence[Link],
    checks: dict[str, Check],
    settings: Settings,
    file: Path,
) -> None:
    """Efficiency over ranks: a row for each work, weak scaling left, strong right."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, rows = plt.subplots(
        len(steps), 2, figsize=(10, 3 * len(steps)), squeeze=False, layout="constrained"
    )
    for axes, (name, step) in zip(rows, steps.items(), strict=True):
        each = load(name).shape[1]
        for ax, weak in zip(axes, (True, False), strict=True):
            whole = each if weak else step.batches[-1]
            for i, link in enumerate(links):
                for overlap in (True, False):
                    points = [
                        (r, 100 * step.efficiency(whole, b, r, link, overlap))
                        for r in RANKS
                        if (b := batches_of(step, whole, weak, r)) is not None
                    ]
                    label = link.name if overlap else None
                    style = "-" if overlap else ":"
                    ax.plot(*zip(*points, strict=True), f"C{i}{style}", label=label)
            if weak and name in checks:
                found = checks[name]
                value = 100 * found.alone / found.measured
                ax.plot(settings.ranks, value, "ko", label="measured")
            kind = "a rank" if weak else "in all"
            ax.set(
                title=f"{name}, {whole} sequences {kind}", xscale="log", ylim=(0, 110)
            )
            ax.set(xlabel="ranks", ylabel="efficiency in percent")
            ax.set_xticks(RANKS[::2], [f"{ranks:,}" for ranks in RANKS[::2]])
            ax.minorticks_off()
            ax.grid(alpha=0.3)
    rows[0][0].legend(fontsize="small", title="dotted: without overlap")
    figure.savefig(file, dpi=120)
    print(f"\nplot: {file}")


# -- taking turns ---------------------------------------------------------------------


def take_turns(names: Sequence[str], settings: Settings, rounds: int) -> None:
    """Have ranks and single processes train the same, in turns, and print medians."""
    ranks, handler, steps = settings.ranks, settings.handler, settings.steps
    contestants = {
        f"{ranks} ranks x 1 thread": (ranks, 1),
        "1 process x 1 thread": (0, 1),
        f"1 process x {ranks} threads": (0, ranks),
    }
    with groups(*contestants.values()) as started:
        for name in names:
            batch = ranks * load(name).shape[1]
            seconds: list[list[float]] = [[] for _ in started]
            for round_nr in range(rounds + 1):
                for group, found in zip(started, seconds, strict=True):
                    found.append(group.ask("train", name, handler, batch, steps))
                    time.sleep(PAUSE)
                if round_nr == 0:
                    [found.clear() for found in seconds]
            print_turns(name, batch, dict(zip(contestants, seconds, strict=True)))


def overlap(names: Sequence[str], settings: Settings, rounds: int) -> None:
    """Have ranks train with gradients in buckets, and in a single one, in turns."""
    ranks, handler, steps = settings.ranks, settings.handler, settings.steps
    sizes = {
        f"{ranks} ranks, in buckets": BUCKET_SIZE,
        f"{ranks} ranks, at the end": ALL,
    }
    with groups((ranks, 1)) as [group]:
        for name in names:
            batch = ranks * load(name).shape[1]
            messages = group.ask("messages", name, handler, BUCKET_SIZE)[1:]
            print(f"\n{describe_messages(name, messages)}", flush=True)
            seconds: dict[str, list[float]] = {who: [] for who in sizes}
            for round_nr in range(rounds + 1):
                for who, size in sizes.items():
                    took = group.ask("train", name, handler, batch, steps, size)
                    if round_nr > 0:
                        seconds[who].append(took)
            print_turns(name, batch, seconds)


def describe_messages(name: str, messages: Sequence[tuple[float, int]]) -> str:
    """How much is sent while how much of the backward pass is still to come."""
    everything = sum(size for _, size in messages)
    lines = [f"{name}: {everything:,} bytes of gradients in {len(messages)} messages"]
    for ready, size in messages:
        left = max(0.0, 1 - ready)
        lines.append(f"{size:14,} bytes, {left:4.0%} of the backward pass to come")
    return "\n".join(lines)


def print_turns(name: str, batch: int, seconds: dict[str, list[float]]) -> None:
    """What each took, and what the first one gains over the others."""
    medians = {who: statistics.median(times) for who, times in seconds.items()}
    first = next(iter(medians.values()))
    titles = "".join(f"{title:>10}" for title in ("ms", "min", "max", "per s"))
    print(f"\n{f'{name}: batches of {batch} in all':40}{titles}{'first is':>10}")
    for who, times in seconds.items():
        found = medians[who], min(times), max(times)
        ms = "".join(f"{1e3 * t:#10.4g}" for t in found)
        rate, gain = batch / medians[who], medians[who] / first
        print(f"{who:40}{ms}{rate:10.4g}{gain:9.3f}x", flush=True)


# -- the command ----------------------------------------------------------------------


def parse_link(text: str) -> Link:
    """A link from NAME:MICROSECONDS:GB/S."""
    try:
        name, latency, bandwidth = text.split(":")
        link = Link(name, 1e-6 * float(latency), 1e9 * float(bandwidth))
    except ValueError:
        link = None
    if link is None or link.latency < 0 or not link.bandwidth > 0:
        raise argparse.ArgumentTypeError(
            f"expected NAME:MICROSECONDS:GB/S, such as ours:2:12.5, got {text!r}"
        )
    return link


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    default = type(bs.handlers.default_handler).__name__
    add("works", nargs="*", help=f"any of {NAMES}; default: all, with turns two")
    add("--turns", action="store_true", help="compare ranks with threads")
    add("--overlap", action="store_true", help="compare buckets with one message")
    add("--ranks", type=int, default=2, help="to measure here, default: 2")
    add("--handler", default=default, help=f"default: {default}")
    add("--steps", type=int, default=20, help="for each median, default: 20")
    add("--rounds", type=int, default=10, help="of turns, default: 10")
    add("--largest", type=int, default=2**24, help="message in bytes, default: 16 MiB")
    add("--link", type=parse_link, action="append", default=[], help="NAME:us:GB/s")
    add("--plot", type=Path, default=Path("scaling.png"), help="default: scaling.png")
    args = parser.parse_args(arguments)
    if unknown := set(args.works) - set(NAMES):
        parser.error(f"unknown: {sorted(unknown)}; choose from {NAMES}")
    if min(args.ranks, args.steps, args.rounds) < 1 or args.ranks < 2:
        parser.error("expected at least 2 ranks, 1 step and 1 round")
    return args


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(arguments)
    settings = Settings(args.handler, args.ranks, args.steps, args.largest)
    print(
        f"brainstorm {bs.__version__}, {args.handler}, Python"
        f" {platform.python_version()}, {platform.machine()},"
        f" load {os.getloadavg()[0]:.1f} (0: nothing else runs)\n{machine.describe(1)}"
    )
    if args.turns or args.overlap:
        compete = overlap if args.overlap else take_turns
        compete(args.works or ["mnist_pi", "cifar10_cnn"], settings, args.rounds)
        return
    steps, checks, adding = {}, {}, reduction_here()
    with groups((args.ranks, 1)) as [group]:
        here = measure_link(group, settings)
        for name in args.works or NAMES:
            steps[name] = measure_step(group, name, settings)
            checks[name] = check(group, name, steps[name], here, settings)
    links = [replace(link, reduction=adding) for link in (*LINKS, *args.link)]
    for name, step in steps.items():
        for weak, whole in ((True, load(name).shape[1]), (False, step.batches[-1])):
            print("\n" + table(name, step, links, whole, weak), flush=True)
    plot(steps, links, checks, settings, args.plot)


if __name__ == "__main__":
    main()

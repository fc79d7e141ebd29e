"""How training scales over processes: ``python -m benchmarks.scaling mnist_pi``.

Measures the time of a step in one process, and what messages between processes take on
this machine. A model predicts from these the time of a step for 1 to 4,096 ranks, which
keep the batch of one process each, for several kinds of links. Its prediction for two
ranks on this machine is checked against a measurement.

The model: a step takes its time in one process, and then what of the exchange could not
happen meanwhile. A sum over N ranks of m bytes takes, around a ring, ::

    2 (N - 1) latency' + 2 (N - 1) / N * m / bandwidth

or for short messages, by doubling, ``log2(N) * (latency + m / bandwidth)``: the better
of the two; latency' is that of a message in a pipeline, a fourth of the other. The
gradients leave in buckets, of which nothing is left to hide the last one; the others
hide as far as links work without a core.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.with_brainstorm import make_batch, make_network, make_stepper
from benchmarks.work import Work
from benchmarks.works import NAMES, load
from brainstorm.parallel.exchange import Exchange
from brainstorm.parallel.ranks import Ranks, world
from brainstorm.parallel.sharing import Piece
from brainstorm.utils import new_figure

RANKS = [2**k for k in range(13)]
WORKS = ["mnist_pi", "cifar10_cnn", "lstm"]
BUCKET = 2**22
# How the ranks work: each on a batch of its own, as if there were no other; on as much
# as two would have; or each on a batch of its own, with the others.
APART, BOTH, TOGETHER = "apart", "both", "together"


@dataclass(frozen=True)
class Link:
    """What joins ranks.

    Attributes:
        latency: Seconds for a short message.
        bandwidth: Bytes per second of a long one.
        hides: Share of an exchange that goes on while a core computes.
    """

    name: str
    latency: float
    bandwidth: float
    hides: float = 0.9

    def seconds(self, ranks: int, size: float) -> float:
        """Time of a sum over ranks of so many bytes."""
        if ranks == 1:
            return 0.0
        steps = math.log2(ranks)
        doubling = math.ceil(steps) * (self.latency + size / self.bandwidth)
        ring = 2 * (ranks - 1) * self.latency / 4  # messages follow each other
        ring += 2 * (ranks - 1) / ranks * size / self.bandwidth
        return min(doubling, ring)


# Typical of MPI: latencies measured from process to process, and what is left of the
# nominal rates.
LINKS = [
    Link("Gigabit Ethernet", 30e-6, 0.118e9),
    Link("25 Gb/s Ethernet", 15e-6, 2.9e9),
    Link("200 Gb/s InfiniBand", 1.5e-6, 24e9),
]


@dataclass(frozen=True)
class Step:
    """A step of training in one process.

    Attributes:
        seconds: Its time.
        gradients: Bytes of its gradients.
        last: Bytes of the last bucket of these.
        backward: Seconds that are left of the backward pass when the first bucket
            leaves.
    """

    seconds: float
    gradients: int
    last: int
    backward: float

    def with_ranks(self, ranks: int, link: Link) -> float:
        """Predict the time of a step in which each rank has a batch of its own."""
        every = link.seconds(ranks, self.gradients)
        last = link.seconds(ranks, self.last)
        hidden = min(link.hides * max(every - last, 0.0), self.backward)
        return self.seconds + every - hidden


def efficiency(step: Step, ranks: int, link: Link) -> float:
    """Work done per rank and second, as a share of that of one alone."""
    return step.seconds / step.with_ranks(ranks, link)


def limit(step: Step, ranks: int, link: Link) -> str:
    """What the time beyond that of one rank goes to."""
    if efficiency(step, ranks, link) > 0.95:
        return "compute"
    free = Link("", 0.0, link.bandwidth, link.hides)
    return "bandwidth" if efficiency(step, ranks, free) < 0.975 else "latency"


# -- measuring -----------------------------------------------------------------


class _Watched(Exchange):
    """Notes when the first bucket leaves, and when the backward pass is done."""

    begun = done = 0.0

    def begin(self, gradients: Any) -> None:
        self.begun = self.begun or time.perf_counter()
        super().begin(gradients)

    def finish(self) -> None:
        self.done = time.perf_counter()
        super().finish()


def measure_step(work: Work, handler: str, ranks: Ranks, rounds: int) -> dict:
    """Time steps on this rank, and what the model has to know of them.

    `ranks` are those that exchange gradients.
    """
    net, stepper = make_network(work, handler, ""), make_stepper(work)
    exchange = _Watched(ranks, net, BUCKET)
    net.backpropagation.share(exchange)
    batch = make_batch(work)
    size = batch["default"].shape[1]
    piece = Piece(batch, ranks.rank * size, size, ranks.size * size)
    stepper.start(net)

    def step() -> tuple[float, float]:
        exchange.begun = 0.0
        ranks.sum(np.zeros(1))
        began = time.perf_counter()
        net.provide_external_data(piece.data)
        with exchange.update(piece):
            stepper.run()
        exchange.finish_update()
        net.apply_weight_modifiers()
        return time.perf_counter() - began, exchange.done - exchange.begun

    for _ in range(3):
        step()
    times = [step() for _ in range(rounds)]
    seconds, left = min(times)  # other programs only take time
    itemsize = np.dtype(net.handler.dtype).itemsize
    buckets = exchange.buckets([n for n in reversed(net.layers)])
    sizes = [(b.part.stop - b.part.start) * itemsize for b in buckets]
    return {
        "seconds": float(seconds),
        "gradients": sum(sizes),
        "last": sizes[-1],
        "backward": float(left),
    }


def measure_link(ranks: Ranks, size: int, rounds: int) -> dict:
    """Time sums over ranks."""

    def seconds(count: int) -> float:
        array, times = np.zeros(count, np.float32), []
        for _ in range(rounds):
            ranks.sum(np.zeros(1))
            began = time.perf_counter()
            ranks.sum(array)
            times.append(time.perf_counter() - began)
        return min(times)

    short = seconds(2)
    return {"latency": short, "bandwidth": size / max(seconds(size // 4) - short, 1e-9)}


def work_as_rank(name: str, handler: str, mode: str, rounds: int) -> None:
    """What the processes do; rank 0 prints what it has measured."""
    with Ranks(world()).together() as ranks:
        work = load(name)
        if mode == BOTH:
            time_size, size, *features = work.shape
            work = replace(work, shape=(time_size, 2 * size, *features))
        together = Ranks(world().Split(ranks.rank)) if mode == APART else ranks
        found = measure_step(work, handler, together, rounds)
        found |= measure_link(ranks, found["gradients"], rounds)
        if ranks.rank == 0:
            print(json.dumps(found))


def launcher() -> str | None:
    """The mpiexec that belongs to this Python, or else the one on PATH."""
    beside = Path(sys.executable).parent / "mpiexec"
    return str(beside) if beside.exists() else shutil.which("mpiexec")


def ask(
    size: int, name: str, args: argparse.Namespace, mode: str, threads: int = 1
) -> dict:
    """What some ranks measure."""
    mpiexec = launcher()
    if mpiexec is None:
        raise SystemExit("there is no mpiexec; pip install mpich")
    worker = [name, args.handler, mode, str(args.rounds)]
    command = [mpiexec, "-n", str(size), sys.executable, "-m", "benchmarks.scaling"]
    command += ["--worker", *worker]
    count = str(threads * args.threads)
    variables = dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"], count)
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **variables},
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


# -- reporting -----------------------------------------------------------------


def report(name: str, args: argparse.Namespace) -> tuple[Step, list[Link]]:
    """Measure a work, and print what that predicts."""
    one, apart = ask(1, name, args, APART), ask(2, name, args, APART)
    both, two = ask(1, name, args, BOTH), ask(2, name, args, TOGETHER)
    threaded = ask(1, name, args, BOTH, threads=2)
    known = ("seconds", "gradients", "last", "backward")
    step = Step(**{key: one[key] for key in known})
    here = Link("shared memory, here", apart["latency"], apart["bandwidth"], hides=0.0)
    side_by_side = Step(**{key: apart[key] for key in known})
    predicted = side_by_side.with_ranks(2, here)
    print(f"\n{name}: {load(name).description}")
    print(f"gradients: {step.gradients / 1e6:.2f} MB; {args.threads} threads a rank")
    print(
        f"a sum over 2 ranks here: {1e6 * here.latency:.0f} us for a short message,"
        f" {here.bandwidth / 1e9:.2f} GB/s for gradients"
    )
    rows = {
        "one process": one["seconds"],
        "two processes, each for itself": apart["seconds"],
        "two ranks, predicted": predicted,
        "two ranks": two["seconds"],
        "one process, both batches": both["seconds"],
        "the same with twice the threads": threaded["seconds"],
    }
    for title, seconds in rows.items():
        print(f"  {title:<32}{1e3 * seconds:9.2f} ms")
    print(f"  measured / predicted: {two['seconds'] / predicted:.2f}")
    print(
        f"  two ranks: {both['seconds'] / two['seconds']:.2f} times the throughput of"
        f" one process, {threaded['seconds'] / two['seconds']:.2f} times that of one"
        " with twice the threads"
    )
    crowd = apart["seconds"] - one["seconds"]
    exchange = two["seconds"] - apart["seconds"]
    lost = crowd + exchange
    cause = "the exchange" if exchange > crowd else "what both need of the machine"
    print(f"  {1e3 * lost:.2f} ms more than one process, most of it {cause}")
    links = [here, *LINKS]
    print(f"  {'efficiency':<22}" + "".join(f"{n:>7}" for n in RANKS))
    for link in links:
        cells = "".join(f"{efficiency(step, n, link):7.0%}" for n in RANKS)
        print(f"  {link.name:<22}{cells}  {limit(step, RANKS[-1], link)}")
    print(f"  {'milliseconds':<22}" + "".join(f"{n:>7}" for n in RANKS))
    for link in links:
        cells = "".join(f"{1e3 * step.with_ranks(n, link):7.1f}" for n in RANKS)
        print(f"  {link.name:<22}{cells}")
    return step, links


def plot(found: dict[str, tuple[Step, list[Link]]], filename: str) -> None:
    """Draw efficiencies over ranks, a panel for each work."""
    figure = new_figure("benchmarks.scaling", figsize=(4.0 * len(found), 3.2))
    for i, (name, (step, links)) in enumerate(found.items(), 1):
        axes = figure.add_subplot(1, len(found), i, title=name, xlabel="ranks")
        for link in links:
            shares = [efficiency(step, n, link) for n in RANKS]
            axes.plot(RANKS, shares, marker=".", label=link.name)
        axes.set(xscale="log", ylim=(0, 1.05), ylabel="efficiency")
        axes.legend(fontsize="small")
    figure.savefig(filename)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling")
    parser.add_argument("works", nargs="*", help=f"any of {NAMES}; default: {WORKS}")
    parser.add_argument("--threads", type=int, default=1, help="of a rank; default: 1")
    parser.add_argument("--rounds", type=int, default=20, help="default: 20")
    parser.add_argument("--handler", default="OneDnnHandler")
    parser.add_argument("--plot", help="name of a file for a plot of the efficiencies")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        name, handler, mode, rounds = args.worker
        work_as_rank(name, handler, mode, int(rounds))
        return
    if unknown := set(args.works) - set(NAMES):
        parser.error(f"unknown: {sorted(unknown)}; choose from {NAMES}")
    load_now = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load_now:.1f} (0: nothing else runs)")
    found = {name: report(name, args) for name in args.works or WORKS}
    if args.plot:
        plot(found, args.plot)


if __name__ == "__main__":
    main()

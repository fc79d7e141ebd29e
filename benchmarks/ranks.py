"""Measures works on ranks that train together, and what these exchange.

Started by `scaling`, on several ranks by ``mpiexec`` or as a process alone. Rank 0
reads orders and answers them, in lines of JSON; the others sleep meanwhile.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

import brainstorm as bs
from benchmarks.with_brainstorm import make_batch, make_network, make_stepper
from benchmarks.work import Work
from benchmarks.works import load
from brainstorm.parallel.exchange import plan_buckets

BATCHES_IN_AN_EPOCH = 8
SPACING = 4  # between sizes of messages
BUCKET_SIZE = bs.Trainer.bucket_size


def sized(name: str, batch: int) -> Work:
    """A work with other batches."""
    work = load(name)
    return replace(work, shape=(work.shape[0], batch, *work.shape[2:]))


class Member:
    """What a process does; each method is an order, for all ranks at the same time."""

    def __init__(self, comm: Any = None):
        self.comm = comm
        self._trained: dict[tuple, Callable[[int], list[float]]] = {}

    def messages(
        self, name: str, handler: str, bucket_size: int = BUCKET_SIZE
    ) -> list[tuple[float, int]]:
        """When gradients are exchanged, as a share of the backward pass, and bytes."""
        work = load(name)
        net = make_network(work, handler, work.our_variants[0])
        program = net.program(True, work.shape[0], work.shape[1])
        backward = [
            row
            for row in program
            if row.pass_name == "backward" and row.layer in net.layers
        ]
        counts = dict.fromkeys((row.layer for row in backward), 0)
        for row in backward:
            counts[row.layer] += row.multiplications
        done = np.cumsum([0, *counts.values()]) / sum(counts.values())
        itemsize = np.dtype(net.handler.dtype).itemsize
        numbers = bucket_size // itemsize
        buckets = plan_buckets(net.layers, net.parameter_hub, [*counts], numbers)
        summary = 8 * (2 + len(net.loss_layers))  # sizes and losses, ahead of them
        return [(float(done[buckets[0].after]), summary)] + [
            (float(done[b.after]), itemsize * (b.part.stop - b.part.start))
            for b in buckets
        ]

    def extra(self, name: str, handler: str, steps: int) -> float:
        """Seconds that an exchange takes of each step of rank 0 if it is all ranks.

        They do not depend on the batch, which is small, so that they show.
        """
        if self.comm.rank > 0:
            return 0.0
        from mpi4py.MPI import COMM_SELF

        trainings = [_training(sized(name, 1), handler, c) for c in (None, COMM_SELF)]
        times: list[list[float]] = [[], []]
        for _ in range(3):
            for train, found in zip(trainings, times, strict=True):
                found += train(steps)
        alone, with_itself = map(statistics.median, times)
        return max(0.0, with_itself - alone)

    def stages(
        self, name: str, handler: str, batch: int, steps: int, together: bool
    ) -> list[float]:
        """Median seconds of the passes and of the rest of a step, without exchange.

        Rank 0 does the steps alone, or all ranks do at the same time.
        """
        if not together and self.comm is not None and self.comm.rank > 0:
            return []
        work = sized(name, batch)
        forward, backward = _passes(work, handler, steps)
        if together:
            self.comm.Barrier()
        step = statistics.median(_training(work, handler, None)(steps))
        return [forward, backward, max(0.0, step - forward - backward)]

    def exchange(self, size: int, times: int) -> float:
        """Median seconds to sum so many bytes over the ranks, as a trainer does."""
        from brainstorm.parallel import Ranks

        array, found = np.zeros(max(1, size // 4), np.float32), []
        with Ranks(self.comm).together() as ranks:
            for _ in range(times + 2):
                ranks.sum(np.zeros(1))
                start = time.perf_counter()
                ranks.sum(array)
                found.append(time.perf_counter() - start)
        return statistics.median(found[2:])

    def train(
        self,
        name: str,
        handler: str,
        batch: int,
        updates: int,
        bucket_size: int = BUCKET_SIZE,
    ) -> float:
        """Median seconds from update to update in a training by all ranks."""
        key = name, handler, batch, bucket_size
        if key not in self._trained:
            work = sized(name, batch)
            self._trained[key] = _training(work, handler, self.comm, bucket_size)
        return statistics.median(self._trained[key](updates))


def _passes(work: Work, handler: str, steps: int) -> list[float]:
    """Median seconds of the forward and the backward pass."""
    net = make_network(work, handler, work.our_variants[0])
    net.provide_external_data(make_batch(work))
    now, found = time.perf_counter, []
    for _ in range(steps + 3):
        start = now()
        net.forward_pass(training_pass=True)
        middle = now()
        net.backward_pass(all_deltas=False)
        found.append((middle - start, now() - middle))
    return [statistics.median(times) for times in zip(*found[3:], strict=True)]


class Clock:
    """Notes when updates begin. Passes all else on to a stepper."""

    def __init__(self, stepper: Any):
        self._stepper = stepper
        self.starts: list[float] = []

    def start(self, net: bs.Network) -> None:
        self._stepper.start(net)

    def run(self) -> None:
        self.starts.append(time.perf_counter())
        self._stepper.run()


def _training(
    work: Work, handler: str, comm: Any, bucket_size: int = BUCKET_SIZE
) -> Callable[[int], list[float]]:
    """What trains for some updates, as a script would, and returns their times."""
    times = BATCHES_IN_AN_EPOCH
    batches = bs.Minibatches(
        work.shape[1],
        default=np.concatenate([work.data] * times, axis=1),
        targets=np.concatenate([work.targets] * times, axis=1),
    )
    net = make_network(work, handler, work.our_variants[0])

    def train(updates: int) -> list[float]:
        clock = Clock(make_stepper(work))
        trainer = bs.Trainer(clock, verbose=False, comm=comm, bucket_size=bucket_size)
        trainer.add_hook(bs.hooks.StopAfterEpoch(-(-(updates + 2) // times)))
        trainer.train(net, batches)
        return np.diff(clock.starts)[2:].tolist()

    return train


def main() -> None:
    comm = None
    if "--mpi" in sys.argv:
        from brainstorm.parallel import world

        comm = world()
    member = Member(comm)
    is_first = comm is None or comm.rank == 0
    while True:
        order = _next(comm, is_first)
        if order is None:
            return
        name, *arguments = order
        answer = getattr(member, name)(*arguments)
        if is_first:
            print(json.dumps(answer), flush=True)


def _next(comm: Any, is_first: bool) -> Any:
    """The next order; the ranks that wait for it leave the processor to others."""
    line = np.full(1000, ord(" "), np.uint8)
    if is_first:
        text = sys.stdin.readline().strip().encode()
        line[: len(text)] = np.frombuffer(text, np.uint8)
    if comm is not None:
        request = comm.Ibcast(line, root=0)
        while not request.Test():
            time.sleep(0.005)
    text = bytes(line).strip()
    return json.loads(text) if text else None


if __name__ == "__main__":
    main()

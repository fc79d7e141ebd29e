"""How long a step of training takes on many ranks: a model.

A message of n bytes takes ``latency + n / bandwidth``, whoever else sends meanwhile,
and adding two of them n times ``reduction``. The costs of the algorithms are those of
Thakur, Rabenseifner and Gropp, *Optimization of collective communication operations in
MPICH*, 2005, with lg for the logarithm to the base 2. Left out are what many ranks have
to share (the cards and switches of a network, the memory of a node), and that some are
late.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Link:
    """What connects two ranks.

    Args:
        name: For the tables.
        latency: Seconds before the first byte of a message comes.
        bandwidth: Bytes per second after that.
        reduction: Seconds to add one byte of a message to what a rank has.
    """

    name: str
    latency: float
    bandwidth: float
    reduction: float = 0.0


# Round numbers that are usual for the hardware; --link is for those of another one.
LINKS = (
    Link("Gigabit Ethernet", 50e-6, 0.117e9),
    Link("25G Ethernet", 15e-6, 2.9e9),
    Link("200G InfiniBand", 1.5e-6, 23e9),
    Link("shared memory", 0.7e-6, 6e9),
)


def recursive_doubling(size: float, ranks: int, link: Link) -> float:
    """Everybody exchanges everything with one other rank in each of lg p rounds."""
    rounds, extra = _rounds(ranks)
    everything = size / link.bandwidth + size * link.reduction
    return rounds * (link.latency + everything) + extra * (
        2 * link.latency + everything + size / link.bandwidth
    )


def halving_doubling(size: float, ranks: int, link: Link) -> float:
    """Rabenseifner's: halves are added, quarters, ..., and gathered the other way."""
    rounds, extra = _rounds(ranks)
    share = 1 - 2.0**-rounds
    sending = size / link.bandwidth
    return (
        2 * rounds * link.latency
        + 2 * share * sending
        + share * size * link.reduction
        + extra * (2 * link.latency + 2 * sending + size * link.reduction)
    )


def ring(size: float, ranks: int, link: Link) -> float:
    """Each rank sends a p-th to the next one, p - 1 times to add, p - 1 to gather."""
    share = (ranks - 1) / ranks
    return (
        2 * (ranks - 1) * link.latency
        + 2 * share * size / link.bandwidth
        + share * size * link.reduction
    )


def _rounds(ranks: int) -> tuple[int, bool]:
    """lg of the largest power of 2 in the number, and whether there are more ranks.

    Each of these gives what it has to another one first, and gets the result last.
    """
    rounds = ranks.bit_length() - 1
    return rounds, ranks != 1 << rounds


ALGORITHMS: tuple[Callable[[float, int, Link], float], ...] = (
    recursive_doubling,
    halving_doubling,
    ring,
)


def allreduce(size: float, ranks: int, link: Link) -> float:
    """Seconds to sum `size` bytes over all ranks, by the algorithm that is fastest."""
    if ranks == 1:
        return 0.0
    return min(algorithm(size, ranks, link) for algorithm in ALGORITHMS)


def fit(name: str, sizes: Sequence[int], seconds: Sequence[float], ranks: int) -> Link:
    """The link with which the model comes nearest to measured times, relatively.

    Its bandwidth is that of sending and adding together.
    """
    n, t = np.array(sizes, float), np.array(seconds)
    (start, per_byte), *_ = np.linalg.lstsq(
        np.stack([1 / t, n / t], axis=1), np.ones_like(t), rcond=None
    )
    start, per_byte = max(start, 1e-9), max(per_byte, 1e-15)
    rounds, _ = _rounds(ranks)
    return Link(name, start / rounds, 2 * (1 - 1 / ranks) / per_byte)


@dataclass(frozen=True)
class Message:
    """A part of the gradients that is summed over the ranks.

    Args:
        ready: The share of the backward pass after which it can be sent.
        size: Number of bytes.
    """

    ready: float
    size: int


@dataclass(frozen=True)
class Step:
    """A step of training, as it was measured in one process.

    Args:
        batches: Numbers of sequences, ascending.
        forward, backward, update: Seconds for each of these numbers.
        messages: What is exchanged, in this order.
        extra: Seconds that ranks need besides, however many there are.
    """

    batches: Sequence[float]
    forward: Sequence[float]
    backward: Sequence[float]
    update: Sequence[float]
    messages: Sequence[Message]
    extra: float = 0.0

    def parts(self, batch: float) -> tuple[float, float, float]:
        """Seconds of the forward and the backward pass, and of the update."""
        forward, backward, update = (
            float(np.interp(batch, self.batches, seconds))
            for seconds in (self.forward, self.backward, self.update)
        )
        return forward, backward, update

    def compute(self, batch: float) -> float:
        """Seconds without any exchange."""
        return sum(self.parts(batch))

    def seconds(self, batch: float, ranks: int, link: Link, overlap: bool) -> float:
        """Seconds of a step in which each rank has a batch of this size.

        With `overlap` messages travel while the backward pass goes on, one after the
        other, and take no time from it. Without there is one message at its end.
        """
        forward, backward, update = self.parts(batch)
        done = forward + backward
        if ranks > 1:
            update += self.extra
        if not overlap:
            size = sum(message.size for message in self.messages)
            return done + allreduce(size, ranks, link) + update
        free = 0.0
        for message in self.messages:
            begin = max(free, forward + message.ready * backward)
            free = begin + allreduce(message.size, ranks, link)
        return max(done, free) + update

    def efficiency(
        self, whole: float, batch: float, ranks: int, link: Link, overlap: bool
    ) -> float:
        """What a rank would need at the speed of one process, over what it needs.

        Args:
            whole: The batch of the one process.
            batch: That of each rank.
            ranks, link, overlap: See `seconds`.
        """
        ideal = self.compute(whole) * batch / whole
        return ideal / self.seconds(batch, ranks, link, overlap)

    def limit(self, whole: float, batch: float, ranks: int, link: Link) -> str:
        """What costs most beyond this ideal, with overlap."""
        compute = self.compute(batch)
        seconds = self.seconds(batch, ranks, link, overlap=True)
        prompt = self.seconds(batch, ranks, replace(link, latency=0.0), overlap=True)
        costs = {
            "small batches": compute - self.compute(whole) * batch / whole,
            "the calls of an exchange": self.extra,
            "latency": seconds - prompt,
            "bandwidth": prompt - compute - self.extra,
        }
        return max(costs, key=lambda name: costs[name])

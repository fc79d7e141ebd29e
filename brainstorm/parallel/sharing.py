"""Cutting batches among ranks."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from brainstorm.data_iterators import DataIterator
from brainstorm.data_iterators.changing import Transformer
from brainstorm.data_iterators.holding import (
    Minibatches,
    Online,
    Share,
    Subsequences,
    Undivided,
)
from brainstorm.data_iterators.prefetching import Prefetch
from brainstorm.describable import of_library
from brainstorm.handlers.base_handler import Handler
from brainstorm.parallel.agreement import check_same
from brainstorm.parallel.ranks import Ranks

__all__ = ["Piece", "SharedIterator", "merged", "piece_of", "shared"]


@dataclass(frozen=True)
class Piece:
    """What a rank gets of a batch.

    Attributes:
        data: Arrays (T, b, ...) by name.
        start: Number of the sequences of the batch that other ranks have before it.
        count: Number b of sequences; 0 if there are less of them than ranks. There is
            one in `data` nevertheless, so that the rank can keep step with the others.
        total: Number of sequences of the batch.
    """

    data: dict[str, np.ndarray]
    start: int
    count: int
    total: int


class SharedIterator(DataIterator):
    """Yields the part of each batch that belongs to this rank.

    All ranks have the same iterator, in the same state. Where it is made of those of
    the library, each rank reads, and transforms, its part alone; random numbers are
    then of a stream for each rank. Other iterators yield whole batches to each rank.

    Args:
        iter: The iterator of whole batches.
        ranks: The ranks.
    """

    draws = False
    whole: DataIterator
    ranks: Ranks

    def __init__(self, iter: DataIterator, ranks: Ranks):
        super().__init__(iter.data_shapes, getattr(iter, "length", None))
        self.whole, self.ranks = iter, ranks
        self._share = Share(ranks.rank, ranks.size)
        self._levels = _levels(iter)
        self._copies = list(map(copy.copy, self._levels))
        self.iter: Any = _linked(self._copies, self._share) if self._levels else iter
        # Numbers of the sequences that this rank has got of those of all batches.
        self._got: list[np.ndarray] = []

    def __call__(self, handler: Handler | None = None) -> Iterator[dict[str, Any]]:
        """Iterate once over the data; ranks that get nothing of a batch go past it."""
        for piece in self.pieces(handler):
            if piece.count:
                yield piece.data

    def pieces(self, handler: Handler | None = None) -> Iterator[Piece]:
        """What this rank gets of each batch, also if that is nothing."""
        passed = 0
        self._got = []
        for piece in self.iter(handler):
            if not self._levels:
                piece = piece_of(piece, self._share)
            if not self.continues:
                self._got.append(passed + piece.start + np.arange(piece.count))
                passed += piece.total
            yield piece

    def merged(self, scores: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        """Losses and scores of all ranks, see `gather_losses_and_scores`."""
        return merged(self.ranks.gather(dict(scores)))

    def in_order(
        self, arrays: Mapping[str, np.ndarray], axes: Mapping[str, int]
    ) -> dict[str, np.ndarray]:
        """Put what the ranks have computed of all batches together.

        Args:
            arrays: Arrays (T, B, ...) or (B, ...) by name, with the sequences of this
                rank. Shorter ones are filled up with zeros.
            axes: The dimension that counts the sequences, 1 or 0.
        """
        places = np.concatenate([*self._got, []]).astype(int)
        parts = self.ranks.gather((places, dict(arrays)))
        parts = [(places, part) for places, part in parts if len(places)]
        whole: dict[str, np.ndarray] = {}
        for name, axis in axes.items() if parts else ():
            shapes = [part[name].shape for _, part in parts]
            shape = list(np.max(shapes, axis=0))
            shape[axis] = sum(s[axis] for s in shapes)
            whole[name] = np.zeros(shape, parts[0][1][name].dtype)
            for places, part in parts:
                if axis:
                    whole[name][: len(part[name]), places] = part[name]
                else:
                    whole[name][places] = part[name]
        return whole

    @property
    def is_alike(self) -> bool:
        """Whether it is sure to yield as many batches on all ranks."""
        return bool(self._levels) and self.length is not None

    def drawing_for_parts(self) -> list[Transformer]:
        """The iterators that draw random numbers for the part of this rank alone."""
        wrappers = [level for level in self._copies if isinstance(level, Transformer)]
        return [level for level in wrappers if "rnd" in vars(level)]

    def give_back(self) -> None:
        """Let the iterator of whole batches go on where this one has come to."""
        for level, original in zip(self._copies, self._levels, strict=True):
            if "rnd" in vars(level):
                original.rnd = level.rnd

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle as the iterator of whole batches: others are not there."""
        return _itself, (self.whole,)

    def get_state(self) -> Any:
        """That of the iterator of whole batches."""
        return self.iter.get_state() if hasattr(self.iter, "get_state") else {}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`get_state` returned."""
        if hasattr(self.iter, "set_state"):
            self.iter.set_state(state)


def _itself(value: Any) -> Any:
    return value


def piece_of(batch: Mapping[str, Any], share: Share) -> Piece:
    """What a rank gets of a batch."""
    total = batch[min(batch)].shape[1]
    part = share.cut(slice(0, total), total)
    data = {name: array[:, part] for name, array in batch.items()}
    return Piece(data, share.start, share.count, total)


def _levels(iterator: Any) -> list[Any]:
    """The iterators that it is made of, if all are known to keep sequences apart."""
    levels = [iterator]
    while hasattr(levels[-1], "iter"):
        levels.append(levels[-1].iter)
    *wrappers, holder = levels[_number_outside(levels) :]
    known = all(isinstance(level, Transformer | Subsequences) for level in wrappers)
    known &= type(holder) in (Undivided, Minibatches, Online)
    return levels if known and all(of_library(type(level)) for level in levels) else []


def _number_outside(levels: list[Any]) -> int:
    """How many of the first ones hand on whatever the next one yields."""
    outside = itertools.takewhile(lambda level: type(level) is Prefetch, levels)
    return len(list(outside))


class _Pieces(DataIterator):
    """Says of each part what it is a part of."""

    draws = False

    def __init__(self, iter: DataIterator, share: Share):
        super().__init__(iter.data_shapes, iter.length)
        self.iter, self.share = iter, share

    def __call__(self, handler: Handler | None = None) -> Iterator[Any]:
        share = self.share
        for batch in self.iter(handler):
            yield Piece(batch, share.start, share.count, share.total)

    def get_state(self) -> dict[str, Any]:
        return self.iter.get_state()

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.iter.set_state(state)


def _linked(levels: list[Any], share: Share) -> Any:
    """Have these hold just a share of each batch, and yield pieces."""
    levels[-1].share = share
    number = _number_outside(levels)
    inside = levels[-1]
    for wrapper in reversed(levels[number:-1]):
        wrapper.iter = inside
        inside = wrapper
    outside: Any = _Pieces(inside, share)
    for wrapper in reversed(levels[:number]):
        wrapper.iter = outside
        outside = wrapper
    return outside


@contextlib.contextmanager
def shared(iter: DataIterator, comm: Any) -> Iterator[Any]:
    """The iterator over this rank's parts, for all ranks of a communicator.

    Without a communicator it is the iterator itself.
    """
    if comm is None:
        yield iter
        return
    with Ranks(comm).together() as ranks:
        check_same(ranks, {"data": dict(getattr(iter, "data_shapes", {}))})
        parts = SharedIterator(iter, ranks)
        parts.set_state(ranks.share(parts.get_state()))
        yield parts
        parts.give_back()


def merged(parts: Sequence[Mapping[str, list[Any]]]) -> dict[str, list[Any]]:
    """Losses and scores of several ranks, see `gather_losses_and_scores`."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {n: [pair for part in parts for pair in part.get(n, ())] for n in names}

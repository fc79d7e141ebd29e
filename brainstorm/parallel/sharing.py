"""Cutting batches among ranks."""

from __future__ import annotations

import copy
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
from brainstorm.describable import of_library
from brainstorm.handlers.base_handler import Handler
from brainstorm.parallel.ranks import Ranks

__all__ = ["Piece", "SharedIterator", "merged"]


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

    def __init__(self, iter: DataIterator, ranks: Ranks):
        super().__init__(iter.data_shapes, getattr(iter, "length", None))
        self.whole, self.ranks = iter, ranks
        self._share = Share(ranks.rank, ranks.size)
        self._levels = _levels(iter)
        self.iter: Any = _linked(self._levels, self._share) if self._levels else iter
        self._copies = _levels(self.iter)

    def __call__(self, handler: Handler | None = None) -> Iterator[dict[str, Any]]:
        """Iterate once over the data; ranks that get nothing of a batch go past it."""
        for piece in self.pieces(handler):
            if piece.count:
                yield piece.data

    def pieces(self, handler: Handler | None = None) -> Iterator[Piece]:
        """What this rank gets of each batch, also if that is nothing."""
        share = self._share
        for batch in self.iter(handler):
            if not self._levels:
                total = batch[min(batch)].shape[1]
                part = share.cut(slice(0, total), total)
                batch = {name: array[:, part] for name, array in batch.items()}
            yield Piece(batch, share.start, share.count, share.total)

    def merged(self, scores: Mapping[str, list]) -> dict[str, list]:
        """Losses and scores of all ranks, see `gather_losses_and_scores`."""
        return merged(self.ranks.gather(dict(scores)))

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

    def get_state(self) -> Any:
        """That of the iterator of whole batches."""
        return self.iter.get_state() if hasattr(self.iter, "get_state") else {}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`get_state` returned."""
        if hasattr(self.iter, "set_state"):
            self.iter.set_state(state)


def _levels(iterator: Any) -> list[Any]:
    """The iterators that it is made of, if all are known to keep sequences apart."""
    levels = [iterator]
    while hasattr(levels[-1], "iter"):
        levels.append(levels[-1].iter)
    wrappers = all(
        isinstance(level, Transformer | Subsequences) for level in levels[:-1]
    )
    holds = type(levels[-1]) in (Undivided, Minibatches, Online)
    ours = all(of_library(type(level)) for level in levels)
    return levels if wrappers and holds and ours else []


def _linked(levels: list[Any], share: Share) -> Any:
    """Copies of these, the last of which holds just a share of each batch."""
    *wrappers, holder = map(copy.copy, levels)
    holder.share = share
    for wrapper in reversed(wrappers):
        wrapper.iter = holder
        holder = wrapper
    return holder


def merged(parts: Sequence[Mapping[str, list]]) -> dict[str, list]:
    """Losses and scores of several ranks, see `gather_losses_and_scores`."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {n: [pair for part in parts for pair in part.get(n, ())] for n in names}

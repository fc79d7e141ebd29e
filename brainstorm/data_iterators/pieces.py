"""Cutting long sequences into pieces."""

from __future__ import annotations

import math
from threading import get_ident

from brainstorm.data_iterators.base import DataIterator
from brainstorm.data_iterators.checks import brief, check_value, expect, whole
from brainstorm.data_iterators.holding import Minibatches, Online, Undivided

__all__ = ["Subsequences"]


class Subsequences(DataIterator):
    """Cuts the sequences of each batch into pieces that follow each other.

    For long sequences: `Trainer` with ``carry_context=True`` updates the network after
    each piece, and carries its state on from one to the next. Of a batch whose
    sequences have 100 steps, pieces of 40 steps have 40, 40 and 20. A batch of the
    wrapped iterator begins new sequences, unless it `continues` the one before itself.
    Items that have fewer time steps than others are static, and come with each piece.
    Datasets that `Undivided`, `Minibatches` or `Online` holds are read piece by piece.

    >>> import numpy as np
    >>> series = np.zeros((1000, 1, 3), dtype=np.float32)
    >>> pieces = Subsequences(Undivided(default=series), 400)
    >>> [piece['default'].shape[0] for piece in pieces()]
    [400, 400, 200]

    Args:
        iter: The iterator to wrap.
        steps: The largest number of time steps of a piece.
    """

    draws = False

    def __init__(self, iter: DataIterator, steps: int) -> None:
        expect(isinstance(iter, DataIterator), "iter", "a DataIterator", brief(iter))
        check_value("steps", steps, whole(1))
        self.iter = iter
        self.steps = int(steps)
        self._timed = _timed_items(iter)
        self._continues: dict[int, bool] = {}
        shapes = {
            name: (min(shape[0], self.steps), *shape[1:])
            if name in self._timed
            else shape
            for name, shape in iter.data_shapes.items()
        }
        super().__init__(shapes, self._nr_pieces())

    @property
    def continues(self) -> bool:
        """Whether the piece that this thread got last goes on with the one before."""
        return self._continues.get(get_ident(), False)

    def __call__(self, handler=None):
        # Classes derived from these may change what they yield.
        in_parts = type(self.iter) in (Undivided, Minibatches, Online)
        for batch in self.iter._parts() if in_parts else self.iter(handler):
            goes_on = bool(self.iter.continues)
            longest = max(len(batch[name]) for name in self._timed)
            static = {n: item[:] for n, item in batch.items() if n not in self._timed}
            for start in range(0, longest, self.steps):
                piece = slice(start, start + self.steps)
                self._continues[get_ident()] = goes_on or start > 0
                yield {
                    name: item[piece] if name in self._timed else static[name]
                    for name, item in batch.items()
                }

    def _nr_pieces(self) -> int | None:
        """How many pieces there are; not known where batches are cut."""
        lengths = _lengths(self.iter)
        if self.iter.length is None or not lengths:
            return None
        # These are the lengths of all that comes from one batch of the source.
        nr_source_batches = self.iter.length // len(lengths)
        return nr_source_batches * sum(math.ceil(n / self.steps) for n in lengths)


def _timed_items(iter: DataIterator) -> set[str]:
    """Names of the items that are to be cut."""
    source = iter
    while not isinstance(source, Subsequences):
        if not hasattr(source, "iter"):
            longest = max(shape[0] for shape in iter.data_shapes.values())
            return {n for n, s in iter.data_shapes.items() if s[0] == longest}
        source = source.iter
    return source._timed


def _lengths(iter: DataIterator) -> list[int]:
    """Time steps of the pieces of one uncut batch; none if batches are cut."""
    if isinstance(iter, Subsequences):
        return [
            min(iter.steps, length - start)
            for length in _lengths(iter.iter)
            for start in range(0, length, iter.steps)
        ]
    if hasattr(iter, "iter"):
        return _lengths(iter.iter)
    if getattr(iter, "_cut_items", ()):
        return []
    return [max(shape[0] for shape in iter.data_shapes.values())]

"""Data iterators that hold data and cut it into batches, or these into pieces."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import get_ident
from typing import Any

import h5py
import numpy as np

from brainstorm.data_iterators import checks
from brainstorm.data_iterators.base import Batch, DataIterator
from brainstorm.handlers.base_handler import Handler
from brainstorm.utils import FileFormatError, IteratorValidationError, listing

__all__ = ["Minibatches", "Online", "Subsequences", "Undivided"]


@dataclass(frozen=True)
class Part:
    """Some sequences of a data item, read when they are sliced along the time."""

    name: str
    data: np.ndarray | h5py.Dataset  # All of the item, of shape (T, B, ...).
    sequences: slice
    steps: int  # The number of time steps, from the first on.

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, piece: slice) -> np.ndarray:
        """Some time steps: a view of an array, or a copy of what is in the file."""
        start, stop, _ = piece.indices(self.steps)
        if isinstance(self.data, np.ndarray):
            return self.data[start:stop, self.sequences]
        checks.check_open(self.name, self.data)
        try:
            return self.data[start:stop, self.sequences]
        except OSError as error:
            raise FileFormatError(
                f"can not read data item {self.name!r}: {error}"
            ) from error


class Share:
    """The part of each batch that one of several ranks gets.

    Attributes:
        start: Number of the sequences that ranks before it have got of the last batch.
        count: Number of those that it has got.
        total: Number of sequences of the last batch.

    Args:
        rank: Number of the rank, from 0.
        size: Number of the ranks.
    """

    rank: int
    size: int
    start: int
    count: int
    total: int

    def __init__(self, rank: int, size: int):
        self.rank, self.size = rank, size
        self.start = self.count = self.total = 0

    def cut(self, sequences: slice, nr_sequences: int) -> slice:
        """The part of the sequences of a batch; the first one if that is none."""
        first, stop, _ = sequences.indices(nr_sequences)
        self.total = stop - first
        each, rest = divmod(self.total, self.size)
        self.start = self.rank * each + min(self.rank, rest)
        self.count = each + (self.rank < rest)
        begin = first + self.start if self.count else first
        return slice(begin, begin + max(self.count, 1))


class _Holder(DataIterator):
    """Base of the iterators that hold data."""

    share: Share | None = None
    """What to yield of each batch, instead of all of it."""

    def __init__(self, named_data: dict[str, Any], batch_size: int | None) -> None:
        self.nr_sequences: int = checks.check_data(named_data)
        shapes = {name: tuple(data.shape) for name, data in named_data.items()}
        size = batch_size or self.nr_sequences
        super().__init__(shapes, math.ceil(self.nr_sequences / size))
        self.data = named_data

    def __call__(self, handler: Handler | None = None) -> Iterator[Batch]:
        for parts in self._parts():
            yield {name: part[:] for name, part in parts.items()}

    def _parts(self) -> Iterator[Mapping[str, Part]]:
        """Batches, or shares of them, still to be read."""
        steps = {name: shape[0] for name, shape in self.data_shapes.items()}
        some = slice(None)
        if self.share is not None:
            some = self.share.cut(some, self.nr_sequences)
        yield {n: Part(n, d, some, steps[n]) for n, d in self.data.items()}


class Undivided(_Holder):
    """Yields all of the data as one batch.

    This reads datasets of HDF5 files whole, but for `Subsequences` piece by piece.

    Args:
        **named_data: NumPy arrays or h5py datasets of shape ``(T, B, ...)`` with
            the same B.
    """

    draws = False

    def __init__(self, **named_data: np.ndarray | h5py.Dataset) -> None:
        super().__init__(named_data, None)


class Minibatches(_Holder):
    """Yields the data in batches of `batch_size` sequences.

    The last batch is smaller if the number of sequences is no multiple of
    `batch_size`. Shuffling randomizes the order of the batches for each iteration,
    but leaves the sequences where they are: a batch is always a contiguous slice
    of the data (see `brainstorm.tools.shuffle_data` for more).

    Each batch is cut to its longest sequence, at least to one time step, if there
    is something to tell the lengths by. Only items with all of the time steps are
    cut; static ones (T = 1), say, stay as they are.

    Args:
        batch_size: Number of sequences in a batch.
        shuffle: Whether to yield the batches in random order.
        cut_according_to: What tells the length of a sequence. The name of a data
            item: a sequence ends with the last time step at which that item is not
            zero. The default `'mask'` may be missing from the data, then nothing is
            cut. Or a list or array with the length of each sequence. None or False
            for no cutting.
        **named_data: NumPy arrays or h5py datasets of shape ``(T, B, ...)`` with
            the same B.

    Raises:
        IteratorValidationError: While iterating: an HDF5 file was closed.
        FileFormatError: While iterating: an HDF5 file can not be read.
    """

    def __init__(
        self,
        batch_size: int = 1,
        shuffle: bool = True,
        cut_according_to: str | Sequence[int] | np.ndarray | None = "mask",
        **named_data: np.ndarray | h5py.Dataset,
    ) -> None:
        checks.check_value("batch_size", batch_size, checks.whole(1))
        checks.check_value("shuffle", shuffle, checks.FLAG)
        super().__init__(named_data, batch_size)
        self.batch_size: int = int(batch_size)
        self.shuffle: bool = bool(shuffle)
        self._steps = {name: shape[0] for name, shape in self.data_shapes.items()}
        self._cut_by, self._cut_items = self._plan_cutting(cut_according_to)

    @property
    def seq_lens(self) -> np.ndarray | None:
        """The lengths (B,) of all sequences; None if these are not to be cut.

        Where an item tells them, reading this goes through all of it.
        """
        if not self._cut_items:
            return None
        starts = range(0, self.nr_sequences, self.batch_size)
        parts = [self._lengths(slice(s, s + self.batch_size)) for s in starts]
        return np.concatenate(parts)

    def _parts(self) -> Iterator[Mapping[str, Part]]:
        starts = np.arange(0, self.nr_sequences, self.batch_size)
        if self.shuffle:
            self.rnd.shuffle(starts)
        for start in starts.tolist():
            some = slice(start, start + self.batch_size)
            longest = max(1, int(self._lengths(some).max())) if self._cut_items else 0
            steps = self._steps | dict.fromkeys(self._cut_items, longest)
            if self.share is not None:
                some = self.share.cut(some, self.nr_sequences)
            yield {n: Part(n, d, some, steps[n]) for n, d in self.data.items()}

    def _lengths(self, some: slice) -> np.ndarray:
        """The lengths of some sequences."""
        name: Any = self._cut_by
        if not isinstance(name, str):
            return name[some]
        mask = Part(name, self.data[name], some, self._steps[name])[:]
        used: Any = mask.any(axis=tuple(range(2, mask.ndim)))
        return np.where(used.any(axis=0), len(used) - used[::-1].argmax(axis=0), 0)

    def _plan_cutting(self, source: Any) -> tuple[str | np.ndarray | None, set[str]]:
        """What tells the lengths, and the names of the items to cut."""
        shapes = self.data_shapes
        if source is None or source is False:
            return None, set()
        if isinstance(source, str):
            if source not in shapes and source != "mask":
                raise IteratorValidationError(
                    f"cut_according_to: there is no data item {source!r}; choices"
                    f" are: {listing(shapes)}"
                )
            steps = shapes[source][0] if source in shapes else 0
        else:
            steps = max(shape[0] for shape in shapes.values())
            source = checks.check_lengths(source, self.nr_sequences, steps)
        return source, {n for n, shape in shapes.items() if shape[0] == steps}


class Online(Minibatches):
    """Yields one sequence at a time, cut by the item `'mask'` if there is one.

    Args:
        shuffle: Whether to yield the sequences in random order.
        cut_according_to: What tells the lengths, as of `Minibatches`.
        **named_data: NumPy arrays or h5py datasets of shape ``(T, B, ...)`` with
            the same B.
    """

    def __init__(
        self,
        shuffle: bool = True,
        cut_according_to: str | Sequence[int] | np.ndarray | None = "mask",
        **named_data: np.ndarray | h5py.Dataset,
    ) -> None:
        super().__init__(1, shuffle, cut_according_to, **named_data)


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
        checks.expect(
            isinstance(iter, DataIterator), "iter", "a DataIterator", checks.brief(iter)
        )
        checks.check_value("steps", steps, checks.whole(1))
        self.iter = iter
        self.steps: int = int(steps)
        self._timed = _timed_items(iter)
        self._continues: dict[int, bool] = {}
        shapes = {
            name: (min(shape[0], self.steps), *shape[1:])
            if name in self._timed
            else shape
            for name, shape in iter.data_shapes.items()
        }
        super().__init__(shapes, self._nr_pieces())

    @property  # type: ignore[misc]  # nothing else sets it
    def continues(self) -> bool:
        """Whether the piece that this thread got last goes on with the one before."""
        return self._continues.get(get_ident(), False)

    def __call__(self, handler: Handler | None = None) -> Iterator[Batch]:
        # Classes derived from these may change what they yield.
        in_parts = type(self.iter) in (Undivided, Minibatches, Online)
        iter: Any = self.iter
        for batch in iter._parts() if in_parts else iter(handler):
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

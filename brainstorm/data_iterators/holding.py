"""Data iterators that hold data and cut it into batches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from brainstorm.data_iterators.base import Batch, DataIterator
from brainstorm.data_iterators.checks import (
    FLAG,
    check_data,
    check_lengths,
    check_open,
    check_value,
    whole,
)
from brainstorm.utils import FileFormatError, IteratorValidationError, listing

__all__ = ["Minibatches", "Online", "Undivided"]


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
        check_open(self.name, self.data)
        try:
            return self.data[start:stop, self.sequences]
        except OSError as error:
            raise FileFormatError(
                f"can not read data item {self.name!r}: {error}"
            ) from error


class Undivided(DataIterator):
    """Yields all of the data as one batch.

    This reads datasets of HDF5 files whole, but for `Subsequences` piece by piece.

    Args:
        **named_data: NumPy arrays or h5py datasets of shape ``(T, B, ...)`` with
            the same B.
    """

    draws = False

    def __init__(self, **named_data: np.ndarray | h5py.Dataset) -> None:
        check_data(named_data)
        super().__init__(_shapes(named_data), 1)
        self.data = named_data

    def __call__(self, handler=None):
        return _read(self._parts())

    def _parts(self) -> Iterator[Mapping[str, Part]]:
        yield {
            name: Part(name, data, slice(None), self.data_shapes[name][0])
            for name, data in self.data.items()
        }


class Minibatches(DataIterator):
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
        check_value("batch_size", batch_size, whole(1))
        check_value("shuffle", shuffle, FLAG)
        self.nr_sequences = check_data(named_data)
        super().__init__(_shapes(named_data), math.ceil(self.nr_sequences / batch_size))
        self.batch_size = int(batch_size)
        self.shuffle = bool(shuffle)
        self.data = named_data
        self._steps = {name: shape[0] for name, shape in self.data_shapes.items()}
        self._cut_by, self._cut_items = self._plan_cutting(cut_according_to)

    @property
    def seq_lens(self) -> np.ndarray | None:
        """The lengths (B,) of all sequences; None if these are not to be cut.

        Where an item tells them, reading this goes through all of it.
        """
        if not self._cut_items or not isinstance(self._cut_by, str):
            return self._cut_by if self._cut_items else None
        lengths = np.zeros(self.nr_sequences, dtype=np.intp)
        for start in range(0, self.nr_sequences, self.batch_size):
            some = slice(start, start + self.batch_size)
            mask = self._mask(some)
            used = mask.any(axis=tuple(range(2, mask.ndim)))
            steps = np.arange(1, len(used) + 1)[:, np.newaxis]
            lengths[some] = (used * steps).max(axis=0)
        return lengths

    def __call__(self, handler=None):
        return _read(self._parts())

    def _parts(self) -> Iterator[Mapping[str, Part]]:
        starts = np.arange(0, self.nr_sequences, self.batch_size)
        if self.shuffle:
            self.rnd.shuffle(starts)
        for start in starts.tolist():
            some = slice(start, start + self.batch_size)
            longest = self._longest(some) if self._cut_items else 0
            steps = self._steps | dict.fromkeys(self._cut_items, longest)
            yield {n: Part(n, d, some, steps[n]) for n, d in self.data.items()}

    def _longest(self, some: slice) -> int:
        """Number of time steps of a batch that are in use."""
        if not isinstance(self._cut_by, str):
            return max(1, int(self._cut_by[some].max()))
        mask = self._mask(some)
        used = np.flatnonzero(mask.any(axis=tuple(range(1, mask.ndim))))
        return int(used[-1]) + 1 if used.size else 1

    def _mask(self, some: slice) -> np.ndarray:
        """The item that tells the lengths, of some sequences."""
        name = self._cut_by
        return Part(name, self.data[name], some, self._steps[name])[:]

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
            source = check_lengths(source, self.nr_sequences, steps)
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


def _read(batches: Iterable[Mapping[str, Part]]) -> Iterator[Batch]:
    for batch in batches:
        yield {name: part[:] for name, part in batch.items()}


def _shapes(named_data: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(data.shape) for name, data in named_data.items()}

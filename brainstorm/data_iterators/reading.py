"""How data iterators read what they hold: arrays, or datasets of HDF5 files."""

from __future__ import annotations

from dataclasses import dataclass

import h5py
import numpy as np

from brainstorm.data_iterators.checks import check_open
from brainstorm.utils import FileFormatError


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

"""Tools that arrange data sets of shape ``(T, B, ...)``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from numbers import Real
from typing import Any

import numpy as np

from brainstorm.randomness import global_rnd
from brainstorm.utils import ValidationError

__all__ = ["shuffle_data", "split"]


def shuffle_data(
    *arrays: np.ndarray | None, seed: int | None = None
) -> list[np.ndarray | None]:
    """Shuffle the sequences (axis 1) of some arrays, all in the same way.

    >>> x, y = np.zeros((1, 20, 5)), np.zeros((1, 20, 1))
    >>> x, y = shuffle_data(x, y, seed=1)

    Args:
        *arrays: Arrays of shape ``(T, B, ...)`` with the same B. The T may differ.
            None stands for data that is not there.
        seed: Seed of the order. By default it comes from `global_rnd`.

    Returns:
        A list of shuffled copies, one for each array, and None for None.

    Raises:
        ValidationError: The arrays do not fit.
    """
    loaded, nr_sequences = _load(arrays)
    order = global_rnd.create_random_state(seed).permutation(nr_sequences)
    return [None if array is None else array[:, order] for array in loaded]


def split(
    *arrays: np.ndarray | None, ratios: Sequence[float] = (9, 1)
) -> list[list[np.ndarray | None]]:
    """Split arrays along the sequences (axis 1) in the given proportions.

    The parts hold neighboring sequences: shuffle the data first if its order means
    something.

    >>> x, y = np.zeros((1, 20, 5)), np.zeros((1, 20, 1))
    >>> (x_train, y_train), (x_valid, y_valid), (x_test, y_test) = split(
    ...     x, y, ratios=(8, 1, 1))
    >>> x_train.shape, y_train.shape, x_valid.shape, x_test.shape
    ((1, 16, 5), (1, 16, 1), (1, 2, 5), (1, 2, 5))

    Args:
        *arrays: Arrays of shape ``(T, B, ...)`` with the same B. The T may differ.
            None stands for data that is not there.
        ratios: Sizes of the parts in proportion to each other.

    Returns:
        A list of the parts. Each is a list with what it has of each array, a view of
        it, and None for None. A part can be empty: of few sequences, or by a ratio
        of 0.

    Raises:
        ValidationError: The arrays or ratios do not fit.
    """
    loaded, nr_sequences = _load(arrays)
    ratios = list(ratios)
    good = all(isinstance(r, Real) and math.isfinite(r) and r >= 0 for r in ratios)
    if not good or not any(ratios):
        raise ValidationError(
            f"ratios: expected numbers of at least 0, and not only zeros, got {ratios}"
        )
    shares = np.cumsum(ratios) / np.sum(ratios)
    ends = [0, *np.rint(shares * nr_sequences).astype(int).tolist()]
    return [
        [None if array is None else array[:, start:end] for array in loaded]
        for start, end in pairwise(ends)
    ]


def _load(arrays: Sequence[Any]) -> tuple[list[np.ndarray | None], int]:
    """The data as NumPy arrays, and their number of sequences."""
    if not arrays:
        raise ValidationError("expected at least one array, got none")
    loaded = [None if array is None else np.asarray(array) for array in arrays]
    given = [(i, array) for i, array in enumerate(loaded) if array is not None]
    for i, array in given:
        if array.ndim < 2:
            raise ValidationError(
                f"array {i}: expected at least the 2 dimensions (T, B), got shape"
                f" {array.shape}"
            )
        first, nr_sequences = given[0][0], given[0][1].shape[1]
        if array.shape[1] != nr_sequences:
            raise ValidationError(
                f"array {i}: expected as many sequences (axis 1) as in array {first},"
                f" {nr_sequences}, got {array.shape[1]}"
            )
    return loaded, given[0][1].shape[1] if given else 0

"""Tools that arrange data sets of shape ``(T, B, ...)``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real

import numpy as np

from brainstorm.randomness import global_rnd
from brainstorm.utils import ValidationError

__all__ = ["shuffle_data", "split"]


def shuffle_data(
    *arrays: np.ndarray, seed: int | None = None
) -> np.ndarray | tuple[np.ndarray, ...]:
    """Shuffle the sequences (axis 1) of some arrays, all in the same way.

    Args:
        *arrays: Arrays of shape ``(T, B, ...)`` with the same B. The T may differ.
        seed: Seed of the order. By default it comes from `global_rnd`.

    Returns:
        Shuffled copies: a tuple of them, or the array alone if there is just one.

    Raises:
        ValidationError: The arrays do not fit.
    """
    loaded, nr_sequences = _load(arrays)
    order = global_rnd.create_random_state(seed).permutation(nr_sequences)
    shuffled = tuple(array[:, order] for array in loaded)
    return shuffled if len(shuffled) > 1 else shuffled[0]


def split(
    *arrays: np.ndarray, ratios: Sequence[float] = (9, 1)
) -> tuple[np.ndarray, ...] | tuple[tuple[np.ndarray, ...], ...]:
    """Split arrays along the sequences (axis 1) in the given proportions.

    The parts hold neighboring sequences: shuffle the data first if its order means
    something.

    >>> x, y = np.zeros((1, 20, 5)), np.zeros((1, 20, 1))
    >>> (x_train, x_valid, x_test), (y_train, y_valid, y_test) = split(
    ...     x, y, ratios=(8, 1, 1))
    >>> x_train.shape, x_valid.shape, x_test.shape, y_test.shape
    ((1, 16, 5), (1, 2, 5), (1, 2, 5), (1, 2, 1))

    Args:
        *arrays: Arrays of shape ``(T, B, ...)`` with the same B. The T may differ.
        ratios: Sizes of the parts in proportion to each other.

    Returns:
        For each array the tuple of its parts, which are views of it. If there is
        just one array, the tuple of its parts alone.

    Raises:
        ValidationError: The arrays or ratios do not fit, or a part would be empty.
    """
    loaded, nr_sequences = _load(arrays)
    ratios = list(ratios)
    if not ratios or not all(
        isinstance(r, Real) and math.isfinite(r) and r > 0 for r in ratios
    ):
        raise ValidationError(f"ratios: expected positive numbers, got {ratios}")
    shares = np.cumsum(ratios) / math.fsum(ratios)
    ends = np.rint(shares * nr_sequences).astype(int)
    ends[-1] = nr_sequences
    if min(np.diff(ends, prepend=0)) < 1:
        raise ValidationError(
            f"ratios: {tuple(ratios)} would leave a part empty, there are only"
            f" {nr_sequences} sequences"
        )
    parts = tuple(tuple(np.split(array, ends[:-1], axis=1)) for array in loaded)
    return parts if len(parts) > 1 else parts[0]


def _load(arrays: Sequence) -> tuple[list[np.ndarray], int]:
    """The data as NumPy arrays, and their number of sequences."""
    if not arrays:
        raise ValidationError("expected at least one array, got none")
    loaded = [np.asarray(array) for array in arrays]
    for i, array in enumerate(loaded):
        if array.ndim < 2:
            raise ValidationError(
                f"array {i}: expected at least the 2 dimensions (T, B), got shape"
                f" {array.shape}"
            )
        if array.shape[1] != loaded[0].shape[1]:
            raise ValidationError(
                f"array {i}: expected as many sequences (axis 1) as in array 0,"
                f" {loaded[0].shape[1]}, got {array.shape[1]}"
            )
    return loaded, loaded[0].shape[1]

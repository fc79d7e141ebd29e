"""Checks of the data and of the arguments that data iterators get."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import h5py
import numpy as np

from brainstorm.utils import IteratorValidationError, listing


def brief(value: object) -> str:
    """A value for an error message, or its type where that would be long."""
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else type(value).__name__


def check_open(name: str, data: h5py.Dataset) -> None:
    """Check that a dataset can be read."""
    if not data:
        raise IteratorValidationError(
            f"data item {name!r}: its HDF5 file is closed; keep the file open for as"
            " long as the data is used"
        )


def check_data(named_data: Mapping[str, Any]) -> int:
    """Check the data items one by one and together; return their B."""
    if not named_data:
        raise IteratorValidationError(
            "expected at least one data item, such as default=x, got none"
        )
    for name, data in named_data.items():
        _check_item(name, data)
    first = next(iter(named_data))
    nr_sequences = named_data[first].shape[1]
    for name, data in named_data.items():
        if data.shape[1] != nr_sequences:
            raise IteratorValidationError(
                f"data item {name!r}: expected as many sequences (axis 1) as in"
                f" {first!r}, {nr_sequences}, got {data.shape[1]}"
            )
    return nr_sequences


def _check_item(name: str, data: Any) -> None:
    if not isinstance(data, (np.ndarray, h5py.Dataset)):
        raise IteratorValidationError(
            f"data item {name!r}: expected a NumPy array or an h5py dataset, got"
            f" {brief(data)}"
        )
    if isinstance(data, h5py.Dataset):
        check_open(name, data)
    if data.dtype.kind not in "biuf":
        raise IteratorValidationError(
            f"data item {name!r}: expected floats, integers or booleans, got dtype"
            f" {data.dtype}"
        )
    if data.shape is None or len(data.shape) < 3:
        raise IteratorValidationError(
            f"data item {name!r}: expected at least 3 dimensions (T, B, ...), got"
            f" shape {data.shape}"
        )
    if 0 in data.shape:
        raise IteratorValidationError(
            f"data item {name!r}: expected some data, got none: its shape is"
            f" {data.shape}"
        )


def check_lengths(lengths: Any, nr_sequences: int, steps: int) -> np.ndarray:
    """Check the lengths of all sequences; return them as an array."""
    array = np.asarray(lengths)
    if array.shape != (nr_sequences,) or array.dtype.kind not in "iu":
        raise IteratorValidationError(
            "cut_according_to: expected the name of a data item, None, or the"
            f" lengths of the {nr_sequences} sequences as integers, got"
            f" {brief(lengths)}"
        )
    if array.min() < 0 or array.max() > steps:
        raise IteratorValidationError(
            f"cut_according_to: expected lengths from 0 to {steps}, got"
            f" {array[(array < 0) | (array > steps)][0]}"
        )
    return array


def check_names(argument: str, names: Any, choices: Mapping) -> None:
    """Check that this is a dict by data items that there are."""
    if not isinstance(names, Mapping):
        raise IteratorValidationError(
            f"{argument}: expected a dict by data item, got {brief(names)}"
        )
    for name in names:
        if name not in choices:
            raise IteratorValidationError(
                f"{argument}: there is no data item {name!r} to work on; choices"
                f" are: {listing(choices)}"
            )


PROBABILITY = ("a probability from 0 to 1", 0, 1)


def check_numbers(
    argument: str,
    values: Mapping[str, Any],
    expected: str,
    low: float = -math.inf,
    high: float = math.inf,
) -> dict[str, float]:
    """A copy of `values` once all of them are finite numbers in [low, high]."""
    for name, value in values.items():
        if not (
            isinstance(value, Real) and math.isfinite(value) and low <= value <= high
        ):
            raise IteratorValidationError(
                f"{argument}[{name!r}]: expected {expected}, got {brief(value)}"
            )
    return dict(values)


def fill_numbers(
    argument: str, values: Any, names: Mapping, default: float, *limits: Any
) -> dict[str, float]:
    """A number for each of `names`: from `values` where it is there."""
    values = {} if values is None else values
    check_names(argument, values, names)
    return dict.fromkeys(names, default) | check_numbers(argument, values, *limits)


def check_integer(what: str, value: Any, minimum: int) -> None:
    """Check that this is an integer of at least `minimum`."""
    if not isinstance(value, Integral) or value < minimum:
        raise IteratorValidationError(
            f"{what}: expected an integer >= {minimum}, got {brief(value)}"
        )


def check_window(what: str, window: Any, image: tuple[int, int]) -> None:
    """Check that this is the size of a window within an image."""
    fits = (
        isinstance(window, (tuple, list))
        and len(window) == 2
        and all(isinstance(n, Integral) for n in window)
        and all(1 <= n <= limit for n, limit in zip(window, image, strict=True))
    )
    if not fits:
        raise IteratorValidationError(
            f"{what}: expected a (height, width) from (1, 1) to the size of the image,"
            f" {image}, got {brief(window)}"
        )

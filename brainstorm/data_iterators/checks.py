"""Checks of the data and of the arguments that data iterators get.

All of them raise an IteratorValidationError, which tells what was expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any

import h5py
import numpy as np

from brainstorm.checks import Check, is_finite
from brainstorm.utils import IteratorValidationError, listing


def brief(value: object) -> str:
    """A value for an error message, or its type where that would be long."""
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else type(value).__name__


def expect(good: Any, what: str, expected: str, got: Any) -> None:
    """Raise an error unless something is good."""
    if not good:
        raise IteratorValidationError(f"{what}: expected {expected}, got {got}")


def whole(low: int) -> Check:
    """The integers of at least `low`."""
    return Check(
        lambda n: isinstance(n, Integral) and int(n) >= low, f"an integer >= {low}"
    )


FLAG = Check(lambda x: isinstance(x, (bool, np.bool_)), "True or False")
NUMBER = Check(is_finite, "a number")
NOT_NEGATIVE = Check(lambda x: is_finite(x) and x >= 0, "a number >= 0")
PROBABILITY = Check(lambda x: is_finite(x) and 0 <= x <= 1, "a probability from 0 to 1")


def check_value(what: str, value: Any, check: Check) -> None:
    """Check one value."""
    expect(check.accept(value), what, check.expected, brief(value))


def check_values(
    argument: str, values: Any, items: Mapping[str, Any], check: Check
) -> dict[str, Any]:
    """A copy of a dict of values by some of the data items, once all are good."""
    expect(isinstance(values, Mapping), argument, "a dict by data item", brief(values))
    for name, value in values.items():
        if name not in items:
            raise IteratorValidationError(
                f"{argument}: there is no data item {name!r} to work on; choices"
                f" are: {listing(items)}"
            )
        check_value(f"{argument}[{name!r}]", value, check)
    return dict(values)


def filled_values(
    argument: str, values: Any, items: Mapping[str, Any], check: Check, default: float
) -> dict[str, Any]:
    """A value for each of the data items: from `values`, if any, where it is there."""
    values = check_values(argument, {} if values is None else values, items, check)
    return dict.fromkeys(items, default) | values


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
        _check_item(f"data item {name!r}", name, data)
    first = next(iter(named_data))
    number = named_data[first].shape[1]
    expected = f"as many sequences (axis 1) as in {first!r}, {number}"
    for name, data in named_data.items():
        nr_sequences = data.shape[1]
        expect(nr_sequences == number, f"data item {name!r}", expected, nr_sequences)
    return number


def _check_item(what: str, name: str, data: Any) -> None:
    is_data = isinstance(data, (np.ndarray, h5py.Dataset))
    expect(is_data, what, "a NumPy array or an h5py dataset", brief(data))
    if isinstance(data, h5py.Dataset):
        check_open(name, data)
    is_number = data.dtype.kind in "biuf"
    expect(is_number, what, "floats, integers or booleans", f"dtype {data.dtype}")
    is_sequence = data.shape is not None and len(data.shape) >= 3
    shape = f"shape {data.shape}"
    expect(is_sequence, what, "at least 3 dimensions (T, B, ...)", shape)
    expect(0 not in data.shape, what, "some data", f"none: its {shape}")


def check_lengths(lengths: Any, nr_sequences: int, steps: int) -> np.ndarray:
    """Check the lengths of all sequences; return them as an array."""
    array = np.asarray(lengths)
    expect(
        array.shape == (nr_sequences,) and array.dtype.kind in "iu",
        "cut_according_to",
        "the name of a data item, None, or the lengths of the"
        f" {nr_sequences} sequences as integers",
        brief(lengths),
    )
    bad = array[(array < 0) | (array > steps)]
    expected = f"lengths from 0 to {steps}"
    expect(not bad.size, "cut_according_to", expected, next(iter(bad), None))
    return array


def check_window(what: str, window: Any, image: tuple[int, int]) -> None:
    """Check that this is the size of a window within an image."""
    fits = (
        isinstance(window, (tuple, list))
        and len(window) == 2
        and all(isinstance(n, Integral) for n in window)
        and all(1 <= n <= limit for n, limit in zip(window, image, strict=True))
    )
    expected = f"a (height, width) from (1, 1) to the size of the image, {image}"
    expect(fits, what, expected, brief(window))

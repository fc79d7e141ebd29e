"""Checking the data that goes into a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from brainstorm.structure.buffer_structure import BufferStructure
from brainstorm.utils import MissingInputError, NetworkValidationError, choices, listing


def check_open(name: str, values: Any) -> None:
    """Refuse data in an HDF5 file that has been closed."""
    if isinstance(values, (h5py.Dataset, h5py.Group)) and not values:
        raise NetworkValidationError(
            f"the HDF5 file with the data for the input {name!r} is closed; keep it"
            " open for as long as the data is used"
        )


def check_dense(name: str, values: Any) -> None:
    """Refuse sparse matrices."""
    if hasattr(values, "toarray"):
        raise NetworkValidationError(
            f"the data for the input {name!r} is sparse, a {type(values).__name__};"
            " give dense data, by its method toarray()"
        )


def shapes_of(data: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shapes of data by the names of the inputs, if it is a dict of arrays."""
    try:
        return {
            name: array.shape if type(array) is np.ndarray else tuple(np.shape(array))
            for name, array in data.items()
        }
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        for name, values in data.items() if isinstance(data, Mapping) else ():
            check_open(name, values)
        raise NetworkValidationError(
            f"data: expected a dict of arrays by the names of the inputs: {error}"
        ) from error


def without_time(
    structures: Mapping[str, BufferStructure], shapes: Mapping[str, tuple[int, ...]]
) -> frozenset[str]:
    """Names of the items ``(1, B, ...)`` for inputs that have no time."""
    return frozenset(
        name
        for name, shape in shapes.items()
        if name in structures
        and structures[name].buffer_type == 1
        and len(shape) == len(structures[name].shape) + 1
        and shape[0] == 1
    )


def check_shapes(
    structures: Mapping[str, BufferStructure],
    shapes: Mapping[str, tuple[int, ...]],
    all_inputs: bool,
) -> dict[str, int]:
    """Check the shapes of data by names against the structures of the inputs.

    Returns the sizes ``'T'`` and ``'B'``, as far as the data tells.
    """
    unknown = [name for name in shapes if name not in structures]
    if unknown:
        raise NetworkValidationError(
            f"the network has no input {listing(unknown)};"
            f" {choices(unknown[0], structures)}"
        )
    missing = [name for name in structures if name not in shapes]
    if all_inputs and missing:
        raise MissingInputError(
            f"no data for the input {listing(missing)}; got {listing(shapes)}"
        )
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        expected = structures[name].shape
        fits = len(shape) == len(expected)
        for wanted, size in zip(expected, shape, strict=False):
            fits &= size == (
                sizes.setdefault(wanted, size) if wanted in ("T", "B") else wanted
            )
        if not fits or 0 in shape:
            known = "".join(f", {k} = {v}" for k, v in sizes.items())
            raise NetworkValidationError(
                f"expected data of the shape {expected} for the input"
                f" {name!r}{known}; got {shape}"
            )
    return sizes

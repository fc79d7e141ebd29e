"""Reads what networks are given from files."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import h5py
import numpy as np

from brainstorm.files import DAMAGE, reading
from brainstorm.structure.buffer_structure import BufferStructure
from brainstorm.structure.network import Network
from brainstorm.structure.prediction import find_output, inputs_of
from brainstorm.utils import (
    BrainstormError,
    FileFormatError,
    MissingFileError,
    MissingInputError,
    listing,
)

# What numpy.savez calls an array that it is given without a name.
UNNAMED = "arr_0"


class Source(NamedTuple):
    """Where data are.

    Attributes:
        filename: An HDF5, npz or npy file.
        group: Where in the file they are, as in ``'a/test'``.
        output_name: Path of the output that they are for; None for that of `predict`.
    """

    filename: str
    group: str = ""
    output_name: str | None = None


def load_inputs(net: Network, source: Source, files: ExitStack) -> dict[str, Any]:
    """The arrays in a file that are inputs of a network, by their names.

    Args:
        net: The network.
        source: The file.
        files: Keeps it open, as long as it is open itself.

    Returns:
        Arrays or HDF5 datasets. Images are flat where the network takes flat features,
        or the other way round.

    Raises:
        MissingFileError: There is no such file.
        FileFormatError: It is damaged, or of another kind, or has no such group.
        MissingInputError: There are no data for the inputs (a KeyError).
    """
    if not os.path.isfile(source.filename):
        raise MissingFileError(f"there is no file {source.filename!r}")
    inputs = net.layers["Input"].out_shapes
    is_hdf5 = h5py.is_hdf5(source.filename)
    arrays = _in_hdf5(source, inputs, files) if is_hdf5 else _in_numpy(source, net)
    found = {
        name: _as_features(arrays[name], inputs[name])
        for name in inputs
        if name in arrays
    }
    if not found:
        raise MissingInputError(
            f"{source.filename!r} has no data for the inputs {listing(inputs)};"
            f" there are: {listing(arrays)}"
        )
    return found


def _as_features(array: Any, structure: BufferStructure) -> Any:
    """Images for a network that takes flat features, or the other way round."""
    first = structure.first_feature_dim
    features = getattr(array, "shape", ())[first:]
    if features == structure.feature_shape or math.prod(features) != math.prod(
        structure.feature_shape
    ):
        return array
    return np.reshape(array[()], (*array.shape[:first], *structure.feature_shape))


def _in_hdf5(
    source: Source, inputs: Iterable[str], files: ExitStack
) -> Mapping[str, Any]:
    """The datasets in the group."""
    with reading(source.filename):
        file = group = files.enter_context(h5py.File(source.filename, "r"))
    for part in filter(None, source.group.split("/")):
        if not isinstance(group.get(part), h5py.Group):
            raise FileFormatError(
                f"{source.filename!r} has no group {part!r} in {group.name!r};"
                f" there are: {listing(_datasets(group, h5py.Group))}"
            )
        group = group[part]
    datasets = _datasets(group)
    others = [] if set(inputs) & set(datasets) else _groups_with(file, inputs)
    if others:
        raise MissingInputError(
            f"{source.filename!r} has no data for the inputs {listing(inputs)} in"
            f" {group.name!r}; choose one by the argument group, or by --group:"
            f" {listing(others)}"
        )
    return datasets


def _datasets(group: h5py.Group, kind: type = h5py.Dataset) -> dict[str, Any]:
    """The datasets in a group, or its members of another kind."""
    members = {name: group.get(name) for name in group}
    return {
        name: member
        for name, member in members.items()
        if isinstance(member, kind) and getattr(member, "shape", ()) is not None
    }


def _groups_with(file: h5py.File, names: Iterable[str]) -> list[str]:
    """The groups of a file with datasets of some of these names."""
    found: list[str] = []

    def visit(path: str, member: Any) -> None:
        if isinstance(member, h5py.Group) and set(names) & set(_datasets(member)):
            found.append(path)

    file.visititems(visit)
    return found


def _in_numpy(source: Source, net: Network) -> Mapping[str, Any]:
    """The arrays in an npz file, or the one without a name in an npy file."""
    with _reading_numpy(source.filename), open(source.filename, "rb") as file:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            loaded = {UNNAMED: loaded}
        if list(loaded) == [UNNAMED] and not source.group:
            return _as_input(source, net, loaded[UNNAMED])
        prefix = "/".join([*filter(None, source.group.split("/")), ""])
        names = [name for name in loaded if name.startswith(prefix)]
        if not names:
            raise FileFormatError(
                f"{source.filename!r} has no array whose name begins with {prefix!r};"
                f" there are: {listing(loaded)}"
            )
        inputs = net.layers["Input"].out_shapes
        short = {name: name.removeprefix(prefix) for name in names}
        return {s: loaded[n] if s in inputs else None for n, s in short.items()}


def _as_input(source: Source, net: Network, array: np.ndarray) -> dict[str, np.ndarray]:
    """An array without a name, under that of the only input that it can be."""
    needed, _ = inputs_of(net, find_output(net, source.output_name))
    if len(needed) != 1:
        raise MissingInputError(
            f"{source.filename!r} has one array without a name, but the output depends"
            f" on the inputs {listing(needed)}: give an HDF5 or npz file"
        )
    return {needed[0]: array}


@contextmanager
def _reading_numpy(filename: str) -> Iterator[None]:
    """Name the file in errors about what is in it."""
    try:
        yield
    except (BrainstormError, OSError):
        raise
    except (*DAMAGE, EOFError, SyntaxError, zipfile.BadZipFile, zlib.error) as error:
        raise FileFormatError(
            f"{filename!r} is neither an HDF5 file nor an npz or npy file of numbers"
        ) from error

"""Networks in HDF5 files.

Attributes ``info``, ``format`` and optionally ``comment``; dataset
``description``, the network's description as UTF-8 JSON; dataset
``parameters``, the flat buffer, compressed. The format is that of brainstorm 0.5.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from brainstorm import __version__
from brainstorm.describable import create_from_description, get_description
from brainstorm.files import atomic_hdf5, open_hdf5
from brainstorm.utils import BrainstormError, FileFormatError, listing

if TYPE_CHECKING:
    from brainstorm.structure.network import Network

__all__ = ["load_network", "save_network"]

KEYS = {
    "@type",
    "architecture",
    "handler",
    "initializers",
    "gradient_modifiers",
    "weight_modifiers",
    "output_name",
}
FORMAT = "Network file v1.0"
# A description is text that people could have typed, not data.
LARGEST_DESCRIPTION = 256 * 2**20


def save_network(net: Network, filename: str | os.PathLike, comment: str = "") -> None:
    """Write a network to an HDF5 file, which is replaced in one go."""
    description = json.dumps(get_description(net)).encode()
    parameters = net.get("parameters")
    with atomic_hdf5(filename) as f:
        f.attrs["info"] = np.bytes_(f"Created with brainstorm {__version__}")
        f.attrs["format"] = np.bytes_(FORMAT)
        if comment:
            f.attrs["comment"] = np.bytes_(comment.encode())
        f["description"] = np.bytes_(description)
        f.create_dataset("parameters", data=parameters, compression="gzip")


def load_network(cls: type[Network], filename: str | os.PathLike) -> Network:
    """Read a network from an HDF5 file.

    Raises:
        FileNotFoundError: There is no such file.
        FileFormatError: It is damaged, or not a network's file.
    """
    with open_hdf5(filename, FORMAT) as f:
        try:
            net = _create_network(cls, json.loads(_read_description(f)))
        except (BrainstormError, ValueError, TypeError, LookupError) as error:
            raise FileFormatError(
                f"{str(filename)!r} does not describe a network: {error}"
            ) from error
        parameters = _read_parameters(f, net.buffer.parameters.shape[0])
    net.handler.set_from_numpy(net.buffer.parameters, parameters)
    return net


def _read_description(f: h5py.File) -> bytes:
    """Read the JSON text, having looked at its size."""
    dataset = _dataset(f, "description")
    if dataset.size != 1 or h5py.check_string_dtype(dataset.dtype) is None:
        raise FileFormatError(
            f"expected one text as 'description', got {dataset.dtype} of the shape"
            f" {dataset.shape}"
        )
    if dataset.dtype.itemsize > LARGEST_DESCRIPTION:
        raise FileFormatError(f"'description' has {dataset.dtype.itemsize} bytes")
    return dataset[()].item() if dataset.shape else bytes(dataset[()])


def _read_parameters(f: h5py.File, size: int) -> np.ndarray:
    dataset = _dataset(f, "parameters")
    if dataset.ndim != 1 or dataset.dtype.kind not in "fiu":
        raise FileFormatError(
            f"expected a vector of numbers as 'parameters', got {dataset.dtype} of the"
            f" shape {dataset.shape}"
        )
    if dataset.shape != (size,):
        raise FileFormatError(
            f"expected {size} values as 'parameters', got {dataset.shape[0]}"
        )
    return dataset[:]


def _dataset(f: h5py.File, name: str) -> h5py.Dataset:
    if name not in f or not isinstance(f[name], h5py.Dataset):
        raise FileFormatError(f"there is no dataset {name!r}; there are: {listing(f)}")
    return f[name]


def _create_network(cls: type[Network], description: Any) -> Network:
    if not isinstance(description, Mapping) or description.get("@type") != "Network":
        raise FileFormatError("expected a dict with '@type': 'Network'")
    unknown = sorted(set(description) - KEYS)
    if unknown or "architecture" not in description:
        raise FileFormatError(
            f"expected the keys {listing(sorted(KEYS))}, got"
            f" {listing(sorted(description))}"
        )
    for key in KEYS - {"@type", "output_name"}:
        if not isinstance(description.get(key, {}), Mapping):
            raise FileFormatError(f"expected a dict as {key!r}")
    if not isinstance(description.get("output_name"), str | None):
        raise FileFormatError("expected a text or null as 'output_name'")
    return create_from_description(dict(description))

"""Exchanging parameters with other libraries."""

from __future__ import annotations

import os

import numpy as np

from brainstorm.files import atomic_path, check_start, checked_name, reading
from brainstorm.structure.network import Network
from brainstorm.utils import (
    FileFormatError,
    MissingFileError,
    ValidationError,
    import_extra,
    listing,
)

__all__ = ["load_safetensors", "save_safetensors"]


def save_safetensors(network: Network, filename: str | os.PathLike[str]) -> None:
    """Save the parameters of a network to a safetensors file, for other libraries.

    Each parameter becomes a tensor named ``'<layer>.<parameter>'``, such as
    ``'Hidden.W'``, in its own shape and the handler's dtype. The architecture is not
    saved. The file is replaced in one go.

    Args:
        network: The network.
        filename: Name of the file; its folder has to exist.

    Raises:
        ImportError: The package safetensors is missing.
        FileFormatError: There is a file of another kind already.
        MissingFileError: The folder does not exist.
    """
    safetensors = import_extra("safetensors.numpy", "save_safetensors", "safetensors")
    check_start(filename, rb".{8}\{", "safetensors file")  # behind its length
    tensors = {name: network.get(path) for name, path in _paths(network).items()}
    data = safetensors.save(tensors)
    with atomic_path(filename) as temporary:
        temporary.write_bytes(data)


def load_safetensors(network: Network, filename: str | os.PathLike[str]) -> None:
    """Set the parameters of a network to those in a safetensors file.

    The file has to have a tensor of the right shape, and of some type of floats, for
    every parameter, and no others. The parameters change only if all of them fit.

    Args:
        network: The network.
        filename: Name of a file as :func:`save_safetensors` writes them.

    Raises:
        ImportError: The package safetensors is missing.
        MissingFileError: There is no such file.
        FileFormatError: It is damaged.
        ValidationError: Names or shapes are not those of the network, or it has
            different values for a parameter that layers share.
    """
    import_extra("safetensors.numpy", "load_safetensors", "safetensors")
    safetensors = import_extra("safetensors", "load_safetensors", "safetensors")
    if not os.path.isfile(checked_name(filename)):
        raise MissingFileError(f"there is no file {str(filename)!r}")
    paths = _paths(network)
    shapes = {name: tuple(network.buffer[path].shape) for name, path in paths.items()}
    try:
        with (
            reading(filename),
            safetensors.safe_open(os.fspath(filename), framework="np") as f,
        ):
            found = {name: tuple(f.get_slice(name).get_shape()) for name in f.keys()}  # noqa: SIM118
            tensors = {n: f.get_tensor(n) for n in found} if found == shapes else {}
    except safetensors.SafetensorError as error:
        raise FileFormatError(f"can not read {str(filename)!r}: {error}") from error
    lacking, extra = sorted(set(shapes) - set(found)), sorted(set(found) - set(shapes))
    if lacking or extra:
        raise ValidationError(
            f"{str(filename)!r} does not hold the parameters of this network: it lacks"
            f" {listing(lacking)}, and it has {listing(extra)} beside them"
        )
    for name, shape in shapes.items():
        if found[name] != shape:
            raise ValidationError(
                f"{str(filename)!r}: expected {name!r} to have the shape {shape}, got"
                f" {found[name]}"
            )
    for name, tensor in tensors.items():
        if tensor.dtype.kind != "f":
            raise ValidationError(f"expected floats as {name!r}, got {tensor.dtype}")
    owners = {
        f"{layer_name}.{parameter}": owner
        for layer_name, layer in network.layers.items()
        for parameter, owner in layer.shared.items()
    }
    for name, owner in owners.items():
        if not np.array_equal(tensors[name], tensors[owner], equal_nan=True):
            raise ValidationError(
                f"{str(filename)!r} has different values as {name!r} and {owner!r},"
                " which are one parameter of this network"
            )
    for name, tensor in tensors.items():
        network.handler.set_from_numpy(network.buffer[paths[name]], tensor)


def _paths(network: Network) -> dict[str, str]:
    """The paths of all parameters by the names that they have in the file."""
    return {
        f"{layer_name}.{name}": f"{layer_name}.parameters.{name}"
        for layer_name, layer in network.layers.items()
        for name in layer.parameter_shapes
    }

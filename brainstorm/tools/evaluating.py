"""Tools that run networks on data."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import h5py
import numpy as np

from brainstorm.files import atomic_hdf5
from brainstorm.training.utils import check_iterator, check_scorers, compute_scores
from brainstorm.utils import IteratorValidationError, ValidationError, listing

if TYPE_CHECKING:
    from brainstorm.data_iterators import DataIterator
    from brainstorm.scorers import Scorer
    from brainstorm.structure.buffer_structure import BufferStructure
    from brainstorm.structure.network import Network

__all__ = ["evaluate", "extract", "extract_and_save"]

BUFFERS_FORMAT = "Buffers file v1.0"
# What a forward pass fills anew for each batch, and where the layers describe it.
STRUCTURES = {
    "inputs": "in_shapes",
    "outputs": "out_shapes",
    "internals": "internal_shapes",
}


def evaluate(
    network: Network,
    iter: DataIterator,
    scorers: Sequence[Scorer] = (),
    out_name: str = "",
    targets_name: str = "targets",
    mask_name: str | None = None,
) -> dict[str, float]:
    """Compute the losses and some scores of a network on a data set.

    Args:
        network: The network.
        iter: Provides the data, all inputs of the network.
        scorers: The scorers. What they say themselves about output, targets and
            mask counts before the following arguments.
        out_name: Path of the output that is compared with the targets. Default: the
            network's ``output_name``.
        targets_name: Name of the targets among the data.
        mask_name: Name of the mask among the data. Default: no mask.

    Returns:
        The losses by name, ``'total_loss'`` among them, each a mean over the
        sequences; and the scores by the names of their scorers.

    Raises:
        IteratorValidationError: The names of the data are not those of the network's
            inputs.
        ValidationError: The scorers do not fit.
        KeyError: There is no such output or data item. Lists the choices.
    """
    check_iterator(network, iter, "iter")
    check_scorers(network, scorers, "evaluate")
    return compute_scores(
        network, iter, scorers, out_name, targets_name, mask_name or ""
    )


def extract(
    network: Network, iter: DataIterator, buffer_names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Run a network on a data set and collect what some of its buffers hold.

    These are inputs, outputs or internals with one value for each sequence, or for
    each time step of each sequence. The network runs as in use, not as in training.
    Inputs of it that `iter` does not provide, such as targets, are taken as zero.

    The sequences come in the order in which `iter` yields them: pass it
    ``shuffle=False`` to have that of the data. Batches of fewer time steps than the
    longest one, as they come from cut sequences, are filled up with zeros. The carried
    state, which recurrent layers keep in one more row, is left out.

    Args:
        network: The network.
        iter: Provides the data.
        buffer_names: Dotted paths of the buffers, such as
            ``'Output.outputs.predictions'``.

    Returns:
        By path an array of shape (T, B, ...), or (B, ...) if the buffer has no time
        dimension. B counts all sequences.

    Raises:
        KeyError: There is no such buffer. Lists the choices.
        ValidationError: A buffer can not be extracted.
        IteratorValidationError: There are no batches.
        NetworkValidationError: The data do not fit the network.
    """
    batches: dict[str, list[np.ndarray]] = {}
    axes = _batch_axes(network, buffer_names)
    for batch in _run(network, iter, axes):
        for name, values in batch.items():
            batches.setdefault(name, []).append(values)
    return {name: _join(batches[name], axis) for name, axis in axes.items()}


def extract_and_save(
    network: Network,
    iter: DataIterator,
    buffer_names: Sequence[str],
    file_name: str | os.PathLike,
) -> None:
    """Run a network on a data set and save some buffers to an HDF5 file.

    The file gets a dataset for each buffer, under its path, with what `extract` would
    return. It is written batch by batch, and appears when it is complete. Its
    attribute ``format`` says ``Buffers file v1.0``.

    For example::

        getter = Minibatches(100, shuffle=False, default=x_test)
        extract_and_save(network,
                         getter,
                         ['Output.outputs.predictions',
                          'Hid1.internals.H'],
                         'network_features.hdf5')

    Args:
        network: The network.
        iter: Provides the data.
        buffer_names: Dotted paths of the buffers. See `extract`.
        file_name: Name of the file. Its folder has to exist.

    Raises:
        FileNotFoundError: The folder does not exist.
        KeyError: There is no such buffer. Lists the choices.
        ValidationError: A buffer can not be extracted.
        IteratorValidationError: There are no batches.
        NetworkValidationError: The data do not fit the network.
    """
    axes = _batch_axes(network, buffer_names)
    with atomic_hdf5(file_name, BUFFERS_FORMAT) as f:
        for batch in _run(network, iter, axes):
            for name, values in batch.items():
                _append(f, name, values, axes[name])


def _batch_axes(network: Network, buffer_names: Sequence[str]) -> dict[str, int]:
    """Which dimension of each buffer counts the sequences."""
    if isinstance(buffer_names, str):
        raise ValidationError(
            f"buffer_names: expected a list of paths, got the text {buffer_names!r}"
        )
    if not buffer_names:
        raise ValidationError("buffer_names: expected at least one path, got none")
    return {name: _structure(network, name).buffer_type - 1 for name in buffer_names}


def _structure(network: Network, path: str) -> BufferStructure:
    """The structure of a buffer that a forward pass fills for each sequence."""
    layer, _, rest = path.partition(".")
    category, _, name = rest.partition(".")
    attribute = STRUCTURES.get(category)
    structures = getattr(network.layers.get(layer), attribute, {}) if attribute else {}
    if name not in structures:
        network.get(path)  # tells what is wrong with the path, if anything
        raise ValidationError(
            f"buffer_names: {path!r} does not depend on a forward pass alone; expected"
            f" a path with one of {listing(STRUCTURES)}"
        )
    if structures[name].is_backward_only:
        raise ValidationError(f"buffer_names: only backward passes compute {path!r}")
    if structures[name].buffer_type == 0:
        raise ValidationError(
            f"buffer_names: {path!r} has no values for the single sequences"
        )
    return structures[name]


def _run(
    network: Network, iter: DataIterator, axes: dict[str, int]
) -> Iterator[dict[str, np.ndarray]]:
    """The buffers after each batch, without carried state."""
    if not callable(iter):
        raise IteratorValidationError(
            f"iter: expected a data iterator, got {type(iter).__name__}"
        )
    batch = None
    for batch in iter(network.handler):
        network.provide_external_data(batch, all_inputs=False)
        for name, buffer in network.buffer.Input.outputs.items():
            if name not in batch:
                network.handler.fill(buffer, 0.0)
        network.forward_pass()
        yield {
            name: network.get(name)[: network.time_size] if axis else network.get(name)
            for name, axis in axes.items()
        }
    if batch is None:
        raise IteratorValidationError("iter provides no batches")


def _join(batches: list[np.ndarray], axis: int) -> np.ndarray:
    """All batches side by side, each filled up with zeros to the longest."""
    shape = list(np.max([batch.shape for batch in batches], axis=0))
    shape[axis] = sum(batch.shape[axis] for batch in batches)
    joined = np.zeros(shape, batches[0].dtype)
    start = 0
    for batch in batches:
        joined[_place(batch, axis, start)] = batch
        start += batch.shape[axis]
    return joined


def _append(f: h5py.File, name: str, batch: np.ndarray, axis: int) -> None:
    """Add a batch to a dataset, likewise."""
    if name not in f:
        maximum = (None,) * (axis + 1) + batch.shape[axis + 1 :]
        f.create_dataset(name, data=batch, maxshape=maximum)
        return
    dataset = f[name]
    start = dataset.shape[axis]
    shape = np.maximum(dataset.shape, batch.shape)
    shape[axis] = start + batch.shape[axis]
    dataset.resize(tuple(shape))
    dataset[_place(batch, axis, start)] = batch


def _place(batch: np.ndarray, axis: int, start: int) -> tuple[slice, ...]:
    """Where a batch goes that begins with the sequence number `start`."""
    sequences = slice(start, start + batch.shape[axis])
    return (slice(batch.shape[0]),) * axis + (sequences,)

"""Tools that run networks on data."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from brainstorm.data_iterators import DataIterator
from brainstorm.data_iterators.holding import Share
from brainstorm.files import atomic_hdf5
from brainstorm.parallel.ranks import Ranks
from brainstorm.parallel.sharing import shared
from brainstorm.scorers import Scorer
from brainstorm.structure.buffer_structure import BufferStructure
from brainstorm.structure.network import Network
from brainstorm.structure.prediction import (
    arrange,
    cut,
    find_output,
    inputs_of,
    named,
    sizes_of,
)
from brainstorm.training import utils
from brainstorm.utils import IteratorValidationError, ValidationError, listing

__all__ = ["evaluate", "extract", "extract_and_save", "predict"]

# Numbers of the time step and of the sequence where a batch begins.
Place = tuple[int, int]
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
    arguments: Mapping[str, Any] | None = None,
    comm: Any = None,
) -> dict[str, float]:
    """Compute the losses and some scores of a network on a data set.

    Args:
        network: The network.
        iter: Provides the data, all inputs of the network. Items that are no inputs
            are left out, here and in the functions below.
        scorers: The scorers. What they say themselves about output, targets and
            mask counts before the following arguments.
        out_name: Path of the output that is compared with the targets. Default: the
            network's ``output_name``.
        targets_name: Name of the targets among the data.
        mask_name: Name of the mask among the data. Default: that of the loss, if any.
        arguments: For layers that read arguments, see `Network.forward_pass`.
        comm: A communicator of mpi4py, whose ranks each compute a part; all get the
            result.

    Returns:
        The losses by name, ``'total_loss'`` among them, each a mean over the
        sequences; and the scores by the names of their scorers.

    Raises:
        IteratorValidationError: The names of the data are not those of the network's
            inputs.
        ValidationError: The scorers do not fit.
        KeyError: There is no such output or data item. Lists the choices.
    """
    utils.check_iterator(network, iter, "iter")
    utils.check_scorers(network, scorers, "evaluate")
    names = out_name, targets_name, mask_name or ""
    with shared(iter, comm) as parts:
        return utils.compute_scores(network, parts, scorers, *names, arguments)


def extract(
    network: Network,
    iter: DataIterator,
    buffer_names: str | Sequence[str],
    arguments: Mapping[str, Any] | None = None,
    comm: Any = None,
) -> dict[str, np.ndarray]:
    """Run a network on a data set and collect what some of its buffers hold.

    These are inputs, outputs or internals with one value for each sequence, or for
    each time step of each sequence. The network runs as in use, not as in training.
    Inputs of it that `iter` does not provide, such as targets, are taken as zero.

    The sequences come in the order in which `iter` yields them: pass it
    ``shuffle=False`` to have that of the data. Batches of fewer time steps than the
    longest one, as they come from cut sequences, are filled up with zeros. Pieces that
    continue each other, as those of `Subsequences`, are put together again. The carried
    state, which recurrent layers keep in one more row, is left out. The weights of
    `Attention` are (T, B, heads, T); batches of fewer steps are filled up there, too.

    Args:
        network: The network.
        iter: Provides the data.
        buffer_names: Dotted paths of the buffers, such as
            ``'Output.outputs.predictions'``; or just one.
        arguments: For layers that read arguments, see `Network.forward_pass`.
        comm: A communicator of mpi4py, whose ranks each compute a part; all get the
            result.

    Returns:
        By path an array of shape (T, B, ...), or (B, ...) if the buffer has no time
        dimension. B counts all sequences.

    Raises:
        KeyError: There is no such buffer. Lists the choices.
        ValidationError: A buffer can not be extracted.
        IteratorValidationError: There are no batches.
        NetworkValidationError: The data do not fit the network.
    """
    axes = _batch_axes(network, buffer_names)
    batches: dict[str, list[tuple[Place, np.ndarray]]] = {name: [] for name in axes}
    with shared(iter, comm) as parts:
        for place, batch in _run(network, parts, axes, arguments):
            for name, values in batch.items():
                batches[name].append((place, values))
        arrays = {n: _join(batches[n], axis) for n, axis in axes.items() if batches[n]}
        if hasattr(parts, "in_order"):  # there are other parts
            arrays = parts.in_order(arrays, axes)
        if not arrays:
            raise IteratorValidationError("iter provides no batches")
        return arrays


def predict(
    network: Network,
    x: Any,
    batch_size: int = 100,
    output_name: str | None = None,
    forced: Mapping[str, Any] | None = None,
    arguments: Mapping[str, Any] | None = None,
    comm: Any = None,
) -> np.ndarray:
    """The network's output for some data, as `Network.predict`, by several processes.

    Args:
        network: The network.
        x: The data, see `Network.predict`, here and below.
        batch_size: How many sequences to run at once.
        output_name: Path of the output.
        forced: What to feed back.
        arguments: For layers that read arguments.
        comm: A communicator of mpi4py, whose ranks each compute a part of the
            sequences; all get the result.

    Returns:
        An array of the shape (T, B, ...), or (B, ...) if the data has no T.

    Raises:
        Exception: As from `Network.predict`.
    """
    if comm is None:
        return network.predict(x, batch_size, output_name, forced, arguments)
    with Ranks(comm).together() as ranks:
        path = find_output(network, output_name)
        data, has_time = arrange(network, named(x, inputs_of(network, path)[0]))
        total = sizes_of(network, data)[1]
        share = Share(ranks.rank, ranks.size)
        part = share.cut(slice(0, total), total)
        mine = {n: np.asarray(v)[:, part] for n, v in (forced or {}).items()}
        result = network.predict(
            cut(network, data, part), batch_size, path, mine, arguments
        )
        axis = _structure(network, path).buffer_type - 1
        results = ranks.gather(result if share.count else None)
        result = np.concatenate([r for r in results if r is not None], axis)
        return result if has_time or not axis else result[0]


def extract_and_save(
    network: Network,
    iter: DataIterator,
    buffer_names: str | Sequence[str],
    file_name: str | os.PathLike[str],
    arguments: Mapping[str, Any] | None = None,
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
        arguments: For layers that read arguments, see `Network.forward_pass`.

    Raises:
        Exception: As from `extract`.
        FileNotFoundError: The folder does not exist.
    """
    axes = _batch_axes(network, buffer_names)
    with atomic_hdf5(file_name, BUFFERS_FORMAT) as f:
        place = None
        for place, batch in _run(network, iter, axes, arguments):
            for name, values in batch.items():
                _put(f, name, values, _slices(values, axes[name], place))
        if place is None:
            raise IteratorValidationError("iter provides no batches")


def _batch_axes(network: Network, buffer_names: str | Sequence[str]) -> dict[str, int]:
    """Which dimension of each buffer counts the sequences."""
    if isinstance(buffer_names, str):
        buffer_names = [buffer_names]
    if not buffer_names:
        raise ValidationError("buffer_names: expected at least one path, got none")
    return {name: _batch_axis(network, name) for name in buffer_names}


def _batch_axis(network: Network, path: str) -> int:
    layer, _, name = path.partition(".internals.")
    if layer in network.layers and name in network.layers[layer].computed:
        return 1  # of (T, B, ...)
    return _structure(network, path).buffer_type - 1


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
    network: Network,
    iter: DataIterator,
    axes: dict[str, int],
    arguments: Mapping[str, Any] | None,
) -> Iterator[tuple[Place, dict[str, np.ndarray]]]:
    """The buffers after each batch, without carried state, and where they belong."""
    if not callable(iter):
        raise IteratorValidationError(
            f"iter: expected a data iterator, got {type(iter).__name__}"
        )
    step = sequence = time_size = batch_size = 0
    for continues in utils.run_batches(network, iter, False, arguments):
        if continues:
            step += time_size
        else:
            step, sequence = 0, sequence + batch_size
        time_size, batch_size = network.time_size, network.batch_size
        ends = {name: time_size if axis else None for name, axis in axes.items()}
        yield (step, sequence), {n: network.get(n)[:end] for n, end in ends.items()}


def _slices(batch: np.ndarray, axis: int, place: Place) -> tuple[slice, ...]:
    """Where a batch goes that begins at a time step of a sequence."""
    starts = place[1 - axis :]
    return tuple(slice(s, s + n) for s, n in zip(starts, batch.shape, strict=False))


def _join(batches: list[tuple[Place, np.ndarray]], axis: int) -> np.ndarray:
    """All batches in their places, with zeros where none is."""
    parts = [_slices(batch, axis, place) for place, batch in batches]
    shape = np.max([[s.stop for s in slices] for slices in parts], axis=0)
    features = np.max([batch.shape[axis + 1 :] for _, batch in batches], axis=0)
    joined = np.zeros((*shape, *features.astype(int)), batches[0][1].dtype)
    for slices, (_, batch) in zip(parts, batches, strict=True):
        joined[(*slices, *map(slice, batch.shape[axis + 1 :]))] = batch
    return joined


def _put(f: h5py.File, name: str, batch: np.ndarray, slices: tuple[slice, ...]) -> None:
    """Put a batch into a dataset, likewise."""
    slices = (*slices, *map(slice, batch.shape[len(slices) :]))
    if name not in f:
        f.create_dataset(name, data=batch, maxshape=(None,) * batch.ndim)
        return
    dataset = f[name]
    shape = np.maximum(dataset.shape, [s.stop for s in slices])
    dataset.resize(shape.tolist())
    dataset[slices] = batch

"""A tool that shows in a browser what is in a network."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from brainstorm.checks import check_network, checked_integer
from brainstorm.structure.network import Network
from brainstorm.structure.prediction import (
    arrange,
    cut,
    find_output,
    inputs_of,
    named,
    sizes_of,
)
from brainstorm.tools.data_files import Source, load_inputs
from brainstorm.tools.profiling import same_state
from brainstorm.training.utils import check_iterator
from brainstorm.utils import ValidationError
from brainstorm.viewer.page import NetworkPage
from brainstorm.viewer.snapshot import take_snapshot

__all__ = ["view"]


def view(
    network: Network,
    data: Any = None,
    example: int = 0,
    title: str = "Network",
    group: str = "",
) -> NetworkPage:
    """Show a network in a browser: its layers as a graph, and all of their buffers.

    A click on a layer shows its parameters as histograms and pictures; with data, also
    what is in it for an example: outputs, gates, states and, if there is a loss, deltas
    and gradients, over time. Each buffer has its name, such as ``Lstm.internals.Fb``,
    by which it is found.

    A copy of the network runs over the example, as in use, not as in training:
    parameters, buffers, states and random numbers of the network and of the data stay
    as they are. Of arrays that are too large for a page only a part is in it, and it
    says so.

    >>> from brainstorm import tools
    >>> net = tools.create_net_from_spec("classification", 4, 3, "F5")
    >>> page = tools.view(net)
    >>> page.snapshot["summary"]["parameters"]
    43

    Args:
        network: The network.
        data: Arrays ``(T, B, ...)``, or ``(B, ...)`` for one time step, by the names of
            the inputs, or just the one that the predictions need; a data iterator; or
            the name of an HDF5, npz or npy file with such arrays. Targets may be
            missing: then there are no deltas.
        example: The number of the sequence in the data, from 0. Of an iterator, those
            of all its batches count.
        title: What to call the network on the page.
        group: Where in the file the arrays are, as in ``'a/test'``.

    Returns:
        The page: notebooks show it, ``page.save('net.html')`` writes it to a file that
        needs nothing else, and ``page.show()`` opens it in the browser.

    Raises:
        ValidationError: There is no such example.
        MissingInputError: Data for an input is missing (a KeyError).
        UnknownNameError: The network has no such input (a KeyError).
        NetworkValidationError: The data do not fit the network, or a layer can not be
            copied.
        IteratorValidationError: The iterator does not provide the inputs.
        MissingFileError: There is no such file.
        FileFormatError: It is damaged, or of another kind, or has no such group.
    """
    check_network(network)
    example = checked_integer(example, "example", 0)
    if not isinstance(title, str):
        raise ValidationError(f"title: expected a text, got {title!r}")
    if data is None:
        return NetworkPage(take_snapshot(network, title))
    with contextlib.ExitStack() as files:
        if isinstance(data, str | os.PathLike):
            data = load_inputs(network, Source(os.fspath(data), group), files)
        batch = _example(network, data, example)
    return NetworkPage(take_snapshot(network, title, batch, example))


def _example(net: Network, data: Any, example: int) -> dict[str, np.ndarray]:
    """One of the sequences in data of any kind."""
    if hasattr(data, "data_shapes"):
        return _from_iterator(net, data, example)
    if not isinstance(data, Mapping):
        data = named(data, inputs_of(net, find_output(net))[0])
    return _sequence(net, data, example, 0)


def _sequence(
    net: Network, data: Mapping[str, Any], example: int, before: int
) -> dict[str, np.ndarray]:
    """One of the sequences in some data, when others came before these."""
    arrays, _ = arrange(net, data)
    _, number = sizes_of(net, arrays)
    if example >= before + number:
        raise _beyond(example, before + number)
    part = cut(net, arrays, slice(example - before, example - before + 1))
    return {name: np.array(values) for name, values in part.items()}


def _from_iterator(net: Network, data: Any, example: int) -> dict[str, np.ndarray]:
    check_iterator(net, data, "data")
    inputs, before, batch = net.layers["Input"].out_shapes, 0, None
    with same_state(data):
        for full in data(net.handler):
            batch = {name: full[name] for name in inputs}
            number = _number_of_sequences(net, batch)
            if example < before + number:
                return _sequence(net, batch, example, before)
            before += number
    raise _beyond(example, before)


def _beyond(example: int, number: int) -> ValidationError:
    if not number:
        return ValidationError("data: there are no sequences in these data")
    return ValidationError(
        f"example: expected a number below {number}, that of the sequences in the data,"
        f" got {example}"
    )


def _number_of_sequences(net: Network, batch: Mapping[str, Any]) -> int:
    return sizes_of(net, arrange(net, batch)[0])[1]

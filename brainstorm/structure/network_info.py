"""Tables that tell what a network consists of and how much memory it takes."""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from brainstorm.checks import checked_sizes
from brainstorm.structure.buffer_structure import BufferStructure
from brainstorm.structure.construction import layer_type_name
from brainstorm.structure.feedback import fed_back_output
from brainstorm.structure.layer import Layer
from brainstorm.structure.layout import Hub, create_layout
from brainstorm.structure.running import RunningNetwork
from brainstorm.structure.tables import Table
from brainstorm.structure.trainable import number_of_own

# Of each kind of buffers those that only backward passes need come apart.
KINDS = {
    ("parameters", False): "parameters",
    ("outputs", False): "outputs",
    ("internals", False): "internals",
    ("gradients", True): "gradients",
    ("output_deltas", True): "deltas",
    ("internals", True): "internals, backward",
}
BUFFER_TYPES = ("constant", "per sequence", "per time step")


def get_network_info(
    network: RunningNetwork, time_size: int | None = None, batch_size: int | None = None
) -> str:
    """Describe a network in two tables.

    The first has a row for each layer, with its type, the shapes of its inputs,
    outputs and parameters, the number of its parameters and its memory; ``<<`` is in
    front of what feeds back to it. The second has the memory by kinds of buffers.
    Memory is that of a training; `in use` is that of a network of which no backward
    pass is asked, without gradients, deltas and so on.

    Args:
        network: The network.
        time_size: Number of time steps. Default: that of the network's data.
        batch_size: Number of sequences. Default: that of the network's data.

    Returns:
        The tables as text.

    Raises:
        ValidationError: A size is no positive integer.
    """
    return "\n\n".join(
        part if isinstance(part, str) else part.as_text()
        for part in _describe(network, time_size, batch_size)
    )


def network_info_html(
    network: RunningNetwork, time_size: int | None = None, batch_size: int | None = None
) -> str:
    """Describe a network as HTML, see `get_network_info`."""
    return "\n".join(
        f"<p>{html.escape(part)}</p>" if isinstance(part, str) else part.as_html()
        for part in _describe(network, time_size, batch_size)
    )


def _describe(
    network: RunningNetwork, time_size: int | None, batch_size: int | None
) -> list[str | Table]:
    T, B = checked_sizes(network, time_size, batch_size)
    dtype = np.dtype(network.handler.dtype)
    memory = _memory(create_layout(network.layers)[0], T, B, dtype.itemsize)
    return [
        _layers_table(network.layers, memory),
        "Shapes are those of one time step of one sequence, if nothing else is said.\n"
        f"Memory is that of a training with {T} time step{'s' * (T > 1)} of {B}"
        f" sequence{'s' * (B > 1)} in {dtype}:",
        _memory_table(memory),
    ]


# -- counting ----------------------------------------------------------------

# Bytes by layer, kind of buffers and buffer type.
Memory = Counter[tuple[str, str, int]]


def _memory(hubs: Sequence[Hub], T: int, B: int, itemsize: int) -> Memory:
    memory: Memory = Counter()
    for hub in hubs:
        length = math.prod(hub.get_shape(T, B)[:-1])
        for source in hub.sources:
            layer, category, _ = source.split(".")
            kind = KINDS[category, hub.is_backward_only]
            start, stop = hub.slices[source]
            nr_bytes = (stop - start) * length * itemsize
            memory[layer, kind, hub.buffer_type] += nr_bytes
    return memory


def _layers_table(layers: Mapping[str, Layer], memory: Memory) -> Table:
    title = ("Layer", "Type", "Inputs", "Outputs", "Parameters")
    rows: list[tuple[str, ...]] = [(*title, "Number", "Memory", "in use")]
    for name, layer in layers.items():
        feedback = [
            f"<< {c.start_layer}" + (f".{output}" if output != "default" else "")
            for c in layer.incoming
            if (output := fed_back_output(c)) is not None
        ]
        rows.append(
            (
                name,
                layer_type_name(type(layer)),
                "\n".join([describe_shapes(layer.in_shapes), *feedback]),
                describe_shapes(layer.out_shapes),
                describe_shapes(layer.parameter_shapes, "constant"),
                f"{number_of_own(layer):,}",
                *_training_and_use({k: n for k, n in memory.items() if k[0] == name}),
            )
        )
    total = sum(map(number_of_own, layers.values()))
    rows.append(("All", "", "", "", "", f"{total:,}", *_training_and_use(memory)))
    return Table(rows, 5)


def _training_and_use(memory: Mapping[tuple[str, str, int], int]) -> tuple[str, str]:
    """The memory of a training, and that of passes that are none."""
    for_backward = {kind for (_, backward), kind in KINDS.items() if backward}
    used = sum(n for key, n in memory.items() if key[1] not in for_backward)
    return _size(sum(memory.values())), _size(used)


def _memory_table(memory: Memory) -> Table:
    rows: list[tuple[str, ...]] = [("Buffers", *BUFFER_TYPES, "all")]
    for kind in (*KINDS.values(), "All"):
        sizes = [
            sum(
                n
                for key, n in memory.items()
                if key[2] == i and kind in (key[1], "All")
            )
            for i in range(3)
        ]
        rows.append((kind, *map(_size, sizes), _size(sum(sizes))))
    return Table(rows, 1)


def describe_shapes(
    structures: Mapping[str, BufferStructure], usual: str = "time step"
) -> str:
    """The shapes of some buffers, a line for each, with names other than the default.

    Nothing is said about those of a ``'time step'``, or of what else is `usual`:
    ``'sequence'`` or ``'constant'``.
    """
    lines = []
    for name, structure in structures.items():
        words = [] if name == "default" else [name]
        words.append(" x ".join(map(str, structure.feature_shape)))
        kind = ("constant", "sequence", "time step")[structure.buffer_type]
        if kind != usual:
            words.append("in all" if kind == "constant" else "per sequence")
        lines.append(" ".join(words))
    return "\n".join(lines)


def _size(nr_bytes: float) -> str:
    if nr_bytes == 0:
        return ""
    units = ["TB", "GB", "MB", "kB", "B"]
    while nr_bytes >= 999.5 and len(units) > 1:
        nr_bytes /= 1000
        units.pop()
    return f"{nr_bytes:.3g} {units[-1]}"

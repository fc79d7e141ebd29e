"""Internals of layers as sources of connections: ``lstm - '..internals.Ca' >> other``.

The input of the other layer is the memory of the internal itself, as it is that of an
output in other connections. Its deltas have memory of their own, which a layer that
makes use of them declares as the backward-only internal ``<name>_deltas``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from brainstorm.structure.buffer_structure import BufferStructure
from brainstorm.utils import NetworkValidationError

PREFIX = "..internals."
DELTAS = "_deltas"


def tapped_internals(outgoing: Iterable[Any]) -> list[str]:
    """The names of the internals that connections out of a layer begin at."""
    names = [c.output_name for c in outgoing]
    found = [n.removeprefix(PREFIX) for n in names if n.startswith(PREFIX)]
    return list(dict.fromkeys(found))


def sources(layer: Any) -> dict[str, BufferStructure]:
    """What connections out of a layer can begin at: its outputs, and its internals."""
    internals = {
        PREFIX + name: structure
        for name, structure in layer.internal_shapes.items()
        if not structure.is_backward_only
    }
    return {**layer.out_shapes, **internals}


def source_path(connection: Any, category: str) -> str:
    """The path of what a connection begins at, or that of its deltas."""
    layer, name = connection.start_layer, connection.output_name
    if not name.startswith(PREFIX):
        return f"{layer}.{category}.{name}"
    suffix = DELTAS if category == "output_deltas" else ""
    return f"{layer}.internals.{name.removeprefix(PREFIX)}{suffix}"


def tapped_structures(layer: Any, category: str) -> dict[str, BufferStructure]:
    """The structures of the internals that connections begin at, by path."""
    found = {}
    for c in layer.outgoing:
        if c.output_name.startswith(PREFIX):
            structure = sources(layer)[c.output_name]
            if category == "output_deltas":
                structure = delta_structure(structure)
            found[source_path(c, category)] = structure
    return found


def delta_structure(structure: BufferStructure) -> BufferStructure:
    """The structure of the deltas of an internal that a connection begins at."""
    return BufferStructure(*structure.shape, is_backward_only=True)


def check_deltas_arrive(layers: Mapping[str, Any]) -> None:
    """Check before a backward pass that deltas of internals get to their layers."""
    for layer in layers.values():
        for c in layer.outgoing:
            end = layers[c.end_layer]
            if (
                c.output_name.startswith(PREFIX)
                and c.input_name not in end.computes_no_input_deltas_for
                and source_path(c, "output_deltas").split(".")[2]
                not in layer.internal_shapes
            ):
                raise NetworkValidationError(
                    f"{c.end_layer!r} computes deltas for the internal"
                    f" {c.output_name.removeprefix(PREFIX)!r} of {layer.name!r}, which"
                    " can not take any; this network can only run forward"
                )

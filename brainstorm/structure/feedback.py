"""Feedback: layers that are given what others sent in the step before, ``r << o``.

What o feeds back is its internal ``fed_back_<output>_to_<layer>_<input>``: row t holds
what the output was in step t-1, zeros at first. To r it is an input like any other, see
:mod:`brainstorm.structure.taps`. In an architecture such connections are
``'@feedback_connections'`` of o; they do not count for the order of the layers.

The layers that feedback goes around in are a *loop*: a strongly connected component of
the network. They run step by step, see :mod:`brainstorm.structure.stepping`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from brainstorm.structure.buffer_structure import BufferStructure
from brainstorm.structure.taps import DELTAS, PREFIX, delta_structure
from brainstorm.utils import NetworkValidationError, choices, listing

FEEDBACK = "@feedback_connections"
FED_BACK = "fed_back_"


def as_feedback(connection: Any) -> Any:
    """What layers know of a feedback connection: it begins at an internal."""
    return connection._replace(
        output_name=f"{PREFIX}{FED_BACK}{connection.output_name}{_ending(connection)}"
    )


def fed_back_output(connection: Any) -> str | None:
    """The output that a feedback connection begins at; None for other connections."""
    source, start = connection.output_name, PREFIX + FED_BACK
    if not source.startswith(start):
        return None
    return source.removeprefix(start).removesuffix(_ending(connection))


def _ending(connection: Any) -> str:
    return f"_to_{connection.end_layer}_{connection.input_name}"


# -- loops -------------------------------------------------------------------


def reach(start: str, edges: Iterable[tuple[str, str]]) -> set[str]:
    """All that can be reached from a node, with the node itself."""
    ends: dict[str, list[str]] = {}
    for a, b in edges:
        ends.setdefault(a, []).append(b)
    reached, pending = {start}, [start]
    while pending:
        new = set(ends.get(pending.pop(), ())) - reached
        reached |= new
        pending += new
    return reached


def loops_of(
    edges: Collection[tuple[str, str]], starts: Iterable[str]
) -> list[set[str]]:
    """The strongly connected components of some nodes of a graph."""
    backwards = [(b, a) for a, b in edges]
    loops: list[set[str]] = []
    for start in starts:
        if not any(start in loop for loop in loops):
            loops.append(reach(start, edges) & reach(start, backwards))
    return loops


def find_loops(layers: Mapping[str, Any]) -> list[list[str]]:
    """The names of the layers of each loop, in the order in which they run."""
    connections = [c for layer in layers.values() for c in layer.incoming]
    ends = [c.end_layer for c in connections if fed_back_output(c) is not None]
    loops = loops_of([(c.start_layer, c.end_layer) for c in connections], ends)
    return [[name for name in layers if name in loop] for loop in loops]


def check_paths(connections: Iterable[Any], feedback: Iterable[Any]) -> None:
    """Check that feedback comes from layers that depend on those it is given to."""
    edges = [(c.start_layer, c.end_layer) for c in connections]
    for c in feedback:
        if c.start_layer not in reach(c.end_layer, edges):
            raise NetworkValidationError(
                f"{c.end_layer!r} can not get feedback from {c.start_layer!r}, to which"
                f" no path leads from it; to connect them, write {c.start_layer} >>"
                f" {c.end_layer}"
            )


def check_loops(layers: Mapping[str, Any]) -> None:
    """Check that all layers in loops can be there."""
    for loop in find_loops(layers):
        for name in loop:
            reason = _obstacle(layers[name], loop)
            if reason is not None:
                error = layers[name].error(
                    f"it can not be in the loop of feedback {' >> '.join(loop)},"
                    f" because {reason}"
                )
                raise NetworkValidationError(str(error))


def _obstacle(layer: Any, loop: Collection[str]) -> str | None:
    """Why a layer can not be in a loop, if it can not."""
    structures = {**layer.in_shapes, **layer.out_shapes, **layer.internal_shapes}
    if layer.is_loss or not layer.can_be_stepped:
        contexts = any(structure.context_size for structure in structures.values())
        if contexts and not layer.needs_whole_sequences:
            return "deltas of what it carries would not get from step to step"
        return "it looks at all time steps at once"
    for name, structure in structures.items():
        if structure.context_size > 1:
            return f"its {name!r} goes back {structure.context_size} steps"
    for name, structure in {**layer.in_shapes, **layer.out_shapes}.items():
        if structure.buffer_type != 2:
            return f"its {name!r} has no time steps"
    for c in layer.outgoing:
        output_name = fed_back_output(c) or c.output_name
        if c.end_layer in loop and output_name in layer.takes_no_output_deltas_from:
            return f"no deltas get back through its output {output_name!r}"
    return None


# -- shapes ------------------------------------------------------------------


def settle(
    make: Callable[[Mapping[tuple[str, str], BufferStructure]], Any],
    feedback: Collection[Any],
) -> Any:
    """Make layers of which some get feedback, whose shape depends on the layers.

    `make` is given the structures of what is fed back, as far as they are known, by
    layer and output. It gives the layers, and errors of those that it could not make.
    """
    known: dict[tuple[str, str], BufferStructure] = {}
    for _ in range(2 * len(feedback) + 2):
        layers, refusals = make(known)
        found = dict(known) | {
            (c.start_layer, c.output_name): layers[c.start_layer].out_shapes[
                c.output_name
            ]
            for c in feedback
            if c.start_layer in layers
        }
        if found == known:
            if refusals:
                raise refusals[0]
            return layers
        known = found
    raise NetworkValidationError(
        "the shapes of what is fed back depend on themselves:"
        f" {listing('.'.join(key) for key in known)}"
    )


def declare_fed_back(layer: Any, feedback: Iterable[Any]) -> None:
    """Give a layer the internals that hold what it feeds back, and their deltas."""
    for c in feedback:
        name = c.output_name
        if name not in layer.out_shapes:
            raise NetworkValidationError(
                f"layer {layer.name!r} has no output {name!r} to feed back to"
                f" {c.end_layer!r}; {choices(name, layer.out_shapes)}"
            )
        structure = layer.out_shapes[name]
        if structure.buffer_type != 2:
            raise NetworkValidationError(
                f"the output {name!r} of layer {layer.name!r} can not be fed back to"
                f" {c.end_layer!r}: it has no time steps, but the shape"
                f" {structure.shape}"
            )
        internal = as_feedback(c).output_name.removeprefix(PREFIX)
        layer.internal_shapes[internal] = BufferStructure(*structure.shape)
        layer.internal_shapes[internal + DELTAS] = delta_structure(structure)


def with_context(
    layers: Mapping[str, Any], structures: Mapping[str, BufferStructure], category: str
) -> dict[str, BufferStructure]:
    """The structures of outputs, or deltas, that are fed back: part of the state."""
    found = {}
    for layer in layers.values():
        for c in layer.outgoing:
            name = fed_back_output(c)
            if name is not None:
                path = f"{layer.name}.{category}.{name}"
                found[path] = BufferStructure(
                    *structures[path].shape,
                    context_size=max(1, structures[path].context_size),
                    is_backward_only=category == "output_deltas",
                )
    return found

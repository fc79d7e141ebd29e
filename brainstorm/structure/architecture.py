"""The architecture dict: from wired layers, to layer objects, and its validation.

An architecture maps the name of each layer to its properties: ``'@type'``,
``'@outgoing_connections'`` and the layer's arguments. It is plain data that goes
into JSON. ``'@outgoing_connections'`` maps names of outputs to lists of inputs,
each written ``'layer.input'``; just ``'layer'`` also means its ``default`` input.
``'@feedback_connections'`` are written likewise, where there are some.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from brainstorm.structure.buffer_structure import BufferStructure
from brainstorm.structure.construction import (
    ConstructionWrapper,
    LayerDetails,
    unique_names,
)
from brainstorm.structure.feedback import (
    FEEDBACK,
    as_feedback,
    check_loops,
    check_paths,
    declare_fed_back,
    fed_back_output,
    loops_of,
    reach,
    settle,
)
from brainstorm.structure.layer import Layer, get_layer_class_from_typename
from brainstorm.structure.taps import sources
from brainstorm.structure.trainable import set_layer_properties
from brainstorm.utils import (
    LayerValidationError,
    NetworkValidationError,
    UnknownNameError,
    ValidationError,
    check_layer_name,
    choices,
    listing,
)

__all__ = [
    "Connection",
    "canonical_layer_order",
    "collect_all_connections",
    "generate_architecture",
    "instantiate_layers_from_architecture",
    "plain_architecture",
    "validate_architecture",
]

Architecture = dict[str, dict[str, Any]]


class Layers(OrderedDict[str, "Layer"]):
    """The layers of a network by name."""

    def __missing__(self, name: str) -> Layer:
        raise UnknownNameError(f"there is no layer {name!r}; {choices(name, self)}")


class Connection(NamedTuple):
    """A wire from the output of one layer to the input of another."""

    start_layer: str
    output_name: str
    end_layer: str
    input_name: str


# -- from wiring -------------------------------------------------------------


def generate_architecture(some_layer: ConstructionWrapper) -> Architecture:
    """The architecture of all layers that are connected to `some_layer`."""
    names = unique_names(some_layer.layer.scope)
    order = sorted(names, key=lambda layer: layer.created)
    return plain_architecture(
        {
            names[layer]: {
                "@type": layer.layer_type,
                "@outgoing_connections": _ends(layer.outgoing, names),
                **({FEEDBACK: _ends(layer.feedback, names)} if layer.feedback else {}),
                **({} if layer.trainable is True else {"@trainable": layer.trainable}),
                **({"@shared": _shared(layer, names)} if layer.shared else {}),
                **layer.layer_kwargs,
            }
            for layer in order
        }
    )


def plain_architecture(value: Any) -> Any:
    """A copy of an architecture, or of a part, with plain numbers for NumPy's.

    What is no dict, list, tuple, set, range, number or array of NumPy stays what it is.
    """
    if isinstance(value, Mapping):
        return {key: plain_architecture(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(plain_architecture(item) for item in value)
    if isinstance(value, (set, frozenset)):
        return [plain_architecture(item) for item in sorted(value, key=str)]
    if isinstance(value, range):
        return list(value)
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return value


def _ends(
    connections: Iterable[tuple[str, LayerDetails, str]],
    names: Mapping[LayerDetails, str],
) -> dict[str, list[str]]:
    ends: dict[str, list[str]] = {}
    for output_name, end, input_name in connections:
        ends.setdefault(output_name, []).append(f"{names[end]}.{input_name}")
    return ends


def _shared(
    layer: LayerDetails, names: Mapping[LayerDetails, str]
) -> str | dict[str, str]:
    unconnected = [owner.name for owner in layer.shared.values() if owner not in names]
    if unconnected:
        raise NetworkValidationError(
            f"layer {names[layer]!r} shares parameters with {listing(unconnected)},"
            " which is not connected to it"
        )
    if None in layer.shared:
        return names[layer.shared[None]]
    by_name = {n: o for n, o in layer.shared.items() if n is not None}
    return {n: f"{names[owner]}.{n}" for n, owner in by_name.items()}


# -- connections and order ---------------------------------------------------


def collect_all_connections(
    architecture: Mapping[str, Any], key: str = "@outgoing_connections"
) -> list[Connection]:
    """All connections of an architecture, in the order in which they stand there.

    One that stands there twice is one connection, as it was for version 0.5.

    Args:
        architecture: The architecture.
        key: Where they stand in it.
    """
    connections = []
    for name, properties in architecture.items():
        outgoing = properties.get(key, {})
        if not isinstance(outgoing, Mapping):
            outgoing = {"default": outgoing}
        for output_name, ends in outgoing.items():
            for end in ends:
                end_layer, _, input_name = end.partition(".")
                connections.append(
                    Connection(name, output_name, end_layer, input_name or "default")
                )
    return list(dict.fromkeys(connections))


def canonical_layer_order(
    names: Iterable[str], connections: Iterable[Connection]
) -> list[str]:
    """Sort layers topologically, in the one order that files depend on.

    From the sinks on, all layers whose successors are all taken are taken
    together, in descending order of their names. The result is the reverse.

    Raises:
        NetworkValidationError: There is a cycle; names its layers.
    """
    successors: dict[str, set[str]] = {name: set() for name in names}
    predecessors: dict[str, set[str]] = {name: set() for name in successors}
    for c in connections:
        successors[c.start_layer].add(c.end_layer)
        predecessors[c.end_layer].add(c.start_layer)
    left = {name: len(ends) for name, ends in successors.items()}
    taken: list[str] = []
    ready = [name for name, nr in left.items() if nr == 0]
    while ready:
        taken += sorted(ready, reverse=True)
        before, ready = ready, []
        for name in itertools.chain.from_iterable(predecessors[n] for n in before):
            left[name] -= 1
            if left[name] == 0:
                ready.append(name)
    if len(taken) < len(successors):
        cycle = _find_cycle({n: successors[n] for n, nr in left.items() if nr})
        if len(cycle) > 20:
            cycle[10:-2] = ["..."]
        raise NetworkValidationError(
            "r << o feeds back the output of the step before; the other connections"
            f" form a cycle: {' >> '.join(cycle)}"
        )
    return taken[::-1]


def _running_order(
    names: Iterable[str],
    connections: Sequence[Connection],
    feedback: Sequence[Connection],
) -> list[str]:
    """The canonical order, but with the layers of each loop of feedback together."""
    order = canonical_layer_order(names, connections)
    if not feedback:
        return order
    edges = [(c.start_layer, c.end_layer) for c in (*connections, *feedback)]
    group_of = {name: name for name in order}
    for loop in loops_of(edges, [c.end_layer for c in feedback]):
        group_of.update(dict.fromkeys(loop, min(loop)))
    between = [
        c._replace(start_layer=group_of[c.start_layer], end_layer=group_of[c.end_layer])
        for c in connections
        if group_of[c.start_layer] != group_of[c.end_layer]
    ]
    groups = canonical_layer_order(dict.fromkeys(group_of.values()), between)
    places = {group: place for place, group in enumerate(groups)}
    return sorted(order, key=lambda name: places[group_of[name]])


def _find_cycle(successors: Mapping[str, set[str]]) -> list[str]:
    """A cycle in a graph in which every node has a successor."""
    node = min(successors)
    path: dict[str, int] = {}
    while node not in path:
        path[node] = len(path)
        node = min(n for n in successors[node] if n in successors)
    return [*list(path)[path[node] :], node]


# -- validation --------------------------------------------------------------


def validate_architecture(architecture: Mapping[str, Any]) -> None:
    """Check that an architecture describes a network.

    Raises:
        NetworkValidationError: It does not; names the layer.
    """
    if not isinstance(architecture, Mapping):
        raise NetworkValidationError(
            f"expected a dict as architecture, got {type(architecture).__name__}"
        )
    for name, properties in architecture.items():
        _validate_properties(name, properties)
    connections = collect_all_connections(architecture)
    feedback = collect_all_connections(architecture, FEEDBACK)
    for c in (*connections, *feedback):
        if c.end_layer not in architecture:
            raise NetworkValidationError(
                f"layer {c.start_layer!r} is connected to {c.end_layer!r}, which does"
                f" not exist; the layers are: {listing(architecture)}"
            )
        if c.end_layer == "Input":
            raise NetworkValidationError(
                f"the Input layer can not have incoming connections, but"
                f" {c.start_layer!r} is connected to it"
            )
    inputs = [n for n, p in architecture.items() if p["@type"] == "Input"]
    if inputs != ["Input"]:
        raise NetworkValidationError(
            "expected exactly one layer of type 'Input', named 'Input', got:"
            f" {listing(inputs)}"
        )
    canonical_layer_order(architecture, connections)
    check_paths(connections, feedback)
    edges = [(c.start_layer, c.end_layer) for c in connections]
    lost = set(architecture) - reach("Input", edges + [(b, a) for a, b in edges])
    if lost:
        raise NetworkValidationError(
            f"not connected to the Input: {listing(sorted(lost))}"
        )


def _validate_properties(name: Any, properties: Any) -> None:
    check_layer_name(name)
    if not isinstance(properties, Mapping):
        raise NetworkValidationError(
            f"layer {name!r}: expected a dict of properties, got {properties!r}"
        )
    if not isinstance(properties.get("@type"), str):
        raise NetworkValidationError(
            f"layer {name!r}: expected the name of a layer type as '@type', got"
            f" {properties.get('@type')!r}"
        )
    try:
        get_layer_class_from_typename(properties["@type"])
    except LayerValidationError as error:
        raise LayerValidationError(f"layer {name!r}: {error}") from None
    for key in ("@outgoing_connections", FEEDBACK):
        outgoing = properties.get(key, {})
        lists = outgoing.values() if isinstance(outgoing, Mapping) else [outgoing]
        for ends in lists:
            if not isinstance(ends, (list, tuple, set)) or not all(
                isinstance(end, str) and end.count(".") <= 1 for end in ends
            ):
                raise NetworkValidationError(
                    f"layer {name!r}: expected {key!r} to be a dict of lists (or one"
                    " list) of texts like 'layer' or 'layer.input', got"
                    f" {outgoing!r}"
                )


# -- to layer objects --------------------------------------------------------


def instantiate_layers_from_architecture(
    architecture: Mapping[str, Any],
) -> OrderedDict[str, Layer]:
    """Create the layers of an architecture.

    Returns:
        Layers by name, in canonical order.

    Raises:
        NetworkValidationError: The architecture is not valid.
        LayerValidationError: A layer refuses its arguments or shapes.
    """
    validate_architecture(architecture)
    connections = collect_all_connections(architecture)
    feedback = _feedback_connections(architecture)
    layers = settle(
        lambda known: _instantiate(architecture, connections, feedback, known), feedback
    )
    set_layer_properties(layers, architecture)
    check_loops(layers)
    return layers


def _feedback_connections(architecture: Mapping[str, Any]) -> list[Connection]:
    """The feedback connections.

    To a layer without an input ``feedback`` they go into its default one instead.
    """
    found = []
    for c in collect_all_connections(architecture, FEEDBACK):
        end = get_layer_class_from_typename(architecture[c.end_layer]["@type"])
        if (
            c.input_name == "feedback"
            and "feedback" not in {**end.expected_inputs, **end.optional_inputs}
            and end.inputs_to_expect is Layer.inputs_to_expect
        ):
            c = c._replace(input_name="default")
        found.append(c)
    return list(dict.fromkeys(found))


def _instantiate(
    architecture: Mapping[str, Any],
    connections: list[Connection],
    feedback: list[Connection],
    known: Mapping[tuple[str, str], BufferStructure],
) -> tuple[OrderedDict[str, Layer], list[ValidationError]]:
    """Create layers, where `known` are the structures of what is fed back.

    As long as these are not right, layers may refuse what they get: with feedback, such
    layers are left out, and what they raised is returned.
    """
    all_incoming: dict[str, list[Connection]] = {name: [] for name in architecture}
    all_outgoing: dict[str, list[Connection]] = {name: [] for name in architecture}
    for c in (*connections, *map(as_feedback, feedback)):
        all_incoming[c.end_layer].append(c)
        all_outgoing[c.start_layer].append(c)
    layers, refusals = Layers(), []
    for name in _running_order(architecture, connections, feedback):
        incoming, outgoing = all_incoming[name], all_outgoing[name]
        try:
            layer = _make_layer(
                name, architecture[name], layers, incoming, outgoing, known
            )
        except ValidationError as error:
            if not feedback:
                raise
            refusals.append(error)
            continue
        declare_fed_back(layer, [c for c in feedback if c.start_layer == name])
        for c in outgoing:
            if c.output_name not in sources(layer):
                raise NetworkValidationError(
                    f"layer {name!r} has no output {c.output_name!r} to connect to"
                    f" {c.end_layer!r}; {choices(c.output_name, sources(layer))}"
                )
        layers[name] = layer
    return layers, refusals


def _make_layer(
    name: str,
    properties: Mapping[str, Any],
    layers: Mapping[str, Layer],
    incoming: list[Connection],
    outgoing: list[Connection],
    known: Mapping[tuple[str, str], BufferStructure],
) -> Layer:
    layer_class = get_layer_class_from_typename(properties["@type"])
    kwargs = {k: v for k, v in properties.items() if not k.startswith("@")}
    inputs: dict[str, dict[Connection, BufferStructure | None]] = {}
    for c in incoming:
        structure = _structure(c, layers, known)
        inputs.setdefault(c.input_name, {})[c] = structure
    structures = [s for found in inputs.values() for s in found.values()]
    guesses: list[BufferStructure | None] = [None]
    if None in structures:
        # What is fed back is left out until its shape is known, or that is guessed.
        guesses += [*filter(None, structures)][:1]
        guesses.append(BufferStructure("T", "B", 1))
    for guess in guesses:
        in_shapes = {
            input_name: _combine(
                {c: one for c, s in found.items() if (one := s or guess)}
            )
            for input_name, found in inputs.items()
            if guess or any(found.values())
        }
        try:
            return layer_class(name, in_shapes, incoming, outgoing, **kwargs)
        except LayerValidationError as error:
            refusal = error
    raise refusal


def _structure(
    c: Connection,
    layers: Mapping[str, Layer],
    known: Mapping[tuple[str, str], BufferStructure],
) -> BufferStructure | None:
    """The structure of what a connection begins at, if it is known yet."""
    output_name = fed_back_output(c)
    if output_name is not None:
        return known.get((c.start_layer, output_name))
    layer = layers.get(c.start_layer)
    return None if layer is None else sources(layer)[c.output_name]


def _combine(structures: Mapping[Connection, BufferStructure]) -> BufferStructure:
    """The structure of an input: several outputs are joined along the features.

    Side by side in memory they are one row of features. Of pixels and other outputs
    whose leading dimensions are 1, that is also a join along the last dimension.
    """
    first = next(iter(structures.values()))
    if len({s.buffer_type for s in structures.values()}) > 1:
        shapes = {
            f"{c.start_layer}.{c.output_name}": s.shape for c, s in structures.items()
        }
        c = next(iter(structures))
        raise NetworkValidationError(
            "can not join outputs of different buffer types at input"
            f" {c.input_name!r} of {c.end_layer!r}: {shapes}"
        )
    if len(structures) == 1:
        feature_shape = first.feature_shape
    else:
        leading = {s.feature_shape[:-1] for s in structures.values()}
        kept = leading.pop() if len(leading) == 1 else ()
        kept = kept if set(kept) == {1} else ()
        feature_shape = (*kept, sum(s.feature_size for s in structures.values()))
    return BufferStructure(*first.scaling_shape, *feature_shape)

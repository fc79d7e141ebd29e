"""Planning the memory of a network, so that wiring costs no copies.

Sources (outputs) and sinks (inputs) that are connected share one *hub*: one
contiguous allocation, in which every source and every sink is a slice along the
flattened features. All parameters share a hub, and so do all gradients; each
internal buffer has its own. The *layout* is a tree of nested dicts that says
where in which hub each named buffer lies.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from brainstorm.structure.buffer_structure import BufferStructure, leading_shape
from brainstorm.structure.feedback import FED_BACK, find_loops, with_context
from brainstorm.structure.layer import Layer
from brainstorm.structure.ordering import order_with_blocks
from brainstorm.structure.taps import DELTAS, source_path, tapped_structures
from brainstorm.utils import NetworkValidationError

__all__ = ["BUFFER_CATEGORIES", "Hub", "create_layout"]

BUFFER_CATEGORIES = (
    "inputs",
    "outputs",
    "parameters",
    "internals",
    "input_deltas",
    "output_deltas",
    "gradients",
)

GRADIENTS = 1
"""The index of the hub of the gradients."""


@dataclass
class Hub:
    """One contiguous allocation.

    Attributes:
        sources: Paths of the buffers that fill it, side by side in this order.
        sinks: Sets of sources that have to be contiguous, by path of the sink.
        slices: Start and stop of every source and sink along the features.
        buffer_type: 0 constant, 1 batch, 2 time.
        context_size: Extra time steps after the last one.
        is_backward_only: Whether only backward passes need it.
        is_state: Whether forward passes need the last steps of the one before.
        contexts: Extra time steps of each source; `context_size` is the most.
        mirror_of: The index of another hub, whose content it has with time backwards.
        size: Number of features.
    """

    sources: list[str]
    sinks: dict[str, list[str]]
    buffer_type: int
    context_size: int
    is_backward_only: bool
    is_state: bool = False
    contexts: dict[str, int] = field(default_factory=dict)
    mirror_of: int | None = None
    slices: dict[str, tuple[int, int]] = field(default_factory=dict)
    size: int = 0

    @classmethod
    def create(
        cls,
        structures: Mapping[str, BufferStructure],
        sinks: Mapping[str, list[str]],
        keep_order: bool = False,
    ) -> Hub:
        """Find an order of the sources in which every sink is contiguous."""
        first = next(iter(structures.values()))
        ordered: list[str] | None = list(structures)
        if not keep_order:
            groups = {frozenset(g) for g in sinks.values() if len(g) > 1}
            ordered = order_with_blocks(list(structures), groups)
        if ordered is None:
            conflicts = (" + ".join(sorted(g)) for g in sorted(groups, key=sorted))
            raise NetworkValidationError(
                "there is no order of outputs in which all of these, which go together"
                f" into one input, lie side by side: {'; '.join(conflicts)}"
            )
        hub = cls(
            ordered,
            dict(sinks),
            first.buffer_type,
            max(s.context_size for s in structures.values()),
            all(s.is_backward_only for s in structures.values()),
            any(s.context_size and s.is_state for s in structures.values()),
            {source: structures[source].context_size for source in ordered},
        )
        for source in ordered:
            stop = hub.size + structures[source].feature_size
            hub.slices[source] = (hub.size, stop)
            hub.size = stop
        for sink, members in sinks.items():
            slices = [hub.slices[m] for m in members]
            hub.slices[sink] = (min(s[0] for s in slices), max(s[1] for s in slices))
        return hub

    def get_shape(self, time_size: int, batch_size: int) -> tuple[int, ...]:
        """Shape of the allocation, with the context's steps."""
        return (
            *leading_shape(self.buffer_type, time_size + self.context_size, batch_size),
            self.size,
        )


def create_layout(layers: Mapping[str, Layer]) -> tuple[list[Hub], dict[str, Any]]:
    """Plan the memory for the given layers.

    Args:
        layers: Layers by name, in canonical order.

    Returns:
        The hubs, that of the parameters first and that of the gradients second,
        and the layout.

    Raises:
        NetworkValidationError: Inputs share outputs in a way that no order can
            make contiguous.
    """
    structures = _collect_structures(layers)
    hubs = [_flat_hub(layers, structures, c) for c in ("parameters", "gradients")]
    for outputs, inputs in (("outputs", "inputs"), ("output_deltas", "input_deltas")):
        hubs += _connection_hubs(layers, structures, outputs, inputs)
    placed = {source for hub in hubs for source in hub.sources}
    hubs += [
        Hub.create({path: structure}, {})
        for path, structure in structures.items()
        if _category(path) == "internals" and path not in placed
    ]
    tree = _create_tree(layers, structures, hubs)
    return hubs + _mirrors(layers, tree, hubs), tree


def _mirrors(
    layers: Mapping[str, Layer], tree: Mapping[str, Any], hubs: Sequence[Hub]
) -> list[Hub]:
    """Hubs for what layers in loops of feedback carry from step to step.

    There a step and the one before lie side by side, as in a pass over one step.
    """
    indices = {
        node["@hub"]
        for loop in find_loops(layers)
        for name in loop
        for category in ("outputs", "internals")
        for node in tree[name][category].values()
        if isinstance(node, dict) and node.get("@context_size")
    }
    return [
        replace(hubs[i], sinks={}, is_state=False, mirror_of=i) for i in sorted(indices)
    ]


def _flat_hub(
    layers: Mapping[str, Layer],
    structures: Mapping[str, BufferStructure],
    category: str,
) -> Hub:
    """The hub of all parameters or gradients, each of them there once.

    Files depend on its order: layers by name, the parameters of each as declared.
    """
    shared = {
        f"{layer.name}.{category}.{name}": owner.replace(".", f".{category}.")
        for layer in layers.values()
        for name, owner in layer.shared.items()
    }
    paths = [
        f"{name}.{category}.{parameter}"
        for name in sorted(layers)
        for parameter in layers[name].parameter_shapes
    ]
    members = {path: structures[path] for path in paths if path not in shared}
    if not members:
        return Hub([], {}, 0, 0, category == "gradients")
    hub = Hub.create(members, {}, keep_order=True)
    hub.slices.update({path: hub.slices[owner] for path, owner in shared.items()})
    return hub


def joins_in_running_order(layers: Mapping[str, Layer]) -> bool:
    """Whether outputs are joined as they were before version 0.6.0 was released.

    Then they lie in canonical order, where the order of paths is the rule. Networks
    that were saved at that time and have joins keep it, see `load_network`.
    """
    return getattr(layers.get("Input"), "joins_in_running_order", False)


# -- collecting --------------------------------------------------------------


def _category(path: str) -> str:
    return path.split(".")[1]


def _collect_structures(layers: Mapping[str, Layer]) -> dict[str, BufferStructure]:
    """Structure of every buffer by its path."""
    structures = {}
    for name, layer in layers.items():
        for category, deltas, buffers in (
            ("inputs", "input_deltas", layer.in_shapes),
            ("outputs", "output_deltas", layer.out_shapes),
            ("parameters", "gradients", layer.parameter_shapes),
            ("internals", None, layer.internal_shapes),
        ):
            for buffer, s in buffers.items():
                structures[f"{name}.{category}.{buffer}"] = s
                if deltas is not None:
                    structures[f"{name}.{deltas}.{buffer}"] = BufferStructure(
                        *s.shape, context_size=s.context_size, is_backward_only=True
                    )
    return structures


def _connection_hubs(
    layers: Mapping[str, Layer],
    structures: Mapping[str, BufferStructure],
    outputs: str,
    inputs: str,
) -> list[Hub]:
    """A hub for every group of outputs and inputs that are wired together.

    Inputs that nothing goes into, as in layers laid out by themselves, get their own.
    """
    tapped: dict[str, BufferStructure] = {}
    for layer in layers.values():
        tapped.update(tapped_structures(layer, outputs))
    sources = [*(p for p in structures if _category(p) == outputs), *tapped]
    fed_back = with_context(layers, structures, outputs)
    structures = {**structures, **tapped, **fed_back}
    sinks: dict[str, list[str]] = {}
    for layer in layers.values():
        for c in layer.incoming:
            sink = f"{c.end_layer}.{inputs}.{c.input_name}"
            sinks.setdefault(sink, []).append(source_path(c, outputs))
    group_of = {source: {source} for source in sources}
    for members in sinks.values():
        for member in members:
            small, large = sorted((group_of[member], group_of[members[0]]), key=len)
            if small is not large:
                large |= small
                group_of.update(dict.fromkeys(small, large))
    # Files depend on the order within a group, which is that of the paths, with what is
    # fed back behind the others. Deltas have that of the outputs.
    if not joins_in_running_order(layers):
        ending = DELTAS if outputs == "output_deltas" else ""
        sources.sort(key=lambda p: p.removesuffix(ending) if p in tapped else p)
        sources.sort(key=lambda p: f".internals.{FED_BACK}" in p)
    groups: dict[int, dict[str, BufferStructure]] = {}
    sinks_of: dict[int, dict[str, list[str]]] = {}
    for source in sources:
        groups.setdefault(id(group_of[source]), {})[source] = structures[source]
    for sink, members in sinks.items():
        sinks_of.setdefault(id(group_of[members[0]]), {})[sink] = members
    hubs = [Hub.create(g, sinks_of.get(key, {})) for key, g in groups.items()]
    unconnected = [p for p in structures if _category(p) == inputs and p not in sinks]
    return hubs + [Hub.create({p: structures[p]}, {}) for p in unconnected]


# -- the tree ----------------------------------------------------------------


def _create_tree(
    layers: Mapping[str, Layer],
    structures: Mapping[str, BufferStructure],
    hubs: Sequence[Hub],
) -> dict[str, Any]:
    place = {path: (i, hub) for i, hub in enumerate(hubs) for path in hub.slices}
    nodes: dict[tuple[str, ...], dict[str, Any]] = {}
    for path, structure in structures.items():
        *parent, buffer_name = path.split(".")
        hub_index, hub = place[path]
        node = {
            "@type": "array",
            "@hub": hub_index,
            "@slice": hub.slices[path],
            "@shape": structure.shape,
        }
        if structure.context_size:
            node["@context_size"] = structure.context_size
        nodes.setdefault(tuple(parent), {})[buffer_name] = node
    root: dict[str, Any] = {"@type": "BufferView", "@index": 0}
    for i, category in enumerate(("parameters", "gradients")):
        root[category] = {
            "@type": "array",
            "@index": i,
            "@hub": i,
            "@slice": (0, hubs[i].size),
            "@shape": (hubs[i].size,),
        }
    for layer_index, name in enumerate(layers, start=2):
        layer_node = {"@type": "BufferView", "@index": layer_index}
        for i, category in enumerate(BUFFER_CATEGORIES):
            layer_node[category] = _view_node(i, nodes.get((name, category), {}))
        root[name] = layer_node
    return root


def _view_node(index: int, children: dict[str, dict[str, Any]]) -> dict[str, Any]:
    for i, child in enumerate(children.values()):
        child["@index"] = i
    node: dict[str, Any] = {"@type": "BufferView", "@index": index, **children}
    arrays = list(children.values())
    if arrays and all(
        a["@hub"] == b["@hub"]
        and a["@slice"][1] == b["@slice"][0]
        and a.get("@context_size", 0) == b.get("@context_size", 0)
        for a, b in itertools.pairwise(arrays)
    ):
        node["@hub"] = arrays[0]["@hub"]
        node["@slice"] = (arrays[0]["@slice"][0], arrays[-1]["@slice"][1])
    return node

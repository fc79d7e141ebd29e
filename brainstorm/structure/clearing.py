"""How to get backward passes with the least work.

Layers add to their input deltas and gradients, so these have to start at zero.
But where the first layer that writes to some memory covers all of it, it can
overwrite instead: clearing and adding are saved. For layers that honour this
(`Layer.honours_fresh`) `plan_clearing` finds those places.

No gradient depends on deltas that only reach the Input layer. `find_unneeded`
finds these, so that training can do without them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from brainstorm.structure.layer import Layer
from brainstorm.structure.layout import Hub
from brainstorm.structure.trainable import is_trained

__all__ = ["ClearingPlan", "Unneeded", "find_unneeded", "plan_clearing"]


class ClearingPlan(NamedTuple):
    """Which hubs to clear before a backward pass.

    Attributes:
        fresh: For each layer what it can overwrite, see `Layer.fresh`.
        hubs: Indices of hubs to clear.
        contexts: Indices of hubs of which only the context's steps need it.
    """

    fresh: dict[str, frozenset[str]]
    hubs: list[int]
    contexts: list[int]

    def buffers(
        self,
        all_hubs: Sequence[Hub],
        hub_buffers: Sequence[Any],
        excluded: Collection[int],
    ) -> list[Any]:
        """The memory to clear, without that of excluded hubs."""
        contexts = [
            hub_buffers[i][-all_hubs[i].context_size :]
            for i in self.contexts
            if i not in excluded
        ]
        return [hub_buffers[i] for i in self.hubs if i not in excluded] + contexts


def plan_clearing(layers: Mapping[str, Layer], hubs: Sequence[Hub]) -> ClearingPlan:
    """Find out what has to be cleared for layers in canonical order."""
    fresh: dict[str, set[str]] = {name: set() for name in layers}
    plan = ClearingPlan({}, [], [])
    positions = {name: i for i, name in enumerate(layers)}
    for i, hub in enumerate(hubs):
        if not hub.is_backward_only or not hub.size:
            continue
        kind = hub.sources[0].split(".")[1]
        if kind == "gradients":
            needed = _plan_gradients(layers, fresh)
        elif kind == "internals" and not hub.sinks:
            needed = not layers[hub.sources[0].split(".")[0]].honours_fresh
        else:
            needed = _plan_deltas(hub, layers, positions, fresh)
        if needed:
            plan.hubs.append(i)
        elif hub.context_size:
            plan.contexts.append(i)
    plan.fresh.update({name: frozenset(names) for name, names in fresh.items()})
    return plan


def _plan_gradients(layers: Mapping[str, Layer], fresh: dict[str, set[str]]) -> bool:
    """Whether the gradients have to be cleared."""
    needed = False
    sharing = {name for name, layer in layers.items() if layer.shared}
    for layer in layers.values():
        sharing |= {owner.partition(".")[0] for owner in layer.shared.values()}
    for name, layer in layers.items():
        if layer.honours_fresh and name not in sharing:
            fresh[name].add("gradients")
            needed |= bool(layer.computes_no_gradients_for)
        else:
            needed |= bool(layer.parameter_shapes)
    return needed


def _plan_deltas(
    hub: Hub,
    layers: Mapping[str, Layer],
    positions: Mapping[str, int],
    fresh: dict[str, set[str]],
) -> bool:
    """Whether a hub of deltas has to be cleared."""
    writers = []  # (position, layer, input, slice) of sinks that are written to
    for sink in hub.sinks:
        name, _, input_name = sink.split(".")
        if input_name not in layers[name].computes_no_input_deltas_for:
            writers.append((positions[name], name, input_name, hub.slices[sink]))
    if not writers:
        return any(_takes_deltas(source, layers) for source in hub.sources)
    writers.sort(reverse=True)
    position, name, input_name, covered = writers[0]
    alone = sum(w[0] == position for w in writers) == 1
    if alone and layers[name].honours_fresh and covered == (0, hub.size):
        fresh[name].add(input_name)
        return False
    return True


def _takes_deltas(source: str, layers: Mapping[str, Layer]) -> bool:
    name, category, output_name = source.split(".")
    layer = layers[name]
    return (
        category == "internals" or output_name not in layer.takes_no_output_deltas_from
    )


class Unneeded(NamedTuple):
    """What the gradients do not depend on.

    Attributes:
        layers: Names of layers whose whole backward pass is not needed.
        inputs: For each layer the inputs whose deltas are not needed.
        hubs: Indices of the hubs that hold only such deltas.
    """

    layers: frozenset[str]
    inputs: dict[str, frozenset[str]]
    hubs: frozenset[int]


def find_unneeded(layers: Mapping[str, Layer], hubs: Sequence[Hub]) -> Unneeded:
    """Find the deltas that only lead to layers without parameters to train."""
    needed: set[str] = set()
    inputs: dict[str, frozenset[str]] = {}
    for name, layer in layers.items():
        wanted = {c.input_name for c in layer.incoming if c.start_layer in needed}
        inputs[name] = frozenset(layer.in_shapes) - wanted
        if wanted or any(is_trained(layers, name, p) for p in layer.parameter_shapes):
            needed.add(name)
    return Unneeded(
        frozenset(layers) - needed,
        inputs,
        frozenset(
            i
            for i, hub in enumerate(hubs)
            if hub.sources
            and hub.sources[0].split(".")[1] == "output_deltas"
            and not any(source.split(".")[0] in needed for source in hub.sources)
        ),
    )

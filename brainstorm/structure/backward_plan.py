"""How to get a backward pass with the least work.

Layers add to their input deltas and gradients, so these have to start at zero. But
where the first layer that writes to some memory covers all of it, it can overwrite
instead: clearing and adding are saved. That memory is *fresh*, for layers that honour
this (`Layer.honours_fresh`).

No gradient depends on deltas that only reach the Input layer. Where nobody asks for
these they are *unwanted*, and left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from brainstorm.structure.feedback import find_loops
from brainstorm.structure.layer import Layer
from brainstorm.structure.layout import Hub
from brainstorm.structure.trainable import is_trained


class BackwardPlan(NamedTuple):
    """What a backward pass does.

    Attributes:
        order: Names of the layers to run, in this order.
        fresh: For each layer what it can overwrite, see `Layer.fresh`.
        unwanted: For each layer the inputs whose deltas nobody needs.
        unwanted_hubs: Indices of the hubs that hold only such deltas.
        to_clear: Indices of the hubs to clear before.
        contexts: Indices of hubs of which only the context's steps need it.
    """

    order: list[str]
    fresh: dict[str, frozenset[str]]
    unwanted: dict[str, frozenset[str]]
    unwanted_hubs: frozenset[int]
    to_clear: list[int]
    contexts: list[int]

    def buffers(self, hubs: Sequence[Hub], hub_buffers: Sequence[Any]) -> list[Any]:
        """The memory to clear."""
        contexts = [hub_buffers[i][-hubs[i].context_size :] for i in self.contexts]
        return [hub_buffers[i] for i in self.to_clear] + contexts


def plan_backward(
    layers: Mapping[str, Layer], hubs: Sequence[Hub], all_deltas: bool
) -> BackwardPlan:
    """Plan backward passes of layers in canonical order.

    It computes all deltas, or those that training needs.
    """
    loop_of = {name: loop for loop in find_loops(layers) for name in loop}
    needed: set[str] = set()
    for name, layer in layers.items():
        loop = loop_of.get(name, [name])
        depends = any(c.start_layer in needed for c in layer.incoming)
        trained = any(
            is_trained(layers, n, p) for n in loop for p in layers[n].parameter_shapes
        )
        if all_deltas or depends or trained:
            needed.update(loop)
    unwanted = {
        name: frozenset(layer.in_shapes)
        - {c.input_name for c in layer.incoming if c.start_layer in needed}
        for name, layer in layers.items()
    }
    unwanted_hubs: set[int] = set()
    # Layers in loops run many times, and what they send back meets what is there.
    overwriting = {n for n, la in layers.items() if la.honours_fresh} - set(loop_of)
    fresh: dict[str, set[str]] = {name: set() for name in layers}
    to_clear, contexts = [], []
    for i, hub in enumerate(hubs):
        if not hub.is_backward_only or not hub.size:
            continue
        name, kind, _ = hub.sources[0].split(".")
        if kind == "gradients":
            has_to_be_cleared = _plan_gradients(layers, overwriting, fresh)
        elif kind == "internals" and not hub.sinks:
            has_to_be_cleared = not layers[name].honours_fresh
        else:
            has_to_be_cleared = _plan_deltas(hub, layers, overwriting, fresh)
        owners = {source.partition(".")[0] for source in hub.sources}
        if kind == "output_deltas" and needed.isdisjoint(owners):
            unwanted_hubs.add(i)
        elif has_to_be_cleared:
            to_clear.append(i)
        elif hub.context_size:
            contexts.append(i)
    return BackwardPlan(
        [name for name in reversed([*layers]) if name in needed],
        {name: frozenset(names) for name, names in fresh.items()},
        unwanted,
        frozenset(unwanted_hubs),
        to_clear,
        contexts,
    )


def _plan_gradients(
    layers: Mapping[str, Layer], overwriting: set[str], fresh: dict[str, set[str]]
) -> bool:
    """Whether the gradients have to be cleared."""
    needed = False
    sharing = {name for name, layer in layers.items() if layer.shared}
    for layer in layers.values():
        sharing |= {owner.partition(".")[0] for owner in layer.shared.values()}
    for name, layer in layers.items():
        if name in overwriting and name not in sharing:
            fresh[name].add("gradients")
            needed |= bool(layer.computes_no_gradients_for)
        else:
            needed |= bool(layer.parameter_shapes)
    return needed


def _plan_deltas(
    hub: Hub,
    layers: Mapping[str, Layer],
    overwriting: set[str],
    fresh: dict[str, set[str]],
) -> bool:
    """Whether a hub of deltas has to be cleared."""
    # Sinks are in the order of the layers, and the last of these is the first to write.
    writers = []
    for sink in hub.sinks:
        name, _, input_name = sink.split(".")
        if input_name not in layers[name].computes_no_input_deltas_for:
            writers.append((name, input_name, hub.slices[sink]))
    if not writers:
        sources = [source.split(".") for source in hub.sources]
        return any(
            category == "internals"
            or output_name not in layers[name].takes_no_output_deltas_from
            for name, category, output_name in sources
        )
    name, input_name, covered = writers[-1]
    alone = sum(writer[0] == name for writer in writers) == 1
    if alone and name in overwriting and covered == (0, hub.size):
        fresh[name].add(input_name)
        return False
    return True

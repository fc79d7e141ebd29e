"""Running loops of feedback step by step.

A layer runs over one step as over a sequence of one. For that it needs what it carries
on right behind the step. So that this takes no copies, hubs with such content have a
mirror, in which time runs backwards: the step before is the next row. A mirror is read
out once in a pass; all other memory is cut at the step. What is fed back is copied to
where its receivers look for it.

The steps are recorded like the rest of a pass, and replayed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from brainstorm.handlers.base_handler import Handler
from brainstorm.structure.buffer_structure import BufferStructure
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.buffers import (
    BufferManager,
    create_buffer_views_from_layout,
    cut_features,
)
from brainstorm.structure.feedback import fed_back_output, find_loops
from brainstorm.structure.layer import Layer
from brainstorm.structure.taps import DELTAS, PREFIX
from brainstorm.utils import (
    HandlerError,
    NetworkValidationError,
    UnknownNameError,
    choices,
    listing,
)

# The first slot of the handler's temporaries that neither operations nor layers use.
_SLOT = 40

Order = Iterable[tuple[Layer, BufferView]]


class _Part(NamedTuple):
    """The layers of a loop that run, in their order, and the feedback to move."""

    loop: tuple[str, ...]
    order: list[tuple[Layer, BufferView]]
    connections: list[Any]


class Stepping:
    """Gives the layers of a network in the order in which they run, with their buffers.

    Attributes:
        forced: The inputs, ``'layer.input'``, to which something else was fed back in
            the last forward pass. Loops in which all are run as a whole.
    """

    def __init__(self, layers: Mapping[str, Layer], manager: BufferManager):
        self._manager = manager
        self._layers = layers
        self._loop_of = {n: tuple(loop) for loop in find_loops(layers) for n in loop}
        self.forced: frozenset[str] = frozenset()
        self._feedback: dict[str, list[Any]] = {}
        for c in (c for layer in layers.values() for c in layer.incoming):
            if fed_back_output(c) is not None:
                path = f"{c.end_layer}.{c.input_name}"
                self._feedback.setdefault(path, []).append(c)
        for connections in self._feedback.values():
            connections.sort(key=lambda c: _node(manager, *_place(c))["@slice"])

    # -- forced feedback -----------------------------------------------------

    def force(self, forced: Mapping[str, Any]) -> None:
        """Feed back arrays (T, B, ...) in the next pass, by ``'layer.input'``."""
        if not isinstance(forced, Mapping):
            raise NetworkValidationError(f"forced: expected a dict, got {forced!r}")
        given = {self._input_of(key): key for key in forced}
        if len(given) < len(forced):
            raise NetworkValidationError(
                "forced: expected one value for each input, got two values for one"
                f" input: {listing(forced)}"
            )
        unknown = [key for path, key in given.items() if path not in self._feedback]
        if unknown:
            raise UnknownNameError(
                f"forced: nothing is fed back to {listing(unknown)};"
                f" {choices(unknown[0], self._feedback)}"
            )
        values = {
            path: self._arranged(path, forced[key]) for path, key in given.items()
        }
        for path, array in values.items():
            start = 0
            for c in self._feedback[path]:
                layer, _, name = _place(c)
                target = self._manager.views[layer].internals[name]
                stop = start + self._structure(c).feature_size
                part = array[..., start:stop].reshape(tuple(target.shape))
                try:
                    self._manager.handler.set_from_numpy(target, part)
                except HandlerError as error:
                    raise HandlerError(f"forced {path!r}: {error}") from error
                start = stop
        self.forced = frozenset(values)

    def _input_of(self, key: str) -> str:
        """The input that is meant by 'layer.input', or just 'layer'."""
        if key in self._feedback or key.partition(".")[2] not in ("", "feedback"):
            return key
        return f"{key.partition('.')[0]}.default"

    def _structure(self, c: Any) -> BufferStructure:
        return self._layers[c.start_layer].out_shapes[fed_back_output(c) or ""]

    def _arranged(self, path: str, array: Any) -> np.ndarray:
        handler, manager = self._manager.handler, self._manager
        if isinstance(array, handler.array_type):
            array = handler.get_numpy_copy(array)
        structures = [self._structure(c) for c in self._feedback[path]]
        size = sum(structure.feature_size for structure in structures)
        steps = manager.time_size, manager.batch_size
        features = structures[0].feature_shape if len(structures) == 1 else (size,)
        if np.shape(array) not in ((*steps, size), (*steps, *features)):
            raise NetworkValidationError(
                f"forced: expected an array of the shape {(*steps, *features)} for"
                f" {path!r}, got {np.shape(array)}"
            )
        return np.asarray(array).reshape((*steps, size))

    # -- order ---------------------------------------------------------------

    def forward(self, order: Order, handler: Handler) -> Order:
        """The layers of a forward pass; what is fed back moves as one comes to it."""
        return self._by_loops(order, handler, self._forward)

    def backward(self, order: Order, handler: Handler) -> Order:
        """The layers of a backward pass, likewise."""
        return self._by_loops(order, handler, self._backward)

    def _by_loops(
        self, order: Order, handler: Handler, run: Callable[..., Order]
    ) -> Order:
        if not self._loop_of:
            return order
        groups = itertools.groupby(order, lambda pair: self._loop_of.get(pair[0].name))
        return itertools.chain.from_iterable(
            run(_Part(loop, [*group], connections), handler)
            if loop is not None and (connections := self._connections_in(loop))
            else group
            for loop, group in groups
        )

    def _connections_in(self, loop: tuple[str, ...] | None) -> list[Any]:
        """The feedback connections in a loop, without those that are forced."""
        return [
            c
            for path, connections in self._feedback.items()
            if loop is not None and path not in self.forced
            for c in connections
            if c.start_layer in loop
        ]

    def _mirrors_of(self, loop: tuple[str, ...]) -> dict[int, int]:
        """The mirrors of what the layers of a loop work on, by the hubs' indices."""
        if self._manager.time_size == 1:
            return {}
        touched = {
            node["@hub"]
            for name in loop
            for category in ("outputs", "internals")
            for node in self._manager.layout[name][category].values()
            if isinstance(node, dict)
        }
        mirrors = {i: hub.mirror_of for i, hub in enumerate(self._manager.hubs)}
        return {m: i for i, m in mirrors.items() if m is not None and m in touched}

    def _forward(self, part: _Part, handler: Handler) -> Order:
        manager, mirrors = self._manager, self._mirrors_of(part.loop)
        steps, memory = manager.time_size, manager.hub_buffers
        there = {
            i: j for i, j in mirrors.items() if not manager.hubs[i].is_backward_only
        }
        for i, j in there.items():
            self._reflect(handler, memory[i], memory[j], self._gets_more(i, part.loop))
        for t in range(steps):
            step = _Step(manager, mirrors, t)
            for c in part.connections:
                before = step.before(c.start_layer, "outputs", fed_back_output(c) or "")
                handler.copy_to(before, step.now(*_place(c)))
            for layer, buffers in part.order:
                yield layer, step.view(layer.name) if steps > 1 else buffers
        for i, j in there.items():
            self._reflect(handler, memory[j], memory[i])

    def _backward(self, part: _Part, handler: Handler) -> Order:
        manager, mirrors = self._manager, self._mirrors_of(part.loop)
        steps, memory = manager.time_size, manager.hub_buffers
        carried: dict[tuple[str, str], Any] = {}
        for t in reversed(range(steps)):
            step = _Step(manager, mirrors, t)
            for layer, buffers in part.order:
                view = buffers
                if steps > 1:
                    view = step.view(layer.name)
                    self._carry_deltas(layer, view, carried, handler)
                yield layer, view
            for c in part.connections:
                before = step.before(
                    c.start_layer, "output_deltas", fed_back_output(c) or ""
                )
                handler.add_tt(before, step.now(*_place(c, DELTAS)), before)
        for i, j in mirrors.items():
            if manager.hubs[i].is_backward_only:
                self._reflect(handler, memory[j], memory[i])
        for (name, output_name), deltas in carried.items():
            state = step.before(name, "output_deltas", output_name)
            handler.add_tt(state, deltas[1].reshape(tuple(state.shape)), state)

    def _carry_deltas(
        self,
        layer: Layer,
        view: BufferView,
        carried: dict[tuple[str, str], Any],
        handler: Handler,
    ) -> None:
        """Let a layer have two rows of output deltas of its own, all steps long.

        Of the second row, where it has left the deltas of the state before, the step
        before takes them over into the first one.
        """
        deltas = dict(BufferView.items(view.output_deltas))
        for name, structure in layer.out_shapes.items():
            if structure.context_size:
                now, key = deltas[name], (layer.name, name)
                if key in carried:
                    handler.add_tt(now[0], carried[key][1], carried[key][0])
                else:
                    slot = _SLOT + len(carried)
                    carried[key] = handler.scratch(tuple(now.shape), slot)
                    handler.copy_to(now[0], carried[key][0])
                handler.fill(carried[key][1], 0.0)
                deltas[name] = carried[key]
        BufferView.adjust(view.output_deltas, [*deltas], deltas.values())

    def _gets_more(self, hub: int, loop: tuple[str, ...]) -> bool:
        """Whether a hub holds something that a loop does not write itself."""
        forced = {
            ".".join(_place(c)) for path in self.forced for c in self._feedback[path]
        }
        return any(
            source.partition(".")[0] not in loop or source in forced
            for source in self._manager.hubs[hub].sources
        )

    def _reflect(
        self, handler: Handler, source: Any, target: Any, with_steps: bool = True
    ) -> None:
        """Copy between a hub and its mirror: what is carried on, and the steps."""
        steps = self._manager.time_size
        if with_steps:
            handler.reverse_steps(source[:steps], None, target[:steps], fresh_out=True)
        handler.copy_to(source[steps:], target[steps:])


def _place(c: Any, ending: str = "") -> tuple[str, str, str]:
    """The path of the internal that holds what is fed back."""
    return c.start_layer, "internals", c.output_name.removeprefix(PREFIX) + ending


def _node(manager: BufferManager, *path: str) -> Mapping[str, Any]:
    layer, category, name = path
    return manager.layout[layer][category][name]


class _Step(dict):
    """The memory of the hubs, by their indices, for a pass over step t alone."""

    def __init__(self, manager: BufferManager, mirrors: Mapping[int, int], t: int):
        super().__init__()
        self._manager, self._mirrors, self._t = manager, mirrors, t

    def __missing__(self, index: int) -> Any:
        hub = self._manager.hubs[index]
        memory = self._manager.hub_buffers[self._mirrors.get(index, index)]
        if memory is not None and hub.buffer_type == 2:
            row = self._row(index, self._t)
            memory = memory[row : row + 1 + hub.context_size]
        self[index] = memory
        return memory

    def _row(self, index: int, t: int) -> int:
        """Where a step is; step -1 is that before the first one."""
        steps = self._manager.time_size
        return steps - 1 - t if index in self._mirrors else t % (steps + 1)

    def now(self, *path: str) -> Any:
        """A buffer's row of this step."""
        node = _node(self._manager, *path)
        return cut_features(node, self[node["@hub"]][0])

    def before(self, *path: str) -> Any:
        """The row of an output, or of its deltas, of the step before."""
        node = _node(self._manager, *path)
        index = node["@hub"]
        memory = self._manager.hub_buffers[self._mirrors.get(index, index)]
        return cut_features(node, memory[self._row(index, self._t - 1)])

    def view(self, name: str) -> BufferView:
        manager = self._manager
        return create_buffer_views_from_layout(manager.layout[name], self, manager.hubs)

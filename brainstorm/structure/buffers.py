"""Allocating the hubs of a layout and cutting them into named views."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from brainstorm.handlers.base_handler import Handler
from brainstorm.layers.base_layer import Layer
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.layout import Hub, create_layout
from brainstorm.utils import NetworkValidationError, listing

__all__ = [
    "BufferManager",
    "create_buffer_views_from_layout",
    "get_total_size_slices_and_shapes",
]

# Sizes for which views are kept: training and evaluation batches, the last
# partial batches of both, and some lengths of cut sequences.
KEPT_SIZES = 16


class SizedBuffers(NamedTuple):
    """The hubs' memory cut to one time and batch size, and the views of it.

    `carried` and `last_steps` are the context's steps of the forward hubs that
    carry state, and as many steps before them, by the paths of the hubs' sources.
    `others` are the context's steps of the other ones, which stay zeros, by the hubs'
    indices.
    """

    hub_buffers: list[Any]
    views: BufferView
    carried: dict[str, Any]
    last_steps: dict[str, Any]
    others: dict[int, Any]


class BufferManager:
    """Owns the memory of a network and gives structured access to it.

    Memory grows when `resize` asks for more than there is, and is reused
    otherwise. Backward-only hubs are allocated when a backward pass, or a user,
    first asks for them.

    Attributes:
        handler (Handler): Allocates the memory.
        hubs (list[Hub]), layout (dict): The plan, see `create_layout`.
        views (BufferView): All buffers for the current sizes: ``parameters``,
            ``gradients``, and then a view for each layer.
        sized (SizedBuffers): The hubs' memory, cut to the current sizes.
        time_size, batch_size (int): The current sizes.
    """

    def __init__(self, handler: Handler, hubs: Sequence[Hub], layout: dict[str, Any]):
        self.handler = handler
        self.hubs = list(hubs)
        self.layout = layout
        self._reset()
        self.resize(1, 1)

    @classmethod
    def from_layers(
        cls, layers: Mapping[str, Layer], handler: Handler
    ) -> BufferManager:
        """A manager for the memory of the given layers."""
        return cls(handler, *create_layout(layers))

    def _reset(self) -> None:
        self._memory: list[Any] = [None] * len(self.hubs)
        self._kept: OrderedDict[tuple[int, int], SizedBuffers] = OrderedDict()
        self._has_backward = False

    # -- sizes ---------------------------------------------------------------

    def resize(self, time_size: int, batch_size: int) -> BufferView:
        """Provide views for the given sizes.

        The parameters keep their values, all other content is undefined.
        """
        self.time_size, self.batch_size = key = (time_size, batch_size)
        new: set[int] = set()
        if key not in self._kept:
            new = self._allocate()
            self._kept[key] = self._cut()
            if len(self._kept) > KEPT_SIZES:
                self._kept.popitem(last=False)
        self.sized = self._kept[key]
        self.views = self.sized.views
        # New memory is zeros, old memory may have been used with other sizes.
        others = self.sized.others.items()
        self.handler.clear(*[steps for i, steps in others if i not in new])
        return self.views

    def ensure_backward(self) -> None:
        """Allocate the backward-only hubs, if they are not there yet."""
        if not self._has_backward:
            self._has_backward = True
            self._allocate()
            self.sized = self._cut(self.views)
            self._kept = OrderedDict({(self.time_size, self.batch_size): self.sized})

    def set_handler(self, new_handler: Handler) -> None:
        """Move the parameters to another handler; other content is lost."""
        parameters = self.handler.get_numpy_copy(self.views.parameters)
        self.handler = new_handler
        self._reset()
        self.resize(self.time_size, self.batch_size)
        new_handler.set_from_numpy(self.views.parameters, parameters)

    def _allocate(self) -> set[int]:
        """See to it that all hubs have enough memory. Returns which ones got new."""
        new = set()
        for i, hub in enumerate(self.hubs):
            size = math.prod(hub.get_shape(self.time_size, self.batch_size))
            memory = self._memory[i]
            wanted = self._has_backward or not hub.is_backward_only
            if wanted and (memory is None or memory.shape[0] < size):
                self._kept.clear()
                self._memory[i] = memory = None  # free it before there is more
                self._memory[i] = self.handler.zeros((size,))
                new.add(i)
        return new

    def _cut(self, existing_view: BufferView | None = None) -> SizedBuffers:
        hub_buffers = []
        for hub, memory in zip(self.hubs, self._memory, strict=True):
            if memory is not None:
                shape = hub.get_shape(self.time_size, self.batch_size)
                memory = memory[: math.prod(shape)].reshape(shape)
            hub_buffers.append(memory)
        views = create_buffer_views_from_layout(
            self.layout, hub_buffers, self.hubs, existing_view, self.ensure_backward
        )
        carried, last_steps, others = {}, {}, {}
        for i, (hub, buffer) in enumerate(zip(self.hubs, hub_buffers, strict=True)):
            if hub.context_size and not hub.is_backward_only:
                name, stop = " ".join(hub.sources), self.time_size
                if not hub.is_state:
                    others[i] = buffer[stop:]
                    continue
                carried[name] = buffer[stop:]
                last_steps[name] = buffer[stop - hub.context_size : stop]
        return SizedBuffers(hub_buffers, views, carried, last_steps, others)

    # -- context -------------------------------------------------------------

    def get_context(self) -> dict[str, np.ndarray]:
        """Copies of the last steps of all hubs that carry state."""
        return {
            name: self.handler.get_numpy_copy(buffer)
            for name, buffer in self.sized.last_steps.items()
        }

    def apply_context(self, context: Mapping[str, np.ndarray]) -> None:
        """Start the next forward pass from a state that `get_context` returned.

        Raises:
            NetworkValidationError: It does not fit this network or batch size.
        """
        carried = self.sized.carried
        if not isinstance(context, Mapping) or set(context) != set(carried):
            given = listing(context) if isinstance(context, Mapping) else context
            raise NetworkValidationError(
                f"expected a context for {listing(carried)}, got {given}"
            )
        for name, buffer in carried.items():
            expected, given = tuple(buffer.shape), np.shape(context[name])
            if given != expected:
                raise NetworkValidationError(
                    f"expected the context of {name} to have the shape {expected}, got"
                    f" {given}"
                )
        for name, buffer in carried.items():
            self.handler.set_from_numpy(buffer, np.asarray(context[name]))

    def clear_context(self) -> None:
        """Start the next forward pass from zeros."""
        self.handler.clear(*self.sized.carried.values())

    @property
    def hub_buffers(self) -> list[Any]:
        """The memory of each hub; None where it is not allocated."""
        return self.sized.hub_buffers


def get_total_size_slices_and_shapes(
    hubs: Sequence[Hub], time_size: int, batch_size: int
) -> tuple[int, list[slice], list[tuple[int, ...]]]:
    """Where the hubs would lie in one flat buffer.

    Returns:
        The size of that buffer, and the slice and the shape of each hub.
    """
    shapes = [hub.get_shape(time_size, batch_size) for hub in hubs]
    slices, start = [], 0
    for shape in shapes:
        stop = start + math.prod(shape)
        slices.append(slice(start, stop))
        start = stop
    return start, slices, shapes


def create_buffer_views_from_layout(
    layout: Mapping[str, Any],
    hub_buffers: Sequence[Any],
    hubs: Sequence[Hub],
    existing_view: BufferView | None = None,
    complete: Callable[[], None] | None = None,
) -> BufferView:
    """Cut the hubs' memory into a tree of named views.

    Args:
        layout: As made by `create_layout`.
        hub_buffers: The memory of each hub, in its shape (see `Hub.get_shape`).
            None for hubs without memory; their buffers are left out.
        hubs: The hubs.
        existing_view: A tree made before, to fill instead of making a new one.
        complete: What views with buffers left out call to have them filled in.

    Returns:
        The root of the tree.
    """
    names, children, left_out = [], [], False
    nodes = [(name, node) for name, node in layout.items() if name[0] != "@"]
    for name, node in sorted(nodes, key=lambda item: item[1]["@index"]):
        if node["@type"] == "BufferView":
            existing = None if existing_view is None else existing_view.__dict__[name]
            child = create_buffer_views_from_layout(
                node, hub_buffers, hubs, existing, complete
            )
        elif hub_buffers[node["@hub"]] is None:
            left_out = True
            continue
        else:
            child = _cut_array(node, hub_buffers, hubs)
        names.append(name)
        children.append(child)
    full_buffer = None
    if "@slice" in layout and not left_out:
        full_buffer = _cut_features(layout, hub_buffers[layout["@hub"]])
    if existing_view is None:
        complete = complete if left_out else None
        return BufferView(names, children, full_buffer, complete)
    existing_view.fill(names, children, full_buffer)
    return existing_view


def _cut_array(
    node: Mapping[str, Any], hub_buffers: Sequence[Any], hubs: Sequence[Hub]
) -> Any:
    hub, buffer = hubs[node["@hub"]], hub_buffers[node["@hub"]]
    feature_shape = tuple(s for s in node["@shape"] if s not in ("T", "B"))
    hidden_steps = hub.context_size - node.get("@context_size", 0)
    if hidden_steps:
        buffer = buffer[: buffer.shape[0] - hidden_steps]
    cut = _cut_features(node, buffer)
    return cut.reshape(cut.shape[:-1] + feature_shape)


def _cut_features(node: Mapping[str, Any], buffer: Any) -> Any:
    start, stop = node["@slice"]
    if (start, stop) == (0, buffer.shape[-1]):
        return buffer
    return buffer[(slice(None),) * (len(buffer.shape) - 1) + (slice(start, stop),)]

"""Allocating the hubs of a layout and cutting them into named views."""

from __future__ import annotations

import functools
import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from brainstorm.handlers import default_handler
from brainstorm.handlers.base_handler import Handler
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.layer import Layer
from brainstorm.structure.layout import GRADIENTS, Hub, create_layout
from brainstorm.utils import NetworkValidationError, listing

__all__ = [
    "BufferManager",
    "create_buffer_views_from_layout",
    "get_total_size_slices_and_shapes",
]

# For how many sizes the cut memory is kept: there are many where sequences differ in
# length, and twice as many with the last batch of an epoch.
KEPT_SIZES = 512
# Arrays that may be kept in all, of some hundred bytes each.
KEPT_ARRAYS = 200_000


class SizedBuffers(NamedTuple):
    """The hubs' memory cut to one time and batch size.

    `states` are those of all views of the tree. `carried` is the part of each forward
    hub that carries state, by the paths of the hub's sources. `others` are the
    context's steps of the other ones, which stay zeros, by the hubs' indices.
    `programs` are records of passes on this memory, see `Passes`. `shared` has what
    `BufferManager.share_deltas` has made, if anything.
    """

    hub_buffers: list[Any]
    states: list[tuple[BufferView, Any]]
    carried: dict[str, Carried]
    others: dict[int, Any]
    programs: dict[Any, Any]
    shared: list[SharedDeltas]


class SharedDeltas(NamedTuple):
    """Views, and the memory of each hub, where deltas share memory."""

    views: BufferView
    hub_buffers: list[Any]


class Carried(NamedTuple):
    """The context's steps of some memory, and as many before them.

    Where there are less of these, the former context has the rest: its `remaining`
    steps, which `rest` leaves from the next one.
    """

    steps: Any
    last: Any
    remaining: Any
    rest: int


class BufferManager:
    """Owns the memory of a network and gives structured access to it.

    Memory grows when `resize` asks for more than there is, and is reused
    otherwise. Backward-only hubs are allocated when a backward pass, or a user,
    first asks for them. There is one tree of views, which always shows the buffers of
    the current sizes; what it shows is kept for the sizes that come again.

    Attributes:
        handler (Handler): Allocates the memory.
        hubs (list[Hub]), layout (dict): The plan, see `create_layout`.
        views (BufferView): All buffers for the current sizes: ``parameters``,
            ``gradients``, and then a view for each layer. Deltas that share memory are
            not among them.
        sized (SizedBuffers): The hubs' memory, cut to the current sizes.
        time_size, batch_size (int): The current sizes.
        when_read (Callable[[], None] | None): Called when a user asked the views for
            deltas that were not allocated, once they are.
        when_cut (Callable[[], None] | None): Called when the views of the current sizes
            have got backward-only buffers.
    """

    time_size: int
    batch_size: int
    sized: SizedBuffers

    def __init__(self, handler: Handler, hubs: Sequence[Hub], layout: dict[str, Any]):
        self.handler: Handler = handler
        self.hubs: list[Hub] = list(hubs)
        self.layout = layout
        nothing = [None] * len(self.hubs)
        self.views: BufferView = create_buffer_views_from_layout(
            layout, nothing, self.hubs
        )
        self._tree = list(_each_view(self.views))
        nr_arrays = sum(len(hub.slices) for hub in self.hubs)
        self._most_kept = max(2, min(KEPT_SIZES, KEPT_ARRAYS // (nr_arrays + 1)))
        self._choose = random.Random(0)
        self.when_read: Callable[[], None] | None = None
        self.time_size = self.batch_size = 1
        self.when_cut: Callable[[], None] | None = None
        self._reset()
        self.resize(1, 1)

    @classmethod
    def from_layers(
        cls, layers: Mapping[str, Layer], handler: Handler = default_handler
    ) -> BufferManager:
        """A manager for the memory of the given layers."""
        return cls(handler, *create_layout(layers))

    def _reset(self) -> None:
        self._memory: list[Any] = [None] * len(self.hubs)
        self._kept: dict[tuple[int, int], SizedBuffers] = {}
        self._has_gradients = self._has_backward = False
        self._shared_memory: Any = None

    # -- sizes ---------------------------------------------------------------

    def resize(self, time_size: int, batch_size: int) -> BufferView:
        """Have the views show buffers of the given sizes.

        The parameters keep their values, all other content is undefined. If there is
        not enough memory, the sizes stay as they are.
        """
        sizes = (time_size, batch_size)
        new: set[int] = set()
        if sizes in self._kept:
            if self._kept[sizes] is not self.sized:
                self._show(self._kept[sizes])
        else:
            try:
                new = self._allocate(sizes)
            except BaseException:
                # Some memory may be new, or missing.
                self._allocate((self.time_size, self.batch_size))
                self._cut((self.time_size, self.batch_size))
                raise
            self._cut(sizes)
        self.time_size, self.batch_size = sizes
        # New memory is zeros, old memory may have been used with other sizes.
        others = self.sized.others.items()
        self.handler.clear(*[steps for i, steps in others if i not in new])
        return self.views

    def ensure_backward(self) -> None:
        """Allocate the backward-only hubs, if they are not there yet."""
        if not self._has_backward:
            self._forget_shared_memory()
            self._ensure(has_backward=True)

    def ensure_gradients(self) -> None:
        """Allocate the gradients, if they are not there yet."""
        if not self._has_gradients:
            self._ensure(has_backward=self._has_backward)

    def _ensure(self, has_backward: bool) -> None:
        """Allocate the gradients, and perhaps the deltas."""
        before = self._has_gradients, self._has_backward
        self._has_gradients, self._has_backward = True, has_backward
        try:
            self._allocate((self.time_size, self.batch_size))
        except BaseException:
            self._has_gradients, self._has_backward = before
            raise
        # What layers keep with the views of a forward pass stays valid.
        kept = [(view, view.__dict__) for view in self._tree]
        self._cut((self.time_size, self.batch_size))
        for view, before_ in kept:
            view.__dict__ = {**before_, **view.__dict__}
        self._keep((self.time_size, self.batch_size))
        if self.when_cut is not None:
            self.when_cut()

    def _fill_in(self, left_out: frozenset[int]) -> None:
        """Let a user have what was left out of the views, of these hubs."""
        if left_out == {GRADIENTS}:
            self.ensure_gradients()
            return
        self.ensure_backward()
        if self.when_read is not None:
            self.when_read()

    def share_deltas(self, starts: Mapping[int, int], size: int) -> SharedDeltas:
        """Have a backward pass work on deltas that share memory, for the current sizes.

        What memory they had for themselves is freed.

        Args:
            starts: Where in shared memory a hub begins, by its index.
            size: Number of elements of the memory.
        """
        if self._has_backward:
            self._has_backward = False
            for i in starts:
                self._memory[i] = None
            self._kept.clear()
            self._cut((self.time_size, self.batch_size))
        self.ensure_gradients()
        if self._shared_memory is None or self._shared_memory.shape[0] < size:
            self._forget_shared_memory()
            self._shared_memory = self.handler.zeros((size,))
            self.handler.release_after(self._shared_memory)
        hub_buffers = list(self.hub_buffers)
        for i, start in starts.items():
            shape = self.hubs[i].get_shape(self.time_size, self.batch_size)
            part = self._shared_memory[start : start + math.prod(shape)]
            hub_buffers[i] = part.reshape(shape)
        views = create_buffer_views_from_layout(self.layout, hub_buffers, self.hubs)
        self.sized.shared[:] = [SharedDeltas(views, hub_buffers)]
        return self.sized.shared[0]

    def _forget_shared_memory(self) -> None:
        if self._shared_memory is not None:
            self._shared_memory = None
            self.forget_programs()
            for sized in (*self._kept.values(), self.sized):
                sized.shared.clear()

    def clear_backward_buffers(self) -> None:
        """Set the gradients, the deltas and what else is backward-only to zero."""
        self.ensure_backward()
        hubs = zip(self.hubs, self.hub_buffers, strict=True)
        backward_only = [buffer for hub, buffer in hubs if hub.is_backward_only]
        self.handler.clear(*backward_only)

    def set_handler(self, new_handler: Handler) -> None:
        """Move the parameters to another handler; other content is lost."""
        parameters = self.handler.get_numpy_copy(self.views.parameters)
        before = {**vars(self)}
        self.handler = new_handler
        self._reset()
        try:
            self.resize(self.time_size, self.batch_size)
            new_handler.set_from_numpy(self.views.parameters, parameters)
        except BaseException:
            vars(self).update(before)
            self._show(self.sized)
            raise

    def _allocate(self, sizes: tuple[int, int]) -> set[int]:
        """See to it that all hubs have enough memory. Returns which ones got new."""
        new = set()
        for i, hub in enumerate(self.hubs):
            size = math.prod(hub.get_shape(*sizes))
            memory = self._memory[i]
            wanted = self._has_backward or not hub.is_backward_only
            wanted |= self._has_gradients and i == GRADIENTS
            if wanted and (memory is None or memory.shape[0] < size):
                self._kept.clear()
                self._memory[i] = memory = None  # free it before there is more
                self._memory[i] = memory = self.handler.zeros((size,))
                self.handler.release_after(memory)
                new.add(i)
        return new

    def _cut(self, sizes: tuple[int, int]) -> None:
        """Fill the views anew."""
        hub_buffers = []
        for hub, memory in zip(self.hubs, self._memory, strict=True):
            if memory is not None:
                shape = hub.get_shape(*sizes)
                memory = memory[: math.prod(shape)].reshape(shape)
            hub_buffers.append(memory)
        create_buffer_views_from_layout(
            self.layout, hub_buffers, self.hubs, self.views, self._fill_in
        )
        carried, others = {}, {}
        for i, (hub, buffer) in enumerate(zip(self.hubs, hub_buffers, strict=True)):
            if hub.context_size and not hub.is_backward_only:
                if hub.is_state:
                    carried.update(_carried(hub, buffer, sizes[0]))
                else:
                    others[i] = buffer[sizes[0] :]
        self.sized = SizedBuffers(hub_buffers, [], carried, others, {}, [])
        self._keep(sizes)

    def _keep(self, sizes: tuple[int, int]) -> None:
        """Take note of what the views show."""
        states = [(view, BufferView._get_state(view)) for view in self._tree]
        self._kept[sizes] = self.sized = self.sized._replace(states=states)
        if len(self._kept) > self._most_kept:
            # Any one: dropping the oldest would never find one of a cycle again.
            others = [key for key in self._kept if key != sizes]
            del self._kept[self._choose.choice(others)]

    def _show(self, sized: SizedBuffers) -> None:
        for view, state in sized.states:
            BufferView._set_state(view, state)
        self.sized = sized

    # -- context -------------------------------------------------------------

    def get_context(self) -> dict[str, np.ndarray]:
        """Copies of the last steps of all hubs that carry state."""
        copied = self.handler.get_numpy_copy
        return {
            name: np.concatenate([copied(part.remaining), copied(part.last)])
            if part.rest
            else copied(part.last)
            for name, part in self.sized.carried.items()
        }

    def apply_context(self, context: Mapping[str, np.ndarray]) -> None:
        """Start the next forward pass from a state that `get_context` returned.

        Raises:
            NetworkValidationError: It does not fit this network or batch size.
        """
        carried = self.sized.carried
        if not isinstance(context, Mapping) or set(context) != set(carried):
            got = listing(context) if isinstance(context, Mapping) else context
            raise NetworkValidationError(
                f"expected a context for {listing(carried)}, got {got}"
            )
        for name, part in carried.items():
            expected, given = tuple(part.steps.shape), np.shape(context[name])
            if given != expected:
                raise NetworkValidationError(
                    f"expected the context of {name} to have the shape {expected}, got"
                    f" {given}"
                )
        for name, part in carried.items():
            self.handler.set_from_numpy(part.steps, np.asarray(context[name]))

    def carry_on(self, handler: Handler) -> None:
        """Start the next forward pass from the state that the last one has left."""
        for steps, last, remaining, _ in self.sized.carried.values():
            rows = [(r, i) for r in (remaining, last) for i in range(r.shape[0])]
            for target, (source, i) in enumerate(rows):
                handler.copy_to(source[i], steps[target])

    def forget_programs(self) -> None:
        """Forget what was recorded of passes."""
        for sized in (*self._kept.values(), self.sized):
            sized.programs.clear()

    def clear_context(self, handler: Handler | None = None) -> None:
        """Start the next forward pass from zeros, which `handler` writes if given."""
        (handler or self.handler).clear(
            *[part.steps for part in self.sized.carried.values()]
        )

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
    ends = [0, *itertools.accumulate(map(math.prod, shapes))]
    return ends[-1], [slice(*both) for both in itertools.pairwise(ends)], shapes


def create_buffer_views_from_layout(
    layout: Mapping[str, Any],
    hub_buffers: Any,
    hubs: Sequence[Hub],
    existing_view: BufferView | None = None,
    complete: Callable[[frozenset[int]], None] | None = None,
) -> BufferView:
    """Cut the hubs' memory into a tree of named views.

    Args:
        layout: As made by `create_layout`.
        hub_buffers: The memory of each hub, in its shape (see `Hub.get_shape`).
            None for hubs without memory; their buffers are left out.
        hubs: The hubs.
        existing_view: A tree made before, to fill instead of making a new one.
        complete: What views with buffers left out call to have them filled in; it gets
            the indices of their hubs.

    Returns:
        The root of the tree.
    """
    names, children = [], []
    left_out: dict[str, int] = {}
    nodes = [(name, node) for name, node in layout.items() if name[0] != "@"]
    for name, node in sorted(nodes, key=lambda item: item[1]["@index"]):
        if node["@type"] == "BufferView":
            existing = None if existing_view is None else existing_view.__dict__[name]
            child = create_buffer_views_from_layout(
                node, hub_buffers, hubs, existing, complete
            )
        elif hub_buffers[node["@hub"]] is None:
            left_out[name] = node["@hub"]
            continue
        else:
            child = _cut_array(node, hub_buffers, hubs)
        names.append(name)
        children.append(child)
    full_buffer = None
    if "@slice" in layout and not left_out:
        full_buffer = cut_features(layout, hub_buffers[layout["@hub"]])
    fill_in = None
    if left_out and complete is not None:
        fill_in = functools.partial(complete, frozenset(left_out.values()))
    about: Any = names, children, full_buffer, fill_in, left_out if fill_in else ()
    if existing_view is None:
        return BufferView(*about)
    existing_view.__dict__ = {}
    BufferView.fill(existing_view, *about)
    return existing_view


def _each_view(view: BufferView) -> Iterator[BufferView]:
    """A view and all views below it."""
    yield view
    for child in list.__iter__(view):
        if isinstance(child, BufferView):
            yield from _each_view(child)


def _carried(hub: Hub, buffer: Any, time_size: int) -> dict[str, Carried]:
    """What carries state in a hub.

    As a whole if all its sources go back as many steps; otherwise each source by
    itself, because each has its last steps right behind the others.
    """
    parts = {" ".join(hub.sources): (hub.context_size, buffer)}
    sizes = {source: size for source, size in hub.contexts.items() if size}
    if set(sizes.values()) != {hub.context_size}:
        parts = {
            source: (size, cut_features({"@slice": hub.slices[source]}, buffer))
            for source, size in sizes.items()
        }
    carried = {}
    for name, (size, part) in parts.items():
        rest = max(0, size - time_size)
        steps = part[time_size : time_size + size]
        last = part[time_size - size + rest : time_size]
        carried[name] = Carried(steps, last, steps[size - rest :], rest)
    return carried


def _cut_array(
    node: Mapping[str, Any], hub_buffers: Sequence[Any], hubs: Sequence[Hub]
) -> Any:
    hub, buffer = hubs[node["@hub"]], hub_buffers[node["@hub"]]
    feature_shape = tuple(s for s in node["@shape"] if s not in ("T", "B"))
    hidden_steps = hub.context_size - node.get("@context_size", 0)
    if hidden_steps:
        buffer = buffer[: buffer.shape[0] - hidden_steps]
    cut = cut_features(node, buffer)
    return cut.reshape(cut.shape[:-1] + feature_shape)


def cut_features(node: Mapping[str, Any], buffer: Any) -> Any:
    """The part of a hub's memory that a node of the layout says."""
    start, stop = node["@slice"]
    if (start, stop) == (0, buffer.shape[-1]):
        return buffer
    return buffer[(slice(None),) * (len(buffer.shape) - 1) + (slice(start, stop),)]

"""Internals that forward passes leave out, until somebody reads them.

Where no backward pass follows, nothing depends on the gates of an LSTM, say. So passes
that are told so need not fill these. Who reads them anyway, by `Network.get` or by
`Network.buffer`, has them computed on the spot, by another pass of the layer, and by
all passes from then on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.buffers import BufferManager
from brainstorm.structure.feedback import find_loops
from brainstorm.structure.layer import Layer
from brainstorm.utils import NetworkValidationError, listing

# Outputs that are computed once more differ by no more, in proportion.
_SAME = 0.05


class LeftOut:
    """Knows what the last passes of a network have left out, and computes it.

    Layers that are not replayed, or in loops of feedback, leave out nothing, and those
    where an internal has the name of a method of views, which could not be hidden.

    Attributes:
        is_wanted: Whether somebody has read some of it: nothing is left out then.
        layers: Those that have left out internals, in the order in which they run; and
            of each whether the data have been replaced since.
    """

    def __init__(self, layers: Mapping[str, Layer], manager: BufferManager):
        in_loops = {name for loop in find_loops(layers) for name in loop}
        self._able = {
            name: layer
            for name, layer in layers.items()
            if layer.can_leave_out
            and layer.can_be_replayed()
            and name not in in_loops
            and not any(hasattr(BufferView, n) for n in layer.can_leave_out)
        }
        self._manager = manager
        self.is_wanted: bool = not self._able
        self.layers: dict[str, bool] = {}
        self._hidden: dict[str, tuple[BufferView, Callable[[], None], Any]] = {}
        manager.when_cut = self._hide

    def begin(self, keeps: bool, only: Collection[str] | None) -> None:
        """Take note of a forward pass that is about to run, over these layers."""
        if only is None and not keeps:
            self.layers = dict.fromkeys(self._able, False)
            return
        for name in self._able:
            if only is None or name in only:
                if keeps:
                    self.layers.pop(name, None)
                else:
                    self.layers[name] = False
        if keeps:
            self.show()

    def tell(self, keeps: bool) -> None:
        """Let layers know what kind of pass is being made of their operations."""
        self.show()
        for layer in self._able.values():
            layer.keeps_internals = keeps

    def end(self) -> None:
        """The pass is done: have who reads what it has left out compute it."""
        if self.layers.keys() != self._hidden.keys():
            self._hide()

    def note_data(self) -> None:
        """Take note of other data."""
        self.layers = dict.fromkeys(self.layers, True)

    def forget(self) -> None:
        """Take note of other memory."""
        self.show()
        self.layers = {}

    # -- computing -----------------------------------------------------------

    def complete(self) -> None:
        """Compute what has been left out; outputs and states stay what they are.

        Raises:
            NetworkValidationError: What it depends on has changed.
        """
        lacking, self.layers = self.layers, {}
        self.is_wanted = True
        self.tell(True)
        for name, is_late in lacking.items():
            if is_late or not self._complete(name):
                self.layers[name] = True
        if self.layers:
            self._hide()
            raise NetworkValidationError(
                f"the internals of {listing(self.layers)} were left out by the last"
                " forward pass, and its data, state or parameters have changed since:"
                " run it again. From now on forward passes keep internals"
            )

    def _complete(self, name: str) -> bool:
        handler, buffers = self._manager.handler, self._manager.views.__dict__[name]
        layer = self._able[name]
        kept = list(buffers.outputs)
        for internal in layer.can_leave_out:
            shape = layer.internal_shapes[internal]
            if shape.is_state and shape.context_size:
                kept.append(buffers.internals[internal][-2:-1])
        before = [handler.get_numpy_copy(array) for array in kept]
        layer.forward_pass(buffers, False)
        now = [handler.get_numpy_copy(array) for array in kept]
        for array, values in zip(kept, before, strict=True):
            handler.set_from_numpy(array, values)
        return all(map(_are_alike, before, now))

    # -- views ---------------------------------------------------------------

    def _hide(self) -> None:
        """Have who reads internals that were left out call `complete` first."""
        self.show()
        for name in self.layers:
            view = self._manager.views.__dict__[name].internals

            compute = functools.partial(self._compute, view, view._complete)
            self._hidden[name] = view, compute, view._complete
            for internal in self._able[name].can_leave_out:
                view.__dict__.pop(internal, None)
            view._complete = compute

    def _compute(self, view: BufferView, before: Callable[[], None] | None) -> None:
        self.show()
        view._complete = before  # also if others had hidden it, too
        self.complete()
        BufferView._ensure_complete(view)

    def show(self) -> None:
        """Let the views be as always."""
        hidden, self._hidden = self._hidden, {}
        for view, compute, before in hidden.values():
            if view._complete is compute:  # else they have been filled anew
                view._complete = before
                children = zip(view._buffer_names, list.__iter__(view), strict=True)
                view.__dict__.update(children)


def _are_alike(a: np.ndarray, b: np.ndarray) -> bool:
    a, b = a.astype(np.float64), b.astype(np.float64)
    difference = np.linalg.norm(a - b)
    return not difference > _SAME * np.linalg.norm(a)  # NaN is like NaN

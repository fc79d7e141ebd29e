"""The backward passes of a network, and the deltas that training does without.

No gradient depends on the deltas that reach the Input layer, say, so training leaves
them out. Who reads them, by `Network.get` or in a hook by `Network.buffer`, gets them
anyway: they are computed on the spot, with the parameters of the backward pass, and by
all backward passes from then on.

Where it saves much memory, deltas share it while training, see
`brainstorm.structure.sharing`: all of them are left out then, in the same sense.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from brainstorm.structure.backward_plan import BackwardPlan, plan_backward
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.buffers import BufferManager, SharedDeltas
from brainstorm.structure.layer import Layer
from brainstorm.structure.passes import Pass, Passes
from brainstorm.structure.sharing import (
    Places,
    can_share,
    delta_hubs,
    is_worth_it,
    lifetimes,
    place,
)
from brainstorm.structure.stepping import Stepping
from brainstorm.structure.taps import check_deltas_arrive
from brainstorm.structure.trainable import frozen_slices
from brainstorm.utils import UnknownNameError


class Backpropagation:
    """Runs the backward passes of a network, once `plan` has been called.

    Attributes:
        wants_all: Whether somebody has asked for deltas: nothing is left out then.
        keeps_parameters: Whether a pass that leaves out deltas keeps a copy of the
            parameters, so that these can be computed after an update. One in which
            deltas share memory keeps one anyway.
        may_share: Whether deltas may share memory, because nobody has read any.
        can_complete: Whether there is such a copy for the last pass, and all else that
            it began with.
        exchange: Makes the gradients those of several processes together, if any; see
            :mod:`brainstorm.parallel.exchange`.
    """

    def __init__(
        self,
        layers: Mapping[str, Layer],
        manager: BufferManager,
        passes: Passes,
        stepping: Stepping,
    ):
        self._passes = passes
        self._stepping = stepping
        self.wants_all: bool = False
        self.keeps_parameters: bool = False
        self.exchange: Any = None
        self._layers = layers
        self._followers = [la for la in layers.values() if la.follows_training]
        self._beginners = [la for la in layers.values() if la.follows_context]
        self._manager = manager
        manager.when_read = self._fill_in
        self.may_share: bool = can_share(manager.hubs)
        self._shares = self._has_shared = False
        self._changes = 0
        self._copy: tuple[Any, Any] | None = None
        self._zeros_were_lost: set[int] = set()
        self._hidden: list[tuple[BufferView, Any, Any]] = []

    def plan(self) -> None:
        """Take note of which parameters are trained."""
        self._passes.forget()
        hubs = self._manager.hubs
        self._all = plan_backward(self._layers, hubs, all_deltas=True)
        self._training = plan_backward(self._layers, hubs, all_deltas=False)
        self._life = lifetimes(self._layers, hubs, self._training)
        self._frozen = frozen_slices(self._layers, hubs[0])
        self._follow(self._all)

    def share(self, exchange: Any) -> None:
        """Exchange gradients with other processes from now on, or no longer if None."""
        self._passes.forget()
        self.exchange = exchange
        for layer in self._layers.values():
            layer.exchange = exchange

    def forget_memory(self) -> None:
        """Take note of other memory."""
        self._to_clear: list[Any] | None = None
        self._views = self._manager.views
        self.can_complete: bool = False

    def run(self, all_deltas: bool) -> None:
        """Do a backward pass, with all deltas or with those that training needs."""
        plan = self._all if all_deltas or self.wants_all else self._training
        if plan is not self._plan:
            self._follow(plan)
        self.can_complete = False
        if self._hidden:
            self.show()
        if self._to_clear is None or self._changes != self._passes.changes:
            self._changes = self._passes.changes
            self._views = self._manager.views
            self._to_clear = self._find_what_to_clear()
        is_complete = plan is self._all
        forced = self._stepping.forced
        after: tuple[bool, ...] = ()
        if self._followers:
            after = tuple([layer.after_training for layer in self._followers])
        if self._beginners:
            after += tuple([layer.begins for layer in self._beginners])
        shares = self.exchange is not None and self.exchange.is_active
        kind = is_complete, forced, after, shares
        self._passes.run(("backward", *kind), self._make_pass)
        if shares:
            self.exchange.finish()
        self._has_shared = self._views is not self._manager.views
        if not is_complete and (self.keeps_parameters or self._has_shared):
            handler, parameters = self._manager.handler, self._manager.views.parameters
            if self._copy is None or self._copy[0] is not handler:
                self._copy = handler, handler.zeros(tuple(parameters.shape))
            handler.copy_to(parameters, self._copy[1])
            self.can_complete = True

    def note_beginning(self, begins: bool) -> None:
        """Let layers know whether a forward pass goes without a context."""
        for layer in self._beginners:
            layer.begins = begins

    def note_forward(
        self, training_pass: bool, begins: bool, only: Collection[str] | None
    ) -> None:
        """Let layers know what kind of forward pass there was, if they ask for it."""
        if self._beginners:
            self.note_beginning(begins)
        for layer in self._followers:
            if only is None or layer.name in only:
                layer.after_training = training_pass

    def _make_pass(self, this: Pass, *kind: Any) -> None:
        this.handler.clear(*(self._to_clear or ()))
        *_, shares = kind
        names, gradients, done = self._plan.order, self._manager.views.gradients, 0
        for after, part in self.exchange.buckets(names) if shares else ():
            self._run(this, names[done:after])
            this.call("exchange", self.exchange.begin, gradients[part])
            done = after
        self._run(this, names[done:])
        for part in self._frozen:
            this.handler.fill(self._manager.views.gradients[part], 0.0)

    def _run(self, this: Pass, names: Sequence[str]) -> None:
        order = [(self._layers[name], self._views.__dict__[name]) for name in names]
        this.run(self._stepping.backward(order, this.handler), "backward_pass")

    def _follow(self, plan: BackwardPlan) -> None:
        """Do what another plan says from now on."""
        self._plan = plan
        self.forget_memory()
        for name, layer in self._layers.items():
            layer.fresh, layer.unwanted = plan.fresh[name], plan.unwanted[name]

    def _find_what_to_clear(self) -> list[Any]:
        check_deltas_arrive(self._layers)
        manager, unwanted = self._manager, self._plan.unwanted_hubs
        if self._plan is self._training and self._is_worth_sharing():
            shared = self._share()
            self._views = shared.views
            return self._plan.buffers(manager.hubs, shared.hub_buffers)
        self.may_share &= self._plan is self._training
        manager.ensure_backward()
        self._forget(unwanted)
        for i in self._zeros_were_lost - unwanted:
            # A backward pass may rely on zeros that nobody writes.
            manager.handler.fill(manager.hub_buffers[i], 0.0)
        return self._plan.buffers(manager.hubs, manager.hub_buffers)

    def _forget(self, hubs: Collection[int]) -> None:
        """Let deltas be NaN, which nobody has computed."""
        for i in hubs:
            self._manager.handler.fill(self._manager.hub_buffers[i], float("nan"))
        self._zeros_were_lost |= {*hubs}

    # -- sharing memory -----------------------------------------------------------

    def _is_worth_sharing(self) -> bool:
        """Whether deltas share memory; if they do, then until somebody reads any."""
        if self.may_share and not self._shares:
            self._shares = is_worth_it(self._places(), *self._hubs_and_sizes())
        # Passes in place of those of a class may look at deltas when they like.
        has_others = any("backward_pass" in vars(la) for la in self._layers.values())
        return self.may_share and self._shares and not has_others

    def _hubs_and_sizes(self) -> tuple[Any, int, int]:
        manager = self._manager
        return manager.hubs, manager.time_size, manager.batch_size

    def _places(self) -> Places:
        return place(self._life, *self._hubs_and_sizes())

    def _share(self) -> SharedDeltas:
        found = self._manager.sized.shared
        return found[0] if found else self._manager.share_deltas(*self._places())

    @property
    def views(self) -> BufferView:
        """The views that the last backward pass has worked on."""
        return self._views

    def _fill_in(self) -> None:
        """Compute what a user reads, of whom the manager tells."""
        self.may_share = False
        can_complete = self.can_complete
        self.forget_memory()
        if not self._has_shared:
            return
        self._has_shared, self.can_complete = False, can_complete
        if can_complete:
            self.complete()
        else:
            self._forget([i for i, _ in delta_hubs(self._manager.hubs)])

    # -- reading what was left out ------------------------------------------------

    def stop_keeping(self) -> None:
        """Keep the parameters no longer; what was left out can not be computed then."""
        self.keeps_parameters = False
        if not self._has_shared:
            self.can_complete, self._copy = False, None

    def complete_for_hooks(self) -> None:
        """Compute what hooks may be going to read, before others run the network."""
        if self.keeps_parameters:
            self.complete()

    def complete(self) -> None:
        """Compute what the last pass has left out, if it has kept the parameters.

        Only the network's deltas change; its gradients stay what modifiers have made
        of them.
        """
        if not self.can_complete or self._copy is None:
            return
        views, handler = self._manager.views, self._manager.handler
        kept = []
        for array in (views.parameters, views.gradients):
            kept.append((array, handler.zeros(tuple(array.shape))))
            handler.copy_to(*kept[-1])
        handler.copy_to(self._copy[1], views.parameters)
        try:
            self.run(all_deltas=True)
        finally:
            for array, values in kept:
                handler.copy_to(values, array)

    def check(self, path: str) -> None:
        """See to it that a buffer, which is about to be read, has been computed."""
        name, category, buffer_name = (*path.split("."), "", "")[:3]
        if name not in self._layers:
            return
        if category == "internals":
            structure = self._layers[name].internal_shapes.get(buffer_name)
            if structure is None or not structure.is_backward_only:
                return
        elif category not in ("input_deltas", "output_deltas"):
            return
        self.wants_all = True
        self.complete()
        if self._plan is self._training and buffer_name in self._left_out(
            name, category
        ):
            raise UnknownNameError(
                f"{path!r} was not computed, because no gradient depends on it, or not"
                " kept, because deltas shared memory, and nobody had asked for deltas"
                " by then. From now on training computes and keeps it; so does"
                " backward_pass()"
            )

    def _left_out(self, name: str, category: str) -> Collection[str]:
        """Names of the buffers that a pass leaves out, if it leaves out any."""
        layer = self._layers[name]
        if category == "input_deltas":
            return (
                layer.in_shapes if self._has_shared else self._training.unwanted[name]
            )
        if name in self._training.order and not self._has_shared:
            return ()
        if category == "output_deltas":
            return layer.out_shapes
        structures = layer.internal_shapes
        return [n for n in structures if structures[n].is_backward_only]

    @contextlib.contextmanager
    def computed_when_read(self) -> Iterator[None]:
        """While this lasts, also the views see to it that what is read is computed."""
        if not self.wants_all:
            for name in self._layers:
                for category in ("input_deltas", "output_deltas", "internals"):
                    names = self._left_out(name, category)
                    if names:
                        views = self._manager.views.__dict__[name]
                        self._hide(views.__dict__[category], names)
        try:
            yield
        finally:
            self.show()

    def _hide(self, view: BufferView, names: Collection[str]) -> None:
        """Have who reads children of a view call `complete` first."""

        def compute() -> None:
            self.wants_all = True
            self.show()
            self.complete()
            BufferView._ensure_complete(view)

        self._hidden.append((view, compute, view._complete))
        for name in names:
            view.__dict__.pop(name, None)
        view._complete = compute

    def show(self) -> None:
        """Let the views be as always."""
        hidden, self._hidden = self._hidden, []
        for view, compute, before in hidden:
            if view._complete is compute:  # else they have been filled anew
                view._complete = before
                children = zip(view._buffer_names, list.__iter__(view), strict=True)
                view.__dict__.update(children)

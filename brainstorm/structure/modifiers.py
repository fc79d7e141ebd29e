"""The modifiers of a network: which one is installed where, and running them."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from brainstorm.describable import create_from_description, get_description
from brainstorm.randomness import RandomState, Seedable
from brainstorm.structure.buffers import BufferManager
from brainstorm.structure.layer import Layer
from brainstorm.structure.trainable import (
    own_parameters,
    trained_slices,
    updated_slices,
)
from brainstorm.structure.view_references import is_named, resolve_references
from brainstorm.utils import NetworkValidationError
from brainstorm.value_modifiers import GradientModifier, ValueModifier

# By layer and parameter; those of the whole network are listed under 'default'.
ByPlace = dict[str, Any]


class Modifiers:
    """The modifiers of a network.

    Attributes:
        of_weights, of_gradients (dict): Lists of modifiers by layer and parameter;
            those of the whole network are listed under ``'default'``.
        trained_slices (list[slice]): Where in the flat parameters and gradients those
            lie that are trained.
        updated_slices (list[slice]): The same, as updates work on them.
    """

    def __init__(self, layers: Mapping[str, Layer], manager: BufferManager):
        self._layers = layers
        self._manager = manager
        self.of_weights: ByPlace = {}
        self.of_gradients: ByPlace = {}

    def plan(self) -> None:
        """Take note of which parameters are trained."""
        where = self._layers, self._manager.hubs[0]
        self.trained_slices: list[slice] = trained_slices(*where)
        self.updated_slices: list[slice] = updated_slices(*where)
        self._trained_part = _TrainedPart(self.trained_slices)

    def install(
        self, kind: str, references: Mapping[str, Any], rnd: RandomState
    ) -> None:
        """Install modifiers of ``'weights'`` or ``'gradients'``; `rnd` seeds them."""
        modifiers = _resolve(self._layers, references, rnd, kind == "weights")
        setattr(self, f"of_{kind}", modifiers)

    def describe(self) -> dict[str, Any]:
        """Their descriptions, as the description of a network has them."""
        of_each = {"gradient": self.of_gradients, "weight": self.of_weights}
        return {f"{k}_modifiers": get_description(m) for k, m in of_each.items()}

    def set_as_described(self, description: Mapping[str, Any], seeds: Seedable) -> None:
        """Install those of a network's description; `seeds` gives each kind a seed."""
        for kind in ("gradient", "weight"):
            described = description.get(f"{kind}_modifiers", {})
            modifiers = create_from_description(described)
            if modifiers:
                self.install(f"{kind}s", modifiers, seeds.rnd.create_random_state())

    def apply_to_gradients(self) -> None:
        """Run those of the gradients."""
        for layer, name, modifier in _each(self.of_gradients):
            both = isinstance(modifier, GradientModifier)
            categories = ("parameters", "gradients") if both else ("gradients",)
            self._run(modifier, layer, name, *categories)

    def start(self) -> None:
        """Let those of the weights look at these before a training."""
        for layer, name, modifier in _each(self.of_weights):
            self._run(modifier.start, layer, name, "parameters")

    def apply_to_weights(self) -> None:
        """Run those of the weights."""
        if self.of_weights:
            for layer, name, modifier in _each(self.of_weights):
                self._run(modifier, layer, name, "parameters")

    def _run(
        self,
        function: Callable[..., None],
        layer: str,
        name: str | None,
        *categories: str,
    ) -> None:
        """Run a modifier, or its `start`, on a parameter, unless that is frozen.

        Without a name it is for all parameters that are trained. `categories` are what
        to give it: ``'parameters'``, ``'gradients'``.
        """
        views, handler = self._manager.views, self._manager.handler
        if name is None:
            arrays = (views[category] for category in categories)
            self._trained_part.apply(function, handler, *arrays)
        elif name not in self._layers[layer].frozen:
            view = views[layer]
            function(handler, *[view[category][name] for category in categories])


def _resolve(
    layers: Mapping[str, Layer],
    references: Mapping[str, Any],
    rnd: RandomState,
    of_weights: bool = False,
) -> ByPlace:
    """Choose modifiers for every parameter, and for the whole network.

    Returns copies of the modifiers, in lists. They know their place, and have seeds of
    their own.
    """
    if "fallback" in references:
        raise NetworkValidationError("modifiers can not have a 'fallback'")
    installed: ByPlace = {}
    whole: list[Any] = []
    others: list[Any] = []
    for modifier in _listed(references.get("default")):
        (whole if _is_for_whole_network(modifier) else others).append(modifier)
    if whole:
        references = {**references, "default": others or None}
    chosen = resolve_references(own_parameters(layers), references, several=True)
    for layer, by_name in chosen.items():
        for name, (values, _) in by_name.items():
            modifiers = [m for value in values for m in _listed(value)]
            _check(modifiers, f"{layer}.{name}")
            # Layers change these themselves, such as running statistics.
            if name in layers[layer].computes_no_gradients_for and not (
                of_weights and is_named(references, layer, name)
            ):
                continue
            if modifiers:
                copies = [copy.deepcopy(modifier) for modifier in modifiers]
                installed.setdefault(layer, {})[name] = copies
    if whole:
        installed["default"] = [copy.deepcopy(modifier) for modifier in whole]
    for layer, view, modifier in _each(installed):
        if of_weights and isinstance(modifier, GradientModifier):
            place = layer if view is None else f"{layer}.{view}"
            raise NetworkValidationError(
                f"{type(modifier).__name__} for {place} modifies gradients: install it"
                " with set_gradient_modifiers"
            )
        modifier.rnd = rnd.create_random_state()
        if view is not None:
            modifier.layer_name, modifier.view_name = layer, view
    return installed


class _TrainedPart:
    """Gives modifiers of the whole network what is trained, in one piece."""

    def __init__(self, slices: Sequence[slice]):
        self.slices = slices
        ends = [0, *itertools.accumulate(part.stop - part.start for part in slices)]
        # Where they lie once they are put behind each other.
        self._places = [slice(*both) for both in itertools.pairwise(ends)]
        self._size = ends[-1]
        self._handler: Any = None
        self._copies: list[Any] = []

    def apply(self, function: Callable[..., None], handler: Any, *arrays: Any) -> None:
        """Call ``function(handler, *parts)``, which may change the last part."""
        if len(self.slices) == 1:
            function(handler, *(array[self.slices[0]] for array in arrays))
        elif self.slices:
            copies = self._allocate(handler, len(arrays))
            pairs = list(zip(self.slices, self._places, strict=True))
            for array, copy_of_part in zip(arrays, copies, strict=True):
                for part, place in pairs:
                    handler.copy_to(array[part], copy_of_part[place])
            function(handler, *copies)
            for part, place in pairs:
                handler.copy_to(copies[-1][place], arrays[-1][part])

    def _allocate(self, handler: Any, count: int) -> list[Any]:
        if self._handler is not handler:
            self._handler, self._copies = handler, []
        while len(self._copies) < count:
            self._copies.append(handler.allocate((self._size,)))
        return self._copies[:count]


def _each(modifiers: ByPlace) -> Iterator[tuple[str, str | None, Any]]:
    """Layer, parameter and modifier; no parameter if it is for the whole network."""
    for layer, parameters in modifiers.items():
        by_name = {None: parameters} if layer == "default" else parameters
        for name, installed in by_name.items():
            for modifier in installed:
                yield layer, name, modifier


def _check(modifiers: Sequence[Any], place: str) -> None:
    for modifier in modifiers:
        if not isinstance(modifier, (ValueModifier, GradientModifier)):
            raise NetworkValidationError(
                f"expected a modifier for {place}, got {modifier!r}. ByPlace are"
                " objects of classes derived from ValueModifier or GradientModifier,"
                " so that they can be saved"
            )
        if _is_for_whole_network(modifier):
            raise NetworkValidationError(
                f"{modifier!r} is for the whole network: give it as the outer"
                f" 'default', not for {place}"
            )


def _listed(value: Any) -> list[Any]:
    """The modifiers in a value, which may be one, a list of them or None."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _is_for_whole_network(modifier: Any) -> bool:
    return getattr(modifier, "whole_network", False)

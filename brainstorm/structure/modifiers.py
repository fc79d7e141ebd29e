"""Which modifier is installed where in a network."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from brainstorm.layers.base_layer import Layer
from brainstorm.randomness import RandomState
from brainstorm.structure.trainable import own_parameters
from brainstorm.structure.view_references import is_named, resolve_references
from brainstorm.utils import NetworkValidationError
from brainstorm.value_modifiers import GradientModifier, ValueModifier

__all__ = ["Modifiers", "TrainedPart", "each_modifier", "resolve_modifiers"]

# By layer and parameter; those of the whole network are listed under 'default'.
Modifiers = dict[str, Any]


def resolve_modifiers(
    layers: Mapping[str, Layer],
    references: Mapping[str, Any],
    rnd: RandomState,
    of_weights: bool = False,
) -> Modifiers:
    """Choose modifiers for every parameter, and for the whole network.

    Args:
        layers: The layers by name.
        references: See `Network.set_weight_modifiers`.
        rnd: Gives the seeds of the modifiers.
        of_weights: Whether they will change parameters, not gradients.

    Returns:
        Copies of the modifiers, in lists. They know their place, and have seeds of
        their own.

    Raises:
        NetworkValidationError: The references do not fit, or something is no modifier.
    """
    if "fallback" in references:
        raise NetworkValidationError("modifiers can not have a 'fallback'")
    resolved: Modifiers = {}
    references, whole_network = _split_whole_network(references)
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
                resolved.setdefault(layer, {})[name] = modifiers
    if whole_network:
        resolved["default"] = whole_network
    if of_weights:
        _check_of_weights(resolved)
    return _copies(resolved, rnd)


class TrainedPart:
    """Gives modifiers of the whole network what is trained, in one piece.

    Args:
        slices: Where in the flat parameters and gradients that lies.
    """

    def __init__(self, slices: Sequence[slice]):
        self.slices = slices
        self._handler: Any = None
        self._copies: list[Any] = []

    def apply(self, function: Callable[..., None], handler: Any, *arrays: Any) -> None:
        """Call ``function(handler, *parts)`` with parts of flat arrays.

        Args:
            function: What may change the last of its arguments.
            handler: The handler that the arrays belong to.
            *arrays: One or two flat arrays.
        """
        if len(self.slices) == 1:
            function(handler, *(array[self.slices[0]] for array in arrays))
        elif self.slices:
            copies = self._allocate(handler, len(arrays))
            for array, copy_of_part in zip(arrays, copies, strict=True):
                for part, place in zip(self.slices, self._places(), strict=True):
                    handler.copy_to(array[part], copy_of_part[place])
            function(handler, *copies)
            for part, place in zip(self.slices, self._places(), strict=True):
                handler.copy_to(copies[-1][place], arrays[-1][part])

    def _places(self) -> Iterator[slice]:
        """Where the slices lie once they are put behind each other."""
        start = 0
        for part in self.slices:
            stop = start + part.stop - part.start
            yield slice(start, stop)
            start = stop

    def _allocate(self, handler: Any, count: int) -> list[Any]:
        if self._handler is not handler:
            self._handler, self._copies = handler, []
        size = sum(part.stop - part.start for part in self.slices)
        while len(self._copies) < count:
            self._copies.append(handler.allocate((size,)))
        return self._copies[:count]


def each_modifier(modifiers: Modifiers) -> Iterator[tuple[str, str | None, Any]]:
    """Layer, parameter and modifier; no parameter if it is for the whole network."""
    for layer, parameters in modifiers.items():
        by_name = {None: parameters} if layer == "default" else parameters
        for name, installed in by_name.items():
            for modifier in installed:
                yield layer, name, modifier


def _check_of_weights(modifiers: Modifiers) -> None:
    for layer, name, modifier in each_modifier(modifiers):
        if isinstance(modifier, GradientModifier):
            place = layer if name is None else f"{layer}.{name}"
            raise NetworkValidationError(
                f"{type(modifier).__name__} for {place} modifies gradients: install it"
                " with set_gradient_modifiers"
            )


def _check(modifiers: Sequence[Any], place: str) -> None:
    for modifier in modifiers:
        if not isinstance(modifier, (ValueModifier, GradientModifier)):
            raise NetworkValidationError(
                f"expected a modifier for {place}, got {modifier!r}. Modifiers are"
                " objects of classes derived from ValueModifier or GradientModifier,"
                " so that they can be saved"
            )
        if _is_for_whole_network(modifier):
            raise NetworkValidationError(
                f"{modifier!r} is for the whole network: give it as the outer"
                f" 'default', not for {place}"
            )


def _copies(modifiers: Modifiers, rnd: RandomState) -> Modifiers:
    """Copies that know their place, and draw random numbers of their own."""
    copies: Modifiers = {}
    for layer, name, modifier in each_modifier(modifiers):
        duplicate = copy.deepcopy(modifier)
        duplicate.rnd = rnd.create_random_state()
        if name is None:
            copies.setdefault(layer, []).append(duplicate)
            continue
        duplicate.layer_name, duplicate.view_name = layer, name
        copies.setdefault(layer, {}).setdefault(name, []).append(duplicate)
    return copies


def _listed(value: Any) -> list[Any]:
    """The modifiers in a value, which may be one, a list of them or None."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _split_whole_network(
    references: Mapping[str, Any],
) -> tuple[dict[str, Any], list[Any]]:
    """Take those modifiers out of the default that are for the whole network."""
    modifiers = _listed(references.get("default"))
    whole = [m for m in modifiers if _is_for_whole_network(m)]
    rest = [m for m in modifiers if not _is_for_whole_network(m)]
    if not whole:
        return dict(references), []
    return {**references, "default": rest or None}, whole


def _is_for_whole_network(modifier: Any) -> bool:
    return getattr(modifier, "whole_network", False)

"""Which modifier is installed where in a network."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from brainstorm.structure.view_references import resolve_references
from brainstorm.utils import NetworkValidationError
from brainstorm.value_modifiers import GradientModifier

__all__ = ["Modifiers", "each_modifier", "resolve_modifiers"]

# By layer and parameter; those of the whole network are listed under 'default'.
Modifiers = dict[str, Any]


def resolve_modifiers(
    parameters: Mapping[str, Sequence[str]],
    references: Mapping[str, Any],
    of_weights: bool = False,
) -> Modifiers:
    """Choose modifiers for every parameter, and for the whole network.

    Args:
        parameters: Names of the parameters of each layer.
        references: See `Network.set_weight_modifiers`.
        of_weights: Whether they will change parameters, not gradients.

    Returns:
        Copies of the modifiers, in lists.

    Raises:
        NetworkValidationError: The references do not fit, or something is no modifier.
    """
    if "fallback" in references:
        raise NetworkValidationError("modifiers can not have a 'fallback'")
    resolved: Modifiers = {}
    references, whole_network = _split_whole_network(references)
    for layer, chosen in resolve_references(parameters, references).items():
        for name, (value, _) in chosen.items():
            if value is not None:
                modifiers = value if isinstance(value, (list, tuple)) else [value]
                _check(modifiers, f"{layer}.{name}")
                resolved.setdefault(layer, {})[name] = [
                    copy.deepcopy(m) for m in modifiers
                ]
    if whole_network:
        resolved["default"] = copy.deepcopy(whole_network)
    if of_weights:
        _check_of_weights(resolved)
    return resolved


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
        if not callable(modifier):
            raise NetworkValidationError(
                f"expected a modifier for {place}, got {modifier!r}"
            )
        if _is_for_whole_network(modifier):
            raise NetworkValidationError(
                f"{modifier!r} is for the whole network: give it as the outer"
                f" 'default', not for {place}"
            )


def _split_whole_network(
    references: Mapping[str, Any],
) -> tuple[dict[str, Any], list[Any]]:
    """Take those modifiers out of the default that are for the whole network."""
    default = references.get("default")
    modifiers = default if isinstance(default, (list, tuple)) else [default]
    whole = [m for m in modifiers if _is_for_whole_network(m)]
    rest = [m for m in modifiers if not _is_for_whole_network(m)]
    if not whole:
        return dict(references), []
    return {**references, "default": rest or None}, whole


def _is_for_whole_network(modifier: Any) -> bool:
    return getattr(modifier, "whole_network", False)

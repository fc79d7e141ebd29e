"""Choosing something for every parameter by patterns of names.

This is how ``Network.initialize`` and ``set_*_modifiers`` read their dicts:
``{'Conv*': {'W': A, 'bias': B}, 'default': C, 'fallback': D}``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from brainstorm.utils import NetworkValidationError, listing

SPECIAL = ("default", "fallback")


class Resolved(NamedTuple):
    """What was chosen for one parameter; None where there was nothing.

    If several values may be chosen, `value` is a list of them.
    """

    value: Any
    fallback: Any


def merge_references(
    default_or_dict: Any, keyword_arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """One dict from the ways to write it; keyword arguments take precedence."""
    if default_or_dict is None:
        merged = {}
    elif isinstance(default_or_dict, Mapping):
        merged = dict(default_or_dict)
    else:
        merged = {"default": default_or_dict}
    return {**merged, **keyword_arguments}


def resolve_references(
    parameters: Mapping[str, Sequence[str]],
    references: Mapping[str, Any],
    several: bool = False,
) -> dict[str, dict[str, Resolved]]:
    """Choose a value and a fallback for every parameter.

    Args:
        parameters: Names of the parameters of each layer; there may be none.
        references: Maps patterns of layer names to values, or to dicts that map
            patterns of parameter names to values. ``*`` matches any text.
            ``'default'`` counts where no other pattern matches, ``'fallback'``
            is collected separately; inner ones come before outer ones. The outer
            ``'default'`` may be such a dict, too.
        several: Whether to choose all values that fit, in their order, and not just
            the only one.

    Returns:
        By layer and parameter.

    Raises:
        NetworkValidationError: A pattern matches nothing, or is no text, or several
            values fit one parameter. Patterns may match a layer without parameters.
    """
    _check_patterns(references)
    matched: set[str] = set()
    resolved = {
        layer: {
            name: _resolve(layer, name, references, matched, several)
            for name in layer_names
        }
        for layer, layer_names in parameters.items()
    }
    bare = [layer for layer, layer_names in parameters.items() if not layer_names]
    unused = [
        path
        for pattern, paths in _patterns(references).items()
        for path in paths
        if path not in matched
        and path != "default"
        and not any(_matches(pattern, layer) for layer in bare)
    ]
    if unused:
        choices = [f"{layer}.{name}" for layer, ns in parameters.items() for name in ns]
        raise NetworkValidationError(
            f"the pattern {listing(unused)} matches no parameter; there are:"
            f" {listing(choices)}"
        )
    return resolved


def is_named(
    references: Mapping[str, Any], layer: str, name: str, partly: bool = False
) -> bool:
    """Whether a parameter is chosen by its name, not by a default.

    With `partly`, patterns that have some of its letters count, too.
    """
    return any(
        (pattern == "default" or _matches(pattern, layer))
        and _is_dict(value)
        and any(
            inner == name or (partly and inner.strip("*") and _matches(inner, name))
            for inner in value
            if inner not in SPECIAL
        )
        for pattern, value in references.items()
        if pattern != "fallback"
    )


def _check_patterns(references: Mapping[Any, Any]) -> None:
    inner = [p for value in references.values() if _is_dict(value) for p in value]
    wrong = [p for p in [*references, *inner] if not isinstance(p, str)]
    if wrong:
        raise NetworkValidationError(
            f"expected names or patterns of names, got {listing(wrong)}"
        )


def _patterns(references: Mapping[str, Any]) -> dict[str, list[str]]:
    """Full patterns of all values but the defaults and fallbacks, by layer pattern."""
    found = {}
    for pattern, value in references.items():
        if pattern == "fallback" or (pattern == "default" and not _is_dict(value)):
            continue
        inner = [p for p in value if p not in SPECIAL] if _is_dict(value) else []
        found[pattern] = [f"{pattern}.{p}" for p in inner] or [pattern]
    return found


def _resolve(
    layer: str,
    name: str,
    references: Mapping[str, Any],
    matched: set[str],
    several: bool,
) -> Resolved:
    """Choose for one parameter, and note which patterns matched."""
    fitting = {
        pattern: value
        for pattern, value in references.items()
        if pattern not in SPECIAL and _matches(pattern, layer)
    }
    values, defaults, fallbacks = _collect(fitting, name, matched)
    default = references.get("default")
    if _is_dict(default):
        of_default = _collect({"default": default}, name, matched)
        if not (values or defaults):
            values, defaults, _ = of_default
        fallbacks, default = fallbacks or of_default[2], None
    values = values or defaults or {"default": default}
    for found in (fallbacks,) if several else (values, fallbacks):
        if len(found) > 1:
            raise NetworkValidationError(
                f"several patterns match {layer}.{name}: {listing(found)}"
            )
    fallback = next(iter(fallbacks.values()), references.get("fallback"))
    value = list(values.values()) if several else next(iter(values.values()))
    return Resolved(value, fallback)


def _collect(
    references: Mapping[str, Any], name: str, matched: set[str]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Values, defaults and fallbacks for a parameter in what is for its layer."""
    values, defaults, fallbacks = {}, {}, {}
    for pattern, value in references.items():
        if not _is_dict(value):
            matched.add(pattern)
            values[pattern] = value
            continue
        if not any(p not in SPECIAL for p in value):
            matched.add(pattern)
        for inner, inner_value in value.items():
            path = f"{pattern}.{inner}"
            if inner == "default":
                defaults[path] = inner_value
            elif inner == "fallback":
                fallbacks[path] = inner_value
            elif _matches(inner, name):
                matched.add(path)
                values[path] = inner_value
    return values, defaults, fallbacks


def _is_dict(value: Any) -> bool:
    return isinstance(value, Mapping)


def _matches(pattern: str, name: str) -> bool:
    parts = (re.escape(part) for part in pattern.split("*"))
    return re.fullmatch(".*".join(parts), name) is not None

"""Choosing something for every parameter by patterns of names.

This is how ``Network.initialize`` and ``set_*_modifiers`` read their dicts:
``{'Conv*': {'W': A, 'bias': B}, 'default': C, 'fallback': D}``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from brainstorm.utils import NetworkValidationError, listing

SPECIAL = frozenset({"default", "fallback"})
_NOTHING = object()


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
    """Choose a value and a fallback for every parameter of each layer.

    `references` maps patterns of layer names to values, or to dicts that map patterns
    of parameter names to values. ``*`` matches any text. ``'default'`` counts where no
    other pattern matches, ``'fallback'`` is collected separately; inner ones come
    before outer ones. The outer ``'default'`` may be such a dict, too. With `several`,
    all values that fit are chosen, in their order, and not just the only one. Patterns
    may match a layer without parameters.
    """
    inner = [p for value in references.values() if _is_dict(value) for p in value]
    wrong = [p for p in [*references, *inner] if not isinstance(p, str)]
    if wrong:
        raise NetworkValidationError(
            f"expected names or patterns of names, got {listing(wrong)}"
        )
    entries = list(_entries(references))
    unused = [
        e.path
        for e in entries
        if e.name not in SPECIAL
        and e.path != "default"
        and not any(
            any(_matches(e.name, n) for n in names) if names else not e.is_default
            for layer, names in parameters.items()
            if _matches(e.layer, layer)
        )
    ]
    if unused:
        choices = [f"{layer}.{name}" for layer, ns in parameters.items() for name in ns]
        raise NetworkValidationError(
            f"the pattern {listing(unused)} matches no parameter; there are:"
            f" {listing(choices)}"
        )
    return {
        layer: {
            name: _resolve(layer, name, references, entries, several) for name in names
        }
        for layer, names in parameters.items()
    }


def is_named(
    references: Mapping[str, Any], layer: str, name: str, partly: bool = False
) -> bool:
    """Whether a parameter is chosen by its name, not by a default.

    With `partly`, patterns that have some of its letters count, too.
    """
    return any(
        e.name == name or (partly and e.name.strip("*") and _matches(e.name, name))
        for e in _entries(references)
        if e.name not in SPECIAL and _matches(e.layer, layer)
    )


class _Entry(NamedTuple):
    """A value, with the patterns of the layers and parameters that it is for."""

    path: str
    layer: str
    name: str
    value: Any
    is_default: bool


def _entries(references: Mapping[str, Any]) -> Iterator[_Entry]:
    """All but the outer fallback; the outer default is for all layers."""
    for pattern, value in references.items():
        if pattern == "fallback":
            continue
        inner = value if _is_dict(value) else {"*": value}
        layer, is_default = ("*", True) if pattern == "default" else (pattern, False)
        for name, one in inner.items():
            path = f"{pattern}.{name}" if _is_dict(value) else pattern
            yield _Entry(path, layer, name, one, is_default)
        if SPECIAL.issuperset(inner):  # it still has to match something
            yield _Entry(pattern, layer, "*", _NOTHING, is_default)


def _resolve(
    layer: str,
    name: str,
    references: Mapping[str, Any],
    entries: Sequence[_Entry],
    several: bool,
) -> Resolved:
    """Choose for one parameter."""
    # By whether they belong to the outer default, and by kind.
    found: dict[tuple[bool, str], dict[Any, Any]] = {
        (d, k): {} for d in (False, True) for k in ("", *SPECIAL)
    }
    for e in entries:
        kind = e.name if e.name in SPECIAL else ""
        fits = _matches(e.layer, layer) and (kind or _matches(e.name, name))
        if fits and e.value is not _NOTHING:
            found[e.is_default, kind][e.path] = e.value
    order = [(False, ""), (False, "default"), (True, ""), (True, "default")]
    values = next(filter(None, map(found.get, order)), {"default": None})
    fallbacks = found[False, "fallback"] or found[True, "fallback"]
    for one in (fallbacks,) if several else (values, fallbacks):
        if len(one) > 1:
            raise NetworkValidationError(
                f"several patterns match {layer}.{name}: {listing(one)}"
            )
    fallback = next(iter(fallbacks.values()), references.get("fallback"))
    value = list(values.values()) if several else next(iter(values.values()))
    return Resolved(value, fallback)


def _is_dict(value: Any) -> bool:
    return isinstance(value, Mapping)


def _matches(pattern: str, name: str) -> bool:
    parts = (re.escape(part) for part in pattern.split("*"))
    return re.fullmatch(".*".join(parts), name) is not None

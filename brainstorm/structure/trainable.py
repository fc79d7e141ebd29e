"""Which parameters are trained, and which are shared between layers.

In an architecture, ``'@trainable'`` is False for a layer whose parameters are frozen,
or a dict with False for some of them. ``'@shared'`` names a layer whose parameters
are used instead of own ones, or maps names of parameters to ``'layer.parameter'``.
The Input's ``'@joins'`` may be ``'running order'``, see `joins_in_running_order`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from brainstorm.structure.buffer_structure import BufferStructure
from brainstorm.structure.layer import Layer
from brainstorm.structure.layout import Hub
from brainstorm.structure.view_references import Resolved
from brainstorm.utils import NetworkValidationError, choices, listing

# A parameter of so many numbers is updated by itself.
_LARGE = 2**18

# A property of the Input in networks of the development version of 0.6.0.
OLD_JOINS = {"@joins": "running order"}


def set_layer_properties(
    layers: Mapping[str, Layer], architecture: Mapping[str, Any]
) -> None:
    """Tell layers which of their parameters are frozen or shared, and so on."""
    for name, layer in layers.items():
        layer.shared = _shared(layer, architecture[name].get("@shared", {}))
        layer.frozen = _frozen(layer, architecture[name].get("@trainable", True))
    owned = {
        f"{name}.{parameter}": structure
        for name, layer in layers.items()
        for parameter, structure in layer.parameter_shapes.items()
        if parameter not in layer.shared
    }
    for layer in layers.values():
        _check_shared(layer, layers, owned)
    old_joins = OLD_JOINS.items() <= architecture["Input"].items()
    layers["Input"].joins_in_running_order = old_joins


def with_trainable(
    architecture: Mapping[str, Any], chosen: Mapping[str, Mapping[str, Resolved]]
) -> dict[str, Any]:
    """A copy of an architecture that says which parameters are trained.

    `chosen` has True, False or, for nothing chosen, None by layer and parameter.
    """
    changed = {
        name: {k: v for k, v in properties.items() if k != "@trainable"}
        for name, properties in architecture.items()
    }
    for layer, parameters in chosen.items():
        for name, (value, fallback) in parameters.items():
            if fallback is not None:
                raise NetworkValidationError("trainable can not have a 'fallback'")
            if not (value is None or isinstance(value, bool)):
                raise NetworkValidationError(
                    f"expected True or False for {layer}.{name}, got {value!r}"
                )
        frozen = {n: False for n, (value, _) in parameters.items() if value is False}
        if frozen:
            everything = len(frozen) == len(parameters)
            changed[layer]["@trainable"] = False if everything else frozen
    return changed


def own_parameters(layers: Mapping[str, Layer]) -> dict[str, list[str]]:
    """Names of the parameters that each layer has for itself.

    Layers that share all that they have are left out: nothing can be chosen for them.
    """
    names = {
        layer_name: [n for n in layer.parameter_shapes if n not in layer.shared]
        for layer_name, layer in layers.items()
    }
    return {n: own for n, own in names.items() if own or not layers[n].shared}


def number_of_own(layer: Layer) -> int:
    """How many numbers the parameters are that a layer has for itself."""
    shapes = layer.parameter_shapes.items()
    return sum(s.feature_size for name, s in shapes if name not in layer.shared)


def is_trained(layers: Mapping[str, Layer], layer_name: str, name: str) -> bool:
    """Whether a layer has to compute the gradient of one of its parameters."""
    layer = layers[layer_name]
    if name in layer.computes_no_gradients_for:
        return False
    owner, _, owned = layer.shared.get(name, f"{layer_name}.{name}").partition(".")
    return owned not in layers[owner].frozen


def trained_slices(layers: Mapping[str, Layer], hub: Hub) -> list[slice]:
    """Where in the hub of parameters those lie that steppers change."""
    return _slices(hub, lambda layer, name: is_trained(layers, layer, name))


def updated_slices(layers: Mapping[str, Layer], hub: Hub) -> list[slice]:
    """The same, but each large parameter begins a slice.

    So threads that share the work on a slice have parts of a matrix that are the same
    each time.
    """
    return _slices(hub, lambda layer, name: is_trained(layers, layer, name), _LARGE)


def trained_parameters(
    layers: Mapping[str, Layer], hub: Hub
) -> list[tuple[str, slice, tuple[int, ...]]]:
    """The layer, the place in the hub and the shape of each that steppers change."""
    found = []
    for path in hub.sources:
        layer, _, name = path.split(".")
        if is_trained(layers, layer, name):
            shape = layers[layer].parameter_shapes[name].feature_shape
            found.append((layer, slice(*hub.slices[path]), shape))
    return found


def frozen_slices(layers: Mapping[str, Layer], hub: Hub) -> list[slice]:
    """Where in the hub of parameters those lie that are frozen."""
    return _slices(hub, lambda layer, name: name in layers[layer].frozen)


def _slices(
    hub: Hub, accept: Callable[[str, str], bool], apart: float = math.inf
) -> list[slice]:
    """Where the accepted ones lie, with those that touch as one slice.

    A parameter of at least the size `apart` begins a new one.
    """
    merged: list[slice] = []
    for path in hub.sources:
        layer, _, name = path.split(".")
        start, stop = hub.slices[path]
        if not accept(layer, name):
            continue
        touches = merged and merged[-1].stop == start
        if touches and stop - start < apart:
            start = merged.pop().start
        merged.append(slice(start, stop))
    return merged


def _frozen(layer: Layer, trainable: Any) -> frozenset[str]:
    own = [name for name in layer.parameter_shapes if name not in layer.shared]
    by_name = trainable
    if isinstance(trainable, bool):
        by_name = dict.fromkeys(own, trainable)
    if not isinstance(by_name, Mapping) or not all(
        isinstance(value, bool) for value in by_name.values()
    ):
        raise NetworkValidationError(
            f"layer {layer.name!r}: expected True, False, or a dict of these by names"
            f" of parameters as '@trainable', got {trainable!r}"
        )
    unknown = [name for name in by_name if name not in own]
    if unknown:
        raise NetworkValidationError(
            f"layer {layer.name!r} has no parameter {listing(unknown)} of its own to be"
            f" trainable or not; {choices(unknown[0], own)}"
        )
    return frozenset(name for name, value in by_name.items() if not value)


def _shared(layer: Layer, shared: Any) -> dict[str, str]:
    if isinstance(shared, str):
        return {name: f"{shared}.{name}" for name in layer.parameter_shapes}
    if not isinstance(shared, Mapping) or not all(
        isinstance(owner, str) for owner in shared.values()
    ):
        raise NetworkValidationError(
            f"layer {layer.name!r}: expected the name of a layer, or a dict of texts"
            f" like 'layer.parameter', as '@shared', got {shared!r}"
        )
    return dict(shared)


def _check_shared(
    layer: Layer, layers: Mapping[str, Layer], owned: Mapping[str, BufferStructure]
) -> None:
    for name, owner in layer.shared.items():
        if name not in layer.parameter_shapes:
            raise NetworkValidationError(
                f"layer {layer.name!r} has no parameter {name!r} to share;"
                f" {choices(name, layer.parameter_shapes)}"
            )
        if owner not in owned:
            raise NetworkValidationError(
                f"layer {layer.name!r} can not share {name!r} with {owner!r}; choices"
                f" are: {listing(owned)}"
            )
        shapes = layer.parameter_shapes[name].shape, owned[owner].shape
        if shapes[0] != shapes[1]:
            raise NetworkValidationError(
                f"layer {layer.name!r} can not share {name!r} of the shape {shapes[0]}"
                f" with {owner!r} of the shape {shapes[1]}"
            )
    if layer.shared and layer.stacks_parameters:
        other = next(iter(layer.shared.values())).partition(".")[0]
        if layer.shared != {
            n: f"{other}.{n}" for n in layers[other].parameter_shapes
        } or list(layer.parameter_shapes) != list(layers[other].parameter_shapes):
            raise NetworkValidationError(
                f"layer {layer.name!r} can share all of its parameters, with one layer"
                " of its kind, or none"
            )

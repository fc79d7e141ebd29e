"""First values of the parameters, and descriptions of what gave them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from brainstorm import initializers
from brainstorm.describable import Describable, create_from_description, get_description
from brainstorm.literals import InitializerName
from brainstorm.randomness import RandomState
from brainstorm.structure.layer import Layer
from brainstorm.structure.trainable import own_parameters
from brainstorm.structure.view_references import Resolved, is_named, resolve_references
from brainstorm.utils import InitializationError, NetworkValidationError, listing

NAMED: Mapping[str, Callable[[], initializers.Initializer]] = {
    "glorot": initializers.XavierUniform,
    "he": initializers.KaimingNormal,
    "lecun": initializers.LecunNormal,
    "orthogonal": initializers.Orthogonal,
}
Initial: TypeAlias = (
    InitializerName | float | list[Any] | np.ndarray | Callable[[tuple[int, ...]], Any]
)
"""What gives initial values: an initializer, its name, or the values themselves."""

# Of what comes out of these about half is cut off.
_RECTIFIERS = frozenset({"rel", "relu", "relu6", "el", "gelu", "swish", "mish"})
# As text, numbers take ten times their memory, and parameters are saved anyway.
_LARGEST_DESCRIBED = 10_000


def initial_values(
    layers: Mapping[str, Layer], references: Mapping[str, Any], rnd: RandomState
) -> dict[str, np.ndarray]:
    """First values of all parameters by their paths, see `Network.initialize`."""
    chosen = resolve_references(own_parameters(layers), references)
    for layer, parameters in chosen.items():
        for name, value in layers[layer].first_values.items():
            if name in parameters and not is_named(references, layer, name, True):
                parameters[name] = Resolved(value, None)
    lost = [
        f"{layer}.{name}"
        for layer, parameters in chosen.items()
        for name, c in parameters.items()
        if c.value is None
    ]
    if lost:
        raise NetworkValidationError(f"nothing initializes {listing(lost)}")
    values = {}
    for layer in sorted(chosen):
        for name in sorted(chosen[layer]):
            value, fallback = chosen[layer][name]
            shape = layers[layer].parameter_shapes[name].shape
            if isinstance(value, str):
                value = _by_name(value, layers[layer], shape)
            path, seed = f"{layer}.parameters.{name}", rnd.generate_seed()
            try:
                values[path] = initializers.evaluate_initializer(
                    value, shape, fallback, seed
                )
            except InitializationError as error:
                hint = "" if fallback else "; a 'fallback' is used where that fails"
                raise InitializationError(f"{layer}.{name}: {error}{hint}") from error
    return values


def _by_name(name: str, layer: Layer, shape: tuple[int, ...]) -> Any:
    """The initializer of this name; vectors, such as biases, begin with 0."""
    if name == "auto":
        is_cut = getattr(layer, "activation", None) in _RECTIFIERS
        name = "he" if is_cut else "glorot"
    if name not in NAMED:
        raise NetworkValidationError(
            f"there is no initializer {name!r}; there are {listing([*NAMED, 'auto'])},"
            " and those in brainstorm.initializers"
        )
    return NAMED[name]() if len(shape) > 1 else 0.0


def create_initializers(description: Any) -> Any:
    """Initializers from what `describe_initializers` made of them."""
    if isinstance(description, str) and not description.startswith("<"):
        return description
    if isinstance(description, str):
        warnings.warn(
            f"the initializer {description} is only named in the description: the"
            " parameters that it is for become 0",
            stacklevel=2,
        )
        return 0.0
    if isinstance(description, Mapping) and "@type" not in description:
        return {k: create_initializers(v) for k, v in description.items()}
    return create_from_description(description)


def describe_initializers(references: Any) -> Any:
    """Describe initializers; functions and large arrays are only named."""
    if isinstance(references, str):
        return references
    if isinstance(references, Mapping):
        return {k: describe_initializers(v) for k, v in references.items()}
    if isinstance(references, np.ndarray) and references.size > _LARGEST_DESCRIBED:
        return f"<array {references.shape}>"
    if callable(references) and not isinstance(references, Describable):
        return f"<{getattr(references, '__name__', type(references).__name__)}>"
    return get_description(references)

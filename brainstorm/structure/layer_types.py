"""Which class the name of a layer type means.

Architectures and files name the types of layers: see `Registry` for what a name means.
A layer that is wired by its class is of just that class, whatever its name means.
"""

from __future__ import annotations

from brainstorm.describable import Registry, TypeName
from brainstorm.utils import LayerValidationError

ENDING = "LayerImpl"

LAYER_TYPES = Registry()
"""The subclasses of `Layer` by the names of their types."""


def type_of(layer_class: type) -> TypeName:
    """The name of the type of a class, which remembers the class."""
    return TypeName(layer_type_name(layer_class), layer_class, LAYER_TYPES)


def layer_type_name(layer_class: type | str) -> str:
    """The type name of a layer's class: ``Foo`` for ``FooLayerImpl``.

    Args:
        layer_class: The class, or its name.

    Raises:
        LayerValidationError: The class name does not end in ``LayerImpl``.
    """
    name = layer_class.__name__ if isinstance(layer_class, type) else layer_class
    if not isinstance(name, str) or not name.endswith(ENDING) or name == ENDING:
        raise LayerValidationError(
            f"the name of a layer's class has to end in {ENDING!r}, but {name!r} does"
            " not"
        )
    return name.removesuffix(ENDING)

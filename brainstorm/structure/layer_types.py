"""Which class the name of a layer type means.

Architectures and files name the types of layers: see `Registry` for what a name means.
A layer that is wired by its class is of just that class, whatever its name means.
"""

from __future__ import annotations

from brainstorm.describable import Registry
from brainstorm.utils import LayerValidationError

__all__ = ["LAYER_TYPES", "LayerType", "layer_type_name", "warn_of_replacement"]

ENDING = "LayerImpl"

LAYER_TYPES = Registry()
"""The subclasses of `Layer` by the names of their types."""


class LayerType(str):
    """The name of a layer type, which remembers the class that is meant.

    In JSON and in pickles it is a name like any other.
    """

    layer_class: type

    def __new__(cls, layer_class: type) -> LayerType:
        """The name of the type of a class."""
        self = super().__new__(cls, layer_type_name(layer_class))
        self.layer_class = layer_class
        return self

    def __deepcopy__(self, memo: dict) -> LayerType:
        return self

    def __reduce__(self) -> tuple[type, tuple[str]]:
        warn_of_replacement(self.layer_class)
        return str, (str(self),)


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


def warn_of_replacement(layer_class: type) -> None:
    """Warn if the name of a layer's type does not mean its class."""
    LAYER_TYPES.warn_unless_meant(
        layer_class.__name__.removesuffix(ENDING), layer_class
    )

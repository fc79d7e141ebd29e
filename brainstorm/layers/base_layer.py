"""The base class of all layers, where version 0.5 had it."""

from brainstorm.structure.layer import (
    Layer,
    get_layer_class_from_typename,
    once_per_resize,
)

__all__ = ["Layer", "get_layer_class_from_typename", "once_per_resize"]

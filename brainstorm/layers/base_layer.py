"""What layers are written with: their base class, structures of buffers, and wiring."""

from brainstorm.structure.buffer_structure import BufferStructure, StructureTemplate
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.structure.layer import (
    Layer,
    get_layer_class_from_typename,
    once_per_resize,
)

__all__ = ["BufferStructure", "ConstructionWrapper", "Layer", "StructureTemplate"]
__all__ += ["get_layer_class_from_typename", "once_per_resize"]

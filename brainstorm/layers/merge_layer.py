"""Joining two inputs."""

from __future__ import annotations

from brainstorm.layers.base_layer import Layer, once_per_resize
from brainstorm.structure.buffer_structure import BufferStructure, StructureTemplate
from brainstorm.structure.construction import ConstructionWrapper

__all__ = ["Merge", "MergeLayerImpl"]


def Merge(name: str | None = None) -> ConstructionWrapper:
    """A layer that joins two inputs along their last dimension.

    For inputs with a single feature dimension no layer is needed: wire both to
    the same input of the next layer, which costs no copy.
    """
    return ConstructionWrapper.create(MergeLayerImpl, name=name)


class MergeLayerImpl(Layer):
    """Computes ``y = [a, b]``, joined along the last dimension.

    ======== ======== =================== =======
    buffer   name     shape               content
    ======== ======== =================== =======
    inputs   inputs_1 (T, B, ..., m)      a
    inputs   inputs_2 (T, B, ..., n)      b
    outputs  default  (T, B, ..., m + n)  y
    ======== ======== =================== =======

    Raises:
        LayerValidationError: The shapes of the inputs differ in other dimensions
            than the last.
    """

    expected_inputs = {
        "inputs_1": StructureTemplate("T", "B", "..."),
        "inputs_2": StructureTemplate("T", "B", "..."),
    }
    honours_fresh = True
    repeats = True

    def setup(self, kwargs, in_shapes):
        *first, m = in_shapes["inputs_1"].shape
        *second, n = in_shapes["inputs_2"].shape
        if first != second:
            raise self.error(
                f"expected the shape {(*first, 'any')} at input 'inputs_2' for"
                f" 'inputs_1' of {(*first, m)}, got {(*second, n)}"
            )
        return {"default": BufferStructure(*first, m + n)}, {}, {}

    def forward_pass(self, buffers, training_pass=True):
        a, b = buffers.inputs
        self.handler.merge_tt(a, b, buffers.outputs.default)

    @once_per_resize
    def parts(self, buffers):
        """The name, the deltas and the part of y's deltas of each input."""
        da, db = buffers.input_deltas
        dy = buffers.output_deltas.default
        m = da.shape[-1]
        return ("inputs_1", da, dy[..., :m]), ("inputs_2", db, dy[..., m:])

    def backward_pass(self, buffers):
        h = self.handler
        for input_name, dx, part in self.parts(buffers):
            if input_name in self.unwanted:
                continue
            if input_name in self.fresh:
                h.copy_to(part, dx)
            else:
                compact = h.scratch(dx.shape, 2)  # adding strided arrays is slow
                h.copy_to(part, compact)
                h.add_tt(compact, dx, dx)

"""Joining any number of inputs."""

from __future__ import annotations

from brainstorm.layers._numbered_layer import NumberedLayer
from brainstorm.layers.base_layer import once_per_resize
from brainstorm.structure.buffer_structure import BufferStructure
from brainstorm.structure.construction import ConstructionWrapper


def Concat(name: str | None = None) -> ConstructionWrapper:
    """A layer that joins its inputs along their last dimension.

    Wire as many as there are to ``inputs_1``, ``inputs_2`` and so on. Inputs with a
    single feature dimension need no layer: wire them all to the same input of the
    next layer, which costs no copy.
    """
    return ConstructionWrapper.create(ConcatLayerImpl, name=name)


class ConcatLayerImpl(NumberedLayer):
    """Computes ``y = [a, b, ...]``, joined along the last dimension.

    ======== ========== ========================= =======
    buffer   name       shape                     content
    ======== ========== ========================= =======
    inputs   inputs_1   (T, B, ..., m)            a
    inputs   inputs_2   (T, B, ..., n)            b
    inputs   inputs_k   (T, B, ..., any)          ...
    outputs  default    (T, B, ..., m + n + ...)  y
    ======== ========== ========================= =======

    Raises:
        LayerValidationError: There are less than two inputs, their numbers have gaps,
            or their shapes differ in other dimensions than the last.
    """

    repeats = True

    def setup(self, kwargs, in_shapes):
        *first, _ = in_shapes["inputs_1"].shape
        for name, structure in in_shapes.items():
            if list(structure.shape[:-1]) != first:
                raise self.error(
                    f"expected the shape {(*first, 'any')} at input {name!r}, as at"
                    f" 'inputs_1', got {structure.shape}"
                )
        self.names = list(self.expected_inputs)
        self.sizes = [in_shapes[name].shape[-1] for name in self.names]
        return {"default": BufferStructure(*first, sum(self.sizes))}, {}, {}

    def parts(self, array):
        """The part of y, or of its deltas, for each input."""
        parts, start = [], 0
        for size in self.sizes:
            parts.append(array[..., start : start + size])
            start += size
        return parts

    @once_per_resize
    def pairs(self, buffers):
        """Each input and its part of y."""
        parts = self.parts(buffers.outputs.default)
        inputs = [buffers.inputs[name] for name in self.names]
        return list(zip(inputs, parts, strict=True))

    @once_per_resize
    def delta_pairs(self, buffers):
        """The name and the deltas of each input, and their part of y's deltas."""
        parts = self.parts(buffers.output_deltas.default)
        deltas = [buffers.input_deltas[name] for name in self.names]
        return list(zip(self.names, deltas, parts, strict=True))

    def forward_pass(self, buffers, training_pass=True):
        for x, part in self.pairs(buffers):
            self.handler.copy_to(x, part)

    def backward_pass(self, buffers):
        h = self.handler
        for input_name, dx, part in self.delta_pairs(buffers):
            if input_name not in self.fresh | self.unwanted:
                compact = h.scratch(dx.shape, 2)  # adding strided arrays is slow
                h.copy_to(part, compact)
                part = compact
            self.add_deltas(input_name, "copy_to", part, dx)

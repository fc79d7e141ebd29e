"""Joining any number of inputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from brainstorm.layers._stepwise_layer import NumberedLayer
from brainstorm.layers.base_layer import BufferStructure, ConstructionWrapper
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.layer import Setup, Structures


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

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        *first, _ = in_shapes["inputs_1"].shape
        for name, structure in in_shapes.items():
            if list(structure.shape[:-1]) != first:
                raise self.error(
                    f"expected the shape {(*first, 'any')} at input {name!r}, as at"
                    f" 'inputs_1', got {structure.shape}"
                )
        self.names: list[str] = list(self.expected_inputs)
        self.sizes: list[Any] = [in_shapes[name].shape[-1] for name in self.names]
        return {"default": BufferStructure(*first, sum(self.sizes))}, {}, {}

    def parts(self, joined: Any) -> Iterator[tuple[str, Any]]:
        """The name of each input, and its part of y or of y's deltas."""
        start = 0
        for name, size in zip(self.names, self.sizes, strict=True):
            yield name, joined[..., start : start + size]
            start += size

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        for name, part in self.parts(buffers.outputs.default):
            self.handler.copy_to(buffers.inputs[name], part)

    def backward_pass(self, buffers: BufferView) -> None:
        h = self.handler
        for name, part in self.parts(buffers.output_deltas.default):
            dx = buffers.input_deltas[name]
            if name not in self.fresh | self.unwanted:
                compact = h.scratch(dx.shape, 2)  # adding strided arrays is slow
                h.copy_to(part, compact)
                part = compact
            self.add_deltas(name, "copy_to", part, dx)

"""Joining two inputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from brainstorm.layers.concat_layer import ConcatLayerImpl
from brainstorm.structure.buffer_structure import StructureTemplate
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.construction import ConstructionWrapper


def Merge(name: str | None = None) -> ConstructionWrapper:
    """A layer that joins two inputs along their last dimension.

    For inputs with a single feature dimension no layer is needed: wire both to
    the same input of the next layer, which costs no copy.
    """
    return ConstructionWrapper.create(MergeLayerImpl, name=name)


class MergeLayerImpl(ConcatLayerImpl):
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

    repeats = True

    def inputs_to_expect(
        self, given: Collection[str]
    ) -> Mapping[str, StructureTemplate]:
        return self.expected_inputs

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        a, b = buffers.inputs
        self.handler.merge_tt(a, b, buffers.outputs.default)

"""The product of several inputs."""

from __future__ import annotations

from brainstorm.layers._stepwise_layer import CombiningLayer
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.construction import ConstructionWrapper


def Multiply(name: str | None = None) -> ConstructionWrapper:
    """A layer that multiplies its inputs, element by element, as gates do.

    Wire as many as there are to ``inputs_1``, ``inputs_2`` and so on. All of them get
    deltas; for a factor that needs none see `Mask`.
    """
    return ConstructionWrapper.create(MultiplyLayerImpl, name=name)


class MultiplyLayerImpl(CombiningLayer):
    """Computes ``y = a b ...`` for two or more inputs of one shape, elementwise.

    ======== ========== ============ =======
    buffer   name       shape        content
    ======== ========== ============ =======
    inputs   inputs_1   (T, B, ...)  a
    inputs   inputs_2   as a         b
    inputs   inputs_k   as a         ...
    outputs  default    as a         y
    ======== ========== ============ =======

    Raises:
        LayerValidationError: There are less than two inputs, their numbers have gaps,
            or their shapes differ.
    """

    operation = "mult_tt"
    repeats = True

    def backward_pass(self, buffers: BufferView) -> None:
        h, inputs = self.handler, buffers.inputs
        for input_name, dx in buffers.input_deltas.items():
            product = buffers.output_deltas.default
            *others, last = (x for n, x in inputs.items() if n != input_name)
            if others:
                work = h.scratch(product.shape, 2)
                for x in others:
                    h.mult_tt(product, x, work)
                    product = work
            self.add_deltas(input_name, "mult_tt", product, last, dx)

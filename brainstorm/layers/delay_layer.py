"""The input of some steps before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brainstorm.checks import Argument
from brainstorm.layers.arguments import COUNT, arguments_of
from brainstorm.layers.base_layer import BufferStructure, ConstructionWrapper, Layer
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.layer import Setup, Structures


def Delay(steps: int = 1, name: str | None = None) -> ConstructionWrapper:
    """A layer that gives its input some time steps later.

    Args:
        steps: How many steps later.
        name: Name of the layer.
    """
    return ConstructionWrapper.create(DelayLayerImpl, **locals())


def copy_later(handler: Any, x: Any, past: Any, steps: Any, out: Any) -> None:
    """Copy inputs to some steps later, behind the rows of the past."""
    T, rows = x.shape[0], past.shape[0]
    handler.copy_to(past[rows - steps : rows - steps + min(steps, T)], out[:steps])
    if steps < T:
        handler.copy_to(x[: T - steps], out[steps:])


def keep_past(handler: Any, x: Any, past: Any) -> None:
    """Have the last steps, which the next pass will need, in the past."""
    T = x.shape[0]
    start = max(0, 2 * T - past.shape[0])
    handler.copy_to(x[start:], past[start:T])


class DelayLayerImpl(Layer):
    """Computes ``y[t] = x[t - steps]``.

    ========= ======== ===================== =======================================
    buffer    name     shape                 content
    ========= ======== ===================== =======================================
    inputs    default  (T, B, ...)           x
    outputs   default  as x                  y
    internals past     (T + steps, B, ...)   the last steps of x, at their place
    ========= ======== ===================== =======================================

    What came before the first step are zeros, or the rows of the past that a context
    brought: row -1 is that of the step before.

    Raises:
        LayerValidationError: `steps` is no positive integer.
    """

    steps: int

    arguments: Mapping[str, Argument] = arguments_of(Delay, steps=COUNT)
    honours_fresh = True
    repeats = True

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        shape = self.like(in_shapes["default"])
        past = BufferStructure(*shape.shape, context_size=self.steps)
        return {"default": shape}, {}, {"past": past}

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        x, y = buffers.inputs.default, buffers.outputs.default
        copy_later(self.handler, x, buffers.internals.past, self.steps, y)
        keep_past(self.handler, x, buffers.internals.past)

    def backward_pass(self, buffers: BufferView) -> None:
        dx, dy = buffers.input_deltas.default, buffers.output_deltas.default
        end = max(0, dx.shape[0] - self.steps)
        if end:
            self.add_deltas("default", "copy_to", dy[self.steps :], dx[:end])
        if "default" in self.fresh:
            self.add_deltas("default", "fill", dx[end:], 0.0)

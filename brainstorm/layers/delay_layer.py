"""The input of some steps before."""

from brainstorm.layers.arguments import COUNT, arguments_of
from brainstorm.layers.base_layer import BufferStructure, ConstructionWrapper, Layer


def Delay(steps: int = 1, name: str | None = None) -> ConstructionWrapper:
    """A layer that gives its input some time steps later.

    Args:
        steps: How many steps later.
        name: Name of the layer.
    """
    return ConstructionWrapper.create(DelayLayerImpl, **locals())


def copy_later(handler, x, past, steps, out):
    """Copy inputs to some steps later, behind the rows of the past."""
    T, rows = x.shape[0], past.shape[0]
    handler.copy_to(past[rows - steps : rows - steps + min(steps, T)], out[:steps])
    if steps < T:
        handler.copy_to(x[: T - steps], out[steps:])


def keep_past(handler, x, past):
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

    arguments = arguments_of(Delay, steps=COUNT)
    honours_fresh = True
    repeats = True

    def setup(self, kwargs, in_shapes):
        shape = self.like(in_shapes["default"])
        past = BufferStructure(*shape.shape, context_size=self.steps)
        return {"default": shape}, {}, {"past": past}

    def forward_pass(self, buffers, training_pass=True):
        x, y = buffers.inputs.default, buffers.outputs.default
        copy_later(self.handler, x, buffers.internals.past, self.steps, y)
        keep_past(self.handler, x, buffers.internals.past)

    def backward_pass(self, buffers):
        dx, dy = buffers.input_deltas.default, buffers.output_deltas.default
        end = max(0, dx.shape[0] - self.steps)
        if end:
            self.add_deltas("default", "copy_to", dy[self.steps :], dx[:end])
        if "default" in self.fresh:
            self.add_deltas("default", "fill", dx[end:], 0.0)

"""One value for all time steps."""

import numpy as np

from brainstorm.layers.arguments import Check, arguments_of
from brainstorm.layers.base_layer import Layer
from brainstorm.layers.rows import Rows, as_column, by_sequences
from brainstorm.structure.buffer_structure import BufferStructure, StructureTemplate
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.utils import listing

TYPES = ("max", "mean", "sum", "last")

# Slots of the handler's temporaries that operations leave alone.
_COUNTED, _SPREAD, _DELTAS, _SUMS = 20, 21, 22, 23


def TimePooling(type: str = "max", name: str | None = None) -> ConstructionWrapper:
    """A layer that makes one value of those of all time steps.

    Layers behind it have no time: wire them to targets ``('B', ...)``. With its input
    ``mask`` connected, only steps count at which that is not zero.

    Args:
        type: 'max' for the largest value, 'mean', 'sum', or 'last' for that of the
            last step.
        name: Name of the layer.
    """
    return ConstructionWrapper.create(TimePoolingLayerImpl, **locals())


def _row(array):
    return as_column(array).reshape((1, -1))


def _image(array):
    """A matrix as an image (1, height, 1, C)."""
    height, C = array.shape
    return array.reshape((1, height, 1, C))


class TimePoolingLayerImpl(Layer):
    """Computes ``y = factor * sum(weights[t] * x[t])``, or ``factor * max(x[t])``.

    ========= ======== =========== ==================================================
    buffer    name     shape       content
    ========= ======== =========== ==================================================
    inputs    default  (T, B, ...) x
    inputs    mask     (T, B, 1)   optional: 0 where a step does not count
    outputs   default  (B, ...)    y
    internals weights  (T, B, 1)   1 where a step counts, else 0; for 'max' 0, or what
                                   is added to be no largest value
    internals factor   (B, 1)      1 / number of steps for 'mean'; else 1
    internals argmax   (B, ...)    the step that y comes from, for 'max' only
    ========= ======== =========== ==================================================

    Where no step counts, y is 0. Of equal largest values the first one gets the deltas.
    Without a mask, 'max' has no weights and no factor. No deltas flow to ``mask``.
    Sequences have to be whole: no state is carried on.

    Raises:
        LayerValidationError: `type` is not as in `TimePooling`, or the mask is not as
            above.
    """

    optional_inputs = {"mask": StructureTemplate("T", "B", 1)}
    arguments = arguments_of(
        TimePooling,
        type=Check(lambda value: value in TYPES, f"one of {listing(TYPES)}"),
    )
    computes_no_input_deltas_for = ("mask",)
    needs_whole_sequences = True
    honours_fresh = True
    repeats = True

    # Time steps (T, B * F), and what there is for all of them (1, B * F).
    steps = Rows("inputs.default", shape=by_sequences)
    pooled = Rows(writes=["outputs.default", "internals.argmax"], shape=_row)
    delta_steps = Rows(writes=["input_deltas.default"], shape=by_sequences)
    pooled_deltas = Rows("output_deltas.default", shape=_row)

    def setup(self, kwargs, in_shapes):
        y = BufferStructure("B", *in_shapes["default"].feature_shape)
        internals = {"argmax": y} if self.type == "max" else {}
        self.weighs = "mask" in in_shapes or self.type != "max"
        if self.weighs:
            internals["weights"] = BufferStructure("T", "B", 1)
            internals["factor"] = BufferStructure("B", 1)
        return {"default": y}, {}, internals

    def forward_pass(self, buffers, training_pass=True):
        h = self.handler
        (x,), (y, argmax) = self.steps.load(h, buffers), self.pooled.load(h, buffers)
        if self.weighs:
            self.weigh(buffers)
            x = self.weighed(buffers, x)
        if self.type == "max":
            h.maxpool2d_forward_batch(*self.images(x, y), _image(argmax))
        else:
            h.sum_t(x, 0, y)
        if self.weighs:
            self.scale(buffers, y, y)
        self.pooled.store(h, buffers)

    def backward_pass(self, buffers):
        if "default" in self.unwanted:
            return
        h = self.handler
        (dx,), (dy,) = (
            rows.load(h, buffers) for rows in (self.delta_steps, self.pooled_deltas)
        )
        if self.weighs:
            scaled = h.scratch(tuple(dy.shape), _DELTAS)
            self.scale(buffers, dy, scaled)
            dy = scaled
        if self.type == "max":
            (x,), (y, argmax) = (
                self.steps.load(h, buffers),
                self.pooled.load(h, buffers),
            )
            images = (_image(array) for array in (argmax, dx, dy))
            operation = "maxpool2d_backward_batch"
            self.add_deltas("default", operation, *self.images(x, y), *images)
        else:
            spread = h.scratch(tuple(dx.shape), _SPREAD)
            h.broadcast_t(dy, 0, spread)
            weights = as_column(buffers.internals.weights)
            rows = (array.reshape((weights.shape[0], -1)) for array in (spread, dx))
            spread, dx = rows
            self.add_deltas("default", "mult_mv", spread, weights, dx)
        self.delta_steps.store(h, buffers)

    @staticmethod
    def images(x, y):
        """What operations on images take to pool over the time, which is the height."""
        return _image(x), (x.shape[0], 1), _image(y), 0, (1, 1)

    def scale(self, buffers, pooled, out):
        """Multiply what there is for each sequence with its factor."""
        B = buffers.internals.factor.shape[0]
        pooled, out = (array.reshape((B, -1)) for array in (pooled, out))
        self.handler.mult_mv(pooled, buffers.internals.factor, out)

    def weighed(self, buffers, x):
        """The steps of which the sum, or the maximum, is that of those that count."""
        h, weights = self.handler, as_column(buffers.internals.weights)
        rows = x.reshape((weights.shape[0], -1))
        counted = h.scratch(tuple(rows.shape), _COUNTED)
        weigh = h.add_mv if self.type == "max" else h.mult_mv
        weigh(rows, weights, counted)
        return counted.reshape(tuple(x.shape))

    def weigh(self, buffers):
        """Find out which steps count, and how much."""
        h, weights = self.handler, buffers.internals.weights
        T, B, _ = weights.shape
        weights, factor = weights.reshape((T, B)), _row(buffers.internals.factor)
        if "mask" in self.in_shapes:
            h.fill(weights, 0.0)
            h.fill_if(weights, 1.0, buffers.inputs.mask.reshape((T, B)))
        else:
            h.fill(weights, 1.0)
        if self.type == "last":
            h.fill(factor, 1.0)  # as long as no step was found
            for t in reversed(range(T)):
                h.mult_tt(weights[t : t + 1], factor, weights[t : t + 1])
                h.subtract_tt(factor, weights[t : t + 1], factor)
        h.fill(factor, 1.0)
        if self.type == "mean":
            number = h.scratch((1, B), _SUMS)
            h.sum_t(weights, 0, number)
            h.clip_t(number, 1.0, float(T), number)
            h.divide_tt(factor, number, factor)
        elif self.type == "max":
            h.sum_t(weights, 0, factor)
            h.clip_t(factor, 0.0, 1.0, factor)
            h.add_st(-1.0, weights, weights)
            h.mult_st(float(np.finfo(weights.dtype).max) / 2, weights, weights)

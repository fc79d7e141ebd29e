"""One value for all time steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np

from brainstorm.checks import Argument
from brainstorm.layers.arguments import Check, arguments_of
from brainstorm.layers.base_layer import ConstructionWrapper, Layer
from brainstorm.layers.rows import Rows, as_column, by_sequences
from brainstorm.literals import TimePoolingType
from brainstorm.structure.buffer_structure import BufferStructure, StructureTemplate
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.layer import Setup, Structures
from brainstorm.utils import listing

TYPES = get_args(TimePoolingType)

# Slots of the handler's temporaries that operations leave alone.
_COUNTED, _SPREAD, _DELTAS, _NUMBER = 20, 21, 22, 23


def TimePooling(
    type: TimePoolingType = "max", name: str | None = None
) -> ConstructionWrapper:
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
    """Computes the largest, mean, summed or last ``x[t]``, of all steps or some.

    ========= ======== =========== ==================================================
    buffer    name     shape       content
    ========= ======== =========== ==================================================
    inputs    default  (T, B, ...) x
    inputs    mask     (T, B, 1)   optional: 0 where a step does not count
    outputs   default  (B, ...)    y
    internals argmax   (B, ...)    the step that y comes from, for 'max' only
    internals weights  (T, B, 1)   with a mask: factors of the steps, 0 and 1; for
                                   'max' what is added, 0 or below all values
    internals factor   (B, 1)      with a mask: the factor of what comes out
    ========= ======== =========== ==================================================

    Where no step counts, y is 0. Of equal largest values the first one gets the deltas.
    No deltas flow to ``mask``. Sequences have to be whole: no state is carried on.

    Raises:
        LayerValidationError: `type` is not as in `TimePooling`, or the mask is not as
            above.
    """

    type: TimePoolingType

    optional_inputs: Mapping[str, StructureTemplate] = {
        "mask": StructureTemplate("T", "B", 1)
    }
    arguments: Mapping[str, Argument] = arguments_of(
        TimePooling,
        type=Check(lambda value: value in TYPES, f"one of {listing(TYPES)}"),
    )
    computes_no_input_deltas_for: Sequence[str] = ("mask",)
    needs_whole_sequences = True
    honours_fresh = True
    repeats = True

    # Time steps (T, B * F), and what there is for all of them (1, B * F).
    steps: Rows = Rows("inputs.default", shape=by_sequences)
    pooled: Rows = Rows(writes=["outputs.default", "internals.argmax"], shape=_row)
    delta_steps: Rows = Rows(writes=["input_deltas.default"], shape=by_sequences)
    pooled_deltas: Rows = Rows("output_deltas.default", shape=_row)

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        y = BufferStructure("B", *in_shapes["default"].feature_shape)
        internals = {"argmax": y} if self.type == "max" else {}
        self.masked: bool = "mask" in in_shapes
        if self.masked:
            internals["weights"] = BufferStructure("T", "B", 1)
            internals["factor"] = BufferStructure("B", 1)
        return {"default": y}, {}, internals

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        h = self.handler
        (x,), (y, argmax) = self.steps.load(h, buffers), self.pooled.load(h, buffers)
        if self.masked:
            self.weigh(buffers)
            x = self.counted(buffers, x)
        if self.type == "max":
            h.maxpool2d_forward_batch(*_over_time(x, y), _image(argmax))
        else:
            h.sum_t(self.used(x), 0, y)
        self.scale(buffers, y, y)
        self.pooled.store(h, buffers)

    def backward_pass(self, buffers: BufferView) -> None:
        if "default" in self.unwanted:
            return
        h = self.handler
        (dx,) = self.delta_steps.load(h, buffers)
        (dy,) = self.pooled_deltas.load(h, buffers)
        scaled = h.scratch(tuple(dy.shape), _DELTAS)
        self.scale(buffers, dy, scaled)
        if self.type == "max":
            (x,) = self.steps.load(h, buffers)
            y, argmax = self.pooled.load(h, buffers)
            images = (_image(array) for array in (argmax, dx, scaled))
            operation = "maxpool2d_backward_batch"
            self.add_deltas("default", operation, *_over_time(x, y), *images)
        else:
            self.spread(buffers, scaled, dx)
        self.delta_steps.store(h, buffers)

    def used(self, steps: Any) -> Any:
        """Those that sums are of: without a mask just one may be."""
        return steps if self.masked or self.type != "last" else steps[-1:]

    def scale(self, buffers: Any, pooled: Any, out: Any) -> None:
        """Multiply what there is for each sequence with its factor."""
        if self.masked:
            factor = buffers.internals.factor
            B = factor.shape[0]
            by_sequence = pooled.reshape((B, -1)), factor, out.reshape((B, -1))
            self.handler.mult_mv(*by_sequence)
        elif self.type == "mean":
            T = buffers.inputs.default.shape[0]
            self.handler.mult_st(1 / T, pooled, out)
        elif out is not pooled:
            self.handler.copy_to(pooled, out)

    def spread(self, buffers: Any, dy: Any, dx: Any) -> None:
        """Give the deltas of a sum to all that it is of."""
        h, used = self.handler, self.used(dx)
        if "default" in self.fresh and used.shape[0] < dx.shape[0]:
            h.fill(dx[:-1], 0.0)
        deltas = h.scratch(tuple(used.shape), _SPREAD)
        h.broadcast_t(dy, 0, deltas)
        if self.masked:
            weights = as_column(buffers.internals.weights)
            rows = weights.shape[0]
            deltas, dx = deltas.reshape((rows, -1)), dx.reshape((rows, -1))
            self.add_deltas("default", "mult_mv", deltas, weights, dx)
        else:
            self.add_deltas("default", "copy_to", deltas, used)

    def counted(self, buffers: Any, x: Any) -> Any:
        """Steps whose sum, or largest, is that of those that count."""
        h, weights = self.handler, as_column(buffers.internals.weights)
        rows = x.reshape((weights.shape[0], -1))
        counted = h.scratch(tuple(rows.shape), _COUNTED)
        weigh = h.add_mv if self.type == "max" else h.mult_mv
        weigh(rows, weights, counted)
        return counted.reshape(tuple(x.shape))

    def weigh(self, buffers: Any) -> None:
        """Find out from the mask which steps count, and how much."""
        h, weights = self.handler, buffers.internals.weights
        h.fill(weights, 0.0)
        h.fill_if(weights, 1.0, buffers.inputs.mask)
        T, B, _ = weights.shape
        weights, factor = weights.reshape((T, B)), _row(buffers.internals.factor)
        number = h.scratch((1, B), _NUMBER)
        h.sum_t(weights, 0, number)
        h.fill(factor, 1.0)
        if self.type == "max":
            h.clip_t(number, 0.0, 1.0, factor)
            h.add_st(-1.0, weights, weights)
            h.mult_st(float(np.finfo(weights.dtype).max) / 2, weights, weights)
        elif self.type == "mean":
            h.clip_t(number, 1.0, float(T), number)
            h.divide_tt(factor, number, factor)
        elif self.type == "last":
            h.fill(number, 1.0)  # until the last step is found
            for t in reversed(range(T)):
                h.mult_tt(weights[t : t + 1], number, weights[t : t + 1])
                h.subtract_tt(number, weights[t : t + 1], number)


def _over_time(
    x: Any, y: Any
) -> tuple[Any, tuple[int, int], Any, int, tuple[int, int]]:
    """What operations on images take to pool over the time, which is the height."""
    return _image(x), (x.shape[0], 1), _image(y), 0, (1, 1)

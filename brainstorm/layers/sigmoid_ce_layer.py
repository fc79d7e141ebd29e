"""Sigmoid with cross-entropy, for classification with several labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from brainstorm.checks import Argument
from brainstorm.layers._stepwise_layer import LayerWithTargets
from brainstorm.layers.arguments import POSITIVE, Check, arguments_of
from brainstorm.layers.base_layer import (
    BufferStructure,
    ConstructionWrapper,
    once_per_resize,
)
from brainstorm.layers.rows import Rows
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.layer import Setup, Structures
from brainstorm.utils import flatten_all_but_last

WEIGHTS = Check(
    lambda w: (
        w is None
        or POSITIVE.accept(w)
        or (isinstance(w, (list, tuple)) and all(map(POSITIVE.accept, w)))
    ),
    "a positive number, a list of them, or None,",
)


def SigmoidCE(
    name: str | None = None,
    *,
    positive_weight: float | Sequence[float] | None = None,
) -> ConstructionWrapper:
    """A layer for several binary labels: sigmoid, and cross-entropy with targets.

    Wire its output ``loss`` to a `Loss` layer to have it minimized. Weights of samples
    or labels are given to a `Mask` layer before that, see `SoftmaxCE`.

    Args:
        name: Name of the layer.
        positive_weight: A positive number: how much labels of 1 count beside those of
            0, for example how many times rarer they are. Or a list of them, for each
            label, along the last axis. Default: as much.
    """
    return ConstructionWrapper.create(SigmoidCELayerImpl, **locals())


class SigmoidCELayerImpl(LayerWithTargets):
    """Computes ``p = sigmoid(x)`` and ``loss = -t log(p) - (1 - t) log(1 - p)``.

    =========== =========== =============== ==============================
    buffer      name        shape           content
    =========== =========== =============== ==============================
    inputs      default     (T, B, ...)     x
    inputs      targets     as x            t, between 0 and 1
    outputs     predictions as x            p
    outputs     loss        as x            a loss for each element
    internals   dcee        as x            p - t, backward
    internals   t           as x            with `positive_weight`, see below
    internals   total       as x            likewise
    =========== =========== =============== ==============================

    With a `positive_weight` w it is ``loss = -w t log(p) - (1 - t) log(1 - p)``, which
    is ``total = w t + 1 - t`` times the loss with the target ``w t / total``; this
    target is the internal t.

    No deltas flow to ``targets``; those that reach ``predictions`` are ignored.
    The logarithms' arguments are clipped to [1e-6, 1].

    Raises:
        LayerValidationError: The shapes of the inputs differ, or `positive_weight` is
            not as in `SigmoidCE`.
    """

    positive_weight: float | Sequence[float] | None

    arguments: Mapping[str, Argument] = arguments_of(SigmoidCE, positive_weight=WEIGHTS)
    repeats = True

    weighted: Rows = Rows(
        "inputs.targets",
        writes=["internals.t", "internals.total"],
        shape=flatten_all_but_last,
    )

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        shape = self.same_shape("default", "targets")
        outputs = {"predictions": shape, "loss": shape}
        internals = {"dcee": BufferStructure(*shape.shape, is_backward_only=True)}
        if self.positive_weight is not None:
            internals.update(t=shape, total=shape)
            count, labels = np.size(self.positive_weight), shape.shape[-1]
            if np.ndim(self.positive_weight) and count != labels:
                raise self.error(
                    f"expected {labels} numbers as 'positive_weight', one for each"
                    f" label, got {count}"
                )
        return outputs, {}, internals

    @once_per_resize
    def weights(self, buffers: Any) -> Any:
        """What positive labels count, as a row."""
        labels = self.in_shapes["default"].shape[-1]
        values = np.array(self.positive_weight, np.float64)
        return self.handler.create_from_numpy(np.broadcast_to(values, (1, labels)))

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        h = self.handler
        x, targets = buffers.inputs
        predictions, loss = buffers.outputs
        if self.positive_weight is None:
            h.sigmoid_ce_forward(x, targets, predictions, loss)
            return
        rows, t, total = self.weighted.load(h, buffers)
        h.mult_mv(rows, self.weights(buffers), t)
        h.subtract_tt(t, rows, total)
        h.add_st(1.0, total, total)
        h.divide_tt(t, total, t)
        self.weighted.store(h, buffers)
        h.sigmoid_ce_forward(x, buffers.internals.t, predictions, loss)
        h.mult_tt(loss, buffers.internals.total, loss)

    def backward_pass(self, buffers: BufferView) -> None:
        targets, dloss = buffers.inputs.targets, buffers.output_deltas.loss
        if self.positive_weight is not None:
            targets, weighted = (
                buffers.internals.t,
                self.handler.scratch(dloss.shape, 4),
            )
            self.handler.mult_tt(dloss, buffers.internals.total, weighted)
            dloss = weighted
        self.add_deltas(
            "default",
            "sigmoid_ce_backward",
            targets,
            buffers.outputs.predictions,
            dloss,
            buffers.internals.dcee,
            buffers.input_deltas.default,
        )

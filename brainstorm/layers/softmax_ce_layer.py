"""Softmax with cross-entropy, for classification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from brainstorm.checks import Argument
from brainstorm.layers._stepwise_layer import LayerWithTargets
from brainstorm.layers.arguments import NUMBERS, Check, arguments_of, is_finite
from brainstorm.layers.base_layer import (
    BufferStructure,
    ConstructionWrapper,
    once_per_resize,
)
from brainstorm.layers.rows import Rows
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.layer import Setup, Structures
from brainstorm.utils import flatten_all_but_last


def SoftmaxCE(
    name: str | None = None,
    *,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
) -> ConstructionWrapper:
    """A layer for classification: softmax, and its cross-entropy with the targets.

    Wire its output ``loss`` to a `Loss` layer to have it minimized. Samples, or time
    steps, count more or less if it goes through a `Mask` layer with their weights::

        inp - 'weights' >> 'mask' - mask      # (T, B, 1), or (B, 1) without time
        out - 'loss' >> mask >> layers.Loss()

    Args:
        name: Name of the layer.
        label_smoothing: Share of each target, in [0, 1), that goes to all classes
            alike (Szegedy et al. 2016), so that no prediction has to be extreme.
        class_weights: A number of at least 0 for each class: the factor of the losses
            of its samples. The loss is not divided by their sum.
    """
    return ConstructionWrapper.create(SoftmaxCELayerImpl, **locals())


class SoftmaxCELayerImpl(LayerWithTargets):
    """Computes ``p = softmax(x)`` and ``loss = -log p[target]``.

    Over the last dimension, with C classes:

    =========== =========== =================== ==========================
    buffer      name        shape               content
    =========== =========== =================== ==========================
    inputs      default     (T, B, ..., C)      x
    inputs      targets     (T, B, ..., 1)      class indices from 0
    outputs     predictions (T, B, ..., C)      p
    outputs     loss        (T, B, ..., 1)      cross-entropy
    internals   t_bin       (T, B, ..., C)      one-hot targets, backward
    =========== =========== =================== ==========================

    With a smoothing e, or weights w of the classes, ``loss = -sum(q log p)`` where
    ``q = w ((1 - e) one_hot + e / C)``; there t_bin is q, and not only for backward
    passes.

    No deltas flow to ``targets``; those that reach ``predictions`` are ignored.
    The logarithm's argument is clipped to [1e-6, 1].

    Raises:
        LayerValidationError: The shape of the targets does not fit, or an argument is
            not as in `SoftmaxCE`.
        HandlerError: When run with targets that are not class indices.
    """

    label_smoothing: float
    class_weights: Sequence[float] | None

    arguments: Mapping[str, Argument] = arguments_of(
        SoftmaxCE,
        label_smoothing=Check(
            lambda e: is_finite(e) and 0 <= e < 1, "a number in [0, 1)"
        ),
        class_weights=NUMBERS,
    )
    repeats = True

    rows: Rows = Rows(
        "inputs.default",
        "inputs.targets",
        writes=["outputs.predictions", "outputs.loss"],
        shape=flatten_all_but_last,
    )
    soft_targets: Rows = Rows(writes=["internals.t_bin"], shape=flatten_all_but_last)
    delta_rows: Rows = Rows(
        "inputs.targets",
        "outputs.predictions",
        "output_deltas.loss",
        writes=["internals.t_bin", "input_deltas.default"],
        shape=flatten_all_but_last,
    )

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        shape = in_shapes["default"].shape
        expected = (*shape[:-1], 1)
        if in_shapes["targets"].shape != expected:
            raise self.error(
                f"expected the shape {expected} at input 'targets' for 'default' of"
                f" {shape}, got {in_shapes['targets'].shape}"
            )
        if self.class_weights is not None and len(self.class_weights) != shape[-1]:
            raise self.error(
                f"expected {shape[-1]} numbers as 'class_weights', one for each class,"
                f" got {len(self.class_weights)}"
            )
        self.is_plain: bool = not self.label_smoothing and self.class_weights is None
        outputs = {
            "predictions": BufferStructure(*shape),
            "loss": BufferStructure(*expected),
        }
        t_bin = BufferStructure(*shape, is_backward_only=self.is_plain)
        return outputs, {}, {"t_bin": t_bin}

    @once_per_resize
    def shares(self, buffers: Any) -> Any:
        """What each class gets of its own targets, and what of all, as rows."""
        classes, smoothing = self.in_shapes["default"].shape[-1], self.label_smoothing
        put = self.handler.create_from_numpy
        weights = np.array([self.class_weights or [1.0] * classes], np.float64)
        return put(weights * (1 - smoothing)), put(weights * smoothing / classes)

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        h = self.handler
        x, targets, p, loss = self.rows.load(h, buffers)
        if self.is_plain:
            h.softmax_ce_forward(x, targets, p, loss)
        else:
            (q,), (own, of_all) = self.soft_targets(buffers), self.shares(buffers)
            h.binarize_v(targets, q)
            h.mult_mv(q, own, q)
            h.add_mv(q, of_all, q)
            h.soft_targets_ce_forward(x, q, p, loss)
        self.rows.store(h, buffers)

    def backward_pass(self, buffers: BufferView) -> None:
        targets, p, dloss, q, dx = self.delta_rows.load(self.handler, buffers)
        if self.is_plain:
            arrays = targets, p, dloss, q, dx
            self.add_deltas("default", "softmax_ce_backward", *arrays)
        else:
            self.add_deltas("default", "soft_targets_ce_backward", q, p, dloss, dx)
        self.delta_rows.store(self.handler, buffers)

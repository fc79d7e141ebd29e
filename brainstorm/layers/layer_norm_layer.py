"""Normalisation of each time step on its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from brainstorm.checks import Argument
from brainstorm.layers._stepwise_layer import StepwiseLayer
from brainstorm.layers.arguments import POSITIVE, arguments_of
from brainstorm.layers.base_layer import BufferStructure, ConstructionWrapper
from brainstorm.layers.rows import Rows, as_column
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.layer import Setup, Structures
from brainstorm.utils import flatten_all_but_last


def LayerNorm(
    epsilon: float = 1e-5, name: str | None = None, *, trainable: bool = True
) -> ConstructionWrapper:
    """A layer that normalises each vector of features on its own.

    Other than `BatchNorm` it needs no statistics of the batch, and does the same in
    training and in use. Unless initialized by their names, ``gamma`` begins with 1 and
    ``beta`` with 0.

    Args:
        epsilon: Positive number that keeps the deviation off zero.
        name: Name of the layer.
        trainable: Whether training changes the parameters.
    """
    return ConstructionWrapper.create(LayerNormLayerImpl, **locals())


class LayerNormLayerImpl(StepwiseLayer):
    """Computes ``y = gamma (x - mean) / sigma + beta`` over the last dimension.

    Ba et al., *Layer normalization*, 2016. The mean and the standard deviation
    ``sigma = sqrt(variance + epsilon)`` are those of the C features of one step and
    sequence (and pixel); the variance is divided by C.

    =========== ======== ============== ==========================
    buffer      name     shape          content
    =========== ======== ============== ==========================
    inputs      default  (T, B, ..., C) x
    outputs     default  as x           y
    parameters  gamma    (C,)           factor of the outputs
    parameters  beta     (C,)           added to the outputs
    internals   mean     (T, B, m)      mean of each of m vectors
    internals   sigma    (T, B, m)      sigma of each of them
    internals   x_hat    as x           (x - mean) / sigma
    =========== ======== ============== ==========================

    x_hat is computed when ``net.get`` asks for it, and not in ``net.buffer``.

    Raises:
        LayerValidationError: `epsilon` is not positive.
    """

    epsilon: float

    arguments: Mapping[str, Argument] = arguments_of(LayerNorm, epsilon=POSITIVE)
    first_values: Mapping[str, Any] = {"gamma": 1.0, "beta": 0.0}
    computed: Sequence[str] = ("x_hat",)
    repeats = True

    rows: Rows = Rows(
        "inputs.default", writes=["outputs.default"], shape=flatten_all_but_last
    )
    delta_rows: Rows = Rows(
        "inputs.default",
        "output_deltas.default",
        writes=["input_deltas.default"],
        shape=flatten_all_but_last,
    )
    columns: Rows = Rows(writes=["internals.mean", "internals.sigma"], shape=as_column)

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        shape = self.like(in_shapes["default"])
        *vectors, features = shape.feature_shape
        parameters = dict.fromkeys(("gamma", "beta"), BufferStructure(features))
        per_vector = self.like(shape, math.prod(vectors))
        internals = dict.fromkeys(("mean", "sigma"), per_vector)
        return {"default": shape}, parameters, internals

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        h, (mean, sigma) = self.handler, self.columns(buffers)
        x, y = self.rows.load(h, buffers)
        gamma, beta = buffers.parameters
        h.layer_norm_forward(x, gamma, beta, mean, sigma, y, self.epsilon)
        self.rows.store(h, buffers)

    def backward_pass(self, buffers: BufferView) -> None:
        h, (mean, sigma) = self.handler, self.columns(buffers)
        x, dy, dx = self.delta_rows.load(h, buffers)
        dgamma, dbeta = buffers.gradients
        h.layer_norm_backward(
            x,
            buffers.parameters.gamma,
            mean,
            sigma,
            dy,
            None if "default" in self.unwanted else dx,
            dgamma,
            dbeta,
            fresh_dx="default" in self.fresh,
            fresh_gradients="gradients" in self.fresh,
        )
        self.delta_rows.store(h, buffers)

    def compute(self, name: str, buffers: BufferView) -> np.ndarray:
        x = self.handler.get_numpy_copy(buffers.inputs.default)
        mean, sigma = (
            self.handler.get_numpy_copy(array).reshape((*x.shape[:-1], 1))
            for array in buffers.internals
        )
        return (x - mean) / sigma

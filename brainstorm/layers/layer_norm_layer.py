"""Normalisation of each time step on its own."""

from __future__ import annotations

import math

from brainstorm.layers.base_layer import Layer, once_per_resize
from brainstorm.layers.rows import Rows
from brainstorm.structure.buffer_structure import BufferStructure
from brainstorm.structure.construction import ConstructionWrapper

__all__ = ["LayerNorm", "LayerNormLayerImpl"]


def LayerNorm(
    epsilon: float = 1e-5, name: str | None = None, *, trainable: bool = True
) -> ConstructionWrapper:
    """A layer that normalises each vector of features on its own.

    Initialize ``gamma`` with 1 and ``beta`` with 0. Other than `BatchNorm` it needs no
    statistics of the batch, and does the same in training and in use.

    Args:
        epsilon: Positive number that keeps the deviation off zero.
        name: Name of the layer.
        trainable: Whether training changes the parameters.
    """
    return ConstructionWrapper.create(
        LayerNormLayerImpl, name=name, trainable=trainable, epsilon=epsilon
    )


class LayerNormLayerImpl(Layer):
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
    internals   sigma    (T, B, m)      sigma of each of m vectors
    internals   x_hat    as x           (x - mean) / sigma
    =========== ======== ============== ==========================

    Raises:
        LayerValidationError: `epsilon` is not positive.
    """

    expected_kwargs = frozenset({"epsilon"})
    honours_fresh = True
    repeats = True

    def setup(self, kwargs, in_shapes):
        self.epsilon = self.argument(
            "epsilon", 1e-5, lambda e: 0.0 < e < float("inf"), "a positive number"
        )
        shape = self.like(in_shapes["default"])
        *vectors, features = shape.feature_shape
        parameters = dict.fromkeys(("gamma", "beta"), BufferStructure(features))
        sigma = BufferStructure("T", "B", math.prod(vectors))
        return {"default": shape}, parameters, {"sigma": sigma, "x_hat": shape}

    @once_per_resize
    def rows(self, buffers):
        """X and y with a row for each vector."""
        return Rows(self.handler, buffers.inputs, buffers.outputs)

    @once_per_resize
    def delta_rows(self, buffers):
        """The deltas of y and of x, likewise."""
        return Rows(self.handler, buffers.output_deltas, buffers.input_deltas)

    @once_per_resize
    def internal_matrices(self, buffers):
        """Sigma and x_hat, likewise."""
        sigma, x_hat = buffers.internals
        rows = math.prod(sigma.shape)
        return sigma.reshape((rows, 1)), x_hat.reshape((rows, x_hat.shape[-1]))

    def forward_pass(self, buffers, training_pass=True):
        rows = self.rows(buffers)
        x, y = rows.matrices
        rows.load(self.handler)
        self.handler.layer_norm_forward(
            x, *buffers.parameters, *self.internal_matrices(buffers), y, self.epsilon
        )
        rows.store(self.handler)

    def backward_pass(self, buffers):
        rows = self.delta_rows(buffers)
        dy, dx = rows.matrices
        rows.load(self.handler)
        self.handler.layer_norm_backward(
            buffers.parameters.gamma,
            *self.internal_matrices(buffers),
            dy,
            None if "default" in self.unwanted else dx,
            *buffers.gradients,
            fresh_dx="default" in self.fresh,
            fresh_gradients="gradients" in self.fresh,
        )
        rows.store(self.handler)

"""Batch normalization."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from brainstorm.checks import Argument, is_finite
from brainstorm.layers._stepwise_layer import StepwiseLayer
from brainstorm.layers._whole_batch_norm import (
    whole_batch_norm_backward,
    whole_batch_norm_forward,
)
from brainstorm.layers.arguments import FLAG, POSITIVE, Check, arguments_of
from brainstorm.layers.base_layer import BufferStructure, ConstructionWrapper
from brainstorm.layers.rows import Rows
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.layer import Setup, Structures
from brainstorm.utils import flatten_all_but_last


def BatchNorm(
    decay: float = 0.9,
    epsilon: float = 1e-5,
    name: str | None = None,
    *,
    sync: bool = False,
    trainable: bool = True,
) -> ConstructionWrapper:
    """A layer that gives each feature mean `beta` and standard deviation `gamma`.

    Unless initialized by their names, gamma and sigma begin with 1, beta and mu with 0.

    Args:
        decay: How much of the running values to keep at each training pass.
        epsilon: Added to the variance, to keep it off zero.
        name: Name of the layer.
        sync: Whether several processes that train together take mean and variance from
            the whole batch, as a single one would. Otherwise each takes those of its
            part, and they average the running values.
        trainable: Whether steppers change gamma and beta.
    """
    return ConstructionWrapper.create(BatchNormLayerImpl, **locals())


class BatchNormLayerImpl(StepwiseLayer):
    """Computes ``y = gamma * (x - mean) / sqrt(variance + epsilon) + beta``.

    Mean and variance are those of each of the C features in the last dimension,
    over all others (T and B too). Training passes take them from the batch, and
    update the running values; other passes take the running values.

    =========== ======== =============== =========================================
    buffer      name     shape           content
    =========== ======== =============== =========================================
    inputs      default  (T, B, ..., C)  x
    outputs     default  as x            y
    parameters  gamma    (C,)            factor of the outputs
    parameters  beta     (C,)            added to the outputs
    parameters  mu       (C,)            running *negative* mean
    parameters  sigma    (C,)            running sqrt(variance + epsilon)
    internals   sigma_b  (C,)            sqrt(variance + epsilon) of this batch
    internals   centered as x            x - mean
    internals   x_hat    as x            (x - mean) / sigma_b
    =========== ======== =============== =========================================

    The variance is the sum of squares divided by their number. Running values
    change as ``mu = decay * mu - (1 - decay) * mean`` and ``sigma = decay * sigma
    + (1 - decay) * sigma_b``, and get no gradients.

    A backward pass follows the last forward pass: after one that was not for
    training, the running values are constants. The internals are those of the last
    training pass, or of such a backward pass.

    Reference:
        Ioffe and Szegedy, "Batch Normalization: Accelerating Deep Network Training
        by Reducing Internal Covariate Shift", ICML (2015).

    Raises:
        LayerValidationError: `decay` is not in [0, 1], or `epsilon` not positive.
    """

    decay: float
    epsilon: float
    sync: bool

    arguments: Mapping[str, Argument] = arguments_of(
        BatchNorm,
        decay=Check(lambda d: is_finite(d) and 0 <= d <= 1, "a number in [0, 1]"),
        epsilon=POSITIVE,
        sync=FLAG,
    )
    computes_no_gradients_for: Sequence[str] = ("mu", "sigma")
    averaged_parameters: Sequence[str] = ("mu", "sigma")
    first_values: Mapping[str, Any] = {
        "gamma": 1.0,
        "beta": 0.0,
        "mu": 0.0,
        "sigma": 1.0,
    }
    can_be_stepped = False
    repeats = True
    follows_training = True

    rows: Rows = Rows(
        "inputs.default",
        writes=("outputs.default", "internals.centered", "internals.x_hat"),
        shape=flatten_all_but_last,
    )
    delta_rows: Rows = Rows(
        "inputs.default",
        "output_deltas.default",
        writes=("internals.centered", "internals.x_hat", "input_deltas.default"),
        shape=flatten_all_but_last,
    )

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        if self.sync:  # the running values are then the same everywhere
            self.averaged_parameters = ()
        shape = self.like(in_shapes["default"])
        features = BufferStructure(shape.shape[-1])
        parameters = dict.fromkeys(("gamma", "beta", "mu", "sigma"), features)
        internals = {"sigma_b": features, "centered": shape, "x_hat": shape}
        return {"default": shape}, parameters, internals

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        h, (gamma, beta, mu, sigma) = self.handler, buffers.parameters
        x, y, centered, x_hat = self.rows.load(h, buffers)
        if training_pass:
            internals = buffers.internals.sigma_b, centered, x_hat
            run = h.batch_norm_forward
            if self.sync and self.exchange is not None:
                run = functools.partial(whole_batch_norm_forward, h, self.exchange)
            run(x, gamma, beta, mu, sigma, *internals, y, self.decay, self.epsilon)
        else:
            h.batch_norm_inference(x, gamma, beta, mu, sigma, y)
        self.rows.store(h, buffers)
        self.after_training = training_pass

    def backward_pass(self, buffers: BufferView) -> None:
        h, parameters = self.handler, buffers.parameters
        x, dy, centered, x_hat, dx = self.delta_rows.load(h, buffers)
        from_batch = self.after_training
        if not from_batch:
            self.normalize_with_running_values(buffers, x, centered, x_hat)
        run = h.batch_norm_backward
        if self.sync and self.exchange is not None and from_batch:
            run = functools.partial(whole_batch_norm_backward, h, self.exchange)
        run(
            parameters.gamma,
            buffers.internals.sigma_b,
            centered,
            x_hat,
            dy,
            dx if from_batch and "default" not in self.unwanted else None,
            buffers.gradients.gamma,
            buffers.gradients.beta,
            fresh_dx="default" in self.fresh,
            fresh_gradients="gradients" in self.fresh,
        )
        if not from_batch:
            self.scale_deltas(parameters, dy, dx)
        self.delta_rows.store(h, buffers)

    def normalize_with_running_values(
        self, buffers: Any, x: Any, centered: Any, x_hat: Any
    ) -> None:
        """Fill the internals, which evaluation passes leave alone to be fast."""
        h = self.handler
        _, _, mu, sigma = (p.reshape((1, p.shape[0])) for p in buffers.parameters)
        h.copy_to(buffers.parameters.sigma, buffers.internals.sigma_b)
        h.add_mv(x, mu, centered)
        h.divide_mv(centered, sigma, x_hat)

    def scale_deltas(self, parameters: Any, dy: Any, dx: Any) -> None:
        """``dx (+)= dy gamma / sigma``: the backward pass with constant mu, sigma."""
        h = self.handler
        gamma, _, _, sigma = (p.reshape((1, p.shape[0])) for p in parameters)
        factor = h.scratch(gamma.shape, 2)
        h.divide_tt(gamma, sigma, factor)
        self.add_deltas("default", "mult_mv", dy, factor, dx)

"""Spiking neurons that are connected to themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brainstorm.checks import Argument
from brainstorm.handlers.operations.spiking import SpikingCells
from brainstorm.layers._leaking_layer import SpikingLayer, spiking_arguments
from brainstorm.layers.base_layer import BufferStructure, ConstructionWrapper
from brainstorm.layers.rows import Rows
from brainstorm.literals import Reset, Surrogate
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.layer import Setup, Structures


def RecurrentLif(
    size: int,
    tau: float | Sequence[float] = 10.0,
    name: str | None = None,
    *,
    threshold: float = 1.0,
    rest: float = 0.0,
    reset_to: float = 0.0,
    resistance: float = 1.0,
    dt: float = 1.0,
    reset: Reset = "hard",
    detach_reset: bool = True,
    refractory: float = 0.0,
    surrogate: Surrogate = "inv_square",
    surrogate_args: Mapping[str, float] | None = None,
    learn_tau: bool = False,
    bias: bool = True,
    trainable: bool = True,
) -> ConstructionWrapper:
    """A layer of spiking neurons that see inputs, and the spikes of the step before.

    Args:
        size: Number of neurons.
        tau: As all that follow, save `bias`, an argument of `Lif`.
        name: Name of the layer.
        threshold: See `Lif`.
        rest: Likewise.
        reset_to: Likewise.
        resistance: Likewise.
        dt: Likewise.
        reset: Likewise.
        detach_reset: Likewise.
        refractory: Likewise.
        surrogate: Likewise.
        surrogate_args: Likewise.
        learn_tau: Likewise.
        bias: Whether there is a bias.
        trainable: Whether training changes the parameters.
    """
    return ConstructionWrapper.create(RecurrentLifLayerImpl, **locals())


class RecurrentLifLayerImpl(SpikingLayer):
    """As `Lif`, with the current ``I[t] = W x[t] + R s[t-1] + bias``.

    With n neurons and inputs of the flattened size i there are, besides the other
    buffers of `Lif`:

    =========== ======== ================= ========================================
    buffer      name     shape             content
    =========== ======== ================= ========================================
    inputs      default  (T, B, ...)       x
    outputs     default  (T + 1, B, n)     s; row -1 belongs to the state
    parameters  W        (n, i)            weights of the inputs
    parameters  R        (n, n)            weights of the spikes of the step before
    parameters  bias     (n,)              bias, unless left out
    internals   I        (T, B, n)         currents without those from spikes
    internals   dI       (T, B, n)         deltas of the currents, backward
    =========== ======== ================= ========================================

    Raises:
        LayerValidationError: As `Lif`.
    """

    size: int
    bias: bool

    arguments: Mapping[str, Argument] = spiking_arguments(RecurrentLif)
    repeats = True

    rows: Rows = Rows("inputs.default", writes=["internals.I"])
    delta_rows: Rows = Rows("internals.dI", writes=["input_deltas.default"])

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        n, i = self.size, in_shapes["default"].feature_size
        decay_parameters, decay = self.decay_structures(n)
        outputs, internals = self.spiking_structures(n)
        outputs["default"] = BufferStructure("T", "B", n, context_size=1)
        parameters = {"W": BufferStructure(n, i), "R": BufferStructure(n, n)}
        if self.bias:
            parameters["bias"] = BufferStructure(n)
        internals["I"] = BufferStructure("T", "B", n)
        internals["dI"] = BufferStructure("T", "B", n, is_backward_only=True)
        return outputs, {**parameters, **decay_parameters}, {**decay, **internals}

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        x, current = self.rows(buffers)
        weights, inner, y = buffers.parameters, buffers.internals, buffers.outputs
        bias = weights.bias if self.bias else None
        self.handler.affine(x, weights.W, bias, None, current, "linear")
        cells = self.cells(buffers, y.membrane, y.default)
        self.handler.lif_forward(
            *(inner.I, self.new_decay(buffers), cells, self.neuron_now(), weights.R)
        )

    def backward_pass(self, buffers: BufferView) -> None:
        x, current = self.rows(buffers)
        deltas, dx = self.delta_rows(buffers)
        weights, gradients = buffers.parameters, buffers.gradients
        inner, y, dy = buffers.internals, buffers.outputs, buffers.output_deltas
        fresh = "gradients" in self.fresh
        self.handler.lif_backward(
            *(self.decay(buffers), self.cells(buffers, y.membrane, y.default)),
            SpikingCells(inner.du, dy.membrane, dy.default),
            *(inner.dI, self.decay_gradient(buffers), self.neuron_now()),
            *(weights.R, gradients.R),
            fresh_dx=True,
            fresh_gradients=fresh,
        )
        self.handler.affine_backward(
            *(x, weights.W, None, current, deltas, None),
            None if "default" in self.unwanted else dx,
            *(gradients.W, gradients.bias if self.bias else None, "linear"),
            fresh_dx="default" in self.fresh,
            fresh_gradients=fresh,
        )

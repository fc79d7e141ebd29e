"""Spiking neurons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brainstorm.checks import Argument
from brainstorm.handlers.operations.spiking import SpikingCells
from brainstorm.layers._leaking_layer import SpikingLayer, spiking_arguments
from brainstorm.layers.rows import Rows
from brainstorm.literals import Reset, Surrogate
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.structure.layer import Setup, Structures
from brainstorm.utils import flatten_features


def Lif(
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
    trainable: bool = True,
) -> ConstructionWrapper:
    """A layer of neurons that leak, integrate and fire; a current each is the input.

    Args:
        tau: Time constant, or a list with one for each unit, in the unit of `dt`.
        name: Name of the layer.
        threshold: Potential from which on a neuron fires.
        rest: Potential without input.
        reset_to: Potential after a spike, with a hard reset.
        resistance: Factor of the input.
        dt: Length of a time step.
        reset: 'hard', or 'soft' to subtract ``threshold - reset_to`` at a spike.
        detach_reset: Whether no gradient flows through the reset.
        refractory: For how long a neuron is frozen after the step of a spike, in the
            unit of `dt`; it is rounded down to whole steps.
        surrogate: What stands for the derivative of a spike; see `SURROGATES` in
            :mod:`brainstorm.handlers.operations.surrogates`.
        surrogate_args: Its parameters by name, such as ``{'alpha': 10.0}``.
        learn_tau: Whether there is a parameter that changes the time constants.
        trainable: Whether training changes the parameter.
    """
    return ConstructionWrapper.create(LifLayerImpl, **locals())


class LifLayerImpl(SpikingLayer):
    """Neurons that leak, integrate and fire.

    With ``a = exp(-dt / tau)`` it computes in each step::

        u[t] = a V[t-1] + (1 - a) (rest + resistance x[t])
        s[t] = 1 where u[t] >= threshold, else 0
        V[t] = u[t], but reset_to where s[t] is 1                  (hard reset)
        V[t] = u[t] - (threshold - reset_to) s[t]                  (soft reset)

    In the ``floor(refractory / dt)`` steps after a spike ``u[t] = V[t-1]``. The
    derivative of s by u is the surrogate at ``u - threshold``: Neftci, Mostafa and
    Zenke, *Surrogate gradient learning in spiking neural networks*, 2019. With n
    features:

    =========== ======== ================= ========================================
    buffer      name     shape             content
    =========== ======== ================= ========================================
    inputs      default  (T, B, ...)       x, a current
    outputs     default  (T, B, ...)       s, spikes
    outputs     membrane (T + 1, B, ...)   V, potentials after the reset
    parameters  decay    (n,)              with `learn_tau`; see `Leaky`
    internals   a        (n,)              with `learn_tau`: a
    internals   u        (T, B, n)         potentials before the reset
    internals   du       (T, B, n)         their deltas, backward
    internals   left     (T + 1, B, n)     with `refractory`: frozen for how many steps
    =========== ======== ================= ========================================

    Rows -1 of V and of ``left`` are the state before the first step. After a backward
    pass, row -1 of the deltas of V holds those of the state.

    Raises:
        LayerValidationError: A time constant is not above ``dt / 2``, `reset_to` is not
            below `threshold`, the surrogate has no such parameters, or an argument is
            not as in `Lif`.
    """

    arguments: Mapping[str, Argument] = spiking_arguments(Lif)
    repeats = True

    rows: Rows = Rows(
        "inputs.default",
        writes=["outputs.membrane", "outputs.default"],
        shape=flatten_features,
    )
    delta_rows: Rows = Rows(
        *("outputs.membrane", "outputs.default", "output_deltas.default"),
        writes=["output_deltas.membrane", "input_deltas.default"],
        shape=flatten_features,
    )

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        x = in_shapes["default"]
        parameters, decay = self.decay_structures(x.feature_size)
        outputs, internals = self.spiking_structures(*x.feature_shape)
        return outputs, parameters, {**decay, **internals}

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        x, v, y = self.rows.load(self.handler, buffers)
        cells = self.cells(buffers, v, y)
        self.handler.lif_forward(x, self.new_decay(buffers), cells, self.neuron_now())
        self.rows.store(self.handler, buffers)

    def backward_pass(self, buffers: BufferView) -> None:
        v, y, dy, dv, dx = self.delta_rows.load(self.handler, buffers)
        self.handler.lif_backward(
            *(self.decay(buffers), self.cells(buffers, v, y)),
            SpikingCells(buffers.internals.du, dv, dy),
            None if "default" in self.unwanted else dx,
            self.decay_gradient(buffers),
            self.neuron_now(),
            fresh_dx="default" in self.fresh,
            fresh_gradients="gradients" in self.fresh,
        )
        self.delta_rows.store(self.handler, buffers)

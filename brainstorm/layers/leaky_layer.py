"""Leaky integration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from brainstorm.checks import Argument
from brainstorm.layers._leaking_layer import LeakingLayer, leaking_arguments
from brainstorm.layers.arguments import one_of
from brainstorm.layers.base_layer import BufferStructure, ConstructionWrapper
from brainstorm.layers.rows import Rows
from brainstorm.literals import Gain
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.layer import Setup, Structures
from brainstorm.utils import flatten_features


def Leaky(
    tau: float | Sequence[float] = 10.0,
    name: str | None = None,
    *,
    dt: float = 1.0,
    gain: Gain = "input",
    rest: float = 0.0,
    resistance: float = 1.0,
    learn_tau: bool = False,
    trainable: bool = True,
) -> ConstructionWrapper:
    """A layer that adds up its input over time, and forgets: a synapse, or a membrane.

    Args:
        tau: Time constant, or a list with one for each unit, in the unit of `dt`.
        name: Name of the layer.
        dt: Length of a time step.
        gain: 'input' to add inputs as they are, as a synapse does; 'integrate' to go
            to ``rest + resistance * x``, as a membrane without spikes does.
        rest: Where outputs go without input, with 'integrate'.
        resistance: Factor of the input, with 'integrate'.
        learn_tau: Whether there is a parameter that changes the time constants.
        trainable: Whether training changes the parameter.
    """
    return ConstructionWrapper.create(LeakyLayerImpl, **locals())


class LeakyLayerImpl(LeakingLayer):
    """Computes ``y[t] = a y[t-1] + x[t]`` with ``a = exp(-dt / tau)``.

    With ``gain='integrate'`` it is ``y[t] = a y[t-1] + (1 - a) (rest + resistance
    x[t])``, the exact solution of ``tau dy/dt = rest - y + resistance x`` for an input
    that is held over each step. With n features:

    =========== ======== ================= =======================================
    buffer      name     shape             content
    =========== ======== ================= =======================================
    inputs      default  (T, B, ...)       x
    outputs     default  (T + 1, B, ...)   y
    parameters  decay    (n,)              with `learn_tau`: moves the logit of a
    internals   a        (n,)              with `learn_tau`: a
    =========== ======== ================= =======================================

    Row -1 of y is the state before the first step; after a backward pass, that of the
    output deltas holds its deltas. With `learn_tau` it is ``a = sigmoid(decay + c)``,
    where c makes it ``exp(-dt / tau)`` for a decay of 0, with which that begins.

    Raises:
        LayerValidationError: A time constant is not above ``dt / 2``, or an argument is
            not as in `Leaky`.
    """

    gain: Gain
    rest: float
    resistance: float

    arguments: Mapping[str, Argument] = leaking_arguments(
        Leaky, gain=one_of(*get_args(Gain))
    )
    repeats = True

    rows: Rows = Rows(
        "inputs.default", writes=["outputs.default"], shape=flatten_features
    )
    delta_rows: Rows = Rows(
        "outputs.default",
        writes=["output_deltas.default", "input_deltas.default"],
        shape=flatten_features,
    )

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        x = in_shapes["default"]
        if self.gain == "input" and (self.rest, self.resistance) != (0.0, 1.0):
            raise self.error(
                "expected gain='integrate' with 'rest' or 'resistance', got 'input'"
            )
        parameters, internals = self.decay_structures(x.feature_size)
        y = BufferStructure("T", "B", *x.feature_shape, context_size=1)
        return {"default": y}, parameters, internals

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        x, y = self.rows.load(self.handler, buffers)
        self.handler.leaky_forward(
            *(x, self.new_decay(buffers), y, self.gain == "integrate"),
            *(self.rest, self.resistance),
        )
        self.rows.store(self.handler, buffers)

    def backward_pass(self, buffers: BufferView) -> None:
        y, dy, dx = self.delta_rows.load(self.handler, buffers)
        self.handler.leaky_backward(
            *(self.decay(buffers), y, dy),
            None if "default" in self.unwanted else dx,
            self.decay_gradient(buffers),
            *(self.gain == "integrate", self.resistance),
            fresh_dx="default" in self.fresh,
            fresh_gradients="gradients" in self.fresh,
        )
        self.delta_rows.store(self.handler, buffers)

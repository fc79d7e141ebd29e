"""Gated recurrent units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brainstorm.checks import Argument
from brainstorm.handlers.operations.gru import GruCells, GruDeltas, GruWeights
from brainstorm.layers._sequence_layer import SequenceLayer
from brainstorm.layers.arguments import FLAG, arguments_of
from brainstorm.literals import Activation, InitialState
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.structure.layer import Setup, Structures


def Gru(
    size: int,
    activation: Activation = "tanh",
    name: str | None = None,
    *,
    bias: bool = True,
    initial_state: InitialState = "zeros",
    trainable: bool = True,
    reset_after: bool = True,
    recurrent_bias: bool = False,
) -> ConstructionWrapper:
    """A layer of gated recurrent units.

    Args:
        size: Number of units.
        activation: Activation function of the candidates.
        name: Name of the layer.
        bias: Whether there are biases.
        initial_state: 'zeros', or 'learned' for a parameter to begin sequences with.
        trainable: Whether training changes the parameters.
        reset_after: Whether the reset gates act after the product with the outputs of
            the step before.
        recurrent_bias: Whether there is a bias on what they act on, then. Layers that
            PyTorch and Keras trained have one.
    """
    return ConstructionWrapper.create(GruLayerImpl, **locals())


class GruLayerImpl(SequenceLayer):
    """Gated recurrent units.

    Cho et al., *Learning phrase representations using RNN encoder-decoder for
    statistical machine translation*, 2014. With ``x = x[t]`` and ``y' = y[t-1]``::

        Ra[t] = Wr x + Rr y' + br        Rb[t] = sigmoid(Ra[t])
        Za[t] = Wz x + Rz y' + bz        Zb[t] = sigmoid(Za[t])
        Pa[t] = Rh y' + bp
        Ha[t] = Wh x + Rb Pa + bh        Hb[t] = act(Ha[t])
        y[t] = (1 - Zb) Hb + Zb y'

    The reset gate acts after the product with Rh, as in the first version of the
    paper, in cuDNN and in PyTorch: there br, bz and bh are ``bias_ih``, bp is the last
    third of ``bias_hh``, and the others are 0. With ``reset_after=False`` it acts
    before, as in later versions: ``Pa[t] = Rb y'`` and ``Ha[t] = Wh x + Rh Pa + bh``.

    With n units and inputs of the flattened size i:

    =========== =============== =============== ===============================
    buffer      name            shape           content
    =========== =============== =============== ===============================
    inputs      default         (T, B, ...)     x
    outputs     default         (T + 1, B, n)   y
    parameters  Wr, Wz, Wh      (n, i)          weights of the inputs
    parameters  Rr, Rz, Rh      (n, n)          weights of the outputs before
    parameters  br, bz, bh      (n,)            biases, unless left out
    parameters  bp              (n,)            another, if `recurrent_bias`
    parameters  y0              (n,)            y to begin with, if learned
    internals   Ra, ..., Hb     (T, B, n)       as above
    internals   dRa, ..., dHa   (T, B, n)       deltas, backward
    internals   begun           (T + 1, B, 1)   1 where y' is not y0, if learned
    =========== =============== =============== ===============================

    The internals are Ra, Rb, Za, Zb, Pa, Ha and Hb; deltas are kept of Ra, Za, Pa and
    Ha. Row -1 of y is the state before the first step; after a backward pass, that of
    the output deltas holds its deltas.

    Raises:
        LayerValidationError: An argument is not as in `Gru`, or there is a recurrent
            bias without `reset_after`.
    """

    reset_after: bool

    arguments: Mapping[str, Argument] = arguments_of(
        Gru, reset_after=FLAG, recurrent_bias=FLAG
    )
    stacks_parameters = True
    repeats = True

    operation: str = "gru"
    has_outputs_alone = True
    weights: Mapping[str, Sequence[str]] = {
        **{kind: [kind + gate for gate in "rzh"] for kind in "WRb"},
        "bp": ["bp"],
    }
    record: type[Any] = GruWeights
    cells: type[Any] = GruCells
    deltas: type[Any] = GruDeltas
    cell_context = 0

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        structures = super().setup(kwargs, in_shapes)
        if self.recurrent_bias:
            if not self.reset_after:
                raise self.error("expected 'reset_after' with a 'recurrent_bias'")
            self.first_values = {**self.first_values, "bp": 0.0}
        return structures

    def options(self, buffers: Any) -> dict[str, Any]:
        return {} if self.reset_after else {"reset_after": False}

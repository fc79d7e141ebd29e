"""Gated recurrent units."""

from __future__ import annotations

import math

from brainstorm.layers.base_layer import once_per_resize, options
from brainstorm.layers.sequence_layer import SequenceLayer
from brainstorm.structure.buffer_structure import BufferStructure
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.utils import flatten_features

__all__ = ["Gru", "GruLayerImpl"]

CELLS = ("Ra", "Rb", "Za", "Zb", "Pa", "Ha", "Hb")
DELTAS = ("dRa", "dZa", "dPa", "dHa")


def Gru(
    size: int,
    activation: str = "tanh",
    name: str | None = None,
    *,
    bias: bool = True,
    initial_state: str = "zeros",
    trainable: bool = True,
) -> ConstructionWrapper:
    """A layer of gated recurrent units.

    Args:
        size: Number of units.
        activation: Activation function of the candidates.
        name: Name of the layer.
        bias: Whether there are biases.
        initial_state: 'zeros', or 'learned' for a parameter to begin sequences with.
        trainable: Whether training changes the parameters.
    """
    return ConstructionWrapper.create(
        GruLayerImpl,
        name=name,
        trainable=trainable,
        size=size,
        activation=activation,
        **options(bias=(bias, True), initial_state=(initial_state, "zeros")),
    )


class GruLayerImpl(SequenceLayer):
    """Gated recurrent units.

    Cho et al., *Learning phrase representations using RNN encoder-decoder for
    statistical machine translation*, 2014. With ``x = x[t]`` and ``y' = y[t-1]``::

        Ra[t] = Wr x + Rr y' + br        Rb[t] = sigmoid(Ra[t])
        Za[t] = Wz x + Rz y' + bz        Zb[t] = sigmoid(Za[t])
        Pa[t] = Rh y'
        Ha[t] = Wh x + Rb Pa + bh        Hb[t] = act(Ha[t])
        y[t] = (1 - Zb) Hb + Zb y'

    The reset gate acts after the product with Rh, as in the first version of the
    paper, in cuDNN and in PyTorch (where this layer's bias is ``bias_ih``, and
    ``bias_hh`` is 0); not before it, as in later versions.

    With n units and inputs of the flattened size i:

    =========== =============== =============== ===============================
    buffer      name            shape           content
    =========== =============== =============== ===============================
    inputs      default         (T, B, ...)     x
    outputs     default         (T + 1, B, n)   y
    parameters  Wr, Wz, Wh      (n, i)          weights of the inputs
    parameters  Rr, Rz, Rh      (n, n)          weights of the outputs before
    parameters  br, bz, bh      (n,)            biases, unless left out
    parameters  y0              (n,)            y to begin with, if learned
    internals   Ra, ..., Hb     (T, B, n)       as above
    internals   dRa, ..., dHa   (T, B, n)       deltas, backward
    internals   zero_bias       (3 n,)          zeros in place of the biases
    internals   begun           (T + 1, B, 1)   1 where y' is not y0, if learned
    =========== =============== =============== ===============================

    The internals are Ra, Rb, Za, Zb, Pa, Ha and Hb; deltas are kept of Ra, Za, Pa and
    Ha. Row -1 of y is the state before the first step; after a backward pass, that of
    the output deltas holds its deltas.

    Raises:
        LayerValidationError: `size`, `activation`, `bias` or `initial_state` are not
            as above.
    """

    stacks_parameters = True
    repeats = True

    def setup(self, kwargs, in_shapes):
        n = self.read_options()
        i = in_shapes["default"].feature_size
        outputs = {"default": BufferStructure("T", "B", n, context_size=1)}
        self.stacked_shapes = {"W": (3 * n, i), "R": (3 * n, n)}
        if self.has_bias:
            self.stacked_shapes["b"] = (3 * n,)
        parameters = {
            kind + gate: BufferStructure(n, *shape[1:])
            for kind, shape in self.stacked_shapes.items()
            for gate in "rzh"
        }
        internals = {
            name: BufferStructure("T", "B", n, is_backward_only=name in DELTAS)
            for name in CELLS + DELTAS
        }
        self.add_options(parameters, internals, 3 * n)
        return outputs, parameters, internals

    def stacked(self, view, bias=None):
        """W, R and b of all gates, or their gradients, without copying.

        They lie one after the other, so each kind is one array.
        """
        found, start = {"b": bias}, 0
        for kind, shape in self.stacked_shapes.items():
            stop = start + math.prod(shape)
            found[kind] = view._full_buffer[start:stop].reshape(shape)
            start = stop
        return found["W"], found["R"], found["b"]

    @once_per_resize
    def arrays(self, buffers):
        """What the forward pass works on."""
        bias = None if self.has_bias else buffers.internals.zero_bias
        return (
            flatten_features(buffers.inputs.default),
            *self.stacked(buffers.parameters, bias),
            *(getattr(buffers.internals, name) for name in CELLS),
            buffers.outputs.default,
        )

    @once_per_resize
    def backward_arrays(self, buffers):
        """What the backward pass works on: before the input deltas, they, after."""
        x, W, R, _, *cells_and_y = self.arrays(buffers)
        deltas = [getattr(buffers.internals, name) for name in DELTAS]
        arrays = (x, W, R, *cells_and_y, buffers.output_deltas.default, *deltas)
        dx = flatten_features(buffers.input_deltas.default)
        return arrays, dx, self.stacked(buffers.gradients)

    def forward_pass(self, buffers, training_pass=True):
        self.begin(buffers)
        self.handler.gru_forward(*self.arrays(buffers), self.activation)

    def backward_pass(self, buffers):
        arrays, dx, (dW, dR, dbias) = self.backward_arrays(buffers)
        self.handler.gru_backward(
            *arrays,
            None if "default" in self.unwanted else dx,
            dW,
            dR,
            self.unused_gradient(dW.shape[0]) if dbias is None else dbias,
            self.activation,
            fresh_dx="default" in self.fresh,
            fresh_gradients="gradients" in self.fresh,
        )
        self.end(buffers)

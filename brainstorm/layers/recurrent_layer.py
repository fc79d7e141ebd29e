"""Fully connected to itself, one step later."""

from __future__ import annotations

from brainstorm.layers.base_layer import once_per_resize, options
from brainstorm.layers.sequence_layer import SequenceLayer
from brainstorm.structure.buffer_structure import BufferStructure
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.structure.taps import delta_structure, tapped_internals
from brainstorm.utils import flatten_features

__all__ = ["Recurrent", "RecurrentLayerImpl"]


def Recurrent(
    size: int,
    activation: str = "tanh",
    name: str | None = None,
    *,
    bias: bool = True,
    initial_state: str = "zeros",
    trainable: bool = True,
) -> ConstructionWrapper:
    """A layer whose units see its inputs, and the outputs of the step before.

    Args:
        size: Number of units.
        activation: Activation function.
        name: Name of the layer.
        bias: Whether there is a bias.
        initial_state: 'zeros', or 'learned' for parameters to begin sequences with.
        trainable: Whether training changes the parameters.
    """
    return ConstructionWrapper.create(
        RecurrentLayerImpl,
        name=name,
        trainable=trainable,
        size=size,
        activation=activation,
        **options(bias=(bias, True), initial_state=(initial_state, "zeros")),
    )


class RecurrentLayerImpl(SequenceLayer):
    """Computes ``y[t] = act(Ha[t])`` with ``Ha[t] = W x[t] + R y[t-1] + bias``.

    With n units and inputs of the flattened size i:

    =========== ======== ===================== =================================
    buffer      name     shape                 content
    =========== ======== ===================== =================================
    inputs      default  (T, B, ...)           x
    outputs     default  (T + 1, B, n)         y
    parameters  W        (n, i)                weights of the inputs
    parameters  R        (n, n)                weights of the outputs before
    parameters  bias     (n,)                  bias, unless left out
    parameters  y0       (n,)                  y to begin with, if learned
    internals   Ha       (T + 1, B, n)         pre-activations
    internals   dHa      (T + 1, B, n)         their deltas, backward
    internals   dHb      (T + 1, B, n)         all deltas of y, backward
    =========== ======== ===================== =================================

    Row -1 of y is the state before the first step. After a backward pass, row -1
    of dHb and of the output deltas holds its deltas.

    Without biases there is an internal ``zero_bias``, as large, that is 0. With
    ``initial_state='learned'`` there is an internal ``begun`` (T + 1, B, 1), 1 in steps
    after which the state is carried on; where its row -1 is 0, a sequence begins.
    Ha can be the input of another layer, ``layer - '..internals.Ha' >> other``; then
    ``Ha_deltas`` (T, B, n) holds what that computes for it.

    Raises:
        LayerValidationError: An argument is not as in `Recurrent`.
    """

    repeats = True

    def setup(self, kwargs, in_shapes):
        n = self.read_options()
        i = in_shapes["default"].feature_size
        outputs = {"default": BufferStructure("T", "B", n, context_size=1)}
        parameters = {
            "W": BufferStructure(n, i),
            "R": BufferStructure(n, n),
        }
        if self.has_bias:
            parameters["bias"] = BufferStructure(n)
        internals = {
            name: BufferStructure(
                "T", "B", n, context_size=1, is_backward_only=name[0] == "d"
            )
            for name in ("Ha", "dHa", "dHb")
        }
        self.add_options(parameters, internals, n)
        self.is_tapped = "Ha" in tapped_internals(self.outgoing)
        if self.is_tapped:
            internals["Ha_deltas"] = delta_structure(internals["Ha"])
        return outputs, parameters, internals

    def clock(self, buffers):
        """Further arguments of the operations; see `Clockwork`."""
        return {}

    @once_per_resize
    def arrays(self, buffers):
        """What the forward pass works on."""
        W, R, *_ = buffers.parameters
        bias = buffers.parameters.bias if self.has_bias else buffers.internals.zero_bias
        x = flatten_features(buffers.inputs.default)
        return x, W, R, bias, buffers.internals.Ha, buffers.outputs.default

    @once_per_resize
    def backward_arrays(self, buffers):
        """What the backward pass works on: before the input deltas, they, after."""
        x, W, R, _, Ha, y = self.arrays(buffers)
        dy = buffers.output_deltas.default
        dHa, dHb = buffers.internals.dHa, buffers.internals.dHb
        dx = flatten_features(buffers.input_deltas.default)
        dW, dR, *_ = buffers.gradients
        dbias = buffers.gradients.bias if self.has_bias else None
        return (x, W, R, Ha, y, dy, dHa, dHb), dx, (dW, dR, dbias)

    def forward_pass(self, buffers, training_pass=True):
        self.begin(buffers)
        self.handler.recurrent_forward(
            *self.arrays(buffers), self.activation, **self.clock(buffers)
        )

    def backward_pass(self, buffers):
        arrays, dx, (dW, dR, dbias) = self.backward_arrays(buffers)
        self.handler.recurrent_backward(
            *arrays,
            None if "default" in self.unwanted else dx,
            dW,
            dR,
            self.unused_gradient(dW.shape[0]) if dbias is None else dbias,
            self.activation,
            fresh_dx="default" in self.fresh,
            fresh_gradients="gradients" in self.fresh,
            **self.clock(buffers),
            **({"outside": buffers.internals.Ha_deltas} if self.is_tapped else {}),
        )
        self.end(buffers)

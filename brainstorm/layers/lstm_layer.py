"""Long short-term memory."""

from __future__ import annotations

import math

from brainstorm.handlers.recurrent_operations import LstmCells
from brainstorm.layers.base_layer import once_per_resize, options
from brainstorm.layers.sequence_layer import SequenceLayer
from brainstorm.structure.buffer_structure import BufferStructure
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.structure.taps import delta_structure, tapped_internals
from brainstorm.utils import flatten_features

__all__ = ["Lstm", "LstmLayerImpl"]

CELLS = ("Za", "Zb", "Ia", "Ib", "Fa", "Fb", "Oa", "Ob", "Ca", "Cb")
DELTAS = tuple(f"d{name}" for name in CELLS)


def Lstm(
    size: int,
    activation: str = "tanh",
    name: str | None = None,
    *,
    peepholes: bool = True,
    bias: bool = True,
    initial_state: str = "zeros",
    trainable: bool = True,
) -> ConstructionWrapper:
    """A layer of long short-term memory cells.

    Args:
        size: Number of cells.
        activation: Activation function of the block input and of the cell.
        name: Name of the layer.
        peepholes: Whether the gates see the cells.
        bias: Whether there are biases.
        initial_state: 'zeros', or 'learned' for parameters to begin sequences with.
        trainable: Whether training changes the parameters.
    """
    return ConstructionWrapper.create(
        LstmLayerImpl,
        name=name,
        trainable=trainable,
        size=size,
        activation=activation,
        **options(
            peepholes=(peepholes, True),
            bias=(bias, True),
            initial_state=(initial_state, "zeros"),
        ),
    )


class LstmLayerImpl(SequenceLayer):
    """Long short-term memory with forget gates and peepholes.

    Hochreiter and Schmidhuber, *Long short-term memory*, 1997; Gers and
    Schmidhuber, *Recurrent nets that time and count*, 2000. With ``x = x[t]``,
    ``y' = y[t-1]``, ``c = Ca[t]`` and ``c' = Ca[t-1]``::

        Za[t] = Wz x + Rz y' + bz            Zb[t] = act(Za[t])
        Ia[t] = Wi x + Ri y' + pi c' + bi    Ib[t] = sigmoid(Ia[t])
        Fa[t] = Wf x + Rf y' + pf c' + bf    Fb[t] = sigmoid(Fa[t])
        Ca[t] = Ib[t] Zb[t] + Fb[t] c'       Cb[t] = act(Ca[t])
        Oa[t] = Wo x + Ro y' + po c + bo     Ob[t] = sigmoid(Oa[t])
        y[t] = Ob[t] Cb[t]

    With n cells and inputs of the flattened size i:

    =========== ============== =============== ===============================
    buffer      name           shape           content
    =========== ============== =============== ===============================
    inputs      default        (T, B, ...)     x
    outputs     default        (T + 1, B, n)   y
    parameters  Wz, Wi, Wf, Wo (n, i)          weights of the inputs
    parameters  pi, pf, po     (1, n)          peepholes, unless left out
    parameters  Rz, Ri, Rf, Ro (n, n)          weights of the outputs before
    parameters  bz, bi, bf, bo (n,)            biases, unless left out
    parameters  y0, c0         (n,)            y and c to begin with, if learned
    internals   Za, ..., Cb    (T + 1, B, n)   as above
    internals   dZa, ..., dCb  (T + 1, B, n)   their deltas, backward
    =========== ============== =============== ===============================

    The internals are Za, Zb, Ia, Ib, Fa, Fb, Oa, Ob, Ca, Cb, and the same with a
    d in front. Row -1 of y and of Ca is the state before the first step. After a
    backward pass, row -1 of the output deltas and of dCa holds its deltas.

    Without biases there is an internal ``zero_bias`` (4 n,) that is 0. With
    ``initial_state='learned'`` there is an internal ``begun``, see `Recurrent`.
    Internals can be inputs of other layers, ``lstm - '..internals.Ca' >> other``; then
    ``Ca_deltas`` (T, B, n) holds what these compute for it.

    Raises:
        LayerValidationError: An argument is not as in `Lstm`.
    """

    expected_kwargs = SequenceLayer.expected_kwargs | {"peepholes"}
    states = {"y0": "outputs.default", "c0": "internals.Ca"}
    stacks_parameters = True
    repeats = True

    def setup(self, kwargs, in_shapes):
        n = self.read_options()
        self.peepholes = self.argument(
            "peepholes", True, lambda value: isinstance(value, bool), "True or False"
        )
        i = in_shapes["default"].feature_size
        outputs = {"default": BufferStructure("T", "B", n, context_size=1)}
        groups = {
            "W": (BufferStructure(n, i), "zifo"),
            "p": (BufferStructure(1, n), "ifo" if self.peepholes else ""),
            "R": (BufferStructure(n, n), "zifo"),
            "b": (BufferStructure(n), "zifo" if self.has_bias else ""),
        }
        parameters = {
            kind + gate: structure
            for kind, (structure, gates) in groups.items()
            for gate in gates
        }
        internals = {
            name: BufferStructure(
                *("T", "B", n),
                context_size=1,
                is_backward_only=name in DELTAS,
                is_state=name == "Ca",
            )
            for name in CELLS + DELTAS
        }
        self.stacked_shapes = {"W": (4 * n, i), "p": (3, n), "R": (4 * n, n)}
        self.stacked_shapes["b"] = (4 * n,)
        if not self.peepholes:
            del self.stacked_shapes["p"]
        if not self.has_bias:
            del self.stacked_shapes["b"]
        self.add_options(parameters, internals, 4 * n)
        self.tapped = [n for n in tapped_internals(self.outgoing) if n in CELLS]
        for name in self.tapped:
            internals[f"{name}_deltas"] = delta_structure(internals[name])
        return outputs, parameters, internals

    def stacked(self, view, bias=None):
        """W, R, p and b of all gates, or their gradients, without copying.

        They lie one after the other, so each kind is one array.
        """
        found, start = {"p": None, "b": bias}, 0
        for kind, shape in self.stacked_shapes.items():
            stop = start + math.prod(shape)
            found[kind] = view._full_buffer[start:stop].reshape(shape)
            start = stop
        return found["W"], found["R"], found["p"], found["b"]

    def clock(self, buffers):
        """Further arguments of the operations; see `ClockworkLstm`."""
        return {}

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
        x, W, R, p, _, *cells_and_y = self.arrays(buffers)
        deltas = [getattr(buffers.internals, name) for name in DELTAS]
        arrays = (x, W, R, p, *cells_and_y, buffers.output_deltas.default, *deltas)
        dx = flatten_features(buffers.input_deltas.default)
        return arrays, dx, self.stacked(buffers.gradients)

    def forward_pass(self, buffers, training_pass=True):
        self.begin(buffers)
        self.handler.lstm_forward(
            *self.arrays(buffers), self.activation, **self.clock(buffers)
        )
        for name in self.tapped:
            self.handler.complete(buffers.internals[name])

    def from_outside(self, buffers):
        """The deltas of cells that are inputs of other layers, if there are any."""
        if not self.tapped:
            return {}
        for name in CELLS:
            self.handler.complete(buffers.internals[name])
        taps = {name: buffers.internals[f"{name}_deltas"] for name in self.tapped}
        return {"outside": LstmCells(*[taps.get(name) for name in CELLS])}

    def backward_pass(self, buffers):
        arrays, dx, (dW, dR, dp, db) = self.backward_arrays(buffers)
        self.handler.lstm_backward(
            *arrays,
            None if "default" in self.unwanted else dx,
            dW,
            dR,
            dp,
            self.unused_gradient(dW.shape[0]) if db is None else db,
            self.activation,
            fresh_dx="default" in self.fresh,
            fresh_gradients="gradients" in self.fresh,
            **self.clock(buffers),
            **self.from_outside(buffers),
        )
        self.end(buffers)

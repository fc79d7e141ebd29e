"""Long short-term memory."""

from __future__ import annotations

import math

from brainstorm.layers.base_layer import Layer, once_per_resize
from brainstorm.structure.buffer_structure import BufferStructure, StructureTemplate
from brainstorm.structure.construction import ConstructionWrapper
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
    trainable: bool = True,
) -> ConstructionWrapper:
    """A layer of long short-term memory cells.

    Args:
        size: Number of cells.
        activation: Activation function of the block input and of the cell.
        name: Name of the layer.
        peepholes: Whether the gates see the cells.
        trainable: Whether training changes the parameters.
    """
    # Files that do not use the option stay readable for version 0.5.
    options = {} if peepholes is True else {"peepholes": peepholes}
    return ConstructionWrapper.create(
        LstmLayerImpl,
        name=name,
        trainable=trainable,
        size=size,
        activation=activation,
        **options,
    )


class LstmLayerImpl(Layer):
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
    parameters  bz, bi, bf, bo (n,)            biases
    internals   Za, ..., Cb    (T + 1, B, n)   as above
    internals   dZa, ..., dCb  (T + 1, B, n)   their deltas, backward
    =========== ============== =============== ===============================

    The internals are Za, Zb, Ia, Ib, Fa, Fb, Oa, Ob, Ca, Cb, and the same with a
    d in front. Row -1 of y and of Ca is the state before the first step. After a
    backward pass, row -1 of the output deltas and of dCa holds its deltas.

    Raises:
        LayerValidationError: `size`, `activation` or `peepholes` are not as above.
    """

    expected_inputs = {"default": StructureTemplate("T", "B", "...")}
    expected_kwargs = frozenset({"size", "activation", "peepholes"})
    honours_fresh = True
    stacks_parameters = True

    def setup(self, kwargs, in_shapes):
        self.activation = self.activation_argument("tanh")
        n = self.argument(
            "size", None, lambda size: size > 0 == size % 1, "a positive integer"
        )
        self.peepholes = self.argument(
            "peepholes", True, lambda value: isinstance(value, bool), "True or False"
        )
        i = in_shapes["default"].feature_size
        outputs = {"default": BufferStructure("T", "B", n, context_size=1)}
        groups = {
            "W": (BufferStructure(n, i), "zifo"),
            "p": (BufferStructure(1, n), "ifo" if self.peepholes else ""),
            "R": (BufferStructure(n, n), "zifo"),
            "b": (BufferStructure(n), "zifo"),
        }
        parameters = {
            kind + gate: structure
            for kind, (structure, gates) in groups.items()
            for gate in gates
        }
        internals = {
            name: BufferStructure(
                "T", "B", n, context_size=1, is_backward_only=name in DELTAS
            )
            for name in CELLS + DELTAS
        }
        self.stacked_shapes = {"W": (4 * n, i), "p": (3, n), "R": (4 * n, n)}
        self.stacked_shapes["b"] = (4 * n,)
        if not self.peepholes:
            del self.stacked_shapes["p"]
        return outputs, parameters, internals

    def stacked(self, view):
        """W, R, p and b of all gates, or their gradients, without copying.

        They lie one after the other, so each kind is one array.
        """
        found, start = {"p": None}, 0
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
        return (
            flatten_features(buffers.inputs.default),
            *self.stacked(buffers.parameters),
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
        self.handler.lstm_forward(
            *self.arrays(buffers), self.activation, **self.clock(buffers)
        )

    def backward_pass(self, buffers):
        arrays, dx, gradients = self.backward_arrays(buffers)
        self.handler.lstm_backward(
            *arrays,
            None if "default" in self.unwanted else dx,
            *gradients,
            self.activation,
            fresh_dx="default" in self.fresh,
            fresh_gradients="gradients" in self.fresh,
            **self.clock(buffers),
        )

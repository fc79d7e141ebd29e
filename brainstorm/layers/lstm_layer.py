"""Long short-term memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brainstorm.checks import Argument
from brainstorm.handlers.operations.lstm import LstmCells
from brainstorm.layers._sequence_layer import SequenceLayer
from brainstorm.layers.arguments import FLAG, arguments_of
from brainstorm.literals import Activation, InitialState
from brainstorm.structure.construction import ConstructionWrapper


def Lstm(
    size: int,
    activation: Activation = "tanh",
    name: str | None = None,
    *,
    peepholes: bool = True,
    bias: bool = True,
    initial_state: InitialState = "zeros",
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
    return ConstructionWrapper.create(LstmLayerImpl, **locals())


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

    With ``initial_state='learned'`` there is an internal ``begun``, see `Recurrent`.
    Internals can be inputs of other layers, ``lstm - '..internals.Ca' >> other``; then
    ``Ca_deltas`` (T, B, n) holds what these compute for it.

    Raises:
        LayerValidationError: An argument is not as in `Lstm`.
    """

    arguments: Mapping[str, Argument] = arguments_of(Lstm, peepholes=FLAG)
    stacks_parameters = True
    repeats = True

    operation: str = "lstm"
    has_outputs_alone = True
    weights: Mapping[str, Sequence[str]] = {
        "W": ("Wz", "Wi", "Wf", "Wo"),
        "p": ("pi", "pf", "po"),
        "R": ("Rz", "Ri", "Rf", "Ro"),
        "b": ("bz", "bi", "bf", "bo"),
    }
    cells: type[Any] = LstmCells
    deltas: type[Any] = LstmCells
    taps: Sequence[str] = LstmCells._fields
    carried: Sequence[str] | None = ("Ca",)
    states: Mapping[str, str] = {"y0": "outputs.default", "c0": "internals.Ca"}

    def from_outside(self, buffers: Any) -> dict[str, Any]:
        for name in self.taps:
            self.handler.complete(buffers.internals[name])
        taps = {name: buffers.internals[f"{name}_deltas"] for name in self.tapped}
        return {"outside": LstmCells(*[taps.get(name) for name in self.taps])}

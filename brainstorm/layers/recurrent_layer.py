"""Fully connected to itself, one step later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brainstorm.checks import Argument, is_finite
from brainstorm.handlers.operations.recurrent import RecurrentCells
from brainstorm.layers._sequence_layer import SequenceLayer
from brainstorm.layers.arguments import FLAG, Check, arguments_of
from brainstorm.literals import Activation, InitialState
from brainstorm.structure.construction import ConstructionWrapper

LEAK = Check(
    lambda value: is_finite(value) and 0 < value <= 1, "a number in (0, 1]", float
)


def Recurrent(
    size: int,
    activation: Activation = "tanh",
    name: str | None = None,
    *,
    bias: bool = True,
    initial_state: InitialState = "zeros",
    trainable: bool = True,
    leak: float = 1.0,
    leak_inside: bool = False,
) -> ConstructionWrapper:
    """A layer whose units see its inputs, and the outputs of the step before.

    Args:
        size: Number of units.
        activation: Activation function.
        name: Name of the layer.
        bias: Whether there is a bias.
        initial_state: 'zeros', or 'learned' for parameters to begin sequences with.
        trainable: Whether training changes the parameters.
        leak: How much of each step counts, in (0, 1]: below 1 the outputs of the step
            before leak into those of the next.
        leak_inside: Whether they leak into the pre-activations instead.
    """
    return ConstructionWrapper.create(RecurrentLayerImpl, **locals())


class RecurrentLayerImpl(SequenceLayer):
    """Computes ``y[t] = act(Ha[t])`` with ``Ha[t] = W x[t] + R y[t-1] + bias``.

    With a leak l, ``y[t] = (1 - l) y[t-1] + l act(Ha[t])``; if it is inside,
    ``Ha[t] = (1 - l) y[t-1] + l (W x[t] + R y[t-1] + bias)``.

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
    internals   Hb       (T + 1, B, n)         act(Ha), if it leaks
    internals   dHa      (T + 1, B, n)         their deltas, backward
    internals   dHb      (T + 1, B, n)         all deltas of y, backward
    =========== ======== ===================== =================================

    Row -1 of y is the state before the first step. After a backward pass, row -1
    of dHb and of the output deltas holds its deltas.

    With ``initial_state='learned'`` there is an internal ``begun`` (T + 1, B, 1), 1 in
    steps after which the state is carried on; where its row -1 is 0, a sequence begins.
    Ha can be the input of another layer, ``layer - '..internals.Ha' >> other``; then
    ``Ha_deltas`` (T, B, n) holds what that computes for it.

    Raises:
        LayerValidationError: An argument is not as in `Recurrent`.
    """

    arguments: Mapping[str, Argument] = arguments_of(
        Recurrent, leak=LEAK, leak_inside=FLAG
    )
    leak: float = 1.0
    leak_inside: bool = False
    repeats = True

    operation: str = "recurrent"
    weights: Mapping[str, Sequence[str]] = {"W": ["W"], "R": ["R"], "b": ["bias"]}
    cells: type[Any] = RecurrentCells
    deltas: type[Any] = RecurrentCells
    taps: Sequence[str] = ("Ha",)

    def cell_names(self) -> Sequence[str]:
        return ("Ha", "Hb") if self.leak < 1 and not self.leak_inside else ("Ha",)

    def options(self, buffers: Any) -> dict[str, Any]:
        leak = {"leak": self.leak, "leak_inside": self.leak_inside}
        return leak if self.leak < 1 else {}

    def from_outside(self, buffers: Any) -> dict[str, Any]:
        return {"outside": buffers.internals.Ha_deltas}

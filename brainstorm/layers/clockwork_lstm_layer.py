"""Long short-term memory whose cells run at different speeds."""

from __future__ import annotations

from collections.abc import Mapping

from brainstorm.checks import Argument
from brainstorm.layers.arguments import arguments_of
from brainstorm.layers.clockwork_layer import ClockedLayer
from brainstorm.layers.lstm_layer import LstmLayerImpl
from brainstorm.literals import Activation, InitialState
from brainstorm.structure.construction import ConstructionWrapper


def ClockworkLstm(
    size: int,
    activation: Activation = "tanh",
    name: str | None = None,
    *,
    bias: bool = True,
    initial_state: InitialState = "zeros",
    trainable: bool = True,
) -> ConstructionWrapper:
    """A layer of memory cells that are each updated every so many steps.

    Initialize its parameter ``timing`` with these numbers of steps, for example
    ``net.initialize(Gaussian(), ClockworkLstm={'timing': [1, 1, 2, 2, 4, 4]})``.

    Args:
        size: Number of cells.
        activation: Activation function of the block input and of the cell.
        name: Name of the layer.
        bias: Whether there are biases.
        initial_state: 'zeros', or 'learned' for parameters to begin sequences with.
        trainable: Whether training changes the parameters.
    """
    return ConstructionWrapper.create(ClockworkLstmLayerImpl, **locals())


class ClockworkLstmLayerImpl(ClockedLayer, LstmLayerImpl):
    """As `Lstm`, but cells take turns.

    In step s, counted from 0 at the start of the sequence, cells where ``s mod
    timing`` is not zero keep Ca and y of the step before; their gates are computed
    and have no effect.

    Besides the buffers of `Lstm` there are the parameter ``timing`` (n,) and the
    internal ``step`` (T + 1, B, 1), see `Clockwork`.

    Raises:
        LayerValidationError: An argument is not as in `ClockworkLstm`.
        HandlerError: When run with a timing below 1.
    """

    arguments: Mapping[str, Argument] = arguments_of(ClockworkLstm)
    repeats = True

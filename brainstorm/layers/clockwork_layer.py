"""A recurrent layer whose units run at different speeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brainstorm.checks import Argument
from brainstorm.handlers.operations.recurrent import Clock
from brainstorm.layers._sequence_layer import SequenceLayer
from brainstorm.layers.arguments import arguments_of
from brainstorm.layers.base_layer import BufferStructure, ConstructionWrapper
from brainstorm.layers.recurrent_layer import RecurrentLayerImpl
from brainstorm.literals import Activation, InitialState
from brainstorm.structure.layer import Setup, Structures


def Clockwork(
    size: int,
    activation: Activation = "tanh",
    name: str | None = None,
    *,
    bias: bool = True,
    initial_state: InitialState = "zeros",
    trainable: bool = True,
) -> ConstructionWrapper:
    """A recurrent layer in which each unit is updated every so many steps.

    Initialize its parameter ``timing`` with these numbers of steps, for example
    ``net.initialize(Gaussian(), Clockwork={'timing': [1, 1, 2, 2, 4, 4]})``.

    Args:
        size: Number of units.
        activation: Activation function.
        name: Name of the layer.
        bias: Whether there is a bias.
        initial_state: 'zeros', or 'learned' for parameters to begin sequences with.
        trainable: Whether training changes the parameters.
    """
    return ConstructionWrapper.create(ClockworkLayerImpl, **locals())


class ClockedLayer(SequenceLayer):
    """Adds a clock to a recurrent layer."""

    computes_no_gradients_for: Sequence[str] = ("timing",)

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        outputs, parameters, internals = super().setup(kwargs, in_shapes)
        # Every unit begins with being updated in each step.
        self.first_values: Mapping[str, Any] = {**self.first_values, "timing": 1.0}
        n = outputs["default"].feature_size
        parameters["timing"] = BufferStructure(n)
        internals["step"] = BufferStructure("T", "B", 1, context_size=1)
        return outputs, parameters, internals

    def options(self, buffers: Any) -> dict[str, Any]:
        """The timings, and where to count the steps."""
        return {"clock": Clock(buffers.parameters.timing, buffers.internals.step)}


class ClockworkLayerImpl(ClockedLayer, RecurrentLayerImpl):
    """As `Recurrent`, but units take turns.

    Koutník et al., *A clockwork RNN*, 2014; here all units see each other. In
    step s, counted from 0 at the start of the sequence, units where ``s mod
    timing`` is not zero keep Ha and y of the step before.

    Besides the buffers of `Recurrent` there are:

    =========== ======== ==================== ====================================
    buffer      name     shape                content
    =========== ======== ==================== ====================================
    parameters  timing   (n,)                 steps from update to update, >= 1
    internals   step     (T + 1, B, 1)        number of steps seen
    =========== ======== ==================== ====================================

    ``timing`` gets no gradient. ``step`` belongs to the state that is carried on,
    so a sequence may be cut anywhere: its row t counts the steps up to and with t,
    row -1 those before this pass. In float32 it is exact up to 2**24.

    Raises:
        LayerValidationError: An argument is not as in `Clockwork`.
        HandlerError: When run with a timing below 1.
    """

    arguments: Mapping[str, Argument] = arguments_of(Clockwork)
    repeats = True

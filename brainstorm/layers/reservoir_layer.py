"""A recurrent layer that is not trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brainstorm.checks import NOT_NEGATIVE, Argument, is_finite
from brainstorm.initializers import EchoState, Uniform
from brainstorm.layers.arguments import Check, arguments_of
from brainstorm.layers.recurrent_layer import RecurrentLayerImpl
from brainstorm.literals import Activation, InitialState
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.structure.layer import Setup, Structures


def Reservoir(
    size: int,
    leak: float = 0.3,
    spectral_radius: float = 0.9,
    input_scaling: float = 1.0,
    connectivity: float = 0.1,
    activation: Activation = "tanh",
    name: str | None = None,
    *,
    bias: bool = True,
    leak_inside: bool = False,
    trainable: bool = False,
) -> ConstructionWrapper:
    """A recurrent layer of random units that is not trained: an echo state network.

    It is a `Recurrent` layer with its own first values: ``Uniform(input_scaling)`` for
    W, ``EchoState(spectral_radius, connectivity)`` for R, and 0 for the bias. Give
    others by these names; an initializer for all layers does not count.

    Args:
        size: Number of units.
        leak: How much of their state units forget in each step, above 0 and up to 1.
        spectral_radius: Largest absolute value of the eigenvalues of R, at least 0.
        input_scaling: Bound of the weights of the inputs, at least 0.
        connectivity: The share of R that is not 0, above 0 and up to 1.
        activation: Activation function.
        name: Name of the layer.
        bias: Whether there is a bias.
        leak_inside: Whether the activation function is applied after leaking.
        trainable: Whether training changes the parameters.
    """
    return ConstructionWrapper.create(ReservoirLayerImpl, **locals())


class ReservoirLayerImpl(RecurrentLayerImpl):
    """What `RecurrentLayerImpl` computes, with other first values.

    Reference: H. Jaeger, *The "echo state" approach to analysing and training recurrent
    neural networks*, GMD report 148, 2001.

    Raises:
        LayerValidationError: An argument is not as in `Reservoir`.
    """

    spectral_radius: float
    input_scaling: float
    connectivity: float

    arguments: Mapping[str, Argument] = arguments_of(
        Reservoir,
        leak=RecurrentLayerImpl.arguments["leak"].check,
        spectral_radius=NOT_NEGATIVE,
        input_scaling=NOT_NEGATIVE,
        connectivity=Check(
            lambda x: is_finite(x) and 0 < x <= 1, "a number above 0 and up to 1"
        ),
        leak_inside=RecurrentLayerImpl.arguments["leak_inside"].check,
    )
    initial_state: InitialState = "zeros"
    repeats = True

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        made = super().setup(kwargs, in_shapes)
        bias = {"bias": 0.0} if self.bias else {}
        self.first_values: Mapping[str, Any] = {
            **self.first_values,
            **bias,
            "W": Uniform(self.input_scaling),
            "R": EchoState(self.spectral_radius, self.connectivity),
        }
        return made

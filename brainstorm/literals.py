"""Names to choose from, as types: what a type checker accepts for an argument.

Annotate a variable with one of these to pass it on::

    from brainstorm.literals import Activation

    def classifier(activation: Activation) -> Network: ...
"""

from __future__ import annotations

from typing import Literal

__all__ = [
    "Activation",
    "Average",
    "Criterion",
    "Distribution",
    "Fan",
    "Gain",
    "InitialState",
    "InitializerName",
    "Interpolation",
    "LatencyMethod",
    "MathMode",
    "Overlap",
    "PoolingType",
    "Reset",
    "ScaledActivation",
    "ScoredValues",
    "Surrogate",
    "TaskType",
    "TimePoolingType",
    "Timescale",
    "WalkActivation",
]

Activation = Literal[
    "linear",
    "rel",
    "relu",
    "tanh",
    "sigmoid",
    "el",
    "softplus",
    "leaky_rel",
    "gelu",
    "swish",
    "hard_swish",
    "mish",
    "hard_sigmoid",
    "relu6",
    "softsign",
]
"""Activation functions of layers; ``'relu'`` is another name for ``'rel'``."""

InitialState = Literal["zeros", "learned"]
"""What recurrent layers begin sequences with."""

Interpolation = Literal["nearest", "bilinear"]
"""How `Upsample2D` makes pixels between others."""

PoolingType = Literal["max", "avg"]
"""What `Pooling2D` and `GlobalPooling` make of a window."""

TimePoolingType = Literal["max", "mean", "sum", "last"]
"""What `TimePooling` makes of a sequence."""

Gain = Literal["input", "integrate"]
"""What `Leaky` multiplies its inputs with."""

Reset = Literal["hard", "soft"]
"""How spiking neurons are reset."""

Surrogate = Literal[
    "inv_square",
    "sigmoid",
    "arctan",
    "relu",
    "gaussian",
    "soft_sign",
    "piecewise_quadratic",
    "piecewise_exp",
    "nonzero_sign_log",
    "erf",
    "piecewise_leaky_relu",
    "squarewave_fourier_series",
    "s2nn",
    "q_pseudo_spike",
    "leaky_relu",
    "log_tailed_relu",
    "multi_gaussian",
    "slayer",
]
"""Surrogates for the derivative of a spike."""

TaskType = Literal["classification", "regression", "multi-label"]
"""Tasks that `tools` make the last layers for."""

Timescale = Literal["epoch", "update"]
"""After what hooks are called."""

Criterion = Literal["min", "max"]
"""Which values of a log are good."""

Average = Literal["auto", "binary", "macro", "micro", "weighted"]
"""What to make of the scores of classes; None leaves them as they are."""

ScoredValues = Literal["predictions", "classes"]
"""What a function in `Score` is given."""

InitializerName = Literal["auto", "glorot", "he", "lecun", "orthogonal"]
"""Initializers that `Network.initialize` knows by name."""

Fan = Literal["fan_in", "fan_out", "fan_avg"]
"""What `VarianceScaling` divides the variance by."""

Distribution = Literal["truncated_normal", "normal", "uniform"]
"""Distributions of `VarianceScaling`."""

ScaledActivation = Literal["rel", "relu", "tanh", "sigmoid", "linear"]
"""Activation functions that the `DenseSqrt...` initializers have a scale for."""

WalkActivation = Literal["linear", "rel"]
"""Activation functions that `RandomWalk` has a gain for."""

LatencyMethod = Literal["linear", "log"]
"""How `LatencyEncoding` turns values into times."""

MathMode = Literal["f32", "bf16"]
"""What `OneDnnHandler` multiplies with."""

Overlap = Literal["none", "same", "part"]
"""How two arrays share memory."""

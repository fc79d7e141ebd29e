from __future__ import annotations

from typing import Any

from benchmarks.work import Work
from brainstorm.layers import Dropout, FullyConnected

BATCH, INPUTS, HIDDEN, CLASSES = 100, 784, 1200, 10


def layers(inp: Any, variant: str) -> Any:
    return (
        inp
        >> Dropout(0.2)
        >> FullyConnected(HIDDEN, name="Hidden_1")
        >> Dropout(0.5)
        >> FullyConnected(HIDDEN, name="Hidden_2")
        >> Dropout(0.5)
    )


def model(variant: str) -> Any:
    from torch import nn

    return {
        "drop_0": nn.Dropout(0.2),
        "Hidden_1": nn.Linear(INPUTS, HIDDEN),
        "rel_1": nn.ReLU(),
        "drop_1": nn.Dropout(0.5),
        "Hidden_2": nn.Linear(HIDDEN, HIDDEN),
        "rel_2": nn.ReLU(),
        "drop_2": nn.Dropout(0.5),
        "Output_projection": nn.Linear(HIDDEN, CLASSES),
    }


def jax_model() -> Any:
    from jax.nn import relu

    from benchmarks.jax_layers import Dense, Dropout

    return {
        "drop_0": Dropout(0.2),
        "Hidden_1": Dense(relu),
        "drop_1": Dropout(0.5),
        "Hidden_2": Dense(relu),
        "drop_2": Dropout(0.5),
        "Output_projection": Dense(),
    }


WORK = Work(
    "784-1200-1200-10 perceptron with dropout and limited weights, batch of 100",
    shape=(1, BATCH, INPUTS),
    classes=CLASSES,
    parameters={
        "Hidden_1": {"W": (HIDDEN, INPUTS)},
        "Hidden_2": {"W": (HIDDEN, HIDDEN)},
        "Output_projection": {"W": (CLASSES, HIDDEN)},
    },
    layers=layers,
    model=model,
    jax_model=jax_model,
    products=(
        BATCH * INPUTS * HIDDEN,
        BATCH * HIDDEN * HIDDEN,
        BATCH * HIDDEN * CLASSES,
    ),
    tolerance=0.5,  # everybody draws other masks
    limited=("Hidden_1", "Hidden_2"),
    torch_variants=("", "fused"),
)

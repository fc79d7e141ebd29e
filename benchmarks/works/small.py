from __future__ import annotations

from typing import Any

from benchmarks.work import Work
from brainstorm.layers import FullyConnected

BATCH, INPUTS, HIDDEN, CLASSES = 16, 20, 32, 3


def layers(inp: Any, variant: str) -> Any:
    return inp >> FullyConnected(HIDDEN, name="Hidden")


def model(variant: str) -> Any:
    from torch import nn

    return {
        "Hidden": nn.Linear(INPUTS, HIDDEN),
        "rel": nn.ReLU(),
        "Output_projection": nn.Linear(HIDDEN, CLASSES),
    }


def jax_model() -> Any:
    from jax.nn import relu

    from benchmarks.jax_layers import Dense

    return {"Hidden": Dense(relu), "Output_projection": Dense()}


WORK = Work(
    "20-32-3 perceptron, batch of 16",
    shape=(1, BATCH, INPUTS),
    classes=CLASSES,
    parameters={
        "Hidden": {"W": (HIDDEN, INPUTS)},
        "Output_projection": {"W": (CLASSES, HIDDEN)},
    },
    layers=layers,
    model=model,
    jax_model=jax_model,
    products=(BATCH * INPUTS * HIDDEN, BATCH * HIDDEN * CLASSES),
    tolerance=1e-4,
)

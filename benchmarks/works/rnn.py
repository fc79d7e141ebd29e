from __future__ import annotations

from typing import Any

from benchmarks.work import Work
from brainstorm.layers import Recurrent

TIME, BATCH, INPUTS, UNITS, CLASSES = 50, 32, 64, 128, 64


def layers(inp: Any, variant: str) -> Any:
    return inp >> Recurrent(UNITS, name="Recurrent")


def model(variant: str) -> Any:
    from torch import nn

    return {
        "Recurrent": nn.RNN(INPUTS, UNITS),
        "Output_projection": nn.Linear(UNITS, CLASSES),
    }


def jax_model() -> Any:
    from benchmarks.jax_layers import Dense, Recurrent

    return {"Recurrent": Recurrent(), "Output_projection": Dense()}


WORK = Work(
    "Recurrent layer 64-128-64, 50 steps, batch of 32",
    shape=(TIME, BATCH, INPUTS),
    classes=CLASSES,
    parameters={
        "Recurrent": {"W": (UNITS, INPUTS), "R": (UNITS, UNITS)},
        "Output_projection": {"W": (CLASSES, UNITS)},
    },
    layers=layers,
    model=model,
    jax_model=jax_model,
    products=(
        TIME * BATCH * INPUTS * UNITS,
        TIME * BATCH * UNITS * UNITS,
        TIME * BATCH * UNITS * CLASSES,
    ),
    learning_rate=1e-3,
)

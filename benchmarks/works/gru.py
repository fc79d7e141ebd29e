from __future__ import annotations

from typing import Any

from benchmarks.work import Work
from brainstorm.layers import Gru

TIME, BATCH, INPUTS, UNITS, CLASSES = 50, 32, 64, 128, 64


def layers(inp: Any, variant: str) -> Any:
    return inp >> Gru(UNITS, name="Gru")


def model(variant: str) -> Any:
    from torch import nn

    return {
        "Gru": nn.GRU(INPUTS, UNITS),
        "Output_projection": nn.Linear(UNITS, CLASSES),
    }


def jax_model() -> Any:
    from benchmarks.jax_layers import Dense, Gru

    return {"Gru": Gru(), "Output_projection": Dense()}


WORK = Work(
    "GRU 64-128-64, 50 steps, batch of 32",
    shape=(TIME, BATCH, INPUTS),
    classes=CLASSES,
    parameters={
        "Gru": {f"W{gate}": (UNITS, INPUTS) for gate in "rzh"}
        | {f"R{gate}": (UNITS, UNITS) for gate in "rzh"},
        "Output_projection": {"W": (CLASSES, UNITS)},
    },
    layers=layers,
    model=model,
    jax_model=jax_model,
    products=(
        TIME * BATCH * INPUTS * 3 * UNITS,
        TIME * BATCH * UNITS * 3 * UNITS,
        TIME * BATCH * UNITS * CLASSES,
    ),
    learning_rate=1e-3,
)

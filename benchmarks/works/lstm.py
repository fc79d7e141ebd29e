from __future__ import annotations

from typing import Any

from benchmarks.work import Work
from brainstorm.layers import Lstm


def lstm_work(time: int, batch: int, inputs: int, cells: int, classes: int) -> Work:
    """An LSTM that names a class at each step of a sequence.

    PyTorch has no peepholes. Ours start at zero and hardly move in a few updates.
    """

    def layers(inp: Any, variant: str) -> Any:
        return inp >> Lstm(cells, peepholes=variant != "no peepholes", name="Lstm")

    def model(variant: str) -> Any:
        from torch import nn

        return {
            "Lstm": nn.LSTM(inputs, cells),
            "Output_projection": nn.Linear(cells, classes),
        }

    def jax_model() -> Any:
        from benchmarks.jax_layers import Dense, Lstm

        return {"Lstm": Lstm(), "Output_projection": Dense()}

    return Work(
        f"LSTM {inputs}-{cells}-{classes}, {time} steps, batch of {batch}",
        shape=(time, batch, inputs),
        classes=classes,
        parameters={
            "Lstm": {f"W{gate}": (cells, inputs) for gate in "zifo"}
            | {f"R{gate}": (cells, cells) for gate in "zifo"},
            "Output_projection": {"W": (classes, cells)},
        },
        layers=layers,
        model=model,
        jax_model=jax_model,
        products=(
            time * batch * inputs * 4 * cells,
            time * batch * cells * 4 * cells,
            time * batch * cells * classes,
        ),
        learning_rate=1e-3,
        our_variants=("", "no peepholes"),
    )


WORK = lstm_work(time=50, batch=32, inputs=64, cells=128, classes=64)

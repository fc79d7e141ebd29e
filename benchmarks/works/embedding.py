from __future__ import annotations

from typing import Any

from benchmarks.work import Work
from brainstorm.layers import Embedding

TIME, BATCH, VOCABULARY, SIZE, CLASSES = 50, 32, 10000, 128, 64


def layers(inp: Any, variant: str) -> Any:
    return inp >> Embedding(VOCABULARY, SIZE, name="Embedding")


def model(variant: str) -> Any:
    from torch import nn

    return {
        "Embedding": nn.Embedding(VOCABULARY, SIZE, sparse="sparse" in variant),
        "flatten": nn.Flatten(2),
        "Output_projection": nn.Linear(SIZE, CLASSES),
    }


def jax_model() -> Any:
    from benchmarks.jax_layers import Dense, Embedding

    return {"Embedding": Embedding(), "Output_projection": Dense()}


WORK = Work(
    "vectors of 128 for 10000 words, and 64 classes; 50 steps, batch of 32",
    shape=(TIME, BATCH, 1),
    classes=CLASSES,
    parameters={
        "Embedding": {"W": (VOCABULARY, SIZE)},
        "Output_projection": {"W": (CLASSES, SIZE)},
    },
    layers=layers,
    model=model,
    jax_model=jax_model,
    products=(0, TIME * BATCH * SIZE * CLASSES),
    vocabulary=VOCABULARY,
    torch_variants=("sparse", "dense"),  # gradients; the faster ones first
)

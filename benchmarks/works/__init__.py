"""What there is to do: one module each, with a `Work` named WORK."""

from __future__ import annotations

import importlib

from benchmarks.work import Work

NAMES = (
    "small",
    "mnist_pi",
    "adam",
    "cifar10_cnn",
    "lstm",
    "hutter",
    "rnn",
    "gru",
    "embedding",
    "tiny_gpt",
)


def load(name: str) -> Work:
    return importlib.import_module(f"benchmarks.works.{name}").WORK

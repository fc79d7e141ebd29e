"""LSTM 205-1000-205 with softmax at each of 20 steps, batch of 100, momentum update."""

from __future__ import annotations

from benchmarks.common import Steps
from benchmarks.lstm import LOSS_TOLERANCE, sequence_steps

__all__ = ["LOSS_TOLERANCE", "steps"]


def steps() -> Steps:
    return sequence_steps(time=20, batch=100, sizes=(205, 1000, 205))

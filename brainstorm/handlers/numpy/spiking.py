"""Spikes, with NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from brainstorm.handlers.numpy.memory import NumpyMemory
from brainstorm.handlers.operations.spiking import SpikingOperations

# With so many elements, all arrays of a step back in time stay in the cache.
_TOGETHER = 65536


class NumpySpiking(NumpyMemory, SpikingOperations):
    """Part of NumpyHandler."""

    def step_t(self, a: Any, threshold: float, out: Any) -> None:
        above = self._temporary(a.shape, "bool", np.bool_)
        self.do(np.greater_equal, a, self.number(threshold), above)
        self.do(out.__setitem__, ..., above)

    def _divide_st(self, s: float, t: Any, out: Any) -> None:
        self.do(np.divide, self.number(s), t, out)

    def _one_minus(self, t: Any, out: Any) -> None:
        self.do(np.subtract, self._one, t, out)

    def _steps_at_once(self, sequences: Any) -> int:
        steps, *shape = sequences.shape
        return max(1, min(steps, _TOGETHER // max(1, math.prod(shape))))

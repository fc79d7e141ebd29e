"""Spikes, with NumPy."""

from __future__ import annotations

import numpy as np


class NumpySpiking:
    """Part of NumpyHandler."""

    def step_t(self, a, threshold, out):
        above = self._temporary(a.shape, "bool", np.bool_)
        self.do(np.greater_equal, a, self.number(threshold), above)
        self.do(out.__setitem__, ..., above)

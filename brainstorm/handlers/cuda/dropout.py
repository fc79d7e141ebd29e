"""Dropout on a GPU."""

from __future__ import annotations


class CudaDropout:
    """Part of PyCudaHandler."""

    def dropout_forward(self, x, mask, y, drop_prob):
        keep = 1.0 - drop_prob
        value = 1.0 / keep if keep > 0 else 0.0
        draw = self._draw()
        arrays = (x, mask, y)
        self._gpu.elementwise("dropout_forward", arrays, keep, value, randomness=draw)

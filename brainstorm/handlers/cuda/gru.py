"""Gated recurrent units on a GPU: in each step one kernel for all but the products."""

from __future__ import annotations

from brainstorm.handlers.cuda.leaves import CudaLeaves
from brainstorm.handlers.operations.activations import ACTIVATIONS
from brainstorm.handlers.operations.gru import GruOperations


class CudaGru(CudaLeaves, GruOperations):
    """Part of PyCudaHandler."""

    def _gru_step(self, t, from_x, from_y, cells, y, activation):
        kind = ACTIVATIONS.index(activation)
        self._launch_step("gru_step", t, y, None, kind, from_x, from_y, cells, y)

    def _gru_slopes(self, cells, y, deltas, activation):
        """The kernel computes them."""

    def _gru_step_back(self, t, cells, y, dy, deltas, stacked, out, later, activation):
        kind = ACTIVATIONS.index(activation)
        arrays = (cells, y, dy, deltas.Ha, stacked, later)
        self._launch_step("gru_step_back", t, y, None, kind, *arrays)

    # Where the reset gates act before the product, there are two products in a step.

    def _gru_reset(self, t, from_x, to_gates, cells, y):
        self._launch_step("gru_reset", t, y, None, from_x, to_gates, cells, y)

    def _gru_output(self, t, from_x, from_y, cells, y, activation):
        kind = ACTIVATIONS.index(activation)
        self._launch_step("gru_output", t, y, None, kind, from_x, from_y, cells, y)

    def _gru_output_back(self, t, dy, deltas, stacked, out, later):
        arrays = (dy, deltas.Za, deltas.Ha, stacked, out, later)
        self._launch_step("gru_output_back", t, dy, None, *arrays)

    def _gru_reset_back(self, t, cells, deltas, stacked, out, later):
        arrays = (cells, deltas.Ra, deltas.Pa, stacked, out, later)
        self._launch_step("gru_reset_back", t, deltas.Ra, None, *arrays)

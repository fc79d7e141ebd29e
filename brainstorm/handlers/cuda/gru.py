"""Gated recurrent units on a GPU: in each step one kernel for all but the products."""

from __future__ import annotations

from typing import Any

from brainstorm.handlers.cuda.leaves import CudaLeaves
from brainstorm.handlers.operations.activations import ACTIVATIONS
from brainstorm.handlers.operations.gru import GruCells, GruDeltas, GruOperations


class CudaGru(CudaLeaves, GruOperations):
    """Part of PyCudaHandler."""

    def _gru_step(
        self,
        t: int,
        from_x: Any,
        from_y: Any,
        bp: Any,
        cells: GruCells,
        y: Any,
        activation: str,
    ) -> None:
        kind = ACTIVATIONS.index(activation)
        self._launch_step("gru_step", t, y, None, kind, from_x, from_y, bp, cells, y)

    def _gru_slopes(
        self, cells: GruCells, y: Any, deltas: GruDeltas, activation: str
    ) -> None:
        """The kernel computes them."""

    def _gru_step_back(
        self,
        t: int,
        cells: GruCells,
        y: Any,
        dy: Any,
        deltas: GruDeltas,
        stacked: Any,
        out: Any,
        later: Any,
        activation: str,
    ) -> None:
        kind = ACTIVATIONS.index(activation)
        arrays = (cells, y, dy, deltas.Ha, stacked, later)
        self._launch_step("gru_step_back", t, y, None, kind, *arrays)

    # Where the reset gates act before the product, there are two products in a step.

    def _gru_reset(
        self, t: int, from_x: Any, to_gates: Any, cells: GruCells, y: Any
    ) -> None:
        self._launch_step("gru_reset", t, y, None, from_x, to_gates, cells, y)

    def _gru_output(
        self, t: int, from_x: Any, from_y: Any, cells: GruCells, y: Any, activation: str
    ) -> None:
        kind = ACTIVATIONS.index(activation)
        self._launch_step("gru_output", t, y, None, kind, from_x, from_y, cells, y)

    def _gru_output_back(
        self, t: int, dy: Any, deltas: GruDeltas, stacked: Any, out: Any, later: Any
    ) -> None:
        arrays = (dy, deltas.Za, deltas.Ha, stacked, out, later)
        self._launch_step("gru_output_back", t, dy, None, *arrays)

    def _gru_reset_back(
        self,
        t: int,
        cells: GruCells,
        deltas: GruDeltas,
        stacked: Any,
        out: Any,
        later: Any,
    ) -> None:
        arrays = (cells, deltas.Ra, deltas.Pa, stacked, out, later)
        self._launch_step("gru_reset_back", t, deltas.Ra, None, *arrays)

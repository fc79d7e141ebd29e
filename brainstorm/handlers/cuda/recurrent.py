"""Recurrent layers on a GPU: in each step one kernel for all but the products."""

from __future__ import annotations

from typing import Any

from brainstorm.handlers.cuda.arrays import sequence, vector
from brainstorm.handlers.cuda.launcher import BLOCK
from brainstorm.handlers.cuda.leaves import CudaLeaves
from brainstorm.handlers.operations.activations import ACTIVATIONS
from brainstorm.handlers.operations.recurrent import (
    Clock,
    RecurrentCells,
    RecurrentOperations,
)


class CudaRecurrent(CudaLeaves, RecurrentOperations):
    """Part of PyCudaHandler."""

    def _recurrent_step(
        self,
        t: int,
        cells: RecurrentCells,
        y: Any,
        activation: str,
        kept: Any,
        leak: float,
        inside: bool,
    ) -> None:
        settings = (ACTIVATIONS.index(activation), leak, inside)
        self._launch_step("recurrent_step", t, y, kept, *settings, *cells, y)

    def _recurrent_step_back(
        self,
        t: int,
        deltas: RecurrentCells,
        more: Any,
        sums: Any,
        kept: Any,
        leak: float,
        inside: bool,
    ) -> None:
        arguments = (leak, inside, *deltas, more, sums)
        self._launch_step("recurrent_step_back", t, deltas.Hb, kept, *arguments)

    def _advance(self, clock: Clock | None) -> Any:
        if clock is None:
            return None
        timing, step = clock
        sizes = (step.shape[0] - 1, step.shape[1], timing.shape[0])
        arguments = (*sizes, vector(timing), *sequence(step), self._failure())
        grid, block = self._gpu.over(max(sizes[1:])), (BLOCK, 1, 1)
        self._launch("advance_clock", grid, block, *arguments, arrays=clock)
        return self._kept_units(clock)

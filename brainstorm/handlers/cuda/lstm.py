"""Long short-term memory on a GPU: in each step one kernel for all but the products."""

from __future__ import annotations

from typing import Any

from brainstorm.handlers.cuda.leaves import CudaLeaves
from brainstorm.handlers.operations.activations import ACTIVATIONS
from brainstorm.handlers.operations.lstm import LstmCells, LstmOperations, _Back

_NONE = LstmCells(*[None] * len(LstmCells._fields))


class CudaLstm(CudaLeaves, LstmOperations):
    """Part of PyCudaHandler."""

    def _lstm_step(
        self,
        t: int,
        from_x: Any,
        from_y: Any,
        peepholes: Any,
        cells: LstmCells,
        y: Any,
        activation: str,
        kept: Any,
    ) -> None:
        kind, arrays = ACTIVATIONS.index(activation), (from_x, from_y, peepholes, cells)
        self._launch_step("lstm_step", t, y, kept, kind, *arrays, y)

    def _repeated(self, peepholes: Any, batch: int) -> list[Any] | None:
        return peepholes

    def _lstm_begin_back(self, b: _Back) -> _Back:
        return b if b.dgates.shape[0] else super()._lstm_begin_back(b)

    def _lstm_step_back(self, t: int, b: _Back) -> None:
        kind = ACTIVATIONS.index(b.activation)
        arrays = (b.peepholes, b.cells, b.dy, b.deltas, b.outside or _NONE, b.dgates)
        self._launch_step("lstm_step_back", t, b.dy, b.kept, kind, *arrays)

    def _lstm_end_back(self, b: _Back) -> None:
        carried = b.deltas.Cb[-1]
        self.copy_to(carried, b.dy[-1])
        self.fill(carried, 0.0)

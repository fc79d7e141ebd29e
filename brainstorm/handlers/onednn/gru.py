"""The operations of gated recurrent units, which leave out cells as an LSTM does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from brainstorm.handlers.onednn.lstm_arrays import LstmArrays, LstmDeltas
from brainstorm.handlers.onednn.lstm_outputs import gru_outputs
from brainstorm.handlers.onednn.lstm_records import GruRecord
from brainstorm.handlers.onednn.part import OneDnnPart
from brainstorm.handlers.operations.gru import (
    GruCells,
    GruDeltas,
    GruOperations,
    GruWeights,
)


class OneDnnGru(OneDnnPart, GruOperations):
    """Part of OneDnnHandler, as OneDnnLstm, which has these."""

    _is_large: Callable[[float], bool]
    _runs: Callable[..., bool]
    _runs_back: Callable[..., bool]
    _supersede: Callable[[Any], None]
    _complete_all: Callable[[Any], None]
    _found: Callable[[Any], None]

    def gru_forward(
        self,
        x: Any,
        weights: GruWeights,
        cells: GruCells,
        y: Any,
        activation: str,
        reset_after: bool = True,
    ) -> None:
        arrays = LstmArrays(x, weights, cells, y)
        if self._has_library_gru(arrays, activation, reset_after):
            self.do(self.plain._library_gru_forward, arrays)
        else:
            self.do(self.plain._supersede, cells)
            super().gru_forward(x, weights, cells, y, activation, reset_after)

    def _has_library_gru(
        self, arrays: LstmArrays, activation: str, reset_after: bool
    ) -> bool:
        # In loops of feedback, steps run one by one, and share memory for deltas: what
        # was left out could not be computed.
        fits = len(arrays.x) > 1 and not self._is_large(arrays.step_work)
        return activation == "tanh" and reset_after and fits

    def _library_gru_forward(self, arrays: LstmArrays) -> None:
        if not self._runs(arrays, GruRecord):
            super().gru_forward(*arrays.given, "tanh")

    def gru_outputs(
        self,
        x: Any,
        weights: GruWeights,
        y: Any,
        activation: str,
        reset_after: bool = True,
    ) -> None:
        has_library = activation == "tanh" and reset_after
        if not (has_library and self._does(gru_outputs, (x, *weights, y))):
            super().gru_outputs(x, weights, y, activation, reset_after)

    def gru_backward(
        self,
        x: Any,
        weights: GruWeights,
        cells: GruCells,
        y: Any,
        dy: Any,
        deltas: GruDeltas,
        dx: Any,
        gradients: GruWeights,
        activation: str,
        fresh_dx: bool = False,
        fresh_gradients: bool = False,
        reset_after: bool = True,
    ) -> None:
        arrays = LstmArrays(x, weights, cells, y)
        to = LstmDeltas(dy, deltas, dx, gradients, fresh_dx, fresh_gradients)
        if self._has_library_gru(arrays, activation, reset_after):
            self.do(self.plain._library_gru_backward, arrays, to)
            return
        self.do(self.plain._complete_all, (*cells, *deltas))
        super().gru_backward(
            x, weights, cells, y, dy, deltas, dx, gradients, activation,
            fresh_dx, fresh_gradients, reset_after,
        )  # fmt: skip
        self.do(self.plain._found, deltas)

    def _library_gru_backward(self, arrays: LstmArrays, to: LstmDeltas) -> None:
        if not self._runs_back(arrays, to):
            super().gru_backward(
                *arrays.given, to.dy, to.cells, to.dx, to.gradients, "tanh",
                fresh_dx=to.fresh_dx, fresh_gradients=to.fresh_gradients,
            )  # fmt: skip
            self._found(to.cells)

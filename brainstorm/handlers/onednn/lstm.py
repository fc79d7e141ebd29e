"""The operations of an LSTM, which leave out its cells until somebody reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from brainstorm.handlers.onednn.definitions import UnimplementedError
from brainstorm.handlers.onednn.lstm_arrays import LstmArrays, LstmDeltas, step_work
from brainstorm.handlers.onednn.lstm_outputs import lstm_outputs
from brainstorm.handlers.onednn.lstm_records import Backward, Record, Records, Run
from brainstorm.handlers.onednn.part import OneDnnPart
from brainstorm.handlers.operations.lstm import LstmCells, LstmOperations
from brainstorm.handlers.operations.recurrent import Clock, Weights
from brainstorm.handlers.programs import whole
from brainstorm.utils import HandlerError

# From so many multiplications per step on, products take almost all the time; the
# library's LSTM would need more memory, and is slow with peepholes.
_LARGE_STEP = 2**25


class OneDnnLstm(OneDnnPart, LstmOperations):
    """Part of OneDnnHandler."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._lstm_records = Records()

    # -- what is left out ----------------------------------------------------

    @whole
    def complete(self, array: np.ndarray) -> None:
        """Compute what was left out of the content of an array.

        The forward pass of a small LSTM does not compute the internals of the layer,
        nor does any backward pass compute their deltas. They are computed, from what
        the passes used, when `get_numpy_copy` is asked for them. Call this before
        looking at their memory in another way.

        Raises:
            HandlerError: They are deltas, and another forward pass has begun since.
        """
        for record in self._lstm_records.of([array]):
            if record.leaves_out(array):
                record.complete(self)
            if record.has_lost(array):
                raise HandlerError(
                    "the backward pass of an LSTM left out these deltas, and another"
                    " forward pass has run since: read them right after the backward"
                    " pass, as MonitorLayerDeltas does before other hooks, or use a"
                    " NumpyHandler"
                )

    def _release_lstms(self) -> None:
        records, self._lstm_records = self._lstm_records, Records()
        for record in records:
            record.complete(self)

    def _complete_before_writing(self, array: np.ndarray) -> None:
        for record in self._lstm_records.of([array]):
            if record.leaves_out(array):
                record.complete(self)
            record.found(array)

    def get_numpy_copy(self, mem: Any) -> np.ndarray:
        if self._lstm_records.by_cells:
            self.complete(mem)
        return super().get_numpy_copy(mem)

    def is_fully_finite(self, a: Any) -> bool:
        if self._lstm_records.by_cells:
            self.complete(a)
        return super().is_fully_finite(a)

    @whole
    def set_from_numpy(self, mem: Any, arr: np.ndarray) -> None:
        if self._lstm_records.by_cells:
            self._complete_before_writing(mem)
        super().set_from_numpy(mem, arr)

    @whole
    def fill(self, mem: Any, val: float) -> None:
        if self._lstm_records.by_cells:
            self._complete_before_writing(mem)
        mem.fill(val)

    @whole
    def clear(self, *arrays: Any) -> None:
        # Networks make room with this, also for other sizes: what was left out there is
        # not worth computing.
        for array in arrays:
            if self._lstm_records.by_cells:
                for record in self._lstm_records.of([array]):
                    record.forget(array)
            array.fill(0.0)

    # -- passes --------------------------------------------------------------

    def lstm_forward(
        self,
        x: Any,
        weights: Weights,
        cells: LstmCells,
        y: Any,
        activation: str,
        clock: Clock | None = None,
    ) -> None:
        arrays = LstmArrays(x, weights, cells, y)
        is_large = self._is_large(arrays.step_work)
        if activation == "tanh" and clock is None and not is_large:
            self.do(self.plain._library_forward, arrays)
        else:
            self.do(self.plain._supersede, cells)
            super().lstm_forward(x, weights, cells, y, activation, clock)

    def lstm_outputs(
        self,
        x: Any,
        weights: Weights,
        c: Any,
        y: Any,
        activation: str,
        clock: Clock | None = None,
    ) -> None:
        self.do(self.plain._supersede_all, c)
        if activation == "tanh" and clock is None:
            arrays = x, *weights, c, y
            if self._does(lstm_outputs, arrays):
                return
        super().lstm_outputs(x, weights, c, y, activation, clock)

    def _supersede_all(self, c: Any) -> None:
        for record in self._lstm_records.of([c]):
            record.supersede()

    def _goes_by_gates(self, weights: Weights, y: Any, gates: tuple[Any, ...]) -> bool:
        is_large = self._is_large(step_work(weights, y))
        return is_large and all(gate.flags.c_contiguous for gate in gates)

    def _is_large(self, work: float) -> bool:
        return work >= _LARGE_STEP * self._conversions.lstm_steps

    def _library_forward(self, arrays: LstmArrays) -> None:
        if not self._runs(arrays, Record):
            super().lstm_forward(*arrays.given, "tanh")

    def _runs(self, arrays: LstmArrays, kind: type[Record]) -> bool:
        """Have the library run the forward pass, or tell that it can not."""
        found = self._find_run(arrays, kind)
        if found:
            record, run = found
            record.forward(run, self)
        else:
            self._supersede(arrays.cells)
        return bool(found)

    def _find_run(
        self, arrays: LstmArrays, kind: type[Record]
    ) -> tuple[Record, Run] | None:
        """The prepared forward pass, or None where it can not be done."""
        if not _writable(*arrays.cells, arrays.y):
            return None
        session, known = self.current_session(), self._lstm_records.get(arrays.cells)
        record = known
        if record is None or record.session is not session:
            # What another thread's pass left out is written over; to complete it now
            # would write over the carried state that this pass begins with.
            record = kind(session)
        try:
            run = record.find(arrays)
        except UnimplementedError:
            return None
        if record is not known:
            self._lstm_records.add(arrays.cells, record)
        return record, run

    def _supersede(self, cells: Any) -> None:
        """Note that the cells are going to be computed otherwise."""
        for record in self._lstm_records.of(cells):
            if record is self._lstm_records.get(cells):
                record.supersede()
            else:
                record.complete(self)

    def lstm_backward(
        self,
        x: Any,
        weights: Weights,
        cells: LstmCells,
        y: Any,
        dy: Any,
        deltas: LstmCells,
        dx: Any,
        gradients: Weights,
        activation: str,
        clock: Clock | None = None,
        fresh_dx: bool = False,
        fresh_gradients: bool = False,
        outside: LstmCells | None = None,
    ) -> None:
        arrays = LstmArrays(x, weights, cells, y)
        to = LstmDeltas(dy, deltas, dx, gradients, fresh_dx, fresh_gradients)
        if (
            activation == "tanh"
            and clock is outside is None
            and not self._is_large(arrays.step_work)
        ):
            self.do(self.plain._library_backward, arrays, to)
            return
        self.do(self.plain._complete_all, (*cells, *deltas))
        super().lstm_backward(
            x, weights, cells, y, dy, deltas, dx, gradients, activation,
            clock, fresh_dx, fresh_gradients, outside,
        )  # fmt: skip
        self.do(self.plain._found, deltas)

    def _library_backward(self, arrays: LstmArrays, to: LstmDeltas) -> None:
        if not self._runs_back(arrays, to):
            super().lstm_backward(
                *arrays.given, to.dy, to.cells, to.dx, to.gradients, "tanh",
                fresh_dx=to.fresh_dx, fresh_gradients=to.fresh_gradients,
            )  # fmt: skip
            self._found(to.cells)

    def _runs_back(self, arrays: LstmArrays, to: LstmDeltas) -> bool:
        """Have the library run the backward pass, or tell that it can not."""
        found = self._find_backward(arrays, to)
        if found:
            record, backward = found
            record.backward(backward)
        else:
            self._complete_all((*arrays.cells, *to.cells))
        return bool(found)

    def _complete_all(self, arrays: Sequence[np.ndarray]) -> None:
        for record in self._lstm_records.of(arrays):
            record.complete(self)

    def _found(self, deltas: Any) -> None:
        """Note that deltas have been computed otherwise."""
        for record in self._lstm_records.of(deltas):
            for delta in deltas:
                record.found(delta)

    def _find_backward(
        self, arrays: LstmArrays, to: LstmDeltas
    ) -> tuple[Record, Backward] | None:
        """The prepared backward pass, or None where it can not be done."""
        record = self._lstm_records.get(arrays.cells)
        if record is None or record.session is not self.current_session():
            return None
        if not _writable(*to.flat):
            return None
        backward = record.find_backward(arrays, to, self._lstm_records)
        return backward and (record, backward)


def _writable(*arrays: np.ndarray | None) -> bool:
    return all(array is None or array.flags.writeable for array in arrays)

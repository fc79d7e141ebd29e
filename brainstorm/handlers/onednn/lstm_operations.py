"""The operations of an LSTM, which leave out its cells until somebody reads them."""

# Operations are documented in RecurrentOperations.
# ruff: noqa: D102

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from brainstorm.handlers.onednn.binding import UnimplementedError
from brainstorm.handlers.onednn.lstm_steps import SteppedLstm
from brainstorm.handlers.onednn.recurrent import (
    Fresh,
    LibraryLstm,
    LstmArrays,
    LstmDeltas,
    LstmPass,
    Part,
)
from brainstorm.handlers.onednn.session import Session, named_errors, place_of
from brainstorm.handlers.recurrent_operations import LstmCells, RecurrentOperations

__all__ = ["LstmOperations"]

# Passes that are kept for one layer: its memory is used in as many sizes.
_MAX_PASSES = 16
# From so many multiplications per step on, products take almost all the time.
_LARGE_STEP = 2**25


class _Layer:
    """What is known of a layer by its weights: its last pass, and what that left out.

    It refers to arrays only weakly.
    """

    def __init__(self, session: Session):
        self.session = session
        self._whole = Part(session)
        self._parts = [Part(part, self._whole.arenas) for part in session.parts]
        self._passes: dict[tuple[Any, ...], LstmPass] = {}
        self._last: LstmPass | None = None
        self._arrays: list[Any] = []  # references to those of the last pass
        self._deltas: list[Any] = []  # and to dy and those of its deltas
        self._lacks_cells = self._lacks_deltas = False
        self._cells: list[tuple[int, int]] = []  # what memory that is
        self._cell_deltas: list[tuple[int, int]] = []

    def drop_with(
        self, weights: np.ndarray, layers: dict[int, _Layer], address: int
    ) -> None:
        """Take this out of `layers` once the memory of the weights is gone."""
        owner = weights if weights.base is None else weights.base
        self._owner = weakref.ref(owner, lambda _: layers.pop(address, None))

    def forward(self, arrays: LstmArrays) -> None:
        """Run the forward pass.

        Raises:
            UnimplementedError: The library can not do it.
            HandlerError: It failed.
        """
        flat = _flat(arrays)
        if not self.was_last(arrays):
            self._last = self._find(arrays, tuple(map(place_of, (*flat, arrays.bias))))
            self._arrays = _references(flat)
            # The state is computed, also that before.
            self._cells = _extents(arrays.cells, computed=2)
        self._last.forward()
        self._lacks_cells = self._last.leaves_out_cells
        self._lacks_deltas = False

    def _find(self, arrays: LstmArrays, key: tuple[Any, ...]) -> LstmPass:
        if key not in self._passes:
            if len(self._passes) >= _MAX_PASSES:
                del self._passes[next(iter(self._passes))]
            with named_errors("lstm_forward", arrays[:3]):
                self._passes[key] = self._make_pass(arrays)
        return self._passes[key]

    def _make_pass(self, arrays: LstmArrays) -> LstmPass:
        if arrays.step_work >= _LARGE_STEP:
            # It can not write outputs between those of other layers.
            with contextlib.suppress(UnimplementedError):
                return SteppedLstm(self._whole, arrays)
        return LibraryLstm(self._whole, self._parts, arrays)

    def was_last(self, arrays: LstmArrays) -> bool:
        """Whether the last pass was on these arrays."""
        return self._last is not None and _are(self._arrays, _flat(arrays))

    def backward(self, arrays: LstmArrays, to: LstmDeltas, fresh: Fresh) -> None:
        """Run the backward pass of the last forward pass.

        Raises:
            HandlerError: It failed.
        """
        with named_errors("lstm_backward", arrays[:3]):
            self._last.backward(arrays, to, fresh)
        if not _are(self._deltas, (to.dy, *to.cells)):
            self._deltas = _references((to.dy, *to.cells))
            self._cell_deltas = _extents(to.cells, computed=1)
        self._lacks_deltas = True

    def leaves_out(self, array: np.ndarray) -> bool:
        """Whether content of an array is still to be computed."""
        left_out = self._cells if self._lacks_cells else []
        if self._lacks_deltas:
            left_out = left_out + self._cell_deltas
        start, stop = _extent(array)
        return any(start < other[1] and other[0] < stop for other in left_out)

    def complete(self, handler: Any) -> None:
        """Compute all that is left out, from what the last pass used."""
        lacks_deltas, self._lacks_deltas = self._lacks_deltas, False
        *cells, y = _alive(self._arrays[4:])
        if any(array is None for array in (*cells, y)):
            return
        cells = LstmCells(*cells)
        used = self._last.used(handler.current_session())
        if self._lacks_cells:
            self._lacks_cells = False
            outputs = np.empty_like(y)
            outputs[-1] = y[-1]
            state = cells.Ca[-2].copy()
            RecurrentOperations.lstm_forward(
                handler, used["x"], used["W"], used["R"], used.get("peepholes"),
                used["bias"], *cells, outputs, "tanh",
            )  # fmt: skip
            cells.Ca[-2] = state  # looking does not change how it goes on
        dy, *deltas = _alive(self._deltas) if lacks_deltas else [None]
        if dy is not None and all(delta is not None for delta in deltas):
            RecurrentOperations._lstm_deltas(
                handler, used["R"], used.get("peepholes"), cells, dy,
                LstmCells(*deltas), "tanh", None,
            )  # fmt: skip


class LstmOperations:
    """Mixin of a handler."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._lstm_layers: dict[int, _Layer] = {}

    def complete(self, array: np.ndarray) -> None:
        """Compute what was left out of the content of an array.

        The forward pass of a small LSTM does not compute the internals of the layer,
        nor does any backward pass compute their deltas. They are computed, from what
        the passes used, when `get_numpy_copy` is asked for them. Call this before
        looking at their memory in another way.
        """
        for layer in list(self._lstm_layers.values()):
            if layer.leaves_out(array):
                layer.complete(self)

    def get_numpy_copy(self, mem):
        if self._lstm_layers:
            self.complete(mem)
        return super().get_numpy_copy(mem)

    def is_fully_finite(self, a):
        if self._lstm_layers:
            self.complete(a)
        return super().is_fully_finite(a)

    def lstm_forward(
        self, x, W, R, peepholes, bias,
        Za, Zb, Ia, Ib, Fa, Fb, Oa, Ob, Ca, Cb,
        y, activation, timing=None, step=None,
    ):  # fmt: skip
        cells = LstmCells(Za, Zb, Ia, Ib, Fa, Fb, Oa, Ob, Ca, Cb)
        arrays = LstmArrays(x, W, R, peepholes, bias, cells, y)
        if activation == "tanh" and timing is None and self._run_lstm(arrays):
            return
        self._lstm_layers.pop(place_of(W)[0], None)
        super().lstm_forward(
            x, W, R, peepholes, bias, *cells, y, activation, timing, step
        )

    def _run_lstm(self, arrays: LstmArrays) -> bool:
        """Run a forward pass, and return whether it could be done."""
        session, address = self.current_session(), place_of(arrays.W)[0]
        layer = self._lstm_layers.get(address)
        if layer is None or layer.session is not session:
            layer = _Layer(session)
        try:
            layer.forward(arrays)
        except UnimplementedError:
            return False
        if self._lstm_layers.get(address) is not layer:
            self._lstm_layers[address] = layer
            layer.drop_with(arrays.W, self._lstm_layers, address)
        return True

    def lstm_backward(
        self, x, W, R, peepholes,
        Za, Zb, Ia, Ib, Fa, Fb, Oa, Ob, Ca, Cb, y,
        dy, dZa, dZb, dIa, dIb, dFa, dFb, dOa, dOb, dCa, dCb,
        dx, dW, dR, dpeepholes, dbias,
        activation, timing=None, step=None, fresh_dx=False, fresh_gradients=False,
    ):  # fmt: skip
        cells = LstmCells(Za, Zb, Ia, Ib, Fa, Fb, Oa, Ob, Ca, Cb)
        deltas = LstmCells(dZa, dZb, dIa, dIb, dFa, dFb, dOa, dOb, dCa, dCb)
        layer = self._lstm_layers.get(place_of(W)[0])
        if layer is not None:
            arrays = LstmArrays(x, W, R, peepholes, None, cells, y)
            if layer.session is self.current_session() and layer.was_last(arrays):
                gradients = {"W": dW, "R": dR, "peepholes": dpeepholes, "bias": dbias}
                to = LstmDeltas(dy, deltas, dx, gradients)
                layer.backward(arrays, to, Fresh(fresh_dx, fresh_gradients))
                return
            layer.complete(self)
        super().lstm_backward(
            x, W, R, peepholes, *cells, y, dy, *deltas, dx, dW, dR, dpeepholes, dbias,
            activation, timing, step, fresh_dx, fresh_gradients,
        )  # fmt: skip


def _flat(arrays: LstmArrays) -> list[Any]:
    """All arrays but the bias, which the backward pass is not given."""
    return [*arrays[:4], *arrays.cells, arrays.y]


def _references(arrays: Sequence[Any]) -> list[Any]:
    return [None if array is None else weakref.ref(array) for array in arrays]


def _alive(references: Sequence[Any]) -> list[Any]:
    return [None if ref is None else ref() for ref in references]


def _are(references: Sequence[Any], arrays: Sequence[Any]) -> bool:
    """Whether they are references to these arrays."""
    return len(references) == len(arrays) and all(
        array is (ref and ref()) for ref, array in zip(references, arrays, strict=True)
    )


def _extents(cells: LstmCells, computed: int) -> list[tuple[int, int]]:
    """The memory of what is left out: of Ca, not the last steps, which are computed."""
    cells = cells._replace(Ca=cells.Ca[:-computed])
    return [_extent(array) for array in cells if array is not None]


def _extent(array: np.ndarray) -> tuple[int, int]:
    """The addresses between which an array lies."""
    start = place_of(array)[0]
    ends = [
        (size - 1) * stride
        for size, stride in zip(array.shape, array.strides, strict=True)
    ]
    first = start + sum(end for end in ends if end < 0)
    last = start + sum(end for end in ends if end > 0)
    return first, last + array.itemsize if array.size else first

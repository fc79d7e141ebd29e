"""Coarse operations that run recurrent layers over whole sequences.

Conventions, besides those in :mod:`brainstorm.handlers.coarse_operations`:

- T is the number of time steps, B that of sequences, I that of inputs, N that of
  units, and G = 4N. U = T + 1: arrays with U rows have the carried state last,
  that is in row -1, where step t = 0 looks for the step before it.
- With `timing` a layer runs as a clockwork: in step s, counted from the start of
  the sequence, units where ``s mod timing`` is not zero keep what they had.
  `step` counts along: row t holds the number of steps up to and with t, and row
  -1 that before this pass.
- Deltas of the carried state are left in row -1 of the deltas.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from brainstorm.utils import HandlerError, flatten_time

__all__ = ["RecurrentOperations"]


class _Cells(NamedTuple):
    """The buffers of an LSTM, or their deltas; of all steps or of one.

    Z is the block input, I, F and O are the gates and C is the cell; the second
    letter tells before (a) from after (b) the activation function.
    """

    Za: Any
    Zb: Any
    Ia: Any
    Ib: Any
    Fa: Any
    Fb: Any
    Oa: Any
    Ob: Any
    Ca: Any
    Cb: Any

    @property
    def gates(self) -> tuple[Any, Any, Any, Any]:
        """What the four stacked weight matrices lead to."""
        return self.Za, self.Ia, self.Fa, self.Oa


class RecurrentOperations:
    """Composed from the primitive and the coarse operations of any handler."""

    def recurrent_forward(
        self,
        x: Any,
        W: Any,
        R: Any,
        bias: Any,
        Ha: Any,
        y: Any,
        activation: str,
        timing: Any = None,
        step: Any = None,
    ) -> None:
        """``y[t] = act(Ha[t])`` with ``Ha[t] = W x[t] + R y[t-1] + bias``.

        Args:
            x: Inputs (T, B, I).
            W: Weights of the inputs (N, I).
            R: Weights of the outputs of the step before (N, N).
            bias: Vector (N,).
            Ha: (U, B, N), receives the pre-activations.
            y: (U, B, N), receives the outputs.
            activation: Name of the activation function.
            timing: Vector (N,), or None to update all units in each step.
            step: (U, B, 1), receives the number of steps. None without `timing`.

        Raises:
            HandlerError: A timing is below 1.
        """
        self.affine(flatten_time(x), W, bias, None, flatten_time(Ha[:-1]), "linear")
        kept = self._advance_clock(timing, step)
        act = self.act_func[activation]
        for t in range(x.shape[0]):
            h, out, out_before = Ha[t], y[t], y[t - 1]
            self.dot_add_mm(out_before, R, h, transb=True)
            act(h, out)
            if kept is not None:
                self.copy_to_if(Ha[t - 1], h, kept[t])
                self.copy_to_if(out_before, out, kept[t])

    def recurrent_backward(
        self,
        x: Any,
        W: Any,
        R: Any,
        Ha: Any,
        y: Any,
        dy: Any,
        dHa: Any,
        dHb: Any,
        dx: Any,
        dW: Any,
        dR: Any,
        dbias: Any,
        activation: str,
        timing: Any = None,
        step: Any = None,
        fresh_dx: bool = False,
        fresh_gradients: bool = False,
    ) -> None:
        """Backward pass of :meth:`recurrent_forward`.

        Args:
            x: Inputs (T, B, I).
            W: Weights of the inputs (N, I).
            R: Weights of the outputs of the step before (N, N).
            Ha: (U, B, N), as the forward pass filled it.
            y: (U, B, N), as the forward pass filled it.
            dy: (U, B, N), deltas of y from outside. Row -1 receives those of the
                carried state; the others are not modified.
            dHa: (U, B, N), receives the deltas of Ha.
            dHb: (U, B, N), receives the deltas of y, also those from later steps.
            dx: (T, B, I), gets the deltas of x, or None if they are not wanted.
            dW: (N, I), gets the gradients of W.
            dR: (N, N), gets the gradients of R.
            dbias: (N,), gets the gradients of bias.
            activation: Name of the activation function.
            timing: As in the forward pass.
            step: As the forward pass filled it.
            fresh_dx: Overwrite `dx`.
            fresh_gradients: Overwrite `dW`, `dR` and `dbias`.
        """
        kept = self._kept_units(timing, step)
        act_deriv = self.act_func_deriv[activation]
        self.copy_to(dy[-2], dHb[-2])
        for t in reversed(range(x.shape[0])):
            dh, dout, dout_before = dHa[t], dHb[t], dHb[t - 1]
            act_deriv(Ha[t], y[t], dout, dh)
            if kept is not None:
                self.fill_if(dh, 0.0, kept[t])
            self.dot_mm(dh, R, dout_before)
            if kept is not None:
                self.add_into_if(dout, dout_before, kept[t])
            if t > 0:
                self.add_tt(dout_before, dy[t - 1], dout_before)
        self.copy_to(dHb[-1], dy[-1])
        self.fill(dHa[-1], 0.0)
        self._gate_gradients(x, y, dHa, dW, dR, dbias, fresh_gradients)
        if dx is not None:
            dot = self.dot_mm if fresh_dx else self.dot_add_mm
            dot(flatten_time(dHa[:-1]), W, flatten_time(dx))

    def lstm_forward(  # noqa: D417
        self,
        x: Any,
        W: Any,
        R: Any,
        peepholes: Any,
        bias: Any,
        Za: Any,
        Zb: Any,
        Ia: Any,
        Ib: Any,
        Fa: Any,
        Fb: Any,
        Oa: Any,
        Ob: Any,
        Ca: Any,
        Cb: Any,
        y: Any,
        activation: str,
        timing: Any = None,
        step: Any = None,
    ) -> None:
        """Long short-term memory with peepholes.

        Gers and Schmidhuber, *Recurrent nets that time and count*, 2000, in the
        notation of Greff et al., *LSTM: a search space odyssey*, 2015. With
        ``x = x[t]``, ``y' = y[t-1]``, ``c = Ca[t]`` and ``c' = Ca[t-1]``::

            Za[t] = Wz x + Rz y' + bz            Zb[t] = act(Za[t])
            Ia[t] = Wi x + Ri y' + pi c' + bi    Ib[t] = sigmoid(Ia[t])
            Fa[t] = Wf x + Rf y' + pf c' + bf    Fb[t] = sigmoid(Fa[t])
            Ca[t] = Ib[t] Zb[t] + Fb[t] c'       Cb[t] = act(Ca[t])
            Oa[t] = Wo x + Ro y' + po c + bo     Ob[t] = sigmoid(Oa[t])
            y[t] = Ob[t] Cb[t]

        In a clockwork, units that are not updated keep c and y.

        Args:
            x: Inputs (T, B, I).
            W: Weights of the inputs (G, I): Wz, Wi, Wf and Wo.
            R: Weights of the outputs of the step before (G, N): Rz, Ri, Rf, Ro.
            peepholes: (3, N): pi, pf and po, or None for none.
            bias: Vector (G,): bz, bi, bf and bo.
            Za, Zb, Ia, Ib, Fa, Fb, Oa, Ob, Ca, Cb: (U, B, N), receive what the
                formulas above give.
            y: (U, B, N), receives the outputs.
            activation: Name of the activation function of block input and cell.
            timing: Vector (N,), or None to update all units in each step.
            step: (U, B, 1), receives the number of steps. None without `timing`.

        Raises:
            HandlerError: A timing is below 1.
        """
        cells = _Cells(Za, Zb, Ia, Ib, Fa, Fb, Oa, Ob, Ca, Cb)
        rows = flatten_time(x)
        for gate, w, b in zip(cells.gates, _quarters(W), _quarters(bias), strict=True):
            self.affine(rows, w, b, None, flatten_time(gate[:-1]), "linear")
        kept = self._advance_clock(timing, step)
        peepholes = _rows(peepholes)
        products = self.scratch((y.shape[1], R.shape[0]), 3)
        parts = _quarters(products, axis=1)
        for t in range(x.shape[0]):
            now, kept_now = _at(cells, t), None if kept is None else kept[t]
            self.dot_mm(y[t - 1], R, products, transb=True)
            for part, gate in zip(parts, now.gates, strict=True):
                self.add_tt(gate, part, gate)
            self._lstm_step(now, Ca[t - 1], peepholes, activation, kept_now)
            self.mult_tt(now.Ob, now.Cb, y[t])
            if kept is not None:
                self.copy_to_if(y[t - 1], y[t], kept_now)

    def _lstm_step(
        self, now: _Cells, before: Any, peepholes: Any, activation: str, kept: Any
    ) -> None:
        """All of one step between the products and the output."""
        act = self.act_func[activation]
        act(now.Za, now.Zb)
        if peepholes:
            self.mult_add_mv(before, peepholes[0], now.Ia)
            self.mult_add_mv(before, peepholes[1], now.Fa)
        self.sigmoid(now.Ia, now.Ib)
        self.sigmoid(now.Fa, now.Fb)
        self.mult_tt(now.Ib, now.Zb, now.Ca)
        self.mult_add_tt(now.Fb, before, now.Ca)
        if kept is not None:
            self.copy_to_if(before, now.Ca, kept)
        if peepholes:
            self.mult_add_mv(now.Ca, peepholes[2], now.Oa)
        self.sigmoid(now.Oa, now.Ob)
        act(now.Ca, now.Cb)

    def lstm_backward(  # noqa: D417
        self,
        x: Any,
        W: Any,
        R: Any,
        peepholes: Any,
        Za: Any,
        Zb: Any,
        Ia: Any,
        Ib: Any,
        Fa: Any,
        Fb: Any,
        Oa: Any,
        Ob: Any,
        Ca: Any,
        Cb: Any,
        y: Any,
        dy: Any,
        dZa: Any,
        dZb: Any,
        dIa: Any,
        dIb: Any,
        dFa: Any,
        dFb: Any,
        dOa: Any,
        dOb: Any,
        dCa: Any,
        dCb: Any,
        dx: Any,
        dW: Any,
        dR: Any,
        dpeepholes: Any,
        dbias: Any,
        activation: str,
        timing: Any = None,
        step: Any = None,
        fresh_dx: bool = False,
        fresh_gradients: bool = False,
    ) -> None:
        """Backward pass of :meth:`lstm_forward`.

        Args:
            x: Inputs (T, B, I).
            W: Weights of the inputs (G, I).
            R: Weights of the outputs of the step before (G, N).
            peepholes: (3, N), or None for none.
            Za, Zb, Ia, Ib, Fa, Fb, Oa, Ob, Ca, Cb: (U, B, N), as the forward pass
                filled them.
            y: (U, B, N), as the forward pass filled it.
            dy: (U, B, N), deltas of y from outside. Row -1 receives those of the
                carried output; the others are not modified.
            dZa, dZb, dIa, dIb, dFa, dFb, dOa, dOb, dCa, dCb: (U, B, N), receive
                the deltas of Za and so on. Row -1 of `dCa` receives those of the
                carried cell, row -1 of the others zero.
            dx: (T, B, I), gets the deltas of x, or None if they are not wanted.
            dW: (G, I), gets the gradients of W.
            dR: (G, N), gets the gradients of R.
            dpeepholes: (3, N), gets the gradients of the peepholes. None without.
            dbias: (G,), gets the gradients of bias.
            activation: Name of the activation function of block input and cell.
            timing: As in the forward pass.
            step: As the forward pass filled it.
            fresh_dx: Overwrite `dx`.
            fresh_gradients: Overwrite the gradients.
        """
        cells = _Cells(Za, Zb, Ia, Ib, Fa, Fb, Oa, Ob, Ca, Cb)
        deltas = _Cells(dZa, dZb, dIa, dIb, dFa, dFb, dOa, dOb, dCa, dCb)
        kept = self._kept_units(timing, step)
        self._lstm_deltas(R, _rows(peepholes), cells, deltas, dy, activation, kept)
        parameters = zip(deltas.gates, *map(_quarters, (W, dW, dR, dbias)), strict=True)
        for gate, w, dw, dr, db in parameters:
            self._gate_gradients(x, y, gate, dw, dr, db, fresh_gradients)
            if dx is not None:
                dot = self.dot_mm if fresh_dx else self.dot_add_mm
                dot(flatten_time(gate[:-1]), w, flatten_time(dx))
                fresh_dx = False
        if peepholes is not None:
            for k, (gate, delay) in enumerate(((dIa, 1), (dFa, 1), (dOa, 0))):
                self._peephole_gradient(gate, Ca, delay, dpeepholes[k], fresh_gradients)

    def _lstm_deltas(
        self,
        R: Any,
        peepholes: Any,
        cells: _Cells,
        deltas: _Cells,
        dy: Any,
        activation: str,
        kept: Any,
    ) -> None:
        """Fill all deltas of the cells, and row -1 of `dy`."""
        batch, units = dy.shape[1:]
        stacked = self.scratch((batch, 4 * units), 3)
        parts = _quarters(stacked, axis=1)
        pair = self.scratch((2, batch, units), 4)
        dout, dout_before = pair[0], pair[1]
        for carried in _at(deltas, -1):
            self.fill(carried, 0.0)
        self.fill(deltas.Ca[-2], 0.0)
        self.copy_to(dy[-2], dout)
        for t in reversed(range(dy.shape[0] - 1)):
            d, kept_now = _at(deltas, t), None if kept is None else kept[t]
            self._lstm_step_deltas(
                _at(cells, t), cells.Ca[t - 1], dout, d, deltas.Ca[t - 1], peepholes,
                activation, kept_now,
            )  # fmt: skip
            for part, gate in zip(parts, d.gates, strict=True):
                self.copy_to(gate, part)
            self.dot_mm(stacked, R, dout_before)
            if kept is not None:
                self.add_into_if(dout, dout_before, kept_now)
            if t > 0:
                self.add_tt(dout_before, dy[t - 1], dout_before)
            dout, dout_before = dout_before, dout
        self.copy_to(dout, dy[-1])

    def _lstm_step_deltas(
        self,
        now: _Cells,
        before: Any,
        dout: Any,
        d: _Cells,
        d_before: Any,
        peepholes: Any,
        activation: str,
        kept: Any,
    ) -> None:
        """The deltas of one step, from those of its output, and of the cell before.

        ``d.Ca`` holds what arrives from the next step; all others are unset.
        """
        act_deriv = self.act_func_deriv[activation]
        self.mult_tt(dout, now.Cb, d.Ob)
        self.mult_tt(dout, now.Ob, d.Cb)
        if kept is not None:
            self.fill_if(d.Ob, 0.0, kept)
            self.fill_if(d.Cb, 0.0, kept)
        self.sigmoid_deriv(now.Oa, now.Ob, d.Ob, d.Oa)
        self.act_backward(now.Ca, now.Cb, d.Cb, d.Ca, activation)
        if peepholes:
            self.mult_add_mv(d.Oa, peepholes[2], d.Ca)
        self.mult_tt(d.Ca, now.Ib, d.Zb)
        self.mult_tt(d.Ca, now.Zb, d.Ib)
        self.mult_tt(d.Ca, before, d.Fb)
        self.mult_tt(d.Ca, now.Fb, d_before)
        if kept is not None:
            for delta in (d.Zb, d.Ib, d.Fb):
                self.fill_if(delta, 0.0, kept)
            self.copy_to_if(d.Ca, d_before, kept)
        act_deriv(now.Za, now.Zb, d.Zb, d.Za)
        self.sigmoid_deriv(now.Ia, now.Ib, d.Ib, d.Ia)
        self.sigmoid_deriv(now.Fa, now.Fb, d.Fb, d.Fa)
        if peepholes:
            self.mult_add_mv(d.Ia, peepholes[0], d_before)
            self.mult_add_mv(d.Fa, peepholes[1], d_before)

    # -- gradients over all steps --------------------------------------------

    def _gate_gradients(
        self, x: Any, y: Any, dh: Any, dW: Any, dR: Any, dbias: Any, fresh: bool
    ) -> None:
        """Gradients of what ``h[t] = W x[t] + R y[t-1] + bias`` depends on."""
        dh = dh[:-1]
        rows = flatten_time(dh)
        dot = self.dot_mm if fresh else self.dot_add_mm
        dot(rows, flatten_time(x), dW, transa=True)
        self._sum_rows(rows, dbias, fresh)
        dot(dh[0], y[-1], dR, transa=True)
        if len(dh) > 1:
            self.dot_add_mm(
                flatten_time(dh[1:]), flatten_time(y[: len(dh) - 1]), dR, transa=True
            )

    def _peephole_gradient(
        self, dgate: Any, cell: Any, delay: int, gradient: Any, fresh: bool
    ) -> None:
        """Gradient of a peephole through which a gate sees ``cell[t - delay]``."""
        products = self.scratch((dgate.shape[0] - 1, *dgate.shape[1:]), 4)
        if delay:
            self.mult_tt(dgate[0], cell[-1], products[0])
        if products.shape[0] > delay:
            self.mult_tt(dgate[delay:-1], cell[: -1 - delay], products[delay:])
        self._sum_rows(flatten_time(products), gradient, fresh)

    # -- clockwork -----------------------------------------------------------

    def _advance_clock(self, timing: Any, step: Any) -> Any:
        """Count the steps; see `_kept_units` for what is returned."""
        if timing is None:
            return None
        on_cpu = isinstance(timing, np.ndarray)
        fastest = float((timing if on_cpu else self.get_numpy_copy(timing)).min())
        if not fastest >= 1:
            raise HandlerError(f"timings have to be at least 1, got {fastest}")
        for t in range(step.shape[0] - 1):
            self.add_st(1.0, step[t - 1], step[t])
        return self._kept_units(timing, step)

    def _kept_units(self, timing: Any, step: Any) -> Any:
        """An array (T, B, N) that is zero where a unit is updated."""
        if timing is None:
            return None
        shape = (step.shape[0] - 1, step.shape[1], timing.shape[0])
        kept, cycle = self.scratch(shape, 5), self.scratch(shape, 6)
        rows = flatten_time(kept)
        self.broadcast_t(flatten_time(step[:-1]), 1, rows)
        self.add_st(-1.0, rows, rows)
        self.broadcast_t(timing.reshape((1, shape[2])), 0, flatten_time(cycle))
        self.modulo_tt(kept, cycle, kept)
        return kept


def _at(cells: _Cells, t: int) -> _Cells:
    """The cells in one step."""
    return _Cells(*[array[t] for array in cells])


def _rows(matrix: Any) -> list[Any] | None:
    """Views of all rows of a matrix as matrices (1, N)."""
    if matrix is None:
        return None
    rows, columns = matrix.shape
    return [matrix[k].reshape((1, columns)) for k in range(rows)]


def _quarters(array: Any, axis: int = 0) -> list[Any]:
    """Four parts of equal size, for the block input and the three gates."""
    size = array.shape[axis] // 4
    parts = [slice(k * size, (k + 1) * size) for k in range(4)]
    return [array[:, part] if axis else array[part] for part in parts]

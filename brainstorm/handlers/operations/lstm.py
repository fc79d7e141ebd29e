"""Long short-term memory over whole sequences.

The conventions are those of :mod:`brainstorm.handlers.operations.recurrent`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from brainstorm.handlers.operations.contract import operation
from brainstorm.handlers.operations.recurrent import _check_sequences
from brainstorm.utils import flatten_time

__all__ = ["LstmCells", "LstmOperations"]


class LstmCells(NamedTuple):
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

    def without_carried(self) -> LstmCells:
        """The buffers without the carried state."""
        return LstmCells(*[array[:-1] for array in self])

    def at(self, t: int) -> LstmCells:
        """The buffers in one step."""
        return LstmCells(*[array[t] for array in self])


_CELLS = ("Za", "Zb", "Ia", "Ib", "Fa", "Fb", "Oa", "Ob", "Ca", "Cb")
_CELL_ARRAYS = " ".join(f"{name}:U,B,N" for name in _CELLS)
_DELTA_ARRAYS = " ".join(f"d{name}:U,B,N" for name in _CELLS)


class LstmOperations:
    """Part of :class:`~brainstorm.handlers.base_handler.Handler`."""

    @operation(
        "x:T,B,I W:G,I R:G,N peepholes:3,N bias:G timing:N",
        f"{_CELL_ARRAYS} y:U,B,N step:U,B,1",
        optional="timing step peepholes",
        check=_check_sequences,
    )
    def lstm_forward(
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
        cells = LstmCells(Za, Zb, Ia, Ib, Fa, Fb, Oa, Ob, Ca, Cb)
        kept = self._advance_clock(timing, step)
        peepholes = self._repeated(peepholes, y.shape[1])
        steps, batch = x.shape[:2]
        stacked = self.scratch((steps, batch, W.shape[0]), 3)
        self.affine(self._rows(x, 9), W, bias, None, flatten_time(stacked), "linear")
        products = self.scratch((batch, W.shape[0]), 4)
        from_x, from_y = _quarters(stacked), _quarters(products)
        for t in range(steps):
            now, kept_now = cells.at(t), None if kept is None else kept[t]
            self.dot_mm(y[t - 1], R, products, transb=True)
            for gate, a, b in zip(now.gates, from_x, from_y, strict=True):
                self.add_tt(a[t], b, gate)
            self._lstm_step(now, cells.Ca[t - 1], peepholes, activation, kept_now)
            self.mult_tt(now.Ob, now.Cb, y[t])
            if kept is not None:
                self.copy_to_if(y[t - 1], y[t], kept_now)

    def _lstm_step(
        self, now: LstmCells, before: Any, peepholes: Any, activation: str, kept: Any
    ) -> None:
        """All of one step between the products and the output."""
        act = self.act_func[activation]
        act(now.Za, now.Zb)
        if peepholes:
            self.mult_add_tt(before, peepholes[0], now.Ia)
            self.mult_add_tt(before, peepholes[1], now.Fa)
        self.sigmoid(now.Ia, now.Ib)
        self.sigmoid(now.Fa, now.Fb)
        self.mult_tt(now.Ib, now.Zb, now.Ca)
        self.mult_add_tt(now.Fb, before, now.Ca)
        if kept is not None:
            self.copy_to_if(before, now.Ca, kept)
        if peepholes:
            self.mult_add_tt(now.Ca, peepholes[2], now.Oa)
        self.sigmoid(now.Oa, now.Ob)
        act(now.Ca, now.Cb)

    @operation(
        f"x:T,B,I W:G,I R:G,N peepholes:3,N timing:N step:U,B,1 {_CELL_ARRAYS} y:U,B,N",
        _DELTA_ARRAYS,
        add="dy:U,B,N dx:T,B,I dW:G,I dR:G,N dpeepholes:3,N dbias:G",
        optional="timing step peepholes dpeepholes dx",
        check=_check_sequences,
    )
    def lstm_backward(
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
        outside: LstmCells | None = None,
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
            outside: Further deltas of Za and so on (T, B, N), None for those that
                have none. None if all are so.
        """
        cells = LstmCells(Za, Zb, Ia, Ib, Fa, Fb, Oa, Ob, Ca, Cb)
        deltas = LstmCells(dZa, dZb, dIa, dIb, dFa, dFb, dOa, dOb, dCa, dCb)
        kept = self._kept_units(timing, step)
        dgates = self._lstm_deltas(
            R, peepholes, cells, dy, deltas, activation, kept, outside
        )
        self._gate_gradients(
            x, y, dgates, dx, W, dW, dR, dbias, fresh_dx, fresh_gradients
        )
        if peepholes is not None:
            self._peephole_gradients(cells, deltas, dpeepholes, fresh_gradients)

    def _lstm_deltas(
        self,
        R: Any,
        peepholes: Any,
        cells: LstmCells,
        dy: Any,
        deltas: LstmCells,
        activation: str,
        kept: Any,
        outside: LstmCells | None = None,
    ) -> Any:
        """Fill all `deltas`, and row -1 of `dy`.

        Returns:
            The deltas of the gates once more, as an array (T, B, G).
        """
        now, d = cells.without_carried(), deltas.without_carried()
        before = self._delayed(cells.Ca)
        forget = self.scratch(tuple(before.shape), 4)
        self._lstm_slopes(peepholes, now, before, d, forget, activation, kept)
        steps, batch, units = before.shape
        stacked = self.scratch((steps, batch, 4 * units), 3)
        dgates = list(zip(d.gates, _quarters(stacked), strict=True))
        for carried in (*deltas.at(-1), dy[-1]):
            self.fill(carried, 0.0)
        # Until the end, dCb holds the deltas of y.
        last = deltas.at(steps - 1)  # without steps the carried state, all zero
        self.copy_to(dy[steps - 1], last.Cb)
        self.mult_tt(last.Ca, dy[steps - 1], last.Ca)
        more = self._lstm_deltas_from(outside, peepholes, now, activation)
        if more is not None:
            self.add_tt(more[4][steps - 1], last.Ca, last.Ca)
        for t in reversed(range(steps)):
            dout, dcell = d.Cb[t], d.Ca[t]
            dout_before, dcell_before = deltas.Cb[t - 1], deltas.Ca[t - 1]
            for k, (slope, dgate) in enumerate(dgates):
                self.mult_tt(slope[t], dout if k == 3 else dcell, dgate[t])
                if more is not None:
                    self.add_tt(more[k][t], dgate[t], dgate[t])
            self.dot_mm(stacked[t], R, dout_before)
            self.add_tt(dout_before, dy[t - 1], dout_before)
            if kept is not None:
                self.add_into_if(dout, dout_before, kept[t])
            self.mult_tt(dcell_before, dout_before, dcell_before)
            self.mult_add_tt(dcell, forget[t], dcell_before)
            if more is not None:
                self.add_tt(more[4][t - 1], dcell_before, dcell_before)
        self.copy_to(deltas.Cb[-1], dy[-1])
        self.fill(deltas.Cb[-1], 0.0)
        for slope, dgate in dgates:
            self.copy_to(dgate, slope)
        self._lstm_other_deltas(now, before, d, kept)
        for name in ("Zb", "Ib", "Fb", "Ob", "Cb") if outside else ():
            if getattr(outside, name) is not None:
                delta = getattr(d, name)
                self.add_tt(getattr(outside, name), delta, delta)
        return stacked

    def _lstm_deltas_from(
        self,
        outside: LstmCells | None,
        peepholes: Any,
        now: LstmCells,
        activation: str,
    ) -> Any:
        """What deltas from outside add to those of Za, Ia, Fa, Oa and Ca: (5, U, B, N).

        Row -1 is that of the carried state.
        """
        if outside is None:
            return None
        steps, batch, units = now.Za.shape
        more = self.scratch((5, steps + 1, batch, units), 12)
        part = self.scratch((steps, batch, units), 13)
        self.fill(more, 0.0)
        for k, kind in enumerate("ZIFOC"):
            deriv = self.act_func_deriv[activation if kind in "ZC" else "sigmoid"]
            a, b = getattr(outside, kind + "a"), getattr(outside, kind + "b")
            if b is not None:
                deriv(getattr(now, kind + "a"), getattr(now, kind + "b"), b, part)
                self.copy_to(part, more[k][:-1])
            if a is not None:
                self.add_tt(a, more[k][:-1], more[k][:-1])
        if peepholes is not None:
            p_input, p_forget, p_output = (
                peepholes[k].reshape((1, units)) for k in range(3)
            )
            cell = more[4]
            for gate, peephole in ((more[1], p_input), (more[2], p_forget)):
                later, before = flatten_time(gate[1:-1]), flatten_time(cell[:-2])
                self.mult_add_mv(later, peephole, before)
                self.mult_add_mv(gate[0], peephole, cell[-1])
            output = flatten_time(more[3][:-1])
            self.mult_add_mv(output, p_output, flatten_time(cell[:-1]))
        return more

    def _lstm_slopes(
        self,
        peepholes: Any,
        now: LstmCells,
        before: Any,
        slopes: LstmCells,
        forget: Any,
        activation: str,
        kept: Any,
    ) -> None:
        """Derivatives within one step, for all steps at once.

        Into `slopes` go those of the cell with respect to Za, Ia and Fa, and those
        of y with respect to Oa and Ca; into `forget` those of the cell with respect
        to the cell before.
        """
        act_deriv = self.act_func_deriv[activation]
        act_deriv(now.Za, now.Zb, now.Ib, slopes.Za)
        self.sigmoid_deriv(now.Ia, now.Ib, now.Zb, slopes.Ia)
        self.sigmoid_deriv(now.Fa, now.Fb, before, slopes.Fa)
        self.sigmoid_deriv(now.Oa, now.Ob, now.Cb, slopes.Oa)
        act_deriv(now.Ca, now.Cb, now.Ob, slopes.Ca)
        self.copy_to(now.Fb, forget)
        if kept is not None:
            for slope in (*slopes.gates, slopes.Ca):
                self.fill_if(slope, 0.0, kept)
            self.fill_if(forget, 1.0, kept)
        if peepholes is not None:
            seen_by = ((slopes.Ia, forget), (slopes.Fa, forget), (slopes.Oa, slopes.Ca))
            for k, (gate, out) in enumerate(seen_by):
                peephole = peepholes[k].reshape((1, peepholes.shape[1]))
                rows = self._rows(out, 9)
                self.mult_add_mv(self._rows(gate, 10), peephole, rows)
                self._put_rows(rows, out)

    def _lstm_other_deltas(
        self, now: LstmCells, before: Any, d: LstmCells, kept: Any
    ) -> None:
        """The deltas that the loop over the steps does not need."""
        self.mult_tt(d.Ca, now.Ib, d.Zb)
        self.mult_tt(d.Ca, now.Zb, d.Ib)
        self.mult_tt(d.Ca, before, d.Fb)
        self.mult_tt(d.Cb, now.Cb, d.Ob)
        self.mult_tt(d.Cb, now.Ob, d.Cb)
        if kept is not None:
            for delta in (d.Zb, d.Ib, d.Fb, d.Ob, d.Cb):
                self.fill_if(delta, 0.0, kept)

    def _repeated(self, peepholes: Any, batch: int) -> list[Any] | None:
        """For each peephole an array (B, N), to multiply the cells with."""
        if peepholes is None:
            return None
        count, units = peepholes.shape
        repeated = self.scratch((count, batch, units), 7)
        for k in range(count):
            self.broadcast_t(peepholes[k].reshape((1, units)), 0, repeated[k])
        return [repeated[k] for k in range(count)]

    def _peephole_gradients(
        self, cells: LstmCells, deltas: LstmCells, dpeepholes: Any, fresh: bool
    ) -> None:
        before, now = self._delayed(cells.Ca), cells.Ca[:-1]
        products = self.scratch(tuple(before.shape), 4)
        pairs = ((deltas.Ia, before), (deltas.Fa, before), (deltas.Oa, now))
        for k, (gate, cell) in enumerate(pairs):
            self.mult_tt(gate[:-1], cell, products)
            self._sum_rows(flatten_time(products), dpeepholes[k], fresh)


def _quarters(array: Any) -> list[Any]:
    """Views of the last axis' parts for the block input and for the three gates."""
    size = array.shape[-1] // 4
    return [array[..., k * size : (k + 1) * size] for k in range(4)]

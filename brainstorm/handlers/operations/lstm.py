"""Long short-term memory over whole sequences.

The conventions are those of :mod:`brainstorm.handlers.operations.recurrent`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from brainstorm.handlers.operations.contract import each, operation
from brainstorm.handlers.operations.recurrent import (
    Clock,
    RecurrentOperations,
    Weights,
    check_sequences,
    gates_of,
)
from brainstorm.utils import flatten_time

__all__ = ["LstmCells", "LstmOperations"]


class LstmCells(NamedTuple):
    """The buffers of an LSTM, or their deltas, each (U, B, N); of all steps or of one.

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

    def at(self, t: int | slice | tuple[slice, ...]) -> LstmCells:
        """The buffers in one step, or in some."""
        return LstmCells(*[array[t] for array in self])


class _Back(NamedTuple):
    """What all steps of a backward pass work on.

    Attributes:
        peepholes: (3, N), or None.
        cells: As the forward pass filled them.
        dy: Deltas of y from outside.
        deltas: Row t + 1 is done. In row t, that of Cb holds the deltas of y, but for
            those of units that keep it for a step.
        dgates: (T, B, G), receives the deltas of Za, Ia, Fa and Oa. None if these go to
            their own places alone.
        activation: Name of the activation function of block input and cell.
        kept: Zero where a unit is updated, or None.
        outside: Further deltas, or None.
        before: (T, B, N), the cells of the steps before.
        forget: The derivatives of the cells by these.
        more: What `outside` adds to the deltas of Za, Ia, Fa, Oa and Ca, or None.
    """

    peepholes: Any
    cells: LstmCells
    dy: Any
    deltas: LstmCells
    dgates: Any
    activation: str
    kept: Any
    outside: LstmCells | None
    before: Any = None
    forget: Any = None
    more: Any = None


_STEPS = slice(None, -1)  # without the carried state
_WEIGHTS = "weights.W:G,I weights.R:G,N weights.peepholes:3,N"
_CELLS = each("cells", LstmCells._fields, "U,B,N")


class LstmOperations(RecurrentOperations):
    """Part of :class:`~brainstorm.handlers.base_handler.Handler`."""

    @operation(
        f"x:T,B,I {_WEIGHTS} weights.bias:G clock.timing:N",
        f"{_CELLS} y:U,B,N clock.step:U,B,1",
        optional="weights.bias weights.peepholes clock",
        check=check_sequences,
    )
    def lstm_forward(
        self,
        x: Any,
        weights: Weights,
        cells: LstmCells,
        y: Any,
        activation: str,
        clock: Clock | None = None,
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
            weights: The parameters: in W, R and bias those that lead to Z, I, F and O;
                the peepholes are pi, pf and po.
            cells: Receives what the formulas above give.
            activation: Name of the activation function of block input and cell.
            clock: Of a clockwork. None to update all units in each step.

        Raises:
            HandlerError: A timing is below 1.
        """
        W, R, bias, peepholes = weights
        kept = self._advance(clock)
        peepholes = self._repeated(peepholes, y.shape[1])
        steps, batch = x.shape[:2]
        if self._goes_by_gates(weights, y, cells.gates):
            self._run_by_gates(x, weights, cells, y, peepholes, activation, kept)
            return
        from_x = self.scratch((steps, batch, W.shape[0]), 3)
        self.affine(self._rows(x, 9), W, bias, None, flatten_time(from_x), "linear")
        from_y = self.scratch((batch, W.shape[0]), 4)
        packed = self._pack(R, y[-1], from_y, x.shape[0], transb=True)
        for t in range(steps):
            self._dot_packed(y[t - 1], packed, from_y)
            self._lstm_step(t, from_x, from_y, peepholes, cells, y, activation, kept)

    @operation(
        f"x:T,B,I {_WEIGHTS} weights.bias:G clock.timing:N",
        "c:S,B,N y:U,B,N clock.step:U,B,1",
        optional="weights.bias weights.peepholes clock",
        check=check_sequences,
    )
    def lstm_outputs(
        self,
        x: Any,
        weights: Weights,
        c: Any,
        y: Any,
        activation: str,
        clock: Clock | None = None,
    ) -> None:
        """As :meth:`lstm_forward`, but only the outputs and the state.

        Args:
            c: The last two rows of Ca, (2, B, N): row -1 is the carried state, row 0
                receives that after the last step. (1, B, N) if there are no steps.
        """
        last = c[-1]
        for piece, out, now in self._in_pieces(x, y, weights.W.shape[0], clock):
            names, shape = LstmCells._fields, tuple(out.shape)
            cells = LstmCells(*[self.scratch(shape, ("piece", n)) for n in names])
            self.copy_to(last, cells.Ca[-1])
            given = piece, weights, cells, out, activation, now
            LstmOperations.lstm_forward(self, *given)
            last = c[0]
            self.copy_to(cells.Ca[-2], last)

    def _goes_by_gates(self, weights: Weights, y: Any, gates: tuple) -> bool:
        """Whether each gate is to have products of its own.

        These are large, and go to where they belong: nothing has to be copied.
        """
        return False

    def _run_by_gates(
        self,
        x: Any,
        weights: Weights,
        cells: LstmCells,
        y: Any,
        peepholes: Any,
        activation: str,
        kept: Any,
    ) -> None:
        """All steps of a forward pass."""
        rows, packed = self._rows(x, 9), []
        for k, (gate, part) in enumerate(
            zip(cells.gates, _by_gate(weights), strict=True)
        ):
            sums = flatten_time(gate[:-1])
            self.affine(rows, part.W, part.bias, None, sums, "linear")
            packed.append(
                self._pack(
                    part.R, y[-1], gate[-1], len(x), transb=True, add=True, slot=k
                )
            )
        for t in range(len(x)):
            for gate, R in zip(cells.gates, packed, strict=True):
                self._dot_packed(y[t - 1], R, gate[t])
            self._lstm_cells(t, peepholes, cells, y, activation, kept)

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
        """All of step t but the products, which are given."""
        for gate, a, b in zip(
            cells.gates, gates_of(from_x[t], 4), gates_of(from_y, 4), strict=True
        ):
            self.add_tt(a, b, gate[t])
        self._lstm_cells(t, peepholes, cells, y, activation, kept)

    def _lstm_cells(
        self,
        t: int,
        peepholes: Any,
        cells: LstmCells,
        y: Any,
        activation: str,
        kept: Any,
    ) -> None:
        """All of step t behind what gets into the gates from inputs and outputs."""
        act, now, before = self.act_func[activation], cells.at(t), cells.Ca[t - 1]
        act(now.Za, now.Zb)
        if peepholes:
            self.mult_add_tt(before, peepholes[0], now.Ia)
            self.mult_add_tt(before, peepholes[1], now.Fa)
        self.sigmoid(now.Ia, now.Ib)
        self.sigmoid(now.Fa, now.Fb)
        self.mult_tt(now.Ib, now.Zb, now.Ca)
        self.mult_add_tt(now.Fb, before, now.Ca)
        if kept is not None:
            self.copy_to_if(before, now.Ca, kept[t])
        if peepholes:
            self.mult_add_tt(now.Ca, peepholes[2], now.Oa)
        self.sigmoid(now.Oa, now.Ob)
        act(now.Ca, now.Cb)
        self.mult_tt(now.Ob, now.Cb, y[t])
        if kept is not None:
            self.copy_to_if(y[t - 1], y[t], kept[t])

    def _repeated(self, peepholes: Any, batch: int) -> list[Any] | None:
        """For each peephole an array (B, N), to multiply the cells with."""
        if peepholes is None:
            return None
        repeated = self.scratch((3, batch, peepholes.shape[1]), 7)
        for k, row in enumerate(_rows_of(peepholes)):
            self.broadcast_t(row, 0, repeated[k])
        return [repeated[k] for k in range(3)]

    @operation(
        f"x:T,B,I {_WEIGHTS} {_CELLS} y:U,B,N clock.timing:N clock.step:U,B,1 "
        + each("outside", LstmCells._fields, "T,B,N"),
        each("deltas", LstmCells._fields, "U,B,N"),
        add="dy:U,B,N dx:T,B,I gradients.W:G,I gradients.R:G,N gradients.bias:G"
        " gradients.peepholes:3,N",
        optional="weights.peepholes gradients.bias gradients.peepholes clock dx"
        f" outside {' '.join([f'outside.{name}' for name in LstmCells._fields])}",
        check=check_sequences,
    )
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
        """Backward pass of :meth:`lstm_forward`.

        Args:
            dy: (U, B, N), deltas of y from outside. Row -1 receives those of the
                carried output; the others are not modified.
            deltas: Receives the deltas of the cells. Row -1 of Ca receives those of
                the carried cell, row -1 of the others zero.
            gradients: Gets the gradients of the weights.
            outside: Further deltas of Za and so on (T, B, N), None for those that
                have none. None if all are so.
        """
        kept = self._kept_units(clock)
        dgates = self._lstm_deltas(
            weights, cells, dy, deltas, activation, kept, outside
        )
        before = self._delayed(y)
        blocks = [(dgates, weights, gradients)]
        if dgates is None:
            parts = deltas.at(_STEPS).gates, _by_gate(weights), _by_gate(gradients)
            blocks = list(zip(*parts, strict=True))
        for k, (dgate, block, gradient) in enumerate(blocks):
            self._output_gradients(before, dgate, gradient.R, fresh_gradients)
            fresh = fresh_dx and not k, fresh_gradients
            self._input_gradients(x, dgate, dx, block, gradient, *fresh)
        if weights.peepholes is not None:
            self._peephole_gradients(
                cells, deltas, gradients.peepholes, fresh_gradients
            )

    def _lstm_deltas(
        self,
        weights: Weights,
        cells: LstmCells,
        dy: Any,
        deltas: LstmCells,
        activation: str,
        kept: Any = None,
        outside: LstmCells | None = None,
    ) -> Any:
        """Fill all `deltas`, and row -1 of `dy`.

        Returns:
            The deltas of the gates once more, as an array (T, B, G), or None where they
            go by gates.
        """
        rows, batch, units = dy.shape
        steps = rows - 1
        by_gates = self._goes_by_gates(weights, dy, deltas.gates)
        dgates = None if by_gates else self.scratch((steps, batch, 4 * units), 3)
        back = self._lstm_begin_back(
            _Back(
                weights.peepholes, cells, dy, deltas, dgates, activation, kept, outside
            )
        )
        gates: Sequence[Any] = deltas.gates if by_gates else [dgates]
        parts = _by_gate(weights) if by_gates else [weights]
        packed = [
            self._pack(part.R, gate[0], deltas.Cb[-1], steps, add=True, slot=k)
            for k, (gate, part) in enumerate(zip(gates, parts, strict=True))
            if steps
        ]
        for t in reversed(range(steps)):
            self._lstm_step_back(t, back)
            for gate, R in zip(gates, packed, strict=True):
                self._dot_packed(gate[t], R, deltas.Cb[t - 1])
        self._lstm_end_back(back)
        return dgates

    def _lstm_begin_back(self, b: _Back) -> _Back:
        """Compute what can be for all steps at once."""
        for carried in (*b.deltas.at(-1), b.dy[-1]):
            self.fill(carried, 0.0)
        self.copy_to(b.dy, b.deltas.Cb)
        before = self._delayed(b.cells.Ca)
        b = b._replace(before=before, forget=self.scratch(tuple(before.shape), 4))
        self._lstm_slopes(b)
        return b if b.outside is None else b._replace(more=self._lstm_deltas_from(b))

    def _lstm_step_back(self, t: int, b: _Back) -> None:
        """All of step t but the product of the deltas of the gates."""
        d, more, has_later = b.deltas, b.more, t + 1 < b.before.shape[0]
        dgates = d.at(t).gates if b.dgates is None else gates_of(b.dgates[t], 4)
        dout, dcell = d.Cb[t], d.Ca[t]
        if b.kept is not None and has_later:
            self.add_into_if(d.Cb[t + 1], dout, b.kept[t + 1])
        self.mult_tt(dcell, dout, dcell)
        if has_later:
            self.mult_add_tt(d.Ca[t + 1], b.forget[t + 1], dcell)
        if more is not None:
            self.add_tt(more[4][t], dcell, dcell)
        for k, (slope, dgate) in enumerate(zip(d.gates, dgates, strict=True)):
            self.mult_tt(slope[t], dout if k == 3 else dcell, dgate)
            if more is not None:
                self.add_tt(more[k][t], dgate, dgate)

    def _lstm_end_back(self, b: _Back) -> None:
        """Compute the deltas that the steps do not need, and those of the state."""
        now, d = b.cells.at(_STEPS), b.deltas.at(_STEPS)
        carried = b.deltas.at(-1)
        if b.before.shape[0]:
            self.mult_tt(d.Ca[0], b.forget[0], carried.Ca)
            if b.more is not None:
                self.add_tt(b.more[4][-1], carried.Ca, carried.Ca)
            if b.kept is not None:
                self.add_into_if(d.Cb[0], carried.Cb, b.kept[0])
        self.copy_to(carried.Cb, b.dy[-1])
        self.fill(carried.Cb, 0.0)
        if b.dgates is not None:
            for gate, dgate in zip(d.gates, gates_of(b.dgates, 4), strict=True):
                self.copy_to(dgate, gate)
        self.mult_tt(d.Ca, now.Ib, d.Zb)
        self.mult_tt(d.Ca, now.Zb, d.Ib)
        self.mult_tt(d.Ca, b.before, d.Fb)
        self.mult_tt(d.Cb, now.Cb, d.Ob)
        self.mult_tt(d.Cb, now.Ob, d.Cb)
        for name in ("Zb", "Ib", "Fb", "Ob", "Cb"):
            delta, added = getattr(d, name), b.outside and getattr(b.outside, name)
            if b.kept is not None:
                self.fill_if(delta, 0.0, b.kept)
            if added is not None:
                self.add_tt(added, delta, delta)

    def _lstm_slopes(self, b: _Back) -> None:
        """Derivatives within one step, for all steps at once.

        Into the deltas of Za, Ia and Fa go those of the cell with respect to these, and
        into the deltas of Oa and Ca those of y.
        """
        act_deriv = self.act_func_deriv[b.activation]
        now, slopes, forget = b.cells.at(_STEPS), b.deltas.at(_STEPS), b.forget
        act_deriv(now.Za, now.Zb, now.Ib, slopes.Za)
        self.sigmoid_deriv(now.Ia, now.Ib, now.Zb, slopes.Ia)
        self.sigmoid_deriv(now.Fa, now.Fb, b.before, slopes.Fa)
        self.sigmoid_deriv(now.Oa, now.Ob, now.Cb, slopes.Oa)
        act_deriv(now.Ca, now.Cb, now.Ob, slopes.Ca)
        self.copy_to(now.Fb, forget)
        if b.kept is not None:
            for slope in (*slopes.gates, slopes.Ca):
                self.fill_if(slope, 0.0, b.kept)
            self.fill_if(forget, 1.0, b.kept)
        seen_by = ((slopes.Ia, forget), (slopes.Fa, forget), (slopes.Oa, slopes.Ca))
        for peephole, (gate, out) in zip(_rows_of(b.peepholes), seen_by, strict=False):
            rows = self._rows(out, 9)
            self.mult_add_mv(self._rows(gate, 10), peephole, rows)
            self._put_rows(rows, out)

    def _lstm_deltas_from(self, b: _Back) -> Any:
        """See `_Back.more`: (5, U, B, N). Row -1 is that of the carried state."""
        now, outside = b.cells.at(_STEPS), b.outside
        more = self.scratch((5, *b.dy.shape), 12)
        part = self.scratch(tuple(now.Za.shape), 13)
        self.fill(more, 0.0)
        for k, kind in enumerate("ZIFOC"):
            deriv = self.act_func_deriv[b.activation if kind in "ZC" else "sigmoid"]
            before, after = getattr(outside, kind + "a"), getattr(outside, kind + "b")
            if after is not None:
                deriv(getattr(now, kind + "a"), getattr(now, kind + "b"), after, part)
                self.copy_to(part, more[k][:-1])
            if before is not None:
                self.add_tt(before, more[k][:-1], more[k][:-1])
        if b.peepholes is not None:
            p_input, p_forget, p_output = _rows_of(b.peepholes)
            cell = more[4]
            for gate, peephole in ((more[1], p_input), (more[2], p_forget)):
                later, before = flatten_time(gate[1:-1]), flatten_time(cell[:-2])
                self.mult_add_mv(later, peephole, before)
                self.mult_add_mv(gate[0], peephole, cell[-1])
            output = flatten_time(more[3][:-1])
            self.mult_add_mv(output, p_output, flatten_time(cell[:-1]))
        return more

    def _peephole_gradients(
        self, cells: LstmCells, deltas: LstmCells, dpeepholes: Any, fresh: bool
    ) -> None:
        before, now = self._delayed(cells.Ca), cells.Ca[:-1]
        products = self.scratch(tuple(before.shape), 4)
        pairs = ((deltas.Ia, before), (deltas.Fa, before), (deltas.Oa, now))
        for k, (gate, cell) in enumerate(pairs):
            self.mult_tt(gate[:-1], cell, products)
            self._sum_rows(flatten_time(products), dpeepholes[k], fresh)


def _by_gate(weights: Weights) -> list[Weights]:
    """What leads to each of the gates, without peepholes."""
    W, R, bias, _ = weights
    n = R.shape[1]
    return [
        Weights(W[k : k + n], R[k : k + n], None if bias is None else bias[k : k + n])
        for k in range(0, 4 * n, n)
    ]


def _rows_of(peepholes: Any) -> list[Any]:
    """The three as matrices of one row; none if there are none."""
    if peepholes is None:
        return []
    return [peepholes[k].reshape((1, peepholes.shape[1])) for k in range(3)]

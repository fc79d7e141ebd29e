"""Gated recurrent units over whole sequences.

The conventions are those of :mod:`brainstorm.handlers.operations.recurrent`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from brainstorm.handlers.operations.contract import each, expected, operation
from brainstorm.handlers.operations.recurrent import (
    RecurrentOperations,
    check_sequences,
    gates_of,
)
from brainstorm.utils import flatten_time

__all__ = ["GruCells", "GruDeltas", "GruOperations", "GruWeights"]


class GruWeights(NamedTuple):
    """The parameters of gated recurrent units, or their gradients.

    Those of R, Z and H are stacked, so G = 3N.

    Attributes:
        W: Weights of the inputs (G, I).
        R: Weights of the outputs of the step before (G, N).
        bias: Vector (G,), or None for none.
        recurrent_bias: Vector (N,), of what the reset gates act on, or None for none.
    """

    W: Any
    R: Any
    bias: Any
    recurrent_bias: Any = None


class GruCells(NamedTuple):
    """The buffers of gated recurrent units, each (T, B, N).

    R and Z are the reset and the update gates, P is what the reset gates act on, and H
    are the candidates; the second letter tells before (a) from after (b) the activation
    function.
    """

    Ra: Any
    Rb: Any
    Za: Any
    Zb: Any
    Pa: Any
    Ha: Any
    Hb: Any


class GruDeltas(NamedTuple):
    """The deltas of those that are kept, each (T, B, N)."""

    Ra: Any
    Za: Any
    Pa: Any
    Ha: Any


_CELLS = each("cells", GruCells._fields, "T,B,N")


def _check_gru(handler: Any, args: dict[str, Any]) -> str | None:
    for name in ("weights.recurrent_bias", "gradients.recurrent_bias"):
        if args.get(name) is not None and not args["reset_after"]:
            wanted = "None where the reset gates act before the product"
            return expected(name, wanted, "one")
    return check_sequences(handler, args)


class GruOperations(RecurrentOperations):
    """Part of :class:`~brainstorm.handlers.base_handler.Handler`."""

    @operation(
        "x:T,B,I weights.W:G,I weights.R:G,N weights.bias:G weights.recurrent_bias:N",
        f"{_CELLS} y:U,B,N",
        optional="weights.bias weights.recurrent_bias",
        check=_check_gru,
    )
    def gru_forward(
        self,
        x: Any,
        weights: GruWeights,
        cells: GruCells,
        y: Any,
        activation: str,
        reset_after: bool = True,
    ) -> None:
        """Gated recurrent units.

        Cho et al., *Learning phrase representations using RNN encoder-decoder for
        statistical machine translation*, 2014. With ``x = x[t]`` and ``y' = y[t-1]``::

            Ra[t] = Wr x + Rr y' + br        Rb[t] = sigmoid(Ra[t])
            Za[t] = Wz x + Rz y' + bz        Zb[t] = sigmoid(Za[t])
            Pa[t] = Rh y' + bp
            Ha[t] = Wh x + Rb Pa + bh        Hb[t] = act(Ha[t])
            y[t] = (1 - Zb) Hb + Zb y'

        With the reset before the product, ``Pa[t] = Rb y'`` and
        ``Ha[t] = Wh x + Rh Pa + bh``.

        Args:
            weights: The parameters; bp is the recurrent bias, None where the reset is
                before the product.
            cells: Receives what the formulas above give.
            activation: Name of the activation function of the candidates.
            reset_after: Whether the reset gate acts after the product with Rh.
        """
        steps, batch = x.shape[:2]
        W, R, bias, bp = weights
        from_x = self.scratch((steps, batch, W.shape[0]), 3)
        self.affine(self._rows(x, 9), W, bias, None, flatten_time(from_x), "linear")
        if not reset_after:
            self._gru_reset_before(from_x, R, cells, y, activation)
            return
        from_y = self.scratch((batch, W.shape[0]), 4)
        packed = self._pack(R, y[-1], from_y, x.shape[0], transb=True)
        for t in range(steps):
            self._dot_packed(y[t - 1], packed, from_y)
            self._gru_step(t, from_x, from_y, bp, cells, y, activation)

    @operation(
        "x:T,B,I weights.W:G,I weights.R:G,N weights.bias:G weights.recurrent_bias:N",
        "y:U,B,N",
        optional="weights.bias weights.recurrent_bias",
        check=_check_gru,
    )
    def gru_outputs(
        self,
        x: Any,
        weights: GruWeights,
        y: Any,
        activation: str,
        reset_after: bool = True,
    ) -> None:
        """As :meth:`gru_forward`, but only the outputs."""
        for piece, out, _ in self._in_pieces(x, y, weights.W.shape[0]):
            shape = (piece.shape[0], *y.shape[1:])
            names = GruCells._fields
            cells = GruCells(*[self.scratch(shape, ("piece", n)) for n in names])
            given = piece, weights, cells, out, activation, reset_after
            GruOperations.gru_forward(self, *given)

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
        """All of step t but the products, which are given."""
        *to_gates, ph = gates_of(from_y, 3)
        Pa, now = cells.Pa[t], y[t]
        self._gru_gates(t, from_x, to_gates, cells)
        if bp is None:
            self.copy_to(ph, Pa)
        else:
            self.add_mv(ph, bp.reshape((1, bp.shape[0])), Pa)
        self.mult_tt(cells.Rb[t], Pa, now)
        self._gru_output(t, from_x, now, cells, y, activation)

    def _gru_gates(
        self, t: int, from_x: Any, from_y: Sequence[Any], cells: GruCells
    ) -> None:
        pairs = (cells.Ra, cells.Rb), (cells.Za, cells.Zb)
        for x, p, (a, b) in zip(gates_of(from_x[t], 3), from_y, pairs, strict=False):
            self.add_tt(x, p, a[t])
            self.sigmoid(a[t], b[t])

    def _gru_reset(
        self, t: int, from_x: Any, to_gates: Any, cells: GruCells, y: Any
    ) -> None:
        """The gates of step t, and what the product gets of the outputs before."""
        self._gru_gates(t, from_x, gates_of(to_gates, 2), cells)
        self.mult_tt(cells.Rb[t], y[t - 1], cells.Pa[t])

    def _gru_output(
        self, t: int, from_x: Any, from_y: Any, cells: GruCells, y: Any, activation: str
    ) -> None:
        Ha, Hb, now = cells.Ha[t], cells.Hb[t], y[t]
        self.add_tt(gates_of(from_x[t], 3)[2], from_y, Ha)
        self.act_func[activation](Ha, Hb)
        self.subtract_tt(y[t - 1], Hb, now)
        self.mult_tt(now, cells.Zb[t], now)
        self.add_tt(now, Hb, now)

    def _gru_reset_before(
        self, from_x: Any, R: Any, cells: GruCells, y: Any, activation: str
    ) -> None:
        """All steps, where the reset gates act before the product."""
        rows, batch, units = y.shape
        steps = rows - 1
        if not steps:
            return
        to_gates = self.scratch((batch, 2 * units), 4)
        to_h = self.scratch((batch, units), 5)
        R_gates, Rh = _cut(R, 2 * units)
        R_gates = self._pack(R_gates, y[-1], to_gates, steps, transb=True)
        Rh = self._pack(Rh, cells.Pa[0], to_h, steps, transb=True)
        for t in range(steps):
            self._dot_packed(y[t - 1], R_gates, to_gates)
            self._gru_reset(t, from_x, to_gates, cells, y)
            self._dot_packed(cells.Pa[t], Rh, to_h)
            self._gru_output(t, from_x, to_h, cells, y, activation)

    @operation(
        f"x:T,B,I weights.W:G,I weights.R:G,N {_CELLS} y:U,B,N",
        each("deltas", GruDeltas._fields, "T,B,N"),
        add="dy:U,B,N dx:T,B,I gradients.W:G,I gradients.R:G,N gradients.bias:G"
        " gradients.recurrent_bias:N",
        optional="gradients.bias gradients.recurrent_bias dx",
        check=_check_gru,
    )
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
        """Backward pass of :meth:`gru_forward`.

        Args:
            dy: (U, B, N), deltas of y from outside. Row -1 receives those of the
                carried output; the others are not modified.
            deltas: Receives the deltas.
            gradients: Gets the gradients of the weights.
        """
        rows, batch, units = dy.shape
        steps = rows - 1
        stacked = self.scratch((steps, batch, 3 * units), 3)
        out, later = (self.scratch((batch, units), slot) for slot in (4, 5))
        given = x, stacked, dx, weights, gradients, fresh_dx, fresh_gradients
        if not reset_after:
            work = (stacked, out, later)
            self._gru_back_before(weights.R, cells, y, dy, deltas, activation, *work)
            dR_gates, dRh = _cut(gradients.R, 2 * units)
            to_gates = stacked[..., : 2 * units]
            self._output_gradients(
                self._delayed(y), to_gates, dR_gates, fresh_gradients
            )
            folded, seen = self._rows(deltas.Ha, 9), self._rows(cells.Pa, 10)
            self._multiply(folded, seen, dRh, transa=True, add=not fresh_gradients)
            self._input_gradients(*given)
            return
        self._gru_slopes(cells, y, deltas, activation)
        self.fill(later, 0.0)
        if steps:
            R = self._pack(weights.R, stacked[0], later, x.shape[0], add=True)
        for t in reversed(range(steps)):
            self._gru_step_back(
                t, cells, y, dy, deltas, stacked[t], out, later, activation
            )
            self._dot_packed(stacked[t], R, later)
        self.copy_to(later, dy[-1])
        for part, delta in zip(gates_of(stacked, 3), deltas, strict=False):
            self.copy_to(part, delta)
        self._output_gradients(self._delayed(y), stacked, gradients.R, fresh_gradients)
        if gradients.recurrent_bias is not None:
            folded = self._rows(deltas.Pa, 9)
            self._sum_rows(folded, gradients.recurrent_bias, fresh_gradients)
        # The reset gates act on what comes from the outputs alone.
        self.copy_to(deltas.Ha, gates_of(stacked, 3)[2])
        self._input_gradients(*given)

    def _gru_slopes(
        self, cells: GruCells, y: Any, deltas: GruDeltas, activation: str
    ) -> None:
        """Derivatives of y[t], for all steps at once."""
        dRa, _, dPa, dHa = deltas
        self._gru_other_slopes(cells, self._delayed(y), deltas, activation)
        self.mult_tt(dHa, cells.Rb, dPa)
        self.mult_tt(dHa, cells.Pa, dRa)
        self.sigmoid_deriv(cells.Ra, cells.Rb, dRa, dRa)

    def _gru_other_slopes(
        self, cells: GruCells, before: Any, deltas: GruDeltas, activation: str
    ) -> None:
        """Derivatives of y[t] by Za and Ha."""
        Zb, Hb, (ones, dZa, _, dHa) = cells.Zb, cells.Hb, deltas
        self.fill(ones, 1.0)
        self.act_func_deriv[activation](cells.Ha, Hb, ones, dHa)
        self.subtract_tt(ones, Zb, ones)
        self.mult_tt(dHa, ones, dHa)
        self.subtract_tt(before, Hb, dZa)
        self.sigmoid_deriv(cells.Za, Zb, dZa, dZa)

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
        """Turn slopes into deltas; `later` gets what passes by the products."""
        self.add_tt(dy[t], later, out)
        Ra, Za, Pa, Ha = [array[t] for array in deltas]
        for slope, delta in zip((Ra, Za, Pa), gates_of(stacked, 3), strict=True):
            self.mult_tt(slope, out, delta)
        self.mult_tt(Ha, out, Ha)
        self.mult_tt(out, cells.Zb[t], later)

    def _gru_back_before(
        self,
        R: Any,
        cells: GruCells,
        y: Any,
        dy: Any,
        deltas: GruDeltas,
        activation: str,
        stacked: Any,
        out: Any,
        later: Any,
    ) -> None:
        """Fill `deltas`, row -1 of `dy`, and `stacked` with those of Ra, Za and Ha."""
        dRa, dZa, dPa, dHa = deltas
        before, gates = self._delayed(y), 2 * y.shape[2]
        self._gru_other_slopes(cells, before, deltas, activation)
        self.sigmoid_deriv(cells.Ra, cells.Rb, before, dRa)  # Pa's by it
        self.fill(later, 0.0)
        steps, (R_gates, Rh) = stacked.shape[0], _cut(R, gates)
        if steps:
            first = stacked[0]
            R_gates = self._pack(R_gates, first[:, :gates], later, steps, add=True)
            Rh = self._pack(Rh, first[:, gates:], dPa[0], steps)
        for t in reversed(range(steps)):
            now = stacked[t]
            self._gru_output_back(t, dy, deltas, now, out, later)
            self._dot_packed(now[:, gates:], Rh, dPa[t])
            self._gru_reset_back(t, cells, deltas, now, out, later)
            self._dot_packed(now[:, :gates], R_gates, later)
        self.copy_to(later, dy[-1])
        for part, delta in zip(gates_of(stacked, 3), (dRa, dZa, dHa), strict=True):
            self.copy_to(part, delta)

    def _gru_output_back(
        self, t: int, dy: Any, deltas: GruDeltas, stacked: Any, out: Any, later: Any
    ) -> None:
        """Turn the slopes of Za and Ha into deltas; `out` gets those of y."""
        _, z, h = gates_of(stacked, 3)
        self.add_tt(dy[t], later, out)
        self.mult_tt(deltas.Za[t], out, z)
        self.mult_tt(deltas.Ha[t], out, h)

    def _gru_reset_back(
        self,
        t: int,
        cells: GruCells,
        deltas: GruDeltas,
        stacked: Any,
        out: Any,
        later: Any,
    ) -> None:
        """Turn the slope of Ra into deltas; `later` gets what passes by the gates."""
        dPa = deltas.Pa[t]
        self.mult_tt(deltas.Ra[t], dPa, gates_of(stacked, 3)[0])
        self.mult_tt(out, cells.Zb[t], later)
        self.mult_add_tt(dPa, cells.Rb[t], later)


def _cut(stacked: Any, rows: int) -> tuple[Any, Any]:
    """The rows for both gates, and those for the candidates."""
    return stacked[:rows], stacked[rows:]

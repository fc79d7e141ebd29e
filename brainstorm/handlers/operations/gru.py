"""Gated recurrent units over whole sequences.

The conventions are those of :mod:`brainstorm.handlers.operations.recurrent`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from brainstorm.handlers.operations.contract import each, operation
from brainstorm.handlers.operations.recurrent import (
    Weights,
    check_sequences,
    gates_of,
)
from brainstorm.utils import flatten_time

__all__ = ["GruCells", "GruDeltas", "GruOperations"]


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


class GruOperations:
    """Part of :class:`~brainstorm.handlers.base_handler.Handler`."""

    @operation(
        "x:T,B,I weights.W:G,I weights.R:G,N weights.bias:G",
        f"{_CELLS} y:U,B,N",
        check=check_sequences,
    )
    def gru_forward(
        self, x: Any, weights: Weights, cells: GruCells, y: Any, activation: str
    ) -> None:
        """Gated recurrent units, whose reset gate acts after the product.

        Cho et al., *Learning phrase representations using RNN encoder-decoder for
        statistical machine translation*, 2014. With ``x = x[t]`` and ``y' = y[t-1]``::

            Ra[t] = Wr x + Rr y' + br        Rb[t] = sigmoid(Ra[t])
            Za[t] = Wz x + Rz y' + bz        Zb[t] = sigmoid(Za[t])
            Pa[t] = Rh y'
            Ha[t] = Wh x + Rb Pa + bh        Hb[t] = act(Ha[t])
            y[t] = (1 - Zb) Hb + Zb y'

        Args:
            x: Inputs (T, B, I).
            weights: The parameters: in W, R and bias those that lead to R, Z and H.
            cells: Receives what the formulas above give.
            y: (U, B, N), receives the outputs.
            activation: Name of the activation function of the candidates.
        """
        steps, batch = x.shape[:2]
        W, R, bias, _ = weights
        from_x = self.scratch((steps, batch, W.shape[0]), 3)
        self.affine(self._rows(x, 9), W, bias, None, flatten_time(from_x), "linear")
        from_y = self.scratch((batch, W.shape[0]), 4)
        packed = self._pack(R, y[-1], from_y, x.shape[0], transb=True)
        for t in range(steps):
            self._dot_packed(y[t - 1], packed, from_y)
            self._gru_step(t, from_x, from_y, cells, y, activation)

    def _gru_step(
        self, t: int, from_x: Any, from_y: Any, cells: GruCells, y: Any, activation: str
    ) -> None:
        """All of step t but the products, which are given."""
        (xr, xz, xh), (pr, pz, ph) = gates_of(from_x[t], 3), gates_of(from_y, 3)
        Ra, Rb, Za, Zb, Pa, Ha, Hb = [array[t] for array in cells]
        before, now = y[t - 1], y[t]
        self.add_tt(xr, pr, Ra)
        self.sigmoid(Ra, Rb)
        self.add_tt(xz, pz, Za)
        self.sigmoid(Za, Zb)
        self.copy_to(ph, Pa)
        self.mult_tt(Rb, Pa, now)
        self.add_tt(xh, now, Ha)
        self.act_func[activation](Ha, Hb)
        self.subtract_tt(before, Hb, now)
        self.mult_tt(now, Zb, now)
        self.add_tt(now, Hb, now)

    @operation(
        f"x:T,B,I weights.W:G,I weights.R:G,N {_CELLS} y:U,B,N",
        each("deltas", GruDeltas._fields, "T,B,N"),
        add="dy:U,B,N dx:T,B,I gradients.W:G,I gradients.R:G,N gradients.bias:G",
        optional="dx",
        check=check_sequences,
    )
    def gru_backward(
        self,
        x: Any,
        weights: Weights,
        cells: GruCells,
        y: Any,
        dy: Any,
        deltas: GruDeltas,
        dx: Any,
        gradients: Weights,
        activation: str,
        fresh_dx: bool = False,
        fresh_gradients: bool = False,
    ) -> None:
        """Backward pass of :meth:`gru_forward`.

        Args:
            x: Inputs (T, B, I).
            weights: The parameters; the bias is not used.
            cells: As the forward pass filled them.
            y: (U, B, N), as the forward pass filled it.
            dy: (U, B, N), deltas of y from outside. Row -1 receives those of the
                carried output; the others are not modified.
            deltas: Receives the deltas.
            dx: (T, B, I), gets the deltas of x, or None if they are not wanted.
            gradients: Gets the gradients of the weights.
            activation: Name of the activation function of the candidates.
            fresh_dx: Overwrite `dx`.
            fresh_gradients: Overwrite `gradients`.
        """
        steps, batch, units = dy.shape[0] - 1, *dy.shape[1:]
        stacked = self.scratch((steps, batch, 3 * units), 3)
        out, later = (self.scratch((batch, units), slot) for slot in (4, 5))
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
        self._output_gradients(y, stacked, gradients.R, fresh_gradients)
        # The reset gates act on what comes from the outputs alone.
        self.copy_to(deltas.Ha, gates_of(stacked, 3)[2])
        self._input_gradients(
            x, stacked, dx, weights, gradients, fresh_dx, fresh_gradients
        )

    def _gru_slopes(
        self, cells: GruCells, y: Any, deltas: GruDeltas, activation: str
    ) -> None:
        """Derivatives of y[t], for all steps at once."""
        Ra, Rb, Za, Zb, Pa, Ha, Hb = cells
        dRa, dZa, dPa, dHa = deltas
        self.fill(dRa, 1.0)
        self.act_func_deriv[activation](Ha, Hb, dRa, dHa)
        self.subtract_tt(dRa, Zb, dRa)
        self.mult_tt(dHa, dRa, dHa)
        self.subtract_tt(self._delayed(y), Hb, dZa)
        self.sigmoid_deriv(Za, Zb, dZa, dZa)
        self.mult_tt(dHa, Rb, dPa)
        self.mult_tt(dHa, Pa, dRa)
        self.sigmoid_deriv(Ra, Rb, dRa, dRa)

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

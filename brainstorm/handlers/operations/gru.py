"""Gated recurrent units over whole sequences.

The conventions are those of :mod:`brainstorm.handlers.operations.recurrent`.
"""

from __future__ import annotations

from typing import Any

from brainstorm.handlers.operations.contract import operation
from brainstorm.handlers.operations.recurrent import _check_sequences
from brainstorm.utils import flatten_time

__all__ = ["GruOperations"]

_GRU_ARRAYS = " ".join(f"{n}:T,B,N" for n in ("Ra", "Rb", "Za", "Zb", "Pa", "Ha", "Hb"))


class GruOperations:
    """Part of :class:`~brainstorm.handlers.base_handler.Handler`."""

    @operation(
        "x:T,B,I W:G,I R:G,N bias:G",
        f"{_GRU_ARRAYS} y:U,B,N",
        check=_check_sequences,
    )
    def gru_forward(
        self,
        x: Any,
        W: Any,
        R: Any,
        bias: Any,
        Ra: Any,
        Rb: Any,
        Za: Any,
        Zb: Any,
        Pa: Any,
        Ha: Any,
        Hb: Any,
        y: Any,
        activation: str,
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
            W: Weights of the inputs (G, I): Wr, Wz and Wh.
            R: Weights of the outputs of the step before (G, N): Rr, Rz and Rh.
            bias: Vector (G,): br, bz and bh.
            Ra: (T, B, N), receives the reset gates before the sigmoid.
            Rb: (T, B, N), receives the reset gates.
            Za: (T, B, N), receives the update gates before the sigmoid.
            Zb: (T, B, N), receives the update gates.
            Pa: (T, B, N), receives what the reset gates act on.
            Ha: (T, B, N), receives the candidates before the activation function.
            Hb: (T, B, N), receives the candidates.
            y: (U, B, N), receives the outputs.
            activation: Name of the activation function of the candidates.
        """
        act = self.act_func[activation]
        steps, batch = x.shape[:2]
        stacked = self.scratch((steps, batch, W.shape[0]), 3)
        self.affine(self._rows(x, 9), W, bias, None, flatten_time(stacked), "linear")
        products = self.scratch((batch, W.shape[0]), 4)
        xr, xz, xh = _thirds(stacked)
        pr, pz, ph = _thirds(products)
        for t in range(steps):
            before, now, h = y[t - 1], y[t], Hb[t]
            self.dot_mm(before, R, products, transb=True)
            self.add_tt(xr[t], pr, Ra[t])
            self.sigmoid(Ra[t], Rb[t])
            self.add_tt(xz[t], pz, Za[t])
            self.sigmoid(Za[t], Zb[t])
            self.copy_to(ph, Pa[t])
            self.mult_tt(Rb[t], Pa[t], now)
            self.add_tt(xh[t], now, Ha[t])
            act(Ha[t], h)
            self.subtract_tt(before, h, now)
            self.mult_tt(now, Zb[t], now)
            self.add_tt(now, h, now)

    @operation(
        f"x:T,B,I W:G,I R:G,N {_GRU_ARRAYS} y:U,B,N",
        "dRa:T,B,N dZa:T,B,N dPa:T,B,N dHa:T,B,N",
        add="dy:U,B,N dx:T,B,I dW:G,I dR:G,N dbias:G",
        optional="dx",
        check=_check_sequences,
    )
    def gru_backward(
        self,
        x: Any,
        W: Any,
        R: Any,
        Ra: Any,
        Rb: Any,
        Za: Any,
        Zb: Any,
        Pa: Any,
        Ha: Any,
        Hb: Any,
        y: Any,
        dy: Any,
        dRa: Any,
        dZa: Any,
        dPa: Any,
        dHa: Any,
        dx: Any,
        dW: Any,
        dR: Any,
        dbias: Any,
        activation: str,
        fresh_dx: bool = False,
        fresh_gradients: bool = False,
    ) -> None:
        """Backward pass of :meth:`gru_forward`.

        Args:
            x: Inputs (T, B, I).
            W: Weights of the inputs (G, I).
            R: Weights of the outputs of the step before (G, N).
            Ra: (T, B, N), as the forward pass filled it; the next six too.
            Rb: (T, B, N).
            Za: (T, B, N).
            Zb: (T, B, N).
            Pa: (T, B, N).
            Ha: (T, B, N).
            Hb: (T, B, N).
            y: (U, B, N), as the forward pass filled it.
            dy: (U, B, N), deltas of y from outside. Row -1 receives those of the
                carried output; the others are not modified.
            dRa: (T, B, N), receives the deltas of Ra.
            dZa: (T, B, N), receives the deltas of Za.
            dPa: (T, B, N), receives the deltas of Pa.
            dHa: (T, B, N), receives the deltas of Ha.
            dx: (T, B, I), gets the deltas of x, or None if they are not wanted.
            dW: (G, I), gets the gradients of W.
            dR: (G, N), gets the gradients of R.
            dbias: (G,), gets the gradients of bias.
            activation: Name of the activation function of the candidates.
            fresh_dx: Overwrite `dx`.
            fresh_gradients: Overwrite the gradients.
        """
        steps, batch, units = Zb.shape
        before = self._delayed(y)
        # First the derivatives of y[t] by these, for all steps at once.
        self.fill(dRa, 1.0)
        self.act_func_deriv[activation](Ha, Hb, dRa, dHa)
        self.subtract_tt(dRa, Zb, dRa)
        self.mult_tt(dHa, dRa, dHa)
        self.subtract_tt(before, Hb, dZa)
        self.sigmoid_deriv(Za, Zb, dZa, dZa)
        self.mult_tt(dHa, Rb, dPa)
        self.mult_tt(dHa, Pa, dRa)
        self.sigmoid_deriv(Ra, Rb, dRa, dRa)
        stacked = self.scratch((steps, batch, 3 * units), 3)
        parts = list(zip((dRa, dZa, dPa), _thirds(stacked), strict=True))
        out, later = (self.scratch((batch, units), slot) for slot in (4, 5))
        self.fill(later, 0.0)
        for t in reversed(range(steps)):
            self.add_tt(dy[t], later, out)
            for slope, delta in parts:
                self.mult_tt(slope[t], out, delta[t])
            self.mult_tt(dHa[t], out, dHa[t])
            self.dot_mm(stacked[t], R, later)
            self.mult_add_tt(out, Zb[t], later)
        self.copy_to(later, dy[-1])
        for delta, part in parts:
            self.copy_to(part, delta)
        rows = flatten_time(stacked)
        dot = self.dot_mm if fresh_gradients else self.dot_add_mm
        dot(rows, flatten_time(before), dR, transa=True)
        self.copy_to(dHa, stacked[..., 2 * units :])
        dot(rows, self._rows(x, 9), dW, transa=True)
        self._sum_rows(rows, dbias, fresh_gradients)
        if dx is not None:
            dot = self.dot_mm if fresh_dx else self.dot_add_mm
            deltas = self._rows(dx, 9, filled=not fresh_dx)
            dot(rows, W, deltas)
            self._put_rows(deltas, dx)


def _thirds(array: Any) -> list[Any]:
    """Views of the last axis' parts for both gates and for the candidates."""
    size = array.shape[-1] // 3
    return [array[..., k * size : (k + 1) * size] for k in range(3)]

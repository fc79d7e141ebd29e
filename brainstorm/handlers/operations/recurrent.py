"""Recurrent layers over whole sequences.

Conventions, besides those in :mod:`brainstorm.handlers.operations`:

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

from typing import Any

import numpy as np

from brainstorm.handlers.operations.contract import expected, operation
from brainstorm.utils import HandlerError, flatten_time

__all__ = ["RecurrentOperations"]


def _check_sequences(handler: Any, args: dict[str, Any]) -> str | None:
    steps, rows = args["x"].shape[0], args["y"].shape[0]
    if rows != steps + 1:
        return expected("y", f"{steps + 1} steps for {steps} of x", f"{rows}")
    gates = 4 if "Ca" in args else 3 if "Pa" in args else 1
    if args["W"].shape[0] != gates * args["y"].shape[2]:
        wanted = f"{gates * args['y'].shape[2]} rows, {gates} for each unit"
        return expected("W", wanted, str(args["W"].shape[0]))
    if "timing" in args and (args["timing"] is None) != (args["step"] is None):
        return "expected arguments 'timing' and 'step' together, got one of them"
    return None


class RecurrentOperations:
    """Part of :class:`~brainstorm.handlers.base_handler.Handler`."""

    @operation(
        "x:T,B,I W:N,I R:N,N bias:N timing:N",
        "Ha:U,B,N y:U,B,N step:U,B,1",
        optional="timing step",
        check=_check_sequences,
    )
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
        rows = self._rows(Ha[:-1], 9, filled=False)
        self.affine(self._rows(x, 10), W, bias, None, rows, "linear")
        self._put_rows(rows, Ha[:-1])
        kept = self._advance_clock(timing, step)
        act = self.act_func[activation]
        for t in range(x.shape[0]):
            h, out, out_before = Ha[t], y[t], y[t - 1]
            self.dot_add_mm(out_before, R, h, transb=True)
            act(h, out)
            if kept is not None:
                self.copy_to_if(Ha[t - 1], h, kept[t])
                self.copy_to_if(out_before, out, kept[t])

    @operation(
        "x:T,B,I W:N,I R:N,N Ha:U,B,N y:U,B,N timing:N step:U,B,1",
        "dHa:U,B,N dHb:U,B,N",
        add="dy:U,B,N dx:T,B,I dW:N,I dR:N,N dbias:N",
        optional="timing step dx",
        check=_check_sequences,
    )
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
        outside: Any = None,
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
            outside: Further deltas of Ha (T, B, N), if there are any.
        """
        kept = self._kept_units(timing, step)
        slopes = dHa[:-1]
        self.fill(slopes, 1.0)
        self.act_func_deriv[activation](Ha[:-1], y[:-1], slopes, slopes)
        if kept is not None:
            self.fill_if(slopes, 0.0, kept)
        self.fill(dHa[-1], 0.0)
        self.fill(dy[-1], 0.0)
        last = x.shape[0] - 1  # without steps the carried state, whose deltas are zero
        self.copy_to(dy[last], dHb[last])
        more = None if outside is None else self._deltas_of_kept(outside, kept)
        for t in reversed(range(x.shape[0])):
            dh, dout, dout_before = dHa[t], dHb[t], dHb[t - 1]
            self.mult_tt(dh, dout, dh)
            if more is not None:
                self.add_tt(dh, more[t], dh)
            self.dot_mm(dh, R, dout_before)
            self.add_tt(dout_before, dy[t - 1], dout_before)
            if kept is not None:
                self.add_into_if(dout, dout_before, kept[t])
        self.copy_to(dHb[-1], dy[-1])
        self._gate_gradients(
            x, y, dHa[:-1], dx, W, dW, dR, dbias, fresh_dx, fresh_gradients
        )

    def _deltas_of_kept(self, deltas: Any, kept: Any) -> Any:
        """Move deltas (T, B, N) of units that keep what they had to where they got it.

        Returns:
            A temporary (U, B, N), whose row -1 is that of the carried state.
        """
        steps = deltas.shape[0]
        moved = self.scratch((steps + 1, *deltas.shape[1:]), 12)
        self.copy_to(deltas, moved[:-1])
        self.fill(moved[-1], 0.0)
        if kept is not None:
            for t in reversed(range(steps)):
                self.add_into_if(moved[t], moved[t - 1], kept[t])
            self.fill_if(moved[:-1], 0.0, kept)
        return moved

    def _gate_gradients(
        self,
        x: Any,
        y: Any,
        dh: Any,
        dx: Any,
        W: Any,
        dW: Any,
        dR: Any,
        dbias: Any,
        fresh_dx: bool,
        fresh_gradients: bool,
    ) -> None:
        """Deltas of all that ``h[t] = W x[t] + R y[t-1] + bias`` depends on."""
        rows, inputs = self._rows(dh, 9), self._rows(x, 10)
        dot = self.dot_mm if fresh_gradients else self.dot_add_mm
        dot(rows, inputs, dW, transa=True)
        dot(rows, flatten_time(self._delayed(y)), dR, transa=True)
        self._sum_rows(rows, dbias, fresh_gradients)
        if dx is not None:
            dot = self.dot_mm if fresh_dx else self.dot_add_mm
            deltas = self._rows(dx, 10, filled=not fresh_dx)
            dot(rows, W, deltas)
            self._put_rows(deltas, dx)

    def _delayed(self, array: Any) -> Any:
        """A copy (T, B, N) that holds in row t what `array` (U, B, N) has in t-1."""
        steps = array.shape[0] - 1
        delayed = self.scratch((steps, *array.shape[1:]), 8)
        if steps:
            self.copy_to(array[-1], delayed[0])
        if steps > 1:
            self.copy_to(array[: steps - 1], delayed[1:])
        return delayed

    def _advance_clock(self, timing: Any, step: Any) -> Any:
        """Count the steps; see `_kept_units` for what is returned."""
        if timing is None:
            return None
        self.do(self.plain._check_timing, timing)
        for t in range(step.shape[0] - 1):
            self.add_st(1.0, step[t - 1], step[t])
        return self._kept_units(timing, step)

    def _check_timing(self, timing: Any) -> None:
        on_cpu = isinstance(timing, np.ndarray)
        values = timing if on_cpu else self.get_numpy_copy(timing)
        fastest = float(values.min(initial=np.inf))
        if not fastest >= 1:
            raise HandlerError(f"timings have to be at least 1, got {fastest}")

    def _kept_units(self, timing: Any, step: Any) -> Any:
        """An array (T, B, N) that is zero where a unit is updated."""
        if timing is None:
            return None
        shape = (step.shape[0] - 1, step.shape[1], timing.shape[0])
        kept, cycle = self.scratch(shape, 5), self.scratch(shape, 6)
        rows = flatten_time(kept)
        self.broadcast_t(self._rows(step[:-1], 9), 1, rows)
        self.add_st(-1.0, rows, rows)
        self.broadcast_t(timing.reshape((1, shape[2])), 0, flatten_time(cycle))
        self.modulo_tt(kept, cycle, kept)
        return kept

"""Recurrent layers over whole sequences.

Conventions, besides those in :mod:`brainstorm.handlers.operations`:

- T is the number of time steps, B that of sequences, I that of inputs, N that of
  units, and G = 4N. U = T + 1: arrays with U rows have the carried state last,
  that is in row -1, where step t = 0 looks for the step before it.
- Arrays come in records: :class:`Weights`, cells, and a :class:`Clock`. Gradients and
  deltas come in the same ones. Backward passes take all that the forward pass was
  given, as it left that; biases do not matter.
- With a clock a layer runs as a clockwork: in step s, counted from the start of
  the sequence, units where ``s mod timing`` is not zero keep what they had.
- Deltas of the carried state are left in row -1 of the deltas.

A pass is one product for all steps, and in each step a product and a method such as
`_recurrent_step` for all else, which a handler may override with a kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from brainstorm.handlers.operations.affine import AffineOperations
from brainstorm.handlers.operations.contract import expected, operation
from brainstorm.utils import HandlerError, flatten_time

__all__ = [
    "Clock",
    "RecurrentCells",
    "RecurrentOperations",
    "Weights",
    "check_sequences",
    "gates_of",
    "pieces_of",
]

# Where cells are temporary, so many sums are computed at a time, or so many steps.
_PIECE_SUMS = 2**17
_PIECE_STEPS = 4


class Weights(NamedTuple):
    """The parameters of a recurrent layer, or their gradients.

    Those of several gates are stacked, so their first size is G in place of N.

    Attributes:
        W: Weights of the inputs (N, I).
        R: Weights of the outputs of the step before (N, N).
        bias: Vector (N,), or None for none.
        peepholes: (3, N) of an LSTM, or None for none.
    """

    W: Any
    R: Any
    bias: Any
    peepholes: Any = None


class RecurrentCells(NamedTuple):
    """The buffers of a recurrent layer, or their deltas, each (U, B, N).

    Attributes:
        Ha: The pre-activations.
        Hb: The activations, where they leak; among deltas those of the outputs, also
            those from later steps.
    """

    Ha: Any
    Hb: Any = None


class Clock(NamedTuple):
    """When the units of a clockwork are updated.

    Attributes:
        timing: Vector (N,): every so many steps, at least 1.
        step: (U, B, 1), receives the number of steps: row t up to and with t, row -1
            that before this pass.
    """

    timing: Any
    step: Any


def check_sequences(handler: Any, args: dict[str, Any]) -> str | None:
    """What is wrong with the numbers of steps and gates, or None."""
    steps, rows = args["x"].shape[0], args["y"].shape[0]
    if rows != steps + 1:
        return expected("y", f"{steps + 1} steps for {steps} of x", f"{rows}")
    state = args.get("c")
    if state is not None and state.shape[0] != min(rows, 2):
        wanted = f"{min(rows, 2)} rows for {steps} steps"
        return expected("c", wanted, f"{state.shape[0]}")
    is_lstm, is_gru = "cells.Ca" in args or "c" in args, "reset_after" in args
    gates = 4 if is_lstm else 3 if is_gru else 1
    units, stacked = args["y"].shape[2], args["weights.W"].shape[0]
    if stacked != gates * units:
        wanted = f"{gates * units} rows, {gates} for each unit"
        return expected("weights.W", wanted, str(stacked))
    return None


def _check_recurrent(handler: Any, args: dict[str, Any]) -> str | None:
    if not 0 < args["leak"] <= 1:
        return expected("leak", "a number in (0, 1]", repr(args["leak"]))
    leaks_outside = args["leak"] < 1 and not args["leak_inside"]
    if leaks_outside and args["cells.Hb"] is None:
        return expected("cells.Hb", "an array where activations leak", "None")
    if args["leak"] < 1 and args["clock"] is not None:
        return expected("clock", "None where there is a leak", "one")
    return check_sequences(handler, args)


def gates_of(array: Any, count: int) -> list[Any]:
    """Views of equal parts of the last axis, one for each gate."""
    size = array.shape[-1] // count
    return [array[..., k * size : (k + 1) * size] for k in range(count)]


def pieces_of(steps: int, width: int) -> Iterator[slice]:
    """How to cut sequences into pieces, of about as much work each.

    Args:
        steps: Number of steps.
        width: Number of sums that are computed for each.
    """
    most = max(_PIECE_STEPS, _PIECE_SUMS // max(1, width))
    for start in range(0, steps, most):
        yield slice(start, min(start + most, steps))


class RecurrentOperations(AffineOperations):
    """Part of :class:`~brainstorm.handlers.base_handler.Handler`."""

    @operation(
        "x:T,B,I weights.W:N,I weights.R:N,N weights.bias:N clock.timing:N",
        "cells.Ha:U,B,N cells.Hb:U,B,N y:U,B,N clock.step:U,B,1",
        optional="weights.bias clock cells.Hb",
        check=_check_recurrent,
    )
    def recurrent_forward(
        self,
        x: Any,
        weights: Weights,
        cells: RecurrentCells,
        y: Any,
        activation: str,
        clock: Clock | None = None,
        leak: float = 1.0,
        leak_inside: bool = False,
    ) -> None:
        """``y[t] = act(Ha[t])`` with ``Ha[t] = W x[t] + R y[t-1] + bias``.

        With a leak l, ``y[t] = (1 - l) y[t-1] + l Hb[t]`` with ``Hb[t] = act(Ha[t])``;
        or inside, ``Ha[t] = (1 - l) y[t-1] + l (W x[t] + R y[t-1] + bias)``.

        Args:
            cells: Receives the pre-activations, and the activations if they leak.
            clock: Of a clockwork, which has no leak. None to update all units in each
                step.
            leak: How much of a step's result counts, in (0, 1].
            leak_inside: Whether it is the pre-activations that leak.

        Raises:
            HandlerError: A timing is below 1.
        """
        Ha = cells.Ha[:-1]
        rows = self._rows(Ha, 9, filled=False)
        self.affine(self._rows(x, 10), weights.W, weights.bias, None, rows, "linear")
        self._put_rows(rows, Ha)
        kept = self._advance(clock)
        self._run_recurrent(weights.R, cells, y, activation, kept, leak, leak_inside)

    def _run_recurrent(
        self,
        R: Any,
        cells: RecurrentCells,
        y: Any,
        activation: str,
        kept: Any,
        leak: float,
        inside: bool,
    ) -> None:
        """Go through all steps, where Ha holds ``W x + bias``."""
        steps = y.shape[0] - 1
        R = self._pack(R, y[-1], cells.Ha[-1], steps, transb=True, add=True)
        for t in range(steps):
            self._dot_packed(y[t - 1], R, cells.Ha[t])
            self._recurrent_step(t, cells, y, activation, kept, leak, inside)

    def _recurrent_step(
        self,
        t: int,
        cells: RecurrentCells,
        y: Any,
        activation: str,
        kept: Any,
        leak: float,
        inside: bool,
    ) -> None:
        """All of step t but the products."""
        h, out = cells.Ha[t], y[t]
        if leak < 1 and inside:
            self.mult_st(leak, h, h)
            self.mult_add_st(1.0 - leak, y[t - 1], h)
        value = cells.Hb[t] if leak < 1 and not inside else out
        self.act_func[activation](h, value)
        if value is not out:
            self.mult_st(leak, value, out)
            self.mult_add_st(1.0 - leak, y[t - 1], out)
        if kept is not None:
            self.copy_to_if(cells.Ha[t - 1], h, kept[t])
            self.copy_to_if(y[t - 1], out, kept[t])

    @operation(
        "x:T,B,I weights.W:N,I weights.R:N,N cells.Ha:U,B,N cells.Hb:U,B,N y:U,B,N"
        " clock.timing:N clock.step:U,B,1 outside:T,B,N",
        "deltas.Ha:U,B,N deltas.Hb:U,B,N",
        add="dy:U,B,N dx:T,B,I gradients.W:N,I gradients.R:N,N gradients.bias:N",
        optional="gradients.bias clock cells.Hb dx outside",
        check=_check_recurrent,
    )
    def recurrent_backward(
        self,
        x: Any,
        weights: Weights,
        cells: RecurrentCells,
        y: Any,
        dy: Any,
        deltas: RecurrentCells,
        dx: Any,
        gradients: Weights,
        activation: str,
        clock: Clock | None = None,
        fresh_dx: bool = False,
        fresh_gradients: bool = False,
        outside: Any = None,
        leak: float = 1.0,
        leak_inside: bool = False,
    ) -> None:
        """Backward pass of :meth:`recurrent_forward`.

        Args:
            dy: (U, B, N), deltas of y from outside. Row -1 receives those of the
                carried state; the others are not modified.
            deltas: Receives the deltas of Ha and of y.
            gradients: Gets the gradients of the weights.
            outside: Further deltas of Ha (T, B, N), if there are any.
        """
        kept, leaks_outside = self._kept_units(clock), leak < 1 and not leak_inside
        dHa, dHb = deltas.Ha[:-1], deltas.Hb
        # First the derivatives of y[t] by Ha[t], for all steps at once.
        self.fill(dHa, 1.0)
        values = cells.Hb if leaks_outside else y
        self.act_func_deriv[activation](cells.Ha[:-1], values[:-1], dHa, dHa)
        if leaks_outside:
            self.mult_st(leak, dHa, dHa)
        if kept is not None:
            self.fill_if(dHa, 0.0, kept)
        for carried in (deltas.Ha[-1], dy[-1]):
            self.fill(carried, 0.0)
        self.copy_to(dy, dHb)
        more = None if outside is None else self._deltas_of_kept(outside, kept)
        sums = dHa  # the deltas of W x + R y + bias
        if leak < 1 and leak_inside:
            sums = self.scratch(tuple(dHa.shape), 13)
        R = self._pack(weights.R, deltas.Ha[-1], dHb[-1], x.shape[0], add=True)
        past = (kept, leak, leak_inside)
        for t in reversed(range(x.shape[0])):
            self._recurrent_step_back(t, deltas, more, sums, *past)
            self._dot_packed(sums[t], R, dHb[t - 1])
        if x.shape[0]:
            self._pass_by(0, deltas, *past)
        self.copy_to(dHb[-1], dy[-1])
        self._output_gradients(self._delayed(y), sums, gradients.R, fresh_gradients)
        self._input_gradients(
            x, sums, dx, weights, gradients, fresh_dx, fresh_gradients
        )

    def _recurrent_step_back(
        self,
        t: int,
        deltas: RecurrentCells,
        more: Any,
        sums: Any,
        kept: Any,
        leak: float,
        inside: bool,
    ) -> None:
        """Turn the slopes of step t into deltas.

        Row t of the deltas of y lacks only those that come past the products.
        """
        if t + 2 < deltas.Ha.shape[0]:
            self._pass_by(t + 1, deltas, kept, leak, inside)
        dh = deltas.Ha[t]
        self.mult_tt(dh, deltas.Hb[t], dh)
        if more is not None:
            self.add_tt(dh, more[t], dh)
        if leak < 1 and inside:
            self.mult_st(leak, dh, sums[t])

    def _pass_by(
        self, t: int, deltas: RecurrentCells, kept: Any, leak: float, inside: bool
    ) -> None:
        """Add deltas of step t to those of the output before, past the products."""
        if kept is not None:
            self.add_into_if(deltas.Hb[t], deltas.Hb[t - 1], kept[t])
        if leak < 1:
            source = deltas.Ha if inside else deltas.Hb
            self.mult_add_st(1.0 - leak, source[t], deltas.Hb[t - 1])

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

    def _output_gradients(self, before: Any, dh: Any, dR: Any, fresh: bool) -> None:
        """Gradients of R in ``h[t] = R y[t-1]``, of which the latter is `before`."""
        rows, before = self._rows(dh, 9), flatten_time(before)
        self._multiply(rows, before, dR, transa=True, add=not fresh)

    def _input_gradients(
        self,
        x: Any,
        dh: Any,
        dx: Any,
        weights: tuple[Any, ...],
        gradients: tuple[Any, ...],
        fresh_dx: bool,
        fresh_gradients: bool,
    ) -> None:
        """Deltas of all that ``h[t] = W x[t] + bias`` depends on."""
        inputs, fresh = self._rows(x, 10), (fresh_dx, fresh_gradients)
        deltas = None if dx is None else self._rows(dx, 11, filled=not fresh_dx)
        (W, *_), (dW, _, dbias, *_) = weights, gradients
        self._affine_gradients(inputs, W, self._rows(dh, 9), deltas, dW, dbias, *fresh)
        if dx is not None:
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

    def _in_pieces(
        self, x: Any, y: Any, width: int, clock: Clock | None = None
    ) -> Iterator[tuple[Any, Any, Clock | None]]:
        """Go through sequences in pieces, with outputs and clocks of their own.

        These are temporary, and begin with what the piece before has left. So what is
        done in a piece needs no more memory than one piece does.

        Args:
            width: Number of sums for each step of a sequence.
        """
        for part in pieces_of(x.shape[0], x.shape[1] * width):
            start = part.start
            pairs = [(y, "y")] if clock is None else [(y, "y"), (clock.step, "step")]
            own = []
            for whole, name in pairs:
                rows = part.stop - start + 1
                own.append(self.scratch((rows, *whole.shape[1:]), ("piece", name)))
                self.copy_to(whole[start - 1], own[-1][-1])
            step = None if clock is None else clock._replace(step=own[1])
            yield x[part], own[0], step
            for (whole, _), piece in zip(pairs, own, strict=True):
                self.copy_to(piece[:-1], whole[part])

    def _advance(self, clock: Clock | None) -> Any:
        """Count the steps; see `_kept_units` for what is returned."""
        if clock is None:
            return None
        self.do(self.plain._check_timing, clock.timing)
        for t in range(clock.step.shape[0] - 1):
            self.add_st(1.0, clock.step[t - 1], clock.step[t])
        return self._kept_units(clock)

    def _check_timing(self, timing: Any) -> None:
        on_cpu = isinstance(timing, np.ndarray)
        values = timing if on_cpu else self.get_numpy_copy(timing)
        fastest = float(values.min(initial=np.inf))
        if not fastest >= 1:
            raise HandlerError(f"timings have to be at least 1, got {fastest}")

    def _kept_units(self, clock: Clock | None) -> Any:
        """An array (T, B, N) that is zero where a unit is updated."""
        if clock is None:
            return None
        timing, step = clock
        shape = (step.shape[0] - 1, step.shape[1], timing.shape[0])
        kept, cycle = self.scratch(shape, 5), self.scratch(shape, 6)
        rows = flatten_time(kept)
        self.broadcast_t(self._rows(step[:-1], 9), 1, rows)
        self.add_st(-1.0, rows, rows)
        self.broadcast_t(timing.reshape((1, shape[2])), 0, flatten_time(cycle))
        self.modulo_tt(kept, cycle, kept)
        return kept

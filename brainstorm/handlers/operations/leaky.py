"""Leaky integration over whole sequences.

Conventions, besides those in :mod:`brainstorm.handlers.operations`:

- T is the number of time steps, B that of sequences and N that of units. U = T + 1:
  arrays with U rows have the carried state last, that is in row -1, where step t = 0
  looks for the step before it. Its deltas are left in row -1 of the deltas.
- `decay` a = exp(-dt / tau) is what is left of a state after one step. The operations
  have gradients of its logit, log(a / (1 - a)), because that may be any number.
"""

from __future__ import annotations

from typing import Any

from brainstorm.handlers.operations.contract import expected, operation
from brainstorm.handlers.operations.recurrent import RecurrentOperations
from brainstorm.utils import flatten_time

__all__ = ["LeakyOperations"]

# Slots of `scratch` that no operation uses that is called in between.
DECAY, WORK, _DELTAS, _ROW = 16, 17, 28, 30


def _check_leaky(handler: Any, args: dict[str, Any]) -> str | None:
    steps, rows = args["x"].shape[0], args["y"].shape[0]
    return None if rows == steps + 1 else expected("y", f"{steps + 1} steps", str(rows))


class LeakyOperations(RecurrentOperations):
    """Part of :class:`~brainstorm.handlers.base_handler.Handler`."""

    @operation("x:T,B,N decay:N", "y:U,B,N", check=_check_leaky)
    def leaky_forward(
        self,
        x: Any,
        decay: Any,
        y: Any,
        integrates: bool = False,
        rest: float = 0.0,
        resistance: float = 1.0,
    ) -> None:
        """``y[t] = a y[t-1] + x[t]``, or with (1 - a) (rest + resistance x[t]).

        Args:
            x: Inputs (T, B, N).
            decay: Vector (N,), the numbers a.
            y: (U, B, N), receives the outputs.
            integrates: Whether y goes to ``rest + resistance x``, and not x is added.
            rest: Where y goes without input.
            resistance: Factor of x.
        """
        if integrates:
            self._drive(x, decay, rest, resistance, y[:-1])
            x = y[:-1]
        a = self._each(decay, x.shape[1], DECAY)
        self._recur(a, x, y, 0, x.shape[0], 1)

    @operation(
        "decay:N y:U,B,N",
        add="dy:U,B,N dx:T,B,N dlogit:N",
        optional="dx dlogit",
    )
    def leaky_backward(
        self,
        decay: Any,
        y: Any,
        dy: Any,
        dx: Any,
        dlogit: Any,
        integrates: bool = False,
        resistance: float = 1.0,
        fresh_dx: bool = False,
        fresh_gradients: bool = False,
    ) -> None:
        """Backward pass of :meth:`leaky_forward`.

        Args:
            y: (U, B, N), as the forward pass filled it.
            dy: (U, B, N), deltas of y from outside. Row -1 receives those of the
                carried state; the others are not modified.
            dlogit: (N,), gets the gradients of the logit of `decay`, or None.
            integrates: As in the forward pass.
            resistance: Likewise.
            fresh_dx: Overwrite `dx`.
            fresh_gradients: Overwrite `dlogit`.
        """
        rows, batch, units = dy.shape
        steps = rows - 1
        d = dx  # all deltas of y
        if dx is None or not fresh_dx or integrates:
            d = self.scratch((steps, batch, units), _DELTAS)
        a = self._each(decay, batch, DECAY)
        self.fill(dy[-1], 0.0)
        if steps:
            self.copy_to(dy[steps - 1], d[steps - 1])
            self._recur(a, dy, d, steps - 2, steps - 1, -1)
            self.mult_tt(d[0], a, dy[-1])
        if dlogit is not None:
            # d y[t] / d a is y[t-1], minus the drive (y[t] - a y[t-1]) / (1 - a) to
            # which y goes; times a (1 - a) for the logit.
            changes = self._delayed(y)
            if integrates:
                self.subtract_tt(changes, y[:-1], changes)
            else:
                gain = self._gain(decay, 1.0)
                rows = flatten_time(changes)
                self.mult_mv(rows, gain, rows)
            self._decay_gradient(d, changes, decay, dlogit, fresh_gradients)
        if dx is None:
            return
        if integrates:
            gained = dx if fresh_dx else d
            self._gained(d, self._gain(decay, resistance), gained)
            d = gained
        self._put_deltas(d, dx, fresh_dx)

    # -- parts ---------------------------------------------------------------

    def _each(self, vector: Any, batch: int, slot: int) -> Any:
        """A vector of all units, for each sequence: a temporary (B, N)."""
        units = vector.shape[-1]
        repeated = self.scratch((batch, units), slot)
        self.broadcast_t(vector.reshape((1, units)), 0, repeated)
        return repeated

    def _gain(self, decay: Any, resistance: float) -> Any:
        """``(1 - decay) resistance`` as a row, a temporary."""
        gain = self.scratch((1, decay.shape[0]), _ROW)
        self.mult_st(-resistance, decay.reshape(tuple(gain.shape)), gain)
        self.add_st(resistance, gain, gain)
        return gain

    def _gained(self, x: Any, gain: Any, out: Any) -> None:
        """``out = gain x`` for sequences (T, B, N)."""
        rows = self._rows(out, 9, filled=False)
        self.mult_mv(self._rows(x, 10), gain, rows)
        self._put_rows(rows, out)

    def _drive(
        self, x: Any, decay: Any, rest: float, resistance: float, out: Any
    ) -> None:
        """``out = (1 - decay) (rest + resistance x)`` for sequences (T, B, N)."""
        self._gained(x, self._gain(decay, resistance), out)
        if rest:
            rows = self._rows(out, 9)
            self.add_mv(rows, self._gain(decay, rest), rows)
            self._put_rows(rows, out)

    def _recur(self, factors, source, values, first, count, direction) -> None:
        """``values[t] = source[t] + factors[t] values[t - direction]``, step by step.

        Args:
            factors: (T, B, N), or (B, N) for all steps.
            source: Sequences with at least as many rows; may be `values`.
            values: Likewise.
            first: Number of the first step.
            count: Of how many.
            direction: 1 to go forward in time, -1 to go back.
        """
        work = self.scratch(tuple(values.shape[1:]), WORK)
        for t in range(first, first + direction * count, direction):
            factor = factors if len(factors.shape) == 2 else factors[t]
            self.mult_tt(values[t - direction], factor, work)
            self.add_tt(source[t], work, values[t])

    def _decay_gradient(
        self, deltas: Any, changes: Any, decay: Any, dlogit: Any, fresh: bool
    ) -> None:
        """``dlogit (+)= decay * sum(deltas * changes)`` over steps and sequences."""
        self.mult_tt(deltas, changes, changes)
        sums = self.scratch((decay.shape[0],), 3)
        self._sum_rows(flatten_time(changes), sums, True)
        if fresh:
            self.mult_tt(sums, decay, dlogit)
        else:
            self.mult_add_tt(sums, decay, dlogit)

    def _put_deltas(self, deltas: Any, dx: Any, fresh: bool) -> None:
        if not fresh:
            self.add_tt(dx, deltas, dx)
        elif deltas is not dx:
            self.copy_to(deltas, dx)

"""Leaky integration and spiking neurons over whole sequences.

Conventions, besides those in :mod:`brainstorm.handlers.operations`:

- T is the number of time steps, B that of sequences and N that of units. U = T + 1:
  arrays with U rows have the carried state last, that is in row -1, where step t = 0
  looks for the step before it. Its deltas are left in row -1 of the deltas.
- `decay` a = exp(-dt / tau) is what is left of a state after one step. The operations
  have gradients of its logit, log(a / (1 - a)), because that may be any number.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from brainstorm.handlers.operations.contract import expected, operation
from brainstorm.handlers.operations.surrogates import integral_of, slopes
from brainstorm.utils import flatten_time

__all__ = ["Neuron", "SpikingOperations"]

# Slots of `scratch` that no operation uses that is called in between.
_DECAY, _WORK, _GAIN, _FIRED = 16, 17, 18, 19
_MORE, _ROW, _SLOPES, _KEPT, _FACTORS, _CURRENTS = 4, 30, 12, 28, 29, 31


class Neuron(NamedTuple):
    """The constants of neurons that leak, integrate and fire.

    Attributes:
        threshold: They fire where their potential is at least this.
        rest: Where the potential goes without input.
        resistance: By which inputs are multiplied.
        reset_to: Where the potential is set after a spike.
        hard: Whether it is set; otherwise ``threshold - reset_to`` is subtracted.
        detached: Whether no gradient flows through the reset.
        frozen_steps: How many steps the potential is kept after a spike.
        surrogate: Name in `SURROGATES`.
        parameters: All parameters of the surrogate.
        smooth: For tests: spikes are the integral of the surrogate, so that gradients
            are derivatives. What is not derived, as a detached reset, is sharp.
    """

    threshold: float = 1.0
    rest: float = 0.0
    resistance: float = 1.0
    reset_to: float = 0.0
    hard: bool = True
    detached: bool = True
    frozen_steps: int = 0
    surrogate: str = "inv_square"
    parameters: tuple[float, ...] = (100.0,)
    smooth: bool = False


def _check_steps(handler: Any, args: dict[str, Any]) -> str | None:
    state = "v" if "v" in args else "y"
    rows, timed = args[state].shape[0], args.get("u", args.get("x"))
    if timed is not None and rows != timed.shape[0] + 1:
        steps = timed.shape[0]
        return expected(
            state, f"{steps + 1} steps for {steps} of the others", str(rows)
        )
    if args.get("R") is not None and args["y"].shape[0] != rows:
        return expected("y", f"{rows} steps, with R", str(args["y"].shape[0]))
    return None


class SpikingOperations:
    """Part of :class:`~brainstorm.handlers.base_handler.Handler`."""

    @operation("a:*S", "out:*S", alias="*")
    def step_t(self, a: Any, threshold: float, out: Any) -> None:
        """``out`` = 1 where a >= threshold, else 0, elementwise.

        Args:
            a: Array of any shape.
            threshold: The number to compare with.
            out: Array of the same shape; may be `a`.
        """
        self.add_st(-threshold, a, out)
        self.sign_t(out, out)
        self.add_st(1.0, out, out)
        self.clip_t(out, 0.0, 1.0, out)

    @operation("x:*S", "out:*S")
    def surrogate_t(
        self, x: Any, surrogate: str, parameters: tuple[float, ...], out: Any
    ) -> None:
        """``out`` = what stands for the derivative of ``x >= 0``, elementwise.

        Args:
            x: Array of any shape.
            surrogate: Name in `SURROGATES`.
            parameters: All of its parameters, in their order.
            out: Array of the same shape.
        """
        slopes(self, x, surrogate, parameters, out)

    @operation("x:T,B,N decay:N", "y:U,B,N", check=_check_steps)
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
        a = self._each(decay, x.shape[1], _DECAY)
        self._recur(a, x, y, 0, x.shape[0], 1)

    @operation(
        "decay:N y:U,B,N",
        add="dy:U,B,N dx:T,B,N dlogit:N",
        optional="dx dlogit",
        check=_check_steps,
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
            decay: Vector (N,).
            y: (U, B, N), as the forward pass filled it.
            dy: (U, B, N), deltas of y from outside. Row -1 receives those of the
                carried state; the others are not modified.
            dx: (T, B, N), gets the deltas of x, or None if they are not wanted.
            dlogit: (N,), gets the gradients of the logit of `decay`, or None.
            integrates: As in the forward pass.
            resistance: Likewise.
            fresh_dx: Overwrite `dx`.
            fresh_gradients: Overwrite `dlogit`.
        """
        steps, batch, units = dy.shape[0] - 1, *dy.shape[1:]
        d = dx  # all deltas of y
        if dx is None or not fresh_dx or integrates:
            d = self.scratch((steps, batch, units), _KEPT)
        a = self._each(decay, batch, _DECAY)
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

    @operation(
        "x:T,B,N decay:N R:N,N",
        "u:T,B,N v:U,B,N y:U,B,N|T,B,N left:U,B,N",
        optional="left R",
        check=_check_steps,
    )
    def lif_forward(
        self,
        x: Any,
        decay: Any,
        u: Any,
        v: Any,
        y: Any,
        left: Any,
        neuron: Neuron,
        R: Any = None,
    ) -> None:
        """Neurons that leak, integrate and fire.

        In each step: ``u = a v[t-1] + (1 - a) (rest + resistance x[t])``; y is 1 where
        u is at least the threshold, else 0; v is u after the reset of what fired.

        Args:
            x: Currents (T, B, N).
            decay: Vector (N,), the numbers a.
            u: (T, B, N), receives the potentials before the reset.
            v: (U, B, N), receives those after it.
            y: (T, B, N), receives the spikes; (U, B, N) with `R`.
            left: (U, B, N), receives for how many steps more ``u = v[t-1]``. None only
                where there are no frozen steps.
            neuron: The constants.
            R: Weights (N, N) of the spikes of the step before: ``R y[t-1]`` is added
                to x[t]. None for none.
        """
        self._drive(x, decay, neuron.rest, neuron.resistance, u)
        steps, batch, _ = x.shape
        a = self._each(decay, batch, _DECAY)
        if R is None:
            self._integrate(0, steps, u, v, y, left, a, neuron)
            return
        gain = self._each(self._gain(decay, neuron.resistance), batch, _GAIN)
        more = self.scratch(tuple(gain.shape), _MORE)
        for t in range(steps):
            self.dot_mm(y[t - 1], R, more, transb=True)
            self._integrate(t, t + 1, u, v, y, left, a, neuron, more, gain)

    @operation(
        "decay:N u:T,B,N v:U,B,N y:U,B,N|T,B,N left:U,B,N R:N,N",
        "du:T,B,N",
        add="dy:U,B,N|T,B,N dv:U,B,N dx:T,B,N dlogit:N dR:N,N",
        optional="left dx dlogit R dR",
        check=_check_steps,
    )
    def lif_backward(
        self,
        decay: Any,
        u: Any,
        v: Any,
        y: Any,
        left: Any,
        dy: Any,
        dv: Any,
        du: Any,
        dx: Any,
        dlogit: Any,
        neuron: Neuron,
        R: Any = None,
        dR: Any = None,
        fresh_dx: bool = False,
        fresh_gradients: bool = False,
    ) -> None:
        """Backward pass of :meth:`lif_forward`.

        Args:
            decay: Vector (N,).
            u: (T, B, N), as the forward pass filled it.
            v: (U, B, N), likewise.
            y: (T, B, N) or (U, B, N), likewise.
            left: (U, B, N) or None, likewise.
            dy: Deltas of y, of its shape. Row -1 of (U, B, N) receives those of the
                carried spikes; the others are not modified.
            dv: (U, B, N), deltas of v from outside. Row -1 receives those of the
                carried state; the others are not modified.
            du: (T, B, N), receives the deltas of u.
            dx: (T, B, N), gets the deltas of x, or None if they are not wanted.
            dlogit: (N,), gets the gradients of the logit of `decay`, or None.
            neuron: The constants.
            R: Weights (N, N), or None.
            dR: (N, N), gets the gradients of R; None without it.
            fresh_dx: Overwrite `dx`.
            fresh_gradients: Overwrite `dlogit` and `dR`.
        """
        currents = dx
        if dx is None or not fresh_dx:
            currents = self.scratch(tuple(du.shape), _CURRENTS)
        gain = self._gain(decay, neuron.resistance)
        self._go_back(decay, gain, u, y, left, dy, dv, du, currents, neuron, R)
        if left is not None:
            self.fill_if(currents, 0.0, self._delayed(left))
        self.fill(dv[-1], 0.0)
        if du.shape[0]:
            self.mult_tt(du[0], self._each(decay, du.shape[1], _DECAY), dv[-1])
            if left is not None:
                self.copy_to_if(du[0], dv[-1], left[-1])
        if dx is not None:
            self._put_deltas(currents, dx, fresh_dx)
        if dy.shape[0] > du.shape[0]:
            self.fill(dy[-1], 0.0)
        if R is not None:
            self._gradients_of_spikes(currents, y, dy, R, dR, fresh_gradients)
        if dlogit is not None:
            changes = self._delayed(v)  # as for Leaky; none where u is frozen
            self.subtract_tt(changes, u, changes)
            self._decay_gradient(du, changes, decay, dlogit, fresh_gradients)

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

    def _recur(
        self,
        factors: Any,
        source: Any,
        values: Any,
        first: int,
        count: int,
        direction: int,
    ) -> None:
        """``values[t] = source[t] + factors[t] values[t - direction]``, step by step.

        Args:
            factors: (T, B, N), or (B, N) for all steps.
            source: Sequences with at least as many rows; may be `values`.
            values: Likewise.
            first: Number of the first step.
            count: Of how many.
            direction: 1 to go forward in time, -1 to go back.
        """
        work = self.scratch(tuple(values.shape[1:]), _WORK)
        for t in range(first, first + direction * count, direction):
            factor = factors if len(factors.shape) == 2 else factors[t]
            self.mult_tt(values[t - direction], factor, work)
            self.add_tt(source[t], work, values[t])

    def _integrate(
        self,
        first: int,
        last: int,
        u: Any,
        v: Any,
        y: Any,
        left: Any,
        a: Any,
        neuron: Neuron,
        more: Any = None,
        gain: Any = None,
    ) -> None:
        """Steps from `first` to before `last`; u holds what drives the neurons.

        To that ``gain * more`` is added; these and a are (B, N).
        """
        work = self.scratch(tuple(a.shape), _WORK)
        for t in range(first, last):
            before, now, spikes = v[t - 1], u[t], y[t]
            if more is not None:
                self.mult_tt(more, gain, more)
                self.add_tt(now, more, now)
            self.mult_tt(before, a, work)
            self.add_tt(now, work, now)
            if left is not None:
                self.copy_to_if(before, now, left[t - 1])
            fired = self._fire(now, neuron, spikes)
            self._reset(now, fired if neuron.detached else spikes, neuron, v[t])
            if left is not None:
                self.add_st(-1.0, left[t - 1], left[t])
                self.rel(left[t], left[t])
                self.fill_if(left[t], float(neuron.frozen_steps), fired)

    def _steps_at_once(self, sequences: Any) -> int:
        """How many steps to work on together, so that temporaries stay small."""
        return max(1, sequences.shape[0])

    def _go_back(
        self,
        decay: Any,
        gain: Any,
        u: Any,
        y: Any,
        left: Any,
        dy: Any,
        dv: Any,
        du: Any,
        currents: Any,
        neuron: Neuron,
        R: Any,
    ) -> None:
        """Compute du, and the deltas of the currents, of frozen neurons too."""
        steps, batch, _ = du.shape
        size = self._steps_at_once(du)
        for start in reversed(range(0, steps, size)):
            stop = min(start + size, steps)
            slope, factors = self._start_back(
                *(part[start:stop] for part in (u, y, dy, dv, du)),
                *(decay, None if left is None else left[start:stop], neuron),
            )
            if R is None:
                last = int(stop == steps)  # behind which nothing comes
                values, count = du[start : stop + 1], stop - start - last
                self._recur(factors, values, values, count - 1, count, -1)
                self._gained(du[start:stop], gain, currents[start:stop])
                continue
            gains = self._each(gain, batch, _GAIN)
            more = self.scratch(tuple(gains.shape), _MORE)
            for t in reversed(range(start, stop)):
                later = None if t == steps - 1 else du[t + 1]
                if later is not None:
                    self.dot_mm(currents[t + 1], R, more)
                frozen = None if left is None else left[t - 1]
                arrays = (factors[t - start], slope[t - start], more, frozen, gains)
                self._integrate_back(du[t], later, *arrays, currents[t])

    def _start_back(
        self,
        u: Any,
        y: Any,
        dy: Any,
        dv: Any,
        du: Any,
        decay: Any,
        left: Any,
        neuron: Neuron,
    ) -> tuple[Any, Any]:
        """Compute, for some steps, the part of du that does not come from later ones.

        Returns:
            The slopes of spikes, and what of du of the step after gets to that before.
        """
        shape = tuple(du.shape)
        slope, kept, factors = (
            self.scratch(shape, slot) for slot in (_SLOPES, _KEPT, _FACTORS)
        )
        self.add_st(-neuron.threshold, u, du)
        self.surrogate_t(du, neuron.surrogate, neuron.parameters, slope)
        self._kept_by_reset(u, y, slope, neuron, kept)
        self.mult_tt(dy, slope, du)
        self.mult_add_tt(kept, dv, du)
        self._gained(kept, decay.reshape((1, decay.shape[0])), factors)
        if left is not None:
            self.copy_to_if(kept, factors, left)
        return slope, factors

    def _integrate_back(
        self,
        du: Any,
        later: Any,
        factors: Any,
        slope: Any,
        more: Any,
        frozen: Any,
        gain: Any,
        currents: Any,
    ) -> None:
        """One step back, with what comes from the one after; all are (B, N).

        Args:
            du: Gets that of the step, and has the rest.
            later: du of the step after, or None.
            factors: What of that gets here.
            slope: Slopes of spikes.
            more: Deltas of these from the step after.
            frozen: Where this is not 0, no current counts; or None.
            gain: Factors of the currents.
            currents: Receives their deltas.
        """
        if later is not None:
            self.mult_tt(more, slope, more)
            self.add_tt(du, more, du)
            self.mult_tt(later, factors, more)
            self.add_tt(du, more, du)
        self.mult_tt(du, gain, currents)
        if frozen is not None:
            self.fill_if(currents, 0.0, frozen)

    def _gradients_of_spikes(
        self, currents: Any, y: Any, dy: Any, R: Any, dR: Any, fresh: bool
    ) -> None:
        """The deltas of the carried spikes, and the gradients of their weights."""
        if currents.shape[0]:
            self.dot_mm(currents[0], R, dy[-1])
        if dR is not None:
            dot = self.dot_mm if fresh else self.dot_add_mm
            before = flatten_time(self._delayed(y))
            dot(flatten_time(currents), before, dR, transa=True)

    def _fire(self, u: Any, neuron: Neuron, spikes: Any) -> Any:
        """Let `spikes` receive those of one step; returns which neurons fired."""
        if not neuron.smooth:
            self.step_t(u, neuron.threshold, spikes)
            return spikes
        fired = self.scratch(tuple(u.shape), _FIRED)
        self.step_t(u, neuron.threshold, fired)
        self.do(self.plain._smooth_spikes, u, neuron, spikes)
        return fired

    def _smooth_spikes(self, u: Any, neuron: Neuron, spikes: Any) -> None:
        """``spikes`` = the integral of the surrogate from the threshold to u."""

        def surrogate(points: Any) -> Any:
            x = self.create_from_numpy(points)
            out = self.zeros(tuple(x.shape))
            self.surrogate_t(x, neuron.surrogate, neuron.parameters, out)
            return self.get_numpy_copy(out)

        x = self.get_numpy_copy(u) - neuron.threshold
        self.set_from_numpy(spikes, 0.5 + integral_of(surrogate, x))

    def _reset(self, u: Any, spikes: Any, neuron: Neuron, v: Any) -> None:
        """``v = u`` after the reset of one step."""
        if neuron.hard:  # u - u is 0, exactly
            self.mult_tt(u, spikes, v)
            self.subtract_tt(u, v, v)
            if neuron.reset_to:
                self.mult_add_st(neuron.reset_to, spikes, v)
        else:
            self.mult_st(neuron.reset_to - neuron.threshold, spikes, v)
            self.add_tt(u, v, v)

    def _kept_by_reset(
        self, u: Any, y: Any, slope: Any, neuron: Neuron, kept: Any
    ) -> None:
        """``kept = d v / d u`` of all steps."""
        if not neuron.hard:
            drop = 0.0 if neuron.detached else neuron.reset_to - neuron.threshold
            self.mult_st(drop, slope, kept)
        elif neuron.detached:
            if neuron.smooth:
                self.step_t(u, neuron.threshold, kept)
                y = kept
            self.mult_st(-1.0, y, kept)
        else:
            self.mult_st(-1.0, u, kept)
            self.add_st(neuron.reset_to, kept, kept)
            self.mult_tt(kept, slope, kept)
            self.subtract_tt(kept, y, kept)
        self.add_st(1.0, kept, kept)

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

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
_MORE, _SLOPES, _KEPT, _FACTORS = 4, 12, 28, 29


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
    steps = args["u" if "v" in args else "x" if "x" in args else "d"].shape[0]
    rows = args[state].shape[0]
    if rows != steps + 1:
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
        steps, batch, _ = x.shape
        if integrates:
            self._drive(x, decay, rest, resistance, y[:-1])
        else:
            self.copy_to(x, y[:-1])
        a = self._each(decay, batch, _DECAY)
        self._recur(a, y, 0, steps, 1)

    @operation(
        "decay:N y:U,B,N",
        "d:T,B,N",
        add="dy:U,B,N dx:T,B,N dlogit:N",
        optional="dx dlogit",
        check=_check_steps,
    )
    def leaky_backward(
        self,
        decay: Any,
        y: Any,
        dy: Any,
        d: Any,
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
            d: (T, B, N), receives the deltas of y, also those from later steps.
            dx: (T, B, N), gets the deltas of x, or None if they are not wanted.
            dlogit: (N,), gets the gradients of the logit of `decay`, or None.
            integrates: As in the forward pass.
            resistance: Likewise.
            fresh_dx: Overwrite `dx`.
            fresh_gradients: Overwrite `dlogit`.
        """
        steps, batch, _ = d.shape
        self.copy_to(dy[:-1], d)
        a = self._each(decay, batch, _DECAY)
        self._recur(a, d, steps - 2, steps - 1, -1)
        self.fill(dy[-1], 0.0)
        if steps:
            self.mult_tt(d[0], a, dy[-1])
        if dx is not None:
            gained = d
            if integrates:
                gained = self.scratch(tuple(d.shape), _KEPT)
                self._gained(d, decay, resistance, gained)
            self._put_deltas(gained, dx, fresh_dx)
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
        "decay:N u:T,B,N v:U,B,N y:U,B,N|T,B,N left:U,B,N dy:U,B,N|T,B,N R:N,N",
        "du:T,B,N",
        add="dv:U,B,N dx:T,B,N dlogit:N dR:N,N",
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
            dy: Deltas of y, of its shape; not modified.
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
        steps, batch, units = du.shape
        slope = self.scratch(tuple(du.shape), _SLOPES)
        self.add_st(-neuron.threshold, u, du)
        self.surrogate_t(du, neuron.surrogate, neuron.parameters, slope)
        kept = self.scratch(tuple(du.shape), _KEPT)
        self._kept_by_reset(u, y[:steps], slope, neuron, kept)
        self.mult_tt(dy[:steps], slope, du)
        self.mult_add_tt(kept, dv[:-1], du)
        factors = self.scratch(tuple(du.shape), _FACTORS)
        self.mult_mv(
            flatten_time(kept), decay.reshape((1, units)), flatten_time(factors)
        )
        if left is not None:
            self.copy_to_if(kept, factors, left[:-1])
        currents = kept  # which is of no use any more
        if R is None:
            self._recur(factors, du, steps - 2, steps - 1, -1)
            self._gained(du, decay, neuron.resistance, currents)
        else:
            gain = self._each(self._gain(decay, neuron.resistance), batch, _GAIN)
            self._recur_through(R, factors, slope, left, gain, du, currents)
        if left is not None:
            self.fill_if(currents, 0.0, self._delayed(left))
        self.fill(dv[-1], 0.0)
        if steps:
            self.mult_tt(du[0], self._each(decay, batch, _DECAY), dv[-1])
            if left is not None:
                self.copy_to_if(du[0], dv[-1], left[-1])
        if dx is not None:
            self._put_deltas(currents, dx, fresh_dx)
        if dR is not None:
            dot = self.dot_mm if fresh_gradients else self.dot_add_mm
            before = flatten_time(self._delayed(y))
            dot(flatten_time(currents), before, dR, transa=True)
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
        gain = self.scratch((1, decay.shape[0]), 2)
        self.mult_st(-resistance, decay.reshape(tuple(gain.shape)), gain)
        self.add_st(resistance, gain, gain)
        return gain

    def _gained(self, x: Any, decay: Any, resistance: float, out: Any) -> None:
        """``out = (1 - decay) resistance x`` for sequences (T, B, N)."""
        rows = self._rows(out, 9, filled=False)
        self.mult_mv(self._rows(x, 10), self._gain(decay, resistance), rows)
        self._put_rows(rows, out)

    def _drive(
        self, x: Any, decay: Any, rest: float, resistance: float, out: Any
    ) -> None:
        """``out = (1 - decay) (rest + resistance x)`` for sequences (T, B, N)."""
        self._gained(x, decay, resistance, out)
        if rest:
            rows = self._rows(out, 9)
            self.add_mv(rows, self._gain(decay, rest), rows)
            self._put_rows(rows, out)

    def _recur(
        self, factors: Any, values: Any, first: int, count: int, direction: int
    ) -> None:
        """``values[t] += factors[t] values[t - direction]``, one step after the other.

        Args:
            factors: (T, B, N), or (B, N) for all steps.
            values: Sequences with as many rows, or one more.
            first: Number of the first step.
            count: Of how many.
            direction: 1 to go forward in time, -1 to go back.
        """
        work = self.scratch(tuple(values.shape[1:]), _WORK)
        for t in range(first, first + direction * count, direction):
            factor = factors if len(factors.shape) == 2 else factors[t]
            self.mult_tt(values[t - direction], factor, work)
            self.add_tt(values[t], work, values[t])

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

    def _recur_through(
        self,
        R: Any,
        factors: Any,
        slope: Any,
        left: Any,
        gain: Any,
        du: Any,
        currents: Any,
    ) -> None:
        """Go back in time; deltas also flow through the spikes of the step before."""
        more = self.scratch(tuple(gain.shape), _MORE)
        for t in reversed(range(du.shape[0])):
            if t < du.shape[0] - 1:
                self.dot_mm(currents[t + 1], R, more)
            self._integrate_back(t, du, factors, slope, left, gain, more, currents)

    def _integrate_back(
        self,
        t: int,
        du: Any,
        factors: Any,
        slope: Any,
        left: Any,
        gain: Any,
        more: Any,
        currents: Any,
    ) -> None:
        """One step of `_recur_through`; `more` (B, N) are deltas of its spikes."""
        if t < du.shape[0] - 1:
            self.mult_tt(more, slope[t], more)
            self.add_tt(du[t], more, du[t])
            self._recur(factors, du, t, 1, -1)
        self.mult_tt(du[t], gain, currents[t])
        if left is not None:
            self.fill_if(currents[t], 0.0, left[t - 1])

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
            else:
                self.copy_to(y, kept)
            self.mult_st(-1.0, kept, kept)
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
        if fresh:
            self.copy_to(deltas, dx)
        else:
            self.add_tt(dx, deltas, dx)

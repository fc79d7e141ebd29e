"""Spiking neurons over whole sequences.

The conventions are those of :mod:`brainstorm.handlers.operations.leaky`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from brainstorm.handlers.operations.contract import expected, operation
from brainstorm.handlers.operations.leaky import DECAY, WORK, LeakyOperations
from brainstorm.handlers.operations.surrogates import integral_of, slopes
from brainstorm.utils import flatten_time

__all__ = ["Neuron", "SpikingCells", "SpikingOperations"]

# Slots of `scratch` that no operation uses that is called in between.
_GAIN, _FIRED, _MORE, _SLOPES = 18, 19, 4, 12
_KEPT, _FACTORS, _CURRENTS, _DIVIDEND = 28, 29, 31, 32
_CELLS = "cells.u:T,B,N cells.v:U,B,N cells.y:U,B,N|T,B,N cells.left:U,B,N"


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


class SpikingCells(NamedTuple):
    """The buffers of neurons, or their deltas.

    Attributes:
        u: (T, B, N), potentials before the reset.
        v: (U, B, N), those after it.
        y: Spikes (T, B, N), or (U, B, N) where they are seen in the step after.
        left: (U, B, N), for how many steps more ``u = v[t-1]``. None for no such steps.
    """

    u: Any
    v: Any
    y: Any
    left: Any = None

    def at(self, t: int | slice) -> SpikingCells:
        """The buffers in one step, or in some."""
        return SpikingCells(*[None if array is None else array[t] for array in self])


def _check_lif(handler: Any, args: dict[str, Any]) -> str | None:
    steps, rows = args["cells.u"].shape[0], args["cells.v"].shape[0]
    if rows != steps + 1:
        return expected("cells.v", f"{steps + 1} steps", str(rows))
    if args["R"] is not None and args["cells.y"].shape[0] != rows:
        return expected("cells.y", f"{rows} steps, with R", str(steps))
    return None


class SpikingOperations(LeakyOperations):
    """Part of :class:`~brainstorm.handlers.base_handler.Handler`."""

    @operation("a:*S", "out:*S", alias="*")
    def step_t(self, a: Any, threshold: float, out: Any) -> None:
        """``out`` = 1 where a >= threshold, else 0, elementwise.

        Args:
            threshold: The number to compare with.
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
            surrogate: Name in `SURROGATES`.
            parameters: All of its parameters, in their order.
        """
        slopes(self, x, surrogate, parameters, out)

    @operation(
        "x:T,B,N decay:N R:N,N",
        _CELLS,
        optional="cells.left R",
        check=_check_lif,
    )
    def lif_forward(
        self, x: Any, decay: Any, cells: SpikingCells, neuron: Neuron, R: Any = None
    ) -> None:
        """Neurons that leak, integrate and fire.

        In each step: ``u = a v[t-1] + (1 - a) (rest + resistance x[t])``; y is 1 where
        u is at least the threshold, else 0; v is u after the reset of what fired.

        Args:
            x: Currents (T, B, N).
            decay: Vector (N,), the numbers a.
            cells: Receives what the formulas above give; y has a row for the carried
                state with `R`.
            neuron: The constants.
            R: Weights (N, N) of the spikes of the step before: ``R y[t-1]`` is added
                to x[t]. None for none.
        """
        steps, batch, _ = x.shape
        a = self._each(decay, batch, DECAY)
        size = self._steps_at_once(x)
        for start in range(0, steps, size):
            stop = min(start + size, steps)
            drive = decay, neuron.rest, neuron.resistance, cells.u[start:stop]
            self._drive(x[start:stop], *drive)
            if R is None:
                self._integrate(start, stop, cells, a, neuron)
                continue
            gain = self._each(self._gain(decay, neuron.resistance), batch, _GAIN)
            more = self.scratch(tuple(gain.shape), _MORE)
            for t in range(start, stop):
                self.dot_mm(cells.y[t - 1], R, more, transb=True)
                self._integrate(t, t + 1, cells, a, neuron, more, gain)

    @operation(
        f"decay:N R:N,N {_CELLS}",
        "deltas.u:T,B,N",
        add="deltas.v:U,B,N deltas.y:U,B,N|T,B,N dx:T,B,N dlogit:N dR:N,N",
        optional="cells.left dx dlogit R dR",
        check=_check_lif,
    )
    def lif_backward(
        self,
        decay: Any,
        cells: SpikingCells,
        deltas: SpikingCells,
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
            cells: As the forward pass filled them.
            deltas: Those of v and y are from outside: their rows -1 receive those of
                the carried state, the others are not modified. That of u receives all.
            dlogit: (N,), gets the gradients of the logit of `decay`, or None.
            neuron: The constants.
            fresh_dx: Overwrite `dx`.
            fresh_gradients: Overwrite `dlogit` and `dR`.
        """
        du, dv, dy, _ = deltas
        currents = dx
        if dx is None or not fresh_dx:
            currents = self.scratch(tuple(du.shape), _CURRENTS)
        self._go_back(decay, cells, deltas, currents, neuron, R)
        if cells.left is not None:
            self.fill_if(currents, 0.0, self._delayed(cells.left))
        self.fill(dv[-1], 0.0)
        if du.shape[0]:
            self.mult_tt(du[0], self._each(decay, du.shape[1], DECAY), dv[-1])
            if cells.left is not None:
                self.copy_to_if(du[0], dv[-1], cells.left[-1])
        if dy.shape[0] > du.shape[0]:
            self.fill(dy[-1], 0.0)
        if dx is not None:
            self._put_deltas(currents, dx, fresh_dx)
        if R is not None and du.shape[0]:
            self.dot_mm(currents[0], R, dy[-1])
        if dR is not None:
            dot = self.dot_mm if fresh_gradients else self.dot_add_mm
            before = flatten_time(self._delayed(cells.y))
            dot(flatten_time(currents), before, dR, transa=True)
        if dlogit is not None:
            changes = self._delayed(cells.v)  # as for Leaky; none where u is frozen
            self.subtract_tt(changes, cells.u, changes)
            self._decay_gradient(du, changes, decay, dlogit, fresh_gradients)

    # -- parts ---------------------------------------------------------------

    def _steps_at_once(self, sequences: Any) -> int:
        """How many steps to work on together, so that temporaries stay small."""
        return max(1, sequences.shape[0])

    def _integrate(self, first, last, cells, a, neuron, more=None, gain=None) -> None:
        """Steps from `first` to before `last`; u holds what drives the neurons.

        To that ``gain * more`` is added; these and a are (B, N).
        """
        work = self.scratch(tuple(a.shape), WORK)
        for t in range(first, last):
            before, left, now = cells.v[t - 1], cells.left, cells.at(t)
            if more is not None:
                self.mult_tt(more, gain, more)
                self.add_tt(now.u, more, now.u)
            self.mult_tt(before, a, work)
            self.add_tt(now.u, work, now.u)
            if left is not None:
                self.copy_to_if(before, now.u, left[t - 1])
            fired = self._fire(now.u, neuron, now.y)
            self._reset(now.u, fired if neuron.detached else now.y, neuron, now.v)
            if left is not None:
                self.add_st(-1.0, left[t - 1], left[t])
                self.rel(left[t], left[t])
                self.fill_if(left[t], float(neuron.frozen_steps), fired)

    def _go_back(self, decay, cells, deltas, currents, neuron, R) -> None:
        """Compute the deltas of u, and of the currents, of frozen neurons too."""
        du, left = deltas.u, cells.left
        steps, batch, _ = du.shape
        gain = self._gain(decay, neuron.resistance)
        size = self._steps_at_once(du)
        for start in reversed(range(0, steps, size)):
            stop = min(start + size, steps)
            part = slice(start, stop)
            slope, factors = self._start_back(
                cells.at(part), deltas.at(part), decay, neuron
            )
            if R is None:
                last = int(stop == steps)  # behind which nothing comes
                values, count = du[start : stop + 1], stop - start - last
                self._recur(factors, values, values, count - 1, count, -1)
                self._gained(du[part], gain, currents[part])
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
        self, cells: SpikingCells, deltas: SpikingCells, decay: Any, neuron: Neuron
    ) -> tuple[Any, Any]:
        """Compute, for some steps, the deltas of u that do not come from later ones.

        Returns:
            The slopes of spikes, and what of the deltas of u gets to the step before.
        """
        du = deltas.u
        slope, kept, factors = (
            self.scratch(tuple(du.shape), slot) for slot in (_SLOPES, _KEPT, _FACTORS)
        )
        self.add_st(-neuron.threshold, cells.u, du)
        self.surrogate_t(du, neuron.surrogate, neuron.parameters, slope)
        self._kept_by_reset(cells.u, cells.y, slope, neuron, kept)
        self.mult_tt(deltas.y, slope, du)
        self.mult_add_tt(kept, deltas.v, du)
        self._gained(kept, decay.reshape((1, decay.shape[0])), factors)
        if cells.left is not None:
            self.copy_to_if(kept, factors, cells.left)
        return slope, factors

    def _integrate_back(
        self, du, later, factors, slope, more, frozen, gain, currents
    ) -> None:
        """One step back, where `more` are deltas of its spikes; all are (B, N).

        du gets ``more * slope + factors * later``, unless `later`, that of the step
        after, is None; the deltas of the currents are ``gain * du``, not where
        `frozen`, which may be None, is not 0.
        """
        if later is not None:
            self.mult_tt(more, slope, more)
            self.add_tt(du, more, du)
            self.mult_tt(later, factors, more)
            self.add_tt(du, more, du)
        self.mult_tt(du, gain, currents)
        if frozen is not None:
            self.fill_if(currents, 0.0, frozen)

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

    def _divide_st(self, s: float, t: Any, out: Any) -> None:
        """``out = s / t``, elementwise."""
        dividend = self.scratch(tuple(t.shape), _DIVIDEND)
        self.fill(dividend, s)
        self.divide_tt(dividend, t, out)

    def _one_minus(self, t: Any, out: Any) -> None:
        """``out = 1 - t``, elementwise."""
        self.mult_st(-1.0, t, out)
        self.add_st(1.0, out, out)

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
            drop = 0.0 if neuron.detached else neuron.threshold - neuron.reset_to
            self.mult_st(drop, slope, kept)
        elif not neuron.detached:
            self.add_st(-neuron.reset_to, u, kept)
            self.mult_tt(kept, slope, kept)
            self.add_tt(kept, y, kept)
        elif neuron.smooth:
            self.step_t(u, neuron.threshold, kept)
        else:
            self._one_minus(y, kept)
            return
        self._one_minus(kept, kept)

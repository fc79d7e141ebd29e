"""Recurrent layers for PyCudaHandler.

All steps' products with the inputs are one matrix product. In each step there is one
product with the outputs of the step before, and one kernel for everything else.
"""

# Operations are documented in RecurrentOperations.
# ruff: noqa: D102

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from brainstorm.handlers.cuda.arrays import CudaArray, OperationError
from brainstorm.handlers.cuda.launcher import BLOCK, Call, Launcher
from brainstorm.handlers.cuda.sequences import sequence
from brainstorm.handlers.primitive_operations import ACTIVATIONS
from brainstorm.utils import flatten_time

__all__ = ["CudaRecurrent"]

NO_SEQUENCE = (0, 0, 0)
# The kernels count units with 32 bits.
MOST = 2**31 - 1


class CudaRecurrent:
    """Part of PyCudaHandler. Sequences are (T + 1, B, N), see RecurrentOperations."""

    _gpu: Launcher

    def recurrent_forward(
        self, x, W, R, bias, Ha, y, activation, timing=None, step=None
    ):
        rows = flatten_time(Ha[:-1])
        self._multiply(flatten_time(x), W, rows, transb=True)
        sizes = self._start(y, activation, timing, step)
        arguments = (*sizes, _pointer(bias), *sequence(Ha), *sequence(y))

        def one_step(t: int) -> list[Call]:
            return [
                *self._product(y[t - 1], R, Ha[t], transb=True, add=True),
                *self._launch("recurrent_forward_step", y, *arguments, t),
            ]

        self._run_steps(range(x.shape[0]), one_step, arguments, R)

    def recurrent_backward(
        self,
        x,
        W,
        R,
        Ha,
        y,
        dy,
        dHa,
        dHb,
        dx,
        dW,
        dR,
        dbias,
        activation,
        timing=None,
        step=None,
        fresh_dx=False,
        fresh_gradients=False,
    ):
        sequences = [sequence(array) for array in (Ha, y, dy, dHa, dHb)]
        arguments = (*_sizes(y, activation, timing, step), *sum(sequences, ()))
        clockwork = timing is not None

        def step_back(t: int) -> list[Call]:
            return [
                *self._launch("recurrent_backward_step", y, *arguments, t),
                *self._product(dHa[t], R, dHb[t - 1], add=clockwork),
            ]

        self._run_steps(reversed(range(x.shape[0])), step_back, arguments, R)
        self._gpu.elementwise("copy_to", (dHb[-1], dy[-1]))
        self._gate_gradients(
            x, y, dHa[:-1], dx, W, dW, dR, dbias, fresh_dx, fresh_gradients
        )

    def lstm_forward(
        self,
        x,
        W,
        R,
        peepholes,
        bias,
        Za,
        Zb,
        Ia,
        Ib,
        Fa,
        Fb,
        Oa,
        Ob,
        Ca,
        Cb,
        y,
        activation,
        timing=None,
        step=None,
    ):
        steps, batch = x.shape[:2]
        products = self.scratch((steps, batch, W.shape[0]), 3)
        self._multiply(flatten_time(x), W, flatten_time(products), transb=True)
        cells = [sequence(array) for array in (Za, Zb, Ia, Ib, Fa, Fb, Oa, Ob, Ca, Cb)]
        arguments = (
            *self._start(y, activation, timing, step),
            *(products.pointer, _pointer(bias), _pointer(peepholes)),
            *sum(cells, ()),
            *sequence(y),
        )

        def one_step(t: int) -> list[Call]:
            return [
                *self._product(y[t - 1], R, products[t], transb=True, add=True),
                *self._launch("lstm_forward_step", y, *arguments, t),
            ]

        self._run_steps(range(steps), one_step, arguments, R)

    def lstm_backward(
        self,
        x,
        W,
        R,
        peepholes,
        Za,
        Zb,
        Ia,
        Ib,
        Fa,
        Fb,
        Oa,
        Ob,
        Ca,
        Cb,
        y,
        dy,
        dZa,
        dZb,
        dIa,
        dIb,
        dFa,
        dFb,
        dOa,
        dOb,
        dCa,
        dCb,
        dx,
        dW,
        dR,
        dpeepholes,
        dbias,
        activation,
        timing=None,
        step=None,
        fresh_dx=False,
        fresh_gradients=False,
    ):
        steps, batch = x.shape[:2]
        carry = self.scratch(tuple(y.shape[1:]), 4)
        stacked = self.scratch((steps, batch, W.shape[0]), 3)
        cells = (Za, Zb, Ia, Ib, Fa, Fb, Oa, Ob, Ca, Cb)
        deltas = (dZa, dZb, dIa, dIb, dFa, dFb, dOa, dOb, dCa, dCb)
        arguments = (
            *_sizes(y, activation, timing, step),
            _pointer(peepholes),
            *sum([sequence(array) for array in cells], ()),
            *sequence(dy),
            *sum([sequence(array) for array in deltas], ()),
            *(carry.pointer, stacked.pointer),
        )
        clockwork = timing is not None

        def step_back(t: int) -> list[Call]:
            return [
                *self._launch("lstm_backward_step", y, *arguments, t),
                *self._product(stacked[t], R, carry, add=clockwork),
            ]

        self._run_steps(reversed(range(steps)), step_back, arguments, R)
        self._gpu.elementwise("copy_to", (carry, dy[-1]))
        self._gate_gradients(
            x, y, stacked, dx, W, dW, dR, dbias, fresh_dx, fresh_gradients
        )
        if peepholes is not None:
            before = flatten_time(self._delayed(Ca))
            pairs = ((dIa, before), (dFa, before), (dOa, flatten_time(Ca[:-1])))
            for k, (gate, cell) in enumerate(pairs):
                gate = flatten_time(gate[:-1])
                self._sum_columns(gate, cell, dpeepholes[k], add=not fresh_gradients)

    def _start(
        self, y: CudaArray, activation: str, timing: CudaArray | None, step: Any
    ) -> tuple[int, ...]:
        """Advance the clock, if there is one; returns what `_sizes` does."""
        sizes = _sizes(y, activation, timing, step)
        if timing is not None:
            self._gpu.expect_failures()
            count = max(y.shape[1:])
            grid = self._gpu.over(count)
            self._gpu.launch("advance_clock", grid, (BLOCK, 1, 1), *sizes)
        return sizes

    def _run_steps(
        self,
        steps: Iterable[int],
        step: Callable[[int], list[Call]],
        arguments: tuple[int, ...],
        R: CudaArray,
    ) -> None:
        """Make the calls of all steps, prepared once for the same memory.

        Args:
            steps: Numbers of the steps.
            step: Gives the calls of one step.
            arguments: Addresses and strides of all arrays in them but `R`.
            R: Weights.
        """
        key = (step.__qualname__, arguments, R.pointer, R.strides)
        self._gpu.replay(key, lambda: [call for t in steps for call in step(t)])

    def _launch(self, kernel: str, y: CudaArray, *arguments: Any) -> list[Call]:
        """The call that launches a kernel for one step."""
        count = y.shape[1] * y.shape[2]
        if not count:
            return []
        gpu = self._gpu
        prepared = gpu.prepare(kernel, gpu.over(count), (BLOCK, 1, 1), *arguments)
        return [(gpu.device.launch, prepared)]


def _sizes(
    y: CudaArray, activation: str, timing: CudaArray | None, step: Any
) -> tuple[int, ...]:
    """The kernels' struct Step."""
    rows, batch, units = y.shape
    if batch * units > MOST:
        raise OperationError(f"at most {MOST} units of all sequences are possible")
    clock = NO_SEQUENCE if step is None else sequence(step)
    kind = ACTIVATIONS.index(activation)
    return (rows - 1, batch, units, kind, _pointer(timing), *clock)


def _pointer(array: CudaArray | None) -> int:
    if array is None:
        return 0
    if not array.contiguous:
        raise OperationError(f"parameters have to be dense, got {array!r}")
    return array.pointer

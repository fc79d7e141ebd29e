"""Recurrent layers for PyCudaHandler.

All steps' products with the inputs are one matrix product. In each step there is one
product with the outputs of the step before, and one kernel for everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from brainstorm.handlers.cuda.arrays import MOST, CudaArray, OperationError, vector
from brainstorm.handlers.cuda.launcher import BLOCK, Call
from brainstorm.handlers.cuda.sequences import sequence
from brainstorm.handlers.operations.activations import ACTIVATIONS
from brainstorm.utils import flatten_time

NO_SEQUENCE = (0, 0, 0)


class CudaRecurrent:
    """Part of PyCudaHandler."""

    def recurrent_forward(
        self, x, W, R, bias, Ha, y, activation, timing=None, step=None
    ):
        rows = flatten_time(Ha[:-1])
        self._multiply(flatten_time(x), W, rows, transb=True)
        sizes = self._start(y, activation, timing, step)
        arguments = (*sizes, pointer_of(bias), *sequence(Ha), *sequence(y))

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
        outside=None,
    ):
        if outside is not None or not len(x):
            arguments = (x, W, R, Ha, y, dy, dHa, dHb, dx, dW, dR, dbias, activation)
            options = (timing, step, fresh_dx, fresh_gradients, outside)
            super().recurrent_backward(*arguments, *options)
            return
        sequences = [sequence(array) for array in (Ha, y, dy, dHa, dHb)]
        arguments = (*sizes_of(y, activation, timing, step), *sum(sequences, ()))
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

    def _gate_gradients(
        self, x, y, dh, dx, W, dW, dR, dbias, fresh_dx, fresh_gradients
    ):
        self._output_weight_gradients(dh, y, dR, fresh_gradients)
        self._input_weight_gradients(dh, x, dx, W, dW, dbias, fresh_dx, fresh_gradients)

    def _output_weight_gradients(
        self, dh: CudaArray, y: CudaArray, dR: CudaArray, fresh: bool
    ) -> None:
        """Gradients of R in ``h[t] = R y[t-1]``."""
        if not dh.shape[0]:
            if fresh:
                self._gpu.elementwise("fill", (dR,), 0.0)
            return
        self._multiply(dh[0], y[-1], dR, transa=True, add=not fresh)
        if dh.shape[0] > 1:
            later, before = flatten_time(dh[1:]), flatten_time(y[: y.shape[0] - 2])
            self._multiply(later, before, dR, transa=True, add=True)

    def _input_weight_gradients(
        self,
        dh: CudaArray,
        x: CudaArray,
        dx: CudaArray | None,
        W: CudaArray,
        dW: CudaArray,
        dbias: CudaArray,
        fresh_dx: bool,
        fresh_gradients: bool,
    ) -> None:
        """Deltas of what ``h[t] = W x[t] + bias`` depends on."""
        rows = flatten_time(dh)
        self._multiply(rows, flatten_time(x), dW, transa=True, add=not fresh_gradients)
        self._sum_columns(rows, None, dbias, add=not fresh_gradients)
        if dx is not None:
            self._multiply(rows, W, flatten_time(dx), add=not fresh_dx)

    def _start(
        self, y: CudaArray, activation: str, timing: CudaArray | None, step: Any
    ) -> tuple[int, ...]:
        """Advance the clock, if there is one; returns what `_sizes` does."""
        sizes = sizes_of(y, activation, timing, step)
        if timing is not None:
            gpu = self._gpu
            grid, arguments = gpu.over(max(y.shape[1:])), (*sizes, gpu.expect_failure())
            gpu.launch("advance_clock", grid, (BLOCK, 1, 1), *arguments)
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


def sizes_of(
    y: CudaArray, activation: str, timing: CudaArray | None, step: Any
) -> tuple[int, ...]:
    """The kernels' struct Step."""
    rows, batch, units = y.shape
    if batch * units > MOST:
        raise OperationError(f"at most {MOST} units of all sequences are possible")
    clock = NO_SEQUENCE if step is None else sequence(step)
    kind = ACTIVATIONS.index(activation)
    return (rows - 1, batch, units, kind, pointer_of(timing), *clock)


def pointer_of(array: CudaArray | None) -> int:
    """Address of a parameter, 0 for None."""
    return 0 if array is None else vector(array)

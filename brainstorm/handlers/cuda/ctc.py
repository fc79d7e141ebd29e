"""Connectionist temporal classification on a GPU."""

from __future__ import annotations

import math
from typing import Any

from brainstorm.handlers.cuda.arrays import OperationError
from brainstorm.handlers.cuda.launcher import BLOCK
from brainstorm.handlers.cuda.leaves import CudaLeaves
from brainstorm.handlers.operations.ctc import CtcOperations

# Elements of the largest array of the log-probabilities of paths: 512 MiB.
PATHS_SIZE = 2**27


class CudaCtc(CudaLeaves, CtcOperations):
    """Part of PyCudaHandler."""

    def ctc_forward(
        self,
        x: Any,
        targets: Any,
        lengths: Any,
        predictions: Any,
        expected: Any,
        loss: Any,
    ) -> None:
        steps, batch, classes = x.shape
        if not steps or not batch:
            self._elementwise("fill", (loss,), 0.0)
            return
        if not classes:
            raise OperationError("expected at least one class, the blank, got none")
        # Two elements hold one number of 64 bits, here and below.
        log_sums = self.scratch((2 * steps * batch,), 2)
        rows = (steps * batch, classes)
        self._launch_by_rows("ctc_softmax", rows, x, predictions, log_sums, *x.shape)
        segment, size = paths_of(steps)
        at_once = min(batch, max(1, PATHS_SIZE // size))
        work = self.scratch((at_once, size), 3)
        labels = self.scratch((at_once, 2 * steps), 4)
        arguments = (
            *(x, log_sums, targets, lengths, expected, loss),
            *(work.pointer, labels.pointer, *x.shape, segment, self._failure()),
        )
        for start in range(0, batch, at_once):
            grid = (min(at_once, batch - start), 1)
            how = (grid, (BLOCK, 1, 1), *arguments, start)
            self._launch("ctc_forward", *how, arrays=(work, labels))

    def ctc_backward(
        self,
        predictions: Any,
        expected: Any,
        lengths: Any,
        dloss: Any,
        dx: Any,
        fresh_dx: bool = False,
    ) -> None:
        arguments = (predictions, expected, lengths, dloss, dx, *dx.shape, fresh_dx)
        self._launch_for_each("ctc_backward", dx.size, *arguments)


def paths_of(steps: int) -> tuple[int, int]:
    """How many steps to keep the paths' probabilities of, and room for them.

    Returns:
        The length of a segment, and the number of elements for one sequence.
    """
    segment = math.isqrt(steps - 1) + 1
    rows = segment + -(-steps // segment) + 2
    return segment, 2 * rows * (steps + 1)

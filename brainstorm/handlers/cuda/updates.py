"""Updates of parameters for PyCudaHandler: one kernel each."""

from __future__ import annotations

import math

from brainstorm.handlers.cuda.arrays import matrix_rows
from brainstorm.handlers.cuda.launcher import BLOCK, row_blocks

# More columns of a row are worked on by several blocks, if there are few rows.
_PART = 4096


class CudaUpdates:
    """Part of PyCudaHandler."""

    def sgd_update(self, parameters, gradients, learning_rate):
        self._gpu.elementwise("sgd_update", (parameters, gradients), learning_rate)

    def momentum_update(self, parameters, gradients, velocity, learning_rate, momentum):
        arrays = (parameters, gradients, velocity)
        self._gpu.elementwise("momentum_update", arrays, learning_rate, momentum)

    def nesterov_ahead(self, parameters, velocity, momentum):
        self._gpu.elementwise("nesterov_ahead", (parameters, velocity), momentum)

    def nesterov_correct(self, parameters, gradients, velocity, learning_rate):
        arrays = (parameters, gradients, velocity)
        self._gpu.elementwise("nesterov_correct", arrays, learning_rate)

    def adam_update(
        self,
        parameters,
        gradients,
        mean,
        variance,
        learning_rate,
        beta1,
        beta2,
        epsilon,
        weight_decay,
        update_nr,
    ):
        # The corrections of both moments, moved into the factors.
        correction = math.sqrt(1.0 - beta2**update_nr)
        rate = learning_rate * correction / (1.0 - beta1**update_nr)
        self._gpu.elementwise(
            "adam_update",
            (parameters, gradients, mean, variance),
            *(beta1, 1.0 - beta1, beta2, 1.0 - beta2, epsilon * correction, rate),
            1.0 - learning_rate * weight_decay,
        )

    def rms_prop_update(
        self, parameters, gradients, mean_square, learning_rate, decay, epsilon
    ):
        arrays = (parameters, gradients, mean_square)
        factors = (decay, 1.0 - decay, learning_rate, epsilon)
        self._gpu.elementwise("rms_prop_update", arrays, *factors)

    def ada_grad_update(
        self, parameters, gradients, sum_of_squares, learning_rate, epsilon
    ):
        arrays = (parameters, gradients, sum_of_squares)
        self._gpu.elementwise("ada_grad_update", arrays, learning_rate, epsilon)

    def ada_delta_update(
        self,
        parameters,
        gradients,
        mean_square,
        mean_square_step,
        learning_rate,
        decay,
        epsilon,
    ):
        arrays = (parameters, gradients, mean_square, mean_square_step)
        factors = (decay, 1.0 - decay, learning_rate, epsilon)
        self._gpu.elementwise("ada_delta_update", arrays, *factors)

    def constrain_rows(self, m, limit, norms):
        rows, cols = m.shape
        gpu = self._gpu
        if not rows:
            return
        (blocks, _), block = row_blocks(rows, cols)
        parts = min(-(-cols // _PART), gpu.device.max_blocks // blocks)
        if parts <= 1:
            arguments = (*matrix_rows(m), rows, cols, limit, *matrix_rows(norms))
            gpu.launch("constrain_rows", (blocks, 1), block, *arguments)
            return
        chunk = -(-cols // parts)
        grid = (-(-cols // chunk), rows)
        # Two elements hold one number of 64 bits.
        squares = self.scratch((2 * grid[0] * rows,), 2)
        row = (*matrix_rows(m), cols, chunk, squares.pointer)
        gpu.launch("squares_of_parts", grid, (BLOCK, 1, 1), *row)
        row = (*row, limit, *matrix_rows(norms))
        gpu.launch("constrain_parts", grid, (BLOCK, 1, 1), *row)

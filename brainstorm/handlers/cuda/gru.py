"""Gated recurrent units on a GPU."""

from __future__ import annotations

from brainstorm.handlers.cuda.launcher import Call
from brainstorm.handlers.cuda.recurrent import pointer_of, sizes_of
from brainstorm.handlers.cuda.sequences import sequence
from brainstorm.utils import flatten_time


class CudaGru:
    """Part of PyCudaHandler."""

    def gru_forward(self, x, W, R, bias, Ra, Rb, Za, Zb, Pa, Ha, Hb, y, activation):
        steps, batch = x.shape[:2]
        from_x = self.scratch((steps, batch, W.shape[0]), 3)
        from_y = self.scratch((batch, W.shape[0]), 4)
        self._multiply(flatten_time(x), W, flatten_time(from_x), transb=True)
        cells = [sequence(array) for array in (Ra, Rb, Za, Zb, Pa, Ha, Hb)]
        arguments = (
            *sizes_of(y, activation, None, None),
            *(from_x.pointer, from_y.pointer, pointer_of(bias)),
            *sum(cells, ()),
            *sequence(y),
        )

        def one_step(t: int) -> list[Call]:
            return [
                *self._product(y[t - 1], R, from_y, transb=True),
                *self._launch("gru_forward_step", y, *arguments, t),
            ]

        self._run_steps(range(steps), one_step, arguments, R)

    def gru_backward(
        self,
        x,
        W,
        R,
        Ra,
        Rb,
        Za,
        Zb,
        Pa,
        Ha,
        Hb,
        y,
        dy,
        dRa,
        dZa,
        dPa,
        dHa,
        dx,
        dW,
        dR,
        dbias,
        activation,
        fresh_dx=False,
        fresh_gradients=False,
    ):
        if not len(x):
            arguments = (x, W, R, Ra, Rb, Za, Zb, Pa, Ha, Hb, y, dy, dRa, dZa, dPa, dHa)
            options = (dx, dW, dR, dbias, activation, fresh_dx, fresh_gradients)
            super().gru_backward(*arguments, *options)
            return
        steps, batch, units = Zb.shape
        carry = self.scratch((batch, units), 4)
        stacked = self.scratch((steps, batch, 3 * units), 3)
        arrays = (Ra, Rb, Za, Zb, Pa, Ha, Hb, y, dy, dRa, dZa, dPa, dHa)
        arguments = (
            *sizes_of(y, activation, None, None),
            *sum([sequence(array) for array in arrays], ()),
            *(carry.pointer, stacked.pointer),
        )

        def step_back(t: int) -> list[Call]:
            return [
                *self._launch("gru_backward_step", y, *arguments, t),
                *self._product(stacked[t], R, carry, add=True),
            ]

        self._run_steps(reversed(range(steps)), step_back, arguments, R)
        self._gpu.elementwise("copy_to", (carry, dy[-1]))
        self._output_weight_gradients(stacked, y, dR, fresh_gradients)
        # The reset gates act on what comes from the outputs alone.
        self._gpu.elementwise("copy_to", (dHa, stacked[..., 2 * units :]))
        self._input_weight_gradients(
            stacked, x, dx, W, dW, dbias, fresh_dx, fresh_gradients
        )

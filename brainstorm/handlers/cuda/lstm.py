"""Long short-term memory on a GPU."""

from __future__ import annotations

from brainstorm.handlers.cuda.arrays import CudaArray, vector
from brainstorm.handlers.cuda.launcher import Call, column_blocks
from brainstorm.handlers.cuda.products import ROWS_PER_PART
from brainstorm.handlers.cuda.recurrent import pointer_of, sizes_of
from brainstorm.handlers.cuda.sequences import sequence
from brainstorm.handlers.operations.lstm import LstmCells
from brainstorm.utils import flatten_time


class CudaLstm:
    """Part of PyCudaHandler."""

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
            *(products.pointer, pointer_of(bias), pointer_of(peepholes)),
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
        outside=None,
    ):
        cells = LstmCells(Za, Zb, Ia, Ib, Fa, Fb, Oa, Ob, Ca, Cb)
        deltas = LstmCells(dZa, dZb, dIa, dIb, dFa, dFb, dOa, dOb, dCa, dCb)
        if outside is not None or not len(x):
            arguments = (x, W, R, peepholes, *cells, y, dy, *deltas)
            gradients = (dx, dW, dR, dpeepholes, dbias)
            options = (activation, timing, step, fresh_dx, fresh_gradients, outside)
            super().lstm_backward(*arguments, *gradients, *options)
            return
        steps, batch = x.shape[:2]
        carry = self.scratch(tuple(y.shape[1:]), 4)
        stacked = self.scratch((steps, batch, W.shape[0]), 3)
        arguments = (
            *sizes_of(y, activation, timing, step),
            pointer_of(peepholes),
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
            arrays = (Ca, dIa, dFa, dOa)
            self._peephole_sums(y, arrays, dpeepholes, add=not fresh_gradients)

    def _peephole_sums(
        self, y: CudaArray, arrays: tuple[CudaArray, ...], out: CudaArray, add: bool
    ) -> None:
        vector(out)
        steps, batch, units = y.shape[0] - 1, *y.shape[1:]
        rows, wide = steps * batch, column_blocks(units, 1)[0]
        chunk = max(ROWS_PER_PART, -(-rows * wide // self._gpu.device.max_blocks))
        parts = -(-rows // chunk)
        if units and parts:
            sums = self.scratch((parts, 3 * units), 5)
            arguments = (
                *sizes_of(y, "linear", None, None),
                *sum([sequence(array) for array in arrays], ()),
                *(chunk, sums.pointer),
            )
            block = (32, 8, 1)
            self._gpu.launch("peephole_gradients", (wide, parts), block, *arguments)
            self._sum_columns(sums, None, out.reshape(3 * units), add)
        elif not add:
            self._gpu.elementwise("fill", (out,), 0.0)

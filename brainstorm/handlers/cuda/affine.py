"""Affine maps on a GPU."""

from __future__ import annotations


class CudaAffine:
    """Part of PyCudaHandler."""

    def affine(self, x, W, bias, h, y, activation):
        out = y if h is None else h
        self._multiply(x, W, out, transb=True)
        if bias is not None:
            self._add_bias(out, bias, None if h is None else y, activation)
        elif h is not None:
            self.act_func[activation](h, y)

    def affine_backward(
        self,
        x,
        W,
        h,
        y,
        dy,
        dh,
        dx,
        dW,
        dbias,
        activation,
        fresh_dx=False,
        fresh_gradients=False,
    ):
        if dh is None:
            dh = dy
        else:
            self._deriv(activation, h, y, dy, dh, fresh=True)
        self._multiply(dh, x, dW, transa=True, add=not fresh_gradients)
        if dbias is not None:
            self._sum_columns(dh, None, dbias, add=not fresh_gradients)
        if dx is not None:
            self._multiply(dh, W, dx, add=not fresh_dx)

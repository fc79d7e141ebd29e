"""Affine maps with an activation function."""

from __future__ import annotations

from typing import Any

from brainstorm.handlers.operations.activations import ActivationOperations
from brainstorm.handlers.operations.contract import expected, operation
from brainstorm.handlers.operations.products import ProductOperations

__all__ = ["AffineOperations"]


def _check_affine(handler: Any, args: dict[str, Any]) -> str | None:
    name = "dh" if "dh" in args else "h"
    if args[name] is None and args["activation"] != "linear":
        return expected(name, f"an array for {args['activation']!r}", "None")
    return None


class AffineOperations(ActivationOperations, ProductOperations):
    """Part of :class:`~brainstorm.handlers.base_handler.Handler`."""

    @operation(
        "x:M,I W:N,I bias:N",
        "h:M,N y:M,N",
        optional="bias h",
        check=_check_affine,
    )
    def affine(
        self, x: Any, W: Any, bias: Any, h: Any, y: Any, activation: str
    ) -> None:
        """``y = act(h)`` with ``h = x W^T + bias``.

        Args:
            h: (M, N), receives the pre-activations. None only with the
                activation 'linear'.
        """
        out = y if h is None else h
        self._multiply(x, W, out, transb=True)
        if bias is not None:
            self._add_bias(out, bias, None if h is None else y, activation)
        elif h is not None:
            self.act_func[activation](h, y)

    def _add_bias(self, h: Any, bias: Any, y: Any, activation: str) -> None:
        """``h += bias; y = act(h)``, the latter unless `y` is None."""
        self.add_mv(h, bias.reshape((1, bias.shape[0])), h)
        if y is not None:
            self.act_func[activation](h, y)

    @operation(
        "x:M,I W:N,I h:M,N y:M,N dy:M,N",
        "dh:M,N",
        add="dx:M,I dW:N,I dbias:N",
        alias="dy",
        optional="h dh dx dbias",
        check=_check_affine,
    )
    def affine_backward(
        self,
        x: Any,
        W: Any,
        h: Any,
        y: Any,
        dy: Any,
        dh: Any,
        dx: Any,
        dW: Any,
        dbias: Any,
        activation: str,
        fresh_dx: bool = False,
        fresh_gradients: bool = False,
    ) -> None:
        """Backward pass of :meth:`affine`.

        Args:
            dh: (M, N), receives the deltas of h. None only with 'linear'.
        """
        if dh is None:
            dh = dy
        else:
            self._deriv(activation, h, y, dy, dh, True)
        self._affine_gradients(x, W, dh, dx, dW, dbias, fresh_dx, fresh_gradients)

    def _affine_gradients(
        self, x, W, dh, dx, dW, dbias, fresh_dx, fresh_gradients
    ) -> None:
        """Gradients of ``h = x W^T + bias``; `dx` and `dbias` may be None."""
        self._multiply(dh, x, dW, transa=True, add=not fresh_gradients)
        if dbias is not None:
            self._sum_rows(dh, dbias, fresh_gradients)
        if dx is not None:
            self._multiply(dh, W, dx, add=not fresh_dx)

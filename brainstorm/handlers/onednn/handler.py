"""The fast handler for CPUs: NumPy's arrays, oneDNN's arithmetic."""

# Operations are documented in Handler and CoarseOperations.
# ruff: noqa: D102

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from brainstorm.handlers.base_handler import Handler
from brainstorm.handlers.numpy_handler import NumpyHandler
from brainstorm.handlers.onednn import elementwise, norms, products
from brainstorm.handlers.onednn.binding import (
    MATH_MODES,
    Algorithm,
    load_library,
)
from brainstorm.handlers.onednn.image_operations import ImageOperations
from brainstorm.handlers.onednn.lstm_operations import LstmOperations
from brainstorm.handlers.onednn.session import Build, Call, OwnCalls, Session
from brainstorm.handlers.primitive_operations import FROM_INPUT
from brainstorm.handlers.programs import Program, whole
from brainstorm.utils import ValidationError, listing

__all__ = ["OneDnnHandler"]

# Activation functions that oneDNN computes wrongly for NaN or minus infinity.
_UNSAFE = frozenset({"rel", "gelu", "swish"})

# Of more rows than this, the library's sums in batch normalisation lose digits.
# From so many columns on, einsum loses digits.
_LONG_ROW = 2048
_MANY_ROWS = 2**16

# Those whose derivative is not computed together with the gradients of weights.
_APART = FROM_INPUT | {"linear"}

# Activation functions that convolutions can apply.
_FUSED = frozenset({"linear", "rel", "tanh", "sigmoid", "el"})


class _Local(threading.local):
    session: Session | None = None


class OneDnnHandler(ImageOperations, LstmOperations, NumpyHandler):
    """Computes on the CPU with Intel's oneDNN, in float32.

    Its arrays are NumPy's. All matrix products, convolutions, pooling, recurrent
    passes and large elementwise operations are oneDNN's; what that can not do, and
    what is too small to gain, is done as in :class:`NumpyHandler`.

    What an operation needs besides its arrays is prepared when it first sees arrays
    of their layouts, and kept until `release`, which the last network brings about. So
    do not change the shape of an array in place.

    Deltas of the internals of an LSTM are only computed when they are read, which has
    to be before the next forward pass; see `complete`.

    Needs the package onednn-cpu-gomp, or any other oneDNN of version 3 that the system
    finds, and a CPU with AVX2.

    Args:
        seed: Seed of `rnd`; None derives it from ``global_rnd``.
        math_mode: 'f32', or 'bf16' to let matrix products, convolutions and recurrent
            passes round their factors to bfloat16 (8 bits of precision), where the
            CPU can multiply these faster. Arrays and sums stay float32.
        threads: Number of threads; None leaves it to OpenMP (``OMP_NUM_THREADS``, or
            else all cores). Not described: it is a matter of the machine. Operations
            leave OpenMP's number as it was. A forked process uses one thread.

    Raises:
        ImportError: oneDNN is missing or can not be used.
        ValidationError: `math_mode` or `threads` are not as above.
    """

    # From this number of elements on, two threads gain. It is above the size of the
    # pieces into which NumpyHandler cuts its work.
    _large = 20000

    records_leaves = True

    __default_values__ = {"math_mode": "f32"}
    __undescribed__ = {"threads"}

    def __init__(
        self,
        seed: int | None = None,
        math_mode: str = "f32",
        threads: int | None = None,
    ):
        super().__init__(np.float32, seed)
        if math_mode not in MATH_MODES:
            raise ValidationError(
                f"expected {listing(MATH_MODES)} as 'math_mode', got {math_mode!r}"
            )
        if threads is not None and not (isinstance(threads, int) and threads > 0):
            raise ValidationError(
                f"expected a positive number of 'threads' or None, got {threads!r}"
            )
        self.math_mode = math_mode
        self.threads = threads
        self._library = load_library()
        self._get_threads = self._library.get_threads
        self._fixed_threads = 1 if _forked else threads
        self._local = _Local()
        self._has_prepared = False
        _handlers.add(self)

    def __describe__(self) -> dict[str, Any]:
        description = super().__describe__()
        del description["dtype"]
        return description

    @classmethod
    def __new_from_description__(cls, description: dict[str, Any]) -> OneDnnHandler:
        arguments = {k: v for k, v in description.items() if k != "@type"}
        if not arguments.keys() <= {"math_mode", "seed"}:
            raise ValidationError(
                f"the description of a {cls.__name__} has 'math_mode' and 'seed',"
                f" got {listing(arguments)}"
            )
        return cls(**arguments)

    def describe(self) -> str:
        """What computes, in one line."""
        library = self._library
        return (
            f"OneDnnHandler: oneDNN {library.version}, {library.instruction_set},"
            f" {self.current_session().threads} threads, {self.math_mode}"
        )

    def release(self) -> None:
        """Free what was prepared for arrays, and temporary memory, of all threads."""
        self._start_anew()
        if self._lstm_records.by_cells:
            self._release_lstms()
            self._start_anew()
        if self._has_prepared:
            self._has_prepared = False
            self._library.release_unused()

    def _start_anew(self) -> None:
        # In place of what there is, which operations may be using.
        super().release()
        self._local = _Local()

    # -- finding what was prepared -------------------------------------------

    def current_session(self) -> Session:
        """This thread's session, for the number of threads that it is to use now."""
        session, fixed = self._local.session, self._fixed_threads
        threads = fixed or self._get_threads()
        if session is None or session.threads != threads:
            session = Session(
                self._library, self.math_mode, threads, sets_threads=fixed is not None
            )
            self._local.session = session
            self._has_prepared = True
        return session

    def _find(
        self, build: Build, arrays: tuple[Any, ...], *options: Any
    ) -> Call | bool:
        """The prepared call of an operation, or False if oneDNN can not do it."""
        session, fixed = self._local.session, self._fixed_threads
        if session is None or session.threads != (fixed or self._get_threads()):
            session = self.current_session()
        key = (build, options, *map(id, arrays))
        known = session.known.values.get(key)
        if known is None:
            return session.find(key, build, arrays, options)
        call, addresses = known
        if not call:
            return False
        if call.addresses is not addresses and not call.move(addresses):
            session.known.forget(key)
            return session.find(key, build, arrays, options)
        for number in call.written:
            if not arrays[number].flags.writeable:
                return False
        return call

    # -- recording -----------------------------------------------------------

    def record(self, run: Callable[[Handler], None], program: Program) -> None:
        """Run operations, and record the primitives that they execute."""

        def with_own_calls(recorder: Handler) -> None:
            recorder._find = OwnCalls(self.current_session()).find
            run(recorder)

        super().record(with_own_calls, program)

    # Temporary memory, and what is prepared, belongs to a session.
    home = current_session

    # -- products ------------------------------------------------------------

    def dot_mm(self, a, b, out, transa=False, transb=False):
        call = self._find(products.dot, (a, b, out), transa, transb, False)
        if call:
            self.do(call)
        else:
            super().dot_mm(a, b, out, transa, transb)

    def dot_add_mm(self, a, b, out, transa=False, transb=False):
        call = self._find(products.dot, (a, b, out), transa, transb, True)
        if call:
            self.do(call)
        else:
            super().dot_add_mm(a, b, out, transa, transb)

    def sum_t(self, a, axis, out):
        is_fast = axis == 0 and a.ndim == 2 and a.size >= self._large
        call = is_fast and self._find(products.sum_rows, (a, out), True)
        if call:
            self.do(call)
        else:
            super().sum_t(a, axis, out)

    def _sum_rows(self, m, out, fresh):
        call = self._find(products.sum_rows, (m, out), fresh)
        if call:
            self.do(call)
        else:
            super()._sum_rows(m, out, fresh)

    def affine(self, x, W, bias, h, y, activation):
        call = self._find(products.affine, (x, W, bias, y if h is None else h))
        if not call:
            super().affine(x, W, bias, h, y, activation)
            return
        self.do(call)
        if h is not None:
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
            self.act_func_deriv[activation](h, y, dy, dh)
        call = self._find(
            products.affine_backward,
            (x, W, dh, dx, dW, dbias),
            fresh_dx,
            fresh_gradients,
        )
        if call:
            self.do(call)
        else:
            super().affine_backward(
                x, W, None, y, dh, None, dx, dW, dbias,
                "linear", fresh_dx, fresh_gradients,
            )  # fmt: skip

    def softmax_m(self, m, out):
        if m.size < self._large:
            super().softmax_m(m, out)
        else:
            self.do(self.plain._softmax_large, m, out)

    def _softmax_large(self, m: np.ndarray, out: np.ndarray) -> None:
        # The library's softmax of rows with NaN or infinity is wrong.
        is_safe = np.maximum.reduce(m, None) < math.inf
        call = is_safe and self._find(products.softmax, (m, out))
        if call:
            call()
        else:
            super().softmax_m(m, out)

    def softmax_ce_backward(
        self, targets, predictions, dloss, t_bin, dx, fresh_dx=False
    ):
        if dx is not None and fresh_dx and dx.size >= self._large:
            arrays = predictions, t_bin, dloss, dx
            call = self._find(elementwise.difference_mv, arrays)
            if call:
                self.binarize_v(targets, t_bin)
                self.do(call)
                return
        super().softmax_ce_backward(targets, predictions, dloss, t_bin, dx, fresh_dx)

    # -- elementwise ---------------------------------------------------------

    def _act(self, name: str, x: np.ndarray, y: np.ndarray) -> None:
        """Apply an activation function to a large array."""
        # The library makes 0 out of NaN or NaN out of minus infinity.
        is_safe = name not in _UNSAFE or np.minimum.reduce(x, None) > -math.inf
        call = is_safe and self._find(elementwise.act, (x, y), name)
        if call:
            call()
        else:
            getattr(super(), name)(x, y)

    def rel(self, x, y):
        if x.size < self._large:
            super().rel(x, y)
        else:
            self.do(self.plain._act, "rel", x, y)

    def tanh(self, x, y):
        if x.size < self._large:
            super().tanh(x, y)
        else:
            self.do(self.plain._act, "tanh", x, y)

    def sigmoid(self, x, y):
        if x.size < self._large:
            super().sigmoid(x, y)
        else:
            self.do(self.plain._act, "sigmoid", x, y)

    def el(self, x, y):
        if x.size < self._large:
            super().el(x, y)
        else:
            self.do(self.plain._act, "el", x, y)

    def leaky_rel(self, x, y):
        if x.size < self._large:
            super().leaky_rel(x, y)
        else:
            self.do(self.plain._act, "leaky_rel", x, y)

    def gelu(self, x, y):
        if x.size < self._large:
            super().gelu(x, y)
        else:
            self.do(self.plain._act, "gelu", x, y)

    def swish(self, x, y):
        if x.size < self._large:
            super().swish(x, y)
        else:
            self.do(self.plain._act, "swish", x, y)

    def _act_deriv(
        self,
        name: str,
        source: np.ndarray,
        dy: np.ndarray,
        dx: np.ndarray,
        fresh: bool = True,
    ) -> bool:
        """Apply a derivative, and return whether it could be done."""
        if not elementwise.derives_safely(name, source):
            return False
        call = self._find(elementwise.act_deriv, (source, dy, dx), name, fresh)
        if call:
            call()
        return bool(call)

    def rel_deriv(self, x, y, dy, dx):
        if y.size < self._large:
            super().rel_deriv(x, y, dy, dx)
        else:
            self.do(self.plain._derive, "rel", x, y, dy, dx)

    def tanh_deriv(self, x, y, dy, dx):
        if y.size < self._large:
            super().tanh_deriv(x, y, dy, dx)
        else:
            self.do(self.plain._derive, "tanh", x, y, dy, dx)

    def sigmoid_deriv(self, x, y, dy, dx):
        if y.size < self._large:
            super().sigmoid_deriv(x, y, dy, dx)
        else:
            self.do(self.plain._derive, "sigmoid", x, y, dy, dx)

    def el_deriv(self, x, y, dy, dx):
        if y.size < self._large:
            super().el_deriv(x, y, dy, dx)
        else:
            self.do(self.plain._derive, "el", x, y, dy, dx)

    def leaky_rel_deriv(self, x, y, dy, dx):
        if y.size < self._large:
            super().leaky_rel_deriv(x, y, dy, dx)
        else:
            self.do(self.plain._derive, "leaky_rel", x, y, dy, dx)

    def gelu_deriv(self, x, y, dy, dx):
        if x.size < self._large:
            super().gelu_deriv(x, y, dy, dx)
        else:
            self.do(self.plain._derive, "gelu", x, y, dy, dx)

    def swish_deriv(self, x, y, dy, dx):
        if x.size < self._large:
            super().swish_deriv(x, y, dy, dx)
        else:
            self.do(self.plain._derive, "swish", x, y, dy, dx)

    @whole
    def act_backward(self, x, y, dy, dx, activation, fresh_dx=False):
        source = x if activation in FROM_INPUT else y
        is_fast = source.size >= self._large and activation != "linear"
        if not (is_fast and self._act_deriv(activation, source, dy, dx, fresh_dx)):
            super().act_backward(x, y, dy, dx, activation, fresh_dx)

    def _derive(self, name, x, y, dy, dx) -> None:
        """Apply the derivative of an activation function to a large array."""
        source = x if name in FROM_INPUT else y
        if not self._act_deriv(name, source, dy, dx):
            getattr(super(), f"{name}_deriv")(x, y, dy, dx)

    def _arithmetic(
        self, algorithm: Algorithm, a: np.ndarray, b: np.ndarray, out: np.ndarray
    ) -> bool:
        call = self._find(elementwise.arithmetic, (a, b, out), algorithm)
        if call:
            self.do(call)
        return bool(call)

    # Looking at the size here saves a call where arrays are small.

    def add_tt(self, a, b, out):
        if a.size < self._large or not self._arithmetic(Algorithm.ADD, a, b, out):
            self.do(np.add, a, b, out)

    def mult_tt(self, a, b, out):
        if a.size < self._large or not self._arithmetic(Algorithm.MULTIPLY, a, b, out):
            self.do(np.multiply, a, b, out)

    def subtract_tt(self, a, b, out):
        if a.size < self._large or not self._arithmetic(Algorithm.SUBTRACT, a, b, out):
            self.do(np.subtract, a, b, out)

    def add_mv(self, m, v, out):
        if m.size < self._large or not self._arithmetic(Algorithm.ADD, m, v, out):
            super().add_mv(m, v, out)

    def divide_mv(self, m, v, out):
        if m.size < self._large or not self._arithmetic(Algorithm.DIVIDE, m, v, out):
            super().divide_mv(m, v, out)

    def mult_mv(self, m, v, out):
        if m.size < self._large or not self._arithmetic(Algorithm.MULTIPLY, m, v, out):
            super().mult_mv(m, v, out)

    def subtract_mv(self, m, v, out):
        if m.size < self._large or not self._arithmetic(Algorithm.SUBTRACT, m, v, out):
            super().subtract_mv(m, v, out)

    def mult_add_st(self, s, t, out):
        call = t.size >= self._large and self._find(elementwise.blend, (out, t))
        if call:
            self.do(call.values.__setitem__, 1, s)
            self.do(call)
        else:
            super().mult_add_st(s, t, out)

    # -- updates -------------------------------------------------------------

    def momentum_update(self, parameters, gradients, velocity, learning_rate, momentum):
        call = parameters.size >= self._large and self._find(
            elementwise.momentum, (parameters, gradients, velocity)
        )
        if call:
            self.do(call.values.__setitem__, 0, momentum)
            self.do(call.values.__setitem__, 1, -learning_rate)
            self.do(call)
        else:
            super().momentum_update(
                parameters, gradients, velocity, learning_rate, momentum
            )

    @whole
    def constrain_rows(self, m, limit, norms):
        if len(m) == 1 or m.shape[1] > _LONG_ROW or limit < self._smallest_limit:
            super().constrain_rows(m, limit, norms)
            return
        # einsum needs no temporary for the squares.
        with np.errstate(over="ignore", under="ignore"):
            np.einsum("ij,ij->i", m, m, out=norms[:, 0])
        if not np.maximum.reduce(norms, None, initial=0.0) < math.inf:
            super().constrain_rows(m, limit, norms)
            return
        np.sqrt(norms, norms)
        np.multiply(norms, 1.0 / limit, norms)
        np.maximum(norms, self._one, out=norms)
        np.divide(m, norms, m)

    # -- batch normalisation -------------------------------------------------

    @whole
    def batch_norm_forward(
        self, x, gamma, beta, mu, sigma, sigma_b, centered, x_hat, y, decay, epsilon
    ):
        call = x.size >= self._large and len(x) <= _MANY_ROWS
        call = call and self._find(
            norms.batch_norm, (x, gamma, beta, centered, x_hat, y), float(epsilon)
        )
        if not call:
            super().batch_norm_forward(
                x, gamma, beta, mu, sigma, sigma_b, centered, x_hat, y, decay, epsilon
            )
            return
        call()
        mean, variance = call.values
        np.add(variance, epsilon, sigma_b)
        np.sqrt(sigma_b, sigma_b)
        for running, value, sign in ((mu, mean, -1.0), (sigma, sigma_b, 1.0)):
            np.multiply(running, decay, running)
            np.add(running, value * (sign * (1.0 - decay)), running)

    @whole
    def batch_norm_inference(self, x, gamma, beta, mu, sigma, y):
        factor = self.scratch(gamma.shape, 2)
        arrays = x, beta, mu, factor, y
        call = x.size >= self._large and self._find(norms.batch_norm_inference, arrays)
        if call:
            np.divide(gamma, sigma, factor)
            call()
        else:
            super().batch_norm_inference(x, gamma, beta, mu, sigma, y)

    @whole
    def batch_norm_backward(
        self,
        gamma,
        sigma_b,
        centered,
        x_hat,
        dy,
        dx,
        dgamma,
        dbeta,
        fresh_dx=False,
        fresh_gradients=False,
    ):
        call = dy.size >= self._large and len(dy) <= _MANY_ROWS
        call = call and self._find(
            norms.batch_norm_backward,
            (gamma, centered, dy, dx, dgamma, dbeta),
            fresh_dx,
            fresh_gradients,
        )
        if call:
            np.multiply(sigma_b, sigma_b, call.values[1])
            call()
        else:
            super().batch_norm_backward(
                gamma, sigma_b, centered, x_hat, dy, dx, dgamma, dbeta,
                fresh_dx, fresh_gradients,
            )  # fmt: skip


# -- forked processes --------------------------------------------------------

_handlers: weakref.WeakSet[OneDnnHandler] = weakref.WeakSet()
_forked = False


def _after_fork() -> None:
    """OpenMP's threads are gone, and would be waited for."""
    global _forked
    _forked = True
    for handler in _handlers:
        handler._local = _Local()
        handler._fixed_threads = 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

"""The primitive operations: what every handler implements.

Conventions, unless an operation says otherwise:

- Every array is of the handler's `array_type` and `dtype`. Operations do not
  check that; wrap the handler in a :class:`~brainstorm.handlers.DebugHandler` to
  have everything checked.
- Suffixes name the operands: ``s`` scalar, ``v`` vector (a 2D array with at
  least one dimension equal to 1), ``m`` matrix (2D), ``t`` tensor (any shape).
- Arrays may be strided views; their last axis has unit stride.
- The output of an *elementwise* operation may be the very same array as one of
  the inputs of its shape (same memory, same strides). Arrays that overlap in
  part are never allowed.
- Operations return None and write into arrays that the caller provides.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["ACTIVATIONS", "FROM_INPUT", "PrimitiveOperations"]

ACTIVATIONS = (
    *("linear", "rel", "tanh", "sigmoid", "el"),
    *("softplus", "leaky_rel", "gelu", "swish"),
)
"""Names of the activation functions. The kernels for GPUs count on their order."""

FROM_INPUT = frozenset({"gelu", "swish"})
"""Those whose derivative needs the input of the function, not only its output."""


class PrimitiveOperations:
    """Documents each operation; a handler overrides all but `scratch` and `overlap`."""

    # -- memory --------------------------------------------------------------

    def allocate(self, shape: tuple[int, ...]) -> Any:
        """A new array of the given shape, filled with zeros.

        DebugHandler alone fills it with NaN: count on what you have written.
        """
        raise NotImplementedError

    def ones(self, shape: tuple[int, ...]) -> Any:
        """A new array of the given shape, filled with ones."""
        raise NotImplementedError

    def zeros(self, shape: tuple[int, ...]) -> Any:
        """A new array of the given shape, filled with zeros."""
        raise NotImplementedError

    def scratch(self, shape: tuple[int, ...], slot: int = 0) -> Any:
        """A temporary array with arbitrary content.

        It stays valid until the same slot is asked for again, also with another
        shape. Primitive operations use slots 0 and 1 themselves, coarse ones 2
        and above. This version simply allocates; override it to reuse memory.

        Args:
            shape: Shape of the array.
            slot: Arrays of different slots never share memory.
        """
        return self.allocate(shape)

    def overlap(self, a: Any, b: Any) -> str:
        """How two arrays share memory.

        This version knows NumPy's arrays; others, for it, share memory if they are one
        object.

        Returns:
            'none'; 'same' if they have the same elements in the same places;
            'part' if they share elements in any other way.
        """
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            if not np.shares_memory(a, b):
                return "none"
            return "same" if _places(a) == _places(b) else "part"
        return "same" if a is b else "none"

    def create_from_numpy(self, arr: np.ndarray) -> Any:
        """A new array with the shape and the values of a NumPy array.

        Args:
            arr: Array of booleans, integers or floats; converted to `dtype`.

        Raises:
            HandlerError: `arr` holds something else.
        """
        raise NotImplementedError

    def get_numpy_copy(self, mem: Any) -> np.ndarray:
        """A new NumPy array with the shape, values and `dtype` of `mem`."""
        raise NotImplementedError

    def set_from_numpy(self, mem: Any, arr: np.ndarray) -> None:
        """Copy a NumPy array into `mem`.

        Args:
            mem: Destination of any shape.
            arr: Booleans, integers or floats of the same shape; converted.

        Raises:
            HandlerError: The shapes differ, or `arr` holds something else.
        """
        raise NotImplementedError

    def copy_to(self, src: Any, dest: Any) -> None:
        """``dest = src``, elementwise.

        Args:
            src: Array of any shape.
            dest: Array of the same shape.
        """
        raise NotImplementedError

    def copy_to_if(self, src: Any, dest: Any, cond: Any) -> None:
        """``dest = src`` where `cond` is not zero, elementwise.

        Args:
            src: Array of any shape.
            dest: Array of the same shape.
            cond: Array of the same shape. May be `src` or `dest`.
        """
        raise NotImplementedError

    def fill(self, mem: Any, val: float) -> None:
        """Set all elements of `mem` to `val`."""
        raise NotImplementedError

    def fill_if(self, mem: Any, val: float, cond: Any) -> None:
        """``mem = val`` where `cond` is not zero, elementwise.

        Args:
            mem: Array of any shape.
            val: The value.
            cond: Array of the same shape; may be `mem`.
        """
        raise NotImplementedError

    def fill_gaussian(self, mean: float, std: float, out: Any) -> None:
        """Fill `out` with values drawn from a normal distribution.

        They are reproducible: the generator is seeded from `rnd`.

        Args:
            mean: Mean of the distribution.
            std: Standard deviation of the distribution.
            out: Array of any shape.
        """
        raise NotImplementedError

    def generate_probability_mask(self, mask: Any, probability: float) -> None:
        """Fill `mask` with ones and zeros drawn at random.

        They are reproducible: the generator is seeded from `rnd`.

        Args:
            mask: Array of any shape.
            probability: Probability in [0, 1] of an element to be one.
        """
        raise NotImplementedError

    # -- elementwise, tensors ------------------------------------------------

    def abs_t(self, a: Any, out: Any) -> None:
        """``out = |a|``, elementwise, for arrays of any one shape."""
        raise NotImplementedError

    def add_st(self, s: float, t: Any, out: Any) -> None:
        """``out = s + t``, elementwise, for a scalar and arrays of any one shape."""
        raise NotImplementedError

    def add_tt(self, a: Any, b: Any, out: Any) -> None:
        """``out = a + b``, elementwise, for arrays of any one shape."""
        raise NotImplementedError

    def add_into_if(self, a: Any, out: Any, cond: Any) -> None:
        """``out += a`` where `cond` is not zero, elementwise.

        Args:
            a: Array of any shape.
            out: Array of the same shape, which is added to.
            cond: Array of the same shape. May be `a` or `out`.
        """
        raise NotImplementedError

    def clip_t(self, a: Any, a_min: float, a_max: float, out: Any) -> None:
        """``out = a`` limited to ``[a_min, a_max]``, elementwise. NaN stays NaN.

        Args:
            a: Array of any shape.
            a_min: Smallest value of the output; may be -inf.
            a_max: Largest value of the output; may be inf.
            out: Array of the same shape; may be `a`.
        """
        raise NotImplementedError

    def divide_tt(self, a: Any, b: Any, out: Any) -> None:
        """``out = a / b``, elementwise, for arrays of any one shape."""
        raise NotImplementedError

    def log_t(self, a: Any, out: Any) -> None:
        """``out = log(a)``, natural, elementwise. log(0) is -inf, log(-1) NaN."""
        raise NotImplementedError

    def modulo_tt(self, a: Any, b: Any, out: Any) -> None:
        """``out = a % b``, elementwise; the result has the sign of `b`.

        Args:
            a: Dividend, of any shape.
            b: Divisor, of the same shape.
            out: Array of the same shape; may be `a` or `b`.
        """
        raise NotImplementedError

    def mult_add_st(self, s: float, t: Any, out: Any) -> None:
        """``out += s * t``, elementwise, for a scalar and arrays of any one shape."""
        raise NotImplementedError

    def mult_add_tt(self, a: Any, b: Any, out: Any) -> None:
        """``out += a * b``, elementwise, for arrays of any one shape."""
        raise NotImplementedError

    def mult_st(self, s: float, t: Any, out: Any) -> None:
        """``out = s * t``, elementwise, for a scalar and arrays of any one shape."""
        raise NotImplementedError

    def mult_tt(self, a: Any, b: Any, out: Any) -> None:
        """``out = a * b``, elementwise, for arrays of any one shape."""
        raise NotImplementedError

    def sign_t(self, a: Any, out: Any) -> None:
        """``out`` = 1 where a > 0, -1 where a < 0, 0 where a = 0, elementwise."""
        raise NotImplementedError

    def sqrt_t(self, a: Any, out: Any) -> None:
        """``out`` = the positive square root of `a`, elementwise. NaN below 0."""
        raise NotImplementedError

    def subtract_tt(self, a: Any, b: Any, out: Any) -> None:
        """``out = a - b``, elementwise, for arrays of any one shape."""
        raise NotImplementedError

    # -- elementwise, matrix and vector --------------------------------------

    def add_mv(self, m: Any, v: Any, out: Any) -> None:
        """``out = m + v`` with broadcasting.

        Args:
            m: Matrix (M, N).
            v: Vector (1, N) or (M, 1).
            out: Matrix (M, N); may be `m`.
        """
        raise NotImplementedError

    def divide_mv(self, m: Any, v: Any, out: Any) -> None:
        """``out = m / v`` with broadcasting.

        Args:
            m: Matrix (M, N).
            v: Vector (1, N) or (M, 1).
            out: Matrix (M, N); may be `m`.
        """
        raise NotImplementedError

    def mult_mv(self, m: Any, v: Any, out: Any) -> None:
        """``out = m * v`` with broadcasting.

        Args:
            m: Matrix (M, N).
            v: Vector (1, N) or (M, 1), or matrix (M, N).
            out: Matrix (M, N); may be `m`.
        """
        raise NotImplementedError

    def mult_add_mv(self, m: Any, v: Any, out: Any) -> None:
        """``out += m * v`` with broadcasting.

        Args:
            m: Matrix (M, N).
            v: Vector (1, N) or (M, 1), or matrix (M, N).
            out: Matrix (M, N), which is added to; may be `m`.
        """
        raise NotImplementedError

    def subtract_mv(self, m: Any, v: Any, out: Any) -> None:
        """``out = m - v`` with broadcasting.

        Args:
            m: Matrix (M, N).
            v: Vector (1, N) or (M, 1).
            out: Matrix (M, N); may be `m`.
        """
        raise NotImplementedError

    # -- products, sums and rearrangements (no aliasing) ---------------------

    def dot_mm(
        self, a: Any, b: Any, out: Any, transa: bool = False, transb: bool = False
    ) -> None:
        """``out = a b``, the product of two matrices.

        Args:
            a: Matrix (M, K), or (K, M) if `transa`.
            b: Matrix (K, N), or (N, K) if `transb`.
            out: Matrix (M, N). Must not overlap `a` or `b`.
            transa: Whether to transpose `a` first.
            transb: Whether to transpose `b` first.
        """
        raise NotImplementedError

    def dot_add_mm(
        self, a: Any, b: Any, out: Any, transa: bool = False, transb: bool = False
    ) -> None:
        """``out += a b``; the arguments are those of :meth:`dot_mm`."""
        raise NotImplementedError

    def sum_t(self, a: Any, axis: int | None, out: Any) -> None:
        """Sum over one axis, or over all elements.

        Args:
            a: Array of one or two dimensions.
            axis: The axis to sum over; None means all.
            out: Array of a's shape without that axis, or with size 1 there. With
                None: array with a single element. Must not overlap `a`.
        """
        raise NotImplementedError

    def softmax_m(self, m: Any, out: Any) -> None:
        """Softmax over the rows: ``out[i] = exp(m[i]) / sum(exp(m[i]))``.

        Args:
            m: Matrix (M, N).
            out: Matrix (M, N); may be `m`.
        """
        raise NotImplementedError

    def binarize_v(self, v: Any, out: Any) -> None:
        """``out[i, j] = 1`` if j equals ``v[i, 0]``, else 0.

        Args:
            v: Column vector (M, 1) of integers in [0, N).
            out: Matrix (M, N). Must not overlap `v`.
        """
        raise NotImplementedError

    def index_m_by_v(self, m: Any, v: Any, out: Any) -> None:
        """``out[i, 0] = m[i, v[i, 0]]``.

        Args:
            m: Matrix (M, N).
            v: Column vector (M, 1) of integers in [0, N).
            out: Column vector (M, 1). Must not overlap `m`; may be `v`.
        """
        raise NotImplementedError

    def broadcast_t(self, a: Any, axis: int, out: Any) -> None:
        """Repeat the elements of `a` along an axis.

        Args:
            a: Array of size 1 along `axis`.
            axis: Number of the axis.
            out: Array of a's shape, but of any size along `axis`. Must not
                overlap `a`.
        """
        raise NotImplementedError

    def merge_tt(self, a: Any, b: Any, out: Any) -> None:
        """Join two arrays along their last axis.

        Args:
            a: Array (..., A).
            b: Array (..., B).
            out: Array (..., A + B). Must not overlap `a` or `b`.
        """
        raise NotImplementedError

    def split_add_tt(self, x: Any, out_a: Any, out_b: Any) -> None:
        """Split `x` along its last axis and add each part to an array.

        Args:
            x: Array (..., A + B).
            out_a: Array (..., A), to which the first part is added.
            out_b: Array (..., B), to which the second part is added.
        """
        raise NotImplementedError

    def is_fully_finite(self, a: Any) -> bool:
        """Whether an array has neither NaN nor infinity in it."""
        raise NotImplementedError

    # -- activation functions ------------------------------------------------

    def rel(self, x: Any, y: Any) -> None:
        """``y = max(0, x)``, elementwise, for arrays of any one shape."""
        raise NotImplementedError

    def rel_deriv(self, x: Any, y: Any, dy: Any, dx: Any) -> None:
        """``dx = dy`` where y > 0, else 0. `x` is not used. `dx` may be `dy`."""
        raise NotImplementedError

    def tanh(self, x: Any, y: Any) -> None:
        """``y = tanh(x)``, elementwise, for arrays of any one shape."""
        raise NotImplementedError

    def tanh_deriv(self, x: Any, y: Any, dy: Any, dx: Any) -> None:
        """``dx = dy (1 - y^2)``. `x` is not used. `dx` may be `dy`."""
        raise NotImplementedError

    def sigmoid(self, x: Any, y: Any) -> None:
        """``y = 1 / (1 + exp(-x))``, elementwise, for arrays of any one shape."""
        raise NotImplementedError

    def sigmoid_deriv(self, x: Any, y: Any, dy: Any, dx: Any) -> None:
        """``dx = dy y (1 - y)``. `x` is not used. `dx` may be `dy`."""
        raise NotImplementedError

    def el(self, x: Any, y: Any) -> None:
        """Exponential linear: ``y = x`` where x >= 0, else ``exp(x) - 1``.

        Clevert et al., *Fast and accurate deep network learning by exponential
        linear units*, 2015, with alpha = 1.
        """
        raise NotImplementedError

    def el_deriv(self, x: Any, y: Any, dy: Any, dx: Any) -> None:
        """``dx = dy`` where y >= 0, else ``dy (y + 1)``. `dx` may be `dy`."""
        raise NotImplementedError

    # -- convolution and pooling ---------------------------------------------

    def conv2d_forward_batch(
        self,
        inputs: Any,
        weights: Any,
        bias: Any,
        outputs: Any,
        padding: int,
        stride: tuple[int, int],
        activation: str = "linear",
    ) -> None:
        """Convolve a batch of images, add a bias and apply an activation function.

        Here H' = (H + 2 padding - kh) // stride[0] + 1, and W' likewise. As usual
        for neural networks the kernels are not flipped.

        Args:
            inputs: Images (N, H, W, C).
            weights: Kernels (F, kh, kw, C).
            bias: Vector (F,).
            outputs: Images (N, H', W', F).
            padding: Number of zeros on each side of height and width.
            stride: Step sizes along height and width.
            activation: Name of the function applied to the outputs.
        """
        raise NotImplementedError

    def conv2d_backward_batch(
        self,
        inputs: Any,
        weights: Any,
        padding: int,
        stride: tuple[int, int],
        in_deltas: Any,
        out_deltas: Any,
        weight_deltas: Any,
        bias_deltas: Any,
        activation: str = "linear",
        outputs: Any = None,
        fresh_in_deltas: bool = False,
        fresh_gradients: bool = False,
    ) -> None:
        """Gradients of :meth:`conv2d_forward_batch`.

        Args:
            inputs: Images (N, H, W, C).
            weights: Kernels (F, kh, kw, C).
            padding: Number of zeros on each side of height and width.
            stride: Step sizes along height and width.
            in_deltas: (N, H, W, C), or None if they are not wanted.
            out_deltas: (N, H', W', F); not modified.
            weight_deltas: (F, kh, kw, C).
            bias_deltas: (F,).
            activation: Name of the activation function; none of `FROM_INPUT`.
            outputs: (N, H', W', F), what the forward pass gave. Only needed with
                an activation other than 'linear'.
            fresh_in_deltas: Overwrite `in_deltas` instead of adding to them.
            fresh_gradients: Overwrite `weight_deltas` and `bias_deltas` instead
                of adding to them.
        """
        raise NotImplementedError

    def maxpool2d_forward_batch(
        self,
        inputs: Any,
        window: tuple[int, int],
        outputs: Any,
        padding: int,
        stride: tuple[int, int],
        argmax: Any,
    ) -> None:
        """The largest value in each window of a batch of images.

        Padding never wins. Here H' = (H + 2 padding - window[0]) // stride[0] + 1,
        and W' likewise.

        Args:
            inputs: Images (N, H, W, C).
            window: Height and width of the window.
            outputs: Images (N, H', W', C).
            padding: Number of pixels added on each side of height and width.
            stride: Step sizes along height and width.
            argmax: (N, H', W', C), receives for each output the index into the
                window, counted by rows; the first of equal values.
        """
        raise NotImplementedError

    def maxpool2d_backward_batch(
        self,
        inputs: Any,
        window: tuple[int, int],
        outputs: Any,
        padding: int,
        stride: tuple[int, int],
        argmax: Any,
        in_deltas: Any,
        out_deltas: Any,
        fresh_in_deltas: bool = False,
    ) -> None:
        """Gradients of :meth:`maxpool2d_forward_batch`, which filled `argmax`.

        Args:
            inputs: Images (N, H, W, C).
            window: Height and width of the window.
            outputs: Images (N, H', W', C).
            padding: Number of pixels added on each side of height and width.
            stride: Step sizes along height and width.
            argmax: (N, H', W', C).
            in_deltas: (N, H, W, C).
            out_deltas: (N, H', W', C); not modified.
            fresh_in_deltas: Overwrite `in_deltas` instead of adding to them.
        """
        raise NotImplementedError

    def avgpool2d_forward_batch(
        self,
        inputs: Any,
        window: tuple[int, int],
        outputs: Any,
        padding: int,
        stride: tuple[int, int],
    ) -> None:
        """The mean of each window of a batch of images, padding not counted.

        The arguments are those of :meth:`maxpool2d_forward_batch`.
        """
        raise NotImplementedError

    def avgpool2d_backward_batch(
        self,
        inputs: Any,
        window: tuple[int, int],
        outputs: Any,
        padding: int,
        stride: tuple[int, int],
        in_deltas: Any,
        out_deltas: Any,
        fresh_in_deltas: bool = False,
    ) -> None:
        """Gradients of :meth:`avgpool2d_forward_batch`.

        The arguments are those of :meth:`maxpool2d_backward_batch`.
        """
        raise NotImplementedError


def _places(a: np.ndarray) -> tuple[Any, ...]:
    """Where the elements of an array lie."""
    steps = [step for size, step in zip(a.shape, a.strides, strict=True) if size > 1]
    return a.__array_interface__["data"][0], a.shape, steps

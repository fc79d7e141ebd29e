"""Convolution and pooling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from brainstorm.handlers.operations.activations import FROM_INPUT
from brainstorm.handlers.operations.affine import AffineOperations
from brainstorm.handlers.operations.contract import expected, missing, operation

__all__ = ["ImageOperations", "Windows"]


class Windows(NamedTuple):
    """Windows that slide over padded images: height and width come in pairs."""

    size: tuple[int, int]
    padding: int
    stride: tuple[int, int]

    @classmethod
    def of(cls, size: Any, padding: int, stride: Any) -> Windows:
        """From arguments of operations, which may be lists."""
        return cls(tuple(size), padding, tuple(stride))

    def counted(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """How many there are along height and width of images (N, H, W, C)."""
        return tuple(
            (length + 2 * self.padding - size) // stride + 1
            for length, size, stride in zip(
                shape[1:3], self.size, self.stride, strict=True
            )
        )


def _check_images(window: str, image: str) -> Callable:
    def check(handler: Any, args: dict[str, Any]) -> str | None:
        padding, stride = args["padding"], args["stride"]
        size = args["weights"].shape[1:3] if window == "weights" else args[window]
        if padding < 0 or min(stride) < 1:
            return (
                "expected padding of at least 0 and strides of at least 1, got"
                f" {padding!r} and {stride!r}"
            )
        if "out_deltas" in args and args.get("activation") in FROM_INPUT:
            return f"the derivative of {args['activation']!r} is no function of outputs"
        wanted = Windows.of(size, padding, stride).counted(args["inputs"].shape)
        got = args[image].shape[1:3]
        if got != wanted or min(wanted) < 1:
            return expected(image, f"{wanted} for height and width", str(got))
        return None

    return check


class ImageOperations(AffineOperations):
    """Part of :class:`~brainstorm.handlers.base_handler.Handler`.

    Windows of the size (K, L) slide over images (N, H, W, C) to which `padding` pixels
    are added on each side, with a `stride` along height and width. So there are
    P = (H + 2 padding - K) // stride[0] + 1 of them along the height, and Q likewise.
    """

    @operation(
        "inputs:N,H,W,C weights:F,K,L,C bias:F",
        "outputs:N,P,Q,F",
        check=_check_images("weights", "outputs"),
    )
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

        As usual for neural networks the kernels are not flipped. Padding is zero.
        """
        windows = Windows.of(weights.shape[1:3], padding, stride)
        self.do(
            self.plain._convolve, inputs, weights, bias, outputs, windows, activation
        )

    @operation(
        "inputs:N,H,W,C weights:F,K,L,C out_deltas:N,P,Q,F outputs:N,P,Q,F",
        add="in_deltas:N,H,W,C weight_deltas:F,K,L,C bias_deltas:F",
        optional="in_deltas outputs",
        check=_check_images("weights", "out_deltas"),
    )
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
            activation: Name of the activation function; none of `FROM_INPUT`.
            outputs: (N, P, Q, F), what the forward pass gave. Only needed with an
                activation other than 'linear'.
        """
        windows = Windows.of(weights.shape[1:3], padding, stride)
        gradients = weight_deltas, bias_deltas
        arrays = (inputs, weights, in_deltas, out_deltas, *gradients, outputs)
        fresh = fresh_in_deltas, fresh_gradients
        self.do(self.plain._convolve_back, arrays, windows, activation, *fresh)

    @operation(
        "inputs:N,H,W,C",
        "outputs:N,P,Q,C argmax:N,P,Q,C",
        check=_check_images("window", "outputs"),
    )
    def maxpool2d_forward_batch(
        self,
        inputs: Any,
        window: tuple[int, int],
        outputs: Any,
        padding: int,
        stride: tuple[int, int],
        argmax: Any,
    ) -> None:
        """The largest value in each window of a batch of images. Padding never wins.

        `argmax` receives for each output the index into the window, counted by rows:
        that of the first of equal values.
        """
        windows = Windows.of(window, padding, stride)
        self.do(self.plain._pool, inputs, outputs, argmax, windows)

    @operation(
        "inputs:N,H,W,C outputs:N,P,Q,C argmax:N,P,Q,C out_deltas:N,P,Q,C",
        add="in_deltas:N,H,W,C",
        check=_check_images("window", "outputs"),
    )
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
        """Gradients of :meth:`maxpool2d_forward_batch`, which filled `argmax`."""
        windows = Windows.of(window, padding, stride)
        deltas = in_deltas, out_deltas
        self.do(self.plain._pool_back, argmax, *deltas, windows, fresh_in_deltas)

    @operation(
        "inputs:N,H,W,C", "outputs:N,P,Q,C", check=_check_images("window", "outputs")
    )
    def avgpool2d_forward_batch(
        self,
        inputs: Any,
        window: tuple[int, int],
        outputs: Any,
        padding: int,
        stride: tuple[int, int],
    ) -> None:
        """The mean of each window of a batch of images, padding not counted."""
        windows = Windows.of(window, padding, stride)
        self.do(self.plain._pool, inputs, outputs, None, windows)

    @operation(
        "inputs:N,H,W,C outputs:N,P,Q,C out_deltas:N,P,Q,C",
        add="in_deltas:N,H,W,C",
        check=_check_images("window", "outputs"),
    )
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
        """Gradients of :meth:`avgpool2d_forward_batch`."""
        windows = Windows.of(window, padding, stride)
        deltas = in_deltas, out_deltas
        self.do(self.plain._pool_back, None, *deltas, windows, fresh_in_deltas)

    # A handler has these, unless it has the operations themselves. Without `argmax` a
    # window is summarised by its mean.
    #   _convolve(inputs, weights, bias, outputs, windows, activation)
    #   _convolve_back(arrays, windows, activation, fresh_in_deltas, fresh_gradients)
    #   _pool(inputs, outputs, argmax, windows)
    #   _pool_back(argmax, in_deltas, out_deltas, windows, fresh)
    _convolve = _convolve_back = _pool = _pool_back = missing

"""Convolution and pooling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from brainstorm.handlers.operations.activations import FROM_INPUT
from brainstorm.handlers.operations.contract import expected, operation

__all__ = ["ImageOperations"]


def _check_images(window: str, image: str) -> Callable:
    def check(handler: Any, args: dict[str, Any]) -> str | None:
        inputs, padding, stride = args["inputs"].shape, args["padding"], args["stride"]
        size = args["weights"].shape[1:3] if window == "weights" else args[window]
        if padding < 0 or min(stride) < 1:
            return (
                "expected padding of at least 0 and strides of at least 1, got"
                f" {padding!r} and {stride!r}"
            )
        if "out_deltas" in args and args.get("activation") in FROM_INPUT:
            return f"the derivative of {args['activation']!r} is no function of outputs"
        wanted = tuple(
            (inputs[1 + i] + 2 * padding - size[i]) // stride[i] + 1 for i in (0, 1)
        )
        got = args[image].shape[1:3]
        if got != wanted or min(wanted) < 1:
            return expected(image, f"{wanted} for height and width", str(got))
        return None

    return check


class ImageOperations:
    """Part of :class:`~brainstorm.handlers.base_handler.Handler`."""

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
        """The mean of each window of a batch of images, padding not counted.

        The arguments are those of :meth:`maxpool2d_forward_batch`.
        """
        raise NotImplementedError

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
        """Gradients of :meth:`avgpool2d_forward_batch`.

        The arguments are those of :meth:`maxpool2d_backward_batch`.
        """
        raise NotImplementedError

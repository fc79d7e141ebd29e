"""Convolution and pooling."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from brainstorm.handlers.operations.activations import FROM_INPUT
from brainstorm.handlers.operations.affine import AffineOperations
from brainstorm.handlers.operations.contract import expected, missing, operation
from brainstorm.utils import HandlerError, flatten_all_but_last

__all__ = ["ImageOperations", "Windows"]


Pair = tuple[int, int]


class Windows(NamedTuple):
    """Windows that slide over padded images: height and width come in pairs.

    `padding` is a number, or ((above, below), (left, right)). With `groups`, the
    channels are cut into as many parts; each is seen by its part of the kernels.
    """

    size: Pair
    padding: Any
    stride: Pair
    dilation: Pair = (1, 1)
    groups: int = 1

    @classmethod
    def of(
        cls,
        size: Any,
        padding: Any,
        stride: Any,
        dilation: Any = (1, 1),
        groups: int = 1,
    ) -> Windows:
        """From arguments of operations, which may be lists."""
        if not isinstance(padding, int):
            padding = tuple(map(tuple, padding))
        return cls(tuple(size), padding, tuple(stride), tuple(dilation), groups)

    @property
    def margins(self) -> tuple[Pair, Pair]:
        """The padding before and behind, of height and of width."""
        p = self.padding
        return ((p, p), (p, p)) if isinstance(p, int) else p

    @property
    def before(self) -> Pair:
        """The padding above and left."""
        (above, _), (left, _) = self.margins
        return above, left

    @property
    def extent(self) -> Pair:
        """How many pixels a window reaches over: d (k - 1) + 1 with a dilation of d."""
        (kh, kw), (dy, dx) = self.size, self.dilation
        return dy * (kh - 1) + 1, dx * (kw - 1) + 1

    def counted(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """How many there are along height and width of images (N, H, W, C)."""
        return tuple(
            (length + sum(margin) - extent) // stride + 1
            for length, extent, margin, stride in zip(
                shape[1:3], self.extent, self.margins, self.stride, strict=True
            )
        )

    def in_groups(
        self, images: Sequence[Any], kernels: Sequence[Any]
    ) -> Iterator[tuple[list[Any], list[Any], Windows]]:
        """For each group its channels of images, its kernels, and windows without any.

        Arrays may be None.
        """
        alone = self._replace(groups=1)
        for group in range(self.groups):

            def part(array: Any, axis: int, group: int = group) -> Any:
                if array is None:
                    return None
                size = array.shape[axis] // self.groups
                part = slice(group * size, (group + 1) * size)
                return array[part] if axis == 0 else array[..., part]

            yield [part(a, -1) for a in images], [part(a, 0) for a in kernels], alone


def _check_images(window: str, image: str, small: str = "inputs") -> Callable:
    """A check that windows over one array of images give the other.

    They slide over `small`, one for each pixel of `image`.
    """

    def check(handler: Any, args: dict[str, Any]) -> str | None:
        weights: Any = args.get("weights")
        size = weights.shape[1:3] if window == "weights" else args[window]
        dilation, groups = args.get("dilation", (1, 1)), args.get("groups", 1)
        windows = Windows.of(size, args["padding"], args["stride"], dilation, groups)
        margins = [n for margin in windows.margins for n in margin]
        if min(margins) < 0 or min(windows.stride) < 1:
            return (
                "expected padding of at least 0 and strides of at least 1, got"
                f" {windows.padding!r} and {windows.stride!r}"
            )
        if min(*windows.dilation, groups) < 1:
            return (
                "expected dilations and groups of at least 1, got"
                f" {windows.dilation!r} and {groups!r}"
            )
        if "out_deltas" in args and args.get("activation") in FROM_INPUT:
            return f"the derivative of {args['activation']!r} is no function of outputs"
        if weights is not None:
            channels = args[small].shape[3]
            if weights.shape[3] * groups != channels or len(weights) % groups:
                return expected(
                    "weights",
                    f"a multiple of {groups} kernels, each with 1 / {groups} of the"
                    f" {channels} channels",
                    str(weights.shape),
                )
        wanted = windows.counted(args[small].shape)
        got = args[image].shape[1:3]
        if got != wanted or min(wanted) < 1:
            return expected(image, f"{wanted} for height and width", str(got))
        return None

    return check


def _has_rows(images: Any) -> bool:
    """Whether a matrix has a row for each pixel; not if features lie apart."""
    try:
        flatten_all_but_last(images)
    except HandlerError:
        return False
    return True


class ImageOperations(AffineOperations):
    """Part of :class:`~brainstorm.handlers.base_handler.Handler`.

    Windows of the size (K, L) slide over images (N, H, W, C) to which `padding` pixels
    are added on each side, with a `stride` along height and width. So there are
    P = (H + 2 padding - K) // stride[0] + 1 of them along the height, and Q likewise.
    Convolutions also take ((above, below), (left, right)) as `padding`. With a
    `dilation`, the pixels of their windows are so far apart, and K in the formula is
    dilation[0] (K - 1) + 1. With g `groups`, images have C = g D channels, and kernels
    have D: the first F / g kernels see the first D channels, and so on.
    """

    @operation(
        "inputs:N,H,W,C weights:F,K,L,D bias:F",
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
        stride: Pair,
        activation: str = "linear",
        dilation: Pair = (1, 1),
        groups: int = 1,
    ) -> None:
        """Convolve a batch of images, add a bias and apply an activation function.

        As usual for neural networks the kernels are not flipped. Padding is zero.
        """
        windows = Windows.of(weights.shape[1:3], padding, stride, dilation, groups)
        self._leaf("_convolve", inputs, weights, bias, outputs, windows, activation)

    @operation(
        "inputs:N,H,W,C weights:F,K,L,D out_deltas:N,P,Q,F outputs:N,P,Q,F",
        add="in_deltas:N,H,W,C weight_deltas:F,K,L,D bias_deltas:F",
        optional="in_deltas outputs",
        check=_check_images("weights", "out_deltas"),
    )
    def conv2d_backward_batch(
        self,
        inputs: Any,
        weights: Any,
        padding: int,
        stride: Pair,
        in_deltas: Any,
        out_deltas: Any,
        weight_deltas: Any,
        bias_deltas: Any,
        activation: str = "linear",
        outputs: Any = None,
        fresh_in_deltas: bool = False,
        fresh_gradients: bool = False,
        dilation: Pair = (1, 1),
        groups: int = 1,
    ) -> None:
        """Gradients of :meth:`conv2d_forward_batch`.

        Args:
            activation: Name of the activation function; none of `FROM_INPUT`.
            outputs: (N, P, Q, F), what the forward pass gave. Only needed with an
                activation other than 'linear'.
        """
        windows = Windows.of(weights.shape[1:3], padding, stride, dilation, groups)
        gradients = weight_deltas, bias_deltas
        arrays = (inputs, weights, in_deltas, out_deltas, *gradients, outputs)
        fresh = fresh_in_deltas, fresh_gradients
        self._leaf("_convolve_back", arrays, windows, activation, *fresh)

    @operation(
        "inputs:N,P,Q,F weights:F,K,L,D bias:C",
        "outputs:N,H,W,C",
        check=_check_images("weights", "inputs", "outputs"),
    )
    def conv2d_transpose_forward_batch(
        self,
        inputs: Any,
        weights: Any,
        bias: Any,
        outputs: Any,
        padding: int,
        stride: Pair,
        activation: str = "linear",
        dilation: Pair = (1, 1),
        groups: int = 1,
    ) -> None:
        """The transposed convolution, a bias and an activation function.

        Without these it is linear, and what a convolution of the outputs, with these
        kernels, would give to the deltas of its inputs.
        """
        windows = Windows.of(weights.shape[1:3], padding, stride, dilation, groups)
        y = outputs if _has_rows(outputs) else self.scratch(outputs.shape, 25)
        arrays = None, weights, y, inputs, None, None, None
        self._leaf("_convolve_back", arrays, windows, "linear", True, False)
        rows = flatten_all_but_last(y)
        self.add_mv(rows, bias.reshape((1, bias.shape[0])), rows)
        self.act_func[activation](y, y)
        if y is not outputs:
            self.copy_to(y, outputs)

    @operation(
        "inputs:N,P,Q,F weights:F,K,L,D out_deltas:N,H,W,C outputs:N,H,W,C",
        add="in_deltas:N,P,Q,F weight_deltas:F,K,L,D bias_deltas:C",
        optional="in_deltas outputs",
        check=_check_images("weights", "inputs", "out_deltas"),
    )
    def conv2d_transpose_backward_batch(
        self,
        inputs: Any,
        weights: Any,
        padding: int,
        stride: Pair,
        in_deltas: Any,
        out_deltas: Any,
        weight_deltas: Any,
        bias_deltas: Any,
        activation: str = "linear",
        outputs: Any = None,
        fresh_in_deltas: bool = False,
        fresh_gradients: bool = False,
        dilation: Pair = (1, 1),
        groups: int = 1,
    ) -> None:
        """Gradients of :meth:`conv2d_transpose_forward_batch`.

        Args:
            activation: Name of the activation function; none of `FROM_INPUT`.
            outputs: (N, H, W, C), what the forward pass gave. Only needed with an
                activation other than 'linear'.
        """
        windows = Windows.of(weights.shape[1:3], padding, stride, dilation, groups)
        deltas = out_deltas
        if activation != "linear" or not _has_rows(deltas):
            deltas = self.scratch(out_deltas.shape, 25)
            self.act_func_deriv[activation](outputs, outputs, out_deltas, deltas)
        arrays: tuple[Any, ...]
        arrays = deltas, weights, None, inputs, weight_deltas, None, None
        fresh = False, fresh_gradients
        self._leaf("_convolve_back", arrays, windows, "linear", *fresh)
        sums = self.scratch((1, deltas.shape[3]), 26)
        self.sum_t(flatten_all_but_last(deltas), 0, sums)
        dbias = bias_deltas.reshape(sums.shape)
        if fresh_gradients:
            self.copy_to(sums, dbias)
        else:
            self.add_tt(dbias, sums, dbias)
        if in_deltas is None:
            return
        found = in_deltas if fresh_in_deltas else self.scratch(in_deltas.shape, 27)
        no_bias = self.scratch((weights.shape[0],), 28)
        self.fill(no_bias, 0.0)
        arrays = deltas, weights, no_bias, found
        self._leaf("_convolve", *arrays, windows, "linear")
        if not fresh_in_deltas:
            self.add_tt(in_deltas, found, in_deltas)

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
        stride: Pair,
        argmax: Any,
    ) -> None:
        """The largest value in each window of a batch of images. Padding never wins.

        `argmax` receives for each output the index into the window, counted by rows:
        that of the first of equal values.
        """
        windows = Windows.of(window, padding, stride)
        self._leaf("_pool", inputs, outputs, argmax, windows)

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
        stride: Pair,
        argmax: Any,
        in_deltas: Any,
        out_deltas: Any,
        fresh_in_deltas: bool = False,
    ) -> None:
        """Gradients of :meth:`maxpool2d_forward_batch`, which filled `argmax`."""
        windows = Windows.of(window, padding, stride)
        deltas = in_deltas, out_deltas
        self._leaf("_pool_back", argmax, *deltas, windows, fresh_in_deltas)

    @operation(
        "inputs:N,H,W,C", "outputs:N,P,Q,C", check=_check_images("window", "outputs")
    )
    def avgpool2d_forward_batch(
        self,
        inputs: Any,
        window: tuple[int, int],
        outputs: Any,
        padding: int,
        stride: Pair,
    ) -> None:
        """The mean of each window of a batch of images, padding not counted."""
        windows = Windows.of(window, padding, stride)
        self._leaf("_pool", inputs, outputs, None, windows)

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
        stride: Pair,
        in_deltas: Any,
        out_deltas: Any,
        fresh_in_deltas: bool = False,
    ) -> None:
        """Gradients of :meth:`avgpool2d_forward_batch`."""
        windows = Windows.of(window, padding, stride)
        deltas = in_deltas, out_deltas
        self._leaf("_pool_back", None, *deltas, windows, fresh_in_deltas)

    # A handler has these, unless it has the operations themselves. Without `argmax` a
    # window is summarised by its mean. Transposed convolutions leave out arrays of
    # `_convolve_back`, which are None: the inputs and all gradients, or the bias's.
    #   _convolve(inputs, weights, bias, outputs, windows, activation)
    #   _convolve_back(arrays, windows, activation, fresh_in_deltas, fresh_gradients)
    #   _pool(inputs, outputs, argmax, windows)
    #   _pool_back(argmax, in_deltas, out_deltas, windows, fresh)
    _convolve = _convolve_back = _pool = _pool_back = missing

"""Convolution of sequences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brainstorm.checks import Argument, is_whole
from brainstorm.layers._convolution_layer import ConvolutionLayer
from brainstorm.layers.arguments import COUNT, Check, arguments_of
from brainstorm.layers.base_layer import BufferStructure, ConstructionWrapper
from brainstorm.layers.delay_layer import keep_past
from brainstorm.layers.rows import Rows
from brainstorm.literals import Activation
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.layer import Setup, Structures


def Convolution1D(
    num_filters: int,
    kernel_size: int,
    stride: int = 1,
    padding: int | str = "same",
    activation: Activation = "rel",
    name: str | None = None,
    *,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = True,
    trainable: bool = True,
) -> ConstructionWrapper:
    """A layer that convolves sequences with learned kernels.

    Inputs (T, B, C) are convolved over time. All layers have the same steps, so outputs
    have as many, and there is no stride: to have less, see `TimePooling`. Inputs (T, B,
    L, C), signals of L values in each step, are convolved along these, with any stride.

    Args:
        num_filters: Number of kernels, which is the number of output channels.
        kernel_size: Length of the kernels.
        stride: Step size; 1 over time.
        padding: How zeros are added: ``'same'`` on both sides, so that there are as
            many outputs as inputs, divided by the stride; ``'causal'`` before the first
            one, so that no output depends on later inputs; or how many on each side.
        activation: Activation function.
        name: Name of the layer.
        dilation: Distance of the inputs that a kernel sees.
        groups: Number of groups into which channels are cut, see `Convolution2D`.
        bias: Whether there is a bias.
        trainable: Whether training changes the parameters.
    """
    return ConstructionWrapper.create(Convolution1DLayerImpl, **locals())


def _over_time(array: Any) -> Any:
    """View (T, B, C) as an image that has the steps one below the other."""
    return array.reshape((1, *array.shape))


def _along_signals(array: Any) -> Any:
    """View (T, B, L, C) as images of one column each."""
    times, sequences, *signal, channels = array.shape
    return array.reshape((times * sequences, *signal, 1, channels))


class Convolution1DLayerImpl(ConvolutionLayer):
    """Computes ``y[t, f] = act(bias[f] + sum of x[t s + d k - p, c] W[f, k, c])``.

    That is over all k and c, where s is the stride, d the dilation, p the number of
    zeros before, and x is zero outside of the sequence. With F filters of length k:

    =========== ======== =========================== =============================
    buffer      name     shape                       content
    =========== ======== =========================== =============================
    inputs      default  (T, B, C) or (T, B, L, C)   x
    outputs     default  (T, B, F) or (T, B, L', F)  y
    parameters  W        (F, k, C / groups)          kernels
    parameters  bias     (F,)                        bias, unless left out
    internals   H        as y                        pre-activations, see below
    internals   dH       as y                        their deltas, backward
    internals   past     (T + n, B, C)               the last n = d (k - 1) steps of x
    =========== ======== =========================== =============================

    There is H as in `Convolution2D`, and a ``zero_bias`` (F,) without a bias. There is
    a past with ``padding='causal'`` over time: what a context brought takes the place
    of the zeros there, so pieces of sequences, or single steps, give what the whole
    does.

    L' = floor((L + p + p' - n - 1) / s) + 1 with p' zeros behind. With ``'same'``, L'
    is L / s, rounded up, and p is p' or one less.

    Raises:
        LayerValidationError: An argument is not as above, the number of steps would
            change, the kernels are longer than padded signals, or there are no such
            groups.
    """

    kernel_size: int
    lag: int
    margin: tuple[int, int]

    arguments: Mapping[str, Argument] = arguments_of(
        Convolution1D,
        num_filters=COUNT,
        kernel_size=COUNT,
        stride=COUNT,
        padding=Check(
            lambda p: p in ("same", "causal") if isinstance(p, str) else is_whole(p, 0),
            "'same', 'causal' or a whole number of at least 0",
        ),
        dilation=COUNT,
        groups=COUNT,
    )
    honours_fresh = True
    repeats = True

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        features = in_shapes["default"].feature_shape
        if len(features) not in (1, 2):
            raise self.error(
                "expected the shape (T, B, F) or (T, B, F, F) at input 'default', got"
                f" {in_shapes['default'].shape}"
            )
        *signal, channels = features
        self.check_groups(channels)
        self.lag = 0
        lengths = self._along(*signal) if signal else self._over_time()
        y = BufferStructure("T", "B", *lengths, self.num_filters)
        W = BufferStructure(self.num_filters, self.kernel_size, channels // self.groups)
        outputs, parameters, internals = self.structures(y, W)
        if self.lag:
            past = BufferStructure("T", "B", channels, context_size=self.lag)
            internals["past"] = past
        shape = _along_signals if signal else _over_time
        self.images: Rows = Rows(
            "inputs.default", writes=["outputs.default", "internals.H"], shape=shape
        )
        self.delta_images: Rows = Rows(
            "output_deltas.default",
            writes=["input_deltas.default", "internals.dH"],
            shape=shape,
        )
        return outputs, parameters, internals

    def _over_time(self) -> tuple[int, ...]:
        reach = self.dilation * (self.kernel_size - 1)
        if self.stride != 1:
            raise self.error(
                f"expected 'stride' 1 over time, of which there are T steps everywhere,"
                f" got {self.stride}"
            )
        if self.padding == "causal":
            self.lag, self.margin = reach, (0, 0)
            return ()
        self.needs_whole_sequences: bool = reach > 0
        before = reach // 2 if self.padding == "same" else self.padding
        self.margin = before, reach - before
        if self.padding not in ("same", reach / 2):
            raise self.error(
                f"expected a 'padding' that keeps the number of steps: 'same', 'causal'"
                f" or half of dilation * (kernel_size - 1) = {reach}, got"
                f" {self.padding}"
            )
        return ()

    def _along(self, length: int) -> tuple[int, ...]:
        reach = self.dilation * (self.kernel_size - 1)
        self.margin = self.padding, self.padding
        if self.padding == "same":
            total = (-(-length // self.stride) - 1) * self.stride + reach + 1 - length
            total = max(total, 0)
            self.margin = total // 2, total - total // 2
        elif self.padding == "causal":
            self.margin = reach, 0
        room = length + sum(self.margin) - reach - 1
        if room < 0:
            raise self.error(
                "expected a kernel_size that fits into the padded signals, of"
                f" {length + sum(self.margin)} values, got {self.kernel_size} with the"
                f" dilation {self.dilation}"
            )
        return (room // self.stride + 1,)

    def geometry(self) -> tuple[Any, dict[str, Any]]:
        where = (self.margin, (0, 0)), (self.stride, 1)
        return where, {"dilation": (self.dilation, 1), "groups": self.groups}

    def kernels(self, W: Any) -> Any:
        filters, length, channels = W.shape
        return W.reshape((filters, length, 1, channels))

    def with_past(self, buffers: BufferView, x: Any) -> Any:
        """The image of the inputs, after those of the steps before."""
        if not self.lag:
            return x
        h, past, steps = self.handler, buffers.internals.past, x.shape[1]
        joined = h.scratch((1, self.lag + steps, *x.shape[2:]), 24)
        h.copy_to(past[steps:], joined[0, : self.lag])
        h.copy_to(x, joined[:, self.lag :])
        return joined

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        x, y, H = self.images(buffers)
        self.convolve(buffers, self.with_past(buffers, x), y, H)
        if self.lag:
            keep_past(self.handler, x[0], buffers.internals.past)

    def backward_pass(self, buffers: BufferView) -> None:
        x, *others = self.images(buffers)
        dy, dx, dH = self.delta_images(buffers)
        x, fresh = self.with_past(buffers, x), "default" in self.fresh
        wanted = None if "default" in self.unwanted else dx
        if self.lag and wanted is not None:
            wanted, fresh = self.handler.scratch(x.shape, 29), True
        self.convolve_back(buffers, (x, *others), (dy, wanted, dH), fresh)
        if self.lag and wanted is not None:
            self.add_deltas("default", "copy_to", wanted[:, self.lag :], dx)

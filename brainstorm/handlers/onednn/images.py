"""Convolution and pooling with oneDNN."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from brainstorm.handlers.onednn.activations import activation as activation_of
from brainstorm.handlers.onednn.activations import add_act_deriv, derives_safely
from brainstorm.handlers.onednn.binding import Memory, Primitive
from brainstorm.handlers.onednn.definitions import (
    BYTES,
    Algorithm,
    Arg,
    Layout,
    Prop,
    Query,
    UnimplementedError,
)
from brainstorm.handlers.onednn.recipes import Call, Recipe, layout
from brainstorm.handlers.onednn.session import Session
from brainstorm.handlers.programs import whole

Pair = tuple[int, int]
FUSED = frozenset({"linear", "rel", "leaky_rel", "tanh", "sigmoid"})
"""Activation functions that go along with convolutions."""


# Number of elements of temporary deltas.
_TEMPORARY_SIZE = 2**18
# x clip(alpha x, 0, 1) is the rectifier, but unlike the library's own keeps NaN. (It
# makes NaN out of minus infinity too.)
_RECTIFIER = ("eltwise", Algorithm.HARDSWISH, 1e38, 0.0)


class OneDnnImages:
    """Part of OneDnnHandler."""

    @whole
    def conv2d_forward_batch(
        self, inputs, weights, bias, outputs, padding, stride, activation="linear"
    ):
        is_fused = activation in FUSED
        call = self._find(
            convolution,
            (inputs, weights, bias, outputs),
            padding,
            tuple(stride),
            activation if is_fused else "linear",
        )
        if call:
            call()
            if not is_fused:
                self.act_func[activation](outputs, outputs)
        else:
            super().conv2d_forward_batch(
                inputs, weights, bias, outputs, padding, stride, activation
            )

    @whole
    def conv2d_backward_batch(
        self,
        inputs,
        weights,
        padding,
        stride,
        in_deltas,
        out_deltas,
        weight_deltas,
        bias_deltas,
        activation="linear",
        outputs=None,
        fresh_in_deltas=False,
        fresh_gradients=False,
    ):
        is_fused = activation in FUSED
        if not (is_fused and derives_safely(activation, outputs)):
            deltas = self.scratch(out_deltas.shape, "deltas")
            self.act_func_deriv[activation](outputs, outputs, out_deltas, deltas)
            out_deltas, activation = deltas, "linear"
        deltas = in_deltas, out_deltas, weight_deltas, bias_deltas
        call = self._find(
            convolution_backward,
            (inputs, weights, *deltas, outputs),
            padding,
            tuple(stride),
            activation,
            fresh_in_deltas,
            fresh_gradients,
        )
        if call:
            call()
        else:
            super().conv2d_backward_batch(
                inputs, weights, padding, stride, *deltas, activation, outputs,
                fresh_in_deltas, fresh_gradients,
            )  # fmt: skip

    def _pooling(
        self,
        kind: Algorithm,
        inputs: np.ndarray,
        outputs: np.ndarray,
        window: Any,
        padding: int,
        stride: Any,
    ) -> Call | bool:
        call = self._find(
            pooling,
            (inputs, outputs),
            tuple(window),
            padding,
            tuple(stride),
            kind,
        )
        if call:
            call()
        return call

    @whole
    def maxpool2d_forward_batch(self, inputs, window, outputs, padding, stride, argmax):
        kind = Algorithm.POOLING_MAX
        # The library drops NaN.
        call = inputs.size and not math.isnan(np.maximum.reduce(inputs, None))
        call = call and self._pooling(kind, inputs, outputs, window, padding, stride)
        if call:
            np.copyto(argmax, call.values)
        else:
            super().maxpool2d_forward_batch(
                inputs, window, outputs, padding, stride, argmax
            )

    @whole
    def avgpool2d_forward_batch(self, inputs, window, outputs, padding, stride):
        kind = Algorithm.POOLING_AVG
        if not self._pooling(kind, inputs, outputs, window, padding, stride):
            super().avgpool2d_forward_batch(inputs, window, outputs, padding, stride)

    @whole
    def maxpool2d_backward_batch(
        self,
        inputs,
        window,
        outputs,
        padding,
        stride,
        argmax,
        in_deltas,
        out_deltas,
        fresh_in_deltas=False,
    ):
        call = self._find(
            pooling_backward,
            (in_deltas, out_deltas),
            tuple(window),
            padding,
            tuple(stride),
            Algorithm.POOLING_MAX,
            fresh_in_deltas,
        )
        if call:
            np.copyto(call.values, argmax, casting="unsafe")
            call()
        else:
            super().maxpool2d_backward_batch(
                inputs, window, outputs, padding, stride, argmax,
                in_deltas, out_deltas, fresh_in_deltas,
            )  # fmt: skip

    @whole
    def avgpool2d_backward_batch(
        self,
        inputs,
        window,
        outputs,
        padding,
        stride,
        in_deltas,
        out_deltas,
        fresh_in_deltas=False,
    ):
        call = self._find(
            pooling_backward,
            (in_deltas, out_deltas),
            tuple(window),
            padding,
            tuple(stride),
            Algorithm.POOLING_AVG,
            fresh_in_deltas,
        )
        if call:
            call()
        else:
            super().avgpool2d_backward_batch(
                inputs, window, outputs, padding, stride,
                in_deltas, out_deltas, fresh_in_deltas,
            )  # fmt: skip


def convolution(
    session: Session,
    inputs: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray,
    outputs: np.ndarray,
    padding: int,
    stride: Pair,
    activation: str,
) -> Call:
    """``outputs = act(inputs * weights + bias)``."""
    arrays = (inputs, weights, outputs)
    recipe = Recipe(session, "conv2d_forward", arrays, _work(weights, outputs))
    x, w, y = map(_images, (inputs, weights, outputs))
    geometry = padding, stride
    primitive = _forward(recipe, x, w, bias, y, geometry, activation)
    kernels = recipe.wanted(recipe.array(w), primitive, Query.WEIGHTS, "weights")
    recipe.add(
        primitive,
        {
            Arg.SRC: recipe.array(x),
            Arg.WEIGHTS: kernels,
            Arg.BIAS: recipe.array(bias),
            Arg.DST: recipe.array(y),
        },
    )
    return recipe.call()


def convolution_backward(
    session: Session,
    inputs: np.ndarray,
    weights: np.ndarray,
    in_deltas: np.ndarray | None,
    out_deltas: np.ndarray,
    weight_deltas: np.ndarray,
    bias_deltas: np.ndarray,
    outputs: np.ndarray | None,
    padding: int,
    stride: Pair,
    activation: str,
    fresh_in_deltas: bool,
    fresh_gradients: bool,
) -> Call:
    """Gradients of `convolution`."""
    arrays = (inputs, weights, out_deltas)
    recipe = Recipe(session, "conv2d_backward", arrays, _work(weights, out_deltas))
    w, dw = _images(weights), _images(weight_deltas)
    geometry = padding, stride
    for part in _batches(out_deltas, activation):
        x, dy = _images(inputs[part]), _images(out_deltas[part])
        forward = _forward(recipe, x, w, bias_deltas, dy, geometry, "linear")
        deltas = recipe.array(dy)
        if activation != "linear":
            y = recipe.array(_images(outputs[part]))
            deltas = recipe.temporary("deltas", deltas.desc)
            add_act_deriv(recipe, y, recipe.array(dy), deltas, activation)
        fresh = fresh_gradients and part.start == 0
        _add_gradients(recipe, forward, x, deltas, dw, bias_deltas, geometry, fresh)
        if in_deltas is not None:
            dx = _images(in_deltas[part])
            _add_input_deltas(recipe, forward, w, deltas, dx, geometry, fresh_in_deltas)
    return recipe.call()


def _batches(out_deltas: np.ndarray, activation: str) -> list[slice]:
    """Parts of the batch, so that temporary deltas stay in the cache."""
    total = max(len(out_deltas), 1)
    count = total
    if activation != "linear" and out_deltas.size:
        count = max(1, _TEMPORARY_SIZE * total // out_deltas.size)
    return [slice(i, i + count) for i in range(0, total, count)]


def _forward(
    recipe: Recipe,
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray,
    y: np.ndarray,
    geometry: tuple[int, Pair],
    activation: str,
) -> Primitive:
    post_ops: tuple[tuple[Any, ...], ...] = ()
    if activation == "rel":
        post_ops = (_RECTIFIER,)
    elif activation != "linear":
        algorithm, _, alpha = activation_of(activation)
        post_ops = (("eltwise", algorithm, alpha, 0.0),)
    return recipe.primitive(
        "convolution_forward",
        Prop.FORWARD_TRAINING,
        Algorithm.CONVOLUTION_DIRECT,
        layout(x),
        Layout(w.shape),  # with kernels as they are it would be very slow
        layout(bias),
        layout(y),
        *_geometry(*geometry),
        post_ops=post_ops,
    )


def _add_gradients(
    recipe: Recipe,
    forward: Primitive,
    x: np.ndarray,
    deltas: Memory,
    dw: np.ndarray,
    dbias: np.ndarray,
    geometry: tuple[int, Pair],
    fresh: bool,
) -> None:
    """Append what computes the gradients."""
    primitive = recipe.primitive(
        "convolution_backward_weights",
        Algorithm.CONVOLUTION_DIRECT,
        layout(x),
        Layout(dw.shape),
        layout(dbias),
        deltas.desc,
        *_geometry(*geometry),
        forward,
    )
    wanted = primitive.query(Query.DIFF_WEIGHTS)
    kernels, finish_kernels = recipe.destination(
        recipe.array(dw), wanted, fresh, "weights"
    )
    bias = recipe.array(dbias)
    bias, finish_bias = recipe.destination(bias, bias.desc, fresh, "bias")
    recipe.add(
        primitive,
        {
            Arg.SRC: recipe.array(x),
            Arg.DIFF_DST: deltas,
            Arg.DIFF_WEIGHTS: kernels,
            Arg.DIFF_BIAS: bias,
        },
    )
    finish_kernels()
    finish_bias()


def _add_input_deltas(
    recipe: Recipe,
    forward: Primitive,
    w: np.ndarray,
    deltas: Memory,
    dx: np.ndarray,
    geometry: tuple[int, Pair],
    fresh: bool,
) -> None:
    """Append what computes the deltas of the inputs."""
    primitive = recipe.primitive(
        "convolution_backward_data",
        Algorithm.CONVOLUTION_DIRECT,
        layout(dx),
        Layout(w.shape),
        deltas.desc,
        *_geometry(*geometry),
        forward,
    )
    kernels = recipe.wanted(recipe.array(w), primitive, Query.WEIGHTS, "weights")
    target = recipe.array(dx)
    written, finish = recipe.destination(target, target.desc, fresh, "images")
    recipe.add(
        primitive,
        {Arg.DIFF_DST: deltas, Arg.WEIGHTS: kernels, Arg.DIFF_SRC: written},
    )
    finish()


def pooling(
    session: Session,
    inputs: np.ndarray,
    outputs: np.ndarray,
    window: Pair,
    padding: int,
    stride: Pair,
    kind: Algorithm,
) -> Call:
    """Pool images. `values` receives the indices of the largest as bytes."""
    recipe = Recipe(session, "pool2d_forward", (inputs, outputs), inputs.size)
    x, y = _images(inputs), _images(outputs)
    primitive = _pooling(recipe, x, y, window, padding, stride, kind)
    memories = {Arg.SRC: recipe.array(x), Arg.DST: recipe.array(y)}
    return _pooling_call(recipe, primitive, primitive, memories, outputs, kind)


def pooling_backward(
    session: Session,
    in_deltas: np.ndarray,
    out_deltas: np.ndarray,
    window: Pair,
    padding: int,
    stride: Pair,
    kind: Algorithm,
    fresh: bool,
) -> Call:
    """Gradients of `pooling`. `values` has to hold the indices as bytes."""
    arrays = (in_deltas, out_deltas)
    recipe = Recipe(session, "pool2d_backward", arrays, in_deltas.size)
    dx, dy = _images(in_deltas), _images(out_deltas)
    hint = _pooling(recipe, dx, dy, window, padding, stride, kind)
    primitive = recipe.primitive(
        "pooling_backward",
        kind,
        layout(dx),
        layout(dy),
        *_window(window, padding, stride),
        hint,
    )
    target = recipe.array(dx)
    written, finish = recipe.destination(target, target.desc, fresh, "images")
    memories = {Arg.DIFF_DST: recipe.array(dy), Arg.DIFF_SRC: written}
    return _pooling_call(recipe, primitive, hint, memories, out_deltas, kind, finish)


def _pooling(
    recipe: Recipe,
    x: np.ndarray,
    y: np.ndarray,
    window: Pair,
    padding: int,
    stride: Pair,
    kind: Algorithm,
) -> Primitive:
    return recipe.primitive(
        "pooling_forward",
        Prop.FORWARD_TRAINING,
        kind,
        layout(x),
        layout(y),
        *_window(window, padding, stride),
    )


def _pooling_call(
    recipe: Recipe,
    primitive: Primitive,
    forward: Primitive,
    memories: dict[Arg, Memory],
    outputs: np.ndarray,
    kind: Algorithm,
    finish: Any = lambda: None,
) -> Call:
    """Finish a call, with the indices of the largest pixels where there are such."""
    indices = None
    if kind == Algorithm.POOLING_MAX:
        indices = np.zeros(outputs.shape, np.uint8)
        expected = _images(np.zeros(outputs.shape, np.float32))
        desc = forward.query(Query.WORKSPACE)
        if desc != recipe.library.desc(layout(expected)._replace(dtype=BYTES)):
            raise UnimplementedError("expected the indices to be bytes")
        recipe.kept.append(indices)
        memories[Arg.WORKSPACE] = recipe.library.memory(desc, indices.ctypes.data)
    recipe.add(primitive, memories)
    finish()
    return recipe.call(indices)


def _work(weights: np.ndarray, outputs: np.ndarray) -> int:
    return outputs.size // len(weights) * weights.size if weights.size else 0


def _images(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2)


def _geometry(padding: int, stride: Pair) -> tuple[Pair, Pair, Pair, Pair]:
    """Strides, dilations, and padding before and after."""
    return stride, (0, 0), (padding, padding), (padding, padding)


def _window(
    window: Pair, padding: int, stride: Pair
) -> tuple[Pair, Pair, Pair, Pair, Pair]:
    """Strides, window, dilations, and padding before and after."""
    return stride, window, (0, 0), (padding, padding), (padding, padding)

"""Convolution and pooling with oneDNN."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np

from brainstorm.handlers.numpy.images import NumpyImages
from brainstorm.handlers.onednn.activations import activation as activation_of
from brainstorm.handlers.onednn.activations import add_act_deriv, derives_safely
from brainstorm.handlers.onednn.binding import Memory, Primitive
from brainstorm.handlers.onednn.definitions import (
    BYTES,
    Algorithm,
    Layout,
    Prop,
    Query,
    UnimplementedError,
)
from brainstorm.handlers.onednn.part import OneDnnPart
from brainstorm.handlers.onednn.recipes import Call, Recipe, layout
from brainstorm.handlers.operations.images import Windows

Pair = tuple[int, int]
FUSED = frozenset({"linear", "rel", "leaky_rel", "tanh", "sigmoid"})
"""Activation functions that go along with convolutions."""

# Whether the largest is taken, or the mean of what is no padding.
_KINDS = {True: Algorithm.POOLING_MAX, False: Algorithm.POOLING_AVG}
# Number of elements of temporary deltas.
_TEMPORARY_SIZE = 2**18
# x clip(alpha x, 0, 1) is the rectifier, but unlike the library's own keeps NaN. (It
# makes NaN out of minus infinity too.)
_RECTIFIER = ("eltwise", Algorithm.HARDSWISH, 1e38, 0.0)


class OneDnnImages(OneDnnPart, NumpyImages):
    """Part of OneDnnHandler."""

    def _convolve(self, inputs, weights, bias, outputs, windows, activation):
        arrays = inputs, weights, bias, outputs
        is_fused = activation in FUSED
        fused = activation if is_fused else "linear"
        if not self._does(convolution, arrays, windows, fused):
            super()._convolve(*arrays, windows, activation)
        elif not is_fused:
            self.act_func[activation](outputs, outputs)

    def _convolve_back(self, arrays, windows, activation, *fresh):
        *others, out_deltas, dW, dbias, outputs = arrays
        if not (activation in FUSED and derives_safely(activation, outputs)):
            deltas = self.scratch(out_deltas.shape, "deltas of all groups")
            self.act_func_deriv[activation](outputs, outputs, out_deltas, deltas)
            arrays, activation = (*others, deltas, dW, dbias, outputs), "linear"
        how = arrays, windows, activation, *fresh
        if not self._does(convolution_backward, *how):
            super()._convolve_back(arrays, windows, activation, *fresh)

    def _pool(self, inputs, outputs, argmax, windows):
        # The library drops NaN.
        can = argmax is None or (
            inputs.size and not math.isnan(np.maximum.reduce(inputs, None))
        )
        arrays = inputs, outputs
        call = can and self._find(pooling, arrays, windows, argmax is not None)
        if not call:
            super()._pool(*arrays, argmax, windows)
            return
        call()
        if argmax is not None:
            np.copyto(argmax, call.values)

    def _pool_back(self, argmax, in_deltas, out_deltas, windows, fresh):
        deltas, is_max = (in_deltas, out_deltas), argmax is not None
        call = self._find(pooling_backward, deltas, windows, is_max, fresh)
        if not call:
            super()._pool_back(argmax, *deltas, windows, fresh)
            return
        if is_max:
            np.copyto(call.values, argmax, casting="unsafe")
        call()


def convolution(
    session: Any,
    inputs: Any,
    weights: Any,
    bias: Any,
    outputs: Any,
    windows: Any,
    activation: Any,
) -> Call:
    """``outputs = act(inputs * weights + bias)``."""
    arrays = (inputs, weights, outputs)
    recipe = Recipe(session, "conv2d_forward", arrays, _work(weights, outputs))
    x, w, y = _images(inputs), _kernels(weights, windows), _images(outputs)
    primitive = _forward(recipe, x, w, bias, y, windows, activation)
    kernels = recipe.wanted(recipe.array(w), primitive, Query.WEIGHTS, "weights")
    source, biases, out = map(recipe.array, (x, bias, y))
    recipe.add(primitive, src=source, weights=kernels, bias=biases, dst=out)
    return recipe.call()


def convolution_backward(
    session: Any,
    inputs: Any,
    weights: Any,
    in_deltas: Any,
    out_deltas: Any,
    weight_deltas: Any,
    bias_deltas: Any,
    outputs: Any,
    windows: Any,
    activation: Any,
    fresh_in_deltas: Any,
    fresh_gradients: Any,
) -> Call:
    """Gradients of `convolution`."""
    images = inputs if in_deltas is None else in_deltas
    arrays = (images, weights, out_deltas)
    recipe = Recipe(session, "conv2d_backward", arrays, _work(weights, out_deltas))
    w = _kernels(weights, windows)
    for part in _batches(out_deltas, activation):
        x, dy = _images(images[part]), _images(out_deltas[part])
        forward = _forward(recipe, x, w, bias_deltas, dy, windows, "linear")
        common = *_geometry(windows), forward
        deltas = recipe.array(dy)
        if activation != "linear":
            y = recipe.array(_images(outputs[part]))
            deltas = recipe.temporary("deltas", deltas.desc)
            add_act_deriv(recipe, y, recipe.array(dy), deltas, activation)
        if weight_deltas is not None:
            gradients = _kernels(weight_deltas, windows), bias_deltas
            fresh, x = fresh_gradients and part.start == 0, _images(inputs[part])
            _add_gradients(recipe, x, deltas, gradients, common, fresh)
        if in_deltas is not None:
            dx = _images(in_deltas[part])
            _add_input_deltas(recipe, w, deltas, dx, common, fresh_in_deltas)
    return recipe.call()


def _batches(out_deltas: np.ndarray, activation: str) -> list[slice]:
    """Parts of the batch, so that temporary deltas stay in the cache."""
    total = max(len(out_deltas), 1)
    count = total
    if activation != "linear" and out_deltas.size:
        count = max(1, _TEMPORARY_SIZE * total // out_deltas.size)
    return [slice(i, i + count) for i in range(0, total, count)]


def _forward(recipe, x, w, bias, y, windows, activation) -> Primitive:
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
        None if bias is None else layout(bias),
        layout(y),
        *_geometry(windows),
        post_ops=post_ops,
    )


def _add_gradients(recipe, x, deltas, gradients, common, fresh) -> None:
    """Append what computes the gradients."""
    dw, dbias = (None if g is None else recipe.array(g) for g in gradients)
    primitive = recipe.primitive(
        "convolution_backward_weights",
        Algorithm.CONVOLUTION_DIRECT,
        *(layout(x), Layout(gradients[0].shape)),
        *(None if dbias is None else dbias.desc, deltas.desc),
        *common,
    )
    wanted = primitive.query(Query.DIFF_WEIGHTS)
    with contextlib.ExitStack() as results:
        result = recipe.result(dw, fresh, "weights", wanted)
        added = {"diff_weights": results.enter_context(result)}
        if dbias is not None:
            result = recipe.result(dbias, fresh, "bias")
            added["diff_bias"] = results.enter_context(result)
        recipe.add(primitive, src=recipe.array(x), diff_dst=deltas, **added)


def _add_input_deltas(recipe, w, deltas, dx, common, fresh) -> None:
    """Append what computes the deltas of the inputs."""
    primitive = recipe.primitive(
        "convolution_backward_data",
        Algorithm.CONVOLUTION_DIRECT,
        *(layout(dx), Layout(w.shape), deltas.desc),
        *common,
    )
    kernels = recipe.wanted(recipe.array(w), primitive, Query.WEIGHTS, "weights")
    with recipe.result(recipe.array(dx), fresh, "images") as images:
        recipe.add(primitive, diff_dst=deltas, weights=kernels, diff_src=images)


def pooling(session: Any, inputs: Any, outputs: Any, windows: Any, is_max: Any) -> Call:
    """Pool images. `values` receives the indices of the largest as bytes."""
    recipe = Recipe(session, "pool2d_forward", (inputs, outputs), inputs.size)
    x, y = _images(inputs), _images(outputs)
    primitive = _pooling(recipe, x, y, windows, is_max)
    indices, workspace = _indices(recipe, primitive, outputs, is_max)
    recipe.add(primitive, src=recipe.array(x), dst=recipe.array(y), **workspace)
    return recipe.call(indices)


def pooling_backward(
    session: Any, in_deltas: Any, out_deltas: Any, windows: Any, is_max: Any, fresh: Any
) -> Call:
    """Gradients of `pooling`. `values` has to hold the indices as bytes."""
    arrays = (in_deltas, out_deltas)
    recipe = Recipe(session, "pool2d_backward", arrays, in_deltas.size)
    dx, dy = map(_images, arrays)
    hint = _pooling(recipe, dx, dy, windows, is_max)
    primitive = recipe.primitive(
        *("pooling_backward", _KINDS[is_max], layout(dx), layout(dy)),
        *_geometry(windows, windows.size),
        hint,
    )
    indices, workspace = _indices(recipe, hint, out_deltas, is_max)
    with recipe.result(recipe.array(dx), fresh, "images") as images:
        recipe.add(primitive, diff_dst=recipe.array(dy), diff_src=images, **workspace)
    return recipe.call(indices)


def _pooling(recipe, x, y, windows, is_max) -> Primitive:
    return recipe.primitive(
        *("pooling_forward", Prop.FORWARD_TRAINING, _KINDS[is_max]),
        *(layout(x), layout(y)),
        *_geometry(windows, windows.size),
    )


def _indices(
    recipe, forward, outputs, is_max
) -> tuple[np.ndarray | None, dict[str, Memory]]:
    """Room for the indices of the largest pixels, if wanted, and its memory by name."""
    if not is_max:
        return None, {}
    indices = np.zeros(outputs.shape, np.uint8)
    expected = _images(np.zeros(outputs.shape, np.float32))
    desc = forward.query(Query.WORKSPACE)
    if desc != recipe.library.desc(layout(expected)._replace(dtype=BYTES)):
        raise UnimplementedError("expected the indices to be bytes")
    recipe.kept.append(indices)
    return indices, {"workspace": recipe.library.memory(desc, indices.ctypes.data)}


def _work(weights: np.ndarray, outputs: np.ndarray) -> int:
    return outputs.size // len(weights) * weights.size if weights.size else 0


def _images(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2)


def _kernels(weights: np.ndarray, windows: Windows) -> np.ndarray:
    """Kernels with the channels first; those of several groups one after the other."""
    if windows.groups == 1:
        return _images(weights)
    groups, (filters, *shape) = windows.groups, weights.shape
    parts = weights.reshape(groups, filters // groups, *shape)
    return parts.transpose(0, 1, 4, 2, 3)


def _geometry(windows: Windows, *size: Pair) -> tuple[Pair, ...]:
    """Strides, for pooling the window, dilations, and padding before and after."""
    (above, below), (left, right) = windows.margins
    (dy, dx), padding = windows.dilation, ((above, left), (below, right))
    return windows.stride, *size, (dy - 1, dx - 1), *padding

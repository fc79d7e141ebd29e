"""Convolution with oneDNN."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from brainstorm.handlers.onednn.activations import activation as activation_of
from brainstorm.handlers.onednn.activations import add_act_deriv
from brainstorm.handlers.onednn.binding import Memory, MemoryDesc, Primitive
from brainstorm.handlers.onednn.definitions import Algorithm, Layout, Prop, Query
from brainstorm.handlers.onednn.machine import cache_size
from brainstorm.handlers.onednn.recipes import Call, Recipe, layout
from brainstorm.handlers.onednn.tuning import FIRST, Way, Ways, tuned
from brainstorm.handlers.operations.images import Windows

Pair = tuple[int, int]

# x clip(alpha x, 0, 1) is the rectifier, but unlike the library's own keeps NaN. (It
# makes NaN out of minus infinity too.)
_RECTIFIER = ("eltwise", Algorithm.HARDSWISH, 1e38, 0.0)
# Some implementations, but not those that the library proposes, lose NaN here.
_ONLY_FIRST = frozenset({"sigmoid"})


def convolution(session: Any, *given: Any) -> Call:
    """``outputs = act(inputs * weights + bias)``, in the best way that is known."""
    arrays, options = given[:4], given[4:]
    _, weights, _, outputs = arrays
    _, activation = options
    written = {3: "" if activation in _ONLY_FIRST else "outputs"}
    how = options, written, _work(weights, outputs)
    return tuned(session, _convolution, arrays, *how)


def _convolution(
    session: Any,
    inputs: Any,
    weights: Any,
    bias: Any,
    outputs: Any,
    windows: Any,
    activation: Any,
    ways: Ways,
) -> Call:
    arrays = (inputs, weights, outputs)
    recipe = Recipe(session, "conv2d_forward", arrays, _work(weights, outputs))
    x, y = map(channels_first, (inputs, outputs))
    w, way = _kernels(weights, windows), ways.get("outputs", FIRST)
    primitive = _forward(recipe, x, w, bias, y, windows, activation, way)
    kernels = recipe.wanted(recipe.array(w), primitive, Query.WEIGHTS, "kernels")
    images, biases, out = map(recipe.array, (x, bias, y))
    source = recipe.wanted(images, primitive, Query.SRC, "factor")
    with recipe.result(out, True, "images", primitive.query(Query.DST)) as result:
        recipe.add(primitive, src=source, weights=kernels, bias=biases, dst=result)
    return recipe.call()


def convolution_backward(session: Any, *given: Any) -> Call:
    """Gradients of `convolution`, in the best ways that are known."""
    arrays, options = given[:7], given[7:]
    _, weights, _, out_deltas, *_ = arrays
    written = {4: "weight_deltas", 2: "in_deltas", 5: ""}
    how = options, written, _work(weights, out_deltas)
    return tuned(session, _convolution_backward, arrays, *how)


def _convolution_backward(
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
    ways: Ways,
) -> Call:
    images = inputs if in_deltas is None else in_deltas
    arrays = (images, weights, out_deltas)
    recipe = Recipe(session, "conv2d_backward", arrays, _work(weights, out_deltas))
    w = _kernels(weights, windows)
    kernels = _Kernels(recipe, w)
    sums = {}
    if weight_deltas is not None:
        dw = _kernels(weight_deltas, windows)
        sums["diff_weights"] = _Sum(recipe, dw, fresh_gradients, "gradients")
        if bias_deltas is not None:
            sums["diff_bias"] = _Sum(recipe, bias_deltas, fresh_gradients, "bias")
    threads = None if activation == "linear" else recipe.threads
    for part in parts_of(out_deltas, threads):
        x, dy = channels_first(images[part]), channels_first(out_deltas[part])
        forward = _forward(recipe, x, w, bias_deltas, dy, windows, "linear")
        common = *geometry(windows), forward
        deltas = recipe.array(dy)
        if activation != "linear":
            y = recipe.array(channels_first(outputs[part]))
            deltas = recipe.temporary("deltas", deltas.desc)
            add_act_deriv(recipe, y, recipe.array(dy), deltas, activation)
        deltas = recipe.converted(deltas, layout(dy), "second factor")
        how = deltas, recipe.factor(layout(dy)), common
        if weight_deltas is not None:
            x, way = channels_first(inputs[part]), ways.get("weight_deltas", FIRST)
            _add_gradients(recipe, x, w, bias_deltas, sums, *how, way)
        if in_deltas is not None:
            dx, way = channels_first(in_deltas[part]), ways.get("in_deltas", FIRST)
            _add_input_deltas(recipe, kernels, dx, fresh_in_deltas, *how, way)
    for each in sums.values():
        each.finish()
    return recipe.call()


class _Kernels:
    """Kernels in the formats that primitives want, each of them made once."""

    def __init__(self, recipe: Recipe, kernels: np.ndarray):
        self.shape: tuple[int, ...] = kernels.shape
        self._recipe = recipe
        self._formats = [recipe.array(kernels)]

    def wanted(self, primitive: Primitive) -> Memory:
        """The kernels as a primitive wants them."""
        desc = primitive.query(Query.WEIGHTS)
        for memory in self._formats:
            if memory.desc == desc:
                return memory
        slot = f"kernels {len(self._formats)}"
        self._formats.append(
            self._recipe.wanted(self._formats[0], primitive, Query.WEIGHTS, slot)
        )
        return self._formats[-1]


class _Sum:
    """The sum of what parts of the batch give, in the format that they give it in."""

    def __init__(self, recipe: Recipe, array: np.ndarray, fresh: bool, slot: str):
        self._recipe, self._fresh, self._slot = recipe, fresh, slot
        self._result = recipe.array(array)
        self._total: Memory | None = None

    @contextlib.contextmanager
    def next(self, desc: MemoryDesc | None = None) -> Iterator[Memory]:
        """What to write for the next part."""
        recipe = self._recipe
        desc = desc or self._result.desc
        if self._total is None:
            is_direct = self._fresh and desc == self._result.desc
            self._total = (
                self._result if is_direct else recipe.temporary(self._slot, desc)
            )
            yield self._total
        else:
            if desc == self._total.desc:
                desc = self._total.desc  # so that all add up with one primitive
            written = recipe.temporary(f"{self._slot} of a part", desc)
            yield written
            recipe.reorder(written, self._total, add=True)

    def finish(self) -> None:
        """Bring the sum where it belongs."""
        if self._total is not None and self._total is not self._result:
            self._recipe.reorder(self._total, self._result, add=not self._fresh)


def parts_of(images: np.ndarray, threads: int | None) -> list[slice]:
    """Parts of a batch that so many threads find in their caches; None is the whole.

    They are equal if a few more of them are, or else differ by one image. Each thread
    has an image of its own, if there are enough.
    """
    total = max(len(images), 1)
    count = 1
    if threads is not None:
        most = max(1, total // threads)
        needed = -(-images.nbytes // (threads * cache_size()))
        count = max(1, min(needed, most))
        more = range(count, min(2 * count, most + 1))
        equal = (n for n in more if total % n == 0)
        count = next(equal, count)
    ends = [total * n // count for n in range(count + 1)]
    return [slice(*ends[n : n + 2]) for n in range(count)]


def _forward(recipe, x, w, bias, y, windows, activation, way=FIRST) -> Primitive:
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
        _in_way(way, recipe.factor(layout(x))),
        # With kernels as they are it would be very slow.
        recipe.factor(Layout(w.shape)),
        None if bias is None else layout(bias),
        _in_way(way, layout(y)),
        *geometry(windows),
        post_ops=post_ops,
        number=way.number,
    )


def _add_gradients(
    recipe, x, w, bias, sums, deltas, deltas_layout, common, way
) -> None:
    """Append what computes the gradients."""
    primitive = recipe.primitive(
        "convolution_backward_weights",
        Algorithm.CONVOLUTION_DIRECT,
        *(_in_way(way, recipe.factor(layout(x))), Layout(w.shape)),
        *(None if bias is None else layout(bias), _in_way(way, deltas_layout)),
        *common,
        number=way.number,
    )
    wanted = {"diff_weights": primitive.query(Query.DIFF_WEIGHTS), "diff_bias": None}
    source = recipe.wanted(recipe.array(x), primitive, Query.SRC, "factor")
    deltas = recipe.wanted(deltas, primitive, Query.DIFF_DST, "blocked deltas")
    with contextlib.ExitStack() as results:
        added = {
            name: results.enter_context(each.next(wanted[name]))
            for name, each in sums.items()
        }
        recipe.add(primitive, src=source, diff_dst=deltas, **added)


def _add_input_deltas(
    recipe, kernels, dx, fresh, deltas, deltas_layout, common, way
) -> None:
    """Append what computes the deltas of the inputs."""
    primitive = recipe.primitive(
        "convolution_backward_data",
        Algorithm.CONVOLUTION_DIRECT,
        *(_in_way(way, layout(dx)), recipe.factor(Layout(kernels.shape))),
        _in_way(way, deltas_layout),
        *common,
        number=way.number,
    )
    weights = kernels.wanted(primitive)
    deltas = recipe.wanted(deltas, primitive, Query.DIFF_DST, "blocked deltas")
    desc = primitive.query(Query.DIFF_SRC)
    with recipe.result(recipe.array(dx), fresh, "images", desc) as images:
        recipe.add(primitive, diff_dst=deltas, weights=weights, diff_src=images)


def _in_way(way: Way, images: Layout) -> Layout:
    """The layout of images, or that the library chooses one."""
    return images._replace(strides=None) if way.blocked else images


def _work(weights: np.ndarray, outputs: np.ndarray) -> int:
    return outputs.size // len(weights) * weights.size if weights.size else 0


def channels_first(images: np.ndarray) -> np.ndarray:
    """Images (N, H, W, C) in the library's order."""
    return images.transpose(0, 3, 1, 2)


def _kernels(weights: np.ndarray, windows: Windows) -> np.ndarray:
    """Kernels with the channels first; those of several groups one after the other."""
    if windows.groups == 1:
        return channels_first(weights)
    groups, (filters, *shape) = windows.groups, weights.shape
    parts = weights.reshape(groups, filters // groups, *shape)
    return parts.transpose(0, 1, 4, 2, 3)


def geometry(windows: Windows, *size: Pair) -> tuple[Pair, ...]:
    """Strides, for pooling the window, dilations, and padding before and after."""
    (above, below), (left, right) = windows.margins
    (dy, dx), padding = windows.dilation, ((above, left), (below, right))
    return windows.stride, *size, (dy - 1, dx - 1), *padding

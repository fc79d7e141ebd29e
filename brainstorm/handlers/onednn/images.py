"""Convolution and pooling with oneDNN."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from brainstorm.handlers.numpy.images import NumpyImages
from brainstorm.handlers.onednn.binding import Memory, Primitive
from brainstorm.handlers.onednn.convolutions import (
    channels_first,
    convolution,
    convolution_backward,
    geometry,
    parts_of,
)
from brainstorm.handlers.onednn.definitions import (
    Algorithm,
    Prop,
    Query,
    UnimplementedError,
)
from brainstorm.handlers.onednn.part import OneDnnPart
from brainstorm.handlers.onednn.recipes import Call, Recipe, layout

FUSED = frozenset({"linear", "rel", "leaky_rel", "tanh", "sigmoid"})
"""Activation functions that go along with convolutions."""

# Whether the largest is taken, or the mean of what is no padding.
_KINDS = {True: Algorithm.POOLING_MAX, False: Algorithm.POOLING_AVG}


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
        if activation not in FUSED:
            *others, out_deltas, dW, dbias, outputs = arrays
            deltas = self.scratch(out_deltas.shape, "deltas of all groups")
            self.act_func_deriv[activation](outputs, outputs, out_deltas, deltas)
            arrays, activation = (*others, deltas, dW, dbias, outputs), "linear"
        how = arrays, windows, activation, *fresh
        if not self._does(convolution_backward, *how):
            super()._convolve_back(arrays, windows, activation, *fresh)

    def _pool(self, inputs, outputs, argmax, windows):
        call = self._find(pooling, (inputs, outputs, argmax), windows)
        if call:
            call()
            # The library drops NaN.
            seen = inputs if call.values is None else call.values
            if argmax is None or not math.isnan(np.maximum.reduce(seen, None)):
                return
        super()._pool(inputs, outputs, argmax, windows)

    def _pool_back(self, argmax, in_deltas, out_deltas, windows, fresh):
        arrays = argmax, in_deltas, out_deltas
        if not self._does(pooling_backward, arrays, windows, fresh):
            super()._pool_back(*arrays, windows, fresh)


def pooling(session: Any, inputs: Any, outputs: Any, argmax: Any, windows: Any) -> Call:
    """Pool images.

    With `argmax`, `values` receives the sum of each image, which is NaN if a pixel is;
    or there are none. A part of the batch is summed up, to be in the cache, and pooled.
    """
    recipe = Recipe(session, "pool2d_forward", (inputs, outputs), inputs.size)
    can_sum = argmax is not None and inputs.flags.c_contiguous
    sums = np.zeros((len(inputs), 1), np.float32) if can_sum else None
    for part in parts_of(inputs, recipe.threads if can_sum else None):
        if sums is not None and not _add_sums(recipe, inputs[part], sums[part]):
            sums = None
        x, y = channels_first(inputs[part]), channels_first(outputs[part])
        primitive, workspace = _pooling(recipe, x, y, windows, argmax is not None)
        recipe.add(primitive, src=recipe.array(x), dst=recipe.array(y), **workspace)
        if argmax is not None:
            indices = recipe.array(channels_first(argmax[part]))
            recipe.reorder(workspace["workspace"], indices)
    return recipe.call(sums)


def _add_sums(recipe: Recipe, images: np.ndarray, sums: np.ndarray) -> bool:
    """Append what sums up each image, if the library can do it well."""
    rows = recipe.array(images.reshape(len(images), math.prod(images.shape[1:])))
    out = recipe.kept_array(sums)
    descs = rows.desc, out.desc
    try:
        primitive = recipe.primitive(
            "reduction", Algorithm.REDUCTION_SUM, *descs, 0.0, 0.0
        )
    except UnimplementedError:
        return False
    recipe.add(primitive, src=rows, dst=out)
    return True


def pooling_backward(
    session: Any, argmax: Any, in_deltas: Any, out_deltas: Any, windows: Any, fresh: Any
) -> Call:
    """Gradients of `pooling`."""
    arrays = (in_deltas, out_deltas)
    recipe = Recipe(session, "pool2d_backward", arrays, in_deltas.size)
    is_max = argmax is not None
    dx, dy = map(channels_first, arrays)
    hint, workspace = _pooling(recipe, dx, dy, windows, is_max)
    primitive = recipe.primitive(
        *("pooling_backward", _KINDS[is_max], layout(dx), layout(dy)),
        *geometry(windows, windows.size),
        hint,
    )
    if is_max:
        indices = recipe.array(channels_first(argmax))
        recipe.reorder(indices, workspace["workspace"])
    with recipe.result(recipe.array(dx), fresh, "images") as images:
        recipe.add(primitive, diff_dst=recipe.array(dy), diff_src=images, **workspace)
    return recipe.call()


def _pooling(recipe, x, y, windows, is_max) -> tuple[Primitive, dict[str, Memory]]:
    """What pools, and room for the indices of the largest pixels as it has them."""
    primitive = recipe.primitive(
        *("pooling_forward", Prop.FORWARD_TRAINING, _KINDS[is_max]),
        *(layout(x), layout(y)),
        *geometry(windows, windows.size),
    )
    if not is_max:
        return primitive, {}
    indices = recipe.temporary("indices", primitive.query(Query.WORKSPACE))
    return primitive, {"workspace": indices}

"""Batch and layer normalisation with oneDNN."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np

from brainstorm.handlers.onednn.arithmetic import add_binary
from brainstorm.handlers.onednn.binding import Primitive
from brainstorm.handlers.onednn.definitions import (
    Algorithm,
    Layout,
    Prop,
    UnimplementedError,
)
from brainstorm.handlers.onednn.part import OneDnnPart
from brainstorm.handlers.onednn.recipes import Call, Recipe, layout
from brainstorm.handlers.operations.normalisation import NormalisationOperations

_MANY_ROWS = 2**16
NO_FLAGS = 0
SCALE_AND_SHIFT = 2 | 4


class OneDnnNormalisation(OneDnnPart, NormalisationOperations):
    """Part of OneDnnHandler."""

    def batch_norm_forward(
        self,
        x: Any,
        gamma: Any,
        beta: Any,
        mu: Any,
        sigma: Any,
        sigma_b: Any,
        centered: Any,
        x_hat: Any,
        y: Any,
        decay: float,
        epsilon: float,
    ) -> None:
        call = x.size >= self._large and len(x) <= _MANY_ROWS
        call = call and self._find(
            batch_norm, (x, gamma, beta, centered, x_hat, y), float(epsilon)
        )
        if not call:
            super().batch_norm_forward(
                x, gamma, beta, mu, sigma, sigma_b, centered, x_hat, y, decay, epsilon
            )
            return
        self.do(call)
        mean, variance = call.values
        self.do(np.add, variance, self.number(epsilon), sigma_b)
        self.do(np.sqrt, sigma_b, sigma_b)
        work = self.scratch(mean.shape, 2)
        for running, value, sign in ((mu, mean, -1.0), (sigma, sigma_b, 1.0)):
            self.do(np.multiply, running, decay, running)
            self.do(np.multiply, value, sign * (1.0 - decay), work)
            self.do(np.add, running, work, running)

    def batch_norm_inference(
        self, x: Any, gamma: Any, beta: Any, mu: Any, sigma: Any, y: Any
    ) -> None:
        factor = self.scratch(gamma.shape, 2)
        arrays = x, beta, mu, factor, y
        call = x.size >= self._large and self._find(batch_norm_inference, arrays)
        if call:
            self.do(np.divide, gamma, sigma, factor)
            self.do(call)
        else:
            super().batch_norm_inference(x, gamma, beta, mu, sigma, y)

    def _batch_norm_back(self, arrays, *fresh) -> None:
        gamma, sigma_b, centered, _, dy, *results = arrays
        call = dy.size >= self._large and len(dy) <= _MANY_ROWS
        used = gamma, centered, dy, *results
        call = call and self._find(batch_norm_backward, used, *fresh)
        if call:
            self.do(np.multiply, sigma_b, sigma_b, call.values[1])
            self.do(call)
        else:
            super()._batch_norm_back(arrays, *fresh)

    def layer_norm_forward(
        self,
        x: Any,
        gamma: Any,
        beta: Any,
        mean: Any,
        sigma: Any,
        y: Any,
        epsilon: float,
    ) -> None:
        arrays = x, gamma, beta, mean, sigma, y
        if x.size < self._large or not self._does(layer_norm, arrays, float(epsilon)):
            super().layer_norm_forward(*arrays, epsilon)
            return
        self.do(np.add, sigma, self.number(epsilon), sigma)
        self.do(np.sqrt, sigma, sigma)

    def layer_norm_backward(
        self,
        x: Any,
        gamma: Any,
        mean: Any,
        sigma: Any,
        dy: Any,
        dx: Any,
        dgamma: Any,
        dbeta: Any,
        fresh_dx: bool = False,
        fresh_gradients: bool = False,
    ) -> None:
        arrays = x, gamma, mean, dy, dx, dgamma, dbeta
        fresh = fresh_dx, fresh_gradients
        call = x.size >= self._large and self._find(layer_norm_backward, arrays, *fresh)
        if call:
            self.do(np.multiply, sigma[:, 0], sigma[:, 0], call.values)
            self.do(call)
        else:
            super().layer_norm_backward(x, gamma, mean, sigma, *arrays[3:], *fresh)


def batch_norm(
    session: Any,
    x: Any,
    gamma: Any,
    beta: Any,
    centered: Any,
    x_hat: Any,
    y: Any,
    epsilon: Any,
) -> Call:
    """Training pass; `values` (2, C) receive the mean and the variance."""
    recipe = Recipe(session, "batch_norm_forward", (x, gamma))
    statistics = np.empty((2, x.shape[1]), np.float32)
    mean, variance = map(recipe.kept_array, statistics)
    primitive = _forward(recipe, x, epsilon, NO_FLAGS)
    source, target = (recipe.array(_images(rows)) for rows in (x, x_hat))
    recipe.add(primitive, src=source, dst=target, mean=mean, variance=variance)
    row = recipe.kept_array(statistics[:1])
    add_binary(recipe, Algorithm.SUBTRACT, recipe.array(x), row, recipe.array(centered))
    scale, shift = (recipe.array(v[np.newaxis]) for v in (gamma, beta))
    x_hat, y = map(recipe.array, (x_hat, y))
    then = ((Algorithm.ADD, shift),)
    add_binary(recipe, Algorithm.MULTIPLY, x_hat, scale, y, then=then)
    return recipe.call(statistics)


def batch_norm_inference(
    session: Any, x: Any, beta: Any, mu: Any, factor: Any, y: Any
) -> Call:
    """``y = (x + mu) factor + beta``."""
    recipe = Recipe(session, "batch_norm_inference", (x, beta))
    mu, factor, beta = (recipe.array(v.reshape(1, -1)) for v in (mu, factor, beta))
    then = ((Algorithm.MULTIPLY, factor), (Algorithm.ADD, beta))
    add_binary(recipe, Algorithm.ADD, recipe.array(x), mu, recipe.array(y), then=then)
    return recipe.call()


def batch_norm_backward(
    session: Any,
    gamma: Any,
    centered: Any,
    dy: Any,
    dx: Any,
    dgamma: Any,
    dbeta: Any,
    fresh_dx: Any,
    fresh_gradients: Any,
) -> Call:
    """Gradients of `batch_norm`; `values` (2, C) have to hold zeros and variances."""
    recipe = Recipe(session, "batch_norm_backward", (centered, gamma))
    statistics = np.zeros((2, len(gamma)), np.float32)
    mean, variance = map(recipe.kept_array, statistics)
    deltas = recipe.array(_images(dy))
    primitive = recipe.primitive(
        *("batch_normalization_backward", Prop.BACKWARD),
        *(deltas.desc, deltas.desc, deltas.desc, 0.0, SCALE_AND_SHIFT),
        _forward(recipe, centered, 0.0, SCALE_AND_SHIFT),
    )
    with (
        recipe.result(recipe.array(dgamma), fresh_gradients, "scale") as scale,
        recipe.result(recipe.array(dbeta), fresh_gradients, "shift") as shift,
        contextlib.ExitStack() as wanted,
    ):
        if dx is None:
            inputs = recipe.temporary("inputs", deltas.desc)
        else:
            inputs = recipe.array(_images(dx))
            inputs = wanted.enter_context(recipe.result(inputs, fresh_dx, "inputs"))
        known = {"src": recipe.array(_images(centered)), "scale": recipe.array(gamma)}
        known |= {"mean": mean, "variance": variance, "diff_dst": deltas}
        written = {"diff_src": inputs, "diff_scale": scale, "diff_shift": shift}
        recipe.add(primitive, **known, **written)
    return recipe.call(statistics)


def layer_norm(
    session: Any,
    x: Any,
    gamma: Any,
    beta: Any,
    mean: Any,
    variance: Any,
    y: Any,
    epsilon: Any,
) -> Call:
    """Layer normalisation, which computes variances, too."""
    _check_dense(x, gamma, beta, mean, variance, y)
    recipe = Recipe(session, "layer_norm_forward", (x, gamma))
    primitive = _layer_forward(recipe, x, epsilon)
    known = {"src": recipe.array(x), "dst": recipe.array(y)}
    known |= {"scale": recipe.array(gamma), "shift": recipe.array(beta)}
    per_row = recipe.array(mean[:, 0]), recipe.array(variance[:, 0])
    recipe.add(primitive, **known, mean=per_row[0], variance=per_row[1])
    return recipe.call()


def layer_norm_backward(
    session: Any,
    x: Any,
    gamma: Any,
    mean: Any,
    dy: Any,
    dx: Any,
    dgamma: Any,
    dbeta: Any,
    fresh_dx: Any,
    fresh_gradients: Any,
) -> Call:
    """Gradients of `layer_norm`; `values` (M,) have to hold the variances."""
    _check_dense(x, gamma, mean, dy, dx, dgamma, dbeta)
    recipe = Recipe(session, "layer_norm_backward", (x, gamma))
    statistics = np.ones(len(x), np.float32)
    source, deltas, mean = map(recipe.array, (x, dy, mean[:, 0]))
    primitive = recipe.primitive(
        *("layer_normalization_backward", Prop.BACKWARD),
        *(deltas.desc, deltas.desc, source.desc, mean.desc, 0.0, SCALE_AND_SHIFT),
        _layer_forward(recipe, x, 0.0),
    )
    known = {"src": source, "mean": mean, "variance": recipe.kept_array(statistics)}
    # It wants a shift, but does not look at it.
    known |= {"diff_dst": deltas} | dict.fromkeys(
        ("scale", "shift"), recipe.array(gamma)
    )
    with (
        recipe.result(recipe.array(dgamma), fresh_gradients, "scale") as scale,
        recipe.result(recipe.array(dbeta), fresh_gradients, "shift") as shift,
        contextlib.ExitStack() as wanted,
    ):
        if dx is None:
            inputs = recipe.temporary("inputs", deltas.desc)
        else:
            result = recipe.result(recipe.array(dx), fresh_dx, "inputs")
            inputs = wanted.enter_context(result)
        recipe.add(
            primitive, **known, diff_src=inputs, diff_scale=scale, diff_shift=shift
        )
    return recipe.call(statistics)


def _layer_forward(recipe, x, epsilon) -> Primitive:
    kind = "layer_normalization_forward", Prop.FORWARD_TRAINING
    per_row = Layout((len(x),), (1,))
    rows = layout(x)
    return recipe.primitive(*kind, rows, rows, per_row, epsilon, SCALE_AND_SHIFT)


def _check_dense(*arrays: np.ndarray | None) -> None:
    if any(array is not None and not array.flags.c_contiguous for array in arrays):
        # The library overlooks gaps.
        raise UnimplementedError("expected rows that lie side by side")


def _forward(recipe, x, epsilon, flags) -> Primitive:
    images = layout(_images(x))
    kind = "batch_normalization_forward"
    prop = Prop.FORWARD_TRAINING
    return recipe.primitive(kind, prop, images, images, epsilon, flags)


def _images(rows: np.ndarray) -> np.ndarray:
    """Rows (M, C) as if they were images, which the library is faster with."""
    if not rows.flags.c_contiguous:
        raise UnimplementedError("expected rows that lie side by side")
    count, channels = rows.shape
    images = math.gcd(count, 64) or 1
    shape = (images, count // images, 1, channels)
    return rows.reshape(shape).transpose(0, 3, 1, 2)

"""Convolution of every handler, against loops over windows in float64."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainstorm.handlers import NumpyHandler
from brainstorm.handlers.numpy import images
from tests.handlers.handler_cases import Arrays, check, quick, seeds
from tests.handlers.windows import (
    output_size,
    pad,
    pairs,
    strides,
    unpad,
    windows,
)

ACTIVATIONS = {
    "linear": (lambda h: h, lambda h: np.ones_like(h)),
    "rel": (lambda h: np.maximum(h, 0), lambda h: 1.0 * (h > 0)),
    "tanh": (np.tanh, lambda h: 1 / np.cosh(h) ** 2),
    "sigmoid": (
        lambda h: 1 / (1 + np.exp(-h)),
        lambda h: 1 / (2 + np.exp(h) + np.exp(-h)),
    ),
    "el": (
        lambda h: np.where(h < 0, np.exp(np.minimum(h, 0)) - 1, h),
        lambda h: np.where(h < 0, np.exp(h), 1),
    ),
    "softplus": (lambda h: np.log1p(np.exp(h)), lambda h: 1 / (1 + np.exp(-h))),
    "leaky_rel": (
        lambda h: np.where(h > 0, h, 0.01 * h),
        lambda h: np.where(h > 0, 1, 0.01),
    ),
}


# -- formulas --------------------------------------------------------------------


def convolve(x, W, bias, stride, padding):
    window = W.shape[1:3]
    size = output_size(x, window, stride, padding)
    h = np.zeros((len(x), *size, len(W)))
    padded = pad(x, padding)
    for place, seen in windows(x, window, stride, padding):
        h[place] = np.einsum("nklc,fklc->nf", padded[seen], W) + bias
    return h


def convolution_gradients(x, W, dh, stride, padding):
    padded, dW = pad(x, padding), np.zeros(W.shape)
    dx = np.zeros(padded.shape)
    for place, seen in windows(x, W.shape[1:3], stride, padding):
        dW += np.einsum("nklc,nf->fklc", padded[seen], dh[place])
        dx[seen] += np.einsum("nf,fklc->nklc", dh[place], W)
    return unpad(dx, padding), dW, dh.sum((0, 1, 2))


def spread(W, dilation, groups):
    """Kernels of ordinary convolutions that do the same, with many zeros."""
    F, kh, kw, D = W.shape
    (dy, dx), part = dilation, F // groups
    same = np.zeros((F, dy * (kh - 1) + 1, dx * (kw - 1) + 1, groups * D))
    for f in range(F):
        start = f // part * D
        same[f, ::dy, ::dx, start : start + D] = W[f]
    return same


def gathered(same, W, dilation, groups):
    """Undo `spread`."""
    F, D, (dy, dx), part = len(W), W.shape[3], dilation, len(W) // groups
    starts = [f // part * D for f in range(F)]
    return np.stack([same[f, ::dy, ::dx, s : s + D] for f, s in enumerate(starts)])


def margins_of(padding):
    return ((padding,) * 2,) * 2 if isinstance(padding, int) else padding


def widened(x, padding):
    return np.pad(x, ((0, 0), *margins_of(padding), (0, 0)))


def narrowed(x, padding):
    (top, bottom), (left, right) = margins_of(padding)
    return x[:, top : x.shape[1] - bottom, left : x.shape[2] - right]


# -- drawing cases ---------------------------------------------------------------


@st.composite
def convolutions(draw):
    """The shape of the images, window, stride and padding."""
    window, padding = draw(pairs), draw(st.integers(0, 4))
    size = [max(1, k - 2 * padding) + draw(st.integers(0, 5)) for k in window]
    shape = (draw(st.integers(0, 3)), *size, draw(st.integers(0, 3)))
    return shape, window, draw(strides), padding


# -- convolution -----------------------------------------------------------------


def run_convolution(handler, case, filters, seed, activation, strided, fresh, inner):
    """Both passes; `inner` tells whether input deltas are wanted."""
    shape, window, stride, padding = case
    arrays = Arrays(handler, seed, strided)
    act, slope = ACTIVATIONS[activation]
    x, W = arrays.randn(*shape), arrays.randn(filters, *window, shape[3], scale=0.5)
    bias = arrays.randn(filters)
    images, weights = arrays.put(x), arrays.put(W)

    h = convolve(x, W, bias, stride, padding)
    y = arrays.garbage(h.shape)
    bias = arrays.flat().put(bias)
    assert (
        handler.conv2d_forward_batch(
            images, weights, bias, y, padding, stride, activation
        )
        is None
    )
    check(handler, y, act(h), scale=10)

    dy = arrays.randn(*h.shape)
    dx, dW, dbias = convolution_gradients(x, W, dy * slope(h), stride, padding)
    deltas = arrays.put(dy)
    in_deltas, dx_before = arrays.destination(arrays.randn(*shape), fresh)
    gradients = [
        arrays.destination(arrays.randn(*W.shape), fresh),
        arrays.flat().destination(arrays.randn(filters), fresh),
    ]
    handler.conv2d_backward_batch(
        images,
        weights,
        padding,
        stride,
        in_deltas if inner else None,
        deltas,
        gradients[0][0],
        gradients[1][0],
        activation,
        None if activation == "linear" else y,
        fresh_in_deltas=fresh,
        fresh_gradients=fresh,
    )
    if inner:
        check(handler, in_deltas, dx_before + dx, scale=30)
    for (array, before), gradient in zip(gradients, (dW, dbias), strict=True):
        check(handler, array, before + gradient, scale=100)
    check(handler, deltas, dy)
    check(handler, images, x)
    check(handler, weights, W)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@given(
    case=convolutions(),
    filters=st.integers(1, 3),
    seed=seeds,
    strided=st.booleans(),
    fresh=st.booleans(),
    inner=st.booleans(),
)
@quick
def test_convolution(handler, case, filters, seed, activation, strided, fresh, inner):
    run_convolution(handler, case, filters, seed, activation, strided, fresh, inner)


# In blocks of the given size: several images, one image, rows, less than a row.
@pytest.mark.parametrize("size", [10**6, 3000, 700, 200, 1])
@pytest.mark.parametrize(
    "case",
    [
        ((3, 9, 8, 2), (3, 2), (1, 1), 1),
        ((3, 9, 8, 2), (3, 2), (2, 3), 1),
        ((2, 8, 8, 3), (4, 4), (4, 4), 0),
        ((2, 9, 9, 2), (2, 3), (5, 4), 3),
        ((3, 6, 5, 2), (6, 5), (1, 1), 0),
        ((3, 6, 5, 2), (1, 1), (1, 1), 0),
    ],
)
@pytest.mark.parametrize("strided", [False, True])
def test_convolution_in_blocks(monkeypatch, size, case, strided):
    monkeypatch.setattr(images, "_MATRIX_SIZE", size)
    for fresh in (False, True):
        run_convolution(
            NumpyHandler(np.float64), case, 4, 0, "tanh", strided, fresh, True
        )


@st.composite
def general_convolutions(draw):
    """A shape of images, W's shape, stride, padding, dilation and groups."""
    window, dilation = draw(pairs), draw(pairs)
    counts = st.tuples(st.integers(0, 3), st.integers(0, 3))
    padding = draw(st.one_of(st.integers(0, 3), st.tuples(counts, counts)))
    extent = [d * (k - 1) + 1 for d, k in zip(dilation, window, strict=True)]
    size = [
        max(1, e - sum(m)) + draw(st.integers(0, 4))
        for e, m in zip(extent, margins_of(padding), strict=True)
    ]
    groups, D, part = (draw(st.integers(1, 3)) for _ in range(3))
    shape = (draw(st.integers(1, 3)), *size, groups * D)
    return shape, (groups * part, *window, D), draw(strides), padding, dilation, groups


@pytest.mark.parametrize("activation", ["linear", "tanh", "softplus"])
@given(
    case=general_convolutions(),
    seed=seeds,
    strided=st.booleans(),
    fresh=st.booleans(),
    inner=st.booleans(),
)
@quick
def test_dilation_groups_and_margins(
    handler, case, seed, activation, strided, fresh, inner
):
    shape, w_shape, stride, padding, dilation, groups = case
    arrays, filters = Arrays(handler, seed, strided), w_shape[0]
    act, slope = ACTIVATIONS[activation]
    x, W, bias = arrays.randn(*shape), arrays.randn(*w_shape), arrays.randn(filters)
    same, wide = spread(W, dilation, groups), widened(x, padding)
    h = convolve(wide, same, bias, stride, 0)
    images, weights, y = arrays.put(x), arrays.put(W), arrays.garbage(h.shape)
    options = {"dilation": dilation, "groups": groups}
    where = padding, stride
    handler.conv2d_forward_batch(
        images, weights, arrays.flat().put(bias), y, *where, activation, **options
    )
    check(handler, y, act(h), scale=10)

    dy = arrays.randn(*h.shape)
    dx, dW, dbias = convolution_gradients(wide, same, dy * slope(h), stride, 0)
    in_deltas, dx_before = arrays.destination(arrays.randn(*shape), fresh)
    gradients = [
        arrays.destination(arrays.randn(*W.shape), fresh),
        arrays.flat().destination(arrays.randn(filters), fresh),
    ]
    handler.conv2d_backward_batch(
        *(images, weights, *where, in_deltas if inner else None, arrays.put(dy)),
        *(gradients[0][0], gradients[1][0], activation, y),
        *(fresh, fresh),
        **options,
    )
    if inner:
        check(handler, in_deltas, dx_before + narrowed(dx, padding), scale=30)
    dW = gathered(dW, W, dilation, groups)
    for (array, before), gradient in zip(gradients, (dW, dbias), strict=True):
        check(handler, array, before + gradient, scale=100)


@pytest.mark.parametrize("activation", ["linear", "tanh"])
@given(
    case=general_convolutions(),
    seed=seeds,
    strided=st.booleans(),
    fresh=st.booleans(),
    inner=st.booleans(),
)
@quick
def test_transposed_convolution(handler, case, seed, activation, strided, fresh, inner):
    """Its inputs are the outputs of a convolution, whose adjoint it is."""
    shape, w_shape, stride, padding, dilation, groups = case
    arrays, channels = Arrays(handler, seed, strided), shape[3]
    act, slope = ACTIVATIONS[activation]
    W, bias, dy = arrays.randn(*w_shape), arrays.randn(channels), arrays.randn(*shape)
    same, wide = spread(W, dilation, groups), widened(np.zeros(shape), padding)
    no_bias = np.zeros(w_shape[0])
    x = arrays.randn(*convolve(wide, same, no_bias, stride, 0).shape)
    h, *_ = convolution_gradients(wide, same, x, stride, 0)
    h = narrowed(h, padding) + bias
    images, weights, y = arrays.put(x), arrays.put(W), arrays.garbage(shape)
    options = {"dilation": dilation, "groups": groups}
    where = padding, stride
    handler.conv2d_transpose_forward_batch(
        images, weights, arrays.flat().put(bias), y, *where, activation, **options
    )
    check(handler, y, act(h), scale=30)

    dh = dy * slope(h)
    dx = convolve(widened(dh, padding), same, no_bias, stride, 0)
    _, dW, _ = convolution_gradients(widened(dh, padding), same, x, stride, 0)
    in_deltas, dx_before = arrays.destination(arrays.randn(*x.shape), fresh)
    gradients = [
        arrays.destination(arrays.randn(*W.shape), fresh),
        arrays.flat().destination(arrays.randn(channels), fresh),
    ]
    handler.conv2d_transpose_backward_batch(
        *(images, weights, *where, in_deltas if inner else None, arrays.put(dy)),
        *(gradients[0][0], gradients[1][0], activation, y),
        *(fresh, fresh),
        **options,
    )
    if inner:
        check(handler, in_deltas, dx_before + dx, scale=100)
    dW, dbias = gathered(dW, W, dilation, groups), dh.sum((0, 1, 2))
    for (array, before), gradient in zip(gradients, (dW, dbias), strict=True):
        check(handler, array, before + gradient, scale=100)


def test_kernels_are_not_flipped(handler):
    x = np.arange(6.0).reshape(1, 2, 3, 1)
    y = handler.zeros((1, 1, 2, 1))
    W = np.array([[1.0, 10.0], [100.0, 1000.0]]).reshape(1, 2, 2, 1)
    put = handler.create_from_numpy
    handler.conv2d_forward_batch(put(x), put(W), put(np.ones(1)), y, 0, (1, 1))
    expected = [0 + 10 + 300 + 4000 + 1, 1 + 20 + 400 + 5000 + 1]
    check(handler, y, np.reshape(expected, (1, 1, 2, 1)))


def test_activation_is_known(handler):
    image = handler.zeros((1, 1, 1, 1))
    with pytest.raises(KeyError, match="'tanh'"):
        handler.conv2d_forward_batch(
            image,
            image,
            handler.zeros((1,)),
            handler.zeros((1, 1, 1, 1)),
            0,
            (1, 1),
            "x",
        )


# -- memory ----------------------------------------------------------------------


@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
def test_nothing_is_allocated_after_the_first_call(stride):
    handler = NumpyHandler(np.float32)
    x, dx = handler.ones((6, 32, 32, 8)), handler.zeros((6, 32, 32, 8))
    y, argmax, dy = (
        handler.ones((6, 32 // stride[0], 32 // stride[1], 8)) for _ in range(3)
    )
    W, dW = handler.ones((8, 3, 3, 8)), handler.ones((8, 3, 3, 8))
    bias, dbias = handler.ones((8,)), handler.ones((8,))

    def passes(fresh):
        handler.conv2d_forward_batch(x, W, bias, y, 1, stride, "rel")
        handler.conv2d_backward_batch(
            x, W, 1, stride, dx, dy, dW, dbias, "rel", y, fresh, fresh
        )
        handler.maxpool2d_forward_batch(x, (3, 3), y, 1, stride, argmax)
        handler.maxpool2d_backward_batch(x, (3, 3), y, 1, stride, argmax, dx, dy, fresh)
        handler.avgpool2d_forward_batch(x, (3, 3), y, 1, stride)
        handler.avgpool2d_backward_batch(x, (3, 3), y, 1, stride, dx, dy, fresh)

    for fresh in (True, False):
        passes(fresh)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for fresh in (True, False):
            passes(fresh)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert peak < 12000  # views and small objects of Python's

"""Pooling of every handler, against loops over windows in float64."""

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

inf, nan = float("inf"), float("nan")


# -- formulas --------------------------------------------------------------------


def maxpool(x, window, stride, padding):
    """The largest values, and their index in the window."""
    shape = (len(x), *output_size(x, window, stride, padding), x.shape[3])
    y, argmax = np.zeros(shape), np.zeros(shape)
    padded = pad(x, padding, nan)
    for (n, i, j, c), _ in np.ndenumerate(y):
        real = {}
        for k, (a, b) in enumerate(np.ndindex(*window)):
            value = padded[n, i * stride[0] + a, j * stride[1] + b, c]
            if not np.isnan(value):
                real[k] = value
        y[n, i, j, c] = max(real.values())
        argmax[n, i, j, c] = min(k for k in real if real[k] == y[n, i, j, c])
    return y, argmax


def maxpool_gradients(x, argmax, dy, window, stride, padding):
    dx = np.zeros(pad(x, padding).shape)
    for (n, i, j, c), k in np.ndenumerate(argmax):
        a, b = divmod(int(k), window[1])
        dx[n, i * stride[0] + a, j * stride[1] + b, c] += dy[n, i, j, c]
    return unpad(dx, padding)


def avgpool(x, window, stride, padding):
    shape = (len(x), *output_size(x, window, stride, padding), x.shape[3])
    y, padded = np.zeros(shape), pad(x, padding, nan)
    for place, seen in windows(x, window, stride, padding):
        real = ~np.isnan(padded[seen])
        y[place] = np.where(real, padded[seen], 0).sum((1, 2)) / real.sum((1, 2))
    return y


def avgpool_gradients(x, dy, window, stride, padding):
    padded = pad(x, padding, nan)
    dx = np.zeros(padded.shape)
    for place, seen in windows(x, window, stride, padding):
        real = ~np.isnan(padded[seen])
        share = dy[place] / real.sum((1, 2))
        dx[seen] += real * share[:, np.newaxis, np.newaxis]
    return unpad(dx, padding)


# -- drawing cases ---------------------------------------------------------------


@st.composite
def poolings(draw):
    window = draw(pairs)
    padding = draw(st.integers(0, min(window) - 1))
    size = [max(1, k - 2 * padding) + draw(st.integers(0, 5)) for k in window]
    shape = (draw(st.integers(0, 3)), *size, draw(st.integers(0, 3)))
    return shape, window, draw(strides), padding


# -- pooling ---------------------------------------------------------------------


def run_pooling(handler, kind, case, seed, strided, fresh, levels=3):
    """Both passes; images have `levels` different values, so there are ties."""
    shape, window, stride, padding = case
    arrays = Arrays(handler, seed, strided)
    x = arrays.rnd.randint(-levels, levels, shape) / 4.0
    images = arrays.put(x)
    size = (len(x), *output_size(x, window, stride, padding), shape[3])
    y, dy = arrays.garbage(size), arrays.randn(*size)
    deltas = arrays.put(dy)
    in_deltas, before = arrays.destination(arrays.randn(*shape), fresh)
    common = (window, y, padding, stride)
    if kind == "max":
        expected, index = maxpool(x, window, stride, padding)
        argmax = arrays.garbage(size)
        assert handler.maxpool2d_forward_batch(images, *common, argmax) is None
        check(handler, argmax, index)
        dx = maxpool_gradients(x, index, dy, window, stride, padding)
        handler.maxpool2d_backward_batch(
            images, *common, argmax, in_deltas, deltas, fresh
        )
        check(handler, argmax, index)
    else:
        expected = avgpool(x, window, stride, padding)
        assert handler.avgpool2d_forward_batch(images, *common) is None
        dx = avgpool_gradients(x, dy, window, stride, padding)
        handler.avgpool2d_backward_batch(images, *common, in_deltas, deltas, fresh)
    check(handler, y, expected)
    check(handler, in_deltas, before + dx, scale=30)
    check(handler, deltas, dy)
    check(handler, images, x)


@pytest.mark.parametrize("kind", ["max", "avg"])
@given(case=poolings(), seed=seeds, strided=st.booleans(), fresh=st.booleans())
@quick
def test_pooling(handler, kind, case, seed, strided, fresh):
    run_pooling(handler, kind, case, seed, strided, fresh)


@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize("size", [150, 1])
@pytest.mark.parametrize("strided", [False, True])
def test_pooling_in_batches(monkeypatch, kind, size, strided):
    monkeypatch.setattr(images, "_IMAGES_SIZE", size)
    case = ((5, 5, 6, 2), (3, 2), (2, 1), 1)
    run_pooling(NumpyHandler(np.float64), kind, case, 0, strided, True)


@pytest.mark.parametrize("window", [(15, 17), (16, 16), (17, 20)])  # 255, 256, 340
def test_maxpool_of_large_windows(handler, window):
    case = ((2, window[0] + 1, window[1] + 1, 1), window, (1, 1), 0)
    run_pooling(handler, "max", case, 0, False, True, levels=200)


def pool_one(handler, values):
    """Pool one image with windows of 2 x 2 and padding 1."""
    x = handler.create_from_numpy(np.reshape(values, (1, 2, 2, 1)))
    y, argmax = handler.zeros((1, 3, 3, 1)), handler.zeros((1, 3, 3, 1))
    handler.maxpool2d_forward_batch(x, (2, 2), y, 1, (1, 1), argmax)
    return y.reshape(3, 3), argmax.reshape(3, 3)


@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("shape", [(2, 300, 1, 3), (3, 4, 5, 2), (1, 1, 1, 4)])
def test_maxpool_of_whole_images(handler, shape, strided, fresh):
    case = shape, shape[1:3], (1, 1), 0
    run_pooling(handler, "max", case, 0, strided, fresh)


def test_maxpool_of_whole_images_passes_nan_on():
    handler = NumpyHandler(np.float64)
    x = np.array([[-inf, -inf], [1.0, inf], [nan, 0], [2, nan], [nan, inf]])
    y, argmax = handler.zeros((1, 1, 1, 2)), handler.zeros((1, 1, 1, 2))
    image = handler.create_from_numpy(x.reshape(1, 5, 1, 2))
    handler.maxpool2d_forward_batch(image, (5, 1), y, 0, (1, 1), argmax)
    assert np.isnan(y).all()
    assert argmax.ravel().tolist() == [2, 3]


def test_padding_never_wins():
    for lowest in (-inf, np.finfo(np.float64).min):
        y, argmax = pool_one(NumpyHandler(np.float64), [lowest] * 4)
        np.testing.assert_array_equal(y, np.full((3, 3), lowest))
        # The first place in the window that is not padding.
        np.testing.assert_array_equal(argmax, [[3, 2, 2], [1, 0, 0], [1, 0, 0]])


def test_maxpool_passes_nan_on():
    y, argmax = pool_one(NumpyHandler(np.float64), [1.0, nan, inf, 3.0])
    np.testing.assert_array_equal(y, [[1, nan, nan], [inf, nan, nan], [inf, inf, 3]])
    np.testing.assert_array_equal(argmax[0], [3, 2, 2])


def test_infinite_and_huge_values():
    y, argmax = pool_one(NumpyHandler(np.float64), [1e300, -inf, inf, -1e300])
    expected = [[1e300, 1e300, -inf], [inf, inf, -1e300], [inf, inf, -1e300]]
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(argmax, [[3, 2, 2], [3, 2, 2], [1, 0, 0]])

"""How exact operations are, on every handler: all digits, at any size and value."""

import math

import numpy as np
import pytest

from brainstorm.handlers import DebugHandler, NumpyHandler, OneDnnHandler
from brainstorm.utils import HandlerError
from tests.handlers.handler_cases import (
    ComposedHandler,
    check,
    onednn_handler,
    run_to_the_end,
)

FLOATS = [np.float16, np.float32, np.float64, np.longdouble]


def exact_sigmoid(x):
    x = np.asarray(x, np.longdouble)
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


# -- activation functions ----------------------------------------------------------


@pytest.mark.parametrize("repeat", [1, 5000])
def test_sigmoid_has_all_digits(handler, repeat):
    single = np.dtype(handler.dtype) == np.float32
    x = np.linspace(-80, 80, 33) if single else np.linspace(-700, 700, 57)
    x_ = handler.create_from_numpy(np.tile(x, repeat))
    y_ = handler.zeros((len(x) * repeat,))
    handler.sigmoid(x_, y_)
    got = handler.get_numpy_copy(y_).reshape(repeat, -1)
    tolerance = 2e-6 if single else 1e-14
    np.testing.assert_allclose(got, np.tile(exact_sigmoid(x), (repeat, 1)), tolerance)


@pytest.mark.parametrize("repeat", [1, 5000])
def test_el_has_all_digits(handler, repeat):
    x = np.concatenate([-np.logspace(-20, 1.5, 44), np.logspace(-20, 1.5, 4)])
    x = x.astype(np.float32)  # what all handlers can hold
    x_ = handler.create_from_numpy(np.tile(x, repeat))
    y_ = handler.zeros((len(x) * repeat,))
    handler.el(x_, y_)
    got = handler.get_numpy_copy(y_).reshape(repeat, -1)
    exact = np.where(x < 0, np.expm1(np.float64(x)), x)
    single = np.dtype(handler.dtype) == np.float32
    np.testing.assert_allclose(
        got, np.tile(exact, (repeat, 1)), 1e-6 if single else 1e-14
    )


@pytest.mark.parametrize("dtype", FLOATS)
def test_sigmoids_of_all_types(dtype):
    handler = NumpyHandler(dtype)
    lowest = 1.2 * float(np.log(np.finfo(dtype).max))
    x = np.linspace(-lowest, lowest, 401).astype(dtype)
    y = handler.zeros(x.shape)
    handler.sigmoid(x, y)
    info = np.finfo(dtype)
    # NumPy's exp may give 0 instead of what is subnormal, but not in half floats.
    smallest = info.smallest_subnormal if dtype is np.float16 else info.tiny
    exact = exact_sigmoid(x)
    error = np.abs(y.astype(np.longdouble) - exact)
    assert (error <= 4 * info.eps * exact + 2 * smallest).all()
    handler.swish(x, y)
    error = np.abs(y.astype(np.longdouble) - x * exact)
    assert (error <= 8 * info.eps * np.abs(x * exact) + 99 * smallest).all()
    ends = np.array([-np.inf, np.inf, np.nan, -info.max, info.max], dtype)
    out = handler.zeros(ends.shape)
    handler.sigmoid(ends, out)
    np.testing.assert_array_equal(out, [0, 1, np.nan, 0, 1])
    handler.gelu(ends, out)
    np.testing.assert_array_equal(out, [0, np.inf, np.nan, 0, info.max])


# -- losses ------------------------------------------------------------------------


@pytest.mark.parametrize("repeat", [1, 3000])
@pytest.mark.parametrize("target", [0.0, 1.0, 0.5, 0.25])
def test_sigmoid_ce_has_all_digits(handler, target, repeat):
    x = np.linspace(-18, 18, 145).astype(np.float32).astype(np.float64)
    largest = -math.log(1e-6)
    of_one = np.minimum(np.logaddexp(0, -x), largest)
    of_zero = np.minimum(np.logaddexp(0, x), largest)
    x_ = handler.create_from_numpy(np.tile(x, repeat))
    t_ = handler.create_from_numpy(np.full(x.size * repeat, target))
    p_, loss_ = handler.zeros(tuple(x_.shape)), handler.zeros(tuple(x_.shape))
    handler.sigmoid_ce_forward(x_, t_, p_, loss_)
    got = handler.get_numpy_copy(loss_).reshape(repeat, -1)
    expected = target * of_one + (1 - target) * of_zero
    single = np.dtype(handler.dtype) == np.float32
    # Those made of primitives take the logarithm of 1 + e.
    tolerance = (2e-6, 2e-7) if single else (1e-13, 1e-15)
    np.testing.assert_allclose(got, np.tile(expected, (repeat, 1)), *tolerance)


@pytest.mark.parametrize("rows", [1, 600])
def test_softmax_ce_has_all_digits(handler, rows, request):
    if rows > 1 and request.node.callspec.params["handler"] == "cuda-emulated":
        pytest.skip("takes long, and a GPU does not look at the size")
    # The probability of class 1 goes from 1e-6 to almost 1.
    logits = np.linspace(-13, 20, 12).astype(np.float32).astype(np.float64)
    x = np.zeros((len(logits) * rows, 3))
    x[:, 1] = np.tile(logits, rows)
    expected = np.log1p(2 * np.exp(-x[:, 1]))
    arrays = [handler.zeros(x.shape), handler.zeros((len(x), 1))]
    x_, targets_ = handler.create_from_numpy(x), handler.ones((len(x), 1))
    handler.softmax_ce_forward(x_, targets_, *arrays)
    got = handler.get_numpy_copy(arrays[1])[:, 0]
    single = np.dtype(handler.dtype) == np.float32
    np.testing.assert_allclose(
        got, expected, *((2e-6, 3e-7) if single else (1e-13, 1e-15))
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_losses_of_short_types(dtype):
    handler = NumpyHandler(dtype)
    x = np.linspace(-20, 20, 81).astype(dtype)
    t = np.zeros_like(x)
    p, loss = handler.zeros(x.shape), handler.zeros(x.shape)
    handler.sigmoid_ce_forward(x, t, p, loss)
    exact = np.minimum(np.logaddexp(0, x.astype(float)), -math.log(1e-6))
    np.testing.assert_allclose(loss, exact, 4 * np.finfo(dtype).eps, 1e-6)
    rows = np.stack([x, t], 1)
    loss = handler.zeros((len(x), 1))
    handler.softmax_ce_forward(
        rows, np.ones((len(x), 1), dtype), handler.zeros(rows.shape), loss
    )
    np.testing.assert_allclose(loss[:, 0], exact, 4 * np.finfo(dtype).eps, 2e-3)


# -- sums --------------------------------------------------------------------------


SUMS = {
    "equal": lambda shape: np.full(shape, 0.1),
    "random": lambda shape: np.random.RandomState(0).rand(*shape),
}


@pytest.mark.parametrize("values", SUMS)
@pytest.mark.parametrize("layout", ["dense", "cut", "transposed"])
@pytest.mark.parametrize("shape", [(1_000_000, 3), (200_003, 7), (3, 1_000_000)])
def test_sums_keep_their_digits(shape, layout, values):
    handler = NumpyHandler(np.float32)
    a = SUMS[values](shape).astype(np.float32)
    if layout == "cut":
        a = np.pad(a, 2)[1:-3, 1:-3]
    elif layout == "transposed":
        a = np.ascontiguousarray(a.T).T
    for axis in (0, 1, None):
        exact = a.sum(axis, dtype=np.float64)
        out = np.zeros(np.shape(exact), np.float32)
        handler.sum_t(a, axis, out)
        np.testing.assert_allclose(out, exact, 1e-6)
    out = np.zeros(a.shape[1], np.float32)
    for fresh in (True, False):
        handler._sum_rows(a, out, fresh)
    np.testing.assert_allclose(out, 2 * a.sum(0, dtype=np.float64), 1e-6)


@pytest.mark.parametrize("rows", [1, 127, 128, 129, 255, 256, 257, 1000, 16385, 40000])
def test_sums_of_any_number_of_rows(handler, rows):
    a = np.random.RandomState(rows).rand(rows, 3)
    a_, out_ = handler.create_from_numpy(a), handler.zeros((1, 3))
    handler.sum_t(a_, 0, out_)
    exact = handler.get_numpy_copy(a_).sum(0, dtype=np.float64)
    single = np.dtype(handler.dtype) == np.float32
    np.testing.assert_allclose(
        handler.get_numpy_copy(out_)[0], exact, 5e-6 if single else 1e-14
    )


def test_batch_norm_of_many_rows():
    handler, rows = NumpyHandler(np.float32), 300_000
    x = (np.random.RandomState(0).randn(rows, 4) + 5).astype(np.float32)
    vectors = [np.zeros(4, np.float32) for _ in range(3)]
    arrays = [handler.zeros(x.shape) for _ in range(3)]
    gamma, beta = handler.ones((4,)), handler.zeros((4,))
    handler.batch_norm_forward(x, gamma, beta, *vectors, *arrays, 0.9, 1e-5)
    wide = x.astype(float)
    expected = (wide - wide.mean(0)) / np.sqrt(wide.var(0) + 1e-5)
    np.testing.assert_allclose(arrays[1], expected, 1e-5, 5e-6)


# -- indices -----------------------------------------------------------------------

BAD = [-1, 3, 5, 1.5, 0.5, -0.5, 2.9999998, 1e10, -1e10]
NOT_FINITE = [np.nan, np.inf, -np.inf]


def index_calls(handler, indices, classes=3):
    """Operations that take indices, with their arguments."""
    rows = len(indices)
    v = handler.create_from_numpy(np.reshape(indices, (rows, 1)))
    wide, tall = (rows, classes), (classes, 2)
    zeros, ones = handler.zeros, handler.ones
    return {
        "binarize_v": (v, zeros(wide)),
        "index_m_by_v": (zeros(wide), v, zeros((rows, 1))),
        "take_rows": (zeros(tall), v, zeros((rows, 2))),
        "add_to_rows": (ones((rows, 2)), v, zeros(tall)),
        "softmax_ce_forward": (zeros(wide), v, zeros(wide), zeros((rows, 1))),
        "softmax_ce_backward": (
            v,
            zeros(wide),
            ones((rows, 1)),
            zeros(wide),
            zeros(wide),
        ),
    }


@pytest.mark.parametrize("name", index_calls(NumpyHandler(), [0]))
def test_indices_have_to_be_there(handler, name):
    is_debug = isinstance(handler, DebugHandler)
    for bad in BAD + NOT_FINITE * (not is_debug):
        for indices in ([bad, 0], [0, 1, bad], [0] * 40 + [bad]):
            arguments = index_calls(handler, indices)[name]
            value = float(handler.dtype(bad))
            if 0 <= value < 3 and value == round(value):
                continue
            with pytest.raises(HandlerError, match="indices .*from 0 to 2") as error:
                run_to_the_end(handler, name, *arguments)
            assert repr(value) in str(error.value)


@pytest.mark.parametrize("name", ["binarize_v", "index_m_by_v", "softmax_ce_backward"])
@pytest.mark.parametrize("classes", [2999, 20000])
@pytest.mark.parametrize("bad", [-1, 2.5, 30000])
def test_indices_of_many_classes(name, classes, bad):
    for dtype in (np.float16, np.float32):
        handler = NumpyHandler(dtype)
        good = index_calls(handler, [0, 2, 2000], classes)[name]
        getattr(handler, name)(*good)
        if name == "binarize_v":
            assert np.argwhere(good[-1]).tolist() == [[0, 0], [1, 2], [2, 2000]]
        arguments = index_calls(handler, [0, bad], classes)[name]
        with pytest.raises(HandlerError, match=f"indices .*from 0 to {classes - 1}"):
            getattr(handler, name)(*arguments)


def test_indices_beyond_what_a_short_type_tells_apart():
    handler = NumpyHandler(np.float16)
    m, out = handler.zeros((1, 2999)), handler.zeros((1, 1))
    handler.index_m_by_v(m, np.array([[2998]], np.float16), out)
    with pytest.raises(HandlerError, match="got 3000.0"):
        handler.index_m_by_v(m, np.array([[3000]], np.float16), out)


def test_a_refused_index_changes_nothing():
    handler = NumpyHandler()
    for fresh in (False, True):
        out = handler.ones((3, 2))
        v = np.array([[0], [4]], np.float32)
        with pytest.raises(HandlerError):
            handler.add_to_rows(handler.ones((2, 2)), v, out, fresh)
        assert (out == 1).all()


@pytest.mark.parametrize("bad", [-1, 5, np.nan, np.inf])
@pytest.mark.parametrize("kind", [NumpyHandler, ComposedHandler])
def test_lengths_have_to_be_there(kind, bad):
    handler = kind(np.float64)
    lengths = np.array([[1.0], [bad]])
    x, out, loss = np.zeros((4, 2, 3)), np.zeros((4, 2, 3)), np.zeros((2, 1))
    with pytest.raises(HandlerError, match="lengths .* from 0 to 4"):
        handler.reverse_steps(x, lengths, out)
    with pytest.raises(HandlerError, match="lengths .* from 0 to 4"):
        handler.ctc_forward(x, np.zeros((4, 2, 1)), lengths, out, out.copy(), loss)


# -- norms and updates -------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", [NumpyHandler, ComposedHandler, OneDnnHandler])
def test_norms_of_huge_and_tiny_rows(kind, dtype):
    if kind is OneDnnHandler and dtype is np.float64:
        pytest.skip("it has no float64")
    handler = onednn_handler() if kind is OneDnnHandler else kind(dtype)
    info = np.finfo(dtype)
    for size, limit in [
        (1e20, 1.0),
        (float(info.max) / 100, 1.0),
        (float(info.max) / 100, float(info.max) / 200),
        (1e-25, 1e-28),
        (float(info.tiny) * 1e6, float(info.tiny) * 1e3),
        (float(info.tiny) * 1e6, 1.0),
    ]:
        rows = np.array(
            [[size, 0, 0], [-size, size, size], [0, 0, 0], [size, 0, -size]]
        )
        for m in (rows, np.tile(rows[1:2], 5)):
            m = m.astype(dtype)
            wide = m.astype(np.longdouble)
            norms = np.sqrt((wide**2).sum(1, keepdims=True))
            handler.constrain_rows(m, limit, np.zeros((len(m), 1), dtype))
            expected = wide / np.maximum(1, norms / limit)
            np.testing.assert_allclose(m, expected.astype(float), 20 * info.eps)


@pytest.mark.parametrize("kind", [NumpyHandler, OneDnnHandler])
def test_a_long_row_of_huge_values(kind):
    handler = onednn_handler() if kind is OneDnnHandler else kind(np.float32)
    row = np.full((1, 50_000), 1e20, np.float32)
    handler.constrain_rows(row, 2.0, np.zeros((1, 1), np.float32))
    np.testing.assert_allclose(row, 2 / math.sqrt(50_000), 1e-6)


@pytest.mark.parametrize("kind", [NumpyHandler, OneDnnHandler])
def test_norms_of_long_rows(kind):
    handler = onednn_handler() if kind is OneDnnHandler else kind(np.float32)
    rows = np.random.RandomState(0).rand(3, 1_000_000).astype(np.float32) + 0.5
    norms = np.sqrt((rows.astype(np.float64) ** 2).sum(1, keepdims=True))
    expected = rows / norms
    handler.constrain_rows(rows, 1.0, np.zeros((3, 1), np.float32))
    np.testing.assert_allclose(rows, expected, 1e-6)


@pytest.mark.parametrize(
    ("name", "states", "scalars"),
    [
        ("adam_update", 2, (0.1, 0.9, 0.999, 1e-8, 0.0, 1)),
        ("rms_prop_update", 1, (0.1, 0.9, 1e-8)),
        ("ada_grad_update", 1, (0.1, 1e-8)),
        ("ada_delta_update", 2, (0.1, 0.9, 1e-8)),
    ],
)
def test_epsilons_that_a_short_type_can_not_hold(name, states, scalars):
    p, g = np.ones(3, np.float16), np.zeros(3, np.float16)
    state = [np.zeros(3, np.float16) for _ in range(states)]
    update = getattr(NumpyHandler(np.float16), name)
    with pytest.raises(HandlerError, match=r"epsilon = 1e-08 is zero in float16"):
        update(p, g, *state, *scalars)
    assert p.tolist() == [1, 1, 1]
    update(p, g, *state, *[1e-3 if s == 1e-8 else s for s in scalars])
    assert p.tolist() == [1, 1, 1]
    wide = [a.astype(np.float32) for a in (p, g, *state)]
    getattr(NumpyHandler(np.float32), name)(*wide, *scalars)
    assert wide[0].tolist() == [1, 1, 1]


def test_sum_of_all_elements_takes_any_single_element(handler):
    a = handler.create_from_numpy(np.arange(6.0).reshape(2, 3))
    for shape in [(), (1,), (1, 1), (1, 1, 1)]:
        out = handler.zeros(shape)
        handler.sum_t(a, None, out)
        check(handler, out, np.full(shape, 15.0))

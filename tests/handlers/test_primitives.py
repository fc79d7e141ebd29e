"""Primitive operations of every handler, against formulas in float64."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainstorm.handlers import DebugHandler
from brainstorm.utils import HandlerError
from tests.handlers.handler_cases import (
    Arrays,
    check,
    matrices,
    quick,
    seeds,
    shapes,
    sizes,
)

inf, nan = float("inf"), float("nan")


# name: number of arrays read, formula of these and of what `out` held before
ELEMENTWISE = {
    "abs_t": (1, lambda a, out: np.where(a < 0, -a, a)),
    "add_tt": (2, lambda a, b, out: a + b),
    "divide_tt": (2, lambda a, b, out: a / b),
    "log_t": (1, lambda a, out: np.log(a)),
    "modulo_tt": (2, lambda a, b, out: a - np.floor(a / b) * b),
    "mult_add_tt": (2, lambda a, b, out: out + a * b),
    "mult_tt": (2, lambda a, b, out: a * b),
    "sign_t": (1, lambda a, out: 1.0 * (a > 0) - 1.0 * (a < 0)),
    "sqrt_t": (1, lambda a, out: a**0.5),
    "subtract_tt": (2, lambda a, b, out: a - b),
    "copy_to": (1, lambda a, out: a),
}
POSITIVE = ("log_t", "sqrt_t", "modulo_tt", "divide_tt")


def run_elementwise(handler, name, shape, seed, strided, alias):
    """Run an operation, with `out` being input number `alias` if there is one."""
    count, formula = ELEMENTWISE[name]
    arrays = Arrays(handler, seed, strided)
    values = [arrays.randn(*shape) for _ in range(count)]
    if name in POSITIVE:
        values = [np.abs(v) + 0.5 for v in values]
        values = [v.astype(handler.dtype).astype(float) for v in values]
    inputs = [arrays.put(v) for v in values]
    before = arrays.randn(*shape)
    if alias < count:
        before, out = values[alias], inputs[alias]
    else:
        out = arrays.put(before)
    assert getattr(handler, name)(*inputs, out) is None
    check(handler, out, formula(*values, before), scale=10)
    for i, (value, array) in enumerate(zip(values, inputs, strict=True)):
        if i != alias:
            check(handler, array, value)


@pytest.mark.parametrize("name", ELEMENTWISE)
@given(shape=shapes, seed=seeds, strided=st.booleans(), alias=st.integers(0, 3))
@quick
def test_elementwise(handler, name, shape, seed, strided, alias):
    run_elementwise(handler, name, shape, seed, strided, alias)


@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("shape", [(3, 7001), (1, 20000), (20000, 1)])
@pytest.mark.parametrize("name", ["mult_add_tt", "divide_tt"])
def test_elementwise_large(handler, name, shape, strided):
    run_elementwise(handler, name, shape, 0, strided, alias=3)


@given(shape=shapes, seed=seeds, strided=st.booleans(), s=st.floats(-5, 5))
@quick
def test_scalar_and_tensor(handler, shape, seed, strided, s):
    run_scalar_and_tensor(handler, shape, seed, strided, s)


@pytest.mark.parametrize("strided", [False, True])
def test_scalar_and_tensor_large(handler, strided):
    run_scalar_and_tensor(handler, (3, 7001), 0, strided, 0.3)


def run_scalar_and_tensor(handler, shape, seed, strided, s):
    arrays = Arrays(handler, seed, strided)
    t, before = arrays.randn(*shape), arrays.randn(*shape)
    for name, expected in [
        ("add_st", s + t),
        ("mult_st", s * t),
        ("mult_add_st", before + s * t),
    ]:
        array, out = arrays.put(t), arrays.put(before)
        assert getattr(handler, name)(s, array, out) is None
        check(handler, out, expected, scale=10)
        check(handler, array, t)
    array = arrays.put(t)
    handler.mult_add_st(s, array, array)
    check(handler, array, t + s * t, scale=10)


def test_scalars_of_numpy(handler):
    out = handler.ones((3,))
    handler.mult_st(np.float64(0.5), out, out)
    handler.add_st(np.int64(2), out, out)
    check(handler, out, [2.5] * 3)


@given(
    shape=shapes,
    seed=seeds,
    strided=st.booleans(),
    limits=st.sampled_from([(-0.5, 0.7), (0.0, inf), (-inf, 0.1), (0.2, 0.2)]),
)
@quick
def test_clip(handler, shape, seed, strided, limits):
    arrays = Arrays(handler, seed, strided)
    a = arrays.randn(*shape)
    array, out = arrays.put(a), arrays.garbage(shape)
    expected = np.where(a < limits[0], limits[0], np.where(a > limits[1], limits[1], a))
    handler.clip_t(array, *limits, out)
    check(handler, out, expected)
    handler.clip_t(array, *limits, array)
    check(handler, array, expected)


@given(
    shape=shapes,
    seed=seeds,
    strided=st.booleans(),
    value=st.floats(-3, 3),
    alias=st.booleans(),
)
@quick
def test_conditional(handler, shape, seed, strided, value, alias):
    run_conditional(handler, shape, seed, strided, value, alias)


@pytest.mark.parametrize("strided", [False, True])
def test_conditional_large(handler, strided):
    run_conditional(handler, (3, 7001), 0, strided, 0.5, True)


def run_conditional(handler, shape, seed, strided, value, alias):
    arrays = Arrays(handler, seed, strided)
    a, before = arrays.randn(*shape), arrays.randn(*shape)
    cond = arrays.randn(*shape) * np.asarray(arrays.rnd.randint(0, 2, shape))
    for run, expected in [
        (lambda a, out, c: handler.copy_to_if(a, out, c), a),
        (lambda a, out, c: handler.add_into_if(a, out, c), before + a),
        (lambda a, out, c: handler.fill_if(out, value, c), np.full(shape, value)),
    ]:
        out = arrays.put(before)
        run(arrays.put(a), out, arrays.put(cond))
        check(handler, out, np.where(cond != 0, expected, before), scale=10)
    if alias:
        out = arrays.put(cond)
        handler.copy_to_if(arrays.put(a), out, out)
        check(handler, out, np.where(cond != 0, a, 0))
        array, out = arrays.put(a), arrays.put(before)
        handler.add_into_if(array, out, array)
        check(handler, out, before + a, scale=10)


MATRIX_VECTOR = {
    "add_mv": lambda m, v, out: m + v,
    "subtract_mv": lambda m, v, out: m - v,
    "mult_mv": lambda m, v, out: m * v,
    "divide_mv": lambda m, v, out: m / v,
    "mult_add_mv": lambda m, v, out: out + m * v,
}


def run_matrix_vector(handler, name, shape, axis, seed, strided, alias):
    arrays = Arrays(handler, seed, strided)
    m, before = arrays.randn(*shape), arrays.randn(*shape)
    shape_v = {0: (1, shape[1]), 1: (shape[0], 1), None: shape}[axis]
    v = np.sign(arrays.randn(*shape_v)) * 1.5
    array, vector, out = arrays.put(m), arrays.put(v), arrays.put(before)
    if alias:
        out, before = array, m
    getattr(handler, name)(array, vector, out)
    check(handler, out, MATRIX_VECTOR[name](m, v, before), scale=10)
    check(handler, vector, v)


@pytest.mark.parametrize("name", MATRIX_VECTOR)
@given(
    shape=matrices,
    axis=st.sampled_from([0, 1]),
    seed=seeds,
    strided=st.booleans(),
    alias=st.booleans(),
)
@quick
def test_matrix_and_vector(handler, name, shape, axis, seed, strided, alias):
    run_matrix_vector(handler, name, shape, axis, seed, strided, alias)


@pytest.mark.parametrize("name", ["mult_mv", "mult_add_mv"])
@pytest.mark.parametrize("axis", [0, 1, None])
@pytest.mark.parametrize("shape", [(4, 3), (300, 70), (1, 20000), (20000, 1)])
def test_matrix_and_vector_or_matrix(handler, name, axis, shape):
    run_matrix_vector(handler, name, shape, axis, 0, False, False)


@given(m=sizes, n=sizes, k=sizes, seed=seeds, strided=st.booleans())
@quick
def test_products(handler, m, n, k, seed, strided):
    arrays = Arrays(handler, seed, strided)
    a, b, before = arrays.randn(m, k), arrays.randn(k, n), arrays.randn(m, n)
    product = np.zeros((m, n))
    for i in range(k):
        product += a[:, i : i + 1] * b[i]
    for transa in (False, True):
        for transb in (False, True):
            first = arrays.put(a.T if transa else a)
            second = arrays.put(b.T if transb else b)
            out = arrays.garbage((m, n))
            handler.dot_mm(first, second, out, transa, transb)
            check(handler, out, product, scale=10)
            out = arrays.put(before)
            handler.dot_add_mm(first, second, out, transa=transa, transb=transb)
            check(handler, out, before + product, scale=10)


@given(count=sizes, m=sizes, n=sizes, k=sizes, seed=seeds, strided=st.booleans())
@quick
def test_batches_of_products(handler, count, m, n, k, seed, strided):
    arrays = Arrays(handler, seed, strided)
    a, b = arrays.randn(count, m, k), arrays.randn(count, k, n)
    before = arrays.randn(count, m, n)
    product = np.einsum("bmk,bkn->bmn", a, b)

    def laid_out(values, transpose, is_middle):
        """The matrices side by side, or the rows of one apart by those of others."""
        values = values.swapaxes(1, 2) if transpose else values
        if is_middle:
            return arrays.put(values.swapaxes(0, 1)).swapaxes(0, 1)
        return arrays.put(values)

    for flags in itertools.product((False, True), repeat=3):
        transa, transb, is_middle = flags
        first, second = laid_out(a, transa, is_middle), laid_out(b, transb, is_middle)
        out = laid_out(np.full((count, m, n), np.nan), False, is_middle)
        handler.batch_dot_mm(first, second, out, transa, transb)
        check(handler, out, product, scale=10)
        out = laid_out(before, False, is_middle)
        handler.batch_dot_add_mm(first, second, out, transa=transa, transb=transb)
        check(handler, out, before + product, scale=10)


@given(shape=matrices, seed=seeds, strided=st.booleans())
@quick
def test_sum(handler, shape, seed, strided):
    arrays = Arrays(handler, seed, strided)
    a = arrays.randn(*shape)
    rows, cols = shape
    array = arrays.put(a)
    total = sum(a[i, j] for i in range(rows) for j in range(cols))
    over_rows = [sum(a[:, j]) for j in range(cols)]
    over_cols = [sum(a[i]) for i in range(rows)]
    for axis, out_shape, expected in [
        (None, (1,), [total]),
        (None, (1, 1), [[total]]),
        (0, (cols,), over_rows),
        (0, (1, cols), [over_rows]),
        (1, (rows,), over_cols),
        (1, (rows, 1), np.reshape(over_cols, (rows, 1))),
    ]:
        out = arrays.garbage(out_shape)
        handler.sum_t(array, axis, out)
        check(handler, out, expected, scale=10)
    if rows:
        vector, out = arrays.put(a[0]), arrays.garbage((1,))
        handler.sum_t(vector, 0, out)
        check(handler, out, [sum(a[0])], scale=10)


@given(shape=matrices, seed=seeds, strided=st.booleans(), scale=st.floats(0.1, 1e4))
@quick
def test_softmax(handler, shape, seed, strided, scale):
    arrays = Arrays(handler, seed, strided)
    m = arrays.randn(*shape, scale=scale)
    expected = np.zeros(shape)
    for i in range(shape[0]):
        for j in range(shape[1]):
            with np.errstate(over="ignore"):
                expected[i, j] = 1 / np.exp(m[i] - m[i, j]).sum()
    array, out = arrays.put(m), arrays.garbage(shape)
    handler.softmax_m(array, out)
    check(handler, out, expected, scale=10)
    handler.softmax_m(array, array)
    check(handler, array, expected, scale=10)


def test_softmax_large(handler):
    arrays = Arrays(handler)
    m = arrays.randn(700, 50)
    out = arrays.garbage(m.shape)
    handler.softmax_m(arrays.put(m), out)
    check(handler, out, np.exp(m) / np.exp(m).sum(axis=1)[:, None])


@given(rows=sizes, cols=st.integers(1, 6), seed=seeds, strided=st.booleans())
@quick
def test_indexing(handler, rows, cols, seed, strided):
    arrays = Arrays(handler, seed, strided)
    m = arrays.randn(rows, cols)
    v = arrays.rnd.randint(0, cols, (rows, 1))
    one_hot, picked = np.zeros((rows, cols)), np.zeros((rows, 1))
    for i, j in enumerate(v[:, 0]):
        one_hot[i, j] = 1
        picked[i] = m[i, j]
    indices, out = arrays.put(v), arrays.garbage((rows, cols))
    handler.binarize_v(indices, out)
    check(handler, out, one_hot)
    out = arrays.garbage((rows, 1))
    handler.index_m_by_v(arrays.put(m), indices, out)
    check(handler, out, picked)
    check(handler, indices, v)
    handler.index_m_by_v(arrays.put(m), indices, indices)
    check(handler, indices, picked)


@given(shape=shapes.filter(len), seed=seeds, repeat=sizes, strided=st.booleans())
@quick
def test_broadcast(handler, shape, seed, repeat, strided):
    arrays = Arrays(handler, seed, strided)
    for axis in range(len(shape)):
        narrow = (*shape[:axis], 1, *shape[axis + 1 :])
        wide = (*shape[:axis], repeat, *shape[axis + 1 :])
        a = arrays.randn(*narrow)
        out = arrays.garbage(wide)
        handler.broadcast_t(arrays.put(a), axis, out)
        check(handler, out, np.repeat(a, repeat, axis))


@given(shape=shapes, a=sizes, b=sizes, seed=seeds, strided=st.booleans())
@quick
def test_merge_and_split(handler, shape, a, b, seed, strided):
    run_merge_and_split(handler, shape, a, b, seed, strided)


@pytest.mark.parametrize("shape", [(900, 7), (1,)])
def test_merge_and_split_large(handler, shape):
    run_merge_and_split(handler, shape, 20000 // shape[0], 5, 0, False)


def run_merge_and_split(handler, shape, a, b, seed, strided):
    arrays = Arrays(handler, seed, strided)
    first, second = arrays.randn(*shape, a), arrays.randn(*shape, b)
    out = arrays.garbage((*shape, a + b))
    handler.merge_tt(arrays.put(first), arrays.put(second), out)
    check(handler, out[..., :a], first)
    check(handler, out[..., a:], second)
    x = arrays.randn(*shape, a + b)
    out_a, out_b = arrays.put(first), arrays.put(second)
    handler.split_add_tt(arrays.put(x), out_a, out_b)
    check(handler, out_a, first + x[..., :a], scale=10)
    check(handler, out_b, second + x[..., a:], scale=10)


# -- memory --------------------------------------------------------------------


@given(shape=shapes, strided=st.booleans())
@quick
def test_memory(handler, shape, strided):
    arrays = Arrays(handler, 0, strided)
    for make in (handler.allocate, handler.zeros, handler.ones, handler.scratch):
        array = make(shape)
        assert isinstance(array, handler.array_type)
        assert tuple(array.shape) == shape
        assert array.dtype == handler.dtype
    check(handler, handler.zeros(shape), np.zeros(shape))
    check(handler, handler.ones(shape), np.ones(shape))
    array = arrays.garbage(shape)
    handler.fill(array, -1.5)
    check(handler, array, np.full(shape, -1.5))


def test_allocate_gives_zeros(handler):
    expected = float("nan") if isinstance(handler, DebugHandler) else 0.0
    for shape in [(), (3,), (40, 50)]:
        handler.fill(handler.zeros(shape), 7.0)  # memory that is used again
        check(handler, handler.allocate(shape), np.full(shape, expected))


def test_scratch_slots_are_separate(handler):
    first, second = handler.scratch((2, 3), 5), handler.scratch((6,), 6)
    handler.fill(first, 1.0)
    handler.fill(second, 2.0)
    check(handler, first, np.ones((2, 3)))
    assert handler.overlap(first, second) == "none"


def test_attributes(handler):
    assert tuple(handler.EMPTY.shape) == (0,)
    assert isinstance(handler.EMPTY, handler.array_type)
    assert handler.EMPTY.dtype == handler.dtype
    assert handler.context is None or handler.context


@given(shape=shapes, seed=seeds, strided=st.booleans())
@quick
def test_numpy_round_trip(handler, shape, seed, strided):
    arrays = Arrays(handler, seed, strided)
    values = arrays.randn(*shape)
    array = arrays.put(values)
    copy = handler.get_numpy_copy(array)
    assert type(copy) is np.ndarray
    copy[...] = 7
    check(handler, array, values)
    for kind in (np.int32, np.uint8, np.bool_, np.float64):
        other = np.abs(10 * values).astype(kind)
        handler.set_from_numpy(array, other)
        check(handler, array, other.astype(float))
        check(handler, handler.create_from_numpy(other), other.astype(float))


def test_created_arrays_are_independent(handler):
    values = np.ones(3, handler.dtype)
    array = handler.create_from_numpy(values)
    values[:] = 5
    check(handler, array, np.ones(3))


def test_set_from_numpy_refuses_other_shapes(handler):
    array = handler.zeros((2, 3))
    for shape in [(3, 2), (3,), (1, 3), ()]:
        with pytest.raises(HandlerError, match=r"\(2, 3\)") as error:
            handler.set_from_numpy(array, np.ones(shape))
        assert str(shape) in str(error.value)
    check(handler, array, np.zeros((2, 3)))


@pytest.mark.parametrize("dtype", [complex, object, "U3", "S3", "M8[s]"])
def test_only_numbers_are_taken(handler, dtype):
    values = np.zeros(3, dtype)
    array = handler.zeros((3,))
    with pytest.raises(HandlerError, match=str(values.dtype).replace("[", r"\[")):
        handler.create_from_numpy(values)
    with pytest.raises(HandlerError, match="floats"):
        handler.set_from_numpy(array, values)


def test_overlap(handler):
    a = handler.zeros((4, 6))
    assert handler.overlap(a, a) == "same"
    assert handler.overlap(a, a[:]) == "same"
    assert handler.overlap(a[:, :3], a[:, 3:]) == "none"
    assert handler.overlap(a[:, :4], a[:, 3:]) == "part"
    assert handler.overlap(a[:2], a) == "part"
    assert handler.overlap(a, handler.zeros((4, 6))) == "none"
    assert handler.overlap(a[:0], a[:0]) == "none"


# -- values at the limits ------------------------------------------------------


@pytest.mark.parametrize("bad", [inf, -inf, nan])
def test_is_fully_finite(handler, bad):
    for shape in [(), (1,), (3, 4), (3, 7001)]:
        values = np.ones(shape)
        assert handler.is_fully_finite(handler.create_from_numpy(values)) is True
        values[(-1,) * len(shape)] = bad
        assert handler.is_fully_finite(handler.create_from_numpy(values)) is False
    assert handler.is_fully_finite(handler.zeros((0, 3)))
    ends = np.array([np.finfo(handler.dtype).max, np.finfo(handler.dtype).tiny])
    assert handler.is_fully_finite(handler.create_from_numpy(ends))


LIMITS = {
    "abs_t": ([-inf, nan, -0.0], [inf, nan, 0]),
    "sign_t": ([inf, -inf, nan, -0.0, 1e-38, -1e30], [1, -1, nan, 0, 1, -1]),
    "sqrt_t": ([inf, 0, -1, nan], [inf, 0, nan, nan]),
    "log_t": ([inf, 0, -1, nan], [inf, -inf, nan, nan]),
    "rel": ([inf, -inf, nan, -0.0, 1e30], [inf, 0, nan, 0, 1e30]),
    "tanh": ([inf, -inf, nan, 1e30, -1e30], [1, -1, nan, 1, -1]),
    "sigmoid": ([inf, -inf, nan, 1e30, -1e30], [1, 0, nan, 1, 0]),
    "el": ([inf, -inf, nan, 1e30, -1e30], [inf, -1, nan, 1e30, -1]),
    "softplus": ([inf, -inf, nan, 1e30, -1e30], [inf, 0, nan, 1e30, 0]),
    "leaky_rel": ([inf, -inf, nan, 1e30, -1e30], [inf, -inf, nan, 1e30, -1e28]),
    "gelu": ([inf, -inf, nan, 1e30, -1e30], [inf, 0, nan, 1e30, 0]),
    "swish": ([inf, -inf, nan, 1e30, -1e30], [inf, 0, nan, 1e30, 0]),
    "hard_swish": ([inf, -inf, nan, 1e30, -1e30], [inf, 0, nan, 1e30, 0]),
    "mish": ([inf, -inf, nan, 1e30, -1e30], [inf, 0, nan, 1e30, 0]),
    "hard_sigmoid": ([inf, -inf, nan, 1e30, -1e30], [1, 0, nan, 1, 0]),
    "relu6": ([inf, -inf, nan, 1e30, -1e30], [6, 0, nan, 6, 0]),
    "softsign": ([inf, -inf, nan, 1e30, -1e30], [1, -1, nan, 1, -1]),
}


@pytest.mark.parametrize("name", LIMITS)
def test_infinity_and_nan(handler, name):
    values, expected = LIMITS[name]
    x, y = handler.create_from_numpy(np.array(values)), handler.zeros((len(values),))
    if isinstance(handler, DebugHandler):
        with pytest.raises(HandlerError, match="NaN or infinity"):
            getattr(handler, name)(x, y)
        return
    with np.errstate(all="ignore"):
        getattr(handler, name)(x, y)
    check(handler, y, expected)


def test_nan_stays_where_it_is(handler):
    if isinstance(handler, DebugHandler):
        pytest.skip("NaN is refused")
    a = handler.create_from_numpy(np.array([nan, inf, -inf]))
    out = handler.zeros((3,))
    handler.clip_t(a, -1, 1, out)
    check(handler, out, [nan, 1, -1])
    handler.copy_to(a, out)
    check(handler, out, [nan, inf, -inf])
    handler.fill(out, 0)
    handler.copy_to_if(a, out, handler.create_from_numpy(np.array([0, 1, nan])))
    check(handler, out, [0, inf, -inf])
    m = handler.create_from_numpy(np.array([[0.0, nan], [1.0, -inf]]))
    out = handler.zeros((2, 2))
    handler.softmax_m(m, out)
    check(handler, out, [[nan, nan], [1, 0]])
    with np.errstate(invalid="ignore"):
        handler.dot_mm(m, handler.ones((2, 2)), out)
    check(handler, out, [[nan, nan], [-inf, -inf]])

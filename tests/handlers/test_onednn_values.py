"""Values of OneDnnHandler where the library's own are not those of NumpyHandler."""

import numpy as np
import pytest

from brainstorm.handlers import NumpyHandler
from brainstorm.handlers.onednn import binding
from brainstorm.handlers.onednn_handler import OneDnnHandler
from brainstorm.handlers.operations.activations import ACTIVATIONS, FROM_INPUT
from brainstorm.handlers.programs import Program
from tests.handlers.handler_cases import onednn_handler

SIZE = OneDnnHandler._large + 100
SPECIAL = [np.nan, np.inf, -np.inf, 3e38, -3e38, 1e12, -1e12, 90.0, -90.0, 20.0, -20.0]
SPECIAL += [1e-3, -1e-3, 1e-38, -1e-38, 0.0, -0.0]


@pytest.fixture
def handler():
    return onednn_handler()


# -- activation functions ----------------------------------------------------


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("value", SPECIAL)
def test_special_values_amid_others(handler, name, value):
    """In large arrays as in small ones, forward and backward, also as deltas."""
    reference = NumpyHandler(np.float32)
    x = np.linspace(-2, 2, SIZE).astype(np.float32)
    dy = np.linspace(1, 2, SIZE).astype(np.float32)
    for place, array in ((777, x), (4000, dy)):
        array[place] = value
    results = []
    with np.errstate(all="ignore"):
        for each in (handler, reference):
            y, dx, added = np.empty_like(x), np.empty_like(x), np.ones_like(x)
            each.act_func[name](x, y)
            each.act_func_deriv[name](x, y, dy, dx)
            each.act_backward(x, y, dy, added, name, fresh_dx=False)
            results.append((y, dx, added))
        for got, expected in zip(*results, strict=True):
            np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", sorted(set(ACTIVATIONS) - FROM_INPUT - {"linear"}))
def test_layers_derive_nan_as_numpy_does(handler, name):
    """Where the derivative goes along with the gradients."""
    rnd = np.random.RandomState(0)
    x, W = rnd.randn(200, 8).astype("f"), rnd.randn(110, 8).astype("f")
    images = rnd.randn(2, 12, 12, 3).astype("f")
    kernels, bias = rnd.randn(8, 3, 3, 3).astype("f"), rnd.randn(110).astype("f")
    results = []
    with np.errstate(all="ignore"):
        for each in (handler, NumpyHandler(np.float32)):
            y, dy = np.empty((200, 110), "f"), np.ones((200, 110), "f")
            h = np.empty_like(y)
            each.affine(x, W, bias, h, y, name)
            y[3, 4] = np.nan
            dh, dx, dW, db = map(np.empty_like, (y, x, W, bias))
            fresh = {"fresh_dx": True, "fresh_gradients": True}
            each.affine_backward(x, W, h, y, dy, dh, dx, dW, db, name, **fresh)
            out, arrays = np.empty((2, 10, 10, 8), "f"), (images, kernels)
            each.conv2d_forward_batch(*arrays, bias[:8], out, 0, (1, 1), name)
            out[1, 5, 5, 2] = np.nan
            di, dk, dkb = map(np.empty_like, (images, kernels, bias[:8]))
            each.conv2d_backward_batch(
                *(*arrays, 0, (1, 1), di, np.ones_like(out), dk, dkb, name, out),
                fresh_in_deltas=True,
                fresh_gradients=True,
            )
            results.append((dx, dW, db, di, dk, dkb))
    for got, expected in zip(*results, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["sigmoid", "swish", "tanh"])
def test_small_values_are_exact_to_rounding(handler, name):
    """Relatively, on large arrays."""
    x = np.linspace(-80, 10, SIZE).astype(np.float32)
    y, e = np.empty_like(x), np.exp(np.minimum(x, 0).astype(np.float64))
    gate = np.where(x > 0, 1 / (1 + np.exp(-x.astype(np.float64))), e / (1 + e))
    expected = {"sigmoid": gate, "swish": x * gate, "tanh": np.tanh(x.astype(float))}
    handler.act_func[name](x, y)
    np.testing.assert_allclose(y, expected[name], rtol=1e-6, atol=1e-36)


# -- sums --------------------------------------------------------------------

ROWS = [1, 17, 64, 65, 72, 128, 129, 136, 255, 256, 1000, 4097, 30001, 400_000]


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("cut", ["whole", "columns", "rows", "transposed"])
def test_sums_of_rows(handler, rows, cut):
    values = np.random.RandomState(rows).rand(rows, 3).astype(np.float32)
    m = {
        "whole": np.empty((rows, 3), "f"),
        "columns": np.empty((rows, 7), "f")[:, 2:5],
        "rows": np.empty((2 * rows, 3), "f")[::2],
        "transposed": np.empty((3, rows), "f").T,
    }[cut]
    m[...] = values
    expected = values.astype(np.float64).sum(0)
    out = np.full(3, np.nan, np.float32)
    handler._sum_rows(m, out, True)
    np.testing.assert_allclose(out, expected, rtol=1e-6)
    handler._sum_rows(m, out, False)
    np.testing.assert_allclose(out, 2 * expected, rtol=1e-6)


@pytest.mark.parametrize("rows", [20_000, 1_000_000])
def test_sums_of_equal_rows_lose_no_digits(handler, rows):
    m, out = np.full((rows, 2), 0.1, np.float32), np.empty((1, 2), np.float32)
    handler.sum_t(m, 0, out)
    np.testing.assert_allclose(out, rows * np.float64(np.float32(0.1)), rtol=1e-6)


def test_batch_normalisation_of_many_rows(handler):
    rows = 300_000
    rnd = np.random.RandomState(0)
    x, dy = rnd.randn(2, rows, 2).astype(np.float32) + 5
    one, zero = np.ones(2, "f"), np.zeros(2, "f")
    sigma_b, dgamma, dbeta = (np.empty(2, "f") for _ in range(3))
    centered, x_hat, y, dx = (np.empty_like(x) for _ in range(4))
    arrays = x, one, zero, zero.copy(), one.copy(), sigma_b, centered, x_hat, y
    handler.batch_norm_forward(*arrays, 0.9, 1e-5)
    exact = x.astype(np.float64)
    deviation = np.sqrt(exact.var(0) + 1e-5)
    np.testing.assert_allclose(sigma_b, deviation, rtol=1e-6)
    np.testing.assert_allclose(x_hat, (exact - exact.mean(0)) / deviation, atol=3e-6)
    handler.batch_norm_backward(
        one, sigma_b, centered, x_hat, dy, dx, dgamma, dbeta, True, True
    )
    np.testing.assert_allclose(dbeta, dy.astype(np.float64).sum(0), rtol=1e-6)


def test_sums_are_float32_in_any_mode(monkeypatch):
    """All products with ones, whatever the CPU makes of bfloat16."""
    onednn_handler()
    rough, modes = OneDnnHandler(math_mode="bf16"), []
    make = binding.Library._make

    def note(self, kind, args, post_ops, scaled, mode, *others):
        modes.append((kind, mode))
        return make(self, kind, args, post_ops, scaled, mode, *others)

    monkeypatch.setattr(binding.Library, "_make", note)
    for rows in (1000, 3000):
        m, out = np.full((rows, 64), 1.003, np.float32), np.empty((1, 64), np.float32)
        expected = rows * float(m[0, 0])
        rough.sum_t(m, 0, out)
        np.testing.assert_allclose(out, expected, rtol=1e-6)
        rough._sum_rows(m, out[0], True)
        np.testing.assert_allclose(out, expected, rtol=1e-6)
    assert modes
    assert all(mode == "f32" for _, mode in modes)
    modes.clear()
    x, W = np.ones((100, 30), "f"), np.ones((64, 30), "f")
    dh, dW, dbias = np.full((100, 64), 1.003, "f"), np.empty((64, 30), "f"), out[0]
    rough.affine_backward(
        *(x, W, None, None, dh, None, None, dW, dbias, "linear"),
        fresh_dx=True,
        fresh_gradients=True,
    )
    np.testing.assert_allclose(dbias, 100 * float(dh[0, 0]), rtol=1e-6)
    assert ("matmul", "bf16") in modes  # the product


@pytest.mark.parametrize(
    ("name", "states", "numbers"),
    [
        ("adam_update", 2, (0.1, 0.9, 0.99, 1e-3, 0.1, 1)),
        ("rms_prop_update", 1, (0.1, 0.9, 1e-3)),
        ("ada_grad_update", 1, (0.1, 1e-3)),
        ("ada_delta_update", 2, (0.1, 0.9, 1e-3)),
    ],
)
def test_updates_of_many_parameters_are_primitives(handler, name, states, numbers):
    arrays = [np.full(400_000, 0.5, np.float32) for _ in range(2 + states)]
    program = Program()
    handler.record(lambda h: getattr(h, name)(*arrays, *numbers), program)
    (calls,) = program.calls_by_step()
    assert len(calls) <= 16
    assert not any(isinstance(call.func, np.ufunc) for call in calls)


LARGE = {  # M, K, N, and whether the first matrix is transposed
    "rows in parts": (600, 17, 512, True),
    "rows that are not": (601, 17, 512, True),
    "columns in parts": (5, 700, 1000, False),
    "columns that are not": (5, 700, 1001, False),
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", LARGE)
@pytest.mark.parametrize("strided", [False, True])
def test_large_products(handler, kind, threads, strided):
    m, k, n, transa = LARGE[kind]
    handler = OneDnnHandler(threads=threads)
    rnd = np.random.RandomState(0)
    made = [rnd.randn(*shape) for shape in ((k, m) if transa else (m, k), (k, n))]
    shapes = (*(x.shape for x in made), (m, n))
    wide = [np.zeros((rows, columns + 8), np.float32) for rows, columns in shapes]
    a, b, out = (x[:, 3:-5] if strided else x[:, :-8].copy() for x in wide)
    a[...], b[...] = made
    first = a.T if transa else a
    product = first.astype(float) @ b
    program = Program()

    def run(h):
        h.dot_mm(a, b, out, transa=transa)
        h.dot_add_mm(a, b, out, transa=transa)

    run(handler)
    np.testing.assert_allclose(out, 2 * product, rtol=1e-4, atol=1e-3)
    handler.record(run, program)
    a *= 2
    program()
    np.testing.assert_allclose(out, 4 * product, rtol=1e-4, atol=1e-3)
    other = np.zeros_like(out)
    handler.dot_mm(a, b, other, transa=transa)
    np.testing.assert_allclose(other, 2 * product, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(
    ("rows", "fresh"), [(1, True), (8, False), (100, True), (100, False)]
)
def test_layers_with_many_weights(handler, threads, rows, fresh):
    """Whether or not each thread has a part of the weights."""
    handler = OneDnnHandler(threads=threads)
    rnd = np.random.RandomState(0)
    shapes = {"x": (rows, 250), "W": (1200, 250), "bias": (1200,), "dh": (rows, 1200)}
    exact = {name: rnd.randn(*shape) for name, shape in shapes.items()}
    x, W, bias, dh = (exact[name].astype(np.float32) for name in shapes)
    h = np.full((rows, 1200), np.nan, np.float32)
    y = np.full_like(h, np.nan)
    for b in (bias, None):
        expected = exact["x"] @ exact["W"].T + (0 if b is None else exact["bias"])
        handler.affine(x, W, b, None, y, "linear")
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
        handler.affine(x, W, b, h, y, "tanh")
        np.testing.assert_allclose(h, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(y, np.tanh(expected), rtol=1e-4, atol=1e-4)
    before = np.nan if fresh else 2.0
    dx, dW, dbias = (np.full_like(m, before) for m in (x, W, bias))
    arrays = x, W, None, h, dh, None, dx, dW, dbias
    handler.affine_backward(*arrays, "linear", fresh_dx=fresh, fresh_gradients=fresh)
    before = 0 if fresh else 2
    for found, change in (
        (dx, exact["dh"] @ exact["W"]),
        (dW, exact["dh"].T @ exact["x"]),
        (dbias, exact["dh"].sum(0)),
    ):
        np.testing.assert_allclose(found, before + change, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_rows_of_large_matrices_are_constrained(handler, threads):
    handler = OneDnnHandler(threads=threads)
    rnd = np.random.RandomState(0)
    m = rnd.randn(301, 1000).astype(np.float32)
    m[::3] *= 0.01
    norms = np.zeros((301, 1), np.float32)
    exact = m.astype(float)
    length = np.sqrt(np.sum(exact**2, axis=1, keepdims=True))
    kept = m[::3].copy()
    handler.constrain_rows(m, 2.0, norms)
    expected = exact / np.maximum(1, length / 2)
    np.testing.assert_allclose(m, expected, rtol=1e-5, atol=1e-8)
    np.testing.assert_array_equal(m[::3], kept)
    before = m.copy()
    handler.constrain_rows(m, 3.0, norms)  # all of it is within
    np.testing.assert_array_equal(m, before)
    m[200] *= 1e30  # of which the squares overflow
    handler.constrain_rows(m, 3.0, norms)
    before[200] *= 1.5
    np.testing.assert_allclose(m, before, rtol=1e-5, atol=1e-8)

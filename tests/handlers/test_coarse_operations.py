"""Coarse operations of every handler, against formulas in float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainstorm.handlers import DebugHandler
from brainstorm.utils import HandlerError
from tests.handlers.handler_cases import (
    Arrays,
    check,
    quick,
    run_to_the_end,
    seeds,
    shapes,
    sizes,
)

ACT = {
    "linear": lambda x: x,
    "rel": lambda x: np.where(x > 0, x, 0),
    "tanh": lambda x: (np.exp(x) - np.exp(-x)) / (np.exp(x) + np.exp(-x)),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "el": lambda x: np.where(x >= 0, x, np.exp(x) - 1),
    "softplus": lambda x: np.log(1 + np.exp(x)),
    "leaky_rel": lambda x: np.where(x > 0, x, 0.01 * x),
    "swish": lambda x: x / (1 + np.exp(-x)),
}
SLOPE = {
    "linear": lambda x: np.ones_like(x),
    "rel": lambda x: 1.0 * (x > 0),
    "tanh": lambda x: 1 - ACT["tanh"](x) ** 2,
    "sigmoid": lambda x: np.exp(-x) / (1 + np.exp(-x)) ** 2,
    "el": lambda x: np.where(x >= 0, 1, np.exp(x)),
    "softplus": lambda x: 1 / (1 + np.exp(-x)),
    "leaky_rel": lambda x: np.where(x > 0, 1, 0.01),
    "swish": lambda x: (1 + np.exp(-x) + x * np.exp(-x)) / (1 + np.exp(-x)) ** 2,
}
activations = st.sampled_from(sorted(ACT))
flags = st.booleans()
positive = st.integers(1, 6)
# For the losses: one step that is cut into pieces, and one that is not.
large = pytest.mark.parametrize("shape", [(3, 2), (900, 37)])


# -- memory --------------------------------------------------------------------


@given(st.lists(shapes, max_size=5), flags)
@quick
def test_clear(handler, shapes, strided):
    # More than a GPU clears at once.
    arrays = [Arrays(handler, strided=strided).garbage(s) for s in 9 * shapes]
    kept = handler.ones((3,))
    handler.clear(*arrays)
    for array in arrays:
        check(handler, array, np.zeros(array.shape))
    check(handler, kept, np.ones(3))


@pytest.mark.parametrize("wrong", [None, 3.0, np.ones(2, np.int8)])
def test_clear_refuses_what_is_no_array(handler, wrong):
    if type(handler) is not DebugHandler and handler.array_type is np.ndarray:
        pytest.skip("checks nothing")
    array = handler.ones((2,))
    with pytest.raises(HandlerError, match="clear: argument 'arrays': expected"):
        handler.clear(array, wrong)
    check(handler, array, np.ones(2))


# -- affine layers and activations ---------------------------------------------


@given(sizes, sizes, sizes, activations, flags, flags, flags, seeds)
@quick
def test_affine(handler, m, n, i, activation, has_bias, keeps_h, strided, seed):
    arrays = Arrays(handler, seed, strided)
    x, W, bias = arrays.randn(m, i), arrays.randn(n, i), arrays.randn(n) * has_bias
    h = np.einsum("mi,ni->mn", x, W) + bias
    h_ = arrays.garbage((m, n)) if keeps_h or activation != "linear" else None
    y_ = arrays.garbage((m, n))
    bias_ = arrays.flat().put(bias) if has_bias else None
    handler.affine(arrays.put(x), arrays.put(W), bias_, h_, y_, activation)
    check(handler, y_, ACT[activation](h), scale=20)
    if h_ is not None:
        check(handler, h_, h, scale=20)


@given(sizes, sizes, sizes, activations, st.tuples(flags, flags, flags), flags, seeds)
@quick
def test_affine_backward(handler, m, n, i, activation, fresh, strided, seed):
    run_affine_backward(handler, (m, n, i), activation, fresh, strided, seed)


@pytest.mark.parametrize("fresh", [False, True])
def test_affine_backward_large(handler, fresh):
    run_affine_backward(handler, (700, 60, 30), "tanh", (fresh, fresh, 1), False, 1)


def run_affine_backward(handler, dims, activation, fresh, strided, seed):
    (m, n, i), (fresh_dx, fresh_gradients, has_bias) = dims, fresh
    arrays = Arrays(handler, seed, strided)
    x, W, h, dy = (arrays.randn(*s) for s in [(m, i), (n, i), (m, n), (m, n)])
    h = h + 0.1 * np.sign(h)
    dh = dy * SLOPE[activation](h)
    linear = activation == "linear"
    h_, dh_ = (None, None) if linear else (arrays.put(h), arrays.garbage((m, n)))
    dx_, dx = arrays.destination(arrays.randn(m, i), fresh_dx)
    dW_, dW = arrays.destination(arrays.randn(n, i), fresh_gradients)
    dbias_, dbias = arrays.flat().destination(arrays.randn(n), fresh_gradients)
    x_, W_, dy_ = arrays.put(x), arrays.put(W), arrays.put(dy)
    y_ = arrays.put(ACT[activation](h))

    def run(dx_, dW_, dbias_):
        handler.affine_backward(
            *(x_, W_, h_, y_, dy_, dh_, dx_, dW_, dbias_, activation),
            fresh_dx=fresh_dx,
            fresh_gradients=fresh_gradients,
        )

    run(dx_, dW_, dbias_ if has_bias else None)
    check(handler, dx_, dx + np.einsum("mn,ni->mi", dh, W), scale=50)
    check(handler, dW_, dW + np.einsum("mn,mi->ni", dh, x), scale=100)
    if has_bias:
        check(handler, dbias_, dbias + np.einsum("mn->n", dh), scale=100)
    if not linear:
        check(handler, dh_, dh, scale=10)
    check(handler, dy_, dy)
    dW_, dW = arrays.destination(arrays.randn(n, i), fresh_gradients)
    run(None, dW_, None)
    check(handler, dW_, dW + np.einsum("mn,mi->ni", dh, x), scale=100)


@given(shapes, activations, flags, flags, seeds)
@quick
def test_act_backward(handler, shape, activation, fresh, strided, seed):
    run_act_backward(handler, shape, activation, fresh, strided, seed)


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("strided", [False, True])
def test_act_backward_large(handler, fresh, strided):
    run_act_backward(handler, (3, 7001), "sigmoid", fresh, strided, 0)


def run_act_backward(handler, shape, activation, fresh, strided, seed):
    arrays = Arrays(handler, seed, strided)
    x, dy = arrays.randn(*shape), arrays.randn(*shape)
    dx_, dx = arrays.destination(arrays.randn(*shape), fresh)
    x_, y_, dy_ = arrays.put(x), arrays.put(ACT[activation](x)), arrays.put(dy)
    handler.act_backward(x_, y_, dy_, dx_, activation, fresh_dx=fresh)
    check(handler, dx_, dx + dy * SLOPE[activation](x), scale=10)
    check(handler, dy_, dy)
    handler.act_backward(x_, y_, dy_, dy_, activation, fresh_dx=True)
    check(handler, dy_, dy * SLOPE[activation](x), scale=10)


# -- losses --------------------------------------------------------------------


@given(sizes, positive, flags, flags, seeds)
@quick
def test_softmax_ce(handler, m, c, fresh, strided, seed):
    run_softmax_ce(handler, (m, c), fresh, strided, seed)


@large
def test_softmax_ce_by_size(handler, shape):
    run_softmax_ce(handler, shape, False, False, 0)


def run_softmax_ce(handler, shape, fresh, strided, seed):
    arrays = Arrays(handler, seed, strided)
    m, c = shape
    x, dloss = arrays.randn(m, c), arrays.randn(m, 1)
    labels = arrays.rnd.randint(0, c, m)
    one_hot = 1.0 * (labels[:, None] == np.arange(c))
    p = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    x_, targets_ = arrays.put(x), arrays.put(labels[:, None])
    p_, loss_ = arrays.garbage((m, c)), arrays.garbage((m, 1))
    handler.softmax_ce_forward(x_, targets_, p_, loss_)
    check(handler, p_, p)
    check(handler, loss_, -np.log((p * one_hot).sum(axis=1, keepdims=True)), scale=10)
    check(handler, x_, x)
    check(handler, targets_, labels[:, None])

    t_bin_, dloss_ = arrays.garbage((m, c)), arrays.put(dloss)
    dx_, dx = arrays.destination(arrays.randn(m, c), fresh)
    handler.softmax_ce_backward(targets_, p_, dloss_, t_bin_, dx_, fresh_dx=fresh)
    check(handler, dx_, dx + (p - one_hot) * dloss, scale=10)
    check(handler, t_bin_, one_hot)
    check(handler, p_, p)
    handler.fill(t_bin_, 3.0)
    handler.softmax_ce_backward(targets_, p_, dloss_, t_bin_, None)
    check(handler, t_bin_, one_hot)


def test_softmax_ce_limits_the_loss(handler):
    x = handler.create_from_numpy(np.array([[0.0, 1e30], [0, 1e30], [-1e30, 1e30]]))
    targets = handler.create_from_numpy(np.array([[0], [1], [0]]))
    p, loss = handler.zeros((3, 2)), handler.zeros((3, 1))
    handler.softmax_ce_forward(x, targets, p, loss)
    check(handler, p, [[0, 1], [0, 1], [0, 1]])
    check(handler, loss, [[-np.log(1e-6)], [0], [-np.log(1e-6)]])


@pytest.mark.parametrize("bad", [-1, 3, 0.5, 1e30, -1e30, np.inf, -np.inf, np.nan])
def test_softmax_ce_refuses_targets(handler, bad):
    targets = np.array([[0], [2], [bad], [1]])
    arguments = [
        handler.zeros((4, 3)),
        handler.create_from_numpy(targets.astype(handler.dtype)),
        handler.zeros((4, 3)),
        handler.zeros((4, 1)),
    ]
    with pytest.raises(HandlerError) as error:
        run_to_the_end(handler, "softmax_ce_forward", *arguments)
    if np.isfinite(bad) or not isinstance(handler, DebugHandler):
        assert "from 0 to 2" in str(error.value)
        assert repr(float(handler.dtype(bad))) in str(error.value)


@given(shapes, flags, flags, seeds)
@quick
def test_sigmoid_ce(handler, shape, fresh, strided, seed):
    run_sigmoid_ce(handler, shape, fresh, strided, seed)


@large
def test_sigmoid_ce_by_size(handler, shape):
    run_sigmoid_ce(handler, shape, False, False, 0)


def run_sigmoid_ce(handler, shape, fresh, strided, seed):
    arrays = Arrays(handler, seed, strided)
    x, dloss = arrays.randn(*shape), arrays.randn(*shape)
    t = np.asarray(arrays.rnd.rand(*shape)).astype(handler.dtype).astype(float)
    p = 1 / (1 + np.exp(-x))
    x_, t_ = arrays.put(x), arrays.put(t)
    p_, loss_ = arrays.garbage(shape), arrays.garbage(shape)
    handler.sigmoid_ce_forward(x_, t_, p_, loss_)
    check(handler, p_, p)
    check(handler, loss_, -(t * np.log(p) + (1 - t) * np.log(1 - p)), scale=10)

    dcee_, dloss_ = arrays.garbage(shape), arrays.put(dloss)
    dx_, dx = arrays.destination(arrays.randn(*shape), fresh)
    handler.sigmoid_ce_backward(t_, p_, dloss_, dcee_, dx_, fresh_dx=fresh)
    check(handler, dcee_, p - t)
    check(handler, dx_, dx + (p - t) * dloss, scale=10)
    handler.fill(dcee_, 3.0)
    handler.sigmoid_ce_backward(t_, p_, dloss_, dcee_, None)
    check(handler, dcee_, p - t)


def test_sigmoid_ce_limits_the_loss(handler):
    x = handler.create_from_numpy(np.array([1e30, -1e30, 1e30, -1e30]))
    t = handler.create_from_numpy(np.array([1, 1, 0, 0]))
    p, loss = handler.zeros((4,)), handler.zeros((4,))
    handler.sigmoid_ce_forward(x, t, p, loss)
    worst = -np.log(1e-6)
    check(handler, loss, [0, worst, worst, 0])


# -- dropout -------------------------------------------------------------------


@given(shapes, st.sampled_from([0.0, 0.2, 0.5, 1.0]), flags, flags, seeds)
@quick
def test_dropout(handler, shape, drop_prob, fresh, strided, seed):
    run_dropout(handler, shape, drop_prob, fresh, strided, seed)


@pytest.mark.parametrize("strided", [False, True])
def test_dropout_rate(handler, strided):
    mask = run_dropout(handler, (5, 8000), 0.3, True, strided, 0)
    kept = mask > 0
    # Five standard deviations of the share of 40000 independent draws.
    assert abs(kept.mean() - 0.7) < 5 * (0.3 * 0.7 / 40000) ** 0.5
    # Neighbours are independent.
    assert abs((kept[:, 1:] & kept[:, :-1]).mean() - 0.49) < 0.015
    assert abs((kept[1:] & kept[:-1]).mean() - 0.49) < 0.015


def run_dropout(handler, shape, drop_prob, fresh, strided, seed):
    arrays = Arrays(handler, seed, strided)
    x, dy = arrays.randn(*shape), arrays.randn(*shape)
    x_, mask_, y_ = arrays.put(x), arrays.garbage(shape), arrays.garbage(shape)
    handler.dropout_forward(x_, mask_, y_, drop_prob)
    mask = handler.get_numpy_copy(mask_).astype(float)
    kept = handler.dtype(1 / (1 - drop_prob)) if drop_prob < 1 else 0
    assert np.isin(mask, [0, kept] if drop_prob else [1]).all()
    check(handler, y_, x * mask, scale=10)
    dy_ = arrays.put(dy)
    dx_, dx = arrays.destination(arrays.randn(*shape), fresh)
    handler.dropout_backward(mask_, dy_, dx_, fresh_dx=fresh)
    check(handler, dx_, dx + dy * mask, scale=10)
    handler.dropout_backward(mask_, dy_, dy_, fresh_dx=True)
    check(handler, dy_, dy * mask, scale=10)
    return mask


# -- updates -------------------------------------------------------------------

lengths = st.sampled_from([0, 1, 7, 40000])


@given(n=lengths, seed=seeds, rate=st.floats(0, 1), momentum=st.floats(0, 1))
@quick
def test_updates(handler, n, seed, rate, momentum):
    arrays = Arrays(handler, seed)
    p, g, v = (arrays.randn(n) for _ in range(3))

    def new():
        return arrays.put(p), arrays.put(g), arrays.put(v)

    p_, g_, v_ = new()
    handler.sgd_update(p_, g_, rate)
    check(handler, p_, p - rate * g, scale=10)
    check(handler, g_, g)

    p_, g_, v_ = new()
    handler.momentum_update(p_, g_, v_, rate, momentum)
    v_new = momentum * v - rate * g
    check(handler, v_, v_new, scale=10)
    check(handler, p_, p + v_new, scale=10)
    check(handler, g_, g)

    p_, g_, v_ = new()
    handler.nesterov_ahead(p_, v_, momentum)
    check(handler, v_, momentum * v, scale=10)
    check(handler, p_, p + momentum * v, scale=10)
    handler.nesterov_correct(p_, g_, v_, rate)
    check(handler, v_, momentum * v - rate * g, scale=10)
    check(handler, p_, p + momentum * v - rate * g, scale=10)


@given(sizes, sizes, st.floats(0.3, 3), flags, seeds)
@quick
def test_constrain_rows(handler, n, i, limit, strided, seed):
    run_constrain_rows(handler, n, i, limit, strided, seed)


def test_constrain_rows_large(handler):
    run_constrain_rows(handler, 300, 100, 10.0, False, 0)


def run_constrain_rows(handler, n, i, limit, strided, seed):
    arrays = Arrays(handler, seed, strided)
    m = arrays.randn(n, i)
    m[1:2] = 0
    m_ = arrays.put(m)
    handler.constrain_rows(m_, limit, arrays.garbage((n, 1)))
    rows = [row / max(1, (row @ row) ** 0.5 / limit) for row in m]
    check(handler, m_, np.reshape(rows, (n, i)), scale=10)


# -- batch normalisation -------------------------------------------------------


def normalised(x, gamma, beta, epsilon):
    centered = x - x.mean(axis=0)
    deviation = np.sqrt((centered**2).mean(axis=0) + epsilon)
    return gamma * centered / deviation + beta, centered, deviation


@given(positive, sizes, st.floats(0, 1), flags, flags, flags, seeds)
@quick
def test_batch_norm(handler, m, c, decay, strided, fresh_dx, fresh_gradients, seed):
    arrays = Arrays(handler, seed, strided)
    vectors = arrays.flat()
    epsilon = 0.01
    x, dy = arrays.randn(m, c), arrays.randn(m, c)
    gamma, beta, mu, sigma = (vectors.randn(c) for _ in range(4))
    sigma = np.abs(sigma) + 0.5
    x_, gamma_, beta_ = arrays.put(x), vectors.put(gamma), vectors.put(beta)
    mu_, sigma_, sigma_b_ = vectors.put(mu), vectors.put(sigma), vectors.garbage((c,))
    centered_, x_hat_, y_ = (arrays.garbage((m, c)) for _ in range(3))
    handler.batch_norm_forward(
        *(x_, gamma_, beta_, mu_, sigma_, sigma_b_, centered_, x_hat_, y_),
        decay=decay,
        epsilon=epsilon,
    )
    y, centered, deviation = normalised(x, gamma, beta, epsilon)
    mu = decay * mu - (1 - decay) * x.mean(axis=0)
    sigma = decay * sigma + (1 - decay) * deviation
    for array, expected in [
        (y_, y),
        (centered_, centered),
        (sigma_b_, deviation),
        (x_hat_, centered / deviation),
        (mu_, mu),
        (sigma_, sigma),
    ]:
        check(handler, array, expected, scale=100)

    dx_, dx = arrays.destination(arrays.randn(m, c), fresh_dx)
    dgamma_, dgamma = vectors.destination(vectors.randn(c), fresh_gradients)
    dbeta_, dbeta = vectors.destination(vectors.randn(c), fresh_gradients)
    dy_ = arrays.put(dy)
    fixed = (gamma_, sigma_b_, centered_, x_hat_, dy_)
    handler.batch_norm_backward(
        *(*fixed, dx_, dgamma_, dbeta_),
        fresh_dx=fresh_dx,
        fresh_gradients=fresh_gradients,
    )
    # The derivative of sum(dy * y) by complex steps.
    step = 1e-30
    expected = np.zeros((m, c))
    for k in range(m):
        shifted = x.astype(complex)
        shifted[k] += 1j * step
        expected[k] = (
            dy * (normalised(shifted, gamma, beta, epsilon)[0]).imag / step
        ).sum(axis=0)
    check(handler, dx_, dx + expected, scale=300)
    check(handler, dgamma_, dgamma + (dy * centered / deviation).sum(axis=0), 100)
    check(handler, dbeta_, dbeta + dy.sum(axis=0), 100)
    check(handler, dy_, dy)
    dgamma_, dbeta_ = vectors.garbage((c,)), vectors.garbage((c,))
    handler.batch_norm_backward(*fixed, None, dgamma_, dbeta_, False, True)
    check(handler, dgamma_, (dy * centered / deviation).sum(axis=0), 100)

    out_ = arrays.garbage((m, c))
    handler.batch_norm_inference(x_, gamma_, beta_, mu_, sigma_, out_)
    check(handler, out_, gamma * (x + mu) / sigma + beta, scale=100)
    handler.batch_norm_inference(x_, gamma_, beta_, mu_, sigma_, x_)
    check(handler, x_, gamma * (x + mu) / sigma + beta, scale=100)

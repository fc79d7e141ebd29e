"""Attention of every handler, against formulas in float64."""

import numpy as np
import pytest

from brainstorm.handlers.onednn import attention
from brainstorm.utils import HandlerError
from tests.handlers.handler_cases import Arrays, check, onednn_handler


def softmax_of(scores, hidden):
    scores = np.where(hidden, -np.inf, scores)
    largest = scores.max(-1, keepdims=True)
    e = np.exp(scores - np.where(np.isfinite(largest), largest, 0))
    return e / np.maximum(e.sum(-1, keepdims=True), 1e-300)


def by_formula(q, k, v, known, dy, heads, causal):
    """Weights (T, B, heads, V), outputs, and deltas of q, k and v."""
    steps, batch, size = q.shape
    d = size // heads
    q, k, v, dy = (a.reshape(len(a), batch, heads, d) for a in (q, k, v, dy))
    column, row = np.arange(len(k)), np.arange(steps)[:, None]
    later = (column > row) & (column < steps) & causal
    hidden = later[:, None, None] | (known[:, :, 0].T[None, :, None] == 0)
    w = softmax_of(np.einsum("tbhd,sbhd->tbhs", q, k) / np.sqrt(d), hidden)
    dw = np.einsum("tbhd,sbhd->tbhs", dy, v)
    ds = w * (dw - (w * dw).sum(-1, keepdims=True)) / np.sqrt(d)
    results = (
        np.einsum("tbhs,sbhd->tbhd", w, v),
        np.einsum("tbhs,sbhd->tbhd", ds, k),
        np.einsum("tbhs,tbhd->sbhd", ds, q)[:steps],
        np.einsum("tbhs,tbhd->sbhd", w, dy)[:steps],
    )
    return w, *[a.reshape(steps, batch, size) for a in results]


CASES = [(5, 0, False, False), (5, 0, True, False), (4, 3, True, True)]
CASES += [(1, 6, True, True), (3, 0, False, True)]


@pytest.mark.parametrize(("steps", "past", "causal", "is_masked"), CASES)
@pytest.mark.parametrize("strided", [False, True])
def test_attention(handler, steps, past, causal, is_masked, strided):
    check_attention(handler, (steps, past, 3, 6, 2), causal, is_masked, strided)


def check_attention(handler, sizes, causal, is_masked, strided=False, scale=1.0):
    steps, past, batch, size, heads = sizes
    arrays = Arrays(handler, 0, strided)
    q, dy = (arrays.randn(steps, batch, size) for _ in range(2))
    k, v = (arrays.randn(steps + past, batch, size) for _ in range(2))
    known = np.ones((steps + past, batch, 1))
    if is_masked:
        known = arrays.rnd.randint(0, 2, known.shape).astype(float)
        known[:, 0] = 0  # this sequence sees nothing
    w, y, *deltas = by_formula(q, k, v, known, dy, heads, causal)
    given = [arrays.put(a) for a in (q, k, v)]
    seen = arrays.put(known) if is_masked else None
    out = arrays.garbage(y.shape)
    handler.attention_forward(*given, seen, out, heads, causal)
    check(handler, out, y, scale=scale)
    outs = [arrays.garbage(y.shape) for _ in deltas]
    handler.attention_backward(*given, seen, arrays.put(dy), *outs, heads, causal)
    for got, expected in zip(outs, deltas, strict=True):
        check(handler, got, expected, scale=scale)
    out = arrays.garbage(w.shape)
    handler.attention_weights(given[0], given[1], seen, out, causal)
    check(handler, out, w, scale=scale)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("past", [0, 40])
def test_large_attention_with_onednn(causal, past, monkeypatch):
    handler, made = onednn_handler(), []
    for name in ("weigh", "weigh_back"):
        build = getattr(attention, name)

        def noted(*args, build=build):
            made.append(build.__name__)
            return build(*args)

        monkeypatch.setattr(attention, name, noted)
    check_attention(handler, (150, past, 2, 8, 2), causal, False, scale=20)
    assert {*made} == {"weigh", "weigh_back"}


@pytest.mark.parametrize(
    ("past", "causal", "is_masked", "strided"),
    [(0, True, False, False), (30, True, True, True), (0, False, False, True)],
)
def test_some_sequences_at_a_time_with_onednn(past, causal, is_masked, strided):
    handler = onednn_handler()
    q = np.empty((70, 50, 32), np.float32)
    groups = [group[0].shape[1] for group in handler._groups(4, q, q, None)]
    assert groups == [14, 14, 14, 8]
    sizes = 70, past, 50, 32, 4
    check_attention(handler, sizes, causal, is_masked, strided, scale=20)


def test_memory_of_attention_does_not_grow_with_the_batch():
    taken = []
    for batch in (50, 200):
        handler = onednn_handler()
        q, k, v, dy, dq, dk, dv = np.ones((7, 70, batch, 32), np.float32)
        handler.attention_forward(q, k, v, None, dy, 4, True)
        handler.attention_backward(q, k, v, None, dy, dq, dk, dv, 4, True)
        views = handler._workspace.views.values()
        taken.append(sum({id(v.base): v.base.nbytes for v in views}.values()))
    assert 0 < max(taken) < 1.1 * min(taken)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_bad_numbers_are_not_covered_up(bad):
    handler = onednn_handler()
    q = np.ones((150, 2, 8), np.float32)
    k, v, out = q.copy(), q.copy(), q.copy()
    q[100, 0, 0] = bad
    with np.errstate(all="ignore"):
        handler.attention_forward(q, k, v, None, out, 2, True)
    is_finite = np.isfinite(out)
    assert is_finite[:100].all()
    assert is_finite[100, 0, :4].all() == (bad == 1e30)


def test_what_does_not_fit(handler):
    arrays = Arrays(handler)
    q, k, out = (arrays.put(np.ones((n, 2, 6))) for n in (4, 3, 4))
    with pytest.raises(HandlerError, match="heads.*a divisor of the size 6.*got 4"):
        handler.attention_forward(q, q, q, None, out, 4)
    with pytest.raises(HandlerError, match="at least 4 steps, got 3"):
        handler.attention_forward(q, k, k, None, out, 2)

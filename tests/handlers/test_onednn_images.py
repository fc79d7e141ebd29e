"""How OneDnnHandler cuts batches of images into parts, against NumPy in float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainstorm.handlers import NumpyHandler
from brainstorm.handlers.onednn import convolutions, images, machine, recipes
from brainstorm.handlers.onednn.convolutions import convolution_backward, parts_of
from brainstorm.handlers.onednn.definitions import UnimplementedError
from brainstorm.handlers.onednn_handler import OneDnnHandler
from brainstorm.handlers.operations.images import Windows
from tests.handlers.handler_cases import onednn_handler


@pytest.fixture
def handler():
    return onednn_handler()


def randn(*shape, seed=0):
    return np.random.RandomState(seed).randn(*shape).astype(np.float32)


def in_parts_of(nr_images, monkeypatch):
    """Let parts have about so many images; None leaves batches whole."""

    def cut(batch, threads):
        step = len(batch) if nr_images is None or threads is None else nr_images
        total = len(batch)
        count = -(-total // max(1, step)) or 1
        ends = [total * n // count for n in range(count + 1)]
        return [slice(*ends[n : n + 2]) for n in range(count)]

    monkeypatch.setattr(convolutions, "parts_of", cut)
    monkeypatch.setattr(images, "parts_of", cut)


# -- parts -------------------------------------------------------------------


@given(
    total=st.integers(0, 300),
    pixels=st.integers(0, 100),
    cache=st.integers(1, 10_000),
    threads=st.integers(1, 8),
)
def test_parts_of_a_batch(total, pixels, cache, threads):
    batch = np.empty((total, pixels), np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolutions, "cache_size", lambda: cache)
        parts = parts_of(batch, threads)
        assert parts_of(batch, None) == [slice(0, max(total, 1))]
    covered = [n for part in parts for n in range(part.start, part.stop)]
    assert covered == list(range(max(total, 1)))
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= min(threads, max(total, 1))
    fits = -(-batch.nbytes // (threads * cache)) <= len(parts)
    assert fits or min(sizes) < 2 * threads


@pytest.mark.parametrize(
    ("total", "needed", "count"),
    [(100, 3, 4), (100, 4, 4), (100, 7, 10), (97, 3, 3), (7, 2, 2), (64, 5, 8)],
)
def test_parts_are_equal_if_they_can_be(monkeypatch, total, needed, count):
    monkeypatch.setattr(convolutions, "cache_size", lambda: -(-4 * total // needed))
    assert len(parts_of(np.empty((total, 1), np.float32), 1)) == count


def test_size_of_the_cache(tmp_path):
    def note(number, **files):
        folder = tmp_path / f"index{number}"
        folder.mkdir(exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text)

    default = machine._cache_size(tmp_path / "missing")
    assert default == machine._cache_size(tmp_path) == 2**20
    note(0, level="1\n", size="32K\n")
    note(1)
    note(2, level="two\n", size="1024K\n")
    for size in ("", "K", "manyK", "0K", "-1K", "7X", "\N{SUPERSCRIPT TWO}K"):
        note(3, level="2\n", size=size)
        assert machine._cache_size(tmp_path) == default
    note(3, size="512K\n")
    assert machine._cache_size(tmp_path) == 2**19
    note(3, size="2M\n")
    assert machine._cache_size(tmp_path) == 2**21
    assert machine.cache_size() > 0


# -- convolution in parts ----------------------------------------------------

SHAPES = {
    "plain": ((7, 9, 8, 3), (16, 3, 3, 3), 1, (1, 1), (1, 1), 1),
    "strided": ((5, 10, 9, 4), (8, 3, 2, 4), 0, (2, 1), (1, 1), 1),
    "dilated": ((4, 9, 9, 3), (8, 3, 3, 3), 2, (1, 1), (2, 2), 1),
    "groups": ((3, 8, 8, 8), (16, 3, 3, 4), 1, (1, 1), (1, 1), 2),
    "channel by channel": ((5, 8, 8, 16), (16, 3, 3, 1), 1, (1, 1), (1, 1), 16),
    "one image": ((1, 9, 9, 3), (8, 3, 3, 3), 1, (1, 1), (1, 1), 1),
    "empty": ((0, 9, 9, 3), (8, 3, 3, 3), 1, (1, 1), (1, 1), 1),
}


def both_passes(handler, case, activation, fresh):
    shape, kernels, padding, stride, dilation, groups = case
    windows = Windows(kernels[1:3], padding, stride, dilation, groups)
    out_shape = (shape[0], *windows.counted((1, *shape[1:])), kernels[0])
    put = handler.create_from_numpy
    x, W, bias = put(randn(*shape)), put(randn(*kernels, seed=1)), randn(kernels[0])
    bias, dy, y = put(bias), put(randn(*out_shape, seed=2)), handler.ones(out_shape)
    given = {"dilation": dilation, "groups": groups}
    where = padding, stride
    handler.conv2d_forward_batch(x, W, bias, y, *where, activation, **given)
    before = [put(randn(*a.shape, seed=3)) for a in (x, W, bias)]
    dx, dW, dbias = before
    handler.conv2d_backward_batch(
        *(x, W, *where, dx, dy, dW, dbias, activation, y, fresh, fresh), **given
    )
    return y, dx, dW, dbias


@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "added"])
@pytest.mark.parametrize("step", [1, 2, 3, None])
@pytest.mark.parametrize("shape", SHAPES)
def test_convolution_in_parts(monkeypatch, handler, shape, step, fresh):
    in_parts_of(step, monkeypatch)
    for activation in ("rel", "leaky_rel", "tanh"):
        got = both_passes(handler, SHAPES[shape], activation, fresh)
        exact = both_passes(NumpyHandler(np.float64), SHAPES[shape], activation, fresh)
        for ours, expected in zip(got, exact, strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


def backward_call(handler, total, step, monkeypatch, activation="rel"):
    """The call for a batch in parts, and how often it reorders or adds kernels."""
    in_parts_of(step, monkeypatch)
    x, W, y = randn(total, 16, 16, 32), randn(64, 3, 3, 32), randn(total, 16, 16, 64)
    bias, counts = randn(64), {"to": 0, "from": 0, "added": 0}
    reorder = recipes.Recipe.reorder

    def count(self, source, target, add=False):
        given = [memory.number is not None for memory in (source, target)]
        if source.desc.shape == (64, 32, 3, 3):
            counts["to" if given[0] else "from" if given[1] else "added"] += 1
        reorder(self, source, target, add)

    monkeypatch.setattr(recipes.Recipe, "reorder", count)
    arrays = x, W, np.empty_like(x), y, np.empty_like(W), bias, y
    options = Windows((3, 3), 1, (1, 1)), activation, True, True
    session = OneDnnHandler(threads=1).current_session()
    call = session.prepare_moving(convolution_backward, arrays, options)
    monkeypatch.setattr(recipes.Recipe, "reorder", reorder)
    return call, counts


def primitives_of(call):
    return {primitive.value for primitive, *_ in call._steps}


def test_kernels_are_reordered_once_for_all_parts(monkeypatch, handler):
    whole, counts = backward_call(handler, 12, None, monkeypatch)
    assert counts["to"] <= 1
    assert counts["from"] <= 1
    for step, parts in ((6, 2), (3, 4), (1, 12)):
        call, in_parts = backward_call(handler, 12, step, monkeypatch)
        assert in_parts == {"to": counts["to"], "from": 1, "added": parts - 1}
        added = 2 if counts["from"] else 3  # sums of kernels, and of the bias
        assert len(primitives_of(call)) <= len(primitives_of(whole)) + added


def test_parts_of_two_sizes_need_two_primitives_each(monkeypatch, handler):
    call, counts = backward_call(handler, 11, 3, monkeypatch)
    assert counts["to"] <= 2
    equal, _ = backward_call(handler, 12, 3, monkeypatch)
    more = len(primitives_of(call)) - len(primitives_of(equal))
    assert more <= 4  # a derivative, two convolutions, and kernels in another format
    assert len(call._steps) <= len(equal._steps) + 1


def test_a_batch_with_linear_activation_stays_whole(monkeypatch, handler):
    monkeypatch.setattr(convolutions, "cache_size", lambda: 1)
    _, counts = backward_call(handler, 12, 3, monkeypatch, "linear")
    assert counts["added"] == 0


# -- activation functions ----------------------------------------------------


@pytest.mark.parametrize("name", ["rel", "leaky_rel"])
def test_slopes_of_special_numbers(handler, name):
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 2, -2], "f")
    y, dy = (a.ravel() for a in np.meshgrid(special, special))
    y, dy = np.resize(y, 30_000), np.resize(dy, 30_000)
    got, expected = np.empty_like(y), np.empty_like(y)
    with np.errstate(invalid="ignore"):
        handler.act_func_deriv[name](y, y, dy, got)
        NumpyHandler(np.float32).act_func_deriv[name](y, y, dy, expected)
    np.testing.assert_array_equal(got, expected)


# -- pooling -----------------------------------------------------------------


def pool(handler, x, size, stride):
    P, Q = Windows(size, 0, stride).counted(x.shape)
    y, argmax, dx = (
        handler.ones((len(x), P, Q, x.shape[3])),
        None,
        handler.ones(x.shape),
    )
    y, argmax = handler.ones(y.shape), handler.ones(y.shape)
    handler.maxpool2d_forward_batch(x, size, y, 0, stride, argmax)
    dy = handler.create_from_numpy(randn(*y.shape, seed=5))
    handler.maxpool2d_backward_batch(x, size, y, 0, stride, argmax, dx, dy)
    return y, argmax, dx


def check_pooling(handler, x, size=(3, 3), stride=(2, 2)):
    got = pool(handler, x, size, stride)
    expected = pool(NumpyHandler(np.float32), x, size, stride)
    for ours, numpys in zip(got, expected, strict=True):
        np.testing.assert_allclose(ours, numpys, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("step", [1, 2, 3, None])
def test_pooling_in_parts(monkeypatch, handler, step):
    in_parts_of(step, monkeypatch)
    x = randn(7, 9, 8, 16)
    check_pooling(handler, x)
    for special in ([np.nan], [np.inf], [-np.inf], [np.inf, -np.inf], [3e38] * 9):
        for image in (0, 6):
            changed = x.copy()
            changed[image].flat[20 : 20 + len(special)] = special
            check_pooling(handler, changed)


def test_pooling_of_images_with_gaps(handler):
    x = randn(3, 9, 8, 32)[..., ::2]
    check_pooling(handler, x)
    x[2, 3, 4, 5] = np.nan
    check_pooling(handler, x)


def test_pooling_with_more_places_than_a_byte_counts(handler):
    check_pooling(handler, randn(2, 20, 19, 16), (17, 16), (2, 3))


def test_pooling_where_the_library_can_not_sum(monkeypatch, handler):
    primitive = recipes.Recipe.primitive

    def without_sums(self, kind, *args, **kwargs):
        if kind == "reduction":
            raise UnimplementedError
        return primitive(self, kind, *args, **kwargs)

    monkeypatch.setattr(recipes.Recipe, "primitive", without_sums)
    x = randn(3, 9, 8, 16)
    check_pooling(handler, x)
    x[1, 2, 3, 4] = np.nan
    check_pooling(handler, x)
    arrays = x, np.empty((3, 4, 3, 16), "f"), np.empty((3, 4, 3, 16), "f")
    call = handler._find(images.pooling, arrays, Windows((3, 3), 0, (2, 2)))
    assert call
    assert call.values is None

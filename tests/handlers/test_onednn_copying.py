"""Copies of large arrays by oneDNN are those that NumPy makes."""

import numpy as np
import pytest

from brainstorm.handlers.onednn import memory
from tests.handlers.handler_cases import onednn_handler


def values(*shape):
    rnd = np.random.RandomState(0)
    array = rnd.standard_normal(shape).astype(np.float32)
    array.flat[:3] = np.nan, np.inf, -0.0
    return array


VIEWS = {
    "steps first": lambda a: a.swapaxes(0, 1),
    "columns": lambda a: a[..., 3:40],
    "backwards": lambda a: a[::-1].swapaxes(0, 1),
    "one row again and again": lambda a: np.broadcast_to(a[:1], a.shape),
    "by heads": lambda a: a.reshape(60, 40 * 4, 12).swapaxes(0, 1),
}


@pytest.fixture
def made(monkeypatch):
    made, build = [], memory.copy

    def noted(*args):
        call = build(*args)
        made.append(call)
        return call

    monkeypatch.setattr(memory, "copy", noted)
    return made


@pytest.mark.parametrize("name", VIEWS)
def test_from_and_into_strided_arrays(name):
    handler, view = onednn_handler(), VIEWS[name]
    source = view(values(60, 40, 48))
    dense = np.empty(source.shape, np.float32)
    handler.copy_to(source, dense)
    np.testing.assert_array_equal(dense.view(np.int32), source.copy().view(np.int32))
    if not source.flags.writeable:
        return
    target = view(np.zeros((60, 40, 48), np.float32))
    handler.copy_to(dense, target)
    np.testing.assert_array_equal(target, source)


def test_the_library_copies_what_is_large_and_strided(made):
    handler, source = onednn_handler(), values(60, 40, 48)
    handler.copy_to(source, np.empty_like(source))  # side by side
    handler.copy_to(source[:2].swapaxes(0, 1), np.empty((40, 2, 48), np.float32))
    assert made == []
    handler.copy_to(source.swapaxes(0, 1), np.empty((40, 60, 48), np.float32))
    assert len(made) == 1


def test_within_one_array():
    handler, array = onednn_handler(), values(60, 60, 48)
    expected = array.swapaxes(0, 1).copy()
    handler.copy_to(array.swapaxes(0, 1), array)
    np.testing.assert_array_equal(array, expected)


def test_into_what_can_not_be_written():
    handler, source = onednn_handler(), values(60, 40, 48)
    target = np.zeros((40, 60, 48), np.float32)
    target.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        handler.copy_to(source.swapaxes(0, 1), target)
    assert not target.any()


def test_other_shapes_are_those_of_numpy():
    handler, row = onednn_handler(), values(1, 40, 48)
    target = np.zeros((60, 40, 48), np.float32)
    handler.copy_to(row, target)
    np.testing.assert_array_equal(target, np.broadcast_to(row, target.shape))

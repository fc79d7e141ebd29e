"""Views of buffers as rows, and copies where there are no such views."""

import numpy as np
import pytest

from brainstorm.handlers import NumpyHandler
from brainstorm.layers.rows import Rows, as_column
from brainstorm.structure.buffer_views import BufferView
from brainstorm.utils import HandlerError, flatten_all_but_last, flatten_time


def buffers_of(**categories):
    views = [BufferView(list(c), list(c.values())) for c in categories.values()]
    return BufferView(list(categories), views)


def some_buffers():
    rnd = np.random.RandomState(0)
    beside = rnd.randn(2, 3, 20)  # two images side by side
    joined = beside[..., :12].reshape(2, 3, 2, 3, 2)
    assert np.shares_memory(joined, beside)
    return buffers_of(
        inputs={"default": rnd.randn(2, 3, 2, 3, 2)}, outputs={"default": joined}
    )


def test_views_have_the_shape_that_is_asked_for():
    buffers = some_buffers()
    x, y = buffers.inputs.default, buffers.outputs.default
    rows = Rows("inputs.default", writes=["outputs.default"])
    for view, array in zip(rows(buffers), (x, y), strict=True):
        assert np.shares_memory(view, array)
        assert np.array_equal(view, array.reshape(6, 12))
    images = Rows("inputs.default", "outputs.default", shape=flatten_time)(buffers)
    assert [image.shape for image in images] == [(6, 2, 3, 2)] * 2
    (column,) = Rows("inputs.default", shape=as_column)(buffers)
    assert np.array_equal(column, x.reshape(72, 1))


def test_views_are_remembered_until_a_resize():
    buffers = some_buffers()
    rows, others = Rows("inputs.default"), Rows("inputs.default", shape=flatten_time)
    first = rows(buffers)
    assert rows(buffers) is first
    assert others(buffers)[0].shape != first[0].shape
    other = some_buffers()
    BufferView.adjust(buffers, ["inputs"], [other.inputs])
    assert np.shares_memory(rows(buffers)[0], other.inputs.default)


def test_buffers_that_a_layer_does_not_have_are_none():
    assert (
        Rows("internals.H", "inputs.default")(
            buffers_of(inputs={"default": np.ones((1, 1, 1))}, internals={})
        )[0]
        is None
    )


def test_what_has_no_view_is_copied_there_and_back():
    buffers, handler = some_buffers(), NumpyHandler(np.float64)
    buffers.outputs.default[...] = 5
    rows = Rows(
        "outputs.default", writes=["inputs.default"], shape=flatten_all_but_last
    )
    back = Rows(
        "inputs.default", writes=["outputs.default"], shape=flatten_all_but_last
    )
    with pytest.raises(HandlerError, match="no view"):
        back(buffers)
    y, x = rows.load(handler, buffers)
    assert np.shares_memory(x, buffers.inputs.default)
    assert not np.shares_memory(y, buffers.outputs.default)
    assert y.tolist() == [[5, 5]] * 36
    y[...] = 7
    rows.store(handler, buffers)  # y was only read
    assert (buffers.outputs.default == 5).all()
    buffers.outputs.default[...] = 6
    _, y = back.load(handler, buffers)
    assert (y == 6).all()
    y[...] = np.arange(72).reshape(36, 2)
    back.store(handler, buffers)
    assert buffers.outputs.default.ravel().tolist() == list(range(72))
    assert back.load(handler, buffers)[1] is y

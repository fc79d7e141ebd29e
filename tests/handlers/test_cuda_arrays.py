"""Arrays on a GPU behave as NumPy's do, as far as they are meant to."""

import copy
import pickle

import numpy as np
import pytest
from cuda_on_cpu.sanitized import sanitized_handler
from hypothesis import given, settings
from hypothesis import strategies as st

from brainstorm.handlers.cuda.arrays import CudaArray

shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
indices = st.lists(
    st.one_of(
        st.integers(-5, 4),
        st.just(...),
        st.slices(6).map(lambda s: slice(s.start, s.stop)),
        st.integers(0, 4).map(np.int64),
    ),
    max_size=4,
).map(tuple)


@pytest.fixture(scope="module")
def handler():
    return sanitized_handler()


def numbered(shape):
    return np.arange(float(np.prod(shape)), dtype=np.float32).reshape(shape)


def check_same(handler, array, values):
    assert array.shape == values.shape
    assert array.size == values.size
    assert array.ndim == values.ndim
    assert (handler.get_numpy_copy(array) == values).all()
    if values.size > 1:
        assert array.contiguous == values.flags.c_contiguous


@given(shape=shapes, index=indices, more=indices)
@settings(max_examples=200)
def test_views(handler, shape, index, more):
    values = numbered(shape)
    array = handler.create_from_numpy(values)
    for part in (index, more):
        # Where NumPy has a scalar, we have a view.
        whole = part if any(p is ... for p in part) else (*part, ...)
        try:
            values = values[whole]
        except IndexError:
            with pytest.raises(IndexError):
                array[part]
            return
        array = array[part]
        check_same(handler, array, values)
    handler.fill(array, -1.0)
    values[...] = -1.0
    check_same(handler, array, values)


@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple),
    cuts=st.lists(st.integers(0, 2), min_size=4, max_size=4),
    data=st.data(),
)
@settings(max_examples=300)
def test_reshape(handler, shape, cuts, data):
    part = tuple(slice(c, n + c) for n, c in zip(shape, cuts, strict=False))
    whole = numbered([n + 2 for n in shape])
    values = whole[part]
    array = handler.create_from_numpy(whole)[part]
    factors = [n for n in values.shape if n > 1] or [1]
    sizes = []  # splits and joins of the axes, and 1 here and there
    for n in factors:
        if n == 4 and data.draw(st.booleans()):
            sizes += [2, 2]
        elif sizes and data.draw(st.booleans()):
            sizes[-1] *= n
        else:
            sizes.append(n)
        if data.draw(st.booleans()):
            sizes.append(1)
    shape = tuple(sizes)
    check_same(handler, array.reshape(shape), values.reshape(shape))
    expected = values.reshape(shape)
    is_view = np.shares_memory(expected, whole)
    assert (handler.overlap(array.reshape(shape), array) != "none") is is_view
    assert array.reshape(*shape[:-1], -1).shape == shape


def test_reshape_of_another_size(handler):
    array = handler.zeros((3, 4))
    for view in (array, array[:, 1:3]):
        for shape in [(5,), (3, 5), (-1, 5), (-1, -1)]:
            with pytest.raises(ValueError, match="reshape|unknown dimension"):
                view.reshape(shape)


@pytest.mark.parametrize("index", [slice(None, None, 2), slice(3, 0, -1)])
def test_steps_are_refused(handler, index):
    with pytest.raises(IndexError, match="no steps"):
        handler.zeros((4,))[index]


@pytest.mark.parametrize("index", [[0, 1], np.array([True, False]), 1.0, None, "a"])
def test_other_indices_are_refused(handler, index):
    with pytest.raises(IndexError, match="integers, slices"):
        handler.zeros((4,))[index]


def test_iteration(handler):
    array = handler.create_from_numpy(numbered((3, 2)))
    assert len(array) == 3
    rows = [handler.get_numpy_copy(row).tolist() for row in array]
    assert rows == [[0, 1], [2, 3], [4, 5]]


def test_numpy_does_not_convert(handler):
    array = handler.zeros((3,))
    for convert in (np.asarray, np.array, np.sum):
        with pytest.raises(TypeError, match="get_numpy_copy"):
            convert(array)


def test_interface_for_other_libraries(handler):
    array = handler.zeros((3, 4))[:, 1:3]
    interface = array.__cuda_array_interface__
    assert interface["shape"] == (3, 2)
    assert interface["strides"] == (16, 4)
    assert interface["typestr"] == "<f4"
    assert interface["data"] == (array.pointer, False)
    assert handler.zeros((0, 4)).__cuda_array_interface__["data"] == (0, False)


def test_text(handler):
    assert (
        repr(handler.zeros((3, 4))[:, 1:3]) == "CudaArray(shape=(3, 2), strides=(4, 1))"
    )
    assert handler.array_type is CudaArray


def test_copies_have_memory_of_their_own(handler):
    whole = handler.create_from_numpy(numbered((3, 4)))
    part = whole[:, 1:3]
    other = copy.deepcopy(part)
    check_same(handler, other, numbered((3, 4))[:, 1:3].copy())
    handler.fill(other, 9.0)
    check_same(handler, whole, numbered((3, 4)))
    with pytest.raises(TypeError, match="can not be pickled"):
        pickle.dumps(part)

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainstorm.randomness import global_rnd
from brainstorm.tools.data import shuffle_data, split
from brainstorm.utils import ValidationError


def numbered(T, B, *features):
    return np.arange(B * 1.0).reshape(1, B, *[1] * len(features)) + np.zeros(
        (T, B, *features)
    )


def test_shuffling_keeps_sequences_whole_and_together():
    x, y = numbered(3, 50, 2), numbered(1, 50, 4, 1)
    shuffled = shuffle_data(x, y, seed=1)
    assert type(shuffled) is list
    shuffled_x, shuffled_y = shuffled
    order = shuffled_x[0, :, 0]
    assert sorted(order) == list(range(50))
    assert list(order) != list(range(50))
    assert (shuffled_x == order[None, :, None]).all()
    assert (shuffled_y == order[None, :, None, None]).all()
    assert shuffled_y.shape == y.shape


def test_shuffling_leaves_the_data_alone():
    x = numbered(1, 50, 2)
    x.setflags(write=False)
    assert not np.shares_memory(shuffle_data(x)[0], x)


def test_shuffling_one_array_gives_a_list_of_one():
    (shuffled,) = shuffle_data(numbered(2, 5, 3))
    assert shuffled.shape == (2, 5, 3)


def test_none_stays_none():
    x = numbered(1, 10, 2)
    shuffled = shuffle_data(None, x, None, seed=1)
    assert shuffled[0] is shuffled[2] is None
    assert np.array_equal(shuffled[1], shuffle_data(x, seed=1)[0])
    parts = split(x, None)
    assert [part[1] for part in parts] == [None, None]
    assert [part[0].shape[1] for part in parts] == [9, 1]
    assert shuffle_data(None) == [None]
    assert split(None, ratios=(1, 1, 1)) == [[None]] * 3


def test_shuffling_is_reproducible():
    x = numbered(1, 50, 1)

    def same(a, b):
        return (a[0] == b[0]).all()

    assert same(shuffle_data(x, seed=3), shuffle_data(x, seed=3))
    assert not same(shuffle_data(x, seed=3), shuffle_data(x, seed=4))
    global_rnd.set_seed(5)
    first, second = shuffle_data(x), shuffle_data(x)
    global_rnd.set_seed(5)
    assert same(shuffle_data(x), first)
    assert not same(first, second)


def test_data_in_hdf5_files(tmp_path):
    with h5py.File(tmp_path / "data.hdf5", "w") as f:
        f["x"] = numbered(2, 10, 3)
        (train,), (test,) = split(f["x"])
        (shuffled,) = shuffle_data(f["x"], seed=0)
    np.testing.assert_array_equal(train, numbered(2, 10, 3)[:, :9])
    np.testing.assert_array_equal(test, numbered(2, 10, 3)[:, 9:])
    assert sorted(shuffled[0, :, 0]) == list(range(10))


def test_split_several_arrays():
    x, y = numbered(3, 20, 2), numbered(1, 20, 1)
    parts = split(x, y)
    assert [type(p) for p in [parts, *parts]] == [list] * 3
    (x_train, y_train), (x_test, y_test) = parts
    np.testing.assert_array_equal(x_train, x[:, :18])
    np.testing.assert_array_equal(x_test, x[:, 18:])
    np.testing.assert_array_equal(y_train, y[:, :18])
    np.testing.assert_array_equal(y_test, y[:, 18:])
    assert np.shares_memory(x_train, x)


@pytest.mark.parametrize(
    ("B", "ratios", "sizes"),
    [
        (10, (9, 1), [9, 1]),
        (10, (0.8, 0.1, 0.1), [8, 1, 1]),
        (100, (1, 1, 1), [33, 34, 33]),
        (4, [1], [4]),
        (7, np.array([50.0, 20.0]), [5, 2]),
        (10, (9, 0, 1), [9, 0, 1]),
        (5, (99, 1), [5, 0]),
        (2, (1, 1, 1), [1, 0, 1]),
        (0, (1, 2), [0, 0]),
    ],
)
def test_split_one_array_in_proportion(B, ratios, sizes):
    parts = split(numbered(1, B, 1), ratios=ratios)
    assert [part.shape for (part,) in parts] == [(1, size, 1) for size in sizes]


@given(st.integers(20, 200), st.lists(st.floats(0.2, 1), min_size=1, max_size=4))
def test_split_loses_nothing_and_rounds_to_the_nearest(B, ratios):
    parts = split(numbered(1, B, 1), ratios=ratios)
    joined = np.concatenate([part for (part,) in parts], axis=1)
    np.testing.assert_array_equal(joined, numbered(1, B, 1))
    for (part,), ratio in zip(parts, ratios, strict=True):
        assert abs(part.shape[1] - B * ratio / sum(ratios)) <= 1


@pytest.mark.parametrize("tool", [shuffle_data, split])
@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ([], ["at least one array"]),
        ([np.zeros((1, 3)), np.zeros(3)], ["array 1", "(T, B)", "(3,)"]),
        ([np.zeros((1, 30, 2)), np.zeros((1, 40, 2))], ["array 1", "30", "40"]),
        ([None, np.zeros((1, 3)), np.zeros((1, 4))], ["array 2", "in array 1"]),
    ],
)
def test_bad_arrays(tool, arrays, words):
    with pytest.raises(ValidationError) as error:
        tool(*arrays)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    "bad", [(0, 0), (-1, 1), (), ("a", 1), (np.nan, 1), (1, np.inf)]
)
def test_ratios_are_numbers(bad):
    with pytest.raises(ValidationError, match="ratios: expected numbers of at least 0"):
        split(numbered(1, 10, 1), ratios=bad)

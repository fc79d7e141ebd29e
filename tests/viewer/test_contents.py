import base64
import math

import numpy as np
import pytest

from brainstorm.viewer.contents import (
    EXACT,
    describe_array,
    packed_size,
    plain_number,
    thinned,
    unpack,
)


def test_small_arrays_are_there_as_they_are():
    array = np.random.RandomState(0).randn(5, 7).astype(np.float32)
    contents = describe_array(array, 1000)
    assert contents["shape"] == contents["kept"] == [5, 7]
    assert unpack(contents).tolist() == array.tolist()
    stats = contents["stats"]
    values = [float(v) for row in array for v in row]
    mean = math.fsum(values) / 35
    variance = math.fsum((v - mean) ** 2 for v in values) / 35
    assert stats["mean"] == pytest.approx(mean, rel=1e-5)
    assert stats["std"] == pytest.approx(math.sqrt(variance), rel=1e-5)
    assert stats["min"] == pytest.approx(min(values), rel=1e-5)
    assert stats["max"] == pytest.approx(max(values), rel=1e-5)
    assert stats["not_finite"] == 0


def test_histograms_count_all_values():
    array = np.random.RandomState(1).randn(60, 70)
    histogram = describe_array(array, 10)["histogram"]
    low, high = histogram["low"], histogram["high"]
    assert (low, high) == (array.min(), array.max())
    counts = [0] * len(histogram["counts"])
    for value in array.ravel():
        place = int((value - low) / (high - low) * len(counts))
        counts[min(place, len(counts) - 1)] += 1
    assert histogram["counts"] == counts
    assert sum(counts) == 4200


def test_large_arrays_have_levels():
    array = np.random.RandomState(2).rand(50, 2 * EXACT // 50)
    contents = describe_array(array, 10**6)
    assert len(base64.b64decode(contents["data"])) == array.size
    step = np.ptp(array) / 254
    assert np.abs(unpack(contents) - array).max() <= 0.5001 * step


@pytest.mark.parametrize(
    ("shape", "limit", "along"),
    [
        ((1000, 1000), 5000, None),
        ((7,), 3, None),
        ((100, 3, 3, 8), 900, [0]),
        ((4, 500, 500, 3), 10_000, [0]),
        ((1, 1, 99999), 10, None),
        ((5, 4, 3, 2), 1, None),
        ((10, 10), 100, None),
    ],
)
def test_thinning_keeps_to_the_limit(shape, limit, along):
    steps = thinned(shape, limit, along)
    sizes = [len(range(0, n, step)) for n, step in zip(shape, steps, strict=True)]
    assert math.prod(sizes) <= limit
    assert math.prod(sizes) * 4 > min(limit, math.prod(shape))
    if along == [0] and math.prod(shape[1:]) <= limit:
        assert steps[1:] == [1] * (len(shape) - 1)


def test_what_is_kept_are_values_of_the_array():
    array = np.arange(300.0).reshape(20, 15)
    contents = describe_array(array, 60)
    a, b = contents["steps"]
    assert unpack(contents).tolist() == array[::a, ::b].tolist()
    assert contents["stats"]["max"] == 299
    assert contents["shape"] == [20, 15]


def test_limits_of_nothing():
    contents = describe_array(np.ones((3, 4)), 0)
    assert "data" not in contents
    assert contents["stats"]["mean"] == 1
    assert packed_size((3, 4), 0) == 0


@pytest.mark.parametrize("size", [3, EXACT + 7])
def test_values_that_are_not_finite(size):
    array = np.arange(float(size))
    array[:3] = np.nan, np.inf, -np.inf
    contents = describe_array(array, 10**5)
    assert contents["stats"]["not_finite"] == 3
    values = unpack(contents)
    assert not np.isfinite(values[:3]).any()
    if size > 3:
        assert contents["stats"]["min"] == 3
        assert values[3] == 3
        assert values[-1] == size - 1


@pytest.mark.parametrize(
    "array", [np.full(9, 2.5), np.zeros((2, 0)), np.full(5000, -1e300), np.ones(())]
)
def test_degenerate_arrays(array):
    contents = describe_array(array, 100)
    assert np.prod(contents["kept"]) <= max(100, 1)
    if array.size > 1:
        histogram = contents["histogram"]
        assert histogram["counts"] == [array.size]
        assert histogram["low"] == histogram["high"] == array.flat[0]


def test_the_largest_numbers():
    contents = describe_array(1.7e308 * np.linspace(-1, 1, 3000), 10**5)
    assert contents["histogram"] is None
    assert contents["stats"]["not_finite"] == 0


@pytest.mark.parametrize("shape", [(10, 10), (3000,), (400, 30, 2)])
def test_packed_size_is_that_of_the_data(shape):
    contents = describe_array(np.random.RandomState(0).rand(*shape), 2500)
    assert abs(packed_size(shape, 2500) - len(contents["data"])) <= 4


def test_plain_numbers():
    assert plain_number(np.float32(0.1)) == 0.1
    assert plain_number(np.nan) is None
    assert plain_number(-np.inf) is None

"""Data iterators that make spikes, against numbers of others."""

import numpy as np
import pytest

from brainstorm import global_rnd
from brainstorm.data_iterators import (
    DeltaEncoding,
    LatencyEncoding,
    Minibatches,
    PhaseEncoding,
    RateEncoding,
    Subsequences,
    Undivided,
)
from brainstorm.utils import IteratorValidationError
from tests.golden import golden

Z = golden("encoders")
RND = np.random.RandomState(7)


def only(iterator):
    (batch,) = iterator()
    assert batch["default"].shape == iterator.data_shapes["default"]
    return batch["default"]


STATIC = Undivided(default=Z["xs"][np.newaxis])
SERIES = Undivided(default=Z["diff_series"][:, np.newaxis])


@pytest.mark.parametrize(
    ("iterator", "expected"),
    [
        (LatencyEncoding(STATIC, 10), Z["latency_linear"]),
        (LatencyEncoding(STATIC, 10, "log", tau=5), Z["latency_log"]),
        (PhaseEncoding(STATIC, 16), Z["phase"]),
        (DeltaEncoding(SERIES, 0.2), Z["diff_on"][:, np.newaxis]),
        (DeltaEncoding(SERIES, 0.2, True), Z["diff_off"][:, np.newaxis]),
    ],
    ids=["linear", "log", "phase", "on", "off"],
)
def test_the_numbers_of_others(iterator, expected):
    np.testing.assert_array_equal(only(iterator), expected)
    assert only(iterator).dtype == np.float64


def test_latencies_that_are_normalized_end_with_the_last_step():
    x = RND.uniform(0.2, 0.9, (1, 3, 4))
    spikes = only(LatencyEncoding(Undivided(default=x), 20, "log", normalize=True))
    times = np.log(x / (x - 0.01))
    times = np.round(times * 19 / times.max())
    np.testing.assert_array_equal(spikes.argmax(axis=0), times[0])
    np.testing.assert_array_equal(spikes.sum(axis=0), 1)
    ones = Undivided(default=np.ones((1, 2, 1)))
    spikes = only(LatencyEncoding(ones, 5, normalize=True))
    assert spikes[0].min() == spikes.sum() / 2 == 1


def test_rates():
    x = np.array([0.0, 0.2, 0.7, 1.0]).reshape(1, 1, 4).repeat(30, axis=1)
    spikes = only(RateEncoding(Undivided(default=x), 200))
    assert set(np.unique(spikes)) == {0, 1}
    np.testing.assert_allclose(spikes.mean(axis=(0, 1)), x[0, 0], atol=0.03)
    assert np.all(spikes[..., 0] == 0)
    assert np.all(spikes[..., 3] == 1)


def test_each_step_of_a_sequence_is_coded():
    x = RND.rand(3, 2, 4)
    for make in (LatencyEncoding, PhaseEncoding):
        whole = only(make(Undivided(default=x), 6))
        parts = [only(make(Undivided(default=x[t : t + 1]), 6)) for t in range(3)]
        np.testing.assert_array_equal(whole, np.concatenate(parts))
    x = np.repeat([0.0, 1.0, 0.0], 8).reshape(3, 2, 4)
    spikes = only(RateEncoding(Undivided(default=x), 5))
    np.testing.assert_array_equal(spikes, np.repeat(x, 5, axis=0))


def test_some_items():
    data = Minibatches(2, False, a=RND.rand(1, 5, 3), b=RND.rand(1, 5, 2))
    iterator = RateEncoding(data, {"b": 7})
    assert iterator.data_shapes == {"a": (1, 5, 3), "b": (7, 5, 2)}
    assert [b["b"].shape for b in iterator()] == [(7, 2, 2), (7, 2, 2), (7, 1, 2)]
    assert [b["a"].shape[0] for b in iterator()] == [1, 1, 1]


def test_rates_are_reproducible():
    def drawn(seed):
        global_rnd.set_seed(seed)
        iterator = RateEncoding(
            Minibatches(2, False, default=0.5 * np.ones((1, 4, 9))), 5
        )
        return np.array([b["default"] for _ in range(2) for b in iterator()])

    first = drawn(1)
    np.testing.assert_array_equal(drawn(1), first)
    assert np.any(drawn(2) != first)
    assert np.any(first[:2] != first[2:])


@pytest.mark.parametrize("padding", [False, True])
def test_differences_go_on_from_piece_to_piece(padding):
    data = Minibatches(2, False, default=RND.randn(10, 4, 3))
    whole = DeltaEncoding(data, 0.3, off_spikes=True, padding=padding)
    pieces = DeltaEncoding(Subsequences(data, 3), 0.3, True, padding)
    expected = [batch["default"] for batch in whole()]
    found = [batch["default"] for batch in pieces()]
    for i, sequence in enumerate(expected):
        np.testing.assert_array_equal(
            np.concatenate(found[4 * i : 4 * i + 4]), sequence
        )
    assert np.any(expected[0][0] != 0) != padding


def test_types():
    for dtype, made in (
        (bool, "f4"),
        (np.uint8, "f4"),
        (np.float32, "f4"),
        (float, "f8"),
    ):
        data = Undivided(default=np.array([0, 1, 0, 1, 1], dtype).reshape(5, 1, 1))
        for iterator in (RateEncoding(data, 2), DeltaEncoding(data, 1)):
            assert only(iterator).dtype == made
        assert only(DeltaEncoding(data, 1)).ravel().tolist() == [0, 1, 0, 1, 0]


DATA = Undivided(default=np.full((1, 2, 3), 0.5), other=np.full((1, 2, 1), 1.5))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RateEncoding([1], 5), "iter: expected a DataIterator"),
        (
            lambda: RateEncoding(DATA, 0),
            r"steps\['default'\]: expected an integer >= 1",
        ),
        (lambda: RateEncoding(DATA, {"no": 5}), "steps: there is no data item 'no'"),
        (
            lambda: LatencyEncoding(DATA, 5, "cubic"),
            "method: expected 'linear' or 'log'",
        ),
        (lambda: LatencyEncoding(DATA, 5, tau=0), "tau: expected a number > 0"),
        (lambda: LatencyEncoding(DATA, 5, threshold=-1), "threshold: expected"),
        (lambda: LatencyEncoding(DATA, 5, normalize=2), "normalize: expected True"),
        (lambda: PhaseEncoding(DATA, 5, 0), "phases: expected an integer >= 1"),
        (
            lambda: DeltaEncoding(DATA, 0),
            r"threshold\['default'\]: expected a number >",
        ),
        (lambda: DeltaEncoding(DATA, 1, 1), "off_spikes: expected True or False"),
        (lambda: only(RateEncoding(DATA, {"other": 5})), "'other'.* 0 to 1, got 1.5"),
    ],
)
def test_errors(make, words):
    with pytest.raises(IteratorValidationError, match=words):
        make()

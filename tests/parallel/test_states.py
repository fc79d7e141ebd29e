"""Checkpoints, logs and random numbers of several ranks, see `resume_cases`."""

import pytest

from tests.parallel import resume_cases
from tests.parallel.launching import on_ranks

NAME = resume_cases.__name__


@pytest.fixture(scope="module")
def results():
    cases = ["goes_on_exactly", "saves_when_one_is_interrupted"]
    return on_ranks(2, NAME, *cases, "writes_on_the_first", "streams")


@pytest.mark.slow
def test_training_goes_on_exactly(results):
    assert results["goes_on_exactly"] == [[True] * 4] * 2
    assert results["saves_when_one_is_interrupted"] == [4] * 2


@pytest.mark.slow
def test_another_number_of_ranks_goes_on(tmp_path):
    variables = {"SAVED": str(tmp_path)}
    on_ranks(2, NAME, "saved_by", **variables)
    for size in (1, 3):
        found = on_ranks(size, NAME, "continued_by", **variables)["continued_by"]
        for updates, parameters, rolling, _ in found:
            assert updates == resume_cases.UPDATES
            assert parameters == found[0][1]
            assert rolling == {"total_loss": 3, "Accuracy": 3}
        if size > 1:
            assert len({mask for *_, mask in found}) > 1


@pytest.mark.slow
def test_one_rank_writes_and_all_log_the_same(results):
    (files, close, logs), (no_files, also_close, same_logs) = results[
        "writes_on_the_first"
    ]
    assert files == ["best.hdf5", "checkpoint.hdf5", "net.hdf5"]
    assert no_files == []
    assert close
    assert also_close
    assert logs == same_logs
    assert logs["counts"] == {"rank": [0] * 3, "speaks": [True] * 3}
    (first, again), (other, other_again) = results["streams"]
    assert first == again
    assert other == other_again
    assert first[0] != other[0]
    assert first[1] != other[1]

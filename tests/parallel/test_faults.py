"""A few of the rounds of `faults`, which takes their number as arguments."""

import pytest

from tests.parallel.faults import fail_at_random, kill_at_random


@pytest.mark.slow
def test_a_killed_rank_ends_the_others_and_its_checkpoint_goes_on(tmp_path):
    kill_at_random(tmp_path, seed=2)


@pytest.mark.slow
def test_random_faults_end_all_ranks():
    fail_at_random(3, first=1000, count=20)

"""Evaluating in shares, and logs of whole batches, see `share_cases`."""

import pytest

from tests.parallel import share_cases
from tests.parallel.launching import on_ranks

CASES = ["evaluated", "extracted", "predicted", "monitored", "fitted"]


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 3])
def test_shares_make_the_whole(size):
    results = on_ranks(size, share_cases.__name__, *CASES, "reads_parts", "profiled")
    for case in CASES:
        for differences in results[case]:
            assert not isinstance(differences, str), (case, differences)
            assert max(differences) < 1e-10, (case, differences)
    # Of 10 sequences in batches of 4, 4 and 2; who gets none reads one to keep step.
    expected = {1: [20], 2: [10, 10], 3: [10, 6, 6]}
    assert results["reads_parts"] == expected[size]
    for operations in results["profiled"]:
        assert {"exchange", "wait_for_ranks"} <= set(operations)

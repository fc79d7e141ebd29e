"""Evaluating in shares, and logs of whole batches, see `share_cases`."""

import pytest

from brainstorm import handlers
from brainstorm.handlers.cuda import device
from brainstorm.handlers.cuda.device import PLACES
from brainstorm.parallel.ranks import _cores_of_each
from tests.handlers.handler_cases import pycuda_handler
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


@pytest.mark.slow
def test_handlers():
    kinds = ["NumpyHandler"]
    if handlers.default_handler.__class__ is not handlers.NumpyHandler:
        kinds.append("OneDnnHandler")
    cases = ["handlers", "threads"][: len(kinds)]
    results = on_ranks(2, share_cases.__name__, *cases, HANDLERS=" ".join(kinds))
    for differences in results["handlers"]:
        assert list(differences) == kinds
        assert max(differences.values()) < 1e-5
    for before, *during, after, cores in results.get("threads", []):
        assert during == [max(1, cores // 2)] * 2
        assert before == after


@pytest.mark.gpu
def test_gpus():
    pycuda_handler()  # skips where there is none
    results = on_ranks(2, share_cases.__name__, "handlers", HANDLERS="PyCudaHandler")
    for differences in results["handlers"]:
        assert differences["PyCudaHandler"] < 1e-5


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({}, 0),
        ({"SLURM_LOCALID": "3"}, 3),
        ({"MPI_LOCALRANKID": "2", "SLURM_LOCALID": "0"}, 2),
        ({"OMPI_COMM_WORLD_LOCAL_RANK": "1"}, 1),
        ({"MPI_LOCALRANKID": ""}, 0),
    ],
    ids=repr,
)
def test_ranks_take_one_gpu_after_the_other(monkeypatch, variables, place):
    for name in PLACES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert device._place_on_node() == place


def test_cores_of_each_rank():
    assert _cores_of_each([{0, 1, 2, 3}] * 2) == 2
    assert _cores_of_each([{0, 1}, {2, 3}]) == 2
    assert _cores_of_each([{0}] * 4) == 1
    assert _cores_of_each([{0, 1, 2, 3}]) == 4

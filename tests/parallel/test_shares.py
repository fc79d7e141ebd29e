"""Evaluating in shares, and logs of whole batches, see `share_cases`."""

import ctypes

import pytest

from brainstorm import handlers
from brainstorm.handlers.cuda import device
from brainstorm.handlers.cuda.device import PLACES
from brainstorm.parallel.ranks import _cores_of_each
from tests.handlers.handler_cases import pycuda_handler
from tests.parallel import share_cases
from tests.parallel.launching import on_ranks

CASES = ["evaluated", "extracted", "predicted", "monitored", "looked_at", "fitted"]


KINDS = ["NumpyHandler"]
if type(handlers.default_handler) is not handlers.NumpyHandler:
    KINDS.append("OneDnnHandler")


def check_shares(results, expected):
    for case in {"extracted", *CASES} & set(results):
        for differences in results[case]:
            assert not isinstance(differences, str), (case, differences)
            assert max(differences) < 1e-10, (case, differences)
    # Of 10 sequences in batches of 4, 4 and 2; who gets none reads one to keep step.
    assert results["reads_parts"] == expected


@pytest.mark.slow
def test_two_ranks():
    cases = [*CASES, "reads_parts", "profiled", "handlers", "threads"]
    cases = cases if len(KINDS) > 1 else cases[:-1]
    results = on_ranks(2, share_cases.__name__, *cases, HANDLERS=" ".join(KINDS))
    check_shares(results, [[10, 10], [10, 10]])
    for operations in results["profiled"]:
        assert {"exchange", "wait_for_ranks"} <= set(operations)
    for differences in results["handlers"]:
        assert list(differences) == KINDS
        assert max(differences.values()) < 1e-5
    for before, *during, after, cores in results.get("threads", []):
        assert during == [max(1, cores // 2)] * 2
        assert before == after


@pytest.mark.slow
def test_three_ranks():
    cases = ["evaluated", "extracted", "monitored", "reads_parts"]
    results = on_ranks(3, share_cases.__name__, *cases)
    check_shares(results, [[10, 10], [6, 6], [6, 6]])


@pytest.mark.gpu
def test_gpus():
    pycuda_handler()  # skips where there is none
    results = on_ranks(2, share_cases.__name__, "handlers", HANDLERS="PyCudaHandler")
    for differences in results["handlers"]:
        assert differences["PyCudaHandler"] < 1e-5


@pytest.mark.gpu
def test_gpus_whose_memory_is_read():
    """Any MPI can read that of the emulation, which is the host's."""
    pycuda_handler()
    if not hasattr(ctypes.CDLL("libcuda.so.1"), "emulated_waits"):
        pytest.skip("needs the emulated GPU")
    results = on_ranks(
        2, share_cases.__name__, "read_devices", HANDLERS="PyCudaHandler"
    )
    for differences, sent in results["read_devices"]:
        assert differences["PyCudaHandler"] < 1e-5
        assert {"CudaArray"} <= set(sent)


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

"""Training on several ranks, which `equal_cases` and `bad_cases` run."""

import pytest

from brainstorm import training
from tests.parallel import bad_cases, equal_cases
from tests.parallel.launching import mpiexec, on_ranks, run

EQUAL = [
    "steppers",
    "modifiers",
    "frozen",
    "masks_and_lengths",
    "last_batch_of_one",
    "norm_of_whole_batches",
    "carried_context",
    "forward_only",
    "readout_steppers",
    "averaged_running_values",
]

ALIKE = {
    "other_architecture": "rank 2 differs from rank 0 in the architecture at",
    "other_size": "in the architecture at 'Last.size': 4 on rank 2, 3 on rank 0",
    "other_handler": "in the handler: 'OtherHandler' on rank 2, 'NumpyHandler' on rank",
    "other_dtype": "in the dtype: 'float32' on rank 2, 'float64' on rank 0",
    "other_names": "the data at 'training_data_iter.data.targets': not given on rank",
    "other_stepper": "in the stepper at '@type': 'AdamStepper' on rank 2",
    "other_rate": "in the stepper at 'learning_rate': 0.2 on rank 2, not given",
    "other_hooks": "in the hooks at 'StopOnNan': ",
    "other_version": "in the version of brainstorm: '0.7' on rank 2",
    "other_number_of_batches": "in the data at 'training_data_iter.number of batches'",
    "less_data": "the data at 'training_data_iter.data.default': (4, 8, 4) on rank",
    "fewer_sequences_than_ranks": "batches of 1 sequences for 3 ranks, so rank 1 would",
    "no_batches_on_one": "there is no batch 1 on rank 2, but on others",
    "no_data_iterator": "rank 2 differs from rank 0 in the data at",
}
LATER = {
    "runs_out": ("there is no batch 3 on rank 2, but on others", 2),
    "other_batches": ("have batches of [4, 4, 3] sequences", 0),
}
ON_ONE = {
    "hook_fails": ("OSError: the disk is full", 3),
    "pass_fails": ("HandlerError: SoftmaxCE layer 'Out': class indices", 1),
    "iterator_fails": ("OSError: no such file", 1),
}
ENDS = {"hook_stops": 4, "not_a_number": 2, "goes_on_afterwards": 6}


def test_all_steppers_are_there():
    """Those that are not in a case of their own."""
    known = {type(make()) for make in equal_cases.STEPPERS.values()}
    known |= {training.ForwardStepper, training.LmsStepper, training.RlsStepper}
    steppers = [value for name, value in vars(training).items() if "Stepper" in name]
    steppers = {s for s in steppers if isinstance(s, type)} | {
        training.GradientAccumulation
    }
    assert steppers - {training.TrainingStepper} == known


def check_equal(results):
    for case, by_rank in results.items():
        for differences in by_rank:
            assert not isinstance(differences, str), (case, differences)
            assert max(differences) < 1e-10, (case, differences)


FIRST = ["modifiers", "masks_and_lengths", "norm_of_whole_batches"]
OTHERS = [case for case in EQUAL if case not in FIRST]


def test_two_ranks_do_what_one_does():
    check_equal(on_ranks(2, equal_cases.__name__, *FIRST))


@pytest.mark.slow
def test_one_process_without_a_launcher():
    mpiexec()  # skips where MPI can not start
    mpi = pytest.importorskip("mpi4py.MPI")
    for case in FIRST:
        check_equal({case: [run(getattr(equal_cases, case), mpi.COMM_SELF)]})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "cases"), [(2, OTHERS), (3, FIRST), (4, EQUAL)], ids=[2, 3, 4]
)
def test_more_ranks_do_what_one_does(size, cases):
    check_equal(on_ranks(size, equal_cases.__name__, *cases))


def test_all_ranks_end_where_one_can_not_go_on():
    cases = [*ALIKE, *LATER, *ON_ONE, "interrupted", "no_communicator", *ENDS]
    results = on_ranks(3, bad_cases.__name__, *cases)
    for case, expected in ALIKE.items():
        for text in results[case]:
            assert "ValidationError: " in text
            assert expected in text
            assert text.endswith("(0)"), text
    for case, (expected, update) in LATER.items():
        for text in results[case]:
            assert text.startswith("IteratorValidationError: ")
            assert expected in text
            assert text.endswith(f"({update})"), text
    for case, (expected, update) in ON_ONE.items():
        *others, failed = results[case]
        assert failed.startswith(expected)
        for text in others:
            assert text.startswith(f"RankError: rank 2 has failed: {expected}"), text
        for text in results[case]:
            assert text.endswith(f"({update})"), text
    *others, failed = results["interrupted"]
    assert failed == "KeyboardInterrupt: "
    assert others == ["RankError: rank 2 has failed: KeyboardInterrupt (2)"] * 2
    for text in results["no_communicator"]:
        assert "comm: expected a communicator of mpi4py" in text
    for case, updates in ENDS.items():
        assert results[case] == [updates] * 3

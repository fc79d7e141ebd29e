"""Every operation of every handler, with each of its sizes zero in turn.

It works as mathematics says, with sums of nothing being zero, or is refused by a
HandlerError.
"""

import numpy as np
import pytest

from brainstorm.handlers import DebugHandler, NumpyHandler
from brainstorm.handlers.base_handler import OPERATIONS
from brainstorm.utils import HandlerError
from tests.handlers.argument_cases import Case
from tests.handlers.handler_cases import HANDLERS, handler_params

NAMES = [name for name in OPERATIONS if name != "clear"]
# Sizes that follow from others, and those of images, whose sizes are never zero.
DERIVED = {"U", "G", "*R", "R", "S", "H", "W", "K", "L", "P", "Q"}


def letters(name):
    spec = OPERATIONS[name]
    declared = {**spec.read, **spec.write, **spec.add}.values()
    parts = {p for d in declared for part in d.split("|")[0].split(",")
             for p in part.split("+")}  # fmt: skip
    if "dot_" in name:
        return ["P", "Q", "S"]
    return sorted(p for p in parts - DERIVED if not p.isdigit())


def run(handler, case):
    """What the operation leaves in its arrays; None where it is refused."""
    arrays = {}
    for name, values in case.arrays.items():
        arrays[name] = handler.create_from_numpy(values)
        if case.is_overwritten(name) and not isinstance(handler, DebugHandler):
            handler.fill(arrays[name], float("nan"))
    try:
        case.run(handler, arrays)
        return {n: handler.get_numpy_copy(a) for n, a in arrays.items()}
    except HandlerError:
        return None


RANDOM = {"fill_gaussian", "generate_probability_mask", "dropout_forward"}


def check_case(handler, case, letter):
    got = run(handler, case)
    if got is None:
        return
    reference = run(NumpyHandler(np.float64), case)
    for n, array in got.items():
        text = f"{n}, where {letter} is 0"
        assert np.isfinite(array).all(), text
        if reference is not None and case.name not in RANDOM and n != "norms":
            np.testing.assert_allclose(array, reference[n], 1e-5, 1e-6, err_msg=text)
    if case.name.endswith("_backward") and letter in ("M", "T", "B"):
        for n in set(case.spec.add) & set(got) - {"dy", "deltas.v", "deltas.y"}:
            before = 0 if case.is_overwritten(n) else case.arrays[n]
            np.testing.assert_allclose(got[n], np.broadcast_to(before, got[n].shape))


@pytest.fixture(
    params=handler_params("numpy32", "onednn", slow=("composed", "debug")),
    scope="module",
)
def handler(request):
    """Each handler in turn."""
    return HANDLERS[request.param]()


@pytest.mark.parametrize("name", NAMES)
def test_zero_sizes(handler, name):
    for letter in letters(name):
        for fresh in (False, True):
            for without_optional in (False, True):
                check_case(handler, Case(name, fresh, without_optional, letter), letter)

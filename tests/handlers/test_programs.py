import gc
import weakref

import numpy as np
import pytest

from brainstorm.handlers import DebugHandler, NumpyHandler
from brainstorm.handlers.onednn import products
from brainstorm.handlers.onednn.session import OwnCalls
from brainstorm.handlers.programs import Program, Variable, sqrt
from brainstorm.utils import HandlerError
from tests.handlers.handler_cases import OnlyOneDnnHandler, onednn_handler


def record(handler, run):
    program = Program()
    handler.record(run, program)
    return program


def test_a_replay_does_the_same_on_what_the_arrays_hold_then():
    handler = NumpyHandler(np.float64)
    a, b, out = (handler.ones((2, 3)) for _ in range(3))

    def run(h):
        h.add_tt(a, b, out)
        h.mult_st(3.0, out, out)

    program = record(handler, run)
    assert np.all(out == 6)
    a[...] = np.arange(6).reshape(2, 3)
    program()
    assert np.array_equal(out, 3 * (a + 1))
    assert [step.operation for step in program.steps] == ["add_tt", "mult_st"]
    assert program.steps[0].arguments["a"] is a
    assert len(program) == 2


def test_numbers_that_change_are_read_by_each_replay():
    handler, rate = NumpyHandler(np.float64), 2.0
    variable = Variable(lambda: rate)
    out, one = handler.ones((3,)), handler.ones((3,))

    def run(h):
        h.mult_add_st(-variable * 3, one, out)
        h.add_st(sqrt(variable / 2), out, out)
        h.fill(one, variable)

    program = record(handler, run)
    assert np.allclose(out, 1 - 6 + 1)
    rate = 8.0
    program()
    assert np.allclose(out, -4 - 24 * 2 + 2)
    assert np.all(one == 8)


def test_what_operations_do_can_not_depend_on_numbers_that_change():
    variable = Variable(lambda: 1.0)
    for look in (float, lambda v: v < 2, lambda v: v > 2):
        with pytest.raises(TypeError, match="can not depend on a number that changes"):
            look(variable)


def test_operations_that_look_at_values_do_so_in_each_replay():
    handler = NumpyHandler(np.float64)
    m, out = handler.ones((4, 2)), handler.zeros((2, 2))
    m[:] = np.arange(8).reshape(4, 2)
    indices = handler.zeros((2, 1))
    program = record(handler, lambda h: h.take_rows(m, indices, out))
    indices[:] = [[3], [1]]
    program()
    assert np.array_equal(out, [[6, 7], [2, 3]])
    indices[0] = 4
    with pytest.raises(HandlerError, match="take_rows"):
        program()
    assert program.failed.operation == "take_rows"
    indices[0] = 0
    program()
    assert np.array_equal(out, [[0, 1], [2, 3]])


def test_random_numbers_differ_between_replays():
    handler = NumpyHandler(np.float64, seed=1)
    mask, x = handler.zeros((100,)), handler.ones((100,))
    program = record(handler, lambda h: h.dropout_forward(x, mask, x, 0.5))
    masks = [mask.copy()]
    for _ in range(3):
        program()
        masks.append(mask.copy())
    again = NumpyHandler(np.float64, seed=1)
    for expected in masks:
        again.dropout_forward(x, mask, x, 0.5)
        assert np.array_equal(mask, expected)
    assert not np.array_equal(masks[0], masks[1])


class CountingHandler(NumpyHandler):
    """Overrides an operation without saying anything about its leaf calls."""

    calls = 0

    def add_tt(self, a, b, out):
        self.calls += 1
        super().add_tt(a, b, out)


@pytest.mark.parametrize("wrap", [lambda h: h, DebugHandler])
def test_operations_of_handlers_of_ones_own_are_called_by_replays(wrap):
    handler = CountingHandler(np.float64)
    out = handler.ones((2,))
    program = record(wrap(handler), lambda h: h.add_tt(out, out, out))
    program()
    program()
    assert handler.calls == 3
    assert np.all(out == 8)


def test_looking_at_values_while_recording_is_refused():
    handler = NumpyHandler(np.float64)
    with pytest.raises(TypeError, match="marked as whole"):
        record(handler, lambda h: h.get_numpy_copy(handler.ones((2,))))


def test_calls_of_a_program_keep_the_memory_that_they_use():
    """Temporaries are replaced by larger ones; nothing else may hold the old ones."""
    session = onednn_handler(OnlyOneDnnHandler).current_session()
    calls = OwnCalls(session)
    a, b = np.ones((2, 3), np.float32), np.ones((3, 4), np.float32)
    kept, memory = [], []
    for _ in range(40):  # the first ones do not move, the others do
        out = np.zeros((2, 4), np.float32)
        memory.append(weakref.ref(out))
        kept.append(calls.find(products.dot, (a, b, out), False, False, False))
    del out
    gc.collect()
    assert all(reference() is not None for reference in memory)
    del kept, calls
    gc.collect()
    assert all(reference() is None for reference in memory)

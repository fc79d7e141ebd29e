"""Every operation of every handler, with arrays that are cut out of larger ones.

For each array argument and each of its axes in turn, the array is a part of a larger
one along that axis. Nothing may change by that, and nothing around it may be touched.
"""

import numpy as np
import pytest

from brainstorm.handlers import (
    NumpyHandler,
    OneDnnHandler,
)
from brainstorm.handlers.base_handler import OPERATIONS
from brainstorm.handlers.numpy import images, pieces
from brainstorm.utils import HandlerError
from tests.handlers.argument_cases import Case
from tests.handlers.handler_cases import HANDLERS, handler_params, onednn_handler

NAMES = [name for name in OPERATIONS if name != "clear"]


def variants(name):
    yield Case(name)
    other = Case(name, fresh=True, without_optional=True)
    if other.spec.optional or any(f.startswith("fresh") for f in other.others):
        yield other


class Cut:
    """A handler array that is part of a larger one along one axis.

    What lies around it is NaN.
    """

    def __init__(self, handler, values, axis, filled=True):
        shape = list(values.shape)
        shape[axis] += 3
        place = [slice(None)] * values.ndim
        place[axis] = slice(1, -2)
        self.handler, self.place = handler, tuple(place)
        self.whole = handler.zeros(tuple(shape))
        handler.fill(self.whole, float("nan"))
        self.array = self.whole[self.place]
        if filled:
            handler.set_from_numpy(self.array, values)

    def check_surroundings(self):
        whole = self.handler.get_numpy_copy(self.whole)
        whole[self.place] = np.nan
        assert np.isnan(whole).all()


def results(handler, case, names=(), axis=None):
    """What an operation returns and writes, and what it leaves in what it reads.

    The named arrays are cut along an axis.
    """
    arrays, cuts = {}, []
    for name, values in case.arrays.items():
        filled = not case.is_overwritten(name)
        if name in names:
            cuts.append(Cut(handler, values, axis, filled))
            arrays[name] = cuts[-1].array
        elif filled:
            arrays[name] = handler.create_from_numpy(values)
        else:
            arrays[name] = handler.zeros(values.shape)
            handler.fill(arrays[name], float("nan"))
    returned = case.run(handler, arrays)
    for cut in cuts:
        cut.check_surroundings()
    found = {n: np.array(handler.get_numpy_copy(a)) for n, a in arrays.items()}
    return found if returned is None else {**found, "returned": np.array(returned)}


def cuts(case):
    """Names of arrays, and an axis along which to cut them all."""
    for name, values in case.arrays.items():
        for axis in range(values.ndim):
            yield [name], axis
    for axis in range(max((v.ndim for v in case.arrays.values()), default=0)):
        yield [n for n, v in case.arrays.items() if v.ndim > axis], axis


# A handler may want these to be dense, as networks lay them out, and say so.
PARAMETERS = {"W", "R", "bias", "peepholes", "timing", "gamma", "beta", "weights"}
PARAMETERS |= {f"d{name}" for name in PARAMETERS} | {"weight_deltas", "bias_deltas"}


def check_views(handler, name):
    state = handler.get_random_state()
    for case in variants(name):
        handler.set_random_state(state)
        expected = results(handler, case)
        for names, axis in cuts(case):
            handler.set_random_state(state)
            try:
                got = results(handler, case, names, axis)
            except HandlerError as error:
                last = {name.rpartition(".")[2] for name in names}
                if "dense" in str(error) and PARAMETERS & last:
                    continue
                raise
            for n, array in got.items():
                np.testing.assert_allclose(
                    *(array, expected[n], 1e-5, 1e-6),
                    err_msg=f"{n}, where {names} are cut along axis {axis}",
                )


@pytest.fixture(
    params=handler_params("numpy32", "onednn", slow=("composed", "debug")),
    scope="module",
)
def handler(request):
    """Each handler in turn."""
    return HANDLERS[request.param]()


@pytest.mark.parametrize("name", NAMES)
def test_cut_arrays(handler, name):
    check_views(handler, name)


@pytest.mark.parametrize("name", NAMES)
def test_cut_arrays_in_pieces(monkeypatch, name):
    monkeypatch.setattr(pieces, "_CHUNK", 7)
    monkeypatch.setattr(images, "_MATRIX_SIZE", 100)
    monkeypatch.setattr(images, "_IMAGES_SIZE", 100)
    check_views(NumpyHandler(np.float64), name)


def destinations(case):
    return [n for n in case.arrays if n in case.spec.write or n in case.spec.add]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [NumpyHandler, OneDnnHandler])
def test_read_only_destinations(kind, name):
    handler = onednn_handler() if kind is OneDnnHandler else kind()
    for case in variants(name):
        arrays = {n: handler.create_from_numpy(v) for n, v in case.arrays.items()}
        for destination in destinations(case):
            array = arrays[destination]
            before = np.array(array)
            array.flags.writeable = False
            with pytest.raises((ValueError, HandlerError), match="read-only"):
                case.run(handler, arrays)
            assert np.array_equal(array, before)
            array.flags.writeable = True


@pytest.mark.parametrize("name", NAMES)
def test_destinations_of_another_byte_order(name):
    handler = NumpyHandler(np.float32)
    for case in variants(name):
        if name in ("fill_gaussian", "generate_probability_mask", "dropout_forward"):
            continue  # they draw
        expected = results(handler, case)
        arrays = {n: handler.create_from_numpy(v) for n, v in case.arrays.items()}
        for destination in destinations(case):
            arrays[destination] = arrays[destination].astype(">f4")
        case.run(handler, arrays)
        for destination in destinations(case):
            np.testing.assert_allclose(
                arrays[destination], expected[destination], rtol=1e-5, atol=1e-6
            )

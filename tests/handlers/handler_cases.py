"""What the conformance tests share: the handlers, and arrays to call them with."""

import functools
import os
import typing

import numpy as np
import pytest
from cuda_on_cpu.sanitized import sanitized_handler
from hypothesis import settings
from hypothesis import strategies as st

from brainstorm.handlers import DebugHandler, NumpyHandler
from brainstorm.handlers.base_handler import Handler, operations_of
from brainstorm.handlers.onednn_handler import OneDnnHandler
from brainstorm.handlers.operations.activations import FUNCTIONS
from brainstorm.handlers.programs import Program
from brainstorm.handlers.pycuda_handler import PyCudaHandler
from brainstorm.utils import HandlerError

quick = settings(max_examples=15)


class ComposedHandler(NumpyHandler):
    """Has the primitives of NumpyHandler, and all else as the base classes do it."""


_primitives = {name for name, f in FUNCTIONS.items() if f.apply is None}
_primitives |= {f"{name}_deriv" for name in _primitives}
for _kind in Handler.__bases__:
    if _kind.__module__.startswith("brainstorm.handlers.operations."):
        for _name, _function in vars(_kind).items():
            code = getattr(_function, "__code__", None)
            is_composed = code and "NotImplementedError" not in code.co_names
            if is_composed and _name not in _primitives:
                setattr(ComposedHandler, _name, _function)


class OnlyOneDnnHandler(OneDnnHandler):
    """Leaves nothing to NumPy because it is small; in one thread, which is faster."""

    _large = 1
    records_leaves = True

    def __init__(self):
        super().__init__(threads=1)


def onednn_handler(cls=OneDnnHandler):
    """An OneDnnHandler; skips the test where oneDNN is missing."""
    try:
        return cls()
    except ImportError as error:
        pytest.skip(str(error))


@functools.cache
def pycuda_handler():
    """A PyCudaHandler; skips the test where there is no GPU.

    With the environment variable REQUIRE_GPU the test fails instead.
    """
    if "REQUIRE_GPU" in os.environ:
        return PyCudaHandler()
    try:
        return PyCudaHandler()
    except (ImportError, HandlerError) as error:
        pytest.skip(str(error))


def replaying(cls):
    """A handler whose operations are recorded with other values, and then replayed.

    Not those of LSTMs and GRUs: they keep what they leave out with the cells, into
    which nothing may be written in between.
    """
    base = cls()
    members = {name: _replayed(name) for name in operations_of(type(base))}
    passes = ("lstm_forward", "lstm_backward", "gru_forward", "gru_backward")
    for name in (*passes, "complete"):
        members[name] = _delegated(name)
    handler = object.__new__(
        type(f"Replaying{type(base).__name__}", (type(base),), members)
    )
    handler.__dict__.update(vars(base), base=base)
    handler._bind_activations()
    return handler


def in_records(operation, arguments):
    """Arguments by name; those with names such as ``cells.Za`` are put into records."""
    hints = typing.get_type_hints(getattr(Handler, operation))
    packed, fields = {}, {}
    for name, value in arguments.items():
        argument, _, field = name.partition(".")
        if field:
            fields.setdefault(argument, {})[field] = value
        else:
            packed[name] = value
    for argument, values in fields.items():
        kinds = hints[argument], *typing.get_args(hints[argument])
        kind = next(kind for kind in kinds if hasattr(kind, "_fields"))
        packed[argument] = kind(**{**dict.fromkeys(kind._fields), **values})
    return packed


def _delegated(name):
    return lambda self, *args, **kwargs: getattr(self.base, name)(*args, **kwargs)


def _replayed(name):
    def method(self, *args, **kwargs):
        arrays = {id(a): a for a in _arrays((*args, *kwargs.values()))}.values()
        values = [array.copy() for array in arrays]
        for array in arrays:
            array[...] = array.reshape(-1)[::-1].reshape(array.shape)
        program = Program()
        try:
            with np.errstate(all="ignore"):
                self.base.record(lambda h: getattr(h, name)(*args, **kwargs), program)
        finally:
            for array, value in zip(arrays, values, strict=True):
                array[...] = value
        program()

    return method


def _arrays(arguments):
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            yield argument
        elif isinstance(argument, (list, tuple)):
            yield from _arrays(argument)


# A new handler is tested by adding it here.
HANDLERS = {
    "numpy64": lambda: NumpyHandler(np.float64),
    "numpy32": lambda: NumpyHandler(np.float32),
    "composed": lambda: ComposedHandler(np.float64),
    "onednn": onednn_handler,
    "onednn-only": lambda: onednn_handler(OnlyOneDnnHandler),
    "debug": lambda: DebugHandler(NumpyHandler(np.float64)),
    "cuda-emulated": sanitized_handler,
    "pycuda": pycuda_handler,
}


# Each operation is recorded and replayed, so whole networks would make no sense.
REPLAYING = {
    "replayed64": lambda: replaying(lambda: NumpyHandler(np.float64)),
    "replayed-onednn": lambda: replaying(lambda: onednn_handler(OnlyOneDnnHandler)),
}


def handler_params(*without, slow=()):
    """The names of all handlers but some, as parameters of tests; some may be slow."""
    marks = {"pycuda": pytest.mark.gpu, **dict.fromkeys(slow, pytest.mark.slow)}
    return [
        pytest.param(name, marks=marks[name]) if name in marks else name
        for name in HANDLERS
        if name not in without
    ]


sizes = st.integers(0, 6)
seeds = st.integers(0, 2**20)
shapes = st.lists(sizes, max_size=4).map(tuple)
matrices = st.tuples(sizes, sizes)


class Arrays:
    """Makes a handler's arrays and remembers nothing.

    Args:
        handler: The handler.
        seed: Seed of the values.
        strided: Whether arrays are cut out of larger ones.
    """

    def __init__(self, handler, seed=0, strided=False):
        self.handler = handler
        self.rnd = np.random.RandomState(seed)
        self.strided = strided

    def put(self, values):
        """A handler array with the given values."""
        values = np.asarray(values)
        if not self.strided or values.ndim == 0:
            return self.handler.create_from_numpy(values)
        shape = (*values.shape[:-1], values.shape[-1] + 3)
        view = self.handler.zeros(shape)[..., 1:-2]
        self.handler.set_from_numpy(view, values)
        return view

    def garbage(self, shape):
        """A handler array full of NaN."""
        array = self.put(np.zeros(shape))
        self.handler.fill(array, float("nan"))
        return array

    def randn(self, *shape, scale=1.0):
        """Values that the handler can hold, as float64."""
        values = scale * np.asarray(self.rnd.randn(*shape))
        return values.astype(self.handler.dtype).astype(np.float64)

    def flat(self):
        """The same, but never strided."""
        return Arrays(self.handler, self.rnd.randint(2**20))

    def destination(self, values, fresh):
        """A handler array to add to, or one to overwrite, and what it counts as."""
        if fresh:
            return self.garbage(values.shape), np.zeros(values.shape)
        return self.put(values), values


def check(handler, array, expected, scale=1.0):
    """Compare a handler's array with float64 values."""
    got = handler.get_numpy_copy(array)
    assert got.dtype == handler.dtype
    single = np.dtype(handler.dtype).itemsize < 8
    rtol, atol = (2e-5, 2e-6) if single else (1e-11, 1e-13)
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol * scale)


def run_to_the_end(handler, operation, *args, **kwargs):
    """Run an operation and read something: only then a GPU tells what went wrong."""
    getattr(handler, operation)(*args, **kwargs)
    handler.get_numpy_copy(handler.EMPTY)

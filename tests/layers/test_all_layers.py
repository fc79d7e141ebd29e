"""Every layer of the package keeps the promises that `check_layer` checks."""

import tracemalloc
from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import pytest

from brainstorm import layers, testing
from brainstorm._layer_bench import Bench, Data, Specification
from brainstorm.handlers import NumpyHandler
from brainstorm.handlers.operations.activations import ACTIVATIONS
from brainstorm.layers.base_layer import Layer
from brainstorm.structure.buffer_structure import BufferStructure
from brainstorm.testing import _Battery, check_layer
from tests.handlers.handler_cases import HANDLERS, handler_params
from tests.layers.cases import CASES, ONE_ACTIVATION_EACH, WITHOUT_TIME

# Layers that go through the steps one by one, and how often at once.
LOOPS = {"Recurrent": 1, "Clockwork": 1, "Lstm": 1, "ClockworkLstm": 1, "Gru": 1}
LOOPS |= {"Bidirectional": 2, "TimePooling": 1, "RecurrentLif": 1, "Reservoir": 1}
LOOPS["Gru, reset before"] = 2  # two products, one after the other

# What the conformance tests try with each operation is slow here but for one.
SLOW_HANDLERS = ("numpy32", "composed", "onednn", "debug")

# NumPy itself buffers 8192 elements for each of up to three strided operands.
MOST = 4096 + 3 * 8192 * 8
# Which turn around each of many sequences by itself.
MASKED_TWINS = (
    "Bidirectional Clockwork",
    "Bidirectional Gru, recurrent bias",
    "Bidirectional Lstm",
)
# Each of these does a part of what the one with all of it does.
LOOPING = [
    name
    for name in ONE_ACTIVATION_EACH
    if name in LOOPS or CASES[name].layer.layer.layer_type in LOOPS
]
PARTLY = [n for n in CASES if n.startswith("Attention") and not n.endswith("all of it")]
OTHER_ACTIVATIONS = [name for name in CASES if name not in ONE_ACTIVATION_EACH]


def slow(*values):
    """Values that only the slow tests try."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def check(name, **arguments):
    case = CASES[name]
    check_layer(case.layer, **case.arguments, **arguments)


@pytest.mark.parametrize("name", [*ONE_ACTIVATION_EACH, *slow(*OTHER_ACTIVATIONS)])
def test_layers(name):
    check(name, time_size=2, batch_size=3, seed=1)


@pytest.mark.parametrize("name", ONE_ACTIVATION_EACH)
@pytest.mark.parametrize(
    "sizes",
    [(1, 1), *slow((1, 5), (5, 1), (5, 2))],
    ids=str,
)
def test_sizes(name, sizes):
    check(name, time_size=sizes[0], batch_size=sizes[1])


@pytest.mark.parametrize("name", WITHOUT_TIME)
@pytest.mark.parametrize(
    "handler", [None, *handler_params("numpy64", slow=SLOW_HANDLERS)]
)
def test_layers_without_time(name, handler):
    case = WITHOUT_TIME[name]
    handler = handler and HANDLERS[handler]()
    check_layer(case.layer, **case.arguments, batch_size=3, handler=handler)


class WithoutDerivatives(_Battery):
    """Leaves out those of the reference, which `test_layers` checks."""

    def check_slopes(self, *args):
        pass


class ResultsAlone(_Battery):
    """Compares what a handler computes with the reference."""

    def run(self):
        self.find_situations()
        self.check_handler(self.handler)


@pytest.mark.parametrize("name", ONE_ACTIVATION_EACH)
@pytest.mark.parametrize("handler", handler_params("numpy64", slow=SLOW_HANDLERS))
def test_handlers(name, handler, monkeypatch):
    monkeypatch.setattr(testing, "_Battery", WithoutDerivatives)
    check(name, time_size=2, batch_size=3, handler=HANDLERS[handler](), seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHER_ACTIVATIONS)
@pytest.mark.parametrize("handler", handler_params("numpy64", *SLOW_HANDLERS))
def test_other_activations(name, handler, monkeypatch):
    """On handlers that join them with other operations."""
    monkeypatch.setattr(testing, "_Battery", ResultsAlone)
    check(name, time_size=2, batch_size=3, handler=HANDLERS[handler](), seed=1)


def test_no_layer_is_forgotten():
    tested = {case.layer.layer.layer_type for case in CASES.values()}
    assert tested == set(layers.__all__) - {"Input"}  # see test_basic_layers.py


def test_no_activation_is_forgotten():
    tested = {}
    for case in CASES.values():
        details = case.layer.layer
        if "activation" in details.layer_kwargs:
            activations = tested.setdefault(details.layer_type, set())
            activations.add(details.layer_kwargs["activation"])
    assert len(tested) >= 3
    for layer_type, activations in tested.items():
        assert activations == set(ACTIVATIONS), layer_type


def bench_that_has_run(name, handler, sizes):
    """A layer for which both passes were run once."""
    case = CASES[name]
    specification = Specification.of(case.layer, None)
    in_shapes = case.in_shapes or specification.default_shapes()
    architecture = specification.architecture(in_shapes)
    given = SimpleNamespace()
    bench = Bench(specification.name, architecture, handler, given)

    def values(structures, chosen):
        for n, structure in structures.items():
            value = (chosen or {}).get(n, 0.5)
            shape = Layer.like(structure).get_shape(*sizes)
            yield n, value(shape) if callable(value) else np.full(shape, value)

    given.data = Data(sizes, dict(values(bench.layer.in_shapes, case.inputs)))
    given.parameters = dict(values(bench.layer.parameter_shapes, case.parameters))
    given.deltas = dict(values(bench.layer.out_shapes, None))
    bench.both_passes()
    return bench


# NumPy's own arrays do the work in Ctc.
@pytest.mark.parametrize(
    "name",
    [
        *(n for n in ONE_ACTIVATION_EACH if not n.startswith(("Ctc", *MASKED_TWINS))),
        *slow(*MASKED_TWINS),
    ],
)
def test_passes_allocate_nothing_after_the_first(name):
    sizes = (1, 26000)  # already one feature of this makes more than MOST
    bench = bench_that_has_run(name, NumpyHandler(np.float64), sizes)
    peaks = []
    for training_pass in (False, True, False):
        tracemalloc.start()
        bench.layer.forward_pass(bench.view, training_pass)
        bench.layer.backward_pass(bench.view)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert max(peaks[1:]) < MOST


class Listing:
    """A handler that lists the calls that are made, and the memory that they get."""

    def __init__(self, handler):
        self.handler, self.calls = handler, []

    def __getattr__(self, name):
        return self.listed(name, getattr(self.handler, name))

    def listed(self, name, value):
        if isinstance(value, Mapping):
            return {n: self.listed(f"{name} {n}", f) for n, f in value.items()}

        def call(*args, **kwargs):
            self.calls.append((name, *map(self.noted, (*args, *kwargs.items()))))
            return value(*args, **kwargs)

        return call if callable(value) else value

    @classmethod
    def noted(cls, value):
        if isinstance(value, np.ndarray):
            return value.ctypes.data, value.shape, value.strides
        if isinstance(value, tuple):
            return [cls.noted(part) for part in value]
        return repr(value)


@pytest.mark.parametrize("name", ONE_ACTIVATION_EACH)
def test_layers_that_say_so_do_the_same_each_time(name):
    bench = bench_that_has_run(name, NumpyHandler(np.float64), (3, 2))
    lists = {}
    for training_pass in (True, False, True, False):
        for array in bench.view.inputs:
            array[...] = array[:, ::-1].copy()
        for what in ("forward", "backward"):
            arguments = (training_pass,) if what == "forward" else ()
            bench.layer.set_handler(Listing(bench.layer.handler))
            getattr(bench.layer, f"{what}_pass")(bench.view, *arguments)
            calls = bench.layer.handler.calls
            kind = (training_pass,) if bench.layer.follows_training else arguments
            lists.setdefault((what, *kind), []).append(calls)
            bench.layer.set_handler(bench.layer.handler.handler)
    all_the_same = all(first == other for first, *n in lists.values() for other in n)
    assert bench.layer.can_be_replayed() == all_the_same
    if bench.layer.follows_training:
        assert lists["backward", True] != lists["backward", False]


def test_no_layer_can_be_replayed_that_does_not_say_so_itself():
    class Doubling(layers.noop_layer.NoOpLayerImpl):
        def forward_pass(self, buffers, training_pass=True):
            buffers.outputs.default[...] = 2 * buffers.inputs.default

    shapes = {"default": BufferStructure("T", "B", 2)}
    assert layers.noop_layer.NoOpLayerImpl("it", shapes).can_be_replayed()
    assert not Doubling("it", shapes).can_be_replayed()

    class MyRnnLayerImpl(layers.recurrent_layer.RecurrentLayerImpl):
        pass

    for layer_type, expected in (("Recurrent", True), ("MyRnn", False)):
        layer = {"@type": layer_type, "size": 2}
        both = layers.bidirectional_layer.BidirectionalLayerImpl(
            "it", shapes, layer=layer
        )
        assert both.can_be_replayed() == expected


def count_launches(name, handler, time_size, monkeypatch):
    """Number of kernels and products in a forward and a backward pass."""
    device, launched = handler.context, []

    def counted(function):
        return lambda *args: launched.append(function(*args))

    with monkeypatch.context() as patch:
        for function in ("launch", "sgemm", "sgemm_batched"):
            patch.setattr(device, function, counted(getattr(device, function)))
        bench = bench_that_has_run(name, handler, (time_size, 4))
        bench.layer.forward_pass(bench.view, True)
        bench.layer.backward_pass(bench.view)
        launched.clear()
        for function in ("allocate", "read", "write"):
            patch.setattr(device, function, None)
        bench.layer.forward_pass(bench.view, True)
        bench.layer.backward_pass(bench.view)
    return len(launched)


@pytest.mark.parametrize(
    "name",
    [*LOOPING, *slow(*(name for name in ONE_ACTIVATION_EACH if name not in LOOPING))],
)
@pytest.mark.parametrize(
    "handler", ["cuda-emulated", pytest.param("pycuda", marks=pytest.mark.gpu)]
)
def test_passes_on_a_gpu_only_start_work(name, handler, monkeypatch):
    handler = HANDLERS[handler]()
    few, many = (count_launches(name, handler, t, monkeypatch) for t in (2, 12))
    # A step of a recurrent layer is a product and a kernel in each direction. Of
    # larger arrays sums are computed in two parts.
    loops = LOOPS.get(name, LOOPS.get(CASES[name].layer.layer.layer_type, 0))
    assert many - few <= 10 * 4 * loops + 4

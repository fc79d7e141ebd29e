"""Every layer of the package keeps the promises that `check_layer` checks."""

import tracemalloc

import numpy as np
import pytest

from brainstorm import layers
from brainstorm._layer_bench import Bench, Data, Specification
from brainstorm.handlers import NumpyHandler
from brainstorm.handlers.primitive_operations import ACTIVATIONS
from brainstorm.testing import check_layer
from tests.handlers.handler_cases import HANDLERS, handler_params
from tests.layers.cases import CASES

# Known failures: reshaping a part of a joined buffer makes a copy.

# NumPy itself buffers 8192 elements for each of up to three strided operands.
MOST = 4096 + 3 * 8192 * 8


def check(name, **arguments):
    case = CASES[name]
    check_layer(case.layer, **case.arguments, **arguments)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize("time_size", [1, 2, 5])
def test_sizes(name, time_size, batch_size):
    check(name, time_size=time_size, batch_size=batch_size)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("handler", handler_params("numpy64"))
def test_handlers(name, handler):
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


# NumPy's own arrays do the work in Ctc.
@pytest.mark.parametrize("name", [n for n in CASES if not n.startswith("Ctc")])
def test_passes_allocate_nothing_after_the_first(name):
    case = CASES[name]
    specification = Specification.of(case.layer, None)
    in_shapes = case.in_shapes or specification.default_shapes()
    architecture = specification.architecture(in_shapes)
    bench = Bench(specification.name, architecture, NumpyHandler(np.float64))
    sizes = (1, 40000)  # already one feature of this makes more than MOST

    def values(structures, chosen):
        for n, structure in structures.items():
            value = (chosen or {}).get(n, 0.5)
            shape = structure.get_shape(*sizes)
            yield n, value(shape) if callable(value) else np.full(shape, value)

    data = Data(sizes, dict(values(bench.layer.in_shapes, case.inputs)))
    parameters = dict(values(bench.layer.parameter_shapes, case.parameters))
    deltas = dict(values(bench.layer.out_shapes, None))
    bench.forward(data, parameters)
    bench.backward(deltas)
    peaks = []
    for training_pass in (True, False, True, False):
        tracemalloc.start()
        bench.layer.forward_pass(bench.view, training_pass)
        bench.layer.backward_pass(bench.view)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert max(peaks[2:]) < MOST

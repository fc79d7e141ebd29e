"""Passes as CUDA graphs: on a GPU, or with PyCUDA on an emulation that has graphs."""

import ctypes
import functools
import gc
import json
import os
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

import brainstorm as bs
from brainstorm.describable import create_from_description, get_description
from brainstorm.handlers import PyCudaHandler
from brainstorm.handlers.cuda.graphs import REPLAYS, with_graphs
from brainstorm.handlers.programs import Program
from brainstorm.structure import trainable
from brainstorm.utils import HandlerError
from tests.handlers.handler_cases import pycuda_handler


class Device:
    """Notes what it is told."""

    def __init__(self):
        self.told = []
        self.refused = []
        self.fails = False

    def launch(self, name):
        self.told.append(name)

    def sgemm(self, name):
        self.told.append(name)

    def sgemm_batched(self, name):
        self.told.append(name)

    def on_host(self):
        self.told.append("host")

    def has_graphs(self):
        return not self.refused

    def refuse_graphs(self, error):
        self.refused.append(str(error))

    def rehearse_graph(self, launches):
        self.told += [f"({args[0]})" for _, args in launches]

    def make_graph(self, launches):
        if self.fails:
            raise HandlerError("no graphs")
        self.told.append("made")
        return launches

    def run_graph(self, graph):
        self.told.append("".join(args[0] for _, args in graph))

    def destroy_graph(self, graph):
        self.told.append("destroyed")


def program_of(device, letters):
    """Launches for capitals, products for other letters, and other calls."""

    def run(handler):
        for letter in letters:
            if letter == "!":
                handler.do(device.on_host)
            elif letter == "-":
                handler.do(device.told.append, "-")
            else:
                name = "launch" if letter.isupper() else "sgemm"
                handler.do(getattr(device, name), letter)

    program = Program()
    bs.handlers.NumpyHandler().record(run, program)
    program.join(functools.partial(with_graphs, device, device.on_host))
    return program


def told(device, program):
    device.told.clear()
    program()
    return " ".join(device.told)


def test_neighbouring_launches_become_graphs():
    device = Device()
    program = program_of(device, "AbC-D-EF!g")
    one_by_one = "A b C - D - E F host g"
    assert [told(device, program) for _ in range(REPLAYS)] == [one_by_one] * REPLAYS
    # A launch alone stays one; what concerns the host alone is done before.
    # The replay that makes a graph does the work in the way of the graph before.
    with_making = "(A) (b) (C) made - D - host (E) (F) (g) made"
    assert told(device, program) == with_making
    assert told(device, program) == "AbC - D - host EFg"
    assert len(program) == 10
    del program
    gc.collect()
    assert device.told.count("destroyed") == 2


def test_graphs_that_can_not_be_made():
    device = Device()
    device.fails = True
    programs = program_of(device, "AB"), program_of(device, "CD")
    for _ in range(REPLAYS):
        told(device, programs[0])
    assert told(device, programs[0]) == "(A) (B)"
    assert device.refused == ["no graphs"]
    # It is not tried again.
    device.fails = False
    for _ in range(REPLAYS + 1):
        assert told(device, programs[1]) == "C D"
        assert told(device, programs[0]) == "A B"


def test_failures_in_what_was_joined_name_the_step():
    def fail():
        if failing:
            raise HandlerError("it failed")

    failing = []
    program = Program()
    device = Device()

    def run(handler):
        for name, functions in (
            ("first", [lambda: device.launch("A"), lambda: device.launch("B")]),
            ("second", [fail]),
        ):
            for function in functions:
                program.noted(name, functools.partial(handler.do, function))()

    bs.handlers.NumpyHandler().record(run, program)
    program.join(lambda calls: [(2, lambda: None), (1, calls[2])])
    program()
    failing.append(True)
    with pytest.raises(HandlerError, match="it failed"):
        program()
    assert program.failed.operation == "second"


@pytest.mark.parametrize("by_threads", [True, False])
def test_updates_are_cut_where_threads_share_them(monkeypatch, by_threads):
    class Handler(bs.handlers.NumpyHandler):
        updates_by_threads = by_threads

        def sgd_update(self, parameters, gradients, learning_rate):
            sizes.append(parameters.size)

    monkeypatch.setattr(trainable, "_LARGE", 10)
    sizes = []
    net = bs.tools.create_net_from_spec("classification", 4, 3, "F5")
    net.set_handler(Handler())
    stepper = bs.training.SgdStepper(0.1)
    stepper.start(net)
    net.provide_external_data({"default": np.ones((1, 2, 4)), "targets": [[[0], [1]]]})
    stepper.run()
    assert sizes == ([20 + 5, 15 + 3] if by_threads else [43])
    assert not PyCudaHandler.updates_by_threads


# -- with PyCUDA, on a GPU or an emulation of one ------------------------------

WORKS = {
    "images": ((6, 6, 2), "C4:3 P2 B F8"),
    "sequences": (6, "L5 R4"),
    "dense": (6, "F8 D0.5 F5"),
}


def trained(handler, name, steps=6):
    """Losses of a training, the network, and what it is trained by."""
    in_shape, spec = WORKS[name]
    bs.global_rnd.set_seed(1)
    net = bs.tools.create_net_from_spec("classification", in_shape, 3, spec)
    net.set_handler(handler)
    stepper = bs.training.MomentumStepper(0.05, 0.9)
    stepper.start(net)
    rnd = np.random.RandomState(0)
    shape = in_shape if isinstance(in_shape, tuple) else (in_shape,)
    losses = []
    for _ in range(steps):
        data = {"default": rnd.randn(4, 5, *shape)}
        data["targets"] = rnd.randint(0, 3, (4, 5, 1))
        net.provide_external_data(data)
        stepper.run()
        losses.append(net.get_loss_values()["total_loss"])
    return losses, net, stepper


@pytest.fixture
def handler():
    pycuda_handler()  # skips the test without a GPU
    return PyCudaHandler(graphs=True)


@pytest.mark.gpu
@pytest.mark.parametrize("name", WORKS)
def test_training_by_graphs_gives_the_same(handler, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        losses, net, _ = trained(handler, name)
    expected, alone, _ = trained(PyCudaHandler(), name)
    np.testing.assert_allclose(losses, expected, 1e-5)
    weights = [n.get("parameters") for n in (net, alone)]
    np.testing.assert_allclose(*weights, 1e-4, 1e-6)
    assert len(set(losses)) == len(losses)


@pytest.fixture
def driver():
    """The stand-in for the driver, which counts."""
    pycuda_handler()
    driver = ctypes.CDLL("libcuda.so.1")
    if not hasattr(driver, "emulated_graphs"):
        pytest.skip("only the stand-in driver does this")
    return driver


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("name", "starts"),
    # A graph each for the passes, and the update, which BatchNorm's running means cut
    # in two. Dropout draws between two graphs.
    [("images", 3 + 1), ("sequences", 3), ("dense", 3 + 2)],
)
def test_a_step_starts_few_things(driver, handler, name, starts):
    counts = []
    for chosen in (PyCudaHandler(), handler):
        _, _, stepper = trained(chosen, name)
        before, waits = driver.emulated_starts(), driver.emulated_waits()
        stepper.run()
        counts.append(driver.emulated_starts() - before)
        assert driver.emulated_waits() == waits
    assert counts[1] == starts
    assert counts[0] > 4 * starts


@pytest.mark.gpu
def test_errors_that_depend_on_values(handler):
    _, net, stepper = trained(handler, "sequences")
    data = {"default": np.ones((4, 5, 6)), "targets": np.full((4, 5, 1), 7.0)}
    net.provide_external_data(data)
    stepper.run()
    with pytest.raises(HandlerError, match="class indices .* 0 to 2, got 7.0"):
        net.get_loss_values()
    data["targets"][...] = 1
    net.provide_external_data(data)
    stepper.run()
    assert np.isfinite(net.get_loss_values()["total_loss"])


@pytest.mark.gpu
def test_graphs_of_other_threads(handler):
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(trained(handler, "images")[0]))
        for _ in range(2)
    ]
    for thread in threads:  # each alone: seeds are global
        thread.start()
        thread.join()
    np.testing.assert_allclose(results[0], results[1], 1e-5)
    np.testing.assert_allclose(results[0], trained(handler, "images")[0], 1e-5)


@pytest.mark.gpu
def test_graphs_are_given_back(driver, handler):
    gc.collect()
    before = driver.emulated_graphs()
    kept = trained(handler, "dense")
    assert driver.emulated_graphs() > before
    del kept
    gc.collect()
    assert driver.emulated_graphs() == before


@pytest.mark.gpu
def test_what_fails_while_capturing_leaves_everything_usable(handler):
    driver = ctypes.CDLL("libcuda.so.1")
    count = getattr(driver, "emulated_graphs", lambda: 0)
    device = handler.context
    assert device.has_graphs()
    array = handler.zeros((3,))
    [fill] = handler._gpu.prepare_elementwise("fill", (array,), 5.0)
    gc.collect()
    before = count()
    for broken in (("no_such_launch", fill), ("sgemm", ())):
        with pytest.raises((AttributeError, ValueError, TypeError)):
            device.make_graph([("launch", fill), broken])
    assert handler.get_numpy_copy(array).tolist() == [0, 0, 0]
    graph = device.make_graph([("launch", fill)])
    assert handler.get_numpy_copy(array).tolist() == [0, 0, 0]
    device.run_graph(graph)
    assert handler.get_numpy_copy(array).tolist() == [5, 5, 5]
    device.destroy_graph(graph)
    assert count() == before
    device.rehearse_graph([("launch", fill)])
    assert handler.get_numpy_copy(array).tolist() == [5, 5, 5]


WITHOUT_GRAPHS = """
import sys, warnings
sys.path.append("tests")
from tests.handlers.test_cuda_graphs import trained
from brainstorm.handlers import PyCudaHandler
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    losses = trained(PyCudaHandler(graphs=True), "dense")[0]
print([str(w.message) for w in caught], losses == trained(PyCudaHandler(), "dense")[0])
"""


@pytest.mark.gpu
def test_drivers_without_graphs(driver):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_GRAPHS],
        capture_output=True,
        text=True,
        env=os.environ | {"EMULATE_NO_GRAPHS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("CUDA graphs do not work here") == 1
    assert done.stdout.endswith("(900)'] True\n")


@pytest.mark.gpu
def test_description(handler):
    described = json.loads(json.dumps(get_description(handler)))
    assert described == {"@type": "PyCudaHandler", "graphs": True}
    assert create_from_description(described).graphs
    assert get_description(PyCudaHandler()) == {"@type": "PyCudaHandler"}

"""How OpenMP's threads wait for each other."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import brainstorm as bs
from brainstorm import layers
from brainstorm.initializers import Gaussian

onednn = pytest.importorskip("brainstorm.handlers.onednn.waiting")


@pytest.fixture
def library():
    binding = pytest.importorskip("brainstorm.handlers.onednn.binding")
    try:
        library = binding.load_library()
    except ImportError as error:
        pytest.skip(str(error))
    if onednn.seconds_without_core() is None or not library.runs_in_parallel:
        pytest.skip("only on Linux, with OpenMP")
    return library


def number_of_threads():
    return len(list(Path("/proc/self/task").iterdir()))


def settles(number):
    ends = time.monotonic() + 600
    while number_of_threads() != number and time.monotonic() < ends:
        time.sleep(0.01)
    return number_of_threads() == number


def test_threads_sleep_when_there_are_more_than_cores(library):
    waiting, before = onednn.Waiting(library.functions), number_of_threads()
    cores = library.functions.omp_get_num_procs()
    for _ in range(2):
        waiting.sleep()
        waiting.sleep()
        assert waiting.is_asleep
        assert number_of_threads() > before + cores
        waiting.spin()
        waiting.spin()
        assert not waiting.is_asleep
        assert settles(before)


class Recorded(onednn.Waiting):
    """Only notes what it would do."""

    def sleep(self):
        self.is_asleep = True

    def spin(self):
        self.is_asleep = False


def test_cores_that_are_shared_are_noticed(library, monkeypatch):
    clock = {"now": 0.0, "without": 0.0}
    monkeypatch.setattr(onednn.time, "monotonic", lambda: clock["now"])
    monkeypatch.setattr(onednn, "seconds_without_core", lambda: clock["without"])
    waiting = Recorded(library.functions)

    def pass_by(seconds, share, steps=1):
        for _ in range(steps):
            clock["now"] += seconds
            clock["without"] += share * seconds
            waiting.look()
        return waiting.is_asleep

    assert not pass_by(0.03, 0.02, 200)
    assert not pass_by(0.001, 0.5, 15)  # too soon to tell
    assert pass_by(0.01, 0.5)
    assert pass_by(0.03, 0.0, 40)
    assert pass_by(0.03, 0.03)  # begins to count anew
    assert pass_by(0.03, 0.0, 40)
    assert not pass_by(0.03, 0.0, 20)


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_what_the_user_has_set_is_left_alone(library, monkeypatch, name):
    for each in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(each, raising=False)
    assert onednn.Waiting(library.functions).is_of_use
    monkeypatch.setenv(name, "1000")
    assert not onednn.Waiting(library.functions).is_of_use


def make_step(handler, inputs, *sizes, batch=50):
    inp, out = bs.tools.get_in_out_layers("classification", inputs, 10)
    for size in sizes:
        inp = inp >> layers.FullyConnected(size)
    net = bs.Network.from_layer(inp >> out)
    net.set_handler(handler)
    net.initialize(Gaussian(0.1), seed=1)
    stepper = bs.training.MomentumStepper(0.1, 0.9)
    stepper.start(net)
    random = np.random.default_rng(0)
    data = {
        "default": random.standard_normal((1, batch, inputs)),
        "targets": random.integers(0, 10, (1, batch, 1)),
    }

    def step():
        net.provide_external_data(data)
        stepper.run()

    return step


def test_small_networks_start_no_threads_and_do_not_look(library, monkeypatch):
    looks = []
    monkeypatch.setattr(library.waiting, "look", lambda: looks.append(1))
    monkeypatch.setattr(library.waiting, "is_of_use", True)
    for sizes, does in (((100, 100), False), ((400, 400), True)):
        handler = bs.handlers.OneDnnHandler(threads=2)
        step = make_step(handler, 64, *sizes)
        step()
        looks.clear()
        for _ in range(3):
            step()
        assert handler.current_session().has_started_threads == does
        assert bool(looks) == does


def test_large_arrays_are_worth_threads(library):
    for rows, does in ((100, False), (2000, True)):
        handler = bs.handlers.OneDnnHandler(threads=2)
        a = np.ones((rows, 300), np.float32)
        handler.add_tt(a, a, out := np.empty_like(a))
        assert (out == 2).all()
        assert handler.current_session().has_started_threads == does


def test_results_are_the_same_asleep(library):
    a = np.random.default_rng(0).standard_normal((300, 300)).astype(np.float32)
    handler, outs = bs.handlers.OneDnnHandler(threads=2), []
    for asleep in (False, True, False):
        (library.waiting.sleep if asleep else library.waiting.spin)()
        handler.dot_mm(a, a, out := np.empty_like(a))
        outs.append(out)
    np.testing.assert_array_equal(outs[0], outs[1])
    np.testing.assert_array_equal(outs[0], outs[2])


def test_processes_end_asleep_and_forked(library):
    code = """
import os
import numpy as np
from brainstorm.handlers import OneDnnHandler
handler = OneDnnHandler(threads=2)
handler._library.waiting.sleep()
a = np.ones((400, 400), np.float32)
handler.dot_mm(a, a, np.empty_like(a))
child = os.fork()
handler.dot_mm(a, a, out := np.empty_like(a))
assert (out == 400).all()
assert not child or os.waitpid(child, 0)[1] == 0
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    subprocess.run(command, check=True, timeout=600)

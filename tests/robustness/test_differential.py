"""All handlers compute the same in random networks, whatever is done with them.

NumpyHandler in float64 is right by definition here: finite differences and other
libraries are asked elsewhere. ``BRAINSTORM_FUZZ=10`` makes ten times as many cases,
``BRAINSTORM_FUZZ_SEED`` is the seed of the first one. To run one again::

    compare(Case(seed), {"onednn": onednn_handler()})
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from brainstorm.handlers import DebugHandler, NumpyHandler
from brainstorm.handlers.onednn_handler import OneDnnHandler
from tests.handlers.handler_cases import OnlyOneDnnHandler
from tests.robustness.random_networks import Case

FACTOR = float(os.environ.get("BRAINSTORM_FUZZ", 1))
FIRST = int(os.environ.get("BRAINSTORM_FUZZ_SEED", 0))


@pytest.fixture
def handlers():
    """Those to compare, by name; oneDNN's where it is installed."""
    found = {
        "numpy32": NumpyHandler(np.float32),
        "debug": DebugHandler(NumpyHandler(np.float64)),
    }
    try:
        found["onednn"] = OneDnnHandler(threads=2)
    except ImportError:
        return found
    found["onednn-only"] = OnlyOneDnnHandler()
    found["debug-onednn"] = DebugHandler(OnlyOneDnnHandler())
    return found


class Run:
    """A network that goes through the steps of a case."""

    def __init__(self, case, handler):
        self.case = case
        self.net = case.network(handler)
        self.stepper = case.make_stepper()
        self.stepper.start(self.net)
        whole = (layer.needs_whole_sequences for layer in self.net.layers.values())
        self.carries = not any(whole)
        self.context = None

    def do(self, step):
        """Do a step; returns what there is to compare, by name."""
        net = self.net
        net.provide_external_data(self.case.data(step))
        context = self.context
        if not step.carry or (context and self.batch_size != step.batch_size):
            context = None
        if step.what == "train":
            self.stepper.run()
        else:
            for _ in range(1 + step.twice):
                net.forward_pass(step.what == "backward", context)
        found = {"loss": np.array(net.get_loss_values()["total_loss"])}
        found |= self.read("outputs")
        if step.what == "backward":
            net.backward_pass()
            found["gradients"] = net.get("gradients")
            found |= self.read("input_deltas", "output_deltas", "internals")
            net.backward_pass()
            found["gradients again"] = net.get("gradients")
        found["parameters"] = net.get("parameters")
        self.context, self.batch_size = None, step.batch_size
        if self.carries:
            self.context = net.get_context()
            found |= {f"context of {n}": v for n, v in self.context.items()}
        return found

    def read(self, *kinds):
        """Buffers of all layers, without the row that is carried over."""
        paths = [
            f"{name}.{kind}.{buffer}"
            for name in self.net.layers
            for kind in kinds
            if kind in self.net.buffer[name]
            for buffer in self.net.buffer[name][kind].keys()  # noqa: SIM118
        ]
        length = self.net.time_size
        return {path: self.net.get(path)[:length] for path in paths}


def results(case, handler):
    """What all steps give, and the first error."""
    run = Run(case, handler)
    for step in case.steps:
        if step.thread:
            with ThreadPoolExecutor(1) as pool:
                yield step, pool.submit(run.do, step).result()
        else:
            yield step, run.do(step)


def compare(case, handlers):
    """Raise an error if a handler computes anything else than the reference."""
    expected = list(results(case, NumpyHandler(np.float64)))
    for kind, handler in handlers.items():
        tolerance = 1e-9 if np.dtype(handler.dtype) == np.float64 else 2e-3
        try:
            for (step, wanted), (_, found) in zip(
                expected, results(case, handler), strict=True
            ):
                assert found.keys() == wanted.keys()
                for name, values in wanted.items():
                    scale = tolerance * max(0.05, np.abs(values).max(initial=0))
                    text = f"{kind}: {name}, after {step}"
                    np.testing.assert_allclose(
                        found[name], values, 0, scale, err_msg=text
                    )
        except Exception as error:
            raise AssertionError(f"{kind}: {error}\n{case}") from error


def test_a_few_networks(handlers):
    for seed in range(3):
        compare(Case(FIRST + seed), handlers)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_many_networks(handlers, part):
    """Networks come and go on the same handlers; some are looked at closely, too."""
    count = int(25 * FACTOR)
    others = {n: h for n, h in handlers.items() if not isinstance(h, DebugHandler)}
    for seed in range(part * count, (part + 1) * count):
        compare(Case(FIRST + 1000 + seed), others if seed % 3 else handlers)


@pytest.mark.slow
def test_networks_in_threads(handlers):
    """Several threads on the same handlers, each with networks of its own."""
    cases = [Case(FIRST + 10**6 + seed) for seed in range(int(30 * FACTOR))]
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda case: compare(case, handlers), cases))
    assert len(done) == len(cases)


class WrongHandler(NumpyHandler):
    def affine(self, x, W, bias, h, y, activation):
        super().affine(x, W, bias, h, y, activation)
        y *= 1.01


def test_differences_are_noticed():
    case, wrong = Case(0), {"wrong": WrongHandler(np.float64)}
    with pytest.raises(AssertionError, match=r"wrong: (?s:.)*Case\(\d+\)\n.*@type"):
        compare(case, wrong)


def test_cases_are_those_of_their_seeds():
    assert str(Case(5)) == str(Case(5)) != str(Case(6))


@pytest.mark.slow
def test_cases_have_all_there_is():
    cases = [Case(seed) for seed in range(150)]
    text = "\n".join(map(str, cases))
    for word in (
        "Lstm",
        "Bidirectional",
        "Convolution2D",
        "Delay",
        "Highway",
        "Leaky",
        "Nvar",
        "@shared",
        "@feedback_connections",
        "Mask",
    ):
        assert word in text
    assert {step.what for case in cases for step in case.steps} == {
        *("train", "backward", "evaluate")
    }

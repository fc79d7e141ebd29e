"""Random networks on all handlers, compared with NumpyHandler in float64.

They have branches, joins, layers that share parameters, masks and layers of all kinds.
Passes have changing sizes, continue others or do not, and run in several threads.

The environment variable ``BRAINSTORM_FUZZ_SECONDS`` sets how long the slow test runs,
and ``BRAINSTORM_FUZZ_SEED`` with which network it begins, for example one that failed.
"""

import json
import os
import threading
import time

import numpy as np
import pytest

from brainstorm import layers as L
from brainstorm.handlers import DebugHandler, NumpyHandler
from brainstorm.handlers.onednn import OneDnnHandler
from brainstorm.initializers import Gaussian
from brainstorm.structure.network import Network
from tests.handlers.handler_cases import OnlyOneDnnHandler

SECONDS = float(os.environ.get("BRAINSTORM_FUZZ_SECONDS", 100))
FIRST_SEED = int(os.environ.get("BRAINSTORM_FUZZ_SEED", 0))
FEATURES, CLASSES = 4, 3

# Smooth ones: at a kink rounding decides.
ACTIVATIONS = ("tanh", "sigmoid", "el", "softplus", "gelu", "swish", "linear")


def handlers():
    """Those to compare; oneDNN's where it is installed."""
    found = {
        "numpy32": lambda: NumpyHandler(np.float32),
        "debug": lambda: DebugHandler(NumpyHandler(np.float32)),
    }
    try:
        OneDnnHandler()
    except ImportError:
        return found
    found["onednn"] = lambda: OneDnnHandler(threads=2)
    found["onednn-only"] = OnlyOneDnnHandler
    found["debug-onednn"] = lambda: DebugHandler(OnlyOneDnnHandler())
    return found


# -- networks ----------------------------------------------------------------


class Recipe:
    """A random network, the same for the same seed."""

    def __init__(self, seed):
        self.rnd = np.random.RandomState(seed)
        self.inp = L.Input(
            {
                "default": ("T", "B", FEATURES),
                "mask": ("T", "B", 1),
                "targets": ("T", "B", 1),
            }
        )
        self.nr = 0
        self.ends = [(self.inp - "default", FEATURES)]
        self.owners = {}  # layers whose parameters others may share

    def name(self):
        self.nr += 1
        return f"Layer{self.nr}"

    def choose(self, choices):
        return choices[self.rnd.randint(len(choices))]

    def build(self):
        """The network and its architecture."""
        for _ in range(self.rnd.randint(3, 9)):
            self.choose([self.chain, self.chain, self.chain, self.branch, self.join])()
        while len(self.ends) > 1:
            self.join()
        (end, _), masked = self.ends[0], L.Mask(name="Masked")
        loss = L.SoftmaxCE(name="Output")
        end >> L.FullyConnected(CLASSES, "linear", name="Last") >> loss
        self.inp - "targets" >> "targets" - loss
        loss - "loss" >> masked >> L.Loss(name="Loss")
        self.inp - "mask" >> "mask" - masked
        return Network.from_layer(masked)

    def take(self):
        return self.ends.pop(self.rnd.randint(len(self.ends)))

    def branch(self):
        """Let two layers use what one had."""
        if len(self.ends) < 4:
            end = self.take()
            self.ends += [end, end]
            self.chain()

    def join(self):
        if len(self.ends) < 2:
            return
        (a, size), (b, other) = self.take(), self.take()
        if size == other and self.rnd.rand() < 0.5:
            joined, size = L.Add(name=self.name()), size
        else:
            joined, size = L.Concat(name=self.name()), size + other
        a >> "inputs_1" - joined
        b >> "inputs_2" - joined
        self.ends.append((joined, size))

    def chain(self):
        """Go on from somewhere with one more layer, maybe with known parameters."""
        end, size = self.take()
        kind, out = self.choose(list(KINDS)), int(self.rnd.randint(1, 8))
        known = [key for key in self.owners if key[0] == kind and key[1] == size]
        shared = bool(known) and self.rnd.rand() < 0.7
        if shared:
            _, _, out, options = key = self.choose(known)
        else:
            options = self.choose(ACTIVATIONS), bool(self.rnd.rand() < 0.5)
        layer, out = KINDS[kind](self.name(), size, out, *options)
        if shared:
            layer.share(self.owners[key])
        else:
            self.owners[kind, size, out, options] = layer
        end >> layer
        self.ends.append((layer, out))


def lstm(name, size, out, act, bias):
    act = act if act in ("tanh", "sigmoid") else "tanh"
    return L.Lstm(out, act, name=name, bias=bias, peepholes=not bias), out


KINDS = {
    "full": lambda name, size, out, act, bias: (
        L.FullyConnected(out, act, name=name, bias=bias),
        out,
    ),
    "lstm": lstm,
    "lstm again": lstm,
    "gru": lambda name, size, out, act, bias: (L.Gru(out, name=name, bias=bias), out),
    "rnn": lambda name, size, out, act, bias: (
        L.Recurrent(out, "tanh", name=name, bias=bias),
        out,
    ),
    "both": lambda name, size, out, act, bias: (
        L.Bidirectional(L.Lstm(out, bias=bias), name=name),
        2 * out,
    ),
    "act": lambda name, size, out, act, bias: (L.Elementwise(act, name=name), size),
    "norm": lambda name, size, out, act, bias: (L.BatchNorm(name=name), size),
}


# -- running them ------------------------------------------------------------


def passes(seed):
    """The data of some passes, and whether they continue the one before."""
    rnd = np.random.RandomState(seed + 1_000_000)
    sizes = [(int(rnd.randint(1, 8)), int(rnd.randint(4, 12))) for _ in range(3)]
    before = None
    for _ in range(8):
        steps, batch = sizes[rnd.randint(len(sizes))]
        data = {
            "default": rnd.randn(steps, batch, FEATURES),
            "mask": (rnd.rand(steps, batch, 1) < 0.8).astype(float),
            "targets": rnd.randint(CLASSES, size=(steps, batch, 1)),
        }
        goes_on = before == batch and rnd.rand() < 0.5
        before = batch
        yield data, goes_on, rnd.randint(4)


def make(seed, handler):
    net = Recipe(seed).build()
    net.set_handler(handler)
    net.initialize(Gaussian(0.4), seed=seed)
    return net


def run(net, data, goes_on, what):
    """One pass, and all that can be read after it."""
    context = net.get_context() if goes_on else None
    net.provide_external_data(data)
    net.forward_pass(training_pass=True, context=context)
    if what == 0:
        net.forward_pass(training_pass=True, context=context)  # once more
    net.backward_pass()
    found = {"parameters": net.get("parameters"), "gradients": net.get("gradients")}
    found["loss"] = np.array(net.get_loss_values()["total_loss"])
    if what == 1:
        for name, layer in net.layers.items():
            for internal in layer.internal_shapes:
                path = f"{name}.internals.{internal}"
                found[path] = net.get(path)
            for kind in ("outputs", "input_deltas"):
                for each in net.buffer[name][kind].keys():  # noqa: SIM118
                    found[f"{name}.{kind}.{each}"] = net.get(f"{name}.{kind}.{each}")
    if what == 2:
        net.forward_pass()  # an evaluation before the next pass
        found["predictions"] = net.get("Output.outputs.predictions")
    return found


def compare(seed, name, got, expected):
    for path, values in expected.items():
        scale = max(1.0 if path == "loss" else 1e-2, float(np.abs(values).max()))
        np.testing.assert_allclose(
            got[path], values, rtol=0, atol=5e-3 * scale, err_msg=f"{name}: {path}"
        )


def check(seed, made):
    """Run a network on all handlers, and on one of them in several threads."""
    net = make(seed, NumpyHandler(np.float64))
    try:
        expected = [run(net, *each) for each in passes(seed)]
        for name, handler in made.items():
            work(seed, name, handler, expected)
        failures = []
        threads = [
            threading.Thread(target=in_thread, args=(seed, *item, expected, failures))
            for item in made.items()
            for _ in range(2)
            if "debug" not in item[0]
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
    except Exception as error:
        text = json.dumps(net.architecture, indent=1)
        raise AssertionError(
            f"seed {seed}: {error}\nBRAINSTORM_FUZZ_SEED={seed}, architecture: {text}"
        ) from error


def work(seed, name, handler, expected):
    net = make(seed, handler)
    for each, values in zip(passes(seed), expected, strict=True):
        compare(seed, name, run(net, *each), values)


def in_thread(seed, name, handler, expected, failures):
    try:
        work(seed, f"{name} in a thread", handler, expected)
    except Exception as error:
        failures.append(error)


@pytest.mark.parametrize("seed", range(3))
def test_some_networks_agree(seed):
    check(seed, {name: handler() for name, handler in handlers().items()})


@pytest.mark.slow
def test_random_networks_agree():
    """For a while; networks come and go on the same handlers."""
    end, seed = time.monotonic() + SECONDS, FIRST_SEED
    made = {name: handler() for name, handler in handlers().items()}
    while time.monotonic() < end:
        check(seed, made)
        seed += 1

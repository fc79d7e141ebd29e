"""Recurrent operations of every handler, against formulas in float64.

The formulas go through a sequence unit by unit of time; their derivatives are taken
by complex steps, f'(x) = Im f(x + ih) / h, which are exact to rounding.
"""

import contextlib
import functools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainstorm.handlers import DebugHandler, NumpyHandler
from brainstorm.handlers.operations import recurrent as recurrent_operations
from brainstorm.handlers.operations.gru import GruCells, GruWeights
from brainstorm.handlers.operations.lstm import LstmCells
from brainstorm.handlers.operations.recurrent import Clock, RecurrentCells, Weights
from brainstorm.utils import HandlerError
from tests.handlers.handler_cases import (
    Arrays,
    check,
    in_records,
    run_to_the_end,
    seeds,
)

few = settings(max_examples=12)

CELLS = LstmCells._fields
STEP = 1e-30
OFTEN = ("rel", "tanh", "sigmoid")  # the other activation functions are slow


# -- formulas --------------------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


ACTIVATIONS = {
    "linear": lambda x: x,
    "rel": lambda x: np.where(x.real > 0, x, 0),
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "el": lambda x: np.where(x.real >= 0, x, np.exp(x) - 1),
    "softplus": lambda x: np.log(1 + np.exp(x)),
    "leaky_rel": lambda x: np.where(x.real > 0, x, 0.01 * x),
    "gelu": lambda x: x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2,
    "swish": lambda x: x / (1 + np.exp(-x)),
}


by_activation = pytest.mark.parametrize(
    "activation",
    [
        name if name in OFTEN else pytest.param(name, marks=pytest.mark.slow)
        for name in ACTIVATIONS
    ],
)


def is_kept(v, t):
    """Which units a clockwork does not update in step t: (B, N) or one False."""
    if "timing" not in v:
        return np.array(False)
    return (v["step"] + t) % v["timing"] != 0


def product(x, W):
    """Each row of x times a matrix that all share, or one of its own."""
    return (W @ x[..., np.newaxis])[..., 0]


def recurrent(v, act, leak=1.0, leak_inside=False):
    """Ha and y of all steps. ``v['+y']`` is added to y, and so on."""
    y_before, h_before, ha, y = v["y'"], v["Ha'"], [], []
    for t in range(len(v["x"])):
        kept = is_kept(v, t)
        h = product(v["x"][t], v["W"]) + product(y_before, v["R"])
        h = h + v["bias"]
        if leak_inside:
            h = (1 - leak) * y_before + leak * h
        h = h + v["+Ha"][t]
        new = act(h) if leak_inside else (1 - leak) * y_before + leak * act(h)
        ha.append(np.where(kept, h_before, h))
        y.append(np.where(kept, y_before, new) + v["+y"][t])
        h_before, y_before = ha[-1], y[-1]
    return {"Ha": np.array(ha), "y": np.array(y)}


def lstm(v, act):
    """All cells and y of all steps. ``v['+Za']`` is added to Za, and so on."""
    W, R = (np.split(v[name], 4, axis=-2) for name in ("W", "R"))
    b, peepholes = np.split(v["bias"], 4, axis=-1), v.get("peepholes", np.zeros((3, 1)))
    pi, pf, po = np.moveaxis(peepholes, -2, 0)
    y, c = v["y'"], v["Ca'"]
    all_steps = {name: [] for name in (*CELLS, "y")}
    for t in range(len(v["x"])):
        kept = is_kept(v, t)

        def gate(k, v=v, t=t, y=y):
            return product(v["x"][t], W[k]) + product(y, R[k]) + b[k]

        za = gate(0) + v["+Za"][t]
        zb = act(za) + v["+Zb"][t]
        ia = gate(1) + pi * c + v["+Ia"][t]
        ib = sigmoid(ia) + v["+Ib"][t]
        fa = gate(2) + pf * c + v["+Fa"][t]
        fb = sigmoid(fa) + v["+Fb"][t]
        c = np.where(kept, c, ib * zb + fb * c) + v["+Ca"][t]
        oa = gate(3) + po * c + v["+Oa"][t]
        ob = sigmoid(oa) + v["+Ob"][t]
        cb = act(c) + v["+Cb"][t]
        y = np.where(kept, y, ob * cb)
        for name, value in zip(
            (*CELLS, "y"), (za, zb, ia, ib, fa, fb, oa, ob, c, cb, y), strict=True
        ):
            all_steps[name].append(value)
    return {name: np.array(values) for name, values in all_steps.items()}


SHARED = ("W", "R", "bias", "peepholes", "timing")  # by all sequences


def derivatives(formula, v, act, dy):
    """Of ``sum(dy * y)`` by each value in `v`.

    As many copies of the sequences as there are values run in one batch, each with
    one value shifted. So each sequence gets weights of its own.
    """
    return {
        name: by_all_values(formula, v, act, dy, name)
        for name in v
        if name not in ("timing", "step")
    }


def by_all_values(formula, v, act, dy, name):
    shape, size = v[name].shape, v[name].size
    copies = {
        n: values if n in SHARED else np.concatenate([values] * size, axis=-2)
        for n, values in v.items()
    }
    steps = 1j * STEP * np.eye(size).reshape(size, *shape)
    if name in SHARED:
        copies[name] = np.repeat(v[name] + steps, dy.shape[1], axis=0)
    else:
        copies[name] = copies[name] + np.concatenate(steps, axis=-2)
    y = formula(copies, act)["y"].reshape(len(dy), size, *dy.shape[1:])
    return (dy[:, np.newaxis] * y).sum(axis=(0, 2, 3)).imag.reshape(shape) / STEP


# -- running the operations ------------------------------------------------------


@st.composite
def settings_of_a_pass(draw):
    sizes = {name: draw(st.integers(1, 3)) for name in "TBIN"}
    sizes["T"] = draw(st.integers(1, 4))
    return {
        **sizes,
        "seed": draw(seeds),
        "strided": draw(st.booleans()),
        "fresh": draw(st.booleans()),
        "clockwork": draw(st.booleans()),
    }


class Pass:
    """Values for one pass through an operation, and the handler's arrays of them."""

    def __init__(self, handler, s, gates, internals):
        self.handler, self.fresh = handler, s["fresh"]
        self.sizes = T, B, N = s["T"], s["B"], s["N"]
        self.arrays = arrays = Arrays(handler, s["seed"], s["strided"])
        self.plain = arrays.flat()
        randn, I = arrays.randn, s["I"]  # noqa: E741
        self.values = {
            "x": randn(T, B, I),
            "W": randn(gates * N, I),
            "R": randn(gates * N, N),
            "bias": randn(gates * N),
            "y'": randn(B, N),
            **{f"+{name}": np.zeros((T, B, N)) for name in internals},
        }
        if gates == 4:
            self.values["peepholes"] = randn(3, N)
        if s["clockwork"]:
            rnd = arrays.rnd
            self.values["timing"] = rnd.randint(1, 4, N).astype(float)
            self.values["step"] = rnd.randint(0, 5, (B, 1)).astype(float)
        self.dy = randn(T, B, N)

    def all_steps(self, values, carried):
        """An array for T steps and the carried state."""
        return self.arrays.put(np.concatenate([values, carried[np.newaxis]]))

    def unset(self, carried=None):
        """An array for all steps that holds nothing of use but the carried state."""
        shape = self.sizes
        carried = np.full(shape[1:], 7.5) if carried is None else carried
        return self.all_steps(np.full(shape, 7.5), carried)

    def clock(self):
        if "timing" not in self.values:
            return {}
        step = np.full((self.sizes[0] + 1, self.sizes[1], 1), 7.5)
        step[-1] = self.values["step"]
        return {"clock": Clock(*map(self.plain.put, (self.values["timing"], step)))}

    def check_steps(self, clock):
        if clock:
            T = self.sizes[0]
            steps = self.values["step"] + np.arange(1, T + 2).reshape(-1, 1, 1)
            steps[-1] = self.values["step"]
            check(self.handler, clock["clock"].step, steps)

    def check(self, array, expected, scale=1.0):
        """The first T rows of an array."""
        check(self.handler, array[: len(expected)], expected, scale=scale)


@contextlib.contextmanager
def pieces_of_steps(length):
    """Have operations with temporary cells go through sequences in such pieces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recurrent_operations, "_PIECE_SUMS", 1)
        patch.setattr(recurrent_operations, "_PIECE_STEPS", length)
        yield


def destinations(run, names):
    """Where to put gradients, and what is in there."""
    shapes = {name: run.values[name].shape for name in names}
    return {
        name: run.plain.destination(run.plain.randn(*shape), run.fresh)
        for name, shape in shapes.items()
    }


def compare_gradients(run, given, expected):
    for name, (array, start) in given.items():
        scale = np.abs(expected[name]).max() + np.abs(start).max() + 1
        check(run.handler, array, start + expected[name], scale=100 * scale)


# -- recurrent -------------------------------------------------------------------


@few
@given(s=settings_of_a_pass(), leak=st.sampled_from([1.0, 0.3]), inside=st.booleans())
@by_activation
def test_recurrent(handler, activation, s, leak, inside):
    leak = {} if leak == 1 else {"leak": leak, "leak_inside": inside}
    if leak:
        s = {**s, "clockwork": False}
    run, act = Pass(handler, s, 1, ("Ha", "y")), ACTIVATIONS[activation]
    formula = functools.partial(recurrent, **leak)
    v = run.values
    v["Ha'"] = run.arrays.randn(*v["y'"].shape)
    expected = formula(v, act)
    weights = Weights(*[run.plain.put(v[name]) for name in ("W", "R", "bias")])
    x = run.arrays.put(v["x"])
    Ha, y, clock = run.unset(v["Ha'"]), run.unset(v["y'"]), run.clock()
    cells = RecurrentCells(Ha, run.unset() if leak and not inside else None)
    handler.recurrent_forward(x, weights, cells, y, activation, **clock, **leak)
    for array, name in ((Ha, "Ha"), (y, "y")):
        run.check(array, expected[name], scale=100)
        check(handler, array[-1], v[f"{name}'"])
    run.check_steps(clock)

    dy = run.all_steps(run.dy, run.dy[0])
    dHa, dHb = run.unset(), run.unset()
    given = destinations(run, ("x", "W", "R", "bias"))
    dx, *gradients = (array for array, _ in given.values())
    handler.recurrent_backward(
        *(x, weights, cells, y, dy, RecurrentCells(dHa, dHb), dx, Weights(*gradients)),
        activation,
        **clock,
        **leak,
        fresh_dx=run.fresh,
        fresh_gradients=run.fresh,
    )
    slopes = derivatives(formula, v, act, run.dy)
    compare_gradients(run, given, slopes)
    run.check(dHa, slopes["+Ha"], scale=1000)
    run.check(dHb, slopes["+y"], scale=1000)
    run.check(dy, run.dy)
    check(handler, dy[-1], slopes["y'"], scale=1000)
    check(handler, dHb[-1], slopes["y'"], scale=1000)
    check(handler, dHa[-1], 0.0 * slopes["y'"])


# -- LSTM ------------------------------------------------------------------------


@few
@given(s=settings_of_a_pass(), peepholes=st.booleans())
@by_activation
def test_lstm(handler, activation, s, peepholes):
    run, act = Pass(handler, s, 4, CELLS), ACTIVATIONS[activation]
    v = run.values
    v["Ca'"] = run.arrays.randn(*v["y'"].shape)
    if not peepholes:
        del v["peepholes"]
    expected = lstm(v, act)
    parameters = Weights._fields
    weights = Weights(*[run.plain.put(v[n]) if n in v else None for n in parameters])
    x = run.arrays.put(v["x"])
    cells = {name: run.unset() for name in CELLS}
    cells["Ca"], y, clock = run.unset(v["Ca'"]), run.unset(v["y'"]), run.clock()
    handler.lstm_forward(x, weights, LstmCells(**cells), y, activation, **clock)
    for name, array in {**cells, "y": y}.items():
        run.check(array, expected[name], scale=1000)
    check(handler, y[-1], v["y'"])
    check(handler, cells["Ca"][-1], v["Ca'"])
    run.check_steps(clock)
    c, out, clock = run.unset(v["Ca'"])[-2:], run.unset(v["y'"]), run.clock()
    with pieces_of_steps(1 + 9 * s["fresh"]):
        handler.lstm_outputs(x, weights, c, out, activation, **clock)
    run.check(out, expected["y"], scale=1000)
    check(handler, c[0], expected["Ca"][-1], scale=1000)
    check(handler, c[-1], v["Ca'"])
    run.check_steps(clock)

    dy = run.all_steps(run.dy, run.dy[0])
    deltas = {name: run.unset() for name in CELLS}
    given = destinations(run, [n for n in ("x", *parameters) if n in v])
    gradients = [given[n][0] if n in given else None for n in parameters]
    handler.lstm_backward(
        *(x, weights, LstmCells(**cells), y, dy, LstmCells(**deltas)),
        *(given["x"][0], Weights(*gradients)),
        activation,
        **clock,
        fresh_dx=run.fresh,
        fresh_gradients=run.fresh,
    )
    slopes = derivatives(lstm, v, act, run.dy)
    compare_gradients(run, given, slopes)
    for name, array in deltas.items():
        run.check(array, slopes[f"+{name}"], scale=1000)
        carried = slopes["Ca'"] if name == "Ca" else 0.0 * slopes["Ca'"]
        check(handler, array[-1], carried, scale=1000)
    run.check(dy, run.dy)
    check(handler, dy[-1], slopes["y'"], scale=1000)


# -- GRU -------------------------------------------------------------------------


@few
@given(s=settings_of_a_pass(), reset_after=st.booleans(), has_bias=st.booleans())
@pytest.mark.parametrize("activation", ["tanh"])
def test_gru_outputs(handler, activation, s, reset_after, has_bias):
    """The formulas of `gru_forward` have tests of their own, with the layer."""
    run = Pass(handler, {**s, "clockwork": False}, 3, ())
    v, (T, B, N) = run.values, run.sizes
    bias = run.plain.put(v["bias"]) if has_bias else None
    recurrent_bias = run.plain.randn(N) if has_bias and reset_after else None
    if recurrent_bias is not None:
        recurrent_bias = run.plain.put(recurrent_bias)
    weights = GruWeights(
        run.plain.put(v["W"]), run.plain.put(v["R"]), bias, recurrent_bias
    )
    x, y = run.arrays.put(v["x"]), run.unset(v["y'"])
    cells = GruCells(*[run.arrays.put(np.zeros((T, B, N))) for _ in GruCells._fields])
    handler.gru_forward(x, weights, cells, y, activation, reset_after)
    out = run.unset(v["y'"])
    with pieces_of_steps(1 + 9 * s["fresh"]):
        handler.gru_outputs(x, weights, out, activation, reset_after)
    check(handler, out, handler.get_numpy_copy(y), scale=100)


# -- what else they promise ------------------------------------------------------


def simple_pass(handler, gates, clockwork=False, **sizes):
    sizes = {"T": 3, "B": 2, "I": 2, "N": 2, **sizes}
    s = {**sizes, "seed": 0, "strided": False, "fresh": True, "clockwork": clockwork}
    run = Pass(handler, s, gates, ())
    parameters = ("x", "W", "R", "peepholes", "bias")
    arrays = {
        n if n == "x" else f"weights.{n}": run.plain.put(run.values[n])
        for n in parameters
        if n in run.values
    }
    return run, arrays


def arguments_of(operation, handler, **sizes):
    """Good arguments for the forward operations."""
    gates = {"recurrent_forward": 1, "lstm_forward": 4}[operation]
    run, arrays = simple_pass(handler, gates, clockwork=True, **sizes)
    internals = ("Ha",) if gates == 1 else CELLS
    arrays |= {f"cells.{name}": run.unset() for name in internals}
    arguments = {**arrays, "y": run.unset(), "activation": "tanh"}
    return {**in_records(operation, arguments), **run.clock()}


@pytest.mark.parametrize("operation", ["recurrent_forward", "lstm_forward"])
@pytest.mark.parametrize("timing", [0.5, 0.0, -2.0])
def test_timings_below_one_are_refused(handler, operation, timing):
    arguments = arguments_of(operation, handler)
    handler.set_from_numpy(arguments["clock"].timing, np.array([1.0, timing]))
    with pytest.raises(HandlerError, match=f"at least 1, got {timing}"):
        run_to_the_end(handler, operation, **arguments)


@pytest.mark.parametrize("operation", ["recurrent_forward", "lstm_forward"])
def test_timing_that_is_not_a_number_is_refused(operation):
    handler = NumpyHandler(np.float64)
    arguments = arguments_of(operation, handler)
    arguments["clock"].timing[0] = np.nan
    with pytest.raises(HandlerError, match="at least 1, got nan"):
        getattr(handler, operation)(**arguments)


@pytest.mark.parametrize("operation", ["recurrent_forward", "lstm_forward"])
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("y", (3, 2, 2)),
        ("weights.W", (3, 2)),
        ("weights.R", (2, 3)),
        ("clock.step", (4, 2, 2)),
        ("clock.timing", (3,)),
    ],
)
def test_debug_handler_notices_wrong_shapes(operation, name, shape):
    handler = DebugHandler(NumpyHandler(np.float64))
    arguments = arguments_of(operation, handler)
    argument, _, field = name.partition(".")
    wrong = handler.ones(shape)
    if field:
        wrong = arguments[argument]._replace(**{field: wrong})
    arguments[argument] = wrong
    with pytest.raises(HandlerError, match=f"{operation}: argument '[a-zA-Z.]*'"):
        getattr(handler, operation)(**arguments)


@pytest.mark.parametrize("operation", ["recurrent_forward", "lstm_forward"])
def test_debug_handler_wants_timing_and_step_together(operation):
    handler = DebugHandler(NumpyHandler(np.float64))
    arguments = arguments_of(operation, handler)
    arguments["clock"] = arguments["clock"]._replace(step=None)
    with pytest.raises(HandlerError, match=f"{operation}: argument 'clock.step'"):
        getattr(handler, operation)(**arguments)


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        ({"leak": 0.0}, "leak"),
        ({"leak": 1.5}, "leak"),
        ({"leak": 0.5}, "clock"),
        ({"leak": 0.5, "clock": None}, "cells.Hb"),
    ],
)
def test_debug_handler_notices_wrong_leaks(changed, wrong):
    handler = DebugHandler(NumpyHandler(np.float64))
    arguments = {**arguments_of("recurrent_forward", handler), **changed}
    if wrong == "clock":
        cells = arguments["cells"]
        arguments["cells"] = cells._replace(Hb=handler.zeros(cells.Ha.shape))
    with pytest.raises(HandlerError, match=f"argument '{wrong}': expected"):
        handler.recurrent_forward(**arguments)


def test_sigmoids_saturate_without_overflow():
    handler = NumpyHandler(np.float32)
    arguments = arguments_of("lstm_forward", handler)
    arguments["weights"].bias[...] = [1e30, -1e30] * 4
    handler.lstm_forward(**arguments)
    assert np.isin(arguments["cells"].Ib[:-1], (0.0, 1.0)).all()
    assert handler.is_fully_finite(arguments["y"])


@pytest.mark.parametrize("operation", ["recurrent_forward", "lstm_forward"])
def test_large_timings_are_not_copied(operation):
    """The check of the timings too allocates nothing."""
    handler = NumpyHandler(np.float64)
    arguments = arguments_of(operation, handler, N=1000)
    arguments["clock"].timing[...] = 2.0
    run = getattr(handler, operation)
    run(**arguments)
    tracemalloc.start()
    try:
        run(**arguments)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4096 + 3 * 8192 * 8  # NumPy's own buffers for strided operands

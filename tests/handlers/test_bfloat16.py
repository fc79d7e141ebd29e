"""Factors that OneDnnHandler converts to bfloat16.

Which ones it converts depends on the CPU. Here all are, wherever the library can.
"""

import argparse
import functools
import inspect
import itertools
from collections import Counter

import numpy as np
import pytest

import brainstorm as bs
from brainstorm.handlers import NumpyHandler
from brainstorm.handlers.onednn import bfloat16, binding, convolutions
from brainstorm.handlers.onednn.definitions import (
    BFLOAT16,
    INSTRUCTION_SETS,
    Layout,
    UnimplementedError,
)
from brainstorm.handlers.onednn.recipes import Call, Recipe
from brainstorm.handlers.onednn_handler import OneDnnHandler
from tests.handlers.handler_cases import onednn_handler

# Of 8 significant bits. Both factors are rounded, and sums of so many products.
ROUNDING = 2.0**-8
SUM = 2.0**-24


def forced(**arguments):
    handler = OneDnnHandler(math_mode="bf16", **arguments)
    if "AVX-512" not in handler._library.instruction_set:
        pytest.skip("oneDNN multiplies bfloat16 only on CPUs with AVX-512")
    handler._conversions = bfloat16.ALL_CONVERSIONS
    return handler


@pytest.fixture
def handler():
    onednn_handler()
    return forced()


def randn(*shape, seed=0):
    return np.random.RandomState(seed).randn(*shape).astype(np.float32)


def assert_rounded(got, exact, of_sizes, terms):
    """Off by what two factors in bfloat16 explain, and by no less.

    Args:
        got: The result.
        exact: The same from float64.
        of_sizes: The same of the absolute values of the factors.
        terms: The number of products in each sum.
    """
    bound = (2 * ROUNDING + ROUNDING**2) * (1 + terms * SUM) + terms * SUM
    errors = np.abs(got - exact)
    assert (errors <= bound * of_sizes + 1e-30).all()
    relative = np.linalg.norm(errors) / np.linalg.norm(of_sizes) * np.sqrt(terms)
    assert ROUNDING / 8 < relative < 2 * ROUNDING


def off(got, exact):
    return np.linalg.norm(got - exact) / np.linalg.norm(exact)


# -- products ----------------------------------------------------------------


@pytest.mark.parametrize("transa", [False, True])
@pytest.mark.parametrize("transb", [False, True])
def test_products(handler, transa, transb):
    a, b = randn(40, 70), randn(70, 50, seed=1)
    exact, sizes = a.astype(float) @ b, np.abs(a) @ np.abs(b)
    a = a.T.copy() if transa else a
    b = b.T.copy() if transb else b
    out = np.empty((40, 50), np.float32)
    handler.dot_mm(a, b, out, transa, transb)
    assert_rounded(out, exact, sizes, 70)
    handler.dot_add_mm(a, b, out, transa, transb)
    assert_rounded(out / 2, exact, sizes, 70)


def test_products_of_strided_matrices(handler):
    a, b = randn(40, 140)[:, ::2], randn(70, 80, seed=1)[:, 10:60]
    out = np.zeros((40, 60), np.float32)
    handler.dot_mm(a, b, out[:, 5:55])
    assert_rounded(out[:, 5:55], a.astype(float) @ b, np.abs(a) @ np.abs(b), 70)
    assert not out[:, :5].any()
    assert not out[:, 55:].any()


def test_products_of_stacks(handler):
    a, b = randn(3, 40, 70), randn(3, 50, 70, seed=1).swapaxes(1, 2)
    out = np.empty((3, 40, 50), np.float32)
    handler.batch_dot_mm(a, b.swapaxes(1, 2), out, transb=True)
    assert_rounded(out, a.astype(float) @ b, np.abs(a) @ np.abs(b), 70)


def test_affine_maps(handler):
    x, W, bias, dh = randn(40, 70), randn(50, 70, seed=1), randn(50), randn(40, 50)
    h = np.empty((40, 50), np.float32)
    handler.affine(x, W, bias, h, h, "linear")
    assert_rounded(h - bias, x.astype(float) @ W.T, np.abs(x) @ np.abs(W.T), 70)
    dx, dW, dbias = np.empty_like(x), np.empty_like(W), np.empty_like(bias)
    handler.affine_backward(
        *(x, W, h, h, dh, None, dx, dW, dbias, "linear"),
        fresh_dx=True,
        fresh_gradients=True,
    )
    assert_rounded(dx, dh.astype(float) @ W, np.abs(dh) @ np.abs(W), 50)
    assert_rounded(dW, dh.T.astype(float) @ x, np.abs(dh.T) @ np.abs(x), 40)
    # No product, so nothing is rounded.
    np.testing.assert_allclose(dbias, dh.astype(float).sum(0), rtol=1e-5, atol=1e-5)


def test_special_values(handler):
    a, b = randn(40, 70), randn(70, 50, seed=1)
    a[3, 4], a[5, 6] = np.nan, np.inf
    out = np.empty((40, 50), np.float32)
    handler.dot_mm(a, b, out)
    assert np.isnan(out[3]).all()
    np.testing.assert_array_equal(out[5], np.inf * np.sign(b[6]))
    assert np.isfinite(np.delete(out, [3, 5], 0)).all()


# -- convolutions ------------------------------------------------------------

IMAGES = {
    "padded": {"padding": 1, "stride": (1, 1)},
    "strided": {"padding": 1, "stride": (2, 2)},
    "dilated": {"padding": 2, "stride": (1, 1), "dilation": (2, 2)},
    "in groups": {"padding": 0, "stride": (1, 1), "groups": 2},
}


def convolve(handler, x, W, dy, padding, stride, **windows):
    """Outputs, deltas of the inputs, and gradients, of values without a bias."""
    x, W = (handler.create_from_numpy(a.astype(handler.dtype)) for a in (x, W))
    dtype, bias = handler.dtype, np.zeros(len(W), handler.dtype)
    span = 2 * windows.get("dilation", (1, 1))[0]
    shape = [
        (n + 2 * padding - span - 1) // s + 1
        for n, s in zip(x.shape[1:3], stride, strict=True)
    ]
    y = np.empty((len(x), *shape, len(W)), dtype)
    handler.conv2d_forward_batch(x, W, bias, y, padding, stride, **windows)
    dy = dy[:, : shape[0], : shape[1]].astype(dtype)
    dx, dW, dbias = np.empty_like(x), np.empty_like(W), np.empty_like(bias)
    handler.conv2d_backward_batch(
        *(x, W, padding, stride, dx, dy, dW, dbias),
        fresh_in_deltas=True,
        fresh_gradients=True,
        **windows,
    )
    return y, dx, dW, dbias


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("case", IMAGES)
def test_convolutions(handler, case, parts, monkeypatch):
    cut = {1: [slice(0, 6)], 2: [slice(0, 3), slice(3, 6)]}
    monkeypatch.setattr(convolutions, "parts_of", lambda *_: cut[parts])
    windows = IMAGES[case]
    channels = 16 // windows.get("groups", 1)
    arrays = randn(6, 9, 9, 16), randn(32, 3, 3, channels), randn(6, 9, 9, 32, seed=1)
    reference = NumpyHandler(np.float64)
    got = convolve(handler, *arrays, **windows)
    exact = convolve(reference, *arrays, **windows)
    sizes = convolve(reference, *map(np.abs, arrays), **windows)
    pixels = 6 * exact[0].shape[1] ** 2
    terms = 9 * channels, 9 * 32, pixels, pixels
    for each, *others in zip(got, exact, sizes, terms, strict=True):
        assert_rounded(each, *others)


def test_kernels_are_converted_once_a_pass(handler, monkeypatch):
    """However many parts the batch has."""
    monkeypatch.setattr(convolutions, "parts_of", lambda *_: [slice(0, 3), slice(3, 6)])
    x, W, dy = randn(6, 9, 9, 16), randn(32, 3, 3, 16), randn(6, 9, 9, 32, seed=1)
    copied = []
    reorder = Recipe.reorder

    def note(self, source, *others, **more):
        copied.append((self.name, source.desc.shape))
        reorder(self, source, *others, **more)

    monkeypatch.setattr(Recipe, "reorder", note)
    convolve(handler, x, W, dy, **IMAGES["padded"])
    counts = Counter(copied)
    assert counts["conv2d_forward", (32, 16, 3, 3)] == 1
    # The kernels, and what adds up the gradients of the parts and brings them home.
    assert counts["conv2d_backward", (32, 16, 3, 3)] == 3
    assert counts["conv2d_backward", (3, 32, 9, 9)] == 2
    assert counts["conv2d_backward", (3, 16, 9, 9)] == 2


# -- attention ---------------------------------------------------------------


def attend(handler):
    q, k, v, dy = (randn(150, 2, 16, seed=n).astype(handler.dtype) for n in range(4))
    y, dq, dk, dv = (np.empty_like(q) for _ in range(4))
    handler.attention_forward(q, k, v, None, y, 2, True)
    handler.attention_backward(q, k, v, None, dy, dq, dk, dv, 2, True)
    return y, dq, dk, dv


def test_attention(handler):
    exact = attend(NumpyHandler(np.float64))
    for got, expected in zip(attend(handler), exact, strict=True):
        # Scores of 8 products in a row are off, weights by as much, then products.
        assert ROUNDING / 8 < off(got, expected) < 4 * ROUNDING


# -- recurrent layers --------------------------------------------------------


def recurrent_net(handler, layer, **arguments):
    inp, out = bs.tools.get_in_out_layers("classification", 20, 10)
    hidden = getattr(bs.layers, layer)(64, name="Hidden", **arguments)
    net = bs.Network.from_layer(inp >> hidden >> out)
    net.set_handler(handler)
    net.initialize(bs.Gaussian(0.15), seed=3)
    rnd = np.random.RandomState(1)
    targets = rnd.randint(0, 10, (10, 16, 1))
    net.provide_external_data({"default": rnd.randn(10, 16, 20), "targets": targets})
    return net


def passes(net):
    net.forward_pass(training_pass=True)
    net.backward_pass()
    outputs = net.get("Hidden.outputs.default")
    return outputs, net.handler.get_numpy_copy(net.buffer.gradients)


@pytest.mark.parametrize("layer", ["Recurrent", "Gru", "Lstm"])
def test_recurrent_layers(handler, layer):
    rough = passes(recurrent_net(handler, layer))
    exact = passes(recurrent_net(NumpyHandler(np.float64), layer))
    plain = passes(recurrent_net(OneDnnHandler(), layer))
    for each, expected, unrounded in zip(rough, exact, plain, strict=True):
        assert off(unrounded, expected) < 1e-5
        # Rounding is as likely up as down; its mean is less than half of the most that
        # it can be. A state passes through ten steps.
        assert ROUNDING / 8 < off(each, expected) < 4 * ROUNDING


@pytest.mark.parametrize("peepholes", [True, False])
@pytest.mark.parametrize("threads", [1, 2])
def test_lstms_in_the_library(handler, peepholes, threads, monkeypatch):
    monkeypatch.setattr("brainstorm.handlers.onednn.lstm_formats._MIN_WORK", 1)
    make = functools.partial(recurrent_net, layer="Lstm", peepholes=peepholes)
    outputs, gradients = passes(make(forced(threads=threads)))
    expected, expected_gradients = passes(make(NumpyHandler(np.float64)))
    assert ROUNDING / 8 < off(outputs, expected) < 2 * ROUNDING
    assert ROUNDING / 8 < off(gradients, expected_gradients) < 4 * ROUNDING


@pytest.mark.parametrize("layer", ["Recurrent", "Lstm"])
def test_replays_give_the_same(handler, layer):
    net = recurrent_net(handler, layer)
    first, *others = [passes(net) for _ in range(3)]
    for each in others:
        np.testing.assert_array_equal(each[0], first[0])
        np.testing.assert_array_equal(each[1], first[1])


@pytest.mark.parametrize("peepholes", [True, False])
def test_outputs_of_an_lstm_alone(handler, peepholes):
    if handler._library.instruction_set in ("AVX-512", "AVX-512 with VNNI"):
        pytest.skip("oneDNN runs an LSTM in bfloat16 only on CPUs that have it")
    outputs = []
    for each in (handler, NumpyHandler(np.float64)):
        net = recurrent_net(each, "Lstm", peepholes=peepholes)
        net.forward_pass(training_pass=False, keeps_internals=False)
        outputs.append(net.get("Hidden.outputs.default"))
    assert ROUNDING / 8 < off(*outputs) < 2 * ROUNDING


def test_internals_of_an_lstm(handler):
    rough = recurrent_net(handler, "Lstm")
    exact = recurrent_net(NumpyHandler(np.float64), "Lstm")
    for net in (rough, exact):
        passes(net)
    for name in ("Za", "Ib", "Fb", "Ob", "Ca", "dZa", "dIa", "dOa", "dCa"):
        path = f"Hidden.internals.{name}"
        got, expected = rough.get(path)[:-1], exact.get(path)[:-1]
        assert off(got, expected) < 8 * ROUNDING


# -- which factors, and how often --------------------------------------------


def reorders(monkeypatch, net):
    """For each pass, how often what has some shape is copied to another format."""
    shapes, make = {}, binding.Library.primitive

    def note(self, kind, args, *others, **more):
        primitive = make(self, kind, args, *others, **more)
        is_reorder = kind == "reorder"  # others may come where one was that is gone
        shapes[primitive.handle.value] = args[0].shape if is_reorder else None
        return primitive

    monkeypatch.setattr(binding.Library, "primitive", note)
    passes(net)
    passes(net)  # the first pass makes room for the second
    counts = {}
    for (key, _), program in net._buffer_manager.sized.programs.items():
        leaves = itertools.chain.from_iterable(
            calls
            for step, calls in zip(program.steps, program.calls_by_step(), strict=True)
            if step.layer == "Hidden"
        )
        executed = itertools.chain.from_iterable(
            leaf._steps if isinstance(leaf, Call) else [leaf.args] for leaf in leaves
        )
        handles = [getattr(step[0], "value", None) for step in executed if step]
        counts[key[0]] = Counter(filter(None, map(shapes.get, handles)))
    return counts


def test_weights_are_converted_once_a_pass(handler, monkeypatch):
    """And the state, or its deltas, in each step."""
    counts = reorders(monkeypatch, recurrent_net(handler, "Recurrent"))
    for each in (counts["forward"], counts["backward"]):
        assert each[64, 64] == 1
        assert each[16, 64] == 10
    assert counts["forward"][20, 64] == counts["backward"][64, 20] == 1


def test_small_products_are_left_alone():
    pays = bfloat16.Conversions(frozenset({"dot_mm"})).pay
    assert pays("dot_mm", 2**20, 2**12)
    assert not pays("dot_mm", 2**18, 2**12)  # too little work
    assert not pays("dot_mm", 2**20, 2**18)  # too many numbers to convert
    assert not pays("affine", 2**20, 2**12)


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS.values())
def test_conversions_by_instruction_set(instruction_set):
    pays = bfloat16.conversions_of("bf16", instruction_set).pay
    has_amx, has_bfloat16 = "AMX" in instruction_set, "float16" in instruction_set
    large = 2**30, 2**20
    assert pays("lstm", *large) == has_amx
    assert pays("lstm_outputs", *large) == (has_bfloat16 or has_amx)
    assert pays("dot_mm", *large) == (has_bfloat16 and not has_amx)
    assert pays("conv2d_backward", *large) == (has_bfloat16 or has_amx)
    assert not bfloat16.conversions_of("f32", instruction_set).pay("lstm", *large)


def test_description_tells_of_no_effect():
    onednn_handler()
    handler = OneDnnHandler(math_mode="bf16")
    handler._conversions = bfloat16.ALL_CONVERSIONS
    assert handler.describe().endswith("bf16")
    handler._conversions = bfloat16.NO_CONVERSIONS
    assert handler.describe().endswith("bf16, which changes nothing on this CPU")
    assert OneDnnHandler().describe().endswith("f32")


def test_what_can_not_be_converted_is_done_in_float32(handler, monkeypatch):
    make = binding.Library._make
    kinds = []

    def refuse(self, kind, args, *others):
        if any(isinstance(a, Layout) and a.dtype == BFLOAT16 for a in args):
            raise UnimplementedError("no bfloat16")
        kinds.append(kind)
        return make(self, kind, args, *others)

    monkeypatch.setattr(binding.Library, "_make", refuse)
    a, b, out = randn(40, 71), randn(71, 50, seed=1), np.empty((40, 50), np.float32)
    handler.dot_mm(a, b, out)
    np.testing.assert_allclose(out, a.astype(float) @ b, rtol=1e-4, atol=1e-4)
    assert kinds == ["matmul"]


# -- training ----------------------------------------------------------------


def digits(*shape):
    data = pytest.importorskip("sklearn.datasets").load_digits()
    images, classes = data.images[:1600] / 16, data.target[:1600]
    return images.reshape(1, -1, *shape), classes.reshape(1, -1, 1)


def perceptron():
    inp, out = bs.tools.get_in_out_layers("classification", 64, 10)
    full = bs.layers.FullyConnected
    return inp >> full(200) >> full(200) >> out, digits(64), 3


def convolutional():
    inp, out = bs.tools.get_in_out_layers("classification", (8, 8, 1), 10)
    layer = functools.partial(
        bs.layers.Convolution2D, 32, kernel_size=(3, 3), padding=1
    )
    pool = bs.layers.Pooling2D((2, 2), stride=(2, 2))
    return inp >> layer() >> layer() >> pool >> out, digits(8, 8, 1), 3


def characters():
    text = np.frombuffer(inspect.getsource(argparse).encode("ascii"), np.uint8)
    text = np.unique(text, return_inverse=True)[1][:40_001]
    inputs, targets = (text[k : k + 40_000].reshape(800, 50).T for k in (0, 1))
    size = text.max() + 1
    inp, out = bs.tools.get_in_out_layers("classification", size, size)
    data = np.eye(size, dtype="f")[inputs[:20]], targets[:20, :, np.newaxis]
    return inp >> bs.layers.Lstm(64) >> out, data, 21


def losses(make, handler, epochs):
    graph, (inputs, targets), depth = make()
    net = bs.Network.from_layer(graph)
    net.set_handler(handler)
    net.initialize(bs.Gaussian(0.1), seed=1)
    trainer = bs.Trainer(bs.training.AdamStepper(0.003), verbose=False)
    trainer.add_hook(bs.hooks.StopAfterEpoch(epochs))
    batches = bs.Minibatches(50, default=inputs, targets=targets, shuffle=False)
    trainer.train(net, batches)
    return np.array(trainer.logs["rolling_training"]["total_loss"]), depth


@pytest.mark.slow
@pytest.mark.parametrize("make", [perceptron, convolutional, characters])
def test_networks_learn_as_well(handler, make):
    """A loss after so many products in a row, to first order, is off by this part."""
    rough, depth = losses(make, handler, 3)
    exact, _ = losses(make, OneDnnHandler(), 3)
    assert exact[-1] < 0.8 * exact[0]
    assert (np.abs(rough - exact) < 2 * depth * ROUNDING * exact[0]).all()
    assert (rough != exact).all()

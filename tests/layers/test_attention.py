"""Attention and PositionalEncoding."""

import json

import numpy as np
import pytest

import brainstorm as bs
from brainstorm import layers
from brainstorm.handlers import DebugHandler, NumpyHandler
from brainstorm.structure.network import Network
from brainstorm.utils import HandlerError, LayerValidationError, NetworkValidationError
from tests.layers.single_layer import SingleLayer, normal
from tests.training.test_carry_context import CrashAt


def parameters_of(sizes, seed=5):
    """Random parameters for n outputs, and inputs and a memory of given sizes."""
    n, i, j = sizes
    shapes = {"Wq": (n, i), "Wk": (n, j), "Wv": (n, j), "Wo": (n, n)}
    shapes |= {name: (n,) for name in ("bq", "bk", "bv", "bo")}
    return {
        name: normal(*shape, seed=seed + k)
        for k, (name, shape) in enumerate(shapes.items())
    }


def by_hand(x, p, heads, causal=False, memory=None, mask=None, turn=None):
    """Outputs and weights, one query of one head at a time."""
    m, (T, B, _), n = x if memory is None else memory, x.shape, len(p["Wo"])
    d, weights, mixed = n // heads, np.zeros((T, B, heads, T)), np.zeros((T, B, n))
    for b in range(B):
        q, k, v = (
            a[:, b] @ p[f"W{w}"].T + p[f"b{w}"]
            for w, a in zip("qkv", (x, m, m), strict=True)
        )
        for head in range(heads):
            part = slice(head * d, (head + 1) * d)
            qs, ks = (a[:, part] if turn is None else turn(a[:, part]) for a in (q, k))
            for t in range(T):
                seen = [
                    s
                    for s in range(T)
                    if (s <= t or not causal) and (mask is None or mask[s, b, 0])
                ]
                if seen:
                    e = np.exp([qs[t] @ ks[s] / np.sqrt(d) for s in seen])
                    weights[t, b, head, seen] = e / e.sum()
                    mixed[t, b, part] = weights[t, b, head] @ v[:, part]
    return mixed @ p["Wo"].T + p["bo"], weights


def turned(a):
    """The halves of the columns as complex numbers, turned by their positions."""
    half = a.shape[1] // 2
    numbers = a[:, :half] + 1j * a[:, half:]
    speeds = 10000.0 ** (-np.arange(half) / half)
    numbers = numbers * np.exp(1j * np.outer(np.arange(len(a)), speeds))
    return np.hstack([numbers.real, numbers.imag])


MASK = np.array([[0, 1], [1, 1], [1, 0], [0, 0], [0, 1]])[..., None]


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("extra", [(), ("memory",), ("mask",), ("memory", "mask")])
def test_outputs_and_weights(causal, extra, rotary):
    given = {"memory": normal(5, 2, 2, seed=1), "mask": MASK}
    inputs = {name: given[name] for name in extra}
    x, p = normal(5, 2, 3), parameters_of((8, 3, 2 if "memory" in extra else 3))
    layer = layers.Attention(8, 2, causal, rotary=rotary)
    run = SingleLayer(layer, {"default": x, **inputs}, p).forward()
    y, weights = by_hand(x, p, 2, causal, turn=turned if rotary else None, **inputs)
    np.testing.assert_allclose(run.y, y, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(run["internals.weights"], weights, 1e-12, 1e-14)


def test_blocks_give_what_the_whole_gives(monkeypatch):
    x, dy, p = normal(11, 3, 4), normal(11, 3, 4, seed=1), parameters_of((4, 4, 4))
    mask = np.random.RandomState(0).randint(0, 2, (11, 3, 1))
    results = []
    for queries, size in ((128, 2**18), (4, 2**18), (3, 50), (1, 1)):
        monkeypatch.setattr(NumpyHandler, "_attention_queries", queries, raising=False)
        monkeypatch.setattr(NumpyHandler, "_attention_size", size, raising=False)
        for causal in (True, False):
            for inputs in ({"default": x}, {"default": x, "mask": mask}):
                layer = layers.Attention(4, 2, causal, rotary=True)
                run = SingleLayer(layer, inputs, p).forward().backward(default=dy)
                paths = [f"gradients.{n}" for n in p] + ["input_deltas.default"]
                paths += ["outputs.default", "internals.weights"]
                results.append([run[path] for path in paths])
    for i, found in enumerate(results):
        for array, expected in zip(found, results[i % 4], strict=True):
            np.testing.assert_allclose(array, expected, rtol=1e-11, atol=1e-12)


def test_memory_grows_with_the_steps_not_with_their_square():
    sizes = {}
    for steps in (256, 512):
        handler = NumpyHandler(np.float32)
        layer = layers.Attention(8, 1, True, name="A")
        net = Network.from_layer(layers.Input({"default": ("T", "B", 8)}) >> layer)
        net.set_handler(handler)
        net.initialize("auto", seed=1)
        net.provide_external_data({"default": normal(steps, 8, 8)})
        net.forward_pass(training_pass=True)
        net.backward_pass()
        temporary = sum(b.nbytes for b in handler._workspace.buffers.values())
        sizes[steps] = temporary
    assert sizes[512] < 2 * sizes[256]
    assert sizes[512] < 512 * 512 * 8 * 4


def test_sequences_of_which_all_is_hidden():
    mask = np.ones((4, 2, 1))
    mask[:, 0] = 0
    p = parameters_of((4, 3, 3))
    run = SingleLayer(
        layers.Attention(4, 2), {"default": normal(4, 2, 3), "mask": mask}, p
    )
    run.net.set_handler(DebugHandler(NumpyHandler(np.float64)))
    for name, value in p.items():
        run.set(f"parameters.{name}", value)
    run.forward().backward(default=normal(4, 2, 4, seed=1))
    assert not run["internals.weights"][:, 0].any()
    assert not run["internals.mixed"][:, 0].any()
    np.testing.assert_array_equal(run.y[:, 0], np.tile(p["bo"], (4, 1)))
    assert not run["input_deltas.default"][:, 0].any()
    assert run["input_deltas.default"][:, 1].all()


@pytest.mark.parametrize("size", [1e-30, 1e4])
def test_long_sequences_of_products_near_and_far_from_zero(size):
    x = size * normal(600, 1, 4)
    eye = dict.fromkeys(("Wq", "Wk", "Wv", "Wo"), np.eye(4))
    run = SingleLayer(
        layers.Attention(4, 1), {"default": x}, eye, NumpyHandler(np.float32)
    ).forward()
    weights = run["internals.weights"]
    np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-5)
    products = np.einsum("tbi,sbi->tbs", x, x)[:, :, None] / 2
    e = np.exp(products - products.max(-1, keepdims=True))
    expected = e / e.sum(-1, keepdims=True)
    np.testing.assert_allclose(weights, expected, atol=1e-2 if size > 1 else 1e-6)


# -- contexts ----------------------------------------------------------------------


def language_model(handler=None, **kwargs):
    kwargs = {"context_size": 20, **kwargs}
    inp = layers.Input({"default": ("T", "B", 1), "mask": ("T", "B", 1)})
    words = inp >> layers.Embedding(5, 8) >> layers.PositionalEncoding("learned", 40)
    first = layers.Attention(8, 2, True, name="First", **kwargs)
    last = layers.Attention(8, 4, True, name="Last", **kwargs)
    words >> first >> layers.LayerNorm() >> last
    words >> "memory" - last
    inp - "mask" >> "mask" - first
    out = last >> layers.FullyConnected(1, "linear", name="Out")
    net = Network.from_layer(out >> layers.Loss())
    net.output_name = "Out.outputs.default"
    net.set_handler(handler or NumpyHandler(np.float64))
    net.initialize("auto", seed=1)
    return net


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("pieces", [[1] * 9, [2, 5, 1, 1], [4, 5]])
def test_pieces_give_what_the_whole_gives(pieces, rotary):
    net = language_model(rotary=rotary)
    rnd = np.random.RandomState(0)
    words, mask = rnd.randint(0, 5, (9, 3, 1)), rnd.randint(0, 2, (9, 3, 1))
    expected = net.predict({"default": words, "mask": mask})
    weights = net.get("Last.internals.weights")
    found, context, start = [], None, 0
    for size in pieces:
        part = slice(start, start + size)
        net.provide_external_data({"default": words[part], "mask": mask[part]})
        net.forward_pass(context=context)
        found.append(net.get("Out.outputs.default"))
        context, start = net.get_context(), start + size
    np.testing.assert_allclose(np.concatenate(found), expected, rtol=1e-12)
    last = net.get("Last.internals.weights")
    assert last.shape == (pieces[-1], 3, 4, 20 + pieces[-1])
    np.testing.assert_allclose(last[..., -9:], weights[-pieces[-1] :], 1e-11, 1e-14)
    assert not last[..., :-9].any()


def test_a_pass_without_a_context_looks_at_no_past():
    net = language_model()
    data = {"default": np.ones((4, 2, 1)), "mask": np.ones((4, 2, 1))}
    results = []
    for context in (False, True, False):
        net.provide_external_data(data)
        net.forward_pass(True, net.get_context() if context else None)
        net.backward_pass()
        shape = net.get("Last.internals.weights").shape
        results.append((shape, net.get("gradients")))
    assert [r[0] for r in results] == [(4, 2, 4, 4), (4, 2, 4, 24), (4, 2, 4, 4)]
    np.testing.assert_array_equal(results[0][1], results[2][1])
    assert np.abs(results[0][1] - results[1][1]).max() > 1e-3


def test_generating_gives_what_passes_over_all_steps_give():
    inp = layers.Input({"default": ("T", "B", 2)})
    first = layers.Attention(4, 2, True, rotary=True, context_size=12, name="A")
    net = Network.from_layer(inp >> first >> layers.FullyConnected(2, "tanh"))
    net.set_handler(NumpyHandler(np.float64))
    net.initialize("auto", seed=1)
    start = normal(3, 2, 2)
    made = net.generate(8, start)
    for t in range(8):
        whole = np.concatenate([start, made[:t]])
        np.testing.assert_allclose(net.predict(whole)[-1], made[t], rtol=1e-11)
    with pytest.raises(HandlerError, match="'A'.*more steps than context_size=12"):
        net.generate(14, start)


def test_contexts_beyond_the_bound():
    net = language_model(context_size=3)
    data = {"default": np.ones((2, 2, 1)), "mask": np.ones((2, 2, 1))}
    net.provide_external_data(data)
    net.forward_pass()
    net.forward_pass(context=net.get_context())
    with pytest.raises(HandlerError, match="'First'.*more steps than context_size=3"):
        net.forward_pass(context=net.get_context())
    net.forward_pass()
    assert np.isfinite(net.get("Out.outputs.default")).all()


def test_layers_that_carry_nothing_say_that_they_need_whole_sequences():
    inp = layers.Input({"default": ("T", "B", 2)})
    net = Network.from_layer(inp >> layers.Attention(2, 1, True, name="A"))
    with pytest.raises(NetworkValidationError, match="'A' needs whole sequences"):
        net.generate(3, np.zeros((1, 1, 2)))


# -- training, saving ----------------------------------------------------------------


def test_frozen_parts_and_files(tmp_path):
    net = language_model()
    net.set_trainable({"First": {"Wk": False}, "Last": False})
    data = {"default": np.arange(8).reshape(4, 2, 1) % 5, "mask": np.ones((4, 2, 1))}
    net.provide_external_data(data)
    net.forward_pass(training_pass=True)
    net.backward_pass()
    assert net.get("First.gradients.Wv").all()
    assert not net.get("First.gradients.Wk").any()
    assert not net.get("Last.gradients.Wq").any()
    net.save_as_hdf5(tmp_path / "net.hdf5")
    again = Network.from_hdf5(tmp_path / "net.hdf5")
    assert again.architecture == json.loads(json.dumps(net.architecture))
    np.testing.assert_array_equal(again.predict(data), net.predict(data))


def test_trainings_go_on_in_the_midst_of_sequences(tmp_path):
    """Keys and values of the pieces before are in the checkpoint."""
    rnd = np.random.RandomState(0)
    data = {"default": rnd.randn(12, 4, 2), "targets": rnd.randn(12, 4, 2)}
    pieces = bs.Subsequences(bs.Undivided(**data), 4)
    results = []
    for crashes in (False, True):
        inp, out = bs.tools.get_in_out_layers("regression", 2, 2)
        layer = layers.Attention(4, 2, True, rotary=True, context_size=12, name="A")
        net = Network.from_layer(inp >> layers.PositionalEncoding() >> layer >> out)
        net.set_handler(NumpyHandler(np.float64))
        net.initialize("auto", seed=1)
        trainer = bs.Trainer(bs.training.AdamStepper(0.01), carry_context=True)
        trainer.add_hook(bs.hooks.StopAfterEpoch(2))
        if crashes:
            trainer.add_hook(CrashAt(3))
            checkpoint = str(tmp_path / "training.hdf5")
            trainer.add_hook(bs.hooks.SaveCheckpoint(checkpoint, timescale="update"))
            with pytest.raises(ZeroDivisionError):
                trainer.train(net, pieces)
            trainer, net = bs.Trainer.load(checkpoint)
            del trainer.hooks["CrashAt"]
        trainer.train(net, pieces)
        results.append(net.get("parameters"))
    np.testing.assert_array_equal(*results)


def test_first_values_are_small_and_biases_zero():
    net = language_model()
    assert not net.get("First.parameters.bq").any()
    limit = np.sqrt(6 / (8 + 8))
    assert limit / 2 < np.abs(net.get("First.parameters.Wq")).max() <= limit


# -- positions ---------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 4, 5])
def test_sinusoidal_positions(n):
    x = normal(6, 2, n)
    run = SingleLayer(layers.PositionalEncoding(length=6), {"default": x}).forward()
    for t in range(6):
        for c in range(n):
            angle = t / 10000 ** (c // 2 * 2 / (n + n % 2))
            wave = np.cos(angle) if c % 2 else np.sin(angle)
            np.testing.assert_allclose(run.y[t, :, c], x[t, :, c] + wave, rtol=1e-12)


def test_learned_positions():
    x, P, dy = normal(3, 2, 4), normal(5, 4, seed=1), normal(3, 2, 4, seed=2)
    layer = layers.PositionalEncoding("learned", 5)
    run = SingleLayer(layer, {"default": x}, {"P": P}).forward().backward(default=dy)
    np.testing.assert_array_equal(run.y, x + P[:3, None])
    np.testing.assert_allclose(run["gradients.P"][:3], dy.sum(1), rtol=1e-12)
    assert not run["gradients.P"][3:].any()


def test_sequences_longer_than_there_are_positions():
    inp = layers.Input({"default": ("T", "B", 2)})
    net = Network.from_layer(inp >> layers.PositionalEncoding(length=5, name="P"))
    net.provide_external_data({"default": np.zeros((3, 1, 2))})
    net.forward_pass()
    with pytest.raises(HandlerError, match="'P'.*more steps than length=5"):
        net.forward_pass(context=net.get_context())
    with pytest.raises(LayerValidationError, match="'P'.*more steps than length=5: 6"):
        net.predict(np.zeros((6, 1, 2)))


# -- bad input ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"heads": 3}, "'heads' that divides the size 4, got 3"),
        ({"heads": 4, "rotary": True}, "even size with 'rotary', got 4 / 4 = 1"),
        ({"context_size": 2}, "'context_size' of 0 unless 'causal', got 2"),
        ({"context_size": -1}, "whole number of at least 0 as 'context_size', got -1"),
        ({"causal": 1}, "as 'causal', got 1"),
    ],
)
def test_bad_arguments(arguments, text):
    layer = layers.Attention(**{"size": 4, "heads": 2, "name": "A", **arguments})
    with pytest.raises(LayerValidationError, match=f"Attention layer 'A': .*{text}"):
        Network.from_layer(layers.Input({"default": ("T", "B", 2)}) >> layer)


def test_bad_kind_of_positions():
    inp = layers.Input({"default": ("T", "B", 2)})
    with pytest.raises(LayerValidationError, match="'sinusoidal' or 'learned'.*'sine'"):
        Network.from_layer(inp >> layers.PositionalEncoding("sine"))


@pytest.mark.parametrize("shape", [("T", "B", 2), ("B", 1), ("T", "B", 1, 1)])
def test_masks_of_another_shape(shape):
    inp = layers.Input({"default": ("T", "B", 2), "mask": shape})
    layer = layers.Attention(4, 2, name="A")
    inp - "default" >> layer
    inp - "mask" >> "mask" - layer
    with pytest.raises(LayerValidationError, match="'A'.*'mask'"):
        Network.from_layer(layer)


def test_memories_of_another_batch_or_of_another_length():
    inp = layers.Input({"default": ("T", "B", 2), "memory": ("T", "B", 3)})
    layer = layers.Attention(4, 2, name="A")
    inp - "default" >> layer
    inp - "memory" >> "memory" - layer
    net = Network.from_layer(layer)
    for shape in ((5, 2, 3), (4, 3, 3)):
        data = {"default": np.zeros((4, 2, 2)), "memory": np.zeros(shape)}
        with pytest.raises(NetworkValidationError, match="memory"):
            net.provide_external_data(data)

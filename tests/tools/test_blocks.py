"""Blocks of layers."""

import numpy as np
import pytest

from brainstorm import layers
from brainstorm.handlers import NumpyHandler
from brainstorm.structure.network import Network
from brainstorm.tools import create_net_from_spec, residual, transformer_block
from brainstorm.utils import LayerValidationError, ValidationError


def made(end):
    net = Network.from_layer(end)
    net.set_handler(NumpyHandler(np.float64))
    net.initialize("auto", seed=1)
    return net


def values(*shape, seed=0):
    return np.random.RandomState(seed).randn(*shape)


def norm(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def test_residual():
    inp = layers.Input({"default": ("T", "B", 3)})
    block = (
        layers.FullyConnected(4, "tanh", name="A"),
        layers.FullyConnected(3, name="B"),
    )
    net = made(residual(inp, *block, name="Sum"))
    x, p = values(2, 5, 3), net.buffer
    hidden = np.tanh(x @ p.A.parameters.W.T + p.A.parameters.bias)
    y = np.maximum(hidden @ p.B.parameters.W.T + p.B.parameters.bias, 0)
    np.testing.assert_allclose(
        net.predict(x, output_name="Sum.outputs.default"), x + y, rtol=1e-12
    )


def test_transformer_block():
    inp = layers.Input({"default": ("T", "B", 8)})
    net = made(
        transformer_block(inp, 8, 2, True, widening=3, activation="rel", name="A")
    )
    assert [n for n in net.layers if n[0] == "A"] == [
        *("A_Norm", "A_Attention", "A_Attended", "A_Norm_2", "A_Wide", "A_Narrow", "A")
    ]
    assert net.get("A_Wide.parameters.W").shape == (24, 8)
    x = values(5, 3, 8)
    y = net.predict(x)
    attended = x + net.get("A_Attention.outputs.default")
    p = net.buffer
    wide = np.maximum(norm(attended) @ p.A_Wide.parameters.W.T, 0)
    expected = attended + wide @ p.A_Narrow.parameters.W.T
    np.testing.assert_allclose(y, expected, rtol=1e-10)
    np.testing.assert_allclose(
        net.get("A_Attention.inputs.default"), norm(x), rtol=1e-10
    )
    assert not np.triu(net.get("A_Attention.internals.weights")[:, 0, 0], 1).any()


def test_transformer_block_with_memory_mask_and_dropout():
    shapes = {"default": ("T", "B", 4), "memory": ("T", "B", 3), "mask": ("T", "B", 1)}
    inp = layers.Input(shapes)
    net = made(
        transformer_block(
            inp,
            *(4, 2, True),
            dropout=0.1,
            memory=inp - "memory",
            mask=inp - "mask",
            rotary=True,
        )
    )
    first = net.layers["Block_Attention"]
    assert (first.rotary, first.causal) == (True, True)
    memory = net.layers["Block_Memory"]
    assert (memory.rotary, memory.causal) == (False, False)
    assert sorted(memory.in_shapes) == ["default", "mask", "memory"]
    assert sum(name.startswith("Dropout") for name in net.layers) == 3
    data = {
        "default": values(4, 2, 4),
        "memory": values(4, 2, 3),
        "mask": np.ones((4, 2, 1)),
    }
    data["mask"][2:] = 0
    net.predict(data)
    assert not net.get("Block_Memory.internals.weights")[..., 2:].any()
    assert net.get("Block_Attention.internals.weights")[3].all()


def test_one_line_wires_the_same():
    spec = "E5:8 W (NAc8:2) (N Fg32 Fl8) N"
    net = create_net_from_spec("classification", 1, 5, spec)
    inp = layers.Input({"default": ("T", "B", 1)})
    x = inp >> layers.Embedding(5, 8) >> layers.PositionalEncoding()
    x = transformer_block(x, 8, 2, True) >> layers.LayerNorm()
    other = made(
        x >> layers.FullyConnected(5, "linear") >> layers.Elementwise("linear")
    )
    assert net.buffer.parameters.size == other.buffer.parameters.size
    limit = np.sqrt(6 / 16)
    assert np.abs(net.get("Attention.parameters.Wq")).max() <= limit
    words = np.arange(6).reshape(6, 1, 1) % 5
    first = net.predict(words)[:3]
    np.testing.assert_allclose(net.predict(words[:3]), first, rtol=1e-5, atol=1e-6)


def test_attention_of_one_line_gets_the_mask():
    spec = "F4 (N A4:2)"
    net = create_net_from_spec("classification", 3, 2, spec, mask_name="mask")
    x, mask = values(5, 2, 3), np.ones((5, 2, 1))
    mask[3:] = 0
    y = net.predict({"default": x, "mask": mask})
    x[3:] = values(2, 2, 3, seed=1)
    again = net.predict({"default": x, "mask": mask})
    np.testing.assert_allclose(again[:3], y[:3], rtol=1e-5)


def test_bad_arguments():
    inp = layers.Input({"default": ("T", "B", 4)})
    for block in ((inp,), (inp, "F5"), (None, inp)):
        with pytest.raises(ValidationError, match="residual: expected layers"):
            residual(*block)
    for arguments in ({"size": 0}, {"widening": 1.5}):
        name = next(iter(arguments))
        with pytest.raises(ValidationError, match=f"{name} has to be a whole number"):
            transformer_block(inp, **{"size": 4, "heads": 2, **arguments})
    with pytest.raises(LayerValidationError, match="'Block_Attention'.*divides"):
        Network.from_layer(transformer_block(inp, 4, 3))
    inp = layers.Input({"default": ("T", "B", 4)})
    with pytest.raises(LayerValidationError, match="Add"):
        Network.from_layer(residual(inp, layers.FullyConnected(5)))

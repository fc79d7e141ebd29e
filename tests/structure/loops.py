"""Networks with loops of feedback, for tests."""

import numpy as np
import pytest

import brainstorm as bs
from brainstorm import layers
from brainstorm.handlers import NumpyHandler
from brainstorm.layers.base_layer import Layer
from brainstorm.structure.buffer_structure import BufferStructure, StructureTemplate
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.structure.network import Network


class MixLayerImpl(Layer):
    """Computes ``y = tanh(x W^T + f V^T)``, where f is what is fed back."""

    expected_inputs = {
        "default": StructureTemplate("T", "B", "F"),
        "feedback": StructureTemplate("T", "B", "F"),
    }
    expected_kwargs = ("size",)

    def setup(self, kwargs, in_shapes):
        n = kwargs["size"]
        parameters = {
            name: BufferStructure(n, in_shapes[kind].feature_size)
            for name, kind in (("W", "default"), ("V", "feedback"))
        }
        return {"default": BufferStructure("T", "B", n)}, parameters, {}

    def forward_pass(self, buffers, training_pass=True):
        h, (x, f), y = self.handler, buffers.inputs, buffers.outputs.default
        for t in range(len(x)):
            h.dot_mm(x[t], buffers.parameters.W, y[t], transb=True)
            h.dot_add_mm(f[t], buffers.parameters.V, y[t], transb=True)
            h.tanh(y[t], y[t])

    def backward_pass(self, buffers):
        h, (x, f), y = self.handler, buffers.inputs, buffers.outputs.default
        dx, df = buffers.input_deltas
        deltas = h.zeros(tuple(y.shape[1:]))
        for t in range(len(x)):
            h.tanh_deriv(y[t], y[t], buffers.output_deltas.default[t], deltas)
            h.dot_add_mm(deltas, x[t], buffers.gradients.W, transa=True)
            h.dot_add_mm(deltas, f[t], buffers.gradients.V, transa=True)
            if "default" not in self.unwanted:
                h.dot_add_mm(deltas, buffers.parameters.W, dx[t])
            h.dot_add_mm(deltas, buffers.parameters.V, df[t])


class CumulateLayerImpl(Layer):
    """Computes ``y[t] = x[t] + 0.5 y[t-1]``, as custom recurrent layers do."""

    can_be_stepped = True

    def setup(self, kwargs, in_shapes):
        structure = in_shapes["default"]
        return {"default": BufferStructure(*structure.shape, context_size=1)}, {}, {}

    def forward_pass(self, buffers, training_pass=True):
        x, y = buffers.inputs.default, buffers.outputs.default
        for t in range(len(x)):
            self.handler.mult_st(0.5, y[t - 1], y[t])
            self.handler.add_tt(x[t], y[t], y[t])

    def backward_pass(self, buffers):
        dx, dy = buffers.input_deltas.default, buffers.output_deltas.default
        for t in reversed(range(len(dx))):
            self.handler.add_tt(dy[t], dx[t], dx[t])
            self.handler.mult_add_st(0.5, dy[t], dy[t - 1])


def Mix(size, name):
    return ConstructionWrapper.create(MixLayerImpl, name=name, size=size)


def Dense(size, name, **kwargs):
    return layers.FullyConnected(size, "tanh", name=name, **kwargs)


def reservoir(x):
    r = x >> Dense(3, "Before") >> layers.Recurrent(4, name="R")
    out = r >> Dense(2, "O")
    r << out
    return out


def several(x):
    r = x >> layers.Recurrent(4, name="R")
    g = r >> layers.Gru(3, name="G")
    x >> g
    out = g >> layers.FullyConnected(2, "sigmoid", name="O")
    r << out << g  # the second one adds a connection from g to r
    g << out
    after = out >> layers.Recurrent(3, name="After")
    r >> after
    return after


def self_feedback(x):
    r = x >> layers.Recurrent(4, name="R", initial_state="learned", bias=False)
    r << r
    return r


def feed_forward(x):
    a = x >> Dense(4, "A")
    a << a
    b = a >> layers.Dropout(0.0) >> Dense(3, "B")
    a << b
    return b


def two_loops(x):
    a = x >> layers.Recurrent(4, name="A")
    a << a
    b = x >> layers.Recurrent(3, name="B")
    c = b >> Dense(2, "C")
    b << c
    a >> b
    joined = a >> Dense(3, "Joined")
    b >> joined
    c >> joined
    return joined


def custom(x):
    mix = x >> Mix(3, "M")
    out = (
        mix >> ConstructionWrapper.create(CumulateLayerImpl, name="C") >> Dense(2, "O")
    )
    "feedback" - mix << out
    return out


def shared(x):
    out = reservoir(x)
    return out >> Dense(2, "Q").share(out, "bias")


def frozen(x):
    r = x >> Dense(3, "Before") >> layers.Recurrent(4, name="R", trainable=False)
    out = r >> Dense(2, "O")
    r << out
    return out


KINDS = [reservoir, several, self_feedback, feed_forward, two_loops]
KINDS += [custom, shared, frozen]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda f: f.__name__)


def network(kind, handler=None):
    """A loop, a layer behind it and a loss."""
    inp = layers.Input({"default": ("T", "B", 3), "targets": ("T", "B", 2)})
    error = layers.SquaredError(name="Error")
    kind(inp) >> Dense(2, "Z") >> error
    inp - "targets" >> "targets" - error
    net = Network.from_layer(error - "loss" >> layers.Loss())
    net.set_handler(handler or NumpyHandler(np.float64))
    net.initialize(bs.Gaussian(0.7), seed=2)
    return net


def data(steps, batch=2, seed=0):
    rnd = np.random.RandomState(seed)
    x, t = rnd.randn(steps, batch, 3), rnd.randn(steps, batch, 2)
    return {"default": x, "targets": t}


def run(net, given, **kwargs):
    net.provide_external_data(given)
    net.forward_pass(training_pass=True, **kwargs)
    return net.get_loss_values()["total_loss"]


def small(wire, **inputs):
    """A network of what `wire` makes of an Input."""
    inp = layers.Input(inputs or {"default": ("T", "B", 3)})
    net = Network.from_layer(wire(inp))
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(bs.Gaussian(0.7), seed=2)
    return net


def by_hand(net, x, forced=None, state=None):
    """What a Recurrent R, with what O feeds back, gives; and what is fed back."""
    W, R, b = (net.get(f"R.parameters.{n}") for n in ("W", "R", "bias"))
    V, c = (net.get(f"O.parameters.{n}") for n in ("W", "bias"))
    h, y = state or (np.zeros((x.shape[1], len(R))), np.zeros((x.shape[1], len(c))))
    found = []
    for t, now in enumerate(x):
        fed_back = y if forced is None else forced[t]
        h = np.tanh(np.hstack([now, fed_back]) @ W.T + h @ R.T + b)
        y = h @ V.T + c
        found.append((h, y, fed_back))
    return [np.array(part) for part in zip(*found, strict=True)]


def echo():
    def wire(inp):
        r = inp >> layers.Recurrent(4, name="R")
        return r << (r >> layers.FullyConnected(2, "linear", name="O"))

    return small(wire)


def differences(net, given, context):
    parameters, step = net.buffer.parameters, 1e-6
    slopes = np.empty(parameters.shape)
    for i in range(parameters.size):
        losses = []
        for sign in (1, -1):
            parameters[i] += sign * step
            losses.append(run(net, given, context=context))
            parameters[i] -= sign * step
        slopes[i] = (losses[0] - losses[1]) / (2 * step)
    for layer in net.layers.values():
        for name in layer.frozen:
            hub = net._buffer_manager.hubs[0]
            slopes[slice(*hub.slices[f"{layer.name}.parameters.{name}"])] = 0
    return slopes

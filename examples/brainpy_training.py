"""BrainPy's page "Building Training Models", cell by cell, in this library
========================================================================

Parts of the page are headings here. What BrainPy sets by modes, this library says by
``trainable``; what it gives constructors as initial values goes to ``initialize``. The
last network, of spiking neurons, is trained for as many updates as there are epochs.
"""

import numpy as np
from common import load_file, parse_arguments

import brainstorm as bs
from brainstorm import Network, layers
from brainstorm.layers.base_layer import Layer
from brainstorm.structure.buffer_structure import BufferStructure, StructureTemplate
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.testing import check_layer

args = parse_arguments(__doc__, epochs=300)
handler = bs.handlers.PyCudaHandler() if args.gpu else bs.handlers.default_handler


def network_of(*in_a_row, inputs=3):
    """A network with small random weights."""
    last = layers.Input({"default": ("T", "B", inputs)})
    for layer in in_a_row:
        last = last >> layer
    net = Network.from_layer(last)
    net.set_handler(handler)
    net.initialize(bs.Gaussian(0.1))
    return net


# %%
# Mode settings
# -------------

# lif = bp.neurons.LIF(1)                              for simulation
# lif = bp.neurons.LIF(1, mode=bm.TrainingMode())      for training
# Here one layer does both: a gradient is computed by whoever wants to train.
net = network_of(layers.Lif(tau=10.0, name="lif"), inputs=1)
spikes = net.predict(np.full((50, 1, 1), 1.5))
print(f"spikes of 50 steps: {int(spikes.sum())}")

# bp.layers.NVAR(1, 1, mode=bm.TrainingMode())         is refused there
# Nvar has no weights, but deltas go through it to the layers before it.
nvar = network_of(layers.Nvar(delay=1, order=2), inputs=1)

# l = bp.layers.Dense(3, 4, mode=bm.batching_mode)     weights that are not trained
# l = bp.layers.Dense(3, 4, mode=bm.training_mode)     weights that are
frozen = network_of(layers.FullyConnected(4, "linear", trainable=False))
trained = network_of(layers.FullyConnected(4, "linear"))
print(f"trained parts: {frozen.trained_slices} and {trained.trained_slices}")

# rnn = bp.dyn.RNNCell(1, 3, train_state=True, mode=bm.training_mode); rnn.state2train
# Every sequence begins with the parameter y0, and y0 learns.
rnn = network_of(layers.Recurrent(3, "rel", initial_state="learned", name="rnn"))
print(f"state to begin with: {rnn.get('rnn.parameters.y0')}")

# %%
# Naming a node
# -------------

# bp.layers.Dense(128, 100, name='hidden_layer')
net = network_of(layers.FullyConnected(100, "linear", name="hidden_layer"), inputs=128)

# %%
# Initializing parameters
# -----------------------

rnd = np.random.RandomState(args.seed)
net.initialize({"hidden_layer": {"W": rnd.normal(0, 0.01, (100, 128)), "bias": 0.0}})
net.initialize({"hidden_layer": {"W": rnd.random_sample, "bias": 0.0}})
net.initialize({"hidden_layer": {"W": bs.Gaussian(0.01), "bias": 0.0}})
print(f"weights, units by inputs: {net.get('hidden_layer.parameters.W').shape}")

# l = bp.layers.Dense(20, 100, b_initializer=None)
net = network_of(layers.FullyConnected(100, "linear", bias=False), inputs=20)

# %%
# Customize your models
# ---------------------


def OwnRecurrent(size, name=None):
    """The page's RecurrentLayer: ``y[t] = tanh(W x[t] + R y[t-1])``."""
    return ConstructionWrapper.create(OwnRecurrentLayerImpl, size=size, name=name)


class OwnRecurrentLayerImpl(Layer):
    """Row -1 of a buffer with a context is the state before the first step."""

    expected_inputs = {"default": StructureTemplate("T", "B", "F")}
    expected_kwargs = frozenset({"size"})

    def setup(self, kwargs, in_shapes):
        """Outputs and their deltas have a row for the step before."""
        n, i = kwargs["size"], in_shapes["default"].feature_size
        outputs = {"default": BufferStructure("T", "B", n, context_size=1)}
        parameters = {"W": BufferStructure(n, i), "R": BufferStructure(n, n)}
        internals = {
            "a": BufferStructure("T", "B", n),
            "da": BufferStructure("T", "B", n, is_backward_only=True),
            "dy": BufferStructure("T", "B", n, context_size=1, is_backward_only=True),
        }
        return outputs, parameters, internals

    def forward_pass(self, buffers, training_pass=True):
        """Steps follow each other, and each sees the outputs of the one before."""
        h, (W, R) = self.handler, buffers.parameters
        x, y, a = buffers.inputs.default, buffers.outputs.default, buffers.internals.a
        for t in range(len(x)):
            h.dot_mm(x[t], W, a[t], transb=True)
            h.dot_add_mm(y[t - 1], R, a[t], transb=True)
            h.act_func["tanh"](a[t], y[t])

    def backward_pass(self, buffers):
        """Backwards; deltas go to the inputs, and to the outputs of the step before."""
        h, (W, R), (dW, dR) = self.handler, buffers.parameters, buffers.gradients
        x, y, a = buffers.inputs.default, buffers.outputs.default, buffers.internals.a
        (_, da, dy), dx = buffers.internals, buffers.input_deltas.default
        h.copy_to(buffers.output_deltas.default, dy)
        h.fill(dy[-1], 0.0)
        for t in reversed(range(len(x))):
            h.act_func_deriv["tanh"](a[t], y[t], dy[t], da[t])
            h.dot_add_mm(da[t], x[t], dW, transa=True)
            h.dot_add_mm(da[t], y[t - 1], dR, transa=True)
            h.dot_add_mm(da[t], W, dx[t])
            h.dot_add_mm(da[t], R, dy[t - 1])


check_layer(OwnRecurrent(size=4))  # gradients against finite differences, and more
print("the own recurrent layer passes all checks")

# The page's Dropout asks bp.share.load('fit'). Here `training_pass` tells. Its `prob`
# is what to keep, ours what to drop.
net = network_of(layers.Dropout(drop_prob=0.8, name="dropout"), inputs=1000)
net.provide_external_data({"default": np.ones((1, 1, 1000))})
kept = []
for training_pass in (True, False):
    net.forward_pass(training_pass)
    kept.append(np.count_nonzero(net.get("dropout.outputs.default")))
print(f"of 1000 values go on: {kept[0]} in training, {kept[1]} in use")

# %%
# Artificial neural networks
# --------------------------

# class DeepRNN: LSTMCell and Dropout, four times, and Dense
deep = []
for number, size in enumerate([200, 200, 200, 100], start=1):
    deep.append(layers.Lstm(size, peepholes=False, name=f"l{number}"))
    deep.append(layers.Dropout(drop_prob=0.8, name=f"d{number}"))
net = network_of(*deep, layers.FullyConnected(10, "linear", name="lout"), inputs=100)
# The +1 that BrainPy adds in the forget gate is a bias here.
net.initialize({"l*": {"bf": 1.0, "default": bs.Gaussian(0.1)}, "lout": 0.0})
print(f"outputs of the deep network: {net.predict(np.zeros((5, 2, 100))).shape}")

# %%
# Reservoir computing models
# --------------------------

# class NGRC: NVAR(num_in, delay=4, order=2, stride=5) and Dense
nvar = layers.Nvar(delay=4, order=2, stride=5, name="r")
net = network_of(nvar, layers.FullyConnected(3, "linear", name="o"))
features = net.layers["r"].get_feature_names()
print(f"{len(features)} features, from {features[0]} to {features[-1]}")
# Its task: how the Lorenz system is going to change. The first 15 steps see zeros.
series = bs.tools.lorenz(1000, h=0.02)
change = np.diff(series, axis=0)
error = bs.training.fit_ridge(net, series[:-1], change, ridge=1e-4, warmup=15)
print(f"NRMSE of a step of Lorenz: {error:.5f}")

# %%
# Spiking neural networks
# -----------------------

# class SNN: InputGroup, LIF, LeakyIntegrator, with synapses Exponential between them.
# There the output hears the spikes of the step before: hence the Delay. The loss is the
# cross-entropy of the largest outputs over time (Neftci, Mostafa and Zenke 2019).
inp = layers.Input({"default": ("T", "B", 10), "targets": ("B", 1)})
i2r = layers.FullyConnected(100, "linear", name="i2r")
r2o = layers.FullyConnected(2, "linear", name="r2o")
r = inp >> i2r >> layers.Leaky(10.0) >> layers.Lif(tau=10.0, name="r")
o = r >> layers.Delay(1) >> r2o >> layers.Leaky(10.0)
o = o >> layers.Leaky(5.0, gain="integrate", name="o") >> layers.TimePooling("max")
loss = o >> layers.SoftmaxCE(name="Output")
inp - "targets" >> "targets" - loss
loss - "loss" >> layers.Loss()
snn = Network.from_layer(inp)
snn.set_handler(handler)
snn.initialize({"*": {"W": bs.Gaussian(0.3), "bias": 0.0}})

if args.data:
    data = {name: np.asarray(v) for name, v in load_file(args.data)["training"].items()}
else:  # spikes at random, and labels at random to learn by heart
    spikes = rnd.random_sample((100, 128, 10)) < 0.05
    data = {"default": spikes, "targets": rnd.randint(2, size=(1, 128, 1))}
stepper = bs.training.AdamStepper(5e-3)
stepper.start(snn)
snn.provide_external_data(data)
for _ in range(args.epochs):
    stepper.run()
predictions = snn.get("Output.outputs.predictions").argmax(axis=-1)
accuracy = np.mean(predictions == np.ravel(data["targets"]))
print(f"training accuracy of the spiking network: {accuracy:.3f}")

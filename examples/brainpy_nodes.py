"""BrainPy's page "Node Customization", cell by cell, in this library
==================================================================

Its four nodes are layers here. What BrainPy's ``init_ff``, ``init_fb`` and
``init_state`` do is said by ``setup``: which outputs, parameters and internals there
are. Other than there, layers compute their gradients, which ``check_layer`` checks. In
the end all four learn to tell the running mean of their input.
"""

import numpy as np
from common import load_file, parse_arguments

import brainstorm as bs
from brainstorm import Network, layers
from brainstorm.layers.arguments import Check, arguments_of
from brainstorm.layers.base_layer import Layer
from brainstorm.layers.rows import Rows
from brainstorm.structure.buffer_structure import BufferStructure, StructureTemplate
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.testing import check_layer
from brainstorm.utils import NetworkValidationError

args = parse_arguments(__doc__, epochs=60)
handler = bs.handlers.PyCudaHandler() if args.gpu else bs.handlers.default_handler

# %%
# Customizing a feedforward node
# ------------------------------


def Dot(size, name=None, *, trainable=True):
    """A layer that multiplies its input by a matrix."""
    return ConstructionWrapper.create(DotLayerImpl, **locals())


class DotLayerImpl(Layer):
    """Computes ``y = W x``."""

    arguments = arguments_of(Dot)
    rows = Rows("inputs.default", writes=["outputs.default"])
    delta_rows = Rows("output_deltas.default", writes=["input_deltas.default"])

    def setup(self, kwargs, in_shapes):
        """What several layers send to one input is joined already."""
        outputs = {"default": BufferStructure("T", "B", self.size)}
        W = BufferStructure(self.size, in_shapes["default"].feature_size)
        return outputs, {"W": W}, {}

    def forward_pass(self, buffers, training_pass=True):
        """All steps of all sequences are the rows of one product."""
        x, y = self.rows(buffers)
        self.handler.dot_mm(x, buffers.parameters.W, y, transb=True)

    def backward_pass(self, buffers):
        """Deltas and gradients are added."""
        (x, _), (dy, dx) = self.rows(buffers), self.delta_rows(buffers)
        self.handler.dot_add_mm(dy, buffers.parameters.W, dx)
        self.handler.dot_add_mm(dy, x, buffers.gradients.W, transa=True)


check_layer(Dot(4))

# DotNode(10, name='my_dot_node'), DotNode(10, trainable=True)
print(Dot(10, name="my_dot_node"), Dot(10, trainable=False))

# net = {i1, i2, i3} >> l: here one Input layer has all inputs.
inp, dot = layers.Input({f"i{n}": ("T", "B", n) for n in (1, 2, 3)}), Dot(10)
last = {inp - "i1", inp - "i2", inp - "i3"} >> dot
net = Network.from_layer(last)
net.set_handler(handler)
net.initialize(bs.Gaussian())

# net.plot_node_graph(): tools.draw_network(net, "nodes.png"), or as text
bs.tools.print_network_info(net)

data = {f"i{n}": np.random.RandomState(n).rand(1, 1, n) for n in (1, 2, 3)}
print(f"outputs: {net.predict(data)[0, 0].round(2)}")

# %%
# Customizing a recurrent node
# ----------------------------


def Vrnn(size, name=None, *, trainable=True):
    """A layer whose outputs of a step go into the next one."""
    return ConstructionWrapper.create(VrnnLayerImpl, **locals())


class VrnnLayerImpl(Layer):
    """Computes ``y[t] = W x[t] + R y[t-1]``; row -1 is the state before the first."""

    arguments = arguments_of(Vrnn)
    can_be_stepped = True

    def setup(self, kwargs, in_shapes):
        """The outputs are the state: hence the context of one step."""
        n, i = self.size, in_shapes["default"].feature_size
        outputs = {"default": BufferStructure("T", "B", n, context_size=1)}
        parameters = {"W": BufferStructure(n, i), "R": BufferStructure(n, n)}
        return outputs, parameters, {"d": BufferStructure("T", "B", n)}

    def forward_pass(self, buffers, training_pass=True):
        """Step by step."""
        h, (W, R) = self.handler, buffers.parameters
        x, y = buffers.inputs.default, buffers.outputs.default
        for t in range(x.shape[0]):
            h.dot_mm(x[t], W, y[t], transb=True)
            h.dot_add_mm(y[t - 1], R, y[t], transb=True)

    def backward_pass(self, buffers):
        """In d are the deltas from outside and from the step behind."""
        h, (W, R), (dW, dR) = self.handler, buffers.parameters, buffers.gradients
        x, y, d = buffers.inputs.default, buffers.outputs.default, buffers.internals.d
        dx, dy = buffers.input_deltas.default, buffers.output_deltas.default
        for t in reversed(range(x.shape[0])):
            h.copy_to(dy[t], d[t])
            if t + 1 < x.shape[0]:
                h.dot_add_mm(d[t + 1], R, d[t])
            h.dot_add_mm(d[t], W, dx[t])
            h.dot_add_mm(d[t], x[t], dW, transa=True)
            h.dot_add_mm(d[t], y[t - 1], dR, transa=True)
        h.dot_mm(d[0], R, dy[-1])


check_layer(Vrnn(4))

# %%
# Customizing a node with feedbacks
# ---------------------------------


def FeedbackDot(size, name=None, *, trainable=True):
    """A layer with a matrix for its input, and one for what is fed back to it."""
    return ConstructionWrapper.create(FeedbackDotLayerImpl, **locals())


class FeedbackDotLayerImpl(Layer):
    """Computes ``y = W_default x + W_feedback f``; the latter is optional."""

    arguments = arguments_of(FeedbackDot)
    optional_inputs = {"feedback": StructureTemplate("T", "B", "...")}
    y_rows, dy_rows = Rows(writes=["outputs.default"]), Rows("output_deltas.default")
    rows = {
        name: Rows(f"inputs.{name}", writes=[f"input_deltas.{name}"])
        for name in ("default", "feedback")
    }

    def setup(self, kwargs, in_shapes):
        """An input more, and a matrix more."""
        outputs = {"default": BufferStructure("T", "B", self.size)}
        weights = {
            f"W_{name}": BufferStructure(self.size, shape.feature_size)
            for name, shape in in_shapes.items()
        }
        return outputs, weights, {}

    def forward_pass(self, buffers, training_pass=True):
        """What is fed back is an input like others."""
        (y,) = self.y_rows(buffers)
        self.handler.fill(y, 0.0)
        for name in self.in_shapes:
            x, _ = self.rows[name](buffers)
            self.handler.dot_add_mm(x, buffers.parameters[f"W_{name}"], y, transb=True)

    def backward_pass(self, buffers):
        """The network brings the deltas of the feedback to the step before."""
        (dy,) = self.dy_rows(buffers)
        for name in self.in_shapes:
            x, dx = self.rows[name](buffers)
            W, dW = (
                view[f"W_{name}"] for view in (buffers.parameters, buffers.gradients)
            )
            self.handler.dot_add_mm(dy, W, dx)
            self.handler.dot_add_mm(dy, x, dW, transa=True)


check_layer(FeedbackDot(4))
check_layer(FeedbackDot(4), dict.fromkeys(("default", "feedback"), ("T", "B", 3)))

# DotNode(1) << bp.nn.Input(1) is refused there. Here every layer can get feedback that
# does at a step what it does over all of them; and of a layer that it leads to itself.
for layer in (layers.Lstm(1), FeedbackDot(1)):
    try:
        inp = layers.Input({"default": ("T", "B", 1)})
        layer << (inp >> layer >> Dot(1))
        print(f"feedback to {Network.from_layer(inp).layers[layer.name].name}")
    except NetworkValidationError as error:
        print(f"refused: {error}")

# %%
# Customizing a node with multiple behaviors
# ------------------------------------------


def KeepSome(prob, name=None):
    """The page's Dropout: keeps values with a probability, while it is trained."""
    return ConstructionWrapper.create(KeepSomeLayerImpl, **locals())


class KeepSomeLayerImpl(Layer):
    """Computes ``y = x * mask / prob`` where the argument `train` says so."""

    arguments = arguments_of(
        KeepSome, prob=Check(lambda p: 0 < p <= 1, "a probability above 0")
    )
    reads_arguments = ("train",)

    def setup(self, kwargs, in_shapes):
        """Expected inputs are checked before: there is one."""
        shape = self.like(in_shapes["default"])
        return {"default": shape}, {}, {"mask": shape}

    def forward_pass(self, buffers, training_pass=True):
        """Without the argument it does as its siblings: it asks `training_pass`."""
        x, y = buffers.inputs.default, buffers.outputs.default
        drop = 1 - self.prob if self.arguments.get("train", training_pass) else 0.0
        self.handler.dropout_forward(x, buffers.internals.mask, y, drop)

    def backward_pass(self, buffers):
        """As in the forward pass, by the same mask."""
        dx, dy = buffers.input_deltas.default, buffers.output_deltas.default
        self.handler.dropout_backward(buffers.internals.mask, dy, dx)


check_layer(KeepSome(0.5))

net = Network.from_layer(layers.Input({"default": ("T", "B", 1000)}) >> KeepSome(0.5))
net.set_handler(handler)
for arguments in ({"train": True}, {"train": False}):
    y = net.predict(np.ones((1, 1, 1000)), arguments=arguments)
    print(f"{arguments}: {np.count_nonzero(y)} of 1000 are kept")

# %%
# All of them, and a task
# -----------------------

if args.data:
    data = {n: np.asarray(v) for n, v in load_file(args.data)["training"].items()}
else:
    x = np.random.RandomState(args.seed).randn(20, 100, 2)
    targets = 0.2 * x.mean(axis=2, keepdims=True)
    for t in range(1, 20):
        targets[t] += 0.8 * targets[t - 1]
    data = {"default": x, "targets": targets}
inp = layers.Input({n: ("T", "B", v.shape[2]) for n, v in data.items()})
out, nodes = layers.SquaredError(name="Output"), FeedbackDot(8, "Nodes")
readout = Dot(data["targets"].shape[2], "Readout")
inp >> KeepSome(0.98) >> Vrnn(8, "Vrnn") >> nodes >> readout >> out
"feedback" - nodes << readout
inp - "targets" >> "targets" - out - "loss" >> layers.Loss()
net = Network.from_layer(inp)
net.set_handler(handler)
net.initialize(bs.Gaussian(0.2))

trainer = bs.Trainer(bs.training.AdamStepper(0.01), verbose=False)
trainer.stepper.arguments = {"train": True}
trainer.add_hook(bs.hooks.StopAfterEpoch(args.epochs))
trainer.train(net, bs.Minibatches(25, **data))
predictions = net.predict(data["default"], arguments={"train": False})
print(f"R^2 of the running mean: {bs.tools.rsquare(predictions, data['targets']):.3f}")

"""Write a layer of your own, check it, and train with it
======================================================

A layer is a class, a function that users call, and nothing else: both stand in this
file, and anybody can import it. ``check_layer`` compares what it computes with finite
differences and tries it in many ways.
"""

from common import load_data, parse_arguments

import brainstorm as bs
from brainstorm.layers.base_layer import Layer
from brainstorm.structure.buffer_structure import BufferStructure, StructureTemplate
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.testing import check_layer

# %%
# The layer
# ---------


def Square(scale=1.0, name=None):
    """A layer that squares its input, element by element."""
    return ConstructionWrapper.create(SquareLayerImpl, name=name, scale=scale)


class SquareLayerImpl(Layer):
    """Computes ``y = scale * x * x``."""

    expected_inputs = {"default": StructureTemplate("T", "B", "...")}
    expected_kwargs = frozenset({"scale"})

    def setup(self, kwargs, in_shapes):
        """The output has the shape of the input; there are no parameters."""
        self.scale = kwargs.get("scale", 1.0)
        shape = in_shapes["default"].shape
        outputs = {"default": BufferStructure(*shape)}
        internals = {"tmp": BufferStructure(*shape, is_backward_only=True)}
        return outputs, {}, internals

    def forward_pass(self, buffers, training_pass=True):
        """Arithmetic is done by the handler, so it runs on the GPU too."""
        x, y = buffers.inputs.default, buffers.outputs.default
        self.handler.mult_tt(x, x, y)
        self.handler.mult_st(self.scale, y, y)

    def backward_pass(self, buffers):
        """Deltas are added, dx += 2 * scale * x * dy: others may have added theirs."""
        x, tmp = buffers.inputs.default, buffers.internals.tmp
        dx, dy = buffers.input_deltas.default, buffers.output_deltas.default
        self.handler.mult_st(2 * self.scale, x, tmp)
        self.handler.mult_add_tt(tmp, dy, dx)


# %%
# The check
# ---------

args = parse_arguments(__doc__, epochs=10)

check_layer(Square(scale=0.5))  # raises a LayerCheckError that tells what is wrong
print("The layer passes all checks.")

# %%
# Its use
# -------

data = load_data(args.data, "Digits")
image_shape = data["training"]["default"].shape[2:]

inp, out = bs.tools.get_in_out_layers("classification", image_shape, 10)
hidden = bs.layers.FullyConnected(100, activation="linear", name="Hidden")
inp >> hidden >> Square(scale=0.5) >> out

network = bs.Network.from_layer(out)
network.output_name = "Output.outputs.predictions"
if args.gpu:
    network.set_handler(bs.handlers.PyCudaHandler())
network.initialize(bs.Gaussian(0.1))

trainer = bs.Trainer(bs.training.MomentumStepper(learning_rate=0.05, momentum=0.9))
trainer.train_scorers = scorers = [bs.scorers.Accuracy()]
trainer.add_hook(bs.hooks.ProgressBar())
trainer.add_hook(bs.hooks.StopAfterEpoch(args.epochs))
trainer.train(network, bs.Minibatches(20, **data["training"]))

results = bs.tools.evaluate(network, bs.Minibatches(100, **data["test"]), scorers)
print(f"test accuracy: {results['Accuracy']:.3f}")

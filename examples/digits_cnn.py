"""Learn to read handwritten digits with a convolutional network
=============================================================

The data are the digits of 8 x 8 pixels that come with scikit-learn. For training they
are moved about a little at random, so that no image is seen twice.
"""

from common import load_data, parse_arguments

import brainstorm as bs

args = parse_arguments(__doc__, epochs=40)

# %%
# The data
# --------

data = load_data(args.data, "Digits")
height, width, channels = data["training"]["default"].shape[2:]

# Iterators can be stacked: add a border of one pixel, then cut out at random.
batches = bs.Minibatches(20, **data["training"])
padded = bs.Pad(batches, {"default": 1})
train_getter = bs.RandomCrop(padded, {"default": (height, width)})
valid_getter = bs.Minibatches(100, **data["validation"])
test_getter = bs.Minibatches(100, **data["test"])

# %%
# The network
# -----------

inp, out = bs.tools.get_in_out_layers("classification", (height, width, channels), 10)
(
    inp
    >> bs.layers.Convolution2D(64, kernel_size=(3, 3), padding=1, name="Conv1")
    >> bs.layers.Convolution2D(64, kernel_size=(3, 3), padding=1, name="Conv2")
    >> bs.layers.Pooling2D(kernel_size=(2, 2), stride=(2, 2))
    >> bs.layers.Dropout(0.25)
    >> bs.layers.FullyConnected(128, name="Hidden")
    >> bs.layers.Dropout(0.5)
    >> out
)
network = bs.Network.from_layer(out)
network.output_name = "Output.outputs.predictions"
if args.gpu:
    network.set_handler(bs.handlers.PyCudaHandler())
network.initialize({"*": {"W": bs.initializers.DenseSqrtFanIn(), "bias": 0}})

# %%
# The training
# ------------

LEARNING_RATE = 0.2  # falls to a twentieth during the training

trainer = bs.Trainer(bs.training.MomentumStepper(LEARNING_RATE, momentum=0.9))
trainer.train_scorers = scorers = [bs.scorers.Accuracy()]
trainer.add_hook(bs.hooks.ProgressBar())
trainer.add_hook(bs.hooks.MonitorScores("valid_getter", scorers, name="validation"))
slower = bs.training.Linear(LEARNING_RATE, LEARNING_RATE / 20, num_changes=args.epochs)
trainer.add_hook(bs.hooks.ModifyStepperAttribute(slower, name="learning rate"))
trainer.add_hook(bs.hooks.StopAfterEpoch(args.epochs))
trainer.train(network, train_getter, valid_getter=valid_getter)

# %%
# The result
# ----------

results = bs.tools.evaluate(network, test_getter, scorers)
print(f"test accuracy: {results['Accuracy']:.3f}")

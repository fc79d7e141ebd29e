"""Learn to tell what is on pictures, with a residual network
==========================================================

He et al., *Deep residual learning for image recognition*, 2016: each block learns what
to add to its input, so that many of them can be stacked. ``--plain`` leaves these
additions out. Without CIFAR-10.hdf5 it trains on the digits of scikit-learn.
"""

from common import load_data, parse_arguments

import brainstorm as bs
from brainstorm.layers import BatchNorm, Convolution2D, Elementwise

args = parse_arguments(
    __doc__,
    epochs=10,
    blocks=(3, "number of blocks of each size of the images"),
    size=(16, "number of channels of the first blocks"),
    plain="without the additions",
)

# %%
# The data
# --------

ds = load_data(args.data, "CIFAR-10", fallback="Digits")
height, width, channels = ds["training"]["default"].shape[2:]
train_getter = bs.Minibatches(32, **ds["training"])
valid_getter = bs.Minibatches(100, **ds["validation"])

# %%
# The network
# -----------


def convolution(channels, stride=1):
    """3 x 3 filters that keep the size, or halve it."""
    return Convolution2D(
        *(channels, 3, stride), padding=1, activation="linear", bias=False
    )


def block(x, channels):
    """Two convolutions; what goes in is added to what comes out."""
    layers = [
        *(convolution(channels), BatchNorm(), Elementwise("rel")),
        *(convolution(channels), BatchNorm()),
    ]
    if args.plain:
        for layer in layers:
            x = x >> layer
    else:
        x = bs.tools.residual(x, *layers)
    return x >> Elementwise("rel")


inp, out = bs.tools.get_in_out_layers("classification", (height, width, channels), 10)
x = inp
for number, channels in enumerate((args.size, 2 * args.size, 4 * args.size)):
    stride = 1 if number == 0 else 2
    x = x >> convolution(channels, stride) >> BatchNorm() >> Elementwise("rel")
    for _ in range(args.blocks):
        x = block(x, channels)
network = bs.Network.from_layer(x >> bs.layers.GlobalPooling("avg") >> out)
network.output_name = "Output.outputs.predictions"
if args.gpu:
    network.set_handler(bs.handlers.PyCudaHandler())
network.initialize("he")
print(f"{sum(n.startswith('Conv') for n in network.layers)} layers of convolutions")

# %%
# The training
# ------------

LEARNING_RATE = 0.05  # is reached after some time, and falls to 0

trainer = bs.Trainer(bs.training.MomentumStepper(LEARNING_RATE, momentum=0.9))
trainer.add_hook(bs.hooks.ProgressBar())
scorers = [bs.scorers.Accuracy()]
trainer.add_hook(bs.hooks.MonitorScores("valid_getter", scorers, name="validation"))
cycle = bs.training.OneCycle(LEARNING_RATE, args.epochs * train_getter.length, rise=0.2)
trainer.add_hook(
    bs.hooks.ModifyStepperAttribute(cycle, timescale="update", name="learning rate")
)
trainer.add_hook(bs.hooks.StopAfterEpoch(args.epochs))
trainer.train(network, train_getter, valid_getter=valid_getter)

# %%
# The result
# ----------

test = bs.Minibatches(100, shuffle=False, **ds["test"])
accuracy = bs.tools.evaluate(network, test, scorers=scorers)["Accuracy"]
print(f"test accuracy: {accuracy:.3f}")

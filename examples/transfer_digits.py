"""Take over layers from another network, and freeze them
======================================================

A convolutional network learns to read digits from 1200 images. Another one has to tell
odd digits from even ones, and gets 30 images to learn that from. It takes over all that
lies before the last layer, and is compared with one that has to learn all from the 30.
"""

import matplotlib
from common import load_data, parse_arguments

matplotlib.use("Agg")

import matplotlib.pyplot as plt

import brainstorm as bs

args = parse_arguments(__doc__, epochs=40)

FEW = 30

# %%
# The data
# --------

data = load_data(args.data, "Digits")
image_shape = data["training"]["default"].shape[2:]


def odd_or_even(part, number=None):
    """The first images of a part of the data; class 1 are those of odd digits."""
    images, digits = (data[part][name][:, :number] for name in ("default", "targets"))
    return {"default": images, "targets": digits % 2}


few = bs.Minibatches(10, **odd_or_even("training", FEW))
tests = bs.Minibatches(100, **odd_or_even("test"))

# %%
# The networks
# ------------


def new_network(nr_classes):
    """A convolutional network."""
    inp, out = bs.tools.get_in_out_layers("classification", image_shape, nr_classes)
    (
        inp
        >> bs.layers.Convolution2D(32, kernel_size=(3, 3), padding=1, name="Conv")
        >> bs.layers.Pooling2D(kernel_size=(2, 2), stride=(2, 2))
        >> bs.layers.FullyConnected(64, name="Hidden")
        >> out
    )
    network = bs.Network.from_layer(out)
    network.output_name = "Output.outputs.predictions"
    if args.gpu:
        network.set_handler(bs.handlers.PyCudaHandler())
    network.initialize("he")
    return network


def train(network, batches, tests, epochs, learning_rate=0.003):
    """Train, and return the accuracy in tests before training and after each epoch."""
    trainer = bs.Trainer(bs.training.AdamStepper(learning_rate), verbose=False)
    scorers = [bs.scorers.Accuracy()]
    trainer.add_hook(bs.hooks.MonitorScores("tests", scorers, name="test"))
    trainer.add_hook(bs.hooks.StopAfterEpoch(epochs))
    trainer.train(network, batches, tests=tests)
    return trainer.logs["test"]["Accuracy"]


reader = new_network(10)
batches, of_digits = (bs.Minibatches(20, **data[part]) for part in ("training", "test"))
accuracy = train(reader, batches, of_digits, epochs=10)[-1]
print(f"right digits: {accuracy:.3f}")

# %%
# Taking over
# -----------
#
# Parameters have paths, by which one network gives them to the other. Layers that are
# not trainable stay as they are, and training computes nothing for their sake. One
# layer alone takes larger steps than a whole network.

TAKEN = ["Conv", "Hidden"]

network = new_network(2)
network.initialize(
    {
        layer: {
            name: reader.get(f"{layer}.parameters.{name}") for name in ("W", "bias")
        }
        for layer in TAKEN
    },
    Output_projection="he",
)
network.set_trainable(dict.fromkeys(TAKEN, False))

taken_over = train(network, few, tests, args.epochs, learning_rate=0.03)
learned_anew = train(new_network(2), few, tests, args.epochs)
same = network.get("Conv.parameters.W") == reader.get("Conv.parameters.W")
print(f"the filters are still those that were taken over: {same.all()}")

# %%
# A picture
# ---------

figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
axes.plot(taken_over, label="layers taken over, and frozen")
axes.plot(learned_anew, label="all learned anew")
axes.set(xlabel="epoch", ylabel="accuracy", ylim=(0.4, 1))
axes.set_title(f"odd or even, from {FEW} images")
axes.grid(alpha=0.3)
axes.legend()
figure.savefig(args.output_dir / "transfer_digits.png", dpi=120)

# %%
# The result
# ----------

print(f"test accuracy, all learned anew: {learned_anew[-1]:.3f}")
print(f"test accuracy, layers taken over: {taken_over[-1]:.3f}")

"""Learn classes of which some are rare
====================================

Of each of the digits 7, 8 and 9 there are only five images to train on, of the others
more than a hundred. A network that is content with few mistakes can do without the rare
ones. With weights of the classes, the inverse of how frequent they are, mistakes with
rare ones cost more.
"""

import matplotlib
import numpy as np
from common import load_data, parse_arguments

matplotlib.use("Agg")

import matplotlib.pyplot as plt

import brainstorm as bs

args = parse_arguments(__doc__, epochs=10)

RARE, NR_RARE = (7, 8, 9), 5

# %%
# The data
# --------

data = load_data(args.data, "Digits")
images, targets = data["training"]["default"][:], data["training"]["targets"][:]
digits = targets[0, :, 0]
kept = np.concatenate(
    [np.flatnonzero(digits == d)[: NR_RARE if d in RARE else None] for d in range(10)]
)
images, targets = images[:, kept], targets[:, kept]
counts = np.bincount(targets.ravel(), minlength=10)
print("images of each digit:", *counts)

train_getter = bs.Minibatches(20, default=images, targets=targets)
test_getter = bs.Minibatches(100, shuffle=False, **data["test"])

# %%
# The network
# -----------
#
# The weights are an argument of the layer that computes the loss. This layer is wired
# by hand here.


def new_network(class_weights=None):
    """A perceptron with one hidden layer."""
    inp = bs.layers.Input(
        {"default": ("T", "B", *images.shape[2:]), "targets": ("T", "B", 1)}
    )
    output = bs.layers.SoftmaxCE(class_weights=class_weights, name="Output")
    (
        inp
        >> bs.layers.FullyConnected(100, name="Hidden")
        >> bs.layers.FullyConnected(10, activation="linear", name="Projection")
        >> output
    )
    inp - "targets" >> "targets" - output
    output - "loss" >> bs.layers.Loss()
    network = bs.Network.from_layer(output)
    network.output_name = "Output.outputs.predictions"
    if args.gpu:
        network.set_handler(bs.handlers.PyCudaHandler())
    network.initialize("he")
    return network


# %%
# The training
# ------------
#
# Accuracy hides how the rare ones fare. Recall is the share of the images of a class
# that are found.

scorers = [
    bs.scorers.Accuracy(),
    bs.scorers.Recall(average=None),
    bs.scorers.ConfusionMatrix(),
]


def train_and_test(class_weights):
    """The scores on the test images, where all digits are as frequent."""
    network = new_network(class_weights)
    trainer = bs.Trainer(bs.training.AdamStepper(0.003), verbose=False)
    trainer.add_hook(bs.hooks.StopAfterEpoch(args.epochs))
    trainer.train(network, train_getter)
    return bs.tools.evaluate(network, test_getter, scorers)


weights = counts.sum() / (10 * counts)
results = {
    "without weights": train_and_test(None),
    "weighted by rarity": train_and_test(weights.tolist()),
}

# %%
# A picture
# ---------
#
# Rows are true digits, columns what they are taken for.

figure, axes = plt.subplots(1, 2, figsize=(9, 4.5), layout="constrained")
for ax, (name, scores) in zip(axes, results.items(), strict=True):
    matrix = np.array(scores["ConfusionMatrix"])
    ax.imshow(matrix, cmap="Blues")
    for true, predicted in zip(*np.nonzero(matrix), strict=True):
        color = "w" if true == predicted else "k"
        number = int(matrix[true, predicted])
        ax.text(predicted, true, number, ha="center", va="center", color=color)
    ax.set(title=name, xticks=range(10), yticks=range(10), xlabel="taken for")
axes[0].set_ylabel("digit")
figure.savefig(args.output_dir / "imbalanced_classes.png", dpi=120)

# %%
# The result
# ----------

for name, scores in results.items():
    recall = np.mean([scores["Recall"][digit] for digit in RARE])
    print(f"{name}: accuracy {scores['Accuracy']:.3f}, rare digits found: {recall:.3f}")

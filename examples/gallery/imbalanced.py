"""
Rare classes
============

One sample in thirty is of the class that matters. A network that always says "no" is
right in 97 of 100 cases. Weights of the classes in the loss make it look for the rare
ones.
"""

import matplotlib.pyplot as plt
import numpy as np

import brainstorm as bs

rnd = np.random.RandomState(1)


def samples(number):
    """Points (number, 2), and whether they are of the rare class."""
    rare = rnd.rand(number) < 1 / 30
    return rnd.randn(number, 2) + 1.5 * rare[:, None], rare.astype(int)


x, y = samples(3000)
x_test, y_test = samples(3000)
print(f"{y.sum()} of {len(y)} are rare")

# %%
# ``class_weights`` multiplies the loss of each class.

nets = {}
for weight in (1.0, 10.0):
    inp = bs.layers.Input({"default": ("T", "B", 2), "targets": ("T", "B", 1)})
    out = bs.layers.SoftmaxCE(name="Output", class_weights=[1.0, weight])
    inp >> bs.layers.FullyConnected(16) >> bs.layers.FullyConnected(2, "linear") >> out
    inp - "targets" >> "targets" - out - "loss" >> bs.layers.Loss()
    net = bs.Network.from_layer(out)
    net.initialize("auto", seed=1)
    bs.Trainer.fit(net, x, y, epochs=5, stepper=bs.training.AdamStepper(0.01), seed=1)
    nets[weight] = net

test = bs.Undivided(default=x_test[None], targets=y_test[None, :, None])
scorers = [
    bs.scorers.Accuracy(),
    bs.scorers.Precision(),
    bs.scorers.Recall(),
    bs.scorers.RocAuc(),
    bs.scorers.ConfusionMatrix(),
]
for weight, net in nets.items():
    print(f"--- weight of the rare class: {weight}")
    for name, value in bs.tools.evaluate(net, test, scorers).items():
        print(f"{name:16} {np.round(value, 3).tolist()}")

# %%
# Accuracy falls, and most of the rare ones are found. The order of the samples, which
# ``RocAuc`` measures, is as good in both: what has moved is the border.

figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
figure.suptitle("What is taken to be rare, with two weights of the class")
side = np.linspace(-4, 5, 60)
grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
for ax, (weight, net) in zip(axes, nets.items(), strict=True):
    shares = net.predict(grid)[:, 1].reshape(60, 60)
    ax.contourf(
        side, side, shares, levels=np.linspace(0, 1, 11), cmap="RdBu_r", alpha=0.5
    )
    ax.plot(*x_test[y_test == 0].T, ".", color="tab:blue", markersize=2)
    ax.plot(*x_test[y_test == 1].T, "o", color="tab:red", markersize=3)
    ax.set(title=f"weight {weight:g}", xlim=(-4, 5), ylim=(-4, 5))

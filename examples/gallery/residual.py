"""
Deep networks with residual blocks
==================================

Twenty layers in a row hardly learn. With a sum around each two of them, gradients
find a way: the picture shows how large they are when they arrive at each layer.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import brainstorm as bs
from brainstorm.layers import FullyConnected

x, y = load_digits(return_X_y=True)
x = x / 16
blocks = 10


def network(kind):
    """Blocks of two layers with 32 units."""
    inp, out = bs.tools.get_in_out_layers("classification", 64, 10)
    last = inp >> FullyConnected(32, name="First")
    for nr in range(blocks):
        block = [
            FullyConnected(32, name=f"A{nr}"),
            FullyConnected(32, "linear", name=f"B{nr}"),
        ]
        if kind == "residual":
            last = bs.tools.residual(last, *block)
        else:
            last = last >> block[0] >> block[1]
    net = bs.Network.from_layer(last >> out)
    net.initialize({"*": {"W": bs.Gaussian(0.1), "bias": 0}}, seed=1)
    return net


# %%
# First the gradients of one batch, then a training.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
figure.suptitle("Gradients and accuracy, with and without residual blocks")
for kind in ("plain", "residual"):
    net = network(kind)
    net.provide_external_data(
        {"default": x[None, :100], "targets": y[None, :100, None]}
    )
    net.forward_pass(training_pass=True)
    net.backward_pass()
    sizes = [abs(net.get(f"A{nr}.gradients.W")).mean() for nr in range(blocks)]
    left.semilogy(np.maximum(sizes, 1e-12), marker="o", label=kind)

    trainer = bs.Trainer.fit(
        net,
        x[:1300],
        y[:1300],
        epochs=8,
        batch_size=50,
        seed=1,
        stepper=bs.training.AdamStepper(0.001),
        train_scorers=[bs.scorers.Accuracy()],
        validation_data=(x[1300:], y[1300:]),
    )
    accuracy = [row["validation.Accuracy"] for row in trainer.history]
    right.plot(accuracy, marker=".", label=kind)
    print(f"{kind:9} {accuracy[-1]:.3f} right")
left.set(xlabel="block", ylabel="mean size of gradients")
right.set(xlabel="epoch", ylabel="accuracy in validation", ylim=(0, 1))
left.legend()

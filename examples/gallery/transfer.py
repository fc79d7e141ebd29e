"""
Take over layers, and freeze them
=================================

Even or odd? There are only twenty examples. But a network that has learned to read
digits is at hand: its layers make of pictures what is needed here, too.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits

import brainstorm as bs

bs.global_rnd.set_seed(1)
x, y = load_digits(return_X_y=True)
x = x.reshape(-1, 8, 8, 1) / 16
shared = ["Conv1", "Conv2", "Full"]


def network(classes):
    """Convolutions, a full layer, and a projection to the classes."""
    inp, out = bs.tools.get_in_out_layers("classification", (8, 8, 1), classes)
    (
        inp
        >> bs.layers.Convolution2D(16, 3, padding=1, name="Conv1")
        >> bs.layers.Convolution2D(16, 3, stride=2, padding=1, name="Conv2")
        >> bs.layers.FullyConnected(32, name="Full")
        >> out
    )
    net = bs.Network.from_layer(out)
    net.initialize("he", seed=1)
    return net


reader = network(10)
bs.Trainer.fit(reader, x[:1000], y[:1000], epochs=8, batch_size=20)

# %%
# Parameters go by their names. Frozen ones cost nothing in training: nothing is
# computed that only they would need. One layer alone takes larger steps than a whole
# network that is to keep what it knows.

accuracy = {}
for kind in ("from scratch", "taken over", "taken over, frozen"):
    net = network(2)
    if kind != "from scratch":
        for path in [f"{n}.parameters.{p}" for n in shared for p in ("W", "bias")]:
            net.handler.set_from_numpy(net.buffer[path], reader.get(path))
    if "frozen" in kind:
        net.set_trainable({name: False for name in shared})
    rate = 0.03 if "frozen" in kind else 0.003
    trainer = bs.Trainer.fit(
        net,
        x[1000:1020],
        y[1000:1020] % 2,
        epochs=30,
        batch_size=5,
        seed=1,
        stepper=bs.training.AdamStepper(rate),
        train_scorers=[bs.scorers.Accuracy()],
        validation_data=(x[1020:], y[1020:] % 2),
    )
    accuracy[kind] = [row["validation.Accuracy"] for row in trainer.history]
    print(f"{kind:20} {accuracy[kind][-1]:.3f}")

# %%

figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
figure.suptitle("Even or odd, learned from twenty examples")
for kind, values in accuracy.items():
    ax.plot(values, label=kind, marker=".")
ax.set(xlabel="epoch", ylabel=f"accuracy on {len(x) - 1020} other digits")
ax.legend()

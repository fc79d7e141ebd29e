"""
Watch the gates of an LSTM
==========================

A network has to keep a bit: the first input says when to look, the second one what
there is to see. In each step it tells what it saw last. Which of its gates does what?
"""

import matplotlib.pyplot as plt
import numpy as np

import brainstorm as bs

bs.global_rnd.set_seed(2)
rnd = np.random.RandomState(2)


def sequences(number, steps=30):
    """Inputs (steps, number, 2), and the bit that is to be known at each step."""
    look = rnd.rand(steps, number) < 0.15
    look[0] = True
    bits = rnd.randint(2, size=(steps, number))
    latest = np.maximum.accumulate(np.where(look, np.arange(steps)[:, None], 0))
    return np.stack([look, bits * 2.0 - 1], axis=2), np.take_along_axis(bits, latest, 0)


x, y = sequences(400)

# %%
# The network has two cells, so that there is not much to look at.

net = bs.tools.create_net_from_spec("classification", 2, 2, "L2")
trainer = bs.Trainer.fit(
    net,
    x,
    y[..., None],
    epochs=40,
    batch_size=20,
    stepper=bs.training.AdamStepper(0.02),
    train_scorers=[bs.scorers.Accuracy()],
)
print(f"accuracy: {trainer.history[-1]['rolling_training.Accuracy']:.3f}")

# %%
# One new sequence, and everything that the layer computed for it. Each buffer has a
# name: ``Ib``, ``Fb`` and ``Ob`` are the gates, ``Ca`` the cells.

x, y = sequences(1)
net.predict(x)
names = {"Ib": "input gate", "Fb": "forget gate", "Ob": "output gate", "Ca": "cell"}

figure, axes = plt.subplots(5, figsize=(8, 6), sharex=True, layout="constrained")
steps = np.arange(30)
figure.suptitle("The bit that is seen, and the gates and cells of an LSTM")
axes[0].step(steps, x[:, 0, 1], where="mid", color="0.7", label="bit")
seen = x[:, 0, 0] > 0
axes[0].plot(steps[seen], x[seen, 0, 1], "ko", label="look!")
axes[0].legend(loc="right")
for ax, (name, title) in zip(axes[1:], names.items(), strict=True):
    values = net.get(f"Lstm.internals.{name}")[:30, 0]
    ax.plot(steps, values, marker=".")
    ax.set_ylabel(title)
    for step in steps[seen]:
        ax.axvline(step, color="0.8", zorder=0)
axes[-1].set_xlabel("step")

# %%
# Where it has to look, the input gate of a cell opens and its forget gate closes, and
# the sign of the cell tells the bit from then on. In between it stays.

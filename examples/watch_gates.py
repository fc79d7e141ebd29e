"""Watch the gates of an LSTM
==========================

The network gets a number at each step, and sometimes a sign to keep it: it has to tell,
at every step, the number that it was last told to keep. How does it do so? All that a
layer computes has a name, so the gates can be read after a pass, and drawn.
"""

import matplotlib
import numpy as np
from common import load_file, parse_arguments

matplotlib.use("Agg")

import matplotlib.pyplot as plt

import brainstorm as bs

args = parse_arguments(__doc__, epochs=30)

# %%
# The data
# --------

STEPS, CELLS = 40, 1


def kept_numbers(rnd, number):
    """Numbers and signs (time, sequences, 2); what is to be kept (..., 1)."""
    values = rnd.uniform(-1, 1, size=(STEPS, number))
    signs = rnd.rand(STEPS, number) < 0.1
    signs[0] = True
    kept = values.copy()
    for t in range(1, STEPS):
        kept[t] = np.where(signs[t], values[t], kept[t - 1])
    return {"default": np.stack([values, signs], axis=2), "targets": kept[..., None]}


if args.data:
    data = load_file(args.data)
else:
    rnd = np.random.RandomState(1)
    sizes = {"training": 1000, "test": 200}
    data = {part: kept_numbers(rnd, number) for part, number in sizes.items()}

# %%
# The network
# -----------

inp, out = bs.tools.get_in_out_layers("regression", 2, 1)
network = bs.Network.from_layer(inp >> bs.layers.Lstm(CELLS, name="Lstm") >> out)
network.output_name = "Output.outputs.predictions"
if args.gpu:
    network.set_handler(bs.handlers.PyCudaHandler())
network.initialize("auto")
network.set_gradient_modifiers(bs.value_modifiers.ClipGlobalNorm(1))

# %%
# The training
# ------------

trainer = bs.Trainer(bs.training.AdamStepper(learning_rate=0.02))
trainer.add_hook(bs.hooks.ProgressBar())
trainer.add_hook(bs.hooks.StopAfterEpoch(args.epochs))
trainer.train(network, bs.Minibatches(20, **data["training"]))

# %%
# The gates
# ---------
#
# After a pass they are in the network's memory: input, forget and output gates, and the
# cells themselves, each (time, batch, cells). There is one time step more than the data
# have, for the state before the first one; it comes last.

x, kept = data["test"]["default"][:, :1], data["test"]["targets"][:, 0, 0]
predicted = network.predict(x)[:, 0, 0]
shown = {"input gates": "Ib", "forget gates": "Fb", "output gates": "Ob", "cells": "Ca"}
values = {
    title: network.get(f"Lstm.internals.{name}")[: len(x), 0]
    for title, name in shown.items()
}
signs = np.flatnonzero(x[:, 0, 1])

figure, axes = plt.subplots(
    1 + len(values), figsize=(9, 8), sharex=True, layout="constrained"
)
axes[0].plot(x[:, 0, 0], "o", color="0.7", markersize=3, label="the numbers")
axes[0].step(range(len(x)), kept, "k", where="mid", label="to be kept")
axes[0].step(range(len(x)), predicted, "C3--", where="mid", label="what the LSTM tells")
axes[0].legend(loc="upper right", ncols=3, fontsize="small")
for ax, (title, lines) in zip(axes[1:], values.items(), strict=True):
    ax.plot(lines, drawstyle="steps-mid")
    ax.set_title(title, loc="left", fontsize="medium")
    if title != "cells":
        ax.set_ylim(-0.05, 1.05)
for ax in axes:
    for t in signs:
        ax.axvspan(t - 0.5, t + 0.5, color="C0", alpha=0.15, linewidth=0)
axes[-1].set_xlabel("step; the blue ones have the sign to keep their number")
figure.savefig(args.output_dir / "watch_gates.png", dpi=120)

with_sign, others = np.isin(np.arange(len(x)), signs), values["input gates"]
print(f"input gates with the sign: {others[with_sign].mean(axis=0).round(2)}")
print(f"input gates without:       {others[~with_sign].mean(axis=0).round(2)}")

# %%
# The result
# ----------

test = data["test"]
error = np.mean((network.predict(test["default"][:]) - test["targets"][:]) ** 2)
print(
    f"share of the variance explained (R^2): {1 - error / np.var(test['targets']):.3f}"
)

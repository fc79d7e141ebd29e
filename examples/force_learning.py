"""Teach a chaotic network to move as it is told, by FORCE learning
================================================================

Sussillo and Abbott, *Generating coherent patterns of activity from chaotic neural
networks*, 2009: 500 rate neurons, whose connections are random and stay so, get no
input but 20 outputs, which are fed back to them. The weights of the outputs are
corrected after each step, by recursive least squares. In the end the network makes the
20 movements by itself.
"""

import matplotlib
import numpy as np
from common import load_file, parse_arguments

matplotlib.use("Agg")

import matplotlib.pyplot as plt

import brainstorm as bs

args = parse_arguments(__doc__, epochs=5)

rnd = np.random.RandomState(args.seed)

# %%
# The data
# --------


def smooth_movements(steps=300, outputs=20):
    """Sums of four waves each, of the shape (T, 1, outputs)."""
    waves = np.arange(1, 5)[:, np.newaxis, np.newaxis]
    time = 4 * np.pi * np.arange(steps)[:, np.newaxis] / steps
    sizes, phases = rnd.uniform(0.2, 1, (4, 1, outputs)), rnd.rand(4, 1, outputs)
    sums = np.sum(sizes / waves * np.sin(waves * time + 2 * np.pi * phases), axis=0)
    return (sums / np.abs(sums).max())[:, np.newaxis]


if args.data:
    movements = load_file(args.data)["training"]["targets"][:]
else:
    movements = smooth_movements()
UNITS, OUTPUTS = 500, movements.shape[2]
nothing = np.zeros((*movements.shape[:2], 1))

# %%
# The network
# -----------

inp = bs.layers.Input({"default": ("T", "B", 1), "targets": ("T", "B", OUTPUTS)})
current = inp >> bs.layers.FullyConnected(UNITS, "linear", "Current", bias=False)
potential = current >> bs.layers.Leaky(10.0, "Potential", gain="integrate")
rate = potential >> bs.layers.Elementwise("tanh", name="Rate")
readout = rate >> bs.layers.FullyConnected(OUTPUTS, "linear", "Readout")
current << rate << readout  # the currents come from both, one step later

output = readout >> bs.layers.SquaredError(name="Output")
inp - "targets" >> "targets" - output
network = bs.Network.from_layer(output - "loss" >> bs.layers.Loss())
if args.gpu:
    network.set_handler(bs.handlers.PyCudaHandler())

# The columns are those of the input, and then of what is fed back, sorted by name.
to_rates = rnd.normal(0, 1.5 / np.sqrt(UNITS), (UNITS, UNITS))
from_outputs = rnd.uniform(-1, 1, (UNITS, OUTPUTS))
weights = np.hstack([np.zeros((UNITS, 1)), to_rates, from_outputs])
network.initialize({"Current": weights, "Readout": 0.0})

# %%
# The training
# ------------


class MeanAbsoluteError(bs.scorers.Scorer):
    """The absolute error, averaged over the features of a row."""

    def score_rows(self, true_labels, predicted):
        """The error of each row."""
        return np.abs(predicted - true_labels).mean(axis=1)


# Outputs are fed back, so the weights have to be right after each step: the sequence
# comes in pieces of one step, each of which goes on with the state of the one before.
data = bs.Undivided(default=nothing, targets=movements)
trainer = bs.Trainer(bs.training.RlsStepper(ridge=1.0), carry_context=True)
scorers = [MeanAbsoluteError(out_name="Output.outputs.predictions")]
trainer.train_scorers = scorers
# As a whole sequence it is fed with nothing but its own outputs.
trainer.add_hook(bs.hooks.MonitorScores("valid_getter", scorers, name="free"))
trainer.add_hook(bs.hooks.StopAfterEpoch(args.epochs))
trainer.train(network, bs.Subsequences(data, 1), valid_getter=data)

# %%
# The result
# ----------

made = network.predict(nothing, output_name="Readout.outputs.default")
plt.figure(figsize=(8, 4))
for i in range(min(OUTPUTS, 5)):
    plt.plot(movements[:, 0, i] + 2 * i, "0.7", linewidth=4)
    plt.plot(made[:, 0, i] + 2 * i, "k")
plt.xlabel("step")
plt.yticks([])
plt.title("what the network was taught (gray), and does by itself (black)")
plt.savefig(args.output_dir / "force_learning.png", bbox_inches="tight")
learning = trainer.logs["rolling_training"]["MeanAbsoluteError"][-1]
free = trainer.logs["free"]["MeanAbsoluteError"][-1]
print(f"mean absolute error while it learns: {learning:.4f}")
print(f"mean absolute error of what it does by itself: {free:.4f}")

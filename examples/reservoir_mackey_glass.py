"""Go on with a chaotic series by a reservoir that is not trained
==============================================================

A recurrent layer of 500 random units hears the series of Mackey and Glass; a linear
readout of its states is fitted to the next value, in one pass and without gradients.
Then the network hears its own predictions: a closed loop of 100 steps. An epoch is
another reservoir.
"""

import numpy as np
from common import load_file, parse_arguments

import brainstorm as bs

args = parse_arguments(__doc__, epochs=5)

TRAINED, GENERATED, WARMUP = 2000, 100, 100

# %%
# The data
# --------

if args.data:
    series = np.asarray(load_file(args.data)["training"]["default"])
else:
    series = bs.tools.mackey_glass(2600)[500:]
start, rest = series[:TRAINED], series[TRAINED : TRAINED + GENERATED]

# %%
# The network
# -----------

inp = bs.layers.Input({"default": ("T", "B", series.shape[2])})
reservoir = bs.layers.Reservoir(500, leak=0.3, spectral_radius=1.25)
readout = bs.layers.FullyConnected(series.shape[2], "linear", name="Readout")
network = bs.Network.from_layer(inp >> reservoir >> readout)
if args.gpu:
    network.set_handler(bs.handlers.PyCudaHandler())

# %%
# Fitting and going on
# --------------------

errors, made = [], []
for number in range(args.epochs):
    network.initialize({"Readout": 0.0}, seed=args.seed + number)
    error = bs.training.fit_ridge(
        network, start[:-1], start[1:], ridge=1e-7, warmup=WARMUP
    )
    made.append(network.generate(len(rest), start))
    errors.append(bs.tools.nrmse(made[-1], rest))
    print(f"NRMSE of one step: {error:.5f}, of a closed loop: {errors[-1]:.4f}")

# %%
# The result
# ----------

try:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3))
    axes.plot(rest[:, 0, 0], "k", label="the series")
    axes.plot(
        made[int(np.argsort(errors)[len(errors) // 2])][:, 0, 0], label="generated"
    )
    axes.legend()
    figure.savefig(args.output_dir / "reservoir_mackey_glass.png")
except ImportError:
    print("For a picture: pip install matplotlib")

print(f"median NRMSE of closed loops: {np.median(errors):.4f}")

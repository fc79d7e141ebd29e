"""Learn chaos from 600 steps: a next-generation reservoir goes on with Lorenz's series
====================================================================================

Gauthier et al., *Next generation reservoir computing*, 2021: a linear layer reads the
products of up to three features of the last two states, and tells the change to the
next one. It is fitted by ridge regression, which needs no epochs. Then the network runs
on its own predictions, and is compared with how the series goes on, in Lyapunov times:
in one of these errors grow by a factor of e.
"""

import matplotlib
import numpy as np
from common import load_file, parse_arguments

matplotlib.use("Agg")

import matplotlib.pyplot as plt

import brainstorm as bs
from brainstorm.handlers import NumpyHandler
from brainstorm.training import fit_ridge

args = parse_arguments(__doc__, epochs=1)

# %%
# The data
# --------

STEP, LYAPUNOV_TIME = 0.025, 1 / 0.9056
WARMUP, TRAINED, GENERATED = 200, 400, 2000

if args.data:
    parts = load_file(args.data)
    series = np.concatenate([parts[n]["default"][:] for n in ("training", "test")])
else:
    start = np.random.RandomState(args.seed).uniform(5, 15, 3)
    series = bs.tools.lorenz(300 + WARMUP + TRAINED + GENERATED, STEP, start)[300:]
known, future = np.split(series, [WARMUP + TRAINED])
mean, deviation = known.mean(axis=0), known.std(axis=0)
known, future = (known - mean) / deviation, (future - mean) / deviation

# %%
# The network
# -----------

inp = bs.layers.Input({"default": ("T", "B", series.shape[2])})
features = bs.layers.Nvar(delay=2, order=[2, 3], name="Features")
readout = bs.layers.FullyConnected(series.shape[2], "linear", name="Readout")
network = bs.Network.from_layer(inp >> features >> readout)
if args.gpu:
    network.set_handler(bs.handlers.PyCudaHandler())
else:
    network.set_handler(NumpyHandler(np.float64))

# %%
# The training
# ------------

error = fit_ridge(
    network, known[:-1], np.diff(known, axis=0), ridge=1e-7, warmup=WARMUP
)
names = network.layers["Features"].get_feature_names()
print(f"{len(names)} features, such as {names[-2]}; error of the changes: {error:.1e}")

# %%
# The result
# ----------

made = network.generate(len(future), known, delta=True)
time = np.arange(len(future)) * STEP / LYAPUNOV_TIME
far = np.sqrt(((made - future) ** 2).mean(axis=(1, 2))) > 0.4
valid = time[far.argmax()] if far.any() else time[-1]

figure = plt.figure(figsize=(10, 4))
for i, (title, values) in enumerate({"Lorenz": future, "predicted": made}.items()):
    axes = figure.add_subplot(1, 3, 1 + i, projection="3d", title=title)
    axes.plot(*values[:, 0].T, linewidth=0.4)
axes = figure.add_subplot(1, 3, 3, xlabel="Lyapunov times", title="x of both")
axes.plot(time[:500], future[:500, 0, 0], "0.7", linewidth=4)
axes.plot(time[:500], made[:500, 0, 0], "k")
figure.savefig(args.output_dir / "nvar_lorenz.png", bbox_inches="tight")

once = time < 1
print(f"right for {valid:.1f} Lyapunov times, by less than 0.4 deviations")
nrmse = bs.tools.nrmse(made[once], future[once])
print(f"NRMSE over one Lyapunov time: {nrmse:.1e}")

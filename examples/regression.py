"""Predict how a disease goes on: numbers instead of classes
=========================================================

The data are 442 diabetes patients, which come with scikit-learn: ten numbers about
each, such as age and blood pressure, and how far the disease was a year later. A
small network is stopped when it gets no better on patients that it is not trained on.
"""

import numpy as np
from common import load_file, parse_arguments
from sklearn.datasets import load_diabetes

import brainstorm as bs

args = parse_arguments(__doc__, epochs=200)

# %%
# The data
# --------


def diabetes():
    """Both inputs and targets have mean 0 and standard deviation 1."""
    x, y = load_diabetes(return_X_y=True)
    x, y = (a.reshape(1, len(x), -1) for a in (x, y))
    x, y = ((a - a.mean(axis=1)) / a.std(axis=1) for a in (x, y))
    parts = bs.tools.split(*bs.tools.shuffle_data(x, y, seed=1), ratios=(6, 2, 2))
    return {
        name: {"default": default, "targets": targets}
        for name, (default, targets) in zip(
            ("training", "validation", "test"), parts, strict=True
        )
    }


data = load_file(args.data) if args.data else diabetes()
train_getter = bs.Minibatches(20, **data["training"])
valid_getter = bs.Minibatches(100, **data["validation"])

# %%
# The network
# -----------

nr_inputs = data["training"]["default"].shape[2]
nr_outputs = data["training"]["targets"].shape[2]

# For regression the output layer is SquaredError: the loss is half the squared error.
inp, out = bs.tools.get_in_out_layers("regression", nr_inputs, nr_outputs)
inp >> bs.layers.FullyConnected(20, activation="tanh", name="Hidden") >> out

network = bs.Network.from_layer(out)
if args.gpu:
    network.set_handler(bs.handlers.PyCudaHandler())
network.initialize(bs.Gaussian(0.1))
network.set_gradient_modifiers({"*": {"W": bs.value_modifiers.L2Decay(1e-3)}})

# %%
# The training
# ------------

trainer = bs.Trainer(bs.training.MomentumStepper(learning_rate=0.05, momentum=0.9))
trainer.add_hook(bs.hooks.ProgressBar())
trainer.add_hook(bs.hooks.MonitorLoss("valid_getter", name="validation"))
# Without a file name the best network is kept in memory.
best = bs.hooks.SaveBestNetwork("validation.total_loss", criterion="min", name="best")
trainer.add_hook(best)
trainer.add_hook(bs.hooks.EarlyStopper("validation.total_loss", patience=20))
trainer.add_hook(bs.hooks.StopAfterEpoch(args.epochs))
trainer.train(network, train_getter, valid_getter=valid_getter)

# %%
# The result
# ----------

best_network = best.load_best_network()
test = {name: np.asarray(values) for name, values in data["test"].items()}
predictions = bs.tools.extract(
    best_network, bs.Undivided(**test), ["Output.outputs.predictions"]
)["Output.outputs.predictions"]

error = np.mean((predictions - test["targets"]) ** 2)
explained = 1 - error / np.var(test["targets"])
print(f"share of the variance explained (R^2) on test data: {explained:.3f}")

"""Train a network of fifty layers
===============================

Stacked this high, ordinary layers hardly learn. Highway layers do: each mixes what it
computes with what it was given, y = T * H + (1 - T) * x, and a bias of -3 makes them
begin by carrying on most of the latter. Srivastava, Greff and Schmidhuber, Training
Very Deep Networks, 2015.
"""

from common import load_data, parse_arguments

import brainstorm as bs

args = parse_arguments(
    __doc__, epochs=20, plain="ordinary layers instead, to see the difference"
)

DEPTH, UNITS = 50, 40

# %%
# The data
# --------

data = load_data(args.data, "MNIST", fallback="Digits")
train_getter = bs.Minibatches(20, **data["training"])
test_getter = bs.Minibatches(100, **data["test"])

# %%
# The network
# -----------

image_shape = data["training"]["default"].shape[2:]
inp, out = bs.tools.get_in_out_layers("classification", image_shape, 10)

x = inp >> bs.layers.FullyConnected(UNITS, name="First")
for n in range(DEPTH):
    new = bs.layers.FullyConnected(UNITS, name=f"New{n}")
    x >> new
    if args.plain:
        x = new
        continue
    gate = bs.layers.FullyConnected(UNITS, activation="sigmoid", name=f"Gate{n}")
    highway = bs.layers.Highway(name=f"Highway{n}")
    x >> gate
    # The inputs of a highway layer are named: H is new, T tells how much of it counts.
    new >> "H" - highway
    gate >> "T" - highway
    x >> "x" - highway
    x = highway
x >> out

network = bs.Network.from_layer(out)
network.output_name = "Output.outputs.predictions"
if args.gpu:
    network.set_handler(bs.handlers.PyCudaHandler())
weights = bs.initializers.DenseSqrtFanIn()
initializers = {
    **{layers: {"W": weights, "bias": 0} for layers in ("First", "New*", "Output*")},
    "Gate*": {"W": bs.Gaussian(0.05), "bias": -3},
}
if args.plain:
    del initializers["Gate*"]
network.initialize(initializers)

# %%
# The training
# ------------

trainer = bs.Trainer(bs.training.MomentumStepper(learning_rate=0.2, momentum=0.9))
trainer.train_scorers = scorers = [bs.scorers.Accuracy()]
trainer.add_hook(bs.hooks.ProgressBar())
trainer.add_hook(bs.hooks.StopAfterEpoch(args.epochs))
trainer.train(network, train_getter)

# %%
# The result
# ----------

results = bs.tools.evaluate(network, test_getter, scorers)
print(f"test accuracy: {results['Accuracy']:.3f}")

"""Learn to read handwritten digits without knowing that they are images
=====================================================================

A multilayer perceptron with dropout and limited weights on permutation invariant
MNIST: the pixels could come in any order. Without MNIST.hdf5 it trains on the digits
of scikit-learn.
"""

from common import load_data, parse_arguments

import brainstorm as bs

args = parse_arguments(__doc__, epochs=50)

# %%
# The data
# --------

data = load_data(args.data, "MNIST", fallback="Digits")
train_getter = bs.Minibatches(100, **data["training"])
valid_getter = bs.Minibatches(100, **data["validation"])
test_getter = bs.Minibatches(100, **data["test"])

# %%
# The network
# -----------

image_shape = data["training"]["default"].shape[2:]
inp, out = bs.tools.get_in_out_layers("classification", image_shape, 10)
(
    inp
    >> bs.layers.Dropout(drop_prob=0.2)
    >> bs.layers.FullyConnected(1200, name="Hid1", activation="rel")
    >> bs.layers.Dropout(drop_prob=0.5)
    >> bs.layers.FullyConnected(1200, name="Hid2", activation="rel")
    >> bs.layers.Dropout(drop_prob=0.5)
    >> out
)
network = bs.Network.from_layer(out)
network.output_name = "Output.outputs.predictions"
if args.gpu:
    network.set_handler(bs.handlers.PyCudaHandler())

network.initialize({"*": {"W": bs.initializers.DenseSqrtFanIn(), "bias": 0}})
# After each update the weights into a unit are made no longer than 1.
network.set_weight_modifiers({"Output_projection": bs.ConstrainL2Norm(1)})

# %%
# The training
# ------------

trainer = bs.Trainer(bs.training.MomentumStepper(learning_rate=0.1, momentum=0.9))
trainer.train_scorers = scorers = [bs.scorers.Accuracy()]
trainer.add_hook(bs.hooks.ProgressBar())
trainer.add_hook(bs.hooks.MonitorScores("valid_getter", scorers, name="validation"))
best_file = args.output_dir / "mnist_pi_best.hdf5"
trainer.add_hook(
    bs.hooks.SaveBestNetwork(
        "validation.Accuracy", str(best_file), criterion="max", name="best weights"
    )
)
trainer.add_hook(bs.hooks.StopAfterEpoch(args.epochs))
trainer.train(network, train_getter, valid_getter=valid_getter)

# %%
# The result
# ----------

print("best validation accuracy:", max(trainer.logs["validation"]["Accuracy"]))
best_network = bs.Network.from_hdf5(str(best_file))
results = bs.tools.evaluate(best_network, test_getter, scorers)
print(f"test accuracy: {results['Accuracy']:.3f}")

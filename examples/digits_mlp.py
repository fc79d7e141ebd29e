"""Learn to read handwritten digits
================================

The data are the 1797 digits of 8 x 8 pixels that come with scikit-learn, so nothing
is downloaded; --data takes those of an HDF5 file such as MNIST.hdf5 in their place. A
multilayer perceptron is trained on most of them; the network that does best on
validation data is saved, loaded again and scored on test data.
"""

import argparse
from pathlib import Path

import h5py
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from common import as_help, check_arguments
from sklearn.datasets import load_digits

import brainstorm as bs

parser = argparse.ArgumentParser(description=as_help(__doc__))
parser.add_argument("--stepper", choices=["momentum", "adam"], default="momentum")
parser.add_argument("--epochs", type=int, help="default: 60, or 15 with adam")
parser.add_argument("--data", type=Path, help="HDF5 file with other images of digits")
parser.add_argument("--seed", type=int, default=42, help="of all that is random")
parser.add_argument("--gpu", action="store_true", help="train on an Nvidia GPU")
parser.add_argument(
    "--output-dir", type=Path, default=Path(), help="folder for network and picture"
)
args = parser.parse_args()
check_arguments(parser, args)
args.output_dir.mkdir(parents=True, exist_ok=True)

# Adam does with a quarter of the epochs: many updates in each, and less noise, which
# has less time to average out.
with_adam = args.stepper == "adam"
epochs = args.epochs or (15 if with_adam else 60)
batch_size = 5 if with_adam else 20
drop_pixels, drop_hidden = (0.05, 0.2) if with_adam else (0.1, 0.5)

# One seed for the split, the weights, dropout and the order of the batches.
bs.global_rnd.set_seed(args.seed)

# %%
# The data
# --------

# All data have the shape (time, batch, features...). Images are not sequences, so
# there is a single time step. Targets are class numbers, one to each image.
if args.data:
    with h5py.File(args.data, "r") as f:
        training_set = f["normalized_full"]["training"]
        images, digits = training_set["default"][:], training_set["targets"][:]
        images = images.reshape(1, len(digits[0]), -1)
else:
    images, digits = load_digits(return_X_y=True)
    images = images.reshape(1, -1, 64) / 16.0  # pixels are 0 to 16
    digits = digits.reshape(1, -1, 1)

images, digits = bs.tools.shuffle_data(images, digits, seed=args.seed)
(x_train, t_train), (x_valid, t_valid), (x_test, t_test) = bs.tools.split(
    images, digits, ratios=(70, 10, 20)
)

train_getter = bs.Minibatches(batch_size, default=x_train, targets=t_train)
valid_getter = bs.Minibatches(100, default=x_valid, targets=t_valid, shuffle=False)
test_getter = bs.Minibatches(100, default=x_test, targets=t_test, shuffle=False)

# %%
# The network
# -----------

# This makes an Input layer and a fully connected one with an output for each digit,
# from which a SoftmaxCE layer, named 'Output', computes predictions and loss.
inp, out = bs.tools.get_in_out_layers("classification", images.shape[2], 10)

hidden = bs.layers.FullyConnected(500, activation="rel", name="Hidden")
inp >> bs.layers.Dropout(drop_pixels) >> hidden >> bs.layers.Dropout(drop_hidden) >> out

network = bs.Network.from_layer(out)
if args.gpu:
    network.set_handler(bs.handlers.PyCudaHandler())
network.initialize({"*": {"W": bs.initializers.DenseSqrtFanIn(), "bias": 0}})

# %%
# The training
# ------------

# The learning rate falls, after each update or after each epoch.
if with_adam:
    stepper = bs.training.AdamStepper(0.005)
    slower = bs.training.Cosine(0.005, 0, num_changes=epochs * train_getter.length)
else:
    stepper = bs.training.MomentumStepper(0.5, momentum=0.9)
    slower = bs.training.Linear(0.5, 0.025, num_changes=epochs)

scorers = [bs.scorers.Accuracy(out_name="Output.outputs.predictions")]
best_file = args.output_dir / "digits_mlp.hdf5"

trainer = bs.Trainer(stepper)
trainer.train_scorers = scorers

# Hooks run in the order in which they are added, most of them after each epoch: here
# the network is first validated, and then saved if it was never better.
trainer.add_hook(bs.hooks.ProgressBar())
trainer.add_hook(bs.hooks.MonitorScores("valid_getter", scorers, name="validation"))
trainer.add_hook(
    bs.hooks.SaveBestNetwork(
        "validation.total_loss", filename=str(best_file), criterion="min", name="best"
    )
)
timescale = "update" if with_adam else "epoch"
trainer.add_hook(
    bs.hooks.ModifyStepperAttribute(slower, timescale=timescale, name="learning rate")
)
trainer.add_hook(bs.hooks.StopAfterEpoch(epochs))

trainer.train(network, train_getter, valid_getter=valid_getter)

# %%
# A picture
# ---------

train_log = trainer.logs["rolling_training"]  # from the first epoch on
valid_log = trainer.logs["validation"]  # one entry more: before training

numbers = range(1, epochs + 1)
figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for ax, name in zip(axes, ["total_loss", "Accuracy"], strict=True):
    ax.plot(numbers, train_log[name], label="training, with dropout")
    ax.plot([0, *numbers], valid_log[name], label="validation")
    ax.set(title=name, xlabel="epoch")
    ax.grid(alpha=0.3)
    ax.legend()
picture = args.output_dir / "digits_mlp.png"
figure.savefig(picture, dpi=120)

# %%
# The result
# ----------

# The test data are used this once, by a new network made from the file alone.
best_network = bs.Network.from_hdf5(str(best_file))
results = trainer.evaluate(best_network, test=test_getter)

print(f"training curves: {picture}")
print(f"best network: {best_file}")
print(f"test accuracy: {results['test']['Accuracy']:.3f}")

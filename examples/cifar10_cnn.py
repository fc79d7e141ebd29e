"""Learn to tell what is on small color pictures, with a convolutional network
===========================================================================

The documentation's walkthrough explains this script. Without CIFAR-10.hdf5 it trains
on the digits of scikit-learn, blown up to the same size.
"""

from common import load_data, parse_arguments

import brainstorm as bs
from brainstorm.data_iterators import Minibatches
from brainstorm.initializers import Gaussian

args = parse_arguments(__doc__, epochs=20)

# %%
# The data
# --------

ds = load_data(args.data, "CIFAR-10", fallback="Digits")


def getter(part):
    """Batches of images (1, B, 32, 32, 3)."""
    images, targets = ds[part]["default"], ds[part]["targets"]
    if images.shape[2:] == (8, 8, 1):  # the digits, of which there are but a few
        images = images[:].repeat(4, axis=2).repeat(4, axis=3).repeat(3, axis=4)
        return Minibatches(10, default=images, targets=targets)
    return Minibatches(100, default=images, targets=targets)


getter_tr = getter("training")
getter_va = getter("validation")

# %%
# The network
# -----------

inp, fc = bs.tools.get_in_out_layers("classification", (32, 32, 3), 10)
(
    inp
    >> bs.layers.Convolution2D(32, kernel_size=(5, 5), padding=2, name="Conv1")
    >> bs.layers.Pooling2D(type="max", kernel_size=(3, 3), stride=(2, 2))
    >> bs.layers.Convolution2D(32, kernel_size=(5, 5), padding=2, name="Conv2")
    >> bs.layers.Pooling2D(type="max", kernel_size=(3, 3), stride=(2, 2))
    >> bs.layers.Convolution2D(64, kernel_size=(5, 5), padding=2, name="Conv3")
    >> bs.layers.Pooling2D(type="max", kernel_size=(3, 3), stride=(2, 2))
    >> bs.layers.FullyConnected(64, name="FC")
    >> fc
)
network = bs.Network.from_layer(fc)
if args.gpu:
    network.set_handler(bs.handlers.PyCudaHandler())
network.initialize(
    {
        "Conv*": {"W": Gaussian(0.01), "bias": 0},
        "FC": {"W": Gaussian(0.1), "bias": 0},
        "Output_projection": {"W": Gaussian(0.1), "bias": 0},
    }
)

# %%
# The training
# ------------

trainer = bs.Trainer(bs.training.MomentumStepper(learning_rate=0.01, momentum=0.9))
trainer.add_hook(bs.hooks.ProgressBar())
scorers = [bs.scorers.Accuracy(out_name="Output.outputs.predictions")]
trainer.train_scorers = scorers
trainer.add_hook(bs.hooks.MonitorScores("valid_getter", scorers, name="validation"))
trainer.add_hook(
    bs.hooks.SaveBestNetwork(
        "validation.Accuracy",
        filename=str(args.output_dir / "cifar10_cnn_best.hdf5"),
        name="best weights",
        criterion="max",
    )
)
trainer.add_hook(bs.hooks.StopAfterEpoch(args.epochs))
trainer.train(network, getter_tr, valid_getter=getter_va)

# %%
# The result
# ----------

print("Best validation accuracy:", max(trainer.logs["validation"]["Accuracy"]))

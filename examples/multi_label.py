"""Tell which digits are on a picture: several labels at once
==========================================================

Each picture has three of scikit-learn's handwritten digits side by side. The labels
are a vector of ten numbers, with a one for each digit that occurs, wherever it is.
"""

import numpy as np
from common import load_data, load_file, parse_arguments

import brainstorm as bs

args = parse_arguments(__doc__, epochs=15)

# %%
# The data
# --------

NR_PICTURES = {"training": 3000, "validation": 500, "test": 1000}


def three_digits():
    """Pictures (1, N, 8, 24, 1), and as targets the three digits (1, N, 3)."""
    rnd = np.random.RandomState(1)
    data = {}
    for part, values in load_data(None, "Digits").items():
        all_images, all_targets = values["default"][0], values["targets"][0, :, 0]
        chosen = rnd.randint(len(all_images), size=(NR_PICTURES[part], 3))
        images = all_images[chosen]  # (N, 3, 8, 8, 1)
        data[part] = {
            "default": np.concatenate(np.moveaxis(images, 1, 0), axis=2)[np.newaxis],
            "targets": all_targets[chosen][np.newaxis],
        }
    return data


def getter(part, batch_size):
    """Batches in which the labels are vectors of zeros and ones."""
    return bs.MultiHot(bs.Minibatches(batch_size, **data[part]), {"targets": 10})


data = load_file(args.data) if args.data else three_digits()
image_shape = data["training"]["default"].shape[2:]

# %%
# The network
# -----------

# The output layer is SigmoidCE: a probability for each label, whatever the others are.
inp, out = bs.tools.get_in_out_layers("multi-label", image_shape, 10)
(
    inp
    >> bs.layers.Convolution2D(32, kernel_size=(3, 3), padding=1, name="Conv1")
    >> bs.layers.Pooling2D(kernel_size=(2, 2), stride=(2, 2))
    >> bs.layers.Convolution2D(32, kernel_size=(3, 3), padding=1, name="Conv2")
    >> bs.layers.Dropout(0.25)
    >> bs.layers.FullyConnected(128, name="Hidden")
    >> bs.layers.Dropout(0.5)
    >> out
)
network = bs.Network.from_layer(out)
network.output_name = "Output.outputs.predictions"
if args.gpu:
    network.set_handler(bs.handlers.PyCudaHandler())
network.initialize({"*": {"W": bs.initializers.DenseSqrtFanIn(), "bias": 0}})

# %%
# The training
# ------------

# Hamming is the share of the labels that are right, if 0.5 and more means yes.
scorers = [bs.scorers.Hamming()]

trainer = bs.Trainer(bs.training.MomentumStepper(learning_rate=0.05, momentum=0.9))
trainer.train_scorers = scorers
trainer.add_hook(bs.hooks.ProgressBar())
trainer.add_hook(bs.hooks.MonitorScores("valid_getter", scorers, name="validation"))
trainer.add_hook(bs.hooks.StopAfterEpoch(args.epochs))
trainer.train(network, getter("training", 20), valid_getter=getter("validation", 100))

# %%
# The result
# ----------

results = bs.tools.evaluate(network, getter("test", 100), scorers)
print(f"right labels on test data: {results['Hamming']:.3f}")

"""Learn to foresee the next character of a text, with an LSTM.

How well it does is told in bits per character: a good guess of the next character
needs few bits to be corrected. Without HutterPrize.hdf5 the text is source code from
Python's own library.
"""

import numpy as np
from common import load_data, parse_arguments

import brainstorm as bs

args = parse_arguments(__doc__, epochs=2)

# ------------------------------------ the data ---------------------------------------

data = load_data(args.data, "HutterPrize", fallback="PythonText")
nr_characters = 1 + max(int(part["targets"][:].max()) for part in data.values())


def getter(part, batch_size):
    """Characters become vectors with a single one, targets stay numbers."""
    batches = bs.Minibatches(batch_size, **data[part])
    return bs.OneHot(batches, {"default": nr_characters})


# ----------------------------------- the network -------------------------------------

inp, out = bs.tools.get_in_out_layers("classification", nr_characters, nr_characters)
network = bs.Network.from_layer(inp >> bs.layers.Lstm(256, name="Lstm") >> out)
network.output_name = "Output.outputs.predictions"
if args.gpu:
    network.set_handler(bs.handlers.PyCudaHandler())

# Forget gates that begin open let the cells remember.
network.initialize(bs.Gaussian(0.05), Lstm={"bf": 1, "default": bs.Gaussian(0.05)})

# ----------------------------------- the training ------------------------------------


class BitsPerCharacter(bs.scorers.Scorer):
    """A scorer of our own: the mean of -log2(probability of the true character)."""

    def __call__(self, true_labels, predicted, mask=None):
        """The sum over a batch, whose characters are rows here."""
        probabilities = np.take_along_axis(predicted, true_labels.astype(int), axis=1)
        return -np.log2(probabilities).sum()


scorers = [BitsPerCharacter()]

trainer = bs.Trainer(bs.training.AdamStepper(learning_rate=0.005))
trainer.train_scorers = scorers
trainer.add_hook(bs.hooks.ProgressBar())
trainer.add_hook(bs.hooks.MonitorScores("valid_getter", scorers, name="validation"))
trainer.add_hook(
    bs.hooks.SaveBestNetwork(
        "validation.BitsPerCharacter",
        filename=str(args.output_dir / "hutter_lstm_best.hdf5"),
        name="best network",
        criterion="min",
    )
)
trainer.add_hook(bs.hooks.StopAfterEpoch(args.epochs))
trainer.train(network, getter("training", 50), valid_getter=getter("validation", 50))

# ------------------------------------ the result -------------------------------------

best = min(trainer.logs["validation"]["BitsPerCharacter"])
print(f"bits per character of text not trained on: {best:.3f}")

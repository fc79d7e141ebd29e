"""Learn to foresee the next character of a text, with an LSTM
===========================================================

How well it does is told in bits per character: a good guess of the next character
needs few bits to be corrected. Without HutterPrize.hdf5 the text is source code from
Python's own library.

The text is read at 50 places side by side. After every 50 characters the network is
updated; its state goes on to the next 50.
"""

import numpy as np
from common import load_data, parse_arguments

import brainstorm as bs

args = parse_arguments(__doc__, epochs=2)

# %%
# The data
# --------

data = load_data(args.data, "HutterPrize", fallback="PythonText")
nr_characters = 1 + max(int(part["targets"][:].max()) for part in data.values())


def in_reading_order(sequences):
    """The text as 50 long series of shape (time, 50, 1).

    Files have it in short sequences, an array of shape (T, N, 1). The text consists of
    the sequences number 0, 100, 200, ..., then 1, 101, 201, ..., up to 99, 199, ...
    """
    T, N, _ = sequences.shape
    by_number = sequences[:, : N // 100 * 100].reshape(T, -1, 100)
    text = by_number.transpose(2, 1, 0)
    return text.reshape(50, -1, 1).transpose(1, 0, 2)


def getter(part):
    """Piece after piece of the series; characters are vectors with a single one."""
    series = {name: in_reading_order(data[part][name]) for name in data[part]}
    if not np.array_equal(series["default"][1:], series["targets"][:-1]):
        raise SystemExit(f"{part}: expected sequences that continue each other")
    pieces = bs.Subsequences(bs.Undivided(**series), 50)
    return bs.OneHot(pieces, {"default": nr_characters})


train_getter, valid_getter = getter("training"), getter("validation")

# %%
# The network
# -----------

inp, out = bs.tools.get_in_out_layers("classification", nr_characters, nr_characters)
network = bs.Network.from_layer(inp >> bs.layers.Lstm(256, name="Lstm") >> out)
network.output_name = "Output.outputs.predictions"
if args.gpu:
    network.set_handler(bs.handlers.PyCudaHandler())

# Forget gates that begin open let the cells remember.
network.initialize(bs.Gaussian(0.05), Lstm={"bf": 1, "default": bs.Gaussian(0.05)})
# Some gradients are very large, most of all when the state has come a long way.
network.set_gradient_modifiers(bs.value_modifiers.ClipGlobalNorm(1))

# %%
# The training
# ------------


class BitsPerCharacter(bs.scorers.Scorer):
    """A scorer of our own: the mean of -log2(probability of the true character)."""

    def __call__(self, true_labels, predicted, mask=None):
        """The sum over a batch, whose characters are rows here."""
        probabilities = np.take_along_axis(predicted, true_labels.astype(int), axis=1)
        return -np.log2(probabilities).sum()


LEARNING_RATE = 0.02  # falls to 0 during the training

scorers = [BitsPerCharacter()]

trainer = bs.Trainer(bs.training.AdamStepper(LEARNING_RATE), carry_context=True)
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
nr_updates = args.epochs * train_getter.length
slower = bs.training.Cosine(LEARNING_RATE, 0, num_changes=nr_updates)
trainer.add_hook(
    bs.hooks.ModifyStepperAttribute(slower, timescale="update", name="learning rate")
)
trainer.add_hook(bs.hooks.StopAfterEpoch(args.epochs))
trainer.train(network, train_getter, valid_getter=valid_getter)

# %%
# The result
# ----------

best = min(trainer.logs["validation"]["BitsPerCharacter"])
print(f"bits per character of text not trained on: {best:.3f}")

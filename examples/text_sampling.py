"""Have an LSTM write text, character by character
===============================================

The network learns to foresee the next character. What it foresees are chances, so it
can write: a character is drawn by them, and is its next input. How daring the writer is
can be chosen: at a low temperature the likely gets likelier. The picture shows what the
network foresees while it reads.

The text is source code from Python's own library, of which a part is read, in pieces of
100 characters.
"""

import matplotlib
import numpy as np
from common import load_data, parse_arguments

matplotlib.use("Agg")

import matplotlib.pyplot as plt

import brainstorm as bs

args = parse_arguments(__doc__, epochs=5)

# %%
# The data
# --------

data = load_data(args.data, "PythonText")
training = {name: values[:, :4000] for name, values in data["training"].items()}
nr_characters = 1 + max(int(part["targets"][:].max()) for part in data.values())
codes = data["training"].parent.attrs.get("unique", np.arange(nr_characters))

# %%
# The network
# -----------

inp, out = bs.tools.get_in_out_layers("classification", 1, nr_characters)
(
    inp
    >> bs.layers.Embedding(nr_characters, 32, name="Characters")
    >> bs.layers.Lstm(160, name="Lstm")
    >> out
)
network = bs.Network.from_layer(out)
network.output_name = "Output.outputs.predictions"
if args.gpu:
    network.set_handler(bs.handlers.PyCudaHandler())
network.initialize("auto")
network.set_gradient_modifiers(bs.value_modifiers.ClipGlobalNorm(1))

# %%
# The training
# ------------

trainer = bs.Trainer(bs.training.AdamStepper(learning_rate=0.01))
trainer.train_scorers = scorers = [bs.scorers.Perplexity()]
trainer.add_hook(bs.hooks.ProgressBar())
trainer.add_hook(bs.hooks.StopAfterEpoch(args.epochs))
trainer.train(network, bs.Minibatches(50, **training))

# %%
# Writing
# -------
#
# A forward pass may begin from the state that another one has left, its context. So the
# network reads the beginning once, then one character after the other.


def read(text, context=None):
    """The chances (T, characters) of what comes after each character of a text."""
    column = np.reshape(text, (-1, 1, 1))
    network.provide_external_data({"default": column, "targets": np.zeros_like(column)})
    network.forward_pass(context=context)
    return network.get(network.output_name)[:, 0].astype(float)


def write(start, nr_more, temperature):
    """Go on with a text."""
    rnd = np.random.RandomState(args.seed)
    text, context, new = list(start), None, start
    for _ in range(nr_more):
        chances = read(new, context)[-1] ** (1 / temperature)
        context = network.get_context()
        new = [rnd.choice(nr_characters, p=chances / chances.sum())]
        text += new
    return text


def as_text(characters):
    """What the characters are to people."""
    return bytes(int(codes[c]) for c in characters).decode("ascii", "replace")


start = data["validation"]["default"][:40, 0, 0].astype(int)
for temperature in (0.3, 0.7, 1.0):
    print(f"---- at temperature {temperature}:")
    print(as_text(write(start, 160, temperature)))

# %%
# What the network foresees
# -------------------------

line = data["validation"]["default"][:, 1, 0].astype(int)[:50]
chances = read(line)
best = np.argsort(-chances, axis=1)[:, :5]

figure, axes = plt.subplots(figsize=(12, 2.6), layout="constrained")
axes.imshow(np.take_along_axis(chances, best, axis=1).T, cmap="Greens", aspect="auto")
for t, guesses in enumerate(best):
    for rank, guess in enumerate(guesses):
        axes.text(t, rank, repr(as_text([guess]))[1:-1], ha="center", va="center")
axes.set_xticks(range(len(line)), [repr(as_text([c]))[1:-1] for c in line])
axes.set(title="five likely next characters", xlabel="character read", yticks=[])
axes.xaxis.set_ticks_position("top")
figure.savefig(args.output_dir / "text_sampling.png", dpi=120)

# %%
# The result
# ----------

test = {name: values[:, :500] for name, values in data["test"].items()}
perplexity = bs.tools.evaluate(network, bs.Minibatches(50, **test), scorers)
bits = np.log2(perplexity["Perplexity"])
print(f"bits per character of text not trained on: {bits:.3f}")

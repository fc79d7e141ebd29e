"""Learn to write Python, character by character, with a small transformer
=======================================================================

Four blocks of causal attention foresee the next character from up to 100 before it; how
well is told in bits per character, as in hutter_lstm.py. Then the network writes a text
of its own: each character is drawn from what it foresees, and is its next input. The
picture tiny_gpt.png shows what the heads look at.

Without HutterPrize.hdf5 the text is source code from Python's own library.
"""

import matplotlib
import numpy as np
from common import load_data, parse_arguments

matplotlib.use("Agg")

import matplotlib.pyplot as plt

import brainstorm as bs

args = parse_arguments(
    __doc__,
    epochs=1,
    size=(128, "number of features"),
    blocks=(4, "number of blocks"),
    heads=(4, "number of heads in each block"),
    batch_size=(32, "sequences in a batch"),
    characters=(400, "how many characters to write"),
    temperature=(0.8, "how daring to be in that: 1 follows what is foreseen"),
)

# %%
# The data
# --------

data = load_data(args.data, "HutterPrize", fallback="PythonText")
nr_characters = 1 + max(int(part["targets"][:].max()) for part in data.values())
STEPS = len(data["training"]["default"])
codes = data["training"].parent.attrs.get("unique", np.arange(32, 32 + nr_characters))

train_getter = bs.Minibatches(args.batch_size, **data["training"])
valid_getter = bs.Minibatches(args.batch_size, **data["validation"])

# %%
# The network
# -----------

inp, out = bs.tools.get_in_out_layers("classification", 1, nr_characters)
x = inp >> bs.layers.Embedding(nr_characters, args.size, name="Characters")
x = x >> bs.layers.PositionalEncoding("learned", STEPS, name="Positions")
for number in range(1, args.blocks + 1):
    x = bs.tools.transformer_block(
        x,
        args.size,
        args.heads,
        causal=True,
        context_size=STEPS,  # for writing one character after the other
        name=f"Block{number}",
    )
network = bs.Network.from_layer(x >> bs.layers.LayerNorm(name="Norm") >> out)
network.output_name = "Output.outputs.predictions"
if args.gpu:
    network.set_handler(bs.handlers.PyCudaHandler())
network.initialize("auto")
network.set_gradient_modifiers(bs.value_modifiers.ClipGlobalNorm(1))

# %%
# The training
# ------------

LEARNING_RATE = 0.002  # is reached after a tenth of the training, and falls to 0

trainer = bs.Trainer(bs.training.AdamStepper(LEARNING_RATE))
trainer.add_hook(bs.hooks.ProgressBar())
scorers = [bs.scorers.Perplexity()]
trainer.add_hook(bs.hooks.MonitorScores("valid_getter", scorers, name="validation"))
trainer.add_hook(
    bs.hooks.SaveBestNetwork(
        "validation.Perplexity",
        filename=str(args.output_dir / "tiny_gpt_best.hdf5"),
        name="best network",
        criterion="min",
    )
)
nr_updates = args.epochs * train_getter.length
cycle = bs.training.OneCycle(LEARNING_RATE, nr_updates, rise=0.1)
trainer.add_hook(
    bs.hooks.ModifyStepperAttribute(cycle, timescale="update", name="learning rate")
)
trainer.add_hook(bs.hooks.StopAfterEpoch(args.epochs))
trainer.train(network, train_getter, valid_getter=valid_getter)

# %%
# A text of its own
# -----------------


def run(characters, context=None):
    """Let the network read characters, behind those of the context."""
    column = np.reshape(characters, (-1, 1, 1))
    network.provide_external_data({"default": column, "targets": np.zeros_like(column)})
    network.forward_pass(context=context)


def write(start, nr_more):
    """Go on with a text. The network sees no more than `STEPS` characters of it."""
    rnd = np.random.RandomState(args.seed)
    text, new, context, nr_read = list(start), list(start), None, 0
    for _ in range(nr_more):
        if nr_read + len(new) > STEPS:  # read the last half again, from the beginning
            new, context, nr_read = text[-(STEPS // 2) :], None, 0
        run(new, context)
        context, nr_read = network.get_context(), nr_read + len(new)
        foreseen = network.get("Output.outputs.predictions")[-1, 0].astype(float)
        chances = foreseen ** (1 / args.temperature)
        new = [rnd.choice(nr_characters, p=chances / chances.sum())]
        text += new
    return text


def as_text(characters):
    """What the characters are to people."""
    return bytes(int(codes[c]) for c in characters).decode("ascii", "replace")


start = data["validation"]["default"][: STEPS // 2, 0, 0]
print(as_text(write(start, args.characters)))

# %%
# Its heads
# ---------

shown = data["validation"]["default"][: min(STEPS, 40), 0, 0]
run(shown)
labels = list(as_text(shown).replace("\n", "\u21b5"))
size = 4 * args.heads, 4 * args.blocks
figure, axes = plt.subplots(args.blocks, args.heads, figsize=size, squeeze=False)
for number, row in enumerate(axes, 1):
    weights = network.get(f"Block{number}_Attention.internals.weights")[:, 0]
    for head, axis in enumerate(row):
        axis.imshow(weights[:, head], cmap="Blues", vmin=0, vmax=1)
        axis.set_title(f"block {number}, head {head + 1}")
        axis.set_xticks(range(len(labels)), labels, fontsize=6)
        axis.set_yticks(range(len(labels)), labels, fontsize=6)
figure.tight_layout()
figure.savefig(args.output_dir / "tiny_gpt.png")

# %%
# The result
# ----------

bits = np.log2(min(trainer.logs["validation"]["Perplexity"]))
print(f"bits per character of text not trained on: {bits:.3f}")

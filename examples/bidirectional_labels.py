"""Label each step of a sequence by what is before and after it
============================================================

In a text of brackets such as ``)(()`` some have a partner and some have none. For one
that opens, this is decided by what comes after it: so two LSTMs read the text, one of
them from its end. Texts have 5 to 30 brackets, and a mask says where each ends: the
second LSTM begins there. With ``--forward`` there is only the first one.
"""

import matplotlib
import numpy as np
from common import load_file, parse_arguments

matplotlib.use("Agg")

import matplotlib.pyplot as plt

import brainstorm as bs

args = parse_arguments(
    __doc__, epochs=6, forward="an LSTM that reads forward alone, for comparison"
)

# %%
# The data
# --------

LONGEST = 30


def with_partner(text):
    """1 for each bracket of a text that has a partner, 0 for the others."""
    labels, open_ones = np.zeros(len(text)), []
    for t, opens in enumerate(text):
        if opens:
            open_ones.append(t)
        elif open_ones:
            labels[[t, open_ones.pop()]] = 1
    return labels


def texts(rnd, number):
    """Texts, labels and masks, all (time, texts, 1); 1 opens, 0 closes."""
    data = {
        name: np.zeros((LONGEST, number, 1)) for name in ("default", "targets", "mask")
    }
    lengths = np.sort(rnd.randint(5, LONGEST + 1, size=number))  # alike in a batch
    for n, length in enumerate(lengths):
        text = rnd.rand(length) < 0.5
        data["default"][:length, n, 0] = text
        data["targets"][:length, n, 0] = with_partner(text)
        data["mask"][:length, n] = 1
    return data


if args.data:
    data = load_file(args.data)
else:
    rnd = np.random.RandomState(1)
    sizes = {"training": 2000, "validation": 200, "test": 500}
    data = {part: texts(rnd, number) for part, number in sizes.items()}

# %%
# The network
# -----------
#
# The mask goes to two layers: to the loss, where what is filled up must not count, and
# to the layer that reads from the end.

inp, out = bs.tools.get_in_out_layers("classification", 1, 2, mask_name="mask")
if args.forward:
    inp >> bs.layers.Lstm(32, name="Reader") >> out
else:
    reader = bs.layers.Bidirectional(bs.layers.Lstm(16), name="Reader")
    inp >> reader >> out
    inp - "mask" >> "mask" - reader

network = bs.Network.from_layer(out)
network.output_name = "Output.outputs.predictions"
if args.gpu:
    network.set_handler(bs.handlers.PyCudaHandler())
network.initialize("auto")
network.set_gradient_modifiers(bs.value_modifiers.ClipGlobalNorm(1))

# %%
# The training
# ------------

scorers = [bs.scorers.Accuracy()]  # it weighs steps as the loss does

trainer = bs.Trainer(bs.training.AdamStepper(learning_rate=0.01))
trainer.train_scorers = scorers
trainer.add_hook(bs.hooks.ProgressBar())
trainer.add_hook(bs.hooks.MonitorScores("valid_getter", scorers, name="validation"))
trainer.add_hook(bs.hooks.StopAfterEpoch(args.epochs))
trainer.train(
    network,
    bs.Minibatches(20, **data["training"]),
    valid_getter=bs.Minibatches(100, **data["validation"]),
)

# %%
# A picture
# ---------

text = ")(()())((()"
opens = np.array([c == "(" for c in text], float).reshape(-1, 1, 1)
given = {"default": opens, "mask": np.ones_like(opens)}
labels = with_partner(opens[:, 0, 0])
foreseen = network.predict(given if not args.forward else opens)[:, 0, 1]

figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
colors = ["C0" if yes else "C1" for yes in labels]
axes.bar(range(len(text)), foreseen - 0.5, bottom=0.5, color=colors)
axes.axhline(0.5, color="k", linewidth=1)
axes.set_xticks(range(len(text)), text, fontsize=16, family="monospace")
axes.set(ylim=(0, 1), ylabel="probability of a partner")
axes.set_title("brackets with a partner (blue) and without one (orange)")
figure.savefig(args.output_dir / "bidirectional_labels.png", dpi=120)

# %%
# The result
# ----------

results = bs.tools.evaluate(network, bs.Minibatches(100, **data["test"]), scorers)
print(f"right labels in test texts: {results['Accuracy']:.3f}")

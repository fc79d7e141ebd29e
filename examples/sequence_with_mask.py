"""Count open brackets in texts of different length
================================================

At each bracket of a text like ``(()())`` the network tells how many are open. Texts
have 5 to 40 brackets, but arrays are rectangular: short texts are filled up, and a mask
says which time steps count. The batches are cut to their longest text.
"""

import numpy as np
from common import load_file, parse_arguments

import brainstorm as bs

args = parse_arguments(__doc__, epochs=20)

# %%
# The data
# --------

LONGEST, DEEPEST = 40, 9


def brackets():
    """Texts, depths and masks, all (time, texts, 1)."""
    rnd = np.random.RandomState(1)
    return {
        "training": brackets_of(rnd, 2000),
        "validation": brackets_of(rnd, 200),
        "test": brackets_of(rnd, 500),
    }


def brackets_of(rnd, nr_texts):
    """1 is a bracket that opens, 0 one that closes."""
    opens = rnd.rand(LONGEST, nr_texts) < 0.5
    depths = np.zeros((LONGEST, nr_texts))
    depth = np.zeros(nr_texts, int)
    for t in range(LONGEST):
        opens[t] = (opens[t] | (depth == 0)) & (depth < DEEPEST)
        depth += np.where(opens[t], 1, -1)
        depths[t] = depth
    lengths = np.sort(rnd.randint(5, LONGEST + 1, size=nr_texts))  # alike in a batch
    mask = np.arange(LONGEST)[:, np.newaxis] < lengths
    arrays = {"default": opens, "targets": depths, "mask": mask}
    return {name: array[:, :, np.newaxis] for name, array in arrays.items()}


data = load_file(args.data) if args.data else brackets()
nr_depths = int(np.max(data["training"]["targets"][:])) + 1

# An item of the name 'mask' is also what tells Minibatches where to cut.
train_getter = bs.Minibatches(20, **data["training"])
valid_getter = bs.Minibatches(20, **data["validation"])
test_getter = bs.Minibatches(20, **data["test"])

# %%
# The network
# -----------

# With a mask name there is one more input, and a Mask layer before the loss.
inp, out = bs.tools.get_in_out_layers("classification", 1, nr_depths, mask_name="mask")
inp >> bs.layers.Lstm(20, name="Lstm") >> out

network = bs.Network.from_layer(out)
network.output_name = "Output.outputs.predictions"
if args.gpu:
    network.set_handler(bs.handlers.PyCudaHandler())
network.initialize(bs.Gaussian(0.1), Lstm={"bf": 1, "default": bs.Gaussian(0.1)})
network.set_gradient_modifiers(bs.ClipValues(-1, 1))

# %%
# The training
# ------------

scorers = [bs.scorers.Accuracy(mask_name="mask")]

trainer = bs.Trainer(bs.training.NesterovStepper(learning_rate=0.1, momentum=0.9))
trainer.train_scorers = scorers
trainer.add_hook(bs.hooks.ProgressBar())
trainer.add_hook(bs.hooks.MonitorScores("valid_getter", scorers, name="validation"))
trainer.add_hook(bs.hooks.StopAfterEpoch(args.epochs))
trainer.train(network, train_getter, valid_getter=valid_getter)

# %%
# The result
# ----------

text = "(()(()))()"
coded = np.array([c == "(" for c in text]).reshape(len(text), 1, 1)
answer = bs.tools.extract(network, bs.Undivided(default=coded), [network.output_name])[
    network.output_name
]
print(text, "has the depths", *answer[:, 0].argmax(axis=1))

results = bs.tools.evaluate(network, test_getter, scorers)
print(f"right depths in test texts: {results['Accuracy']:.3f}")

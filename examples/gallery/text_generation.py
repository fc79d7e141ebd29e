"""
Write text, character by character
==================================

An LSTM learns which character comes next in the Zen of Python, then writes by itself:
it is given what it has said. A *temperature* makes it careful or bold.
"""

import contextlib
import io

import matplotlib.pyplot as plt
import numpy as np

import brainstorm as bs

with contextlib.redirect_stdout(io.StringIO()) as printed:
    import this  # noqa: F401
text = printed.getvalue()
alphabet = sorted(set(text))
numbers = np.array([alphabet.index(character) for character in text])
print(f"{len(text)} characters, {len(alphabet)} different ones")

# %%
# Sequences of 50 characters, each beginning at another place; targets are one step
# ahead.

bs.global_rnd.set_seed(1)
steps = 50
starts = np.arange(0, len(text) - steps - 1, 7)
x = np.stack([numbers[s : s + steps] for s in starts], axis=1)[..., None]
y = np.stack([numbers[s + 1 : s + steps + 1] for s in starts], axis=1)[..., None]

inp = bs.layers.Input({"default": ("T", "B", 1), "targets": ("T", "B", 1)})
out = bs.layers.SoftmaxCE(name="Output")
(
    inp
    >> bs.layers.Embedding(vocabulary_size=len(alphabet), size=16)
    >> bs.layers.Lstm(96, peepholes=False, name="Lstm")
    >> bs.layers.FullyConnected(len(alphabet), "linear", name="Projection")
    >> out
)
inp - "targets" >> "targets" - out - "loss" >> bs.layers.Loss(importance=1 / steps)
net = bs.Network.from_layer(out)
net.initialize("auto", seed=1)

trainer = bs.Trainer.fit(
    net,
    x,
    y,
    epochs=40,
    batch_size=10,
    stepper=bs.training.AdamStepper(0.01),
    train_scorers=[bs.scorers.Perplexity()],
)

figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
figure.suptitle("How many characters the network chooses among")
ax.semilogy([row.get("rolling_training.Perplexity") for row in trainer.history])
ax.set(xlabel="epoch", ylabel="perplexity")

# %%
# To write, a character is drawn from the predictions, and goes in next. The *context*
# is what the network remembers from step to step.


def write(start, length, temperature, seed=1):
    """Go on with a text."""
    rnd = np.random.RandomState(seed)
    context, written = None, start
    given = [alphabet.index(character) for character in start]
    for _ in range(length):
        data = {"default": np.reshape(given, (-1, 1, 1))}
        net.provide_external_data(data, all_inputs=False)
        net.forward_pass(context=context)
        context = net.get_context()
        logits = net.get("Projection.outputs.default")[-1, 0].astype(float)
        scores = np.exp((logits - logits.max()) / temperature)
        given = [rnd.choice(len(alphabet), p=scores / scores.sum())]
        written += alphabet[given[0]]
    return written


for temperature in (0.3, 1.0):
    print(f"--- temperature {temperature}\n{write('Beautiful ', 160, temperature)}")

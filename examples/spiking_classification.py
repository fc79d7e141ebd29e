"""Have a network of spiking neurons learn labels by heart
=======================================================

Neftci, Mostafa and Zenke, *Surrogate gradient learning in spiking neural networks*,
2019: each of 256 samples consists of 100 trains of random spikes, 5 in a second, and
has one of two labels, drawn at random. Input spikes go through weights and synapses to
100 hidden neurons, and their spikes to two outputs that leak and do not fire. The label
is that of the output that gets highest within the 200 steps of a millisecond.

An epoch is one update with all samples.
"""

import numpy as np
from common import load_file, parse_arguments

import brainstorm as bs

args = parse_arguments(
    __doc__, epochs=200, plot="draw the spikes and outputs of four samples"
)

# %%
# The data
# --------

STEPS, SAMPLES, INPUTS, HIDDEN, CLASSES = 200, 256, 100, 100, 2

if args.data:
    training = load_file(args.data)["training"]
    data = {"default": training["default"][:], "targets": training["targets"][:]}
else:
    rnd = np.random.RandomState(args.seed)
    data = {
        "default": rnd.random_sample((STEPS, SAMPLES, INPUTS)) < 5 * 1e-3,
        "targets": rnd.randint(CLASSES, size=(1, SAMPLES, 1)),
    }

# %%
# The network
# -----------

# The sum over the inputs decays with a time constant of 10 steps, as do the potentials
# that it drives; those of the outputs with one of 5.
inp = bs.layers.Input(
    {"default": ("T", "B", data["default"].shape[2]), "targets": ("B", 1)}
)
current = inp >> bs.layers.FullyConnected(HIDDEN, "linear", name="Hidden")
spikes = current >> bs.layers.Leaky(10.0) >> bs.layers.Lif(10.0, name="Neurons")
current = spikes >> bs.layers.FullyConnected(CLASSES, "linear", name="Projection")
potential = current >> bs.layers.Leaky(10.0)
readout = potential >> bs.layers.Leaky(5.0, gain="integrate", name="Readout")
output = readout >> bs.layers.TimePooling("max") >> bs.layers.SoftmaxCE(name="Output")
inp - "targets" >> "targets" - output
network = bs.Network.from_layer(output - "loss" >> bs.layers.Loss())
if args.gpu:
    network.set_handler(bs.handlers.PyCudaHandler())
# Spikes are rare: weights have to be large enough for the first hidden ones.
network.initialize({"*": {"W": bs.Gaussian(0.7), "bias": 0.0}})

# %%
# The training
# ------------

trainer = bs.Trainer(bs.training.AdamStepper(learning_rate=2e-3))
trainer.train_scorers = [bs.scorers.Accuracy()]
trainer.add_hook(bs.hooks.StopAfterEpoch(args.epochs))
batches = bs.Minibatches(batch_size=SAMPLES, shuffle=False, **data)
trainer.train(network, batches)

# %%
# The result
# ----------

if args.plot:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    made = {
        name: network.predict(data["default"], output_name=f"{name}.outputs.default")
        for name in ("Neurons", "Readout")
    }
    _, (above, below) = plt.subplots(2, 4, figsize=(10, 5), sharex=True, sharey="row")
    for i in range(4):
        above[i].set_title(f"label {data['targets'][0, i, 0]}")
        for x, color in ((data["default"], "0.6"), (made["Neurons"], "k")):
            above[i].plot(*np.nonzero(x[:, i]), ".", color=color, markersize=2)
        below[i].plot(made["Readout"][: len(data["default"]), i])
        below[i].set_xlabel("step")
    above[0].set_ylabel("inputs (gray), neurons")
    below[0].set_ylabel("potential of outputs")
    below[0].legend(["0", "1"])
    plt.savefig(args.output_dir / "spiking_classification.png", bbox_inches="tight")

scores = bs.tools.evaluate(network, batches, scorers=[bs.scorers.Accuracy()])
print(f"training accuracy: {scores['Accuracy']:.3f}")

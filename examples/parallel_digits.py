"""Learn to read handwritten digits on several processes, which share out each batch
=================================================================================

The data are the digits of 8 x 8 pixels that come with scikit-learn. Batches and the
learning rate grow with the number of processes, so that each of these has as much to do
as one alone. Without mpiexec the script runs in one process; with it, in several::

    mpiexec -n 2 python -m mpi4py examples/parallel_digits.py
"""

from common import load_data, parse_arguments

import brainstorm as bs
from brainstorm.parallel import world

args = parse_arguments(__doc__, epochs=30)

# All processes, or ranks, run this script, with the same seed. Each knows its number.
comm = world()

# %%
# The data
# --------

# The batches are whole ones, and the same on all ranks. Training and evaluation give a
# part of each to each rank.
data = load_data(args.data, "Digits")
batch_size = 20 * comm.size
train_getter = bs.Minibatches(batch_size, **data["training"])
valid_getter = bs.Minibatches(100, **data["validation"])
test_getter = bs.Minibatches(100, **data["test"])

# %%
# The network
# -----------

image_shape = data["training"]["default"].shape[2:]
inp, out = bs.tools.get_in_out_layers("classification", image_shape, 10)
hidden = bs.layers.FullyConnected(200, activation="rel", name="Hidden")
inp >> hidden >> bs.layers.Dropout(0.5) >> out

network = bs.Network.from_layer(out)
network.output_name = "Output.outputs.predictions"
if args.gpu:
    network.set_handler(bs.handlers.PyCudaHandler())
network.initialize({"*": {"W": bs.initializers.DenseSqrtFanIn(), "bias": 0}})

# %%
# The training
# ------------

# Larger batches take larger steps, but not at once: the learning rate is proportional
# to the size of the batches, and rises to that during five epochs (Goyal et al., 2017).
learning_rate = 0.05 * comm.size
updates = args.epochs * train_getter.length
falling = bs.training.Cosine(learning_rate, 0, num_changes=updates)
rate = bs.training.Warmup(falling, num_changes=5 * train_getter.length)

scorers = [bs.scorers.Accuracy()]
best_file = args.output_dir / "parallel_digits_best.hdf5"

# Only rank 0 calls hooks that print or save something.
trainer = bs.Trainer(
    bs.training.MomentumStepper(learning_rate, momentum=0.9), comm=comm
)
trainer.train_scorers = scorers
trainer.add_hook(
    bs.hooks.ModifyStepperAttribute(rate, timescale="update", name="learning rate")
)
trainer.add_hook(bs.hooks.MonitorScores("valid_getter", scorers, name="validation"))
trainer.add_hook(
    bs.hooks.SaveBestNetwork(
        "validation.Accuracy", str(best_file), criterion="max", name="best weights"
    )
)
trainer.add_hook(bs.hooks.StopAfterEpoch(args.epochs))
trainer.train(network, train_getter, valid_getter=valid_getter)

# %%
# The result
# ----------

# All ranks take part, and all get the result.
results = trainer.evaluate(network, test=test_getter)
if comm.rank == 0:
    print(f"ranks: {comm.size}")
    print(f"test accuracy: {results['test']['Accuracy']:.3f}")

"""The same seed, handler and versions give the same bits, in any process."""

import subprocess
import sys

SCRIPT = """
import hashlib, sys
import numpy as np
import brainstorm as bs
from brainstorm import layers

bs.global_rnd.set_seed(int(sys.argv[1]))
inp = layers.Input({"default": ("T", "B", 8, 8, 1), "targets": ("T", "B", 1)})
out = layers.SoftmaxCE(name="Output")
chain = inp >> layers.Convolution2D(4, 3) >> layers.Pooling2D(2) >> layers.Dropout(0.3)
chain >> layers.Lstm(6) >> layers.FullyConnected(3, "linear") >> out
inp - "targets" >> "targets" - out - "loss" >> layers.Loss()
net = bs.Network.from_layer(out)
net.initialize(bs.Gaussian(0.3))
rnd = np.random.RandomState(0)
data = {"default": rnd.randn(3, 20, 8, 8, 1), "targets": rnd.randint(0, 3, (3, 20, 1))}
batches = bs.data_iterators.AddGaussianNoise(
    bs.data_iterators.Flip(bs.Minibatches(4, **data)), {"default": 0.1}
)
trainer = bs.Trainer(bs.training.MomentumStepper(0.05, 0.9), verbose=False)
trainer.add_hook(bs.hooks.StopAfterEpoch(4))
trainer.train(net, batches)
losses = np.array(trainer.logs["rolling_training"]["total_loss"])
print(hashlib.sha256(net.get("parameters").tobytes() + losses.tobytes()).hexdigest())
"""


def train(seed):
    command = [sys.executable, "-c", SCRIPT, str(seed)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_training_in_fresh_processes_gives_the_same_bits():
    first = train(1)
    assert len(first.strip()) == 64
    assert train(1) == first
    assert train(2) != first

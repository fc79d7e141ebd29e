"""
Label each step, looking both ways
==================================

Is a value higher than both of its neighbours? To tell, one has to know the next step.
A layer that runs over the sequence from its end, too, does. The sequences have
different lengths: a mask says where they last.
"""

import matplotlib.pyplot as plt
import numpy as np

import brainstorm as bs

rnd = np.random.RandomState(1)
lengths = np.sort(rnd.randint(10, 25, size=300))
steps = lengths.max()
x = rnd.rand(steps, 300, 1)
mask = (np.arange(steps)[:, None] < lengths)[..., None].astype(float)
x *= mask  # behind the end there are zeros
around = np.pad(x, ((1, 1), (0, 0), (0, 0)))
peaks = (x > around[:-2]) & (x > around[2:])

# %%
# The same network twice, forward only and both ways. The mask goes to the loss, which
# is 0 where a sequence has ended, to the layer, which has to know where to begin from
# the end, and to the scorer.

nets = {}
for kind in ("forward", "both ways"):
    bs.global_rnd.set_seed(1)
    inp, out = bs.tools.get_in_out_layers("classification", 1, 2, mask_name="mask")
    if kind == "forward":
        layer = bs.layers.Lstm(16, name="Layer")
    else:
        layer = bs.layers.Bidirectional(bs.layers.Lstm(8), name="Layer")
        inp - "mask" >> "mask" - layer
    inp - "default" >> layer >> out
    net = bs.Network.from_layer(out)
    net.initialize("auto")
    trainer = bs.Trainer(bs.training.AdamStepper(0.02), verbose=False)
    trainer.train_scorers = [bs.scorers.Accuracy(mask_name="mask")]
    trainer.add_hook(bs.hooks.StopAfterEpoch(25))
    trainer.train(net, bs.Minibatches(20, default=x, targets=peaks, mask=mask))
    nets[kind] = net
    print(f"{kind:10} {trainer.history[-1]['rolling_training.Accuracy']:.3f} right")

# %%

figure, axes = plt.subplots(2, figsize=(8, 4), sharex=True, layout="constrained")
figure.suptitle("Peaks of a series, and where the networks expect them")
one, length = slice(299, 300), lengths[299]
for ax, (kind, net) in zip(axes, nets.items(), strict=True):
    data = {"default": x[:, one]} | (
        {"mask": mask[:, one]} if kind != "forward" else {}
    )
    probability = net.predict(data)[:length, 0, 1]
    ax.plot(x[:length, 299, 0], "k", label="value")
    ax.plot(np.flatnonzero(peaks[:length, 299, 0]), x[peaks[:, 299, 0], 299, 0], "ko")
    ax.bar(np.arange(length), probability, alpha=0.4, label="probability of a peak")
    ax.set_title(kind)
axes[0].legend(loc="upper right")

"""
Serve a network from threads
============================

Many threads ask one network, while another one goes on training it. Calls take turns,
and each finds the network as if it were alone.
"""

import threading
from concurrent.futures import ThreadPoolExecutor

import matplotlib.pyplot as plt
import numpy as np

import brainstorm as bs

bs.global_rnd.set_seed(1)
rnd = np.random.RandomState(1)
x = rnd.randn(500, 2)
y = (x[:, 0] * x[:, 1] > 0).astype(int)
net = bs.tools.create_net_from_spec("classification", 2, 2, "Ft20")

# %%
# What a request does is one line. Requests may be of any size.

asked = []


def answer(samples):
    """The classes of some samples, and the share that is right."""
    classes = net.predict(samples).argmax(axis=1)
    asked.append(np.mean(classes == (samples[:, 0] * samples[:, 1] > 0)))
    return classes


requests = [rnd.randn(size, 2) for size in rnd.randint(50, 200, size=300)]
fit = dict(epochs=60, batch_size=20, stepper=bs.training.AdamStepper(0.003))
training = threading.Thread(target=bs.Trainer.fit, args=(net, x, y), kwargs=fit)
training.start()
with ThreadPoolExecutor(4) as pool:
    answers = list(pool.map(answer, requests))
training.join()
print(f"{len(answers)} requests, {sum(map(len, answers))} samples")
print(f"right in the end: {np.mean(net.predict(x).argmax(axis=1) == y):.2f}")

# %%
# The answers get better while the network learns:

figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
figure.suptitle("Answers during a training")
ax.plot(asked, ".", markersize=3)
ax.set(xlabel="request", ylabel="share of right answers", ylim=(0, 1.05))

# %%
# For answers at the same time, give each thread a copy, by ``copy.deepcopy(net)``. A
# server that loads ``Network.from_hdf5(name)`` runs no code of the file.

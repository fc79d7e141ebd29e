"""Forks processes that save without end, and kills each of them after a random time.

``python -m tests.robustness.killing_server FILE NUMBER`` prints a line for each kill:
how long the process lived, and what was found in the file then: the number that all its
parameters have. The processes are forks of this one, so that Python starts once.
"""

import os
import random
import signal
import sys
import time

import numpy as np

from brainstorm import layers
from brainstorm.structure.network import Network


def make_network():
    inp = layers.Input({"default": ("T", "B", 100)})
    inp >> layers.FullyConnected(100, name="Hid")
    return Network.from_layer(inp)


def save_without_end(net, path, number, started):
    """Save the parameters number, number + 1, and so on."""
    os.write(started, b"x")
    while True:
        net.initialize(number)
        net.save_as_hdf5(path)
        number += 1


def kill_while_saving(net, path, number, seconds):
    started, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        save_without_end(net, path, number, write_end)
    os.close(write_end)
    os.read(started, 1)
    os.close(started)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def main():
    path, kills = sys.argv[1], int(sys.argv[2])
    rnd = random.Random(0)
    net = make_network()
    net.initialize(0)
    started = time.monotonic()
    for _ in range(10):
        net.save_as_hdf5(path)
    longest = time.monotonic() - started
    found = 0
    for _ in range(kills):
        seconds = rnd.uniform(0, longest)
        kill_while_saving(net, path, found + 1, seconds)
        values = set(np.unique(Network.from_hdf5(path).get("parameters")).tolist())
        (found,) = values
        print(seconds, int(found), flush=True)


if __name__ == "__main__":
    main()

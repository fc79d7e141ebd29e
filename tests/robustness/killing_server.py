"""Forks processes that save without end, and kills each of them in a random moment.

``python -m tests.robustness.killing_server FILE NUMBER`` prints a line for each kill:
how many files the process had saved, and what was found in the file then: the number
that all its parameters have. The processes are forks of this one, so that Python starts
once.
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


def save_without_end(net, path, number, told):
    """Save the parameters number, number + 1, and so on, and tell each time."""
    while True:
        net.initialize(number)
        net.save_as_hdf5(path)
        os.write(told, b"x")
        number += 1


def kill_while_saving(net, path, number, saves, part):
    """Kill a process that has saved so often, in a part of the time of the next one."""
    told, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        save_without_end(net, path, number, write_end)
    os.close(write_end)
    for _ in range(saves):
        began = time.monotonic()
        os.read(told, 1)
    time.sleep(part * (time.monotonic() - began))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(told)


def main():
    path, kills = sys.argv[1], int(sys.argv[2])
    rnd = random.Random(0)
    net = make_network()
    found = 0
    for _ in range(kills):
        saves = rnd.randint(1, 3)
        kill_while_saving(net, path, found + 1, saves, rnd.random())
        values = set(np.unique(Network.from_hdf5(path).get("parameters")).tolist())
        (found,) = values
        print(saves, int(found), flush=True)


if __name__ == "__main__":
    main()

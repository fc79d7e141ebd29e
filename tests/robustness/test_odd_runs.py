"""Trainings under adverse circumstances: what is there stays whole and usable."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading

import h5py
import numpy as np
import pytest

from brainstorm import layers
from brainstorm.data_iterators import Minibatches
from brainstorm.files import atomic_hdf5
from brainstorm.handlers import NumpyHandler
from brainstorm.hooks import (
    Hook,
    SaveCheckpoint,
    SaveLogs,
    SaveNetwork,
    StopAfterEpoch,
    StopOnNan,
    load_logs,
)
from brainstorm.initializers import Gaussian
from brainstorm.structure.network import Network
from brainstorm.training import MomentumStepper, SgdStepper, Trainer
from brainstorm.utils import IteratorValidationError

resource = pytest.importorskip("resource")

RND = np.random.RandomState(0)
DATA = {"default": RND.randn(1, 12, 4), "targets": RND.randint(0, 3, (1, 12, 1))}


def make_network(seed=1, size=5, drop_prob=0.0):
    inp = layers.Input({"default": ("T", "B", 4), "targets": ("T", "B", 1)})
    out = layers.SoftmaxCE(name="Output")
    chain = inp >> layers.FullyConnected(size, name="Hid") >> layers.Dropout(drop_prob)
    chain >> layers.FullyConnected(3, "linear", name="Proj") >> out
    inp - "targets" >> "targets" - out - "loss" >> layers.Loss()
    net = Network.from_layer(out)
    net.initialize(Gaussian(0.3), seed=seed)
    return net


def train(net, *hooks, epochs=2, data=DATA, stepper=None, verbose=False):
    trainer = Trainer(stepper or SgdStepper(0.1), verbose=verbose)
    for hook in (*hooks, StopAfterEpoch(epochs)):
        trainer.add_hook(hook)
    trainer.train(net, Minibatches(4, shuffle=False, **data))
    return trainer


def run_python(*arguments, **variables):
    command = [sys.executable, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- the disk ----------------------------------------------------------------


@contextlib.contextmanager
def full_disk(limit):
    """Let no file grow larger than a limit in bytes."""
    old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old_handler)


@pytest.mark.parametrize("save", [SaveNetwork, SaveLogs, SaveCheckpoint])
def test_a_full_disk(tmp_path, save):
    net, path = make_network(), tmp_path / "file.hdf5"
    train(net, save(path))
    before = path.read_bytes()
    for limit in (0, 100, 1000, 2000):
        with full_disk(limit), pytest.raises(OSError, match="File too large"):
            train(net, save(path))
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == ["file.hdf5"]
    train(net, save(path))
    assert path.read_bytes() != before


def test_a_full_disk_does_not_crash_libhdf5(tmp_path):
    path = tmp_path / "file.hdf5"

    def write():
        with atomic_hdf5(path) as f:
            f["plain"] = np.arange(5000)
            f.create_dataset("packed", data=np.ones(500), compression="gzip")
            for i in range(20):
                f.create_group(f"group{i}")["x"] = i

    write()
    size = path.stat().st_size
    for limit in range(0, size, size // 40):
        with full_disk(limit), pytest.raises(OSError, match="File too large"):
            write()
    write()
    with h5py.File(path) as f:
        assert len(f) == 22
    assert os.listdir(tmp_path) == ["file.hdf5"]


def test_two_trainings_that_write_one_file(tmp_path):
    path = tmp_path / "net.hdf5"
    nets = [make_network(size=20) for _ in range(2)]
    for value, net in enumerate(nets):
        net.initialize(value)
    nets[0].save_as_hdf5(path)

    def save(net):
        for _ in range(30):
            net.save_as_hdf5(path)

    threads = [threading.Thread(target=save, args=[net]) for net in nets]
    for thread in threads:
        thread.start()
    seen = set()
    while any(thread.is_alive() for thread in threads):
        (value,) = set(Network.from_hdf5(path).get("parameters").tolist())
        seen.add(value)
    assert seen <= {0.0, 1.0}
    assert os.listdir(tmp_path) == ["net.hdf5"]


class AtUpdate(Hook):
    def __init__(self, at, action):
        super().__init__(timescale="update")
        self.at, self.action = at, action

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        if update_nr == self.at:
            self.action()


def test_a_data_file_that_is_closed_meanwhile(tmp_path):
    with h5py.File(tmp_path / "data.hdf5", "w") as f:
        for name, array in DATA.items():
            f[name] = array
    f = h5py.File(tmp_path / "data.hdf5")
    net = make_network()
    with pytest.raises(IteratorValidationError, match="its HDF5 file is closed"):
        train(net, AtUpdate(2, f.close), data={n: f[n] for n in DATA})
    with h5py.File(tmp_path / "data.hdf5") as f:
        train(net, data={n: f[n] for n in DATA})


def test_a_folder_that_vanishes(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    net = make_network()
    logs = SaveLogs(folder / "logs.hdf5", timescale="update")

    def remove():
        os.remove(folder / "logs.hdf5")
        folder.rmdir()

    with pytest.raises(FileNotFoundError, match="there is no folder"):
        train(net, logs, AtUpdate(2, remove))
    folder.mkdir()
    trainer = train(net, SaveLogs(folder / "logs.hdf5"))
    assert load_logs(folder / "logs.hdf5") == trainer.logs


# -- numbers -----------------------------------------------------------------


def test_numbers_that_explode_are_named(capsys):
    net = make_network()
    with np.errstate(all="ignore"):
        train(
            net,
            StopOnNan(timescale="update"),
            epochs=100,
            stepper=SgdStepper(1e30),
            verbose=True,
        )
    out = capsys.readouterr().out
    assert "StopOnNan >> Stopping the training. Infinite or NaN: " in out
    assert "parameter W of layer " in out


# -- memory ------------------------------------------------------------------

MANY_UPDATES = """
import ctypes, gc, sys
from brainstorm.data_iterators import DataIterator
from brainstorm.hooks import MonitorLoss
from brainstorm.scorers import Accuracy
from tests.robustness.test_odd_runs import *

warm_up, updates = map(int, sys.argv[1:])

class Endless(DataIterator):
    def __init__(self):
        super().__init__({n: a.shape for n, a in DATA.items()}, None)
        self.rnd = np.random.RandomState(0)

    def __call__(self, handler):
        # Sequences of all lengths and batches of all sizes.
        while True:
            B = self.rnd.randint(1, 13)
            yield {name: array[:, :B] for name, array in DATA.items()}

class Mallinfo(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks"
    _fields_ = [(name, ctypes.c_size_t) for name in [*names.split(), "keepcost"]]

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Mallinfo

class Memory(Hook):

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        if update_nr >= warm_up:
            gc.collect()
            info = mallinfo()
            self.used.append(info.uordblks + info.hblkhd)
        if update_nr >= warm_up + updates:
            raise StopIteration

memory = Memory(timescale="update", interval=1000)
memory.used = []
net = make_network(drop_prob=0.2)
net.output_name = "Output.outputs.predictions"
trainer = Trainer(MomentumStepper(0.01, 0.9), verbose=False)
trainer.train_scorers = [Accuracy()]
trainer.add_hook(MonitorLoss("valid", timescale="update", interval=500))
trainer.add_hook(memory)
trainer.train(net, Endless(), valid=Minibatches(5, **DATA))
print(max(memory.used) - memory.used[0])
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_updates():
    """All of it within one epoch: what is in use, as glibc counts it."""
    if not hasattr(ctypes.CDLL(None), "mallinfo2"):
        pytest.skip("needs glibc 2.33 or newer")
    # The caches that are limited are full by then.
    grown = run_python("-c", MANY_UPDATES, 17_000, 8000, PYTHONMALLOC="malloc")
    assert int(grown) < 2**18


# -- processes and threads ---------------------------------------------------


def train_alone(seed):
    """Train a network that shares nothing; return its parameters."""
    net = make_network(seed, size=40, drop_prob=0.3)
    net.set_handler(NumpyHandler(np.float32, seed=seed))
    train(net, epochs=30, stepper=MomentumStepper(0.1, 0.9))
    return net.get("parameters")


def test_threads_with_a_network_each():
    expected = [train_alone(seed) for seed in range(4)]
    found = [None] * 4

    def run(seed):
        found[seed] = train_alone(seed)

    threads = [threading.Thread(target=run, args=[seed]) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(found, expected)


CHILDREN = """
import multiprocessing, sys, warnings
from tests.robustness.test_odd_runs import *

def go_on(net):
    train(net, epochs=3)
    return net.get("parameters").tolist()

def load_and_go_on(path):
    return go_on(Network.from_hdf5(path))

if __name__ == "__main__":
    path = sys.argv[1]
    warnings.simplefilter("ignore")  # of forks beside the threads of BLAS
    net = make_network(size=100)
    train(net)
    net.save_as_hdf5(path)
    before = net.get("parameters")
    parent, child = multiprocessing.Pipe()
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=lambda: child.send(go_on(net)))
    process.start()
    forked = parent.recv()
    process.join()
    assert process.exitcode == 0
    assert np.array_equal(net.get("parameters"), before)
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(1) as pool:
        (spawned,) = pool.map(load_and_go_on, [path])
    here = go_on(net)
    assert forked == spawned == here
    assert not np.array_equal(here, before)
"""


def test_forked_and_spawned_processes(tmp_path):
    script = tmp_path / "children.py"
    script.write_text(CHILDREN)
    run_python(script, tmp_path / "net.hdf5")

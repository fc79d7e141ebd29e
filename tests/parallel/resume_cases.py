"""Trainings on several ranks that go on from checkpoints; see `on_ranks`."""

import copy
import os
import pickle
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from brainstorm import Network, Trainer, global_rnd, layers, scorers
from brainstorm.data_iterators import AddGaussianNoise, Minibatches, Subsequences
from brainstorm.hooks import (
    Hook,
    MonitorScores,
    SaveBestNetwork,
    SaveCheckpoint,
    SaveNetwork,
    StopAfterEpoch,
)
from brainstorm.training import AdamStepper
from brainstorm.utils import MissingFileError, RankError
from tests.parallel.equal_cases import CLASSES, FEATURES, B, T, data, finished

UPDATES = 9  # of 3 in an epoch


def folder_of(comm):
    return comm.bcast(tempfile.mkdtemp(dir=sys.argv[1]) if comm.rank == 0 else None)


def network():
    inp = layers.Input({"default": ("T", "B", FEATURES), "targets": ("T", "B", 1)})
    out = layers.SoftmaxCE(name="Out")
    hidden = inp >> layers.Dropout(0.3) >> layers.Lstm(5, name="Lstm")
    hidden >> layers.BatchNorm() >> layers.FullyConnected(CLASSES, "linear") >> out
    inp - "targets" >> "targets" - out
    out - "loss" >> layers.Loss()
    return finished(out)


def noisy():
    return AddGaussianNoise(Minibatches(4, **data()), {"default": 0.1})


def pieces():
    return Subsequences(AddGaussianNoise(Minibatches(5, **data()), {"default": 0.1}), 3)


class StopsAt(Hook):
    repeatable = True

    def __init__(self, update_nr):
        super().__init__(timescale="update")
        self.update_nr = update_nr

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        if update_nr >= self.update_nr:
            raise StopIteration


def trainer_for(comm, carry_context, *hooks):
    trainer = Trainer(
        AdamStepper(0.01), verbose=False, comm=comm, carry_context=carry_context
    )
    trainer.train_scorers = [scorers.Accuracy()]
    for hook in hooks:
        trainer.add_hook(hook)
    return trainer


def train(comm, make, file, stops):
    """Train up to the first update to stop at, load, go on to the next, and so on."""
    global_rnd.set_seed(3)
    net, carry = network(), make is pieces
    saver = SaveCheckpoint(str(file), timescale="update")
    trainer = trainer_for(comm, carry, saver, StopsAt(stops[0]))
    trainer.train(net, make(), valid=noisy())
    for stop in stops[1:]:
        global_rnd.set_seed(comm.rank)  # what the file has counts
        hooks = [SaveCheckpoint(str(file), timescale="update"), StopsAt(stop)]
        trainer, net = Trainer.load(file, hooks, comm=comm)
        trainer.train(net, make(), valid=noisy())
    return net.get("parameters"), trainer.logs


def goes_on_exactly(comm):
    """Checkpoints within epochs, at their ends, and within carried sequences."""
    file = Path(folder_of(comm), "checkpoint.hdf5")
    same = []
    for make in (noisy, pieces):
        expected, logs = train(comm, make, file, [UPDATES])
        for stops in ([2, UPDATES], [3, 4, UPDATES]):
            parameters, found = train(comm, make, file, stops)
            same.append(bool(np.array_equal(parameters, expected)) and logs == found)
    return same


def saved_by(comm):
    """Saves for `continued_by`, in a folder that the test knows."""
    file = Path(os.environ["SAVED"], "checkpoint.hdf5")
    train(comm, pieces, file, [5])
    return True


def continued_by(comm):
    """Goes on with a file of another number of ranks."""
    file = Path(os.environ["SAVED"], "checkpoint.hdf5")
    hooks = [SaveCheckpoint(str(file) + str(comm.size)), StopsAt(UPDATES)]
    trainer, net = Trainer.load(file, hooks, comm=comm)
    trainer.train(net, pieces(), valid=noisy())
    parameters = net.get("parameters")
    masks = net.get("Dropout.internals.mask")[:, :1]
    rolling = trainer.logs["rolling_training"]
    return [
        trainer.current_update_nr,
        parameters.tolist(),
        {name: len(values) for name, values in rolling.items()},
        masks.sum().item(),
    ]


class Interrupts(Hook):
    def __init__(self, rank):
        super().__init__(timescale="update")
        self.rank = rank

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        if update_nr == 4 and self.rank == 1:
            os.kill(os.getpid(), signal.SIGINT)


def saves_when_one_is_interrupted(comm):
    file = Path(folder_of(comm), "checkpoint.hdf5")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    saver = SaveCheckpoint(str(file), interval=100)
    hooks = [saver, Interrupts(comm.rank), StopAfterEpoch(3)]
    trainer = trainer_for(comm, False, *hooks)
    try:
        trainer.train(network(), noisy())
    except KeyboardInterrupt:
        loaded, _ = Trainer.load(file, hooks=hooks)
        return loaded.current_update_nr
    return "not interrupted"


class Counts(Hook):
    """Logs something else on each rank, and writes where it may."""

    def __init__(self, rank):
        super().__init__(name="counts")
        self.rank = rank

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        return {"rank": self.rank, "speaks": self.speaks}


def writes_on_the_first(comm):
    """All logs are the same; each rank has a folder, just one gets files."""
    folder = Path(folder_of(comm), str(comm.rank))
    folder.mkdir()
    hooks = [
        Counts(comm.rank),
        MonitorScores("valid", [scorers.Accuracy()], name="valid"),
        SaveNetwork(str(folder / "net.hdf5")),
        SaveBestNetwork("valid.Accuracy", str(folder / "best.hdf5")),
        SaveCheckpoint(str(folder / "checkpoint.hdf5")),
        StopAfterEpoch(2),
    ]
    trainer = trainer_for(comm, False, *hooks)
    net = network()
    trainer.train(net, noisy(), valid=Minibatches(3, shuffle=False, **data()))
    assert copy.deepcopy(trainer).logs == pickle.loads(pickle.dumps(trainer)).logs
    # Afterwards, too, all save together, and load together or not at all.
    file = folder.parent / "afterwards.hdf5"
    trainer.save(file)
    loaded, _ = Trainer.load(file, hooks=hooks, comm=comm)
    assert loaded.current_update_nr == trainer.current_update_nr
    with pytest.raises((MissingFileError, RankError), match="no file"):
        Trainer.load(file if comm.rank == 0 else folder / "none.hdf5", comm=comm)
    files = sorted(path.name for path in folder.iterdir())
    alone = Trainer(AdamStepper(), verbose=False)
    alone.train_scorers = [scorers.Accuracy()]
    valid = Minibatches(3, shuffle=False, **data())
    expected = alone.evaluate(net, valid=valid)["valid"]
    found = {name: values[-1] for name, values in trainer.logs["valid"].items()}
    close = all(abs(found[name] - expected[name]) < 1e-12 for name in expected)
    if comm.rank == 0:
        saved = Network.from_hdf5(folder / "net.hdf5").get("parameters")
        close &= bool(np.array_equal(saved, net.get("parameters")))
    return [files, close, trainer.logs]


def streams(comm):
    """Dropout and noise are others on each rank, the same each time."""
    found = []
    for _ in range(2):
        global_rnd.set_seed(1)
        net = network()
        trainer = trainer_for(comm, False, StopsAt(2))
        rnd = np.random.RandomState(0)
        same = {"default": np.ones((T, 12, FEATURES)), "targets": rnd.randn(T, 12, 1)}
        same["targets"][:] = 1
        batches = Minibatches(12, shuffle=False, **same)
        trainer.train(net, AddGaussianNoise(batches, {"default": 0.1}))
        first = net.get("Input.outputs.default")[0, 0, 0]
        mask = net.get("Dropout.internals.mask")[:, : 12 // comm.size]
        found.append([float(first), mask.ravel().tolist()])
    return found


assert B == 10

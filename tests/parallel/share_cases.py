"""Evaluating in shares, and logs of whole batches; see `on_ranks`."""

import os
import sys
from pathlib import Path

import h5py
import numpy as np

import brainstorm as bs
from brainstorm import Trainer, global_rnd, scorers, tools
from brainstorm.data_iterators import (
    AddGaussianNoise,
    Minibatches,
    Prefetch,
    Subsequences,
)
from brainstorm.data_iterators.holding import Part
from brainstorm.hooks import (
    Hook,
    MonitorLayerDeltas,
    MonitorLayerGradients,
    MonitorLayerInOuts,
    MonitorScores,
    StopAfterEpoch,
)
from brainstorm.parallel import ranks
from brainstorm.training import MomentumStepper, SgdStepper
from brainstorm.value_modifiers import ClipGlobalNorm
from tests.parallel.equal_cases import data, difference, network


def leaves(tree):
    if isinstance(tree, dict):
        return [leaf for value in tree.values() for leaf in leaves(value)]
    return tree if isinstance(tree, list) else [tree]


def evaluated(comm):
    """Losses and scores, on each data set, with scores that need all rows at once."""
    net, found = network(mask=True), []
    items = data(mask=True)
    judges = [scorers.Accuracy(), scorers.RocAuc(), scorers.ConfusionMatrix()]
    for size in (1, 3, 4, 10):
        for iterator in (
            Minibatches(size, shuffle=False, **items),
            Subsequences(Minibatches(size, **items), 3),
        ):
            alone = tools.evaluate(net, iterator, judges)
            together = tools.evaluate(net, iterator, judges, comm=comm)
            assert list(alone) == list(together)
            for name in alone:
                found.append(difference(alone[name], together[name]))
    trainer = Trainer(SgdStepper(), verbose=False, comm=comm)
    trainer.train_scorers = judges[:1]
    alone = tools.evaluate(net, Minibatches(3, **items), judges[:1])
    together = trainer.evaluate(net, valid=Minibatches(3, **items))["valid"]
    return [*found, difference(list(alone.values()), list(together.values()))]


def extracted(comm):
    net, items = network(mask=True), data(mask=True)
    paths = ["Lstm.outputs.default", "Out.outputs.predictions"]
    found = []
    for size in (1, 3, 10):
        for iterator in (
            Minibatches(size, shuffle=False, **items),
            Subsequences(Minibatches(size, shuffle=False, **items), 3),
        ):
            alone = tools.extract(net, iterator, paths)
            together = tools.extract(net, iterator, paths, comm=comm)
            for path in paths:
                assert alone[path].shape == together[path].shape
                found.append(difference(alone[path], together[path]))
    return found


def predicted(comm):
    net, x = network(), data()["default"]
    found = []
    for some in (x, x[:1], x[:, :1], x[0]):
        alone, together = net.predict(some), tools.predict(net, some, 3, comm=comm)
        assert alone.shape == together.shape
        found.append(difference(alone, together))
    return found


def monitored(comm):
    """Statistics of what a training batch leaves are those of the whole batch."""
    logs = []
    for communicator in (None, comm):
        global_rnd.set_seed(1)
        trainer = Trainer(SgdStepper(0.1), verbose=False, comm=communicator)
        for hook in (
            MonitorLayerDeltas("Lstm", timescale="update"),
            MonitorLayerInOuts("Lstm", timescale="update"),
            MonitorLayerGradients("First", timescale="update"),
            MonitorScores("valid", [scorers.Accuracy()], name="valid"),
            MonitorScores("training_data_iter", [], name="again"),
            StopAfterEpoch(2),
        ):
            trainer.add_hook(hook)
        batches = Minibatches(4, shuffle=False, **data())
        trainer.train(network(), batches, valid=Minibatches(3, **data()))
        logs.append(trainer.logs)
    pairs = zip(leaves(logs[0]), leaves(logs[1]), strict=True)
    return [max(difference(a, b) for a, b in pairs)]


class Looks(Hook):
    """Evaluates by itself, on the iterator that it is given."""

    def start(self, net, stepper, verbose, named_data_iters):
        super().start(net, stepper, verbose, named_data_iters)
        self.iterator = named_data_iters["valid"]

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        path = "Out.outputs.predictions"
        loss = tools.evaluate(net, self.iterator)["total_loss"]
        return {
            "loss": loss,
            "sum": tools.extract(net, self.iterator, path)[path].sum(),
        }


def looked_at(comm):
    """What hooks of users compute is of all data, too."""
    logs = []
    for communicator in (None, comm):
        global_rnd.set_seed(1)
        trainer = Trainer(SgdStepper(0.1), verbose=False, comm=communicator)
        trainer.add_hook(Looks())
        trainer.add_hook(StopAfterEpoch(1))
        valid = Minibatches(3, shuffle=False, **data())
        batches = Minibatches(4, shuffle=False, **data())
        trainer.train(network(), batches, valid=valid)
        logs.append(leaves(trainer.logs))
    return [difference(*logs)]


def fitted(comm):
    """`fit` shuffles alike on all ranks, whatever their seeds."""
    rnd = np.random.RandomState(0)
    x, y = rnd.randn(50, 4), rnd.randint(0, 3, 50)
    parameters = []
    for communicator in (None, comm):
        global_rnd.set_seed(1 if communicator is None else 1 + comm.rank)
        net = tools.create_net_from_spec("classification", 4, 3, "F5")
        trainer = Trainer.fit(
            net, x, y, 3, 20, comm=communicator, validation_data=(x, y)
        )
        parameters.append(net.get("parameters"))
    assert len(trainer.logs["validation"]["total_loss"]) == 4
    return [difference(*parameters) / 1e5]  # float32


def profiled(comm):
    """The profile shows the exchange; network, data and seeds stay as they are."""
    net, stepper = network(), SgdStepper(0.1)
    batches = Minibatches(4, **data())
    before = net.get("parameters"), repr(batches.get_state())
    found = tools.profile(net, batches, 8, stepper=stepper, comm=comm, bucket_size=100)
    assert np.array_equal(net.get("parameters"), before[0])
    assert repr(batches.get_state()) == before[1]
    return [operation for _, layer, operation in found.costs if layer == "(network)"]


def handlers(comm):
    """Each handler does on all ranks what it does alone, to its rounding."""
    found = {}
    for kind in os.environ["HANDLERS"].split():
        parameters = []
        for communicator in (None, comm):
            net = network(norm=True)
            net.set_handler(getattr(bs.handlers, kind)())
            net.set_gradient_modifiers(ClipGlobalNorm(0.5))
            trainer = Trainer(
                MomentumStepper(0.1, 0.9), verbose=False, comm=communicator
            )
            trainer.bucket_size = 200
            trainer.add_hook(StopAfterEpoch(2))
            trainer.train(net, Minibatches(4, shuffle=False, **data()))
            parameters.append(net.get("parameters"))
        found[kind] = difference(*parameters)
    return found


def read_devices(comm):
    """The same where MPI says that it reads the memory of GPUs."""
    sent, start_sum = [], ranks.Ranks.start_sum

    def noting(self, array):
        sent.append(type(array).__name__)
        return start_sum(self, array)

    ranks._reads_devices = lambda mpi: True
    ranks.Ranks.start_sum = noting
    return handlers(comm), sent


def threads(comm):
    """Of oneDNN, in a training and after it; ranks share the cores."""
    os.environ.pop("OMP_NUM_THREADS")
    seen, net = [], network()
    handler = bs.handlers.OneDnnHandler()
    net.set_handler(handler)

    def look(epoch_nr, update_nr, net, stepper, logs):
        seen.append(handler.current_session().threads)

    look.timescale = "epoch"
    trainer = Trainer(SgdStepper(0.1), verbose=False, comm=comm)
    trainer.add_hook(look)
    trainer.add_hook(StopAfterEpoch(1))
    before = handler.current_session().threads
    trainer.train(net, Minibatches(4, shuffle=False, **data()))
    after = handler.current_session().threads
    return [before, *seen, after, len(os.sched_getaffinity(0))]


def reads_parts(comm):
    """Each rank reads its part of a file, and augments it, alone."""
    file = Path(sys.argv[1], f"data{comm.size}.hdf5")
    if comm.rank == 0:
        with h5py.File(file, "w") as f:
            for name, values in data().items():
                f[name] = values
    comm.Barrier()
    read, before = [], Part.__getitem__

    def counting(part, piece):
        array = before(part, piece)
        read.append(array.shape[1])
        return array

    Part.__getitem__ = counting
    try:
        with h5py.File(file) as f:
            items = {name: f[name] for name in ("default", "targets")}
            noisy = AddGaussianNoise(Minibatches(4, **items), {"default": 0.1})
            for batches in (noisy, Prefetch(noisy, 2)):
                read.append(0)
                trainer = Trainer(SgdStepper(0.1), verbose=False, comm=comm)
                trainer.add_hook(StopAfterEpoch(1))
                trainer.train(network(), batches)
    finally:
        Part.__getitem__ = before
    second = read.index(0, 1)
    return [sum(read[:second]), sum(read[second:])]

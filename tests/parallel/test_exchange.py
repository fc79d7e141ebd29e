"""Buckets of gradients leave when these are complete; no MPI is needed here."""

import sys

import numpy as np
import pytest

from brainstorm import Trainer, parallel
from brainstorm.data_iterators import (
    AddGaussianNoise,
    DataIterator,
    Minibatches,
    Prefetch,
)
from brainstorm.data_iterators.holding import Share
from brainstorm.parallel.exchange import plan_buckets
from brainstorm.parallel.sharing import SharedIterator, merged
from brainstorm.training import SgdStepper
from tests.structure import loops


class Watcher:
    """Stands in for an exchange; keeps the gradients as they are when they leave."""

    is_active = True

    def __init__(self, net, numbers):
        self.net, self.numbers = net, numbers
        self.left = []

    def buckets(self, order):
        self.order = order
        hub = self.net.parameter_hub
        self.planned = plan_buckets(self.net.layers, hub, order, self.numbers)
        return self.planned

    def begin(self, gradients):
        self.left.append(gradients.copy())

    def finish(self):
        pass


@pytest.mark.parametrize("numbers", [1, 10, 10**6])
@loops.every_kind
def test_gradients_are_complete_when_they_leave(kind, numbers):
    net = loops.network(kind)
    watcher = Watcher(net, numbers)
    net.backpropagation.share(watcher)
    for seed in range(2):  # once recorded, once replayed
        watcher.left.clear()
        loops.run(net, loops.data(3, seed=seed))
        net.backward_pass(all_deltas=False)
        gradients = net.get("gradients")
        for (_, part), left in zip(watcher.planned, watcher.left, strict=True):
            np.testing.assert_array_equal(left, gradients[part])
    sent = np.zeros(len(gradients), int)
    for _, part in watcher.planned:
        sent[part] += 1
    trained = np.zeros(len(gradients), int)
    for part in net.trained_slices:
        trained[part] += 1
    np.testing.assert_array_equal(sent, trained)
    net.backpropagation.share(None)
    loops.run(net, loops.data(3, seed=1))
    net.backward_pass(all_deltas=False)
    np.testing.assert_array_equal(net.get("gradients"), gradients)


def test_small_buckets_leave_while_layers_still_compute():
    net = loops.network(loops.reservoir)
    watcher = Watcher(net, 1)
    planned = plan_buckets(net.layers, net.parameter_hub, list(net.layers)[::-1], 1)
    assert len(planned) > 2
    first, *_, last = [bucket.after for bucket in planned]
    assert 0 < first < last
    assert watcher.numbers == 1


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("total", [1, 2, 5, 8])
def test_shares_of_a_batch(size, total):
    shares = [Share(rank, size) for rank in range(size)]
    parts = [share.cut(slice(20, 20 + total), 20 + total) for share in shares]
    counts = [share.count for share in shares]
    assert sum(counts) == total
    assert max(counts) - min(counts) <= 1
    covered = [
        n
        for share, part in zip(shares, parts, strict=True)
        if share.count
        for n in range(part.start, part.stop)
    ]
    assert covered == list(range(20, 20 + total))
    for share, part in zip(shares, parts, strict=True):
        assert share.start == sum(counts[: share.rank])
        if not share.count:
            assert part == slice(20, 21)


class Ranks:
    """Stands in for several of them."""

    def __init__(self, rank, size):
        self.rank, self.size = rank, size


class Doubles(DataIterator):
    """Of somebody else: it may look at whole batches."""

    def __init__(self, iter):
        super().__init__(iter.data_shapes, iter.length)
        self.iter = iter

    def __call__(self, handler=None):
        for batch in self.iter(handler):
            yield {name: values - values.mean() for name, values in batch.items()}


WRAPPERS = ["ours", "ahead", "own"]


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("wrap", [lambda it: it, Prefetch, Doubles], ids=WRAPPERS)
def test_parts_are_those_of_the_batches(wrap, size):
    x = np.random.RandomState(0).randn(2, 11, 3)
    whole, parts = [], []
    for rank in range(-1, size):
        source = Minibatches(4, x=x)
        source.rnd.set_seed(5)
        iterator = wrap(source)
        if rank < 0:
            whole = [batch["x"] for _ in range(2) for batch in iterator()]
            continue
        shared = SharedIterator(iterator, Ranks(rank, size))
        epochs = [list(shared.pieces()) for _ in range(2)]
        parts.append([piece for pieces in epochs for piece in pieces])
        shared.give_back()
    for batch, pieces in zip(whole, zip(*parts, strict=True), strict=True):
        found = [piece.data["x"] for piece in pieces if piece.count]
        np.testing.assert_array_equal(np.concatenate(found, axis=1), batch)
        assert {piece.total for piece in pieces} == {batch.shape[1]}


def test_the_iterator_goes_on_where_its_parts_have_come_to():
    def make():
        noisy = AddGaussianNoise(Minibatches(4, x=np.zeros((1, 8, 1))), {"x": 1.0})
        noisy.rnd.set_seed(1)
        noisy.iter.rnd.set_seed(2)
        return noisy

    alone, together = make(), make()
    shared = SharedIterator(together, Ranks(0, 1))
    for a, b in zip(alone(), shared(), strict=True):
        np.testing.assert_array_equal(a["x"], b["x"])
    shared.give_back()
    for a, b in zip(alone(), together(), strict=True):
        np.testing.assert_array_equal(a["x"], b["x"])


def test_scores_of_several_ranks():
    parts = [{"a": [(2, 1.0)]}, {}, {"a": [(1, 4.0)], "b": [(1, 5.0)]}]
    assert merged(parts) == {"a": [(2, 1.0), (1, 4.0)], "b": [(1, 5.0)]}


def test_missing_mpi4py(monkeypatch):
    for name in ("mpi4py", "mpi4py.MPI"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"mpi4py.*pip install .*\[mpi\]"):
        parallel.world()
    with pytest.raises(ImportError, match=r"pip install"):
        Trainer(SgdStepper(), comm="all")
    Trainer(SgdStepper())

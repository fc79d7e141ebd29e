"""Prefetch reads ahead, and nobody can tell by the batches."""

import gc
import json
import pickle
import signal
import threading

import h5py
import numpy as np
import pytest

import brainstorm as bs
from brainstorm.data_iterators import (
    AddGaussianNoise,
    DataIterator,
    Flip,
    Minibatches,
    OneHot,
    Prefetch,
    RandomCrop,
    Subsequences,
    Undivided,
)
from brainstorm.describable import create_from_description, get_description
from brainstorm.hooks import Hook, StopAfterEpoch
from brainstorm.randomness import RandomState, global_rnd
from brainstorm.utils import IteratorValidationError

TIMEOUT = 600  # for what should happen at once


def readers():
    return [t for t in threading.enumerate() if t.name == "Prefetch"]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    assert readers() == []
    yield
    assert readers() == []


def settle():
    """Wait until nothing more is read."""
    for thread in readers():
        thread.join(TIMEOUT)


class Source(DataIterator):
    """Notes what it is asked for; `before` is called before a batch is made."""

    def __init__(self, length=5, before=lambda number: None):
        super().__init__({"default": (1, 2, 1)}, length)
        self.made, self.ended = [], []
        self.before = before

    def __call__(self, handler=None):
        try:
            for number in range(self.length):
                self.before(number)
                self.made.append(number)
                yield {"default": np.full((1, 2, 1), float(number))}
        finally:
            self.ended.append(len(self.made))


def numbers(batches):
    return [int(batch["default"][0, 0, 0]) for batch in batches]


def images(B=20):
    return np.random.RandomState(0).uniform(1, 2, (2, B, 6, 7, 3)).astype("float32")


# -- the same batches ----------------------------------------------------------


def augmented(data):
    batches = Minibatches(3, **data)
    return Flip(AddGaussianNoise(RandomCrop(batches, {"default": (3, 4)}), {"more": 1}))


def assert_same(batches, others):
    for batch, other in zip(batches, others, strict=True):
        assert sorted(batch) == sorted(other)
        for name in batch:
            assert batch[name].dtype == other[name].dtype
            np.testing.assert_array_equal(batch[name], other[name])


@pytest.mark.parametrize("depth", [1, 3, 50])
@pytest.mark.parametrize("seed", [1, 2])
def test_batches_are_the_same_in_the_same_order(depth, seed):
    data = {"default": images(), "more": images()}
    global_rnd.set_seed(seed)
    plain = augmented(data)
    global_rnd.set_seed(seed)
    ahead = Prefetch(augmented(data), depth)
    assert (ahead.data_shapes, ahead.length) == (plain.data_shapes, plain.length)
    for _ in range(3):
        states = []
        for batch, other in zip(ahead(), plain(), strict=True):
            assert_same([batch], [other])
            settle()
            states.append(pickle.dumps(ahead.get_state()))
            assert states[-1] == pickle.dumps(plain.get_state())
        assert len(set(states)) == len(states)


def test_seeds_of_what_is_made_later_are_as_without_it():
    def drawn(wrap):
        global_rnd.set_seed(3)
        return Flip(wrap(Minibatches(3, default=images()))).rnd.get_seed()

    assert drawn(Prefetch) == drawn(lambda it: it)


def test_hooks_and_others_may_iterate_meanwhile():
    def run(wrap):
        global_rnd.set_seed(3)
        iterator = wrap(augmented({"default": images(), "more": images()}))
        found = []
        for i, batch in enumerate(iterator()):
            found.append(batch)
            if i % 2:
                found += iterator()
            found.append(next(iterator()))
        return found + list(iterator())

    assert_same(run(Prefetch), run(lambda it: it))


class Wandering(DataIterator):
    """Fills the same array for each batch; how strongly is up to the epoch."""

    def __init__(self, rnd=None):
        super().__init__({"default": (1, 2, 1)}, 4)
        self.epoch = 0
        self.rnd = self.other = rnd or RandomState(5)

    def __call__(self, handler=None):
        array = np.zeros((1, 2, 1))
        self.epoch += 1
        for _ in range(self.length):
            array += self.epoch * self.rnd.normal(size=array.shape)
            array += self.other.normal()
            yield {"default": array}


def test_iterators_of_ones_own_may_fill_the_same_arrays_and_count():
    plain, ahead = Wandering(), Prefetch(OneHot(Wandering(), {}), 2)
    for epoch in (1, 2):
        expected = [batch["default"].copy() for batch in plain()]
        found = []
        for batch in ahead():
            settle()
            found.append(batch["default"])
        np.testing.assert_array_equal(found, expected)
        assert ahead.iter.iter.epoch == plain.epoch == epoch
    assert ahead.iter.iter.rnd is ahead.iter.iter.other


def test_arrays_of_the_librarys_iterators_are_not_copied():
    data = images()
    for batch in Prefetch(Minibatches(3, default=data))():
        assert np.shares_memory(batch["default"], data)


def test_it_goes_on_from_where_an_iteration_was_broken_off():
    def run(wrap):
        global_rnd.set_seed(3)
        iterator = wrap(augmented({"default": images(), "more": images()}))
        batches = iterator()
        found = [next(batches), next(batches)]
        batches.close()
        return found + list(iterator())

    assert_same(run(lambda it: Prefetch(it, 3)), run(lambda it: it))


def test_pieces_say_whether_they_continue():
    def continues(iterator):
        return [iterator.continues for _ in iterator()]

    def pieces(wrap):
        long = np.arange(70.0).reshape(7, 5, 2)
        return Subsequences(wrap(Minibatches(2, shuffle=False, default=long)), 3)

    expected = continues(pieces(lambda it: it))
    assert True in expected
    assert False in expected
    assert continues(Prefetch(pieces(lambda it: it), 4)) == expected
    assert continues(pieces(Prefetch)) == expected
    assert continues(Flip(Prefetch(pieces(lambda it: it)), {})) == expected
    assert Prefetch(Undivided(default=images())).continues is None


# -- ahead ---------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2])
def test_as_many_batches_as_asked_for_are_read_while_one_is_in_use(depth):
    source = Source(length=6)
    batches = Prefetch(source, depth)()
    assert source.made == []
    for number in range(6):
        assert numbers([next(batches)]) == [number]
        settle()
        assert source.made == list(range(min(number + 1 + depth, 6)))
    assert next(batches, None) is None


def test_reading_does_not_wait_for_what_the_batch_is_used_for():
    """The second batch is asked for while the first is in use: else this hangs."""
    asked = threading.Event()
    source = Source(before=lambda number: asked.set() if number == 1 else None)
    for batch in Prefetch(source)():
        assert asked.wait(TIMEOUT), batch


def test_training_does_not_wait_for_the_next_batch():
    """It is only made once the hook after the first update has run."""
    used = threading.Event()

    def before(number):
        if number == 1:
            assert used.wait(TIMEOUT)

    class Use(Hook):
        def __call__(self, epoch_nr, update_nr, net, stepper, logs):
            used.set()

    net, trainer = regression(), trainer_for(1)
    trainer.add_hook(Use(timescale="update"))
    trainer.train(net, Prefetch(Pairs(before=before)))
    assert trainer.current_update_nr == 5


# -- errors and ends -----------------------------------------------------------


class Pairs(Source):
    """The same with targets."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.data_shapes["targets"] = (1, 2, 1)

    def __call__(self, handler=None):
        for batch in super().__call__(handler):
            yield {**batch, "targets": batch["default"]}


def regression():
    net = bs.tools.create_net_from_spec("regression", 1, 1, "L3")
    net.initialize(bs.Gaussian(0.1), seed=1)
    return net


def trainer_for(epochs):
    trainer = bs.Trainer(bs.training.SgdStepper(1e-3), verbose=False)
    trainer.add_hook(StopAfterEpoch(epochs))
    return trainer


class OwnError(Exception):
    pass


def failing(number, at=2):
    if number == at:
        raise OwnError("the disk is on fire")


@pytest.mark.parametrize("depth", [1, 9])
def test_errors_of_the_reader_come_in_their_place(depth):
    batches = Flip(Prefetch(Source(before=failing), depth), {})()
    assert numbers([next(batches), next(batches)]) == [0, 1]
    with pytest.raises(OwnError, match="^the disk is on fire$") as info:
        next(batches)
    assert any(entry.name == "failing" for entry in info.traceback)


@pytest.mark.parametrize("at", [0, 2])
def test_errors_of_the_reader_end_the_training(at):
    trainer = trainer_for(2)
    with pytest.raises(OwnError, match="^the disk is on fire$"):
        trainer.train(regression(), Prefetch(Pairs(before=lambda n: failing(n, at))))
    assert trainer.current_update_nr == at


def test_errors_of_the_library_are_those_of_the_wrapped_iterator():
    labels = np.array([[[0.0], [1.0], [7.0]]])
    iterator = Prefetch(OneHot(Minibatches(1, False, default=labels), {"default": 3}))
    with pytest.raises(IteratorValidationError, match="7"):
        list(iterator())


@pytest.mark.parametrize("wrap", [lambda it: it, lambda it: Flip(Prefetch(it), {})])
def test_a_closed_iteration_ends_the_one_within(wrap):
    source = Source(length=50)
    for end in ("close", "drop"):
        batches = wrap(Prefetch(source, 2))()
        next(batches)
        if end == "close":
            batches.close()
        del batches
        gc.collect()
        assert readers() == []
        assert len(source.ended) == (1 if end == "close" else 2)
        assert source.made[-1] < 8


def test_an_iteration_that_nobody_ends_keeps_no_thread():
    kept = Prefetch(Source(length=50))()
    next(kept)
    settle()
    assert readers() == []


@pytest.mark.parametrize("error", [OwnError, KeyboardInterrupt])
def test_errors_of_hooks_leave_no_thread(error):
    class Stop(Hook):
        def __call__(self, epoch_nr, update_nr, net, stepper, logs):
            raise error("enough")

    trainer = trainer_for(2)
    trainer.add_hook(Stop(timescale="update"))
    with pytest.raises(error, match="enough") as info:
        trainer.train(regression(), Flip(Prefetch(Pairs(50), 3), {}))
    assert readers() == []
    assert info.traceback


def test_hooks_that_stop_leave_no_thread():
    class Stop(Hook):
        def __call__(self, epoch_nr, update_nr, net, stepper, logs):
            if update_nr:
                raise StopIteration("enough")

    trainer, iterator = trainer_for(2), Prefetch(Pairs(50), 3)
    trainer.add_hook(Stop(timescale="update"))
    trainer.train(regression(), iterator)
    assert readers() == []
    assert trainer.current_update_nr == 1


def test_evaluations_that_fail_leave_no_thread():
    with pytest.raises(OwnError) as info:
        bs.tools.evaluate(regression(), Prefetch(Pairs(50)), [Failing()])
    assert info.traceback
    assert readers() == []


class Failing(bs.scorers.Scorer):
    def __call__(self, true_labels, predicted, mask=None):
        raise OwnError("no score")


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals")
def test_ctrl_c_while_a_batch_is_waited_for(ctrl_c):
    go_on, main = threading.Event(), threading.main_thread().ident

    def before(number):
        if number == 1:
            signal.pthread_kill(main, signal.SIGINT)
            assert go_on.wait(TIMEOUT)

    batches = Prefetch(Source(before=before))()
    timer = threading.Timer(0.2, go_on.set)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        assert numbers(batches) == [0]
    timer.join()


def test_one_iteration_is_not_for_two_threads_at_once():
    go_on, asked = threading.Event(), threading.Event()

    def before(number):
        asked.set()
        assert go_on.wait(TIMEOUT)

    batches = Prefetch(Source(before=before))()
    found = []
    other = threading.Thread(target=lambda: found.extend(batches))
    other.start()
    assert asked.wait(TIMEOUT)
    with pytest.raises(ValueError, match="generator already executing"):
        next(batches)
    go_on.set()
    other.join(TIMEOUT)
    assert numbers(found) == [0, 1, 2, 3, 4]


def test_threads_may_iterate_at_the_same_time():
    iterator = Prefetch(Minibatches(3, shuffle=False, default=images()), 2)
    expected, found = list(iterator()), {}
    threads = [
        threading.Thread(target=lambda n=n: found.update({n: list(iterator())}))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    for batches in found.values():
        assert_same(batches, expected)
    assert len(found) == 4


# -- files, descriptions, arguments --------------------------------------------


def test_hdf5_is_read_while_other_files_are_written(tmp_path):
    with h5py.File(tmp_path / "data.hdf5", "w") as f:
        f["default"] = np.random.RandomState(1).randn(1, 50, 1)
        f["targets"] = f["default"][()] * 2
    net, trainer = regression(), trainer_for(1)
    trainer.add_hook(bs.hooks.SaveNetwork(str(tmp_path / "n.hdf5"), timescale="update"))
    with h5py.File(tmp_path / "data.hdf5", "r") as f:
        trainer.train(net, Prefetch(Minibatches(10, **f), 2))
    assert trainer.current_update_nr == 5
    bs.Network.from_hdf5(str(tmp_path / "n.hdf5"))


def test_a_file_closed_meanwhile_is_named(tmp_path):
    with h5py.File(tmp_path / "data.hdf5", "w") as f:
        f["default"] = np.zeros((1, 20, 1))
        batches = Prefetch(Minibatches(2, **f))()
        next(batches)
        settle()
    with pytest.raises(IteratorValidationError, match="'default': its HDF5 file is cl"):
        list(batches)


def test_descriptions_and_copies():
    iterator = Prefetch(Flip(Countdown(3), {}), depth=2)
    again = create_from_description(json.loads(json.dumps(get_description(iterator))))
    assert (type(again), again.depth) == (Prefetch, 2)
    assert len(list(again())) == 3
    for some in (iterator, pickle.loads(pickle.dumps(iterator))):
        assert numbers(some()) == [3, 2, 1]
    assert repr(iterator) == f"Prefetch(iter={iterator.iter!r}, depth=2)"


class Countdown(DataIterator):
    def __init__(self, start):
        super().__init__({"default": (1, 4, 1)}, start)
        self.start = start

    def __call__(self, handler=None):
        for number in range(self.start, 0, -1):
            yield {"default": np.full((1, 4, 1), number)}


@pytest.mark.parametrize("depth", [0, -1, 1.5, None, "2"])
def test_depths_are_whole_numbers(depth):
    with pytest.raises(IteratorValidationError, match="depth: expected an integer >="):
        Prefetch(Source(), depth)


def test_it_wraps_an_iterator():
    with pytest.raises(IteratorValidationError, match="iter: expected a DataIterator"):
        Prefetch([{"default": np.zeros((1, 2, 1))}])


def test_states_of_others_are_refused():
    iterator = Prefetch(Minibatches(2, default=np.zeros((1, 4, 1))))
    with pytest.raises(IteratorValidationError, match="state of a Minibatches"):
        iterator.set_state({"iter": {}})

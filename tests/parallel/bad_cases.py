"""What goes wrong on one rank ends all of them; see `on_ranks`."""

import os
import signal

import numpy as np

from brainstorm import Trainer, layers
from brainstorm.data_iterators import DataIterator, Minibatches
from brainstorm.handlers import NumpyHandler
from brainstorm.hooks import Hook, StopAfterEpoch, StopOnNan
from brainstorm.training import AdamStepper, SgdStepper
from tests.parallel.equal_cases import data, finished, network


def train(comm, net=None, iterator=None, stepper=None, hooks=()):
    trainer = Trainer(stepper or SgdStepper(0.1), verbose=False, comm=comm)
    for hook in hooks:
        trainer.add_hook(hook)
    trainer.add_hook(StopAfterEpoch(2))
    net = network() if net is None else net
    before = net.get("parameters")
    iterator = Minibatches(4, shuffle=False, **data()) if iterator is None else iterator
    try:
        trainer.train(net, iterator)
    except Exception as error:
        if trainer.current_update_nr == 0:
            # Not even rank 0's parameters have come.
            assert np.array_equal(net.get("parameters"), before)
        raise type(error)(f"{error} ({trainer.current_update_nr})") from error
    return trainer.current_update_nr


def last(comm):
    return comm.rank == comm.size - 1


def other_architecture(comm):
    return train(comm, network(norm=False if last(comm) else None))


def other_size(comm):
    inp = layers.Input({"default": ("T", "B", 4), "targets": ("T", "B", 1)})
    out = layers.SoftmaxCE(name="Out")
    inp >> layers.FullyConnected(4 if last(comm) else 3, name="Last") >> out
    inp - "targets" >> "targets" - out
    out - "loss" >> layers.Loss()
    return train(comm, finished(out))


def other_handler(comm):
    class OtherHandler(NumpyHandler):
        pass

    net = network()
    if last(comm):
        net.set_handler(OtherHandler(np.float64))
    return train(comm, net)


def other_dtype(comm):
    net = network()
    if last(comm):
        net.set_handler(NumpyHandler(np.float32))
    return train(comm, net)


def other_names(comm):
    items = data()
    if last(comm):
        items["labels"] = items.pop("targets")
    return train(comm, iterator=Minibatches(4, **items))


def other_stepper(comm):
    return train(comm, stepper=AdamStepper() if last(comm) else SgdStepper())


def other_rate(comm):
    return train(comm, stepper=SgdStepper(0.2 if last(comm) else 0.1))


def other_hooks(comm):
    return train(comm, hooks=[StopOnNan()] if last(comm) else [])


def other_version(comm):
    from brainstorm.training import team

    before = team.__version__
    team.__version__ = "0.7" if last(comm) else before
    try:
        return train(comm)
    finally:
        team.__version__ = before


def other_number_of_batches(comm):
    return train(comm, iterator=Minibatches(5 if last(comm) else 4, **data()))


def less_data(comm):
    items = data()
    if last(comm):
        items = {name: values[:, :8] for name, values in items.items()}
    return train(comm, iterator=Minibatches(4, **items))


def fewer_sequences_than_ranks(comm):
    return train(comm, iterator=Minibatches(1, **data()))


class Batches(DataIterator):
    """Nobody knows how many it has."""

    def __init__(self, count, size=4):
        items = data()
        super().__init__({name: v.shape for name, v in items.items()}, None)
        self.batch = {name: values[:, :size] for name, values in items.items()}
        self.count = count

    def __call__(self, handler=None):
        for _ in range(self.count):
            yield self.batch


def runs_out(comm):
    return train(comm, iterator=Batches(2 if last(comm) else 3))


def other_batches(comm):
    return train(comm, iterator=Batches(3, 3 if last(comm) else 4))


def no_batches_on_one(comm):
    return train(comm, iterator=Batches(0 if last(comm) else 3))


def no_data_iterator(comm):
    return train(comm, iterator=data() if last(comm) else Batches(3))


def no_communicator(comm):
    return train(comm="four")


class Calls(Hook):
    def __init__(self, function):
        super().__init__(timescale="update")
        self.function = function

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        return self.function(update_nr)


def hook_fails(comm):
    def fail(update_nr):
        if update_nr == 3 and last(comm):
            raise OSError("the disk is full")

    return train(comm, hooks=[Calls(fail)])


def hook_stops(comm):
    def stop(update_nr):
        if update_nr == 4 and last(comm):
            raise StopIteration("enough")

    return train(comm, hooks=[Calls(stop)])


def interrupted(comm):
    def interrupt(update_nr):
        if update_nr == 2 and last(comm):
            os.kill(os.getpid(), signal.SIGINT)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    return train(comm, hooks=[Calls(interrupt)])


def not_a_number(comm):
    items = data()
    items["default"][0, 4 + 3] = np.nan  # the last sequence of the second batch
    batches = Minibatches(4, shuffle=False, **items)
    return train(comm, iterator=batches, hooks=[StopOnNan(timescale="update")])


def pass_fails(comm):
    items = data()
    items["targets"][0, 4 + 3] = 7
    return train(comm, iterator=Minibatches(4, shuffle=False, **items))


def iterator_fails(comm):
    class Fails(Batches):
        def __call__(self, handler=None):
            yield self.batch
            if last(comm):
                raise OSError("no such file")
            yield self.batch

    return train(comm, iterator=Fails(2))


def goes_on_afterwards(comm):
    return train(comm)

"""Several threads on one network."""

import os
import signal
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import brainstorm as bs
from brainstorm.data_iterators import Minibatches, Subsequences, Undivided
from brainstorm.handlers import NumpyHandler
from brainstorm.hooks import Hook, MonitorLoss, StopAfterEpoch
from brainstorm.structure.turns import Turns
from brainstorm.tools import create_net_from_spec, evaluate, extract
from brainstorm.training import SgdStepper, Trainer
from brainstorm.utils import NetworkValidationError, ValidationError

PATH = "Output.outputs.predictions"


@pytest.fixture(autouse=True)
def _frequent_switches():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def network(spec="L5", handler=None):
    net = create_net_from_spec("regression", 3, 2, spec)
    net.set_handler(handler or NumpyHandler(np.float64))
    net.initialize(bs.Gaussian(0.5), seed=1)
    return net


def data(T, B, seed=0):
    rnd = np.random.RandomState(seed)
    return {"default": rnd.randn(T, B, 3), "targets": rnd.randn(T, B, 2)}


def in_threads(function, arguments, nr_threads=8):
    with ThreadPoolExecutor(nr_threads) as pool:
        return list(pool.map(function, arguments, timeout=600))


@pytest.mark.parametrize("handler", ["numpy", "default"])
def test_each_thread_gets_its_own_answers(handler):
    net = network(handler=bs.handlers.default_handler if handler == "default" else None)
    batches = [data(1 + i % 3, 1 + i % 5, i) for i in range(60)]
    tasks = {
        "predict": lambda d: net.predict(d["default"], batch_size=2),
        "evaluate": lambda d: evaluate(net, Minibatches(2, **d))["total_loss"],
        "pieces": lambda d: evaluate(net, Subsequences(Undivided(**d), 1))[
            "total_loss"
        ],
        "extract": lambda d: extract(net, Undivided(**d), [PATH])[PATH],
    }

    def answer(i):
        return list(tasks.values())[i % 4](batches[i])

    expected = [answer(i) for i in range(60)]
    for got, wanted in zip(in_threads(answer, range(60)), expected, strict=True):
        assert np.shape(got) == np.shape(wanted)
        np.testing.assert_allclose(got, wanted, rtol=1e-5)


class Recorder(Hook):
    """Keeps the parameters after each update."""

    def __init__(self):
        super().__init__(timescale="update")
        self.seen = []

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        self.seen.append(net.get("parameters"))


class WaitForOthers(Hook):
    """Goes on when somebody wants to use the network."""

    def __init__(self):
        super().__init__(timescale="update")

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        while not net.lock._queue.locked():
            time.sleep(0)


def train(net, carry_context=False, *hooks):
    trainer = Trainer(SgdStepper(0.05), verbose=False, carry_context=carry_context)
    recorder = Recorder()
    for hook in (recorder, *hooks):
        trainer.add_hook(hook)
    trainer.add_hook(MonitorLoss("valid", timescale="update"))
    trainer.add_hook(StopAfterEpoch(4))
    batches = Subsequences(Minibatches(4, shuffle=False, **data(6, 8)), 2)
    trainer.train(net, batches, valid=Undivided(**data(3, 5, 1)))
    return recorder.seen, trainer.logs


@pytest.mark.parametrize("carry_context", [False, True])
def test_a_network_is_used_while_it_is_trained(carry_context):
    expected, logs = train(network(), carry_context)
    net, done = network(), threading.Event()
    x = data(2, 3, 5)["default"]
    seen = []

    def use():
        while not done.is_set():
            seen.append(net.predict(x))

    users = [threading.Thread(target=use) for _ in range(3)]
    for user in users:
        user.start()
    try:
        got, got_logs = train(net, carry_context, WaitForOthers())
    finally:
        done.set()
        for user in users:
            user.join()
    np.testing.assert_array_equal(got, expected)
    assert got_logs == logs
    # Each prediction is that of the network between two updates, and they had turns.
    possible = []
    for parameters in expected:
        net.handler.set_from_numpy(net.buffer.parameters, parameters)
        possible.append(net.predict(x))
    distances = np.abs(np.array(seen)[:, None] - np.array(possible)).max((2, 3, 4))
    assert (distances.min(axis=1) < 1e-12).all()
    assert len(set(distances.argmin(axis=1).tolist())) > len(possible) // 2


def test_a_trainer_does_one_training_at_a_time():
    net, trainer = network(), Trainer(SgdStepper(), verbose=False)
    batches = Undivided(**data(1, 2))

    class Again(Hook):
        def __call__(self, epoch_nr, update_nr, net, stepper, logs):
            with pytest.raises(ValidationError, match="training already"):
                trainer.train(net, batches)
            with pytest.raises(ValidationError, match="training already"):
                in_threads(lambda _: trainer.train(network(), batches), [0], 1)

    trainer.add_hook(Again())
    trainer.add_hook(StopAfterEpoch(1))
    trainer.train(net, batches)
    trainer.hooks["StopAfterEpoch"].max_epochs = 2
    trainer.train(net, batches)
    assert trainer.current_update_nr == 2


def test_steps_without_the_lock_refuse_the_data_of_others():
    net, x = network(), data(2, 3)
    proceed, finish = threading.Event(), threading.Event()

    def other():
        net.provide_external_data(data(1, 9, 4))
        proceed.set()
        finish.wait(600)

    net.provide_external_data(x)
    net.forward_pass()
    thread = threading.Thread(target=other, name="the other one")
    thread.start()
    proceed.wait(600)
    try:
        for step in (
            net.forward_pass,
            net.backward_pass,
            net.get_loss_values,
            net.get_context,
            lambda: net.get_input("default"),
            lambda: net.get(PATH),
            lambda: net.get("gradients"),
        ):
            with pytest.raises(NetworkValidationError, match=r"'the other one'.*lock:"):
                step()
        assert net.get("parameters").shape == net.buffer.parameters.shape
        net.provide_external_data(x)
        net.forward_pass()
        assert net.get(PATH).shape == (2, 3, 2)
    finally:
        finish.set()
        thread.join()


def test_what_a_finished_thread_has_left_can_be_read():
    net = network()
    net.provide_external_data(data(2, 3))
    thread = threading.Thread(target=train, args=(net,))
    thread.start()
    thread.join()
    assert net.get(PATH).shape == (3, 5, 2)  # the validation data


def test_steps_with_the_lock_belong_together():
    net = network()
    batches = [data(1 + i % 3, 1 + i % 4, i) for i in range(40)]

    def gradients(d):
        with net.lock:
            net.provide_external_data(d)
            net.forward_pass(training_pass=True)
            net.backward_pass()
            return net.get("gradients"), net.get(PATH)

    expected = [gradients(d) for d in batches]
    for got, wanted in zip(in_threads(gradients, batches), expected, strict=True):
        np.testing.assert_array_equal(got[0], wanted[0])
        np.testing.assert_array_equal(got[1], wanted[1])


def test_one_that_keeps_the_lock_long_gives_way():
    lock, order = Turns(), []

    def visit():
        with lock:
            order.append("visitor")

    visitor = threading.Thread(target=visit)
    with lock:
        visitor.start()
        with lock:
            while not lock._queue.locked():
                pass
            lock.give_way()  # held twice: not now
            order.append("owner")
        lock.give_way()
        order.append("owner again")
    visitor.join()
    assert order == ["owner", "visitor", "owner again"]


def test_a_thread_with_the_number_of_one_that_is_gone_is_another():
    net = network()
    proceed, finish = threading.Event(), threading.Event()

    def stay():
        net.provide_external_data(data(1, 4))
        proceed.set()
        finish.wait(600)

    net.provide_external_data(data(1, 2))
    first = threading.Thread(target=net.provide_external_data, args=(data(1, 3),))
    first.start()
    first.join()
    second = threading.Thread(target=stay)  # systems like to give the number again
    second.start()
    proceed.wait(600)
    try:
        with pytest.raises(NetworkValidationError, match="other data"):
            net.forward_pass()
    finally:
        finish.set()
        second.join()


def test_ctrl_c_while_giving_way(monkeypatch):
    lock, visited = Turns(), threading.Event()

    def visit():
        with lock:
            visited.set()

    def interrupted():
        visited.wait(600)
        raise KeyboardInterrupt

    visitor = threading.Thread(target=visit)
    with lock:
        visitor.start()
        while not lock._queue.locked():
            pass
        monkeypatch.setattr(Turns, "__enter__", lambda self: interrupted())
        with pytest.raises(KeyboardInterrupt):
            lock.give_way()
    visitor.join()
    monkeypatch.undo()
    with lock:
        assert lock._depth == 1


def test_errors_let_go_of_the_lock():
    net = network()
    with pytest.raises(NetworkValidationError, match="'default'.*got \\(1, 2, 7\\)"):
        net.predict(np.zeros((1, 2, 7)))
    (predictions,) = in_threads(net.predict, [np.zeros((1, 2, 3))], 1)
    assert predictions.shape == (1, 2, 2)


def in_a_fork(function):
    """What a forked process thinks of it, which is ended if it hangs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forks beside threads
        child = os.fork()
    if not child:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(600)
        try:
            result = function()
        finally:
            os._exit(0 if result else 1)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_does_not_wait_for_threads_that_it_has_not():
    """One has the network while another one waits for it."""
    net, has_it, finish = network(), threading.Event(), threading.Event()
    x = np.ones((2, 3))
    expected = net.predict(x)

    def keep():
        with net.lock:
            net.provide_external_data({"default": np.zeros((5, 1, 3))}, False)
            has_it.set()
            finish.wait(600)

    keeper = threading.Thread(target=keep)
    keeper.start()
    has_it.wait(600)
    waiting = threading.Thread(target=net.predict, args=(x,))
    waiting.start()
    try:
        while not net.lock._queue.locked():
            pass
        assert in_a_fork(lambda: np.array_equal(net.predict(x), expected))
    finally:
        finish.set()
        keeper.join()
        waiting.join()
    assert np.array_equal(net.predict(x), expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_who_forks_in_its_turn_keeps_it():
    net = network()
    with net.lock:

        def others_wait():
            thread = threading.Thread(target=net.predict, args=(np.ones((2, 3)),))
            thread.start()
            while not net.lock._queue.locked():
                pass
            net.predict(np.zeros((1, 3)))
            net.lock.give_way()
            thread.join()
            return net.lock._depth == 1

        assert in_a_fork(others_wait)

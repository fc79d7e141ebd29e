"""Kills ranks, and has them fail at random.

``python -m tests.parallel.faults 50 300`` kills 50 times and does 300 random runs.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from brainstorm import Trainer, global_rnd
from brainstorm.data_iterators import AddGaussianNoise, Minibatches
from brainstorm.hooks import (
    Hook,
    MonitorLoss,
    SaveCheckpoint,
    StopAfterEpoch,
    StopOnNan,
)
from brainstorm.training import AdamStepper, SgdStepper
from tests.parallel import equal_cases
from tests.parallel.launching import ROOT, command, environment, on_ranks
from tests.parallel.resume_cases import network, noisy

NAME = "tests.parallel.faults"  # also if run as a script
EPOCHS, UPDATES = 8, 24


# -- killing -------------------------------------------------------------------


class Kills(Hook):
    """Ends this process after an update, or a moment later."""

    def __init__(self, update_nr, delay):
        super().__init__(timescale="update")
        self.update_nr, self.delay = update_nr, delay

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        if update_nr == self.update_nr:
            if not self.delay:
                os.kill(os.getpid(), signal.SIGKILL)
            # Python waits for it where the training is over before.
            kill = threading.Timer(self.delay, os.kill, (os.getpid(), signal.SIGKILL))
            kill.start()


def train_or_go_on(comm, file, kill):
    rank, update_nr, delay = kill
    global_rnd.set_seed(3)
    hooks = [SaveCheckpoint(str(file), timescale="update"), StopAfterEpoch(EPOCHS)]
    if file.exists():
        trainer, net = Trainer.load(file, hooks, comm=comm)
    else:
        net = network()
        trainer = Trainer(AdamStepper(0.01), verbose=False, comm=comm)
        for hook in hooks:
            trainer.add_hook(hook)
    if rank == comm.rank:
        kills = Kills(update_nr, delay)
        kills.priority = 9  # no hook of the training, or it would be in the file
        before = trainer.stepper.run

        def run():
            before()
            kills(0, trainer.current_update_nr + 1, net, None, {})

        trainer.stepper.run = run
    trainer.train(net, noisy())
    if comm.rank == 0:
        np.save(file.with_suffix(".npy"), net.get("parameters"))


def launch(size, file, kill=(-1, 0, 0.0)):
    run = command(size, "-m", NAME, "train", file, json.dumps(kill))
    began = time.monotonic()
    done = subprocess.run(
        run,
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        timeout=600,
        check=False,
    )
    return done, time.monotonic() - began


def kill_at_random(folder, seed):
    """Kill a rank once, go on, and compare with a training that nobody disturbed."""
    rnd = random.Random(seed)
    size = rnd.choice([2, 2, 3, 4])
    calm = Path(folder, f"calm{size}.hdf5")
    if not calm.with_suffix(".npy").exists():
        done, _ = launch(size, calm)
        assert done.returncode == 0, done.stderr
    file = Path(folder, f"killed{seed}.hdf5")
    delay = rnd.choice([0.0, rnd.uniform(0, 0.02)])
    kill = rnd.randrange(size), rnd.randint(1, UPDATES - 1), delay
    done, seconds = launch(size, file, kill)
    assert done.returncode != 0, kill
    done, _ = launch(size, file)
    assert done.returncode == 0, (kill, done.stderr)
    expected = np.load(calm.with_suffix(".npy"))
    assert np.array_equal(np.load(file.with_suffix(".npy")), expected), kill
    return seconds


# -- failing -------------------------------------------------------------------

FAULTS = [
    *("none", "none", "hook", "stop", "interrupt", "nan", "target", "iterator", "late"),
    *("start", "end", "monitor"),
]


class Fails(Hook):
    def __init__(self, update_nr, action):
        super().__init__(timescale="update")
        self.update_nr, self.action = update_nr, action

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        if update_nr == self.update_nr:
            self.action()

    def start(self, *args):
        super().start(*args)
        if self.update_nr == -1:
            self.action()

    def stop(self):
        if self.update_nr == -2:
            self.action()


class Breaks(Minibatches):
    breaks_at = None

    def __call__(self, handler=None):
        for i, batch in enumerate(super().__call__(handler)):
            if i == self.breaks_at:
                raise OSError("gone")
            yield batch


def fail():
    raise OSError("failed")


def stop():
    raise StopIteration("stopped")


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def random_run(comm, seed):
    """One training, which a random fault on a random rank may end."""
    rnd = random.Random(seed)
    fault, culprit = rnd.choice(FAULTS), rnd.randrange(comm.size)
    when, here = rnd.randint(1, 6), comm.rank == culprit
    items = equal_cases.data()
    if fault == "nan":
        items["default"][0, rnd.randrange(equal_cases.B)] = np.nan
    if fault == "target":
        items["targets"][0, rnd.randrange(equal_cases.B)] = 9
    kinds = [Minibatches, Breaks] if fault == "none" else [Minibatches]
    kind = Breaks if fault == "iterator" else rnd.choice(kinds)
    data = kind(rnd.choice([4, 5, 7]), **items)
    breaks_at = rnd.randint(0, 1)  # all ranks draw the same
    if fault == "iterator" and here:
        data.breaks_at = breaks_at
    if rnd.random() < 0.5:
        data = AddGaussianNoise(data, {"default": 0.1})
    stepper = rnd.choice([SgdStepper, AdamStepper])()
    size = rnd.choice([50, 500, 2**22])
    trainer = Trainer(stepper, verbose=False, comm=comm, bucket_size=size)
    trainer.add_hook(StopAfterEpoch(3))
    trainer.add_hook(StopOnNan(timescale="update"))
    valid = Breaks(5, shuffle=False, **equal_cases.data())
    if fault == "monitor" and here:
        valid.breaks_at = 1
    if rnd.random() < 0.5 or fault == "monitor":
        trainer.add_hook(MonitorLoss("valid"))
    actions = {"hook": fail, "stop": stop, "interrupt": interrupt, "late": time.sleep}
    action = actions.get(fault, fail)
    if fault == "late":
        action = lambda: time.sleep(0.3)  # noqa: E731
    if fault in ("hook", "stop", "interrupt", "late"):
        trainer.add_hook(Fails(when, action if here else lambda: None))
    if fault in ("start", "end"):
        number = {"start": -1, "end": -2}[fault]
        trainer.add_hook(Fails(number, fail if here else lambda: None))
    norm = rnd.choice([None, False, True])
    net = equal_cases.network(norm=norm, recurrent=rnd.random() < 0.5)
    try:
        trainer.train(net, data, valid=valid)
        outcome = "done"
    except BaseException as error:
        outcome = type(error).__name__
    return (
        fault,
        culprit,
        outcome,
        trainer.current_update_nr,
        float(net.get("parameters").sum()),
    )


def check(fault, culprit, size, outcomes):
    """Check how a run has ended on all ranks."""
    kinds = [outcome for outcome, *_ in outcomes]
    numbers = {nr for _, nr, _ in outcomes}
    assert len(numbers) == 1, (fault, outcomes)
    if fault in ("none", "late", "stop", "nan"):
        assert kinds == ["done"] * size, (fault, outcomes)
        assert len({repr(total) for *_, total in outcomes}) == 1, (fault, outcomes)
        return
    own = {"interrupt": "KeyboardInterrupt", "target": "HandlerError"}.get(
        fault, "OSError"
    )
    failed = [i for i, kind in enumerate(kinds) if kind == own]
    assert len(failed) == 1, (fault, outcomes)
    assert fault == "target" or failed == [culprit], (fault, outcomes)
    others = [kind for kind in kinds if kind != own]
    assert others == ["RankError"] * (size - 1), (fault, outcomes)


def many_runs(comm):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    first, count = map(int, os.environ["RUNS"].split())
    return [random_run(comm, seed) for seed in range(first, first + count)]


def fail_at_random(size, first, count):
    """Do random runs on some ranks, the seeds of which are given."""
    results = on_ranks(size, NAME, "many_runs", RUNS=f"{first} {count}")["many_runs"]
    for runs in zip(*results, strict=True):
        fault, culprit = runs[0][:2]
        check(fault, culprit, size, [run[2:] for run in runs])


def main(kills, runs):
    with tempfile.TemporaryDirectory() as folder:
        seconds = [kill_at_random(folder, seed) for seed in range(kills)]
    if seconds:
        print(f"{kills} kills; the others ended within {max(seconds):.1f} s")
    each = 25
    for first in range(0, runs, each):
        size = first // each % 4 + 1
        fail_at_random(size, first, min(each, runs - first))
        print(f"{min(first + each, runs)} runs, the last ones on {size} ranks")


if __name__ == "__main__":
    if sys.argv[1] == "train":
        from mpi4py import MPI

        train_or_go_on(MPI.COMM_WORLD, Path(sys.argv[2]), json.loads(sys.argv[3]))
    else:
        main(*map(int, sys.argv[1:]))

import json
import os
import shutil
import signal
import subprocess
import sys
import threading

import h5py
import numpy as np
import pytest

from brainstorm import layers, training
from brainstorm.data_iterators import (
    AddGaussianNoise,
    AddSaltNPepper,
    Flip,
    Minibatches,
    RandomCrop,
)
from brainstorm.handlers import NumpyHandler
from brainstorm.hooks import (
    EarlyStopper,
    Hook,
    ModifyStepperAttribute,
    MonitorLoss,
    MonitorScores,
    SaveBestNetwork,
    SaveCheckpoint,
    StopAfterEpoch,
)
from brainstorm.initializers import Gaussian
from brainstorm.randomness import global_rnd
from brainstorm.scorers import Accuracy, Scorer
from brainstorm.structure.network import Network
from brainstorm.training import Exponential, SgdStepper, Trainer
from brainstorm.utils import (
    FileFormatError,
    IteratorValidationError,
    MissingFileError,
    ValidationError,
    get_inheritors,
)
from brainstorm.value_modifiers import ConstrainL2Norm, FreezeValues, L2Decay

NR_BATCHES = 4
SEED = 1  # no training of these is stopped before its last epoch
DATA = {
    "default": np.random.RandomState(0).randn(2, 10, 5, 5, 1).astype(np.float32),
    "targets": np.random.RandomState(1).randint(0, 3, (2, 10, 1)).astype(np.float32),
}
# Online steppers, which fit linear layers to targets, are tested beside them.
STEPPERS = sorted(
    (
        c
        for c in get_inheritors(training.TrainingStepper)
        if c.__name__ in dir(training) and "online" not in c.__module__
    ),
    key=lambda c: c.__name__,
)


def made(stepper_class):
    if stepper_class is training.GradientAccumulation:
        return stepper_class(training.SgdStepper(0.1), 2)
    return stepper_class()


@pytest.fixture(autouse=True)
def _seeded():
    global_rnd.set_seed(SEED)


class WorstLoss(Scorer):
    """A scorer that needs all batches."""

    def __call__(self, true_labels, predicted, mask=None):
        return float(predicted.max())

    @staticmethod
    def aggregate(errors):
        return max(score for _, score in errors)


class Crash(Hook):
    """Fails at an update, before the checkpoint of that update is written."""

    def __init__(self, at):
        super().__init__(timescale="update")
        self.at = at

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        if update_nr == self.at:
            raise ZeroDivisionError


class Constant(Hook):
    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        return 1.0


class Copier(Hook):
    """Copies each checkpoint, once it has been written."""

    def __init__(self, filename):
        super().__init__()
        self.filename = os.fspath(filename)

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        pass

    def finish_round(self, trainer):
        if trainer.current_update_nr:
            shutil.copy(self.filename, f"{self.filename}.{trainer.current_update_nr}")


def make_network():
    inp = layers.Input({"default": ("T", "B", 4, 4, 1), "targets": ("T", "B", 1)})
    out = layers.SoftmaxCE(name="Output")
    chain = inp >> layers.Dropout(0.2) >> layers.Recurrent(6) >> layers.BatchNorm()
    chain >> layers.FullyConnected(3, "linear", name="Proj") >> out
    inp - "targets" >> "targets" - out - "loss" >> layers.Loss()
    net = Network.from_layer(out)
    net.output_name = "Output.outputs.predictions"
    net.initialize(Gaussian(0.3))
    net.set_weight_modifiers(
        Proj={"W": ConstrainL2Norm(1.0)}, Recurrent={"bias": FreezeValues()}
    )
    net.set_gradient_modifiers(Proj={"W": L2Decay(0.01)})
    return net


def make_iterators():
    batches = RandomCrop(Minibatches(3, **DATA), {"default": (4, 4)})
    noisy = AddSaltNPepper(
        AddGaussianNoise(Flip(batches), {"default": 0.1}), {"default": 0.1}
    )
    return noisy, {"valid": RandomCrop(Minibatches(5, **DATA), {"default": (4, 4)})}


def make_trainer(*more_hooks, stepper=None, epochs=3, **kwargs):
    trainer = Trainer(stepper or SgdStepper(0.1), verbose=False)
    trainer.train_scorers = [Accuracy(), WorstLoss()]
    for hook in (
        *more_hooks,
        MonitorScores("valid", [Accuracy()], name="often", timescale="update"),
        # Runs the training data while an epoch goes through them.
        MonitorLoss("training_data_iter", name="same", timescale="update", interval=3),
        MonitorLoss("valid", name="seldom", interval=2),
        EarlyStopper("often.total_loss", 7, timescale="update"),
        SaveBestNetwork("rolling_training.total_loss", criterion="min"),
        StopAfterEpoch(epochs),
    ):
        trainer.add_hook(hook)
    if hasattr(trainer.stepper, "learning_rate"):
        schedule = Exponential(trainer.stepper.learning_rate, 0.95)
        trainer.add_hook(ModifyStepperAttribute(schedule, timescale="update"))
    return trainer


def train(trainer, net=None):
    net = net or make_network()
    training_data, others = make_iterators()
    trainer.train(net, training_data, **others)
    return net


def assert_equal_trainings(trainer, net, expected_trainer, expected_net):
    np.testing.assert_array_equal(net.get("parameters"), expected_net.get("parameters"))
    assert trainer.logs == expected_trainer.logs
    assert trainer.current_epoch_nr == expected_trainer.current_epoch_nr
    assert trainer.current_update_nr == expected_trainer.current_update_nr
    for name, hook in trainer.hooks.items():
        expected = expected_trainer.hooks[name].get_state()
        np.testing.assert_equal(hook.get_state(), expected)
    stepper, expected = (
        trainer.stepper.get_state(),
        expected_trainer.stepper.get_state(),
    )
    np.testing.assert_equal(stepper, expected)
    assert global_rnd.randint(10**9) == expected_trainer.next_number


def uninterrupted(**kwargs):
    global_rnd.set_seed(SEED)
    trainer = make_trainer(**kwargs)
    net = train(trainer)
    trainer.next_number = global_rnd.randint(10**9)
    return trainer, net


@pytest.mark.parametrize(
    "stepper_class",
    [
        pytest.param(c, marks=[] if "Adam" in c.__name__ else pytest.mark.slow)
        for c in STEPPERS
    ],
    ids=lambda c: c.__name__,
)
def test_resumed_equals_uninterrupted_at_any_update(stepper_class, tmp_path):
    expected, expected_net = uninterrupted(stepper=made(stepper_class))
    assert expected.current_update_nr == 3 * NR_BATCHES
    path = tmp_path / "training.hdf5"
    saver, copier = SaveCheckpoint(path, timescale="update"), Copier(path)
    global_rnd.set_seed(SEED)
    trainer = make_trainer(saver, copier, stepper=made(stepper_class))
    expected.hooks |= {"SaveCheckpoint": saver, "Copier": copier}
    net = train(trainer)
    trainer.hooks.pop("Copier")
    assert_equal_trainings(trainer, net, expected, expected_net)
    for nr in range(1, expected.current_update_nr):
        global_rnd.set_seed(1000 + nr)
        trainer, net = Trainer.load(f"{path}.{nr}")
        assert trainer.current_update_nr == nr
        trainer.hooks.pop("Copier")
        trainer.hooks["SaveCheckpoint"].interval = 100  # writing takes its time
        train(trainer, net)
        assert_equal_trainings(trainer, net, expected, expected_net)


def test_resuming_again_and_again(tmp_path):
    expected, expected_net = uninterrupted()
    path = tmp_path / "training.hdf5"
    global_rnd.set_seed(SEED)
    trainer, net = make_trainer(SaveCheckpoint(path, timescale="update")), None
    for nr in range(2, expected.current_update_nr + 1):
        trainer.add_hook(Crash(nr))
        with pytest.raises(ZeroDivisionError):
            train(trainer, net)
        trainer, net = Trainer.load(path)
        assert trainer.current_update_nr == nr - 1
        del trainer.hooks["Crash"]
    train(trainer, net)
    del trainer.hooks["SaveCheckpoint"]
    assert_equal_trainings(trainer, net, expected, expected_net)


@pytest.mark.parametrize("at", [1, 2, 5, 6])
def test_a_hook_that_ended_the_epoch_ends_it_again(at, tmp_path):
    """Early stopping in the middle of an epoch still ends it as usual."""
    path = tmp_path / "training.hdf5"
    saver, copier = SaveCheckpoint(path, timescale="update"), Copier(path)

    def make(*more):
        global_rnd.set_seed(SEED)
        stopper = EarlyStopper("Constant", 6, name="six", timescale="update")
        return make_trainer(*more, Constant(timescale="update"), stopper)

    expected = make(saver, copier)
    expected_net = train(expected)
    assert expected.current_update_nr == 6
    assert len(expected.logs["rolling_training"]["total_loss"]) == 2
    expected.next_number = global_rnd.randint(10**9)
    trainer, net = Trainer.load(f"{path}.{at}")
    train(trainer, net)
    assert_equal_trainings(trainer, net, expected, expected_net)


# -- fresh processes ---------------------------------------------------------

PROGRAM = """
import os, signal, sys
import numpy as np
from tests.training.test_checkpoints import *

path, at = sys.argv[1], int(sys.argv[2])

class Kill(Hook):
    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        if update_nr == at:
            os.kill(os.getpid(), signal.SIGKILL)

stepper = training.NesterovStepper(0.1, 0.9)
if os.path.exists(path):
    trainer, net = Trainer.load(path)
    del trainer.hooks["Kill"]
else:
    global_rnd.set_seed(SEED)
    saver = SaveCheckpoint(path, timescale="update")
    trainer, net = make_trainer(saver, stepper=stepper), None
    trainer.add_hook(Kill(timescale="update"))
net = train(trainer, net)
print(net.get("parameters").tobytes().hex(), trainer.logs, global_rnd.randint(10**9))
"""


def run_program(path, at):
    command = [sys.executable, "-c", PROGRAM, str(path), str(at)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_killed_processes_go_on_in_fresh_ones(tmp_path):
    whole = run_program(tmp_path / "whole.hdf5", -1)
    assert whole.returncode == 0, whole.stderr
    for at in (3, 9):
        path = tmp_path / f"{at}.hdf5"
        assert run_program(path, at).returncode == -signal.SIGKILL
        assert run_program(path, at).stdout == whole.stdout


# -- Ctrl-C ------------------------------------------------------------------


class PressCtrlC(Hook):
    def __init__(self, at, times=1):
        super().__init__(timescale="update")
        self.at = at
        self.times = times

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        if update_nr == self.at:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)
        return update_nr


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("at", [2, 4, 7])
def test_ctrl_c_saves_after_the_round(at, tmp_path, capsys):
    expected, expected_net = uninterrupted()
    path = tmp_path / "training.hdf5"
    before = signal.getsignal(signal.SIGINT)
    global_rnd.set_seed(SEED)
    trainer = make_trainer(PressCtrlC(at), SaveCheckpoint(path))
    with pytest.raises(KeyboardInterrupt):
        train(trainer)
    assert signal.getsignal(signal.SIGINT) is before
    assert f"saved to {path}" in capsys.readouterr().out
    loaded, net = Trainer.load(path)
    train(loaded, net)
    assert loaded.logs.pop("PressCtrlC") == list(range(13))
    for name in ("PressCtrlC", "SaveCheckpoint"):
        del loaded.hooks[name]
    assert_equal_trainings(loaded, net, expected, expected_net)
    # The trainer itself stays usable: it goes on with the next epoch.
    epoch_nr = trainer.current_epoch_nr
    del trainer.hooks["EarlyStopper"]
    train(trainer, trainer._net)
    assert trainer.current_epoch_nr == max(epoch_nr, 3)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_twice_interrupts_at_once(tmp_path):
    path = tmp_path / "training.hdf5"
    trainer = make_trainer(PressCtrlC(2, times=2), SaveCheckpoint(path))
    with pytest.raises(KeyboardInterrupt):
        train(trainer)
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_before_the_first_update(tmp_path, capsys):
    trainer = make_trainer(PressCtrlC(0), SaveCheckpoint(tmp_path / "training.hdf5"))
    with pytest.raises(KeyboardInterrupt):
        train(trainer)
    assert os.listdir(tmp_path) == []
    assert "nothing to save so far" in capsys.readouterr().out


def test_checkpoints_in_a_thread(tmp_path):
    path = tmp_path / "training.hdf5"
    trainer = make_trainer(SaveCheckpoint(path))
    thread = threading.Thread(target=train, args=[trainer])
    thread.start()
    thread.join()
    assert Trainer.load(path)[0].logs == trainer.logs


def test_ignored_ctrl_c_stays_ignored(tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        path = tmp_path / "training.hdf5"
        trainer = make_trainer(PressCtrlC(2), SaveCheckpoint(path))
        train(trainer)
        assert trainer.current_update_nr == 3 * NR_BATCHES
    finally:
        signal.signal(signal.SIGINT, before)


# -- what is kept ------------------------------------------------------------


def test_epoch_checkpoints(tmp_path):
    expected, expected_net = uninterrupted(epochs=4)
    path = tmp_path / "training.hdf5"
    global_rnd.set_seed(SEED)
    trainer = make_trainer(SaveCheckpoint(path, interval=2), epochs=3)
    train(trainer)
    trainer, net = Trainer.load(path)
    assert trainer.current_epoch_nr == 2
    trainer.hooks["StopAfterEpoch"].max_epochs = 4
    train(trainer, net)
    del trainer.hooks["SaveCheckpoint"]
    assert_equal_trainings(trainer, net, expected, expected_net)


def test_saving_what_has_just_been_loaded(tmp_path):
    expected, expected_net = uninterrupted(epochs=3)
    first, second = tmp_path / "first.hdf5", tmp_path / "second.hdf5"
    global_rnd.set_seed(SEED)
    train(make_trainer(SaveCheckpoint(first, timescale="update", interval=5)))
    trainer, net = Trainer.load(first)
    del trainer.hooks["SaveCheckpoint"]
    trainer.save(second)
    global_rnd.set_seed(5)
    trainer, net = Trainer.load(second)
    net.handler.fill_gaussian(0.0, 1.0, net.handler.zeros((5,)))
    train(trainer, net)
    assert_equal_trainings(trainer, net, expected, expected_net)


def test_loading_leaves_the_global_random_numbers_alone(tmp_path):
    trainer = make_trainer()
    train(trainer)
    trainer.save(tmp_path / "training.hdf5")
    numbers = []
    for _ in range(2):
        global_rnd.set_seed(3)
        trainer, net = Trainer.load(tmp_path / "training.hdf5")
        numbers.append(global_rnd.randint(10**9))
        train(trainer, net)
    assert numbers[0] == numbers[1]


class LogsOfAllKinds(Hook):
    LOG = {
        "number": np.float32(0.1),
        "text": "\xe4",
        "nan": np.nan,
        "array": np.arange(3),
        "flag": True,
        "nothing": {"here": None},
        "list": [1, [2.5, "a"]],
    }

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        return self.LOG


def test_logs_and_results_of_all_kinds(tmp_path):
    path = tmp_path / "training.hdf5"
    trainer = make_trainer(LogsOfAllKinds())
    net = train(trainer)
    _, others = make_iterators()
    trainer.evaluate(net, test=others["valid"])
    trainer.save(path)
    loaded, _ = Trainer.load(path)
    np.testing.assert_equal(loaded.logs, trainer.logs)
    np.testing.assert_equal(loaded.results, trainer.results)
    assert [type(s) for s in loaded.train_scorers] == [Accuracy, WorstLoss]
    assert loaded.verbose is False
    with h5py.File(path) as f:
        assert bytes(f.attrs["format"]) == b"Checkpoint file v1.0"
        assert set(f) == {"network", "training", "arrays"}


@pytest.mark.parametrize("log", [object(), {1: 2}, {"@array": "0"}, 1j, b"bytes"])
def test_logs_that_can_not_be_saved_leave_the_old_file(log, tmp_path):
    path = tmp_path / "training.hdf5"
    trainer = make_trainer()
    train(trainer)
    trainer.save(path)
    before = path.read_bytes()
    trainer.logs["mine"] = [log]
    with pytest.raises(ValidationError, match=r"\['logs'\]\['mine'\]\[0\]"):
        trainer.save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["training.hdf5"]


def test_another_handler_takes_over(tmp_path):
    class OtherHandler(NumpyHandler):
        pass

    path = tmp_path / "training.hdf5"
    trainer = make_trainer(SaveCheckpoint(path, timescale="update", interval=5))
    train(trainer)
    trainer, net = Trainer.load(path)
    net.set_handler(OtherHandler(np.float64))
    train(trainer, net)
    assert trainer.current_update_nr == 3 * NR_BATCHES


# -- hooks that the file does not describe -----------------------------------


def test_hooks_can_be_given_instead(tmp_path):
    path = tmp_path / "training.hdf5"

    def make_hooks():
        return [
            ModifyStepperAttribute(
                lambda epoch_nr, update_nr, *_: 0.1 / (1 + update_nr)
            ),
            EarlyStopper("rolling_training.total_loss", 99),
            StopAfterEpoch(2),
        ]

    trainer = Trainer(SgdStepper(), verbose=False)
    for hook in make_hooks():
        trainer.add_hook(hook)
    train(trainer)
    trainer.save(path)
    with pytest.raises(ValidationError, match="not describe the hooks 'ModifyStepper"):
        Trainer.load(path)
    with pytest.raises(ValidationError, match="'StopAfterEpoch', got 'StopAfterEpoch'"):
        Trainer.load(path, hooks=[StopAfterEpoch(3)])
    given = make_hooks()
    loaded, _ = Trainer.load(path, hooks=given)
    assert list(loaded.hooks.values()) == given
    assert given[1].seen == 2
    assert given[1].best_so_far == trainer.hooks["EarlyStopper"].best_so_far
    others = [StopAfterEpoch(3, name=name) for name in loaded.hooks]
    with pytest.raises(FileFormatError, match="EarlyStopper: the state consists of"):
        Trainer.load(path, hooks=others)


# -- errors ------------------------------------------------------------------


def test_nothing_to_save(tmp_path):
    with pytest.raises(ValidationError, match="not trained a network so far"):
        make_trainer().save(tmp_path / "training.hdf5")
    assert os.listdir(tmp_path) == []


def test_files_that_are_no_checkpoints(tmp_path):
    with pytest.raises(MissingFileError):
        Trainer.load(tmp_path / "missing.hdf5")
    make_network().save_as_hdf5(tmp_path / "net.hdf5")
    with pytest.raises(FileFormatError, match="is not a 'Checkpoint file"):
        Trainer.load(tmp_path / "net.hdf5")
    trainer = make_trainer(SaveCheckpoint(tmp_path / "no" / "file"))
    with pytest.raises(MissingFileError, match="SaveCheckpoint can not write"):
        train(trainer)


def test_other_data_than_before(tmp_path):
    path = tmp_path / "training.hdf5"
    trainer = make_trainer(SaveCheckpoint(path, timescale="update", interval=11))
    expected = train(trainer)
    trainer, net = Trainer.load(path)
    _, others = make_iterators()
    few = Minibatches(8, **{**DATA, "default": DATA["default"][:, :, :4, :4]})
    with pytest.raises(IteratorValidationError, match="state of a Minibatches"):
        trainer.train(net, few, **others)
    iterators = [AddSaltNPepper, AddGaussianNoise, Flip]
    for wrap in reversed(iterators):
        few = wrap(few, {"default": 0.1})
    with pytest.raises(IteratorValidationError, match="expected the state of a"):
        trainer.train(net, few, **others)
    few = Minibatches(8, **DATA)
    for wrap, argument in (
        (RandomCrop, (4, 4)),
        (Flip, 0.5),
        (AddGaussianNoise, 0.1),
        (AddSaltNPepper, 0.1),
    ):
        few = wrap(few, {"default": argument})
    with pytest.raises(IteratorValidationError, match="provides 2 batches, but 3"):
        trainer.train(net, few, **others)
    train(trainer, net)
    np.testing.assert_array_equal(net.get("parameters"), expected.get("parameters"))


def change_training(path, change):
    with h5py.File(path, "r+") as f:
        training = json.loads(f["training"][()])
        change(training)
        del f["training"]
        f["training"] = np.bytes_(json.dumps(training).encode())


NETWORK = {"@type": "Network", "architecture": {}}


@pytest.fixture(scope="module")
def whole_checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "training.hdf5"
    trainer = Trainer(training.MomentumStepper(), verbose=False)
    saver = SaveCheckpoint(path, timescale="update", interval=5)
    for hook in (saver, StopAfterEpoch(2)):
        trainer.add_hook(hook)
    train(trainer)
    Trainer.load(path)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("verbose"), "expected a dict of 'carry_context', 'hooks'"),
        (
            lambda t: t.update(code="import os"),
            "expected a dict of 'carry_context', 'hooks'",
        ),
        (lambda t: t.update(stepper=NETWORK), "a Network is out of place here"),
        (lambda t: t.update(stepper={"@type": "os.system"}), "unknown @type 'os.sys"),
        (lambda t: t.update(stepper={}), "description of a TrainingStepper"),
        (lambda t: t["stepper"].update(net=1), "unexpected members 'net'"),
        (lambda t: t.update(train_scorers=[NETWORK]), "out of place"),
        (lambda t: t.update(train_scorers=[1]), "description of a Scorer"),
        (lambda t: t["hooks"][0].__setitem__(1, NETWORK), "out of place"),
        (lambda t: t["hooks"][0].__setitem__(0, "other"), "states are those of other"),
        (lambda t: t["hooks"][0][1].update(at="x"), "unexpected members 'at'"),
        (lambda t: t["hooks"].append(["x"]), "can not read"),
        (lambda t: t["state"].update(epoch_nr=-1), "negative counts"),
        (lambda t: t["state"].update(update_nr=2.5), "'update_nr'"),
        (lambda t: t["state"].update(update_nr=True), "'update_nr'"),
        (lambda t: t["state"].update(logs={"a": 1}), "the log 'a'"),
        (lambda t: t["state"].update(stepper={}), "arrays without use"),
        (lambda t: t["state"]["stepper"].update(v={}), "consists of 'velocity'"),
        (lambda t: t["state"]["epoch"].update(nr_batches=0), "can not stand at 0"),
        (lambda t: t["state"]["epoch"].update(code=1), "code"),
        (lambda t: t["state"]["handler"].clear(), "not a random state of a"),
        (lambda t: t["state"].update({"global": ["MT19937"]}), "can not read"),
        (lambda t: t["state"].pop("global"), "expected a dict of 'context', 'data'"),
    ],
)
def test_damaged_checkpoints_are_refused(change, message, tmp_path, whole_checkpoint):
    path = shutil.copy(whole_checkpoint, tmp_path)
    change_training(path, change)
    with pytest.raises(FileFormatError, match=message):
        Trainer.load(path)


@pytest.mark.parametrize("rate", [-0.1, float("nan"), "fast"])
def test_steppers_that_could_not_be_loaded_are_not_saved(net, batches, tmp_path, rate):
    path = tmp_path / "training.hdf5"
    trainer = Trainer(SgdStepper(0.1), verbose=False)
    trainer.add_hook(StopAfterEpoch(1))
    trainer.train(net, batches)
    trainer.save(path)
    trainer.stepper.learning_rate = rate
    with pytest.raises(ValidationError, match="not save a SgdStepper .*learning_rate"):
        trainer.save(path)
    loaded, _ = Trainer.load(path)
    assert loaded.stepper.learning_rate == 0.1

"""Trainings go on exactly, whatever iterators and hooks draw or run the network."""

import json
import pickle

import h5py
import numpy as np
import pytest

from brainstorm import layers
from brainstorm.data_iterators import (
    AddGaussianNoise,
    AddSaltNPepper,
    DataIterator,
    DeltaEncoding,
    Flip,
    Minibatches,
    MultiHot,
    OneHot,
    Online,
    Pad,
    Prefetch,
    RandomCrop,
    RateEncoding,
    Subsequences,
    Undivided,
)
from brainstorm.handlers import NumpyHandler
from brainstorm.hooks import (
    EarlyStopper,
    Hook,
    ModifyStepperAttribute,
    MonitorLayerDeltas,
    MonitorLayerGradients,
    MonitorLayerInOuts,
    MonitorLayerParameters,
    MonitorLoss,
    MonitorScores,
    SaveBestNetwork,
    StopAfterEpoch,
)
from brainstorm.initializers import Gaussian
from brainstorm.randomness import RandomState, global_rnd
from brainstorm.scorers import Accuracy
from brainstorm.structure.network import Network
from brainstorm.training import Exponential, MomentumStepper, Trainer
from brainstorm.training.resuming import restore, state_of
from brainstorm.training.utils import run_network

SOURCES = {
    "undivided": Undivided,
    "online": Online,
    "minibatches": lambda **data: Minibatches(2, **data),
}


class OwnNoise(DataIterator):
    """An iterator as a user would write it."""

    def __init__(self, iter):
        super().__init__(iter.data_shapes, iter.length)
        self.iter = iter
        self.rnd = global_rnd.create_random_state()

    def __call__(self, handler=None):
        rnd = self.start_stream()
        for batch in self.iter(handler):
            noise = rnd.uniform(size=batch["default"].shape)
            self.rnd = rnd
            yield {**batch, "default": batch["default"] + noise}


class OldNoise(OwnNoise):
    """As it was written for 0.5: with one stream for all iterations."""

    def __call__(self, handler=None):
        for batch in self.iter(handler):
            noise = self.rnd.uniform(size=batch["default"].shape)
            yield {**batch, "default": batch["default"] + noise}


CHANGES = {
    "noise": lambda it: AddGaussianNoise(it, {"default": 0.1}),
    "pepper": lambda it: AddSaltNPepper(it, {"default": 0.2}),
    "flip": Flip,
    "pad": lambda it: Pad(it, {"default": 0}),
    "crop": lambda it: RandomCrop(Pad(it, {"default": 1}), {"default": (2, 2)}),
    "rate": lambda it: RateEncoding(it, 1),
    "delta": lambda it: DeltaEncoding(it, 0.2, off_spikes=True),
    "pieces": lambda it: Subsequences(it, 2),
    "own": OwnNoise,
    "old": OldNoise,
    "prefetch": lambda it: Prefetch(it, 2),
    "nothing": lambda it: it,
}
ENCODINGS = ["rate", "delta"]
ALL = ["crop", "flip", "noise", "pepper", "own", "old"]
NESTINGS = {
    **{
        f"{change} {source}": [source, change]
        for change in CHANGES
        for source in SOURCES
    },
    **{f"pieces of {n}": ["minibatches", n, "pieces"] for n in (*ALL, *ENCODINGS)},
    **{f"{n} of pieces": ["minibatches", "pieces", n] for n in (*ALL, *ENCODINGS)},
    "all": ["minibatches", *ALL],
    "pieces of all": ["minibatches", *ALL, "pieces"],
    "all of pieces": ["minibatches", "pieces", *ALL],
    "pieces among all": ["minibatches", "crop", "noise", "pieces", "flip", "own"],
    "prefetch of all": ["minibatches", *ALL, "prefetch"],
    "prefetch of pieces": ["minibatches", "noise", "pieces", "flip", "prefetch"],
    "prefetch everywhere": [
        *("minibatches", "prefetch", "noise", "prefetch", "pieces", "prefetch", "own"),
        "prefetch",
    ],
    "pieces of pieces": ["online", "noise", "pieces", "pepper", "pieces", "flip"],
}


def make_iterators(nesting):
    rnd = np.random.RandomState(0)
    mask = np.arange(5)[:, None, None] < rnd.randint(3, 6, (1, 4, 1))
    data = {
        "default": rnd.rand(5, 4, 2, 2, 1),
        "targets": rnd.randint(0, 3, (5, 4, 1)),
        "tags": rnd.randint(0, 3, (5, 4, 2)),
        "mask": mask.astype(float),
    }
    source, *changes = nesting
    iterator = source = SOURCES[source](**data)
    for change in changes:
        iterator = CHANGES[change](iterator)
    iterator = MultiHot(OneHot(iterator, {"targets": 3}), {"tags": 3})
    same = MultiHot(OneHot(source, {"targets": 3}), {"tags": 3})
    return iterator, same


class Disturber(Hook):
    """Draws wherever one can, and runs the network on a part of the data."""

    def __init__(self):
        super().__init__(timescale="update")
        self.iterator = None

    __undescribed__ = {"iterator"}

    def start(self, net, stepper, verbose, named_data_iters):
        self.iterator = named_data_iters["training_data_iter"]

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        for nr in run_network(net, self.iterator):
            if nr == update_nr % 3:
                break
        net.forward_pass(training_pass=True)
        drawn = [net.rnd.rand(), global_rnd.rand(), net.handler.rnd.rand()]
        return {**net.get_loss_values(), "drawn": sum(drawn)}


def make_network():
    inp = layers.Input(
        {
            "default": ("T", "B", 2, 2, 1),
            "targets": ("T", "B", 3),
            "tags": ("T", "B", 3),
            "mask": ("T", "B", 1),
        }
    )
    out, mask = layers.SigmoidCE(name="Output"), layers.Mask()
    hidden = inp >> layers.Dropout(0.2) >> layers.Recurrent(4, name="R")
    hidden >> layers.BatchNorm() >> layers.FullyConnected(3, "linear") >> out
    inp - "targets" >> "targets" - out - "loss" >> mask >> layers.Loss()
    inp - "tags" >> layers.Loss(name="Tags")
    inp - "mask" >> "mask" - mask
    net = Network.from_layer(out)
    net.output_name = "Output.outputs.predictions"
    net.set_handler(NumpyHandler(np.float64, seed=3))
    net.initialize(Gaussian(0.3), seed=1)
    return net


def make_trainer(carry_context, saver):
    trainer = Trainer(MomentumStepper(0.1, 0.5), False, carry_context)
    trainer.train_scorers = [Accuracy()]
    for hook in (
        MonitorLayerDeltas("R", timescale="update"),
        MonitorLayerGradients("R", timescale="update"),
        MonitorLayerInOuts("R", timescale="update"),
        MonitorLayerParameters("R", timescale="update"),
        MonitorLoss("training_data_iter", timescale="update", name="loss"),
        MonitorScores("same", [Accuracy()], timescale="update", interval=2),
        Disturber(),
        MonitorScores("training_data_iter", [Accuracy()], name="each_epoch"),
        ModifyStepperAttribute(Exponential(0.1, 0.9), timescale="update"),
        SaveBestNetwork("loss.total_loss", criterion="min"),
        EarlyStopper("each_epoch.total_loss", patience=50, criterion="min"),
        StopAfterEpoch(2),
        saver,
    ):
        trainer.add_hook(hook)
    return trainer


class Saver(Hook):
    """Saves the training after each round of an update, each time to another file."""

    def __init__(self, folder=None):
        super().__init__()
        self.folder = folder
        self.files = []

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        pass

    def finish_round(self, trainer):
        if self.folder and trainer.current_update_nr:
            self.files.append(self.folder / f"{len(self.files)}.hdf5")
            trainer.save(self.files[-1])


QUICK = "pieces among all", "pieces of pieces", "own online"


@pytest.mark.parametrize(
    "nesting",
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NESTINGS],
)
def test_it_goes_on_exactly(nesting, tmp_path):
    parts = NESTINGS[nesting]
    global_rnd.set_seed(5)
    net, trainer = make_network(), make_trainer("pieces" in parts, Saver(tmp_path))
    iterator, same = make_iterators(parts)
    trainer.train(net, iterator, same=same)
    expected, nr_updates = net.get("parameters"), trainer.current_update_nr
    files = trainer.hooks["Saver"].files
    assert len(files) > nr_updates
    for file in files:
        hooks = make_trainer(False, Saver()).hooks.values()
        resumed, resumed_net = Trainer.load(file, hooks)
        global_rnd.set_seed(99)
        iterator, same = make_iterators(parts)
        resumed.train(resumed_net, iterator, same=same)
        assert resumed.current_update_nr == nr_updates
        np.testing.assert_array_equal(resumed_net.get("parameters"), expected)
        assert resumed.logs == trainer.logs


def train(parts, saver=None):
    global_rnd.set_seed(5)
    net, trainer = make_network(), make_trainer("pieces" in parts, saver or Saver())
    iterator, same = make_iterators(parts)
    trainer.train(net, iterator, same=same)
    return net, trainer, iterator


@pytest.mark.parametrize(
    "nesting",
    [
        "prefetch of pieces",
        pytest.param("prefetch everywhere", marks=pytest.mark.slow),
    ],
)
def test_prefetching_changes_nothing(nesting, tmp_path):
    with_it = NESTINGS[nesting]
    without = [part for part in with_it if part != "prefetch"]
    saver = Saver(tmp_path)
    net, trainer, iterator = train(without, saver)
    same_net, same_trainer, prefetching = train(with_it)
    np.testing.assert_array_equal(same_net.get("parameters"), net.get("parameters"))
    assert same_trainer.logs == trainer.logs
    first, second = (pickle.dumps(it.get_state()) for it in (iterator, prefetching))
    assert first == second
    # Trainings go on with it that were saved without.
    for file in saver.files[::4]:
        hooks = make_trainer(False, Saver()).hooks.values()
        resumed, resumed_net = Trainer.load(file, hooks)
        global_rnd.set_seed(99)
        iterator, same = make_iterators(with_it)
        resumed.train(resumed_net, iterator, same=same)
        np.testing.assert_array_equal(
            resumed_net.get("parameters"), net.get("parameters")
        )
        assert resumed.logs == trainer.logs


def test_sums_of_the_first_checkpoints(tmp_path):
    """Within an epoch they had pairs (sum, weight), where now there are others."""

    def make(saver):
        trainer = Trainer(MomentumStepper(0.1, 0.5), verbose=False)
        trainer.train_scorers = [Accuracy()]
        for hook in (StopAfterEpoch(1), saver):
            trainer.add_hook(hook)
        return trainer

    global_rnd.set_seed(5)
    net, trainer = make_network(), make(Saver(tmp_path))
    trainer.train(net, make_iterators(["minibatches"])[0])
    file = trainer.hooks["Saver"].files[0]
    with h5py.File(file, "r+") as f:
        training = json.loads(f["training"][()])
        epoch = training["state"]["epoch"]
        assert epoch.pop("weight_first") is True
        for name, pairs in epoch["scores"].items():
            is_loss = name != "Accuracy"
            epoch["scores"][name] = [[v * w if is_loss else v, w] for w, v in pairs]
        del f["training"]
        f["training"] = np.bytes_(json.dumps(training).encode())
    resumed, resumed_net = Trainer.load(file, make(Saver()).hooks.values())
    resumed.train(resumed_net, make_iterators(["minibatches"])[0])
    for name, values in trainer.logs["rolling_training"].items():
        assert resumed.logs["rolling_training"][name] == pytest.approx(values)


# -- the walk over all that has a state ---------------------------------------


def test_states_are_those_of_all_objects_by_their_paths():
    first, second, third = RandomState(1), RandomState(2), RandomState(3)
    tree = {"a": {"W": [first, abs]}, "": second, "b": "text", "c": [[third]]}
    states = state_of(tree)
    assert list(states) == ["a.W.0", "", "c.0.0"]
    expected = [one.randn(3).tolist() for one in (first, second, third)]
    restore(tree, states)
    assert [one.randn(3).tolist() for one in (first, second, third)] == expected


def test_what_has_no_state_any_more_or_not_yet_is_left_alone():
    new, kept = RandomState(1), RandomState(2)
    states = {"kept": kept.get_state(), "gone": {"x": 1}}
    expected = kept.randn(3).tolist(), RandomState(1).randn(3).tolist()
    restore({"kept": kept, "gone": [], "new": new}, states)
    assert (kept.randn(3).tolist(), new.randn(3).tolist()) == expected
    assert state_of(object()) == {}
    restore(object(), {})

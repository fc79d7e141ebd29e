from types import SimpleNamespace

import numpy as np
import pytest

from brainstorm import hooks
from brainstorm.describable import create_from_description, get_description
from brainstorm.hooks.base_hook import Hook, get_log
from brainstorm.scorers import Accuracy
from brainstorm.training import Linear
from brainstorm.utils import ValidationError, get_inheritors

EXAMPLES = [
    hooks.AveragedWeights("swa", begin=20, timescale="epoch"),
    hooks.CsvLog("logs.csv", interval=2),
    hooks.EarlyStopper("a.b", 3, "max", "mine", "update", 5, True),
    hooks.Inspector("page.html", False, timescale="update", interval=100),
    hooks.ModifyStepperAttribute(Linear(1.0, 0.5, 3), "momentum"),
    hooks.ModifyStepperAttribute(Linear(1.0, 0.5, 3), timescale="update"),
    hooks.MonitorLayerDeltas("Fc"),
    hooks.MonitorLayerGradients("Fc", interval=2),
    hooks.MonitorLayerInOuts("Fc", "in and out"),
    hooks.MonitorLayerParameters("Fc"),
    hooks.MonitorLoss("valid"),
    hooks.MonitorScores("valid", [Accuracy(name="acc")], name="validation"),
    hooks.ProgressBar(),
    hooks.ReduceOnPlateau("a.b", factor=0.5, patience=3),
    hooks.RestoreBest("a.b", "max"),
    hooks.SaveBestNetwork("a.b"),
    hooks.SaveBestNetwork("a.b", "best.hdf5", "min"),
    hooks.SaveCheckpoint("training.hdf5", timescale="update", interval=100),
    hooks.SaveLogs("logs.hdf5"),
    hooks.SaveNetwork("net.hdf5", interval=3),
    hooks.StopAfterEpoch(5),
    hooks.StopAfterThresholdReached("a.b", 0.5, criterion="max"),
    hooks.StopOnNan(),
    hooks.StopOnNan(["a.b"], False, False),
    hooks.StopOnSigQuit(verbose=False),
    hooks.Tracker("own"),
]


@pytest.mark.parametrize("hook", EXAMPLES, ids=lambda h: type(h).__name__)
def test_description(hook):
    description = get_description(hook)
    again = create_from_description(description)
    assert type(again) is type(hook)
    assert get_description(again) == description
    for name in ("__name__", "timescale", "interval", "verbose"):
        assert getattr(again, name) == getattr(hook, name)


def test_descriptions_hold_what_differs_from_the_defaults():
    assert get_description(hooks.StopAfterEpoch(5, interval=2)) == {
        "@type": "StopAfterEpoch",
        "max_epochs": 5,
        "interval": 2,
    }
    assert get_description(hooks.ProgressBar()) == {"@type": "ProgressBar"}
    assert get_description(hooks.MonitorLoss("valid", "mine")) == {
        "@type": "MonitorLoss",
        "iter_name": "valid",
        "name": "mine",
    }


def test_all_hooks_have_an_example():
    public = {cls.__name__ for cls in get_inheritors(Hook)} & set(hooks.__all__)
    assert public - {type(h).__name__ for h in EXAMPLES} == {
        "BokehVisualizer",
        "InfoUpdater",
        "Mlflow",
        "TensorBoard",
    }


@pytest.mark.parametrize("hook", EXAMPLES, ids=lambda h: type(h).__name__)
def test_state_goes_back_and_forth(hook):
    state = hook.get_state()
    assert state == hook.initial_state
    changed = {name: i + 1 for i, name in enumerate(state)}
    hook.set_state(changed)
    assert hook.get_state() == changed
    assert not set(state) & set(get_description(hook))
    hook.reset()
    assert hook.get_state() == state
    with pytest.raises(ValidationError, match=r"not of 'x'"):
        hook.set_state({"x": 1})


def test_states_of_earlier_versions_lack_what_is_new():
    hook = hooks.StopAfterThresholdReached("a", 0.5)
    hook.set_state({})
    assert hook.get_state() == {"best_so_far": None, "seen": 0}
    hook.set_state({"seen": 3})
    assert hook.seen == 3


def test_states_are_independent():
    hook = hooks.SaveBestNetwork("a.b")
    hook.parameters = np.zeros(3)
    hook.get_state()["parameters"][:] = 1
    assert hook.parameters.tolist() == [0, 0, 0]
    state = {"best_so_far": 1.0, "parameters": np.ones(3)}
    hook.set_state(state)
    state["parameters"][:] = 2
    assert hook.parameters.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"timescale": "epochs"}, "Hook: timescale has to be .* not 'epochs'"),
        ({"interval": 0}, "interval has to be an integer of at least 1, not 0"),
        ({"interval": 1.5}, "interval .* not 1.5"),
        ({"name": "a.b"}, "name has to be a string without .* not 'a.b'"),
        ({"name": "a/b"}, "name .* not 'a/b'"),
        ({"name": ""}, "name .* not ''"),
        ({"name": 3}, "name .* not 3"),
    ],
)
def test_bad_arguments(kwargs, text):
    with pytest.raises(ValidationError, match=text):
        Hook(**kwargs)


def test_defaults():
    hook = Hook()
    assert (hook.__name__, hook.timescale, hook.interval) == ("Hook", "epoch", 1)
    assert hook.verbose is None
    assert Hook(name="best weights").__name__ == "best weights"
    assert Hook.__name__ == "Hook"


@pytest.mark.parametrize(
    ("own", "of_trainer", "printed"),
    [
        (None, True, True),
        (None, False, False),
        (True, False, True),
        (False, True, False),
    ],
)
def test_messages(capsys, own, of_trainer, printed):
    hook = Hook(name="me", verbose=own)
    hook.start(None, None, of_trainer, {})
    hook.message(msg="hello")
    assert capsys.readouterr().out == ("me >> hello\n" if printed else "")


def test_get_log():
    logs = {"validation": {"Accuracy": [0.5], "deep": {"er": [1]}}, "plain": [3]}
    assert get_log(logs, "validation.Accuracy") == [0.5]
    assert get_log(logs, "validation.deep.er") == [1]
    assert get_log(logs, "plain") == [3]
    assert get_log(logs, "not_yet.there") == []
    with pytest.raises(KeyError, match=r"no 'Acc' in path .* 'Accuracy', 'deep'"):
        get_log(logs, "validation.Acc")
    with pytest.raises(KeyError, match=r"choices are: 'validation.Accuracy', 'valid"):
        get_log(logs, "validation")


def test_info_updater(net):
    run = SimpleNamespace(info={"mine": 1})
    logs = {"validation": {"Accuracy": [0.5]}}
    hook = hooks.InfoUpdater(run)
    hook.start(net, None, False, {})
    assert hook(epoch_nr=3, update_nr=9, net=None, stepper=None, logs=logs) is None
    logs["validation"]["Accuracy"].append(0.6)
    assert run.info == {
        "mine": 1,
        "nr_parameters": 2 * 3 + 2,
        "epoch_nr": 3,
        "update_nr": 9,
        "logs": {"validation": {"Accuracy": [0.5]}},
    }
    with pytest.raises(ValidationError, match="run has to be a Run of Sacred"):
        hooks.InfoUpdater({})

"""The hooks that hand logs on, with the real libraries on local files."""

import copy
import importlib
import math
import os
import pickle
import sys

import numpy as np
import pytest

import brainstorm as bs
from brainstorm.data_iterators import Minibatches
from brainstorm.hooks import (
    Hook,
    Mlflow,
    ModifyStepperAttribute,
    MonitorLoss,
    MonitorScores,
    SaveCheckpoint,
    StopAfterEpoch,
    TensorBoard,
)
from brainstorm.training import AdamStepper, SgdStepper, Trainer
from brainstorm.utils import ValidationError

X = np.random.default_rng(0).normal(size=(1, 12, 3))
Y = np.arange(12).reshape(1, 12, 1) % 2


def data():
    return Minibatches(4, default=X, targets=Y, shuffle=False)


def network():
    net = bs.tools.create_net_from_spec("classification", 3, 2, "F4")
    net.initialize("glorot", seed=1)
    return net


class Give(Hook):
    """Logs given values, one after the other."""

    def __init__(self, values, **common):
        super().__init__(**common)
        self.values = values

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        return self.values[epoch_nr]


class Break(Hook):
    def __init__(self, at=5):
        super().__init__(timescale="update")
        self.at = at

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        if update_nr == self.at:
            raise ZeroDivisionError


def train(*hooks, epochs=2, net=None, stepper=None, trainer=None):
    if trainer is None:
        trainer = Trainer(stepper or AdamStepper(), verbose=False)
        for hook in (*hooks, StopAfterEpoch(epochs)):
            trainer.add_hook(hook)
    trainer.train(net or network(), data(), valid=data())
    return trainer


def monitors():
    often = MonitorLoss("valid", timescale="update", interval=2, name="often")
    scores = MonitorScores("valid", [bs.scorers.Accuracy()], name="validation")
    return often, scores


# -- TensorBoard -------------------------------------------------------------


def read(folder):
    """All that TensorBoard finds in a folder: steps and values by tag."""
    library = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    kinds = {library.TENSORS: 0, library.COMPRESSED_HISTOGRAMS: 0}
    # By default it leaves out what a program that began again has written twice.
    events = library.EventAccumulator(
        os.fspath(folder), size_guidance=kinds, purge_orphaned_data=False
    )
    events.Reload()
    found = {}
    make_array = importlib.import_module("tensorboard.util.tensor_util").make_ndarray
    for tag in events.Tags()["tensors"]:
        found[tag] = [(e.step, make_array(e.tensor_proto)) for e in events.Tensors(tag)]
    return found, events


@pytest.fixture
def needs_tensorboard():
    pytest.importorskip("tensorboard")


@pytest.mark.usefixtures("needs_tensorboard")
class TestTensorBoard:
    def test_all_logs_are_there(self, tmp_path):
        trainer = train(*monitors(), TensorBoard(tmp_path / "run"))
        found, events = read(tmp_path / "run")
        logs = trainer.logs
        for tag, log, steps in [
            ("rolling_training/total_loss", logs["rolling_training"], [1, 2]),
            ("validation/total_loss", logs["validation"], [0, 1, 2]),
            ("validation/Accuracy", logs["validation"], [0, 1, 2]),
            ("often/total_loss", logs["often"], [0, 2, 4, 6]),
        ]:
            assert [step for step, _ in found[tag]] == steps
            values = log[tag.partition("/")[2]]
            expected = np.float32(values).tolist()
            assert [float(value) for _, value in found[tag]] == expected
        ((step, text),) = found["network"]
        assert step == 0
        assert "FullyConnected" in text.item().decode()
        plugin = events.SummaryMetadata("_hparams_/session_start_info").plugin_data
        parse = importlib.import_module("tensorboard.plugins.hparams.plugin_data_pb2")
        hparams = parse.HParamsPluginData.FromString(plugin.content).session_start_info
        assert hparams.hparams["stepper"].string_value == "AdamStepper"
        assert hparams.hparams["learning_rate"].number_value == 0.001

    def test_odd_values(self, tmp_path):
        values = [
            {"a": float("nan"), "b": [[1, 2], [3, 4]], "c": None, "d": "text"},
            {"a": math.inf, "b": [], "c": 10**400, "d": np.float64(1)},
            {"a": True, "b": np.arange(3), "c": np.array([2.0]), "d": object()},
        ]
        train(Give(values, name="own"), TensorBoard(tmp_path))
        found, _ = read(tmp_path)
        assert [step for step, _ in found["own/a"]] == [0, 1, 2]
        assert [float(v) for _, v in found["own/a"]][1:] == [math.inf, 1.0]
        assert found["own/b"][0][1].item() == b"[[1, 2], [3, 4]]"
        assert [(s, float(v)) for s, v in found["own/c"]] == [(1, math.inf), (2, 2.0)]

    def test_histograms(self, tmp_path):
        hook = TensorBoard(tmp_path, True, timescale="update", interval=3)
        net = network()
        train(hook, net=net)
        found, _ = read(tmp_path)
        w = found["FullyConnected/parameters/W"]
        assert [step for step, _ in w] == [0, 3, 6]
        left, right, counts = w[-1][1].T
        assert counts.sum() == 12
        values = net.get("FullyConnected.parameters.W")
        assert left[0] == pytest.approx(values.min())
        assert right[-1] == pytest.approx(values.max())
        assert [s for s, _ in found["FullyConnected/gradients/bias"]] == [3, 6]

    @pytest.mark.parametrize("before", [True, False])
    @pytest.mark.parametrize(
        "at", [8, *(pytest.param(n, marks=pytest.mark.slow) for n in (5, 6))]
    )
    def test_resuming(self, tmp_path, at, before):
        """The file is what it is without an interruption."""

        def hooks(folder, last):
            board = TensorBoard(tmp_path / folder, True)
            path = tmp_path / f"{folder}.hdf5"
            saver = SaveCheckpoint(path, timescale="update", interval=2)
            pair = (board, saver) if before else (saver, board)
            return (*monitors(), *pair, *last)

        train(*hooks("whole", ()), epochs=4)
        with pytest.raises(ZeroDivisionError):
            train(*hooks("broken", (Break(at),)), epochs=4)
        made_again = [*hooks("broken", (Break(-1),)), StopAfterEpoch(4)]
        trainer, net = Trainer.load(tmp_path / "broken.hdf5", made_again)
        train(trainer=trainer, net=net)
        (whole, _), (broken, _) = read(tmp_path / "whole"), read(tmp_path / "broken")
        assert whole.keys() == broken.keys()
        assert len(os.listdir(tmp_path / "broken")) == 1
        for tag in whole.keys() - {"network", "_hparams_/session_start_info"}:
            steps = [step for step, _ in whole[tag]]
            if at == 8 and "/gradients/" in tag:  # the checkpoint does not have them
                steps.remove(2)
            assert [step for step, _ in broken[tag]] == steps
            values = dict(whole[tag])
            for step, value in broken[tag]:
                np.testing.assert_array_equal(value, values[step])

    def test_training_again_goes_on(self, tmp_path):
        net = network()
        trainer = train(*monitors(), TensorBoard(tmp_path), net=net)
        trainer.hooks["StopAfterEpoch"].max_epochs = 4
        train(trainer=trainer, net=net)
        found, _ = read(tmp_path)
        assert [step for step, _ in found["validation/Accuracy"]] == [0, 1, 2, 3, 4]
        assert len(os.listdir(tmp_path)) == 1
        train(TensorBoard(tmp_path))
        assert len(os.listdir(tmp_path)) == 2

    def test_a_hook_that_is_added_late(self, tmp_path):
        net = network()
        trainer = train(*monitors(), net=net)
        trainer.add_hook(TensorBoard(tmp_path))
        trainer.hooks["StopAfterEpoch"].max_epochs = 3
        train(trainer=trainer, net=net)
        assert [step for step, _ in read(tmp_path)[0]["validation/Accuracy"]] == [3]

    def test_files_are_closed_after_errors(self, tmp_path):
        hook = TensorBoard(tmp_path)
        net = network()
        with pytest.raises(ZeroDivisionError):
            train(*monitors(), hook, Break(4), net=net)
        assert hook._output is None
        found, _ = read(tmp_path)
        assert [step for step, _ in found["often/total_loss"]] == [0, 2, 4][:2]

    def test_copies(self, tmp_path):
        class Copy(Hook):
            def __call__(self, epoch_nr, update_nr, net, stepper, logs):
                copies.append(pickle.loads(pickle.dumps(hook)))
                copies.append(copy.deepcopy(hook))

        copies, hook = [], TensorBoard(tmp_path)
        train(hook, Copy())
        assert {c.log_dir for c in copies} == {str(tmp_path)}

    def test_evaluating_writes_nothing(self, tmp_path):
        trainer = Trainer(SgdStepper(), verbose=False)
        trainer.add_hook(TensorBoard(tmp_path / "run"))
        trainer.evaluate(network(), valid=data())
        assert not (tmp_path / "run").exists()

    def test_two_hooks_for_one_folder(self, tmp_path):
        trainer = Trainer(SgdStepper(), verbose=False)
        trainer.add_hook(TensorBoard(tmp_path, name="a"))
        with pytest.raises(
            ValidationError, match="'b' and 'a' would write to the same"
        ):
            trainer.add_hook(TensorBoard(tmp_path, name="b"))

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            ((3,), "log_dir has to be the name of a folder, not 3"),
            (("",), "log_dir"),
            (("a", "yes"), "histograms has to be True or False, not 'yes'"),
        ],
    )
    def test_bad_arguments(self, arguments, text):
        with pytest.raises(ValidationError, match=f"TensorBoard: {text}"):
            TensorBoard(*arguments)

    def test_a_file_in_the_place_of_the_folder(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(ValidationError, match="is no folder"):
            train(TensorBoard(tmp_path / "file"))

    def test_descriptions(self):
        hook = TensorBoard("logs", True, interval=2, name="board")
        description = bs.get_description(hook)
        again = bs.create_from_description(description)
        assert bs.get_description(again) == description
        assert repr(again) == repr(hook)
        assert "seen" not in str(description)


@pytest.mark.parametrize(
    ("library", "make"),
    [
        pytest.param("tensorboard", lambda: TensorBoard("a"), id="tensorboard"),
        pytest.param("mlflow", Mlflow, id="mlflow", marks=pytest.mark.slow),
    ],
)
def test_states_go_back_and_forth(library, make):
    pytest.importorskip(library)
    hook = make()
    assert hook.get_state() == hook.initial_state
    changed = {name: i + 1 for i, name in enumerate(hook.initial_state)}
    hook.set_state(changed)
    assert hook.get_state() == changed
    assert not set(changed) & set(bs.get_description(hook))
    assert repr(bs.create_from_description(bs.get_description(hook))) == repr(hook)
    hook.reset()
    assert hook.get_state() == hook.initial_state


@pytest.mark.parametrize(("hook", "extra"), [(TensorBoard, "tensorboard")])
def test_a_missing_library(hook, extra, monkeypatch):
    for module in [m for m in sys.modules if m.split(".")[0] == extra]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, extra, None)
    with pytest.raises(ImportError, match=rf"pip install .*\[{extra}\]"):
        hook("a")


# -- MLflow ------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Where MLflow keeps its data, and a client that reads them."""
    tracking = pytest.importorskip("mlflow.tracking")
    pytest.importorskip("sqlalchemy")
    pytest.importorskip("alembic")
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder}/mlflow.db"
    client = tracking.MlflowClient(uri)
    client.create_experiment("trainings", f"file://{folder}/artifacts")
    return uri, client


def runs(client):
    (experiment,) = client.search_experiments(filter_string="name = 'trainings'")
    return client.search_runs([experiment.experiment_id])


def metric(client, run, name):
    return [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # SQLAlchemy has some for MLflow
class TestMlflow:
    def test_a_run(self, store):
        uri, client = store
        trainer = train(
            *monitors(),
            Give([{"x": "first"}, {"x": math.nan}, {"x": [1, 2]}], name="own"),
            Mlflow("trainings", "a run", uri),
            stepper=SgdStepper(0.5),
        )
        run = client.get_run(trainer.hooks["Mlflow"].run_id)
        assert run.info.status == "FINISHED"
        assert run.info.run_name == "a run"
        assert run.data.params == {"stepper": "SgdStepper", "learning_rate": "0.5"}
        logs = trainer.logs
        assert metric(client, run, "validation/Accuracy") == list(
            enumerate(logs["validation"]["Accuracy"])
        )
        assert [step for step, _ in metric(client, run, "often/total_loss")] == [
            *(0, 2, 4, 6)
        ]
        assert run.data.tags["own/x"] == "[1, 2]"
        ((step, value),) = metric(client, run, "own/x")
        assert step == 1
        assert math.isnan(value)
        (file,) = client.list_artifacts(run.info.run_id)
        assert file.path == "network.txt"
        (found,) = client.search_runs(
            [run.info.experiment_id], "params.stepper = 'SgdStepper'"
        )
        assert found.info.run_id == run.info.run_id

    def test_resuming(self, store, tmp_path):
        uri, client = store
        path = tmp_path / "saved.hdf5"
        hooks = [
            *monitors(),
            SaveCheckpoint(path, timescale="update", interval=4),
            Mlflow("trainings", "broken", uri),
        ]
        with pytest.raises(ZeroDivisionError):
            train(*hooks, Break(7), epochs=4)
        run_id = hooks[-1].run_id
        assert client.get_run(run_id).info.status == "FAILED"
        before = len(runs(client))
        made_again = [*monitors(), SaveCheckpoint(path, timescale="update", interval=4)]
        made_again += [Mlflow("trainings", "broken", uri), Hook("Break", "update")]
        trainer, net = Trainer.load(path, [*made_again, StopAfterEpoch(4)])
        train(trainer=trainer, net=net)
        assert len(runs(client)) == before
        run = client.get_run(run_id)
        assert run.info.status == "FINISHED"
        for name, log in [("often", "total_loss"), ("validation", "Accuracy")]:
            history = metric(client, run, f"{name}/{log}")
            values = trainer.logs[name][log]
            steps = [2 * i if name == "often" else i for i in range(len(values))]
            assert history == list(zip(steps, values, strict=True))

    def test_runs_are_trainings(self, store):
        uri, client = store
        hook = Mlflow("trainings", None, uri)
        net = network()
        trainer = train(hook, net=net)
        first = hook.run_id
        trainer.hooks["StopAfterEpoch"].max_epochs = 3
        train(trainer=trainer, net=net)
        assert hook.run_id == first
        steps = metric(client, client.get_run(first), "rolling_training/total_loss")
        assert [step for step, _ in steps] == [1, 2, 3]
        train(hook)
        assert hook.run_id != first

    def test_copies_and_names(self, store):
        uri, client = store

        class Copy(Hook):
            def __call__(self, epoch_nr, update_nr, net, stepper, logs):
                pickle.loads(pickle.dumps(hook))
                copy.deepcopy(hook)
                return {"a~b=c": 1.0}

        hook = Mlflow("trainings", None, uri)
        train(hook, Copy(), ModifyStepperAttribute(bs.training.Linear(1, 0, 2)))
        run = client.get_run(hook.run_id)
        assert run.data.metrics["Copy/a_b_c"] == 1.0
        assert metric(client, run, "ModifyStepperAttribute") == [
            (0, 1),
            (1, 0.5),
            (2, 0),
        ]

    def test_a_store_that_does_not_work(self, store):
        hook = Mlflow("trainings", None, "nothing://here")
        with pytest.raises(ValidationError, match="Mlflow: .*"):
            train(hook)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"experiment": 3}, "experiment has to be a string, not 3"),
        ({"experiment": ""}, "experiment"),
        ({"run_name": 1}, "run_name"),
        ({"tracking_uri": 1.5}, "tracking_uri"),
    ],
)
def test_bad_arguments_of_mlflow(arguments, text):
    with pytest.raises(ValidationError, match=f"Mlflow: {text}"):
        Mlflow(**arguments)

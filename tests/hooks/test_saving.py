import math

import h5py
import numpy as np
import pytest

from brainstorm.hooks import (
    SaveBestNetwork,
    SaveCheckpoint,
    SaveLogs,
    SaveNetwork,
    StopAfterEpoch,
    load_logs,
)
from brainstorm.hooks.saving import save_logs
from brainstorm.structure.network import Network
from brainstorm.training import SgdStepper, Trainer
from brainstorm.utils import FileFormatError, ValidationError


def train(net, batches, *hooks, epochs=2):
    trainer = Trainer(SgdStepper(0.1), verbose=False)
    for hook in hooks:
        trainer.add_hook(hook)
    trainer.add_hook(StopAfterEpoch(epochs))
    trainer.train(net, batches)
    return trainer


def set_parameters(net, value):
    net.handler.fill(net.buffer.parameters, value)


def feed(hook, net, values):
    """Let the hook see a log grow; the parameters always equal the newest entry."""
    hook.start(net, None, False, {})
    for i, value in enumerate(values):
        set_parameters(net, value)
        assert hook(i, i, net, None, {"valid": {"score": values[: i + 1]}}) is None


# -- SaveNetwork -------------------------------------------------------------


def test_save_network(net, batches, tmp_path):
    path = tmp_path / "net.hdf5"
    hook = SaveNetwork(path)
    train(net, batches, hook)
    saved = Network.from_hdf5(path)
    np.testing.assert_array_equal(saved.get("parameters"), net.get("parameters"))
    np.testing.assert_array_equal(
        hook.load_network().get("parameters"), net.get("parameters")
    )


def test_save_network_respects_the_interval(net, batches, tmp_path):
    path = tmp_path / "net.hdf5"
    train(net, batches, SaveNetwork(path, timescale="update", interval=5))
    assert np.any(Network.from_hdf5(path).get("parameters") != net.get("parameters"))


def test_nothing_is_overwritten_before_the_first_update(net, batches, tmp_path):
    paths = tmp_path / "network", tmp_path / "logs"
    net.save_as_hdf5(paths[0])
    save_logs(paths[1], {"precious": [1]})
    before = [path.read_bytes() for path in paths]
    train(net, batches, SaveNetwork(paths[0]), SaveLogs(paths[1]), epochs=0)
    assert [path.read_bytes() for path in paths] == before


def test_files_of_another_kind_are_found_before_training(net, batches, tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"precious")
    for hook in (SaveNetwork, SaveLogs, SaveCheckpoint):
        with pytest.raises(FileFormatError, match=f"{hook.__name__} .* another kind"):
            train(net, batches, hook(path))
    assert path.read_bytes() == b"precious"
    assert net.get("parameters").any()


@pytest.mark.parametrize("hook", [SaveNetwork, SaveLogs, SaveBestNetwork])
def test_bad_targets_are_found_before_training(net, batches, tmp_path, hook):
    log = ["rolling_training.total_loss"] if hook is SaveBestNetwork else []
    with pytest.raises(FileNotFoundError, match=f"{hook.__name__} .* no folder '.*no'"):
        train(net, batches, hook(*log, tmp_path / "no" / "file"))
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        train(net, batches, hook(*log, tmp_path))
    assert list(tmp_path.iterdir()) == []


# -- SaveBestNetwork ---------------------------------------------------------

NAN = math.nan


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(
    ("criterion", "values", "best"),
    [
        ("max", [1, 3, 2, 3], 3),
        ("min", [3, 1, 2, 1], 1),
        ("max", [NAN, 1, NAN, 2, NAN], 2),
        ("min", [-math.inf, -5], -math.inf),
    ],
)
def test_the_best_network_is_kept(net, tmp_path, in_memory, criterion, values, best):
    filename = None if in_memory else tmp_path / "best.hdf5"
    hook = SaveBestNetwork("valid.score", filename, criterion)
    feed(hook, net, values)
    loaded = hook.load_best_network()
    assert isinstance(loaded, Network)
    assert loaded is not net
    assert hook.best_so_far == best
    np.testing.assert_array_equal(loaded.get("parameters"), np.full(8, best))
    assert loaded.handler.dtype == net.handler.dtype


def test_only_improvements_are_saved(net, tmp_path):
    path = tmp_path / "best.hdf5"
    hook = SaveBestNetwork("valid.score", path)
    feed(hook, net, [NAN])
    assert not path.exists()
    feed(hook, net, [1])
    path.unlink()
    feed(hook, net, [1, 0.5, 1, NAN])
    assert not path.exists()


def test_the_network_in_memory_is_a_copy(net):
    hook = SaveBestNetwork("valid.score")
    feed(hook, net, [1])
    set_parameters(hook.load_best_network(), 5)
    set_parameters(net, 6)
    np.testing.assert_array_equal(
        hook.load_best_network().get("parameters"), np.ones(8)
    )


def test_loading_before_anything_was_saved(net, tmp_path):
    with pytest.raises(ValidationError, match="has not saved a network so far"):
        SaveBestNetwork("valid.score").load_best_network()
    with pytest.raises(FileNotFoundError, match=r"best\.hdf5"):
        SaveBestNetwork("valid.score", tmp_path / "best.hdf5").load_best_network()


def test_a_failure_while_saving_keeps_the_previous_best(net, tmp_path, monkeypatch):
    path = tmp_path / "best.hdf5"
    hook = SaveBestNetwork("valid.score", path)
    feed(hook, net, [1])

    def fail(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr(h5py.Group, "create_dataset", fail)
    with pytest.raises(OSError, match="no space left"):
        feed(hook, net, [1, 2])
    monkeypatch.undo()
    assert hook.best_so_far == 1
    np.testing.assert_array_equal(
        hook.load_best_network().get("parameters"), np.ones(8)
    )
    assert list(tmp_path.iterdir()) == [path]
    feed(hook, net, [1, 2])
    np.testing.assert_array_equal(
        hook.load_best_network().get("parameters"), np.full(8, 2.0)
    )


def test_messages(net, capsys, tmp_path):
    path = tmp_path / "best.hdf5"
    for filename in (path, None):
        hook = SaveBestNetwork("valid.score", filename, verbose=True)
        hook.start(net, None, False, {})
        hook(1, 1, net, None, {"valid": {"score": [1]}})
    text = "SaveBestNetwork >> valid.score improved; saved the network"
    assert capsys.readouterr().out == f"{text} to {path}.\n{text} in memory.\n"


def test_a_new_training_forgets_the_best_of_another(net, batches):
    log = "rolling_training.total_loss"
    hook = SaveBestNetwork(log, criterion="min")
    hook.set_state({"best_so_far": -5.0, "parameters": np.zeros(8)})
    trainer = train(net, batches, hook)
    assert hook.best_so_far == min(trainer.logs["rolling_training"]["total_loss"])


def test_state_of_a_network_in_memory(net):
    first = SaveBestNetwork("valid.score")
    feed(first, net, [3])
    second = SaveBestNetwork("valid.score")
    second.set_state(first.get_state())
    feed(second, net, [2])
    np.testing.assert_array_equal(
        second.load_best_network().get("parameters"), np.full(8, 3.0)
    )


# -- logs --------------------------------------------------------------------


def test_save_logs(net, batches, tmp_path):
    path = tmp_path / "logs.hdf5"
    trainer = train(net, batches, SaveLogs(path), epochs=3)
    assert load_logs(path) == trainer.logs
    with h5py.File(path) as f:
        assert bytes(f.attrs["format"]) == b"Logs file v1.0"
        stored = f["rolling_training"]["total_loss"][()]
    np.testing.assert_array_equal(
        stored, trainer.logs["rolling_training"]["total_loss"]
    )


def test_logs_of_all_kinds(tmp_path):
    logs = {
        "numbers": [1, 2],
        "floats": [0.1, math.inf],
        "flags": [True, False],
        "texts": ["a", "ä"],
        "arrays": [np.arange(3), np.ones(3)],
        "best weights": {"top/5": {"100%": [np.float32(0.5)]}, "%2F": [1]},
        "empty": {},
    }
    path = tmp_path / "logs.hdf5"
    save_logs(path, logs)
    logs["arrays"] = [[0, 1, 2], [1, 1, 1]]
    assert load_logs(path) == logs


def test_logs_that_can_not_be_saved(tmp_path):
    path = tmp_path / "logs.hdf5"
    save_logs(path, {"a": [1]})
    with pytest.raises(ValidationError, match="can not save the log mine/ragged: "):
        save_logs(path, {"mine": {"ragged": [[1], [1, 2]]}})
    with pytest.raises(ValidationError, match="can not save the log objects: "):
        save_logs(path, {"objects": [object()]})
    assert load_logs(path) == {"a": [1]}
    assert list(tmp_path.iterdir()) == [path]


def test_bad_logs_files(net, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_logs(tmp_path / "missing")
    net.save_as_hdf5(tmp_path / "net")
    with pytest.raises(FileFormatError, match=r"is not a 'Logs file v1\.0'"):
        load_logs(tmp_path / "net")
    path = tmp_path / "logs"
    save_logs(path, {"a": list(range(1000))})
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(FileFormatError, match="can not read"):
        load_logs(path)


def test_links_in_logs_files_are_not_followed(tmp_path):
    secret = tmp_path / "secret"
    with h5py.File(secret, "w") as f:
        f["a"] = [1]
    for link in (h5py.ExternalLink(str(secret), "a"), h5py.SoftLink("/b")):
        path = tmp_path / "logs"
        save_logs(path, {"b": [2]})
        with h5py.File(path, "a") as f:
            f["link"] = link
        with pytest.raises(FileFormatError, match="'link' is a link"):
            load_logs(path)

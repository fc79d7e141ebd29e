import copy
import json
import pickle
import re
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest

from brainstorm import Network, layers, tools
from brainstorm.data_iterators import Minibatches
from brainstorm.describable import create_from_description, get_description
from brainstorm.hooks import Hook, Inspector, MonitorLoss, StopAfterEpoch
from brainstorm.training import MomentumStepper, SgdStepper, Trainer
from brainstorm.utils import FileFormatError, ValidationError
from brainstorm.viewer.contents import unpack

RATE = 0.05


class Recorder(Hook):
    """Keeps what an update has left, computed in another way."""

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        self.__dict__.setdefault("rows", []).append(
            {
                "update": update_nr,
                "loss": net.get_loss_values()["total_loss"],
                "parameters": net.get("parameters").copy(),
                "gradients": net.get("gradients").copy(),
            }
        )


class Visitor(Hook):
    """Looks at the page each time."""

    def __init__(self, inspector, **kwargs):
        super().__init__(**kwargs)
        self.inspector = inspector
        self.seen = []

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        page = urllib.request.urlopen(self.inspector.url, timeout=60).read().decode()
        answer = urllib.request.urlopen(f"{self.inspector.url}data.json", timeout=60)
        self.seen.append((page, json.loads(answer.read())))


@pytest.fixture
def batches(data):
    return Minibatches(4, shuffle=False, **data)


def train(net, batches, *hooks, epochs=2, stepper=None):
    trainer = Trainer(stepper or SgdStepper(RATE), verbose=False)
    for hook in (*hooks, StopAfterEpoch(epochs)):
        trainer.add_hook(hook)
    trainer.train(net, batches, batches=batches)
    return trainer


def embedded(path):
    text = path.read_text(encoding="utf-8")
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</scr', text)
    return json.loads(found)


@pytest.mark.parametrize("interval", [1, 2])
def test_samples(net, batches, tmp_path, interval):
    hook = Inspector(
        tmp_path / "a.html", serve=False, timescale="update", interval=interval
    )
    recorder = Recorder(timescale="update")
    train(net, batches, recorder, hook)
    rows = {row["update"]: row for row in recorder.rows}
    history = hook.history(net)
    assert history["layers"] == ["Fc"]
    assert history["updates"] == list(range(interval, 7, interval))
    for i, update in enumerate(history["updates"]):
        row, before = rows[update], rows[update - interval]
        norm = np.sqrt(np.sum(row["parameters"] ** 2))
        moved = np.sqrt(np.sum((row["parameters"] - before["parameters"]) ** 2))
        assert history["losses"][i] == pytest.approx(row["loss"], rel=1e-5)
        gradient = np.sqrt(np.sum(row["gradients"] ** 2))
        assert history["gradient_norms"][i] == pytest.approx([gradient], rel=1e-5)
        assert history["norms"][i] == pytest.approx([norm], rel=1e-5)
        expected = moved / norm / interval
        assert history["changes"][i] == pytest.approx([expected], rel=1e-5)
        if interval == 1:  # of SGD the ratio of updates to weights
            assert expected == pytest.approx(RATE * gradient / norm, rel=1e-6)
    assert embedded(tmp_path / "a.html")["history"] == history


def test_losses_are_those_of_training_batches(net, batches, data):
    hook = Inspector(serve=False, timescale="update")
    recorder = Recorder(timescale="update")
    other = Minibatches(10, default=100 * data["default"], targets=data["targets"])
    trainer = Trainer(SgdStepper(RATE), verbose=False)
    monitor = MonitorLoss("other", timescale="update")
    for one in (recorder, monitor, hook, StopAfterEpoch(1)):
        trainer.add_hook(one)
    trainer.train(net, batches, other=other)
    losses = [row["loss"] for row in recorder.rows[1:]]
    assert hook.history(net)["losses"] == pytest.approx(losses, rel=1e-5)
    shown = hook._example["default"]
    np.testing.assert_array_equal(shown, data["default"][:, :1])


def test_the_file_has_the_last_parameters_and_the_first_example(
    net, batches, data, tmp_path
):
    train(net, batches, Inspector(tmp_path / "a.html", serve=False, name="My nets"))
    snapshot = embedded(tmp_path / "a.html")
    assert snapshot["title"] == "My nets"
    buffers = {b["path"]: b for la in snapshot["layers"] for b in la["buffers"]}
    weights = unpack(buffers["Fc.parameters.W"]["contents"])
    np.testing.assert_allclose(weights, net.get("Fc.parameters.W"), rtol=1e-6)
    x = unpack(buffers["Input.outputs.default"]["contents"])
    # With the timescale of epochs, the first batch that it sees is the last of the one.
    np.testing.assert_allclose(x, data["default"][0, 8], rtol=1e-6)
    assert "contents" in buffers["Fc.gradients.W"]


def test_training_is_the_same_with_it(net, batches):
    twin = copy.deepcopy(net)
    train(net, batches, Inspector(serve=False, timescale="update"))
    train(twin, batches)
    np.testing.assert_array_equal(net.get("parameters"), twin.get("parameters"))


def test_updates_between_the_samples_do_not_call_it(net, batches, monkeypatch):
    calls = []
    hook = Inspector(serve=False, timescale="update", interval=3)
    for name in ("__call__", "read", "look"):
        original = getattr(Inspector, name)

        def counted(self, *args, _name=name, _original=original, **kwargs):
            calls.append(_name)
            return _original(self, *args, **kwargs)

        monkeypatch.setattr(Inspector, name, counted)
    train(net, batches, hook)
    # Before the training, and after 3 and 6 updates.
    assert calls == ["__call__", "__call__", "read", "__call__", "read"]


# -- live ----------------------------------------------------------------------------


def test_the_page_follows_the_training(net, batches, monkeypatch):
    monkeypatch.setattr(Inspector, "SECONDS_BETWEEN_SNAPSHOTS", 0.0)
    hook = Inspector(timescale="update")
    visitor = Visitor(hook, timescale="update")
    assert hook.url is None
    train(net, batches, hook, visitor)
    assert 'data-live="true"' in visitor.seen[0][0]
    assert visitor.seen[0][1]["history"] is None
    updates = [snapshot["history"]["updates"][-1] for _, snapshot in visitor.seen[1:]]
    assert updates == [1, 2, 3, 4, 5, 6]
    assert hook.url is None


def test_without_visitors_there_is_one_snapshot(net, batches, monkeypatch):
    monkeypatch.setattr(Inspector, "SECONDS_BETWEEN_SNAPSHOTS", 0.0)
    taken = []
    original = Inspector._snapshot
    monkeypatch.setattr(
        Inspector, "_snapshot", lambda *args: taken.append(1) or original(*args)
    )
    train(net, batches, Inspector(timescale="update"))
    assert len(taken) == 1


class Breaker(Hook):
    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        if epoch_nr == 1:
            raise ZeroDivisionError


def test_the_server_ends_when_the_training_breaks(net, batches, tmp_path):
    hook = Inspector(tmp_path / "a.html")
    visitor = Visitor(hook)
    urls = []
    watch = type("Watch", (Hook,), {"__call__": lambda *_, **__: urls.append(hook.url)})
    with pytest.raises(ZeroDivisionError):
        train(net, batches, hook, visitor, watch(), Breaker())
    assert hook.url is None
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(urls[0], timeout=60)
    assert not [t for t in threading.enumerate() if t.name == "PageServer"]
    assert embedded(tmp_path / "a.html")["history"]["updates"] == [3]


def test_the_training_goes_on_without_a_server(net, batches, monkeypatch, capsys):
    def fail(*args):
        raise OSError("no ports")

    monkeypatch.setattr("brainstorm.hooks.inspecting.PageServer", fail)
    trainer = train(net, batches, Inspector(verbose=True))
    assert trainer.current_epoch_nr == 2
    assert "Warning: can not serve the page: OSError('no ports')" in (
        capsys.readouterr().out
    )


def test_the_address_is_printed(net, batches, capsys):
    train(net, batches, Inspector(verbose=True, name="mine"))
    line = r"mine >> The page is at http://127\.0\.0\.1:\d+/\n"
    assert re.search(line, capsys.readouterr().out)


# -- files and states -----------------------------------------------------------------


def test_other_files_are_known_before_the_training(net, batches, tmp_path):
    (tmp_path / "a.html").write_bytes(b"\x89HDF")
    with pytest.raises(FileFormatError, match="another kind"):
        train(net, batches, Inspector(tmp_path / "a.html", serve=False))
    assert net.rnd is not None
    assert (tmp_path / "a.html").read_bytes() == b"\x89HDF"


def test_two_hooks_do_not_write_to_one_file(tmp_path):
    trainer = Trainer(SgdStepper())
    trainer.add_hook(Inspector(tmp_path / "a.html"))
    with pytest.raises(ValidationError, match="same file"):
        trainer.add_hook(Inspector(tmp_path / "a.html", name="other"))


def test_resumed_trainings_have_the_samples_of_whole_ones(net, batches, tmp_path):
    def inspector():
        return Inspector(serve=False, timescale="update", interval=2)

    twin, whole = copy.deepcopy(net), inspector()
    train(net, batches, whole, epochs=3, stepper=MomentumStepper(RATE, 0.9))
    stepper = MomentumStepper(RATE, 0.9)
    train(twin, batches, inspector(), epochs=1, stepper=stepper).save(tmp_path / "c")
    trainer, again = Trainer.load(tmp_path / "c")
    trainer.hooks["StopAfterEpoch"].max_epochs = 3
    trainer.train(again, batches)
    samples = trainer.hooks["Inspector"].samples
    np.testing.assert_allclose(samples, whole.samples, rtol=1e-9)


def test_samples_are_thinned(net, batches, monkeypatch):
    monkeypatch.setattr(Inspector, "MOST_SAMPLES", 8)
    hook = Inspector(serve=False, timescale="update")
    train(net, batches, hook, epochs=9)
    updates = hook.history(net)["updates"]
    assert 4 <= len(updates) <= 8
    assert updates == sorted(updates)
    assert updates[-1] == 27
    monkeypatch.setattr(Inspector, "MOST_NUMBERS", 3 * hook.samples.shape[1])
    assert len(hook.history(net)["updates"]) <= 3
    assert hook.history(net)["updates"][-1] == 27


def test_another_network(net, batches):
    hook = Inspector(serve=False, timescale="update")
    trainer = train(net, batches, hook)
    inp, out = tools.get_in_out_layers("regression", 3, 2)
    other = Network.from_layer(inp >> layers.FullyConnected(4, name="Hidden") >> out)
    other.initialize("auto", seed=1)
    trainer.hooks["StopAfterEpoch"].max_epochs = 3
    trainer.train(other, batches)
    history = hook.history(other)
    assert history["layers"] == ["Hidden", "Output_projection"]
    assert history["updates"] == [7, 8, 9]
    assert history["changes"][0] == [None, None]


def test_copies_and_pickles(net, batches):
    hook = Inspector(timescale="update", name="mine")
    visitor = type("Copier", (Hook,), {"__call__": lambda self, **_: copies()})

    copied = []

    def copies():
        copied.extend([copy.deepcopy(hook), pickle.loads(pickle.dumps(hook))])

    train(net, batches, hook, visitor())
    for other in copied:
        assert other.url is None
        assert other.name == "mine"
    assert copied[-1].samples[-1, 0] == 6
    again = create_from_description(get_description(hook))
    assert get_description(again) == get_description(hook)
    assert again.samples is None


def test_evaluation_leaves_it_out(net, batches):
    trainer = Trainer(SgdStepper(), verbose=False)
    hook = Inspector()
    trainer.add_hook(hook)
    trainer.evaluate(net, batches=batches)
    assert hook.samples is None


def test_bad_arguments():
    with pytest.raises(ValidationError, match="Inspector: serve has to be True or"):
        Inspector(serve=1)

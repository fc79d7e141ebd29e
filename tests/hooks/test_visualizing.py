import asyncio
import json
import re
import socket
import sys
import urllib.request

import pytest

from brainstorm.describable import create_from_description, get_description
from brainstorm.hooks import Hook, MonitorLoss, StopAfterEpoch
from brainstorm.hooks.visualizing import BokehVisualizer, _Server, _show
from brainstorm.training import SgdStepper, Trainer
from brainstorm.utils import ValidationError

bokeh = pytest.importorskip("bokeh")
LOSSES = ["rolling_training.total_loss", "MonitorLoss.total_loss"]


def ask(url):
    """Open a page; not everywhere there is somebody who knows "localhost"."""
    return urllib.request.urlopen(url.replace("localhost", "127.0.0.1"))


class UpdateCounter(Hook):
    """Logs 10, 20, 30, ..., and something that is no number."""

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        return {"value": 10.0 * (update_nr + 1), "text": "foo"}


@pytest.fixture
def visualizer(request):
    """Makes hooks whose servers are stopped after the test."""
    made = []

    def create(*args, **kwargs):
        made.append(BokehVisualizer(*args, **kwargs))
        return made[-1]

    yield create
    for hook in made:
        hook.shut_down()


def train(net, batches, hook, epochs=3, earlier=(), trainer=None):
    if trainer is None:
        trainer = Trainer(SgdStepper(0.01))
        for other in (*earlier, MonitorLoss("batches"), hook, StopAfterEpoch(epochs)):
            trainer.add_hook(other)
    trainer.train(net, batches, batches=batches)
    return trainer


def curves_of_page(document):
    """The points of each curve by its label."""
    from bokeh.models import Legend

    return {
        item.label.value: list(
            zip(
                item.renderers[0].data_source.data["x"],
                item.renderers[0].data_source.data["y"],
                strict=True,
            )
        )
        for legend in document.select({"type": Legend})
        for item in legend.items
    }


def curves_of_file(path):
    """The same from the data in an HTML file."""
    from bokeh.document import Document

    found = re.search(
        r'<script type="application/json"[^>]*>(.*?)</script>', path.read_text(), re.S
    )
    (data,) = json.loads(found.group(1)).values()
    return curves_of_page(Document.from_json(data))


def warnings(capsys):
    return re.findall("Warning: (.*)", capsys.readouterr().out)


# -- live plots --------------------------------------------------------------


def test_live_plots_show_the_logs(net, batches, visualizer, capsys):
    from bokeh.client import pull_session

    hook = visualizer(LOSSES, name="Losses")
    logs = train(net, batches, hook).logs
    assert f"Losses >> The plots are at {hook.url}" in capsys.readouterr().out
    # Unlike the server, this client wants an event loop that does not run yet.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        session = pull_session(url=hook.url)
        assert session.document.title == "Losses"
        curves = curves_of_page(session.document)
        session.close()
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    validation = logs["MonitorLoss"]["total_loss"]
    training = logs["rolling_training"]["total_loss"]
    assert curves == {
        "MonitorLoss.total_loss": list(zip([0, 1, 2, 3], validation, strict=True)),
        "rolling_training.total_loss": list(zip([1, 2, 3], training, strict=True)),
    }


def test_open_pages_are_kept_up_to_date(visualizer):
    from bokeh.document import Document

    hook = visualizer("a.b")
    hook(0, 0, None, None, {"a": {"b": [5]}})
    page = Document()
    _show(page, hook._curves, "title", "epoch")
    (update,) = page.session_callbacks  # the server calls it again and again
    assert update.period <= 1000
    assert curves_of_page(page)["a.b"] == [(0, 5)]
    hook(1, 1, None, None, {"a": {"b": [5, 6]}})
    hook(2, 2, None, None, {"a": {"b": [5, 6, 7]}})
    update.callback()
    update.callback()
    assert curves_of_page(page)["a.b"] == [(0, 5), (1, 6), (2, 7)]
    hook.reset()
    hook(0, 0, None, None, {"a": {"b": [9]}})
    update.callback()
    assert curves_of_page(page)["a.b"] == [(0, 9)]


def test_page_is_served_on_this_machine_alone(visualizer):
    hook = visualizer("a.b")
    hook.start(None, None, False, {})
    with ask(hook.url) as page:
        assert page.status == 200
    port = int(hook.url.rstrip("/").rpartition(":")[2])
    with socket.socket() as other, pytest.raises(OSError, match="refused"):
        other.connect(("127.0.0.2", port))


def test_server_outlives_the_training_and_is_used_again(net, batches, visualizer):
    hook = visualizer(LOSSES)
    trainer = train(net, batches, hook)
    url = hook.url
    trainer.hooks["StopAfterEpoch"].max_epochs = 5
    train(net, batches, hook, trainer=trainer)
    assert hook.url == url
    ask(url).close()
    hook.shut_down()
    assert hook.url is None
    with pytest.raises(OSError, match="refused"):
        ask(url)


def test_servers_take_different_ports(visualizer):
    first, second = visualizer("a.b"), visualizer("a.b")
    first.start(None, None, False, {})
    second.start(None, None, False, {})
    assert first.url != second.url
    for hook in (first, second):
        ask(hook.url).close()


# -- the file ----------------------------------------------------------------


def test_file_shows_the_logs(net, batches, visualizer, tmp_path):
    path = tmp_path / "plots.html"
    logs = train(net, batches, visualizer(LOSSES, filename=str(path), name="P")).logs
    curves = curves_of_file(path)
    assert [x for x, _ in curves["MonitorLoss.total_loss"]] == [0, 1, 2, 3]
    training = logs["rolling_training"]["total_loss"]
    assert [y for _, y in curves["rolling_training.total_loss"]] == training
    text = path.read_text()
    assert "<title>P</title>" in text
    assert not re.search(r'<(script|link)[^>]*(src|href)="http', text)
    assert list(tmp_path.iterdir()) == [path]


def test_quantities_have_plots_of_their_own(net, batches, visualizer, tmp_path):
    path = tmp_path / "plots.html"
    names = [*LOSSES, "UpdateCounter.value"]
    train(net, batches, visualizer(names, filename=path), earlier=[UpdateCounter()])
    titles = re.findall(r'"name":"Title".*?"text":"(\w+)"', path.read_text())
    assert sorted(titles) == ["total_loss", "value"]


def test_file_is_there_during_the_training(net, batches, visualizer, tmp_path):
    path = tmp_path / "plots.html"
    sizes = []

    class Spy(UpdateCounter):
        def __call__(self, epoch_nr, update_nr, net, stepper, logs):
            found = curves_of_file(path) if path.exists() else {}
            sizes.append(len(found.get("UpdateCounter.value", [])))

    hook = visualizer("UpdateCounter.value", filename=path)
    hook.SECONDS_BETWEEN_SAVES = 0
    trainer = Trainer(SgdStepper(0.01))
    for other in (UpdateCounter(), hook, Spy(name="Spy"), StopAfterEpoch(2)):
        trainer.add_hook(other)
    trainer.train(net, batches)
    assert sizes == [1, 2, 3]


def test_file_is_written_when_a_training_fails(net, batches, visualizer, tmp_path):
    class Bomb(Hook):
        def __call__(self, epoch_nr, **kwargs):
            if epoch_nr == 2:
                raise RuntimeError("bang")

    path = tmp_path / "plots.html"
    hook = visualizer("UpdateCounter.value", filename=path)
    with pytest.raises(RuntimeError, match="bang"):
        train(net, batches, hook, earlier=[UpdateCounter(), Bomb()], epochs=5)
    assert len(curves_of_file(path)["UpdateCounter.value"]) >= 2


# -- the curves --------------------------------------------------------------


def points(hook, path="a.b"):
    return [tuple(point) for point in hook._curves[path]]


def test_axis_counts_updates(net, batches, visualizer):
    hook = visualizer(
        ["UpdateCounter.value", LOSSES[0]], timescale="update", interval=2
    )
    train(net, batches, hook, earlier=[UpdateCounter(timescale="update")], epochs=2)
    # Three updates in each epoch; the hook is called at 0, 2, 4, 6, and after epochs.
    found = points(hook, "UpdateCounter.value")
    assert found == [(x, 10 * (x + 1)) for x in range(7)]
    assert [x for x, _ in points(hook, LOSSES[0])] == [3, 6]


def test_entries_since_the_last_call_are_spread(visualizer):
    hook = visualizer("a.b")
    hook(0, 0, None, None, {"a": {"b": [1]}})
    hook(1, 7, None, None, {"a": {"b": [1]}})
    hook(2, 9, None, None, {"a": {"b": [1, 2, 3]}})
    assert points(hook) == [(0, 1), (1.5, 2), (2, 3)]


@pytest.mark.parametrize(
    ("number", "xs"),
    [(4, [0, 1, 2, 3]), (3, [1, 2, 3]), (7, [0, 0.5, 1, 1.5, 2, 2.5, 3])],
)
def test_entries_of_an_earlier_training_end_where_it_ended(visualizer, number, xs):
    hook = visualizer("a.b")
    hook(3, 30, None, None, {"a": {"b": list(range(number))}})
    assert points(hook) == list(zip(xs, range(number), strict=True))


def test_new_training_begins_anew(net, batches, visualizer):
    hook = visualizer("UpdateCounter.value")
    train(net, batches, hook, earlier=[UpdateCounter()], epochs=4)
    train(net, batches, hook, earlier=[UpdateCounter()], epochs=2)
    assert points(hook, "UpdateCounter.value") == [(0, 10), (1, 40), (2, 70)]


# -- what goes wrong ---------------------------------------------------------


def test_training_goes_on_without_a_server(
    net, batches, visualizer, tmp_path, monkeypatch, capsys
):
    def fail(self, show, port):
        raise OSError("no ports today")

    monkeypatch.setattr(_Server, "__init__", fail)
    path = tmp_path / "plots.html"
    hook = visualizer(LOSSES, filename=path)
    trainer = train(net, batches, hook)
    assert trainer.current_epoch_nr == 3
    assert hook.url is None
    assert len(curves_of_file(path)[LOSSES[0]]) == 3
    (warning,) = warnings(capsys)
    assert warning.startswith("can not start a Bokeh server: ")
    assert "no ports today" in warning


def test_failure_inside_the_server_thread_is_a_warning(visualizer, monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise RuntimeError("broken")

    monkeypatch.setattr("bokeh.server.server.Server.__init__", fail)
    hook = visualizer("a.b")
    hook.start(None, None, True, {})
    assert warnings(capsys) == ["can not start a Bokeh server: RuntimeError('broken')"]
    assert hook.url is None


def test_port_can_be_taken_by_others(net, batches, visualizer, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(BokehVisualizer, "PORT", taken.getsockname()[1])
        hook = visualizer(LOSSES)
        assert train(net, batches, hook).current_epoch_nr == 3
        assert not hook.url.endswith(f":{taken.getsockname()[1]}/")
        ask(hook.url).close()


def test_training_goes_on_without_the_file(net, batches, visualizer, tmp_path, capsys):
    hook = visualizer(LOSSES, filename=tmp_path / "no" / "plots.html")
    hook.SECONDS_BETWEEN_SAVES = 0
    assert train(net, batches, hook).current_epoch_nr == 3
    (warning,) = warnings(capsys)
    assert "plots.html" in warning
    assert "no folder" in warning


@pytest.mark.parametrize("content", ["import brainstorm\n", "# Notes <html>"])
def test_other_files_are_not_overwritten(visualizer, tmp_path, capsys, content):
    path = tmp_path / "my_script.py"
    path.write_text(content)
    hook = visualizer("a.b", path)
    hook.start(None, None, True, {})
    hook(0, 0, None, None, {"a": {"b": [1]}})
    hook.stop()
    assert path.read_text() == content
    assert "a file of another kind already (no HTML file)" in capsys.readouterr().out
    path.write_text("")
    hook.stop()
    written = path.read_text()
    hook.stop()
    assert written.startswith("<!DOCTYPE html>")
    assert curves_of_file(path)["a.b"] == [(0, 1)]


def test_training_goes_on_with_logs_that_can_not_be_shown(
    net, batches, visualizer, capsys
):
    names = ["UpdateCounter.foo", "UpdateCounter.text", "UpdateCounter.value"]
    hook = visualizer(names)
    assert train(net, batches, hook, earlier=[UpdateCounter()]).current_epoch_nr == 3
    first, second = warnings(capsys)
    assert "UpdateCounter.foo" in first
    assert "choices are: 'value', 'text'" in first
    assert "UpdateCounter.text" in second
    assert len(points(hook, "UpdateCounter.value")) == 4


def test_warnings_are_left_out_where_nothing_is_to_be_printed(visualizer, capsys):
    hook = visualizer("a.b", filename="/no/such/folder/plots.html", verbose=False)
    hook.start(None, None, True, {})
    hook(0, 0, None, None, {"a": {"c": [1]}})
    hook.stop()
    assert capsys.readouterr().out == ""


def test_unknown_hooks_are_known_before_the_training(net, batches, visualizer):
    with pytest.raises(KeyError, match=r"'foo\.bar'.*'MonitorLoss'"):
        train(net, batches, visualizer("foo.bar"))


@pytest.mark.parametrize("bad", [[], "", [""], None, 3, ["a.b", None], {"a": 1}])
def test_bad_log_names(bad):
    with pytest.raises(ValidationError, match="log_names has to be a list of paths"):
        BokehVisualizer(bad)


def test_without_bokeh(monkeypatch):
    for module in [m for m in sys.modules if m.split(".")[0] == "bokeh"]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install .*\[live-viz\]"):
        BokehVisualizer("a.b")


def test_description(visualizer):
    hook = visualizer(["a.b", "c"], "plots.html", "update", 3, "P", False)
    description = get_description(hook)
    assert description == {
        "@type": "BokehVisualizer",
        "log_names": ["a.b", "c"],
        "filename": "plots.html",
        "timescale": "update",
        "interval": 3,
        "name": "P",
        "verbose": False,
    }
    json.dumps(description)
    hook.start(None, None, False, {})
    assert get_description(create_from_description(description)) == description
    assert get_description(hook) == description

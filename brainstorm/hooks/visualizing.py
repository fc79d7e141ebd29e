"""Live plots of a training."""

from __future__ import annotations

import asyncio
import functools
import os
import queue
import socket
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from brainstorm.files import atomic_path, check_start
from brainstorm.hooks.base_hook import Common, Hook, get_log, takes
from brainstorm.structure.network import Network
from brainstorm.training.steppers import TrainingStepper
from brainstorm.utils import Unpack, ValidationError, import_extra

__all__ = ["BokehVisualizer"]

# The points (x, y) of each curve by the path of its log.
Curves = Mapping[str, list[tuple[float, float]]]


class BokehVisualizer(Hook):
    """Show logs as curves that grow in a web browser while the network is trained.

    The plots are at :attr:`url`, which the hook prints when the training starts. They
    come from a Bokeh server on this machine, which runs inside this process, as long
    as the process does. Logs of the same quantity, such as ``'training.total_loss'``
    and ``'validation.total_loss'``, share a plot.

    The hook never stops a training: of what it can not do, such as to start a server,
    it prints one warning and goes on.

    Like all hooks that read logs it has to be added after those that write them, with
    a `timescale` and `interval` like theirs. Entries that were logged since the last
    call are spread evenly.

    Needs `Bokeh <https://bokeh.org>`_.

    Args:
        log_names: Dotted paths of the logs, ``<hook name>.<log name>``, such as
            ``'validation.Accuracy'``; or one of them.
        filename: Name of an HTML file for the plots, which needs neither the server
            nor the internet to be viewed. It is written now and then, and when the
            training ends, if there is no file of another kind. Its folder has to
            exist. Default: no file.
        timescale, interval, name, verbose: See :class:`.Hook`. The name is also
            the title of the page, the timescale the horizontal axis.

    Raises:
        ImportError: Bokeh is not installed.
    """

    repeatable = True
    only_reports = True

    PORT = 5006
    """Where to look for a free port first; Bokeh's usual one."""
    SECONDS_BETWEEN_SAVES = 10.0

    @takes("timescale", "interval", "name", "verbose")
    def __init__(
        self,
        log_names: str | Sequence[str],
        filename: str | os.PathLike[str] | None = None,
        **common: Unpack[Common],
    ):
        names = [log_names] if isinstance(log_names, str) else log_names
        good = isinstance(names, (list, tuple)) and len(names) > 0
        if not good or not all(isinstance(n, str) and n for n in names):
            raise ValidationError(
                "BokehVisualizer: log_names has to be a list of paths of logs, such as"
                f" 'validation.Accuracy', not {log_names!r}"
            )
        import_extra("bokeh.plotting", "BokehVisualizer", "live-viz")
        self.log_names: list[str] = list(names)
        self.filename: str | None = None if filename is None else os.fspath(filename)
        self._curves: Curves = {path: [] for path in self.log_names}
        self._server: _Server | None = None
        super().__init__(**common)

    @property
    def url(self) -> str | None:
        """Where the live plots are; None while there is no server."""
        return None if self._server is None else self._server.url

    def reset(self) -> None:
        super().reset()
        for points in self._curves.values():
            points.clear()
        self._nr_seen = dict.fromkeys(self.log_names, 0)
        self._last_x: float | None = None
        self._warned: set[str] = set()
        self._saved = 0.0

    def watched_logs(self) -> tuple[str, ...]:
        return tuple(self.log_names)

    def start(
        self,
        net: Network,
        stepper: TrainingStepper,
        verbose: bool | int,
        named_data_iters: Mapping[str, Any],
    ) -> None:
        super().start(net, stepper, verbose, named_data_iters)
        if self._server is None:
            self._try("start a Bokeh server", self._start_server)
        if self._server is not None:
            self.message(f"The plots are at {self.url}")

    def __call__(
        self,
        epoch_nr: int,
        update_nr: int,
        net: Network,
        stepper: TrainingStepper,
        logs: dict[str, Any],
    ) -> Any:
        x = float(update_nr if self.timescale == "update" else epoch_nr)
        for path in self.log_names:
            self._try(f"plot {path}", functools.partial(self._extend, path, x, logs))
        self._last_x = x
        if time.monotonic() - self._saved >= self.SECONDS_BETWEEN_SAVES:
            self._save()

    def stop(self) -> None:
        self._save()  # The server stays, so that the plots can be looked at.

    def shut_down(self) -> None:
        """Stop the server."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def _try(self, what: str, action: Callable[[], None]) -> None:
        """Do something; warn the first time that it fails."""
        try:
            action()
        except Exception as error:  # whatever it is, the training has to go on
            if what not in self._warned:
                self._warned.add(what)
                self.message(f"Warning: can not {what}: {error!r}")

    def _extend(self, path: str, x: float, logs: Mapping[str, Any]) -> None:
        entries = get_log(logs, path)[self._nr_seen[path] :]
        number = len(entries)
        if self._last_x is None:  # Entries of an earlier training: end at x.
            xs = np.linspace(max(0.0, x - number + 1), x, number)
        else:
            xs = np.linspace(self._last_x, x, number + 1)[1:]
        self._nr_seen[path] += number
        self._curves[path].extend(zip(xs.tolist(), map(float, entries), strict=True))

    def _start_server(self) -> None:
        show = functools.partial(
            _show, curves=self._curves, title=self.__name__, x_label=self.timescale
        )
        self._server = _Server(show, self.PORT)
        weakref.finalize(self, self._server.stop)

    def _save(self) -> None:
        if self.filename is not None:
            self._saved = time.monotonic()
            self._try(f"write {self.filename}", self._write_file)

    def _write_file(self) -> None:
        from bokeh.embed import file_html
        from bokeh.resources import INLINE

        filename: Any = self.filename
        check_start(filename, rb"\s*<(!DOCTYPE )?html", "HTML file")
        plots, _ = _create_plots(self._curves, self.timescale)
        text = file_html(plots, INLINE, title=self.__name__)
        with atomic_path(filename) as temporary:
            temporary.write_text(text, encoding="utf-8")


# -- plots -------------------------------------------------------------------


def _create_plots(curves: Curves, x_label: str) -> tuple[Any, dict[str, Any]]:
    """Plots of all curves, one for each quantity, and the data of each curve."""
    from bokeh.layouts import column
    from bokeh.models import ColumnDataSource
    from bokeh.palettes import Category10
    from bokeh.plotting import figure

    sources = {path: ColumnDataSource(_columns(curves[path])) for path in curves}
    quantities: dict[str, list[str]] = {}
    for path in curves:
        quantities.setdefault(path.rpartition(".")[2], []).append(path)
    plots = []
    for quantity, paths in quantities.items():
        plot = figure(
            title=quantity,
            x_axis_label=x_label,
            height=350,
            sizing_mode="stretch_width",
            tools="pan,wheel_zoom,box_zoom,reset,save,hover",
            tooltips=[(x_label, "@x"), (quantity, "@y")],
        )
        for i, path in enumerate(paths):
            style: Any = {"color": Category10[10][i % 10], "legend_label": path}
            plot.line("x", "y", source=sources[path], line_width=2, **style)
            plot.scatter("x", "y", source=sources[path], size=5, **style)
        legend = plot.legend[0]
        legend.update(click_policy="hide", orientation="horizontal", location="left")
        legend.update(margin=0, padding=0, border_line_color=None)
        plot.add_layout(legend, "above")
        plots.append(plot)
    return column(*plots, sizing_mode="stretch_width"), sources


def _columns(points: list[tuple[float, float]]) -> dict[str, list[float]]:
    return {"x": [x for x, _ in points], "y": [y for _, y in points]}


def _show(document: Any, curves: Curves, title: str, x_label: str) -> None:
    """Fill the page of a browser that has connected, and keep it up to date."""
    plots, sources = _create_plots(curves, x_label)

    def update() -> None:
        for path, source in sources.items():
            number = len(source.data["x"])
            if number > len(curves[path]):  # a new training has begun
                source.data = _columns(curves[path])
            elif number < len(curves[path]):
                source.stream(_columns(curves[path][number:]))

    document.title = title
    document.add_root(plots)
    document.add_periodic_callback(update, 500)


class _Server:
    """A Bokeh server in a thread of its own, whose port is `port` if that is free.

    It has `show` fill the document of each browser that connects. The constructor
    raises whatever keeps it from starting.
    """

    def __init__(self, show: Callable[[Any], None], port: int):
        self._ready: queue.Queue[str | Exception] = queue.Queue()
        run = functools.partial(self._run, show, port)
        self._thread = threading.Thread(target=run, name="BokehVisualizer", daemon=True)
        self._thread.start()
        answer = self._ready.get(timeout=30)
        if isinstance(answer, Exception):
            raise answer
        self.url = answer

    def _run(self, show: Callable[[Any], None], port: int) -> None:
        try:
            asyncio.run(self._serve(show, port))
        except Exception as error:
            self._ready.put(error)

    async def _serve(self, show: Callable[[Any], None], port: int) -> None:
        from bokeh.server.server import Server

        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        port = _free_port(port)
        hosts = [f"localhost:{port}", f"127.0.0.1:{port}"]
        server = Server(
            show, port=port, address="127.0.0.1", allow_websocket_origin=hosts
        )
        server.start()
        self._ready.put(f"http://localhost:{port}/")
        await self._stopping.wait()
        server.stop()

    def stop(self) -> None:
        """End the server and its thread, if they still run."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(timeout=5)


def _free_port(preferred: int) -> int:
    """The port if it is free, else another one."""
    for port in (preferred, 0):
        with socket.socket() as trial:
            if os.name == "posix":  # a port that was in use until lately is free
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            return trial.getsockname()[1]
    raise OSError("there is no free port")

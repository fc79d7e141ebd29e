"""A page that shows what is in a network while it is trained."""

from __future__ import annotations

import functools
import os
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from brainstorm.files import atomic_path
from brainstorm.hooks.base_hook import Common, NetworkReader, takes
from brainstorm.structure.network import Network
from brainstorm.training.steppers import TrainingStepper
from brainstorm.utils import Unpack, ValidationError
from brainstorm.viewer.contents import plain_number
from brainstorm.viewer.page import check_page_target, render, to_json
from brainstorm.viewer.server import PageServer
from brainstorm.viewer.snapshot import take_snapshot

__all__ = ["Inspector"]


class Inspector(NetworkReader):
    """Show in a browser what is in a network while it is trained.

    The page is at :attr:`url`, which the hook prints when the training starts: the
    page of :func:`brainstorm.tools.view`, which follows the training. It has the first
    sequence of the first batch that the hook sees as the example. Besides, it shows
    curves of what the hook samples whenever it is called:

    - the loss of the training batch,
    - for each layer the Euclidean norm of its gradients, from that batch,
    - for each layer how much its parameters have changed since the last sample, divided
      by their norm and by the number of updates. With an `interval` of 1 that is the
      ratio of updates to weights.

    The server answers this machine alone (127.0.0.1), and stops with the training,
    however that ends. Updates between the samples take no more time than without the
    hook. The hook never stops a training: of what it can not do, such as to write the
    file, it prints one warning and goes on.

    Args:
        filename: Name of an HTML file for the page, which needs neither the server nor
            the internet to be viewed. It is written when the training ends. Its folder
            has to exist. Default: no file.
        serve: Whether to serve the page during the training.
        timescale, interval, name, verbose: See :class:`.Hook`. The name is also
            the title of the page.
    """

    saves = "a page"
    only_reports = True
    initial_state: ClassVar[dict[str, Any]] = {"samples": None, "parameters": None}
    __undescribed__: ClassVar[set[str] | dict[str, Any]] = initial_state
    """`samples` has a row for each: update, loss, then the norms of the gradients, of
    the parameters and the relative changes of all layers that have parameters.
    `parameters` are those of the last sample."""

    PORT = 5007
    """Where to look for a free port first."""
    SECONDS_BETWEEN_SNAPSHOTS = 1.0
    MOST_SAMPLES = 2000
    MOST_NUMBERS = 100_000
    """Of samples that have more numbers than this, the page shows a part."""

    samples: np.ndarray | None
    parameters: np.ndarray | None

    @takes("timescale", "interval", "name", "verbose")
    def __init__(
        self,
        filename: str | os.PathLike[str] | None = None,
        serve: bool = True,
        **common: Unpack[Common],
    ):
        if not isinstance(serve, bool):
            raise ValidationError(
                f"{type(self).__name__}: serve has to be True or False, not {serve!r}"
            )
        self.filename: str | None = None if filename is None else os.fspath(filename)
        self.serve = serve
        self._net: Network | None = None
        self._server: PageServer | None = None
        self._forget()
        super().__init__(**common)

    def _forget(self) -> None:
        self._example: dict[str, np.ndarray] | None = None
        self._published = -float("inf")
        self._warned: set[str] = set()

    @property
    def url(self) -> str | None:
        """Where the page is; None while there is no server."""
        return None if self._server is None else self._server.url

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the server and the network that is trained."""
        return {**self.__dict__, "_server": None, "_net": None}

    def reset(self) -> None:
        super().reset()
        self._forget()

    def start(
        self,
        net: Network,
        stepper: TrainingStepper,
        verbose: bool | int,
        named_data_iters: Mapping[str, Any],
    ) -> None:
        super().start(net, stepper, verbose, named_data_iters)
        if self.filename is not None:
            check_page_target(self.filename)
        self._net = net
        if self.serve:
            self._try("serve the page", self._start_server)
            if self._server is not None:
                self.message(f"The page is at {self.url}")

    def read(self, net: Network) -> Any:
        """The loss of the batch, and one of its sequences until there is an example."""
        loss = net.get_loss_values()["total_loss"] if net.loss_layers else np.nan
        example = None if self._example is not None else _first_sequence(net)
        return loss, example

    def __call__(
        self,
        epoch_nr: int,
        update_nr: int,
        net: Network,
        stepper: TrainingStepper,
        logs: dict[str, Any],
    ) -> Any:
        if update_nr > 0:
            loss, example = self.seen(net, update_nr)
            self._example = self._example if example is None else example
            self._sample(net, update_nr, loss)
        else:
            self.parameters = _flat(net, "parameters")[0]
        server = self._server
        if server is not None and self._is_wanted(server):
            publish = functools.partial(self._publish, server, net)
            self._try("show the network", publish)
            self._published = time.monotonic()

    def _is_wanted(self, server: PageServer) -> bool:
        """Whether somebody looks at the page, and what is there is not new."""
        age = time.monotonic() - self._published
        asked = server.last_asked > self._published or not server.number
        return asked and age >= self.SECONDS_BETWEEN_SNAPSHOTS

    def stop(self) -> None:
        filename, net = self.filename, self._net
        if filename is not None and net is not None:
            write = functools.partial(self._write_file, filename, net)
            self._try(f"write {filename}", write)
        if self._server is not None:
            self._server.close()
        self._server = self._net = None

    # -- sampling ------------------------------------------------------------

    @np.errstate(all="ignore")
    def _sample(self, net: Network, update_nr: int, loss: float) -> None:
        now, parts = _flat(net, "parameters")
        gradients, _ = _flat(net, "gradients")
        norms = [_norms(array, parts) for array in (gradients, now)]
        changes = np.full(len(parts), np.nan)
        known = self.samples
        if known is not None and known.shape[1] != 2 + 3 * len(parts):
            known = None  # of another network
        before = 0 if known is None else known[-1, 0]
        if self.parameters is not None and self.parameters.shape == now.shape:
            moved = _norms(now - self.parameters, parts)
            changes = moved / norms[1] / max(update_nr - before, 1)
        row = np.concatenate([[update_nr, loss], *norms, changes])[np.newaxis]
        rows = row if known is None else np.concatenate([known, row])
        if len(rows) > self.MOST_SAMPLES:  # the last one stays
            rows = rows[(len(rows) - 1) % 2 :: 2]
        self.samples, self.parameters = rows, now

    def history(self, net: Network) -> dict[str, Any] | None:
        """What has been sampled, as the page takes it; None without any."""
        if self.samples is None:
            return None
        layers = [name for name, layer in net.layers.items() if layer.parameter_shapes]
        step = -(-self.samples.size // self.MOST_NUMBERS)
        samples = self.samples[::-step][::-1]  # the last one stays
        columns = np.split(samples[:, 2:], 3, axis=1)
        tables = dict(zip(("gradient_norms", "norms", "changes"), columns, strict=True))
        return {
            "layers": layers,
            "updates": samples[:, 0].astype(int).tolist(),
            "losses": _plain(samples[:, 1]),
            **{name: [_plain(row) for row in table] for name, table in tables.items()},
        }

    # -- showing -------------------------------------------------------------

    def _start_server(self) -> None:
        self._server = server = PageServer(self.PORT)
        weakref.finalize(self, server.close)

    def _snapshot(self, net: Network) -> Mapping[str, Any]:
        history = self.history(net)
        return take_snapshot(net, self.__name__, self._example, history=history)

    def _publish(self, server: PageServer, net: Network) -> None:
        snapshot = self._snapshot(net)
        server.publish(render(snapshot, live=True), to_json(snapshot))

    def _write_file(self, filename: str, net: Network) -> None:
        text = render(self._snapshot(net))
        with atomic_path(filename) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def _try(self, what: str, action: Callable[[], None]) -> None:
        """Do something; warn the first time that it fails."""
        try:
            action()
        except Exception as error:  # whatever it is, the training has to go on
            if what not in self._warned:
                self._warned.add(what)
                self.message(f"Warning: can not {what}: {error!r}")


def _first_sequence(net: Network) -> dict[str, np.ndarray]:
    """The inputs of the first sequence of the current batch."""
    sequence = {}
    for name, structure in net.layers["Input"].out_shapes.items():
        axis = structure.buffer_type - 1
        values = net.get_input(name)
        sequence[name] = values.take([0], axis) if axis >= 0 else values
    return sequence


def _flat(net: Network, category: str) -> tuple[np.ndarray, list[slice]]:
    """All parameters or gradients side by side, and where those of each layer are."""
    arrays, parts, stop = [np.zeros(0)], [], 0
    for name, layer in net.layers.items():
        if layer.parameter_shapes:
            own = [net.get(f"{name}.{category}.{n}") for n in layer.parameter_shapes]
            start, stop = stop, stop + sum(array.size for array in own)
            parts.append(slice(start, stop))
            arrays += [array.ravel() for array in own]
    return np.concatenate(arrays).astype(np.float64), parts


def _norms(array: np.ndarray, parts: list[slice]) -> np.ndarray:
    return np.array([np.linalg.norm(array[part]) for part in parts])


def _plain(values: np.ndarray) -> list[float | None]:
    return [plain_number(value) for value in values]

"""Hooks that hand all logs on to programs that keep and show them."""

from __future__ import annotations

import math
import numbers
import os
import socket
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from brainstorm.hooks.base_hook import Common, Hook, takes
from brainstorm.structure.network import Network
from brainstorm.training.declared import arguments_of
from brainstorm.training.steppers import TrainingStepper
from brainstorm.training.utils import leaves
from brainstorm.utils import Unpack, ValidationError, import_extra

__all__ = ["Mlflow", "TensorBoard", "Tracker"]


class Entry(NamedTuple):
    """An entry of a log.

    Attributes:
        name: Name of the hook and of the log, such as ``'validation/Accuracy'``.
        step: Number of the epoch, or of the update for logs of updates.
        value: What was logged.
    """

    name: str
    step: int
    value: Any


class Tracker(Hook):
    """Base class of hooks that hand each entry of all logs on, once.

    A training that goes on, also from a checkpoint, goes on where it was. Entries that
    were there before the hook was added are left out. A subclass overrides
    :meth:`write`.
    """

    __undescribed__: ClassVar[set[str] | dict[str, Any]] = {
        "seen",
        "has_begun",
        "filename",
    }
    initial_state: ClassVar[dict[str, Any]] = {"seen": {}, "has_begun": False}
    seen: dict[str, int]
    has_begun: bool

    saves = "the logs"
    only_reports = True
    filename: str | None = None

    _net: Network | None = None
    _stepper: TrainingStepper | None = None
    _is_restored = False

    def write(self, entries: list[Entry]) -> None:
        """Hand entries on."""
        raise NotImplementedError

    def start(
        self,
        net: Network,
        stepper: TrainingStepper,
        verbose: bool,
        named_data_iters: Mapping[str, Any],
    ) -> None:
        super().start(net, stepper, verbose, named_data_iters)
        self._net, self._stepper = net, stepper

    def finish_round(self, trainer: Any) -> None:
        """Hand on what is new; called when all hooks have been called."""
        # Entries of an earlier training have steps that nobody knows.
        is_late = not self.has_begun and trainer.current_update_nr > 0
        self.has_begun = True
        entries = [*self._new_entries(trainer)]
        if entries and not is_late:
            self.write(entries)

    def set_state(self, state: Mapping[str, Any]) -> None:
        super().set_state(state)
        self._is_restored = True

    def reset(self) -> None:
        super().reset()
        self._is_restored = False

    def settings(self) -> dict[str, Any]:
        """The class of the stepper, and its arguments by name."""
        settings = {"stepper": type(self._stepper).__name__}
        for name, value in arguments_of(self._stepper).items():
            is_plain = isinstance(value, bool | int | float | str)
            settings[name] = value if is_plain else repr(value)
        return settings

    def _new_entries(self, trainer: Any) -> Iterator[Entry]:
        for hook_name, log in trainer.logs.items():
            hook = trainer.hooks.get(hook_name)
            by_update = getattr(hook, "timescale", "epoch") == "update"
            step = trainer.current_update_nr if by_update else trainer.current_epoch_nr
            for path, values in leaves(hook_name, log):
                name = "/".join(filter(None, path))
                new = values[self.seen.get(name, 0) :]
                self.seen[name] = len(values)
                for value in new:
                    yield Entry(name, step, value)


def number_of(value: Any) -> float | None:
    """A value as a number, None if it is none."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    try:
        is_number = isinstance(value, numbers.Real | np.bool_)
        return float(value) if is_number else None
    except OverflowError:
        return math.inf if value > 0 else -math.inf


# -- TensorBoard -------------------------------------------------------------


class TensorBoard(Tracker):
    """Write all logs for `TensorBoard <https://www.tensorflow.org/tensorboard>`_.

    ``tensorboard --logdir FOLDER`` shows them: numbers as curves over epochs, or over
    updates for hooks of updates, everything else as text; besides, the table of the
    network and the arguments of the stepper.

    A training that is loaded from a checkpoint cuts off what its file got after that
    checkpoint, and goes on with the file; another training begins another one. Give
    each a folder of its own.

    Args:
        log_dir: Folder of the files; it is made if necessary.
        histograms: Whether to write histograms of all parameters and gradients, when
            the hook is called.
        name, timescale, interval: See :class:`.Hook`. They hold for the histograms.

    Raises:
        ImportError: tensorboard is not installed.
        ValidationError: An argument does not fit.
    """

    __undescribed__: ClassVar[set[str] | dict[str, Any]] = {"file", "size"}
    initial_state: ClassVar[dict[str, Any]] = {
        **Tracker.initial_state,
        "file": None,
        "size": 0,
    }
    file: str | None
    size: int

    SECONDS_BETWEEN_FLUSHES = 5.0

    _records: Any = None
    _flushed = -math.inf

    @takes("name", "timescale", "interval")
    def __init__(
        self,
        log_dir: str | os.PathLike,
        histograms: bool = False,
        **common: Unpack[Common],
    ):
        super().__init__(**common)
        if not isinstance(log_dir, str | os.PathLike) or not os.fspath(log_dir):
            raise ValidationError(
                f"{self.__name__}: log_dir has to be the name of a folder, not"
                f" {log_dir!r}"
            )
        if not isinstance(histograms, bool):
            raise ValidationError(
                f"{self.__name__}: histograms has to be True or False, not"
                f" {histograms!r}"
            )
        import_extra("tensorboard.summary.writer", "TensorBoard", "tensorboard")
        # Two hooks may not share it.
        self.log_dir = self.filename = os.fspath(log_dir)
        self.histograms = histograms

    def start(
        self,
        net: Network,
        stepper: TrainingStepper,
        verbose: bool,
        named_data_iters: Mapping[str, Any],
    ) -> None:
        super().start(net, stepper, verbose, named_data_iters)
        try:
            os.makedirs(self.log_dir, exist_ok=True)
        except OSError as error:
            raise ValidationError(
                f"{self.__name__}: {self.log_dir!r} is no folder, and can not be made"
                f" one: {error}"
            ) from error

    def __call__(
        self,
        epoch_nr: int,
        update_nr: int,
        net: Network,
        stepper: TrainingStepper,
        logs: dict[str, Any],
    ) -> Any:
        if not self.histograms:
            return
        from tensorboard.plugins.histogram.summary_v2 import histogram_pb

        step = update_nr if self.timescale == "update" else epoch_nr
        # After a checkpoint there are none until the next update.
        has_gradients = update_nr > 0 and net.get("gradients").any()
        views = ("parameters", "gradients") if has_gradients else ("parameters",)
        for layer_name, layer in net.layers.items():
            for view in views:
                for name in layer.parameter_shapes:
                    values = net.get(f"{layer_name}.{view}.{name}")
                    values = values[np.isfinite(values)]
                    if values.size:
                        tag = f"{layer_name}/{view}/{name}"
                        self._add(step, histogram_pb(tag, values))

    def write(self, entries: list[Entry]) -> None:
        """Write entries as scalars and texts."""
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb
        from tensorboard.plugins.text.summary_v2 import text_pb

        for name, step, value in entries:
            number = number_of(value)
            if number is not None:
                self._add(step, scalar_pb(name, number))
            elif value is not None:
                self._add(step, text_pb(name, str(value)))
        if time.monotonic() - self._flushed >= self.SECONDS_BETWEEN_FLUSHES:
            self._flushed = time.monotonic()
            self._records.flush()

    def get_state(self) -> dict[str, Any]:
        if self._records is not None:
            self._records.flush()
            self._note_size()
        return super().get_state()

    def stop(self) -> None:
        if self._records is not None:
            records, self._records = self._records, None
            records.close()
            self._note_size()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in ("_records", "_net")}

    def _note_size(self) -> None:
        if self.file is not None:
            self.size = os.path.getsize(Path(self.log_dir, self.file))

    def _add(self, step: int, summary: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        if self._records is None:
            self._open()
        event = Event(wall_time=time.time(), step=step, summary=summary)
        self._records.write(event.SerializeToString())

    def _open(self) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        path = None if self.file is None else Path(self.log_dir, self.file)
        if path is None or not path.is_file() or path.stat().st_size < self.size:
            self._records = RecordWriter(self._new_file())
            self._begin()
            return
        if self._is_restored:
            os.truncate(path, self.size)
            self._is_restored = False
        self._records = RecordWriter(path.open("ab"))

    def _new_file(self) -> Any:
        stem = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"
        number = 0
        while True:
            self.file = f"{stem}.{os.getpid()}.{number}"
            try:
                return Path(self.log_dir, self.file).open("xb")
            except FileExistsError:
                number += 1

    def _begin(self) -> None:
        """Write what stands at the beginning of a file."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.plugins.text.summary_v2 import text_pb

        now = time.time()
        event = Event(wall_time=now, file_version="brain.Event:2")
        self._records.write(event.SerializeToString())
        # Four blanks are a literal block in Markdown.
        lines = str(self._net).splitlines()
        text = "\n".join(f"    {line}" for line in lines)
        self._add(0, text_pb("network", text))
        self._add(0, hparams_pb(self.settings(), start_time_secs=now))


# -- MLflow ------------------------------------------------------------------


class Mlflow(Tracker):
    """Log a training as a run of `MLflow <https://mlflow.org>`_.

    Numbers are metrics, over epochs, or over updates for hooks of updates; of anything
    else the last value is a tag. The arguments of the stepper are the parameters of
    the run, and the table of the network is its artifact ``network.txt``.

    A training that is loaded from a checkpoint goes on with its run. What that had got
    after the checkpoint is not logged again.

    Args:
        experiment: Name of the experiment; it is made if there is none.
        run_name: Name of the run. By default MLflow makes one up.
        tracking_uri: Where MLflow keeps its data, such as ``'sqlite:///mlflow.db'`` or
            the address of a server. By default what MLflow has been set to.
        name: See :class:`.Hook`.

    Raises:
        ImportError: mlflow is not installed.
        ValidationError: An argument does not fit.
    """

    __undescribed__: ClassVar[set[str] | dict[str, Any]] = {"run_id"}
    initial_state: ClassVar[dict[str, Any]] = {**Tracker.initial_state, "run_id": None}
    run_id: str | None

    SECONDS_BETWEEN_SENDS = 2.0
    MOST_METRICS = 1000  # in a request
    LONGEST_TAG = 5000

    _client: Any = None
    _error_before: BaseException | None = None

    @takes("name")
    def __init__(
        self,
        experiment: str = "Default",
        run_name: str | None = None,
        tracking_uri: str | None = None,
        **common: Unpack[Common],
    ):
        super().__init__(**common)
        for argument, value in [
            ("experiment", experiment),
            ("run_name", run_name or "unnamed"),
            ("tracking_uri", tracking_uri or "default"),
        ]:
            if not isinstance(value, str) or not value:
                raise ValidationError(
                    f"{self.__name__}: {argument} has to be a string, not {value!r}"
                )
        import_extra("mlflow.tracking", "Mlflow", "mlflow")
        self.experiment = experiment
        self.run_name = run_name
        self.tracking_uri = tracking_uri

    def reset(self) -> None:
        super().reset()
        self._metrics: list[tuple[str, float, int, int]] = []
        self._tags: dict[str, str] = {}
        self._last_steps: dict[str, int] = {}
        self._sent = -math.inf

    def start(
        self,
        net: Network,
        stepper: TrainingStepper,
        verbose: bool,
        named_data_iters: Mapping[str, Any],
    ) -> None:
        super().start(net, stepper, verbose, named_data_iters)
        self._error_before = sys.exc_info()[1]

    def write(self, entries: list[Entry]) -> None:
        """Keep entries until it is time to send them."""
        if self._client is None:
            self._connect()
        now = int(1000 * time.time())
        for name, step, value in entries:
            number = number_of(value)
            key = _key(name)
            if number is None:
                self._tags[key] = str(value)[: self.LONGEST_TAG]
            elif step > self._last_step(key):
                self._metrics.append((key, number, now, step))
        if time.monotonic() - self._sent >= self.SECONDS_BETWEEN_SENDS:
            self._send()

    def get_state(self) -> dict[str, Any]:
        self._send()
        return super().get_state()

    def stop(self) -> None:
        if self._client is None:
            return
        error = sys.exc_info()[1]
        status = "FINISHED"
        if error is not None and error is not self._error_before:
            killed = isinstance(error, KeyboardInterrupt)
            status = "KILLED" if killed else "FAILED"
        self._send()
        self._try(lambda: self._client.set_terminated(self.run_id, status))
        self._client = None

    def __getstate__(self) -> dict[str, Any]:
        left_out = ("_client", "_net", "_error_before")
        return {k: v for k, v in vars(self).items() if k not in left_out}

    def _connect(self) -> None:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        try:
            self._client = MlflowClient(self.tracking_uri)
            self._begin_run()
        except MlflowException as error:
            self._client = None
            raise ValidationError(f"{self.__name__}: {error}") from error

    def _begin_run(self) -> None:
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException

        client = self._client
        if self.run_id is not None:
            try:
                client.update_run(self.run_id, status="RUNNING")
                return
            except MlflowException:  # it is gone, or was never there
                self.run_id, self._is_restored = None, False
        known = client.get_experiment_by_name(self.experiment)
        experiment_id = (
            client.create_experiment(self.experiment)
            if known is None
            else known.experiment_id
        )
        run = client.create_run(experiment_id, run_name=self.run_name)
        self.run_id = run.info.run_id
        params = [Param(key, str(value)) for key, value in self.settings().items()]
        client.log_batch(self.run_id, params=params)
        client.log_text(self.run_id, str(self._net), "network.txt")

    def _last_step(self, key: str) -> int:
        """The last step that the run has got already from before a checkpoint."""
        if not self._is_restored:
            return -1
        if key not in self._last_steps:
            history = self._client.get_metric_history(self.run_id, key)
            self._last_steps[key] = max((m.step for m in history), default=-1)
        return self._last_steps[key]

    def _send(self) -> None:
        from mlflow.entities import Metric, RunTag

        if self._client is None:
            return
        self._sent = time.monotonic()
        while self._metrics or self._tags:
            metrics = [Metric(*m) for m in self._metrics[: self.MOST_METRICS]]
            tags = [RunTag(key, text) for key, text in self._tags.items()]
            if not self._try(
                lambda m=metrics, t=tags: self._client.log_batch(
                    self.run_id, metrics=m, tags=t
                )
            ):
                return
            del self._metrics[: self.MOST_METRICS]
            self._tags.clear()

    def _try(self, action: Any) -> bool:
        """Whether something worked; a server that is away does not stop a training."""
        from mlflow.exceptions import MlflowException

        try:
            action()
        except MlflowException as error:
            warnings.warn(f"{self.__name__}: {error}", stacklevel=2)
            return False
        return True


def _key(name: str) -> str:
    """A name that MLflow takes."""
    return "".join(c if c.isalnum() or c in "_-./ :" else "_" for c in name)[:250]

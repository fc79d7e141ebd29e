"""A hook that writes the files that TensorBoard shows."""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from brainstorm.hooks.base_hook import Common, takes
from brainstorm.hooks.tracking import Entry, Tracker, number_of
from brainstorm.structure.network import Network
from brainstorm.training.steppers import TrainingStepper
from brainstorm.utils import Unpack, ValidationError, import_extra

__all__ = ["TensorBoard"]


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

    _output: Any = None
    _flushed = -math.inf

    @takes("name", "timescale", "interval")
    def __init__(
        self,
        log_dir: str | os.PathLike[str],
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
        self.log_dir: str = os.fspath(log_dir)
        self.filename: str | None = self.log_dir
        self.histograms = histograms

    def start(
        self,
        net: Network,
        stepper: TrainingStepper,
        verbose: bool | int,
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
            self._output.flush()

    def get_state(self) -> dict[str, Any]:
        if self._output is not None:
            self._output.flush()
            self.size = self._output.tell()
        return super().get_state()

    def stop(self) -> None:
        if self._output is not None:
            output, self._output = self._output, None
            with output:
                self.size = output.tell()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in ("_output", "_net")}

    def _add(self, step: int, summary: Any) -> None:
        if self._output is None:
            self._open()
        self._write(step=step, summary=summary)

    def _write(self, **event: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        record = Event(wall_time=time.time(), **event).SerializeToString()
        RecordWriter(self._output).write(record)

    def _open(self) -> None:
        path = None if self.file is None else Path(self.log_dir, self.file)
        if path is None or not path.is_file() or path.stat().st_size < self.size:
            self._output = self._new_file()
            self._begin()
            return
        if self._is_restored:
            os.truncate(path, self.size)
            self._is_restored = False
        self._output = path.open("ab")

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
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.plugins.text.summary_v2 import text_pb

        self._write(file_version="brain.Event:2")
        # Four blanks are a literal block in Markdown.
        lines = str(self._net).splitlines()
        text = "\n".join(f"    {line}" for line in lines)
        self._add(0, text_pb("network", text))
        self._add(0, hparams_pb(self.settings(), start_time_secs=time.time()))

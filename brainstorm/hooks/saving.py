"""Hooks that save the network or the logs."""

from __future__ import annotations

import copy
import csv
import os
import signal
import threading
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import h5py
import numpy as np

from brainstorm import files
from brainstorm.describable import get_description
from brainstorm.hooks.base_hook import (
    Common,
    Hook,
    LogWatcher,
    get_log,
    takes,
    takes_common,
)
from brainstorm.hooks.tracking import Tracker
from brainstorm.literals import Criterion
from brainstorm.structure.network import Network
from brainstorm.structure.network_files import FORMAT as NETWORK_FORMAT
from brainstorm.training.checkpoints import FORMAT as CHECKPOINT_FORMAT
from brainstorm.training.steppers import TrainingStepper
from brainstorm.training.utils import report
from brainstorm.utils import Unpack, ValidationError

__all__ = [
    "CsvLog",
    "InfoUpdater",
    "RestoreBest",
    "SaveBestNetwork",
    "SaveCheckpoint",
    "SaveLogs",
    "SaveNetwork",
    "load_logs",
]

LOGS_FORMAT = "Logs file v1.0"


class _Saver(Hook):
    """Base class of hooks that write a file now and then."""

    file_format = ""
    """The kind of the files."""
    saves = "the newest"

    @takes("name", "timescale", "interval")
    def __init__(self, filename: str | os.PathLike[str], **common: Unpack[Common]):
        super().__init__(**common)
        self.filename: str = os.fspath(filename)

    def start(
        self,
        net: Network,
        stepper: TrainingStepper,
        verbose: bool | int,
        named_data_iters: Mapping[str, Any],
    ) -> None:
        super().start(net, stepper, verbose, named_data_iters)
        _check_target(self, self.filename, self.file_format)


class SaveNetwork(_Saver):
    """Save the network regularly, always to the same file.

    The file is replaced in one go, so that it is complete at any time. It is not
    written before the first update.

    Args:
        filename: Name of the HDF5 file. Its folder has to exist.
        name, timescale, interval: See :class:`.Hook`.
    """

    only_reports = True
    file_format = NETWORK_FORMAT

    def __call__(
        self,
        epoch_nr: int,
        update_nr: int,
        net: Network,
        stepper: TrainingStepper,
        logs: dict[str, Any],
    ) -> Any:
        if update_nr > 0:
            net.save_as_hdf5(self.filename)

    def load_network(self) -> Network:
        """Load the network that was saved last."""
        return Network.from_hdf5(self.filename)


class SaveLogs(_Saver):
    """Save the logs of the trainer as :class:`SaveNetwork` does the network.

    :func:`load_logs` reads the file. The arguments are those of :class:`SaveNetwork`.
    """

    only_reports = True
    file_format = LOGS_FORMAT

    def __call__(
        self,
        epoch_nr: int,
        update_nr: int,
        net: Network,
        stepper: TrainingStepper,
        logs: dict[str, Any],
    ) -> Any:
        if update_nr > 0:
            save_logs(self.filename, logs)


class CsvLog(_Saver):
    """Write the logs of epochs as a table: a line for each, see `Trainer.history`.

    The file is replaced as a whole, so that a training that goes on leaves one table.

    Args:
        filename: Name of the file, ``.csv``; its folder has to exist.
        name, interval: See :class:`.Hook`.
    """

    only_reports = True
    _trainer_is_due = False

    @takes("name", "interval")
    def __init__(self, filename: str | os.PathLike[str], **common: Unpack[Common]):
        super().__init__(filename, **common)
        if not self.filename.lower().endswith(".csv"):
            raise ValidationError(
                f"{self.__name__}: filename has to end in .csv, got {self.filename!r}"
            )

    def start(
        self,
        net: Network,
        stepper: TrainingStepper,
        verbose: bool | int,
        named_data_iters: Mapping[str, Any],
    ) -> None:
        Hook.start(self, net, stepper, verbose, named_data_iters)
        _check_target(
            self, self.filename, b"epoch", "table of logs", check=files.check_start
        )

    def __call__(
        self,
        epoch_nr: int,
        update_nr: int,
        net: Network,
        stepper: TrainingStepper,
        logs: dict[str, Any],
    ) -> Any:
        self._trainer_is_due = True

    def finish_round(self, trainer: Any) -> None:
        """Write the table; called when all hooks have been called."""
        if not self._trainer_is_due:
            return
        self._trainer_is_due = False
        history = trainer.history
        columns = ["epoch", *history.columns[1:]]
        with (
            files.atomic_path(self.filename) as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(history)


class SaveCheckpoint(_Saver):
    """Save the whole training as :class:`SaveNetwork` does the network.

    ``Trainer.load`` reads the file and goes on as if nothing had happened. It is
    written when all other hooks have been called, wherever this one stands among them.
    The arguments are those of :class:`SaveNetwork`.

    Ctrl-C during the training also saves it, once the update is done and its hooks
    have been called; then the usual KeyboardInterrupt is raised. The trainer stays
    usable: training again begins with the next epoch, while a trainer loaded from
    the file goes on within the interrupted one. A second Ctrl-C interrupts at once.
    All this holds if the training runs in the main thread, and Ctrl-C is not ignored.
    """

    file_format = CHECKPOINT_FORMAT

    _is_due = _is_interrupted = False
    _previous: Any = None

    def start(
        self,
        net: Network,
        stepper: TrainingStepper,
        verbose: bool | int,
        named_data_iters: Mapping[str, Any],
    ) -> None:
        super().start(net, stepper, verbose, named_data_iters)
        self._is_due = self._is_interrupted = False
        self._previous = None
        current = signal.getsignal(signal.SIGINT)
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and current not in (None, signal.SIG_IGN):
            self._previous = signal.signal(signal.SIGINT, self._receive)

    def __call__(
        self,
        epoch_nr: int,
        update_nr: int,
        net: Network,
        stepper: TrainingStepper,
        logs: dict[str, Any],
    ) -> Any:
        self._is_due = update_nr > 0

    def finish_round(self, trainer: Any) -> None:
        """Save the training if it is time; called when all hooks have been called.

        Raises:
            KeyboardInterrupt: There was a Ctrl-C.
        """
        self._is_interrupted = trainer.anywhere(self._is_interrupted)
        if self._is_due or (self._is_interrupted and trainer.current_update_nr > 0):
            for hook in trainer.hooks.values() if self.speaks else ():
                if isinstance(hook, Tracker):  # it tells how far it is
                    hook.finish_round(trainer)
            trainer.save(self.filename)
        self._is_due = False
        if self._is_interrupted:
            saved = trainer.current_update_nr > 0
            place = f"saved to {self.filename}" if saved else "nothing to save so far"
            if self.speaks:
                report(f"{self.__name__} >> Training interrupted; {place}.")
            raise KeyboardInterrupt

    def stop(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def _receive(self, signum: int, frame: Any) -> None:
        if self._is_interrupted:
            raise KeyboardInterrupt
        self._is_interrupted = True
        report(f"{self.__name__} >> Interrupted; saving after this update.")


class SaveBestNetwork(LogWatcher):
    """Save the network whenever a log entry is better than ever before.

    The file is replaced in one go, so that the best network is never lost. NaN is
    never better.

    Args:
        log_name, criterion: See :class:`.LogWatcher`.
        filename: Name of the HDF5 file; its folder has to exist. With None the
            best network is kept in memory.
        name, timescale, interval, verbose: See :class:`.Hook`.
    """

    saves = "the best"
    initial_state: ClassVar[dict[str, Any]] = {"best_so_far": None, "parameters": None}
    __undescribed__: ClassVar[set[str] | dict[str, Any]] = initial_state

    _net: Network | None = None

    @takes_common
    def __init__(
        self,
        log_name: str,
        filename: str | os.PathLike[str] | None = None,
        criterion: Criterion = "max",
        **common: Unpack[Common],
    ):
        super().__init__(log_name, criterion, **common)
        self.filename: str | None = None if filename is None else os.fspath(filename)

    def start(
        self,
        net: Network,
        stepper: TrainingStepper,
        verbose: bool | int,
        named_data_iters: Mapping[str, Any],
    ) -> None:
        super().start(net, stepper, verbose, named_data_iters)
        self._net = net
        if self.filename is not None:
            _check_target(self, self.filename, NETWORK_FORMAT)

    def __call__(
        self,
        epoch_nr: int,
        update_nr: int,
        net: Network,
        stepper: TrainingStepper,
        logs: dict[str, Any],
    ) -> Any:
        entries = get_log(logs, self.log_name)
        if not entries or not self.improves(entries[-1], self.best_so_far):
            return
        if self.filename is None:
            self.parameters: np.ndarray | None = net.get("parameters")
        elif self.speaks:
            net.save_as_hdf5(self.filename)
        self.best_so_far: float | None = entries[-1]
        place = "in memory" if self.filename is None else f"to {self.filename}"
        self.message(f"{self.log_name} improved; saved the network {place}.")

    def load_best_network(self) -> Network:
        """A new network, equal to the best one.

        Raises:
            ValidationError: None has been kept in memory so far.
            MissingFileError: There is no such file so far.
        """
        if self.filename is not None:
            return Network.from_hdf5(self.filename)
        if self._net is None or self.parameters is None:
            raise ValidationError(f"{self.__name__} has not saved a network so far")
        net = Network.uninitialized(get_description(self._net))
        net.handler.set_from_numpy(net.buffer.parameters, self.parameters)
        return net


class RestoreBest(SaveBestNetwork):
    """Give the network its best parameters back when the training ends.

    Args:
        log_name, criterion: See :class:`.LogWatcher`.
        name, timescale, interval, verbose: See :class:`.Hook`.
    """

    __undescribed__: ClassVar[set[str] | dict[str, Any]] = {"filename"}

    @takes_common
    def __init__(
        self, log_name: str, criterion: Criterion = "min", **common: Unpack[Common]
    ):
        super().__init__(log_name, None, criterion, **common)

    def stop(self) -> None:
        net, best = self._net, self.parameters
        if net is not None and best is not None:
            net.handler.set_from_numpy(net.buffer.parameters, best)
            self.message(f"{self.log_name} was best at {self.best_so_far}.")


class InfoUpdater(Hook):
    """Save the counts and the logs to the custom info of a Sacred run.

    ``run.info`` gets the entry ``nr_parameters`` when a training starts, then
    ``epoch_nr``, ``update_nr`` and ``logs``.

    Args:
        run: The run that Sacred passes to a function which has ``_run`` among its
            arguments, or anything else with a dict ``info``.
        name, timescale, interval: See :class:`.Hook`.
    """

    only_reports = True
    __undescribed__: ClassVar[set[str] | dict[str, Any]] = {"run"}

    @takes("name", "timescale", "interval")
    def __init__(self, run: Any, **common: Unpack[Common]):
        super().__init__(**common)
        if not hasattr(run, "info"):
            raise ValidationError(
                f"{self.__name__}: run has to be a Run of Sacred, not {run!r}"
            )
        self.run = run

    def start(
        self,
        net: Network,
        stepper: TrainingStepper,
        verbose: bool | int,
        named_data_iters: Mapping[str, Any],
    ) -> None:
        super().start(net, stepper, verbose, named_data_iters)
        self.run.info["nr_parameters"] = int(net.buffer.parameters.size)

    def __call__(
        self,
        epoch_nr: int,
        update_nr: int,
        net: Network,
        stepper: TrainingStepper,
        logs: dict[str, Any],
    ) -> Any:
        # Sacred reads the info in a thread of its own: give it a finished copy.
        info = {"epoch_nr": epoch_nr, "update_nr": update_nr}
        self.run.info.update(info, logs=copy.deepcopy(logs))


def _check_target(
    hook: Hook, filename: str, *kind: Any, check: Callable = files.check_target
) -> None:
    try:
        check(filename, *kind)
    except OSError as error:
        raise type(error)(f"{hook.__name__} {error}") from error


# -- logs files --------------------------------------------------------------


def save_logs(filename: str | os.PathLike[str], logs: Mapping[str, Any]) -> None:
    """Write the logs of a trainer to an HDF5 file.

    The attribute ``format`` says ``Logs file v1.0``. Each dict is a group, and each
    list an array. A ValidationError names an entry that can not be written.
    """
    with files.atomic_hdf5(filename, LOGS_FORMAT) as f:
        _write_logs(f, logs)


def load_logs(filename: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a file that :class:`SaveLogs` has written.

    Returns:
        The logs as nested dicts of lists.

    Raises:
        MissingFileError: There is no such file.
        FileFormatError: It is damaged, or of another kind.
    """
    with files.open_hdf5(filename, LOGS_FORMAT) as f:
        return _as_logs(files.read_tree(f))


def _write_logs(group: h5py.Group, logs: Mapping[str, Any]) -> None:
    for name, value in logs.items():
        # A slash would make a group; a network's scorers may be named freely.
        key = str(name).replace("%", "%25").replace("/", "%2F")
        if isinstance(value, Mapping):
            _write_logs(group.create_group(key), value)
            continue
        try:
            array = np.asarray(value)
            if array.dtype.kind == "U":
                array = np.char.encode(array, "utf-8")
            group.create_dataset(key, data=array)
        except (TypeError, ValueError) as error:
            path = f"{group.name}/{name}".strip("/")
            raise ValidationError(f"can not save the log {path}: {error}") from error


def _as_logs(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name.replace("%2F", "/").replace("%25", "%"): (
            _as_logs(node) if isinstance(node, Mapping) else node.tolist()
        )
        for name, node in tree.items()
    }

"""Hooks that end the training."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from brainstorm.checks import check_integer, check_number
from brainstorm.hooks import base_hook as base
from brainstorm.literals import Criterion
from brainstorm.structure.network import Network
from brainstorm.training.steppers import TrainingStepper
from brainstorm.utils import Unpack, ValidationError

__all__ = [
    "EarlyStopper",
    "StopAfterEpoch",
    "StopAfterThresholdReached",
    "StopOnNan",
    "StopOnSigQuit",
]


class EarlyStopper(base.LogWatcher):
    """Stop the training if a log entry does not improve for some time.

    Entries that equal the best one, or are NaN, are no improvement.

    Args:
        log_name, criterion: See :class:`.LogWatcher`.
        patience: Number of entries without improvement at which to stop, at least 1.
        name, timescale, interval, verbose: See :class:`.Hook`.
    """

    initial_state: ClassVar[dict[str, Any]] = {
        "best_so_far": None,
        "waited": 0,
        "seen": 0,
    }
    __undescribed__: ClassVar[set[str] | dict[str, Any]] = initial_state
    waited: int

    @base.takes_common
    def __init__(
        self,
        log_name: str,
        patience: int = 1,
        criterion: Criterion = "min",
        **common: Unpack[base.Common],
    ):
        super().__init__(log_name, criterion, **common)
        self.patience: float = check_number(self, "patience", patience, low=1)

    def __call__(
        self,
        epoch_nr: int,
        update_nr: int,
        net: Network,
        stepper: TrainingStepper,
        logs: dict[str, Any],
    ) -> Any:
        for improved in self.follow(logs):
            self.waited = 0 if improved else self.waited + 1
        if self.waited >= self.patience:
            raise StopIteration(
                f"{self.log_name} did not improve for {self.waited} entries;"
                f" the best was {self.best_so_far}."
            )


class StopAfterEpoch(base.Hook):
    """Stop the training after a number of epochs.

    Args:
        max_epochs: The number of epochs to train.
        name, timescale, interval, verbose: See :class:`.Hook`.
    """

    repeatable = True

    @base.takes_common
    def __init__(self, max_epochs: int, **common: Unpack[base.Common]):
        super().__init__(**common)
        self.max_epochs: int = check_integer(self, "max_epochs", max_epochs, low=0)

    def __call__(
        self,
        epoch_nr: int,
        update_nr: int,
        net: Network,
        stepper: TrainingStepper,
        logs: dict[str, Any],
    ) -> Any:
        # An update hook can not tell the last update of an epoch from the others.
        finished = epoch_nr if self.timescale == "epoch" else epoch_nr - 1
        if max(finished, 0) >= self.max_epochs:
            raise StopIteration(f"Trained for {self.max_epochs} epochs.")


class StopAfterThresholdReached(base.LogWatcher):
    """Stop the training if an entry of a log has reached a threshold.

    The whole log counts, also what it held before this training.

    Args:
        log_name: See :class:`.LogWatcher`.
        threshold: The value to reach.
        criterion: ``'min'`` to stop at values of at most `threshold`, ``'max'`` to
            stop at values of at least `threshold`.
        name, timescale, interval, verbose: See :class:`.Hook`.
    """

    initial_state: ClassVar[dict[str, Any]] = {"best_so_far": None, "seen": 0}
    __undescribed__: ClassVar[set[str] | dict[str, Any]] = initial_state

    @base.takes_common
    def __init__(
        self,
        log_name: str,
        threshold: float,
        criterion: Criterion = "min",
        **common: Unpack[base.Common],
    ):
        super().__init__(log_name, criterion, **common)
        self.threshold: float = check_number(self, "threshold", threshold)

    def __call__(
        self,
        epoch_nr: int,
        update_nr: int,
        net: Network,
        stepper: TrainingStepper,
        logs: dict[str, Any],
    ) -> Any:
        list(self.follow(logs))
        best = self.best_so_far
        if best is not None and (
            best == self.threshold or self.improves(best, self.threshold)
        ):
            raise StopIteration(
                f"{self.log_name} was {best} and has reached {self.threshold}."
            )


class StopOnNan(base.NetworkReader):
    """Stop the training if something is infinite or NaN.

    Args:
        logs_to_check: Dotted paths of logs whose newest entry to check; or one.
        check_parameters: Whether to check the parameters of the network.
        check_training_loss: Whether to check the training loss: that of the last
            batch after updates, the mean over the epoch after epochs.
        name, timescale, interval, verbose: See :class:`.Hook`.
    """

    repeatable = True

    _resumes = False

    @base.takes_common
    def __init__(
        self,
        logs_to_check: str | Sequence[str] = (),
        check_parameters: bool = True,
        check_training_loss: bool = True,
        **common: Unpack[base.Common],
    ):
        super().__init__(**common)
        if isinstance(logs_to_check, str):
            logs_to_check = [logs_to_check]
        self.logs_to_check: tuple[str, ...] = tuple(logs_to_check)
        self.check_parameters = check_parameters
        self.check_training_loss = check_training_loss

    def start(
        self,
        net: Network,
        stepper: TrainingStepper,
        verbose: bool | int,
        named_data_iters: Mapping[str, Any],
    ) -> None:
        super().start(net, stepper, verbose, named_data_iters)
        # What is in the network then was not left there by an update.
        self._resumes = self.timescale == "update"

    def watched_logs(self) -> tuple[str, ...]:
        return self.logs_to_check

    def __call__(
        self,
        epoch_nr: int,
        update_nr: int,
        net: Network,
        stepper: TrainingStepper,
        logs: dict[str, Any],
    ) -> Any:
        found: list[str] = []
        if self.check_parameters:
            found += _broken_parameters(net)
        has_loss = update_nr > 0 and not self._resumes
        self._resumes = False
        if self.check_training_loss and has_loss:
            loss = base.get_log(logs, "rolling_training.total_loss")[-1:]
            if self.timescale == "update":
                loss = self.seen(net, update_nr)
            if not _is_finite(loss):
                found.append("the training loss")
        for path in self.logs_to_check:
            if not _is_finite(base.get_log(logs, path)[-1:]):
                found.append(f"the log {path}")
        if found:
            raise StopIteration(f"Infinite or NaN: {', '.join(found)}.")

    def read(self, net: Network) -> Any:
        return net.get_loss_values()["total_loss"]


def _broken_parameters(net: Network) -> list[str]:
    """The parameters that are not all finite, as 'parameter W of layer Out'."""
    if net.handler.is_fully_finite(net.buffer.parameters):
        return []
    broken = [
        f"parameter {name} of layer {layer_name}"
        for layer_name, layer in getattr(net, "layers", {}).items()
        for name in layer.parameter_shapes
        if not _is_finite(net.get(f"{layer_name}.parameters.{name}"))
    ]
    return broken or ["the parameters"]


def _is_finite(values: Any) -> bool:
    return bool(np.all(np.isfinite(values)))


class StopOnSigQuit(base.Hook):
    r"""Stop the training at the next call after a SIGQUIT (Ctrl + \\).

    So one can leave the training loop and go on with the rest of the program. On
    Windows it is SIGBREAK (Ctrl + Break). Python handles signals in the main thread
    only, so the training has to run there.

    Args:
        name, timescale, interval, verbose: See :class:`.Hook`.
    """

    repeatable = True
    differs_by_rank = True
    __undescribed__: ClassVar[set[str] | dict[str, Any]] = {"quit"}

    quit: bool = False
    _previous: Any = None
    _signal: Any = getattr(signal, "SIGQUIT", None) or getattr(signal, "SIGBREAK", None)

    def start(
        self,
        net: Network,
        stepper: TrainingStepper,
        verbose: bool | int,
        named_data_iters: Mapping[str, Any],
    ) -> None:
        super().start(net, stepper, verbose, named_data_iters)
        self.quit = False
        try:
            self._previous = signal.signal(self._signal, self.receive_signal)
        except ValueError as error:
            raise ValidationError(
                f"{self.__name__} works only in the main thread: {error}"
            ) from error

    def __call__(
        self,
        epoch_nr: int,
        update_nr: int,
        net: Network,
        stepper: TrainingStepper,
        logs: dict[str, Any],
    ) -> Any:
        if self.quit:
            raise StopIteration("Received the signal to quit.")

    def stop(self) -> None:
        # None stands for one that was not installed from Python.
        previous = signal.SIG_DFL if self._previous is None else self._previous
        signal.signal(self._signal, previous)

    def receive_signal(self, signum: int, frame: Any) -> None:
        """Note that the training is to stop; called when the signal comes."""
        self.message("Received the signal to quit; stopping soon.")
        self.quit = True

"""The base classes of all hooks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, TypedDict, get_args

import numpy as np

from brainstorm import utils
from brainstorm.checks import check_integer
from brainstorm.describable import Describable
from brainstorm.literals import Criterion, Timescale
from brainstorm.structure.network import Network
from brainstorm.training.steppers import TrainingStepper
from brainstorm.training.utils import report

__all__ = ["Hook", "LogWatcher", "NetworkReader"]


class Hook(Describable):
    """Base class of all hooks. A subclass overrides :meth:`__call__`.

    A trainer calls its hooks in the order in which they were added:

    - all of them once before the first update, when both counts are 0,
    - those with the timescale ``'update'`` after every `interval`-th update,
    - those with the timescale ``'epoch'`` at the end of every `interval`-th epoch,
      also of an epoch that an update hook has cut short.

    Args:
        name: Name of this hook, the key of its logs. Default is that of its class.
        timescale: ``'epoch'`` or ``'update'``.
        interval: The hook is called every `interval` epochs or updates.
        verbose: Whether to print its logs and messages, 2 for logs in full; None leaves
            it to the trainer.

    Raises:
        ValidationError: An argument does not fit.
    """

    __undescribed__: ClassVar[set[str] | dict[str, Any]] = {
        "run_verbosity",
        "speaks",
    }
    __omit_defaults__ = True
    __default_values__: ClassVar[dict[str, Any]] = {"priority": 0}

    # For subclasses whose constructor leaves out that of this class.
    name: str | None = None
    timescale: Timescale = "epoch"
    interval: int = 1
    verbose: bool | int | None = None
    run_verbosity: bool | int = False

    speaks = True
    """Whether it may print, draw and write files: of the processes of a parallel
    training just the first may."""

    only_reports = False
    """Whether it does nothing but that, so that the others need not call it."""

    differs_by_rank = False
    """Whether, of the library's, it may return something else on each process."""

    priority = 0
    """The place among the hooks of a trainer, which counts from 1."""

    initial_state: ClassVar[dict[str, Any]] = {}
    """The members that change during a training, with the values that they have
    before it. They are numbers, strings, None or NumPy arrays; list them in
    ``__undescribed__`` too."""

    repeatable = False
    """Whether calling the hook once more changes nothing, unless a log has grown.
    Such hooks log nothing. They are asked first when a training is resumed; as update
    hooks they are called at the end of epochs too, to see the logs of epoch hooks."""

    def __init__(
        self,
        name: str | None = None,
        timescale: Timescale = "epoch",
        interval: int = 1,
        verbose: bool | int | None = None,
    ):
        self.name = None
        if name is not None:
            self.__name__ = name
        if timescale not in get_args(Timescale):
            raise utils.ValidationError(
                f"{type(self).__name__}: timescale has to be 'epoch' or 'update',"
                f" not {timescale!r}"
            )
        self.timescale = timescale
        self.interval = check_integer(self, "interval", interval, low=1)
        self.verbose = verbose
        self.run_verbosity = bool(verbose)
        self.reset()

    @property
    def __name__(self) -> str:
        return self.name or str(type(self).__name__)

    @__name__.setter
    def __name__(self, name: str) -> None:
        # Dots and slashes separate names in paths of logs and in HDF5 files.
        if not isinstance(name, str) or not name or set(name) & set("./"):
            raise utils.ValidationError(
                f"{type(self).__name__}: name has to be a string without '.' and '/',"
                f" not {name!r}"
            )
        self.name = name

    def start(
        self,
        net: Network,
        stepper: TrainingStepper,
        verbose: bool | int,
        named_data_iters: Mapping[str, Any],
    ) -> None:
        """Get ready; called when a training starts or is resumed.

        Args:
            net: The network that is to be trained.
            stepper: The stepper that is to train it.
            verbose: The verbosity of the trainer.
            named_data_iters: All data iterators by name, that of the training data
                as ``'training_data_iter'``.
        """
        verbose = verbose if self.verbose is None else self.verbose
        self.run_verbosity = bool(verbose and self.speaks)

    def __call__(
        self,
        epoch_nr: int,
        update_nr: int,
        net: Network,
        stepper: TrainingStepper,
        logs: dict[str, Any],
    ) -> Any:
        """Do what the hook is for; nothing, unless a subclass does something.

        Args:
            epoch_nr: Number of the current epoch, 0 before the training.
            update_nr: Number of updates so far.
            net: The network that is trained.
            stepper: The stepper that trains it.
            logs: The logs of the trainer.

        Returns:
            What to add to the logs: a value, or a dict of values or further dicts.
            None adds nothing.

        Raises:
            StopIteration: To end the training, once the other hooks that are due have
                been called. Its value, if any, is logged, unless the hook is
                `repeatable`, or the value is a text and there are logs already.
        """

    def stop(self) -> None:
        """Clean up; called when the training ends, also by an exception."""

    def reset(self) -> None:
        """Forget all earlier training; called when one starts afresh."""
        for name, value in self.initial_state.items():
            setattr(self, name, copy.deepcopy(value))

    def get_state(self) -> dict[str, Any]:
        """What changes during a training, for :meth:`set_state`."""
        return {n: copy.deepcopy(getattr(self, n)) for n in self.initial_state}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`get_state` returned, or did in an earlier version.

        Raises:
            ValidationError: A name is not one of this hook's state.
        """
        if not set(state) <= set(self.initial_state):
            raise utils.ValidationError(
                f"{self.__name__}: the state consists of"
                f" {utils.listing(self.initial_state)}, not of {utils.listing(state)}"
            )
        for name, value in state.items():
            setattr(self, name, copy.deepcopy(value))

    def watched_logs(self) -> tuple[str, ...]:
        """Dotted paths of the logs that the hook reads."""
        return ()

    def message(self, msg: str) -> None:
        """Print something, if the hook is verbose."""
        if self.run_verbosity:
            report(f"{self.__name__} >> {msg}")


class Common(TypedDict, total=False):
    """The arguments of :class:`Hook`, for type checkers and editors."""

    name: str | None
    timescale: Timescale
    interval: int
    verbose: bool | int | None


def takes(*names: str) -> Callable[[utils.Init], utils.Init]:
    """Have a constructor take arguments of :class:`Hook`; see `takes_from`."""
    return utils.takes_from(Hook, *names)


takes_common = takes("name", "timescale", "interval", "verbose")


class NetworkReader(Hook):
    """Base class of hooks that read what the last update has left in the network.

    Other hooks run the network on other data. Before the first of them does so, the
    trainer lets hooks of this class look. A subclass overrides :meth:`read`.
    """

    _seen: tuple[int, Any] = (-1, None)

    def start(
        self,
        net: Network,
        stepper: TrainingStepper,
        verbose: bool | int,
        named_data_iters: Mapping[str, Any],
    ) -> None:
        super().start(net, stepper, verbose, named_data_iters)
        self._seen = (-1, None)

    def read(self, net: Network) -> Any:
        """Read what the hook is interested in."""
        raise NotImplementedError

    def look(self, net: Network, update_nr: int) -> None:
        """Read it now, since other data are about to come."""
        self._seen = (update_nr, self.read(net))

    def seen(self, net: Network, update_nr: int) -> Any:
        """What :meth:`read` gave, or gives, right after the update of this number."""
        seen_at, value = self._seen
        return value if seen_at == update_nr else self.read(net)


class LogWatcher(Hook):
    """Base class of hooks that watch one log get better.

    The `timescale` and `interval` should be the same as those of the hook that logs
    the quantity of interest; that hook has to be added before this one. The values
    logged before the first update are an entry, too.

    Args:
        log_name: Dotted path of the log, ``<hook name>.<log name>``, such as
            ``'validation.Accuracy'``.
        criterion: ``'min'`` if small values are good, ``'max'`` if large ones are.
        name, timescale, interval, verbose: See :class:`.Hook`.
    """

    repeatable = True
    seen: int
    best_so_far: float | None

    @takes_common
    def __init__(
        self, log_name: str, criterion: Criterion, **common: utils.Unpack[Common]
    ):
        super().__init__(**common)
        if not isinstance(log_name, str) or not log_name:
            raise utils.ValidationError(
                f"{self.__name__}: log_name has to be a string, not {log_name!r}"
            )
        if criterion not in get_args(Criterion):
            raise utils.ValidationError(
                f"{self.__name__}: criterion has to be 'min' or 'max',"
                f" not {criterion!r}"
            )
        self.log_name = log_name
        self.criterion = criterion

    def watched_logs(self) -> tuple[str, ...]:
        return (self.log_name,)

    def follow(self, logs: Mapping[str, Any]) -> Iterator[bool]:
        """Whether each entry since the last call is the best so far."""
        entries = get_log(logs, self.log_name)
        for value in entries[self.seen :]:
            improved = self.improves(value, self.best_so_far)
            self.best_so_far = value if improved else self.best_so_far
            yield improved
        self.seen = len(entries)

    def improves(self, value: float, best: float | None) -> bool:
        """Whether a value is better than the best one so far, if any; NaN never is.

        Raises:
            ValidationError: It is no number, but a matrix, say.
        """
        if np.ndim(value) or not isinstance(value, float | int | np.number):
            raise utils.ValidationError(
                f"{self.__name__}: expected numbers in the log {self.log_name!r}, got"
                f" {value!r:.60}"
            )
        if best is None:
            return value == value
        return value > best if self.criterion == "max" else value < best


def get_log(logs: Mapping[str, Any], path: str) -> list[Any]:
    """The entries of a log; none if its hook has not logged anything yet.

    Raises:
        KeyError: The hook has logged, but nothing of this name. Lists the choices.
    """
    if path.split(".")[0] not in logs:
        return []
    entries = utils.get_by_path(logs, path)
    if isinstance(entries, Mapping):
        choices = [f"{path}.{rest}" for rest in utils.flatten_keys(entries)]
        raise utils.UnknownNameError(
            f"{path!r} is a group of logs; choices are: {utils.listing(choices)}"
        )
    return entries

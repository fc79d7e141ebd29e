"""The state of a training: how it is saved, and how it goes on.

With the parameters, what stepper, hooks and trainer know, how far the epoch is and the
states of random numbers, a training goes on as if it had never been interrupted.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from brainstorm.data_iterators import DataIterator
from brainstorm.describable import of_library
from brainstorm.parallel.ranks import ranks_of
from brainstorm.randomness import RandomState, global_rnd
from brainstorm.structure.network import Network
from brainstorm.training.checkpoints import read_checkpoint, write_checkpoint
from brainstorm.training.rank_states import joined, part_of
from brainstorm.utils import IteratorValidationError, ValidationError, listing

if TYPE_CHECKING:
    from brainstorm.hooks.base_hook import Hook

TRAINING_DATA = "training_data_iter"

# Members of a trainer by their names in files.
MEMBERS = {
    "epoch_nr": "current_epoch_nr",
    "update_nr": "current_update_nr",
    "logs": "logs",
    "results": "results",
    "context": "_context",
}

AnyTrainer = TypeVar("AnyTrainer", bound="Resumable")


@dataclass
class Epoch:
    """How far an epoch is.

    Attributes:
        data_state: State of the training data before the first of its batches.
        nr_batches: Number of batches so far.
        scores: Losses and scores of these, see `gather_losses_and_scores`.
        weight_first: Whether that is the order of the pairs in `scores`. In the first
            files of version 0.6.0 they are ``(sum, weight)``, for losses too.
    """

    data_state: dict[str, Any]
    nr_batches: int = 0
    scores: dict[str, list[Any]] = field(default_factory=dict)
    weight_first: bool = False

    @classmethod
    def begin(cls, training_data_iter: DataIterator) -> Epoch:
        """An epoch that is about to begin."""
        return cls(state_of(training_data_iter), weight_first=True)

    @classmethod
    def restore(cls, state: Mapping[str, Any], net: Network) -> Epoch:
        """The epoch that `asdict` has described; whatever it raises, there is none."""
        epoch = cls(**state)
        if not epoch.nr_batches > 0:
            raise ValueError(f"an epoch can not stand at {epoch.nr_batches} batches")
        if not epoch.weight_first:
            losses = net.get_loss_values()
            epoch.scores = {
                name: [(w, s / w if name in losses else s) for s, w in pairs]
                for name, pairs in epoch.scores.items()
            }
            epoch.weight_first = True
        epoch.scores = {n: [(w, v) for w, v in p] for n, p in epoch.scores.items()}
        return epoch


@dataclass(eq=False, repr=False)
class Resumable:
    """The state of a trainer, which can be saved and restored."""

    __undescribed__: ClassVar[set[str] | dict[str, Any]] = {
        "current_epoch_nr": 0,
        "current_update_nr": 0,
        "logs": {},
        "results": {},
    }

    current_epoch_nr: int = field(default=0, init=False)
    """Number of the epoch that runs or ran last, 0 before the training."""
    current_update_nr: int = field(default=0, init=False)
    """Number of updates so far."""
    logs: dict[str, Any] = field(default_factory=dict, init=False)
    """What the hooks returned, by their names: nested dicts of lists. The losses
    and scores over the batches of each epoch are in ``'rolling_training'``."""
    results: dict[str, Any] = field(default_factory=dict, init=False)
    """What :meth:`evaluate` computed: losses and scores by the names of the data
    iterators, and logs by the names of the hooks."""

    comm = _team = None  # type: Any
    # The state from a file is there until the training goes on.
    _net = _epoch = _loaded = None
    _iterators, _context = dict[str, Any](), dict[str, Any]()

    def save(self, filename: str | os.PathLike[str]) -> None:
        """Save the training with its network to an HDF5 file, to go on with later.

        The file keeps all that :meth:`load` needs; not the data. It is replaced in
        one go. Rather than from a hook, save by `SaveCheckpoint`: hooks that are still
        to be called after the same update, or epoch, would be left out.

        With a communicator all ranks have to call this. Rank 0 writes what all of them
        know.

        Args:
            filename: Name of the file; its folder has to exist.

        Raises:
            ValidationError: Nothing has been trained so far, or something can not be
                saved. Names it.
            MissingFileError: The folder does not exist.
        """
        parts = ("verbose", "carry_context", "stepper", "train_scorers", "hooks")
        training = {name: getattr(self, name) for name in parts}
        training["state"] = self.get_state()
        if self.comm is None:
            write_checkpoint(filename, self._trained_net(), training)
            return
        with ranks_of(self.comm, self._team and self._team.ranks) as ranks:
            training["state"] = joined(ranks.gather(training["state"]))
            if ranks.rank == 0:
                write_checkpoint(filename, self._trained_net(), training)
            ranks.share(None)  # once it is there

    @classmethod
    def load(
        cls: type[AnyTrainer],
        filename: str | os.PathLike[str],
        hooks: Iterable[Hook] | None = None,
        comm: Any = None,
    ) -> tuple[AnyTrainer, Network]:
        """Load a training, to go on with it as if it had never been interrupted.

        Call :meth:`train` with the network that is returned, and with data iterators
        made and named as before. It restores the state of all random numbers, skips
        the batches that have been trained on already, and goes on with the next one.
        The results are the same to the bit, if the software is; with another handler,
        the random numbers of this one are others.

        Loading runs no code. But the hooks are those of the file: when the training
        goes on they write to the files that they name. Do not train with hooks from a
        file that you do not trust.

        Args:
            filename: Name of a file that :meth:`save` or `SaveCheckpoint` has written.
            hooks: The hooks to use instead of those in the file, with the same names.
                Necessary if one of these is not described by its arguments alone.
            comm: The communicator to go on with, see `Trainer`. Only with as many ranks
                as before the results are the same to the bit; otherwise what is random
                for each rank is drawn anew.

        Returns:
            The trainer and the network.

        Raises:
            MissingFileError: There is no such file.
            FileFormatError: It is damaged, or of another kind, or needs a class that
                has not been defined.
            ValidationError: The hooks do not fit.
        """
        if comm is None:
            return cls._load(filename, hooks, None)
        with ranks_of(comm):  # one that can not read it ends the others
            return cls._load(filename, hooks, comm)

    @classmethod
    def _load(
        cls: type[AnyTrainer],
        filename: str | os.PathLike,
        hooks: Iterable[Hook] | None,
        comm: Any,
    ) -> tuple[AnyTrainer, Network]:
        with read_checkpoint(filename, hooks) as (net, saved):
            make: Any = cls
            trainer = make(saved["stepper"], saved["verbose"], saved["carry_context"])
            trainer.train_scorers = saved["train_scorers"]
            for hook in saved["hooks"].values():
                trainer.add_hook(hook)
            trainer.comm = comm
            if comm is not None:
                saved["state"] = part_of(saved["state"], comm.rank, comm.size)
            trainer.set_state(saved["state"], net)
        return trainer, net

    def anywhere(self, flag: bool) -> bool:
        """Whether something is so on any of the ranks; all of these have to ask."""
        return flag if self._team is None else self._team.ranks.anywhere(flag)

    def get_state(self) -> dict[str, Any]:
        """All that changes during a training, except for the parameters.

        Raises:
            ValidationError: Nothing has been trained so far.
        """
        net = self._trained_net()
        # How far the epoch is, and the states of all random numbers.
        position = self._loaded or {
            "epoch": None if self._epoch is None else asdict(self._epoch),
            "data": state_of(self._iterators),
            "handler_type": type(net.handler).__name__,
            "handler": net.handler.get_random_state(),
            "modifiers": state_of(modifiers_of(net)),
            "network": state_of(net.rnd),
            "global": state_of(global_rnd),
            "ranks": [],
        }
        trainer: Any = self
        parts = {"stepper": state_of(trainer.stepper), "hooks": state_of(trainer.hooks)}
        members = {name: getattr(self, member) for name, member in MEMBERS.items()}
        return {**position, **parts, **members}

    def set_state(self, state: Mapping[str, Any], net: Network) -> None:
        """Go on from what :meth:`get_state` returned, of which this keeps parts.

        The network has its parameters already. Whatever this raises, it does not fit.
        """
        for name, member in MEMBERS.items():
            setattr(self, member, state[name])
        trainer: Any = self
        restore(trainer.stepper, state["stepper"])
        trainer.stepper.start(net)
        restore(trainer.hooks, state["hooks"])
        # What needs the data waits for them, but is checked as far as possible.
        if state["epoch"] is not None:
            Epoch.restore(state["epoch"], net)
        modifiers = modifiers_of(net)
        unknown = set(state["modifiers"]) - set(state_of(modifiers))
        if unknown:
            raise ValueError(f"the network has no modifiers {listing(unknown)}")
        restore(modifiers, state["modifiers"])
        _set_random_states(state, net, RandomState(0))
        self._net, self._loaded = net, state

    def _go_on(self) -> Iterator[Any] | None:
        """Go where the training stood that was loaded, if any.

        Returns the batches that are left of its epoch, None if there is none.
        """
        net = self._trained_net()
        if self._loaded is None:
            # Saving asks for the handler's random numbers: have them made anyway.
            net.handler.get_random_state()
            return None
        state, batches = self._loaded, None
        if state["epoch"] is not None:
            epoch = self._epoch = Epoch.restore(state["epoch"], net)
            data = self._iterators[TRAINING_DATA]
            # It begins as it began before, without the batches that are done.
            restore(data, epoch.data_state)
            self._spread(state)
            trainer: Any = self
            batches = trainer._batches()
            skipped = sum(1 for _ in itertools.islice(batches, epoch.nr_batches))
            if skipped < epoch.nr_batches:
                raise IteratorValidationError(
                    f"{TRAINING_DATA} provides {skipped} batches, but"
                    f" {epoch.nr_batches} of this epoch have been trained on before"
                )
        # Hooks may have used the same iterator meanwhile, so its state is another now.
        restore(self._iterators, state["data"])
        _set_random_states(state, net, global_rnd)
        self._spread(state)
        self._loaded = None
        return batches

    def _spread(self, state: Mapping[str, Any]) -> None:
        """Give ranks streams of random numbers, if they are others than before."""
        if self._team is not None and self._team.ranks.size != len(state["ranks"]):
            self._team.spread_streams(self._net, self._iterators)

    def _now(self) -> Epoch:
        assert self._epoch is not None
        return self._epoch

    def _trained_net(self) -> Network:
        if self._net is None:
            raise ValidationError("the trainer has not trained a network so far")
        return self._net


def state_of(part: Any) -> Any:
    """The state of an object, or those of all objects in dicts and lists, by path.

    Empty for an object that has none.
    """
    states = {path: one.get_state() for path, one in _with_state(part)}
    return states.get(None, states)


def restore(part: Any, state: Any) -> None:
    """Set what `state_of` returned; what is not there any more is left out."""
    for path, one in _with_state(part):
        if path is None:
            one.set_state(state)
        elif path in state:
            one.set_state(state[path])


def _with_state(part: Any, path: str | None = None) -> Iterator[tuple[Any, Any]]:
    """All objects that have a state, with their paths; None for `part` itself."""
    if hasattr(part, "get_state") and hasattr(part, "set_state"):
        yield path, part
    elif isinstance(part, (Mapping, list)):
        items = part.items() if isinstance(part, Mapping) else enumerate(part)
        for key, child in items:
            below = str(key) if path is None else f"{path}.{key}"
            yield from _with_state(child, below)


@contextlib.contextmanager
def undisturbed(iterator: DataIterator) -> Iterator[None]:
    """Let hooks go over training data, and leave as it was what is still to come of it.

    The library's iterators see to that themselves. Others may draw from `rnd` for each
    batch, or hold back a batch that they have drawn.
    """
    source: Any = iterator
    ours = True
    while source is not None and ours:
        ours, source = of_library(type(source)), getattr(source, "iter", None)
    state = None if ours else copy.deepcopy(state_of(iterator))
    yield
    if state is not None:
        restore(iterator, state)


def modifiers_of(net: Network) -> dict[str, Any]:
    """The modifiers of a network, of both kinds."""
    kinds = ("weight_modifiers", "gradient_modifiers")
    return {kind: getattr(net, kind) for kind in kinds}


def _set_random_states(
    state: Mapping[str, Any], net: Network, rnd: RandomState
) -> None:
    if type(net.handler).__name__ == state["handler_type"]:
        net.handler.set_random_state(state["handler"])
    restore(net.rnd, state["network"])
    # The last one, because all others may draw from it while they are made.
    restore(rnd, state["global"])

"""Training on several processes: what a trainer does for it, see `Trainer`."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from brainstorm.__about__ import __version__
from brainstorm.parallel.agreement import check_same, described
from brainstorm.parallel.exchange import Exchange
from brainstorm.parallel.ranks import Ranks
from brainstorm.parallel.sharing import Piece, SharedIterator, merged
from brainstorm.randomness import RandomState, global_rnd
from brainstorm.structure.network import Network
from brainstorm.training import hook_rules as rules
from brainstorm.training.resuming import TRAINING_DATA, modifiers_of, restore, state_of
from brainstorm.utils import IteratorValidationError

if TYPE_CHECKING:
    from brainstorm.hooks.base_hook import Hook

Iterators = dict[str, SharedIterator]


class Team:
    """The ranks that train a network together.

    Attributes:
        ranks: The ranks.
        exchange: What they exchange in an update.
    """

    ranks: Ranks

    def __init__(self, ranks: Ranks, bucket_size: int):
        self.ranks, self._bucket_size = ranks, bucket_size
        self.exchange: Any = None
        self._piece: Any = None

    @property
    def speaks(self) -> bool:
        """Whether this rank prints, draws and writes files."""
        return self.ranks.rank == 0

    def acting(self, hooks: Mapping[str, Hook]) -> Mapping[str, Hook]:
        """Those of the hooks that this rank calls."""
        if self.speaks:
            return hooks
        others = hooks.items()
        return {n: h for n, h in others if not getattr(h, "only_reports", False)}

    # -- before the training -------------------------------------------------

    def check(self, trainer: Any, net: Network, iterators: Mapping[str, Any]) -> None:
        """Check that all ranks are about to do the same.

        Raises:
            ValidationError: They are not; names the rank and the difference.
        """
        check_same(self.ranks, _facts(trainer, net, iterators))
        smallest = _batch_size(iterators[TRAINING_DATA])
        if smallest is not None and smallest < self.ranks.size:
            self._refuse(
                f"there are batches of {smallest} sequences for {self.ranks.size}"
                f" ranks, so rank {smallest} would never have data"
            )

    def shared(self, iterators: Mapping[str, Any]) -> Iterators:
        """Iterators over this rank's parts of batches, in the state of rank 0's."""
        shared = {n: SharedIterator(it, self.ranks) for n, it in iterators.items()}
        restore(shared, self.ranks.share(state_of(shared)))
        return shared

    def start(
        self, net: Network, stepper: Any, iterators: Mapping[str, Any]
    ) -> Iterators:
        """Have all ranks begin as rank 0 does, but with random numbers of their own."""
        net.handler.share_cores(self.ranks.cores)
        shared = self.shared(iterators)
        handler, parameters = net.handler, net.buffer.parameters
        same = {
            "modifiers": modifiers_of(net),
            "network": net.rnd,
            "global": global_rnd,
            "stepper": stepper,
        }
        states = {name: state_of(part) for name, part in same.items()}
        states["handler"] = handler.get_random_state()
        states["parameters"] = handler.get_numpy_copy(parameters)
        states = self.ranks.share(states)
        if self.ranks.rank > 0:
            handler.set_from_numpy(parameters, states.pop("parameters"))
            handler.set_random_state(states.pop("handler"))
            for name, part in same.items():
                restore(part, states[name])
            stepper.start(net)
        self.spread_streams(net, shared)
        self.exchange = Exchange(self.ranks, net, self._bucket_size)
        net.backpropagation.share(self.exchange)
        return shared

    def spread_streams(self, net: Network, iterators: Iterators) -> None:
        """Give each rank random numbers of its own, which depend on those of rank 0."""
        if self.ranks.rank == 0:
            return
        seed = self._seed(net.handler.get_random_state())
        net.handler.rnd.set_seed(seed)
        for iterator in iterators.values():
            for level in iterator.drawing_for_parts():
                level.rnd = RandomState(self._seed(level.rnd.get_state()))

    def _seed(self, state: Any) -> int:
        return zlib.crc32(f"{self.ranks.rank} {_plain(state)}".encode())

    def stop(self, net: Network, iterators: Iterators) -> None:
        """Leave the network as it is without the others."""
        net.backpropagation.share(None)
        net.handler.share_cores(None)
        for iterator in iterators.values():
            iterator.give_back()

    # -- an update -----------------------------------------------------------

    @property
    def has_data(self) -> bool:
        """Whether this rank has got a part of the current batch."""
        return self._piece.count > 0

    def pieces(
        self, iterator: SharedIterator, handler: Any
    ) -> Iterator[dict[str, np.ndarray]]:
        """What this rank gets of each batch; all ranks get some, or none does."""
        pieces = iterator.pieces(handler)
        for number in itertools.count(1):
            piece = next(pieces, None)
            if not iterator.is_alike:
                self._check_all_have(piece, number)
            if piece is None:
                return
            self._piece = piece
            yield piece.data

    def _check_all_have(self, piece: Piece | None, number: int) -> None:
        size = self.ranks.size
        have = int(self.ranks.sum(np.array([piece is not None], np.int64))[0])
        if have in (0, size):
            return
        lacking = [i for i, has in enumerate(self.ranks.gather(bool(piece))) if not has]
        self._refuse(f"there is no batch {number} on rank {lacking[0]}, but on others")

    def _refuse(self, text: str) -> NoReturn:
        self.ranks.refuse(IteratorValidationError(f"{TRAINING_DATA}: {text}"))

    def update(self, run: Callable[[], None]) -> None:
        """Run an update with the gradients of the whole batch."""
        with self.exchange.update(self._piece):
            run()

    def finish_update(self) -> None:
        """Have the losses of the whole batch in the network."""
        self.exchange.finish_update()

    # -- hooks and logs ------------------------------------------------------

    def agreed(self, hook: Hook, log: Any, stop: Any) -> tuple[Any, Any]:
        """What all ranks take a hook to have returned, and to have stopped for.

        Hooks of the library do the same on all ranks, unless they say otherwise.
        """
        if rules.is_ours(hook) and not getattr(hook, "differs_by_rank", False):
            return log, stop
        outcomes = self.ranks.gather((log, None if stop is None else stop.args))
        log = outcomes[0][0]
        stopping = [
            (i, args) for i, (_, args) in enumerate(outcomes) if args is not None
        ]
        if not stopping:
            return log, None
        rank, args = stopping[0]
        if len(stopping) < self.ranks.size:
            args = (f"On rank {rank}: {args[0] if args else ''}",)
        return log, StopIteration(*args)

    def merged(self, scores: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Losses and scores of all ranks, from those of each."""
        return merged(self.ranks.gather(dict(scores)))


def _facts(trainer: Any, net: Network, iterators: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be the same on all ranks."""
    handler = getattr(net, "handler", None)
    hooks = {
        name: (type(hook).__name__, hook.timescale, hook.interval)
        for name, hook in trainer.hooks.items()
    }
    data = {
        name: {
            "data": {n: tuple(s) for n, s in getattr(it, "data_shapes", {}).items()},
            "number of batches": getattr(it, "length", None),
            "size of batches": _batch_size(it),
            "types": [type(level).__name__ for level in _chain(it)],
        }
        for name, it in iterators.items()
    }
    counts = trainer.current_epoch_nr, trainer.current_update_nr
    return {
        "version of brainstorm": __version__,
        "architecture": getattr(net, "architecture", None),
        "handler": type(getattr(handler, "plain", handler)).__name__,
        "dtype": np.dtype(getattr(handler, "dtype", None)).name,
        "modifiers": net.modifiers.describe() if hasattr(net, "modifiers") else None,
        "stepper": described(trainer.stepper),
        "data": data,
        "hooks": hooks,
        "scorers": [described(scorer) for scorer in trainer.train_scorers],
        "carry_context": trainer.carry_context,
        "epochs and updates so far": counts,
    }


def _chain(iterator: Any) -> list[Any]:
    """An iterator and those that it is made of."""
    levels = [iterator]
    while hasattr(levels[-1], "iter"):
        levels.append(levels[-1].iter)
    return levels


def _batch_size(iterator: Any) -> int | None:
    """The number of sequences in all batches but the last, if it is known."""
    source = _chain(iterator)[-1]
    everything = getattr(source, "nr_sequences", None)
    if everything is None:
        shapes = getattr(source, "data_shapes", None) or {"": (1, None)}
        return min(shape[1] for shape in shapes.values())
    return min(everything, getattr(source, "batch_size", everything))


def _plain(state: Any) -> Any:
    """A state of random numbers, so that all of it shows."""
    if isinstance(state, tuple):
        return [part.tolist() if hasattr(part, "tolist") else part for part in state]
    return state

"""Where a training stands: how far the epoch is, and the states of random numbers.

With these, the parameters and what stepper, hooks and trainer know, a training goes
on as if it had never been interrupted.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from brainstorm.describable import of_library
from brainstorm.randomness import RandomState, global_rnd
from brainstorm.utils import IteratorValidationError

if TYPE_CHECKING:
    from brainstorm.data_iterators import DataIterator
    from brainstorm.structure.network import Network

__all__ = [
    "TRAINING_DATA",
    "Epoch",
    "get_position",
    "go_to_position",
    "prepare_for_position",
    "undisturbed",
]

TRAINING_DATA = "training_data_iter"


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
    scores: dict[str, list] = field(default_factory=dict)
    weight_first: bool = False

    @classmethod
    def begin(cls, training_data_iter: DataIterator) -> Epoch:
        """An epoch that is about to begin."""
        return cls(_get_state(training_data_iter), weight_first=True)

    @classmethod
    def restore(cls, state: Mapping[str, Any], net: Network) -> Epoch:
        """The epoch that `asdict` has described.

        Errors, of whatever kind, mean that there is none.
        """
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

    def skip_batches(
        self, net: Network, training_data_iter: DataIterator
    ) -> Iterator[Any]:
        """Begin the epoch as it began before; return the batches that are left.

        Raises:
            IteratorValidationError: There are fewer batches than have been done.
        """
        _set_state(training_data_iter, self.data_state)
        batches = iter(training_data_iter(net.handler))
        skipped = sum(1 for _ in itertools.islice(batches, self.nr_batches))
        if skipped < self.nr_batches:
            raise IteratorValidationError(
                f"{TRAINING_DATA} provides {skipped} batches, but {self.nr_batches} of"
                " this epoch have been trained on before"
            )
        return batches


def get_position(
    net: Network, iterators: Mapping[str, DataIterator], epoch: Epoch | None
) -> dict[str, Any]:
    """Where a training stands.

    Args:
        net: The network.
        iterators: All data iterators by name.
        epoch: The epoch, None between epochs.
    """
    return {
        "epoch": None if epoch is None else asdict(epoch),
        "data": {name: _get_state(it) for name, it in iterators.items()},
        "handler_type": type(net.handler).__name__,
        "handler": net.handler.get_random_state(),
        "modifiers": {p: m.get_state() for p, m in _modifiers_with_state(net)},
        "network": net.rnd.get_state(),
        "global": global_rnd.get_state(),
    }


def prepare_for_position(position: Mapping[str, Any], net: Network) -> None:
    """Do what can be done without the data, and check the rest as far as possible.

    Errors, of whatever kind, mean that one can not go there.
    """
    if position["epoch"] is not None:
        Epoch.restore(position["epoch"], net)
    modifiers = dict(_modifiers_with_state(net))
    for path, state in position["modifiers"].items():
        modifiers[path].set_state(state)
    _set_random_states(position, net, RandomState(0))


def go_to_position(
    position: Mapping[str, Any], net: Network, iterators: Mapping[str, DataIterator]
) -> tuple[Epoch | None, Iterator[Any] | None]:
    """Let a training stand where another one stood.

    Returns:
        The epoch and the batches that are left of it, or None and None.

    Raises:
        IteratorValidationError: The data are not those that there were.
    """
    epoch = batches = None
    if position["epoch"] is not None:
        epoch = Epoch.restore(position["epoch"], net)
        batches = epoch.skip_batches(net, iterators[TRAINING_DATA])
    # Hooks may have used the same iterator meanwhile, so its state is another now.
    for name, state in position["data"].items():
        if name in iterators:
            _set_state(iterators[name], state)
    _set_random_states(position, net, global_rnd)
    return epoch, batches


@contextlib.contextmanager
def undisturbed(iterator: DataIterator) -> Iterator[None]:
    """Let hooks go over training data, and leave as it was what is still to come of it.

    The library's iterators see to that themselves. Others may draw from `rnd` for each
    batch, or hold back a batch that they have drawn.
    """
    source, ours = iterator, True
    while source is not None and ours:
        ours, source = of_library(type(source)), getattr(source, "iter", None)
    state = None if ours else copy.deepcopy(_get_state(iterator))
    yield
    if state is not None:
        _set_state(iterator, state)


def _set_random_states(
    position: Mapping[str, Any], net: Network, rnd: RandomState
) -> None:
    if type(net.handler).__name__ == position["handler_type"]:
        net.handler.set_random_state(position["handler"])
    net.rnd.set_state(position["network"])
    # The last one, because all others may draw from it while they are made.
    rnd.set_state(position["global"])


def _modifiers_with_state(net: Network) -> Iterator[tuple[str, Any]]:
    """Those modifiers of a network that have state, with their paths."""
    pending = [
        ("weight_modifiers", net.weight_modifiers),
        ("gradient_modifiers", net.gradient_modifiers),
    ]
    while pending:
        path, node = pending.pop()
        if isinstance(node, dict):
            pending += [(f"{path}.{key}", child) for key, child in node.items()]
        elif isinstance(node, list):
            pending += [(f"{path}.{i}", child) for i, child in enumerate(node)]
        elif hasattr(node, "get_state"):
            yield path, node


def _get_state(iterator: Any) -> dict[str, Any]:
    """The state of a data iterator, empty for those that keep none."""
    return iterator.get_state() if hasattr(iterator, "get_state") else {}


def _set_state(iterator: Any, state: dict[str, Any]) -> None:
    if hasattr(iterator, "set_state"):
        iterator.set_state(state)

"""Arrays made ready for training, for `Trainer.fit`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from brainstorm.checks import checked_integer
from brainstorm.data_iterators import DataIterator, Minibatches
from brainstorm.hooks.base_hook import Hook
from brainstorm.hooks.saving import RestoreBest
from brainstorm.hooks.stopping import EarlyStopper, StopAfterEpoch
from brainstorm.parallel.ranks import Ranks
from brainstorm.randomness import RandomState
from brainstorm.structure.network import Network
from brainstorm.structure.prediction import find_output, for_iterators, inputs_of, named
from brainstorm.training.utils import ROLLING
from brainstorm.utils import ValidationError, listing


def shuffled_batches(
    net: Network, x: Any, y: Any, batch_size: int, rnd: RandomState
) -> Minibatches:
    """Batches of sequences that have been shuffled once, see `Trainer.fit`."""
    data = for_iterators(net, _named(net, x, y))
    batches = Minibatches(batch_size, **data)
    order = rnd.permutation(batches.nr_sequences)
    batches.data = {name: np.asarray(values)[:, order] for name, values in data.items()}
    batches.rnd = rnd
    return batches


def same_on_all_ranks(rnd: RandomState, comm: Any) -> RandomState:
    """The random state of rank 0, if there are several ranks."""
    if comm is None:
        return rnd
    with Ranks(comm).together() as ranks:
        return ranks.share(rnd)


def batches_of(net: Network, data: Any, batch_size: int) -> DataIterator:
    """Batches of validation data, see `Trainer.fit`."""
    if hasattr(data, "data_shapes"):
        return data
    is_pair = isinstance(data, tuple | list) and len(data) == 2
    if not is_pair and not isinstance(data, Mapping):
        raise ValidationError(
            "validation_data: expected a pair (x, y), a dict or a data iterator, got"
            f" {type(data).__name__}"
        )
    x, y = data if is_pair else (data, None)
    return Minibatches(
        batch_size, shuffle=False, **for_iterators(net, _named(net, x, y))
    )


def stoppers(patience: int | None, validates: bool) -> list[Hook]:
    """The hooks of an early stopping, see `Trainer.fit`."""
    if patience is None:
        return []
    patience = checked_integer(patience, "early_stopping", 1)
    log_name = f"{'validation' if validates else ROLLING}.total_loss"
    return [EarlyStopper(log_name, patience), RestoreBest(log_name)]


def train_epochs(
    trainer: Any, net: Network, data: DataIterator, epochs: int, **others: DataIterator
) -> None:
    """Train for some epochs more, whatever the hooks of a trainer do."""
    end = trainer.current_epoch_nr + epochs
    last = StopAfterEpoch(end, name="fit", verbose=False)
    trainer.add_hook(last)
    try:
        trainer.train(net, data, **others)
    finally:
        del trainer.hooks[last.name]


def _named(net: Network, x: Any, y: Any) -> dict[str, Any]:
    """The data by the names of the network's inputs."""
    if not isinstance(x, Mapping):
        x = named(x, inputs_of(net, find_output(net))[0])
    if y is None:
        return dict(x)
    rest = [name for name in net.layers["Input"].out_shapes if name not in x]
    if len(rest) != 1:
        raise ValidationError(
            f"y: expected one input of the network to be left for the targets, there"
            f" are: {listing(rest)}; give a dict of all data as x"
        )
    return {**x, rest[0]: y}

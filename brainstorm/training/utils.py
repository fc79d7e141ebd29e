"""What the trainer, the steppers, the schedules and the hooks share."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from brainstorm.scorers import aggregate_losses_and_scores, gather_losses_and_scores
from brainstorm.utils import (
    IteratorValidationError,
    ValidationError,
    is_finite,
    listing,
)

if TYPE_CHECKING:
    from brainstorm.data_iterators import DataIterator
    from brainstorm.scorers import Scorer
    from brainstorm.structure.network import Network

__all__ = [
    "check_continues",
    "check_iterator",
    "check_network",
    "check_number",
    "check_scorers",
    "compute_scores",
    "report",
    "run_network",
]


def run_network(
    net: Network,
    iterator: DataIterator | Iterable[Mapping[str, Any]],
    all_inputs: bool = True,
) -> Iterator[int]:
    """Run a network on batch after batch.

    Each step provides the data of one batch and does a forward pass that is no
    training pass. What that computed can then be read from the network. Where a batch
    continues the one before it, so does the state of recurrent layers.

    Args:
        net: The network.
        iterator: A data iterator, or the dicts of ``(T, B, ...)`` arrays that
            one yields.
        all_inputs: Whether each batch has to contain all inputs of the network.

    Yields:
        The number of the batch, counted from 0.
    """
    batches = iterator(net.handler) if callable(iterator) else iterator
    carries = getattr(iterator, "continues", None) is not None
    context = None
    for i, data in enumerate(batches):
        net.provide_external_data(data, all_inputs=all_inputs)
        net.forward_pass(context=context if carries and iterator.continues else None)
        if carries:
            context = net.get_context()
        yield i


def compute_scores(
    net: Network,
    iterator: DataIterator,
    scorers: Sequence[Scorer] = (),
    out_name: str = "",
    targets_name: str = "targets",
    mask_name: str = "",
) -> dict[str, float]:
    """Losses and scores of a network, averaged over all the data of an iterator.

    Args:
        net: The network.
        iterator: Provides the data.
        scorers: The scorers to evaluate beside the network's losses.
        out_name: Path of the output to score, for scorers that name none.
        targets_name: Name of the targets, for scorers that name none.
        mask_name: Name of the mask, for scorers that name none.

    Returns:
        The losses by name, ``'total_loss'`` among them, then the scores by the
        names of their scorers.
    """
    scores: dict[str, list] = {}
    for _ in run_network(net, iterator):
        gather_losses_and_scores(
            net, scorers, scores, out_name, targets_name, mask_name
        )
    return aggregate_losses_and_scores(scores, net, scorers)


def check_network(net: Network) -> None:
    """Check that this is a network.

    Raises:
        ValidationError: It is not.
    """
    if not hasattr(net, "provide_external_data"):
        raise ValidationError(f"net: expected a Network, got {type(net).__name__}")


def check_iterator(net: Network, iterator: DataIterator, name: str) -> None:
    """Check that an iterator provides just what the network's Input expects.

    Raises:
        IteratorValidationError: Lists the names on both sides.
        ValidationError: `net` is no network.
    """
    check_network(net)
    if not hasattr(iterator, "data_shapes"):
        raise IteratorValidationError(
            f"{name}: expected a data iterator, got {type(iterator).__name__}"
        )
    given = sorted(iterator.data_shapes)
    expected = sorted(net.layers["Input"].out_shapes)
    if given != expected:
        raise IteratorValidationError(
            f"{name} provides {listing(given)}, but the inputs of the network are"
            f" {listing(expected)}"
        )


def check_continues(net: Network, iterator: DataIterator) -> None:
    """Check that a context can be carried from batch to batch.

    Raises:
        IteratorValidationError: The batches never continue each other.
        ValidationError: A layer of the network needs whole sequences.
    """
    if getattr(iterator, "continues", None) is None:
        raise IteratorValidationError(
            "carry_context: the batches of training_data_iter, a"
            f" {type(iterator).__name__}, never continue each other; wrap it in"
            " Subsequences"
        )
    whole = [n for n, layer in net.layers.items() if layer.needs_whole_sequences]
    if whole:
        raise ValidationError(
            f"carry_context: the layer {listing(whole)} needs whole sequences"
        )


def check_scorers(net: Network, scorers: Sequence[Scorer], owner: str) -> list[str]:
    """Check that each scorer has a name of its own, that is not that of a loss.

    Returns:
        The names of the losses and of the scorers.

    Raises:
        ValidationError: Names the owner and the scorer.
    """
    if not isinstance(scorers, (list, tuple)) or not all(map(callable, scorers)):
        raise ValidationError(
            f"{owner}: scorers have to be a list of scorers, not {scorers!r}"
        )
    names = list(net.get_loss_values())
    for scorer in scorers:
        if scorer.__name__ in names:
            raise ValidationError(
                f"{owner}: there is more than one loss or score {scorer.__name__!r};"
                " give the scorer another one by its argument name"
            )
        names.append(scorer.__name__)
    return names


def check_number(
    owner: object,
    name: str,
    value: float,
    low: float = -math.inf,
    below: float = math.inf,
) -> float:
    """Return an argument that has to be a finite number in ``[low, below)``.

    Raises:
        ValidationError: Names the owner's class, the argument and the range.
    """
    good = is_finite(value) and not isinstance(value, bool) and low <= value < below
    if not good:
        raise ValidationError(
            f"{type(owner).__name__}: {name} has to be a finite number in"
            f" [{low}, {below}), not {value!r}"
        )
    return value


def report(text: str) -> None:
    """Print for the user, above any progress bar."""
    tqdm.write(text)
    sys.stdout.flush()

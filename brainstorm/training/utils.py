"""What the trainer, the steppers, the schedules and the hooks share."""

from __future__ import annotations

import contextlib
import itertools
import numbers
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from brainstorm.checks import check_network
from brainstorm.data_iterators import DataIterator
from brainstorm.scorers import (
    Scorer,
    aggregate_losses_and_scores,
    gather_losses_and_scores,
)
from brainstorm.structure.network import Network
from brainstorm.structure.prediction import needing_whole_sequences, provide
from brainstorm.utils import IteratorValidationError, ValidationError, listing

__all__ = ["run_network"]


def run_network(
    net: Network,
    iterator: DataIterator | Iterable[Mapping[str, Any]],
    all_inputs: bool = True,
    arguments: Mapping[str, Any] | None = None,
) -> Iterator[int]:
    """Run a network on batch after batch.

    Each step provides the data of one batch and does a forward pass that is no
    training pass. What that computed can then be read from the network. Where a batch
    continues the one before it, so does the state of recurrent layers; for layers that
    need whole sequences, such batches are put together.

    Other threads have to wait with the network until the next step, or the end.

    Args:
        net: The network.
        iterator: A data iterator, or the dicts of ``(T, B, ...)`` arrays that
            one yields. Items that are no inputs of the network are left out.
        all_inputs: Whether each batch has to contain all inputs of the network.
            Otherwise missing ones are zero.
        arguments: For layers that read arguments, see `Network.forward_pass`.

    Yields:
        The number of the batch, counted from 0.
    """
    batches = run_batches(net, iterator, all_inputs, arguments)
    return (i for i, _ in enumerate(batches))


def run_batches(
    net: Network,
    iterator: DataIterator | Iterable[Mapping[str, Any]],
    all_inputs: bool = True,
    arguments: Mapping[str, Any] | None = None,
) -> Iterator[bool]:
    """As `run_network`, but yields whether the batch continues the one before it."""
    context: dict[str, np.ndarray] = {}
    batches = _known_batches(net, iterator)
    with ending(batches):
        for data, continues in batches:
            with net.lock:
                provide(net, data, all_inputs)
                before = context if continues else None
                net.forward_pass(
                    context=before, arguments=arguments, keeps_internals=False
                )
                if continues is not None:
                    context = net.get_context()
                yield bool(continues)


@contextlib.contextmanager
def ending(batches: Iterable[Any]) -> Iterator[None]:
    """Close what yields batches in the end, however that comes.

    An error keeps it alive otherwise, in its traceback.
    """
    try:
        yield
    finally:
        if hasattr(batches, "close"):
            batches.close()


def _known_batches(
    net: Network, iterator: DataIterator | Iterable[Mapping[str, Any]]
) -> Iterator[tuple[dict[str, Any], bool | None]]:
    """Batches of what the network knows, and whether they continue, None for never."""
    source: Any = iterator
    batches = source(net.handler) if callable(source) else source
    pairs: Iterator[tuple[Any, bool | None]]
    if getattr(source, "continues", None) is None:
        pairs = ((batch, None) for batch in batches)
    else:
        pairs = ((batch, bool(source.continues)) for batch in batches)
        if needing_whole_sequences(net):
            pairs = _joined(net, pairs)
    inputs = net.layers["Input"].out_shapes
    for batch, continues in pairs:
        known = inputs.keys() & batch if isinstance(batch, Mapping) else ()
        if known and len(known) < len(batch):
            batch = {name: batch[name] for name in batch if name in known}
        yield batch, continues


def _joined(
    net: Network, pairs: Iterable[tuple[Mapping[str, Any], bool | None]]
) -> Iterator[tuple[dict[str, Any], bool | None]]:
    """Put batches that continue each other together."""
    inputs = net.layers["Input"].out_shapes
    pieces: list[Mapping[str, Any]] = []
    for batch, continues in itertools.chain(pairs, [({}, False)]):
        if pieces and not continues:
            whole = {
                name: np.concatenate([np.asarray(piece[name]) for piece in pieces])
                for name in pieces[0]
                if name in inputs and inputs[name].buffer_type == 2
            }
            yield {**pieces[0], **whole}, None
            pieces = []
        pieces.append(batch)


def compute_scores(
    net: Network,
    iterator: DataIterator,
    scorers: Sequence[Scorer] = (),
    out_name: str = "",
    targets_name: str = "targets",
    mask_name: str = "",
    arguments: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Losses and scores of a network on all the data of an iterator; see `evaluate`."""
    scores: dict[str, list] = {}
    with net.lock:
        for continues in run_batches(net, iterator, arguments=arguments):
            gather_losses_and_scores(
                net, scorers, scores, out_name, targets_name, mask_name, continues
            )
        if hasattr(iterator, "merged"):  # it has yielded one of several parts
            scores = iterator.merged(scores)
        return aggregate_losses_and_scores(scores, net, scorers)


def check_iterator(
    net: Network, iterator: DataIterator, name: str, exactly: bool = False
) -> None:
    """Check that an iterator provides the inputs of a network, or `exactly` these."""
    check_network(net)
    if not hasattr(iterator, "data_shapes"):
        raise IteratorValidationError(
            f"{name}: expected a data iterator such as Minibatches(100, default=x,"
            f" targets=t), got {type(iterator).__name__}"
        )
    given = sorted(iterator.data_shapes)
    expected = sorted(net.layers["Input"].out_shapes)
    if given != expected and (exactly or not set(expected) <= set(given)):
        raise IteratorValidationError(
            f"{name} provides {listing(given)}, but the inputs of the network are"
            f" {listing(expected)}"
        )


def check_continues(net: Network, iterator: DataIterator) -> None:
    """Check that a context can be carried from batch to batch."""
    if getattr(iterator, "continues", None) is None:
        raise IteratorValidationError(
            "carry_context: the batches of training_data_iter, a"
            f" {type(iterator).__name__}, never continue each other; wrap it in"
            " Subsequences"
        )
    whole = needing_whole_sequences(net)
    if whole:
        raise ValidationError(
            f"carry_context: the layer {listing(whole)} needs whole sequences"
        )


def check_scorers(net: Network, scorers: Sequence[Scorer], owner: str) -> list[str]:
    """The names of losses and scorers, once each of these is known to have its own."""
    if not isinstance(scorers, (list, tuple)) or not all(map(callable, scorers)):
        raise ValidationError(
            f"{owner}: scorers have to be a list of scorers, not {scorers!r}"
        )
    for scorer in scorers:
        if isinstance(scorer, type):
            raise ValidationError(
                f"{owner}: expected objects as scorers, got the class"
                f" {scorer.__name__}; write {scorer.__name__}()"
            )
    # The keys of `Network.get_loss_values`, whether or not it has run.
    losses = [n for n, la in net.layers.items() if getattr(la, "is_loss", False)]
    names = [*(losses if len(losses) > 1 else []), "total_loss"]
    for scorer in scorers:
        if scorer.__name__ in names:
            raise ValidationError(
                f"{owner}: there is more than one loss or score {scorer.__name__!r};"
                " give the scorer another one by its argument name"
            )
        names.append(scorer.__name__)
    return names


def is_terminal(stream: Any) -> bool:
    """Whether a stream, None if there is none, is a terminal."""
    asks = getattr(stream, "isatty", None)
    return asks is not None and asks()


def report(text: str) -> None:
    """Print for the user, above any progress bar; not where nothing can be printed."""
    if sys.stdout is not None:  # as under pythonw
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        tqdm.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()


# -- logs --------------------------------------------------------------------

ROLLING = "rolling_training"
"""The log of the losses and scores of the training batches."""


def add_log(logs: dict[str, Any], name: str, value: Any) -> None:
    """Append what a hook has returned: a value, or a dict of values or further dicts.

    Refuses all of a dict where there are values already, and the other way round.
    """
    _check(logs, name, value, name)
    _append(logs, name, value)


def leaves(
    name: str, value: Any, path: str = ""
) -> Iterator[tuple[tuple[str, str], Any]]:
    """The values in what a hook has logged, by its name and their dotted paths.

    >>> dict(leaves("valid", {"loss": 1, "of": {"a": 2}}))
    {('valid', 'loss'): 1, ('valid', 'of.a'): 2}
    """
    if not isinstance(value, Mapping):
        yield (name, path), value
        return
    for key, item in value.items():
        yield from leaves(name, item, f"{path}.{key}" if path else str(key))


def _check(logs: Mapping[str, Any], name: str, value: Any, path: str) -> None:
    if name not in logs:
        return
    if isinstance(value, Mapping) != isinstance(logs[name], Mapping):
        kinds = ("a dict", "a single value")
        before, now = kinds if isinstance(logs[name], Mapping) else kinds[::-1]
        raise ValidationError(
            f"the log {path!r} has got {before} before, and can not get {now} now:"
            f" {value!r}"
        )
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check(logs[name], key, item, f"{path}.{key}")


def _append(logs: dict[str, Any], name: str, value: Any) -> None:
    if isinstance(value, Mapping):
        node = logs.setdefault(name, {})
        for key, item in value.items():
            _append(node, key, item)
    else:
        logs.setdefault(name, []).append(value)


def print_log(name: str, value: Any) -> None:
    """Print what a hook has returned."""
    report("\n".join(_lines(name, value)))


def _lines(name: str, value: Any, indent: int = 0) -> list[str]:
    """A value under its name, nested ones in lines of their own below it."""
    label = " " * indent + str(name)
    if isinstance(value, Mapping):
        lines = [label]
        for key, item in value.items():
            lines += _lines(key, item, indent + 2)
        return lines
    shown = f"{value:.6g}" if isinstance(value, numbers.Real) else str(value)
    return [f"{label:<32}: {shown}"]

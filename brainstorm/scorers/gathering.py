"""Gathering losses and scores from batch to batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np

from brainstorm.scorers.base import DEFAULT_TARGETS, Scorer
from brainstorm.structure.network import Network
from brainstorm.structure.prediction import find_output, has_time
from brainstorm.utils import (
    NetworkValidationError,
    ValidationError,
    flatten_all_but_last,
    listing,
)

__all__ = ["aggregate_losses_and_scores", "gather_losses_and_scores"]

_TOTAL = "total_loss"
_MOST_PAIRS = 100

Pairs = list[tuple[float, Any]]


def gather_losses_and_scores(
    net: Network,
    scorers: Sequence[Scorer],
    scores: MutableMapping[str, Pairs],
    out_name: str = "",
    targets_name: str = DEFAULT_TARGETS,
    mask_name: str | None = "",
    continues: bool = False,
) -> None:
    """Add the losses and scores of the batch that a network has just processed.

    What has been gathered is joined from time to time, so that the memory of sums and
    counts does not grow with the batches. Only for scorers that override
    :meth:`.Scorer.aggregate`, and do not add up, each batch is kept.

    Args:
        net: The network, after a forward pass.
        scorers: The scorers. Where their own names of output, targets and mask are
            not the defaults, these count rather than the arguments.
        scores: What has been gathered so far, to add to; at first an empty dict.
            For the name of each loss it holds pairs ``(batch size, loss)``, for that
            of each scorer ``(sum of weights, what it returned)``.
        out_name: Path of the output to score. Default: the one that
            :meth:`.Network.predict` gives.
        targets_name: Name of the data item with the targets.
        mask_name: Name of the data item with the weights: of shape (T, B, 1), or one
            for each row of the output. '' is that of the loss, None is for none.
        continues: Whether these are further time steps of the sequences of the batch
            before, of which the pair is then that of all steps.

    Raises:
        ValidationError: It is not known which output to score, or shapes do not fit.
        KeyError: There is no such output or data item.
    """
    losses = net.get_loss_values()
    if continues and all(scores.get(name) for name in losses):
        for name, loss in _continued_losses(net, losses, scores).items():
            scores[name][-1] = (net.batch_size, loss)
    else:
        for name, loss in losses.items():
            _add(scores.setdefault(name, []), net.batch_size, loss, is_mean=True)
    for scorer in scorers:
        weight, score, goes_on = _score(net, scorer, out_name, targets_name, mask_name)
        pairs = scores.setdefault(scorer.__name__, [])
        if continues and pairs and not goes_on:  # the sequences are seen once more
            pairs.pop()
        if scorer.adds_up or scorer.aggregate is Scorer.aggregate:
            _add(pairs, weight, score, scorer.join)
        elif continues and pairs and goes_on:
            weights, total = pairs[-1]
            pairs[-1] = (weights + weight, scorer.join([total, score]))
        else:
            pairs.append((weight, score))


def _add(
    pairs: Pairs,
    weight: float,
    value: Any,
    join: Callable[[Sequence[Any]], Any] = sum,
    is_mean: bool = False,
) -> None:
    """Add a pair, after joining those before if there are many."""
    if len(pairs) >= _MOST_PAIRS:
        weights = sum([w for w, _ in pairs])
        total = join([w * v if is_mean else v for w, v in pairs])
        pairs[:] = [(weights, total / weights if is_mean else total)]
    pairs.append((weight, value))


def _continued_losses(
    net: Network, losses: Mapping[str, float], scores: Mapping[str, Pairs]
) -> dict[str, float]:
    """The losses of all steps so far of the current sequences.

    A loss is a sum over time, unless what it is computed from has no time.
    """
    single = len(losses) == 1
    parts = {
        name: (_TOTAL if single else name, layer.in_shapes["default"].buffer_type == 2)
        for name, layer in net.layers.items()
        if layer.is_loss
    }
    summed = {
        name: losses[name] + (scores[name][-1][1] if has_time else 0.0)
        for name, has_time in parts.values()
    }
    return {**summed, _TOTAL: sum(summed.values())}


def _score(
    net: Network,
    scorer: Scorer,
    out_name: str,
    targets_name: str,
    mask_name: str | None,
) -> tuple[float, Any, bool]:
    """The sum of weights and the score of a batch, and whether the output has time."""
    path = scorer.out_name or out_name or net.output_name
    try:
        path = path or find_output(net)
    except NetworkValidationError as error:
        raise ValidationError(
            f"{scorer.__name__}: it is not known which output to score; pass"
            " out_name (such as 'Output.outputs.predictions') or set the"
            f" network's output_name: {error}"
        ) from error
    targets = scorer.targets_name
    if targets == DEFAULT_TARGETS:
        targets = targets_name
    mask = scorer.mask_name or mask_name
    if mask == "":
        mask = _mask_of_loss(net)
        if mask and has_time(net, path) != has_time(net, f"Input.outputs.{mask}"):
            mask = None
    predicted, labels, weights = _flatten(
        scorer.__name__,
        _steps(net, path, net.get(path)),
        _steps(net, f"Input.outputs.{targets}", net.get_input(targets)),
        _steps(net, f"Input.outputs.{mask}", net.get_input(mask)) if mask else None,
    )
    score = scorer(labels, predicted, weights)
    if not isinstance(score, (tuple, list)) and np.size(score) == 1:
        score = float(score)
    weight = len(predicted) if weights is None else float(weights.sum())
    return weight, score, has_time(net, path)


def _mask_of_loss(net: Network) -> str | None:
    """The input that a Mask layer multiplies the loss with, if there is one."""
    for loss in net.loss_layers:
        for into_loss in net.layers[loss].incoming:
            mask = net.layers[into_loss.start_layer]
            for c in mask.incoming:
                if c.input_name == "mask" and c.start_layer == "Input":
                    return c.output_name
    return None


def _steps(net: Network, path: str, values: np.ndarray) -> np.ndarray:
    """Values (T, B, ...); those without time as one step."""
    return values if has_time(net, path) else values[np.newaxis]


def aggregate_losses_and_scores(
    scores: Mapping[str, Pairs], net: Network, scorers: Sequence[Scorer]
) -> dict[str, Any]:
    """Losses and scores of a data set from those of its batches.

    Args:
        scores: What `gather_losses_and_scores` has gathered.
        net: The network.
        scorers: The scorers.

    Returns:
        The mean of each loss, weighted by batch size, and the score of each scorer,
        by name; arrays as nested lists. NaN where there is nothing to average.

    Raises:
        ValidationError: Two scorers have the same name, or one that of a loss.
    """
    results = {}
    for name in net.get_loss_values():
        weighted = [(w, w * loss) for w, loss in scores.get(name, ())]
        results[name] = Scorer.aggregate(weighted)
    for scorer in scorers:
        if scorer.__name__ in results:
            raise ValidationError(
                f"there is more than one score or loss {scorer.__name__!r}; give the"
                f" scorer another name=, taken are: {listing(results)}"
            )
        score = scorer.aggregate(scores.get(scorer.__name__, ()))
        is_array = isinstance(score, (np.ndarray, np.generic))
        results[scorer.__name__] = score.tolist() if is_array else score
    return results


def _flatten(
    scorer: str, predicted: np.ndarray, labels: np.ndarray, mask: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """View all as matrices with a row for each prediction."""
    T, B = labels.shape[:2]
    if predicted.shape[:2] == (T + 1, B):  # the last row is a carried state
        predicted = predicted[:T]
    shapes = f"predictions {predicted.shape}, targets {labels.shape}"
    predicted, labels = flatten_all_but_last(predicted), flatten_all_but_last(labels)
    rows = len(predicted)
    if len(labels) != rows:
        raise ValidationError(f"{scorer}: numbers of rows differ: {shapes}")
    if mask is None:
        return predicted, labels, None
    if mask.shape[:2] != (T, B) or mask.shape[-1] != 1 or rows % mask.size:
        raise ValidationError(
            f"{scorer}: expected a mask of shape {(T, B, 1)} or with one value for each"
            f" row, got {mask.shape} for {shapes}"
        )
    return predicted, labels, np.repeat(mask.reshape(-1, 1), rows // mask.size, axis=0)

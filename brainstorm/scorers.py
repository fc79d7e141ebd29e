"""Scorers: how well a network does, in numbers that a person cares about.

Unlike losses, scores are not part of the network and are not trained for. A scorer
compares an output of the network with the targets of a batch; the sums over all
batches make the score of a data set.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, MutableMapping, Sequence

import numpy as np

from brainstorm.checks import checked_number
from brainstorm.describable import Describable
from brainstorm.structure.network import Network
from brainstorm.structure.prediction import find_output, has_time
from brainstorm.utils import (
    NetworkValidationError,
    ValidationError,
    flatten_all_but_last,
    hinting,
    listing,
)

__all__ = [
    "Accuracy",
    "Hamming",
    "MeanSquaredError",
    "Scorer",
    "aggregate_losses_and_scores",
    "gather_losses_and_scores",
]

_DEFAULT_TARGETS = "targets"
_TOTAL = "total_loss"
_MOST_PAIRS = 100

Pairs = list[tuple[float, float]]


class Scorer(Describable):
    """Base class for scorers.

    A subclass implements :meth:`score_rows` or :meth:`__call__`, and overrides
    :meth:`aggregate` if its score is no weighted mean.

    Args:
        out_name: Path of the output to score, such as
            ``'Output.outputs.predictions'``. By default the one that the scoring
            function was given, else the one that :meth:`.Network.predict` gives.
        targets_name: Name of the data item with the targets.
        mask_name: Name of the data item with the weight of each row, if any. By default
            the mask that the loss is multiplied with by a Mask layer.
        name: Name of the score in the logs. Default: the name of the class.
    """

    __omit_defaults__ = True

    # For subclasses whose constructor leaves out that of this class.
    out_name: str = ""
    targets_name: str = _DEFAULT_TARGETS
    mask_name: str = ""
    name: str | None = None

    def __init__(
        self,
        out_name: str = "",
        targets_name: str = _DEFAULT_TARGETS,
        mask_name: str = "",
        name: str | None = None,
    ) -> None:
        self.out_name, self.targets_name = out_name, targets_name
        self.mask_name, self.name = mask_name, name

    @property
    def __name__(self) -> str:
        """Name of the score in the logs."""
        return self.name or type(self).__name__

    @__name__.setter
    def __name__(self, name: str) -> None:
        self.name = name

    def __call__(
        self,
        true_labels: np.ndarray,
        predicted: np.ndarray,
        mask: np.ndarray | None = None,
    ) -> float:
        """Sum the scores of all rows of a batch.

        Args:
            true_labels: Targets of shape (N, C) or (N, 1).
            predicted: Output of the network of shape (N, C).
            mask: Weight of each row of shape (N, 1), None for ones.

        Returns:
            The sum over the rows, each multiplied by its weight.
        """
        scores = self.score_rows(true_labels, predicted)
        weighted = scores if mask is None else scores * mask[:, 0]
        return float(weighted.sum(dtype=np.float64))

    def score_rows(self, true_labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """The score (N,) of each row of a batch; arguments as of :meth:`__call__`."""
        raise NotImplementedError

    @staticmethod
    def aggregate(errors: Iterable[tuple[float, float]]) -> float:
        """The score of a data set from those of its batches.

        Args:
            errors: For each batch the sum of the weights (the number of rows if there
                is no mask) and the sum of the scores.

        Returns:
            Sum of scores / sum of weights; NaN if the weights sum to zero.
        """
        errors = list(errors)
        weight = sum(w for w, _ in errors)
        return sum(score for _, score in errors) / weight if weight else math.nan

    def _check_same_shape(self, true_labels: np.ndarray, predicted: np.ndarray) -> None:
        if true_labels.shape != predicted.shape:
            raise ValidationError(
                f"{self.__name__}: expected targets with the shape of the predictions,"
                f" {predicted.shape}, got {true_labels.shape}"
            )


class Accuracy(Scorer):
    """Share of the rows in which the highest prediction is that of the true class.

    Labels are class indices of shape (N, 1), or one-hot vectors of shape (N, C).
    """

    def score_rows(self, true_labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """Whether each row is classified correctly."""
        if predicted.shape[1] < 2:
            raise ValidationError(
                f"{self.__name__}: expected predictions with a column for each class,"
                f" at least 2, got shape {predicted.shape}; Hamming scores single ones"
            )
        if true_labels.shape[1] == 1:
            return predicted.argmax(axis=1) == true_labels[:, 0]
        self._check_same_shape(true_labels, predicted)
        return predicted.argmax(axis=1) == true_labels.argmax(axis=1)

    def __call__(
        self,
        true_labels: np.ndarray,
        predicted: np.ndarray,
        mask: np.ndarray | None = None,
    ) -> float:
        """See :meth:`Scorer.__call__`; rows of weight 0 may hold anything."""
        total = super().__call__(true_labels, predicted, mask)
        labels = true_labels if mask is None else true_labels[mask[:, 0] != 0]
        if labels.shape[1] > 1:
            highest = labels.max(axis=1, keepdims=True)
            wrong = (labels == highest).sum(axis=1) != 1
            expected = "one class in each row; Hamming scores several labels"
        else:
            labels, classes = labels[:, 0], predicted.shape[1]
            wrong = ~((labels >= 0) & (labels < classes) & (labels % 1 == 0))
            expected = f"classes from 0 to {classes - 1}, as there are predictions of"
        if wrong.any():
            raise ValidationError(
                f"{self.__name__}: expected targets with {expected}, got"
                f" {labels[wrong][0]}"
            )
        return total


class Hamming(Scorer):
    """Share of labels that are predicted correctly, for several labels per row.

    A label is predicted as true if its prediction reaches the threshold. The score
    of a row is the number of its correct labels divided by the number of its labels.

    Args:
        threshold: Least prediction that counts as true.
        out_name, targets_name, mask_name, name: See :class:`.Scorer`.
    """

    def __init__(
        self,
        threshold: float = 0.5,
        out_name: str = "",
        targets_name: str = _DEFAULT_TARGETS,
        mask_name: str = "",
        name: str | None = None,
    ) -> None:
        super().__init__(out_name, targets_name, mask_name, name)
        self.threshold = checked_number(threshold, "Hamming: threshold")

    def score_rows(self, true_labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """The share of correct labels in each row."""
        self._check_same_shape(true_labels, predicted)
        correct = (predicted >= self.threshold) == true_labels.astype(bool)
        return correct.mean(axis=1)


class MeanSquaredError(Scorer):
    """Half the squared error, summed over the features of a row."""

    def score_rows(self, true_labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """Half the squared error of each row."""
        self._check_same_shape(true_labels, predicted)
        error = np.subtract(predicted, true_labels, dtype=np.float64)
        return 0.5 * np.einsum("nc,nc->n", error, error)


def gather_losses_and_scores(
    net: Network,
    scorers: Sequence[Scorer],
    scores: MutableMapping[str, Pairs],
    out_name: str = "",
    targets_name: str = _DEFAULT_TARGETS,
    mask_name: str | None = "",
    continues: bool = False,
) -> None:
    """Add the losses and scores of the batch that a network has just processed.

    What has been gathered is summed up from time to time, so that the memory it takes
    does not grow with the batches. Only for scorers that override
    :meth:`Scorer.aggregate` each batch is kept.

    Args:
        net: The network, after a forward pass.
        scorers: The scorers. Where their own names of output, targets and mask are
            not the defaults, these count rather than the arguments.
        scores: What has been gathered so far, to add to; at first an empty dict.
            For the name of each loss it holds pairs ``(batch size, loss)``, for that
            of each scorer ``(sum of weights, sum of scores)``.
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
        weight, score, has_time = _score(net, scorer, out_name, targets_name, mask_name)
        pairs = scores.setdefault(scorer.__name__, [])
        if continues and pairs:
            weights, total = pairs[-1] if has_time else (0, 0)
            pairs[-1] = (weights + weight, total + score)
        elif scorer.aggregate is Scorer.aggregate:
            _add(pairs, weight, score)
        else:
            pairs.append((weight, score))


def _add(pairs: Pairs, weight: float, value: float, is_mean: bool = False) -> None:
    """Add a pair, after summing up those before if there are many."""
    if len(pairs) >= _MOST_PAIRS:
        weights = sum([w for w, _ in pairs])
        total = sum([w * v if is_mean else v for w, v in pairs])
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
) -> tuple[float, float, bool]:
    """The sums of weights and scores of a batch, and whether the output has time."""
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
    if targets == _DEFAULT_TARGETS:
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
    score = float(scorer(labels, predicted, weights))
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
) -> dict[str, float]:
    """Losses and scores of a data set from those of its batches.

    Args:
        scores: What `gather_losses_and_scores` has gathered.
        net: The network.
        scorers: The scorers.

    Returns:
        The mean of each loss, weighted by batch size, and the score of each scorer,
        by name. NaN where there is nothing to average.

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
        results[scorer.__name__] = scorer.aggregate(scores.get(scorer.__name__, ()))
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


__getattr__ = hinting(__name__, __all__)

"""Scorers that need the whole data set at once."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, get_args

import numpy as np

from brainstorm.literals import ScoredValues
from brainstorm.scorers import base
from brainstorm.scorers.counting import predicted_classes
from brainstorm.utils import Unpack, ValidationError

__all__ = ["AveragePrecision", "DataSetScorer", "RocAuc", "Score"]

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]


class DataSetScorer(base.Scorer):
    """Base class of scorers that need all rows of a data set at once.

    A subclass implements :meth:`score_data`. The memory holds all predictions and
    targets until then. Arguments are those of :class:`Scorer`.
    """

    adds_up = True

    def __call__(
        self,
        true_labels: np.ndarray,
        predicted: np.ndarray,
        mask: np.ndarray | None = None,
    ) -> Any:
        """Copy the rows of a batch; arguments as of :meth:`.Scorer.__call__`.

        Returns:
            Labels, predictions and weights (N,) of the rows whose weight is not 0.
        """
        labels, predicted, weights = base.weighted_rows(true_labels, predicted, mask)
        return np.array(labels), np.array(predicted), weights

    @staticmethod
    def join(scores: Sequence[Rows]) -> Rows:
        """All rows of several batches."""
        labels, predicted, weights = map(np.concatenate, zip(*scores, strict=True))
        return labels, predicted, weights

    # An object calls it as it calls the static one.
    def aggregate(  # type: ignore[override]
        self, errors: Iterable[tuple[float, Rows]]
    ) -> Any:
        """The score of all rows, NaN if there are none."""
        scores = [rows for _, rows in errors]
        rows = self.join(scores) if scores else None
        return self.score_data(*rows) if rows and len(rows[0]) else math.nan

    def score_data(
        self, true_labels: np.ndarray, predicted: np.ndarray, weights: np.ndarray
    ) -> Any:
        """The score of a data set.

        Args:
            true_labels: Targets of shape (N, C) or (N, 1).
            predicted: Output of the network of shape (N, C).
            weights: Weight of each row of shape (N,); none is 0.

        Returns:
            A number, or an array, which is logged as a nested list.
        """
        raise NotImplementedError


class _OfRanking(DataSetScorer, base.ClassAverage):
    """Base class of scorers that look at the order of the predictions."""

    def __call__(
        self,
        true_labels: np.ndarray,
        predicted: np.ndarray,
        mask: np.ndarray | None = None,
    ) -> Any:
        labels, predicted, weights = super().__call__(true_labels, predicted, mask)
        truths = self._truths(labels, predicted)
        self._average_of(truths.shape[1])
        return truths, predicted, weights

    def score_data(
        self, true_labels: np.ndarray, predicted: np.ndarray, weights: np.ndarray
    ) -> Any:
        predicted = base.two_columns(predicted)
        average, columns = self._average_of(true_labels.shape[1]), predicted.T
        if average == "micro":
            repeated = np.repeat(weights, len(columns))
            return self.score_class(true_labels.ravel(), predicted.ravel(), repeated)
        of_classes = zip(true_labels.T, columns, strict=True)
        scores = np.array([self.score_class(t, p, weights) for t, p in of_classes])
        support = weights @ true_labels
        return self._over_classes(average, scores, support, ~np.isnan(scores))

    def score_class(
        self, true: np.ndarray, predicted: np.ndarray, weights: np.ndarray
    ) -> float:
        """The score of one class, NaN where it can not be told.

        Args:
            true: Whether each row is of the class, of shape (N,).
            predicted: Its predictions of shape (N,).
            weights: Weight of each row of shape (N,).
        """
        # Rows of equal predictions are passed all at once.
        order = np.argsort(-predicted.astype(np.float64), kind="stable")
        ordered = predicted[order]
        last = np.append(ordered[1:] != ordered[:-1], True)
        hits = np.cumsum((weights * true)[order])[last]
        misses = np.cumsum((weights * ~true)[order])[last]
        if np.isnan(ordered).any() or not hits[-1]:
            return math.nan
        return self.score_curve(hits, misses)

    @staticmethod
    def score_curve(hits: np.ndarray, misses: np.ndarray) -> float:
        """The score from what is above each threshold, the highest one first.

        Args:
            hits: Weights of the rows of the class above each threshold, the last of
                which is not 0.
            misses: Those of the rest.
        """
        raise NotImplementedError


class RocAuc(_OfRanking):
    """Area under the receiver operating characteristic.

    How probable it is that a row of a class has a higher prediction for it than a row
    that is not; ties count half. Predictions are anything that is the higher, the
    likelier a class is; those of one column are of class 1. Of several classes each one
    is held against the rest. Labels are classes of shape (N, 1), or zeros and ones of
    shape (N, C), of which several may be one in a row.

    A class that no row is of, or all are, has the score NaN, and is left out of
    averages. All predictions and targets are kept until the score is computed.

    Args:
        average: What to make of the scores of the classes; see :class:`.Precision`.
        out_name, targets_name, mask_name, name: See :class:`.Scorer`.
    """

    @staticmethod
    def score_curve(hits: np.ndarray, misses: np.ndarray) -> float:
        if not misses[-1]:
            return math.nan
        mean = hits - np.diff(hits, prepend=0) / 2
        area = np.diff(misses, prepend=0) @ mean
        return float(area / (hits[-1] * misses[-1]))


class AveragePrecision(_OfRanking):
    """Mean of the precisions at all thresholds, weighted by the increase in recall.

    Predictions, labels and arguments are as in :class:`RocAuc`. A class that no row is
    of has the score NaN, and is left out of averages.
    """

    @staticmethod
    def score_curve(hits: np.ndarray, misses: np.ndarray) -> float:
        return float(np.diff(hits, prepend=0) @ (hits / (hits + misses)) / hits[-1])


class Score(DataSetScorer):
    """What a function of the whole data set returns, such as one of scikit-learn.

    It is called with the targets and the predictions of all rows, and with their
    weights as ``sample_weight`` if it has such an argument. What has one column is
    passed as a vector. Bind further arguments by ``functools.partial``.

    >>> def bias(true, predicted):
    ...     return (predicted - true).mean()
    >>> Score(bias)
    Score(function=bias)

    Functions are not described, so :meth:`.Trainer.save` refuses such a scorer among
    the ``train_scorers``. A hook with one is to be passed to :meth:`.Trainer.load`. For
    a scorer that can be saved, derive a class from :class:`DataSetScorer`.

    Args:
        function: The function. It returns a number, or an array, which is logged as
            a nested list.
        takes: What it compares: the ``'predictions'`` with targets as they are, or
            ``'classes'``: class indices (N,), as :class:`ConfusionMatrix` tells them.
        out_name, targets_name, mask_name: See :class:`.Scorer`.
        name: Name of the score in the logs. Default: that of the function.

    Raises:
        ValidationError: An argument does not fit; or, when scoring, rows have weights
            other than 0 and 1, but the function does not take any.
    """

    @base.takes_common
    def __init__(
        self,
        function: Callable[..., Any],
        takes: ScoredValues = "predictions",
        **common: Unpack[base.Common],
    ) -> None:
        super().__init__(**common)
        if not callable(function) or isinstance(function, type):
            raise ValidationError(f"Score: expected a function, got {function!r}")
        if takes not in get_args(ScoredValues):
            raise ValidationError(
                f"Score: takes has to be 'predictions' or 'classes', not {takes!r}"
            )
        self.function: Callable[..., Any] = function
        self.takes: ScoredValues = takes

    @property
    def default_name(self) -> str:
        """The name of the function."""
        function = getattr(self.function, "func", self.function)  # of a partial
        return getattr(function, "__name__", str(type(self).__name__))

    def score_data(
        self, true_labels: np.ndarray, predicted: np.ndarray, weights: np.ndarray
    ) -> Any:
        if self.takes == "classes":
            true_labels = self._classes(true_labels, predicted)
            predicted = predicted_classes(predicted, 0.5)
        arguments = {}
        if _takes_weights(self.function):
            arguments["sample_weight"] = weights
        elif (weights != 1).any():
            raise ValidationError(
                f"{self.__name__}: there are weights other than 0 and 1, but the"
                " function has no argument sample_weight"
            )
        return self.function(_vector(true_labels), _vector(predicted), **arguments)


def _takes_weights(function: Callable[..., Any]) -> bool:
    try:
        return "sample_weight" in inspect.signature(function).parameters
    except ValueError:  # of those written in C some have none
        return False


def _vector(values: np.ndarray) -> np.ndarray:
    return values[:, 0] if values.ndim > 1 and values.shape[1] == 1 else values

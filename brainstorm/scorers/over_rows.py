"""Scorers whose score is a mean over rows, or is made of one."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from brainstorm.checks import checked_integer, checked_number
from brainstorm.literals import Criterion
from brainstorm.scorers.base import Common, Scorer, takes_common, two_columns
from brainstorm.utils import Unpack, ValidationError

__all__ = ["Accuracy", "Hamming", "MeanSquaredError", "Perplexity", "TopKAccuracy"]


class Accuracy(Scorer):
    """Share of the rows in which the highest prediction is that of the true class.

    Labels are class indices of shape (N, 1), or one-hot vectors of shape (N, C).
    """

    criterion: Criterion | None = "max"

    def score_rows(self, true_labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """Whether each row is classified correctly."""
        if predicted.shape[1] < 2:
            raise ValidationError(
                f"{self.__name__}: expected predictions with a column for each class,"
                f" at least 2, got shape {predicted.shape}; Hamming scores single ones"
            )
        return predicted.argmax(axis=1) == self._classes(true_labels, predicted)


class TopKAccuracy(Scorer):
    """Share of the rows in which the true class is among the `k` highest predictions.

    Of equal predictions the first one counts as the highest, as in :class:`Accuracy`.
    Labels are as there.

    Args:
        k: How many predictions to look at.
        out_name, targets_name, mask_name, name: See :class:`.Scorer`.

    Raises:
        ValidationError: `k` is no integer of at least 1, or, when scoring, there are
            fewer classes.
    """

    criterion: Criterion | None = "max"

    @takes_common
    def __init__(self, k: int = 5, **common: Unpack[Common]) -> None:
        super().__init__(**common)
        self.k: int = checked_integer(k, "TopKAccuracy: k", 1)

    def score_rows(self, true_labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """Whether the true class of each row is among the first."""
        columns = predicted.shape[1]
        if columns < max(self.k, 2):
            raise ValidationError(
                f"{self.__name__}: expected predictions of at least {max(self.k, 2)}"
                f" classes for k={self.k}, got shape {predicted.shape}"
            )
        classes = self._classes(true_labels, predicted)[:, np.newaxis]
        own = np.take_along_axis(predicted, classes, axis=1)
        later = np.arange(columns) >= classes
        behind = (predicted < own) | ((predicted == own) & later)  # none behind NaN
        return columns - behind.sum(axis=1) < self.k


class Perplexity(Scorer):
    """The exponential of the mean of ``-log(p)``, p being that of the true class.

    As if the network had to choose among so many classes: between 1 and, for even
    predictions, their number. It is infinite if a true class has the probability 0.
    Predictions are probabilities, of one column those of class 1. Labels are as in
    :class:`Accuracy`.
    """

    criterion: Criterion | None = "min"

    adds_up = True

    def score_rows(self, true_labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """``-log(p)`` of each row."""
        wrong = (predicted < 0) | (predicted > 1.001)
        if wrong.any():
            raise ValidationError(
                f"{self.__name__}: expected probabilities as predictions, got"
                f" {predicted[wrong][0]}"
            )
        classes = self._classes(true_labels, predicted)[:, np.newaxis]
        p = np.take_along_axis(two_columns(predicted), classes, axis=1)[:, 0]
        with np.errstate(divide="ignore"):
            return -np.log(p, dtype=np.float64)

    @staticmethod
    def aggregate(errors: Iterable[tuple[float, float]]) -> float:
        """See :meth:`.Scorer.aggregate`."""
        with np.errstate(over="ignore"):
            return float(np.exp(Scorer.aggregate(errors)))


class Hamming(Scorer):
    """Share of labels that are predicted correctly, for several labels per row.

    A label is predicted as true if its prediction reaches the threshold. The score
    of a row is the number of its correct labels divided by the number of its labels.

    Args:
        threshold: Least prediction that counts as true.
        out_name, targets_name, mask_name, name: See :class:`.Scorer`.
    """

    criterion: Criterion | None = "max"

    @takes_common
    def __init__(self, threshold: float = 0.5, **common: Unpack[Common]) -> None:
        super().__init__(**common)
        self.threshold: float = checked_number(threshold, "Hamming: threshold")

    def score_rows(self, true_labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """The share of correct labels in each row."""
        self._check_same_shape(true_labels, predicted)
        correct = (predicted >= self.threshold) == true_labels.astype(bool)
        return correct.mean(axis=1)


class MeanSquaredError(Scorer):
    """Half the squared error, summed over the features of a row."""

    criterion: Criterion | None = "min"

    def score_rows(self, true_labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """Half the squared error of each row."""
        self._check_same_shape(true_labels, predicted)
        error = np.subtract(predicted, true_labels, dtype=np.float64)
        return 0.5 * np.einsum("nc,nc->n", error, error)

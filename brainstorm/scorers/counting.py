"""Scorers that count how often classes are true and predicted."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from brainstorm.checks import checked_number
from brainstorm.literals import Average
from brainstorm.scorers.base import (
    ClassAverage,
    Common,
    Scorer,
    takes_common,
    weighted_rows,
)
from brainstorm.utils import Unpack

__all__ = ["F1", "ConfusionMatrix", "Precision", "Recall"]


class ConfusionMatrix(Scorer):
    """How often each class is taken for each other one.

    The score is a nested list (C, C), the sum of the weights of the rows (their number
    if there is no mask) by the true class, then by the predicted one. The predicted
    class is the highest one, or, where there is one column, 1 if that reaches the
    threshold, else 0. Labels are as in :class:`.Accuracy`.

    Args:
        threshold: Least prediction that counts as class 1, where there is one column.
        out_name, targets_name, mask_name, name: See :class:`.Scorer`.
    """

    adds_up = True

    @takes_common
    def __init__(self, threshold: float = 0.5, **common: Unpack[Common]) -> None:
        super().__init__(**common)
        self.threshold: float = checked_number(threshold, f"{self.__name__}: threshold")

    def __call__(
        self,
        true_labels: np.ndarray,
        predicted: np.ndarray,
        mask: np.ndarray | None = None,
    ) -> Any:
        """The matrix (C, C) of a batch; see :meth:`.Scorer.__call__`."""
        true_labels, predicted, weights = weighted_rows(true_labels, predicted, mask)
        classes = self._classes(true_labels, predicted)
        size = max(predicted.shape[1], 2)
        matrix = np.zeros((size, size), weights.dtype)
        chosen = predicted_classes(predicted, self.threshold)
        np.add.at(matrix, (classes, chosen), weights)
        return matrix

    @staticmethod
    def aggregate(errors: Iterable[tuple[float, Any]]) -> Any:
        """The sum of the matrices, NaN if there are none."""
        errors = list(errors)
        return sum(counts for _, counts in errors) if errors else math.nan


class _OfCounts(ClassAverage):
    """Base class of scorers that divide counts of classes by each other."""

    adds_up = True

    @takes_common
    def __init__(
        self,
        average: Average | None = "auto",
        multilabel: bool = False,
        threshold: float = 0.5,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(average, **common)
        self.multilabel: bool = bool(multilabel)
        self.threshold: float = checked_number(threshold, f"{self.__name__}: threshold")

    def __call__(
        self,
        true_labels: np.ndarray,
        predicted: np.ndarray,
        mask: np.ndarray | None = None,
    ) -> Any:
        """Count how often each class is rightly predicted, is predicted, and is true.

        Arguments as of :meth:`.Scorer.__call__`.

        Returns:
            The counts, or sums of weights, of shape (3, C).
        """
        true_labels, predicted, weights = weighted_rows(true_labels, predicted, mask)
        if self.multilabel:
            self._check_same_shape(true_labels, predicted)
            truths = self._truths(true_labels, predicted)
            chosen = predicted >= self.threshold
        else:
            classes = self._classes(true_labels, predicted)[:, np.newaxis]
            index = np.arange(max(predicted.shape[1], 2))
            truths = classes == index
            decided = predicted_classes(predicted, self.threshold)
            chosen = decided[:, np.newaxis] == index
        self._average_of(truths.shape[1], not self.multilabel)
        return np.array([weights @ x for x in (truths & chosen, chosen, truths)])

    # An object calls it as it calls the static one.
    def aggregate(  # type: ignore[override]
        self, errors: Iterable[tuple[float, Any]]
    ) -> Any:
        """The average over the classes, NaN of nothing."""
        errors = list(errors)
        if not sum(weight for weight, _ in errors):
            return math.nan
        counts = sum(counts for _, counts in errors)
        average = self._average_of(counts.shape[1], not self.multilabel)
        if average == "micro":
            return float(self.divide(*counts.sum(axis=1)))
        there = counts.any(axis=0) | self.multilabel
        return self._over_classes(average, self.divide(*counts), counts[2], there)

    @staticmethod
    def divide(right: Any, predicted: Any, true: Any) -> np.ndarray:
        """The score of counts."""
        raise NotImplementedError


class Precision(_OfCounts):
    """Share of what is predicted as a class that is of it.

    Where nothing is to be divided by, such as for the precision of a class that is
    never predicted, the score of the class is 0. Classes that are neither true nor
    predicted anywhere do not count in averages. So it is in scikit-learn.

    The predicted class is the highest one, or, where there is one column, 1 if that
    reaches the threshold, else 0. Labels are as in :class:`.Accuracy`. Or each column
    is a label of its own; then labels are zeros and ones of shape (N, C), and a label
    is predicted if it reaches the threshold.

    Args:
        average: What to make of the scores of the classes:

            - ``'binary'``: of two classes, that of class 1
            - ``'macro'``: their mean
            - ``'weighted'``: their mean, weighted by how often each class is true
            - ``'micro'``: one score, for which a row counts once for each class
            - ``'auto'``: ``'binary'`` of two classes, ``'macro'`` otherwise
            - None: a list of them
        multilabel: Whether each column is a label of its own.
        threshold: Least prediction that counts as true, of single columns and labels.
        out_name, targets_name, mask_name, name: See :class:`.Scorer`.

    Raises:
        ValidationError: There is no such `average`, or, when scoring, it is
            ``'binary'`` and there are not two classes.
    """

    @staticmethod
    def divide(right: Any, predicted: Any, true: Any) -> np.ndarray:
        return _share(right, predicted)


class Recall(_OfCounts):
    """Share of what is of a class that is predicted as such.

    Arguments, and what has no share, are as in :class:`Precision`.
    """

    @staticmethod
    def divide(right: Any, predicted: Any, true: Any) -> np.ndarray:
        return _share(right, true)


class F1(_OfCounts):
    """Harmonic mean of :class:`Precision` and :class:`Recall`.

    Arguments, and what has no share, are as in :class:`Precision`.
    """

    @staticmethod
    def divide(right: Any, predicted: Any, true: Any) -> np.ndarray:
        return _share(2 * right, predicted + true)


def _share(part: Any, whole: Any) -> np.ndarray:
    """The quotient, 0 where nothing is to be divided by."""
    return np.where(whole == 0, 0.0, part / np.where(whole == 0, 1, whole))


def predicted_classes(predicted: np.ndarray, threshold: float) -> np.ndarray:
    """The class (N,) that each row of predictions is for."""
    if predicted.shape[1] > 1:
        return predicted.argmax(axis=1)
    return (predicted[:, 0] >= threshold).astype(np.intp)

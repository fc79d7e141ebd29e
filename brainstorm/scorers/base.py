"""The base class of all scorers, and what those of classes have in common."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypedDict, get_args

import numpy as np

from brainstorm.describable import Describable
from brainstorm.literals import Average, Criterion
from brainstorm.utils import Unpack, ValidationError, takes_from

__all__ = ["Scorer"]

DEFAULT_TARGETS = "targets"


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
    targets_name: str = DEFAULT_TARGETS
    mask_name: str = ""
    name: str | None = None

    criterion: Criterion | None = None
    """Whether low or high scores are good; None if nobody knows."""

    adds_up = False
    """Whether several batches may be joined to one before :meth:`aggregate` gets them.
    So it is, too, where that method is not overridden."""

    def __init__(
        self,
        out_name: str = "",
        targets_name: str = DEFAULT_TARGETS,
        mask_name: str = "",
        name: str | None = None,
    ) -> None:
        self.out_name, self.targets_name = out_name, targets_name
        self.mask_name, self.name = mask_name, name

    @property
    def __name__(self) -> str:
        """Name of the score in the logs."""
        return self.name or self.default_name

    @__name__.setter
    def __name__(self, name: str) -> None:
        self.name = name

    @property
    def default_name(self) -> str:
        """The name without a `name`."""
        return str(type(self).__name__)

    def __call__(
        self,
        true_labels: np.ndarray,
        predicted: np.ndarray,
        mask: np.ndarray | None = None,
    ) -> Any:
        """Sum the scores of all rows of a batch.

        Args:
            true_labels: Targets of shape (N, C) or (N, 1).
            predicted: Output of the network of shape (N, C).
            mask: Weight of each row of shape (N, 1), None for ones. Rows of weight 0
                may hold anything.

        Returns:
            The sum over the rows, each multiplied by its weight. Subclasses that
            override :meth:`aggregate` may return any number, or an array of counts.
        """
        true_labels, predicted, weights = weighted_rows(true_labels, predicted, mask)
        scores = self.score_rows(true_labels, predicted)
        return float((scores * weights).sum(dtype=np.float64))

    def score_rows(self, true_labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """The score (N,) of each row of a batch; arguments as of :meth:`__call__`."""
        raise NotImplementedError

    @staticmethod
    def join(scores: Sequence[Any]) -> Any:
        """What several batches give together: the sum."""
        return sum(scores)

    @staticmethod
    def aggregate(errors: Iterable[tuple[float, Any]]) -> Any:
        """The score of a data set from those of its batches.

        Args:
            errors: For each batch the sum of the weights (the number of rows if there
                is no mask) and the sum of the scores, or whatever else
                :meth:`__call__` has returned.

        Returns:
            Sum of scores / sum of weights; NaN if the weights sum to zero. Subclasses
            may return arrays, which are logged as lists.
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

    def _classes(self, true_labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """The class (N,) of each row, of labels that are classes or one-hot vectors."""
        if true_labels.shape[1] > 1:
            self._check_same_shape(true_labels, predicted)
            highest = true_labels.max(axis=1, keepdims=True)
            wrong = (true_labels == highest).sum(axis=1) != 1
            expected = "one class in each row; Hamming scores several labels"
            classes = true_labels.argmax(axis=1)
        else:
            labels, count = true_labels[:, 0], max(predicted.shape[1], 2)
            wrong = ~((labels >= 0) & (labels < count) & (labels % 1 == 0))
            expected = f"classes from 0 to {count - 1}, as there are predictions of"
            classes = np.where(wrong, 0, labels).astype(np.intp)
        if wrong.any():
            bad = true_labels[wrong][0]
            raise ValidationError(
                f"{self.__name__}: expected targets with {expected}, got"
                f" {bad if bad.size > 1 else bad[0]}"
            )
        return classes

    def _truths(self, true_labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """Whether each class is true in each row (N, C); several may be."""
        columns = predicted.shape[1]
        if true_labels.shape[1] == 1:
            classes = self._classes(true_labels, predicted)
            return classes[:, np.newaxis] == np.arange(max(columns, 2))
        self._check_same_shape(true_labels, predicted)
        wrong = ((true_labels != 0) & (true_labels != 1)).any(axis=1)
        if wrong.any():
            raise ValidationError(
                f"{self.__name__}: expected targets of 0 and 1, got"
                f" {true_labels[wrong][0]}"
            )
        return true_labels == 1


class Common(TypedDict, total=False):
    """The arguments of :class:`Scorer`, for type checkers and editors."""

    out_name: str
    targets_name: str
    mask_name: str
    name: str | None


takes_common = takes_from(Scorer, "out_name", "targets_name", "mask_name", "name")


class ClassAverage(Scorer):
    """Base class of scorers that have a score for each class.

    Args:
        average: What to make of these; see :class:`.Precision`.
        out_name, targets_name, mask_name, name: See :class:`.Scorer`.
    """

    criterion: Criterion | None = "max"

    AVERAGES = (*get_args(Average), None)

    @takes_common
    def __init__(
        self, average: Average | None = "auto", **common: Unpack[Common]
    ) -> None:
        super().__init__(**common)
        if average not in self.AVERAGES:
            raise ValidationError(
                f"{self.__name__}: average has to be one of {self.AVERAGES}, not"
                f" {average!r}"
            )
        self.average: Average | None = average

    def _average_of(self, columns: int, are_classes: bool = True) -> Average | None:
        """How to average the scores of columns, which may be labels of their own."""
        binary = columns == 2 and are_classes
        if self.average == "binary" and not binary:
            raise ValidationError(
                f"{self.__name__}: average='binary' is for two classes, but there are"
                f" predictions of {columns}; take 'macro' or another one"
            )
        auto: Average = "binary" if binary else "macro"
        return auto if self.average == "auto" else self.average

    @staticmethod
    def _over_classes(
        average: Average | None,
        scores: np.ndarray,
        support: np.ndarray,
        counts: np.ndarray,
    ) -> Any:
        """The average of scores (C,), of those that count, but for ``'micro'``."""
        if average == "binary":
            return float(scores[1])
        if average is None:
            return scores
        weights = counts * (support if average == "weighted" else 1.0)
        total = weights.sum()
        return float(weights[counts] @ scores[counts] / total) if total else math.nan


def weighted_rows(
    true_labels: np.ndarray, predicted: np.ndarray, mask: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels and predictions of the rows whose weights (N,) are not 0, and these."""
    if mask is None:
        return true_labels, predicted, np.ones(len(predicted), np.int64)
    used = mask[:, 0] != 0
    weights = mask[used, 0].astype(np.float64)
    return true_labels[used], predicted[used], weights


def two_columns(predicted: np.ndarray) -> np.ndarray:
    """Predictions with a column for each class, also where they are of class 1 only."""
    if predicted.shape[1] > 1:
        return predicted
    return np.hstack([1.0 - predicted.astype(np.float64), predicted])

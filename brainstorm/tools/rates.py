"""A tool that finds a good learning rate."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from brainstorm.checks import (
    check_network,
    checked_integer,
    checked_number,
    checked_positive,
)
from brainstorm.data_iterators import DataIterator
from brainstorm.describable import create_from_description, get_description
from brainstorm.files import atomic_path
from brainstorm.randomness import global_rnd
from brainstorm.structure.network import Network
from brainstorm.tools.inspecting import picture_format
from brainstorm.tools.profiling import endless_batches, same_state
from brainstorm.training.adaptive_steppers import AdamStepper
from brainstorm.training.advice import is_blank
from brainstorm.training.resuming import restore, state_of
from brainstorm.training.steppers import TrainingStepper
from brainstorm.utils import ValidationError, new_figure

__all__ = ["LearningRateFinder", "LearningRates"]


class LearningRates:
    """Losses of a network while its learning rate grew.

    Args:
        rates: The learning rates, one for each update.
        losses: The training losses that these updates began with.
        smoothing: See :class:`LearningRateFinder`.

    Attributes:
        rates (numpy.ndarray): Of the shape (N,), float64.
        losses (numpy.ndarray): Of the shape (N,), float64.
        smoothed (numpy.ndarray): Running means of the losses, (N,), float64.
    """

    def __init__(
        self, rates: Sequence[float], losses: Sequence[float], smoothing: float = 0.0
    ):
        self.rates: np.ndarray = np.array(rates, dtype=np.float64)
        self.losses: np.ndarray = np.array(losses, dtype=np.float64)
        smoothed, mean = [], 0.0
        for i, loss in enumerate(self.losses, start=1):
            mean = smoothing * mean + (1 - smoothing) * loss
            smoothed.append(mean / (1 - smoothing**i))
        self.smoothed: np.ndarray = np.array(smoothed)
        # The first means are of few losses, and one of these may be low by chance.
        first = round(1 / (1 - smoothing)) - 1
        self._first = first if 2 * first < len(self.losses) else 0

    @property
    def suggestion(self) -> float:
        """A tenth of the rate at which the smoothed loss is lowest."""
        return float(self.rates[self._lowest]) / 10

    @property
    def steepest(self) -> float:
        """The rate at which the smoothed loss falls fastest, before it is lowest."""
        falling = slice(self._first, self._lowest + 1)
        rates = self.rates[falling]
        if len(rates) < 2:
            return float(rates[0])
        slopes = np.gradient(self.smoothed[falling], np.log(rates))
        return float(rates[np.argmin(slopes)])

    @property
    def _lowest(self) -> int:
        return self._first + int(np.argmin(self.smoothed[self._first :]))

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__}: {len(self.rates)} updates from"
            f" {self.rates[0]:.3g} to {self.rates[-1]:.3g},"
            f" suggestion {self.suggestion:.3g}>"
        )

    def plot(self, filename: str | os.PathLike[str] | None = None) -> Any:
        """Draw the losses over the rates, with the suggestion.

        Needs `matplotlib <https://matplotlib.org>`_.

        Args:
            filename: Name of a file to write the picture to; its folder has to exist.
                The ending ``.png``, ``.svg`` or ``.pdf`` decides on the format.

        Returns:
            The figure of matplotlib.

        Raises:
            ImportError: matplotlib is not installed.
            ValidationError: The file name has another ending.
        """
        file_format = None if filename is None else picture_format(filename, "filename")
        figure = new_figure(f"{type(self).__name__}.plot")
        axes = figure.add_subplot(xlabel="learning rate", ylabel="loss", xscale="log")
        axes.plot(self.rates, self.losses, color="#cfe2f3", label="loss")
        axes.plot(self.rates, self.smoothed, color="#3d78b5", label="smoothed")
        suggestion = self.suggestion
        axes.axvline(
            suggestion, color="black", ls=":", label=f"suggestion {suggestion:.3g}"
        )
        # Losses that have exploded would leave no room for the others.
        low, high = self.smoothed.min(), self.smoothed[: len(self.smoothed) // 2].max()
        if low < high:
            axes.set_ylim(low - 0.2 * (high - low), high + 0.5 * (high - low))
        axes.legend()
        if filename is not None:
            with atomic_path(filename) as temporary:
                figure.savefig(temporary, format=file_format)
        return figure


class LearningRateFinder(LearningRates):
    """Finds a good learning rate, by a training in which it grows.

    The range test of L. N. Smith, *Cyclical learning rates for training neural
    networks*, 2017: from update to update the rate is multiplied by a factor. The loss
    stays as it is while the rate is too small, falls where it is good, and explodes
    where it is too large.

    Copies of network and stepper are trained: both, the data and all random numbers
    stay as they are. The copy of a network that nobody has initialized is, as by
    :meth:`.Trainer.fit`.

    Args:
        network: The network.
        data: A data iterator, or arrays ``(T, B, ...)`` by the names of the inputs,
            which are one batch. It is used again if it has fewer batches.
        stepper: Any with a member `learning_rate`. Default: ``AdamStepper()``.
        lowest: The rate to begin with.
        highest: The rate to end with.
        updates: Number of updates.
        smoothing: Share of the old in the running means of the loss, in [0, 1).
        diverges: The test ends early where the smoothed loss is this many times its
            lowest value, or not finite.

    Raises:
        ValidationError: An argument is not what it has to be, the stepper has no
            learning rate, or the network no loss.
        IteratorValidationError: The data are not those of the inputs, or none.

    For example::

        finder = tools.LearningRateFinder(net, data, AdamStepper())
        finder.plot("rates.png")
        stepper = AdamStepper(finder.suggestion)
    """

    def __init__(
        self,
        network: Network,
        data: Mapping[str, Any] | DataIterator,
        stepper: TrainingStepper | None = None,
        lowest: float = 1e-6,
        highest: float = 10.0,
        updates: int = 100,
        smoothing: float = 0.9,
        diverges: float = 4.0,
    ):
        check_network(network)
        stepper = AdamStepper() if stepper is None else stepper
        if not isinstance(stepper, TrainingStepper):
            kind = type(stepper).__name__
            raise ValidationError(f"stepper: expected a TrainingStepper, got {kind}")
        if not hasattr(stepper, "learning_rate"):
            kind = type(stepper).__name__
            raise ValidationError(f"stepper: a {kind} has no learning_rate to be found")
        if not network.loss_layers:
            raise ValidationError("network: it has no Loss layer, so there is no loss")
        lowest, highest = (
            checked_positive(lowest, "lowest"),
            checked_positive(highest, "highest"),
        )
        updates = checked_integer(updates, "updates", 2)
        if lowest >= highest:
            raise ValidationError(
                f"lowest has to be below highest, got {lowest} and {highest}"
            )
        smoothing = checked_number(smoothing, "smoothing", 0)
        if smoothing >= 1:
            raise ValidationError(f"smoothing has to be below 1, got {smoothing}")
        diverges = checked_number(diverges, "diverges", 1)
        rates = np.geomspace(lowest, highest, updates).tolist()
        with same_state(data):
            own_net, own_stepper = _copies(network, stepper)
            losses = _losses(own_net, own_stepper, data, rates, smoothing, diverges)
        super().__init__(rates[: len(losses)], losses, smoothing)


def _copies(
    network: Network, stepper: TrainingStepper
) -> tuple[Network, TrainingStepper]:
    with network.lock:
        net = copy.deepcopy(network)
    if is_blank(net):
        net.initialize("auto", seed=global_rnd.generate_seed())
    own = create_from_description(get_description(stepper))
    restore(own, state_of(stepper))
    own.start(net)
    return net, own


def _losses(
    net: Network,
    stepper: Any,
    data: Mapping[str, Any] | DataIterator,
    rates: Sequence[float],
    smoothing: float,
    diverges: float,
) -> list[float]:
    """The losses of updates with growing rates, until they diverge."""
    losses: list[float] = []
    mean, best = 0.0, math.inf
    net.start_weight_modifiers()
    for rate, batch in zip(rates, endless_batches(net, data), strict=False):
        inputs = net.layers["Input"].out_shapes
        net.provide_external_data({n: v for n, v in batch.items() if n in inputs})
        stepper.learning_rate = rate
        with np.errstate(all="ignore"):
            stepper.run()
            net.apply_weight_modifiers()
        loss = net.get_loss_values()["total_loss"]
        if not math.isfinite(loss):
            break
        losses.append(loss)
        mean = smoothing * mean + (1 - smoothing) * loss
        smoothed = mean / (1 - smoothing ** len(losses))
        best = min(best, smoothed)
        # Losses may be negative.
        if smoothed - best > (diverges - 1) * abs(best):
            break
    if not losses:
        raise ValidationError("the loss is not finite at the lowest learning rate")
    return losses

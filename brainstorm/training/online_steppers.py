"""Steppers that correct a linear layer after each step of a sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from brainstorm.checks import is_finite
from brainstorm.structure.network import Network
from brainstorm.training.declared import NOT_NEGATIVE, POSITIVE, Range
from brainstorm.training.readout_data import Readout
from brainstorm.training.steppers import TrainingStepper
from brainstorm.utils import ValidationError

__all__ = ["LmsStepper", "RlsStepper"]


class _OnlineStepper(TrainingStepper):
    """Base of both: after a forward pass, goes through its steps one by one.

    It needs no backward pass. What it computes, and its state, is float64 on the host,
    whatever the handler.
    """

    needs_loss = False
    mask_name = "mask"

    layer: str | None
    _readout: Readout

    def start(self, net: Network) -> None:
        readout = Readout.find(net, self.layer)
        names = list(net.layers["Input"].out_shapes)
        self._mask = "mask" if "mask" in names and readout.masks_steps else None
        self._targets = readout.name_of_targets([n for n in names if n != "mask"])
        self._readout = readout
        super().start(net)

    def run(self) -> None:
        net, readout = self._run_forward(), self._readout
        h = readout.states().astype(np.float64)
        targets = net.get_input(self._targets).astype(np.float64)
        if not readout.has_time:
            targets = targets[np.newaxis]
        shape = len(h), h.shape[1]
        targets = readout.checked_targets(targets, shape) - readout.fixed_bias()
        counts = np.ones(h.shape[:2], bool)
        if self._mask:
            counts &= net.get_input(self._mask).reshape(counts.shape) != 0
        exchange = net.backpropagation.exchange
        if exchange is not None:  # all ranks correct by all sequences
            h, targets, counts = exchange.gather(h, targets, counts)
        W, bias = readout.parameters()
        if readout.fits_bias:
            h = np.concatenate([np.ones((*h.shape[:2], 1)), h], axis=2)
            W = np.concatenate([bias[np.newaxis], W])
        try:
            for t, used in enumerate(counts):
                if used.any():
                    self._correct(W, h[t, used], targets[t, used])
        finally:
            readout.set(*((W[1:], W[0]) if readout.fits_bias else (W, bias)))

    def _correct(self, W: np.ndarray, h: np.ndarray, targets: np.ndarray) -> None:
        """Change weights (n, k) by the states (B, n) and targets (B, k) of a step."""
        raise NotImplementedError


@dataclass(eq=False, repr=False)
class LmsStepper(_OnlineStepper):
    """Least mean squares (Widrow and Hoff 1960): ``W -= learning_rate * (o - y) h'``.

    Updates a linear layer after each time step, with the outputs o that it has by then,
    its inputs h and the targets y; summed over the sequences of the batch. Steps whose
    input ``'mask'`` is 0 are left out, if there is one.

    Args:
        layer: Name of a `FullyConnected` layer with linear activation. Default: the one
            that the network's output comes from.
        learning_rate: Step size, not negative.
    """

    layer: str | None = None
    learning_rate: float = 0.1

    ranges: ClassVar[dict[str, Range]] = {"learning_rate": NOT_NEGATIVE}

    def _correct(self, W: np.ndarray, h: np.ndarray, targets: np.ndarray) -> None:
        W -= self.learning_rate * (h.T @ (h @ W - targets))


@dataclass(eq=False, repr=False)
class RlsStepper(_OnlineStepper):
    """Recursive least squares, known as FORCE where outputs are fed back.

    Updates a linear layer after each time step, with the outputs o that it has by then,
    its inputs h (B, n) and the targets y (Sussillo and Abbott 2009)::

        K = P h' (forgetting I + h P h')^-1
        P = (P - K h P) / forgetting
        W -= K (o - y)

    In the beginning P is ``I / ridge``: from weights that are 0, the weights are after
    each step those of ridge regression over all steps so far, the bias penalized like
    the others. P has the bias as its first row and column. Steps whose input ``'mask'``
    is 0 are left out, if there is one.

    Within a batch, only this layer sees the weights change. Where its outputs are fed
    back, give it pieces of one step, by ``Subsequences(..., 1)`` and
    ``Trainer(..., carry_context=True)``.

    Args:
        layer: Name of a `FullyConnected` layer with linear activation. Default: the one
            that the network's output comes from.
        ridge: Strength of the penalty, above 0.
        forgetting: Factor of the weight of former steps with each new one, in (0, 1].
    """

    layer: str | None = None
    ridge: float = 1.0
    forgetting: float = 1.0

    slots: ClassVar[tuple[str, ...]] = ("P",)
    ranges: ClassVar[dict[str, Range]] = {"ridge": POSITIVE}

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_finite(self.forgetting) or not 0 < self.forgetting <= 1:
            raise ValidationError(
                "RlsStepper: forgetting has to be a number in (0, 1], not"
                f" {self.forgetting!r}"
            )

    def _shape_of_slots(self, net: Network) -> tuple[int, ...]:
        W, _ = self._readout.parameters()
        size = len(W) + self._readout.fits_bias
        return size, size

    def _create_slot(self, net: Network, values: np.ndarray | None) -> Any:
        if values is None:
            size, _ = self._shape_of_slots(net)
            return np.eye(size) / self.ridge
        return values.copy()

    def _correct(self, W: np.ndarray, h: np.ndarray, targets: np.ndarray) -> None:
        P = vars(self)["P"]
        PH = P @ h.T
        G = h @ PH
        G.flat[:: len(G) + 1] += self.forgetting
        K = np.linalg.solve(G, PH.T).T
        P -= K @ PH.T
        if self.forgetting < 1:
            P /= self.forgetting
        W -= K @ (h @ W - targets)

"""Measures of predictions and of reservoirs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from brainstorm.checks import (
    check_network,
    checked_array,
    checked_integer,
    checked_number,
)
from brainstorm.randomness import global_rnd
from brainstorm.structure.network import Network
from brainstorm.training.readouts import Sums, ridge_weights
from brainstorm.utils import ValidationError

__all__ = ["effective_spectral_radius", "memory_capacity", "nrmse", "rsquare"]


def nrmse(predictions: Any, targets: Any) -> float:
    """The root of the mean squared error, divided by the targets' standard deviation.

    That is 1 for the targets' mean. Of several features, the squared errors and the
    variances are summed.

    >>> from brainstorm.tools import nrmse
    >>> round(nrmse([[1.0], [2.0]], [[1.0], [3.0]]), 3)
    0.707

    Args:
        predictions: Array (..., features), or (N,) of one feature.
        targets: Array of the same shape.

    Raises:
        ValidationError: The shapes differ, or the targets are constant.
    """
    return math.sqrt(_unexplained(predictions, targets))


def rsquare(predictions: Any, targets: Any) -> float:
    """The share of the targets' variance that is explained, ``1 - nrmse^2``.

    Args:
        predictions: Array (..., features), or (N,) of one feature.
        targets: Array of the same shape.

    Raises:
        ValidationError: The shapes differ, or the targets are constant.
    """
    return 1 - _unexplained(predictions, targets)


def _unexplained(predictions: Any, targets: Any) -> float:
    y, t = checked_array(predictions, "predictions"), checked_array(targets, "targets")
    if y.shape != t.shape or not t.ndim:
        raise ValidationError(
            f"predictions: expected the shape of the targets, {t.shape}, got {y.shape}"
        )
    if not t.size:
        raise ValidationError(f"targets: expected some, got the shape {t.shape}")
    variation = ((t - t.mean(axis=tuple(range(max(1, t.ndim - 1))))) ** 2).sum()
    if not variation > 0:
        raise ValidationError("targets: expected values that vary, got constant ones")
    return float(((y - t) ** 2).sum() / variation)


def effective_spectral_radius(R: Any, leak: float = 1.0) -> float:
    """The spectral radius of ``leak R + (1 - leak) I`` (Jaeger et al. 2007).

    Args:
        R: Recurrent weights (n, n).
        leak: The leak of the reservoir; with 1 it is the spectral radius of R.

    Raises:
        ValidationError: R is no square matrix of finite values, or `leak` is no number.
    """
    R = checked_array(R, "R")
    if R.ndim != 2 or R.shape[0] != R.shape[1] or not R.size:
        raise ValidationError(f"R: expected a square matrix, got the shape {R.shape}")
    if not np.isfinite(R).all():
        raise ValidationError("R: expected finite values, got others too")
    leak = checked_number(leak, "leak")
    return float(
        np.abs(np.linalg.eigvals(leak * R + (1 - leak) * np.eye(len(R)))).max()
    )


def memory_capacity(
    net: Network,
    layer: str,
    longest: int = 100,
    steps: int = 4000,
    ridge: float = 1e-7,
    seed: int | None = None,
) -> np.ndarray:
    """How much of its past inputs the state of a reservoir tells (Jaeger 2001).

    The network runs on white noise u, uniform over [-0.8, 0.8). Linear readouts of the
    layer's outputs are fitted to the first half of it, and measured on the rest: the
    capacity for a delay k is the squared correlation with ``u[t - k]``.

    Args:
        net: A network with one input of one feature that the layer depends on. It is
            not changed.
        layer: Name of the reservoir.
        longest: The longest delay.
        steps: Number of steps; the first `longest` are left out.
        ridge: Strength of the penalty of the readouts.
        seed: Seed of the noise. By default it comes from `global_rnd`.

    Returns:
        The capacities (longest,) for the delays from 1 on. Their sum is the memory
        capacity, at most the number of units.

    Raises:
        ValidationError: The arguments do not fit.
    """
    check_network(net)
    longest = checked_integer(longest, "longest", 1)
    steps = checked_integer(steps, "steps", 2 * longest + 2)
    ridge = checked_number(ridge, "ridge", 0)
    u = global_rnd.create_random_state(seed).uniform(-0.8, 0.8, steps)
    h = net.predict(u.reshape(-1, 1, 1), output_name=f"{layer}.outputs.default")
    h = h.reshape(steps, -1)[longest:].astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(u, longest)
    targets = windows[: steps - longest, ::-1]
    half = len(h) // 2
    sums = Sums()
    sums.add(h[:half], targets[:half])
    products, n = sums.products(), h.shape[1]
    (W,) = ridge_weights(products[:n, :n], products[:n, n:], [ridge], layer)
    y, t = h[half:] @ W, targets[half:]
    y, t = y - y.mean(axis=0), t - t.mean(axis=0)
    varied = (y**2).sum(axis=0) * (t**2).sum(axis=0)
    return (y * t).sum(axis=0) ** 2 / np.where(varied > 0, varied, 1.0)

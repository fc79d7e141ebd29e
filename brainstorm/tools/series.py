"""Time series to try networks on, of the shape ``(T, 1, features)``.

Arguments that are not as described raise a ValidationError.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from brainstorm.checks import (
    checked_array,
    checked_integer,
    checked_number,
    checked_positive,
)
from brainstorm.randomness import global_rnd
from brainstorm.utils import ValidationError

__all__ = ["henon", "logistic", "lorenz", "mackey_glass", "mso", "narma"]

State = Any
"""A number, or an array of the state's features."""


def mackey_glass(
    steps: int,
    tau: float = 17.0,
    a: float = 0.2,
    b: float = 0.1,
    n: float = 10.0,
    x0: float = 1.2,
    h: float = 1.0,
    history: Any = None,
) -> np.ndarray:
    """The series of Mackey and Glass (1977), chaotic for tau above 16.8.

    ``x'(t) = a x(t - tau) / (1 + x(t - tau)^n) - b x(t)``, by the method of Runge and
    Kutta of order 4, with the delayed term constant within a step.

    >>> from brainstorm.tools import mackey_glass
    >>> x = mackey_glass(2000)
    >>> inputs, targets = x[:-1], x[1:]

    Args:
        steps: Number of steps.
        tau: Delay, a multiple of `h`.
        a: Strength of the delayed term.
        b: Rate of decay.
        n: Exponent.
        x0: The first value.
        h: Time between two steps.
        history: The tau / h values before the first. Default: all are `x0`.

    Returns:
        An array (T, 1, 1).
    """
    steps, h = checked_integer(steps, "steps", 1), checked_positive(h, "h")
    delay = round(checked_number(tau, "tau", 0) / h)
    if not math.isclose(delay * h, tau):
        raise ValidationError(f"tau: expected a multiple of h, {h}, got {tau}")
    x0 = checked_number(x0, "x0")
    past = checked_array([x0] * delay if history is None else history, "history")
    if past.size != delay:
        raise ValidationError(
            f"history: expected {delay} values, tau / h, got the shape {past.shape}"
        )
    x = [*past.ravel().tolist(), x0]
    for late in range(steps - 1):
        try:
            grows = a * x[late] / (1 + math.pow(x[late], n))
        except (ArithmeticError, ValueError):
            grows = math.nan
        x.append(_next(functools.partial(_decay, grows, b), x[-1], h))
    return _shaped(x[delay:])


def lorenz(
    steps: int,
    h: float = 0.03,
    start: Sequence[float] = (1.0, 1.0, 1.0),
    sigma: float = 10.0,
    rho: float = 28.0,
    beta: float = 8 / 3,
    substeps: int = 10,
) -> np.ndarray:
    """The system of Lorenz (1963).

    ``x' = sigma (y - x)``, ``y' = x (rho - z) - y``, ``z' = x y - beta z``, by the
    method of Runge and Kutta of order 4.

    Args:
        steps: Number of steps.
        h: Time between two steps.
        start: The first x, y and z.
        sigma: See above.
        rho: See above.
        beta: See above.
        substeps: Number of steps of the method between two of the result.

    Returns:
        An array (T, 1, 3).
    """
    h = checked_positive(h, "h") / checked_integer(substeps, "substeps", 1)

    def slope(state: np.ndarray) -> np.ndarray:
        x, y, z = state.tolist()
        return np.array([sigma * (y - x), x * (rho - z) - y, x * y - beta * z])

    def step(state: np.ndarray) -> np.ndarray:
        for _ in range(substeps):
            state = _next(slope, state, h)
        return state

    return _iterated(step, _start(start, 3), steps)


def henon(
    steps: int, a: float = 1.4, b: float = 0.3, start: Sequence[float] = (0.0, 0.0)
) -> np.ndarray:
    """The map of Hénon (1976): ``x[t+1] = 1 - a x[t]^2 + y[t]``, ``y[t+1] = b x[t]``.

    Args:
        steps: Number of steps.
        a: See above.
        b: See above.
        start: The first x and y.

    Returns:
        An array (T, 1, 2).
    """
    return _iterated(
        lambda s: np.array([1 - a * s[0] ** 2 + s[1], b * s[0]]),
        _start(start, 2),
        steps,
    )


def logistic(steps: int, r: float = 3.9, x0: float = 0.5) -> np.ndarray:
    """The logistic map, ``x[t+1] = r x[t] (1 - x[t])``.

    Args:
        steps: Number of steps.
        r: See above; chaotic for most values above 3.57.
        x0: The first value.

    Returns:
        An array (T, 1, 1).
    """
    return _iterated(lambda x: r * x * (1 - x), checked_number(x0, "x0"), steps)


def narma(
    steps: int, order: int = 10, u: Any = None, seed: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """A task for memory: nonlinear autoregressive moving average (Atiya, Parlos 2000).

    ``y[t+1] = 0.2 y[t] + 0.04 y[t] (y[t-order] + ... + y[t-1])
    + 1.5 u[t-order] u[t] + 0.001``, which is 0 at first.

    Args:
        steps: Number of steps T.
        order: How far it looks back.
        u: The inputs, T + order of them. Default: uniform over [0, 0.5).
        seed: Seed of the inputs. By default it comes from `global_rnd`.

    Returns:
        Inputs ``u[t]`` and targets ``y[t+1]`` for t from `order` on, each (T, 1, 1).
    """
    steps = checked_integer(steps, "steps", 1)
    order = checked_integer(order, "order", 1)
    if u is None:
        u = global_rnd.create_random_state(seed).uniform(0, 0.5, steps + order)
    u = checked_array(u, "u")
    if u.size != steps + order:
        raise ValidationError(
            f"u: expected {steps + order} values, steps + order, got the shape"
            f" {u.shape}"
        )
    u, y = u.ravel(), np.zeros(steps + order + 1)
    for t in range(order, steps + order):
        memory = y[t] * y[t - order : t].sum()
        y[t + 1] = 0.2 * y[t] + 0.04 * memory + 1.5 * u[t - order] * u[t] + 0.001
    return _shaped(u[order:]), _shaped(y[order + 1 :])


def mso(steps: int, freqs: Sequence[float] = (0.2, 0.311)) -> np.ndarray:
    """Multiple superimposed oscillators: a sum of ``sin(f t)``, scaled to [-1, 1].

    Args:
        steps: Number of steps.
        freqs: The f.

    Returns:
        An array (T, 1, 1).
    """
    t = np.arange(checked_integer(steps, "steps", 2))
    rates = checked_array(freqs, "freqs")
    if not np.any(rates):
        raise ValidationError(f"freqs: expected one above 0 at least, got {rates}")
    x = np.sin(np.outer(t, rates)).sum(axis=1)
    return _shaped(2 * (x - x.min()) / np.ptp(x) - 1)


def _decay(gain: float, rate: float, now: Any) -> Any:
    return gain - rate * now


def _next(slope: Callable[[State], State], x: State, h: float) -> State:
    """One step of the method of Runge and Kutta."""
    k1 = slope(x)
    k2 = slope(x + h / 2 * k1)
    k3 = slope(x + h / 2 * k2)
    k4 = slope(x + h * k3)
    return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def _iterated(step: Callable[[State], State], x: State, steps: int) -> np.ndarray:
    states = [x]
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(checked_integer(steps, "steps", 1) - 1):
            states.append(x := step(x))
    return _shaped(states)


def _start(values: Any, size: int) -> np.ndarray:
    start = checked_array(values, "start")
    if start.shape != (size,):
        raise ValidationError(f"start: expected {size} numbers, got {values!r}")
    return start


def _shaped(values: Any) -> np.ndarray:
    series = np.asarray(values).reshape(len(values), 1, -1)
    finite = np.isfinite(series).all(axis=(1, 2))
    if not finite.all():
        raise ValidationError(
            f"with these arguments the series runs away: step {finite.argmin()} is not"
            " finite"
        )
    return series

"""Fitting a linear layer to what reaches it, without backpropagation."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from brainstorm.checks import checked_integer, checked_number
from brainstorm.training.advice import is_blank
from brainstorm.training.readout_data import Readout, rows_to_fit
from brainstorm.utils import ValidationError

if TYPE_CHECKING:
    from brainstorm.structure.network import Network

__all__ = ["RidgeFit", "fit_ridge"]

# Rows of states that are turned into float64 at once.
_ROWS = 4096


class RidgeFit(float):
    """The error of a fit: the root of the mean squared error, by the targets' std.

    Attributes:
        ridge (float): The ridge that was taken.
        validation_errors (dict[float, float]): Likewise, the errors of the ridges to
            choose from on the validation data.
    """

    ridge: float
    validation_errors: dict[float, float]


def fit_ridge(
    net: Network,
    x: Any,
    y: Any = None,
    layer: str | None = None,
    ridge: float | Sequence[float] = 1e-6,
    warmup: int = 0,
    penalize_bias: bool = False,
    mask: Any = None,
    batch_size: int = 100,
    validation: Any = None,
    teacher_forcing: bool = False,
    arguments: Mapping[str, Any] | None = None,
) -> RidgeFit:
    """Fit a linear layer by ridge regression, as the readout of a reservoir.

    Minimizes ``|targets - W h - bias|^2 + ridge |W|^2`` over all steps, where h are the
    inputs of the layer: exact, in one pass over the data, by sums in float64 whatever
    the handler. Nothing else in the network changes.

    >>> from brainstorm import Network, layers
    >>> from brainstorm.training import fit_ridge
    >>> inp = layers.Input({'default': ('T', 'B', 1)})
    >>> net = Network.from_layer(inp >> layers.FullyConnected(1, 'linear', name='Out'))
    >>> x = np.arange(10.0).reshape(10, 1, 1)
    >>> error = fit_ridge(net, x, 3 * x + 2)
    >>> net.get('Out.parameters.W').round(3).tolist()
    [[3.0]]

    Args:
        net: The network. If nobody has initialized it, it is, by
            ``net.initialize('auto')``.
        x: Inputs of the shape (T, B, ...), or (B, ...) for one time step: an array, or
            a dict of these by name, which may hold the targets and the mask. Or a data
            iterator; where its batches continue each other, as those of
            `Subsequences`, so does the network's state.
        y: Targets, likewise. Default: the item ``'targets'``, or the only one that the
            output does not depend on.
        layer: Name of a `FullyConnected` layer with linear activation. Default: the one
            that the network's output comes from.
        ridge: Strength of the penalty, at least 0; of several, the one is taken that is
            best on the validation data.
        warmup: Number of steps at the start of each sequence that are left out.
        penalize_bias: Whether the bias is penalized like the weights.
        mask: (T, B) or (T, B, 1), 0 for steps that do not count; or the name of that
            item. Default: the item ``'mask'``, if there is one.
        batch_size: How many sequences of arrays to run at once.
        validation: Further data, to choose from several ridges by: an iterator, a dict,
            or a tuple of inputs and targets.
        teacher_forcing: Whether to feed back the targets of the step before, zeros at
            first, wherever the layer feeds its output back.
        arguments: For layers that read arguments, see `Network.forward_pass`.

    Returns:
        The error on the training data, with the ridge that was taken. NaN if the
        targets are constant.

    Raises:
        ValidationError: The layer can not be fitted, the data does not fit, its
            sequences are no longer than the warm-up, or the states do not determine the
            weights and `ridge` is 0.
    """
    ridges = _checked_ridges(ridge, validation)
    if isinstance(validation, tuple) and len(validation) != 2:
        raise ValidationError(
            "validation: expected an iterator, a dict or a tuple of inputs and targets,"
            f" got a tuple of {len(validation)}"
        )
    warmup = checked_integer(warmup, "warmup", 0)
    batch_size = checked_integer(batch_size, "batch_size", 1)
    readout = Readout.find(net, layer)
    rows = functools.partial(
        rows_to_fit, readout, batch_size, warmup, teacher_forcing, arguments
    )
    if is_blank(net):
        net.initialize("auto")
    with net.lock:
        net.start_weight_modifiers()
        sums = Sums()
        for h, targets in rows(x, y, mask):
            sums.add(h, targets)
        bias = ("penalized" if penalize_bias else "free") if readout.fits_bias else None
        fits = _solve(sums, ridges, bias, readout.name)
        errors = {}
        if validation is not None:
            x, y = validation if isinstance(validation, tuple) else (validation, None)
            mask = mask if isinstance(mask, str) else None
            errors = _errors(fits, rows(x, y, mask))
        best = min(fits, key=lambda fit: errors.get(fit.ridge, 0.0))
        readout.set(best.W, best.bias)
        net.apply_weight_modifiers()
    fitted = RidgeFit(best.error)
    fitted.ridge, fitted.validation_errors = best.ridge, errors
    return fitted


def _checked_ridges(ridge: Any, validation: Any) -> list[float]:
    if isinstance(ridge, np.ndarray):
        ridge = ridge.tolist()
    several = isinstance(ridge, Sequence) and not isinstance(ridge, str)
    ridges = [checked_number(r, "ridge", 0) for r in (ridge if several else [ridge])]
    ridges = list(dict.fromkeys(ridges))
    if not ridges or (len(ridges) > 1 and validation is None):
        raise ValidationError(
            "ridge: expected one number, or several and validation data to choose one"
            f" by; got {ridge!r}"
        )
    return ridges


# -- solving -----------------------------------------------------------------


class _Fit(NamedTuple):
    ridge: float
    W: np.ndarray
    bias: np.ndarray
    error: float


class Sums:
    """Sums over rows z of states and targets, side by side, and of their products.

    They are taken about a point near the mean, so that they keep their digits.
    """

    count: int
    nr_states: int

    def __init__(self) -> None:
        self.count = self.nr_states = 0

    def add(self, h: np.ndarray, targets: np.ndarray) -> None:
        """Add rows (N, n) and (N, k)."""
        for start in range(0, len(h), _ROWS):
            part = slice(start, start + _ROWS)
            z = np.concatenate([h[part], targets[part]], axis=1, dtype=np.float64)
            if not np.isfinite(z).all():
                raise ValidationError("there are states or targets that are not finite")
            if not self.count:
                self.nr_states = h.shape[1]
                self._origin = z.mean(axis=0)
                self._sum = np.zeros(z.shape[1])
                self._products: Any = 0.0
            z -= self._origin
            self._sum += z.sum(axis=0)
            self._products += z.T @ z
            self.count += len(z)

    def mean(self) -> np.ndarray:
        """The mean of z."""
        return self._origin + self._sum / self.count

    def products(self, bias: str | None = "free") -> np.ndarray:
        """Sums of z z'; about the mean, or with a one before z, or as they are."""
        centred = self._products - np.outer(self._sum, self._sum) / self.count
        if bias == "free":
            return centred
        mean = self.mean()
        products = centred + self.count * np.outer(mean, mean)
        if bias is None:
            return products
        ones = self.count * mean
        return np.block([[self.count, ones], [ones[:, np.newaxis], products]])


def _solve(
    sums: Sums, ridges: Sequence[float], bias: str | None, name: str
) -> list[_Fit]:
    """The weights for each ridge, with their errors."""
    if not sums.count:
        raise ValidationError(f"there is no step to fit {name!r} to")
    products, n = sums.products(bias), sums.nr_states + (bias == "penalized")
    mean, A, C = sums.mean(), products[:n, :n], products[:n, n:]
    squares = np.trace(products[n:, n:])
    variation = np.trace(sums.products()[sums.nr_states :, sums.nr_states :])
    fits = []
    for ridge, W in zip(ridges, ridge_weights(A, C, ridges, name), strict=True):
        error = max(0.0, squares - np.sum(W * C) - ridge * np.sum(W * W))
        error = math.sqrt(error / variation) if variation else math.nan
        if bias == "penalized":
            b, W = W[0], W[1:]
        elif bias == "free":
            b = mean[n:] - mean[:n] @ W
        else:
            b = np.zeros(W.shape[1])
        fits.append(_Fit(ridge, W, b, error))
    return fits


def ridge_weights(
    A: np.ndarray, C: np.ndarray, ridges: Sequence[float], name: str
) -> list[np.ndarray]:
    """Solutions of ``(A + ridge I) W = C``."""
    rounding = len(A) * np.finfo(float).eps
    if len(ridges) == 1 and ridges[0] > rounding * np.trace(A):
        return [np.linalg.solve(A + ridges[0] * np.eye(len(A)), C)]
    values, vectors = np.linalg.eigh(A)
    determined = values > rounding * values[-1]
    if 0.0 in ridges and not determined.all():
        raise ValidationError(
            f"the sums over the states that reach {name!r} are singular: of their"
            f" {len(A)} directions only {determined.sum()} can be told apart. Give a"
            " ridge above 0, or more steps, or leave out states that others determine"
        )
    # In the others there is nothing but what rounding has left.
    values, vectors = values[determined, np.newaxis], vectors[:, determined]
    projected = vectors.T @ C
    return [vectors @ (projected / (values + ridge)) for ridge in ridges]


def _errors(
    fits: Sequence[_Fit], rows: Iterator[tuple[np.ndarray, np.ndarray]]
) -> dict[float, float]:
    """Errors of fits on other data, by their ridges."""
    sums, errors = Sums(), dict.fromkeys([fit.ridge for fit in fits], 0.0)
    for h, targets in rows:
        h = h.astype(np.float64)
        sums.add(h[:, :0], targets)
        for fit in fits:
            errors[fit.ridge] += np.sum((h @ fit.W + fit.bias - targets) ** 2)
    if not sums.count:
        raise ValidationError("validation: there is no step to choose a ridge by")
    variation = np.trace(sums.products()) or 1.0
    return {ridge: math.sqrt(e / variation) for ridge, e in errors.items()}

"""Data iterators that turn values of another one into spikes, ones among zeros.

Values go from 0 to 1. Each step of an item of shape ``(T, B, ...)`` becomes as many as
are asked for, so that static data, of one step, becomes sequences. While one iterates,
other values raise an IteratorValidationError.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from brainstorm.checks import Check, is_finite
from brainstorm.data_iterators.base import Batch, DataIterator
from brainstorm.data_iterators.changing import Transformer, float_type
from brainstorm.data_iterators.checks import FLAG, check_value, expect, whole
from brainstorm.handlers.base_handler import Handler
from brainstorm.literals import LatencyMethod

__all__ = ["DeltaEncoding", "LatencyEncoding", "PhaseEncoding", "RateEncoding"]

_METHOD = Check(lambda x: x in ("linear", "log"), "'linear' or 'log'")
_POSITIVE = Check(lambda x: is_finite(x) and x > 0, "a number > 0")


def _by_item(values: Any) -> Any:
    return values if isinstance(values, Mapping) else {"default": values}


class _Encoder(Transformer):
    """Base of the iterators that make several steps of one."""

    def __init__(self, iter: DataIterator, steps: int | Mapping[str, int]) -> None:
        super().__init__(iter, "steps", _by_item(steps), whole(1))
        self.steps: dict[str, Any] = self._values
        for name, number in self.steps.items():
            T, *rest = self.data_shapes[name]
            self.data_shapes[name] = (T * int(number), *rest)

    def _transform(self, name: str, array: np.ndarray, rnd: Any) -> np.ndarray:
        outside = array[~((array >= 0) & (array <= 1))]
        wrong = next(iter(outside), None)
        expect(not outside.size, f"data item {name!r}", "values from 0 to 1", wrong)
        steps = int(self.steps[name])
        spikes = self._encode(array[:, np.newaxis], steps, rnd)
        shape = (len(array) * steps, *array.shape[1:])
        return spikes.astype(float_type(array)).reshape(shape)

    def _encode(self, x: np.ndarray, steps: int, rnd: Any) -> np.ndarray:
        """The spikes (T, steps, B, ...) of values (T, 1, B, ...)."""
        raise NotImplementedError


class RateEncoding(_Encoder):
    """Spikes at random: in each step with the value as probability.

    >>> import numpy as np
    >>> from brainstorm import Undivided
    >>> images = Undivided(default=np.full((1, 2, 5), 0.3))
    >>> RateEncoding(images, 100).data_shapes
    {'default': (100, 2, 5)}

    Args:
        iter: The iterator to wrap.
        steps: How many steps each becomes, by item; a number is for ``'default'``.
    """

    def _encode(self, x: np.ndarray, steps: int, rnd: Any) -> np.ndarray:
        return rnd.random_sample((len(x), steps, *x.shape[2:])) < x


class LatencyEncoding(_Encoder):
    """One spike for each value, the sooner the larger it is.

    With method ``'linear'`` in the step ``(tau - 1) (1 - x)``, with ``'log'`` in
    ``(tau - 1) log(x / (x - threshold))``, rounded; counted from 0. Those that are due
    later than the last step are left out.

    Args:
        iter, steps: See :class:`RateEncoding`.
        method: ``'linear'`` or ``'log'``.
        tau: Time constant, in steps. Default: the number of steps.
        threshold: The value for which it never spikes with ``'log'``.
        normalize: Whether to scale the times of each batch so that the last spike comes
            in the last step.
    """

    draws = False

    def __init__(
        self,
        iter: DataIterator,
        steps: int | Mapping[str, int],
        method: LatencyMethod = "linear",
        tau: float | None = None,
        threshold: float = 0.01,
        normalize: bool = False,
    ) -> None:
        super().__init__(iter, steps)
        check_value("method", method, _METHOD)
        if tau is not None:
            check_value("tau", tau, _POSITIVE)
        check_value("threshold", threshold, _POSITIVE)
        check_value("normalize", normalize, FLAG)
        self.method = method
        self.tau = tau
        self.threshold = threshold
        self.normalize = normalize

    def _encode(self, x: np.ndarray, steps: int, rnd: Any) -> np.ndarray:
        if self.method == "linear":
            late = 1 - x
        else:
            x = np.maximum(x, self.threshold + 1e-7)
            late = np.log(x / (x - self.threshold))
        tau = steps if self.tau is None else self.tau
        times = (tau - 1) * late
        if self.normalize:
            times = late * ((steps - 1) / max(late.max(), 1e-300))
        place = (1, steps) + (1,) * (x.ndim - 2)
        return np.round(times) == np.arange(steps).reshape(place)


class PhaseEncoding(_Encoder):
    """Spikes with weights that halve in each step: the binary digits of the values.

    In step t, counted from 0, a spike has the weight ``2^-(t mod phases + 1)``. It is
    there where the value, scaled by ``1 - 2^-phases``, is at least that; what it weighs
    is subtracted.

    Args:
        iter, steps: See :class:`RateEncoding`.
        phases: Number of weights.
    """

    draws = False

    def __init__(
        self, iter: DataIterator, steps: int | Mapping[str, int], phases: int = 8
    ) -> None:
        super().__init__(iter, steps)
        check_value("phases", phases, whole(1))
        self.phases = phases

    def _encode(self, x: np.ndarray, steps: int, rnd: Any) -> np.ndarray:
        left = x * (1 - 2.0**-self.phases)
        spikes = []
        for t in range(steps):
            weight = 2.0 ** -(t % self.phases + 1)
            spikes.append(left >= weight)
            left = left - weight * spikes[-1]
        return np.concatenate(spikes, axis=1)


class DeltaEncoding(Transformer):
    """Spikes where a value has grown by a threshold since the step before.

    Values may be any. Where batches continue each other, as those of `Subsequences`,
    so do the differences.

    Args:
        iter: The iterator to wrap.
        threshold: What is enough of a change, by item; a number is for ``'default'``.
        off_spikes: Whether to give -1 where a value has shrunk by as much.
        padding: Whether the first step is compared with itself. Otherwise, with 0.
    """

    draws = False

    def __init__(
        self,
        iter: DataIterator,
        threshold: float | Mapping[str, float],
        off_spikes: bool = False,
        padding: bool = False,
    ) -> None:
        super().__init__(iter, "threshold", _by_item(threshold), _POSITIVE)
        check_value("off_spikes", off_spikes, FLAG)
        check_value("padding", padding, FLAG)
        self.threshold: dict[str, Any] = self._values
        self.off_spikes = off_spikes
        self.padding = padding

    def __call__(self, handler: Handler | None = None) -> Iterator[Batch]:
        last: dict[str, np.ndarray] = {}
        for batch in self.iter(handler):
            if not self.iter.continues:
                last = {}
            changed = {n: self._spikes(n, batch[n], last) for n in self.threshold}
            last = {name: batch[name][-1:].copy() for name in self.threshold}
            yield {**batch, **changed}

    def _spikes(
        self, name: str, array: np.ndarray, last: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        first = array[:1] if self.padding else np.zeros_like(array[:1])
        dtype, threshold = float_type(array), self.threshold[name]
        values = np.concatenate([last.get(name, first), array]).astype(dtype)
        change = np.diff(values, axis=0)
        spikes = (change >= threshold).astype(dtype)
        if self.off_spikes:
            spikes -= change <= -threshold
        return spikes

"""What a page shows of an array: statistics, a histogram, and the values, packed.

All that a page shows is counted over the whole array. Of the values it has so many that
it stays small: of larger arrays every second, third, ... along the longest axes.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

BINS = 40
# What is smaller is stored as float32, what is larger in 255 levels.
EXACT = 2048
LEVELS = 254
NOT_FINITE = 255


def describe_array(
    array: np.ndarray, limit: int, along: Sequence[int] | None = None
) -> dict[str, Any]:
    """The contents of an array, as JSON has them.

    Args:
        array: Any numbers.
        limit: How many values there may be at most.
        along: Along which axes to leave out values, if that is enough.

    Returns:
        ``shape``; ``stats``: ``min``, ``mean``, ``max``, ``std`` of those numbers that
        are finite, and ``not_finite``, how many are not; ``histogram``: ``low`` and
        ``high`` ends and ``counts`` of bins of equal width; ``steps``: of which every
        how many-th value along each axis is kept; ``kept``: the shape of these; and
        they themselves as ``data``, see `unpack`.
    """
    values = np.asarray(array)
    is_finite = np.isfinite(values)
    finite = values.ravel() if is_finite.all() else values[is_finite]
    steps = thinned(values.shape, limit, along)
    kept = values[tuple(slice(None, None, step) for step in steps)]
    return {
        "shape": list(values.shape),
        "stats": _statistics(finite, values.size),
        "histogram": _histogram(finite),
        "steps": steps,
        "kept": list(kept.shape),
        **(_pack(kept) if limit else {}),
    }


def unpack(contents: Mapping[str, Any]) -> np.ndarray:
    """The values that were kept: what the page makes of them."""
    raw = base64.b64decode(contents["data"])
    if contents["exact"]:
        return np.frombuffer(raw, "<f4").reshape(contents["kept"])
    levels = np.frombuffer(raw, np.uint8).reshape(contents["kept"])
    low, high = contents["low"], contents["high"]
    values = low + levels / LEVELS * (high - low)
    return np.where(levels == NOT_FINITE, np.nan, values)


def thinned(
    shape: tuple[int, ...], limit: int, along: Sequence[int] | None = None
) -> list[int]:
    """Steps along the axes, so that at most `limit` values are left (1 at least)."""
    most = max(limit, 1)
    axes = range(len(shape)) if along is None else along
    if math.prod(n for i, n in enumerate(shape) if i not in axes) > most:
        axes = range(len(shape))
    steps, left = [1] * len(shape), list(shape)
    while math.prod(left) > most:
        axis = max(axes, key=left.__getitem__)
        next_longest = max((left[i] for i in axes if i != axis), default=1)
        goal = max(most * left[axis] // math.prod(left), next_longest, 1)
        steps[axis] = max(steps[axis] + 1, shape[axis] // goal)
        left[axis] = math.ceil(shape[axis] / steps[axis])
    return steps


def packed_size(shape: tuple[int, ...], limit: int) -> int:
    """How many letters the data of an array take."""
    steps = thinned(shape, limit)
    size = math.prod(math.ceil(n / s) for n, s in zip(shape, steps, strict=True))
    return 0 if not limit else 4 * (size * (4 if size <= EXACT else 1)) // 3 + 4


def plain_number(value: float) -> float | None:
    """A number as JSON has it: None where it is not finite; six digits."""
    return float(f"{float(value):.6g}") if math.isfinite(value) else None


@np.errstate(all="ignore")
def _statistics(finite: np.ndarray, size: int) -> dict[str, Any]:
    stats: dict[str, Any] = {"not_finite": size - finite.size}
    if finite.size:
        wide: dict[str, Any] = {"dtype": np.float64}
        for name, how in (("min", {}), ("mean", wide), ("max", {}), ("std", wide)):
            stats[name] = plain_number(getattr(finite, name)(**how))
    return stats


@np.errstate(all="ignore")
def _histogram(finite: np.ndarray) -> dict[str, Any] | None:
    if finite.size < 2 or not math.isfinite(np.ptp(finite)):
        return None
    if finite.min() == finite.max():
        value = plain_number(finite.min())
        return {"low": value, "high": value, "counts": [finite.size]}
    try:
        counts, edges = np.histogram(finite, min(BINS, max(5, finite.size)))
    except ValueError:  # the numbers are too near to each other for so many bins
        return None
    ends = {"low": float(edges[0]), "high": float(edges[-1])}
    return {**ends, "counts": counts.tolist()}


@np.errstate(all="ignore")
def _pack(kept: np.ndarray) -> dict[str, Any]:
    """Values as float32, or in levels between the lowest and the highest one."""
    kept = kept.astype(np.float64)
    finite = kept[np.isfinite(kept)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    exact = kept.size <= EXACT
    if exact:
        raw = np.ascontiguousarray(kept, "<f4")
    else:
        span = high - low
        scaled = (kept - low) / span if 0 < span < np.inf else np.zeros(kept.shape)
        levels = np.rint(np.nan_to_num(scaled) * LEVELS)
        raw = np.where(np.isfinite(kept), levels, NOT_FINITE).astype(np.uint8)
    data = base64.b64encode(raw.tobytes()).decode()
    return {"low": float(low), "high": float(high), "exact": exact, "data": data}

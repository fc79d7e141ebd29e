"""At which steps of their sequences the steps of a pass are."""

from typing import Any

import numpy as np

# A slot of the handler's temporaries that operations leave alone.
INDICES = 23


def steps_of(handler: Any, buffers: Any) -> Any:
    """A column of the numbers 1, 2, ..., T, made once for each size."""
    found = buffers.__dict__.get("_steps")
    if found is None:
        numbers = np.arange(1.0, len(buffers.inputs.default) + 1).reshape(-1, 1)
        found = buffers.__dict__["_steps"] = handler.create_from_numpy(numbers)
    return found


def count(handler: Any, buffers: Any) -> None:
    """Fill the internal ``counted``, going on from its row -1 if it has a context."""
    counted, (steps, batch) = buffers.internals.counted, _sizes(buffers)
    rows = counted[:steps].reshape((steps, batch))
    if len(counted) > steps:
        handler.broadcast_t(counted[-1].reshape((1, batch)), 0, rows)
    else:
        handler.fill(rows, 0.0)
    handler.add_mv(rows, steps_of(handler, buffers), rows)


def indices(handler: Any, buffers: Any) -> Any:
    """The positions (T B, 1), from 0 on, in temporary memory."""
    steps, batch = _sizes(buffers)
    found = handler.scratch((steps * batch, 1), INDICES)
    counted = buffers.internals.counted[:steps]
    handler.add_st(-1.0, counted.reshape((steps * batch, 1)), found)
    return found


def angles(positions: int, frequencies: int) -> np.ndarray:
    """Of each position and frequency the angle that it has come to.

    Frequencies fall from 1 per step to nearly 1 / 10,000, as a geometric sequence.
    """
    exponents = np.arange(frequencies) / max(frequencies, 1)
    return np.arange(positions).reshape(-1, 1) * 10000.0**-exponents


def _sizes(buffers: Any) -> tuple[int, int]:
    steps, batch = buffers.inputs.default.shape[:2]
    return steps, batch

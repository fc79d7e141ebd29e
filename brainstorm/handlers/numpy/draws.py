"""Random numbers that depend on their places alone, drawn with NumPy.

An array is drawn in blocks, each from a part of its own of the sequence of Philox
4x64-10: Salmon et al., *Parallel random numbers: as easy as 1, 2, 3*, 2011. That
generator can begin anywhere, so blocks may be drawn in any order and by any threads.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from brainstorm.handlers.operations.memory import Randomness

# The numbers depend on it.
BLOCK = 16384
"""Number of elements of a block; the last one may have fewer."""

# In pieces of so many words what NumPy allocates is too little to matter.
_WORDS = 256


class Stream(threading.local):
    """The random numbers of one block after the other, for each thread its own."""

    def __init__(self) -> None:
        self._bits = np.random.Philox(0)
        self._generator = np.random.Generator(self._bits)
        self._state: Any = self._bits.state
        self._key: np.ndarray = self._state["state"]["key"]
        self._counter: np.ndarray = self._state["state"]["counter"]
        self._key[:] = self._counter[:] = 0
        self._words = np.empty(BLOCK // 8, np.uint64)
        self._bytes = self._words.view(np.uint8)
        self._equal = np.empty(BLOCK, np.bool_)

    def begin(self, randomness: Randomness, block: int) -> Stream:
        """Go where the numbers of a block begin, and return this."""
        counter = self._counter
        self._key[0], counter[2] = randomness
        counter[1] = block
        self._bits.state = self._state
        return self

    def choose(self, probability: float, chosen: np.ndarray) -> None:
        """Let each of the booleans of a block be true with a probability.

        A byte decides, unless it is the one in 256 into which the probability falls:
        then 53 more bits do.
        """
        count = chosen.size
        drawn = self._draw_bytes(count)
        limit = min(int(probability * 256), 255)
        np.less(drawn, limit, chosen)
        rest = probability * 256 - limit
        if rest:
            undecided = np.equal(drawn, limit, self._equal[:count]).nonzero()[0]
            if len(undecided):
                chosen[undecided] = self._generator.random(len(undecided)) < rest

    def _draw_bytes(self, count: int) -> np.ndarray:
        words = -(-count // 8)
        if words <= _WORDS:
            return self._bits.random_raw(words).view(np.uint8)[:count]
        for start in range(0, words, _WORDS):
            stop = min(start + _WORDS, words)
            self._words[start:stop] = self._bits.random_raw(stop - start)
        return self._bytes[:count]

    def normal(self, out: np.ndarray) -> None:
        """Fill a block with values from the standard normal distribution."""
        self._generator.standard_normal(out=out, dtype=out.dtype)


class OldStream:
    """The random numbers of trainings that began with 0.6.0.dev, and go on: SFC64.

    All depend on those before, so blocks have to be drawn in their order.

    Args:
        state: The state of the generator.
        dtype: Type of the numbers that are drawn.
    """

    def __init__(self, state: dict[str, Any], dtype: Any):
        self._dtype = dtype
        words = np.array(state["state"]["state"], np.uint64)
        if words.shape != (4,):
            raise ValueError(f"expected 4 words, got {words.shape}")
        self._generator = np.random.Generator(np.random.SFC64(0))
        self._generator.bit_generator.state = {**state, "state": {"state": words}}

    def following(self) -> OldStream:
        """That of the next operation."""
        return self

    def state(self) -> dict[str, Any]:
        """The state of the generator, as a JSON-serializable dict."""
        state: Any = self._generator.bit_generator.state
        return {**state, "state": {"state": state["state"]["state"].tolist()}}

    def begin(self, block: int) -> OldStream:
        """Go on, whichever block it is."""
        return self

    def choose(self, probability: float, chosen: np.ndarray) -> None:
        """As that of `Stream`."""
        drawn = self._generator.random(chosen.shape, self._dtype)
        np.less(drawn, probability, chosen)

    def normal(self, out: np.ndarray) -> None:
        """As that of `Stream`."""
        self._generator.standard_normal(out=out, dtype=out.dtype)

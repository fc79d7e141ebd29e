"""Counting the operations that draw random numbers."""

# Methods are documented in Handler.
# ruff: noqa: D102

from __future__ import annotations

import threading
from typing import Any

from brainstorm.handlers.base_handler import Handler
from brainstorm.handlers.operations.memory import Randomness


class CountedDraws(Handler):
    """Base class of handlers that count the operations that draw random numbers."""

    def __init__(self, seed: int | None = None):
        super().__init__(seed)
        self._randomness: Any = Randomness()
        self._random_origin: Any = None
        self._drawing = threading.Lock()

    def _seeded(self) -> Any:
        """Random numbers for the next operation, of which `rnd` gave the seed."""
        rnd = self.rnd
        origin = (rnd, rnd.generation)
        if self._random_origin != origin:
            self._random_origin = origin
            self._randomness = Randomness(rnd.generate_seed(), 0)
        return self._randomness

    def _draw(self) -> Any:
        """Random numbers that no other operation gets."""
        with self._drawing:
            drawn = self._seeded()
            self._randomness = drawn.following()
            return drawn

    def get_random_state(self) -> dict[str, Any]:
        with self._drawing:
            generator = self._seeded().state()
        return {**super().get_random_state(), "generator": generator}

    def _apply_random_state(self, state: dict[str, Any]) -> None:
        randomness = self._randomness_of(state["generator"])
        with self._drawing:
            self._seeded()  # so it counts for `rnd` as it is
            self._randomness = randomness
        super()._apply_random_state(state)

    def _randomness_of(self, state: dict[str, Any]) -> Any:
        return Randomness.of_state(state)

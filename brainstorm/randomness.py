"""Random states that remember their seed, and the one that all others come from."""

from __future__ import annotations

import functools
import operator
import secrets
from typing import Any, ClassVar

import numpy as np

from brainstorm.describable import Describable
from brainstorm.utils import ValidationError

__all__ = ["RandomState", "Seedable", "global_rnd"]


class RandomState(np.random.RandomState):
    """A :class:`numpy.random.RandomState` that knows its seed.

    NumPy has frozen the streams of this generator: the same seed gives the
    same numbers with every version. Instances can be copied and pickled, and
    a copy continues where the original stood.

    Single draws are safe to make from several threads, but who gets which
    number is then a matter of chance. Give each thread its own state with
    :meth:`create_random_state`.

    Args:
        seed: An integer in [0, 2**32). None draws one from :data:`global_rnd`.

    Raises:
        ValidationError: The seed is not such an integer.
    """

    SEED_LIMIT = 10**9
    """Generated seeds are below this."""

    def __init__(self, seed: int | None = None):
        self._seed = self._checked_seed(seed)
        self._generation = 0
        super().__init__(self._seed)

    @property
    def generation(self) -> int:
        """How often this state was seeded anew since it was made.

        Whoever derived a random state from this one can tell from a changed
        number that it is time to derive it again.
        """
        return self._generation

    def get_seed(self) -> int:
        """The seed that this state was last set to."""
        return self._seed

    def set_seed(self, seed: int | None) -> None:
        """Start again from the given seed.

        None draws one from :data:`global_rnd`, which for itself takes one from the
        operating system.
        """
        self._seed = self._checked_seed(seed)
        self.reset()

    def seed(self, seed: Any = None) -> None:
        """The same as :meth:`set_seed`, under NumPy's name."""
        self.set_seed(seed)

    def reset(self) -> None:
        """Start again from the current seed."""
        super().seed(self._seed)
        self._generation += 1

    def generate_seed(self) -> int:
        """Draw a seed for another random state."""
        return int(self.randint(0, self.SEED_LIMIT))

    def create_random_state(self, seed: int | None = None) -> RandomState:
        """A new random state, seeded from this one unless a seed is given."""
        return RandomState(self.generate_seed() if seed is None else seed)

    def __reduce__(self) -> tuple[Any, ...]:
        return RandomState, (self._seed,), (self._generation, self.get_state())

    def __setstate__(self, state: Any) -> None:
        self._generation, numpy_state = state
        self.set_state(numpy_state)

    def _checked_seed(self, seed: int | None) -> int:
        if seed is None:
            return _system_seed() if self is global_rnd else global_rnd.generate_seed()
        try:
            number = operator.index(seed)
        except TypeError:
            number = -1
        if not 0 <= number < 2**32:
            raise ValidationError(f"a seed is an integer in [0, 2**32), not {seed!r}")
        return number


def _system_seed() -> int:
    return secrets.randbelow(RandomState.SEED_LIMIT)


global_rnd: RandomState = RandomState(_system_seed())
"""The random state from which all others in brainstorm are seeded.

After ``global_rnd.set_seed(s)`` everything random that follows is determined.
"""


class Seedable(Describable):
    """Base class of what draws random numbers: all of them from ``self.rnd``.

    Where ``super().__init__()`` is not called, ``self.rnd`` is made when first used.

    Args:
        seed: Seed of ``self.rnd``; None takes one from `global_rnd`.
    """

    __undescribed__: ClassVar[set[str] | dict[str, Any]] = {"rnd"}

    def __init__(self, seed: int | None = None) -> None:
        self.rnd = global_rnd.create_random_state(seed)

    @functools.cached_property
    def rnd(self) -> RandomState:
        """The random state of this object."""
        return global_rnd.create_random_state()

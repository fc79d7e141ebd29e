"""The base class of initializers, and what they are evaluated by."""

from __future__ import annotations

from typing import Any

import numpy as np

from brainstorm.checks import checked_array
from brainstorm.randomness import RandomState, Seedable
from brainstorm.utils import InitializationError

__all__ = ["Initializer", "evaluate_initializer"]

Shape = tuple[int, ...]


class Initializer(Seedable):
    """Base class of all initializers.

    Subclasses call ``super().__init__()``, take all random numbers from
    ``self.rnd``, and raise :class:`~brainstorm.utils.InitializationError` for
    shapes that they can not fill.

    Args:
        seed: Seed of ``self.rnd``; None takes one from `global_rnd`. A network seeds
            it anew.
    """

    def set_seed(self, seed: int) -> None:
        """Seed this initializer and, each differently, those that it contains."""
        self.rnd.set_seed(seed)
        seeds = RandomState(seed)
        for member in vars(self).values():
            if isinstance(member, Initializer):
                member.set_seed(seeds.generate_seed())

    def __call__(self, shape: Shape) -> np.ndarray:
        """Make the initial values.

        Args:
            shape: The shape of the parameter.

        Returns:
            A new float64 array of that shape.

        Raises:
            InitializationError: The shape is not one that this can fill.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement __call__")

    def _assert_atleast2d(self, shape: Shape) -> None:
        self._require(len(shape) >= 2, "at least two dimensions", shape)

    def _require_square(self, shape: Shape) -> None:
        square = len(shape) == 2 and shape[0] == shape[1]
        self._require(square, "a square matrix", shape)

    def _require(self, condition: bool, need: str, shape: Shape) -> None:
        if not condition:
            raise InitializationError(
                f"{type(self).__name__} needs {need}, but the shape is {tuple(shape)}"
            )


def evaluate_initializer(
    initializer: Any, shape: Shape, fallback: Any = None, seed: int | None = None
) -> np.ndarray:
    """Make initial values of a given shape.

    >>> evaluate_initializer(0.5, (2, 2)).tolist()
    [[0.5, 0.5], [0.5, 0.5]]

    Args:
        initializer: An :class:`Initializer`, a function ``shape -> array``, a
            number that fills the array, or an array or nested list of exactly
            that shape.
        shape: The shape to fill.
        fallback: To be used where `initializer` raises InitializationError.
        seed: Seed for the initializer or the fallback. None lets them continue
            their own random numbers.

    Returns:
        A new float64 array of that shape.

    Raises:
        InitializationError: Such values can not be made, also not by `fallback`.
        ValidationError: The values are not real numbers.
    """
    shape = tuple(shape)
    if seed is not None and isinstance(initializer, Initializer):
        initializer.set_seed(seed)
    try:
        return _evaluate(initializer, shape)
    except InitializationError:
        if fallback is None:
            raise
        return evaluate_initializer(fallback, shape, seed=seed)


def _evaluate(initializer: Any, shape: Shape) -> np.ndarray:
    made = initializer(shape) if callable(initializer) else initializer
    name = getattr(initializer, "__name__", type(initializer).__name__)
    values = checked_array(made, f"the initial value from {name!r}")
    if values.ndim == 0:
        return np.full(shape, values)
    if values.shape != shape:
        raise InitializationError(
            f"expected initial values of shape {shape}, but {name!r} gives"
            f" {values.shape}"
        )
    return values


def checked_source(source: Any, what: str) -> Any:
    """A part of an initializer, unless it is neither a function nor an array."""
    if not callable(source):
        checked_array(source, what)
    return source

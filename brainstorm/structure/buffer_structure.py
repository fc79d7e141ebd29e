"""Shapes of buffers that scale with the batch, and templates to match them."""

from __future__ import annotations

import math
import numbers
from typing import Any

from brainstorm.utils import StructureValidationError

__all__ = ["BufferStructure", "StructureTemplate"]


class _Shape:
    """What structures and templates have in common."""

    _wildcards: tuple[str, ...] = ()
    """Texts that may stand for feature sizes."""

    def __init__(
        self, shape: tuple[Any, ...], context_size: int, is_backward_only: bool
    ):
        names = [s for s in shape if isinstance(s, str) and s in ("T", "B")]
        self.buffer_type: int = len(names)
        if list(shape[: len(names)]) != names or names not in ([], ["B"], ["T", "B"]):
            raise StructureValidationError(
                "a shape starts with 'T', 'B' (time-sized), with 'B' (batch-sized) or"
                f" with neither (constant); got {shape}"
            )
        if len(shape) == self.buffer_type:
            raise StructureValidationError(f"the shape {shape} has no feature sizes")
        for size in shape[self.buffer_type :]:
            wildcard = isinstance(size, str) and size in self._wildcards
            if not (wildcard or _is_size(size)):
                expected = [*map(repr, self._wildcards), "positive integers"]
                raise StructureValidationError(
                    f"expected {' or '.join(expected)} as feature sizes of {shape},"
                    f" got {size!r}"
                )
        if not _is_size(context_size) and context_size != 0:
            raise StructureValidationError(
                f"expected context_size to be an integer >= 0, got {context_size!r}"
            )
        if context_size and self.buffer_type != 2:
            raise StructureValidationError(
                f"only time-sized buffers can have a context, not {shape}"
            )
        # Plain integers, not NumPy's, so that the shape goes into JSON.
        self.shape: tuple[Any, ...] = tuple(
            s if isinstance(s, str) else int(s) for s in shape
        )
        self.context_size: int = int(context_size)
        self.is_backward_only = is_backward_only

    @property
    def scales_with_time(self) -> bool:
        """Whether there is a ``'T'``."""
        return self.buffer_type == 2

    @property
    def scales_with_batch_size(self) -> bool:
        """Whether there is a ``'B'``."""
        return self.buffer_type > 0

    @property
    def first_feature_dim(self) -> int:
        """Index of the first dimension behind T and B."""
        return self.buffer_type

    @property
    def nr_dims(self) -> int:
        """Number of dimensions, with T and B."""
        return len(self.shape)

    @property
    def scaling_shape(self) -> tuple[str, ...]:
        """T and B, as far as there are such."""
        return self.shape[: self.buffer_type]

    @property
    def feature_shape(self) -> tuple[Any, ...]:
        """The shape without T and B."""
        return self.shape[self.buffer_type :]


class BufferStructure(_Shape):
    """The shape of a buffer whose time and batch size are not known yet.

    ``BufferStructure('T', 'B', 28, 28)`` has one 28 x 28 image for every time
    step of every sequence. Structures of the same shape are equal.

    Args:
        *shape: ``'T', 'B'`` or ``'B'`` or neither, then the feature sizes.
        context_size: Extra steps after the last one, for time buffers only.
            They are reached by negative indices and carry state from one
            forward pass to the next.
        is_backward_only: Whether only backward passes need this buffer.
        is_state: Whether the next forward pass needs the last steps, where there is a
            context: only then is it part of what `Network.get_context` returns.
            Otherwise the extra steps are zeros, and no forward pass may write there.

    Attributes:
        shape (tuple): The whole shape, e.g. ``('T', 'B', 28, 28)``.
        buffer_type (int): 0 constant, 1 batch-sized, 2 time-sized.

    Raises:
        StructureValidationError: The shape is malformed.
    """

    def __init__(
        self,
        *shape: str | int,
        context_size: int = 0,
        is_backward_only: bool = False,
        is_state: bool = True,
    ):
        super().__init__(shape, context_size, is_backward_only)
        self.is_state = is_state

    @property
    def feature_size(self) -> int:
        """Number of features."""
        return math.prod(self.feature_shape)

    def get_shape(self, time_size: int, batch_size: int) -> tuple[int, ...]:
        """The shape for given sizes, with the context's steps."""
        steps = time_size + self.context_size
        return leading_shape(self.buffer_type, steps, batch_size) + self.feature_shape

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BufferStructure) and self.shape == other.shape

    def __hash__(self) -> int:
        return hash(self.shape)

    def __repr__(self) -> str:
        extra = f", context_size={self.context_size}" if self.context_size else ""
        extra += ", is_backward_only=True" if self.is_backward_only else ""
        extra += "" if self.is_state else ", is_state=False"
        return f"BufferStructure({', '.join(map(repr, self.shape))}{extra})"


class StructureTemplate(_Shape):
    """A pattern for the structures that a layer accepts as an input.

    >>> StructureTemplate('T', 'B', 'F').matches(BufferStructure('T', 'B', 7))
    True
    >>> StructureTemplate('B', '...').matches(BufferStructure('T', 'B', 7))
    False

    Args:
        *shape: ``'T'`` and ``'B'`` stand for themselves, ``'F'`` for any one
            feature size, ``'...'`` (at the end) for any number of them.
            ``'...'`` alone matches every structure.
        context_size, is_backward_only: As of a `BufferStructure`. Whether a structure
            matches does not depend on them.

    Raises:
        StructureValidationError: The shape is malformed.
    """

    _wildcards = ("F", "...")

    def __init__(
        self, *shape: str | int, context_size: int = 0, is_backward_only: bool = False
    ):
        if shape.count("...") > 1 or "..." in shape[:-1]:
            raise StructureValidationError(f"'...' has to come last in {shape}")
        super().__init__(shape, context_size, is_backward_only)

    def matches(self, structure: BufferStructure) -> bool:
        """Whether `structure` fits this template."""
        if self.shape == ("...",):
            return True
        if structure.buffer_type != self.buffer_type:
            return False
        wanted = self.feature_shape
        given = structure.feature_shape
        if wanted and wanted[-1] == "...":
            wanted = wanted[:-1]
            given = given[: len(wanted)]
        return len(wanted) == len(given) and all(
            w in ("F", g) for w, g in zip(wanted, given, strict=True)
        )

    def __repr__(self) -> str:
        return f"({', '.join(map(str, self.shape))})"


def leading_shape(buffer_type: int, time_size: int, batch_size: int) -> tuple[int, ...]:
    """What comes before the features in a buffer of the given type."""
    return ((), (batch_size,), (time_size, batch_size))[buffer_type]


def _is_size(size: Any) -> bool:
    is_number = isinstance(size, numbers.Real) and not isinstance(size, bool)
    return is_number and size % 1 == 0 < size

"""The base class of data iterators."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from brainstorm.data_iterators.checks import brief
from brainstorm.describable import of_library
from brainstorm.handlers.base_handler import Handler
from brainstorm.randomness import Seedable
from brainstorm.utils import DescriptionError, IteratorValidationError, listing

__all__ = ["DataIterator"]

Batch = dict[str, np.ndarray]


class DataIterator(Seedable):
    """Base class for data iterators.

    Attributes:
        data_shapes: Shape ``(T, B, ...)`` of each data item by name, where T is the
            longest a batch can be and B counts all sequences.
        length: Number of batches, None if that is not known.

    Args:
        data_shapes: See above.
        length: See above.
    """

    draws = True
    """Whether there are random numbers in it, so that it has a state."""

    def __init__(
        self, data_shapes: Mapping[str, tuple[int, ...]], length: int | None
    ) -> None:
        super().__init__()  # All take a seed, as in version 0.5.
        if not self.draws and of_library(type(self)):
            del self.rnd
        self.data_shapes: dict[str, tuple[int, ...]] = dict(data_shapes)
        self.length = length

    @property
    def continues(self) -> bool | None:
        """Whether the batch yielded last goes on where the one before it stopped.

        None for iterators whose batches never do. One that wraps another as `iter`
        says what that says, unless it sets or overrides this.
        """
        wrapped = vars(self).get("iter")
        return vars(self).get("continues", getattr(wrapped, "continues", None))

    @continues.setter
    def continues(self, value: bool | None) -> None:
        vars(self)["continues"] = value

    def __call__(self, handler: Handler | None = None) -> Iterator[Batch]:
        """Iterate once over the data.

        Args:
            handler: The handler of the network that the data is for. The iterators
                of this module yield NumPy arrays whatever the handler.

        Yields:
            The data items of one batch by name, each of shape ``(T, B, ...)``.
        """
        raise NotImplementedError

    def __describe__(self) -> dict[str, Any]:
        if of_library(type(self)) and "data" in vars(self):
            raise DescriptionError(
                f"can not describe a {type(self).__name__}: descriptions hold no data"
            )
        return super().__describe__()

    def start_stream(self) -> np.random.RandomState:
        """A copy of the random state `rnd`, for one iteration to draw from.

        What an iteration yields then depends on nothing but the state in which it
        began, whatever goes over the same iterator meanwhile: only so can a training be
        resumed within an epoch. An iterator that draws for each batch begins its
        ``__call__`` with ``rnd = self.start_stream()``, draws from that, and assigns
        ``self.rnd = rnd``, from where the next iteration goes on.
        """
        return copy.deepcopy(self.rnd)

    def get_state(self) -> dict[str, Any]:
        """The state of the random numbers, for :meth:`set_state`.

        Iterations that begin in the same state yield the same batches in the same
        order. It consists of the states of all members that are random states or data
        iterators. An iterator with state of another kind overrides both methods.
        """
        return {name: member.get_state() for name, member in self._random_members()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`get_state` returned.

        Raises:
            IteratorValidationError: It is the state of another kind of iterator.
        """
        members = dict(self._random_members())
        if not isinstance(state, Mapping) or set(state) != set(members):
            raise IteratorValidationError(
                f"expected the state of a {type(self).__name__}, which consists of that"
                f" of {listing(sorted(members))}, got {brief(state)}"
            )
        for name, member in members.items():
            try:
                if isinstance(member, np.random.RandomState):
                    # The old one may be the stream of an iteration that goes on.
                    member = copy.deepcopy(member)
                    setattr(self, name, member)
                member.set_state(state[name])
            except IteratorValidationError:
                raise
            except (ArithmeticError, LookupError, TypeError, ValueError) as error:
                raise IteratorValidationError(
                    f"not a state of {name!r} of a {type(self).__name__}: {error}"
                ) from error

    def _random_members(self) -> list[tuple[str, Any]]:
        kinds = (np.random.RandomState, DataIterator)
        return [(n, m) for n, m in vars(self).items() if isinstance(m, kinds)]

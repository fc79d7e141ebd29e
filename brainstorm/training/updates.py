"""Running the updates of steppers, and replaying what was recorded of them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from brainstorm.handlers.base_handler import Handler
from brainstorm.handlers.programs import Program, Variable

_MOST_PROGRAMS = 20

Part = slice | tuple[slice, tuple[int, ...]]


class Updates:
    """Runs operations on trained parts of flat arrays, with numbers that may change.

    What they do is recorded when they first run, and replayed from then on, see
    :mod:`brainstorm.handlers.programs`.
    """

    def __init__(self) -> None:
        self._numbers: list[float] = []
        # With all that is known by its `id`, which is not that of something else then.
        self._met: dict[tuple[Any, ...], tuple[Program, Any]] = {}

    def __reduce__(self) -> tuple[type[Updates], tuple[()]]:
        """Copy and pickle as one that has recorded nothing yet."""
        return Updates, ()

    def run(
        self,
        handler: Handler,
        operation: str,
        arrays: tuple[Any, ...],
        parts: Sequence[Part],
        numbers: tuple[float, ...],
    ) -> None:
        """Run ``handler.operation(*arrays, *numbers)``.

        Args:
            handler: The handler.
            operation: Name of its operation.
            arrays: Flat arrays of one length.
            parts: The parts of the arrays to work on; each may have a shape, too.
            numbers: Its numbers. If one becomes zero, it may do something else.
        """
        identities = (*map(id, (handler, parts, *arrays)), *map(bool, numbers))
        key = (operation, handler.home(), *identities)
        self._numbers[:] = numbers
        met = self._met.get(key)
        if met is not None:
            met[0]()
            return
        program = Program()
        variables = [
            Variable(functools.partial(self._numbers.__getitem__, i)) if n else n
            for i, n in enumerate(numbers)
        ]
        handler.record(
            lambda h: self._run(h, operation, arrays, parts, variables), program
        )
        if len(self._met) >= _MOST_PROGRAMS:
            self._met.clear()
        self._met[key] = program, (handler, parts, arrays)

    @staticmethod
    def _run(
        handler: Handler,
        operation: str,
        arrays: tuple[Any, ...],
        parts: Sequence[Part],
        numbers: Sequence[Any],
    ) -> None:
        update = getattr(handler, operation)
        if len(parts) == 1 and parts[0] == slice(0, arrays[0].shape[0]):
            update(*arrays, *numbers)
            return
        for part in parts:
            update(*[_cut(array, part) for array in arrays], *numbers)


def _cut(array: Any, part: Part) -> Any:
    if isinstance(part, slice):
        return array[part]
    where, shape = part
    return array[where].reshape(shape)

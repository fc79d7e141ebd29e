"""Running the passes of a network, and replaying what was recorded of them.

A pass makes the same operations on the same memory each time, as long as sizes, handler
and layers stay as they are. So the leaf calls of a pass are recorded when it first
runs, and replayed from then on, see :mod:`brainstorm.handlers.programs`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn
from weakref import WeakMethod, WeakSet

from brainstorm.handlers.base_handler import Handler
from brainstorm.handlers.programs import Program
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.buffers import BufferManager
from brainstorm.structure.layer import Layer
from brainstorm.utils import HandlerError

# Leaf calls that may be recorded for other sizes, of about 500 bytes each.
_MOST_CALLS = 500_000
# For one size. There are that many where threads or sets of layers change.
_MOST_PROGRAMS = 50

Order = Iterable[tuple[Layer, BufferView]]


class Passes:
    """Runs the passes of a network.

    What is recorded is kept with what the manager has cut for a size.

    Attributes:
        changes: How often passes were going to do something else.
    """

    def __init__(self, layers: Mapping[str, Layer], manager: BufferManager):
        self._layers = layers
        self._manager = manager
        self._recorded: WeakSet[Program] = WeakSet()
        self.changes: int = 0
        forget = WeakMethod(self.forget)
        for layer in layers.values():
            layer.__dict__["_changed"] = forget

    def run(self, key: tuple[Any, ...], make: Callable[..., None]) -> None:
        """Run a pass.

        Args:
            key: The kind of the pass, and further arguments of `make`.
            make: Runs the pass: ``make(Pass, *arguments)``. It is not called where
                there is a record.
        """
        programs, handler = self._manager.sized.programs, self._manager.handler
        place = key, handler.home()
        program = programs.get(place)
        if program is None:
            self._run_first(key, make)
            return
        try:
            program()
        except HandlerError as error:
            self._raise_in_layer(program, error)

    def _raise_in_layer(self, program: Program, error: HandlerError) -> NoReturn:
        step = program.failed
        if step is None or step.layer not in self._layers:
            raise error
        raise in_layer(self._layers[step.layer], error) from error

    def _run_first(self, key: tuple[Any, ...], make: Callable[..., None]) -> None:
        sized, handler = self._manager.sized, self._manager.handler
        of_this_size = sum(map(len, sized.programs.values()))
        if sum(map(len, self._recorded)) - of_this_size > _MOST_CALLS:
            make(Pass(handler), *key[1:])
            return
        program = Program()
        handler.record(lambda h: make(Pass(h, program), *key[1:]), program)
        if len(sized.programs) >= _MOST_PROGRAMS:
            sized.programs.clear()
        sized.programs[key, handler.home()] = program
        self._recorded.add(program)

    def forget(self) -> None:
        """Forget all records, because passes are going to do something else."""
        self.changes += 1
        self._manager.forget_programs()


class Pass:
    """One run of a pass with a handler, or with its recorder into a program."""

    def __init__(self, handler: Handler, program: Program | None = None):
        self.handler = handler
        self._program = program

    def run(self, order: Order, name: str, *args: Any) -> None:
        """Call a method of layers with their buffers, one after the other."""
        for layer, buffers in order:
            try:
                if self._program is None:
                    getattr(layer, name)(buffers, *args)
                else:
                    self._record(layer, name, buffers, *args)
            except HandlerError as error:
                raise in_layer(layer, error) from error

    def call(self, name: str, function: Callable[..., None], *args: Any) -> None:
        """Call a function that is no operation, by its name in listings."""
        if self._program is None:
            function(*args)
        else:
            done = functools.partial(self._program.do, function)
            self._program.noted(name, done)(*args)

    def _record(self, layer: Layer, name: str, *args: Any) -> None:
        program, method = self._program, getattr(layer, name)
        assert program is not None
        program.layer = layer.name
        if layer.can_be_replayed() and name not in vars(layer):
            layer.set_handler(self.handler)
            try:
                method(*args)
            finally:
                layer.set_handler(self.handler.plain)
        else:
            program.noted(name, functools.partial(program.do, method))(*args)
        program.layer = ""


def in_layer(layer: Layer, error: HandlerError) -> HandlerError:
    """The same error, with the name of the layer."""
    return HandlerError(str(layer.error(str(error))))

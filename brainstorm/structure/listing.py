"""The operations of a step of a network, as a list to look at.

Recording a pass tells which operations it makes. Here a copy of the network records it,
without running what it records: so nothing changes, and sizes are all that it takes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from brainstorm.checks import checked_sizes
from brainstorm.handlers.base_handler import Handler
from brainstorm.handlers.programs import Program, Step
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.buffers import cut_features
from brainstorm.structure.layer import Layer
from brainstorm.structure.multiplications import count_multiplications
from brainstorm.structure.passes import Pass, Passes
from brainstorm.structure.tables import Table
from brainstorm.structure.twins import twin_of
from brainstorm.utils import ValidationError

__all__ = ["ListedOperation", "Operand", "ProgramListing", "list_program"]

SCRATCH = "scratch"


class Operand(NamedTuple):
    """An array that an operation works on.

    Attributes:
        name: Its name in the operation, such as ``'x'``.
        buffer: Path of the buffer that it is, or is a part of. Of several, the first
            and the last one with dots between. ``'scratch'`` for temporary memory.
        shape: Its shape, as the operation sees it.
    """

    name: str
    buffer: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.buffer} {self.shape}"


class ListedOperation(NamedTuple):
    """An operation of a pass.

    Attributes:
        pass_name: ``'forward'`` or ``'backward'``.
        layer: Name of the layer that calls it, or '' for the network itself.
        operation: Name of the operation of the handler. Of a layer whose operations
            can not be listed, because they depend on values, ``'forward_pass'`` or
            ``'backward_pass'``.
        arguments: The arrays that it works on.
        settings: Its other arguments by name, without those that are off.
        multiplications: Number of multiplications of its products and convolutions.
        leaf_calls: How many calls it consists of, of functions of NumPy, a library or
            a GPU. Where a handler does not record these, it is one call itself.
    """

    pass_name: str
    layer: str
    operation: str
    arguments: tuple[Operand, ...]
    settings: dict[str, Any]
    multiplications: int
    leaf_calls: int


class ProgramListing(list[ListedOperation]):
    """The operations of a step: a list, that shows as a table.

    Args:
        operations: The operations.
        title: What it is a list of.
    """

    def __init__(self, operations: Sequence[ListedOperation], title: str):
        super().__init__(operations)
        self.title = title

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return ProgramListing(found, self.title) if isinstance(index, slice) else found

    @property
    def multiplications(self) -> int:
        """Multiplications of all products and convolutions."""
        return sum(operation.multiplications for operation in self)

    @property
    def leaf_calls(self) -> int:
        """Leaf calls of all operations."""
        return sum(operation.leaf_calls for operation in self)

    def to_records(self) -> list[dict[str, Any]]:
        """The operations as dicts, of what JSON and data frames can hold."""
        return [
            {
                "pass": row.pass_name,
                "layer": row.layer,
                "operation": row.operation,
                "arguments": [
                    {"name": a.name, "buffer": a.buffer, "shape": list(a.shape)}
                    for a in row.arguments
                ],
                "settings": {name: _plain(v) for name, v in row.settings.items()},
                "multiplications": row.multiplications,
                "leaf_calls": row.leaf_calls,
            }
            for row in self
        ]

    def __str__(self) -> str:
        return f"{self.title}\n\n{self._table().as_text()}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The table, for notebooks."""
        return f"<p>{self.title}</p>\n{self._table().as_html()}"

    def _table(self) -> Table:
        title = ("Pass", "Layer", "Operation", "Argument", "Buffer", "Shape")
        rows: list[tuple[str, ...]] = [(*title, "Multiplications", "Calls")]
        last_pass = last_layer = ""
        for row in self:
            new_pass = row.pass_name != last_pass
            new_layer = new_pass or row.layer != last_layer
            last_pass, last_layer = row.pass_name, row.layer
            shapes = [" x ".join(map(str, a.shape)) or "1" for a in row.arguments]
            settings = [f"  {name}={value}" for name, value in row.settings.items()]
            rows.append(
                (
                    row.pass_name if new_pass else "",
                    row.layer if new_layer else "",
                    "\n".join([row.operation, *settings]),
                    "\n".join(a.name for a in row.arguments),
                    "\n".join(a.buffer for a in row.arguments),
                    "\n".join(shapes),
                    f"{row.multiplications:,}" if row.multiplications else "",
                    f"{row.leaf_calls:,}",
                )
            )
        sums = f"{self.multiplications:,}", f"{self.leaf_calls:,}"
        rows.append(("All", *[""] * 5, *sums))
        return Table(rows, 6)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value if isinstance(value, bool | int | float | str) else str(value)


def list_program(
    net: Any,
    training_pass: bool,
    time_size: int | None = None,
    batch_size: int | None = None,
) -> ProgramListing:
    """The operations of a step of a network, see `Network.program`.

    Raises:
        ValidationError: `training_pass` is neither True nor False, or a size is no
            positive integer.
        NetworkValidationError: A layer can not be copied.
    """
    if not isinstance(training_pass, bool | np.bool_):
        raise ValidationError(
            f"training_pass: expected True or False, got {training_pass!r}"
        )
    twin = twin_of(net, _Outlines)
    twin.backpropagation.may_share = False  # what lies in one place has several names
    twin._buffer_manager.resize(*checked_sizes(net, time_size, batch_size))
    twin.forward_pass(training_pass=bool(training_pass))
    if training_pass:
        twin.backward_pass(all_deltas=False)
    names = BufferNames(twin)
    operations = [
        operation
        for pass_name, program in twin._passes.outlines
        for operation in _listed(pass_name, program, names)
    ]
    kind = "A step of training" if training_pass else "A step of evaluation"
    steps, sequences = twin.time_size, twin.batch_size
    title = (
        f"{kind} with {steps} time step{'s' * (steps != 1)} of {sequences}"
        f" sequence{'s' * (sequences != 1)}, by {type(twin.handler).__name__}"
    )
    return ProgramListing(operations, title)


def _listed(
    pass_name: str, program: Program, names: BufferNames
) -> Iterator[ListedOperation]:
    for step, calls in zip(program.steps, program.calls_by_step(), strict=True):
        if calls:
            yield ListedOperation(
                pass_name,
                step.layer,
                step.operation,
                tuple(names.arguments(step)),
                {
                    name: value
                    for name, value in step.arguments.items()
                    if value is not None
                    and value is not False
                    and not any(True for _ in _arrays(name, value, names.array_type))
                    and value != ()
                },
                count_multiplications(step.operation, step.arguments),
                len(calls),
            )


def _arrays(name: str, value: Any, array_type: type) -> Iterator[tuple[str, Any]]:
    """The arrays in an argument, with names such as ``cells.Za`` and ``arrays[1]``."""
    if isinstance(value, array_type):
        yield name, value
    elif isinstance(value, BufferView):
        for key, child in BufferView.items(value):
            yield from _arrays(key, child, array_type)
    elif isinstance(value, tuple | list):
        fields = getattr(value, "_fields", None)
        for i, item in enumerate(value):
            label = f"{name}[{i}]" if fields is None else f"{name}.{fields[i]}"
            yield from _arrays(label, item, array_type)


class BufferNames:
    """Finds the names of the buffers that arrays lie in.

    Args:
        net: The network with the buffers.
    """

    def __init__(self, net: Any):
        self.array_type: type = net.handler.array_type
        self._overlap = net.handler.overlap
        self._by_layer: dict[str, list[tuple[str, Any]]] = {"": []}
        for name, child in BufferView.items(net.buffer):
            owner = name if isinstance(child, BufferView) else ""
            self._by_layer.setdefault(owner, []).extend(
                _paths(name, child, self.array_type)
            )
        manager = net._buffer_manager
        # Mirrors, and steps that a layer does not see.
        self._hidden = [
            (path, cut_features({"@slice": hub.slices[path]}, memory))
            for hub, memory in zip(manager.hubs, manager.hub_buffers, strict=True)
            if hub.context_size and memory is not None
            for path in hub.sources
        ]

    def arguments(self, step: Step) -> Iterator[Operand]:
        """The arrays among the arguments of a step."""
        for name, value in step.arguments.items():
            for label, array in _arrays(name, value, self.array_type):
                buffer = self.find(array, step.layer)
                yield Operand(label, buffer, tuple(map(int, array.shape)))

    def find(self, array: Any, layer: str = "") -> str:
        """Name the buffers that an array lies in.

        Args:
            array: The array.
            layer: Name of the layer whose names of it are preferred.
        """
        groups = [self._by_layer.get(layer, [])]
        groups += [group for name, group in self._by_layer.items() if name != layer]
        groups.append(self._hidden)
        for group in groups:
            shared = [
                (path, kind)
                for path, buffer in group
                if (kind := self._overlap(array, buffer)) != "none"
            ]
            if shared:
                return _joined(shared)
        return SCRATCH


def _paths(path: str, child: Any, array_type: type) -> Iterator[tuple[str, Any]]:
    if isinstance(child, BufferView):
        for name, grandchild in BufferView.items(child):
            yield from _paths(f"{path}.{name}", grandchild, array_type)
    elif isinstance(child, array_type):
        yield path, child


def _joined(shared: list[tuple[str, str]]) -> str:
    """One name for buffers that an array shares memory with."""
    same = [path for path, kind in shared if kind == "same"]
    if same:
        return same[0]
    first = shared[0][0]
    category = first.rpartition(".")[0]
    alike = [path for path, _ in shared if path.rpartition(".")[0] == category]
    if len(alike) == 1:
        return first
    return f"{first} ... {alike[-1].rpartition('.')[2]}"


# -- recording without running --------------------------------------------------


class _Outline(Program):
    """Notes leaf calls down, but makes none."""

    def do(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        leaves = getattr(function, "leaves", None)
        self._calls += [function] if leaves is None else leaves

    def forget_from(self, nr_steps: int, nr_calls: int) -> None:
        """Forget what was noted down last."""
        del self.steps[nr_steps:], self._calls[nr_calls:]


class _OutlinePass(Pass):
    """Looks into all layers, also into those that may do something else each time."""

    _program: _Outline

    def _record(self, layer: Layer, name: str, *args: Any) -> None:
        program, method = self._program, getattr(layer, name)
        program.layer = layer.name
        before = len(program.steps), len(program)
        layer.set_handler(self.handler)
        try:
            with np.errstate(all="ignore"):  # nothing has been computed
                method(*args)
        except Exception:
            if layer.can_be_replayed():
                raise
            # It depends on values. So it is a single step, as it is in replays.
            program.forget_from(*before)
            program.noted(name, functools.partial(program.do, method))(*args)
        finally:
            layer.set_handler(self.handler.plain)
            program.layer = ""


class _Outlines(Passes):
    """Records each pass without running it."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.outlines: list[tuple[str, _Outline]] = []

    def run(self, key: tuple[Any, ...], make: Callable[..., None]) -> None:
        handler, program = self._manager.handler, _Outline()

        def outline(recorder: Handler) -> None:
            # Layers may look at values, since nothing is going to be replayed.
            vars(recorder).update(
                get_numpy_copy=handler.get_numpy_copy,
                is_fully_finite=handler.is_fully_finite,
            )
            make(_OutlinePass(recorder, program), *key[1:])

        handler.record(outline, program)
        self.outlines.append((key[0], program))

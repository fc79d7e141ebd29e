"""Finding, for the arrays of an operation, what was prepared for them before.

To run a primitive takes a descriptor and a memory object for each array, a primitive
that may have to be compiled, and a block of arguments. A network calls the same
operations on the same arrays again and again, so all of this is prepared once and
kept as a `Call`.
"""

from __future__ import annotations

import contextlib
import functools
import math
import mmap
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from brainstorm.handlers.onednn.binding import (
    FLOAT32,
    Arg,
    ExecutionArgument,
    Layout,
    Library,
    Memory,
    MemoryDesc,
    Primitive,
    Query,
    UnimplementedError,
    status_name,
)
from brainstorm.utils import HandlerError

__all__ = ["Arenas", "Call", "Recipe", "Session", "layout", "named_errors", "place_of"]

# Up to this many multiplications, several threads are not worth their start.
_SMALL_WORK = 2**19
_MAX_CALLS = 2048
_LARGE_VALUES = 4096
_ALIGNMENT = 64
_LARGE_MEMORY = 2**20
_PRIVATE = {"flags": mmap.MAP_PRIVATE} if hasattr(mmap, "MAP_PRIVATE") else {}


class Call:
    """Primitives to execute one after the other, on fixed memory.

    Attributes:
        values: What the operation reads or writes besides its arrays, or None.
    """

    __slots__ = (
        "_execute",
        "_kept",
        "_library",
        "_name",
        "_shapes",
        "_steps",
        "_threads",
        "values",
    )

    def __init__(self, recipe: Recipe, values: np.ndarray | None):
        self._execute = recipe.library.execute
        self._steps = tuple(recipe.steps)
        self._kept = recipe.kept
        self._library = recipe.library
        self._name, self._shapes = recipe.name, recipe.shapes
        self._threads = recipe.session.threads if recipe.has_to_keep_to_one else None
        self.values = values

    @property
    def is_large(self) -> bool:
        """Whether `values` take much memory."""
        return self.values is not None and self.values.nbytes > _LARGE_VALUES

    def __call__(self) -> None:
        """Execute them.

        Raises:
            HandlerError: The library reports an error.
        """
        threads = self._threads
        if threads is not None:
            self._library.set_threads(1)
        try:
            for step in self._steps:
                status = self._execute(*step)
                if status:
                    raise HandlerError(
                        f"{self._name} of arrays of the shapes {self._shapes}:"
                        f" oneDNN says {status_name(status)}"
                    )
        finally:
            if threads is not None:
                self._library.set_threads(threads)


class Arenas:
    """Memory by name, which many calls use one after the other. It grows as needed."""

    def __init__(self, library: Library):
        self._library = library
        self._bytes: dict[str, np.ndarray] = {}
        self._memories: dict[str, weakref.WeakSet[Memory]] = {}

    def memory(self, name: str, desc: MemoryDesc) -> Memory:
        """Memory in some format. Different names share nothing."""
        content = self._bytes.get(name)
        memories = self._memories.setdefault(name, weakref.WeakSet())
        if content is None or desc.size > len(content):
            content = _aligned(desc.size)
            for memory in memories:
                memory.move(content.ctypes.data)
            self._bytes[name] = content
        memory = self._library.memory(desc, content.ctypes.data)
        memories.add(memory)
        return memory


class Recipe:
    """Collects the steps of a `Call`.

    Args:
        session: Where the call is going to be used.
        name: Name of the operation, for messages.
        arrays: Its arrays, likewise.
        work: About how many multiplications there are, at a time. Few of them are
            done in one thread.

    Attributes:
        has_to_keep_to_one: Whether OpenMP has to be told so, because a primitive does
            not remember for how many threads it was made.
    """

    def __init__(
        self,
        session: Session,
        name: str,
        arrays: Sequence[Any],
        work: float = math.inf,
    ):
        self.session = session
        self._threads = 1 if work <= _SMALL_WORK else session.threads
        self.has_to_keep_to_one = False
        self.library = session.library
        self.name = name
        self.shapes = [None if a is None else a.shape for a in arrays]
        self.steps: list[tuple[Any, ...]] = []
        self.kept: list[Any] = [session.arenas]

    def array(self, array: np.ndarray) -> Memory:
        """The memory of an array of the operation."""
        desc = self.library.desc(layout(array))
        return self.library.memory(desc, _address(array))

    def kept_array(self, array: np.ndarray) -> Memory:
        """The memory of an array that belongs to the call."""
        self.kept.append(array)
        return self.array(array)

    def temporary(self, slot: str, desc: MemoryDesc | Layout) -> Memory:
        """Memory that later calls use too; slots do not share theirs."""
        if isinstance(desc, Layout):
            desc = self.library.desc(desc)
        return self.session.arenas.memory(slot, desc)

    def primitive(
        self,
        kind: str,
        *args: Any,
        post_ops: tuple[tuple[Any, ...], ...] = (),
        scaled: tuple[Arg, ...] = (),
        slow: bool = False,
    ) -> Primitive:
        """A primitive.

        Args:
            kind: See `Library.primitive`.
            *args: Likewise.
            post_ops: See `Library.primitive`.
            scaled: Likewise.
            slow: Whether an implementation is good that is not optimized.

        Raises:
            UnimplementedError: There is none.
        """
        math_mode = self.session.math_mode
        primitive = self.library.primitive(
            kind, args, post_ops, scaled, math_mode, self._threads
        )
        if not slow and "ref" in primitive.implementation:
            raise UnimplementedError(f"{kind}: no optimized implementation")
        return primitive

    def add(self, primitive: Primitive, memories: Mapping[int, Memory]) -> None:
        """Append the execution of a primitive."""
        if primitive.kind != "matmul" and self._threads < self.session.threads:
            self.has_to_keep_to_one = True
        if primitive.scratchpad.size:
            scratchpad = self.temporary("scratchpad", primitive.scratchpad)
            memories = {**memories, Arg.SCRATCHPAD: scratchpad}
        block = (ExecutionArgument * len(memories))(
            *[(arg, memory.handle) for arg, memory in memories.items()]
        )
        self.kept += [primitive, memories, block]
        step = primitive.handle, self.library.stream.handle, len(memories), block
        self.steps.append(step)

    def reorder(self, source: Memory, target: Memory, add: bool = False) -> None:
        """Append copying, or adding, memory to some in another format."""
        primitive = self.library.reorder(source.desc, target.desc, add, self._threads)
        self.add(primitive, {Arg.SRC: source, Arg.DST: target})

    def wanted(
        self, memory: Memory, primitive: Primitive, what: Query, slot: str
    ) -> Memory:
        """The content of `memory` in the format that a primitive wants."""
        desc = primitive.query(what)
        if desc == memory.desc:
            return memory
        converted = self.temporary(slot, desc)
        self.reorder(memory, converted)
        return converted

    def destination(
        self, memory: Memory, desc: MemoryDesc, fresh: bool, slot: str
    ) -> tuple[Memory, Callable[[], None]]:
        """Memory to have written, and what appends the steps to do afterwards."""
        if fresh and desc == memory.desc:
            return memory, lambda: None
        written = self.temporary(slot, desc)
        return written, lambda: self.reorder(written, memory, add=not fresh)

    def call(self, values: np.ndarray | None = None) -> Call:
        """The finished call; `values` are for its attribute."""
        return Call(self, values)


Build = Callable[..., Call]


class Session:
    """What one thread prepared for one handler.

    Args:
        library: The library.
        math_mode: How to multiply.
        threads: Number of threads to compute with.

    Attributes:
        arenas: Temporary memory of all calls.
        calls: What was prepared, by the identity of the arrays: the ``id`` of an
            array that is gone never stays in a key. False where the library can not
            do the operation.
    """

    def __init__(self, library: Library, math_mode: str, threads: int):
        self.library = library
        self.math_mode = math_mode
        self.threads = threads
        self.calls: dict[tuple[Any, ...], Call | bool] = {}
        self._references: dict[tuple[Any, ...], list[weakref.ref]] = {}
        self._by_place: dict[tuple[Any, ...], Call | bool] = {}
        self.arenas = Arenas(library)
        self._ones = np.ones((1, 1), np.float32)

    @functools.cached_property
    def parts(self) -> list[Session]:
        """Sessions to use at the same time, in `run`: one for each thread."""
        if self.threads == 1 or not self.library.runs_in_parallel:
            return [self]
        return [Session(self.library, self.math_mode, 1) for _ in range(self.threads)]

    def run(self, calls: Sequence[Call]) -> None:
        """Execute one call of this session, or one of each of its `parts`.

        Raises:
            HandlerError: One of them failed.
        """
        if len(calls) == 1:
            calls[0]()
        else:
            self.library.in_parallel(calls)

    def ones(self, count: int) -> np.ndarray:
        """A matrix (1, count) of ones."""
        if self._ones.shape[1] < count:
            self._ones = np.ones((1, count), np.float32)
        return self._ones[:, :count]

    def find(
        self,
        key: tuple[Any, ...],
        build: Build,
        arrays: Sequence[Any],
        options: tuple[Any, ...],
    ) -> Call | bool:
        """Find or prepare a call, for arrays that are not known by identity.

        Arrays in the same place as earlier ones can share their call; but large calls
        go with their arrays.

        Args:
            key: For `calls`.
            build: ``build(session, *arrays, *options)`` prepares the call.
            arrays: The arrays of the operation, or None for missing ones.
            options: Whatever else the call depends on.

        Returns:
            The call. False if the library can not do it.

        Raises:
            HandlerError: Preparing it failed.
        """
        place = (build, options, *[place_of(array) for array in arrays])
        call = self._by_place.get(place)
        if call is None:
            call = self._prepare(build, arrays, options)
            if call is False or not call.is_large:
                if len(self._by_place) >= _MAX_CALLS:
                    del self._by_place[next(iter(self._by_place))]
                self._by_place[place] = call
        self._remember(key, arrays, call)
        return call

    def _prepare(
        self, build: Build, arrays: Sequence[Any], options: tuple[Any, ...]
    ) -> Call | bool:
        with named_errors(build.__name__, arrays):
            try:
                return build(self, *arrays, *options)
            except UnimplementedError:
                return False

    def _remember(
        self, key: tuple[Any, ...], arrays: Sequence[Any], call: Call | bool
    ) -> None:
        if len(self.calls) >= _MAX_CALLS:
            self.calls.clear()
            self._references.clear()
        calls, references = self.calls, self._references

        def forget(_: weakref.ref) -> None:
            calls.pop(key, None)
            references.pop(key, None)

        references[key] = [weakref.ref(a, forget) for a in arrays if a is not None]
        calls[key] = call


@contextlib.contextmanager
def named_errors(operation: str, arrays: Sequence[Any]) -> Iterator[None]:
    """Let errors name the operation and the shapes of its arrays."""
    try:
        yield
    except UnimplementedError:
        raise
    except (HandlerError, MemoryError) as error:
        shapes = [None if array is None else array.shape for array in arrays]
        reason = "out of memory" if isinstance(error, MemoryError) else error
        raise HandlerError(
            f"{operation} of arrays of the shapes {shapes}: {reason}"
        ) from error


def layout(array: np.ndarray) -> Layout:
    """Where the elements of an array lie.

    Raises:
        UnimplementedError: The library can not work with it.
    """
    if (
        array.dtype != np.float32
        or not array.size
        or not 0 < array.ndim <= 12
        or not array.flags.aligned
    ):
        raise UnimplementedError("expected an aligned array of float32")
    strides = []
    extent = 1
    for size, step in zip(array.shape[::-1], array.strides[::-1], strict=True):
        stride, rest = divmod(step, array.itemsize)
        if size == 1 and (rest or stride < 1):
            stride, rest = extent, 0  # it does not matter
        if rest or stride < 1:
            raise UnimplementedError("expected strides of whole positive elements")
        strides.append(stride)
        extent = max(extent, stride * size)
    return Layout(array.shape, tuple(strides[::-1]), FLOAT32)


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def place_of(array: np.ndarray | None) -> Any:
    """What two arrays have in common that can share a call."""
    if array is None:
        return None
    return _address(array), array.shape, array.strides, array.dtype.char


def _aligned(size: int) -> np.ndarray:
    """Bytes that begin at a multiple of what the widest instructions like.

    The library touches less than half of some memory that it wants. NumPy asks for huge
    pages where arrays are large, which leave no gaps; so this does not use NumPy there.
    """
    if size >= _LARGE_MEMORY:
        return np.frombuffer(mmap.mmap(-1, size, **_PRIVATE), np.uint8)
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size]

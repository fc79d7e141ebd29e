"""What is prepared for the arrays of an operation: primitives and their memory.

What the library can not do, or not in a fast way, or not with these arrays, is an
UnimplementedError.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import mmap
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from brainstorm.handlers.onednn.binding import Library, Memory, MemoryDesc, Primitive
from brainstorm.handlers.onednn.definitions import (
    BFLOAT16,
    FLOAT32,
    Arg,
    ExecutionArgument,
    Layout,
    Query,
    UnimplementedError,
    status_name,
)
from brainstorm.handlers.onednn.keeping import address_of
from brainstorm.utils import HandlerError

# Up to this many multiplications and bytes, several threads are not worth their start.
SMALL_WORK = 2**20
SMALL_BYTES = 2**19
# What the primitive of a step takes, about, in bytes.
STEP_BYTES = 2**17
_ALIGNMENT = 64
_LARGE_MEMORY = 2**20
_PRIVATE = {"flags": mmap.MAP_PRIVATE} if hasattr(mmap, "MAP_PRIVATE") else {}


class Call:
    """Primitives to execute one after the other.

    Attributes:
        values: What the operation reads or writes besides its arrays, or None.
        written: Which of the arrays it writes into, by their numbers.
        addresses: Where the arrays are that it works on, see `move`.
        size: About how many bytes it takes.
    """

    def __init__(self, recipe: Recipe, values: np.ndarray | None):
        self._execute = recipe.library.execute
        self._steps = tuple(recipe.steps)
        self._kept = recipe.kept
        self._library = recipe.library
        self._name, self._shapes = recipe.name, recipe.shapes
        self._threads = recipe.fixed_threads
        self._moving = tuple(recipe.moving)
        self.addresses: tuple[int, ...] | None = None
        self.written: tuple[int, ...] = tuple(sorted(recipe.written))
        self.values = values
        self.size: int = len(self._steps) * STEP_BYTES
        if values is not None:
            self.size += values.nbytes

    @property
    def leaves(self) -> list[Callable[[], Any]]:
        """What replays of programs call instead."""
        if self._threads is not None:
            return [self]
        return [functools.partial(self._execute, *step) for step in self._steps]

    def hold(self, arrays: tuple[Any, ...]) -> None:
        """Keep arrays alive, temporaries among them, which never move."""
        self._kept.append(arrays)

    def move(self, addresses: tuple[int, ...]) -> bool:
        """Work on the arrays at the given addresses from now on, unless given up."""
        if not self._steps:
            return False
        for memory, number, offset in self._moving:
            memory.move(addresses[number] + offset)
        self.addresses = addresses
        return True

    def moves(self, addresses: tuple[int, ...]) -> list[Callable[[], Any]]:
        """What `move` does, for replays of programs."""
        set_address = self._library.set_address
        return [
            functools.partial(set_address, memory.handle, addresses[number] + offset)
            for memory, number, offset in self._moving
        ]

    def give_up(self) -> None:
        """Let go of all that was prepared."""
        self._steps = self._moving = ()
        self._kept, self.addresses, self.values = [], None, None

    def __call__(self) -> None:
        """Execute them."""
        before = None
        if self._threads is not None:
            before = self._library.get_threads()
            self._library.set_threads(self._threads)
        try:
            for step in self._steps:
                status = self._execute(*step)
                if status:
                    raise HandlerError(
                        f"{self._name} of arrays of the shapes {self._shapes}:"
                        f" oneDNN says {status_name(status)}"
                    )
        finally:
            if before is not None:
                self._library.set_threads(before)


class Arenas:
    """Memory by name, which many calls use one after the other. It grows as needed."""

    def __init__(self, library: Library):
        self._library = library
        self._bytes: dict[str, np.ndarray] = {}
        self._memories: dict[str, weakref.WeakSet[Memory]] = {}

    def memory(self, name: str, desc: MemoryDesc, offset: int = 0) -> Memory:
        """Memory in some format, from some byte on. Different names share nothing."""
        content = self._bytes.get(name)
        memories = self._memories.setdefault(name, weakref.WeakSet())
        size = offset + desc.size
        if content is None or size > len(content):
            content = _aligned(size)
            for memory in memories:
                memory.move(content.ctypes.data + memory.offset)
            self._bytes[name] = content
        memory = self._library.memory(desc, content.ctypes.data + offset)
        memory.offset = offset
        memories.add(memory)
        return memory


class Recipe:
    """Collects the steps of a `Call` of a session.

    The name of the operation and its arrays are for messages. Little `work`, as many
    multiplications at a time, on small arrays is done in one thread.

    Attributes:
        threads: How many threads compute.
        moving: Memories of arrays that are going to move: each with the number of the
            array and how many bytes after its beginning it lies.
        written: The numbers of the arrays that are written into.
        converts: Whether its factors are converted to bfloat16.
    """

    def __init__(
        self,
        session: Any,
        name: str,
        arrays: Sequence[Any],
        work: float = 0,
    ):
        self.session = session
        size = sum(array.nbytes for array in arrays if array is not None)
        is_small = work <= SMALL_WORK and size <= SMALL_BYTES
        self.converts: bool = session.conversions.pay(name, work, size // 4)
        self.threads: int = 1 if is_small else session.threads
        session.has_started_threads |= self.threads > 1
        self._has_to_keep_to_one = False
        self.library: Library = session.library
        self.name = name
        self.shapes: list[Any] = [None if a is None else a.shape for a in arrays]
        self.steps: list[tuple[Any, ...]] = []
        self.kept: list[Any] = [session.arenas]
        self.moving: list[tuple[Memory, int, int]] = []
        self.written: set[int] = set()

    def array(self, array: np.ndarray, desc: MemoryDesc | None = None) -> Memory:
        """The memory of an array of the operation, or of a view of one.

        With `desc` it is used as that, not as the array that it is.
        """
        memory = self._memory(array, desc)
        memory.is_writable = array.flags.writeable
        if isinstance(array, Moving):
            memory.number, offset = array.traced()
            self.moving.append((memory, memory.number, offset))
        return memory

    def kept_array(self, array: np.ndarray) -> Memory:
        """The memory of an array that belongs to the call."""
        self.kept.append(array)
        return self._memory(array)

    def _memory(self, array: np.ndarray, desc: MemoryDesc | None = None) -> Memory:
        desc = desc or self.library.desc(layout(array))
        return self.library.memory(desc, address_of(array))

    @property
    def fixed_threads(self) -> int | None:
        """For how many threads OpenMP has to be set.

        Primitives do not remember for how many they were made, but for products.
        """
        if self._has_to_keep_to_one:
            return 1
        return self.session.threads if self.session.sets_threads else None

    def temporary(
        self, slot: str, desc: MemoryDesc | Layout, offset: int = 0
    ) -> Memory:
        """Memory that later calls use too; slots do not share theirs."""
        if isinstance(desc, Layout):
            desc = self.library.desc(desc)
        return self.session.arenas.memory(slot, desc, offset)

    def primitive(
        self,
        kind: str,
        *args: Any,
        post_ops: tuple[tuple[Any, ...], ...] = (),
        scaled: tuple[Arg, ...] = (),
        slow: bool = False,
        exact: bool = False,
        number: int = 0,
    ) -> Primitive:
        """A primitive, see `Library.primitive`.

        It may be `slow`, and an `exact` one multiplies in float32 in any mode.
        """
        math_mode = "f32" if exact else self.session.math_mode
        primitive = self.library.primitive(
            kind, args, post_ops, scaled, math_mode, self.threads, number
        )
        if not slow and "ref" in primitive.implementation:
            raise UnimplementedError(f"{kind}: no optimized implementation")
        return primitive

    def add(
        self,
        primitive: Primitive,
        memories: Mapping[int, Memory] | None = None,
        /,
        **named: Memory,
    ) -> None:
        """Append the execution of a primitive; names of memories are those of `Arg`."""
        memories = {**(memories or {}), **{Arg[n.upper()]: m for n, m in named.items()}}
        if primitive.kind != "matmul" and self.threads < self.session.threads:
            self._has_to_keep_to_one = True
        for arg, memory in memories.items():
            if primitive.writes(arg):
                self._note_written(memory)
        if primitive.scratchpad.size:
            scratchpad = self.temporary("scratchpad", primitive.scratchpad)
            memories = {**memories, Arg.SCRATCHPAD: scratchpad}
        block = (ExecutionArgument * len(memories))(
            *[ExecutionArgument(arg, memory.handle) for arg, memory in memories.items()]
        )
        self.kept += [primitive, memories, block]
        count, address = ctypes.c_int(len(memories)), ctypes.addressof(block)
        stream = self.library.stream.handle
        self.steps.append((primitive.handle, stream, count, ctypes.c_void_p(address)))

    def _note_written(self, memory: Memory) -> None:
        if not memory.is_writable:
            raise UnimplementedError("expected an array that can be written")
        if memory.number is not None:
            self.written.add(memory.number)

    def reorder(
        self,
        source: Memory,
        target: Memory,
        add: bool = False,
        factor: float = 1.0,
        quick: bool = False,
    ) -> None:
        """Append copying, or adding, memory to some in another format.

        It may be multiplied by a factor, and have to be done in a `quick` way.
        """
        engine, sums = self.library.engine, (("sum",),) if add else ()
        args = (source.desc, engine, target.desc, engine)
        memories: dict[int, Memory] = {Arg.SRC: source, Arg.DST: target}
        scaled: tuple[Arg, ...] = ()
        if factor != 1.0:
            scaled = (Arg.SRC,)
            memories[Arg.SRC_SCALE] = self.kept_array(np.full(1, factor, np.float32))
        primitive = self.library.primitive(
            "reorder", args, sums, scaled, threads=self.threads
        )
        if quick and "jit" not in primitive.implementation:
            raise UnimplementedError("no quick way to copy")
        self.add(primitive, memories)

    def factor(self, given: Layout) -> Layout:
        """How a factor is handed to a primitive; `wanted` converts it."""
        return _dense_bfloat16(given) if self.converts else given

    def converted(self, memory: Memory, given: Layout, slot: str) -> Memory:
        """A factor for several primitives, of which the layout is known."""
        if not self.converts:
            return memory
        converted = self.temporary(slot, self.factor(given))
        self.reorder(memory, converted)
        return converted

    def wanted(
        self, memory: Memory, primitive: Primitive, what: Query, slot: str
    ) -> Memory:
        """The content of `memory` in the format and type that a primitive wants."""
        desc = primitive.query(what)
        if desc == memory.desc:
            return memory
        converted = self.temporary(slot, desc)
        self.reorder(memory, converted)
        return converted

    @contextlib.contextmanager
    def result(
        self,
        memory: Memory,
        fresh: bool,
        slot: str,
        desc: MemoryDesc | None = None,
    ) -> Iterator[Memory]:
        """What to write for `memory` to get it, in some format, or to have it added."""
        desc = desc or memory.desc
        if fresh and desc == memory.desc:
            yield memory
        else:
            written = self.temporary(slot, desc)
            yield written
            self.reorder(written, memory, add=not fresh)

    def call(self, values: np.ndarray | None = None) -> Call:
        """The finished call."""
        return Call(self, values)


class Moving(np.ndarray):
    """An array of an operation, whose views know which one they are of."""

    number: int
    origin: np.ndarray

    @classmethod
    def of(cls, array: np.ndarray | None, number: int) -> Any:
        """The array with this number, or None."""
        if array is None:
            return None
        moving = array.view(cls)
        moving.number, moving.origin = number, array
        return moving

    def __array_finalize__(self, obj: Any) -> None:
        if isinstance(obj, Moving) and hasattr(obj, "origin"):
            self.number, self.origin = obj.number, obj.origin

    def traced(self) -> tuple[int, int]:
        """The array that it is a view of, and how many bytes behind its beginning."""
        if not np.may_share_memory(self, self.origin):
            raise UnimplementedError("expected a view")
        return self.number, address_of(self) - address_of(self.origin)


def layout(array: np.ndarray) -> Layout:
    """Where the elements of an array lie."""
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


def _dense_bfloat16(given: Layout) -> Layout:
    """The same order of the dimensions in memory, without gaps."""
    shape, strides, _ = given
    if strides is None:
        return Layout(shape, None, BFLOAT16)
    dense, extent = [0] * len(shape), 1
    for axis in sorted(range(len(shape))[::-1], key=strides.__getitem__):
        dense[axis] = extent
        extent *= shape[axis]
    return Layout(shape, tuple(dense), BFLOAT16)


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

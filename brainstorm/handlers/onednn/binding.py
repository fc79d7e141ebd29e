"""oneDNN's C interface, bound by ctypes: enums, errors and ownership.

Intel's oneAPI Deep Neural Network Library, version 3,
https://uxlfoundation.github.io/oneDNN. Its objects are wrapped here so that each is
released with the Python object that owns it, and so that a status that is not
success becomes an exception.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import site
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from brainstorm.handlers.onednn.definitions import (
    ANY_FORMAT,
    CPU,
    IN_ORDER,
    INSTRUCTION_SETS,
    LAST_REACHED,
    MATH_MODES,
    MAX_DIMS,
    UNIMPLEMENTED,
    USER_SCRATCHPAD,
    WRITTEN,
    WRITTEN_BACKWARD,
    Arg,
    LastReachedError,
    Layout,
    Query,
    UnimplementedError,
    Version,
    status_name,
)
from brainstorm.handlers.onednn.waiting import Waiting
from brainstorm.utils import HandlerError, missing_extra

_ERRORS = {UNIMPLEMENTED: UnimplementedError, LAST_REACHED: LastReachedError}
_Work = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Owned:
    """An object of the library, released together with this one.

    What does so is called like the function that created it, or `release`.
    """

    release: str | None = None

    def __init__(self, library: Library, handle: ctypes.c_void_p, created_by: str):
        self.handle = handle
        self.library = library
        # Weak references still find an object while its __del__ runs, in other threads.
        release = self.release or created_by.replace("_create", "_destroy")
        destroy = getattr(library.functions, release)
        weakref.finalize(self, destroy, handle).atexit = False


class MemoryDesc(_Owned):
    """Shape, data type and format of memory."""

    release: str | None = "dnnl_memory_desc_destroy"

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the dimensions."""
        count, sizes = ctypes.c_int(), ctypes.POINTER(ctypes.c_int64)()
        for what, result in ((Query.NDIMS, count), (Query.DIMS, sizes)):
            self.library.call(
                "dnnl_memory_desc_query", self, what, ctypes.byref(result)
            )
        return tuple(sizes[: count.value])

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.library.functions.dnnl_memory_desc_get_size(self.handle)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MemoryDesc) and bool(
            self.library.functions.dnnl_memory_desc_equal(self.handle, other.handle)
        )

    __hash__: ClassVar[Callable[[MemoryDesc], int]] = object.__hash__

    def part(self, start: Sequence[int], shape: Sequence[int]) -> MemoryDesc:
        """The description of a block inside of this memory."""
        function = "dnnl_memory_desc_create_submemory"
        return self.library.create(
            MemoryDesc, function, self, tuple(shape), tuple(start)
        )


class Memory(_Owned):
    """Memory that a primitive works on; the bytes are owned by somebody else."""

    desc: MemoryDesc
    is_writable = True
    number: int | None = None  # of the array that it is memory of
    offset = 0  # in bytes, into memory that moves

    def move(self, address: int) -> None:
        """Use other bytes."""
        status = self.library.set_address(self.handle, address)
        if status:
            raise HandlerError(f"can not move memory: {status_name(status)}")


class _PrimitiveDesc(_Owned):
    release: str | None = "dnnl_primitive_desc_destroy"


class Primitive(_Owned):
    """An operation, ready to be executed on any memory of the right format."""

    kind: str

    @functools.cached_property
    def desc(self) -> ctypes.c_void_p:
        """Its own description, which takes 50 KB; the one it was made from can go."""
        desc = ctypes.c_void_p()
        function = "dnnl_primitive_get_primitive_desc"
        self.library.call(function, self.handle, ctypes.byref(desc))
        return desc

    @functools.cached_property
    def implementation(self) -> str:
        """Name of the implementation that the library chose."""
        name, function = ctypes.c_char_p(), "dnnl_primitive_desc_query"
        what = self.desc, Query.IMPLEMENTATION, 0, ctypes.byref(name)
        self.library.call(function, *what)
        return (name.value or b"").decode()

    def writes(self, arg: int) -> bool:
        """Whether the memory that is passed for something is written."""
        return arg in (WRITTEN_BACKWARD if "backward" in self.kind else WRITTEN)

    def query(self, what: Query, index: int = 0) -> MemoryDesc:
        """The format that the primitive wants for some of its memory."""
        borrowed = self.library.functions.dnnl_primitive_desc_query_md(
            self.desc, what, index
        )
        return self.library.create(
            MemoryDesc, "dnnl_memory_desc_clone", ctypes.c_void_p(borrowed)
        )

    @functools.cached_property
    def scratchpad(self) -> MemoryDesc:
        """The temporary memory that the primitive needs."""
        return self.query(Query.SCRATCHPAD)


class Library:
    """The library, its CPU engine and a stream.

    Attributes:
        functions: Its C functions.
        version: Like '3.2.0'.
        instruction_set: The best one that the library uses on this CPU.
        get_threads: Tells the number of OpenMP threads that this thread would use.
        waiting: How OpenMP's threads wait for each other.
    """

    def __init__(self, path: str):
        self.functions: ctypes.CDLL
        self.functions = functions = ctypes.CDLL(path)
        self._check_version(path)
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        query = functions.dnnl_primitive_desc_query_md
        query.restype, query.argtypes = pointer, [pointer, ctypes.c_int, ctypes.c_int]
        functions.dnnl_memory_desc_get_size.restype = size
        # Called with ctypes' objects, which is faster than having it convert others.
        self.execute: Callable[..., Any] = functions.dnnl_primitive_execute
        self.engine: Any = self.create(_Owned, "dnnl_engine_create", CPU, size(0))
        self.stream: Any = self.create(
            _Owned, "dnnl_stream_create", self.engine, IN_ORDER
        )
        self._primitives: weakref.WeakValueDictionary[Any, Primitive] = (
            weakref.WeakValueDictionary()
        )
        self.desc: Callable[..., MemoryDesc] = functools.lru_cache(2048)(self._desc)
        self._local = threading.local()
        self._cache_lock = threading.RLock()
        self.waiting: Waiting = Waiting(functions)
        # Others may not run Python while this calls something.
        self._quick = ctypes.PyDLL(path)
        # Missing where the library was built without OpenMP.
        self._set_threads = getattr(self._quick, "omp_set_num_threads", None)
        self.get_threads: Callable[[], int] = getattr(
            self._quick, "omp_get_max_threads", lambda: 1
        )
        self.set_address: Any = self._quick.dnnl_memory_set_data_handle
        self.set_address.argtypes = [pointer, pointer]

    def _check_version(self, path: str) -> None:
        try:
            self.functions.dnnl_version.restype = ctypes.POINTER(Version)
            version = self.functions.dnnl_version().contents
        except AttributeError as error:
            raise HandlerError(f"{path} is not oneDNN: {error}") from None
        self.version: str = f"{version.major}.{version.minor}.{version.patch}"
        if version.major != 3:
            raise HandlerError(f"expected oneDNN 3, {path} is {self.version}")
        isa = self.functions.dnnl_get_effective_cpu_isa()
        known = [code for code in INSTRUCTION_SETS if isa & code == code]
        if not known:
            raise HandlerError("oneDNN is used only on CPUs with AVX2")
        self.instruction_set: str = INSTRUCTION_SETS[max(known)]

    # -- calling -------------------------------------------------------------

    def call(self, name: str, *args: Any) -> None:
        """Call a function that returns a status."""
        status = getattr(self.functions, name)(*map(_convert, args))
        if status:
            kind = _ERRORS.get(status, HandlerError)
            raise kind(f"{name}: {status_name(status)}")

    def create(self, cls: type[_Owned], function: str, *args: Any) -> Any:
        """Make an object of the library and own it."""
        handle = ctypes.c_void_p()
        self.call(function, ctypes.byref(handle), *args)
        return cls(self, handle, function)

    # -- number of threads ---------------------------------------------------

    def set_threads(self, number: int) -> None:
        """Set the number of OpenMP threads, for this thread."""
        if self._set_threads is not None:
            self._set_threads(number)

    @functools.cached_property
    def runs_in_parallel(self) -> bool:
        """Whether `in_parallel` can be used."""
        return hasattr(self.functions, "GOMP_parallel")

    def in_parallel(self, works: Sequence[Callable[[], None]]) -> None:
        """Do several works at the same time, in OpenMP's threads.

        What they execute starts no threads of its own. The first of their errors is
        raised.
        """
        quick, local = self._quick, self._local
        outcomes: list[Any] = [HandlerError("interrupted")] * len(works)

        def do(_: int | None) -> None:
            quick.omp_set_num_threads(1)
            first, threads = quick.omp_get_thread_num(), quick.omp_get_num_threads()
            if first and not hasattr(local, "kept"):
                # Python forgets threads that are not its own after each call, and it
                # takes 20 us to get to know them again.
                local.kept = ctypes.pythonapi.PyGILState_Ensure()
            for k in range(first, len(works), threads):
                try:
                    outcomes[k] = works[k]()
                except BaseException as error:
                    outcomes[k] = error

        self.functions.GOMP_parallel(_Work(do), None, ctypes.c_uint(len(works)), 0)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    # -- memory --------------------------------------------------------------

    def release_unused(self) -> None:
        """Give the system back the memory of primitives that nobody uses any more."""
        with self._without_cache():
            pass
        if _trim is not None:
            _trim(0)

    @contextlib.contextmanager
    def _without_cache(self) -> Iterator[None]:
        """Have the library forget, and keep no primitives for those that come."""
        capacity = ctypes.c_int()
        with self._cache_lock:
            self.call("dnnl_get_primitive_cache_capacity", ctypes.byref(capacity))
            self.call("dnnl_set_primitive_cache_capacity", 0)
            try:
                yield
            finally:
                self.call("dnnl_set_primitive_cache_capacity", capacity.value)

    # -- making objects ------------------------------------------------------

    def _desc(self, layout: Layout) -> MemoryDesc:
        """The description of memory. (`desc` keeps what it returned.)"""
        shape, strides, dtype = layout
        form: Any
        if strides is None:
            function, form = "dnnl_memory_desc_create_with_tag", ANY_FORMAT
        else:
            function, form = "dnnl_memory_desc_create_with_strides", strides
        return self.create(MemoryDesc, function, len(shape), shape, dtype, form)

    def memory(self, desc: MemoryDesc, address: int) -> Memory:
        """Memory in the given format, at an address that stays valid."""
        memory = self.create(
            Memory, "dnnl_memory_create", desc, self.engine, ctypes.c_void_p(address)
        )
        memory.desc = desc
        return memory

    def primitive(
        self,
        kind: str,
        args: tuple[Any, ...],
        post_ops: tuple[tuple[Any, ...], ...] = (),
        scaled: tuple[Arg, ...] = (),
        math_mode: str = "f32",
        threads: int = 1,
        number: int = 0,
    ) -> Primitive:
        """A primitive. As long as it lives, it is the same for the same arguments.

        Args:
            kind: As in ``dnnl_<kind>_primitive_desc_create``.
            args: The arguments that this function expects between the engine and
                the attributes; a `Layout` or a `MemoryDesc` for memory, a tuple for
                sizes, a `Primitive` for a hint, None where there is nothing.
            post_ops: Operations on the result, one after the other: ``('sum',)`` adds
                what the destination held, ``('eltwise', algorithm, alpha, beta)``, and
                ``('binary', algorithm, description)`` takes a second operand.
            scaled: Inputs that come with a factor.
            math_mode: How to multiply, see `MATH_MODES`.
            threads: Number of threads that it is going to use.
            number: Which of the library's implementations, from the one that it would
                choose on.

        Raises:
            UnimplementedError: There is none; a LastReachedError, if it is only that
                there are not so many.
        """
        key = kind, args, post_ops, scaled, math_mode, threads, number
        primitive = self._primitives.get(key)
        if primitive is None:
            self._primitives[key] = primitive = self._make(*key)
        return primitive

    def _make(
        self, kind, args, post_ops, scaled, math_mode, threads, number
    ) -> Primitive:
        attributes = self._attributes(post_ops, scaled, math_mode)
        values = [self.desc(a) if isinstance(a, Layout) else a for a in args]
        function = f"dnnl_{kind}_primitive_desc_create"
        engine = () if kind == "reorder" else (self.engine,)
        before = self.get_threads()
        self.set_threads(threads)
        # It would begin with the first one again behind those in its cache.
        uncached = self._without_cache() if number else contextlib.nullcontext()
        try:
            with uncached:
                desc = self.create(
                    _PrimitiveDesc, function, *engine, *values, attributes
                )
                for _ in range(number):
                    self.call("dnnl_primitive_desc_next_impl", desc)
                primitive = self.create(Primitive, "dnnl_primitive_create", desc)
        finally:
            self.set_threads(before)
        primitive.kind = kind
        return primitive

    def _attributes(
        self, post_ops: Sequence[tuple[Any, ...]], scaled: Sequence[Arg], math_mode: str
    ) -> _Owned:
        attributes = self.create(_Owned, "dnnl_primitive_attr_create")
        set_ = "dnnl_primitive_attr_set_"
        self.call(set_ + "scratchpad_mode", attributes, USER_SCRATCHPAD)
        for arg in scaled:
            self.call(set_ + "scales_mask", attributes, arg, 0)
        if math_mode != "f32":
            self.call(set_ + "fpmath_mode", attributes, MATH_MODES[math_mode])
        chain = self.create(_Owned, "dnnl_post_ops_create") if post_ops else None
        for name, *values in post_ops:
            values = [1.0, 0, 0] if name == "sum" else values
            self.call(f"dnnl_post_ops_append_{name}", chain, *values)
        if chain is not None:
            self.call(set_ + "post_ops", attributes, chain)
        return attributes


_trim: Callable[[int], Any] | None
try:
    _trim = ctypes.CDLL(None).malloc_trim  # glibc keeps what is freed
except (AttributeError, OSError, TypeError):
    _trim = None


def _convert(value: Any) -> Any:
    """An argument as ctypes wants it."""
    if isinstance(value, Primitive):
        return value.desc
    if isinstance(value, _Owned):
        return value.handle
    if isinstance(value, tuple):
        return (ctypes.c_int64 * MAX_DIMS)(*value)
    if isinstance(value, float):
        return ctypes.c_float(value)
    if isinstance(value, int):
        return ctypes.c_int(value)
    return ctypes.c_void_p() if value is None else value


@functools.lru_cache(1)
def load_library() -> Library:
    """Load oneDNN: the one beside this Python, else what the system finds."""
    name = {"win32": "dnnl.dll", "darwin": "libdnnl.3.dylib"}.get(
        sys.platform, "libdnnl.so.3"
    )
    roots = filter(None, (sys.prefix, site.getuserbase(), sys.base_prefix))
    places = dict.fromkeys(Path(root, "lib", name) for root in roots)
    paths = [str(path) for path in places if path.exists()]
    problems = []
    for path in [*paths, name]:
        try:
            return Library(path)
        except (OSError, HandlerError) as error:
            problems.append(str(error))
    raise ImportError(
        f"{missing_extra('OneDnnHandler', 'oneDNN 3', 'onednn')}"
        f" ({'; '.join(problems)})"
    )

"""Launches of a program as CUDA graphs, each of which is started as one.

PyCUDA knows no graphs: they are made by functions of the driver's library.
"""

from __future__ import annotations

import ctypes
import functools
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from brainstorm.handlers.cuda.arrays import OperationError
from brainstorm.handlers.cuda.cublas import Cublas
from brainstorm.utils import HandlerError

DRIVER = "libcuda.so.1"
NON_BLOCKING = 1  # a stream that does not wait for the default one
RELAXED = 2  # what else happens, memory that is given back, say, spoils no capture
# What cuBLAS asks for since Hopper, in bytes.
WORKSPACE = 32 * 2**20
# Replays before a graph is made: of a size that hardly comes again none is.
REPLAYS = 2
POINTER = ctypes.c_void_p
FUNCTIONS = {
    "cuStreamBeginCapture_v2": (POINTER, ctypes.c_int),
    "cuStreamEndCapture": (POINTER, POINTER),
    "cuGraphInstantiateWithFlags": (POINTER, POINTER, ctypes.c_ulonglong),
    "cuGraphLaunch": (POINTER, POINTER),
    "cuGraphDestroy": (POINTER,),
    "cuGraphExecDestroy": (POINTER,),
    "cuGetErrorString": (ctypes.c_int, POINTER),
}

Call = Callable[[], Any]
Launch = tuple[str, tuple[Any, ...]]
"""Name of a method of a device, and its arguments."""
LAUNCHES = ("launch", "sgemm", "sgemm_batched")


class Graphs:
    """Makes graphs of launches. The GPU's context has to be active in all methods.

    Args:
        device: A :class:`~.device.PyCudaDevice`.
        stream: One of PyCUDA's, for nothing but this.

    Raises:
        HandlerError: The driver has no graphs, or there is no cuBLAS.
    """

    def __init__(self, device: Any, stream: Any):
        try:
            self._driver = ctypes.CDLL(DRIVER)
            for name, types in FUNCTIONS.items():
                getattr(self._driver, name).argtypes = types
        except (AttributeError, OSError) as error:
            raise HandlerError(f"the driver has no graphs ({error})") from error
        self._stream = stream
        self._handle = int(stream.handle)
        # One that nobody else uses, with memory of its own: it must not allocate any.
        self._cublas = Cublas()
        self._workspace = device.allocate(WORKSPACE)
        self._lock = threading.Lock()
        self._use(stream)

    def _use(self, stream: Any) -> None:
        """Have launches go to a stream, None for the default one."""
        self._now = stream
        handle = 0 if stream is None else self._handle
        self._cublas.use_stream(handle, int(self._workspace), WORKSPACE)

    # What a device has for the default stream

    def launch(self, kernel: Any, grid: Any, block: Any, arguments: bytes) -> None:
        """Start a kernel."""
        kernel._launch_kernel(grid, block, arguments, 0, self._now)

    def sgemm(self, *args: Any) -> None:
        """See `Cublas.sgemm`."""
        self._cublas.sgemm(*args)

    def sgemm_batched(self, *args: Any) -> None:
        """See `Cublas.sgemm_batched`."""
        self._cublas.sgemm_batched(*args)

    def rehearse(self, launches: Sequence[Launch]) -> None:
        """Make launches on the default stream, in the way that a graph would.

        So whatever is loaded or set up at the first use is so before a graph is made.
        """
        with self._lock:
            self._use(None)
            try:
                self._make(launches)
            finally:
                self._use(self._stream)

    def _make(self, launches: Sequence[Launch]) -> None:
        for name, args in launches:
            getattr(self, name)(*args)

    def capture(self, launches: Sequence[Launch]) -> int:
        """Make a graph; nothing is computed.

        Args:
            launches: What it starts, by the methods above.

        Returns:
            Its handle, for `run` and `destroy`.

        Raises:
            HandlerError: It could not be made.
        """
        graph, executable = POINTER(), POINTER()
        try:
            with self._lock:
                self._do("cuStreamBeginCapture_v2", self._handle, RELAXED)
                try:
                    self._make(launches)
                finally:
                    place = ctypes.byref(graph)
                    ended = self._driver.cuStreamEndCapture(self._handle, place)
            self._check("cuStreamEndCapture", ended)
            how = (ctypes.byref(executable), graph, 0)
            self._do("cuGraphInstantiateWithFlags", *how)
        finally:
            if graph:
                self._do("cuGraphDestroy", graph)
        assert executable.value is not None
        return executable.value

    def run(self, executable: int) -> None:
        """Start a graph on the default stream."""
        status = self._driver.cuGraphLaunch(executable, None)
        if status:
            self._check("cuGraphLaunch", status)

    def destroy(self, executable: int) -> None:
        """Give back what a graph takes."""
        self._driver.cuGraphExecDestroy(executable)

    def _do(self, name: str, *args: Any) -> None:
        self._check(name, getattr(self._driver, name)(*args))

    def _check(self, name: str, status: int) -> None:
        if status:
            text = ctypes.c_char_p()
            self._driver.cuGetErrorString(status, ctypes.byref(text))
            known = (text.value or b"unknown error").decode()
            raise OperationError(f"{name} failed: {known} ({status})")


class Graph:
    """Launches that are made one by one at first, and as a graph when they come again.

    Args:
        device: A :class:`~.device.PyCudaDevice`.
        calls: The calls that it stands for.
        launches: What those of them do that are launches.
        others: The others.
    """

    def __init__(
        self,
        device: Any,
        calls: list[Call],
        launches: list[Launch],
        others: list[Call],
    ):
        self._device = device
        self._calls = calls
        self._launches = launches
        self._others = others
        self._replays = 0
        self._executable: int | None = None

    def __call__(self) -> None:
        if self._executable is None and not self._is_due():
            for call in self._calls:
                call()
            return
        for call in self._others:
            call()
        if self._executable is None:
            self._device.rehearse_graph(self._launches)
            self._make()
        else:
            self._device.run_graph(self._executable)

    def _is_due(self) -> bool:
        """Whether the graph is to be made by this replay."""
        self._replays += 1
        return self._replays > REPLAYS and self._device.has_graphs()

    def _make(self) -> None:
        device = self._device
        try:
            self._executable = device.make_graph(self._launches)
        except HandlerError as error:
            device.refuse_graphs(error)
        else:
            end = weakref.finalize(self, device.destroy_graph, self._executable)
            end.atexit = False


def with_graphs(
    device: Any, of_host: Call, calls: Sequence[Call]
) -> Iterator[tuple[int, Call]]:
    """Put graphs in place of neighbouring launches.

    Args:
        device: A :class:`~.device.PyCudaDevice`.
        of_host: A function that does nothing to the GPU, and may be called earlier.
        calls: Leaf calls.

    Yields:
        Calls to be made instead, each with the number of calls that it stands for.
    """
    part: list[Call] = []
    launches: list[Launch] = []
    others: list[Call] = []

    def ended() -> Iterator[tuple[int, Call]]:
        if len(launches) > 1:
            yield len(part), Graph(device, part, launches, others)
        else:
            yield from ((1, call) for call in part)

    for call in calls:
        launch = _as_launch(device, call)
        if launch is not None:
            launches.append(launch)
        elif getattr(call, "func", None) == of_host:
            others.append(call)
        else:
            yield from ended()
            yield 1, call
            part, launches, others = [], [], []
            continue
        part.append(call)
    yield from ended()


def _as_launch(device: Any, call: Any) -> Launch | None:
    if isinstance(call, functools.partial):
        for name in LAUNCHES:
            if call.func == getattr(device, name):
                return name, call.args
    return None

"""The GPU, through PyCUDA."""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from brainstorm.handlers.cuda.arrays import ITEM, OperationError
from brainstorm.handlers.cuda.compiler import cached_cubin, renew_cubin
from brainstorm.handlers.cuda.cublas import open_cublas
from brainstorm.handlers.cuda.graphs import NON_BLOCKING, Graphs, Launch
from brainstorm.utils import HandlerError, missing_extra

REMEDY = (
    "It needs an Nvidia GPU with its driver (does nvidia-smi list it?); in a container"
    " the GPU has to be passed through"
)


# In which the launchers of MPI tell a process its number among those of its machine.
PLACES = [
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "MPI_LOCALRANKID",
    "MV2_COMM_WORLD_LOCAL_RANK",
    "PALS_LOCAL_RANKID",
    "SLURM_LOCALID",
]


def _place_on_node() -> int:
    places = (os.environ.get(name, "") for name in PLACES)
    return next((int(place) for place in places if place.isdecimal()), 0)


class _Allocation:
    """Memory that is freed with the context active, in whatever thread that is."""

    def __init__(self, device: PyCudaDevice, memory: Any):
        self._device = device
        self._memory = memory

    def __int__(self) -> int:
        return int(self._memory)

    def __del__(self) -> None:
        with self._device._active():
            self._memory.free()


class PyCudaDevice:
    """Memory, kernels and matrix products of the first GPU.

    Which one is first can be chosen with the environment variable
    ``CUDA_VISIBLE_DEVICES``. Of several processes that MPI has started on one machine
    each takes the next one. All work goes to the default stream of the primary
    context, which other libraries in the process share.

    Attributes:
        name (str): Name of the GPU.
        max_blocks (int): More blocks of a kernel than that do not help.

    Raises:
        ImportError: PyCUDA is not installed, or its libraries are missing.
        HandlerError: There is no GPU, no compiler or no cuBLAS.
    """

    def __init__(self) -> None:
        self._driver = _import_driver()
        try:
            self._driver.init()
            count = self._driver.Device.count()
            if count == 0:
                raise HandlerError(f"PyCudaHandler found no GPU. {REMEDY}")
            device = self._driver.Device(_place_on_node() % count)
            self._context = device.retain_primary_context()
        except self._driver.Error as error:
            raise HandlerError(
                f"PyCudaHandler can not use the GPU: {error}. {REMEDY}"
            ) from error
        self.name: str = device.name()
        self.max_blocks: int = 16 * device.multiprocessor_count
        self._graphs: Graphs | None = None
        self._refuses_graphs = False
        self._enter()
        with self._active():
            self._module = self._load("sm_{}{}".format(*device.compute_capability()))
            self._cublas = open_cublas()

    # -- context -------------------------------------------------------------

    def _enter(self) -> None:
        """Make the context current in the main thread, for good.

        In other threads it is so during each call: PyCUDA wants them to end without
        a context.
        """
        self._home = threading.main_thread().ident
        if threading.get_ident() == self._home:
            self._context.push()
            atexit.register(self._context.pop)
        else:
            self._home = None

    @contextlib.contextmanager
    def _active(self) -> Iterator[None]:
        if threading.get_ident() == self._home:
            yield
            return
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def _guarded(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function of the driver."""
        try:
            with self._active():
                return function(*args)
        except self._driver.MemoryError as error:
            raise OperationError(f"the GPU is out of memory ({error})") from error
        except self._driver.Error as error:
            raise _failure(error) from error

    # -- kernels -------------------------------------------------------------

    def _load(self, arch: str) -> Any:
        try:
            return self._driver.module_from_buffer(cached_cubin(arch))
        except self._driver.Error:
            # What was in the cache may be damaged.
            return self._guarded(self._driver.module_from_buffer, renew_cubin(arch))

    def kernel(self, name: str) -> Any:
        """What `launch` wants to have for a kernel."""
        return self._guarded(self._module.get_function, name)

    def launch(self, kernel: Any, grid: Any, block: Any, arguments: bytes) -> None:
        """Start a kernel."""
        # What Function.prepared_call does, without packing the arguments each time.
        if threading.get_ident() != self._home:
            self._guarded(kernel._launch_kernel, grid, block, arguments, 0, None)
            return
        try:
            kernel._launch_kernel(grid, block, arguments, 0, None)
        except self._driver.Error as error:
            raise _failure(error) from error

    def sgemm(self, *args: Any) -> None:
        """See `Cublas.sgemm`."""
        if threading.get_ident() == self._home:
            self._cublas.sgemm(*args)
        else:
            self._guarded(self._cublas.sgemm, *args)

    def sgemm_batched(self, *args: Any) -> None:
        """See `Cublas.sgemm_batched`."""
        self._guarded(self._cublas.sgemm_batched, *args)

    # -- graphs --------------------------------------------------------------

    def has_graphs(self) -> bool:
        """Whether graphs can be made, as far as is known."""
        if self._graphs is None and not self._refuses_graphs:
            try:
                self._graphs = self._guarded(self._open_graphs)
            except HandlerError as error:
                self.refuse_graphs(error)
        return not self._refuses_graphs

    def _open_graphs(self) -> Graphs:
        return Graphs(self, self._driver.Stream(NON_BLOCKING))

    def refuse_graphs(self, error: Exception) -> None:
        """Warn of what has failed, and make no graphs from now on."""
        self._refuses_graphs = True
        text = "CUDA graphs do not work here; kernels are launched one by one"
        warnings.warn(f"{text}: {error}", RuntimeWarning, stacklevel=2)

    def rehearse_graph(self, launches: Sequence[Launch]) -> None:
        """See `Graphs.rehearse`."""
        self._guarded(self._made_graphs.rehearse, launches)

    def make_graph(self, launches: Sequence[Launch]) -> int:
        """See `Graphs.capture`."""
        return self._guarded(self._made_graphs.capture, launches)

    @property
    def _made_graphs(self) -> Graphs:
        assert self._graphs is not None, "has_graphs() comes first"
        return self._graphs

    def run_graph(self, graph: int) -> None:
        """See `Graphs.run`."""
        if threading.get_ident() == self._home:
            self._made_graphs.run(graph)
        else:
            self._guarded(self._made_graphs.run, graph)

    def destroy_graph(self, graph: int) -> None:
        """See `Graphs.destroy`."""
        self._guarded(self._made_graphs.destroy, graph)

    # -- memory --------------------------------------------------------------

    def allocate(self, size: int) -> Any:
        """Allocate bytes; ``int`` of what is returned is their address."""
        try:
            return _Allocation(self, self._guarded(self._driver.mem_alloc, size))
        except OperationError as error:
            raise OperationError(f"can not allocate {size} bytes: {error}") from error

    def host_memory(self, shape: tuple[int, ...]) -> np.ndarray:
        """Page-locked memory of the host."""
        size = math.prod(shape)
        if not size:
            return np.empty(shape, ITEM)
        return self._guarded(self._driver.pagelocked_empty, shape, ITEM)

    def wait(self) -> None:
        """Wait until the GPU has done all that it was told."""
        self._guarded(self._driver.Context.synchronize)

    def write(self, address: int, values: np.ndarray) -> None:
        """Copy a contiguous array to the GPU."""
        self._guarded(self._driver.memcpy_htod, address, values)

    def read(self, values: np.ndarray, address: int) -> None:
        """Copy from the GPU to a contiguous array, when all before is done."""
        self._guarded(self._driver.memcpy_dtoh, values, address)


def _failure(error: Exception) -> OperationError:
    return OperationError(f"the GPU failed, now or in an operation before: {error}")


def _import_driver() -> Any:
    try:
        import pycuda.driver as driver
    except ModuleNotFoundError as error:
        raise missing_extra("PyCudaHandler", "PyCUDA", "pycuda") from error
    except ImportError as error:
        raise ImportError(
            f"PyCudaHandler can not load PyCUDA: {error}. {REMEDY}, and the CUDA"
            " libraries that PyCUDA was built with on the library path"
        ) from error
    return driver

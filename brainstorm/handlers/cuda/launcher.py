"""Allocating arrays on a GPU and launching kernels on them."""

from __future__ import annotations

import math
import struct
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from brainstorm.handlers.cuda.arrays import MOST, CudaArray, OperationError, place_of
from brainstorm.handlers.cuda.compiler import kernel_parameters, kernel_source
from brainstorm.handlers.operations.memory import Randomness, Workspace
from brainstorm.utils import HandlerError

Shape: TypeAlias = tuple[int, ...]
Grid: TypeAlias = tuple[int, int]
Block: TypeAlias = tuple[int, int, int]
BLOCK = 256
MAX_PLANS = 2**15
MAX_ARRAYS = 6
FORMATS = {
    "pointer": "P",
    "int": "i",
    "unsigned": "I",
    "long long": "q",
    "float": "f",
    "Pieces": "16P16q",
    "Images": "Pqqq",
    "Windows": "13i",
    "Sequence": "Pqq",
    "Step": "iiiPqq",
    "Cells": "Pqq" * 10,
    "GruCells": "Pqq" * 7,
}
SCALARS = "qP7fIII"
ZEROS = (0.0,) * 7
FLAT = struct.Struct("q6P" + SCALARS)
STRIDED = struct.Struct("3i4x18q6P" + SCALARS)
FAILURE = np.dtype(
    [("operation", "i4"), ("limit", "i4"), ("value", "f4"), ("not_finite", "i4")]
)
FAILURES = {
    1: "softmax_ce_forward: class indices have to be integers from 0 to {}, got {!r}",
    2: "binarize_v: indices have to be integers from 0 to {}, got {!r}",
    3: "index_m_by_v: indices have to be integers from 0 to {}, got {!r}",
    4: "recurrent_forward or lstm_forward: timings have to be at least {}, got {!r}",
    5: "take_rows: indices have to be integers from 0 to {}, got {!r}",
    6: "ctc_forward: labels have to be whole numbers from 1 to {}, or 0 for none, got"
    " {!r}",
    7: "ctc_forward: a sequence of {} steps has labels that take {:.0f} (those that"
    " repeat the one before take two)",
    8: "add_to_rows: indices have to be integers from 0 to {}, got {!r}",
    9: "softmax_ce_backward: class indices have to be integers from 0 to {}, got {!r}",
}


Axis = tuple[int, tuple[int, ...]]  # size, and the stride of each array


NO_RANDOMNESS = Randomness()


class _Launch(NamedTuple):
    """One launch of an elementwise kernel, but for addresses and scalars."""

    kernel: Any
    grid: Grid
    arguments: struct.Struct
    head: tuple[int, ...]
    offsets: tuple[int, ...]
    first: int


class _Memory:
    """Owns memory; its arrays refer to it."""

    def __init__(self, launcher: Launcher, allocation: Any):
        self.launcher = launcher
        self.allocation = allocation

    def copy(self, array: CudaArray) -> CudaArray:
        """A dense copy of an array."""
        dense = self.launcher.allocate(array.shape)
        self.launcher.elementwise("copy_to", (array, dense))
        return dense


class _Workspace(Workspace):
    """Memory for temporaries, and what went wrong, for each thread its own.

    Attributes:
        failure (int): Address of what kernels note; see `FAILURE`.
        may_have_failed (bool): Whether they may have noted anything.
    """

    def __init__(self, launcher: Launcher) -> None:
        super().__init__()
        self._noted = launcher.allocate((FAILURE.itemsize // CudaArray.dtype.itemsize,))
        self.failure = self._noted.pointer
        launcher.device.write(self.failure, np.zeros(1, FAILURE))
        self.may_have_failed = False


class Launcher:
    """Runs kernels of this package on a :class:`~.device.PyCudaDevice`."""

    def __init__(self, device: Any):
        self.device = device
        self.parameters: dict[str, list[str]] = kernel_parameters(kernel_source())
        self._kernels: dict[str, Any] = {}
        self._structs: dict[str, struct.Struct] = {}
        self._plans: dict[Any, tuple[_Launch, ...]] = {}
        self.users: set[Any] = set()  # networks' memory, see `Handler.release_after`
        self._workspace = _Workspace(self)
        self._staging: weakref.WeakKeyDictionary[CudaArray, np.ndarray] = (
            weakref.WeakKeyDictionary()
        )

    # -- memory --------------------------------------------------------------

    def allocate(self, shape: tuple[int, ...]) -> CudaArray:
        """A new array with arbitrary content."""
        size = math.prod(shape)
        allocation = self.device.allocate(max(size, 1) * CudaArray.dtype.itemsize)
        return CudaArray.on(_Memory(self, allocation), int(allocation), shape)

    def scratch(self, shape: tuple[int, ...], slot: Any) -> CudaArray:
        """A temporary array; see `Handler.scratch`."""
        workspace = self._workspace
        try:
            return workspace.views[slot, shape]
        except KeyError:
            return workspace.grow(slot, shape, self.allocate)

    def release(self) -> None:
        """Free this thread's temporary arrays, and forget what is prepared."""
        workspace = self._workspace
        workspace.buffers.clear()
        workspace.views.clear()
        self._plans.clear()

    def write(self, array: CudaArray, values: np.ndarray) -> None:
        """Copy float32 values of the same shape to the GPU."""
        if not array.size:
            return
        dense = array if array.contiguous else self.scratch(array.shape, "moved")
        self.device.write(dense.pointer, np.ascontiguousarray(values))
        if dense is not array:
            self.elementwise("copy_to", (dense, array))

    def read(self, array: CudaArray, values: np.ndarray | None = None) -> np.ndarray:
        """A copy of the values, in a new array or the given one."""
        if values is None:
            values = np.empty(array.shape, CudaArray.dtype)
        if array.size:
            self.device.read(values, self.dense(array, "moved").pointer)
        return values

    def staged(self, array: CudaArray) -> np.ndarray:
        """A copy in page-locked memory of the host, for this array the same each time.

        The GPU reads and writes that without the processor.
        """
        values = self._staging.get(array)
        if values is None:
            values = self._staging[array] = self.device.host_memory(array.shape)
        return self.read(array, values)

    def dense(self, array: CudaArray, slot: Any) -> CudaArray:
        """The array itself if it is contiguous, else a copy in a temporary."""
        if array.contiguous:
            return array
        copy = self.scratch(array.shape, slot)
        self.elementwise("copy_to", (array, copy))
        return copy

    # -- failures ------------------------------------------------------------

    @property
    def failure(self) -> int:
        """Where kernels of this thread note failures; see `expect_failure`."""
        return self._workspace.failure

    def expect_failure(self) -> None:
        """Have `raise_failure` look whether kernels of this thread noted any."""
        self._workspace.may_have_failed = True

    def raise_failure(self) -> None:
        """Raise what a kernel of this thread found wrong, if anything; forget it."""
        if self._workspace.may_have_failed:
            self._workspace.may_have_failed = False
            failure = self._take_failure()
            if failure["operation"]:
                text = FAILURES[int(failure["operation"])]
                found = float(failure["value"])
                raise HandlerError(text.format(int(failure["limit"]), found))

    def is_fully_finite(self, array: CudaArray) -> bool:
        """Whether an array has neither NaN nor infinity in it."""
        self.raise_failure()
        self.elementwise("find_not_finite", (array,))
        return not self._take_failure()["not_finite"]

    def _take_failure(self) -> Any:
        """What the kernels have noted; it is reset."""
        noted, address = np.zeros(1, FAILURE), self._workspace.failure
        self.device.read(noted, address)
        if noted["operation"][0] or noted["not_finite"][0]:
            self.device.write(address, np.zeros(1, FAILURE))
        return noted[0]

    # -- kernels -------------------------------------------------------------

    def kernel(self, name: str) -> Any:
        """The device's kernel of that name."""
        if name not in self._kernels:
            self._kernels[name] = self.device.kernel(name)
        return self._kernels[name]

    def launch(self, name: str, grid: Grid, block: Block, *arguments: Any) -> None:
        """Launch a kernel; see `prepare`."""
        self.device.launch(*self.prepare(name, grid, block, *arguments))

    def prepare(
        self, name: str, grid: Grid, block: Block, *arguments: Any
    ) -> tuple[Any, ...]:
        """What ``device.launch`` has to be given to launch a kernel.

        Its arguments are numbers, and arrays, each of which stands for what `place_of`
        gives; None stands for a missing matrix.
        """
        flat: list[Any] = []
        for argument in arguments:
            if argument.__class__ is CudaArray:
                flat += place_of(argument)
            elif argument is None:
                flat += (0, 0)
            else:
                flat.append(argument)
        if name not in self._structs:
            types = self.parameters[name]
            form = "".join([_aligned(FORMATS[t]) for t in types])
            self._structs[name] = struct.Struct(form)
        try:
            packed = self._structs[name].pack(*flat)
        except struct.error as error:
            raise OperationError(_refused(tuple(flat), error)) from error
        return self.kernel(name), grid, block, packed

    def over(self, count: int) -> Grid:
        """A grid of blocks of `BLOCK` threads for so many elements."""
        return min(-(-count // BLOCK), self.device.max_blocks), 1

    def elementwise(
        self,
        name: str,
        arrays: tuple[CudaArray, ...],
        *scalars: float,
        randomness: Randomness = NO_RANDOMNESS,
    ) -> None:
        """Launch a kernel that ``ELEMENTWISE`` defines, with at most seven scalars.

        Sizes of 1 of its arrays are repeated.
        """
        how = {"randomness": randomness}
        for arguments in self.prepare_elementwise(name, arrays, *scalars, **how):
            self.device.launch(*arguments)

    def prepare_elementwise(
        self,
        name: str,
        arrays: tuple[CudaArray, ...],
        *scalars: float,
        randomness: Randomness = NO_RANDOMNESS,
    ) -> Iterator[tuple[Any, ...]]:
        """What ``device.launch`` has to be given for `elementwise`, for each launch."""
        key = (name, *[array.layout for array in arrays])
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            plan = self._plans[key] = self._plan(name, arrays)
        pointers = [array.pointer for array in arrays]
        pointers += pointers[:1] * (MAX_ARRAYS - len(arrays))
        seed, call = randomness
        failure = self._workspace.failure
        for launch in plan:
            places = pointers
            if launch.offsets:
                places = [p + o for p, o in zip(pointers, launch.offsets, strict=True)]
            try:
                packed = launch.arguments.pack(
                    *launch.head,
                    *places,
                    launch.first,
                    failure,
                    *scalars,
                    *ZEROS[len(scalars) :],
                    seed,
                    call & 0xFFFFFFFF,
                    call >> 32,
                )
            except struct.error as error:
                raise OperationError(_refused(scalars, error)) from error
            yield launch.kernel, launch.grid, (BLOCK, 1, 1), packed

    def _plan(self, name: str, arrays: tuple[CudaArray, ...]) -> tuple[_Launch, ...]:
        shape = np.broadcast_shapes(*[array.shape for array in arrays])
        if 0 in shape:
            return ()
        strides = [_repeated(array, shape) for array in arrays]
        strides += [(0,) * len(shape)] * (MAX_ARRAYS - len(arrays))
        axes = _merged(shape, strides)
        used = len(arrays)
        if not axes or (len(axes) == 1 and axes[0][1][:used] == (1,) * used):
            count = math.prod(shape)
            kernel, grid = self.kernel(name), self.over(count)
            return (_Launch(kernel, grid, FLAT, (count,), (), 0),)
        name, offsets = name + "_strided", (0,) * MAX_ARRAYS
        return tuple(self._strided_launches(name, axes, offsets, 0))

    def _strided_launches(
        self, name: str, axes: list[Axis], offsets: tuple[int, ...], first: int
    ) -> list[_Launch]:
        """Launches for all elements; more than three axes need one for each index."""
        count = math.prod([size for size, _ in axes])
        if len(axes) <= 3 and count <= MOST:
            padded = [(1, (0,) * MAX_ARRAYS)] * (3 - len(axes)) + axes
            sizes = [size for size, _ in padded]
            strides = [padded[d][1][k] for k in range(MAX_ARRAYS) for d in range(3)]
            kernel, grid, head = self.kernel(name), self.over(count), (*sizes, *strides)
            return [_Launch(kernel, grid, STRIDED, head, offsets, first)]
        (size, each_stride), *inner = axes
        launches = []
        for i in range(size):
            step, start = i * CudaArray.dtype.itemsize, first + i * (count // size)
            pairs = zip(offsets, each_stride, strict=True)
            moved = tuple([offset + step * stride for offset, stride in pairs])
            launches += self._strided_launches(name, inner, moved, start)
        return launches


def _refused(numbers: tuple[Any, ...], error: Exception) -> str:
    if all(isinstance(n, (int, float, np.number)) for n in numbers):
        return f"numbers are too large for a kernel ({error}), got {numbers}"
    return f"expected numbers, got {numbers}"


def _aligned(item: str) -> str:
    """A struct's format, so that the struct module aligns it as C++ does."""
    return f"0P{item}0P" if "P" in item else item


def _repeated(array: CudaArray, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides with which an array has a shape, where it repeats its sizes of 1."""
    missing = len(shape) - len(array.shape)
    return (0,) * missing + tuple(
        [0 if n == 1 else s for n, s in zip(array.shape, array.strides, strict=True)]
    )


def _merged(shape: Shape, strides: list[tuple[int, ...]]) -> list[Axis]:
    """The fewest axes with the same elements in the same order: sizes and strides."""
    axes: list[Axis] = []
    for size, steps in zip(shape, zip(*strides, strict=True), strict=True):
        if size == 1:
            continue
        if axes and all(
            outer == step * size for outer, step in zip(axes[-1][1], steps, strict=True)
        ):
            axes[-1] = (axes[-1][0] * size, steps)
        else:
            axes.append((size, steps))
    return axes


def row_blocks(rows: int, cols: int) -> tuple[Grid, Block]:
    """Grid and block for kernels in which a row of threads works on each row."""
    threads = 16
    while threads < cols and threads < BLOCK:
        threads *= 2
    block = (threads, BLOCK // threads, 1)
    return (-(-rows // block[1]), 1), block


def column_blocks(cols: int, chunks: int) -> tuple[int, int]:
    """Grid for kernels with blocks (32, 8) that work on 32 columns."""
    return -(-cols // 32), chunks

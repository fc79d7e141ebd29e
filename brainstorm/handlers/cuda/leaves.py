"""Leaf calls of operations on a GPU, which replays of programs make by themselves."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from brainstorm.handlers.cuda.arrays import (
    MOST,
    CudaArray,
    OperationError,
    sequence,
    vector,
)
from brainstorm.handlers.cuda.launcher import (
    BLOCK,
    Block,
    Grid,
    Launcher,
    Shape,
    row_blocks,
)
from brainstorm.handlers.operations.memory import MemoryOperations
from brainstorm.handlers.programs import Variable


class Leaf(NamedTuple):
    """A prepared call of the device, with the arrays whose memory it uses."""

    function: Callable[..., None]
    arguments: tuple[Any, ...]
    arrays: Any

    @property
    def leaves(self) -> list[Callable[[], None]]:
        """What replays of programs call instead."""
        return [functools.partial(self.function, *self.arguments)]

    def __call__(self) -> None:
        self.function(*self.arguments)


class CudaLeaves(MemoryOperations):
    """Part of PyCudaHandler."""

    _gpu: Launcher

    def _elementwise(
        self, name: str, arrays: tuple[CudaArray, ...], *scalars: Any
    ) -> None:
        """Launch a kernel that ``ELEMENTWISE`` defines, see `Launcher.elementwise`."""
        gpu = self._gpu
        if any(isinstance(scalar, Variable) for scalar in scalars):
            self.do(gpu.elementwise, name, arrays, *scalars)
            return
        for arguments in gpu.prepare_elementwise(name, arrays, *scalars):
            self.do(Leaf(gpu.device.launch, arguments, arrays))

    def _leaf(self, name: str, *args: Any) -> None:
        # Each of these parts makes leaf calls of its own.
        getattr(self, name)(*args)

    def _launch(
        self, kernel: str, grid: Grid, block: Block, *arguments: Any, arrays: Any = None
    ) -> None:
        """Launch a kernel, see `Launcher.prepare`.

        Args:
            kernel: Its name.
            grid: Number of blocks.
            block: Number of threads in a block.
            *arguments: Arrays and numbers.
            arrays: Those arrays whose addresses are among the numbers.
        """
        gpu = self._gpu
        prepared = gpu.prepare(kernel, grid, block, *arguments)
        self.do(Leaf(gpu.device.launch, prepared, (arguments, arrays)))

    def _launch_for_each(
        self, kernel: str, count: int, *arguments: Any, arrays: Any = None
    ) -> None:
        """Launch a kernel that gives each of so many elements to a thread."""
        if count > MOST:
            raise OperationError(f"arrays of at most {MOST} elements are possible")
        if count:
            grid, block = self._gpu.over(count), (BLOCK, 1, 1)
            self._launch(kernel, grid, block, *arguments, arrays=arrays)

    def _launch_by_rows(self, kernel: str, shape: Shape, *arguments: Any) -> None:
        """Launch a kernel in which a row of threads works on each row of matrices."""
        if shape[0]:
            self._launch(kernel, *row_blocks(*shape), *arguments)

    def _failure(self) -> int:
        """Where the kernel to be launched next notes failures, for reads to tell."""
        self.do(self._gpu.expect_failure)
        return self._gpu.failure

    def _dense(self, array: CudaArray, slot: Any) -> CudaArray:
        """The array itself if it is contiguous, else a copy in a temporary."""
        if array.contiguous:
            return array
        copy = self.scratch(array.shape, slot)
        self._elementwise("copy_to", (array, copy))
        return copy

    def _launch_step(
        self,
        kernel: str,
        t: int,
        y: CudaArray,
        kept: CudaArray | None,
        *arguments: Any,
    ) -> None:
        """Launch a kernel for a step of all units of all sequences.

        Args:
            kernel: Its name. Its first parameter is a struct Step, its last one is t.
            t: Number of the step.
            y: (U, B, N), or an array like it.
            kept: Zero where units are updated, or None.
            *arguments: Numbers, arrays, records of arrays, and None in place of these.
        """
        rows, batch, units = y.shape
        if batch * units:
            places = [rows - 1, batch, units, *_places("Sequence", kept)]
            types = self._gpu.parameters[kernel][1:-1]
            for kind, argument in zip(types, arguments, strict=True):
                places += _places(kind, argument)
            grid, block = self._gpu.over(batch * units), (BLOCK, 1, 1)
            self._launch(kernel, grid, block, *places, t, arrays=(kept, arguments))


def _places(kind: str, argument: Any) -> tuple[int, ...]:
    """An argument as a kernel's parameter of some type takes it."""
    if kind == "pointer":
        return (0 if argument is None else vector(argument),)
    if kind in ("int", "float"):
        return (argument,)
    arrays = argument if isinstance(argument, tuple) else (argument,)
    return sum(map(sequence, arrays), ())

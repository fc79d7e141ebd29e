"""Leaky integration and spiking neurons on a GPU: a thread for each unit."""

from __future__ import annotations

from typing import Any

from brainstorm.handlers.cuda.arrays import CudaArray, sequence
from brainstorm.handlers.cuda.launcher import BLOCK
from brainstorm.handlers.cuda.leaves import CudaLeaves
from brainstorm.handlers.operations.spiking import SpikingOperations


class CudaSpiking(CudaLeaves, SpikingOperations):
    """Part of PyCudaHandler."""

    def step_t(self, a: Any, threshold: float, out: Any) -> None:
        self._gpu.elementwise("step_t", (a, out), threshold)

    def _recur(self, factors, source, values, first, count, direction) -> None:
        if count < 1:
            return
        along_time = sequence if len(factors.shape) == 3 else _matrix
        arrays = (sequence(values), sequence(source), along_time(factors))
        arguments = (*arrays, values.shape[0], first, count, direction)
        self._for_units("recur", values, *arguments)

    def _integrate(self, first, last, cells, a, neuron, more=None, gain=None) -> None:
        if neuron.smooth:
            super()._integrate(first, last, cells, a, neuron, more, gain)
            return
        arrays = (*map(sequence, cells), *map(_address, (a, more, gain)))
        drop = neuron.reset_to - neuron.threshold
        self._for_units(
            *("integrate", cells.u, *arrays, cells.u.shape[0], first, last),
            *(neuron.threshold, neuron.reset_to, drop),
            *(int(neuron.hard), float(neuron.frozen_steps)),
        )

    def _integrate_back(
        self, du, later, factors, slope, more, frozen, gain, currents
    ) -> None:
        arrays = map(_matrix, (du, later, factors, slope, more, frozen, gain, currents))
        self._for_units("integrate_back", factors, *arrays)

    def _for_units(self, kernel: str, like: CudaArray, *arguments: Any) -> None:
        """Launch a kernel with a thread for each unit of each sequence."""
        batch, units = like.shape[-2:]
        if not batch * units:
            return
        flat = [
            part
            for argument in arguments
            for part in (argument if isinstance(argument, tuple) else (argument,))
        ]
        grid = self._gpu.over(batch * units)
        self._gpu.launch(kernel, grid, (BLOCK, 1, 1), batch, units, *flat)


def _matrix(array: CudaArray | None) -> tuple[int, int, int]:
    """The kernels' struct Sequence for (B, N), the same in all steps."""
    return (0, 0, 0) if array is None else (array.pointer, 0, array.strides[0])


def _address(array: CudaArray | None) -> int:
    """That of a temporary (B, N), which has no gaps."""
    return 0 if array is None else array.pointer

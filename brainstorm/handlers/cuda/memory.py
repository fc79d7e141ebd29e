"""Making arrays, moving what is in them, and random numbers, on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from brainstorm.handlers.cuda.arrays import CudaArray
from brainstorm.handlers.cuda.launcher import BLOCK
from brainstorm.handlers.cuda.leaves import CudaLeaves
from brainstorm.handlers.operations.memory import MemoryOperations, check_shape, numbers
from brainstorm.literals import Overlap
from brainstorm.utils import HandlerError

# As many arrays as the kernels' struct Pieces holds.
_PIECES = 16


class CudaMemory(CudaLeaves, MemoryOperations):
    """Part of PyCudaHandler."""

    def allocate(self, shape: tuple[int, ...]) -> Any:
        return self._filled(shape, 0.0)

    def ones(self, shape: tuple[int, ...]) -> Any:
        return self._filled(shape, 1.0)

    def zeros(self, shape: tuple[int, ...]) -> Any:
        return self._filled(shape, 0.0)

    def _filled(self, shape: tuple[int, ...], value: float) -> CudaArray:
        array = self._gpu.allocate(shape)
        self._gpu.elementwise("fill", (array,), value)
        return array

    def scratch(self, shape: tuple[int, ...], slot: Any = 0) -> Any:
        return self._gpu.scratch(shape, slot)

    def overlap(self, a: Any, b: Any) -> Overlap:
        return super().overlap(a._places, b._places)

    def create_from_numpy(self, arr: np.ndarray) -> Any:
        values = _float32(arr)
        array = self._gpu.allocate(values.shape)
        self._gpu.write(array, values)
        return array

    def get_numpy_copy(self, mem: Any) -> np.ndarray:
        values = self._gpu.read(mem)
        self._gpu.raise_failure()
        return values

    def set_from_numpy(self, mem: Any, arr: np.ndarray) -> None:
        values = _float32(arr)
        check_shape(values, mem)
        self._gpu.write(mem, values)

    def clear(self, *arrays: Any) -> None:
        if not all(array.contiguous for array in arrays):
            super().clear(*arrays)
            return
        filled = [array for array in arrays if array.size]
        for start in range(0, len(filled), _PIECES):
            part = filled[start : start + _PIECES]
            unused = (0,) * (_PIECES - len(part))
            sizes = [array.size for array in part]
            self._launch(
                "clear",
                (self._gpu.over(max(sizes))[0], len(part)),
                (BLOCK, 1, 1),
                *(*[array.pointer for array in part], *unused, *sizes, *unused),
                arrays=part,
            )

    def is_fully_finite(self, a: Any) -> bool:
        return self._gpu.is_fully_finite(a)

    def broadcast_t(self, a: Any, axis: int, out: Any) -> None:
        self._elementwise("copy_to", (a, out))

    def merge_tt(self, a: Any, b: Any, out: Any) -> None:
        cut = a.shape[-1]
        self._elementwise("copy_to", (a, out[..., :cut]))
        self._elementwise("copy_to", (b, out[..., cut:]))

    def split_add_tt(self, x: Any, out_a: Any, out_b: Any) -> None:
        cut = out_a.shape[-1]
        self._elementwise("add_tt", (x[..., :cut], out_a, out_a))
        self._elementwise("add_tt", (x[..., cut:], out_b, out_b))


def _float32(arr: Any) -> np.ndarray:
    if isinstance(arr, CudaArray):
        raise HandlerError("expected a NumPy array, got one on the GPU")
    return np.asarray(numbers(arr), np.float32)

"""Convolution and pooling for PyCudaHandler.

Convolution copies the windows that slide over the images into the rows of a matrix,
and multiplies that by the kernels (Chellapilla et al., *High performance
convolutional neural networks for document processing*, 2006): all images at once, as
far as the matrix fits into the memory set aside for it. The gradients of the kernels
are few sums over all windows: these are cut into a batch of products, see products.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from brainstorm.handlers.cuda.arrays import CudaArray
from brainstorm.handlers.cuda.launcher import row_blocks
from brainstorm.handlers.cuda.products import CudaProducts
from brainstorm.handlers.operations.images import ImageOperations, Windows

# Elements of the largest matrix of windows: 512 MiB.
MATRIX_SIZE = 2**27


class _Windows(NamedTuple):
    """The kernels' struct of the same name."""

    height: int
    width: int
    channels: int
    out_height: int
    out_width: int
    window_height: int
    window_width: int
    stride_y: int
    stride_x: int
    padding_y: int
    padding_x: int
    dilation_y: int
    dilation_x: int

    @classmethod
    def of(cls, images: CudaArray, outputs: CudaArray, windows: Windows) -> _Windows:
        """Those that slide over images, one for each pixel of the outputs."""
        shapes = *images.shape[1:], *outputs.shape[1:3], *windows.size
        where = *windows.stride, *windows.before, *windows.dilation
        return cls._make((*shapes, *where))

    @property
    def row_length(self) -> int:
        """Number of elements in a window."""
        return self.window_height * self.window_width * self.channels


class CudaImages(CudaProducts, ImageOperations):
    """Part of PyCudaHandler. Images are (N, H, W, C)."""

    # -- convolution ---------------------------------------------------------

    def _convolve(self, inputs, weights, bias, outputs, windows, activation):
        if windows.groups > 1:
            both, kernels = (inputs, outputs), (weights, bias)
            for (x, y), (w, b), alone in windows.in_groups(both, kernels):
                self._convolve(x, w, b, y, alone, activation)
            return
        if not outputs.size:
            return
        w = _Windows.of(inputs, outputs, windows)
        rows_of_kernels = _rows(self._dense(weights, 6))
        dense = outputs if outputs.contiguous else self.scratch(outputs.shape, 4)
        matrix = _matrix(dense)
        for images, rows in _parts(inputs, w):
            columns = self._windows_to_rows(_cut(inputs, images), w)
            self._multiply(columns, rows_of_kernels, _cut(matrix, rows), transb=True)
        self._add_bias(matrix, bias, matrix, activation)
        if dense is not outputs:
            self._elementwise("copy_to", (dense, outputs))

    def _convolve_back(self, arrays, windows, activation, fresh_in_deltas, fresh):
        inputs, weights, in_deltas, out_deltas, dW, dbias, outputs = arrays
        if windows.groups > 1:
            every = inputs, in_deltas, out_deltas, outputs
            kernels = weights, dW, dbias
            for (x, dx, dy, y), (w, *d), alone in windows.in_groups(every, kernels):
                arrays = x, w, dx, dy, *d, y
                self._convolve_back(arrays, alone, activation, fresh_in_deltas, fresh)
            return
        images = in_deltas if inputs is None else inputs
        w = _Windows.of(images, out_deltas, windows)
        if activation == "linear":
            deltas = self._dense(out_deltas, 4)
        else:
            deltas = self.scratch(out_deltas.shape, 4)
            self._deriv(activation, None, outputs, out_deltas, deltas, fresh=True)
        deltas = _matrix(deltas)
        if dW is not None:
            self._gradients(inputs, w, deltas, dW, fresh)
        if dbias is not None:
            self._sum_columns(deltas, None, dbias, add=not fresh)
        if in_deltas is None:
            return
        rows_of_kernels = _rows(self._dense(weights, 6))
        for images, rows in _parts(in_deltas, w):
            columns = self.scratch((rows.stop - rows.start, w.row_length), 3)
            self._multiply(_cut(deltas, rows), rows_of_kernels, columns)
            part = _cut(in_deltas, images)
            arguments = (columns.pointer, *w, part.size, part, fresh_in_deltas)
            how = (part.size, *arguments)
            self._launch_for_each("rows_to_windows", *how, arrays=columns)

    def _gradients(self, inputs, w, deltas, dW, fresh) -> None:
        """Those of the kernels."""
        gradients = self._dense(dW, 5)
        kernels = _rows(gradients)
        add = not fresh
        if fresh and not deltas.size:
            self._elementwise("fill", (kernels,), 0.0)
        for images, rows in _parts(inputs, w):
            columns = self._windows_to_rows(_cut(inputs, images), w)
            self._multiply(_cut(deltas, rows), columns, kernels, transa=True, add=add)
            add = True
        if gradients is not dW:
            self._elementwise("copy_to", (gradients, dW))

    def _windows_to_rows(self, images: CudaArray, w: _Windows) -> CudaArray:
        """A matrix with a row for each window."""
        windows = images.shape[0] * w.out_height * w.out_width
        columns = self.scratch((windows, w.row_length), 3)
        if columns.size:
            gpu, rows = self._gpu, windows * w.window_height
            grid, block = row_blocks(rows, w.window_width * w.channels)
            grid = (min(grid[0], gpu.device.max_blocks), 1)
            arguments = (images, *w, rows, columns.pointer)
            self._launch("windows_to_rows", grid, block, *arguments, arrays=columns)
        return columns

    # -- pooling -------------------------------------------------------------

    def _pool(self, inputs, outputs, argmax, windows):
        w = _Windows.of(inputs, outputs, windows)
        arguments = (inputs, *w, outputs.size, outputs, *_or_none(argmax))
        self._launch_for_each("pool_forward", outputs.size, *arguments)

    def _pool_back(self, argmax, in_deltas, out_deltas, windows, fresh):
        w = _Windows.of(in_deltas, out_deltas, windows)
        size = in_deltas.size
        arguments = (*_or_none(argmax), out_deltas, *w, size, in_deltas, fresh)
        self._launch_for_each("pool_backward", size, *arguments)


def _or_none(images: CudaArray | None) -> tuple[Any, ...]:
    """The kernels' struct Images."""
    return (0, 0, 0, 0) if images is None else (images,)


def _parts(images: CudaArray, w: _Windows) -> Iterator[tuple[slice, slice]]:
    """Cut images so that the windows of each part fit into the matrix.

    Yields:
        Which images, and which rows all their windows take up.
    """
    windows = w.out_height * w.out_width
    at_once = max(1, MATRIX_SIZE // max(1, windows * w.row_length))
    for start in range(0, images.shape[0], at_once):
        stop = min(start + at_once, images.shape[0])
        yield slice(start, stop), slice(start * windows, stop * windows)


def _cut(array: CudaArray, part: slice) -> CudaArray:
    """A part of an array, or itself if that is all of it."""
    return array if part == slice(0, array.shape[0]) else array[part]


def _rows(kernels: CudaArray) -> CudaArray:
    """Dense kernels as the rows of a matrix."""
    return kernels.reshape((len(kernels), math.prod(kernels.shape[1:])))


def _matrix(images: CudaArray) -> CudaArray:
    """Dense images as a matrix with a row for each pixel."""
    return images.reshape((math.prod(images.shape[:3]), images.shape[3]))

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
from typing import NamedTuple

from brainstorm.handlers.cuda.arrays import CudaArray
from brainstorm.handlers.cuda.launcher import row_blocks
from brainstorm.handlers.operations.images import Windows

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
    padding: int

    @classmethod
    def of(cls, images: CudaArray, outputs: CudaArray, windows: Windows) -> _Windows:
        """Those that slide over images, one for each pixel of the outputs."""
        size, padding, stride = windows
        return cls(*images.shape[1:], *outputs.shape[1:3], *size, *stride, padding)

    @property
    def row_length(self) -> int:
        """Number of elements in a window."""
        return self.window_height * self.window_width * self.channels


class CudaImages:
    """Part of PyCudaHandler. Images are (N, H, W, C)."""

    # -- convolution ---------------------------------------------------------

    def _convolve(self, inputs, weights, bias, outputs, windows, activation):
        if not outputs.size:
            return
        w = _Windows.of(inputs, outputs, windows)
        kernels = self._dense_kernels(weights)
        dense = outputs if outputs.contiguous else self.scratch(outputs.shape, 4)
        matrix = _matrix(dense)
        for images, rows in _parts(inputs, w):
            columns = self._windows_to_rows(_cut(inputs, images), w)
            self._multiply(columns, kernels, _cut(matrix, rows), transb=True)
        self._add_bias(matrix, bias, matrix, activation)
        if dense is not outputs:
            self._gpu.elementwise("copy_to", (dense, outputs))

    def _convolve_back(self, arrays, windows, activation, fresh_in_deltas, fresh):
        inputs, weights, in_deltas, out_deltas, dW, dbias, outputs = arrays
        w = _Windows.of(inputs, out_deltas, windows)
        deltas = out_deltas
        if activation != "linear" or not out_deltas.contiguous:
            deltas = self.scratch(out_deltas.shape, 4)
            self._deriv(activation, None, outputs, out_deltas, deltas, fresh=True)
        deltas = _matrix(deltas)
        gradients = dW
        if not dW.contiguous:
            gradients = self.scratch(dW.shape, 5)
            if not fresh:
                self._gpu.elementwise("copy_to", (dW, gradients))
        kernels = gradients.reshape((len(weights), w.row_length))
        add = not fresh
        if fresh and not deltas.size:
            self._gpu.elementwise("fill", (kernels,), 0.0)
        for images, rows in _parts(inputs, w):
            columns = self._windows_to_rows(_cut(inputs, images), w)
            self._multiply(_cut(deltas, rows), columns, kernels, transa=True, add=add)
            add = True
        if gradients is not dW:
            self._gpu.elementwise("copy_to", (gradients, dW))
        self._sum_columns(deltas, None, dbias, add=not fresh)
        if in_deltas is None:
            return
        kernels = self._dense_kernels(weights)
        for images, rows in _parts(in_deltas, w):
            columns = self.scratch((rows.stop - rows.start, w.row_length), 3)
            self._multiply(_cut(deltas, rows), kernels, columns)
            part = _cut(in_deltas, images)
            arguments = (columns.pointer, *w, part.size, part, fresh_in_deltas)
            self._gpu.launch_for_each("rows_to_windows", part.size, *arguments)

    def _dense_kernels(self, weights: CudaArray) -> CudaArray:
        """The kernels as the rows of a matrix."""
        dense = weights
        if not weights.contiguous:
            dense = self.scratch(weights.shape, 6)
            self._gpu.elementwise("copy_to", (weights, dense))
        return dense.reshape((weights.shape[0], math.prod(weights.shape[1:])))

    def _windows_to_rows(self, images: CudaArray, w: _Windows) -> CudaArray:
        """A matrix with a row for each window."""
        windows = images.shape[0] * w.out_height * w.out_width
        columns = self.scratch((windows, w.row_length), 3)
        if columns.size:
            gpu, rows = self._gpu, windows * w.window_height
            grid, block = row_blocks(rows, w.window_width * w.channels)
            grid = (min(grid[0], gpu.device.max_blocks), 1)
            arguments = (images, *w, rows, columns.pointer)
            gpu.launch("windows_to_rows", grid, block, *arguments)
        return columns

    # -- pooling -------------------------------------------------------------

    def _pool(self, inputs, outputs, argmax, windows):
        w = _Windows.of(inputs, outputs, windows)
        kernel, chosen = "avgpool_forward", ()
        if argmax is not None:
            kernel, chosen = "maxpool_forward", (argmax,)
        arguments = (inputs, *w, outputs.size, outputs, *chosen)
        self._gpu.launch_for_each(kernel, outputs.size, *arguments)

    def _pool_back(self, argmax, in_deltas, out_deltas, windows, fresh):
        w = _Windows.of(in_deltas, out_deltas, windows)
        kernel, chosen = "avgpool_backward", ()
        if argmax is not None:
            kernel, chosen = "maxpool_backward", (argmax,)
        arguments = (*chosen, out_deltas, *w, in_deltas.size, in_deltas, fresh)
        self._gpu.launch_for_each(kernel, in_deltas.size, *arguments)


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


def _matrix(images: CudaArray) -> CudaArray:
    """Dense images as a matrix with a row for each pixel."""
    return images.reshape((math.prod(images.shape[:3]), images.shape[3]))

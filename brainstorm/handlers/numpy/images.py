"""Convolution and pooling for NumpyHandler.

Convolution copies the windows that slide over the images into the rows of a matrix,
and multiplies that by the kernels (Chellapilla et al., *High performance
convolutional neural networks for document processing*, 2006). It does so in blocks
whose matrix stays in the cache. NumPy's BLAS divides each product among the cores.

NumPy allocates buffers where a ufunc's operands have different strides, so strided
views are copied (``np.copyto`` needs no buffers) and ufuncs get dense arrays.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from brainstorm.handlers.programs import whole

# How many elements are worked on at once: those of the matrix of windows in
# convolution, and those of the images in pooling.
_MATRIX_SIZE = 2**20
_IMAGES_SIZE = 2**17
Pair = tuple[int, int]
Block = tuple[slice, slice]


class NumpyImages:
    """Part of NumpyHandler."""

    @whole
    def conv2d_forward_batch(
        self, inputs, weights, bias, outputs, padding, stride, activation="linear"
    ):
        filters, kh, kw, channels = weights.shape
        kernels = weights.reshape(filters, kh * kw * channels).T
        bias = bias.reshape(1, filters)
        act = self.act_func[activation]
        blocks = self._windows_as_rows(
            inputs, (-padding, -padding), (kh, kw), stride, outputs.shape[1:3]
        )
        for block, rows in blocks:
            part = outputs[block]
            out = self._dense_output(part, "outputs").reshape(len(rows), filters)
            np.matmul(rows, kernels, out)
            self.add_mv(out, bias, out)
            act(out, out)
            if not part.flags.c_contiguous:
                np.copyto(part, out.reshape(part.shape))

    @whole
    def conv2d_backward_batch(
        self,
        inputs,
        weights,
        padding,
        stride,
        in_deltas,
        out_deltas,
        weight_deltas,
        bias_deltas,
        activation="linear",
        outputs=None,
        fresh_in_deltas=False,
        fresh_gradients=False,
    ):
        if activation == "linear":
            deltas = self._dense(out_deltas, "deltas")
        else:
            deltas = self.scratch(out_deltas.shape, "deltas")
            self.act_func_deriv[activation](outputs, outputs, out_deltas, deltas)
        if fresh_gradients:
            weight_deltas.fill(0)
            bias_deltas.fill(0)
        self._add_gradients(inputs, padding, stride, deltas, weight_deltas, bias_deltas)
        if in_deltas is not None:
            self._input_deltas(
                weights, padding, stride, deltas, in_deltas, fresh_in_deltas
            )

    def _add_gradients(
        self,
        inputs: np.ndarray,
        padding: int,
        stride: Pair,
        deltas: np.ndarray,
        weight_deltas: np.ndarray,
        bias_deltas: np.ndarray,
    ) -> None:
        filters, kh, kw, channels = weight_deltas.shape
        gradients = self.scratch((filters, kh * kw * channels), "gradients")
        blocks = self._windows_as_rows(
            inputs, (-padding, -padding), (kh, kw), stride, deltas.shape[1:3]
        )
        for block, rows in blocks:
            part = deltas[block].reshape(len(rows), filters)
            np.dot(part.T, rows, gradients)
            np.add(weight_deltas, gradients.reshape(weight_deltas.shape), weight_deltas)
            self._sum_rows(part, bias_deltas, fresh=False)

    def _input_deltas(
        self,
        weights: np.ndarray,
        padding: int,
        stride: Pair,
        deltas: np.ndarray,
        in_deltas: np.ndarray,
        fresh: bool,
    ) -> None:
        """Convolve the deltas with the flipped kernels.

        The padded images are cut into patches of the stride's size. A patch gets
        deltas from as many outputs along each side as there are patches in a
        kernel, so all of its pixels come out of one product.
        """
        (sy, sx), (height, width) = stride, in_deltas.shape[1:3]
        kernels, window = self._flipped_kernels(weights, stride)
        first = (padding // sy, padding // sx)  # patches that are all padding
        skip_y, skip_x = padding % sy, padding % sx  # padding in the next one
        size = (
            (height - 1 + padding) // sy - first[0] + 1,
            (width - 1 + padding) // sx - first[1] + 1,
        )
        start = (first[0] - window[0] + 1, first[1] - window[1] + 1)
        blocks = self._windows_as_rows(deltas, start, window, (1, 1), size)
        for (batch, patches), rows in blocks:
            product = self.scratch((len(rows), kernels.shape[1]), "product")
            np.dot(rows, kernels, product)
            n, patch_rows = batch.stop - batch.start, patches.stop - patches.start
            pixels = self._join_patches(
                product.reshape(n, patch_rows, size[1], sy, sx, weights.shape[3])
            )
            top = patches.start * sy - skip_y
            y = slice(max(top, 0), min(top + pixels.shape[1], height))
            self._put(
                pixels[:, y.start - top : y.stop - top, skip_x : skip_x + width],
                in_deltas[batch, y],
                fresh,
            )

    def _flipped_kernels(
        self, weights: np.ndarray, stride: Pair
    ) -> tuple[np.ndarray, Pair]:
        """The kernels for `_input_deltas`, and how many outputs a patch depends on."""
        filters, kh, kw, channels = weights.shape
        sy, sx = stride
        ny, nx = -(-kh // sy), -(-kw // sx)
        padded = self._region(weights, (0, 0), (ny * sy, nx * sx))
        patches = padded.reshape(filters, ny, sy, nx, sx, channels)
        kernels = self.scratch((ny, nx, filters, sy, sx, channels), "kernels")
        flipped = patches[:, ::-1, :, ::-1]
        np.copyto(kernels, flipped.transpose(1, 3, 0, 2, 4, 5))
        return kernels.reshape(ny * nx * filters, sy * sx * channels), (ny, nx)

    def _join_patches(self, patches: np.ndarray) -> np.ndarray:
        """Turn patches (N, P, Q, sy, sx, C) into images (N, P * sy, Q * sx, C)."""
        n, p, q, sy, sx, channels = patches.shape
        if (sy, sx) != (1, 1):
            joined = self.scratch((n, p, sy, q, sx, channels), "joined")
            np.copyto(joined, patches.transpose(0, 1, 3, 2, 4, 5))
            patches = joined
        return patches.reshape(n, p * sy, q * sx, channels)

    def _windows_as_rows(
        self, images: np.ndarray, start: Pair, window: Pair, stride: Pair, size: Pair
    ) -> Iterator[tuple[Block, np.ndarray]]:
        """Lay out the windows that slide over images, surrounded by zeros.

        Args:
            images: (N, H, W, C).
            start: Pixel at which the first window begins.
            window: Height and width of the windows.
            stride: Their distances along height and width.
            size: How many there are along height and width.

        Yields:
            Which images and which rows of windows are in the block, and its matrix
            (number of windows, kh * kw * C), valid until the next block.
        """
        channels = images.shape[3]
        row_length = math.prod(window) * channels
        for batch, rows in _blocks(len(images), size[0], size[1] * row_length):
            n, height = batch.stop - batch.start, rows.stop - rows.start
            top = start[0] + rows.start * stride[0]
            bottom = top + (height - 1) * stride[0] + window[0]
            right = start[1] + (size[1] - 1) * stride[1] + window[1]
            region = self._region(images[batch], (top, start[1]), (bottom, right))
            y, x = region.strides[1:3]
            windows = as_strided(
                region,
                (n, height, size[1], *window, channels),
                (region.strides[0], y * stride[0], x * stride[1], *region.strides[1:]),
            )
            dense = self._dense(windows, "windows")
            yield (batch, rows), dense.reshape(n * height * size[1], row_length)

    @whole
    def maxpool2d_forward_batch(self, inputs, window, outputs, padding, stride, argmax):
        for part in _batches(inputs):
            region = self._padded(inputs[part], padding, -math.inf)
            self._maxpool(region, window, outputs[part], padding, stride, argmax[part])

    def _maxpool(
        self,
        region: np.ndarray,
        window: Pair,
        outputs: np.ndarray,
        padding: int,
        stride: Pair,
        argmax: np.ndarray,
    ) -> None:
        """Pool padded images.

        Going through the window backwards, each value that is not less than the
        largest so far takes its place. So the first of equal values comes out, and
        NaN once it was met.
        """
        shape, count = outputs.shape, math.prod(window)
        height, width = region.shape[1] - 2 * padding, region.shape[2] - 2 * padding
        largest = self.scratch(shape, "largest")
        value = self.scratch(shape, "value")
        less = self._temporary(shape, "bool", np.bool_)
        index_type = np.uint8 if count < 256 else np.intp  # bytes are fastest
        index = self._temporary(shape, ("index", index_type), index_type)
        candidate = self._temporary(shape, ("candidate", index_type), index_type)
        largest.fill(-math.inf)
        index.fill(count)
        views = _window_views(region, window, stride, shape[1:3])
        for k in reversed(range(count)):
            np.copyto(value, views[k])
            np.less(value, largest, less)
            top, bottom = _inside(k // window[1], padding, stride[0], height, shape[1])
            left, right = _inside(k % window[1], padding, stride[1], width, shape[2])
            less[:, :top] = less[:, bottom:] = True
            less[:, :, :left] = less[:, :, right:] = True
            np.maximum(value, largest, out=largest)
            # index = k where not less: candidate is k there, elsewhere count.
            np.copyto(candidate, less)
            np.multiply(candidate, count, candidate)
            np.maximum(candidate, k, out=candidate)
            np.minimum(candidate, index, out=index)
        np.copyto(outputs, largest)
        np.copyto(argmax, index)

    @whole
    def maxpool2d_backward_batch(
        self,
        inputs,
        window,
        outputs,
        padding,
        stride,
        argmax,
        in_deltas,
        out_deltas,
        fresh_in_deltas=False,
    ):
        for part in _batches(in_deltas):
            dy = self._dense(out_deltas[part], "deltas")
            index = self._dense(argmax[part], "largest")
            region = self._zero_region(in_deltas[part].shape, padding)
            chosen = self._temporary(dy.shape, "bool", np.bool_)
            share = self.scratch(dy.shape, "value")
            views = _window_views(region, window, stride, dy.shape[1:3])
            for k, view in enumerate(views):
                np.equal(index, k, chosen)
                np.copyto(share, chosen)
                np.multiply(dy, share, share)
                self._add_to_view(share, view)
            self._put_inside(region, padding, in_deltas[part], fresh_in_deltas)

    @whole
    def avgpool2d_forward_batch(self, inputs, window, outputs, padding, stride):
        for part in _batches(inputs):
            region = self._padded(inputs[part], padding, 0.0)
            shape = outputs[part].shape
            total = self.scratch(shape, "largest")
            value = self.scratch(shape, "value")
            total.fill(0)
            for view in _window_views(region, window, stride, shape[1:3]):
                np.copyto(value, view)
                np.add(total, value, total)
            self._count_pixels(inputs, window, padding, stride, value)
            np.divide(total, value, total)
            np.copyto(outputs[part], total)

    @whole
    def avgpool2d_backward_batch(
        self,
        inputs,
        window,
        outputs,
        padding,
        stride,
        in_deltas,
        out_deltas,
        fresh_in_deltas=False,
    ):
        for part in _batches(in_deltas):
            dy = self._dense(out_deltas[part], "deltas")
            region = self._zero_region(in_deltas[part].shape, padding)
            share = self.scratch(dy.shape, "value")
            self._count_pixels(inputs, window, padding, stride, share)
            np.divide(dy, share, share)
            for view in _window_views(region, window, stride, dy.shape[1:3]):
                self._add_to_view(share, view)
            self._put_inside(region, padding, in_deltas[part], fresh_in_deltas)

    def _count_pixels(
        self, images: np.ndarray, window: Pair, padding: int, stride: Pair, out: Any
    ) -> None:
        """Write into `out` (N, H', W', C) how many pixels of each window are real."""
        counts = []
        for axis in (0, 1):
            starts = np.arange(out.shape[axis + 1]) * stride[axis] - padding
            stops = np.minimum(starts + window[axis], images.shape[axis + 1])
            counts.append(stops - np.maximum(starts, 0))
        np.copyto(out, counts[0][:, np.newaxis, np.newaxis])
        columns = self.scratch(out.shape, "total")
        np.copyto(columns, counts[1][:, np.newaxis])
        np.multiply(out, columns, out)

    def _region(
        self, images: np.ndarray, start: Pair, stop: Pair, value: float = 0.0
    ) -> np.ndarray:
        """Cut out a rectangle that may reach beyond the images.

        Args:
            images: (N, H, W, C).
            start: Row and column of the first pixel.
            stop: Row and column after the last pixel.
            value: What surrounds the images.

        Returns:
            A view of the images where that is possible, else a temporary.
        """
        n, height, width, channels = images.shape
        (top, left), (bottom, right) = start, stop
        if top >= 0 and left >= 0 and bottom <= height and right <= width:
            return images[:, top:bottom, left:right]
        region = self.scratch((n, bottom - top, right - left, channels), "region")
        region.fill(value)
        y, x = max(top, 0), max(left, 0)
        part = images[:, y : max(y, bottom), x : max(x, right)]
        y, x = y - top, x - left
        region[:, y : y + part.shape[1], x : x + part.shape[2]] = part
        return region

    def _padded(self, images: np.ndarray, padding: int, value: float) -> np.ndarray:
        height, width = images.shape[1:3]
        stop = (height + padding, width + padding)
        return self._region(images, (-padding, -padding), stop, value)

    def _zero_region(self, shape: tuple[int, ...], padding: int) -> np.ndarray:
        """Zeros for images of the given shape with padding."""
        n, height, width, channels = shape
        region = self.scratch(
            (n, height + 2 * padding, width + 2 * padding, channels), "region"
        )
        region.fill(0)
        return region

    def _put_inside(
        self, region: np.ndarray, padding: int, images: np.ndarray, fresh: bool
    ) -> None:
        height, width = images.shape[1:3]
        inside = region[:, padding : padding + height, padding : padding + width]
        self._put(inside, images, fresh)

    def _add_to_view(self, values: np.ndarray, view: np.ndarray) -> None:
        total = self.scratch(view.shape, "total")
        np.copyto(total, view)
        np.add(total, values, total)
        np.copyto(view, total)

    def _dense(self, array: np.ndarray, slot: str) -> np.ndarray:
        """The array itself if it is contiguous, else a copy in a temporary."""
        if array.flags.c_contiguous:
            return array
        copy = self.scratch(array.shape, slot)
        np.copyto(copy, array)
        return copy

    def _dense_output(self, array: np.ndarray, slot: str) -> np.ndarray:
        """The array itself if it is contiguous, else a temporary of its shape."""
        if array.flags.c_contiguous:
            return array
        return self.scratch(array.shape, slot)


def _blocks(images: int, rows: int, row_size: int) -> Iterator[Block]:
    """Cut images into blocks of about `_MATRIX_SIZE` elements.

    They are made of whole images, or of rows of one image where that is too large.

    Args:
        images: Number of images.
        rows: Number of rows of each.
        row_size: Number of elements of each row.
    """
    at_once = max(1, _MATRIX_SIZE // max(1, row_size))
    step = max(1, at_once // max(1, rows))
    for i in range(0, images, step):
        for row in range(0, rows, at_once):
            yield (
                slice(i, min(i + step, images)),
                slice(row, min(row + at_once, rows)),
            )


def _batches(images: np.ndarray) -> Iterator[slice]:
    """Cut images along their first axis."""
    step = max(1, _IMAGES_SIZE // max(1, math.prod(images.shape[1:])))
    for i in range(0, len(images), step):
        yield slice(i, min(i + step, len(images)))


def _window_views(
    region: np.ndarray, window: Pair, stride: Pair, size: Pair
) -> list[np.ndarray]:
    """For each place in the window, by rows, a view of what all windows have there."""
    (kh, kw), (sy, sx) = window, stride
    height, width = (size[0] - 1) * sy + 1, (size[1] - 1) * sx + 1
    return [
        region[:, y : y + height : sy, x : x + width : sx]
        for y in range(kh)
        for x in range(kw)
    ]


def _inside(k: int, padding: int, stride: int, size: int, outputs: int) -> Pair:
    """The range of outputs whose window has a real pixel at place k of one axis."""
    first = max(0, -((k - padding) // stride))
    last = min(outputs - 1, (size - 1 + padding - k) // stride)
    return first, max(first, last + 1)

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

import numpy as np
from numpy.lib.stride_tricks import as_strided

from brainstorm.handlers.numpy.memory import NumpyMemory
from brainstorm.handlers.operations.images import ImageOperations, Windows

# How many elements are worked on at once: those of the matrix of windows in
# convolution, and those of the images in pooling.
_MATRIX_SIZE = 2**20
_IMAGES_SIZE = 2**17
Pair = tuple[int, int]
Block = tuple[slice, slice]


class NumpyImages(NumpyMemory, ImageOperations):
    """Part of NumpyHandler."""

    def _convolve(self, inputs, weights, bias, outputs, windows, activation):
        if windows.groups > 1:
            images, kernels = (inputs, outputs), (weights, bias)
            for (x, y), (w, b), alone in windows.in_groups(images, kernels):
                self._convolve(x, w, b, y, alone, activation)
            return
        filters = len(weights)
        kernels = weights.reshape(filters, math.prod(weights.shape[1:])).T
        bias = bias.reshape(1, filters)
        act = self.act_func[activation]
        for block, rows in self._rows_of(inputs, windows, outputs.shape[1:3]):
            part = outputs[block]
            is_dense = part.flags.c_contiguous
            out = part if is_dense else self.scratch(part.shape, "outputs")
            out = out.reshape(len(rows), filters)
            np.matmul(rows, kernels, out)
            self.add_mv(out, bias, out)
            act(out, out)
            if not is_dense:
                np.copyto(part, out.reshape(part.shape))

    def _convolve_back(self, arrays, windows, activation, fresh_in_deltas, fresh):
        inputs, weights, in_deltas, out_deltas, dW, dbias, outputs = arrays
        if windows.groups > 1:
            images = inputs, in_deltas, out_deltas, outputs
            kernels = weights, dW, dbias
            for (x, dx, dy, y), (w, *d), alone in windows.in_groups(images, kernels):
                arrays = x, w, dx, dy, *d, y
                self._convolve_back(arrays, alone, activation, fresh_in_deltas, fresh)
            return
        if activation == "linear":
            deltas = self._dense(out_deltas, "deltas")
        else:
            deltas = self.scratch(out_deltas.shape, "deltas")
            self.act_func_deriv[activation](outputs, outputs, out_deltas, deltas)
        if dW is not None:
            self._gradients(inputs, windows, deltas, dW, dbias, fresh)
        if in_deltas is not None:
            self._input_deltas(weights, windows, deltas, in_deltas, fresh_in_deltas)

    def _gradients(self, inputs, windows, deltas, dW, dbias, fresh) -> None:
        if fresh:
            dW.fill(0)
            if dbias is not None:
                dbias.fill(0)
        filters = len(dW)
        gradients = self.scratch((filters, math.prod(dW.shape[1:])), "gradients")
        for block, rows in self._rows_of(inputs, windows, deltas.shape[1:3]):
            part = deltas[block].reshape(len(rows), filters)
            np.dot(part.T, rows, gradients)
            np.add(dW, gradients.reshape(dW.shape), dW)
            if dbias is not None:
                self._sum_rows(part, dbias, fresh=False)

    def _input_deltas(self, weights, windows, deltas, in_deltas, fresh) -> None:
        """Convolve the deltas with the flipped kernels.

        The padded images are cut into patches of the stride's size. A patch gets
        deltas from as many outputs along each side as there are patches in a
        kernel, so all of its pixels come out of one product. A dilated kernel is one
        with zeros between its weights here.
        """
        (above, left), (sy, sx) = windows.before, windows.stride
        weights = self._dilated(weights, windows)
        height, width = in_deltas.shape[1:3]
        kernels, window = self._flipped_kernels(weights, windows.stride)
        first = (above // sy, left // sx)  # patches that are all padding
        skip_y, skip_x = above % sy, left % sx  # padding in the next one
        size = (
            (height - 1 + above) // sy - first[0] + 1,
            (width - 1 + left) // sx - first[1] + 1,
        )
        start = (first[0] - window[0] + 1, first[1] - window[1] + 1)
        dense = Windows(window, 0, (1, 1))
        for (batch, patches), rows in self._rows_of(deltas, dense, size, start):
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

    def _dilated(self, weights: np.ndarray, windows: Windows) -> np.ndarray:
        """Kernels as large as what they see."""
        if windows.dilation == (1, 1):
            return weights
        filters, _, _, channels = weights.shape
        dilated = self.scratch((filters, *windows.extent, channels), "dilated")
        dilated.fill(0)
        dy, dx = windows.dilation
        dilated[:, ::dy, ::dx] = weights
        return dilated

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

    def _rows_of(
        self,
        images: np.ndarray,
        windows: Windows,
        size: Pair,
        start: Pair | None = None,
    ) -> Iterator[tuple[Block, np.ndarray]]:
        """Lay out the windows that slide over images, surrounded by zeros.

        There are `size` of them along height and width. The first begins at `start`,
        or else in the padding.

        Yields:
            Which images and which rows of windows are in the block, and its matrix
            (number of windows, kh * kw * C), valid until the next block.
        """
        window, stride, dilation = windows.size, windows.stride, windows.dilation
        extent, (above, before) = windows.extent, windows.before
        first_y, left = start or (-above, -before)
        channels = images.shape[3]
        row_length = math.prod(window) * channels
        right = left + (size[1] - 1) * stride[1] + extent[1]
        for batch, rows in _blocks(len(images), size[0], size[1] * row_length):
            n, height = batch.stop - batch.start, rows.stop - rows.start
            top = first_y + rows.start * stride[0]
            bottom = top + (height - 1) * stride[0] + extent[0]
            region = self._region(images[batch], (top, left), (bottom, right))
            image, y, x, channel = region.strides
            steps = y * stride[0], x * stride[1], y * dilation[0], x * dilation[1]
            shape = n, height, size[1], *window, channels
            each = as_strided(region, shape, (image, *steps, channel))
            dense = self._dense(each, "windows")
            yield (batch, rows), dense.reshape(n * height * size[1], row_length)

    def _pool(self, inputs, outputs, argmax, windows):
        padding = windows.padding
        for part in _batches(inputs):
            if argmax is not None and _is_whole(inputs, windows):
                self._largest(inputs[part], outputs[part], argmax[part])
            elif argmax is None:
                region = self._padded(inputs[part], padding, 0.0)
                self._means(region, windows, outputs[part])
            else:
                region = self._padded(inputs[part], padding, -math.inf)
                self._maxima(region, windows, outputs[part], argmax[part])

    def _largest(self, images, outputs, argmax) -> None:
        """The largest pixels of whole images, and the first places of these."""
        n, height, width, channels = images.shape
        pixels = self.scratch((n, channels, height, width), "region")
        np.copyto(pixels, images.transpose(0, 3, 1, 2))
        pixels = pixels.reshape(n, channels, height * width)
        index = self._temporary((n, channels), ("index", np.intp), np.intp)
        np.copyto(argmax, np.argmax(pixels, 2, out=index).reshape(argmax.shape))
        largest = self.scratch((n, channels), "largest")
        np.copyto(outputs, np.max(pixels, 2, out=largest).reshape(outputs.shape))

    def _maxima(self, region, windows, outputs, argmax) -> None:
        """Pool padded images.

        Going through the window backwards, each value that is not less than the
        largest so far takes its place. So the first of equal values comes out, and
        NaN once it was met.
        """
        window, padding, stride, *_ = windows
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
        views = _window_views(region, windows, shape)
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

    def _means(self, region: np.ndarray, windows: Windows, outputs: np.ndarray) -> None:
        """The mean of each window of padded images."""
        total = self.scratch(outputs.shape, "largest")
        value = self.scratch(outputs.shape, "value")
        total.fill(0)
        for view in _window_views(region, windows, outputs.shape):
            np.copyto(value, view)
            np.add(total, value, total)
        self._count_pixels(region, windows, value)
        np.divide(total, value, total)
        np.copyto(outputs, total)

    def _pool_back(self, argmax, in_deltas, out_deltas, windows, fresh):
        if argmax is not None and _is_whole(in_deltas, windows):
            self._give_to_largest(argmax, in_deltas, out_deltas, fresh)
            return
        padding = windows.padding
        for part in _batches(in_deltas):
            dy = self._dense(out_deltas[part], "deltas")
            n, height, width, channels = in_deltas[part].shape
            shape = n, height + 2 * padding, width + 2 * padding, channels
            region = self.scratch(shape, "region")
            region.fill(0)
            share = self.scratch(dy.shape, "value")
            if argmax is None:
                self._count_pixels(region, windows, share)
                np.divide(dy, share, share)
            else:
                index = self._dense(argmax[part], "largest")
                chosen = self._temporary(dy.shape, "bool", np.bool_)
            for k, view in enumerate(_window_views(region, windows, dy.shape)):
                if argmax is not None:
                    np.equal(index, k, chosen)
                    np.copyto(share, chosen)
                    np.multiply(dy, share, share)
                total = self.scratch(view.shape, "total")
                np.copyto(total, view)
                np.add(total, share, total)
                np.copyto(view, total)
            inside = region[:, padding : padding + height, padding : padding + width]
            self._put(inside, in_deltas[part], fresh)

    def _give_to_largest(self, argmax, in_deltas, out_deltas, fresh) -> None:
        """Give deltas to the places of whole images that `_largest` has found."""
        _, height, width, _ = in_deltas.shape
        places = np.arange(height * width, dtype=self.dtype).reshape(height, width, 1)
        for part in _batches(in_deltas):
            shape = in_deltas[part].shape
            chosen = self._temporary(shape, "bool", np.bool_)
            np.equal(places, argmax[part], chosen)
            deltas = self.scratch(shape, "region")
            np.copyto(deltas, chosen)
            np.multiply(deltas, out_deltas[part], deltas)
            self._put(deltas, in_deltas[part], fresh)

    def _count_pixels(self, region, windows, out) -> None:
        """Write into `out` (N, H', W', C) how many pixels of each window are real."""
        window, padding, stride, *_ = windows
        counts = []
        for axis in (0, 1):
            starts = np.arange(out.shape[axis + 1]) * stride[axis] - padding
            end = region.shape[axis + 1] - 2 * padding
            stops = np.minimum(starts + window[axis], end)
            counts.append(stops - np.maximum(starts, 0))
        np.copyto(out, counts[0][:, np.newaxis, np.newaxis])
        columns = self.scratch(out.shape, "total")
        np.copyto(columns, counts[1][:, np.newaxis])
        np.multiply(out, columns, out)

    def _region(
        self, images: np.ndarray, start: Pair, stop: Pair, value: float = 0.0
    ) -> np.ndarray:
        """Cut out a rectangle that may reach beyond the images, where the value is.

        It is a view of the images where that is possible, else a temporary.
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


def _is_whole(images: np.ndarray, windows: Windows) -> bool:
    """Whether there is one window for an image, as large as that."""
    return windows.padding == 0 and images.shape[1:3] == windows.size


def _blocks(images: int, rows: int, row_size: int) -> Iterator[Block]:
    """Cut images, of so many rows of a size, into blocks of about `_MATRIX_SIZE`.

    They are made of whole images, or of rows of one image where that is too large.
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
    region: np.ndarray, windows: Windows, shape: tuple[int, ...]
) -> list[np.ndarray]:
    """For each place in the window, by rows, a view of what all windows have there."""
    (kh, kw), _, (sy, sx), *_ = windows
    height, width = (shape[1] - 1) * sy + 1, (shape[2] - 1) * sx + 1
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

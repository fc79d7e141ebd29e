"""Data iterators that change the items of another one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from brainstorm.checks import Check
from brainstorm.data_iterators.base import Batch, DataIterator
from brainstorm.data_iterators.checks import (
    NOT_NEGATIVE,
    NUMBER,
    PROBABILITY,
    brief,
    check_values,
    check_window,
    expect,
    filled_values,
    whole,
)
from brainstorm.handlers.base_handler import Handler
from brainstorm.utils import IteratorValidationError

__all__ = [
    "AddGaussianNoise",
    "AddSaltNPepper",
    "Flip",
    "MultiHot",
    "OneHot",
    "Pad",
    "RandomCrop",
]


class Transformer(DataIterator):
    """Base of the iterators that change some of the items of another one."""

    def __init__(
        self, iter: DataIterator, argument: str, values: Mapping[str, Any], check: Check
    ) -> None:
        expect(isinstance(iter, DataIterator), "iter", "a DataIterator", brief(iter))
        self._values = check_values(argument, values, iter.data_shapes, check)
        super().__init__(iter.data_shapes, iter.length)
        self.iter: DataIterator = iter
        for name in self._values:
            what = f"{type(self).__name__}: data item {name!r}"
            self._check_shape(what, self.data_shapes[name])

    def __call__(self, handler: Handler | None = None) -> Iterator[Batch]:
        rnd: Any = self.start_stream() if "rnd" in vars(self) else None
        for batch in self.iter(handler):
            changed = {n: self._transform(n, batch[n], rnd) for n in self._values}
            if rnd is not None:
                self.rnd = rnd
            yield {**batch, **changed}

    def _transform(self, name: str, array: np.ndarray, rnd: Any) -> np.ndarray:
        """What to yield in place of an item; `array` itself must not change."""
        raise NotImplementedError

    def _check_shape(self, what: str, shape: tuple[int, ...]) -> None:
        """Check that an item can be changed."""


class _ImageTransformer(Transformer):
    def _check_shape(self, what: str, shape: tuple[int, ...]) -> None:
        expect(len(shape) == 5, what, "images, (T, N, H, W, C)", f"shape {shape}")


class AddGaussianNoise(Transformer):
    """Adds Gaussian noise to some items.

    These come out as floats (float64 if they are that, otherwise float32).

    Args:
        iter: The iterator to wrap.
        std_dict: Standard deviation of the noise by item; not negative.
        mean_dict: Mean of the noise by item, for items in `std_dict`; 0 if missing.
    """

    def __init__(
        self,
        iter: DataIterator,
        std_dict: Mapping[str, float],
        mean_dict: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(iter, "std_dict", std_dict, NOT_NEGATIVE)
        self.std_dict: dict[str, Any] = self._values
        self.mean_dict: dict[str, Any] = filled_values(
            "mean_dict", mean_dict, std_dict, NUMBER, 0.0
        )

    def _transform(self, name: str, array: np.ndarray, rnd: Any) -> np.ndarray:
        noise = rnd.standard_normal(array.shape)
        noise *= self.std_dict[name]
        noise += self.mean_dict[name]
        noise += array
        return noise.astype(float_type(array), copy=False)


class AddSaltNPepper(Transformer):
    """Replaces some values at random by 1 (salt) or 0 (pepper).

    The items come out as floats (float64 if they are that, otherwise float32).

    Args:
        iter: The iterator to wrap.
        prob_dict: Probability that a value is replaced, by item.
        ratio_dict: Share of salt among the replaced values by item, for items in
            `prob_dict`; 0.5 if missing.
    """

    def __init__(
        self,
        iter: DataIterator,
        prob_dict: Mapping[str, float],
        ratio_dict: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(iter, "prob_dict", prob_dict, PROBABILITY)
        self.prob_dict: dict[str, Any] = self._values
        self.ratio_dict: dict[str, Any] = filled_values(
            "ratio_dict", ratio_dict, prob_dict, PROBABILITY, 0.5
        )

    def _transform(self, name: str, array: np.ndarray, rnd: Any) -> np.ndarray:
        prob = self.prob_dict[name]
        drawn = rnd.random_sample(array.shape)
        result = array.astype(float_type(array))
        result[drawn < prob] = 0
        result[drawn < prob * self.ratio_dict[name]] = 1
        return result


class Flip(_ImageTransformer):
    """Flips images left to right at random.

    All images of a sequence are flipped, or none. Only 5D data in TNHWC format is
    supported; it is the axis W that is flipped.

    Args:
        iter: The iterator to wrap.
        prob_dict: Probability that a sequence is flipped, by item. Default:
            ``{'default': 0.5}``.
    """

    def __init__(
        self, iter: DataIterator, prob_dict: Mapping[str, float] | None = None
    ) -> None:
        prob_dict = {"default": 0.5} if prob_dict is None else prob_dict
        super().__init__(iter, "prob_dict", prob_dict, PROBABILITY)
        self.prob_dict: dict[str, Any] = self._values

    def _transform(self, name: str, array: np.ndarray, rnd: Any) -> np.ndarray:
        flipped = rnd.random_sample(array.shape[1]) < self.prob_dict[name]
        result = array.copy()
        result[:, flipped] = array[:, flipped, :, ::-1]
        return result


class Pad(_ImageTransformer):
    """Pads images equally on all four sides.

    Only 5D data in TNHWC format is supported. The items come out as floats (float64
    if they are that, otherwise float32).

    Args:
        iter: The iterator to wrap.
        size_dict: Number of pixels to add on each side, by item.
        value_dict: Value of the added pixels by item, for items in `size_dict`; 0
            if missing.
    """

    draws = False

    def __init__(
        self,
        iter: DataIterator,
        size_dict: Mapping[str, int],
        value_dict: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(iter, "size_dict", size_dict, whole(0))
        self.size_dict: dict[str, Any] = self._values
        for name, size in size_dict.items():
            T, B, H, W, C = self.data_shapes[name]
            self.data_shapes[name] = (T, B, H + 2 * size, W + 2 * size, C)
        self.value_dict: dict[str, Any] = filled_values(
            "value_dict", value_dict, size_dict, NUMBER, 0
        )

    def _transform(self, name: str, array: np.ndarray, rnd: Any) -> np.ndarray:
        size = self.size_dict[name]
        T, B, H, W, C = array.shape
        shape = (T, B, H + 2 * size, W + 2 * size, C)
        result = np.full(shape, self.value_dict[name], float_type(array))
        result[:, :, size : size + H, size : size + W] = array
        return result


class RandomCrop(_ImageTransformer):
    """Cuts a window out of images at random.

    All images of a sequence are cropped at the same place. Only 5D data in TNHWC
    format is supported.

    Args:
        iter: The iterator to wrap.
        shape_dict: Size ``(height, width)`` of the window by item.
    """

    def __init__(
        self, iter: DataIterator, shape_dict: Mapping[str, tuple[int, int]]
    ) -> None:
        super().__init__(iter, "shape_dict", shape_dict, Check(lambda _: True, ""))
        for name, window in shape_dict.items():
            T, B, H, W, C = self.data_shapes[name]
            check_window(f"shape_dict[{name!r}]", window, (H, W))
            self.data_shapes[name] = (T, B, int(window[0]), int(window[1]), C)
        self.shape_dict: dict[str, tuple[int, ...]] = {
            n: tuple(window) for n, window in shape_dict.items()
        }

    def _transform(self, name: str, array: np.ndarray, rnd: Any) -> np.ndarray:
        h, w = self.shape_dict[name]
        B, H, W = array.shape[1:4]
        rows = rnd.randint(0, H - h + 1, size=B)
        columns = rnd.randint(0, W - w + 1, size=B)
        axes: Any = (2, 3)
        windows = sliding_window_view(array, (h, w), axes)
        crops = windows[:, np.arange(B), rows, columns]  # (T, B, C, h, w)
        return np.ascontiguousarray(np.moveaxis(crops, 2, 4))


class MultiHot(Transformer):
    """Turns lists of labels into vectors with a one for each label.

    An item of shape ``(T, B, k)`` with k labels becomes ``(T, B, V)`` for a
    vocabulary of V labels; a label that occurs twice counts once. Items without a
    vocabulary are yielded as they are. Only 3D data is supported. The vectors are
    floats (float64 if the labels are that, otherwise float32). Iterating raises an
    error where a label is not in the vocabulary.

    Args:
        iter: The iterator to wrap.
        vocab_size_dict: Number V of labels by item. Labels are the integers from 0
            to V - 1, of any dtype.
    """

    draws = False

    def __init__(self, iter: DataIterator, vocab_size_dict: Mapping[str, int]) -> None:
        super().__init__(iter, "vocab_size_dict", vocab_size_dict, whole(1))
        self.vocab_size_dict: dict[str, Any] = self._values
        for name, size in vocab_size_dict.items():
            self.data_shapes[name] = (*self.data_shapes[name][:2], int(size))

    def _check_shape(self, what: str, shape: tuple[int, ...]) -> None:
        expect(len(shape) == 3, what, "3 dimensions", f"shape {shape}")

    def _transform(self, name: str, array: np.ndarray, rnd: Any) -> np.ndarray:
        size = self.vocab_size_dict[name]
        valid = (array >= 0) & (array < size) & (np.trunc(array) == array)
        if not valid.all():
            raise IteratorValidationError(
                f"data item {name!r}: expected integer labels from 0 to {size - 1}"
                f" (its vocabulary size is {size}), got {array[~valid][0]}"
            )
        result = np.zeros((*array.shape[:2], size), float_type(array))
        np.put_along_axis(result, array.astype(np.intp), 1, axis=2)
        return result


class OneHot(MultiHot):
    """Turns labels into one-hot vectors.

    An item of shape ``(T, B, 1)`` becomes ``(T, B, V)`` for a vocabulary of V labels.
    Items without a vocabulary are yielded as they are. Only 3D data whose last
    dimension has size 1 is supported. The vectors are floats (float64 if the labels
    are that, otherwise float32).

    Args:
        iter, vocab_size_dict: See :class:`MultiHot`.
    """

    def _check_shape(self, what: str, shape: tuple[int, ...]) -> None:
        expect(len(shape) == 3 and shape[2] == 1, what, "the shape (T, B, 1)", shape)


def float_type(array: np.ndarray) -> np.dtype:
    """Float64 stays what it is, all smaller ones and integers become float32."""
    wide = array.dtype if array.dtype.kind == "f" else np.float32
    return np.promote_types(wide, np.float32)

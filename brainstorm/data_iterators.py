"""Data iterators: how the data is cut into batches, and how it is augmented.

A data iterator is called with a handler and yields one dict per batch that maps
the name of each data item to an array of shape ``(T, B, ...)``: T time steps of B
sequences. It can be iterated over any number of times. `Undivided`, `Online` and
`Minibatches` hold the data; the others wrap another iterator and change some of
its items:

>>> import numpy as np
>>> images = np.zeros((1, 50, 28, 28, 1), dtype=np.float32)
>>> batches = Pad(Minibatches(20, shuffle=False, default=images), {'default': 2})
>>> batches.length, batches.data_shapes
(3, {'default': (1, 50, 32, 32, 1)})
>>> [batch['default'].shape[1] for batch in batches(None)]
[20, 20, 10]

The data are NumPy arrays, of which the batches are views, or h5py datasets, which
are read batch by batch. Arrays that are yielded are not to be written to.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from brainstorm._data_checks import (
    PROBABILITY,
    brief,
    check_data,
    check_integer,
    check_lengths,
    check_names,
    check_numbers,
    check_window,
    fill_numbers,
)
from brainstorm._data_reading import Part
from brainstorm.randomness import global_rnd
from brainstorm.utils import IteratorValidationError, listing

if TYPE_CHECKING:
    from brainstorm.handlers.base_handler import Handler

__all__ = [
    "AddGaussianNoise",
    "AddSaltNPepper",
    "DataIterator",
    "Flip",
    "Minibatches",
    "MultiHot",
    "OneHot",
    "Online",
    "Pad",
    "RandomCrop",
    "Subsequences",
    "Undivided",
]

Batch = dict[str, np.ndarray]


class DataIterator:
    """Base class for data iterators.

    Attributes:
        data_shapes: Shape ``(T, B, ...)`` of each data item by name, where T is the
            longest a batch can be and B counts all sequences.
        length: Number of batches, None if that is not known.
        continues: Whether the batch yielded last goes on where the one before it
            stopped. None for iterators whose batches never do.

    Args:
        data_shapes: See above.
        length: See above.
    """

    continues: bool | None = None

    def __init__(
        self, data_shapes: Mapping[str, tuple[int, ...]], length: int | None
    ) -> None:
        self.data_shapes = dict(data_shapes)
        self.length = length

    def __call__(self, handler: Handler | None) -> Iterator[Batch]:
        """Iterate once over the data.

        Args:
            handler: The handler of the network that the data is for. The iterators
                of this module yield NumPy arrays whatever the handler.

        Yields:
            The data items of one batch by name, each of shape ``(T, B, ...)``.
        """
        raise NotImplementedError

    def get_state(self) -> dict[str, Any]:
        """The state of the random numbers, for :meth:`set_state`.

        Iterations that begin in the same state yield the same batches in the same
        order. It consists of the states of all members that are random states or data
        iterators. An iterator with state of another kind overrides both methods.
        """
        return {name: member.get_state() for name, member in self._random_members()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`get_state` returned.

        Raises:
            IteratorValidationError: It is the state of another kind of iterator.
        """
        members = dict(self._random_members())
        if not isinstance(state, Mapping) or set(state) != set(members):
            raise IteratorValidationError(
                f"expected the state of a {type(self).__name__}, which consists of that"
                f" of {listing(members)}, got {brief(state)}"
            )
        for name, member in members.items():
            try:
                member.set_state(state[name])
            except IteratorValidationError:
                raise
            except (ArithmeticError, LookupError, TypeError, ValueError) as error:
                raise IteratorValidationError(
                    f"not a state of {name!r} of a {type(self).__name__}: {error}"
                ) from error

    def _random_members(self) -> list[tuple[str, Any]]:
        kinds = (np.random.RandomState, DataIterator)
        return [(n, m) for n, m in vars(self).items() if isinstance(m, kinds)]


# -- iterators that hold data ---------------------------------------------------


class Undivided(DataIterator):
    """Yields all of the data as one batch.

    This reads datasets of HDF5 files whole, but for `Subsequences` piece by piece.

    Args:
        **named_data: NumPy arrays or h5py datasets of shape ``(T, B, ...)`` with
            the same B.

    Raises:
        IteratorValidationError: The data does not fit.
    """

    def __init__(self, **named_data: np.ndarray | h5py.Dataset) -> None:
        check_data(named_data)
        super().__init__(_shapes(named_data), 1)
        self.data = named_data

    def __call__(self, handler: Handler | None) -> Iterator[Batch]:
        """Yield the data."""
        return _read(self._parts())

    def _parts(self) -> Iterator[Mapping[str, Part]]:
        yield {
            name: Part(name, data, slice(None), self.data_shapes[name][0])
            for name, data in self.data.items()
        }


class Minibatches(DataIterator):
    """Yields the data in batches of `batch_size` sequences.

    The last batch is smaller if the number of sequences is no multiple of
    `batch_size`. Shuffling randomizes the order of the batches for each iteration,
    but leaves the sequences where they are: a batch is always a contiguous slice
    of the data (see `brainstorm.tools.shuffle_data` for more).

    Each batch is cut to its longest sequence, at least to one time step, if there
    is something to tell the lengths by. Only items with all of the time steps are
    cut; static ones (T = 1), say, stay as they are.

    Args:
        batch_size: Number of sequences in a batch.
        shuffle: Whether to yield the batches in random order.
        cut_according_to: What tells the length of a sequence. The name of a data
            item: a sequence ends with the last time step at which that item is not
            zero. The default `'mask'` may be missing from the data, then nothing is
            cut. Or a list or array with the length of each sequence. None or False
            for no cutting.
        **named_data: NumPy arrays or h5py datasets of shape ``(T, B, ...)`` with
            the same B.

    Raises:
        IteratorValidationError: The data or another argument does not fit; while
            iterating: an HDF5 file was closed.
        FileFormatError: While iterating: an HDF5 file can not be read.
    """

    def __init__(
        self,
        batch_size: int = 1,
        shuffle: bool = True,
        cut_according_to: str | Sequence[int] | np.ndarray | None = "mask",
        **named_data: np.ndarray | h5py.Dataset,
    ) -> None:
        check_integer("batch_size", batch_size, 1)
        if not isinstance(shuffle, (bool, np.bool_)):
            raise IteratorValidationError(
                f"shuffle: expected True or False, got {brief(shuffle)}"
            )
        self.nr_sequences = check_data(named_data)
        super().__init__(_shapes(named_data), math.ceil(self.nr_sequences / batch_size))
        self.batch_size = int(batch_size)
        self.shuffle = bool(shuffle)
        self.data = named_data
        self._steps = {name: shape[0] for name, shape in self.data_shapes.items()}
        self.rnd = global_rnd.create_random_state()
        self._cut_by, self._cut_items = self._plan_cutting(cut_according_to)

    def __call__(self, handler: Handler | None) -> Iterator[Batch]:
        """Yield batch after batch."""
        return _read(self._parts())

    def _parts(self) -> Iterator[Mapping[str, Part]]:
        starts = np.arange(0, self.nr_sequences, self.batch_size)
        if self.shuffle:
            self.rnd.shuffle(starts)
        for start in starts.tolist():
            some = slice(start, start + self.batch_size)
            longest = self._longest(some) if self._cut_items else 0
            steps = self._steps | dict.fromkeys(self._cut_items, longest)
            yield {n: Part(n, d, some, steps[n]) for n, d in self.data.items()}

    def _longest(self, some: slice) -> int:
        """Number of time steps of a batch that are in use."""
        if not isinstance(self._cut_by, str):
            return max(1, int(self._cut_by[some].max()))
        name = self._cut_by
        mask = Part(name, self.data[name], some, self._steps[name])[:]
        used = np.flatnonzero(mask.any(axis=tuple(range(1, mask.ndim))))
        return int(used[-1]) + 1 if used.size else 1

    def _plan_cutting(self, source: Any) -> tuple[str | np.ndarray | None, set[str]]:
        """What tells the lengths, and the names of the items to cut."""
        shapes = self.data_shapes
        if source is None or source is False:
            return None, set()
        if isinstance(source, str):
            if source not in shapes and source != "mask":
                raise IteratorValidationError(
                    f"cut_according_to: there is no data item {source!r}; choices"
                    f" are: {listing(shapes)}"
                )
            steps = shapes[source][0] if source in shapes else 0
        else:
            steps = max(shape[0] for shape in shapes.values())
            source = check_lengths(source, self.nr_sequences, steps)
        return source, {n for n, shape in shapes.items() if shape[0] == steps}


class Online(Minibatches):
    """Yields one sequence at a time, cut by the item `'mask'` if there is one.

    Args:
        shuffle: Whether to yield the sequences in random order.
        **named_data: NumPy arrays or h5py datasets of shape ``(T, B, ...)`` with
            the same B.

    Raises:
        IteratorValidationError: As for `Minibatches`.
        FileFormatError: As for `Minibatches`.
    """

    def __init__(
        self, shuffle: bool = True, **named_data: np.ndarray | h5py.Dataset
    ) -> None:
        super().__init__(1, shuffle, "mask", **named_data)


# -- iterators that change the items of another ---------------------------------


class Subsequences(DataIterator):
    """Cuts the sequences of each batch into pieces that follow each other.

    For long sequences: `Trainer` with ``carry_context=True`` updates the network after
    each piece, and carries its state on from one to the next. Of a batch whose
    sequences have 100 steps, pieces of 40 steps have 40, 40 and 20. A batch of the
    wrapped iterator begins new sequences. Items that have fewer time steps than others
    are static, and come with each piece. Datasets that `Undivided`, `Minibatches` or
    `Online` holds are read piece by piece.

    >>> series = np.zeros((1000, 1, 3), dtype=np.float32)
    >>> pieces = Subsequences(Undivided(default=series), 400)
    >>> [piece['default'].shape[0] for piece in pieces(None)]
    [400, 400, 200]

    Args:
        iter: The iterator to wrap.
        steps: The largest number of time steps of a piece.

    Raises:
        IteratorValidationError: `iter` is no iterator, or `steps` no positive integer.
    """

    def __init__(self, iter: DataIterator, steps: int) -> None:
        if not isinstance(iter, DataIterator):
            raise IteratorValidationError(
                f"iter: expected a DataIterator, got {brief(iter)}"
            )
        check_integer("steps", steps, 1)
        longest = max(shape[0] for shape in iter.data_shapes.values())
        self._timed = {n for n, s in iter.data_shapes.items() if s[0] == longest}
        shapes = {
            name: (min(shape[0], int(steps)), *shape[1:])
            if name in self._timed
            else shape
            for name, shape in iter.data_shapes.items()
        }
        super().__init__(shapes, _nr_pieces(iter, longest, int(steps)))
        self.iter = iter
        self.steps = int(steps)
        self.continues = False

    def __call__(self, handler: Handler | None) -> Iterator[Batch]:
        """Yield piece after piece of batch after batch."""
        # Classes derived from these may change what they yield.
        in_parts = type(self.iter) in (Undivided, Minibatches, Online)
        for batch in self.iter._parts() if in_parts else self.iter(handler):
            longest = max(len(batch[name]) for name in self._timed)
            static = {n: item[:] for n, item in batch.items() if n not in self._timed}
            for start in range(0, longest, self.steps):
                piece = slice(start, start + self.steps)
                self.continues = start > 0
                yield {
                    name: item[piece] if name in self._timed else static[name]
                    for name, item in batch.items()
                }


def _nr_pieces(iter: DataIterator, longest: int, steps: int) -> int | None:
    """How many pieces there are; not known where batches are cut."""
    source = iter
    while hasattr(source, "iter"):
        source = source.iter
    if iter.length is None or getattr(source, "_cut_items", ()):
        return None
    return iter.length * math.ceil(longest / steps)


class _Transformer(DataIterator):
    """Base of the iterators that change some of the items of another one."""

    def __init__(self, iter: DataIterator, argument: str, names: Mapping) -> None:
        if not isinstance(iter, DataIterator):
            raise IteratorValidationError(
                f"iter: expected a DataIterator, got {brief(iter)}"
            )
        check_names(argument, names, iter.data_shapes)
        super().__init__(iter.data_shapes, iter.length)
        self.iter = iter
        self._names = list(names)

    def __call__(self, handler: Handler | None) -> Iterator[Batch]:
        for batch in self.iter(handler):
            yield {
                **batch,
                **{name: self._transform(name, batch[name]) for name in self._names},
            }

    @property
    def continues(self) -> bool | None:
        """As of the wrapped iterator."""
        return self.iter.continues

    def _transform(self, name: str, array: np.ndarray) -> np.ndarray:
        """What to yield in place of an item; `array` itself must not change."""
        raise NotImplementedError

    def _check_images(self) -> None:
        for name in self._names:
            if len(self.data_shapes[name]) != 5:
                raise IteratorValidationError(
                    f"{type(self).__name__}: data item {name!r}: expected images,"
                    f" (T, N, H, W, C), got shape {self.data_shapes[name]}"
                )


class AddGaussianNoise(_Transformer):
    """Adds Gaussian noise to some items.

    These come out as floats (float64 if they are that, otherwise float32).

    Args:
        iter: The iterator to wrap.
        std_dict: Standard deviation of the noise by item; not negative.
        mean_dict: Mean of the noise by item, for items in `std_dict`; 0 if missing.

    Raises:
        IteratorValidationError: An unknown item or a number out of range.
    """

    def __init__(
        self,
        iter: DataIterator,
        std_dict: Mapping[str, float],
        mean_dict: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(iter, "std_dict", std_dict)
        self.std_dict = check_numbers("std_dict", std_dict, "a number >= 0", 0)
        self.mean_dict = fill_numbers("mean_dict", mean_dict, std_dict, 0.0, "a number")
        self.rnd = global_rnd.create_random_state()

    def _transform(self, name: str, array: np.ndarray) -> np.ndarray:
        noise = self.rnd.standard_normal(array.shape)
        noise *= self.std_dict[name]
        noise += self.mean_dict[name]
        noise += array
        return noise.astype(_float_type(array), copy=False)


class AddSaltNPepper(_Transformer):
    """Replaces some values at random by 1 (salt) or 0 (pepper).

    The items come out as floats (float64 if they are that, otherwise float32).

    Args:
        iter: The iterator to wrap.
        prob_dict: Probability that a value is replaced, by item.
        ratio_dict: Share of salt among the replaced values by item, for items in
            `prob_dict`; 0.5 if missing.

    Raises:
        IteratorValidationError: An unknown item or a number out of range.
    """

    def __init__(
        self,
        iter: DataIterator,
        prob_dict: Mapping[str, float],
        ratio_dict: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(iter, "prob_dict", prob_dict)
        self.prob_dict = check_numbers("prob_dict", prob_dict, *PROBABILITY)
        self.ratio_dict = fill_numbers(
            "ratio_dict", ratio_dict, prob_dict, 0.5, *PROBABILITY
        )
        self.rnd = global_rnd.create_random_state()

    def _transform(self, name: str, array: np.ndarray) -> np.ndarray:
        prob = self.prob_dict[name]
        drawn = self.rnd.random_sample(array.shape)
        result = array.astype(_float_type(array))
        result[drawn < prob] = 0
        result[drawn < prob * self.ratio_dict[name]] = 1
        return result


class Flip(_Transformer):
    """Flips images left to right at random.

    All images of a sequence are flipped, or none. Only 5D data in TNHWC format is
    supported; it is the axis W that is flipped.

    Args:
        iter: The iterator to wrap.
        prob_dict: Probability that a sequence is flipped, by item. Default:
            ``{'default': 0.5}``.

    Raises:
        IteratorValidationError: An unknown item, one that is not 5D, or a number
            out of range.
    """

    def __init__(
        self, iter: DataIterator, prob_dict: Mapping[str, float] | None = None
    ) -> None:
        prob_dict = {"default": 0.5} if prob_dict is None else prob_dict
        super().__init__(iter, "prob_dict", prob_dict)
        self.prob_dict = check_numbers("prob_dict", prob_dict, *PROBABILITY)
        self._check_images()
        self.rnd = global_rnd.create_random_state()

    def _transform(self, name: str, array: np.ndarray) -> np.ndarray:
        flipped = self.rnd.random_sample(array.shape[1]) < self.prob_dict[name]
        result = array.copy()
        result[:, flipped] = array[:, flipped, :, ::-1]
        return result


class Pad(_Transformer):
    """Pads images equally on all four sides.

    Only 5D data in TNHWC format is supported. The items come out as floats (float64
    if they are that, otherwise float32).

    Args:
        iter: The iterator to wrap.
        size_dict: Number of pixels to add on each side, by item.
        value_dict: Value of the added pixels by item, for items in `size_dict`; 0
            if missing.

    Raises:
        IteratorValidationError: An unknown item, one that is not 5D, or a number
            out of range.
    """

    def __init__(
        self,
        iter: DataIterator,
        size_dict: Mapping[str, int],
        value_dict: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(iter, "size_dict", size_dict)
        self._check_images()
        for name, size in size_dict.items():
            check_integer(f"size_dict[{name!r}]", size, 0)
            T, B, H, W, C = self.data_shapes[name]
            self.data_shapes[name] = (T, B, H + 2 * size, W + 2 * size, C)
        self.size_dict = dict(size_dict)
        self.value_dict = fill_numbers(
            "value_dict", value_dict, size_dict, 0, "a number"
        )

    def _transform(self, name: str, array: np.ndarray) -> np.ndarray:
        size = self.size_dict[name]
        T, B, H, W, C = array.shape
        shape = (T, B, H + 2 * size, W + 2 * size, C)
        result = np.full(shape, self.value_dict[name], _float_type(array))
        result[:, :, size : size + H, size : size + W] = array
        return result


class RandomCrop(_Transformer):
    """Cuts a window out of images at random.

    All images of a sequence are cropped at the same place. Only 5D data in TNHWC
    format is supported.

    Args:
        iter: The iterator to wrap.
        shape_dict: Size ``(height, width)`` of the window by item.

    Raises:
        IteratorValidationError: An unknown item, one that is not 5D, or a window
            that is no pair of positive integers or larger than the image.
    """

    def __init__(
        self, iter: DataIterator, shape_dict: Mapping[str, tuple[int, int]]
    ) -> None:
        super().__init__(iter, "shape_dict", shape_dict)
        self._check_images()
        for name, window in shape_dict.items():
            T, B, H, W, C = self.data_shapes[name]
            check_window(f"shape_dict[{name!r}]", window, (H, W))
            self.data_shapes[name] = (T, B, int(window[0]), int(window[1]), C)
        self.shape_dict = {n: tuple(window) for n, window in shape_dict.items()}
        self.rnd = global_rnd.create_random_state()

    def _transform(self, name: str, array: np.ndarray) -> np.ndarray:
        h, w = self.shape_dict[name]
        B, H, W = array.shape[1:4]
        rows = self.rnd.randint(0, H - h + 1, size=B)
        columns = self.rnd.randint(0, W - w + 1, size=B)
        windows = sliding_window_view(array, (h, w), axis=(2, 3))
        crops = windows[:, np.arange(B), rows, columns]  # (T, B, C, h, w)
        return np.ascontiguousarray(np.moveaxis(crops, 2, 4))


class MultiHot(_Transformer):
    """Turns lists of labels into vectors with a one for each label.

    An item of shape ``(T, B, k)`` with k labels becomes ``(T, B, V)`` for a
    vocabulary of V labels; a label that occurs twice counts once. Items without a
    vocabulary are yielded as they are. Only 3D data is supported. The vectors are
    floats (float64 if the labels are that, otherwise float32).

    Args:
        iter: The iterator to wrap.
        vocab_size_dict: Number V of labels by item. Labels are the integers from 0
            to V - 1, of any dtype.

    Raises:
        IteratorValidationError: An unknown item, one that is not 3D, or a bad
            vocabulary size; while iterating: a label is not in the vocabulary.
    """

    def __init__(self, iter: DataIterator, vocab_size_dict: Mapping[str, int]) -> None:
        super().__init__(iter, "vocab_size_dict", vocab_size_dict)
        for name, size in vocab_size_dict.items():
            check_integer(f"vocab_size_dict[{name!r}]", size, 1)
            self._check_shape(name, self.data_shapes[name])
            self.data_shapes[name] = (*self.data_shapes[name][:2], int(size))
        self.vocab_size_dict = dict(vocab_size_dict)

    def _check_shape(self, name: str, shape: tuple[int, ...]) -> None:
        if len(shape) != 3:
            raise IteratorValidationError(
                f"{type(self).__name__}: data item {name!r}: expected 3 dimensions,"
                f" got shape {shape}"
            )

    def _transform(self, name: str, array: np.ndarray) -> np.ndarray:
        size = self.vocab_size_dict[name]
        valid = (array >= 0) & (array < size) & (np.trunc(array) == array)
        if not valid.all():
            raise IteratorValidationError(
                f"data item {name!r}: expected integer labels from 0 to {size - 1}"
                f" (its vocabulary size is {size}), got {array[~valid][0]}"
            )
        result = np.zeros((*array.shape[:2], size), _float_type(array))
        np.put_along_axis(result, array.astype(np.intp), 1, axis=2)
        return result


class OneHot(MultiHot):
    """Turns labels into one-hot vectors.

    An item of shape ``(T, B, 1)`` becomes ``(T, B, V)`` for a vocabulary of V labels.
    Items without a vocabulary are yielded as they are. Only 3D data whose last
    dimension has size 1 is supported. The vectors are floats (float64 if the labels
    are that, otherwise float32).

    Args:
        iter: The iterator to wrap.
        vocab_size_dict: Number V of labels by item. Labels are the integers from 0
            to V - 1, of any dtype.

    Raises:
        IteratorValidationError: An unknown item, one of another shape, or a bad
            vocabulary size; while iterating: a label is not in the vocabulary.
    """

    def _check_shape(self, name: str, shape: tuple[int, ...]) -> None:
        if len(shape) != 3 or shape[2] != 1:
            raise IteratorValidationError(
                f"OneHot: data item {name!r}: expected the shape (T, B, 1), got {shape}"
            )


# -- what they share -----------------------------------------------------------


def _read(batches: Iterable[Mapping[str, Part]]) -> Iterator[Batch]:
    for batch in batches:
        yield {name: part[:] for name, part in batch.items()}


def _float_type(array: np.ndarray) -> np.dtype:
    """Float64 stays what it is, all smaller ones and integers become float32."""
    wide = array.dtype if array.dtype.kind == "f" else np.float32
    return np.promote_types(wide, np.float32)


def _shapes(named_data: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(data.shape) for name, data in named_data.items()}

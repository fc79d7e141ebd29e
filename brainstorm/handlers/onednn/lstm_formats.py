"""The formats in which oneDNN's LSTM wants its arrays, and how to split these.

The library has its own order of the gates (i, f, z, o) and formats of the weights.
"""

from __future__ import annotations

import itertools
import operator

import numpy as np

from brainstorm.handlers.onednn.binding import Library, Memory, MemoryDesc
from brainstorm.handlers.onednn.definitions import FLOAT32, Layout
from brainstorm.handlers.onednn.lstm_arrays import step_work
from brainstorm.handlers.onednn.recipes import Arenas, Recipe
from brainstorm.handlers.operations.recurrent import Weights

# Each thread has sequences of its own if it has this many at least, if all weights find
# room in its cache, and if there is enough to do. Measured with two threads.
_MIN_SEQUENCES = 4
_MAX_WEIGHTS = 2**18
_MIN_WORK = 2**24

# Our gates are z, i, f and o. Which ones, where they begin in the library, how many.
_GATES = ((0, 2, 1), (1, 0, 2), (3, 3, 1))


def parts_of(
    x: np.ndarray, weights: Weights, y: np.ndarray, threads: int
) -> list[slice]:
    """How to split the sequences."""
    (steps, batch), (W, R, *_) = x.shape[:2], weights
    work = steps * step_work(weights, y)
    worth_it = W.size + R.size <= _MAX_WEIGHTS and work >= _MIN_WORK
    count = max(1, min(threads, batch // _MIN_SEQUENCES)) if worth_it else 1
    ends = [batch * k // count for k in range(count + 1)]
    return [slice(*pair) for pair in itertools.pairwise(ends)]


def dense(library: Library, shape: tuple[int, ...], dtype: int = FLOAT32) -> MemoryDesc:
    """The description of memory without gaps."""
    strides = itertools.accumulate((*shape[:0:-1],), operator.mul, initial=1)
    return library.desc(Layout(shape, tuple(strides)[::-1], dtype))


def unless_dense(
    memory: Memory, arenas: Arenas, name: str, dtype: int = FLOAT32
) -> Memory:
    """The memory if it has no gaps and this type, else some that is so."""
    desc = dense(memory.library, memory.desc.shape, dtype)
    return memory if desc == memory.desc else arenas.memory(name, desc)


def gate_blocks(recipe: Recipe, name: str, array: np.ndarray) -> list[Memory]:
    """The blocks of weights (4N, I) or of a bias (4N,), each as the library's order.

    In the library the sizes are (1, 1, I, 4, N), or (1, 1, 4, N) of a bias. Peepholes
    (3, N) are one block, in the same order.
    """
    if name == "peepholes":
        return [recipe.array(array[np.newaxis, np.newaxis])]
    blocks = array.reshape(4, -1, *array.shape[1:])
    if blocks.ndim == 3:
        blocks = blocks.transpose(2, 0, 1)
    blocks = blocks[np.newaxis, np.newaxis]
    return [
        recipe.array(blocks[..., first : first + count, :])
        for first, _, count in _GATES
    ]


def packed_blocks(arenas: Arenas, name: str, packed: Memory) -> list[Memory]:
    """The same blocks of an arena's memory in the library's order of the gates."""
    if name == "peepholes":
        return [packed]
    shape = packed.desc.shape
    blocks = []
    for _, first, count in _GATES:
        start = (0,) * (len(shape) - 2) + (first, 0)
        desc = packed.desc.part(start, (*shape[:-2], count, shape[-1]))
        blocks.append(arenas.memory(name, desc))
    return blocks


def copy_blocks(
    recipe: Recipe, sources: list[Memory], targets: list[Memory], add: bool = False
) -> None:
    """Append copying the blocks of some weights."""
    for source, target in zip(sources, targets, strict=True):
        recipe.reorder(source, target, add)

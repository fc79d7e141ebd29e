"""The formats in which oneDNN's LSTM and GRU want arrays, and how to split these.

The library has its own order of the gates (i, f, z, o) and formats of the weights.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from brainstorm.handlers.onednn.binding import Library, Memory, MemoryDesc
from brainstorm.handlers.onednn.definitions import FLOAT32, Arg, Layout
from brainstorm.handlers.onednn.lstm_arrays import step_work
from brainstorm.handlers.onednn.recipes import Arenas, Recipe
from brainstorm.handlers.operations.recurrent import Weights

# Each thread has sequences of its own if it has this many at least, if all weights find
# room in its cache, and if there is enough to do. Measured with two threads.
_MIN_SEQUENCES = 4
_MAX_WEIGHTS = 2**18
_MIN_WORK = 2**24


class Kind(NamedTuple):
    """A kind of recurrent layer, in the library.

    Attributes:
        name: What it is called there.
        gates: How many gates it has.
        order: Which of our gates, where they begin in the library, how many: of those
            that lie next to each other in both.
        bias_order: The same for the bias, which has four parts in any case.
        has_cells: Whether there is a state besides the outputs.
    """

    name: str
    gates: int
    order: tuple[tuple[int, int, int], ...]
    bias_order: tuple[tuple[int, int, int], ...]
    has_cells: bool

    def blocks_of(self, name: str) -> tuple[tuple[int, int, int], ...]:
        """What `order` says, for one of the parameters."""
        return self.bias_order if name == "bias" else self.order

    def in_order(self, desc: Callable[[Arg], Any], formats: Sequence[Any]) -> list[Any]:
        """Descriptions of all memory, in the order in which the library expects them.

        Args:
            desc: Gives the description for what is read, or written, forward.
            formats: Those of the weights W and R.
        """
        if not self.has_cells:
            before, after = (Arg.SRC, Arg.SRC_ITER), (Arg.DST, Arg.DST_ITER)
            return [*map(desc, before), *formats, desc(Arg.BIAS), *map(desc, after)]
        return [
            *map(desc, (Arg.SRC, Arg.SRC_ITER, Arg.SRC_ITER_C)),
            *formats,
            desc(Arg.WEIGHTS_PEEPHOLE),
            None,  # no projection
            *map(desc, (Arg.BIAS, Arg.DST, Arg.DST_ITER, Arg.DST_ITER_C)),
        ]


# Our gates are z, i, f and o.
_LSTM_ORDER = ((0, 2, 1), (1, 0, 2), (3, 3, 1))
LSTM = Kind("lstm", 4, _LSTM_ORDER, _LSTM_ORDER, has_cells=True)
# And r, z and h here; the library begins with z. The fourth bias is the recurrent one.
GRU = Kind(
    "lbr_gru",
    3,
    ((0, 1, 1), (1, 0, 1), (2, 2, 1)),
    ((0, 1, 1), (1, 0, 1), (2, 2, 2)),
    has_cells=False,
)


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


def gate_blocks(
    recipe: Recipe, kind: Kind, name: str, array: np.ndarray
) -> list[Memory]:
    """The blocks of weights (G, I) or of a bias (4N,), each as the library's order.

    In the library the sizes are (1, 1, I, gates, N), or (1, 1, 4, N) of a bias.
    Peepholes (3, N) are one block, in the same order.
    """
    if name == "peepholes":
        return [recipe.array(array[np.newaxis, np.newaxis])]
    parts = 4 if name == "bias" else kind.gates
    blocks = array.reshape(parts, -1, *array.shape[1:])
    if blocks.ndim == 3:
        blocks = blocks.transpose(2, 0, 1)
    blocks = blocks[np.newaxis, np.newaxis]
    return [
        recipe.array(blocks[..., first : first + count, :])
        for first, _, count in kind.blocks_of(name)
    ]


def packed_blocks(
    arenas: Arenas, kind: Kind, name: str, packed: Memory
) -> list[Memory]:
    """The same blocks of an arena's memory in the library's order of the gates."""
    if name == "peepholes":
        return [packed]
    shape = packed.desc.shape
    blocks = []
    for _, first, count in kind.blocks_of(name):
        start = (0,) * (len(shape) - 2) + (first, 0)
        desc = packed.desc.part(start, (*shape[:-2], count, shape[-1]))
        blocks.append(arenas.memory(name, desc))
    return blocks


def split(biases: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The bias and the recurrent bias of a GRU in an array of both."""
    first = len(biases) // 4 * 3
    return biases[:first], biases[first:]


def copy_blocks(
    recipe: Recipe, sources: list[Memory], targets: list[Memory], add: bool = False
) -> None:
    """Append copying the blocks of some weights."""
    for source, target in zip(sources, targets, strict=True):
        recipe.reorder(source, target, add)

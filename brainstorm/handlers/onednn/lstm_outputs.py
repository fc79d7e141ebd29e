"""The outputs of an LSTM alone, where nothing else is wanted of its forward pass.

The library then keeps nothing for a backward pass.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from brainstorm.handlers.onednn.binding import Memory, Primitive
from brainstorm.handlers.onednn.definitions import (
    BFLOAT16,
    FLOAT32,
    Arg,
    Layout,
    Prop,
    Query,
)
from brainstorm.handlers.onednn.lstm_arrays import step_work
from brainstorm.handlers.onednn.lstm_formats import (
    copy_blocks,
    dense,
    gate_blocks,
    packed_blocks,
    parts_of,
    unless_dense,
)
from brainstorm.handlers.onednn.recipes import Call, Recipe
from brainstorm.handlers.onednn.session import Session
from brainstorm.handlers.operations.recurrent import Weights, pieces_of

LEFT_TO_RIGHT = 1
NO_FLAGS = 0
_WEIGHTS = {"W": Arg.WEIGHTS, "R": Arg.WEIGHTS_ITER}
_OTHERS = {"bias": Arg.BIAS, "peepholes": Arg.WEIGHTS_PEEPHOLE}


class SplitCall:
    """A call, others in threads of their own, and then a last one.

    Attributes:
        values, written, addresses, size: see `Call`; values are always None.
    """

    values: Any = None

    def __init__(self, session: Session, first: Call, parts: list[Call], last: Call):
        self._session = session
        self._first, self._parts, self._last = first, parts, last
        written = itertools.chain(*[call.written for call in self._calls])
        self.written: tuple[int, ...] = tuple(sorted(set(written)))
        self.size: int = sum(call.size for call in self._calls)
        self.addresses: tuple[int, ...] | None = None

    @property
    def _calls(self) -> list[Call]:
        return [self._first, *self._parts, self._last]

    def hold(self, arrays: tuple[Any, ...]) -> None:
        """See `Call.hold`."""
        self._first.hold(arrays)

    def move(self, addresses: tuple[int, ...]) -> bool:
        """See `Call.move`."""
        if not all([call.move(addresses) for call in self._parts]):
            return False
        for call in (self._first, self._last):
            call.move(addresses)
        self.addresses = addresses
        return True

    def moves(self, addresses: tuple[int, ...]) -> list[Any]:
        """See `Call.moves`."""
        return [move for call in self._calls for move in call.moves(addresses)]

    def give_up(self) -> None:
        """See `Call.give_up`."""
        for call in self._calls:
            call.give_up()
        self.addresses = None

    @property
    def leaves(self) -> list[Any]:
        """See `Call.leaves`."""
        if len(self._parts) == 1:
            return [leaf for call in self._calls for leaf in call.leaves]
        return [self]

    def __call__(self) -> None:
        """Make them."""
        self._first()
        self._session.run(self._parts)
        self._last()


def lstm_outputs(
    session: Session, x: Any, W: Any, R: Any, bias: Any, peepholes: Any, c: Any, y: Any
) -> SplitCall:
    """What `lstm_outputs` of a handler does, if the activation function is tanh."""
    weights = Weights(W, R, bias, peepholes)
    parts = parts_of(x, weights, y, len(session.parts))
    sessions = [session] if len(parts) == 1 else session.parts
    first, last = (_recipe(session, x, weights, y) for _ in range(2))
    numbers = x[0].size + y[0].size
    pays = session.conversions.pay("lstm_outputs", step_work(weights, y), numbers)
    dtype = BFLOAT16 if pays else FLOAT32
    others = _pack_others(first, weights, y.shape[2])
    calls: list[Call] = []
    like: Primitive | None = None
    packed: dict[int, Memory] = {}
    for own, part in zip(sessions, parts, strict=False):
        recipe = _recipe(own, x, weights, y)
        for given in _pieces(recipe, dtype, x[:, part], c[:, part], y[:, part]):
            memories = {arg: memory for arg, (memory, _) in given.items()} | others
            primitive = _primitive(recipe, dtype, memories, weights, like)
            if like is None:
                like, packed = primitive, _pack(first, weights, primitive)
            for arg in (Arg.SRC, Arg.SRC_ITER, Arg.SRC_ITER_C):
                _reorder_unless_same(recipe, *given[arg][::-1])
            recipe.add(primitive, memories | packed)
            for arg in (Arg.DST, Arg.DST_ITER_C):
                _reorder_unless_same(recipe, *given[arg])
        calls.append(recipe.call())
    return SplitCall(session, first.call(), calls, last.call())


def _recipe(session: Session, x: Any, weights: Weights, y: Any) -> Recipe:
    named = (x, weights.W, y)
    return Recipe(session, "lstm_outputs", named, step_work(weights, y))


def _pieces(
    recipe: Recipe, dtype: int, x: Any, c: Any, y: Any
) -> Iterator[dict[int, tuple[Memory, Memory]]]:
    """What a primitive is to compute with, and the memory of that, piece after piece.

    The first has no gaps. The cells go from piece to piece in temporary memory.
    """
    arenas, row = recipe.session.arenas, (1, 1, *y.shape[1:])
    between = dense(recipe.library, row)
    before = recipe.array(c[-1].reshape(row))
    last = recipe.temporary("lstm last", dense(recipe.library, row, dtype))
    for number, piece in enumerate(pieces_of(len(x), 4 * y[0].size)):
        after = recipe.temporary(f"lstm cells {number % 2}", between)
        if piece.stop == len(x):
            after = recipe.array(c[0].reshape(row))
        memories = {
            Arg.SRC: (recipe.array(x[piece]), dtype),
            Arg.SRC_ITER: (recipe.array(y[piece.start - 1].reshape(row)), dtype),
            Arg.SRC_ITER_C: (before, FLOAT32),
            Arg.DST: (recipe.array(y[piece]), dtype),
            Arg.DST_ITER: (last, dtype),
            Arg.DST_ITER_C: (after, FLOAT32),
        }
        yield {
            int(arg): (unless_dense(memory, arenas, f"lstm {arg.name}", kind), memory)
            for arg, (memory, kind) in memories.items()
        }
        before = after


def _reorder_unless_same(recipe: Recipe, source: Memory, target: Memory) -> None:
    if source is not target:
        recipe.reorder(source, target)


def _primitive(
    recipe: Recipe,
    dtype: int,
    memories: dict[int, Memory],
    weights: Weights,
    like: Primitive | None,
) -> Primitive:
    """The pass, with weights in the formats of another one, or the best ones."""

    def desc(arg: Arg) -> Any:
        return memories[arg].desc if arg in memories else None

    units = weights.R.shape[1]
    formats: list[Any] = [
        Layout((1, 1, w.shape[1], 4, units), None, dtype)
        if like is None
        else like.query(Query.ARGUMENT, arg)
        for w, arg in ((weights.W, Arg.WEIGHTS), (weights.R, Arg.WEIGHTS_ITER))
    ]
    return recipe.primitive(
        "lstm_forward",
        *(Prop.FORWARD_INFERENCE, LEFT_TO_RIGHT),
        *map(desc, (Arg.SRC, Arg.SRC_ITER, Arg.SRC_ITER_C)),
        *formats,
        desc(Arg.WEIGHTS_PEEPHOLE),
        None,  # no projection
        *map(desc, (Arg.BIAS, Arg.DST, Arg.DST_ITER, Arg.DST_ITER_C)),
        NO_FLAGS,
        slow=True,  # its name is ref, but it is not
    )


def _pack_others(recipe: Recipe, weights: Weights, units: int) -> dict[int, Memory]:
    """Append copying the bias and the peepholes; without a bias there are zeros."""
    packed = {}
    for name, count in (("bias", 4), ("peepholes", 3)):
        array, shape = getattr(weights, name), (1, 1, count, units)
        if array is not None:
            memory = recipe.temporary(name, dense(recipe.library, shape))
            _copy(recipe, name, array, memory)
        elif name == "bias":
            memory = recipe.kept_array(np.zeros(shape, np.float32))
        else:
            continue
        packed[int(_OTHERS[name])] = memory
    return packed


def _pack(recipe: Recipe, weights: Weights, primitive: Primitive) -> dict[int, Memory]:
    """Append copying the other weights into the formats that a primitive wants."""
    packed = {}
    for name, arg in _WEIGHTS.items():
        memory = recipe.temporary(name, primitive.query(Query.ARGUMENT, arg))
        _copy(recipe, name, getattr(weights, name), memory)
        packed[int(arg)] = memory
    return packed


def _copy(recipe: Recipe, name: str, array: Any, memory: Memory) -> None:
    targets = packed_blocks(recipe.session.arenas, name, memory)
    copy_blocks(recipe, gate_blocks(recipe, name, array), targets)

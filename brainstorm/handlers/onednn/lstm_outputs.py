"""The outputs of an LSTM or GRU alone, where nothing else is wanted of a pass.

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
    GRU,
    LSTM,
    Kind,
    copy_blocks,
    dense,
    gate_blocks,
    packed_blocks,
    parts_of,
    split,
    unless_dense,
)
from brainstorm.handlers.onednn.recipes import Call, Recipe
from brainstorm.handlers.onednn.session import Session
from brainstorm.handlers.operations.gru import GruWeights
from brainstorm.handlers.operations.recurrent import Weights, pieces_of

LEFT_TO_RIGHT = 1
NO_FLAGS = 0
_WEIGHTS = {"W": Arg.WEIGHTS, "R": Arg.WEIGHTS_ITER}
_READ = {Arg.SRC, Arg.SRC_ITER, Arg.SRC_ITER_C}
_WRITTEN = {Arg.DST, Arg.DST_ITER_C}


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
    return _prepare(session, LSTM, x, Weights(W, R, bias, peepholes), c, y)


def gru_outputs(
    session: Session, x: Any, W: Any, R: Any, bias: Any, recurrent_bias: Any, y: Any
) -> SplitCall:
    """The same for gated recurrent units, whose resets act after the product."""
    return _prepare(session, GRU, x, GruWeights(W, R, bias, recurrent_bias), None, y)


def _prepare(
    session: Session, kind: Kind, x: Any, weights: Any, c: Any, y: Any
) -> SplitCall:
    parts = parts_of(x, weights, y, len(session.parts))
    sessions = [session] if len(parts) == 1 else session.parts
    first, last = (_recipe(session, kind, x, weights, y) for _ in range(2))
    numbers = x[:1].size + y[:1].size
    name, work = f"{kind.name}_outputs", step_work(weights, y)
    pays = session.conversions.pay(name, work, numbers)
    dtype = BFLOAT16 if pays else FLOAT32
    others = _pack_others(first, kind, weights)
    calls: list[Call] = []
    like: Primitive | None = None
    packed: dict[int, Memory] = {}
    for own, part in zip(sessions, parts, strict=False):
        recipe = _recipe(own, kind, x, weights, y)
        cells = None if c is None else c[:, part]
        for given in _pieces(recipe, dtype, x[:, part], cells, y[:, part]):
            memories = {arg: memory for arg, (memory, _) in given.items()} | others
            primitive = _primitive(recipe, kind, dtype, memories, weights, like)
            if like is None:
                like, packed = primitive, _pack(first, kind, weights, primitive)
            for arg in _READ & given.keys():
                _reorder_unless_same(recipe, *given[arg][::-1])
            recipe.add(primitive, memories | packed)
            for arg in _WRITTEN & given.keys():
                _reorder_unless_same(recipe, *given[arg])
        calls.append(recipe.call())
    return SplitCall(session, first.call(), calls, last.call())


def _recipe(session: Session, kind: Kind, x: Any, weights: Any, y: Any) -> Recipe:
    named = (x, weights.W, y)
    return Recipe(session, f"{kind.name}_outputs", named, step_work(weights, y))


def _pieces(
    recipe: Recipe, dtype: int, x: Any, c: Any, y: Any
) -> Iterator[dict[int, tuple[Memory, Memory]]]:
    """What a primitive is to compute with, and the memory of that, piece after piece.

    The first has no gaps. The cells go from piece to piece in temporary memory.
    """
    arenas, row = recipe.session.arenas, (1, 1, *y.shape[1:])
    between = dense(recipe.library, row)
    before = None if c is None else recipe.array(c[-1].reshape(row))
    last = recipe.temporary("lstm last", dense(recipe.library, row, dtype))
    for number, piece in enumerate(pieces_of(len(x), 4 * y[0].size)):
        memories = {
            Arg.SRC: (recipe.array(x[piece]), dtype),
            Arg.SRC_ITER: (recipe.array(y[piece.start - 1].reshape(row)), dtype),
            Arg.DST: (recipe.array(y[piece]), dtype),
            Arg.DST_ITER: (last, dtype),
        }
        if before is not None:
            after = recipe.temporary(f"lstm cells {number % 2}", between)
            if piece.stop == len(x):
                after = recipe.array(c[0].reshape(row))
            memories[Arg.SRC_ITER_C] = before, FLOAT32
            memories[Arg.DST_ITER_C] = after, FLOAT32
            before = after
        yield {
            int(arg): (unless_dense(memory, arenas, f"lstm {arg.name}", kind), memory)
            for arg, (memory, kind) in memories.items()
        }


def _reorder_unless_same(recipe: Recipe, source: Memory, target: Memory) -> None:
    if source is not target:
        recipe.reorder(source, target)


def _primitive(
    recipe: Recipe,
    kind: Kind,
    dtype: int,
    memories: dict[int, Memory],
    weights: Any,
    like: Primitive | None,
) -> Primitive:
    """The pass, with weights in the formats of another one, or the best ones."""

    def desc(arg: Arg) -> Any:
        return memories[arg].desc if arg in memories else None

    units = weights.R.shape[1]
    formats: list[Any] = [
        Layout((1, 1, w.shape[1], kind.gates, units), None, dtype)
        if like is None
        else like.query(Query.ARGUMENT, arg)
        for w, arg in ((weights.W, Arg.WEIGHTS), (weights.R, Arg.WEIGHTS_ITER))
    ]
    return recipe.primitive(
        f"{kind.name}_forward",
        *(Prop.FORWARD_INFERENCE, LEFT_TO_RIGHT),
        *kind.in_order(desc, formats),
        NO_FLAGS,
        slow=True,  # its name is ref, but it is not
    )


def _pack_others(recipe: Recipe, kind: Kind, weights: Any) -> dict[int, Memory]:
    """Append copying biases and peepholes; there are zeros for what is not given."""
    units, library = weights.R.shape[1], recipe.library
    bias, other = weights.bias, weights[3]
    if bias is None or not kind.has_cells:
        bias = np.zeros(4 * units, np.float32)
        recipe.kept.append(bias)
        if not kind.has_cells:
            for part, given in zip(split(bias), weights[2:], strict=True):
                if given is not None:
                    recipe.reorder(recipe.array(given), recipe.array(part))
    packed = {Arg.BIAS: recipe.temporary("bias", dense(library, (1, 1, 4, units)))}
    _copy(recipe, kind, "bias", bias, packed[Arg.BIAS])
    if kind.has_cells and other is not None:
        desc = dense(library, (1, 1, 3, units))
        memory = packed[Arg.WEIGHTS_PEEPHOLE] = recipe.temporary("peepholes", desc)
        _copy(recipe, kind, "peepholes", other, memory)
    return {int(arg): memory for arg, memory in packed.items()}


def _pack(
    recipe: Recipe, kind: Kind, weights: Any, primitive: Primitive
) -> dict[int, Memory]:
    """Append copying the other weights into the formats that a primitive wants."""
    packed = {}
    for name, arg in _WEIGHTS.items():
        memory = recipe.temporary(name, primitive.query(Query.ARGUMENT, arg))
        _copy(recipe, kind, name, getattr(weights, name), memory)
        packed[int(arg)] = memory
    return packed


def _copy(recipe: Recipe, kind: Kind, name: str, array: Any, memory: Memory) -> None:
    targets = packed_blocks(recipe.session.arenas, kind, name, memory)
    copy_blocks(recipe, gate_blocks(recipe, kind, name, array), targets)

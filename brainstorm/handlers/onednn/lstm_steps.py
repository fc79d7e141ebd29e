"""Long short-term memory step by step, of products and elementwise operations.

For large layers: products take almost all of the time then. Unlike the library's own
LSTM this needs little memory but that of the layer, is fast with peepholes, and leaves
out deltas of the inputs that nobody wants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from brainstorm.handlers.onednn.activations import add_act, add_act_deriv
from brainstorm.handlers.onednn.arithmetic import add_binary
from brainstorm.handlers.onednn.binding import Memory, Primitive
from brainstorm.handlers.onednn.definitions import (
    Algorithm,
    Arg,
    Layout,
    Query,
    UnimplementedError,
)
from brainstorm.handlers.onednn.keeping import address_of
from brainstorm.handlers.onednn.lstm_passes import (
    Fresh,
    LstmArrays,
    LstmDeltas,
    LstmPass,
    Part,
)
from brainstorm.handlers.onednn.products import add_product, add_sum_of_rows
from brainstorm.handlers.onednn.recipes import Recipe, layout
from brainstorm.handlers.onednn.session import Session
from brainstorm.handlers.operations.lstm import LstmCells
from brainstorm.utils import HandlerError
from brainstorm.utils import flatten_time as flatten_or_fail


class _Rows:
    """A recipe for one time step, whose memory moves from step to step.

    So it takes as long to prepare, and as much memory, for any number of steps.
    """

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        self._moving: list[tuple[Memory, int, int, int, int]] = []

    def row(self, array: np.ndarray, shift: int = 0) -> Memory:
        """The memory of row ``t + shift`` of an array (U, ...), in step t."""
        memory = self.recipe.array(array[0])
        steps, stride = len(array), array.strides[0]
        self._moving.append((memory, address_of(array), stride, steps, shift))
        return memory

    def cells(self, arrays: Sequence[np.ndarray]) -> LstmCells:
        """The same for each of the cells, in step t."""
        return LstmCells(*map(self.row, arrays))

    def call(self) -> Callable[[int], None]:
        """What computes a step."""
        execute, moving = self.recipe.call(), tuple(self._moving)

        def step(t: int) -> None:
            for memory, start, stride, steps, shift in moving:
                memory.move(start + (t + shift) % steps * stride)
            execute()

        return step


class _Between(NamedTuple):
    """Memory that the steps of a backward pass share.

    The deltas of the output and of the cell, those that go on to the cell before, some
    for products, and the sums for the gradients of the peepholes.
    """

    dout: Memory
    dcell: Memory
    later: Memory
    product: Memory
    sums: list[Memory]


class SteppedLstm(LstmPass):
    """A forward pass on certain arrays, and its backward passes.

    Args:
        part: What it shares with other passes of the layer.
        arrays: The arrays. No references to them are kept.

    Raises:
        UnimplementedError: The library can not do it.
    """

    leaves_out_cells = False

    def __init__(self, part: Part, arrays: LstmArrays):
        self._part = part
        self._steps = len(arrays.x)
        self._has_peepholes = arrays.peepholes is not None
        self._packed: list[Memory] = []
        self._prepare_forward(arrays)

    def forward(self) -> None:
        """Compute the outputs and the cells."""
        self._before()
        for t in range(self._steps):
            self._step(t)

    def used(self, session: Session) -> dict[str, np.ndarray]:
        """Copies of the cells to begin with, and of the weights that were used last."""
        recipe = Recipe(session, "lstm_backward", ())
        units = self._packed[0].desc.shape[0]
        copies = {
            "R": np.empty((4 * units, units), np.float32),
            "c": np.empty(self._carried.desc.shape, np.float32),
        }
        recipe.reorder(self._carried, recipe.array(copies["c"]))
        for packed, block in zip(self._packed, _blocks(copies["R"]), strict=True):
            recipe.reorder(packed, recipe.array(block))
        if self._has_peepholes:
            copies["peepholes"] = np.empty((3, units), np.float32)
            rows = _rows(copies["peepholes"])
            for kept, row in zip(self._peepholes, rows, strict=True):
                recipe.reorder(kept, recipe.array(row))
        recipe.call()()
        return copies

    # -- preparing -----------------------------------------------------------

    def _recipe(self, name: str, arrays: LstmArrays) -> Recipe:
        return self._part.recipe(name, arrays, arrays.step_work)

    def _prepare_forward(self, arrays: LstmArrays) -> None:
        recipe, rows = (self._recipe("lstm_forward", arrays) for _ in range(2))
        cells, x = arrays.cells, flatten_time(arrays.x)
        blocks = zip(cells.gates, _blocks(arrays.W), _blocks(arrays.bias), strict=True)
        for gate, W, bias in blocks:
            add_product(recipe, x, W.T, flatten_time(gate[:-1]), bias)
        R = [block.T for block in _blocks(arrays.R)]
        add_from_y, packed = self._pack(recipe, R, arrays.y[0])
        self._peepholes = self._keep_peepholes(recipe, arrays)
        carried = recipe.array(cells.Ca[-1])
        self._carried = self._part.arenas.memory("c", carried.desc)
        recipe.reorder(carried, self._carried)
        self._before = recipe.call()
        self._step = self._prepare_step(_Rows(rows), arrays, add_from_y, packed)

    def _prepare_step(
        self,
        rows: _Rows,
        arrays: LstmArrays,
        add_from_y: Primitive,
        packed: list[Memory],
    ) -> Callable[[int], None]:
        recipe, now = rows.recipe, rows.cells(arrays.cells)
        y_before, y = rows.row(arrays.y, -1), rows.row(arrays.y)
        before = rows.row(arrays.cells.Ca, -1)
        for weights, gate in zip(packed, now.gates, strict=True):
            _add_packed(recipe, add_from_y, y_before, weights, gate)
        if self._has_peepholes:
            _multiply(recipe, before, self._peepholes[0], now.Ia, add=True)
            _multiply(recipe, before, self._peepholes[1], now.Fa, add=True)
        add_act(recipe, now.Za, now.Zb, "tanh")
        add_act(recipe, now.Ia, now.Ib, "sigmoid")
        add_act(recipe, now.Fa, now.Fb, "sigmoid")
        _multiply(recipe, now.Fb, before, now.Ca)
        _multiply(recipe, now.Ib, now.Zb, now.Ca, add=True)
        if self._has_peepholes:
            _multiply(recipe, now.Ca, self._peepholes[2], now.Oa, add=True)
        add_act(recipe, now.Oa, now.Ob, "sigmoid")
        add_act(recipe, now.Ca, now.Cb, "tanh")
        _multiply(recipe, now.Ob, now.Cb, y)
        return rows.call()

    def prepare_backward(
        self, arrays: LstmArrays, to: LstmDeltas, fresh: Fresh
    ) -> Callable[[], None]:
        """See `LstmPass`."""
        before, steps, after = (self._recipe("lstm_backward", arrays) for _ in range(3))
        R = _blocks(arrays.R)
        from_above, self._packed = self._pack(before, R, arrays.y[0])
        nothing = before.kept_array(np.zeros_like(arrays.y[0]))
        names = ("dout", "dcell", "later", "product")
        temporary = [before.temporary(name, nothing.desc) for name in names]
        sums = np.empty((3, *arrays.y.shape[1:]), np.float32)
        between = _Between(*temporary, [before.kept_array(total) for total in sums])
        # Nothing comes from later than the last step, and from outside only what it
        # adds to the carried output.
        carried = before.array(to.dy[-1]), before.array(to.cells.Ca[-1])
        for memory in (between.later, *between.sums, carried[0]):
            before.reorder(nothing, memory)
        before.reorder(before.array(to.dy[-2]), between.dout)
        rows = _Rows(steps)
        deltas = self._add_step_back(rows, arrays.cells, to, between)
        steps.reorder(rows.row(to.dy, -1), between.dout)
        for weights, gate in zip(self._packed, deltas, strict=True):
            _add_packed(steps, from_above, gate, weights, between.dout)
        after.reorder(between.dout, carried[0])
        after.reorder(between.later, carried[1])
        self._add_gradients(after, arrays, to, fresh)
        if self._has_peepholes:
            dpeepholes = to.gradients["peepholes"]
            for total, gradient in zip(sums, dpeepholes, strict=True):
                add_sum_of_rows(after, total, gradient, fresh.gradients)
        begin, step, end, count = before.call(), rows.call(), after.call(), self._steps

        def backward() -> None:
            begin()
            for t in range(count - 1, -1, -1):
                step(t)
            end()

        return backward

    def _add_step_back(
        self, rows: _Rows, cells: LstmCells, to: LstmDeltas, between: _Between
    ) -> list[Memory]:
        """Append the backward pass of a step, but for its products.

        The deltas of the output and of the cell, and the sums for the gradients of the
        peepholes, go on from the step after.

        Returns:
            The deltas of the gates.
        """
        recipe, peepholes = rows.recipe, self._peepholes
        now, before = rows.cells(cells), rows.row(cells.Ca, -1)
        dZa, dIa, dFa, dOa = deltas = [rows.row(gate) for gate in to.cells.gates]
        dout, dcell, later, product, sums = between
        _multiply(recipe, dout, now.Cb, product)
        add_act_deriv(recipe, now.Ob, product, dOa, "sigmoid")
        _multiply(recipe, dout, now.Ob, product)
        add_act_deriv(recipe, now.Cb, product, dcell, "tanh")
        add_binary(recipe, Algorithm.ADD, dcell, later, dcell)
        if self._has_peepholes:
            _multiply(recipe, dOa, peepholes[2], dcell, add=True)
        _multiply(recipe, dcell, now.Ib, product)
        add_act_deriv(recipe, now.Zb, product, dZa, "tanh")
        _multiply(recipe, dcell, now.Zb, product)
        add_act_deriv(recipe, now.Ib, product, dIa, "sigmoid")
        _multiply(recipe, dcell, before, product)
        add_act_deriv(recipe, now.Fb, product, dFa, "sigmoid")
        _multiply(recipe, dcell, now.Fb, later)
        if self._has_peepholes:
            _multiply(recipe, dIa, peepholes[0], later, add=True)
            _multiply(recipe, dFa, peepholes[1], later, add=True)
            seen = ((dIa, before), (dFa, before), (dOa, now.Ca))
            for (gate, cell), total in zip(seen, sums, strict=True):
                _multiply(recipe, gate, cell, total, add=True)
        return deltas

    def _add_gradients(
        self, recipe: Recipe, arrays: LstmArrays, to: LstmDeltas, fresh: Fresh
    ) -> None:
        """Append products over all steps."""
        add, x, y = not fresh.gradients, flatten_time(arrays.x), arrays.y
        stacked = (arrays.W, *(to.gradients[name] for name in ("W", "R", "bias")))
        for k, (gate, *blocks) in enumerate(
            zip(to.cells.gates, *map(_blocks, stacked), strict=True)
        ):
            W, dW, dR, dbias = blocks
            rows = flatten_time(gate[:-1])
            add_product(recipe, rows.T, x, dW, add=add)
            add_product(recipe, gate[0].T, y[-1], dR, add=add)
            if len(gate) > 2:
                later, before = flatten_time(gate[1:-1]), flatten_time(y[:-2])
                add_product(recipe, later.T, before, dR, add=True)
            add_sum_of_rows(recipe, rows, dbias, fresh.gradients)
            if to.dx is not None:
                dx = flatten_time(to.dx)
                add_product(recipe, rows, W, dx, add=k > 0 or not fresh.dx)

    def _pack(
        self, recipe: Recipe, matrices: Sequence[np.ndarray], like: np.ndarray
    ) -> tuple[Primitive, list[Memory]]:
        """Append copying matrices into the format that the library likes best.

        Returns:
            What adds a product of rows with one of them to rows like the given ones,
            and the copies.
        """
        rows = layout(like)
        primitive = recipe.primitive(
            *("matmul", rows, Layout(matrices[0].shape), None, rows),
            post_ops=(("sum",),),
        )
        desc, packed = primitive.query(Query.WEIGHTS), []
        for k, matrix in enumerate(matrices):
            packed.append(self._part.weights.memory(f"R{k}", desc))
            recipe.reorder(recipe.array(matrix), packed[k])
        return primitive, packed

    def _keep_peepholes(self, recipe: Recipe, arrays: LstmArrays) -> list[Memory]:
        """Append copying them; each becomes a row."""
        kept = []
        if self._has_peepholes:
            for k, row in enumerate(_rows(arrays.peepholes)):
                given = recipe.array(row)
                kept.append(self._part.weights.memory(f"peephole {k}", given.desc))
                recipe.reorder(given, kept[k])
        return kept


def flatten_time(array: np.ndarray) -> np.ndarray:
    """See `brainstorm.utils.flatten_time`; not all arrays have such a view."""
    try:
        return flatten_or_fail(array)
    except HandlerError as error:
        raise UnimplementedError(str(error)) from error


def _blocks(stacked: np.ndarray) -> list[np.ndarray]:
    """Those of the block input and of the gates, in a stack of four."""
    return list(stacked.reshape(4, -1, *stacked.shape[1:]))


def _rows(matrix: np.ndarray) -> list[np.ndarray]:
    return [row[np.newaxis] for row in matrix]


def _add_packed(
    recipe: Recipe, product: Primitive, rows: Memory, weights: Memory, out: Memory
) -> None:
    memories = {Arg.SRC: rows, Arg.WEIGHTS: weights, Arg.DST: out}
    recipe.add(product, memories)


def _multiply(
    recipe: Recipe, a: Memory, b: Memory, out: Memory, add: bool = False
) -> None:
    """Append ``out (+)= a b``, number by number; `b` may be one row."""
    add_binary(recipe, Algorithm.MULTIPLY, a, b, out, add=add)

"""Products of matrices, and sums, with oneDNN."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from brainstorm.handlers.numpy.products import NumpyProducts
from brainstorm.handlers.onednn.binding import Memory, Primitive
from brainstorm.handlers.onednn.definitions import (
    Layout,
    Query,
    UnimplementedError,
)
from brainstorm.handlers.onednn.part import OneDnnPart
from brainstorm.handlers.onednn.recipes import Call, Recipe, layout

# Up to this many rows are summed one after the other; of more, groups of so many.
_AT_ONCE = 64
_GROUP = 16
# A matrix is packed to be multiplied with again and again, if it is this large. NumPy
# multiplies single rows faster.
_LARGE_MATRIX = 2**12
# So many products pay for packing a matrix.
_OFTEN = 8

# Of so many numbers, the result of a product with a transposed matrix is made in parts.
IN_PARTS = 2**18

# NumPy multiplies a row by so many faster.
_FEW_NUMBERS = 2**19


class _Rows:
    """The rows of a matrix, or a number of sums of them in temporary memory.

    The `level` tells how often they were summed.
    """

    def __init__(
        self, recipe: Recipe, m: np.ndarray, count: int | None = None, level: int = 0
    ):
        self._recipe, self._m = recipe, m
        self.count = len(m) if count is None else count
        self.level = level

    def copy(self) -> _Rows:
        """The same without gaps."""
        copied = _Rows(self._recipe, self._m, self.count, self.level + 1)
        self._recipe.reorder(self._recipe.array(self._m), copied.last(self.count))
        return copied

    def last(self, count: int) -> Memory:
        """The last rows, as a matrix."""
        if self.level == 0:
            return self._recipe.array(self._m[len(self._m) - count :])
        return self._temporary(count, self._m.shape[1], self.count - count)

    def wide(self, count: int, width: int) -> Memory:
        """The first ones as so many wide rows, of that many each."""
        columns = width * self._m.shape[1]
        if self.level == 0:
            return self._recipe.array(self._m[: count * width].reshape(count, columns))
        return self._temporary(count, columns)

    def _temporary(self, rows: int, columns: int, first: int = 0) -> Memory:
        dense = Layout((rows, columns), (columns, 1))
        offset = first * columns * np.dtype(np.float32).itemsize
        return self._recipe.temporary(f"sums {self.level % 2}", dense, offset)


class _Packed(NamedTuple):
    """A matrix in the format that the library likes best for some products."""

    values: np.ndarray
    shape: tuple[int, int]
    add: bool


class OneDnnProducts(OneDnnPart, NumpyProducts):
    """Part of OneDnnHandler."""

    def dot_mm(
        self, a: Any, b: Any, out: Any, transa: bool = False, transb: bool = False
    ) -> None:
        how = (a, b, out), transa, transb, False
        if _is_row(b, out) or not self._does(dot, *how):
            super().dot_mm(a, b, out, transa, transb)

    def dot_add_mm(
        self, a: Any, b: Any, out: Any, transa: bool = False, transb: bool = False
    ) -> None:
        how = (a, b, out), transa, transb, True
        if _is_row(b, out) or not self._does(dot, *how):
            super().dot_add_mm(a, b, out, transa, transb)

    def batch_dot_mm(
        self, a: Any, b: Any, out: Any, transa: bool = False, transb: bool = False
    ) -> None:
        if not self._does(batch_dot, (a, b, out), transa, transb, False):
            super().batch_dot_mm(a, b, out, transa, transb)

    def batch_dot_add_mm(
        self, a: Any, b: Any, out: Any, transa: bool = False, transb: bool = False
    ) -> None:
        if not self._does(batch_dot, (a, b, out), transa, transb, True):
            super().batch_dot_add_mm(a, b, out, transa, transb)

    def _pack(self, b, a, out, times, transb=False, add=False, slot=0) -> Any:
        packed = super()._pack(b, a, out, times, transb, add)
        if b.size < _LARGE_MATRIX or times < _OFTEN or _is_row(b, out):
            return packed
        shape = b.T.shape if transb else b.shape
        try:
            recipe = _recipe_of_product(self.current_session(), a, shape, out)
            desc = _product(recipe, a, Layout(shape), out, add).query(Query.WEIGHTS)
        except UnimplementedError:
            return packed
        values = self.scratch((-(-desc.size // 4),), ("packed", b.shape, slot))
        if not self._does(pack, (b, values, a, out), transb, add):
            return packed
        return _Packed(values, shape, add)

    def _dot_packed(self, a: Any, packed: Any, out: Any) -> None:
        if isinstance(packed, _Packed):
            values, shape, add = packed
            self._does(dot_packed, (a, values, out), shape, add)
        else:
            super()._dot_packed(a, packed, out)

    def sum_t(self, a: Any, axis: int | None, out: Any) -> None:
        is_fast = axis == 0 and a.ndim == 2 and a.size >= self._large
        if not (is_fast and self._does(sum_rows, (a, out), True)):
            super().sum_t(a, axis, out)

    def _sum_rows(self, m: Any, out: Any, fresh: bool) -> None:
        if not self._does(sum_rows, (m, out), fresh):
            super()._sum_rows(m, out, fresh)


def _is_row(b: np.ndarray, out: np.ndarray) -> bool:
    """Whether NumPy computes a product faster, of one row with few numbers."""
    return len(out) == 1 and b.size <= _FEW_NUMBERS


def dot(
    session: Any, a: Any, b: Any, out: Any, transa: Any, transb: Any, add: Any
) -> Call:
    """``out (+)= a b``."""
    work = a.size * out.shape[1]
    recipe = Recipe(session, "dot_mm", (a, b, out), work)
    add_product(recipe, a.T if transa else a, b.T if transb else b, out, add=add)
    return recipe.call()


def batch_dot(
    session: Any, a: Any, b: Any, out: Any, transa: Any, transb: Any, add: Any
) -> Call:
    """``out[i] (+)= a[i] b[i]``."""
    recipe = Recipe(session, "batch_dot_mm", (a, b, out), a.size * out.shape[2])
    a, b = (a.swapaxes(1, 2) if transa else a), (b.swapaxes(1, 2) if transb else b)
    add_product(recipe, a, b, out, add=add)
    return recipe.call()


def pack(
    session: Any, b: Any, values: Any, a: Any, out: Any, transb: Any, add: Any
) -> Call:
    """Copy a matrix into the format in which `dot_packed` uses it."""
    matrix = b.T if transb else b
    recipe = _recipe_of_product(session, a, matrix.shape, out)
    primitive = _product(recipe, a, Layout(matrix.shape), out, add)
    packed = recipe.array(values, primitive.query(Query.WEIGHTS))
    recipe.reorder(recipe.array(matrix), packed)
    return recipe.call()


def dot_packed(
    session: Any, a: Any, values: Any, out: Any, shape: Any, add: Any
) -> Call:
    """``out (+)= a b`` with what `pack` made of b."""
    recipe = _recipe_of_product(session, a, shape, out)
    primitive = _product(recipe, a, Layout(shape), out, add)
    packed = recipe.array(values, primitive.query(Query.WEIGHTS))
    source = recipe.wanted(recipe.array(a), primitive, Query.SRC, "factor")
    recipe.add(primitive, src=source, weights=packed, dst=recipe.array(out))
    return recipe.call()


def _recipe_of_product(session, a, shape, out) -> Recipe:
    return Recipe(session, "dot_packed", (a, out), a.size * shape[1])


def _product(recipe, a, b, out, add, bias=None) -> Primitive:
    """A product with a matrix, perhaps in the format that the library likes best."""
    sums = (("sum",),) if add else ()
    factors = recipe.factor(layout(a)), recipe.factor(b)
    return recipe.primitive("matmul", *factors, bias, layout(out), post_ops=sums)


def sum_rows(session: Any, m: Any, out: Any, fresh: Any) -> Call:
    """``out (+)= `` the sum of the rows of `m`."""
    recipe = Recipe(session, "sum_t", (m, out), m.size)
    add_sum_of_rows(recipe, m, out, fresh)
    return recipe.call()


def add_product(
    recipe: Any, a: Any, b: Any, out: Any, bias: Any = None, add: bool = False
) -> None:
    """Append ``out (+)= a b + bias``."""
    is_known = recipe.converts or recipe.session.math_mode == "f32"
    if bias is None and a.ndim == 2 and is_known:
        a, b, out = _in_parts(recipe.session.threads, a, b, out)
    biased, row = {}, None
    if bias is not None:
        row = bias.reshape(1, -1)
        biased, row = {"bias": recipe.array(row)}, layout(row)
    primitive = _product(recipe, a, layout(b), out, add, row)
    a, b, out = map(recipe.array, (a, b, out))
    source = recipe.wanted(a, primitive, Query.SRC, "factor")
    weights = recipe.wanted(b, primitive, Query.WEIGHTS, "second factor")
    recipe.add(primitive, src=source, weights=weights, dst=out, **biased)


def _in_parts(threads: int, a: Any, b: Any, out: Any) -> tuple[Any, Any, Any]:
    """A large product as a few of parts, where the library is faster with these.

    A transposed first matrix is cut by rows of the result, so that what it copies at a
    time stays in the caches; else a large second one by columns, so that each thread
    reads a part of its own.
    """
    count, (rows, columns) = max(2, threads), out.shape
    if a.strides[0] < a.strides[1]:
        if out.size < IN_PARTS or rows % count:
            return a, b, out
        a, out = (m.reshape(count, rows // count, m.shape[1]) for m in (a, out))
        return a, b[np.newaxis], out
    if b.strides[0] < b.strides[1] or b.size <= 2 * IN_PARTS or columns % count:
        return a, b, out
    b, out = (
        m.reshape(len(m), count, columns // count).swapaxes(0, 1) for m in (b, out)
    )
    return a[np.newaxis], b, out


def add_sum_of_rows(
    recipe: Recipe, m: np.ndarray, out: np.ndarray, fresh: bool
) -> None:
    """Append the sum of the rows of a matrix, as products with ones, in float32.

    Many rows are summed in groups first, and then the sums, so that no digits get lost.
    Groups lie side by side as one wide row of each, which is as fast.
    """
    rows, total, is_first = _Rows(recipe, m), recipe.array(out.reshape(1, -1)), fresh
    if rows.count > _AT_ONCE and not m.flags.c_contiguous:
        rows = rows.copy()
    while rows.count > _AT_ONCE:
        width, rest = divmod(rows.count, _GROUP)
        if rest:
            _add_sum(recipe, rows.last(rest), total, add=not is_first)
            is_first = False
        sums = _Rows(recipe, m, width, rows.level + 1)
        _add_sum(recipe, rows.wide(_GROUP, width), sums.wide(1, width))
        rows = sums
    _add_sum(recipe, rows.last(rows.count), total, add=not is_first)


def _add_sum(recipe: Recipe, m: Memory, out: Memory, add: bool = False) -> None:
    ones = recipe.kept_array(recipe.session.ones(m.desc.shape[0]))
    primitive = recipe.primitive(
        *("matmul", ones.desc, m.desc, None, out.desc),
        post_ops=(("sum",),) if add else (),
        exact=True,
    )
    recipe.add(primitive, src=ones, weights=m, dst=out)

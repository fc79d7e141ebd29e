"""Long short-term memory over whole sequences, prepared for oneDNN.

The library has its own order of the gates (i, f, z, o) and formats of the weights. It
keeps of a forward pass only what its backward pass needs, in a format that is its own
affair; so this module also keeps what the internals of a layer can be computed from.

Threads that share the work of a step wait for each other after each. So small layers
are faster when each thread has sequences of its own, in memory of its own, and they
meet at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from brainstorm.handlers.onednn.arithmetic import add_binary
from brainstorm.handlers.onednn.binding import Memory, MemoryDesc, Primitive
from brainstorm.handlers.onednn.definitions import (
    BFLOAT16,
    FLOAT32,
    Algorithm,
    Arg,
    Layout,
    Prop,
    Query,
)
from brainstorm.handlers.onednn.lstm_arrays import LstmArrays, LstmDeltas
from brainstorm.handlers.onednn.lstm_formats import (
    LSTM,
    Kind,
    copy_blocks,
    dense,
    gate_blocks,
    packed_blocks,
    parts_of,
    unless_dense,
)
from brainstorm.handlers.onednn.recipes import Arenas, Call, Recipe
from brainstorm.handlers.onednn.session import Session

LEFT_TO_RIGHT = 1
NO_FLAGS = 0
OVERWRITE_GRADIENTS = 1
# Where the library writes the gradients.
_GRADIENTS = {
    "W": Arg.DIFF_WEIGHTS,
    "R": Arg.DIFF_WEIGHTS_ITER,
    "bias": Arg.DIFF_BIAS,
    "peepholes": Arg.DIFF_WEIGHTS_PEEPHOLE,
}
# Where the library finds, or writes, the deltas of all that.
_DIFFS = {
    Arg.SRC: Arg.DIFF_SRC,
    Arg.SRC_ITER: Arg.DIFF_SRC_ITER,
    Arg.SRC_ITER_C: Arg.DIFF_SRC_ITER_C,
    Arg.DST: Arg.DIFF_DST,
    Arg.DST_ITER: Arg.DIFF_DST_ITER,
    Arg.DST_ITER_C: Arg.DIFF_DST_ITER_C,
}
_KEPT = {"bias": Arg.BIAS, "peepholes": Arg.WEIGHTS_PEEPHOLE}
_WEIGHTS = {"W": Arg.WEIGHTS, "R": Arg.WEIGHTS_ITER}


class Part:
    """What the passes of a layer on a part of the sequences share.

    Args:
        session: Where they run.
        weights: Memory that the parts share. By default, `arenas`.

    Attributes:
        session: Likewise.
        arenas: Memory to keep between the forward and the backward pass.
        weights: Likewise, for weights in the library's formats.
    """

    def __init__(self, session: Session, weights: Arenas | None = None):
        self.session = session
        self.arenas: Arenas = Arenas(session.library)
        self.weights: Arenas = weights or self.arenas

    def recipe(self, name: str, arrays: LstmArrays) -> Recipe:
        """A recipe that uses its memory."""
        named = (arrays.x, arrays.weights.W, arrays.y)
        recipe = Recipe(self.session, name, named, arrays.step_work)
        recipe.kept += [self.arenas, self.weights]
        return recipe


class _Around(NamedTuple):
    """Recipes for what all parts of a pass need, and for what to make of them."""

    before: Recipe
    after: Recipe


class _Calls(NamedTuple):
    """What a pass does: something before, all parts at the same time, the rest."""

    session: Session
    before: Call
    parts: list[Call]
    after: Call

    def __call__(self) -> None:
        self.before()
        self.session.run(self.parts)
        self.after()


class LibraryLstm:
    """A forward pass on certain arrays, and its backward passes.

    Of the cells only the last state is computed, and of their deltas only those of the
    carried state.

    Args:
        whole: What it shares with other passes of the layer: only the last one of them
            can be continued.
        parts: Likewise, if the sequences are split: one for each thread.
        arrays: The arrays. No references to them are kept.

    Raises:
        UnimplementedError: The library can not do it.
    """

    kind: Kind = LSTM

    def __init__(self, whole: Part, parts: list[Part], arrays: LstmArrays):
        if arrays.weights.bias is None:  # without one, the library does nothing
            self._zeros = np.zeros(len(arrays.weights.W), np.float32)
            arrays = replace(arrays, weights=arrays.weights._replace(bias=self._zeros))
        self._whole = whole
        self._slices = parts_of(arrays.x, arrays.weights, arrays.y, len(parts))
        self._parts = [whole] if len(self._slices) == 1 else parts[: len(self._slices)]
        numbers = arrays.x[:1].size + arrays.y[:1].size
        pays = whole.session.conversions.pay(self.kind.name, arrays.step_work, numbers)
        self._dtype = BFLOAT16 if pays else FLOAT32
        named = {**arrays.weights._asdict(), "x": arrays.x, "y": arrays.y}
        self._shapes = {n: a.shape for n, a in named.items() if a is not None}
        self._passes: list[_PartialPass] = []
        self._forward = self._prepare_forward(arrays)

    def forward(self) -> None:
        """Compute the outputs, from weights and inputs that are kept."""
        self._kept |= self._passes[0].weights
        self._forward()

    def prepare_backward(
        self, arrays: LstmArrays, to: LstmDeltas
    ) -> Callable[[], None]:
        """What computes all gradients and the deltas of the inputs.

        Raises:
            UnimplementedError: The library can not do it.
        """
        calls = self._prepare_backward(arrays, to)
        weights = self._passes[0].backward_weights

        def backward() -> None:
            calls()
            # They took the place of those of the forward pass.
            self._kept |= weights

        return backward

    def used(self, session: Session) -> dict[str, np.ndarray]:
        """Copies of the inputs, weights and state that the last pass used.

        Args:
            session: The session of this thread.
        """
        recipe = Recipe(session, f"{self.kind.name}_forward", (), math.inf)
        copies = {n: np.empty(self._shapes[n], np.float32) for n in (*self._kept, "x")}
        state = self._shapes["y"][1:]
        carried = self._passes[0].carried
        copies |= {name: np.empty(state, np.float32) for name in carried}
        for name, kept in self._kept.items():
            blocks = packed_blocks(self._whole.arenas, self.kind, name, kept)
            copy_blocks(
                recipe, blocks, gate_blocks(recipe, self.kind, name, copies[name])
            )
        for each, sequences in zip(self._passes, self._slices, strict=True):
            recipe.reorder(each.x, recipe.array(copies["x"][:, sequences]))
            for name, memory in each.carried.items():
                row = copies[name][np.newaxis, np.newaxis, sequences]
                recipe.reorder(memory, recipe.array(row))
        recipe.call()()
        return copies

    # -- preparing -----------------------------------------------------------

    def _prepare_forward(self, arrays: LstmArrays) -> _Calls:
        around = before, after = self._recipes(f"{self.kind.name}_forward", arrays)
        arenas, shape = self._whole.arenas, arrays.y.shape
        self._kept = {
            name: arenas.memory(name, dense(before.library, (1, 1, count, shape[2])))
            for name, count in (("bias", 4), ("peepholes", 3))
            if name in self._shapes
        }
        for part, sequences in zip(self._parts, self._slices, strict=True):
            first = self._passes[0] if self._passes else None
            given = part, arrays.of(sequences), self._kept, around, first
            self._passes.append(_PartialPass(self.kind, *given, self._dtype))
        self._kept |= self._passes[0].weights
        self._pack(before, arrays, self._kept)
        calls = [each.forward for each in self._passes]
        return _Calls(self._whole.session, before.call(), calls, after.call())

    def _prepare_backward(self, arrays: LstmArrays, to: LstmDeltas) -> _Calls:
        around = before, after = self._recipes(f"{self.kind.name}_backward", arrays)
        calls = [
            each.prepare_backward(arrays.of(part), to.of(part), around)
            for each, part in zip(self._passes, self._slices, strict=True)
        ]
        first, *others = self._passes
        self._pack(before, arrays, first.backward_weights)
        for name, total in first.gradients.items():
            for other in others:
                flat = first.flat_gradient(name)
                added = other.flat_gradient(name)
                add_binary(after, Algorithm.ADD, flat, added, flat)
            arenas = self._parts[0].session.arenas
            blocks = packed_blocks(arenas, self.kind, name, total)
            self._put_gradient(after, name, blocks, to)
        return _Calls(self._whole.session, before.call(), calls, after.call())

    def _recipes(self, name: str, arrays: LstmArrays) -> _Around:
        return _Around(*[self._whole.recipe(name, arrays) for _ in range(2)])

    def _pack(
        self, recipe: Recipe, arrays: LstmArrays, packed: Mapping[str, Memory]
    ) -> None:
        """Append copying weights into the library's formats."""
        for name, memory in packed.items():
            gates = gate_blocks(recipe, self.kind, name, getattr(arrays.weights, name))
            blocks = packed_blocks(self._whole.arenas, self.kind, name, memory)
            copy_blocks(recipe, gates, blocks)

    def _put_gradient(
        self, recipe: Recipe, name: str, blocks: list[Memory], to: LstmDeltas
    ) -> None:
        """Append copying, or adding, a gradient to where it is wanted, if it is."""
        wanted = getattr(to.gradients, name)
        if wanted is not None:
            gates = gate_blocks(recipe, self.kind, name, wanted)
            copy_blocks(recipe, blocks, gates, add=not to.fresh_gradients)


class _PartialPass:
    """A pass on a part of the sequences.

    Steps that do not lie one after the other are copied to where they do: then the
    library can multiply for all of them at once.

    Args:
        kind: What kind of layer it is.
        part: What it shares with other passes.
        arrays: The arrays of the part.
        kept: The bias and the peepholes, if there are any.
        around: Where to append what is done before and after the pass.
        first: The pass on another part, whose formats to use.
        dtype: The library's number for that of factors, and of outputs.

    Attributes:
        x: The inputs, which are kept.
        carried: The output and the cell to begin with, by 'y' and 'c', likewise.
        forward: Computes the outputs.
        weights: The weights, as the forward pass wants them.
        backward_weights: The same for the backward pass.
        gradients: Where the backward pass writes gradients.
    """

    forward: Call
    weights: dict[str, Memory]
    backward_weights: dict[str, Memory]
    gradients: dict[str, Memory]
    _forward: Primitive
    _backward: Primitive

    def __init__(
        self,
        kind: Kind,
        part: Part,
        arrays: LstmArrays,
        kept: Mapping[str, Memory],
        around: _Around,
        first: _PartialPass | None,
        dtype: int = FLOAT32,
    ):
        self._part, self._first, self._dtype = part, first, dtype
        self._kind = kind
        recipe = part.recipe(f"{kind.name}_forward", arrays)
        row = (1, 1, *arrays.y.shape[1:])
        given, outputs = recipe.array(arrays.x), recipe.array(arrays.y[:-1])
        x_desc = dense(recipe.library, arrays.x.shape, dtype)
        self.x = part.arenas.memory("x", x_desc)
        self.carried = {}
        states = {"y": (arrays.y, dtype)}
        if kind.has_cells:
            states["c"] = arrays.cells.Ca, FLOAT32
        for name, (array, type_) in states.items():
            state = recipe.array(array[-1:, np.newaxis])
            desc = dense(recipe.library, state.desc.shape, type_)
            self.carried[name] = part.arenas.memory(f"carried {name}", desc)
            around.before.reorder(state, self.carried[name])
        memories: dict[int, Memory] = {
            Arg.SRC: self.x,
            Arg.SRC_ITER: self.carried["y"],
            Arg.DST: unless_dense(outputs, part.arenas, "y", dtype),
        }
        if kind.has_cells:
            last_cells = recipe.array(arrays.cells.Ca[-2].reshape(row))
            memories |= {
                Arg.SRC_ITER_C: self.carried["c"],
                Arg.DST_ITER_C: last_cells,
            }
        self._memories = memories
        last = memories[Arg.SRC_ITER].desc
        memories[Arg.DST_ITER] = part.arenas.memory("last outputs", last)
        for name, memory in kept.items():
            memories[_KEPT[name]] = memory
        gates = kind.gates, row[-1]
        self._sizes = [(1, 1, w.shape[1], *gates) for w in arrays.weights[:2]]
        self._forward = recipe.primitive(
            f"{kind.name}_forward",
            *(Prop.FORWARD_TRAINING, LEFT_TO_RIGHT),
            *self._common_args(None if first is None else first._forward),
            NO_FLAGS,
            slow=True,  # its name is ref, but it is not
        )
        workspace = self._forward.query(Query.WORKSPACE)
        memories[Arg.WORKSPACE] = part.arenas.memory("workspace", workspace)
        self.weights = self._weights_of(self._forward)
        recipe.add(self._forward, memories | _by_argument(self.weights))
        self.forward = recipe.call()
        around.before.reorder(given, self.x)
        if memories[Arg.DST] is not outputs:
            around.after.reorder(memories[Arg.DST], outputs)

    def prepare_backward(
        self, arrays: LstmArrays, to: LstmDeltas, around: _Around
    ) -> Call:
        """What computes the gradients and the deltas."""
        recipe = self._part.recipe(f"{self._kind.name}_backward", arrays)
        arenas = self._part.session.arenas
        row = (1, 1, *arrays.y.shape[1:])
        nothing = recipe.kept_array(np.zeros(row, np.float32))
        deltas = recipe.array(to.dy[:-1])
        memories = {
            **self._memories,
            Arg.DIFF_DST: unless_dense(deltas, arenas, "deltas"),
            Arg.DIFF_SRC: arenas.memory(
                "inputs", dense(recipe.library, arrays.x.shape)
            ),
            Arg.DIFF_SRC_ITER: recipe.array(to.dy[-1].reshape(row)),
            # Nothing comes from later than the last step.
            Arg.DIFF_DST_ITER: nothing,
        }
        if self._kind.has_cells:
            carried = recipe.array(to.cells.Ca[-1].reshape(row))
            memories |= {Arg.DIFF_SRC_ITER_C: carried, Arg.DIFF_DST_ITER_C: nothing}
        if memories[Arg.DIFF_DST] is not deltas:
            around.before.reorder(deltas, memories[Arg.DIFF_DST])
        if to.dx is not None:
            inputs = recipe.array(to.dx)
            if to.fresh_dx:
                memories[Arg.DIFF_SRC] = unless_dense(inputs, arenas, "inputs")
            if memories[Arg.DIFF_SRC] is not inputs:
                around.after.reorder(
                    memories[Arg.DIFF_SRC], inputs, add=not to.fresh_dx
                )
        primitive = self._make_backward(recipe, memories)
        self.backward_weights = self._weights_of(primitive)
        self.gradients = {
            name: arenas.memory(name, primitive.query(Query.ARGUMENT, arg))
            for name, arg in _GRADIENTS.items()
            if name in _WEIGHTS or _KEPT[name] in memories
        }
        memories |= _by_argument(self.backward_weights)
        for name, memory in self.gradients.items():
            memories[_GRADIENTS[name]] = memory
        recipe.add(primitive, memories)
        return recipe.call()

    def _weights_of(self, primitive: Primitive) -> dict[str, Memory]:
        """Memory for the weights in the formats that a primitive wants."""
        return {
            name: self._part.weights.memory(name, primitive.query(Query.ARGUMENT, arg))
            for name, arg in _WEIGHTS.items()
        }

    def _common_args(self, like: Primitive | None) -> list[Any]:
        """The descriptions that both passes expect."""
        formats = self._formats(like, Arg.WEIGHTS, Arg.WEIGHTS_ITER, dtype=self._dtype)
        return self._kind.in_order(self._desc, formats)

    def _desc(self, arg: Arg) -> MemoryDesc | None:
        """The description of a memory, or None if there is none."""
        memory = self._memories.get(arg)
        return None if memory is None else memory.desc

    def _formats(
        self, like: Primitive | None, *args: Arg, dtype: int = FLOAT32
    ) -> list[Any]:
        """Descriptions of W and R: those of another primitive, or any."""
        if like is None:
            return [Layout(size, None, dtype) for size in self._sizes]
        return [like.query(Query.ARGUMENT, arg) for arg in args]

    def _make_backward(
        self, recipe: Recipe, memories: Mapping[int, Memory]
    ) -> Primitive:
        """It overwrites the gradients."""
        like = None if self._first is None else self._first._backward

        def desc(arg: Arg) -> MemoryDesc | None:
            return memories[_DIFFS[arg]].desc if arg in _DIFFS else self._desc(arg)

        formats = self._formats(like, Arg.DIFF_WEIGHTS, Arg.DIFF_WEIGHTS_ITER)
        self._backward = recipe.primitive(
            f"{self._kind.name}_backward",
            *(Prop.BACKWARD, LEFT_TO_RIGHT),
            *self._common_args(like),
            *self._kind.in_order(desc, formats),
            OVERWRITE_GRADIENTS,
            self._forward,
            slow=True,
        )
        return self._backward

    def flat_gradient(self, name: str) -> Memory:
        """The numbers of a gradient in a row, with those between them."""
        arenas, size = self._part.session.arenas, self.gradients[name].desc.size
        return arenas.memory(name, dense(self._forward.library, (size // 4,)))


def _by_argument(weights: Mapping[str, Memory]) -> dict[int, Memory]:
    return {_WEIGHTS[name]: memory for name, memory in weights.items()}

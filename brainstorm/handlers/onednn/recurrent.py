"""Long short-term memory over whole sequences, prepared for oneDNN.

The library has its own order of the gates (i, f, z, o) and formats of the weights. It
keeps of a forward pass only what its backward pass needs, in a format that is its own
affair; so this module also keeps what the internals of a layer can be computed from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from brainstorm.handlers.onednn.binding import (
    Arg,
    Layout,
    Memory,
    Primitive,
    Prop,
    Query,
)
from brainstorm.handlers.onednn.session import Arenas, Call, Recipe, Session, place_of
from brainstorm.handlers.recurrent_operations import LstmCells

__all__ = ["Fresh", "LstmArrays", "LstmDeltas", "LstmPass"]

LEFT_TO_RIGHT = 1
NO_FLAGS = 0
OVERWRITE_GRADIENTS = 1

# Our gates are z, i, f and o. Which ones, where they begin in the library, how many.
_GATES = ((0, 2, 1), (1, 0, 2), (3, 3, 1))


class LstmArrays(NamedTuple):
    """What the forward pass of an LSTM works on, see `lstm_forward`."""

    x: np.ndarray
    W: np.ndarray
    R: np.ndarray
    peepholes: np.ndarray | None
    bias: np.ndarray
    cells: LstmCells
    y: np.ndarray


class LstmDeltas(NamedTuple):
    """What the backward pass works on besides, see `lstm_backward`."""

    dy: np.ndarray
    cells: LstmCells
    dx: np.ndarray | None
    gradients: dict[str, np.ndarray | None]  # of W, R, peepholes and bias


class Fresh(NamedTuple):
    """What the backward pass overwrites instead of adding to it."""

    dx: bool
    gradients: bool


class LstmPass:
    """A forward pass on certain arrays, and its backward pass.

    Args:
        session: Where they are going to run.
        arenas: Memory to keep between them. Only the last pass of all that share it
            can be continued.
        arrays: The arrays. No references to them are kept.

    Attributes:
        forward: Computes the outputs, from weights and inputs that it keeps. The cells
            are left out.

    Raises:
        UnimplementedError: The library can not do it.
    """

    def __init__(self, session: Session, arenas: Arenas, arrays: LstmArrays):
        self._session = session
        # That of one step: the threads wait for each other after each.
        self._work = arrays.x[0].size * len(arrays.W) + arrays.y[0].size * len(arrays.R)
        self._arenas = arenas
        self._shapes = {
            name: array.shape
            for name, array in arrays._asdict().items()
            if isinstance(array, np.ndarray)
        }
        self._backward: tuple[Any, Call | None] = (None, None)
        self.forward = self._prepare_forward(arrays)

    def backward(self, arrays: LstmArrays, to: LstmDeltas, fresh: Fresh) -> None:
        """Compute all gradients and deltas but those of the cells."""
        changing = (to.dy, to.dx, to.gradients["W"], to.cells.Ca)
        key = fresh, *[place_of(array) for array in changing]
        if self._backward[0] != key:
            self._backward = key, self._prepare_backward(arrays, to, fresh)
        self._backward[1]()

    def used(self, session: Session) -> dict[str, np.ndarray]:
        """Copies of the inputs and of the weights that the last pass used.

        Args:
            session: The session of this thread.
        """
        recipe = Recipe(session, "lstm_forward", (), self._work)
        copies = {n: np.empty(self._shapes[n], np.float32) for n in self._kept}
        for name, kept in self._kept.items():
            if name in ("W", "R", "bias"):
                parts = _parts(self._arenas, name, kept)
                _copy(recipe, parts, _gates(recipe, copies[name]))
            else:
                recipe.reorder(kept, recipe.array(_in_format(name, copies[name])))
        recipe.call()()
        return copies

    # -- preparing -----------------------------------------------------------

    def _prepare_forward(self, arrays: LstmArrays) -> Call:
        named = (arrays.x, arrays.W, arrays.y)
        recipe = Recipe(self._session, "lstm_forward", named, self._work)
        recipe.kept.append(self._arenas)
        batch, units = arrays.y.shape[1:]
        row = (1, 1, batch, units)
        bias = recipe.library.desc(
            Layout((1, 1, 4, units), (4 * units,) * 2 + (units, 1))
        )
        self._kept = {"bias": self._arenas.memory("bias", bias)}
        memories = {
            Arg.SRC: recipe.array(arrays.x),
            Arg.SRC_ITER: recipe.array(arrays.y[-1].reshape(row)),
            Arg.SRC_ITER_C: recipe.array(arrays.cells.Ca[-1].reshape(row)),
            Arg.BIAS: self._kept["bias"],
            Arg.DST: recipe.array(arrays.y[:-1]),
        }
        self._keep(recipe, "x", memories[Arg.SRC])
        if arrays.peepholes is not None:
            given = recipe.array(_in_format("peepholes", arrays.peepholes))
            memories[Arg.WEIGHTS_PEEPHOLE] = self._keep(recipe, "peepholes", given)
        primitive = recipe.primitive(
            "lstm_forward",
            *(Prop.FORWARD_TRAINING, LEFT_TO_RIGHT),
            *self._common_args(memories, arrays),
            NO_FLAGS,
            slow=True,  # its name is ref, but it is not
        )
        for name, arg in (("W", Arg.WEIGHTS), ("R", Arg.WEIGHTS_ITER)):
            desc = primitive.query(Query.ARGUMENT, arg)
            self._kept[name] = self._arenas.memory(name, desc)
        for name in ("W", "R", "bias"):
            gates = _gates(recipe, getattr(arrays, name))
            _copy(recipe, gates, _parts(self._arenas, name, self._kept[name]))
        workspace = self._arenas.memory("workspace", primitive.query(Query.WORKSPACE))
        memories[Arg.WORKSPACE] = workspace
        weights = {Arg.WEIGHTS: self._kept["W"], Arg.WEIGHTS_ITER: self._kept["R"]}
        recipe.add(primitive, {**memories, **weights})
        self._memories, self._primitive = memories, primitive
        return recipe.call()

    def _keep(self, recipe: Recipe, name: str, memory: Memory) -> Memory:
        """Append copying memory to where it stays."""
        self._kept[name] = self._arenas.memory(name, memory.desc)
        recipe.reorder(memory, self._kept[name])
        return self._kept[name]

    def _common_args(
        self, memories: dict[Arg, Memory], arrays: LstmArrays
    ) -> list[Any]:
        """The descriptions that both passes expect."""
        inputs, units = arrays.W.shape[1], arrays.R.shape[1]
        peepholes = memories.get(Arg.WEIGHTS_PEEPHOLE)
        return [
            *(memories[a].desc for a in (Arg.SRC, Arg.SRC_ITER, Arg.SRC_ITER_C)),
            Layout((1, 1, inputs, 4, units)),
            Layout((1, 1, units, 4, units)),
            peepholes and peepholes.desc,
            None,  # no projection
            *(memories[a].desc for a in (Arg.BIAS, Arg.DST)),
            None,  # the last state is needed by nobody
            None,
        ]

    def _prepare_backward(
        self, arrays: LstmArrays, to: LstmDeltas, fresh: Fresh
    ) -> Call:
        named = (arrays.x, arrays.W, to.dy)
        recipe = Recipe(self._session, "lstm_backward", named, self._work)
        recipe.kept.append(self._arenas)
        row = (1, 1, *arrays.y.shape[1:])
        inputs, finish_inputs = self._input_deltas(recipe, arrays, to.dx, fresh.dx)
        memories = {
            **self._memories,
            Arg.DIFF_DST: recipe.array(to.dy[:-1]),
            Arg.DIFF_SRC: inputs,
            Arg.DIFF_SRC_ITER: recipe.array(to.dy[-1].reshape(row)),
            Arg.DIFF_SRC_ITER_C: recipe.array(to.cells.Ca[-1].reshape(row)),
        }
        peepholes = to.gradients["peepholes"]
        if peepholes is not None:
            peepholes = recipe.array(_in_format("peepholes", peepholes))
            memories[Arg.DIFF_WEIGHTS_PEEPHOLE], finish_peepholes = recipe.destination(
                peepholes, peepholes.desc, fresh.gradients, "peepholes"
            )
        primitive = self._backward_primitive(recipe, memories, arrays)
        slots = ("WEIGHTS", "WEIGHTS_ITER", "DIFF_WEIGHTS", "DIFF_WEIGHTS_ITER")
        for slot in (*slots, "DIFF_BIAS"):
            desc = primitive.query(Query.ARGUMENT, Arg[slot])
            memories[Arg[slot]] = recipe.temporary(slot, desc)
        for name, slot in (("W", "WEIGHTS"), ("R", "WEIGHTS_ITER")):
            parts = _parts(self._session.arenas, slot, memories[Arg[slot]])
            _copy(recipe, _gates(recipe, getattr(arrays, name)), parts)
        recipe.add(primitive, memories)
        for name, slot in zip(
            ("W", "R", "bias"), (*slots[2:], "DIFF_BIAS"), strict=True
        ):
            parts = _parts(self._session.arenas, slot, memories[Arg[slot]])
            gates = _gates(recipe, to.gradients[name])
            _copy(recipe, parts, gates, add=not fresh.gradients)
        finish_inputs()
        if peepholes is not None:
            finish_peepholes()
        return recipe.call()

    def _input_deltas(
        self, recipe: Recipe, arrays: LstmArrays, dx: np.ndarray | None, fresh: bool
    ) -> tuple[Memory, Callable[[], None]]:
        """Where to write the deltas of the inputs, and what to do afterwards."""
        if dx is None:
            return recipe.temporary("inputs", recipe.array(arrays.x).desc), lambda: None
        memory = recipe.array(dx)
        return recipe.destination(memory, memory.desc, fresh, "inputs")

    def _backward_primitive(
        self, recipe: Recipe, memories: dict[Arg, Memory], arrays: LstmArrays
    ) -> Primitive:
        """It overwrites the gradients."""
        inputs, units = arrays.W.shape[1], arrays.R.shape[1]
        dpeepholes = memories.get(Arg.DIFF_WEIGHTS_PEEPHOLE)
        return recipe.primitive(
            "lstm_backward",
            *(Prop.BACKWARD, LEFT_TO_RIGHT),
            *self._common_args(memories, arrays),
            *(
                memories[a].desc
                for a in (Arg.DIFF_SRC, Arg.DIFF_SRC_ITER, Arg.DIFF_SRC_ITER_C)
            ),
            Layout((1, 1, inputs, 4, units)),
            Layout((1, 1, units, 4, units)),
            dpeepholes and dpeepholes.desc,
            None,
            memories[Arg.BIAS].desc,
            memories[Arg.DIFF_DST].desc,
            None,
            None,
            OVERWRITE_GRADIENTS,
            self._primitive,
            slow=True,
        )


def _gates(recipe: Recipe, array: np.ndarray) -> list[Memory]:
    """The parts of weights (4N, I) or of a bias (4N,), each as the library's order.

    In the library the sizes are (1, 1, I, 4, N), or (1, 1, 4, N) of a bias.
    """
    blocks = array.reshape(4, -1, *array.shape[1:])
    if blocks.ndim == 3:
        blocks = blocks.transpose(2, 0, 1)
    blocks = blocks[np.newaxis, np.newaxis]
    return [
        recipe.array(blocks[..., first : first + count, :])
        for first, _, count in _GATES
    ]


def _in_format(name: str, array: np.ndarray) -> np.ndarray:
    """Inputs or peepholes with the dimensions that the library expects."""
    return array if name == "x" else array[np.newaxis, np.newaxis]


def _parts(arenas: Arenas, name: str, packed: Memory) -> list[Memory]:
    """The same parts of an arena's memory in the library's order of the gates."""
    shape = packed.desc.shape
    parts = []
    for _, first, count in _GATES:
        start = (0,) * (len(shape) - 2) + (first, 0)
        desc = packed.desc.part(start, (*shape[:-2], count, shape[-1]))
        parts.append(arenas.memory(name, desc))
    return parts


def _copy(
    recipe: Recipe, sources: list[Memory], targets: list[Memory], add: bool = False
) -> None:
    for source, target in zip(sources, targets, strict=True):
        recipe.reorder(source, target, add)

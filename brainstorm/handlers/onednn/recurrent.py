"""Long short-term memory over whole sequences, prepared for oneDNN.

The library has its own order of the gates (i, f, z, o) and formats of the weights. It
keeps of a forward pass only what its backward pass needs, in a format that is its own
affair; so this module also keeps what the internals of a layer can be computed from.

It sums up the gradients of peepholes number by number, and threads that share the work
of a step wait for each other after each. So small layers with peepholes are faster when
each thread has sequences of its own, and they meet at the end.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
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

__all__ = ["Fresh", "LstmArrays", "LstmDeltas", "LstmPass", "Part", "parts_of"]

LEFT_TO_RIGHT = 1
NO_FLAGS = 0
OVERWRITE_GRADIENTS = 1

# With peepholes, each thread has sequences of its own if it has this many at least, if
# all weights find room in its cache, and if there is enough to do. Measured with two.
_MIN_SEQUENCES = 4
_MAX_WEIGHTS = 2**18
_MIN_WORK = 2**24

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

    @property
    def step_work(self) -> int:
        """Number of multiplications in one step."""
        return self.x[0].size * len(self.W) + self.y[0].size * len(self.R)

    def of(self, sequences: slice) -> LstmArrays:
        """What belongs to some of the sequences."""
        x, cells, y = _each((self.x, self.cells, self.y), sequences)
        return self._replace(x=x, cells=cells, y=y)


class LstmDeltas(NamedTuple):
    """What the backward pass works on besides, see `lstm_backward`."""

    dy: np.ndarray
    cells: LstmCells
    dx: np.ndarray | None
    gradients: Mapping[str, np.ndarray | None]  # of W, R, peepholes and bias

    def of(
        self, sequences: slice, gradients: Mapping[str, np.ndarray | None]
    ) -> LstmDeltas:
        """What belongs to some of the sequences, with other gradients."""
        dy, cells, dx = _each((self.dy, self.cells, self.dx), sequences)
        return LstmDeltas(dy, cells, dx, gradients)


class Fresh(NamedTuple):
    """What the backward pass overwrites instead of adding to it."""

    dx: bool
    gradients: bool


def _each(arrays: tuple[Any, ...], sequences: slice) -> tuple[Any, ...]:
    """The part of each array (T, B, ...), or of each in a tuple of arrays."""
    parts = []
    for array in arrays:
        if isinstance(array, LstmCells):
            parts.append(LstmCells(*_each(array, sequences)))
        else:
            parts.append(None if array is None else array[:, sequences])
    return tuple(parts)


class Part:
    """What the passes of a layer on a part of the sequences share.

    Args:
        session: Where they run.

    Attributes:
        session: Likewise.
        arenas: Memory to keep between the forward and the backward pass.
    """

    def __init__(self, session: Session):
        self.session = session
        self.arenas = Arenas(session.library)
        self._gradients: dict[str, np.ndarray | None] = {}

    def gradients_like(
        self, gradients: Mapping[str, np.ndarray | None]
    ) -> dict[str, np.ndarray | None]:
        """Gradients of its own."""
        for name, array in gradients.items():
            if name not in self._gradients:
                self._gradients[name] = None if array is None else np.empty_like(array)
        return self._gradients


def parts_of(arrays: LstmArrays, threads: int) -> list[slice]:
    """How to split the sequences."""
    steps, batch = arrays.x.shape[:2]
    worth_it = (
        arrays.peepholes is not None
        and arrays.W.size + arrays.R.size <= _MAX_WEIGHTS
        and steps * arrays.step_work >= _MIN_WORK
    )
    count = max(1, min(threads, batch // _MIN_SEQUENCES)) if worth_it else 1
    ends = [batch * k // count for k in range(count + 1)]
    return [slice(*pair) for pair in itertools.pairwise(ends)]


class LstmPass:
    """A forward pass on certain arrays, and its backward pass.

    Args:
        whole: What it shares with other passes of the layer: only the last one of them
            can be continued.
        parts: Likewise, if the sequences are split: one for each thread.
        arrays: The arrays. No references to them are kept.

    Raises:
        UnimplementedError: The library can not do it.
    """

    def __init__(self, whole: Part, parts: list[Part], arrays: LstmArrays):
        self._session = whole.session
        self._slices = parts_of(arrays, len(parts))
        self._parts = [whole] if len(self._slices) == 1 else parts[: len(self._slices)]
        self._passes = [
            _PartialPass(part, arrays.of(sequences))
            for part, sequences in zip(self._parts, self._slices, strict=True)
        ]
        self._forward = [each.forward for each in self._passes]
        self._backward: tuple[Any, list[Call], Call | None] = (None, [], None)

    def forward(self) -> None:
        """Compute the outputs, from weights and inputs that are kept.

        The cells are left out, but for the last state.
        """
        for each in self._passes:
            each.kept = each.kept_by_forward
        self._session.run(self._forward)

    def backward(self, arrays: LstmArrays, to: LstmDeltas, fresh: Fresh) -> None:
        """Compute all gradients and deltas but those of the cells."""
        changing = (to.dy, to.dx, to.gradients["W"], to.cells.Ca)
        key = fresh, *[place_of(array) for array in changing]
        if self._backward[0] != key:
            self._backward = key, *self._prepare_backward(arrays, to, fresh)
        _, calls, finish = self._backward
        for each in self._passes:
            each.kept = each.kept_by_backward
        self._session.run(calls)
        if finish is not None:
            finish()

    def used(self, session: Session) -> dict[str, np.ndarray]:
        """Copies of the inputs and of the weights that the last pass used.

        Args:
            session: The session of this thread.
        """
        first, *others = [each.used(session) for each in self._passes]
        xs = [first["x"], *[other["x"] for other in others]]
        return {**first, "x": np.concatenate(xs, axis=1)}

    def _prepare_backward(
        self, arrays: LstmArrays, to: LstmDeltas, fresh: Fresh
    ) -> tuple[list[Call], Call | None]:
        """The calls of the parts, and what adds their gradients."""
        calls = []
        named = (arrays.x, arrays.W, to.dy)
        recipe = Recipe(self._session, "lstm_backward", named, arrays.W.size)
        for k, each in enumerate(self._passes):
            gradients, overwrites = to.gradients, fresh
            if k > 0:
                gradients = self._parts[k].gradients_like(to.gradients)
                overwrites = Fresh(fresh.dx, True)
                for name, array in gradients.items():
                    if array is not None:
                        total = recipe.array(to.gradients[name])
                        recipe.reorder(recipe.kept_array(array), total, add=True)
            part = self._slices[k]
            calls.append(
                each.prepare_backward(
                    arrays.of(part), to.of(part, gradients), overwrites
                )
            )
        return calls, recipe.call() if len(calls) > 1 else None


class _PartialPass:
    """A pass on a part of the sequences.

    Attributes:
        forward: Computes the outputs.
        kept_by_forward: Inputs and weights, in the formats of the forward pass.
        kept_by_backward: The same after the backward pass, whose weights lie where
            those of the forward pass were.
        kept: What is kept now.
    """

    def __init__(self, part: Part, arrays: LstmArrays):
        self._session, self._arenas = part.session, part.arenas
        self._work = arrays.step_work  # the threads wait for each other after a step
        self._shapes = {
            name: array.shape
            for name, array in arrays._asdict().items()
            if isinstance(array, np.ndarray)
        }
        self.forward = self._prepare_forward(arrays)
        self.kept = self.kept_by_forward

    def used(self, session: Session) -> dict[str, np.ndarray]:
        """See `LstmPass.used`."""
        recipe = Recipe(session, "lstm_forward", (), self._work)
        copies = {n: np.empty(self._shapes[n], np.float32) for n in self.kept}
        for name, kept in self.kept.items():
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
        self.kept_by_forward = {"bias": self._arenas.memory("bias", bias)}
        memories = {
            Arg.SRC: recipe.array(arrays.x),
            Arg.SRC_ITER: recipe.array(arrays.y[-1].reshape(row)),
            Arg.SRC_ITER_C: recipe.array(arrays.cells.Ca[-1].reshape(row)),
            Arg.BIAS: self.kept_by_forward["bias"],
            Arg.DST: recipe.array(arrays.y[:-1]),
            Arg.DST_ITER_C: recipe.array(arrays.cells.Ca[-2].reshape(row)),
        }
        last = memories[Arg.SRC_ITER].desc
        memories[Arg.DST_ITER] = self._arenas.memory("last outputs", last)
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
            self.kept_by_forward[name] = self._arenas.memory(name, desc)
        for name in ("W", "R", "bias"):
            gates = _gates(recipe, getattr(arrays, name))
            _copy(recipe, gates, _parts(self._arenas, name, self.kept_by_forward[name]))
        workspace = self._arenas.memory("workspace", primitive.query(Query.WORKSPACE))
        memories[Arg.WORKSPACE] = workspace
        weights = {
            Arg.WEIGHTS: self.kept_by_forward["W"],
            Arg.WEIGHTS_ITER: self.kept_by_forward["R"],
        }
        recipe.add(primitive, {**memories, **weights})
        self._memories, self._primitive = memories, primitive
        return recipe.call()

    def _keep(self, recipe: Recipe, name: str, memory: Memory) -> Memory:
        """Append copying memory to where it stays."""
        self.kept_by_forward[name] = self._arenas.memory(name, memory.desc)
        recipe.reorder(memory, self.kept_by_forward[name])
        return self.kept_by_forward[name]

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
            *(
                memories[a].desc
                for a in (Arg.BIAS, Arg.DST, Arg.DST_ITER, Arg.DST_ITER_C)
            ),
        ]

    def prepare_backward(
        self, arrays: LstmArrays, to: LstmDeltas, fresh: Fresh
    ) -> Call:
        """What computes the gradients and the deltas."""
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
        # Nothing comes from later than the last step.
        nothing = recipe.kept_array(np.zeros(row, np.float32))
        memories |= {Arg.DIFF_DST_ITER: nothing, Arg.DIFF_DST_ITER_C: nothing}
        peepholes = to.gradients["peepholes"]
        if peepholes is not None:
            peepholes = recipe.array(_in_format("peepholes", peepholes))
            memories[Arg.DIFF_WEIGHTS_PEEPHOLE], finish_peepholes = recipe.destination(
                peepholes, peepholes.desc, fresh.gradients, "peepholes"
            )
        primitive = self._backward_primitive(recipe, memories, arrays)
        self.kept_by_backward = dict(self.kept_by_forward)
        for name, arg in (("W", Arg.WEIGHTS), ("R", Arg.WEIGHTS_ITER)):
            memory = self._arenas.memory(name, primitive.query(Query.ARGUMENT, arg))
            gates = _gates(recipe, getattr(arrays, name))
            _copy(recipe, gates, _parts(self._arenas, name, memory))
            memories[arg] = self.kept_by_backward[name] = memory
        slots = ("DIFF_WEIGHTS", "DIFF_WEIGHTS_ITER", "DIFF_BIAS")
        for slot in slots:
            desc = primitive.query(Query.ARGUMENT, Arg[slot])
            memories[Arg[slot]] = recipe.temporary(slot, desc)
        recipe.add(primitive, memories)
        for name, slot in zip(("W", "R", "bias"), slots, strict=True):
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
            *(
                memories[a].desc
                for a in (Arg.DIFF_DST, Arg.DIFF_DST_ITER, Arg.DIFF_DST_ITER_C)
            ),
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

"""Attention with several heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from brainstorm.checks import Argument, is_whole
from brainstorm.layers._positions import angles, count, indices
from brainstorm.layers.arguments import COUNT, FLAG, Check, arguments_of
from brainstorm.layers.base_layer import (
    BufferStructure,
    ConstructionWrapper,
    Layer,
    StructureTemplate,
    once_per_resize,
)
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.layer import Setup, Structures
from brainstorm.utils import flatten_time_and_features

# A slot of the handler's temporaries that operations leave alone.
SWAPPED = 24


def Attention(
    size: int,
    heads: int,
    causal: bool = False,
    bias: bool = True,
    name: str | None = None,
    *,
    rotary: bool = False,
    context_size: int = 0,
    trainable: bool = True,
) -> ConstructionWrapper:
    """A layer whose steps look at each other, or at those of a memory.

    Args:
        size: Number of outputs, and of all queries, keys and values.
        heads: Into how many heads these are divided.
        causal: Whether steps see no later ones.
        bias: Whether there are biases.
        name: Name of the layer.
        rotary: Whether queries and keys are turned by their position, so that how they
            fit depends on how far they are apart.
        context_size: How many steps a context can carry on, for causal attention. With
            0, a context is of no use to it.
        trainable: Whether training changes the parameters.
    """
    return ConstructionWrapper.create(AttentionLayerImpl, **locals())


class _Arrays(NamedTuple):
    """What a pass works on, time and batch folded."""

    x: Any
    source: Any
    queries: Any
    keys: Any
    values: Any
    mixed: Any
    y: Any


class AttentionLayerImpl(Layer):
    """Scaled dot-product attention.

    Vaswani et al., *Attention is all you need*, 2017. With ``m`` for the memory, or for
    x if there is none, and for each head with its d = n / heads columns of q, k, v::

        q = x Wq^T + bq        k = m Wk^T + bk        v = m Wv^T + bv
        weights = softmax(q k^T / sqrt(d))            over the steps of k
        mixed = weights v
        y = mixed Wo^T + bo                           of all heads, side by side

    Keys are hidden where the mask is 0, and, if the layer is causal, from queries of
    steps before. A query to which all is hidden gets zeros for ``mixed``.

    With n outputs, inputs of the flattened size i, and a memory of the size j, or i:

    =========== =========== ================== ========================================
    buffer      name        shape              content
    =========== =========== ================== ========================================
    inputs      default     (T, B, ...)        x
    inputs      memory      (T, B, ...)        what keys and values are of, if connected
    inputs      mask        (T, B, 1)          0 for keys to be hidden, if connected
    outputs     default     (T, B, n)          y
    parameters  Wq          (n, i)             weights of the queries
    parameters  Wk, Wv      (n, j)             weights of the keys and of the values
    parameters  Wo          (n, n)             weights of the outputs
    parameters  bq, ..., bo (n,)               biases, unless left out
    internals   queries     (T, B, n)          q, turned if `rotary`
    internals   keys        (T + C, B, n)      k, likewise
    internals   values      (T + C, B, n)      v
    internals   mixed       (T, B, n)          as above
    internals   known       (T + C, B, 1)      1 for keys to be seen, if any are hidden
    internals   counted     (T + 1, B, 1)      number of each step, if C > 0
    internals   cos, sin    (T, B, n)          of the angles, if `rotary`
    internals   dqueries,   (T, B, n)          deltas, backward; of keys, values and
                ...                            mixed, too
    computed    weights     (T, B, heads, T)   as above
    =========== =========== ================== ========================================

    The weights have no memory: they are computed a block at a time, and as a whole when
    ``net.get('Attention.internals.weights')`` asks for them.

    With `context_size` C > 0, keys and values of C steps before are carried on. In a
    pass with a context the weights are (T, B, heads, C + T), and the first C columns
    are those of the past. More steps than C can not be carried.

    With `rotary` (Su et al., *RoFormer*, 2021), in each head the columns c and c + d/2
    of queries and keys are the parts of a complex number, which at position p is
    multiplied by ``exp(i p 10000^(-2 c / d))``.

    Raises:
        LayerValidationError: `heads` does not divide `size`; with `rotary` the size of
            a head is odd; there is a `context_size` but the layer is not causal; or an
            argument is not as in `Attention`.
        HandlerError: When run after more steps than a context can carry.
    """

    size: int
    heads: int
    causal: bool
    bias: bool
    rotary: bool
    context_size: int

    arguments: Mapping[str, Argument] = arguments_of(
        Attention,
        heads=COUNT,
        causal=FLAG,
        rotary=FLAG,
        context_size=Check(
            lambda c: is_whole(c, 0), "a whole number of at least 0", int
        ),
    )
    optional_inputs: Mapping[str, StructureTemplate] = {
        "memory": StructureTemplate("T", "B", "..."),
        "mask": StructureTemplate("T", "B", 1),
    }
    computes_no_input_deltas_for: Sequence[str] = ("mask",)
    computed: Sequence[str] = ("weights",)
    # Not keys and values: in views these are names of methods, which nothing can hide.
    can_leave_out: Sequence[str] = ("queries", "mixed")
    honours_fresh = True
    follows_context = True
    repeats = True

    @property
    def needs_whole_sequences(self) -> bool:  # type: ignore[override]
        """Whether a context is of no use to it."""
        return not self.context_size

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        n, C = self.size, self.context_size
        if n % self.heads:
            raise self.error(
                f"expected a number of 'heads' that divides the size {n}, got"
                f" {self.heads}"
            )
        if self.rotary and n // self.heads % 2:
            raise self.error(
                "expected heads of an even size with 'rotary', got"
                f" {n} / {self.heads} = {n // self.heads}"
            )
        if C and not self.causal:
            raise self.error(
                f"expected a 'context_size' of 0 unless 'causal', got {C}: what is"
                " carried on would miss the later steps"
            )
        self.source = "memory" if "memory" in in_shapes else "default"
        i, j = (in_shapes[name].feature_size for name in ("default", self.source))
        sizes = {"q": i, "k": j, "v": j, "o": n}
        parameters = {f"W{w}": BufferStructure(n, size) for w, size in sizes.items()}
        if self.bias:
            parameters |= {f"b{w}": BufferStructure(n) for w in sizes}
        deltas = ("dqueries", "dkeys", "dvalues", "dmixed")
        internals = {
            **{name: BufferStructure("T", "B", n) for name in ("queries", "mixed")},
            **{
                name: BufferStructure("T", "B", n, context_size=C)
                for name in ("keys", "values")
            },
            **{
                n_: BufferStructure("T", "B", n, is_backward_only=True) for n_ in deltas
            },
        }
        if C or "mask" in in_shapes:
            internals["known"] = BufferStructure("T", "B", 1, context_size=C)
        if C or self.rotary:
            context_size = 1 if C else 0
            internals["counted"] = BufferStructure(
                "T", "B", 1, context_size=context_size
            )
        if self.rotary:
            internals |= dict.fromkeys(("cos", "sin"), BufferStructure("T", "B", n))
        return {"default": BufferStructure("T", "B", n)}, parameters, internals

    # -- passes --------------------------------------------------------------

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        if not self.keeps_internals:
            buffers = self.with_temporary_internals(buffers)
        h, arrays = self.handler, self.arrays(buffers)
        sources = arrays.x, arrays.source, arrays.source
        for name, x, out in zip("qkv", sources, arrays[2:5], strict=True):
            W, bias = self.weights_of(name, buffers.parameters)
            h.affine(x, W, bias, None, out, "linear")
        self.note_known(buffers)
        if self.context_size:
            text = f"the context has more steps than context_size={self.context_size}"
            h.check_limit(buffers.internals.counted[-1], self.context_size, text)
        if "counted" in buffers.internals:
            count(h, buffers)
        if self.rotary:
            turns = self.find_turns(buffers)
            self.turn(arrays.queries, turns, h.add_tt)
            self.turn(arrays.keys, turns, h.add_tt)
        query, seen = buffers.internals.queries, self.seen(buffers)
        mixed = buffers.internals.mixed
        h.attention_forward(query, *seen, mixed, self.heads, self.causal)
        W, bias = self.weights_of("o", buffers.parameters)
        h.affine(arrays.mixed, W, bias, None, arrays.y, "linear")

    def backward_pass(self, buffers: BufferView) -> None:
        h, arrays, internals = self.handler, self.arrays(buffers), buffers.internals
        deltas = internals.dqueries, internals.dkeys, internals.dvalues
        folded = [flatten_time_and_features(array) for array in deltas]
        dy = flatten_time_and_features(buffers.output_deltas.default)
        dmixed = flatten_time_and_features(internals.dmixed)
        self.add_gradients("o", buffers, arrays.mixed, arrays.y, dy, dmixed, True)
        h.attention_backward(
            *(internals.queries, *self.seen(buffers), internals.dmixed),
            *(*deltas, self.heads, self.causal),
        )
        if self.rotary:
            turns = [flatten_time_and_features(internals[n]) for n in ("cos", "sin")]
            for part in folded[:2]:
                self.turn(part, turns, h.subtract_tt)
        fresh = set(self.fresh)
        for i, (name, d) in enumerate(zip("qkv", folded, strict=True)):
            source = self.source if i else "default"
            dx = None
            if source not in self.unwanted:
                dx = flatten_time_and_features(buffers.input_deltas[source])
            x, y = arrays[min(i, 1)], arrays[2 + i]
            self.add_gradients(name, buffers, x, y, d, dx, source in fresh)
            fresh.discard(source)

    def compute(self, name: str, buffers: BufferView) -> np.ndarray:
        h, internals = self.handler, buffers.internals
        keys, _, known = self.seen(buffers)
        steps, batch, _ = internals.queries.shape
        weights = h.zeros((steps, batch, self.heads, len(keys)))
        h.attention_weights(internals.queries, keys, known, weights, self.causal)
        values = h.get_numpy_copy(weights)
        return np.concatenate([values[..., steps:], values[..., :steps]], axis=-1)

    # -- what they work on ---------------------------------------------------

    def with_temporary_internals(self, buffers: Any) -> Any:
        """The buffers, with memory for internals that all such layers share."""
        internals = {
            name: buffers.internals[name]
            for name, structure in self.internal_shapes.items()
            if not structure.is_backward_only
        }
        shape = tuple(internals["mixed"].shape)
        internals["mixed"] = self.handler.scratch(shape, ("attention", "mixed"))
        # Outputs are written last, when queries are not needed any more.
        internals["queries"] = buffers.outputs.default
        children = {
            **{name: buffers[name] for name in ("inputs", "outputs", "parameters")},
            "internals": BufferView([*internals], internals.values()),
        }
        return BufferView([*children], children.values())

    @once_per_resize
    def arrays(self, buffers: Any) -> Any:
        """Inputs, the internals of this pass, and outputs, time and batch folded."""
        steps, inputs = len(buffers.outputs.default), buffers.inputs
        names = ("queries", "keys", "values", "mixed")
        internals = [buffers.internals[name][:steps] for name in names]
        every = inputs.default, inputs[self.source], *internals, buffers.outputs.default
        return _Arrays(*map(flatten_time_and_features, every))

    def weights_of(self, name: str, view: Any) -> tuple[Any, Any]:
        """The weights and the bias of queries, keys, values or outputs, or gradients.

        There is None for a bias that there is not.
        """
        return view[f"W{name}"], view[f"b{name}"] if self.bias else None

    def add_gradients(
        self, name: str, buffers: Any, x: Any, y: Any, dy: Any, dx: Any, fresh_dx: bool
    ) -> None:
        """Backward pass of ``y = x W^T + b``."""
        W, _ = self.weights_of(name, buffers.parameters)
        dW, dbias = self.weights_of(name, buffers.gradients)
        self.handler.affine_backward(
            *(x, W, None, y, dy, None, dx, dW, dbias, "linear"),
            fresh_dx=fresh_dx,
            fresh_gradients="gradients" in self.fresh,
        )

    def note_known(self, buffers: Any) -> None:
        """Take note of which keys are to be seen."""
        h = self.handler
        if "known" not in buffers.internals:
            return
        known = buffers.internals.known[: len(buffers.outputs.default)]
        if "mask" in self.in_shapes:
            h.fill(known, 0.0)
            h.fill_if(known, 1.0, buffers.inputs.mask)
        else:
            h.fill(known, 1.0)

    def seen(self, buffers: Any) -> tuple[Any, Any, Any]:
        """Keys and values, with those of the past if there may be any, and the known.

        There is None in place of these if all of them are.
        """
        internals, steps = buffers.internals, len(buffers.outputs.default)
        some_are_hidden = "mask" in self.in_shapes
        if self.context_size and not self.begins:
            steps, some_are_hidden = steps + self.context_size, True
        known = internals.known[:steps] if some_are_hidden else None
        return internals.keys[:steps], internals.values[:steps], known

    # -- turning queries and keys --------------------------------------------

    def find_turns(self, buffers: Any) -> Any:
        """The internals cos and sin, filled for the positions of this pass."""
        h, internals = self.handler, buffers.internals
        turns = [flatten_time_and_features(internals[name]) for name in ("cos", "sin")]
        places = indices(h, buffers)
        for table, out in zip(self.tables(buffers), turns, strict=True):
            h.take_rows(table, places, out)
        return turns

    @once_per_resize
    def tables(self, buffers: Any) -> Any:
        """Cosines and sines for all positions, the first half of these negative."""
        positions = len(buffers.outputs.default) + self.context_size
        a = angles(positions, self.size // self.heads // 2)
        cos, sin = np.hstack([np.cos(a)] * 2), np.hstack([-np.sin(a), np.sin(a)])
        create = self.handler.create_from_numpy
        return [create(np.tile(table, (1, self.heads))) for table in (cos, sin)]

    def turn(self, x: Any, turns: Any, add: Any) -> None:
        """Turn rows (M, n) by angles, or back if `add` subtracts."""
        h, (cos, sin), half = self.handler, turns, self.size // self.heads // 2
        by_heads = x.reshape((len(x), self.heads, 2 * half))
        swapped = h.scratch((len(x), self.heads, 2 * half), SWAPPED)
        h.copy_to(by_heads[..., half:], swapped[..., :half])
        h.copy_to(by_heads[..., :half], swapped[..., half:])
        others = swapped.reshape((len(x), self.size))
        h.mult_tt(others, sin, others)
        h.mult_tt(x, cos, x)
        add(x, others, x)

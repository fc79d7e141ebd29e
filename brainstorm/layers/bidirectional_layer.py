"""A recurrent layer that reads sequences in both directions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from brainstorm.checks import Argument
from brainstorm.handlers.base_handler import Handler
from brainstorm.layers.arguments import Check, arguments_of
from brainstorm.layers.base_layer import Layer, get_layer_class_from_typename
from brainstorm.structure.buffer_structure import BufferStructure, StructureTemplate
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.structure.layer import Setup, Structures
from brainstorm.utils import LayerValidationError, flatten_features

DIRECTIONS = ("forward_", "backward_")


def Bidirectional(
    layer: ConstructionWrapper, name: str | None = None, *, trainable: bool = True
) -> ConstructionWrapper:
    """Two recurrent layers of a kind, one of which reads sequences from the end::

        inp >> Bidirectional(Lstm(100)) >> out

    Sequences of different lengths need a mask: wire it to the input ``mask``.

    Args:
        layer: A recurrent layer that is not wired. Its name does not matter.
        name: Name of the layer.
        trainable: Whether training changes the parameters, if `layer` says so, too.

    Raises:
        LayerValidationError: `layer` is no layer, or is wired.
    """
    if not isinstance(layer, ConstructionWrapper):
        raise LayerValidationError(f"Bidirectional: expected a layer, got {layer!r}")
    details = layer.layer
    if len(details.scope) > 1 or details.shared:
        raise LayerValidationError(
            f"Bidirectional: the layer {details.name!r} is wired already; wire the"
            " bidirectional layer instead"
        )
    return ConstructionWrapper.create(
        BidirectionalLayerImpl,
        name=name,
        trainable=trainable and details.trainable,
        layer={"@type": details.layer_type, **details.layer_kwargs},
    )


class BidirectionalLayerImpl(Layer):
    """Joins the outputs of a recurrent layer and of one that runs back in time.

    Schuster and Paliwal, *Bidirectional recurrent neural networks*, 1997. With outputs
    of size n of each of the two layers:

    ========== ================ ============= =================================
    buffer     name             shape         content
    ========== ================ ============= =================================
    inputs     default          (T, B, ...)   x
    inputs     mask             (T, B, 1)     optional: 0 behind the last step
    outputs    default          (T, B, 2 n)   forward outputs, backward ones
    parameters ``forward_...``  as the layer  those of the layer
    parameters ``backward_...`` as the layer  the same, of the one from the end
    internals  ``forward_...``  as the layer  its internals
    internals  ``backward_...`` as the layer  the same, in its own time
    internals  forward_outputs  (T + 1, B, n) y of the layer
    internals  backward_inputs  as x          x, from the end
    internals  backward_outputs (T + 1, B, n) y, from the end
    internals  lengths          (B, 1)        of the sequences, with a mask
    ========== ================ ============= =================================

    There are deltas of the last ones too, for backward passes.

    A sequence ends with the last step at which the mask is not 0: there the second
    layer begins, so that padding has no influence on the outputs of the steps before.
    Behind the end its outputs are 0; the first layer goes on over the padding. No
    deltas flow to the mask. Without a mask all sequences have T steps.

    It needs whole sequences: a context is ignored, each pass begins anew. Trainers that
    carry the context on refuse it, because the second layer would begin at the end of
    each piece of a sequence as if nothing came behind.

    Raises:
        LayerValidationError: `layer` is not recurrent, or refuses its arguments, or the
            mask has another shape.
    """

    layer: Mapping[str, Any]

    optional_inputs: Mapping[str, StructureTemplate] = {
        "mask": StructureTemplate("T", "B", 1)
    }
    arguments: Mapping[str, Argument] = arguments_of(
        Bidirectional,
        layer=Check(
            lambda value: isinstance(value, Mapping) and "@type" in value,
            "the description of a layer",
            dict,
        ),
    )
    computes_no_input_deltas_for: Sequence[str] = ("mask",)
    needs_whole_sequences = True
    repeats: bool = True

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        properties = dict(self.layer)
        layer_class = get_layer_class_from_typename(properties.pop("@type"))
        x = in_shapes["default"]
        self.halves: list[Layer] = [
            layer_class(prefix + self.name, {"default": x}, **properties)
            for prefix in DIRECTIONS
        ]
        half = self.halves[0]
        y = half.out_shapes.get("default")
        if y is None or len(half.out_shapes) > 1 or not y.context_size:
            raise self.error(
                "expected a recurrent layer as 'layer', with one output, got one of"
                f" type {self.layer['@type']}"
            )
        self.honours_fresh: bool = half.honours_fresh
        self.stacks_parameters: bool = half.stacks_parameters
        self.repeats = half.can_be_replayed()
        self.computes_no_gradients_for: Sequence[str] = tuple(
            prefix + name
            for prefix in DIRECTIONS
            for name in half.computes_no_gradients_for
        )
        self.first_values: Mapping[str, Any] = _prefixed(half.first_values)
        self.can_leave_out: Sequence[str] = tuple(
            prefix + name for prefix in DIRECTIONS for name in half.can_leave_out
        )
        outputs = {"default": BufferStructure("T", "B", 2 * y.feature_size)}
        parameters = _prefixed(half.parameter_shapes)
        internals = _prefixed(half.internal_shapes)
        y_deltas = BufferStructure(*y.shape, context_size=1, is_backward_only=True)
        internals.update(_prefixed({"outputs": y, "output_deltas": y_deltas}))
        internals["backward_inputs"] = self.like(x)
        internals["backward_input_deltas"] = BufferStructure(
            *x.shape, is_backward_only=True
        )
        if "mask" in in_shapes:
            internals["lengths"] = BufferStructure("B", 1)
        return outputs, parameters, internals

    def set_handler(self, new_handler: Handler) -> None:
        super().set_handler(new_handler)
        for half in self.halves:
            half.set_handler(new_handler)

    # -- what both layers work on --------------------------------------------

    def passes(
        self, buffers: Any, with_deltas: bool = False
    ) -> Iterator[tuple[Layer, Any]]:
        """Each of the two layers with its buffers."""
        for direction, half in enumerate(self.halves):
            yield half, self.view(buffers, direction, with_deltas)

    def view(self, buffers: Any, direction: Any, with_deltas: Any) -> Any:
        """The buffers of one of the two layers."""
        half, prefix = self.halves[direction], DIRECTIONS[direction]
        internals = buffers.internals
        x = internals.backward_inputs if direction else buffers.inputs.default
        children = {
            "inputs": _named(default=x),
            "outputs": _named(default=internals[f"{prefix}outputs"]),
            "parameters": self.part(buffers.parameters, direction),
            "internals": _named(
                **{
                    name: internals[prefix + name]
                    for name, structure in half.internal_shapes.items()
                    if with_deltas or not structure.is_backward_only
                }
            ),
        }
        if with_deltas:
            dx = buffers.input_deltas.default
            dx = internals.backward_input_deltas if direction else dx
            children.update(
                input_deltas=_named(default=dx),
                output_deltas=_named(default=internals[f"{prefix}output_deltas"]),
                gradients=self.part(buffers.gradients, direction),
            )
        return _named(**children)

    def part(self, whole: Any, direction: Any) -> Any:
        """The parameters, or the gradients, of one of the two layers."""
        structures = self.halves[direction].parameter_shapes
        full = whole._full_buffer
        if full is not None:
            size = sum(s.feature_size for s in structures.values())
            full = full[direction * size : (1 + direction) * size]
        arrays = [whole[DIRECTIONS[direction] + name] for name in structures]
        return BufferView(list(structures), arrays, full)

    def pairs(self, buffers: Any, kind: Any) -> Any:
        """X and x from the end, and each layer's outputs beside their part of y.

        Args:
            buffers: The buffers.
            kind: The end of names such as ``inputs``; or ``'_deltas'`` for the deltas.
        """
        internals, y = buffers.internals, buffers[f"output{kind}"].default
        n = y.shape[-1] // 2
        x = buffers[f"input{kind}"].default, internals[f"backward_input{kind}"]
        return (
            tuple(map(flatten_features, x)),
            (internals[f"forward_output{kind}"][:-1], y[..., :n]),
            (internals[f"backward_output{kind}"][:-1], y[..., n:]),
        )

    def carried(self, buffers: Any) -> Any:
        """The states that would be carried on."""
        names = [
            name
            for name, structure in self.halves[0].internal_shapes.items()
            if structure.context_size and not structure.is_backward_only
        ]
        return [
            buffers.internals[prefix + name][-1]
            for prefix in DIRECTIONS
            for name in ("outputs", *names)
        ]

    def lengths(self, buffers: Any) -> Any:
        """Lengths of the sequences, or None if all have T steps."""
        return buffers.internals.lengths if "mask" in self.in_shapes else None

    # -- passes --------------------------------------------------------------

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        h, lengths = self.handler, self.lengths(buffers)
        if lengths is not None:
            h.sequence_lengths(buffers.inputs.mask, lengths)
        x, (y_forward, first), (y_back, second) = self.pairs(buffers, "s")
        h.reverse_steps(x[0], lengths, x[1], fresh_out=True)
        h.clear(*self.carried(buffers))
        for half, view in self.passes(buffers):
            half.keeps_internals = self.keeps_internals
            half.forward_pass(view, training_pass)
        h.copy_to(y_forward, first)
        h.reverse_steps(y_back, lengths, second, fresh_out=True)

    def backward_pass(self, buffers: BufferView) -> None:
        h, lengths = self.handler, self.lengths(buffers)
        dx, (dy_forward, first), (dy_back, second) = self.pairs(buffers, "_deltas")
        h.copy_to(first, dy_forward)
        h.reverse_steps(second, lengths, dy_back, fresh_out=True)
        internals = buffers.internals
        states = internals.forward_output_deltas, internals.backward_output_deltas
        h.clear(*(deltas[-1] for deltas in states))
        forward, backward = self.halves
        forward.fresh, backward.fresh = self.fresh, self.fresh | {"default"}
        for half, view in self.passes(buffers, with_deltas=True):
            half.unwanted = self.unwanted
            half.backward_pass(view)
        if "default" not in self.unwanted:  # the first layer has written there
            h.reverse_steps(dx[1], lengths, dx[0])


def _named(**children: Any) -> BufferView:
    return BufferView(list(children), children.values())


def _prefixed(structures: Mapping[str, Any]) -> dict[str, Any]:
    return {
        prefix + name: structure
        for prefix in DIRECTIONS
        for name, structure in structures.items()
    }

"""Parts of the features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from brainstorm.checks import Argument, is_whole
from brainstorm.layers._stepwise_layer import StepwiseLayer
from brainstorm.layers.arguments import Check, arguments_of
from brainstorm.layers.base_layer import BufferStructure, ConstructionWrapper
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.layer import Setup, Structures


def Slice(
    start: int | None = None,
    stop: int | None = None,
    step: int = 1,
    name: str | None = None,
    *,
    parts: Mapping[str, Sequence[int | None]] | None = None,
) -> ConstructionWrapper:
    """A layer that gives a part of its features, or several by name.

    They are counted along the last dimension, as in Python: ``Slice(-2)`` gives the
    last two, ``Slice(0, None, 2)`` every other one. With `parts` there is an output
    for each of them::

        halves = layers.Slice(parts={"left": (0, 5), "right": (5, None)})
        halves - "left" >> layers.FullyConnected(3)

    Args:
        start: The first feature; None for that of the input.
        stop: The end, which is not part of it; None for that of the input.
        step: Distance of two features, at least 1.
        name: Name of the layer.
        parts: For each name of an output (start, stop) or (start, stop, step), in
            place of these.
    """
    return ConstructionWrapper.create(SliceLayerImpl, **locals())


def _is_end(value: Any) -> bool:
    return value is None or is_whole(value, -(2**62))


def _is_part(part: Any) -> bool:
    return (
        len(part) in (2, 3)
        and all(map(_is_end, part[:2]))
        and is_whole([*part, 1][2], 1)
    )


def _are_parts(parts: Any) -> bool:
    return parts is None or (
        isinstance(parts, Mapping)
        and len(parts) > 0
        and all(isinstance(n, str) and n.isidentifier() for n in parts)
        and all(map(_is_part, parts.values()))
    )


class SliceLayerImpl(StepwiseLayer):
    """Copies the features ``start, start + step, ...`` before ``stop``.

    ======== ======== ================= ======================================
    buffer   name     shape             content
    ======== ======== ================= ======================================
    inputs   default  (T, B, ..., C)    x
    outputs  default  (T, B, ..., c)    c features of x; with `parts`, outputs
                                        with these names
    ======== ======== ================= ======================================

    Parts may share features: those get the deltas of all. Features that are in no part
    get none. Without steps a part is copied at once, else feature by feature.

    Raises:
        LayerValidationError: An argument is not as above, there are both kinds, or a
            part has no features.
    """

    start: int | None
    stop: int | None
    step: int
    parts: Mapping[str, Sequence[int | None]] | None

    _END = Check(_is_end, "an integer or None")
    arguments: Mapping[str, Argument] = arguments_of(
        Slice,
        start=_END,
        stop=_END,
        step=Check(lambda n: is_whole(n, 1), "a positive integer", int),
        parts=Check(_are_parts, "(start, stop) or (start, stop, step) for each name"),
    )
    repeats = True

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        *shape, size = in_shapes["default"].shape
        given: Mapping[str, Sequence[int | None]] = {
            "default": (self.start, self.stop, self.step)
        }
        if self.parts is not None:
            if given["default"] != (None, None, 1):
                raise self.error(
                    "expected either 'parts' or 'start', 'stop' and 'step', got both"
                )
            given = self.parts
        self.ranges: dict[str, range] = {
            n: range(size)[slice(*part)] for n, part in given.items()
        }
        for name, features in self.ranges.items():
            if not features:
                what = "in 'start' and 'stop'" if self.parts is None else f"as {name!r}"
                raise self.error(
                    f"expected a part of {size} features that is not empty {what},"
                    f" got {tuple(given[name])}"
                )
        outputs = {n: BufferStructure(*shape, len(r)) for n, r in self.ranges.items()}
        return outputs, {}, {}

    def pieces(self, outputs: Any, whole: Any) -> Iterator[tuple[Any, Any]]:
        """Arrays of features, of the outputs and of the input."""
        for name, features in self.ranges.items():
            if features.step == 1:
                yield outputs[name], whole[..., features.start : features.stop]
                continue
            for number, feature in enumerate(features):
                part = whole[..., feature : feature + 1]
                yield outputs[name][..., number : number + 1], part

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        for y, x in self.pieces(buffers.outputs, buffers.inputs.default):
            self.handler.copy_to(x, y)

    def backward_pass(self, buffers: BufferView) -> None:
        if "default" in self.unwanted:
            return
        h, whole = self.handler, buffers.input_deltas.default
        if "default" in self.fresh:
            h.fill(whole, 0.0)
        for dy, dx in self.pieces(buffers.output_deltas, whole):
            total = h.scratch(dx.shape, 2)  # adding strided arrays is slow
            h.copy_to(dx, total)
            h.add_tt(total, dy, total)
            h.copy_to(total, dx)

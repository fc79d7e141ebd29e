"""Where data enters the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brainstorm.checks import Argument
from brainstorm.layers.arguments import Check, arguments_of
from brainstorm.layers.base_layer import BufferStructure, ConstructionWrapper, Layer
from brainstorm.structure.buffer_structure import StructureTemplate
from brainstorm.structure.layer import Setup, Structures
from brainstorm.utils import StructureValidationError


def Input(
    out_shapes: Mapping[str, Sequence[str | int]], name: str | None = None
) -> ConstructionWrapper:
    """Where data enters the network; every network has exactly one.

    >>> Input({'default': ('T', 'B', 784), 'targets': ('T', 'B', 1)}).name
    'Input'

    Args:
        out_shapes: Shape template of each named output, for example
            ``('T', 'B', 784)``.
        name: ``'Input'``, the only one that networks accept.
    """
    return ConstructionWrapper.create(InputLayerImpl, **locals())


class InputLayerImpl(Layer):
    """Provides external data as outputs.

    ============ =================== ======================================
    buffer       shape               content
    ============ =================== ======================================
    outputs      as in `out_shapes`  what `Network.provide_external_data` got
    ============ =================== ======================================

    Raises:
        LayerValidationError: `out_shapes` is not a dict of shape templates.
    """

    expected_inputs: Mapping[str, StructureTemplate] = {}
    arguments: Mapping[str, Argument] = arguments_of(
        Input,
        out_shapes=Check(
            lambda shapes: isinstance(shapes, Mapping) and len(shapes) > 0,
            "a dict of shapes by name",
        ),
    )
    honours_fresh = True
    repeats = True

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        outputs: dict[str, BufferStructure] = {}
        for name, shape in self.kwargs["out_shapes"].items():
            if not isinstance(name, str) or not name.isidentifier():
                raise self.error(f"expected identifiers as names, got {name!r}")
            if not isinstance(shape, (tuple, list)):
                raise self.error(
                    f"expected a shape like ('T', 'B', 784) for {name!r}, got {shape!r}"
                )
            try:
                outputs[name] = BufferStructure(*shape)
            except StructureValidationError as error:
                raise self.error(f"shape of {name!r}: {error}") from error
        self.takes_no_output_deltas_from: Sequence[str] = tuple(outputs)
        return outputs, {}, {}

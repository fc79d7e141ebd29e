"""What the layers that combine any number of inputs have in common."""

from __future__ import annotations

from brainstorm.layers.base_layer import Layer
from brainstorm.structure.buffer_structure import StructureTemplate


class NumberedLayer(Layer):
    """Base of layers with the inputs ``inputs_1``, ``inputs_2`` and any more."""

    expected_inputs = {
        "inputs_1": StructureTemplate("T", "B", "..."),
        "inputs_2": StructureTemplate("T", "B", "..."),
    }
    honours_fresh = True
    time_is_optional = True

    def inputs_to_expect(self, given):
        names = [f"inputs_{i + 1}" for i in range(max(2, len(given)))]
        return dict.fromkeys(names, StructureTemplate("T", "B", "..."))

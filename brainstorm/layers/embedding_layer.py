"""Vectors for the words of a vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brainstorm.checks import Argument
from brainstorm.layers._stepwise_layer import StepwiseLayer
from brainstorm.layers.arguments import COUNT, arguments_of
from brainstorm.layers.base_layer import BufferStructure, ConstructionWrapper
from brainstorm.layers.rows import Rows, as_column
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.layer import Setup, Structures
from brainstorm.utils import flatten_all_but_last


def Embedding(
    vocabulary_size: int, size: int, name: str | None = None, *, trainable: bool = True
) -> ConstructionWrapper:
    """A layer that looks up a vector for each index.

    It computes what `FullyConnected` does with one-hot vectors, without these.

    Args:
        vocabulary_size: Number of vectors.
        size: Their size.
        name: Name of the layer.
        trainable: Whether training changes the parameters.
    """
    return ConstructionWrapper.create(EmbeddingLayerImpl, **locals())


class EmbeddingLayerImpl(StepwiseLayer):
    """Computes ``y = W[index]`` for each index.

    With V vectors of size n, and k indices for each step of a sequence:

    =========== ======== ================== ==================================
    buffer      name     shape              content
    =========== ======== ================== ==================================
    inputs      default  (T, B, ...)        indices from 0 to V - 1, k a step
    outputs     default  (T, B, n), k n     their vectors, one after the other
    parameters  W        (V, n)             the vectors
    =========== ======== ================== ==================================

    With inputs of the shape (T, B, 1), outputs have the shape (T, B, n), with others
    (T, B, ..., n). No deltas flow to the indices.

    A backward pass adds to the rows of W's gradient whose indices came, and to no
    others. The gradient is still a part of the network's flat buffer, V n numbers:
    where nothing came they are 0. So steppers go through all of W; with momentum, or
    AdamStepper and its like, rows go on moving for some time after they came last.

    Raises:
        LayerValidationError: An argument is no positive integer.
        HandlerError: When run with an index that is not in the vocabulary.
    """

    vocabulary_size: int
    size: int

    arguments: Mapping[str, Argument] = arguments_of(Embedding, vocabulary_size=COUNT)
    computes_no_input_deltas_for: Sequence[str] = ("default",)
    repeats = True

    indices: Rows = Rows("inputs.default", shape=as_column)
    rows: Rows = Rows(writes=["outputs.default"], shape=flatten_all_but_last)
    delta_rows: Rows = Rows("output_deltas.default", shape=flatten_all_but_last)

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        V, n = self.vocabulary_size, self.size
        shape = in_shapes["default"].feature_shape
        features = (n,) if shape == (1,) else (*shape, n)
        outputs = {"default": self.like(in_shapes["default"], *features)}
        return outputs, {"W": BufferStructure(V, n)}, {}

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        h = self.handler
        (indices,) = self.indices.load(h, buffers)
        (y,) = self.rows.load(h, buffers)
        h.take_rows(buffers.parameters.W, indices, y)
        self.rows.store(h, buffers)

    def backward_pass(self, buffers: BufferView) -> None:
        h = self.handler
        (indices,) = self.indices.load(h, buffers)
        (dy,) = self.delta_rows.load(h, buffers)
        is_fresh = "gradients" in self.fresh
        h.add_to_rows(dy, indices, buffers.gradients.W, fresh_out=is_fresh)

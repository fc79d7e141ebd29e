"""Vectors for the words of a vocabulary."""

from __future__ import annotations

from brainstorm.layers.base_layer import Layer, once_per_resize
from brainstorm.layers.rows import Rows
from brainstorm.structure.buffer_structure import BufferStructure
from brainstorm.structure.construction import ConstructionWrapper

__all__ = ["Embedding", "EmbeddingLayerImpl"]


def Embedding(
    vocabulary_size: int,
    size: int,
    name: str | None = None,
    *,
    trainable: bool = True,
) -> ConstructionWrapper:
    """A layer that looks up a vector for each index.

    It computes what `FullyConnected` does with one-hot vectors, without these.

    Args:
        vocabulary_size: Number of vectors.
        size: Their size.
        name: Name of the layer.
        trainable: Whether training changes the parameters.
    """
    return ConstructionWrapper.create(
        EmbeddingLayerImpl,
        name=name,
        trainable=trainable,
        vocabulary_size=vocabulary_size,
        size=size,
    )


class EmbeddingLayerImpl(Layer):
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

    expected_kwargs = frozenset({"vocabulary_size", "size"})
    computes_no_input_deltas_for = ("default",)
    honours_fresh = True
    repeats = True

    def setup(self, kwargs, in_shapes):
        V = self.vocabulary_size = self.size_argument("vocabulary_size")
        n = self.size = self.size_argument("size")
        shape = in_shapes["default"].feature_shape
        features = (n,) if shape == (1,) else (*shape, n)
        outputs = {"default": BufferStructure("T", "B", *features)}
        return outputs, {"W": BufferStructure(V, n)}, {}

    @once_per_resize
    def rows(self, buffers):
        """The indices as a column, and y with a row for each of them."""
        indices, y = buffers.inputs.default, buffers.outputs.default
        if indices.shape[-1] > 1:
            indices = indices.reshape((*indices.shape, 1))
        return Rows(self.handler, [indices], [y])

    @once_per_resize
    def delta_rows(self, buffers):
        """The deltas of y, likewise."""
        return Rows(self.handler, [buffers.output_deltas.default], [])

    def forward_pass(self, buffers, training_pass=True):
        rows = self.rows(buffers)
        rows.load(self.handler)
        self.handler.take_rows(buffers.parameters.W, *rows.matrices)
        rows.store(self.handler)

    def backward_pass(self, buffers):
        indices, _ = self.rows(buffers).matrices
        rows = self.delta_rows(buffers)
        rows.load(self.handler)
        self.handler.add_to_rows(
            *rows.matrices,
            indices,
            buffers.gradients.W,
            fresh_out="gradients" in self.fresh,
        )

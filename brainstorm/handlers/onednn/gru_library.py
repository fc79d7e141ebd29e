"""Gated recurrent units over whole sequences, prepared for oneDNN.

All is as for an LSTM, but that there are no cells, and that the library wants both
biases as one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from brainstorm.handlers.onednn.binding import Memory
from brainstorm.handlers.onednn.lstm_arrays import LstmArrays, LstmDeltas
from brainstorm.handlers.onednn.lstm_formats import (
    GRU,
    Kind,
    copy_blocks,
    gate_blocks,
    split,
)
from brainstorm.handlers.onednn.lstm_library import LibraryLstm, Part
from brainstorm.handlers.onednn.recipes import Recipe
from brainstorm.handlers.operations.gru import GruWeights
from brainstorm.handlers.operations.recurrent import Weights


class LibraryGru(LibraryLstm):
    """A forward pass on certain arrays, and its backward passes; see `LibraryLstm`."""

    kind: Kind = GRU

    def __init__(self, whole: Part, parts: list[Part], arrays: LstmArrays):
        W, R, *self._given = arrays.weights
        # Those that are not given stay zeros.
        self._biases, self._gradients = np.zeros((2, 4 * R.shape[1]), np.float32)
        weights = Weights(W, R, self._biases)
        super().__init__(whole, parts, replace(arrays, weights=weights))
        del self._given

    def _pack(
        self, recipe: Recipe, arrays: LstmArrays, packed: Mapping[str, Memory]
    ) -> None:
        if "bias" in packed:
            for part, bias in zip(split(self._biases), self._given, strict=True):
                if bias is not None:
                    recipe.reorder(recipe.array(bias), recipe.kept_array(part))
        super()._pack(recipe, arrays, packed)

    def _put_gradient(
        self, recipe: Recipe, name: str, blocks: list[Memory], to: LstmDeltas
    ) -> None:
        if name != "bias":
            super()._put_gradient(recipe, name, blocks, to)
            return
        copy_blocks(recipe, blocks, gate_blocks(recipe, GRU, name, self._gradients))
        gradients: GruWeights = to.gradients
        wanted = gradients.bias, gradients.recurrent_bias
        for part, gradient in zip(split(self._gradients), wanted, strict=True):
            if gradient is not None:
                source, target = recipe.kept_array(part), recipe.array(gradient)
                recipe.reorder(source, target, add=not to.fresh_gradients)

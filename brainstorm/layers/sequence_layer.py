"""What recurrent layers have in common: biases, and states to begin with."""

from __future__ import annotations

from typing import Any

from brainstorm.layers.base_layer import Layer
from brainstorm.structure.buffer_structure import BufferStructure, StructureTemplate

__all__ = ["SequenceLayer"]

# Slots of the handler's temporaries that operations leave alone.
STATES, CHOSEN, WEIGHTS, UNUSED = 20, 21, 22, 23


class SequenceLayer(Layer):
    """Base of recurrent layers, with outputs (T + 1, B, n).

    Arguments of all of them: `size`, `activation`, `bias` and `initial_state`.

    With ``bias=False`` operations are given a bias of zeros. With
    ``initial_state='learned'``, sequences begin with the values of parameters; the
    internal ``begun`` tells which ones do: it is 1 where the state was carried on.
    """

    expected_inputs = {"default": StructureTemplate("T", "B", "...")}
    expected_kwargs = frozenset({"size", "activation", "bias", "initial_state"})
    honours_fresh = True
    states = {"y0": "outputs.default"}
    """Parameters for the states of begin, and the buffers that they go into."""

    def read_options(self) -> int:
        """Read the arguments; returns the number of units."""
        self.activation = self.activation_argument("tanh")
        self.has_bias = self.bias_argument()
        state = self.argument(
            "initial_state",
            "zeros",
            lambda value: value in ("zeros", "learned"),
            "'zeros' or 'learned'",
        )
        self.learns_states = state == "learned"
        self.size = self.size_argument("size")
        return self.size

    def add_options(
        self, parameters: dict[str, Any], internals: dict[str, Any], biases: int
    ) -> None:
        """Add what `bias` and `initial_state` need, behind all else.

        Args:
            parameters: Structures of the other parameters.
            internals: Structures of the other internals.
            biases: Size of the biases.
        """
        if not self.has_bias:
            internals["zero_bias"] = BufferStructure(biases)
        if self.learns_states:
            state = BufferStructure(self.size)
            parameters.update(dict.fromkeys(self.states, state))
            internals["begun"] = BufferStructure("T", "B", 1, context_size=1)

    def begin(self, buffers: Any) -> None:
        """Get the bias and the carried states ready for a forward pass."""
        h = self.handler
        if not self.has_bias:
            h.fill(buffers.internals.zero_bias, 0.0)
        if not self.learns_states:
            return
        begun = buffers.internals.begun
        weights = self.beginning(begun)
        for name, path in self.states.items():
            initial, state = buffers.parameters[name], buffers[path][-1]
            values = h.scratch(tuple(state.shape), STATES)
            chosen = h.scratch(tuple(state.shape), CHOSEN)
            h.broadcast_t(initial.reshape((1, initial.shape[0])), 0, values)
            h.broadcast_t(weights, 1, chosen)
            h.copy_to_if(values, state, chosen)
        h.fill(begun[:-1], 1.0)

    def end(self, buffers: Any) -> None:
        """Compute the gradients of the states of begin, after a backward pass."""
        if not self.learns_states:
            return
        h = self.handler
        weights = self.beginning(buffers.internals.begun)
        dot = h.dot_mm if "gradients" in self.fresh else h.dot_add_mm
        for name, path in self.states.items():
            gradient, deltas = buffers.gradients[name], self.deltas_of(buffers, path)
            h.complete(deltas)
            shape = (1, gradient.shape[0])
            dot(weights, deltas, gradient.reshape(shape), transa=True)

    def beginning(self, begun: Any) -> Any:
        """A column (B, 1) of ones for sequences that begin, and of zeros."""
        weights = self.handler.scratch(tuple(begun.shape[1:]), WEIGHTS)
        self.handler.mult_st(-1.0, begun[-1], weights)
        self.handler.add_st(1.0, weights, weights)
        return weights

    @staticmethod
    def deltas_of(buffers: Any, path: str) -> Any:
        """The deltas of the carried state in a buffer."""
        kind, name = path.split(".")
        if kind == "outputs":
            return buffers.output_deltas[name][-1]
        return buffers.internals[f"d{name}"][-1]

    def unused_gradient(self, size: int) -> Any:
        """Where to put the gradient of a bias that there is not."""
        gradient = self.handler.scratch((size,), UNUSED)
        self.handler.fill(gradient, 0.0)
        return gradient

"""What recurrent layers have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from brainstorm.handlers.operations.recurrent import Weights
from brainstorm.layers.base_layer import BufferStructure, Layer
from brainstorm.literals import Activation, InitialState
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.layer import Setup, Structures
from brainstorm.structure.taps import delta_structure, tapped_internals
from brainstorm.utils import flatten_features

# Slots of the handler's temporaries that operations leave alone.
STATES, CHOSEN, WEIGHTS = 20, 21, 22
# What records of weights call the kinds of parameters.
FIELDS = {"W": "W", "R": "R", "b": "bias", "p": "peepholes", "bp": "recurrent_bias"}


class SequenceLayer(Layer):
    """Base of recurrent layers, with outputs (T + 1, B, n).

    A layer is a pair of operations of the handler, and tables of what they work on.
    Arguments of all are `size`, `activation`, `bias` and `initial_state`.

    With ``initial_state='learned'``, sequences begin with the values of parameters; the
    internal ``begun`` tells which ones do: it is 1 where the state was carried on.

    Attributes:
        operation: What ``_forward`` and ``_backward`` are added to.
        has_outputs_alone: Whether there is one with ``_outputs``, too, which computes
            no cells but the carried ones behind the last step.
        weights: The parameters, in their order: for each gate weights W of the inputs,
            peepholes p, weights R of the outputs before, and biases b; last bp, of what
            the reset gates of a GRU act on.
        record: That of the parameters, which operations take.
        cells, deltas: The records of internals that operations take.
        cell_context: Whether these have rows for the state before.
        carried: The internals that belong to the state, if not all with such rows.
        taps: The cells that may be inputs of other layers.
        states: Parameters to begin sequences with, and the buffers that they go into.
    """

    size: int
    activation: Activation
    bias: bool
    initial_state: InitialState
    operation: str
    has_outputs_alone = False
    weights: Mapping[str, Sequence[str]]
    record: type[Any] = Weights
    cells: type[Any]
    deltas: type[Any]
    cell_context = 1
    carried: Sequence[str] | None = None
    taps: Sequence[str] = ()
    states: Mapping[str, str] = {"y0": "outputs.default"}
    peepholes = True
    recurrent_bias = False
    honours_fresh = True

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        n, i = self.size, in_shapes["default"].feature_size
        outputs = {"default": BufferStructure("T", "B", n, context_size=1)}
        shapes = {"W": (n, i), "p": (1, n), "R": (n, n), "b": (n,), "bp": (n,)}
        optional = {"b": self.bias, "p": self.peepholes, "bp": self.recurrent_bias}
        self.kinds: dict[str, Sequence[str]] = {
            k: g for k, g in self.weights.items() if optional.get(k, True)
        }
        parameters = {
            name: BufferStructure(*shapes[kind])
            for kind, gates in self.kinds.items()
            for name in gates
        }
        cells, deltas = self.cell_names(), [f"d{name}" for name in self.deltas._fields]
        internals = {
            name: BufferStructure(
                *("T", "B", n),
                context_size=self.cell_context,
                is_backward_only=name in deltas,
                is_state=self.carried is None or name in self.carried,
            )
            for name in (*cells, *deltas)
        }
        self.learns_states: bool = self.initial_state == "learned"
        if self.learns_states:
            self.first_values: Mapping[str, Any] = dict.fromkeys(self.states, 0.0)
            parameters.update(dict.fromkeys(self.states, BufferStructure(n)))
            internals["begun"] = BufferStructure("T", "B", 1, context_size=1)
        self.tapped: list[str] = [
            n for n in tapped_internals(self.outgoing) if n in self.taps
        ]
        for name in self.tapped:
            internals[f"{name}_deltas"] = delta_structure(internals[name])
        if self.has_outputs_alone and not self.tapped:
            self.can_leave_out: Sequence[str] = self.cell_names()
        return outputs, parameters, internals

    @property
    def can_be_stepped(self) -> bool:
        """Whether the state is in the outputs, whatever cells are kept for."""
        return all(path.startswith("outputs.") for path in self.states.values())

    # -- what operations work on ---------------------------------------------

    def cell_names(self) -> Sequence[str]:
        return self.cells._fields

    def stacked(self, view: Any) -> Any:
        """The parameters, each of all gates, or their gradients, without copying.

        Those of a kind lie one after the other, so they are one array.
        """
        found, start = {}, 0
        for kind, (first, *others) in self.kinds.items():
            found[kind] = view[first]
            if others:
                rows, *columns = view[first].shape
                stop = start + (1 + len(others)) * math.prod((rows, *columns))
                stack = view._full_buffer[start:stop]
                found[kind] = stack.reshape(((1 + len(others)) * rows, *columns))
                start = stop
        fields = {FIELDS[kind]: found.get(kind) for kind in self.weights}
        return self.record(**fields)

    def arrays(self, buffers: Any) -> Any:
        weights, internals = self.stacked(buffers.parameters), buffers.internals
        cells = self.cells(**{name: internals[name] for name in self.cell_names()})
        x = flatten_features(buffers.inputs.default)
        return x, weights, cells, buffers.outputs.default

    def backward_arrays(self, buffers: Any) -> Any:
        """What the backward pass works on besides: deltas of y, of cells and inputs."""
        fields = self.deltas._fields
        deltas = self.deltas(*[buffers.internals[f"d{name}"] for name in fields])
        dx = flatten_features(buffers.input_deltas.default)
        dy, gradients = buffers.output_deltas.default, self.stacked(buffers.gradients)
        return dy, deltas, dx, gradients

    def options(self, buffers: Any) -> dict[str, Any]:
        return {}

    def from_outside(self, buffers: Any) -> dict[str, Any]:
        """The deltas of cells that are inputs of other layers, as an argument."""
        return {}

    # -- passes --------------------------------------------------------------

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        self.begin(buffers)
        x, weights, cells, y = self.arrays(buffers)
        kind, options = "forward", self.options(buffers)
        if self.can_leave_out and not self.keeps_internals:
            # Their last two rows are the states behind and before the steps.
            kind = "outputs"
            cells = [buffers.internals[name][-2:] for name in self.carried or ()]
        else:
            cells = [cells]
        operation = getattr(self.handler, f"{self.operation}_{kind}")
        operation(x, weights, *cells, y, self.activation, **options)
        for name in self.tapped:
            self.handler.complete(buffers.internals[name])

    def backward_pass(self, buffers: BufferView) -> None:
        dy, deltas, dx, gradients = self.backward_arrays(buffers)
        outside = self.from_outside(buffers) if self.tapped else {}
        backward = getattr(self.handler, f"{self.operation}_backward")
        backward(
            *self.arrays(buffers),
            dy,
            deltas,
            None if "default" in self.unwanted else dx,
            gradients,
            self.activation,
            fresh_dx="default" in self.fresh,
            fresh_gradients="gradients" in self.fresh,
            **self.options(buffers),
            **outside,
        )
        self.end(buffers)

    def begin(self, buffers: Any) -> None:
        """Get the carried states ready for a forward pass."""
        if not self.learns_states:
            return
        h = self.handler
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

"""Recurrent layers in ONNX.

Where there is an operator for a layer, it is used. For clockworks, and for activation
functions that the operators lack, there is a loop, the operator Scan.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from brainstorm.describable import of_library
from brainstorm.layers.base_layer import Layer
from brainstorm.layers.bidirectional_layer import DIRECTIONS
from brainstorm.structure.construction import layer_type_name
from brainstorm.tools.onnx_graph import ACTIVATIONS, Graph
from brainstorm.utils import ValidationError, listing

# Activation functions of the operators, and their alpha. That for softplus overflows.
OPERATOR_ACTIVATIONS: dict[str, tuple[str, float | None]] = {"linear": ("Affine", 1.0)}
for _name in ("rel", "tanh", "sigmoid", "el", "leaky_rel"):
    OPERATOR_ACTIVATIONS[_name] = ACTIVATIONS[_name]


class Cell(NamedTuple):
    """What a recurrent layer computes with; the gates are in the order of ONNX."""

    size: int  # Number n of units.
    activation: str
    W: np.ndarray  # (G, I).
    R: np.ndarray  # (G, n).
    bias: np.ndarray  # (G,), zeros if there is none.
    recurrent_bias: np.ndarray  # (G,), likewise, added to the products with R.
    peepholes: np.ndarray  # (3 n,), empty if there are none.
    states: list[np.ndarray]  # What each state is at first, (1, n).
    timing: np.ndarray | None  # (n,).
    leak: float = 1.0
    leak_inside: bool = False
    reset_after: bool = True  # Of a GRU: whether it acts after the product.


class Kind(NamedTuple):
    """How ONNX computes a kind of layer, by an operator or a loop."""

    op: str
    gates: tuple[str, ...]  # Ends of the names of weights, in the operator's order.
    sigmoids: int  # How many of its activation functions are sigmoids, the first ones,
    activations: int  # and how many are that of the layer.
    attributes: dict[str, str]  # Flags of the operator: fields of Cell.
    step: Callable[[Graph, Cell, list[str], str], list[str]]  # Adds one step of a loop.


def recurrent(graph: Graph, layer: Layer) -> str:
    """The outputs of a recurrent layer."""
    x = graph.flat_input(layer)
    return _run(graph, layer, x, lambda name: graph.values(layer, name))


def bidirectional(graph: Graph, layer: Any) -> str:
    """The outputs of a bidirectional layer: of one forward and one backward in time."""
    half = layer.halves[0]
    kind = layer_type_name(type(half))
    if kind not in KINDS or not of_library(type(half)):
        raise ValidationError(
            f"the Bidirectional layer {layer.name!r} can not be exported with a"
            f" {kind} layer; those that can are: {listing(sorted(KINDS))}"
        )
    x = graph.flat_input(layer)
    lengths, inside = _lengths(graph, layer, x)

    def run(direction: int, x: str) -> str:
        prefix = DIRECTIONS[direction]
        return _run(graph, half, x, lambda name: graph.values(layer, prefix + name))

    def reverse(tensor: str) -> str:
        return graph.add("ReverseSequence", tensor, lengths, time_axis=0, batch_axis=1)

    back = reverse(run(1, reverse(x)))
    if inside is not None:
        back = graph.add("Where", inside, back, graph.constant(0.0))
    return graph.add("Concat", run(0, x), back, axis=-1)


def _lengths(graph: Graph, layer: Layer, x: str) -> tuple[str, str | None]:
    """Lengths of the sequences, and with a mask what lies within them, (T, B, 1)."""
    if "mask" not in layer.in_shapes:
        sizes = (graph.add("Shape", x, start=axis, end=axis + 1) for axis in (0, 1))
        return graph.add("Expand", *sizes), None
    mask = graph.add("Cast", graph.input(layer, "mask"), to=graph.BOOL)
    steps = _steps(graph, x, 2)
    one, zero = (graph.constant(number, np.int64) for number in (1, 0))
    ends = graph.add("Where", mask, graph.add("Add", steps, one), zero)
    lengths = graph.add("ReduceMax", ends, axes=(0, 2), keepdims=0)
    column = graph.add("Unsqueeze", lengths, graph.constant((1,), np.int64))
    return lengths, graph.add("Less", steps, column)


def _steps(graph: Graph, x: str, axes: int) -> str:
    """The numbers of the steps, (T, 1) with as many further axes."""
    zero, one = (graph.constant(number, np.int64) for number in (0, 1))
    count = graph.add("Shape", x, end=1)
    scalar = graph.add("Squeeze", count, graph.constant((0,), np.int64))
    steps = graph.add("Range", zero, scalar, one)
    further = tuple(range(1, axes + 1))
    return graph.add("Unsqueeze", steps, graph.constant(further, np.int64))


def _run(graph: Graph, layer: Any, x: str, values: Callable[[str], np.ndarray]) -> str:
    """The outputs (T, B, n) of a layer; `values` gives its parameters by name."""
    kind, cell = KINDS[layer_type_name(type(layer))], _cell(layer, values)
    has_operator = cell.activation in OPERATOR_ACTIVATIONS and cell.leak == 1
    if cell.timing is None and has_operator:
        return _operator(graph, kind, cell, x)
    return _loop(graph, kind, cell, x)


def _cell(layer: Any, values: Callable[[str], np.ndarray]) -> Cell:
    kind = KINDS[layer_type_name(type(layer))]
    n = layer.out_shapes["default"].feature_size
    names = layer.parameter_shapes
    biases = [f"b{gate}" if gate else "bias" for gate in kind.gates]
    timing = values("timing") if "timing" in names else None
    if timing is not None and not timing.min() >= 1:
        raise ValidationError(
            f"the layer {layer.name!r} can not be exported: its timings have to be at"
            f" least 1, got {timing.min()}"
        )
    recurrent_bias = np.zeros(len(kind.gates) * n)
    if "bp" in names:
        recurrent_bias[-n:] = values("bp")
    return Cell(
        n,
        layer.activation,
        np.concatenate([values(f"W{gate}") for gate in kind.gates]),
        np.concatenate([values(f"R{gate}") for gate in kind.gates]),
        np.concatenate([values(b) if b in names else np.zeros(n) for b in biases]),
        recurrent_bias,
        np.concatenate([[], *(values(p)[0] for p in PEEPHOLES if p in names)]),
        [
            values(name)[np.newaxis] if layer.learns_states else np.zeros((1, n))
            for name in layer.states
        ],
        timing,
        getattr(layer, "leak", 1.0),
        getattr(layer, "leak_inside", False),
        getattr(layer, "reset_after", True),
    )


def _states(graph: Graph, cell: Cell, x: str) -> list[str]:
    """What the states are at first, (B, n)."""
    batch = graph.add("Shape", x, start=1, end=2)
    size = graph.constant((cell.size,), np.int64)
    shape = graph.add("Concat", batch, size, axis=0)
    return [graph.add("Expand", graph.constant(s), shape) for s in cell.states]


# -- the operators RNN, LSTM and GRU -----------------------------------------


def _operator(graph: Graph, kind: Kind, cell: Cell, x: str) -> str:
    bias = np.concatenate([cell.bias, cell.recurrent_bias])
    inputs = [graph.constant(a[np.newaxis]) for a in (cell.W, cell.R, bias)]
    direction, lengths = graph.constant((0,), np.int64), ""
    states = [""] * len(cell.states)
    if any(state.any() for state in cell.states):
        initial = _states(graph, cell, x)
        states = [graph.add("Unsqueeze", state, direction) for state in initial]
    inputs += [lengths, *states]
    if cell.peepholes.size:
        inputs.append(graph.constant(cell.peepholes[np.newaxis]))
    activation, alpha = OPERATOR_ACTIVATIONS[cell.activation]
    count = kind.sigmoids + kind.activations
    attributes: dict[str, Any] = {
        name: int(getattr(cell, field)) for name, field in kind.attributes.items()
    }
    y = graph.add(
        kind.op,
        *(x, *inputs),
        hidden_size=cell.size,
        activations=("Sigmoid",) * kind.sigmoids + (activation,) * kind.activations,
        # Software differs on whether there is one for each, or for those that need it.
        activation_alpha=(alpha or 0.0,) * count,
        activation_beta=(0.0,) * count,
        **attributes,
    )
    return graph.add("Squeeze", y, graph.constant((1,), np.int64))


# -- loops -------------------------------------------------------------------


def _loop(graph: Graph, kind: Kind, cell: Cell, x: str) -> str:
    """A recurrent layer whose units may take turns."""
    Wx = graph.add("MatMul", x, graph.constant(cell.W.T))
    sequences = [graph.add("Add", Wx, graph.constant(cell.bias))]
    if cell.timing is not None:
        steps = graph.add("Cast", _steps(graph, x, 1), to=graph.FLOAT)
        rest = graph.add("Mod", steps, graph.constant(cell.timing), fmod=1)
        sequences.append(graph.add("Equal", rest, graph.constant(0.0)))

    def step(states: list[str], now: list[str]) -> list[str]:
        Wx, *turns = now
        new = kind.step(graph, cell, states, Wx)
        for turn in turns:
            pairs = zip(new, states, strict=True)
            new = [graph.add("Where", turn, *pair) for pair in pairs]
        return new

    return graph.scan(step, _states(graph, cell, x), *sequences)


def _recurrent_step(graph: Graph, cell: Cell, states: list[str], Wx: str) -> list[str]:
    def leaking(tensor: str) -> str:
        new = graph.add("Mul", tensor, graph.constant(cell.leak))
        old = graph.add("Mul", states[0], graph.constant(1.0 - cell.leak))
        return graph.add("Add", new, old)

    Ry = graph.add("MatMul", states[0], graph.constant(cell.R.T))
    h = graph.add("Add", Wx, Ry)
    if cell.leak < 1 and cell.leak_inside:
        h = leaking(h)
    y = graph.activate(h, cell.activation)
    return [leaking(y) if cell.leak < 1 and not cell.leak_inside else y]


def _lstm_step(graph: Graph, cell: Cell, states: list[str], Wx: str) -> list[str]:
    y, c = states
    Ry = graph.add("MatMul", y, graph.constant(cell.R.T))
    gates = graph.add("Add", Wx, Ry)
    i, o, f, z = graph.add_split("Split", gates, outputs=4, axis=-1)

    def gate(tensor: str, k: int, c: str) -> str:
        if cell.peepholes.size:
            p = graph.constant(np.split(cell.peepholes, 3)[k])
            tensor = graph.add("Add", tensor, graph.add("Mul", p, c))
        return graph.add("Sigmoid", tensor)

    z = graph.activate(z, cell.activation)
    written = graph.add("Mul", gate(i, 0, c), z)
    c = graph.add("Add", written, graph.add("Mul", gate(f, 2, c), c))
    seen = graph.activate(c, cell.activation)
    return [graph.add("Mul", gate(o, 1, c), seen), c]


def _gru_step(graph: Graph, cell: Cell, states: list[str], Wx: str) -> list[str]:
    (y,) = states
    Ry = graph.add("MatMul", y, graph.constant(cell.R.T))
    if cell.recurrent_bias.any():
        Ry = graph.add("Add", Ry, graph.constant(cell.recurrent_bias))
    parts = [graph.add_split("Split", a, outputs=3, axis=-1) for a in (Wx, Ry)]
    (Wz, Wr, Wh), (Rz, Rr, Rh) = parts
    z, r = (
        graph.add("Sigmoid", graph.add("Add", *pair)) for pair in ((Wz, Rz), (Wr, Rr))
    )
    if cell.reset_after:
        Rh = graph.add("Mul", r, Rh)
    else:
        R = graph.constant(np.split(cell.R, 3)[2].T)
        Rh = graph.add("MatMul", graph.add("Mul", r, y), R)
    h = graph.add("Add", Wh, Rh)
    h = graph.activate(h, cell.activation)
    return [graph.add("Add", h, graph.add("Mul", z, graph.add("Sub", y, h)))]


PEEPHOLES = ("pi", "po", "pf")
RNN = Kind("RNN", ("",), 0, 1, {}, _recurrent_step)
LSTM = Kind("LSTM", ("i", "o", "f", "z"), 1, 2, {}, _lstm_step)
GRU = Kind(
    "GRU", ("z", "r", "h"), 1, 1, {"linear_before_reset": "reset_after"}, _gru_step
)

KINDS = {
    "Recurrent": RNN,
    "Reservoir": RNN,
    "Clockwork": RNN,
    "Lstm": LSTM,
    "ClockworkLstm": LSTM,
    "Gru": GRU,
}

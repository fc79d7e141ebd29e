"""What collects the nodes of an ONNX model."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from brainstorm.__about__ import __version__
from brainstorm.layers.base_layer import Layer
from brainstorm.structure.buffer_structure import BufferStructure
from brainstorm.structure.layout import create_layout
from brainstorm.structure.network import Network
from brainstorm.structure.taps import source_path
from brainstorm.utils import ValidationError

# What files are for: old enough for most software, new enough for LayerNormalization.
OPSET, IR_VERSION = 17, 8

# Operators and their alpha.
ACTIVATIONS = {
    "rel": ("Relu", None),
    "tanh": ("Tanh", None),
    "sigmoid": ("Sigmoid", None),
    "el": ("Elu", 1.0),
    "softplus": ("Softplus", None),
    "leaky_rel": ("LeakyRelu", 0.01),
    "hard_swish": ("HardSwish", None),
    "hard_sigmoid": ("HardSigmoid", 1 / 6),
    "softsign": ("Softsign", None),
}
GELU = math.sqrt(8 / math.pi)


class Graph:
    """Collects the nodes of a model. Methods that add some name the result.

    Args:
        network: The network to export.
        onnx: The module.

    Attributes:
        tensors (dict): Names of the tensors by layer and output.
        FLOAT, INT64, BOOL: Types of tensors.
    """

    def __init__(self, network: Network, onnx: Any):
        self.network = network
        self.tensors: dict[tuple[str, str], str] = {}
        self.FLOAT = onnx.TensorProto.FLOAT
        self.INT64 = onnx.TensorProto.INT64
        self.BOOL = onnx.TensorProto.BOOL
        self._onnx = onnx
        self._nodes: list[Any] = []
        self._constants: dict[Any, Any] = {}
        self._numbers = itertools.count()
        hubs, _ = create_layout(network.layers)
        self._places = {p: place for hub in hubs for p, place in hub.slices.items()}

    # -- nodes and constants -------------------------------------------------

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output."""
        return self.add_split(op, *inputs, outputs=1, **attributes)[0]

    def add_split(
        self, op: str, *inputs: str, outputs: int, **attributes: Any
    ) -> list[str]:
        """Add a node with several outputs."""
        names = [self._new_name(op) for _ in range(outputs)]
        node = self._onnx.helper.make_node(op, inputs, names, names[0], **attributes)
        self._nodes.append(node)
        return names

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """Add a constant, unless there is the same already."""
        array = np.ascontiguousarray(values, dtype)
        key = (array.dtype, array.shape, hashlib.sha256(array.data).digest())
        return self._add_constant(key, array, f"constant_{len(self._constants)}")

    def parameter(self, layer: Layer, name: str) -> str:
        """Add a parameter, as a constant with its name; those that are shared once."""
        path = layer.shared.get(name, f"{layer.name}.{name}")
        return self._add_constant(path, self.values(layer, name), path)

    def parameters(self, layer: Layer, *names: str) -> list[str]:
        """Add several parameters."""
        return [self.parameter(layer, name) for name in names]

    def values(self, layer: Layer, name: str) -> np.ndarray:
        """The values of a parameter."""
        values = self.network.get(f"{layer.name}.parameters.{name}")
        return np.ascontiguousarray(values, np.float32)

    def scan(
        self,
        step: Callable[[list[str], list[str]], list[str]],
        states: Sequence[str],
        *sequences: str,
    ) -> str:
        """Add a loop over time: the values of the first state after each step.

        `step` adds the nodes of one step, and names the states after it. It is given
        the names of those before it, `states` at first, and of what each sequence has
        for this step.
        """
        helper = self._onnx.helper
        outer, self._nodes = self._nodes, []
        before = [self._new_name("state") for _ in states]
        now = [self._new_name("now") for _ in sequences]
        after = step(before, now)
        after.append(self.add("Identity", after[0]))
        ends = [
            [helper.make_empty_tensor_value_info(n) for n in names]
            for names in (before + now, after)
        ]
        body = helper.make_graph(self._nodes, self._new_name("step"), *ends)
        self._nodes = outer
        inputs = (*states, *sequences)
        count = len(sequences)
        return self.add_split(
            "Scan", *inputs, outputs=len(after), body=body, num_scan_inputs=count
        )[-1]

    def _new_name(self, kind: str) -> str:
        return f"{kind}_{next(self._numbers)}"

    def _add_constant(self, key: Any, array: np.ndarray, name: str) -> str:
        if key not in self._constants:
            tensor = self._onnx.numpy_helper.from_array(array, name)
            self._constants[key] = tensor
        return self._constants[key].name

    # -- what layers have in common ------------------------------------------

    def tensor(self, layer_name: str, output_name: str) -> str:
        """An output of a layer."""
        if (layer_name, output_name) not in self.tensors:
            raise ValidationError(
                f"the output {output_name!r} of the layer {layer_name!r} can not be"
                " exported: it is internal, or for training"
            )
        return self.tensors[layer_name, output_name]

    def input(self, layer: Layer, name: str = "default") -> str:
        """What goes into a layer; several outputs are joined."""
        sources = [c for c in layer.incoming if c.input_name == name]
        sources.sort(key=lambda c: self._places[source_path(c, "outputs")])
        tensors = [self.tensor(c.start_layer, c.output_name) for c in sources]
        if len(tensors) == 1:
            return tensors[0]
        flat = []
        for c, tensor in zip(sources, tensors, strict=True):
            structure = self.network.layers[c.start_layer].out_shapes[c.output_name]
            flat.append(self.flatten(tensor, structure))
        joined = self.add("Concat", *flat, axis=-1)
        shape = layer.in_shapes[name].feature_shape
        return (
            joined if len(shape) == 1 else self.reshape(joined, layer.in_shapes[name])
        )

    def inputs(self, layer: Layer, *names: str) -> list[str]:
        """What goes into several inputs of a layer."""
        return [self.input(layer, name) for name in names]

    def flat_input(self, layer: Layer, name: str = "default") -> str:
        """What goes into a layer, as (T, B, F)."""
        return self.flatten(self.input(layer, name), layer.in_shapes[name])

    def flatten(self, tensor: str, structure: BufferStructure) -> str:
        """(T, B, ...) as (T, B, F)."""
        if len(structure.feature_shape) == 1:
            return tensor
        return self.reshape(tensor, structure, structure.feature_size)

    def reshape(self, tensor: str, structure: BufferStructure, *features: int) -> str:
        """The shape of a structure, or its time and batch with other features."""
        shape = features or structure.feature_shape
        kept = (0,) * structure.buffer_type
        return self.add("Reshape", tensor, self.constant((*kept, *shape), np.int64))

    def activate(self, tensor: str, activation: str) -> str:
        """The values of an activation function."""
        if activation in COMPOSED:
            return COMPOSED[activation](self, tensor)
        if activation not in ACTIVATIONS:
            raise ValidationError(
                f"the activation function {activation!r} has no operator in ONNX files"
            )
        op, alpha = ACTIVATIONS[activation]
        return self.add(op, tensor, **({} if alpha is None else {"alpha": alpha}))

    # -- the model -----------------------------------------------------------

    def model(self, needed: list[str], path: str) -> Any:
        """The complete model, with these inputs and the output of this path."""
        helper = self._onnx.helper
        layer, _, output = path.split(".")
        result = f"{layer}.{output}"
        tensor = self.tensor(layer, output)
        self._nodes.append(helper.make_node("Identity", [tensor], [result], result))
        structures = self.network.layers["Input"].out_shapes
        graph = helper.make_graph(
            self._nodes,
            "network",
            [self._info(name, structures[name]) for name in needed],
            [self._info(result, self.network.layers[layer].out_shapes[output])],
            list(self._constants.values()),
        )
        model = helper.make_model(
            graph,
            producer_name="brainstorm",
            producer_version=__version__,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        self._onnx.checker.check_model(model, full_check=True)
        return model

    def _info(self, name: str, structure: BufferStructure) -> Any:
        return self._onnx.helper.make_tensor_value_info(
            name, self.FLOAT, structure.shape
        )


def _gelu(graph: Graph, x: str) -> str:
    factor = graph.add("Mul", graph.add("Mul", x, x), graph.constant(GELU * 0.044715))
    factor = graph.add("Add", factor, graph.constant(GELU))
    return graph.add("Mul", x, graph.add("Sigmoid", graph.add("Mul", x, factor)))


COMPOSED: dict[str, Callable[[Graph, str], str]] = {
    "linear": lambda graph, x: x,
    "relu6": lambda g, x: g.add("Clip", x, g.constant(0.0), g.constant(6.0)),
    "mish": lambda g, x: g.add("Mul", x, g.add("Tanh", g.add("Softplus", x))),
    "swish": lambda g, x: g.add("Mul", x, g.add("Sigmoid", x)),
    "gelu": _gelu,
}

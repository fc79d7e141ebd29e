"""Export of networks to ONNX, the format that most other software can run.

Tensors keep the names of the layers. Inputs and outputs keep their shape (T, B, ...),
with T and B left open. All numbers are in float32.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from brainstorm import __version__
from brainstorm.files import atomic_path
from brainstorm.structure.construction import layer_type_name
from brainstorm.structure.layout import create_layout
from brainstorm.structure.prediction import find_output, inputs_of
from brainstorm.utils import ValidationError, listing, missing_extra

if TYPE_CHECKING:
    from brainstorm.layers.base_layer import Layer
    from brainstorm.structure.buffer_structure import BufferStructure
    from brainstorm.structure.network import Network

__all__ = ["export_onnx"]

# What files are for: old enough for most software, new enough for Shape with an end.
OPSET, IR_VERSION = 17, 8

ACTIVATIONS = {"rel": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid", "el": "Elu"}


def export_onnx(
    network: Network, file_name: str | os.PathLike, output_name: str | None = None
) -> None:
    """Write a network to an ONNX file, with what it takes to compute one output.

    The inputs of the model are those of the network on which the output depends: no
    targets, for example. Its output is named after layer and output, as in
    ``'Output.predictions'``. It computes what `Network.predict` does, in float32.

    Needs `onnx <https://onnx.ai>`_.

    Args:
        network: The network.
        file_name: Name of the file; its folder has to exist.
        output_name: Path of the output. Default: the network's `output_name`, or the
            only output that can be meant.

    Raises:
        ImportError: onnx is not installed.
        ValidationError: A layer can not be exported, or several outputs can be meant.
        FileNotFoundError: The folder does not exist.
    """
    try:
        import onnx
    except ImportError as error:
        raise missing_extra("export_onnx", "onnx", "onnx") from error
    path = find_output(network, output_name)
    needed, layers = inputs_of(network, path)
    graph = _Graph(network, onnx)
    for name in needed:
        graph.tensors["Input", name] = name
    for name, layer in network.layers.items():
        if name in layers and name != "Input":
            graph.add_layer(layer)
    model = graph.model(needed, path)
    with atomic_path(file_name) as temporary:
        temporary.write_bytes(model.SerializeToString())


class _Graph:
    """Collects the nodes of a model.

    Attributes:
        tensors: Names of the tensors by layer and output.
    """

    def __init__(self, network: Network, onnx: Any):
        self.network = network
        self.onnx = onnx
        self.tensors: dict[tuple[str, str], str] = {}
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        hubs, _ = create_layout(network.layers)
        self._places = {p: place for hub in hubs for p, place in hub.slices.items()}

    def add_layer(self, layer: Layer) -> None:
        """Add the nodes that compute the outputs of a layer."""
        kind = layer_type_name(type(layer))
        if kind not in EMITTERS:
            raise ValidationError(
                f"a {kind} layer such as {layer.name!r} can not be exported; those that"
                f" can are: {listing(sorted(EMITTERS))}"
            )
        emit, output_name, known = EMITTERS[kind]
        unknown = sorted(set(layer.kwargs) - known)
        if unknown:
            raise ValidationError(
                f"the {kind} layer {layer.name!r} can not be exported with the argument"
                f" {listing(unknown)}"
            )
        self.tensors[layer.name, output_name] = emit(self, layer)

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node, and name its one output."""
        name = f"{op}_{len(self._nodes)}"
        self._nodes.append(
            self.onnx.helper.make_node(op, inputs, [name], name, **attributes)
        )
        return name

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """Add a constant, and name it."""
        name = f"constant_{len(self._constants)}"
        array = np.ascontiguousarray(values, dtype)
        self._constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def parameter(self, layer: Layer, name: str) -> np.ndarray:
        """The values of a parameter."""
        return self.network.get(f"{layer.name}.parameters.{name}")

    def input(self, layer: Layer, name: str = "default") -> str:
        """The tensor that goes into a layer; several outputs are joined."""
        sources = [c for c in layer.incoming if c.input_name == name]
        sources.sort(
            key=lambda c: self._places[f"{c.start_layer}.outputs.{c.output_name}"]
        )
        tensors = [self.tensors[c.start_layer, c.output_name] for c in sources]
        if len(tensors) == 1:
            return tensors[0]
        flat = []
        for c, tensor in zip(sources, tensors, strict=True):
            structure = self.network.layers[c.start_layer].out_shapes[c.output_name]
            flat.append(self.flatten(tensor, structure))
        return self.add("Concat", *flat, axis=-1)

    def flatten(self, tensor: str, structure: BufferStructure) -> str:
        """(T, B, ...) as (T, B, F)."""
        if len(structure.feature_shape) == 1:
            return tensor
        return self.reshape(tensor, (structure.feature_size,))

    def reshape(self, tensor: str, feature_shape: tuple[int, ...]) -> str:
        """(T, B, ...) with other features."""
        return self.add(
            "Reshape", tensor, self.constant((0, 0, *feature_shape), np.int64)
        )

    def activate(self, tensor: str, layer: Layer) -> str:
        """The activation function of a layer."""
        name = layer.activation
        if name == "linear":
            return tensor
        return self.add(_activation(layer), tensor)

    def model(self, needed: list[str], path: str) -> Any:
        """The complete model."""
        helper = self.onnx.helper
        layer, _, output = path.split(".")
        result = f"{layer}.{output}"
        self._nodes.append(
            helper.make_node(
                "Identity", [self.tensors[layer, output]], [result], result
            )
        )
        structures = self.network.layers["Input"].out_shapes
        graph = helper.make_graph(
            self._nodes,
            "network",
            [self._info(name, structures[name]) for name in needed],
            [self._info(result, self.network.layers[layer].out_shapes[output])],
            self._constants,
        )
        model = helper.make_model(
            graph,
            producer_name="brainstorm",
            producer_version=__version__,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        self.onnx.checker.check_model(model, full_check=True)
        return model

    def _info(self, name: str, structure: BufferStructure) -> Any:
        return self.onnx.helper.make_tensor_value_info(
            name, self.onnx.TensorProto.FLOAT, structure.shape
        )


def _activation(layer: Layer) -> str:
    if layer.activation not in ACTIVATIONS:
        raise ValidationError(
            f"the layer {layer.name!r} can not be exported with the activation"
            f" {layer.activation!r}; those that can are: {listing(ACTIVATIONS)}"
        )
    return ACTIVATIONS[layer.activation]


# -- how to compute each kind of layer ---------------------------------------


def _fully_connected(graph: _Graph, layer: Layer) -> str:
    x = graph.flatten(graph.input(layer), layer.in_shapes["default"])
    W = graph.constant(graph.parameter(layer, "W").T)
    h = graph.add("MatMul", x, W)
    if "bias" in layer.parameter_shapes:
        h = graph.add("Add", h, graph.constant(graph.parameter(layer, "bias")))
    y = graph.activate(h, layer)
    shape = layer.out_shapes["default"].feature_shape
    return y if len(shape) == 1 else graph.reshape(y, shape)


def _on_images(graph: _Graph, layer: Layer, compute: Callable[[str], str]) -> str:
    """Fold time into the batch, and put the channels first."""
    x = graph.input(layer)
    shape = graph.constant((-1, *layer.in_shapes["default"].feature_shape), np.int64)
    images = graph.add("Reshape", x, shape)
    y = compute(graph.add("Transpose", images, perm=(0, 3, 1, 2)))
    y = graph.add("Transpose", y, perm=(0, 2, 3, 1))
    leading = graph.add("Shape", x, end=2)
    features = graph.constant(layer.out_shapes["default"].feature_shape, np.int64)
    return graph.add("Reshape", y, graph.add("Concat", leading, features, axis=0))


def _window(layer: Layer) -> dict[str, Any]:
    return {
        "kernel_shape": layer.kernel_size,
        "strides": layer.stride,
        "pads": (layer.padding,) * 4,
    }


def _convolution(graph: _Graph, layer: Layer) -> str:
    arrays = [graph.constant(graph.parameter(layer, "W").transpose(0, 3, 1, 2))]
    if "bias" in layer.parameter_shapes:
        arrays.append(graph.constant(graph.parameter(layer, "bias")))

    def compute(x: str) -> str:
        return graph.activate(graph.add("Conv", x, *arrays, **_window(layer)), layer)

    return _on_images(graph, layer, compute)


def _pooling(graph: _Graph, layer: Layer) -> str:
    op = "MaxPool" if layer.type == "max" else "AveragePool"
    return _on_images(graph, layer, lambda x: graph.add(op, x, **_window(layer)))


def _sequence(
    graph: _Graph,
    layer: Layer,
    op: str,
    gates: str,
    activations: tuple[str, ...],
    *more: str,
) -> str:
    """A recurrent operation on the stacked weights of some gates."""
    n = layer.out_shapes["default"].feature_size
    x = graph.flatten(graph.input(layer), layer.in_shapes["default"])
    by_name = {name: graph.parameter(layer, name) for name in layer.parameter_shapes}
    names = gates.split(",")
    biases = [by_name.get(f"b{g}" if g else "bias", np.zeros(n)) for g in names]
    weights = [
        graph.constant(np.concatenate([by_name[kind + g] for g in names])[np.newaxis])
        for kind in "WR"
    ]
    bias = np.concatenate([*biases, np.zeros(n * len(names))])
    y = graph.add(
        *(op, x, *weights, graph.constant(bias[np.newaxis]), *more),
        hidden_size=n,
        activations=activations,
        activation_alpha=[1.0] * len(activations),
        activation_beta=[0.0] * len(activations),
    )
    return graph.add("Squeeze", y, graph.constant((1,), np.int64))


def _recurrent_activation(layer: Layer) -> str:
    return "Affine" if layer.activation == "linear" else _activation(layer)


def _recurrent(graph: _Graph, layer: Layer) -> str:
    return _sequence(graph, layer, "RNN", "", (_recurrent_activation(layer),))


def _lstm(graph: _Graph, layer: Layer) -> str:
    activation = _recurrent_activation(layer)
    peepholes = []
    if "pi" in layer.parameter_shapes:
        values = [graph.parameter(layer, f"p{gate}") for gate in "iof"]
        # Between: lengths of the sequences and initial states.
        peepholes = ["", "", "", graph.constant(np.concatenate(values, axis=1))]
    activations = ("Sigmoid", activation, activation)
    return _sequence(graph, layer, "LSTM", "i,o,f,z", activations, *peepholes)


def _batch_norm(graph: _Graph, layer: Layer) -> str:
    gamma, beta, mu, sigma = (
        graph.parameter(layer, name).astype(np.float64)
        for name in ("gamma", "beta", "mu", "sigma")
    )
    y = graph.add("Mul", graph.input(layer), graph.constant(gamma / sigma))
    return graph.add("Add", y, graph.constant(beta + mu * gamma / sigma))


def _highway(graph: _Graph, layer: Layer) -> str:
    H, T, x = (graph.input(layer, name) for name in ("H", "T", "x"))
    change = graph.add("Mul", T, graph.add("Sub", H, x))
    return graph.add("Add", x, change)


def _merge(graph: _Graph, layer: Layer) -> str:
    inputs = (graph.input(layer, name) for name in ("inputs_1", "inputs_2"))
    return graph.add("Concat", *inputs, axis=-1)


def _mask(graph: _Graph, layer: Layer) -> str:
    mask = graph.input(layer, "mask")
    size = layer.in_shapes["mask"].feature_size
    dims = len(layer.in_shapes["default"].feature_shape)
    if size == 1 and dims > 1:
        mask = graph.reshape(mask, (1,) * dims)
    return graph.add("Mul", graph.input(layer), mask)


def _squared_difference(graph: _Graph, layer: Layer) -> str:
    inputs = (graph.input(layer, name) for name in ("inputs_1", "inputs_2"))
    difference = graph.add("Sub", *inputs)
    return graph.add("Mul", difference, difference)


def _elementwise(graph: _Graph, layer: Layer) -> str:
    return graph.activate(graph.input(layer), layer)


def _same(graph: _Graph, layer: Layer) -> str:
    return graph.input(layer)


def _softmax(graph: _Graph, layer: Layer) -> str:
    return graph.add("Softmax", graph.input(layer), axis=-1)


def _sigmoid(graph: _Graph, layer: Layer) -> str:
    return graph.add("Sigmoid", graph.input(layer))


def _known(emit: Callable, output_name: str, arguments: str = "") -> tuple:
    return emit, output_name, frozenset(arguments.split())


# What computes an output of a layer, its name, and the arguments that are understood.
EMITTERS: dict[str, tuple[Callable[[_Graph, Layer], str], str, frozenset[str]]] = {
    "FullyConnected": _known(_fully_connected, "default", "size activation bias"),
    "Convolution2D": _known(
        _convolution,
        "default",
        "num_filters kernel_size stride padding activation bias",
    ),
    "Pooling2D": _known(_pooling, "default", "kernel_size type stride padding"),
    "Recurrent": _known(_recurrent, "default", "size activation bias"),
    "Lstm": _known(_lstm, "default", "size activation peepholes bias"),
    "BatchNorm": _known(_batch_norm, "default", "decay epsilon"),
    "Dropout": _known(_same, "default", "drop_prob"),
    "NoOp": _known(_same, "default"),
    "DeltasScaling": _known(_same, "default", "factor"),
    "Elementwise": _known(_elementwise, "default", "activation"),
    "Highway": _known(_highway, "default"),
    "Merge": _known(_merge, "default"),
    "Mask": _known(_mask, "default"),
    "SquaredDifference": _known(_squared_difference, "default"),
    "SoftmaxCE": _known(_softmax, "predictions"),
    "SigmoidCE": _known(_sigmoid, "predictions"),
    "SquaredError": _known(_same, "predictions"),
}

"""Export of networks to ONNX, the format that most other software can run.

Inputs and outputs keep their names and their shape (T, B, ...), with T and B left open.
All numbers are in float32, and all sequences begin anew in each run. Losses are for
training, and not exported: of a layer that has predictions too, only these are.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from brainstorm.checks import check_network
from brainstorm.describable import of_library
from brainstorm.files import atomic_path, check_start
from brainstorm.layers.base_layer import Layer
from brainstorm.structure.construction import layer_type_name
from brainstorm.structure.feedback import fed_back_output
from brainstorm.structure.network import Network
from brainstorm.structure.prediction import find_output, inputs_of
from brainstorm.tools.onnx_attention import attention, positional_encoding
from brainstorm.tools.onnx_graph import Graph
from brainstorm.tools.onnx_sequences import bidirectional, recurrent
from brainstorm.utils import ValidationError, import_extra, listing

__all__ = ["export_onnx"]

# The version of the format, and the tag of any of the next fields of a model.
START = rb"\x08[\x01-\x7f][\x12\x1a\x22\x28\x32\x3a\x42]"


def export_onnx(
    network: Network, file_name: str | os.PathLike[str], output_name: str | None = None
) -> None:
    """Write a network to an ONNX file, with what it takes to compute one output.

    The inputs of the model are those of the network on which the output depends: no
    targets, for example. Its output is named after layer and output, as in
    ``'Output.predictions'``. It computes what `Network.predict` does, in float32, but
    does not check the indices that go into an `Embedding`.

    Needs `onnx <https://onnx.ai>`_.

    Args:
        network: The network.
        file_name: Name of the file; its folder has to exist. An ONNX file of this name
            is replaced.
        output_name: Path of the output. Default: the network's `output_name`, or the
            only output that can be meant.

    Raises:
        ImportError: onnx is not installed.
        ValidationError: A layer can not be exported or gets feedback, several outputs
            can be meant, or an argument is of a wrong type.
        UnknownNameError: There is no such output (a KeyError).
        FileFormatError: There is a file of another kind already.
        FileNotFoundError: The folder does not exist.
    """
    onnx = import_extra("onnx", "export_onnx", "onnx")
    check_network(network)
    check_start(file_name, START, "ONNX file")
    path = find_output(network, output_name)
    needed, names = inputs_of(network, path)
    layers = [la for n, la in network.layers.items() if n in names and n != "Input"]
    graph = Graph(network, onnx)
    for name in needed:
        graph.tensors["Input", name] = name
    for layer in layers:
        kind = layer_type_name(type(layer))
        if kind not in LAYERS or not of_library(type(layer)):
            raise ValidationError(
                f"a {kind} layer such as {layer.name!r} can not be exported; those of"
                f" the library that can are: {listing(sorted(LAYERS))}"
            )
        if any(map(fed_back_output, layer.incoming)):
            raise ValidationError(
                f"a network with feedback can not be exported; {layer.name!r} gets some"
            )
        # Outputs of losses behind the first one, predictions, are for training.
        found = LAYERS[kind](graph, layer)
        tensors = [found] if isinstance(found, str) else found
        for output, tensor in zip(layer.output_names, tensors, strict=False):
            graph.tensors[layer.name, output] = tensor
    model = graph.model(needed, path)
    with atomic_path(file_name) as temporary:
        temporary.write_bytes(model.SerializeToString())


# -- what computes the output of each kind of layer --------------------------


def _fully_connected(graph: Graph, layer: Any) -> str:
    W = graph.add("Transpose", graph.parameter(layer, "W"), perm=(1, 0))
    h = graph.add("MatMul", graph.flat_input(layer), W)
    if "bias" in layer.parameter_shapes:
        h = graph.add("Add", h, graph.parameter(layer, "bias"))
    y = graph.activate(h, layer.activation)
    structure = layer.out_shapes["default"]
    return y if len(structure.feature_shape) == 1 else graph.reshape(y, structure)


def _on_images(
    graph: Graph,
    layer: Any,
    op: str,
    *arrays: str,
    activation: str = "linear",
    **attributes: Any,
) -> str:
    """Fold time into the batch, and put the channels first."""
    x = graph.input(layer)
    shape = graph.constant((-1, *layer.in_shapes["default"].feature_shape), np.int64)
    images = graph.add("Reshape", x, shape)
    y = graph.add(
        *(op, graph.add("Transpose", images, perm=(0, 3, 1, 2)), *arrays),
        kernel_shape=layer.kernel_size,
        strides=layer.stride,
        pads=(layer.padding,) * 4,
        **attributes,
    )
    y = graph.add("Transpose", graph.activate(y, activation), perm=(0, 2, 3, 1))
    leading = graph.add("Shape", x, end=2)
    features = graph.constant(layer.out_shapes["default"].feature_shape, np.int64)
    return graph.add("Reshape", y, graph.add("Concat", leading, features, axis=0))


def _kernels(graph: Graph, layer: Any) -> list[str]:
    """Kernels with the channels first, and the bias if there is one."""
    arrays = [graph.constant(np.moveaxis(graph.values(layer, "W"), -1, 1))]
    if "bias" in layer.parameter_shapes:
        arrays.append(graph.parameter(layer, "bias"))
    return arrays


def _convolution(graph: Graph, layer: Any) -> str:
    op, attributes = "Conv", {"dilations": layer.dilation, "group": layer.groups}
    if layer.operation != "conv2d":
        op, attributes["output_padding"] = "ConvTranspose", layer.output_padding
    arrays, activation = _kernels(graph, layer), layer.activation
    return _on_images(graph, layer, op, *arrays, activation=activation, **attributes)


def _convolution_of_sequences(graph: Graph, layer: Any) -> str:
    x, attributes = graph.input(layer), {"pads": layer.margin}
    if layer.lag:
        attributes["pads"] = layer.lag, 0
    *signal, channels = layer.in_shapes["default"].feature_shape
    there, back = (1, 2, 0), (2, 0, 1)
    leading = graph.add("Shape", x, end=2)
    if signal:
        shape = graph.constant((-1, *signal, channels), np.int64)
        x, there, back = graph.add("Reshape", x, shape), (0, 2, 1), (0, 2, 1)
    y = graph.add(
        *("Conv", graph.add("Transpose", x, perm=there), *_kernels(graph, layer)),
        kernel_shape=(layer.kernel_size,),
        strides=(layer.stride,),
        dilations=(layer.dilation,),
        group=layer.groups,
        **attributes,
    )
    y = graph.add("Transpose", graph.activate(y, layer.activation), perm=back)
    features = graph.constant(layer.out_shapes["default"].feature_shape, np.int64)
    return graph.add("Reshape", y, graph.add("Concat", leading, features, axis=0))


def _pooling(graph: Graph, layer: Any) -> str:
    op = "MaxPool" if layer.type == "max" else "AveragePool"
    return _on_images(graph, layer, op)


def _global_pooling(graph: Graph, layer: Any) -> str:
    op = "ReduceMax" if layer.type == "max" else "ReduceMean"
    axes = range(2, len(layer.in_shapes["default"].shape) - 1)
    return graph.add(op, graph.input(layer), axes=tuple(axes), keepdims=0)


def _embedding(graph: Graph, layer: Layer) -> str:
    indices = graph.add("Cast", graph.input(layer), to=graph.INT64)
    if layer.in_shapes["default"].feature_shape == (1,):
        indices = graph.add("Squeeze", indices, graph.constant((-1,), np.int64))
    return graph.add("Gather", graph.parameter(layer, "W"), indices, axis=0)


def _batch_norm(graph: Graph, layer: Layer) -> str:
    gamma, beta, mu, sigma = (
        graph.values(layer, name).astype(np.float64)
        for name in ("gamma", "beta", "mu", "sigma")
    )
    y = graph.add("Mul", graph.input(layer), graph.constant(gamma / sigma))
    return graph.add("Add", y, graph.constant(beta + mu * gamma / sigma))


def _layer_norm(graph: Graph, layer: Any) -> str:
    inputs = (graph.input(layer), *graph.parameters(layer, "gamma", "beta"))
    return graph.add("LayerNormalization", *inputs, axis=-1, epsilon=layer.epsilon)


def _highway(graph: Graph, layer: Layer) -> str:
    H, T, x = graph.inputs(layer, "H", "T", "x")
    return graph.add("Add", x, graph.add("Mul", T, graph.add("Sub", H, x)))


def _mask(graph: Graph, layer: Layer) -> str:
    x, mask = graph.inputs(layer, "default", "mask")
    size = layer.in_shapes["mask"].feature_size
    dims = len(layer.in_shapes["default"].feature_shape)
    if size == 1 and dims > 1:
        mask = graph.reshape(mask, layer.in_shapes["mask"], *(1,) * dims)
    return graph.add("Mul", x, mask)


def _squared_difference(graph: Graph, layer: Layer) -> str:
    difference = graph.add("Sub", *graph.inputs(layer, "inputs_1", "inputs_2"))
    return graph.add("Mul", difference, difference)


def _join(graph: Graph, layer: Layer) -> str:
    inputs = graph.inputs(layer, *layer.expected_inputs)
    return graph.add("Concat", *inputs, axis=-1)


def _later(graph: Graph, x: str, steps: int, dims: int) -> str:
    zeros = graph.constant((steps, *[0] * (2 * dims - 1)), np.int64)
    begin, end, axis = (graph.constant((n,), np.int64) for n in (0, -steps, 0))
    return graph.add("Slice", graph.add("Pad", x, zeros), begin, end, axis)


def _delay(graph: Graph, layer: Any) -> str:
    dims = len(layer.in_shapes["default"].shape)
    return _later(graph, graph.input(layer), layer.steps, dims)


def _nvar(graph: Graph, layer: Any) -> str:
    x = graph.flat_input(layer)
    parts = x, *(_later(graph, x, lag, 3) for lag in layer.lags[1:])
    lin = graph.add("Concat", *parts, axis=2)
    before = graph.constant((0, 0, int(layer.constant), 0, 0, 0), np.int64)
    found = [graph.add("Pad", lin, before, graph.constant(1.0))]
    columns = range(layer.internal_shapes["lin"].feature_size)
    for degree in layer.degrees:
        chosen = itertools.combinations_with_replacement(columns, degree)
        first, *others = (
            graph.add("Gather", lin, graph.constant(indices, np.int64), axis=2)
            for indices in np.transpose([*chosen])
        )
        for other in others:
            first = graph.add("Mul", first, other)
        found.append(first)
    return graph.add("Concat", *found, axis=2)


def _time_pooling(graph: Graph, layer: Any) -> str:
    x, kind, time = graph.input(layer), layer.type, graph.constant((0,), np.int64)
    if "mask" not in layer.in_shapes:
        if kind == "last":
            last = graph.add("Gather", x, graph.constant((-1,), np.int64), axis=0)
            return graph.add("Squeeze", last, time)
        if kind == "sum":
            return graph.add("ReduceSum", x, time, keepdims=0)
        op = "ReduceMax" if kind == "max" else "ReduceMean"
        return graph.add(op, x, axes=(0,), keepdims=0)
    dims = len(layer.in_shapes["default"].feature_shape)
    mask = graph.reshape(
        graph.input(layer, "mask"), layer.in_shapes["mask"], *[1] * dims
    )
    counts = graph.add("Cast", mask, to=graph.BOOL)
    one, ones = graph.constant(1), graph.add("Cast", counts, to=graph.FLOAT)
    number = graph.add("ReduceSum", ones, time, keepdims=0)
    if kind == "max":
        lowest = graph.constant(np.finfo(np.float32).min)
        y = graph.add("Where", counts, x, lowest)
        y = graph.add("ReduceMax", y, axes=(0,), keepdims=0)
        return graph.add("Mul", y, graph.add("Min", number, one))
    if kind == "last":
        left = graph.add("CumSum", ones, graph.constant(0, np.int64), reverse=1)
        is_last = graph.add("Cast", graph.add("Equal", left, one), to=graph.FLOAT)
        ones = graph.add("Mul", ones, is_last)
    y = graph.add("ReduceSum", graph.add("Mul", x, ones), time, keepdims=0)
    return graph.add("Div", y, graph.add("Max", number, one)) if kind == "mean" else y


def _product(graph: Graph, layer: Layer) -> str:
    first, *others = graph.inputs(layer, *layer.in_shapes)
    for x in others:
        first = graph.add("Mul", first, x)
    return first


def _slice(graph: Graph, layer: Any) -> list[str]:
    x, axis = graph.input(layer), graph.constant((-1,), np.int64)
    return [
        graph.add(
            "Slice",
            x,
            *(graph.constant((n,), np.int64) for n in (part.start, part.stop)),
            axis,
            graph.constant((part.step,), np.int64),
        )
        for part in layer.ranges.values()
    ]


def _interpolating(size: int, factor: int) -> np.ndarray:
    """The matrix that makes as many times more pixels of a column of them."""
    places = (np.arange(size * factor) + 0.5) / factor - 0.5
    columns = [np.interp(places, np.arange(size), pixel) for pixel in np.eye(size)]
    return np.stack(columns, axis=1)


def _upsample(graph: Graph, layer: Any) -> str:
    height, width, channels = layer.in_shapes["default"].feature_shape
    blocks = graph.reshape(
        *(graph.input(layer), layer.in_shapes["default"], height, 1, width, 1),
        channels,
    )
    fy, fx = layer.factor
    if layer.kind == "bilinear":
        along_y = graph.constant(_interpolating(height, fy))
        along_x = graph.constant(_interpolating(width, fx))
        rows = graph.reshape(
            *(graph.input(layer), layer.in_shapes["default"], height, width * channels)
        )
        taller = graph.reshape(
            *(graph.add("MatMul", along_y, rows), layer.in_shapes["default"]),
            *(height * fy, width, channels),
        )
        return graph.add("MatMul", along_x, taller)
    sizes = graph.constant((1, 1, 1, fy, 1, fx, 1), np.int64)
    tiled = graph.add("Tile", blocks, sizes)
    return graph.reshape(tiled, layer.out_shapes["default"])


def _same(graph: Graph, layer: Layer) -> str:
    return graph.input(layer)


def _softmax(graph: Graph, layer: Layer) -> str:
    return graph.add("Softmax", graph.input(layer), axis=-1)


LAYERS: dict[str, Callable[[Graph, Any], str | list[str]]] = {
    "AbsoluteError": _same,
    "Add": lambda graph, la: graph.add("Sum", *graph.inputs(la, *la.in_shapes)),
    "Attention": attention,
    "BatchNorm": _batch_norm,
    "Bidirectional": bidirectional,
    "Clockwork": recurrent,
    "ClockworkLstm": recurrent,
    "Concat": _join,
    "Convolution1D": _convolution_of_sequences,
    "Convolution2D": _convolution,
    "ConvolutionTranspose2D": _convolution,
    "Ctc": _softmax,
    "Delay": _delay,
    "DeltasScaling": _same,
    "Dropout": _same,
    "Elementwise": lambda graph, la: graph.activate(graph.input(la), la.activation),
    "Embedding": _embedding,
    "FullyConnected": _fully_connected,
    "GlobalPooling": _global_pooling,
    "Gru": recurrent,
    "Highway": _highway,
    "Huber": _same,
    "LayerNorm": _layer_norm,
    "LogSoftmax": lambda graph, la: graph.add("LogSoftmax", graph.input(la), axis=-1),
    "Lstm": recurrent,
    "Mask": _mask,
    "Merge": _join,
    "Multiply": _product,
    "NoOp": _same,
    "Nvar": _nvar,
    "Pooling2D": _pooling,
    "PositionalEncoding": positional_encoding,
    "Recurrent": recurrent,
    "Reservoir": recurrent,
    "Reshape": lambda graph, layer: graph.reshape(
        graph.input(layer), layer.out_shapes["default"]
    ),
    "SigmoidCE": lambda graph, layer: graph.add("Sigmoid", graph.input(layer)),
    "Slice": _slice,
    "Softmax": _softmax,
    "SoftmaxCE": _softmax,
    "SquaredDifference": _squared_difference,
    "SquaredError": _same,
    "TimePooling": _time_pooling,
    "Upsample2D": _upsample,
}

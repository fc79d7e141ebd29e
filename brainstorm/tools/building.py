"""Tools that build networks of common kinds."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

from brainstorm import layers
from brainstorm.initializers import DenseSqrtFanInOut, Gaussian
from brainstorm.literals import TaskType
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.structure.network import Network
from brainstorm.tools.blocks import join_residual
from brainstorm.tools.spec import parse_spec
from brainstorm.utils import ValidationError, listing

__all__ = ["create_net_from_spec", "get_in_out_layers"]

OUTPUT_LAYERS = {
    "classification": layers.SoftmaxCE,
    "regression": layers.SquaredError,
    "multi-label": layers.SigmoidCE,
}
# Activation functions that are initialized like another one.
RECTIFIERS: dict[str, Any] = {"gelu": "rel"}


def get_in_out_layers(
    task_type: TaskType,
    in_shape: int | Sequence[int],
    out_shape: int | Sequence[int],
    data_name: str = "default",
    targets_name: str = "targets",
    projection_name: str | None = None,
    out_layer_name: str | None = None,
    mask_name: str | None = None,
    use_conv: bool | None = None,
    *,
    outlayer_name: str | None = None,
) -> tuple[ConstructionWrapper, ConstructionWrapper]:
    """Prepare the first and the last layers of a network.

    The first is an Input layer. The last is a linear projection to `out_shape`: a
    FullyConnected layer or a Convolution2D layer with 1 x 1 filters. It is wired to
    an output layer with the loss of the task, which gets its targets from the input
    layer; its loss goes through a Mask layer, if there is a mask, into a Loss layer:

    ================== ============ ====================== =========================
    `task_type`        output layer shape of the targets   for
    ================== ============ ====================== =========================
    ``classification`` SoftmaxCE    `out_shape` with 1 as  one of several classes
                                    its last number
    ``multi-label``    SigmoidCE    `out_shape`            several labels, 0 or 1
    ``regression``     SquaredError `out_shape`            numbers, by least squares
    ================== ============ ====================== =========================

    The projection has parameters: initialize it, like all other layers.

    >>> from brainstorm import Network, layers, tools
    >>> inp, out = tools.get_in_out_layers('classification', 784, 10)
    >>> net = Network.from_layer(inp >> layers.FullyConnected(1000) >> out)
    >>> list(net.layers)
    ['Input', 'FullyConnected', 'Output_projection', 'Output', 'Loss']

    Args:
        task_type: One of ``'classification'``, ``'regression'``, ``'multi-label'``.
        in_shape: Shape of the input data, without time and batch.
        out_shape: Shape of the network's output, or the number of classes.
        data_name: Name of the input data.
        targets_name: Name of the targets.
        projection_name: Name of the projection layer. Default: that of the output
            layer with ``'_projection'`` added.
        out_layer_name: Name of the output layer. Default: ``'Output'``.
        mask_name: Name of the mask, of shape (T, B, 1), with which the loss is
            multiplied: it tells at which time steps errors count. Default: no mask.
        use_conv: Whether the projection is convolutional; `out_shape` is then that
            of an image: (height, width, channels). Default: whether it looks so.
        outlayer_name: Another name of the argument `out_layer_name`.

    Returns:
        The Input layer and the projection layer.

    Raises:
        ValidationError: An argument does not fit.
    """
    in_shape = _shape("in_shape", in_shape)
    out_shape = _shape("out_shape", out_shape)
    names = [n for n in (data_name, targets_name, mask_name) if n is not None]
    if len(set(names)) < len(names):
        raise ValidationError(
            "data_name, targets_name and mask_name have to differ, got"
            f" {listing(names)}"
        )
    if None not in (out_layer_name, outlayer_name) and out_layer_name != outlayer_name:
        raise ValidationError(
            "out_layer_name and outlayer_name are the same argument, but got"
            f" {out_layer_name!r} and {outlayer_name!r}"
        )
    name = out_layer_name or outlayer_name or "Output"
    projection_name = projection_name or f"{name}_projection"
    output, targets_shape = _output_layer(task_type, out_shape, name)
    projection = _projection(out_shape, use_conv, projection_name)
    shapes: dict[str, Sequence[str | int]] = {
        data_name: ("T", "B", *in_shape),
        targets_name: ("T", "B", *targets_shape),
    }
    if mask_name is not None:
        shapes[mask_name] = ("T", "B", 1)
    inp = layers.Input(shapes)
    inp - targets_name >> "targets" - output
    projection >> output
    loss = output - "loss"
    if mask_name is not None:
        mask = layers.Mask()
        inp - mask_name >> "mask" - mask
        loss = loss >> mask
    loss >> layers.Loss()
    return inp - data_name, projection


def create_net_from_spec(
    task_type: TaskType,
    in_shape: int | Sequence[int],
    out_shape: int | Sequence[int],
    spec: str,
    data_name: str = "default",
    targets_name: str = "targets",
    mask_name: str | None = None,
    use_conv: bool | None = None,
) -> Network:
    """Create a complete network from one line like ``'F50 F20 F50'``.

    The line names the layers between those that `get_in_out_layers` makes. A
    capital letter is the type of a layer; its arguments follow:

    ===== ============== =======================================================
    layer type           arguments
    ===== ============== =======================================================
    F     FullyConnected [activation] size
    R     Recurrent      [activation] size
    L     Lstm           [activation] size
    G     Gru            [activation] size
    X     Bidirectional  one of the three above, as in ``XL20``
    B     BatchNorm
    D     Dropout        [probability], as in ``D.2`` or ``D0.2``; default: 0.5
    C     Convolution2D  [activation] number of filters, ``:``, size of the
                         kernel; then ``p`` and padding, ``s`` and stride, ``d``
                         and dilation, ``g`` and groups, if any
    P     Pooling2D      [``m`` or ``a``, for maximum and average] size of the
                         kernel; then ``p`` and padding, ``s`` and stride, if any
    U     Upsample2D     factor
    E     Embedding      number of words, ``:``, size
    W     Positional-    [``s`` or ``l``, for sinusoidal, which are waves, and
          Encoding       learned]
    A     Attention      [``c``, if it is causal] size, ``:``, number of heads
    N     LayerNorm
    ===== ============== =======================================================

    What stands in parentheses is a residual block, see `tools.residual`: what goes
    into it is added to what comes out. A block of a transformer is
    ``(NAc64:4) (N Fg256 Fl64)``.

    Activations are l, r, s, t, g for linear, rel, sigmoid, tanh, gelu; the default is
    that of the layer. Kernels and strides are square: ``C32:5p2`` has 32 filters of
    5 x 5 and a padding of 2, ``P3s2`` takes the maximum over 3 x 3 and moves by (2, 2).
    In place of ``:`` there may be ``/``. All whitespace is ignored. Layers may be
    separated by commas.

    The layers with an activation function are initialized with DenseSqrtFanInOut
    for that function, where the shape of a parameter allows it, and so is Attention.
    All else is Gaussian, but norms start as the identity.

    >>> net = create_net_from_spec('classification', 784, 10, 'D.2 F1200 D F1200 D')
    >>> net.output_name
    'Output.outputs.predictions'

    Args:
        task_type: See `get_in_out_layers`, as for all but `spec`.
        in_shape: Shape of the input data, without time and batch.
        out_shape: Shape of the network's output, or the number of classes.
        spec: The line.
        data_name: Name of the input data.
        targets_name: Name of the targets.
        mask_name: Name of the mask, of shape (T, B, 1): 0 behind the end of a sequence.
            Layers that read both ways and Attention get it, too, and scorers weigh rows
            with it.
        use_conv: Whether the projection is convolutional.

    Returns:
        The network, initialized.

    Raises:
        ValidationError: An argument does not fit. For `spec` it shows where.
        LayerValidationError: A layer can not work with the shape that reaches it.
    """
    hidden = parse_spec(spec)
    last, out = get_in_out_layers(
        *(task_type, in_shape, out_shape, data_name, targets_name),
        mask_name=mask_name,
        use_conv=use_conv,
    )
    mask = None if mask_name is None else last - mask_name
    for layer in hidden:
        last = _wire(last, mask, *layer)
    net = Network.from_layer(last >> out)
    net.output_name = "Output.outputs.predictions"
    net.initialize(_initializers(net))
    return net


def _wire(
    last: ConstructionWrapper,
    mask: ConstructionWrapper | None,
    layer_type: str,
    kwargs: dict[str, Any],
) -> ConstructionWrapper:
    """Add what a letter, or what is in parentheses, stands for."""
    if layer_type == "Add":
        end = last
        for layer in kwargs["block"]:
            end = _wire(end, mask, *layer)
        return join_residual(last, end)
    if layer_type == "Bidirectional":
        inner, arguments = kwargs["layer"]
        kwargs = {"layer": getattr(layers, inner)(**arguments)}
    layer = getattr(layers, layer_type)(**kwargs)
    if mask is not None and layer_type in ("Attention", "Bidirectional"):
        mask >> "mask" - layer
    return last >> layer


def _initializers(net: Network) -> dict[str, Any]:
    chosen: dict[str, Any] = {"default": Gaussian(), "fallback": Gaussian()}
    for name, properties in net.architecture.items():
        if "activation" in properties:
            activation = properties["activation"]
            chosen[name] = DenseSqrtFanInOut(RECTIFIERS.get(activation, activation))
        elif properties["@type"] == "Attention":
            chosen[name] = DenseSqrtFanInOut("linear")
    return chosen


# -- the parts of get_in_out_layers ------------------------------------------


def _output_layer(
    task_type: TaskType, out_shape: tuple[int, ...], name: str
) -> tuple[ConstructionWrapper, tuple[int, ...]]:
    """The layer with the loss, and the shape of its targets."""
    if task_type not in OUTPUT_LAYERS:
        raise ValidationError(
            f"task_type: unknown {task_type!r}; choices are: {listing(OUTPUT_LAYERS)}"
        )
    layer = OUTPUT_LAYERS[task_type](name=name)
    if task_type != "classification":
        return layer, out_shape
    if out_shape[-1] < 2:
        raise ValidationError(
            "out_shape: classification needs at least 2 classes, got"
            f" {out_shape[-1]}; 'multi-label' is for single ones"
        )
    return layer, (*out_shape[:-1], 1)


def _projection(
    out_shape: tuple[int, ...], use_conv: bool | None, name: str
) -> ConstructionWrapper:
    is_image = len(out_shape) == 3
    if use_conv and not is_image:
        raise ValidationError(
            "out_shape: with use_conv expected (height, width, channels), got"
            f" {out_shape}"
        )
    if use_conv or (use_conv is None and is_image):
        return layers.Convolution2D(
            out_shape[-1], kernel_size=(1, 1), activation="linear", name=name
        )
    return layers.FullyConnected(out_shape, activation="linear", name=name)


def _shape(argument: str, value: Any) -> tuple[int, ...]:
    sizes = (value,) if isinstance(value, numbers.Number) else value
    if (
        not isinstance(sizes, (tuple, list))
        or not sizes
        or not all(isinstance(s, numbers.Integral) and int(s) > 0 for s in sizes)
    ):
        raise ValidationError(
            f"{argument}: expected a positive integer or a tuple of them, got {value!r}"
        )
    return tuple(int(s) for s in sizes)

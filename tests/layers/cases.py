"""The layers of the package as the battery checks them.

A new layer is tested by adding a line to `CASES`. Values are random but for those
given here, which keep derivatives defined: see `check_layer`.
"""

import functools
from typing import Any, NamedTuple

import numpy as np

from brainstorm import layers
from brainstorm._layer_bench import Specification
from brainstorm.handlers.operations.activations import ACTIVATIONS
from brainstorm.layers.base_layer import get_layer_class_from_typename

IMAGE = ("T", "B", 4, 3, 2)


def positive(shape):
    return np.random.RandomState(1).uniform(0.05, 1.0, shape)


def by_rows(shape):
    """Rows of one sign each: sums of products with positive values stay off zero."""
    signs = np.where(np.arange(shape[0]) % 2, 1.0, -1.0)
    return positive(shape) * signs.reshape((-1,) + (1,) * (len(shape) - 1))


def distinct(shape):
    """Values that are far apart, so that a step never changes which is largest."""
    size = int(np.prod(shape))
    return np.random.RandomState(1).permutation(size).reshape(shape) / size - 0.5


def classes(n):
    """Class indices from 0 to n - 1."""
    return lambda shape: np.random.RandomState(1).randint(0, n, shape)


def ends(shape):
    """A mask of sequences that end at different steps."""
    mask = np.ones(shape)
    for b in range(shape[1]):
        mask[max(1, shape[0] - b) :, b] = 0
    return mask


def labels(shape):
    """Two labels of each sequence that is long enough, and zeros."""
    values = np.zeros(shape)
    if shape[0] > 1:
        values[0] = np.arange(shape[1])[:, None] % 2 + 1
        values[1] = 3 - values[0]
    return values


def probability(shape):
    return np.random.RandomState(1).uniform(0.1, 0.9, shape)


class Case(NamedTuple):
    layer: Any
    in_shapes: dict | None = None
    inputs: dict | None = None
    parameters: dict | None = None
    delta_factor: float = 1.0

    @property
    def arguments(self):
        arguments = self._asdict()
        del arguments["layer"]
        return arguments


def with_activations(make, off_zero=(), parameters=None, **arguments):
    """A case for each activation.

    With the rectifiers, inputs are positive and the parameters `off_zero` have
    rows of one sign each. So the sums that reach it keep a distance from its kink.
    """
    cases = {}
    for activation in ACTIVATIONS:
        values = dict(parameters or {})
        inputs = None
        if activation in ("rel", "leaky_rel", "relu6"):
            inputs = {"default": positive}
            values.update(dict.fromkeys(off_zero, by_rows))
        cases[activation] = Case(
            make(activation), inputs=inputs, parameters=values, **arguments
        )
    return cases


def named(prefix, cases):
    return {f"{prefix} {name}": case for name, case in cases.items()}


def image(**inputs):
    """Shapes of inputs: an image as 'default', others as given."""
    return {"default": IMAGE, **{n: ("T", "B", *s) for n, s in inputs.items()}}


BLOCK = ("Wz", "Rz", "bz")  # what reaches the LSTM's activation function
GRU = ("Wh", "Rh", "bh")
TIMING = {"timing": [1, 2, 3]}
RUNNING = {"sigma": positive}

MASKED = {
    "in_shapes": {"default": ("T", "B", 2), "mask": ("T", "B", 1)},
    "inputs": {"mask": ends},
}

# Surrogates without kinks off zero; spikes are smooth for derivatives.
SPIKING = {
    "hard": {"surrogate": "sigmoid"},
    "soft, frozen": {"reset": "soft", "refractory": 2.0},
    "attached, frozen, learned": {
        **{"detach_reset": False, "refractory": 1.0, "learn_tau": True},
        **{"reset_to": -0.1, "rest": 0.1, "resistance": 1.5, "surrogate": "arctan"},
    },
    "soft, attached": {
        **{"reset": "soft", "detach_reset": False, "surrogate": "gaussian"},
        **{"surrogate_args": {"sigma": 0.3}},
    },
}

CASES = {
    **named(
        "FullyConnected",
        with_activations(
            lambda activation: layers.FullyConnected(4, activation), ("W", "bias")
        ),
    ),
    "FullyConnected shapes": Case(layers.FullyConnected((2, 2), "tanh"), image()),
    "FullyConnected kept shape": Case(layers.FullyConnected(None, "tanh"), image()),
    **named("Elementwise", with_activations(layers.Elementwise)),
    **named(
        "Convolution2D",
        with_activations(
            lambda activation: layers.Convolution2D(
                2, (3, 2), (2, 1), 1, activation=activation
            ),
            ("W", "bias"),
            in_shapes=image(),
        ),
    ),
    "Convolution2D, dilated, in groups": Case(
        layers.Convolution2D(4, (2, 1), 1, 1, "tanh", dilation=(2, 1), groups=2),
        image(),
    ),
    **named(
        "ConvolutionTranspose2D",
        with_activations(
            lambda activation: layers.ConvolutionTranspose2D(
                2, (3, 2), (2, 1), 1, activation=activation
            ),
            ("W", "bias"),
            in_shapes=image(),
        ),
    ),
    "ConvolutionTranspose2D, odd": Case(
        layers.ConvolutionTranspose2D(
            *(4, 2, 2, 1, "tanh"),
            **{"output_padding": 1, "dilation": (1, 2), "groups": 2, "bias": False},
        ),
        image(),
    ),
    **named(
        "Convolution1D",
        with_activations(
            lambda activation: layers.Convolution1D(2, 3, activation=activation),
            ("W", "bias"),
        ),
    ),
    "Convolution1D causal": Case(
        layers.Convolution1D(
            *(4, 3, 1, "causal", "tanh"), dilation=2, groups=2, bias=False
        ),
        {"default": ("T", "B", 2)},
    ),
    "Convolution1D, even": Case(layers.Convolution1D(2, 2, activation="swish")),
    "Convolution1D of signals": Case(
        layers.Convolution1D(2, 3, 2, 1, "tanh"), {"default": ("T", "B", 5, 2)}
    ),
    "Convolution1D of signals, causal": Case(
        layers.Convolution1D(2, 3, 1, "causal", "tanh"), {"default": ("T", "B", 5, 2)}
    ),
    "Pooling2D max": Case(
        layers.Pooling2D((3, 2), "max", (2, 1), 1), image(), {"default": distinct}
    ),
    "Pooling2D avg": Case(layers.Pooling2D((3, 2), "avg", (2, 1), 1), image()),
    **named(
        "Recurrent",
        with_activations(
            lambda activation: layers.Recurrent(3, activation), ("W", "R", "bias")
        ),
    ),
    **named(
        "Clockwork",
        with_activations(
            lambda activation: layers.Clockwork(3, activation),
            ("W", "R", "bias"),
            TIMING,
        ),
    ),
    **named(
        "Lstm",
        with_activations(
            lambda activation: layers.Lstm(2, activation),
            BLOCK,
            in_shapes={"default": ("T", "B", 2)},
        ),
    ),
    "Lstm without peepholes": Case(
        layers.Lstm(2, peepholes=False), {"default": ("T", "B", 2, 1)}
    ),
    **named(
        "ClockworkLstm",
        with_activations(
            lambda activation: layers.ClockworkLstm(2, activation),
            BLOCK,
            {"timing": [1, 2]},
            in_shapes={"default": ("T", "B", 2)},
        ),
    ),
    **named("Gru", with_activations(lambda activation: layers.Gru(2, activation), GRU)),
    "Gru, no bias, learned state": Case(
        layers.Gru(2, bias=False, initial_state="learned")
    ),
    "Gru, recurrent bias": Case(
        layers.Gru(2, "swish", recurrent_bias=True), parameters={"bp": [0.7, -0.4]}
    ),
    "Gru, no other bias, learned": Case(
        layers.Gru(2, bias=False, recurrent_bias=True, initial_state="learned"),
        parameters={"bp": [0.7, -0.4]},
    ),
    "Gru, reset before": Case(layers.Gru(2, "swish", reset_after=False)),
    "FullyConnected, no bias": Case(layers.FullyConnected(4, "tanh", bias=False)),
    "Convolution2D, no bias": Case(
        layers.Convolution2D(2, 2, activation="swish", bias=False), image()
    ),
    "Recurrent, no bias": Case(layers.Recurrent(3, bias=False)),
    "Recurrent, learned state": Case(layers.Recurrent(3, initial_state="learned")),
    "Recurrent, leak": Case(layers.Recurrent(3, "swish", leak=0.3)),
    **named(
        "Reservoir",
        with_activations(
            lambda activation: layers.Reservoir(
                3, 0.4, activation=activation, trainable=True
            ),
            ("W", "R", "bias"),
        ),
    ),
    "Recurrent, leak inside": Case(
        layers.Recurrent(3, leak=0.3, leak_inside=True, initial_state="learned")
    ),
    "Lstm, no bias": Case(layers.Lstm(2, bias=False)),
    "Lstm, learned state": Case(layers.Lstm(2, initial_state="learned")),
    "Lstm, neither, learned": Case(
        layers.Lstm(2, peepholes=False, bias=False, initial_state="learned")
    ),
    "Clockwork, no bias, learned state": Case(
        layers.Clockwork(3, bias=False, initial_state="learned"), parameters=TIMING
    ),
    "ClockworkLstm, no bias, learned state": Case(
        layers.ClockworkLstm(2, bias=False, initial_state="learned"),
        parameters={"timing": [1, 2]},
    ),
    "Leaky": Case(layers.Leaky(3.0)),
    "Leaky integrating images, learned": Case(
        layers.Leaky(
            *(2.0, "L"),
            dt=0.5,
            gain="integrate",
            rest=0.3,
            resistance=2.0,
            learn_tau=True,
        ),
        image(),
    ),
    "Leaky, learned, one of each": Case(layers.Leaky([3.0, 2.0, 1.0], learn_tau=True)),
    **{
        f"{name}, {how}": Case(make(2.0, threshold=0.2, **arguments), shapes)
        for name, make, shapes in (
            ("Lif", layers.Lif, {"default": ("T", "B", 2, 2)}),
            ("RecurrentLif", functools.partial(layers.RecurrentLif, 2), None),
        )
        for how, arguments in SPIKING.items()
    },
    **{
        f"Bidirectional {name}": Case(
            layers.Bidirectional(layer), parameters=parameters, **arguments
        )
        for name, layer, parameters, arguments in (
            ("Recurrent", layers.Recurrent(2), None, {}),
            ("Lstm", layers.Lstm(2), None, MASKED),
            (
                "Gru",
                layers.Gru(2, bias=False, initial_state="learned"),
                None,
                {"in_shapes": image()},
            ),
            (
                "Gru, recurrent bias",
                layers.Gru(2, recurrent_bias=True),
                {"forward_bp": [0.7, -0.4], "backward_bp": 0.5},
                MASKED,
            ),
            (
                "Clockwork",
                layers.Clockwork(2),
                {"forward_timing": [1, 2], "backward_timing": [2, 1]},
                MASKED,
            ),
        )
    },
    "BatchNorm": Case(layers.BatchNorm(), parameters=RUNNING),
    "BatchNorm images": Case(layers.BatchNorm(0.5, 0.1), image(), None, RUNNING),
    "LayerNorm": Case(layers.LayerNorm()),
    "LayerNorm images": Case(layers.LayerNorm(0.1), image()),
    "Embedding": Case(
        layers.Embedding(4, 2), {"default": ("T", "B", 1)}, {"default": classes(4)}
    ),
    "Embedding several": Case(
        layers.Embedding(4, 3), {"default": ("T", "B", 2)}, {"default": classes(4)}
    ),
    "Attention": Case(layers.Attention(4, 2)),
    "Attention, causal, no bias": Case(
        layers.Attention(2, 1, causal=True, bias=False), {"default": ("T", "B", 2, 1)}
    ),
    "Attention with a memory": Case(
        layers.Attention(2, 2), {"default": ("T", "B", 1), "memory": ("T", "B", 2)}
    ),
    "Attention with a mask": Case(layers.Attention(2, 2), **MASKED),
    "Attention with a context": Case(layers.Attention(2, 2, True, context_size=15)),
    "Attention, rotary": Case(layers.Attention(4, 2, rotary=True)),
    "Attention with all of it": Case(
        layers.Attention(4, 2, True, rotary=True, context_size=20),
        {**MASKED["in_shapes"], "memory": ("T", "B", 2)},
        MASKED["inputs"],
    ),
    "PositionalEncoding": Case(layers.PositionalEncoding()),
    "PositionalEncoding, learned": Case(
        layers.PositionalEncoding("learned", 21), {"default": ("T", "B", 2, 1)}
    ),
    "Dropout": Case(layers.Dropout(0.3)),
    "Delay": Case(layers.Delay()),
    "Delay of several steps": Case(layers.Delay(3), image()),
    "Nvar": Case(layers.Nvar(2, (4, 2), 3, constant=True), {"default": ("T", "B", 2)}),
    "Nvar of images": Case(layers.Nvar(1, 2), image()),
    "Nvar without products": Case(layers.Nvar(3)),
    "NoOp": Case(layers.NoOp()),
    "DeltasScaling": Case(layers.DeltasScaling(-0.7), image(), delta_factor=-0.7),
    "Highway": Case(layers.Highway()),
    "Merge": Case(
        layers.Merge(), {"inputs_1": ("T", "B", 2, 3), "inputs_2": ("T", "B", 2, 1)}
    ),
    "Mask steps": Case(layers.Mask(), image(mask=(1,))),
    "Mask positions": Case(layers.Mask(), image(mask=(4, 3, 1))),
    "Mask elements": Case(layers.Mask(), image(mask=(4, 3, 2))),
    "Loss over time": Case(layers.Loss(2.0), {"default": ("T", "B", 3)}),
    "Loss over batch": Case(layers.Loss(2.0), {"default": ("B", 3, 2)}),
    "Loss constant": Case(layers.Loss(2.0), {"default": (3, 2)}),
    "SoftmaxCE": Case(
        layers.SoftmaxCE(),
        {"default": ("T", "B", 3), "targets": ("T", "B", 1)},
        {"targets": classes(3)},
    ),
    "SoftmaxCE images": Case(
        layers.SoftmaxCE(), image(targets=(4, 3, 1)), {"targets": classes(2)}
    ),
    "SoftmaxCE, smooth, weighted": Case(
        layers.SoftmaxCE(label_smoothing=0.2, class_weights=[1, 0.5, 2]),
        {"default": ("T", "B", 3), "targets": ("T", "B", 1)},
        {"targets": classes(3)},
    ),
    "SoftmaxCE images, smooth": Case(
        layers.SoftmaxCE(label_smoothing=0.3),
        image(targets=(4, 3, 1)),
        {"targets": classes(2)},
    ),
    "Ctc": Case(
        layers.Ctc(),
        {"default": ("T", "B", 3), "targets": ("T", "B", 1)},
        {"targets": labels},
    ),
    "Ctc with a mask": Case(
        layers.Ctc(),
        {"default": ("T", "B", 3), "targets": ("T", "B", 1), "mask": ("T", "B", 1)},
        {"targets": lambda shape: labels(shape) * ends(shape), "mask": ends},
    ),
    "SigmoidCE": Case(layers.SigmoidCE(), inputs={"targets": probability}),
    "SigmoidCE, positive ones weighted": Case(
        layers.SigmoidCE(positive_weight=2.5), inputs={"targets": probability}
    ),
    "SigmoidCE, a weight for each label": Case(
        layers.SigmoidCE(positive_weight=[2.5, 0.5]),
        {"default": ("T", "B", 3, 2), "targets": ("T", "B", 3, 2)},
        {"targets": probability},
    ),
    "SquaredError": Case(layers.SquaredError()),
    "SquaredDifference": Case(layers.SquaredDifference()),
    "BinomialCrossEntropy": Case(
        layers.BinomialCrossEntropy(),
        inputs={"default": probability, "targets": probability},
    ),
    "AbsoluteError": Case(
        layers.AbsoluteError(), inputs={"default": distinct, "targets": positive}
    ),
    "Huber": Case(
        layers.Huber(0.3),
        # So that differences stay away from 0.3.
        inputs={"default": lambda s: np.round(3 * distinct(s)), "targets": probability},
    ),
    "Softmax": Case(layers.Softmax()),
    "Softmax of images": Case(layers.Softmax(), image()),
    "LogSoftmax": Case(layers.LogSoftmax()),
    "LogSoftmax of images": Case(layers.LogSoftmax(), image()),
    "Multiply two": Case(layers.Multiply()),
    "Multiply three": Case(
        layers.Multiply(), {f"inputs_{i}": IMAGE for i in (1, 2, 3)}
    ),
    "Slice": Case(layers.Slice(1, -1), {"default": ("T", "B", 5)}),
    "Slice with steps": Case(layers.Slice(1, None, 2), {"default": ("T", "B", 2, 5)}),
    "Slice into parts": Case(
        layers.Slice(parts={"z": (0, 3), "a": [2, None], "b": (None, -1, 3)}),
        {"default": ("T", "B", 5)},
    ),
    "Upsample2D": Case(layers.Upsample2D((2, 3)), image()),
    "Upsample2D, bilinear": Case(layers.Upsample2D((2, 3), kind="bilinear"), image()),
    "Add two": Case(layers.Add()),
    "Add three": Case(layers.Add(), {f"inputs_{i}": IMAGE for i in (1, 2, 3)}),
    "Concat three": Case(
        layers.Concat(), {f"inputs_{i}": ("T", "B", 3, i) for i in (1, 2, 3)}
    ),
    "Concat two": Case(layers.Concat()),
    "TimePooling max": Case(layers.TimePooling(), image(), {"default": distinct}),
    **{
        f"TimePooling {kind}": Case(layers.TimePooling(kind))
        for kind in ("mean", "sum", "last")
    },
    **{
        f"TimePooling {kind} with a mask": Case(
            layers.TimePooling(kind),
            MASKED["in_shapes"],
            {"default": distinct, "mask": ends},
        )
        for kind in ("max", "mean", "sum", "last")
    },
    "GlobalPooling max": Case(
        layers.GlobalPooling("max"), image(), {"default": distinct}
    ),
    "GlobalPooling avg": Case(layers.GlobalPooling("avg"), image()),
    "Reshape": Case(layers.Reshape((2, -1)), image()),
    "L1Decay": Case(layers.L1Decay()),
    "L2Decay": Case(layers.L2Decay(), image()),
}

# Where nothing depends on the activation, 'tanh' stands for all.
ONE_ACTIVATION_EACH = [
    name for name in CASES if name.split()[-1] not in set(ACTIVATIONS) - {"tanh"}
]


def without_time(case):
    """The same layer, whose inputs have no time."""
    specification = Specification.of(case.layer, None)
    shapes = case.in_shapes or specification.default_shapes()
    return case._replace(in_shapes={n: shape[1:] for n, shape in shapes.items()})


def _can_do_without(case):
    layer_class = get_layer_class_from_typename(case.layer.layer.layer_type)
    return layer_class.time_is_optional


WITHOUT_TIME = {
    name: without_time(CASES[name])
    for name in ONE_ACTIVATION_EACH
    if _can_do_without(CASES[name])
}

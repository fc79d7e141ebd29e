"""Parameters of layers from those that other libraries have in their modules.

PyTorch's have names. Keras's are a list in the order of `get_weights`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from brainstorm.utils import ValidationError, listing

Arrays = dict[str, np.ndarray]


class Source(NamedTuple):
    """The arrays of one module.

    Attributes:
        name: Its name.
        named: PyTorch's, by name; empty for Keras.
        listed: Keras's; empty for PyTorch.
    """

    name: str
    named: Arrays
    listed: Sequence[np.ndarray]

    @property
    def shapes(self) -> str:
        """What there is, for messages."""
        arrays = [*self.named.items(), *enumerate(self.listed)]
        return ", ".join(f"{name} {array.shape}" for name, array in arrays)

    def take(self, *names: str, optional: Sequence[str] = ()) -> list[Any]:
        """PyTorch's arrays of these names, then optional ones or None."""
        found = {n: a for n, a in self.named.items() if n != "num_batches_tracked"}
        if not set(names) <= set(found) <= {*names, *optional}:
            raise ValidationError(
                f"expected {listing([*names, *optional])}, got {listing(found)}"
            )
        return [found.get(name) for name in (*names, *optional)]

    def take_all(self, *counts: int) -> Sequence[np.ndarray]:
        """Keras's arrays, of which there have to be so many."""
        if len(self.listed) not in counts:
            raise ValidationError(
                f"expected {' or '.join(map(str, counts))} arrays, got"
                f" {len(self.listed)}"
            )
        return self.listed


def converted(layer: Any, source: Source) -> Arrays:
    """The parameters of a layer.

    Raises:
        ValidationError: They do not fit. Names the layer, the module, and shapes.
    """
    kind = type(layer).__name__.removesuffix("LayerImpl")
    where = f"layer {layer.name!r}, a {kind}, from {source.name!r}"
    if kind not in CONVERTERS:
        raise ValidationError(
            f"{where}: its parameters can not be imported, other than those of"
            f" {listing(CONVERTERS)}"
        )
    try:
        found = CONVERTERS[kind](layer, source)
    except (ValidationError, ValueError) as error:
        raise ValidationError(
            f"{where}: {error} (it has {source.shapes or 'nothing'})"
        ) from None
    wanted = layer.parameter_shapes
    bias = found.pop("bias", None)
    if "bias" in wanted:
        found["bias"] = np.zeros(wanted["bias"].shape) if bias is None else bias
    elif bias is not None:
        raise ValidationError(f"{where}: the layer has no bias")
    for name, structure in wanted.items():
        # What others do not have: peepholes and learned states.
        values = found.setdefault(name, np.zeros(structure.shape))
        if values.shape != tuple(structure.shape):
            raise ValidationError(
                f"{where}: expected {name} of the shape {structure.shape}, got"
                f" {values.shape} (it has {source.shapes})"
            )
    if extra := sorted(set(found) - set(wanted)):
        raise ValidationError(f"{where}: the layer has no {listing(extra)}")
    return found


def _dense(layer: Any, source: Source) -> Arrays:
    if source.listed:
        W, *bias = source.take_all(1, 2)
        return {"W": W.T, **({"bias": bias[0]} if bias else {})}
    W, bias = source.take("weight", optional=["bias"])
    shape = layer.in_shapes["default"].feature_shape
    if len(shape) == 3 and W.ndim == 2 and W.shape[1] == np.prod(shape):
        # What was flattened there had its channels first.
        height, width, channels = shape
        W = W.reshape(len(W), channels, height, width)
        W = W.transpose(0, 2, 3, 1).reshape(len(W), -1)
    return {"W": W, "bias": bias}


def _kernels(to_last: Sequence[int], from_keras: Sequence[int]) -> Callable:
    """A converter of kernels, given the orders of their axes."""

    def convert(layer: Any, source: Source) -> Arrays:
        if source.listed:
            W, *bias = source.take_all(1, 2)
            return {
                "W": np.transpose(W, from_keras),
                **({"bias": bias[0]} if bias else {}),
            }
        W, bias = source.take("weight", optional=["bias"])
        return {"W": np.transpose(W, to_last), "bias": bias}

    return convert


def _batch_norm(layer: Any, source: Source) -> Arrays:
    if source.listed:
        gamma, beta, mean, variance = source.take_all(4)
    else:
        mean, variance, gamma, beta = source.take(
            "running_mean", "running_var", optional=["weight", "bias"]
        )
        gamma = np.ones_like(mean) if gamma is None else gamma
        beta = np.zeros_like(mean) if beta is None else beta
    sigma = np.sqrt(variance + layer.epsilon)
    return {"gamma": gamma, "beta": beta, "mu": -mean, "sigma": sigma}


def _layer_norm(layer: Any, source: Source) -> Arrays:
    if source.listed:
        gamma, beta = source.take_all(2)
    else:
        gamma, beta = source.take("weight", optional=["bias"])
    return {"gamma": gamma, "beta": np.zeros_like(gamma) if beta is None else beta}


def _embedding(layer: Any, source: Source) -> Arrays:
    (W,) = source.take_all(1) if source.listed else source.take("weight")
    return {"W": W}


def _recurrent_parts(source: Source) -> tuple[Any, Any, Any, Any]:
    """Weights of inputs and of outputs before, with a row for each unit, and biases."""
    if source.listed:
        W, R, *biases = source.take_all(2, 3)
        bias = biases[0] if biases else None
        if bias is not None and bias.ndim == 2:
            return W.T, R.T, bias[0], bias[1]
        return W.T, R.T, bias, None
    return tuple(source.take("weight_ih", "weight_hh", optional=["bias_ih", "bias_hh"]))


def _recurrent(layer: Any, source: Source) -> Arrays:
    W, R, *biases = _recurrent_parts(source)
    given = [b for b in biases if b is not None]
    return {"W": W, "R": R, "bias": sum(given) if given else None}


def _gates(order: str, parts: Mapping[str, Any]) -> Arrays:
    """Cut stacked arrays into those of gates, by the letters of `order`."""
    found: Arrays = {}
    for kind, array in parts.items():
        if array is not None:
            pieces = np.split(array, len(order))
            found |= {f"{kind}{g}": p for g, p in zip(order, pieces, strict=True)}
    return found


def _with_biases(layer: Any, found: Arrays) -> Arrays:
    """Biases that are not there are 0; those that the layer has not are an error."""
    return {n: a for n, a in found.items() if n[0] != "b" or layer.bias or np.any(a)}


def _lstm(layer: Any, source: Source) -> Arrays:
    W, R, *biases = _recurrent_parts(source)
    given = [b for b in biases if b is not None]
    parts = {"W": W, "R": R, "b": sum(given) if given else None}
    return _with_biases(layer, _gates("ifzo", parts))


def _gru(layer: Any, source: Source) -> Arrays:
    W, R, bias, after = _recurrent_parts(source)
    order = "zrh" if source.listed else "rzh"
    resets_after = not source.listed or after is not None
    if bias is not None and resets_after != layer.reset_after:
        raise ValidationError(
            f"expected a Gru with reset_after={resets_after}, as it is there"
        )
    found: Arrays = {}
    if after is not None:
        *gates, bp = np.split(after, 3)
        bias = bias + np.concatenate([*gates, np.zeros_like(bp)])
        if layer.recurrent_bias:
            found["bp"] = bp
        elif np.any(bp):
            raise ValidationError(
                "its second bias of the candidates, within the reset gate, is not 0;"
                " expected a Gru with recurrent_bias=True"
            )
    return found | _with_biases(layer, _gates(order, {"W": W, "R": R, "b": bias}))


def _bidirectional(layer: Any, source: Source) -> Arrays:
    """Both directions; PyTorch's names of the second one begin with ``reverse_``."""
    back = {n: a for n, a in source.named.items() if n.startswith("reverse_")}
    there = {n: a for n, a in source.named.items() if n not in back}
    back = {n.removeprefix("reverse_"): a for n, a in back.items()}
    half = len(source.listed) // 2
    parts = (there, source.listed[:half]), (back, source.listed[half:])
    found: Arrays = {}
    for which, one, part in zip(
        ("forward", "backward"), layer.halves, parts, strict=True
    ):
        arrays = converted(one, Source(source.name, *part))
        found |= {f"{which}_{name}": array for name, array in arrays.items()}
    return found


def _attention(layer: Any, source: Source) -> Arrays:
    letters = "qkvo"
    if source.listed:
        arrays = source.take_all(4, 8)
        step = len(arrays) // 4
        found: Arrays = {}
        for letter, W in zip(letters, arrays[::step], strict=True):
            flat = (-1, W.shape[-1]) if letter == "o" else (W.shape[0], -1)
            found[f"W{letter}"] = W.reshape(flat).T
        if step == 2:
            biases = zip(letters, arrays[1::2], strict=True)
            found |= {f"b{letter}": b.ravel() for letter, b in biases}
        return _with_biases(layer, found)
    if "in_proj_weight" in source.named:
        W, out, bias, out_bias = source.take(
            *("in_proj_weight", "out_proj.weight"),
            optional=["in_proj_bias", "out_proj.bias"],
        )
        weights = np.split(W, 3)
    else:
        *weights, out, bias, out_bias = source.take(
            *(f"{letter}_proj_weight" for letter in "qkv"),
            "out_proj.weight",
            optional=["in_proj_bias", "out_proj.bias"],
        )
    found = {f"W{n}": W for n, W in zip(letters, [*weights, out], strict=True)}
    if bias is not None:
        parts = [*np.split(bias, 3), out_bias]
        found |= {f"b{n}": b for n, b in zip(letters, parts, strict=True)}
    return _with_biases(layer, found)


CONVERTERS: dict[str, Callable[[Any, Source], Arrays]] = {
    "Attention": _attention,
    "BatchNorm": _batch_norm,
    "Bidirectional": _bidirectional,
    "Convolution1D": _kernels((0, 2, 1), (2, 0, 1)),
    "Convolution2D": _kernels((0, 2, 3, 1), (3, 0, 1, 2)),
    "ConvolutionTranspose2D": _kernels((0, 2, 3, 1), (3, 0, 1, 2)),
    "Embedding": _embedding,
    "FullyConnected": _dense,
    "Gru": _gru,
    "LayerNorm": _layer_norm,
    "Lstm": _lstm,
    "Recurrent": _recurrent,
}

COUNTS = {"BatchNorm": 4, "LayerNorm": 2, "Embedding": 1}
"""How many arrays Keras has for such a layer; for others see `number_of_arrays`."""


def number_of_arrays(layer: Any) -> int:
    """How many arrays Keras has for a layer."""
    kind = type(layer).__name__.removesuffix("LayerImpl")
    if kind in COUNTS:
        return COUNTS[kind]
    if kind == "Bidirectional":
        return sum(map(number_of_arrays, layer.halves))
    if kind == "Attention":
        return 8 if layer.bias else 4
    weights = 2 if kind in ("Gru", "Lstm", "Recurrent") else 1
    flags = ("bias", "recurrent_bias")
    return weights + any(getattr(layer, flag, False) for flag in flags)

"""How many multiplications the products and convolutions of operations take."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

Arguments = Mapping[str, Any]


def count_multiplications(operation: str, arguments: Arguments) -> int:
    """The multiplications of matrix products and convolutions in an operation.

    Those of single elements do not count: there are few of them, and none of what a
    machine can do at its peak. Padding counts like the rest of an image.

    Args:
        operation: Name of an operation of handlers.
        arguments: Its arguments by name.

    Returns:
        Their number, 0 for operations that are not known to have any.
    """
    return _FORMULAS.get(operation, _none)(arguments)


def _none(a: Arguments) -> int:
    return 0


def _product(a: Arguments) -> int:
    """M K N, of the matrices (M, K) and (K, N)."""
    length = a["a"].shape[0 if a.get("transa") else 1]
    return math.prod(a["out"].shape) * length


def _affine(a: Arguments) -> int:
    """M I N: each row of x with each row of W."""
    return a["x"].shape[0] * math.prod(a["W"].shape)


def _affine_backward(a: Arguments) -> int:
    """As many for dW, and again for dx."""
    return _affine(a) * (1 + _wanted(a, "dx"))


def _convolution(a: Arguments) -> int:
    """One kernel kh kw C for each element of the outputs."""
    return math.prod(a["outputs"].shape) * math.prod(a["weights"].shape[1:])


def _convolution_backward(a: Arguments) -> int:
    """As many for the weights, and again for the inputs."""
    once = math.prod(a["out_deltas"].shape) * math.prod(a["weights"].shape[1:])
    return once * (1 + _wanted(a, "in_deltas"))


def _sequence(a: Arguments) -> int:
    """Each row of W with each input, and each row of R with each output before."""
    return _rows(a) * (math.prod(a["W"].shape) + math.prod(a["R"].shape))


def _sequence_backward(a: Arguments) -> int:
    """For dW and dx, if it is wanted; for dR and the deltas of the step before."""
    of_inputs = math.prod(a["W"].shape) * (1 + _wanted(a, "dx"))
    return _rows(a) * (of_inputs + 2 * math.prod(a["R"].shape))


def _rows(a: Arguments) -> int:
    return math.prod(a["x"].shape[:2])


def _wanted(a: Arguments, name: str) -> bool:
    return a.get(name) is not None


_FORMULAS: dict[str, Callable[[Arguments], int]] = {
    "dot_mm": _product,
    "dot_add_mm": _product,
    "affine": _affine,
    "affine_backward": _affine_backward,
    "conv2d_forward_batch": _convolution,
    "conv2d_backward_batch": _convolution_backward,
    "recurrent_forward": _sequence,
    "recurrent_backward": _sequence_backward,
    "lstm_forward": _sequence,
    "lstm_backward": _sequence_backward,
    "gru_forward": _sequence,
    "gru_backward": _sequence_backward,
}

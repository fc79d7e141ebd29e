"""How many multiplications the products and convolutions of operations take."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

Arguments = Mapping[str, Any]


def count_multiplications(operation: str, arguments: Arguments) -> int:
    """The multiplications of matrix products and convolutions in an operation.

    Those of single elements do not count: there are few of them, and none of what a
    machine can do at its peak. Padding counts like the rest of an image. There are 0 of
    operations that are not known to have any.
    """
    formula = _FORMULAS.get(operation)
    return formula(arguments) if formula else 0


# A backward pass takes as many for the weights, and again for the inputs.


def _times(a: Arguments, deltas: str) -> int:
    return 1 + (a.get(deltas) is not None)


def _product(a: Arguments) -> int:
    """M K N, of the matrices (M, K) and (K, N)."""
    length = a["a"].shape[0 if a.get("transa") else 1]
    return math.prod(a["out"].shape) * length


def _batch(a: Arguments) -> int:
    """M K N of each pair of matrices."""
    length = a["a"].shape[1 if a.get("transa") else 2]
    return math.prod(a["out"].shape) * length


def _affine(a: Arguments) -> int:
    """M I N: each row of x with each row of W."""
    return a["x"].shape[0] * math.prod(a["W"].shape) * _times(a, "dx")


def _convolution(a: Arguments) -> int:
    """One kernel kh kw C for each element of the outputs."""
    places = a["out_deltas" if "out_deltas" in a else "outputs"]
    return _at_all(places, a)


def _transposed_convolution(a: Arguments) -> int:
    """A kernel for each element of the inputs."""
    return _at_all(a["inputs"], a)


def _at_all(places: Any, a: Arguments) -> int:
    once = math.prod(places.shape) * math.prod(a["weights"].shape[1:])
    return once * _times(a, "in_deltas")


def _attention(a: Arguments) -> int:
    """Each query with each key, and each weight with a value: of all heads n each.

    What is hidden counts, too; backward passes compute the weights again.
    """
    steps, batch, n = a["q"].shape
    return steps * batch * a["k"].shape[0] * n * (5 if "dy" in a else 2)


def _sequence(a: Arguments) -> int:
    """Each row of W with each input, and each row of R with each output before."""
    W, R, *_ = a["weights"]
    rows, backward = math.prod(a["x"].shape[:2]), 1 + ("gradients" in a)
    return rows * (W.size * _times(a, "dx") + R.size * backward)


_FORMULAS: dict[str, Callable[[Arguments], int]] = {
    "attention_backward": _attention,
    "attention_forward": _attention,
    "batch_dot_add_mm": _batch,
    "batch_dot_mm": _batch,
    "dot_mm": _product,
    "dot_add_mm": _product,
    "affine": _affine,
    "affine_backward": _affine,
    "conv2d_forward_batch": _convolution,
    "conv2d_backward_batch": _convolution,
    "conv2d_transpose_forward_batch": _transposed_convolution,
    "conv2d_transpose_backward_batch": _transposed_convolution,
    "recurrent_forward": _sequence,
    "recurrent_backward": _sequence,
    "lstm_forward": _sequence,
    "lstm_backward": _sequence,
    "gru_forward": _sequence,
    "gru_backward": _sequence,
}

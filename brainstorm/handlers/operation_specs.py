"""What each operation of a handler expects of its arguments."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from brainstorm.handlers.coarse_operations import check_indices
from brainstorm.handlers.primitive_operations import (
    ACTIVATIONS,
    FROM_INPUT,
    PrimitiveOperations,
)
from brainstorm.utils import HandlerError

__all__ = ["FRESH_FLAGS", "OPERATIONS", "Operation", "expected", "operation"]

FRESH_FLAGS = {
    "out": "fresh_out",
    "dx": "fresh_dx",
    "dW": "fresh_gradients",
    "dbias": "fresh_gradients",
    "dR": "fresh_gradients",
    "dpeepholes": "fresh_gradients",
    "dgamma": "fresh_gradients",
    "dbeta": "fresh_gradients",
    "in_deltas": "fresh_in_deltas",
    "weight_deltas": "fresh_gradients",
    "bias_deltas": "fresh_gradients",
}


Check = Callable[[PrimitiveOperations, dict[str, Any]], "str | None"]


@dataclass(frozen=True)
class Operation:
    """What an operation expects of its arguments; see :func:`operation`."""

    read: dict[str, str]
    write: dict[str, str]
    add: dict[str, str]
    alias: frozenset[str]
    optional: frozenset[str]
    finite: bool
    check: Check | None
    check_values: Check | None


def operation(
    read: str = "",
    write: str = "",
    add: str = "",
    alias: str = "",
    optional: str = "",
    finite: bool = True,
    check: Check | None = None,
    check_values: Check | None = None,
) -> Operation:
    """Declare what an operation expects of the arrays given to it.

    Arrays are written as ``name:shape``, separated by spaces. A shape consists of
    numbers and letters separated by commas; a letter stands for the same size
    each time. ``*S`` stands for any number of dimensions, ``A+B`` for a sum, and
    ``|`` separates alternatives.

    Args:
        read: Arrays that are only read.
        write: Arrays that are overwritten; what they hold does not matter.
        add: Arrays that are read and modified. If the operation has a flag such
            as ``fresh_dx`` and it is set, they count as overwritten.
        alias: Names in `read` that an output may be identical with; ``*`` for all.
        optional: Names of arrays that may be None.
        finite: Whether NaN and infinity are refused.
        check: Called with the handler and a dict of all arguments; returns what
            is wrong with them, or None.
        check_values: The same for checks that look into the arrays.
    """
    reads = _shapes(read)
    return Operation(
        reads,
        _shapes(write),
        _shapes(add),
        frozenset(reads if alias == "*" else alias.split()),
        frozenset(optional.split()),
        finite,
        check,
        check_values,
    )


def _shapes(text: str) -> dict[str, str]:
    return dict(item.split(":") for item in text.split())


# -- checks of single operations ---------------------------------------------


def _check_product(handler: PrimitiveOperations, args: dict[str, Any]) -> str | None:
    a, b = args["a"].shape, args["b"].shape
    m, k = reversed(a) if args["transa"] else a
    k2, n = reversed(b) if args["transb"] else b
    if k != k2:
        return f"can not multiply matrices of shapes {(m, k)} and {(k2, n)}"
    if args["out"].shape != (m, n):
        return expected("out", f"shape {(m, n)}", f"shape {args['out'].shape}")
    return None


def _check_sum(handler: PrimitiveOperations, args: dict[str, Any]) -> str | None:
    shape, out, axis = args["a"].shape, args["out"].shape, args["axis"]
    if len(shape) not in (1, 2):
        return expected("a", "1 or 2 dimensions", f"shape {shape}")
    if axis is None:
        if math.prod(out) != 1:
            return expected("out", "a single element", f"shape {out}")
        return None
    if axis not in range(len(shape)):
        return expected("axis", f"one of {list(range(len(shape)))}", repr(axis))
    kept = (*shape[:axis], 1, *shape[axis + 1 :])
    dropped = shape[:axis] + shape[axis + 1 :]
    if out not in (kept, dropped):
        return expected("out", f"shape {kept} or {dropped}", f"shape {out}")
    return None


def _check_broadcast(handler: PrimitiveOperations, args: dict[str, Any]) -> str | None:
    shape, out, axis = args["a"].shape, args["out"].shape, args["axis"]
    if axis not in range(len(shape)):
        return expected("axis", f"one of {list(range(len(shape)))}", repr(axis))
    if shape[axis] != 1:
        return expected("a", f"size 1 along axis {axis}", f"shape {shape}")
    if len(out) != len(shape) or any(
        n != m for i, (n, m) in enumerate(zip(shape, out, strict=True)) if i != axis
    ):
        return expected("out", f"shape {shape} but for axis {axis}", f"shape {out}")
    return None


def _check_indices(name: str, matrix: str, axis: int = 1) -> Callable:
    def check(handler: PrimitiveOperations, args: dict[str, Any]) -> str | None:
        try:
            check_indices(
                handler.get_numpy_copy(args[name]),
                args[matrix].shape[axis],
                f"argument {name!r}: indices",
            )
        except HandlerError as error:
            return str(error)
        return None

    return check


def _check_range(name: str, low: float, high: float) -> Callable:
    def check(handler: PrimitiveOperations, args: dict[str, Any]) -> str | None:
        if not low <= args[name] <= high:
            return expected(name, f"a number in [{low}, {high}]", repr(args[name]))
        return None

    return check


def _check_clip(handler: PrimitiveOperations, args: dict[str, Any]) -> str | None:
    low, high = args["a_min"], args["a_max"]
    if not low <= high:
        return expected("a_max", f"at least a_min = {low!r}", repr(high))
    return None


def _check_affine(handler: PrimitiveOperations, args: dict[str, Any]) -> str | None:
    name = "dh" if "dh" in args else "h"
    if args[name] is None and args["activation"] != "linear":
        return expected(name, f"an array for {args['activation']!r}", "None")
    return None


def _check_images(window: str, image: str) -> Callable:
    def check(handler: PrimitiveOperations, args: dict[str, Any]) -> str | None:
        inputs, padding, stride = args["inputs"].shape, args["padding"], args["stride"]
        size = args["weights"].shape[1:3] if window == "weights" else args[window]
        if padding < 0 or min(stride) < 1:
            return (
                "expected padding of at least 0 and strides of at least 1, got"
                f" {padding!r} and {stride!r}"
            )
        if "out_deltas" in args and args.get("activation") in FROM_INPUT:
            return f"the derivative of {args['activation']!r} is no function of outputs"
        wanted = tuple(
            (inputs[1 + i] + 2 * padding - size[i]) // stride[i] + 1 for i in (0, 1)
        )
        got = args[image].shape[1:3]
        if got != wanted or min(wanted) < 1:
            return expected(image, f"{wanted} for height and width", str(got))
        return None

    return check


def _check_sequences(handler: PrimitiveOperations, args: dict[str, Any]) -> str | None:
    steps, rows = args["x"].shape[0], args["y"].shape[0]
    if rows != steps + 1:
        return expected("y", f"{steps + 1} steps for {steps} of x", f"{rows}")
    gates = 4 if "Ca" in args else 3 if "Pa" in args else 1
    if args["W"].shape[0] != gates * args["y"].shape[2]:
        wanted = f"{gates * args['y'].shape[2]} rows, {gates} for each unit"
        return expected("W", wanted, str(args["W"].shape[0]))
    if "timing" in args and (args["timing"] is None) != (args["step"] is None):
        return "expected arguments 'timing' and 'step' together, got one of them"
    return None


def _check_arrays(handler: PrimitiveOperations, args: dict[str, Any]) -> str | None:
    dtype = np.dtype(handler.dtype)
    wanted = f"arrays of type {handler.array_type.__name__} and dtype {dtype}"
    for array in args["arrays"]:
        if not isinstance(array, handler.array_type):
            return expected("arrays", wanted, f"a {type(array).__name__}")
        if array.dtype != dtype:
            return expected("arrays", wanted, f"dtype {array.dtype}")
    return None


_CELLS = ("Za", "Zb", "Ia", "Ib", "Fa", "Fb", "Oa", "Ob", "Ca", "Cb")
_CELL_ARRAYS = " ".join(f"{name}:U,B,N" for name in _CELLS)
_GRU_ARRAYS = " ".join(f"{n}:T,B,N" for n in ("Ra", "Rb", "Za", "Zb", "Pa", "Ha", "Hb"))
_DELTA_ARRAYS = " ".join(f"d{name}:U,B,N" for name in _CELLS)

# -- the operations ----------------------------------------------------------

OPERATIONS: dict[str, Operation] = {
    "is_fully_finite": operation("a:*S", finite=False),
    "get_numpy_copy": operation("mem:*S", finite=False),
    "set_from_numpy": operation(write="mem:*S", finite=False),
    "fill": operation(write="mem:*S", finite=False),
    "clear": operation(check=_check_arrays),
    "fill_if": operation("cond:*S", add="mem:*S", alias="*"),
    "fill_gaussian": operation(
        write="out:*S", check=_check_range("std", 0, float("inf"))
    ),
    "generate_probability_mask": operation(
        write="mask:*S", check=_check_range("probability", 0, 1)
    ),
    "copy_to": operation("src:*S", "dest:*S", alias="*"),
    "copy_to_if": operation("src:*S cond:*S", add="dest:*S", alias="*"),
    "add_into_if": operation("a:*S cond:*S", add="out:*S", alias="*"),
    "clip_t": operation("a:*S", "out:*S", alias="*", check=_check_clip),
    "dot_mm": operation("a:P,Q b:R,S", "out:M,N", check=_check_product),
    "dot_add_mm": operation("a:P,Q b:R,S", add="out:M,N", check=_check_product),
    "sum_t": operation("a:*S", "out:*R", check=_check_sum),
    "softmax_m": operation("m:M,N", "out:M,N", alias="*"),
    "binarize_v": operation(
        "v:M,1", "out:M,N", check_values=_check_indices("v", "out")
    ),
    "index_m_by_v": operation(
        "m:M,N v:M,1", "out:M,1", alias="v", check_values=_check_indices("v", "m")
    ),
    "broadcast_t": operation("a:*S", "out:*R", check=_check_broadcast),
    "merge_tt": operation("a:*L,A b:*L,B", "out:*L,A+B"),
    "split_add_tt": operation(add="out_a:*L,A out_b:*L,B", read="x:*L,A+B"),
    "mult_mv": operation("m:M,N v:1,N|M,1|M,N", "out:M,N", alias="*"),
    "mult_add_mv": operation("m:M,N v:1,N|M,1|M,N", add="out:M,N", alias="*"),
    "conv2d_forward_batch": operation(
        "inputs:N,H,W,C weights:F,K,L,C bias:F",
        "outputs:N,P,Q,F",
        check=_check_images("weights", "outputs"),
    ),
    "conv2d_backward_batch": operation(
        "inputs:N,H,W,C weights:F,K,L,C out_deltas:N,P,Q,F outputs:N,P,Q,F",
        add="in_deltas:N,H,W,C weight_deltas:F,K,L,C bias_deltas:F",
        optional="in_deltas outputs",
        check=_check_images("weights", "out_deltas"),
    ),
    "maxpool2d_forward_batch": operation(
        "inputs:N,H,W,C",
        "outputs:N,P,Q,C argmax:N,P,Q,C",
        check=_check_images("window", "outputs"),
    ),
    "maxpool2d_backward_batch": operation(
        "inputs:N,H,W,C outputs:N,P,Q,C argmax:N,P,Q,C out_deltas:N,P,Q,C",
        add="in_deltas:N,H,W,C",
        check=_check_images("window", "outputs"),
    ),
    "avgpool2d_forward_batch": operation(
        "inputs:N,H,W,C", "outputs:N,P,Q,C", check=_check_images("window", "outputs")
    ),
    "avgpool2d_backward_batch": operation(
        "inputs:N,H,W,C outputs:N,P,Q,C out_deltas:N,P,Q,C",
        add="in_deltas:N,H,W,C",
        check=_check_images("window", "outputs"),
    ),
    "affine": operation(
        "x:M,I W:N,I bias:N",
        "h:M,N y:M,N",
        optional="bias h",
        check=_check_affine,
    ),
    "affine_backward": operation(
        "x:M,I W:N,I h:M,N y:M,N dy:M,N",
        "dh:M,N",
        add="dx:M,I dW:N,I dbias:N",
        optional="h dh dx dbias",
        check=_check_affine,
    ),
    "act_backward": operation("x:*S y:*S dy:*S", add="dx:*S", alias="dy"),
    "recurrent_forward": operation(
        "x:T,B,I W:N,I R:N,N bias:N timing:N",
        "Ha:U,B,N y:U,B,N step:U,B,1",
        optional="timing step",
        check=_check_sequences,
    ),
    "recurrent_backward": operation(
        "x:T,B,I W:N,I R:N,N Ha:U,B,N y:U,B,N timing:N step:U,B,1",
        "dHa:U,B,N dHb:U,B,N",
        add="dy:U,B,N dx:T,B,I dW:N,I dR:N,N dbias:N",
        optional="timing step dx",
        check=_check_sequences,
    ),
    "lstm_forward": operation(
        "x:T,B,I W:G,I R:G,N peepholes:3,N bias:G timing:N",
        f"{_CELL_ARRAYS} y:U,B,N step:U,B,1",
        optional="timing step peepholes",
        check=_check_sequences,
    ),
    "lstm_backward": operation(
        f"x:T,B,I W:G,I R:G,N peepholes:3,N timing:N step:U,B,1 {_CELL_ARRAYS} y:U,B,N",
        _DELTA_ARRAYS,
        add="dy:U,B,N dx:T,B,I dW:G,I dR:G,N dpeepholes:3,N dbias:G",
        optional="timing step peepholes dpeepholes dx",
        check=_check_sequences,
    ),
    "gru_forward": operation(
        "x:T,B,I W:G,I R:G,N bias:G",
        f"{_GRU_ARRAYS} y:U,B,N",
        check=_check_sequences,
    ),
    "gru_backward": operation(
        f"x:T,B,I W:G,I R:G,N {_GRU_ARRAYS} y:U,B,N",
        "dRa:T,B,N dZa:T,B,N dPa:T,B,N dHa:T,B,N",
        add="dy:U,B,N dx:T,B,I dW:G,I dR:G,N dbias:G",
        optional="dx",
        check=_check_sequences,
    ),
    "softmax_ce_forward": operation(
        "x:M,C targets:M,1",
        "predictions:M,C loss:M,1",
        check_values=_check_indices("targets", "x"),
    ),
    "softmax_ce_backward": operation(
        "targets:M,1 predictions:M,C dloss:M,1",
        "t_bin:M,C",
        add="dx:M,C",
        optional="dx",
        check_values=_check_indices("targets", "predictions"),
    ),
    "sigmoid_ce_forward": operation("x:*S targets:*S", "predictions:*S loss:*S"),
    "sigmoid_ce_backward": operation(
        "targets:*S predictions:*S dloss:*S", "dcee:*S", add="dx:*S", optional="dx"
    ),
    "dropout_forward": operation(
        "x:*S", "mask:*S y:*S", check=_check_range("drop_prob", 0, 1)
    ),
    "dropout_backward": operation("mask:*S dy:*S", add="dx:*S", alias="dy"),
    "sgd_update": operation("gradients:N", add="parameters:N"),
    "momentum_update": operation("gradients:N", add="parameters:N velocity:N"),
    "nesterov_ahead": operation(add="parameters:N velocity:N"),
    "nesterov_correct": operation("gradients:N", add="parameters:N velocity:N"),
    "adam_update": operation("gradients:N", add="parameters:N mean:N variance:N"),
    "rms_prop_update": operation("gradients:N", add="parameters:N mean_square:N"),
    "ada_grad_update": operation("gradients:N", add="parameters:N sum_of_squares:N"),
    "ada_delta_update": operation(
        "gradients:N", add="parameters:N mean_square:N mean_square_step:N"
    ),
    "constrain_rows": operation(
        write="norms:N,1",
        add="m:N,I",
        check=_check_range("limit", 5e-324, float("inf")),
    ),
    "batch_norm_forward": operation(
        "x:M,C gamma:C beta:C",
        "sigma_b:C centered:M,C x_hat:M,C y:M,C",
        add="mu:C sigma:C",
        check=_check_range("decay", 0, 1),
    ),
    "batch_norm_inference": operation(
        "x:M,C gamma:C beta:C mu:C sigma:C", "y:M,C", alias="x"
    ),
    "layer_norm_forward": operation(
        "x:M,C gamma:C beta:C", "sigma:M,1 x_hat:M,C y:M,C"
    ),
    "layer_norm_backward": operation(
        "gamma:C sigma:M,1 x_hat:M,C dy:M,C",
        add="dx:M,C dgamma:C dbeta:C",
        optional="dx",
    ),
    "take_rows": operation(
        "m:V,N indices:M,1", "out:M,N", check_values=_check_indices("indices", "m", 0)
    ),
    "add_to_rows": operation(
        "a:M,N indices:M,1",
        add="out:V,N",
        check_values=_check_indices("indices", "out", 0),
    ),
    "sequence_lengths": operation("mask:T,B,1", "lengths:B,1"),
    "reverse_steps": operation(
        "x:T,B,N lengths:B,1", add="out:T,B,N", optional="lengths"
    ),
    "ctc_forward": operation(
        "x:T,B,C targets:T,B,1 lengths:B,1",
        "predictions:T,B,C expected:T,B,C loss:B,1",
        optional="lengths",
    ),
    "ctc_backward": operation(
        "predictions:T,B,C expected:T,B,C lengths:B,1 dloss:B,1",
        add="dx:T,B,C",
        optional="lengths",
    ),
    "batch_norm_backward": operation(
        "gamma:C sigma_b:C centered:M,C x_hat:M,C dy:M,C",
        add="dx:M,C dgamma:C dbeta:C",
        optional="dx",
    ),
}
"""What is checked for each operation. Others are checked for the type of their
arrays alone, until they are added here."""

for _name in ("abs_t", "log_t", "sign_t", "sqrt_t"):
    OPERATIONS[_name] = operation("a:*S", "out:*S", alias="*")
for _name in ("add_tt", "divide_tt", "modulo_tt", "mult_tt", "subtract_tt"):
    OPERATIONS[_name] = operation("a:*S b:*S", "out:*S", alias="*")
for _name in ("add_st", "mult_st"):
    OPERATIONS[_name] = operation("t:*S", "out:*S", alias="*")
for _name in ("add_mv", "divide_mv", "subtract_mv"):
    OPERATIONS[_name] = operation("m:M,N v:1,N|M,1", "out:M,N", alias="*")
for _name in ACTIVATIONS[1:]:
    OPERATIONS[_name] = operation("x:*S", "y:*S", alias="*")
    _from = "x" if _name in FROM_INPUT else "y"
    OPERATIONS[_name + "_deriv"] = operation(f"{_from}:*S dy:*S", "dx:*S", alias="*")
OPERATIONS["mult_add_st"] = operation("t:*S", add="out:*S", alias="*")
OPERATIONS["mult_add_tt"] = operation("a:*S b:*S", add="out:*S", alias="*")


def expected(name: str, wanted: str, got: str) -> str:
    """The text for an argument that is not what it has to be."""
    return f"argument {name!r}: expected {wanted}, got {got}"

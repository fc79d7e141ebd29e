"""The constants, enums and structures of oneDNN's C interface."""

from __future__ import annotations

import ctypes
from enum import IntEnum
from typing import NamedTuple

from brainstorm.utils import HandlerError

BFLOAT16 = 2
FLOAT32 = 3
ANY_FORMAT = 1
CPU = 1
IN_ORDER = 1
USER_SCRATCHPAD = 1
UNIMPLEMENTED = 3
LAST_REACHED = 4
MAX_DIMS = 12
POST_OP = 32768  # times its number from 1, or the argument that it is for
STATUSES = (
    "success",
    "out of memory",
    "invalid arguments",
    "unimplemented",
    "last implementation reached",
    "runtime error",
    "not required",
    "invalid graph",
    "invalid graph operation",
    "invalid shape",
    "invalid data type",
)
# By what the library reports. It is not used on CPUs with none of these.
INSTRUCTION_SETS = {
    0x7: "AVX2",
    0xF: "AVX2 with VNNI",
    0x1F: "AVX2 with VNNI 2",
    0x27: "AVX-512",
    0x67: "AVX-512 with VNNI",
    0xE7: "AVX-512 with bfloat16",
    0x1EF: "AVX-512 with float16",
    0xFEF: "AVX-512 with AMX",
    0x1FEF: "AVX-512 with AMX and float16",
}
MATH_MODES = {"f32": 0, "bf16": 1}


class Prop(IntEnum):
    """What a pass is for (``dnnl_prop_kind_t``)."""

    FORWARD_TRAINING = 64
    FORWARD_INFERENCE = 96
    BACKWARD = 128


class Algorithm(IntEnum):
    """Kinds of operations (``dnnl_alg_kind_t``)."""

    CONVOLUTION_DIRECT = 0x1
    RELU = 0x20
    TANH = 0x21
    ELU = 0x22
    SQRT = 0x25
    LOGISTIC = 0x29
    GELU_TANH = 0x2B
    SWISH = 0x2C
    CLIP = 0x2E
    POW = 0x30
    HARDSWISH = 0x34
    TANH_FROM_OUTPUT = 0x101
    ELU_FROM_OUTPUT = 0x102
    LOGISTIC_FROM_OUTPUT = 0x104
    POOLING_MAX = 0x1FF
    POOLING_AVG = 0x3FF  # without the padding
    ADD = 0x1FFF0
    MULTIPLY = 0x1FFF1
    MAXIMUM = 0x1FFF2
    DIVIDE = 0x1FFF4
    SUBTRACT = 0x1FFF5
    GREATER = 0x1FFF7
    REDUCTION_MAX = 0x2FFF2
    REDUCTION_SUM = 0x2FFF4
    SOFTMAX = 0x30000


class Arg(IntEnum):
    """What memory is passed for (``DNNL_ARG_*``)."""

    SRC = 1
    SRC_1 = 2
    SRC_ITER = 2
    SRC_ITER_C = 3
    DST = 17
    DST_ITER = 18
    DST_ITER_C = 19
    WEIGHTS = 33
    WEIGHTS_ITER = 34
    WEIGHTS_PEEPHOLE = 35
    BIAS = 41
    MEAN = 49
    VARIANCE = 50
    SCALE = 51
    SHIFT = 52
    WORKSPACE = 64
    SCRATCHPAD = 80
    DIFF_SRC = 129
    DIFF_SRC_ITER = 130
    DIFF_SRC_ITER_C = 131
    DIFF_DST = 145
    DIFF_DST_ITER = 146
    DIFF_DST_ITER_C = 147
    DIFF_WEIGHTS = 161
    DIFF_WEIGHTS_ITER = 162
    DIFF_WEIGHTS_PEEPHOLE = 163
    DIFF_BIAS = 169
    DIFF_SCALE = 255
    DIFF_SHIFT = 256
    SRC_SCALE = 0x1000 | 1
    SRC_1_SCALE = 0x1000 | 2


WRITTEN = frozenset({Arg.DST, Arg.DST_ITER, Arg.DST_ITER_C, Arg.WORKSPACE}) | {
    Arg.MEAN,
    Arg.VARIANCE,
}
WRITTEN_BACKWARD = frozenset(arg for arg in Arg if arg.name.startswith("DIFF_")) - {
    Arg.DIFF_DST,
    Arg.DIFF_DST_ITER,
    Arg.DIFF_DST_ITER_C,
}


class Query(IntEnum):
    """What to ask a primitive for (``dnnl_query_t``)."""

    IMPLEMENTATION = 8
    SRC = 129
    DIFF_SRC = 130
    WEIGHTS = 131
    DIFF_WEIGHTS = 132
    DST = 133
    DIFF_DST = 134
    WORKSPACE = 135
    SCRATCHPAD = 136
    ARGUMENT = 255
    NDIMS = 256
    DIMS = 257


class UnimplementedError(HandlerError):
    """The library has no implementation, or none that is fast."""


class LastReachedError(UnimplementedError):
    """The library has no further implementation."""


class Layout(NamedTuple):
    """Where the elements of an array lie, or that the library may choose.

    Attributes:
        shape: Sizes of the dimensions, in the library's order.
        strides: Distances in elements, or None to let the library choose.
        dtype: The library's number of the data type.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    dtype: int = FLOAT32


class Version(ctypes.Structure):
    """What the library is (``dnnl_version_t``)."""

    _fields_ = [
        ("major", ctypes.c_int),
        ("minor", ctypes.c_int),
        ("patch", ctypes.c_int),
    ]  # and more


class ExecutionArgument(ctypes.Structure):
    """Memory for one argument of a primitive (``dnnl_exec_arg_t``)."""

    _fields_ = [("arg", ctypes.c_int), ("memory", ctypes.c_void_p)]


def status_name(status: int) -> str:
    """What a status that is not success means."""
    known = 0 <= status < len(STATUSES)
    return STATUSES[status] if known else f"status {status}"

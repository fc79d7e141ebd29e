"""Where factors are converted to bfloat16, which some CPUs multiply much faster.

Told that it may, the library rounds the float32 factors of most products by itself, on
CPUs with AMX only, and each time anew. Converting them before lets it use all of its
kernels for bfloat16, and does it once for a matrix that is multiplied with many times.
Sums are float32 in any case, and so is what is kept.
"""

from __future__ import annotations

from typing import NamedTuple

_PRODUCTS = {"dot_mm", "batch_dot_mm", "affine", "affine_backward"} | {
    "attention_forward",
    "attention_backward",
}
_PACKED = {"dot_packed"}
_GRADIENTS = {"conv2d_backward"}
_CONVOLUTIONS = {"conv2d_forward", *_GRADIENTS}
_LSTM = {"lstm", "lbr_gru"}
_OUTPUTS = {"lstm_outputs", "lbr_gru_outputs"}


class Conversions(NamedTuple):
    """For which operations factors are converted.

    Attributes:
        operations: Their names, as recipes have them.
        work: From so many multiplications on,
        reuse: and from so many of them for each number of their arrays on.
        lstm_steps: From this part of the usual work on, an LSTM runs step by step.
    """

    operations: frozenset[str] = frozenset()
    work: float = 2**19
    reuse: float = 12
    lstm_steps: float = 1.0

    def pay(self, operation: str, work: float, numbers: float) -> bool:
        """Whether they do for an operation with so much work on so many numbers."""
        return (
            operation in self.operations
            and work >= self.work
            and work >= self.reuse * numbers
        )


NO_CONVERSIONS = Conversions()
ALL_CONVERSIONS = Conversions(
    frozenset(_PRODUCTS | _PACKED | _CONVOLUTIONS | _LSTM | _OUTPUTS), work=0, reuse=0
)
"""All that there are, for tests: not all of them pay."""

# With AMX, float32 kernels that round serve for the rest. Without, the library's LSTM
# has no fast backward pass; all else takes 0.5 to 0.9 of the time of float32, with the
# conversions (measured on an AMD EPYC of the fourth generation).
_WITH_AMX = Conversions(frozenset(_PACKED | _GRADIENTS | _LSTM | _OUTPUTS))
_WITHOUT_AMX = Conversions(
    frozenset(_PRODUCTS | _PACKED | _CONVOLUTIONS | _OUTPUTS), lstm_steps=1 / 8
)

_BY_INSTRUCTION_SET = {
    "AVX-512 with bfloat16": _WITHOUT_AMX,
    "AVX-512 with float16": _WITHOUT_AMX,
    "AVX-512 with AMX": _WITH_AMX,
    "AVX-512 with AMX and float16": _WITH_AMX,
}


def conversions_of(math_mode: str, instruction_set: str) -> Conversions:
    """Those that pay on a CPU."""
    known = {} if math_mode == "f32" else _BY_INSTRUCTION_SET
    return known.get(instruction_set, NO_CONVERSIONS)

"""Operations that are one elementwise kernel each.

A kernel gets the arrays of its operation, and then the numbers, in the order of the
operation's arguments.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from brainstorm.handlers.operations.activations import FUNCTIONS
from brainstorm.handlers.operations.arithmetic import FORMULAS
from brainstorm.handlers.operations.updates import UpdateOperations


class Kernel(NamedTuple):
    """How an operation is done.

    Attributes:
        name: Name of the kernel.
        factors: ``factors(handler, *numbers)`` makes other numbers of them, or None.
        draws: Whether it draws random numbers.
    """

    name: str
    factors: Callable[..., tuple[float, ...]] | None = None
    draws: bool = False

    @property
    def is_launch(self) -> bool:
        """Whether it does the same each time."""
        return not (self.draws or self.factors)


def _dropout_factors(handler: Any, drop_prob: float) -> tuple[float, float]:
    keep = 1.0 - drop_prob
    return keep, 1.0 / keep if keep > 0 else 0.0


def _running_factors(
    handler: Any, rate: float, decay: float, epsilon: float
) -> tuple[float, ...]:
    return decay, 1.0 - decay, rate, epsilon


_SAME_NAME = (
    *("copy_to", "copy_to_if", "fill", "fill_if", "add_into_if", "clip_t"),
    *("sigmoid_ce_forward", "batch_norm_inference", "sgd_update", "momentum_update"),
    *("nesterov_ahead", "nesterov_correct", "ada_grad_update"),
)
KERNELS = {
    **{name: Kernel(name) for name in _SAME_NAME},
    # What is smaller than the output is repeated anyway.
    **{name: Kernel(name.replace("_mv", "_tt")) for name in FORMULAS},
    **{name: Kernel(f"{name}_forward") for name in FUNCTIONS},
    **{f"{name}_deriv": Kernel(f"{name}_deriv") for name in FUNCTIONS},
    "fill_gaussian": Kernel("fill_gaussian", draws=True),
    "generate_probability_mask": Kernel("generate_probability_mask", draws=True),
    "dropout_forward": Kernel("dropout_forward", _dropout_factors, draws=True),
    "adam_update": Kernel("adam_update", UpdateOperations._adam_factors),
    "lion_update": Kernel("lion_update", UpdateOperations._lion_factors),
    "rms_prop_update": Kernel("rms_prop_update", _running_factors),
    "ada_delta_update": Kernel("ada_delta_update", _running_factors),
}


def by_kernel(operation: Any, kernel: Kernel) -> Callable[..., None]:
    """A method that does an operation by a kernel."""
    signature, contract = inspect.signature(operation), operation.contract
    names = [*signature.parameters][1:]
    known = {**contract.read, **contract.write, **contract.add}
    arrays = [k for k, name in enumerate(names) if name in known]
    # Of x and y a derivative is given both, but uses one.
    unused = {*known, "x", "y"}
    numbers = [k for k, name in enumerate(names) if name not in unused]
    kernel_name, factors, draws = kernel

    @functools.wraps(operation)
    def method(self: Any, *args: Any, **kwargs: Any) -> None:
        given: Sequence[Any] = args
        if kwargs:
            _, *given = signature.bind(self, *args, **kwargs).arguments.values()
        values: Sequence[Any] = [given[k] for k in numbers]
        if factors is not None:
            values = factors(self, *values)
        used = tuple([given[k] for k in arrays])
        if draws:
            draw = self._draw()
            self._gpu.elementwise(kernel_name, used, *values, randomness=draw)
        else:
            self._elementwise(kernel_name, used, *values)

    return method

"""Handlers that were written for the operations of brainstorm 0.5.

There convolution and pooling had no activation functions, always added to gradients and
always computed input deltas.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from brainstorm.handlers.operations.contract import fresh_flag
from brainstorm.handlers.operations.images import ImageOperations
from brainstorm.utils import HandlerError


def adapt(cls: type) -> None:
    """Give the operations that a class defines the arguments that are new since 0.5.

    Those are the ones that have default values.
    """
    for name, operation in list(vars(cls).items()):
        ours = vars(ImageOperations).get(name)
        if ours is None or not inspect.isfunction(operation):
            continue
        if not hasattr(ours, "contract"):
            continue
        signature = inspect.signature(ours)
        parameters = signature.parameters.values()
        added = [p.name for p in parameters if p.default is not p.empty]
        if added and not _takes(operation, added[0]):
            adapted: Any = functools.wraps(operation)(
                _adapted(operation, signature, added)
            )
            adapted.__signature__ = signature
            setattr(cls, name, adapted)


def _takes(operation: Callable, argument: str) -> bool:
    parameters = inspect.signature(operation).parameters
    kinds = [parameter.kind for parameter in parameters.values()]
    return argument in parameters or inspect.Parameter.VAR_KEYWORD in kinds


def _adapted(
    operation: Callable, signature: inspect.Signature, added: list[str]
) -> Callable:
    def adapted(self: Any, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        new = {name: given.pop(name) for name in added}
        if new.get("groups", 1) != 1 or tuple(new.get("dilation", (1, 1))) != (1, 1):
            raise HandlerError(
                f"{type(self).__name__} has the operations of brainstorm 0.5, which"
                " know no dilation and no groups of convolutions"
            )
        activation = new.get("activation", "linear")
        if "out_deltas" in given and activation != "linear":
            deltas, y = self.scratch(given["out_deltas"].shape, 2), new["outputs"]
            self.act_func_deriv[activation](y, y, given["out_deltas"], deltas)
            given["out_deltas"] = deltas
        if given.get("in_deltas", self) is None:
            given["in_deltas"] = self.scratch(given["inputs"].shape, 3)
            new["fresh_in_deltas"] = True
        for name, array in given.items():
            if new.get(fresh_flag(name)):
                self.fill(array, 0.0)
        operation(*given.values())
        if "out_deltas" not in given and activation != "linear":
            self.act_func[activation](given["outputs"], given["outputs"])

    return adapted

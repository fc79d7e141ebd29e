"""Nonlinear vector autoregression, or next-generation reservoir."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from brainstorm.checks import Argument, is_whole
from brainstorm.handlers.operations.nvar import columns_of_degrees
from brainstorm.layers.arguments import COUNT, FLAG, Check, arguments_of
from brainstorm.layers.base_layer import BufferStructure, ConstructionWrapper, Layer
from brainstorm.layers.delay_layer import copy_later, keep_past
from brainstorm.layers.rows import Rows
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.layer import Setup, Structures
from brainstorm.utils import flatten_features, flatten_time

MOST_MONOMIALS = 100_000


def Nvar(
    delay: int,
    order: int | Sequence[int] | None = None,
    stride: int = 1,
    constant: bool = False,
    name: str | None = None,
) -> ConstructionWrapper:
    """A layer for products of the inputs of several steps: a reservoir without weights.

    Args:
        delay: From how many steps there are inputs; the last one is the current.
        order: Degree of the products, above 1, or several of them. By default there are
            the inputs alone.
        stride: Distance of these steps.
        constant: Whether the first output is 1 always.
        name: Name of the layer.
    """
    return ConstructionWrapper.create(NvarLayerImpl, **locals())


def _degrees(order: Any) -> tuple[int, ...]:
    if order is None:
        return ()
    return tuple(order) if isinstance(order, Sequence) else (order,)


def _are_degrees(order: Any) -> bool:
    degrees = _degrees(order)
    return (
        (order is None or len(degrees) > 0)
        and all(is_whole(n, 2) for n in degrees)
        and len({*degrees}) == len(degrees)
    )


class NvarLayerImpl(Layer):
    """Computes ``y = [1, lin, monomials of lin]``, of the degrees in `order`.

    Gauthier et al., *Next generation reservoir computing*, 2021. With i the flattened
    size of the input and L = delay i, ``lin[t]`` is ``x[t], x[t - stride], ...``, and
    its monomials are in the order of `itertools.combinations_with_replacement`:

    ========= ======== ================ ===========================================
    buffer    name     shape            content
    ========= ======== ================ ===========================================
    inputs    default  (T, B, ...)      x
    outputs   default  (T, B, F)        y, see `get_feature_names`
    internals lin      (T, B, L)        the inputs of all steps, newest first
    internals dlin     (T, B, L)        their deltas, backward
    internals past     (T + C, B, i)    the last C = (delay - 1) stride steps of x,
                                        at their place; none for a delay of 1
    ========= ======== ================ ===========================================

    Inputs before the first step are 0: leave the first C steps out where that matters.

    Raises:
        LayerValidationError: An argument is not as in `Nvar`, or there are more than
            100,000 monomials up to the largest degree: 400 KB for each step.
    """

    delay: int
    order: int | Sequence[int] | None
    stride: int
    constant: bool
    degrees: tuple[int, ...]

    arguments: Mapping[str, Argument] = arguments_of(
        Nvar,
        delay=COUNT,
        order=Check(
            _are_degrees, "a degree above 1, different ones in a list, or None"
        ),
        stride=COUNT,
        constant=FLAG,
    )
    honours_fresh = True
    repeats = True

    x: Rows = Rows("inputs.default", shape=flatten_features)
    dx: Rows = Rows(writes=["input_deltas.default"], shape=flatten_features)
    rows: Rows = Rows("internals.lin", writes=["outputs.default"], shape=flatten_time)
    delta_rows: Rows = Rows(
        *("internals.lin", "output_deltas.default"),
        writes=["internals.dlin"],
        shape=flatten_time,
    )

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        i, self.degrees = in_shapes["default"].feature_size, _degrees(self.order)
        L, top = self.delay * i, max(self.degrees, default=1)
        few = min(L, top) < 50  # else 10^29 at least
        monomials = math.comb(L + top, top) if few else math.inf
        if monomials > MOST_MONOMIALS:
            raise self.error(
                f"expected at most {MOST_MONOMIALS} monomials up to the degree {top}"
                f" in 'order', there are {monomials} of {L} inputs at {self.delay}"
                " steps of 'delay'"
            )
        *_, last = columns_of_degrees(L, self.degrees, self.constant).values()
        lin = BufferStructure("T", "B", L)
        dlin = BufferStructure(*lin.shape, is_backward_only=True)
        internals = {"lin": lin, "dlin": dlin}
        self.lags: list[int] = [k * self.stride for k in range(self.delay)]
        if self.delay > 1:
            context = self.lags[-1]
            internals["past"] = BufferStructure("T", "B", i, context_size=context)
        return {"default": BufferStructure("T", "B", last.stop)}, {}, internals

    def get_feature_names(self) -> list[str]:
        """What each output is, such as ``'x0(t) x1(t-2)^2'``; `x1` is an input."""
        ends = ["t" if lag == 0 else f"t-{lag}" for lag in self.lags]
        inputs = range(self.in_shapes["default"].feature_size)
        names = [f"x{k}({end})" for end in ends for k in inputs]
        products = [
            [(name, len([*same])) for name, same in itertools.groupby(factors)]
            for degree in self.degrees
            for factors in itertools.combinations_with_replacement(names, degree)
        ]
        found = [[n if p == 1 else f"{n}^{p}" for n, p in each] for each in products]
        return [*["1"] * self.constant, *names, *map(" ".join, found)]

    def parts(self, array: Any) -> Any:
        """The lags, and what there is of each in inputs (T, B, L)."""
        i = array.shape[2] // self.delay
        return [
            (lag, array[:, :, k * i : (k + 1) * i]) for k, lag in enumerate(self.lags)
        ]

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        h, internals = self.handler, buffers.internals
        (x,) = self.x.load(h, buffers)
        for lag, part in self.parts(internals.lin):
            if lag == 0:
                h.copy_to(x, part)
            else:
                copy_later(h, x, internals.past, lag, part)
        if self.delay > 1:
            keep_past(h, x, internals.past)
        lin, y = self.rows(buffers)
        h.nvar_forward(lin, y, self.degrees, self.constant)

    def backward_pass(self, buffers: BufferView) -> None:
        if "default" in self.unwanted:
            return
        h = self.handler
        (dx,), (lin, dy, dlin) = self.dx.load(h, buffers), self.delta_rows(buffers)
        h.nvar_backward(lin, dy, dlin, self.degrees, self.constant)
        for lag, part in self.parts(buffers.internals.dlin):
            end = max(0, dx.shape[0] - lag)
            if lag == 0:
                self.add_deltas("default", "copy_to", part, dx)
            elif end:
                h.add_tt(part[lag:], dx[:end], dx[:end])
        self.dx.store(h, buffers)

"""Letting deltas lie where others have lain before.

In a backward pass deltas are of use from the first layer that writes them to the last
one that reads them, which is most often the next. So in training they take turns in
memory that all share; where they lie is planned from how long they live. Who reads
deltas gets memory of their own for all of them, see `Backpropagation`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from brainstorm.structure.backward_plan import BackwardPlan
from brainstorm.structure.layer import Layer
from brainstorm.structure.layout import GRADIENTS, Hub

# Hubs begin at multiples of so many elements, which instructions like.
_ALIGNMENT = 64
# So many elements less are worth it, if they are also this many times the parameters,
# of which a copy is kept.
_LEAST = 2**19
_LEAST_RATIO = 2


class Life(NamedTuple):
    """When hubs of deltas are of use, by their indices.

    Attributes:
        spans: The first and the last layer that touch a hub, as numbers in the order in
            which layers run.
        within: Hubs that may lie where another one does, and that one.
    """

    spans: dict[int, tuple[int, int]]
    within: dict[int, int]


class Places(NamedTuple):
    """Where hubs of deltas lie in shared memory.

    Attributes:
        starts: The first element of each, by its index.
        size: Number of elements of the memory.
    """

    starts: dict[int, int]
    size: int


def lifetimes(
    layers: Mapping[str, Layer], hubs: Sequence[Hub], plan: BackwardPlan
) -> Life:
    """When the hubs of deltas are of use in a backward pass, but for the gradients.

    What has to be cleared before lives all the time.
    """
    number = {name: i for i, name in enumerate(plan.order)}
    spans = {}
    for i, hub in delta_hubs(hubs):
        owners = {path.partition(".")[0] for path in (*hub.sources, *hub.sinks)}
        touched = [number[name] for name in owners if name in number]
        if i in plan.to_clear:
            spans[i] = 0, len(number)
        else:
            spans[i] = min(touched, default=0), max(touched, default=0)
    alone = {hubs[i].sources[0]: i for i in spans if len(hubs[i].sources) == 1}
    within = {}
    for name in plan.order:
        # Subclasses may do otherwise.
        overwrites = vars(type(layers[name])).get("overwrites", {})
        for internal, output in overwrites.items():
            inner = alone.get(f"{name}.internals.{internal}")
            outer = alone.get(f"{name}.output_deltas.{output}")
            if inner is None or outer is None:
                continue
            is_last = spans[outer][1] == number[name]
            if is_last and hubs[inner].get_shape(2, 3) == hubs[outer].get_shape(2, 3):
                within[inner] = outer
    return Life(spans, within)


def can_share(hubs: Sequence[Hub]) -> bool:
    """Whether deltas can share memory: not where they are carried from step to step.

    Handlers are free to compute such deltas when they are read.
    """
    return not any(hub.context_size for _, hub in delta_hubs(hubs))


def delta_hubs(hubs: Sequence[Hub]) -> Iterator[tuple[int, Hub]]:
    """The hubs that only backward passes need, but that of gradients, by index."""
    for i, hub in enumerate(hubs):
        if hub.is_backward_only and i != GRADIENTS:
            yield i, hub


def place(
    life: Life,
    hubs: Sequence[Hub],
    time_size: int,
    batch_size: int,
) -> Places:
    """Find a place for each hub, where no other one is that lives at the same time.

    The largest come first, each to the lowest place that is free.
    """
    lives = life.spans
    sizes = {i: math.prod(hubs[i].get_shape(time_size, batch_size)) for i in lives}
    starts: dict[int, int] = {}
    total = 0
    apart = lives.keys() - life.within
    for i in sorted(apart, key=lambda i: (-sizes[i], i)):
        (first, last), start = lives[i], 0
        size = -(-sizes[i] // _ALIGNMENT) * _ALIGNMENT
        others = [j for j in starts if lives[j][0] <= last and first <= lives[j][1]]
        for j in sorted(others, key=starts.__getitem__):
            if starts[j] - start >= size:
                break
            start = max(start, starts[j] + -(-sizes[j] // _ALIGNMENT) * _ALIGNMENT)
        starts[i] = start
        total = max(total, start + size)
    starts |= {i: starts[j] for i, j in life.within.items()}
    return Places(starts, total)


def is_worth_it(
    places: Places, hubs: Sequence[Hub], time_size: int, batch_size: int
) -> bool:
    """Whether sharing saves much memory, and more than it takes."""
    apart = sum(
        math.prod(hub.get_shape(time_size, batch_size)) for _, hub in delta_hubs(hubs)
    )
    return apart - places.size >= max(_LEAST, _LEAST_RATIO * hubs[0].size)

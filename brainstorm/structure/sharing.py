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
from brainstorm.structure.layout import GRADIENTS, Hub

# Hubs begin at multiples of so many elements, which instructions like.
_ALIGNMENT = 64
# So many elements less are worth it, if they are also this many times the parameters,
# of which a copy is kept.
_LEAST = 2**19
_LEAST_RATIO = 2


class Places(NamedTuple):
    """Where hubs of deltas lie in shared memory.

    Attributes:
        starts: The first element of each, by its index.
        size: Number of elements of the memory.
    """

    starts: dict[int, int]
    size: int


def lifetimes(plan: BackwardPlan, hubs: Sequence[Hub]) -> dict[int, tuple[int, int]]:
    """The first and the last layer of a backward pass that touch a hub of deltas.

    Layers are numbered in the order in which they run. What has to be cleared before
    lives all the time.

    Returns:
        First and last layer by index of the hub, for all but the gradients.
    """
    number = {name: i for i, name in enumerate(plan.order)}
    found = {}
    for i, hub in delta_hubs(hubs):
        owners = {path.partition(".")[0] for path in (*hub.sources, *hub.sinks)}
        touched = [number[name] for name in owners if name in number]
        if i in plan.to_clear:
            found[i] = 0, len(number)
        else:
            found[i] = min(touched, default=0), max(touched, default=0)
    return found


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
    lives: Mapping[int, tuple[int, int]],
    hubs: Sequence[Hub],
    time_size: int,
    batch_size: int,
) -> Places:
    """Find a place for each hub, where no other one is that lives at the same time.

    The largest come first, each to the lowest place that is free.
    """
    sizes = {i: math.prod(hubs[i].get_shape(time_size, batch_size)) for i in lives}
    starts: dict[int, int] = {}
    total = 0
    for i in sorted(lives, key=lambda i: (-sizes[i], i)):
        (first, last), start = lives[i], 0
        size = -(-sizes[i] // _ALIGNMENT) * _ALIGNMENT
        others = [j for j in starts if lives[j][0] <= last and first <= lives[j][1]]
        for j in sorted(others, key=starts.__getitem__):
            if starts[j] - start >= size:
                break
            start = max(start, starts[j] + -(-sizes[j] // _ALIGNMENT) * _ALIGNMENT)
        starts[i] = start
        total = max(total, start + size)
    return Places(starts, total)


def is_worth_it(
    places: Places, hubs: Sequence[Hub], time_size: int, batch_size: int
) -> bool:
    """Whether sharing saves much memory, and more than it takes."""
    apart = sum(
        math.prod(hub.get_shape(time_size, batch_size)) for _, hub in delta_hubs(hubs)
    )
    return apart - places.size >= max(_LEAST, _LEAST_RATIO * hubs[0].size)

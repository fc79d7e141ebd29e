"""The states that the ranks of a training have each for itself, in one file.

At the top of a state stands what holds for any number of ranks: the context of whole
batches, the scores of all, and random numbers of rank 0. In ``ranks`` is what each one
needs to go on exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from brainstorm.data_iterators.holding import Share
from brainstorm.parallel.sharing import merged

State = dict[str, Any]

_OF_EACH = ("data", "epoch", "global", "handler")


def joined(states: Sequence[State]) -> State:
    """The state of a training from those of all of its ranks."""
    first = dict(states[0])
    first["ranks"] = [{name: state[name] for name in _OF_EACH} for state in states]
    parts = [state["context"] for state in states if state["context"]]
    first["context"] = {
        name: np.concatenate([part[name] for part in parts], axis=1)
        for name in (parts[0] if parts else ())
    }
    if first["epoch"] is not None:
        scores = merged([state["epoch"]["scores"] for state in states])
        first["epoch"] = {**first["epoch"], "scores": scores}
    return first


def part_of(state: Mapping[str, Any], rank: int, size: int) -> State:
    """The state with which a rank goes on, from that of a training.

    If there were as many ranks before, it is what this one had.
    """
    mine = dict(state)
    ranks = mine["ranks"]
    if len(ranks) == size:
        mine.update({name: ranks[rank][name] for name in _OF_EACH})
    elif mine["epoch"] is not None and rank > 0:
        mine["epoch"] = {**mine["epoch"], "scores": {}}
    mine["context"] = {
        name: _cut(array, Share(rank, size)) for name, array in mine["context"].items()
    }
    return mine


def _cut(context: np.ndarray, share: Share) -> np.ndarray:
    total = context.shape[1]
    return context[:, share.cut(slice(0, total), total)]

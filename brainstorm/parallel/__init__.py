"""Training on several processes at once, by MPI."""

from brainstorm.parallel.ranks import Ranks, world

__all__ = ["Ranks", "world"]

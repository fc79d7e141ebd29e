"""Tools for building, inspecting and evaluating networks, and for data."""

from brainstorm.tools.data import shuffle_data, split

__all__ = ["shuffle_data", "split"]

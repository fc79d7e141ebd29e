"""Tools for building, inspecting and evaluating networks, and for data."""

from brainstorm.tools.building import create_net_from_spec, get_in_out_layers
from brainstorm.tools.data import shuffle_data, split
from brainstorm.tools.evaluating import evaluate, extract, extract_and_save

__all__ = [
    "create_net_from_spec",
    "evaluate",
    "extract",
    "extract_and_save",
    "get_in_out_layers",
    "shuffle_data",
    "split",
]

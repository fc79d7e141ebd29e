"""Tools for building, inspecting and evaluating networks, and for data."""

from brainstorm.tools.building import create_net_from_spec, get_in_out_layers
from brainstorm.tools.data import shuffle_data, split
from brainstorm.tools.evaluating import evaluate, extract, extract_and_save
from brainstorm.tools.exchanging import load_safetensors, save_safetensors
from brainstorm.tools.inspecting import (
    draw_network,
    get_network_info,
    print_network_info,
)
from brainstorm.tools.onnx_export import export_onnx
from brainstorm.tools.profiling import profile

__all__ = [
    "create_net_from_spec",
    "draw_network",
    "evaluate",
    "export_onnx",
    "extract",
    "extract_and_save",
    "get_in_out_layers",
    "get_network_info",
    "load_safetensors",
    "print_network_info",
    "profile",
    "save_safetensors",
    "shuffle_data",
    "split",
]

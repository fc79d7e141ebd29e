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
from brainstorm.tools.measuring import (
    effective_spectral_radius,
    memory_capacity,
    nrmse,
    rsquare,
)
from brainstorm.tools.onnx_export import export_onnx
from brainstorm.tools.profiling import profile
from brainstorm.tools.series import (
    henon,
    logistic,
    lorenz,
    mackey_glass,
    mso,
    narma,
)

__all__ = [
    "create_net_from_spec",
    "draw_network",
    "effective_spectral_radius",
    "evaluate",
    "export_onnx",
    "extract",
    "extract_and_save",
    "get_in_out_layers",
    "get_network_info",
    "henon",
    "load_safetensors",
    "logistic",
    "lorenz",
    "mackey_glass",
    "memory_capacity",
    "mso",
    "narma",
    "nrmse",
    "print_network_info",
    "profile",
    "rsquare",
    "save_safetensors",
    "shuffle_data",
    "split",
]

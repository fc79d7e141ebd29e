"""Tools for building, inspecting and evaluating networks, and for data."""

from brainstorm.tools import (
    building,
    data,
    evaluating,
    exchanging,
    inspecting,
    measuring,
    series,
)
from brainstorm.tools.building import *  # noqa: F403
from brainstorm.tools.data import *  # noqa: F403
from brainstorm.tools.evaluating import *  # noqa: F403
from brainstorm.tools.exchanging import *  # noqa: F403
from brainstorm.tools.inspecting import *  # noqa: F403
from brainstorm.tools.measuring import *  # noqa: F403
from brainstorm.tools.onnx_export import export_onnx
from brainstorm.tools.profiling import profile
from brainstorm.tools.series import *  # noqa: F403
from brainstorm.utils import hinting

__all__ = [
    "export_onnx",
    "profile",
    *building.__all__,
    *data.__all__,
    *evaluating.__all__,
    *exchanging.__all__,
    *inspecting.__all__,
    *measuring.__all__,
    *series.__all__,
]

__getattr__ = hinting(__name__, __all__)

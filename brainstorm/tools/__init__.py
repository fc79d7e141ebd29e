"""Tools for building, inspecting and evaluating networks, and for data."""

from brainstorm.tools.blocks import *  # noqa: F403
from brainstorm.tools.building import *  # noqa: F403
from brainstorm.tools.data import *  # noqa: F403
from brainstorm.tools.evaluating import *  # noqa: F403
from brainstorm.tools.examples import *  # noqa: F403
from brainstorm.tools.exchanging import *  # noqa: F403
from brainstorm.tools.importing import *  # noqa: F403
from brainstorm.tools.inspecting import *  # noqa: F403
from brainstorm.tools.measuring import *  # noqa: F403
from brainstorm.tools.onnx_export import export_onnx as export_onnx
from brainstorm.tools.profiling import profile as profile
from brainstorm.tools.rates import *  # noqa: F403
from brainstorm.tools.series import *  # noqa: F403
from brainstorm.tools.viewing import *  # noqa: F403
from brainstorm.utils import offer

offer(vars())

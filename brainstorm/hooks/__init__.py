"""Hooks interact with a training: they monitor, save, modify and stop."""

from brainstorm.hooks import monitoring, saving, stopping
from brainstorm.hooks.base_hook import Hook
from brainstorm.hooks.monitoring import *  # noqa: F403
from brainstorm.hooks.progress import ProgressBar
from brainstorm.hooks.saving import *  # noqa: F403
from brainstorm.hooks.stopping import *  # noqa: F403
from brainstorm.hooks.visualizing import BokehVisualizer
from brainstorm.utils import hinting

__all__ = [
    "BokehVisualizer",
    "Hook",
    "ProgressBar",
    *monitoring.__all__,
    *saving.__all__,
    *stopping.__all__,
]

__getattr__ = hinting(__name__, __all__)

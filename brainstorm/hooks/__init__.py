"""Hooks interact with a training: they monitor, save, modify and stop."""

from brainstorm.hooks.averaging import *  # noqa: F403
from brainstorm.hooks.base_hook import Hook as Hook
from brainstorm.hooks.inspecting import Inspector as Inspector
from brainstorm.hooks.mlflow import Mlflow as Mlflow
from brainstorm.hooks.monitoring import *  # noqa: F403
from brainstorm.hooks.progress import ProgressBar as ProgressBar
from brainstorm.hooks.saving import *  # noqa: F403
from brainstorm.hooks.stopping import *  # noqa: F403
from brainstorm.hooks.tensorboard import TensorBoard as TensorBoard
from brainstorm.hooks.tracking import *  # noqa: F403
from brainstorm.hooks.visualizing import BokehVisualizer as BokehVisualizer
from brainstorm.utils import offer

offer(vars())

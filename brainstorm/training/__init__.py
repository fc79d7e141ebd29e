"""Training networks: the trainer, its steppers and schedules."""

from brainstorm.training.adaptive_steppers import *  # noqa: F403
from brainstorm.training.joining_steppers import *  # noqa: F403
from brainstorm.training.online_steppers import *  # noqa: F403
from brainstorm.training.readouts import *  # noqa: F403
from brainstorm.training.schedules import *  # noqa: F403
from brainstorm.training.steppers import *  # noqa: F403
from brainstorm.training.trainer import *  # noqa: F403
from brainstorm.utils import offer

offer(vars())

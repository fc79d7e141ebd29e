"""Training networks: the trainer, its steppers and schedules."""

from brainstorm.training import (
    adaptive_steppers,
    online_steppers,
    readouts,
    schedules,
    steppers,
    trainer,
)
from brainstorm.training.adaptive_steppers import *  # noqa: F403
from brainstorm.training.online_steppers import *  # noqa: F403
from brainstorm.training.readouts import *  # noqa: F403
from brainstorm.training.schedules import *  # noqa: F403
from brainstorm.training.steppers import *  # noqa: F403
from brainstorm.training.trainer import *  # noqa: F403
from brainstorm.utils import hinting

__all__ = [
    *adaptive_steppers.__all__,
    *online_steppers.__all__,
    *readouts.__all__,
    *schedules.__all__,
    *steppers.__all__,
    *trainer.__all__,
]

__getattr__ = hinting(__name__, __all__)

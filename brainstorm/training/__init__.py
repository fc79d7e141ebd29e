"""Training networks: the trainer, its steppers and schedules."""

from brainstorm.training.schedules import (
    DecreaseAfterEpoch,
    Exponential,
    Linear,
    MultiStep,
    Schedule,
)
from brainstorm.training.steppers import (
    ForwardStepper,
    MomentumStepper,
    NesterovStepper,
    SgdStepper,
    TrainingStepper,
)
from brainstorm.training.trainer import Trainer
from brainstorm.training.utils import run_network

__all__ = [
    "DecreaseAfterEpoch",
    "Exponential",
    "ForwardStepper",
    "Linear",
    "MomentumStepper",
    "MultiStep",
    "NesterovStepper",
    "Schedule",
    "SgdStepper",
    "Trainer",
    "TrainingStepper",
    "run_network",
]

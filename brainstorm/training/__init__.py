"""Training networks: the trainer, its steppers and schedules."""

from brainstorm.training.adaptive_steppers import (
    AdaDeltaStepper,
    AdaGradStepper,
    AdamStepper,
    AdamWStepper,
    RmsPropStepper,
)
from brainstorm.training.online_steppers import LmsStepper, RlsStepper
from brainstorm.training.readouts import RidgeFit, fit_ridge
from brainstorm.training.schedules import (
    Cosine,
    DecreaseAfterEpoch,
    Exponential,
    Linear,
    MultiStep,
    OneCycle,
    Schedule,
    Warmup,
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
    "AdaDeltaStepper",
    "AdaGradStepper",
    "AdamStepper",
    "AdamWStepper",
    "Cosine",
    "DecreaseAfterEpoch",
    "Exponential",
    "ForwardStepper",
    "Linear",
    "LmsStepper",
    "MomentumStepper",
    "MultiStep",
    "NesterovStepper",
    "OneCycle",
    "RidgeFit",
    "RlsStepper",
    "RmsPropStepper",
    "Schedule",
    "SgdStepper",
    "Trainer",
    "TrainingStepper",
    "Warmup",
    "fit_ridge",
    "run_network",
]

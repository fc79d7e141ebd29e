"""Hooks interact with a training: they monitor, save, modify and stop."""

from brainstorm.hooks.base_hook import Hook
from brainstorm.hooks.monitoring import (
    ModifyStepperAttribute,
    MonitorLayerDeltas,
    MonitorLayerGradients,
    MonitorLayerInOuts,
    MonitorLayerParameters,
    MonitorLoss,
    MonitorScores,
)
from brainstorm.hooks.progress import ProgressBar
from brainstorm.hooks.saving import (
    InfoUpdater,
    SaveBestNetwork,
    SaveCheckpoint,
    SaveLogs,
    SaveNetwork,
    load_logs,
)
from brainstorm.hooks.stopping import (
    EarlyStopper,
    StopAfterEpoch,
    StopAfterThresholdReached,
    StopOnNan,
    StopOnSigQuit,
)
from brainstorm.hooks.visualizing import BokehVisualizer

__all__ = [
    "BokehVisualizer",
    "EarlyStopper",
    "Hook",
    "InfoUpdater",
    "ModifyStepperAttribute",
    "MonitorLayerDeltas",
    "MonitorLayerGradients",
    "MonitorLayerInOuts",
    "MonitorLayerParameters",
    "MonitorLoss",
    "MonitorScores",
    "ProgressBar",
    "SaveBestNetwork",
    "SaveCheckpoint",
    "SaveLogs",
    "SaveNetwork",
    "StopAfterEpoch",
    "StopAfterThresholdReached",
    "StopOnNan",
    "StopOnSigQuit",
    "load_logs",
]

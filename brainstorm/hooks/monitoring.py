"""Hooks that log what goes on in the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from brainstorm.checks import check_number
from brainstorm.describable import of_library
from brainstorm.hooks import base_hook as base
from brainstorm.literals import Criterion
from brainstorm.scorers import Scorer
from brainstorm.structure.network import Network
from brainstorm.training.schedules import Schedule
from brainstorm.training.steppers import TrainingStepper
from brainstorm.training.utils import check_iterator, check_scorers, compute_scores
from brainstorm.utils import UnknownNameError, Unpack, ValidationError, choices

__all__ = [
    "ModifyStepperAttribute",
    "MonitorLayerDeltas",
    "MonitorLayerGradients",
    "MonitorLayerInOuts",
    "MonitorLayerParameters",
    "MonitorLoss",
    "MonitorScores",
    "ReduceOnPlateau",
]


# Where layers keep the structures of their views.
STRUCTURES = {
    "inputs": "in_shapes",
    "outputs": "out_shapes",
    "parameters": "parameter_shapes",
    "gradients": "parameter_shapes",
    "internals": "internal_shapes",
    "input_deltas": "in_shapes",
    "output_deltas": "out_shapes",
}


class MonitorLoss(base.Hook):
    """Log the losses of the network on a data set.

    The network runs as in use, not as in training: without dropout, for example.

    Args:
        iter_name: Name of the data iterator, as given to ``trainer.train``.
        name, timescale, interval, verbose: See :class:`.Hook`.
    """

    __undescribed__: ClassVar[set[str] | dict[str, Any]] = {"iter"}

    scorers: Sequence[Scorer] = ()

    @base.takes_common
    def __init__(self, iter_name: str, **common: Unpack[base.Common]):
        super().__init__(**common)
        self.iter_name = iter_name
        self.iter: Any = None

    def start(
        self,
        net: Network,
        stepper: TrainingStepper,
        verbose: bool | int,
        named_data_iters: Mapping[str, Any],
    ) -> None:
        super().start(net, stepper, verbose, named_data_iters)
        if self.iter_name not in named_data_iters:
            raise UnknownNameError(
                f"{self.__name__}: trainer.train got no data iterator named"
                f" {self.iter_name!r}; {choices(self.iter_name, named_data_iters)}"
            )
        self.iter = named_data_iters[self.iter_name]
        check_iterator(net, self.iter, self.iter_name)
        check_scorers(net, self.scorers, self.__name__)

    def __call__(
        self,
        epoch_nr: int,
        update_nr: int,
        net: Network,
        stepper: TrainingStepper,
        logs: dict[str, Any],
    ) -> Any:
        return compute_scores(net, self.iter, self.scorers)


class MonitorScores(MonitorLoss):
    """Log several scores on a data set, besides what :class:`MonitorLoss` logs.

    Args:
        iter_name, name, timescale, interval, verbose: See :class:`MonitorLoss`.
        scorers: The scorers to evaluate.
    """

    @base.takes_common
    def __init__(
        self, iter_name: str, scorers: Sequence[Scorer], **common: Unpack[base.Common]
    ):
        super().__init__(iter_name, **common)
        self.scorers = scorers


class _MonitorLayer(base.Hook):
    """Base class of hooks that log statistics of the buffers of a layer."""

    @base.takes_common
    def __init__(self, layer_name: str, **common: Unpack[base.Common]):
        kind = next(c for c in type(self).__mro__ if of_library(c)).__name__
        what = kind.replace("Layer", "")
        common["name"] = common.get("name") or f"{what}_{layer_name}"
        super().__init__(**common)
        self.layer_name = layer_name

    def start(
        self,
        net: Network,
        stepper: TrainingStepper,
        verbose: bool | int,
        named_data_iters: Mapping[str, Any],
    ) -> None:
        super().start(net, stepper, verbose, named_data_iters)
        if self.layer_name not in net.layers:
            raise UnknownNameError(
                f"{self.__name__}: the network has no layer {self.layer_name!r};"
                f" {choices(self.layer_name, net.layers)}"
            )

    def _log_view(self, net: Network, view: str) -> dict[str, dict[str, float]]:
        """Statistics of all buffers in one of the layer's views, by name."""
        return {name: _statistics(a) for name, a in self._arrays(net, view).items()}

    def _arrays(self, net: Network, view: str) -> dict[str, np.ndarray]:
        """All buffers in one of the layer's views, without carried states."""
        arrays = {}
        structures = getattr(net.layers[self.layer_name], STRUCTURES[view])
        for name in structures:
            values = net.get(f"{self.layer_name}.{view}.{name}")
            has_time = structures[name].shape[:1] == ("T",)
            arrays[name] = values[: net.time_size] if has_time else values
        return arrays


class _MonitorPasses(_MonitorLayer, base.NetworkReader):
    """Base class of those that log what the last training batch has left."""

    _are_deltas = False

    def __call__(
        self,
        epoch_nr: int,
        update_nr: int,
        net: Network,
        stepper: TrainingStepper,
        logs: dict[str, Any],
    ) -> Any:
        if update_nr == 0:
            return None
        log, exchange = self.seen(net, update_nr), net.backpropagation.exchange
        if exchange is None:
            return log
        return exchange.merged_statistics(log, self._are_deltas)


class MonitorLayerParameters(_MonitorLayer):
    """Log statistics of all parameters of a layer.

    For each parameter these are ``min``, ``avg`` and ``max`` of its values, and, where
    it has at least two dimensions, ``min_L2_norm``, ``avg_L2_norm`` and
    ``max_L2_norm`` over its rows, the incoming weights of each unit.

    Args:
        layer_name: Name of the layer.
        name: Default: the name of the class without ``Layer``, ``_`` and `layer_name`.
        timescale, interval, verbose: See :class:`.Hook`.
    """

    @np.errstate(all="ignore")
    def __call__(
        self,
        epoch_nr: int,
        update_nr: int,
        net: Network,
        stepper: TrainingStepper,
        logs: dict[str, Any],
    ) -> Any:
        log = {}
        for name, values in self._arrays(net, "parameters").items():
            log[name] = _statistics(values)
            if values.ndim > 1 and values.size:
                rows = values.reshape(len(values), -1).astype(np.float64)
                norms = _statistics(np.linalg.norm(rows, axis=1))
                log[name].update({f"{k}_L2_norm": v for k, v in norms.items()})
        return log


class MonitorLayerGradients(_MonitorLayer):
    """Log ``min``, ``avg`` and ``max`` of all gradients of a layer.

    They are those of the last training batch; before the first there are none.
    The arguments are those of :class:`MonitorLayerParameters`.
    """

    def __call__(
        self,
        epoch_nr: int,
        update_nr: int,
        net: Network,
        stepper: TrainingStepper,
        logs: dict[str, Any],
    ) -> Any:
        return self._log_view(net, "gradients") if update_nr > 0 else None


class MonitorLayerDeltas(_MonitorPasses):
    """Log ``min``, ``avg`` and ``max`` of all deltas of a layer.

    They are grouped into ``output_deltas``, ``input_deltas`` and ``internals``; the
    last are those that only the backward pass uses. They are those of the last
    training batch; before the first there are none.
    The arguments are those of :class:`MonitorLayerParameters`.
    """

    _are_deltas = True

    def start(
        self,
        net: Network,
        stepper: TrainingStepper,
        verbose: bool | int,
        named_data_iters: Mapping[str, Any],
    ) -> None:
        super().start(net, stepper, verbose, named_data_iters)
        net.ask_for_deltas()

    def read(self, net: Network) -> Any:
        structures = net.layers[self.layer_name].internal_shapes
        views = ("output_deltas", "input_deltas", "internals")
        log = {view: self._log_view(net, view) for view in views}
        for name in [n for n in log["internals"] if not structures[n].is_backward_only]:
            del log["internals"][name]
        return log


class MonitorLayerInOuts(_MonitorPasses):
    """Log ``min``, ``avg`` and ``max`` of all inputs and outputs of a layer.

    They are grouped into ``inputs`` and ``outputs``, and are those of the last
    training batch; before the first there are none.
    The arguments are those of :class:`MonitorLayerParameters`.
    """

    def read(self, net: Network) -> Any:
        return {view: self._log_view(net, view) for view in ("inputs", "outputs")}


@np.errstate(all="ignore")
def _statistics(values: np.ndarray) -> dict[str, float]:
    if values.size == 0:
        return {}
    return {
        "min": float(values.min()),
        "avg": float(values.mean(dtype=np.float64)),
        "max": float(values.max()),
    }


class ReduceOnPlateau(base.LogWatcher):
    """Lower the learning rate, or so, when a log has not improved for some time.

    Args:
        log_name, criterion: See :class:`.LogWatcher`.
        attr_name: Name of the attribute of the stepper.
        factor: What to multiply it with, between 0 and 1.
        patience: Number of entries without improvement at which to do so.
        minimum: The value to stop at.
        name, timescale, interval, verbose: See :class:`.Hook`.
    """

    initial_state: ClassVar[dict[str, Any]] = {
        "best_so_far": None,
        "waited": 0,
        "seen": 0,
    }
    __undescribed__: ClassVar[set[str] | dict[str, Any]] = initial_state
    waited: int

    @base.takes_common
    def __init__(
        self,
        log_name: str,
        criterion: Criterion = "min",
        attr_name: str = "learning_rate",
        factor: float = 0.1,
        patience: int = 10,
        minimum: float = 0.0,
        **common: Unpack[base.Common],
    ):
        super().__init__(log_name, criterion, **common)
        self.attr_name = attr_name
        self.factor: float = check_number(self, "factor", factor)
        if not 0 < factor < 1:
            raise ValidationError(
                f"{self.__name__}: factor has to be between 0 and 1, not {factor!r}"
            )
        self.patience: float = check_number(self, "patience", patience, low=1)
        self.minimum: float = check_number(self, "minimum", minimum, low=0)

    def start(
        self,
        net: Network,
        stepper: TrainingStepper,
        verbose: bool | int,
        named_data_iters: Mapping[str, Any],
    ) -> None:
        super().start(net, stepper, verbose, named_data_iters)
        _check_attribute(self, stepper)

    def __call__(
        self,
        epoch_nr: int,
        update_nr: int,
        net: Network,
        stepper: TrainingStepper,
        logs: dict[str, Any],
    ) -> Any:
        for improved in self.follow(logs):
            self.waited = 0 if improved else self.waited + 1
            if self.waited >= self.patience:
                self.waited = 0
                before = getattr(stepper, self.attr_name)
                after = max(before * self.factor, min(before, self.minimum))
                setattr(stepper, self.attr_name, after)
                self.message(f"{self.attr_name} is {after:.4g} from now on.")


class ModifyStepperAttribute(base.Hook):
    """Change an attribute of the stepper, such as the learning rate, by a schedule.

    The new value is logged. With the timescale ``'update'`` it is printed only if
    `verbose` is True. A value that the stepper itself would not take, such as a
    momentum of 1, ends the training with an error.

    Args:
        schedule: Computes the value; see :mod:`brainstorm.training.schedules`.
        attr_name: Name of the attribute.
        timescale, interval, name, verbose: See :class:`.Hook`.
    """

    @base.takes("timescale", "interval", "name", "verbose")
    def __init__(
        self,
        schedule: Schedule,
        attr_name: str = "learning_rate",
        **common: Unpack[base.Common],
    ):
        super().__init__(**common)
        if self.verbose is None and self.timescale == "update":
            self.verbose: bool | int | None = False
        if not callable(schedule):
            raise ValidationError(
                f"{self.__name__}: schedule has to be a Schedule, not {schedule!r}"
            )
        self.schedule = schedule
        self.attr_name = attr_name

    def start(
        self,
        net: Network,
        stepper: TrainingStepper,
        verbose: bool | int,
        named_data_iters: Mapping[str, Any],
    ) -> None:
        super().start(net, stepper, verbose, named_data_iters)
        _check_attribute(self, stepper)

    def __call__(
        self,
        epoch_nr: int,
        update_nr: int,
        net: Network,
        stepper: TrainingStepper,
        logs: dict[str, Any],
    ) -> Any:
        value = self.schedule(
            epoch_nr, update_nr, self.timescale, self.interval, net, stepper, logs
        )
        check_number(self, self.attr_name, value)
        if hasattr(stepper, "checked"):
            stepper.checked(self.attr_name, value)
        setattr(stepper, self.attr_name, value)
        return value


def _check_attribute(hook: Any, stepper: Any) -> None:
    if not hasattr(stepper, hook.attr_name):
        known = [n for n in vars(stepper) if not n.startswith("_")]
        raise ValidationError(
            f"{hook.__name__}: {type(stepper).__name__} has no attribute"
            f" {hook.attr_name!r}; {choices(hook.attr_name, known)}"
        )

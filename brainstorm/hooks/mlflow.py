"""A hook that makes a training a run of MLflow."""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

from brainstorm.hooks.base_hook import Common, takes
from brainstorm.hooks.tracking import Entry, Tracker, number_of
from brainstorm.structure.network import Network
from brainstorm.training.steppers import TrainingStepper
from brainstorm.utils import Unpack, ValidationError, import_extra

__all__ = ["Mlflow"]


class Mlflow(Tracker):
    """Log a training as a run of `MLflow <https://mlflow.org>`_.

    Numbers are metrics, over epochs, or over updates for hooks of updates; of anything
    else the last value is a tag. The arguments of the stepper are the parameters of
    the run, and the table of the network is its artifact ``network.txt``.

    A training that is loaded from a checkpoint goes on with its run. What that had got
    after the checkpoint is not logged again.

    Args:
        experiment: Name of the experiment; it is made if there is none.
        run_name: Name of the run. By default MLflow makes one up.
        tracking_uri: Where MLflow keeps its data, such as ``'sqlite:///mlflow.db'`` or
            the address of a server. By default what MLflow has been set to.
        name: See :class:`.Hook`.

    Raises:
        ImportError: mlflow is not installed.
        ValidationError: An argument does not fit.
    """

    __undescribed__: ClassVar[set[str] | dict[str, Any]] = {"run_id"}
    initial_state: ClassVar[dict[str, Any]] = {**Tracker.initial_state, "run_id": None}
    run_id: str | None

    SECONDS_BETWEEN_SENDS = 2.0
    MOST_METRICS = 1000  # in a request
    LONGEST_TAG = 5000

    _client: Any = None
    _error_before: BaseException | None = None

    @takes("name")
    def __init__(
        self,
        experiment: str = "Default",
        run_name: str | None = None,
        tracking_uri: str | None = None,
        **common: Unpack[Common],
    ):
        super().__init__(**common)
        for argument, value in [
            ("experiment", experiment),
            ("run_name", run_name or "unnamed"),
            ("tracking_uri", tracking_uri or "default"),
        ]:
            if not isinstance(value, str) or not value:
                raise ValidationError(
                    f"{self.__name__}: {argument} has to be a string, not {value!r}"
                )
        import_extra("mlflow.tracking", "Mlflow", "mlflow")
        self.experiment = experiment
        self.run_name = run_name
        self.tracking_uri = tracking_uri

    def reset(self) -> None:
        super().reset()
        self._metrics: list[tuple[str, float, int, int]] = []
        self._tags: dict[str, str] = {}
        self._last_steps: dict[str, int] = {}
        self._sent = -math.inf

    def start(
        self,
        net: Network,
        stepper: TrainingStepper,
        verbose: bool | int,
        named_data_iters: Mapping[str, Any],
    ) -> None:
        super().start(net, stepper, verbose, named_data_iters)
        self._error_before = sys.exc_info()[1]

    def write(self, entries: list[Entry]) -> None:
        """Keep entries until it is time to send them."""
        if self._client is None:
            self._connect()
        now = int(1000 * time.time())
        for name, step, value in entries:
            number = number_of(value)
            key = _key(name)
            if number is None:
                self._tags[key] = str(value)[: self.LONGEST_TAG]
            elif step > self._last_step(key):
                self._metrics.append((key, number, now, step))
        if time.monotonic() - self._sent >= self.SECONDS_BETWEEN_SENDS:
            self._send()

    def get_state(self) -> dict[str, Any]:
        self._send()
        return super().get_state()

    def stop(self) -> None:
        if self._client is None:
            return
        error = sys.exc_info()[1]
        status = "FINISHED"
        if error is not None and error is not self._error_before:
            killed = isinstance(error, KeyboardInterrupt)
            status = "KILLED" if killed else "FAILED"
        self._send()
        self._try(lambda: self._client.set_terminated(self.run_id, status))
        self._client = None

    def __getstate__(self) -> dict[str, Any]:
        left_out = ("_client", "_net", "_error_before")
        return {k: v for k, v in vars(self).items() if k not in left_out}

    def _connect(self) -> None:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        try:
            self._client = MlflowClient(self.tracking_uri)
            self._begin_run()
        except MlflowException as error:
            self._client = None
            raise ValidationError(f"{self.__name__}: {error}") from error

    def _begin_run(self) -> None:
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException

        client = self._client
        if self.run_id is not None:
            try:
                client.update_run(self.run_id, status="RUNNING")
                return
            except MlflowException:  # it is gone, or was never there
                self.run_id, self._is_restored = None, False
        known = client.get_experiment_by_name(self.experiment)
        experiment_id = (
            client.create_experiment(self.experiment)
            if known is None
            else known.experiment_id
        )
        run = client.create_run(experiment_id, run_name=self.run_name)
        self.run_id = run.info.run_id
        params = [Param(key, str(value)) for key, value in self.settings().items()]
        client.log_batch(self.run_id, params=params)
        client.log_text(self.run_id, str(self._net), "network.txt")

    def _last_step(self, key: str) -> int:
        """The last step that the run has got already from before a checkpoint."""
        if not self._is_restored:
            return -1
        if key not in self._last_steps:
            history = self._client.get_metric_history(self.run_id, key)
            self._last_steps[key] = max((m.step for m in history), default=-1)
        return self._last_steps[key]

    def _send(self) -> None:
        from mlflow.entities import Metric, RunTag

        if self._client is None:
            return
        self._sent = time.monotonic()
        while self._metrics or self._tags:
            metrics = [Metric(*m) for m in self._metrics[: self.MOST_METRICS]]
            tags = [RunTag(key, text) for key, text in self._tags.items()]
            if not self._try(
                lambda m=metrics, t=tags: self._client.log_batch(
                    self.run_id, metrics=m, tags=t
                )
            ):
                return
            del self._metrics[: self.MOST_METRICS]
            self._tags.clear()

    def _try(self, action: Any) -> bool:
        """Whether something worked; a server that is away does not stop a training."""
        from mlflow.exceptions import MlflowException

        try:
            action()
        except MlflowException as error:
            warnings.warn(f"{self.__name__}: {error}", stacklevel=2)
            return False
        return True


def _key(name: str) -> str:
    """A name that MLflow takes."""
    return "".join(c if c.isalnum() or c in "_-./ :" else "_" for c in name)[:250]

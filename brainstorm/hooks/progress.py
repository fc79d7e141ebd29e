"""The progress bar."""

from __future__ import annotations

import importlib
import sys
import time
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

from tqdm import TqdmWarning, tqdm

from brainstorm.hooks.base_hook import NetworkReader
from brainstorm.structure.network import Network
from brainstorm.training.steppers import TrainingStepper
from brainstorm.training.utils import is_terminal

__all__ = ["ProgressBar"]


class ProgressBar(NetworkReader):
    """Show how far each epoch is, with the time left, the rate and the loss.

    On a terminal the bar goes to the standard error stream. In a notebook it is a
    widget, if ipywidgets is installed (the extra ``notebook``). Elsewhere, or where the
    trainer is not verbose, there is none. Where the trainer prints a line for each
    epoch that line takes the place of the bar.
    """

    initial_state: ClassVar[dict[str, Any]] = {"epoch_nr": 0, "nr_batches": 0}
    __undescribed__: ClassVar[set[str] | dict[str, Any]] = initial_state
    __default_values__: ClassVar[dict[str, Any]] = {"timescale": "update"}
    epoch_nr: int
    nr_batches: int

    REDRAW_SECONDS = 0.1

    def __init__(self) -> None:
        super().__init__(timescale="update")
        self._is_shown = self._is_left = False
        self._length: int | None = None
        self._bar: tqdm | None = None
        self._drawn = 0.0

    def start(
        self,
        net: Network,
        stepper: TrainingStepper,
        verbose: bool | int,
        named_data_iters: Mapping[str, Any],
    ) -> None:
        super().start(net, stepper, verbose, named_data_iters)
        kind = _kind_of_bar() if self.run_verbosity else None
        self._is_shown = kind is not None
        # Beside a line of the table there is nothing new in the bar.
        beside_table = is_terminal(sys.stdout) or kind is not _Bar
        self._is_left = verbose != 1 or not beside_table
        data = named_data_iters.get("training_data_iter")
        self._length = getattr(data, "length", None)

    def __call__(
        self,
        epoch_nr: int,
        update_nr: int,
        net: Network,
        stepper: TrainingStepper,
        logs: dict[str, Any],
    ) -> Any:
        if update_nr == 0:
            return
        self.nr_batches = self.nr_batches + 1 if epoch_nr == self.epoch_nr else 1
        self.epoch_nr = epoch_nr
        if not self._is_shown:
            return
        kind = _kind_of_bar() if self._bar is None else None
        if kind is not None:
            self._drawn = 0.0
            # Opened after the first update, so that one does not count for the rate.
            self._bar = kind(
                desc=f"Epoch {self.epoch_nr}",
                total=self._length,
                initial=self.nr_batches,
                unit="batch",
                mininterval=0,
                leave=self._is_left,
                file=sys.stderr,
            )
        is_full = self.nr_batches == self._length
        if is_full or time.monotonic() - self._drawn >= self.REDRAW_SECONDS:
            self._draw(self.seen(net, update_nr))
        if is_full:
            self.stop()

    def read(self, net: Network) -> Any:
        return net.get_loss_values()["total_loss"]

    def end_epoch(self, net: Network, update_nr: int) -> None:
        """Leave the bar as it is now that the epoch is over."""
        if self._bar is not None:
            self._draw(self.seen(net, update_nr))
            self.stop()

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.update(self.nr_batches - self._bar.n)
            self._bar.close()
            self._bar = None

    def _draw(self, loss: float) -> None:
        if self._bar is None:
            return
        self._bar.set_postfix_str(f"loss={loss:.4g}", refresh=False)
        self._bar.update(self.nr_batches - self._bar.n)
        self._drawn = time.monotonic()


class _Bar(tqdm):
    # Each update of the bar draws it, so it needs no thread that watches it.
    monitor_interval = 0


def _kind_of_bar() -> type[tqdm] | None:
    """The kind of bar that can be seen here, if any."""
    with warnings.catch_warnings():
        # It imports ipywidgets, which is optional, or says that it is missing.
        warnings.simplefilter("ignore", TqdmWarning)
        kind = importlib.import_module("tqdm.autonotebook").tqdm
    if kind is not tqdm:
        return type("Widget", (kind,), {"monitor_interval": 0})
    return _Bar if is_terminal(sys.stderr) else None

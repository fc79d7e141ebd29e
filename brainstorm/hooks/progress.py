"""The progress bar."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

from brainstorm.hooks.base_hook import Hook

__all__ = ["ProgressBar"]


class ProgressBar(Hook):
    """Show how far each epoch is, with the loss of the batch and the rate.

    The bar goes to the standard error stream. It shows nothing where that is no
    terminal, or where the trainer is not verbose.
    """

    reads_deltas = False

    __default_values__ = {"timescale": "update"}

    REDRAW_SECONDS = 0.1

    def __init__(self) -> None:
        super().__init__(timescale="update")
        self._is_shown = False
        self._length: int | None = None
        self._bar: _Bar | None = None
        self._epoch_nr = 0
        self._pending = 0
        self._drawn = 0.0

    def start(self, net, stepper, verbose, named_data_iters):
        """Find out whether and what to show."""
        super().start(net, stepper, verbose, named_data_iters)
        is_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._is_shown = self.run_verbosity and is_terminal
        self._length = getattr(named_data_iters["training_data_iter"], "length", None)

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        """Move the bar by one update."""
        if not self._is_shown or update_nr == 0:
            return
        if self._bar is None or epoch_nr != self._epoch_nr:
            self._open(epoch_nr)
        else:
            self._pending += 1
        is_full = self._bar.n + self._pending == self._length
        now = time.monotonic()
        if is_full or now - self._drawn >= self.REDRAW_SECONDS:
            loss = net.get_loss_values()["total_loss"]
            self._bar.set_postfix_str(f"loss={loss:.4g}", refresh=False)
            self._bar.update(self._pending)
            self._pending = 0
            self._drawn = now
        if is_full:
            self.stop()

    def stop(self):
        """Leave the bar as it is, and go on below it."""
        if self._bar is not None:
            self._bar.update(self._pending)
            self._bar.close()
            self._bar = None

    def _open(self, epoch_nr: int) -> None:
        self.stop()
        self._epoch_nr = epoch_nr
        self._pending = 0
        self._drawn = 0.0
        # Opened after the first update, so that one does not count for the rate.
        self._bar = _Bar(
            desc=f"Epoch {epoch_nr}",
            total=self._length,
            initial=1,
            unit="batch",
            mininterval=0,
            file=sys.stderr,
        )


class _Bar(tqdm):
    # Each update of the bar draws it, so it needs no thread that watches it.
    monitor_interval = 0

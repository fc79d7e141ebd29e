"""What a trainer prints: a line for each epoch, or all as it comes."""

from __future__ import annotations

import contextvars
import itertools
import math
import numbers
import os
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from brainstorm.scorers import Scorer
from brainstorm.training.utils import ROLLING, is_terminal, leaves, print_log, report

LEAST_WIDTH = 10
"""Of a column; all numbers fit."""
WIDTH_ELSEWHERE = 100
"""Of what is printed where there is no terminal."""
GAP = "  "
BEST = "\x1b[32m{}\x1b[0m"

# The table of the training around this one, if a hook trains a network.
_around: contextvars.ContextVar[EpochTable | None] = contextvars.ContextVar(
    "table", default=None
)


class Report:
    """Prints everything at once.

    It is a context manager, for the time of a training.

    Args:
        has_titles: Whether to say when an epoch begins.
    """

    def __init__(self, has_titles: bool = False):
        self._has_titles = has_titles

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def begin(self, title: str) -> None:
        """An epoch begins."""
        if self._has_titles:
            report(f"\n{'- ' * 8}{title}{' -' * 8}")

    def log(self, name: str, value: Any, verbose: int) -> None:
        """Show what a hook has returned, if it is verbose."""
        if verbose:
            print_log(name, value)

    def say(self, text: str) -> None:
        """Show a text."""
        report(text)

    def end_epoch(self, stepper: Any) -> None:
        """All updates of an epoch are done."""

    def end_round(self, epoch_nr: int) -> None:
        """All hooks have been called that were due at the end of an epoch."""


class EpochTable(Report):
    """Prints a line for each epoch, once all its hooks have been called.

    Of several entries of a log within an epoch, the last one counts. A log that comes
    up late gets a column then, under a new header.

    Args:
        expected: Paths ``(hook, log)`` of logs that will come.
        criteria: Whether ``'min'`` or ``'max'`` is best, by path. The best values so
            far have a colour, on a terminal that shows some.
        logs: What was logged before.
        has_rate: Whether the stepper has a learning rate.
        hidden: Names of hooks that have no columns.
    """

    def __init__(
        self,
        expected: Iterable[tuple[str, str]],
        criteria: Mapping[tuple[str, str], str],
        logs: Mapping[str, Any],
        has_rate: bool,
        hidden: Iterable[str],
    ):
        super().__init__()
        self._criteria, self._hidden = criteria, set(hidden)
        self._columns = dict.fromkeys(expected)
        self._best: dict[tuple[str, str], float] = {}
        for name, log in logs.items():
            for path, entries in leaves(name, log):
                for value in entries if path in criteria else ():
                    self._is_best(path, value)
        self._row: dict[tuple[str, str], Any] = {}
        self._texts: list[str] = []
        self._has_rate, self._rate = has_rate, "-"
        self._header = ""
        self._since = time.perf_counter()
        self._outer: EpochTable | None = None

    def __enter__(self) -> Report:
        self._outer = _around.get()
        _around.set(self)
        return self

    def __exit__(self, *error: Any) -> None:
        _around.set(self._outer)
        self._say_all()

    def log(self, name: str, value: Any, verbose: int) -> None:
        """Keep a log for the line of the epoch."""
        if verbose == 2:
            print_log(name, value)
        elif verbose and name not in self._hidden:
            self._row.update(leaves(name, value))

    def say(self, text: str) -> None:
        """Show a text below the line of the epoch."""
        self._texts.append(text)

    def end_epoch(self, stepper: Any) -> None:
        """Note the learning rate of its last update."""
        self._rate = f"{getattr(stepper, 'learning_rate', math.nan):.4g}"

    def end_round(self, epoch_nr: int) -> None:
        """Print the line of an epoch, or of the time before the training."""
        if self._row:
            self._print_row(epoch_nr)
        self._row.clear()
        self._since = time.perf_counter()
        self._say_all()

    def _say_all(self) -> None:
        for text in self._texts:
            report(text)
        self._texts.clear()

    def _print_row(self, epoch_nr: int) -> None:
        self._columns.update(dict.fromkeys(self._row))
        last = {"seconds": f"{time.perf_counter() - self._since:.2f}"}
        if self._has_rate:
            last = {"learning_rate": "-" if epoch_nr == 0 else self._rate, **last}
        layout = Layout(self._columns, [*last], _width())
        if layout.header != self._header:
            self._header = layout.header
            rest = layout.about_rest()
            report("\n".join(["", *([rest] if rest else []), layout.header]))
        texts = {path: text_of(value) for path, value in self._row.items()}
        cells = layout.line(str(epoch_nr), texts, [*last.values()])
        best = {path for path, value in self._row.items() if self._is_best(path, value)}
        if _has_colours():
            for i, path in enumerate(layout.paths, start=1):
                cells[i] = BEST.format(cells[i]) if path in best else cells[i]
        report(GAP.join(cells))
        outer = self._outer
        while outer is not None:  # its next line is not under its header any more
            outer._header, outer = "", outer._outer

    def _is_best(self, path: tuple[str, str], value: Any) -> bool:
        criterion = self._criteria.get(path)
        if criterion is None or not isinstance(value, int | float | np.floating):
            return False
        if value != value:
            return False
        number, best = float(value), self._best.get(path)
        if best is None or (number < best if criterion == "min" else number > best):
            self._best[path] = number
            return True
        return False


class Layout:
    """Where the columns of a table are.

    Names are shortened, as far as is necessary, for all columns to fit. If that is not
    enough the last ones are left out.

    Args:
        columns: Paths ``(hook, log)``.
        last: Names of the columns after these.
        width: Of the table, in letters.
    """

    widths: list[int]

    def __init__(
        self, columns: Iterable[tuple[str, str]], last: Sequence[str], width: int
    ):
        groups: dict[str, list[tuple[str, str]]] = {}
        for path in columns:
            groups.setdefault(path[0], []).append(path)
        self.paths: list[tuple[str, str]] = [
            path for group in groups.values() for path in group
        ]
        self.left_out: list[tuple[str, str]] = []
        cap = max(LEAST_WIDTH, *(len(n) for p in [*self.paths, last] for n in p))
        while self._arrange(last, cap) > width:
            if cap > LEAST_WIDTH:
                cap -= 1
            elif len(self.paths) > 1:
                self.left_out.insert(0, self.paths.pop())
            else:
                break

    def _arrange(self, last: Sequence[str], cap: int) -> int:
        """Make the header of names of at most `cap` letters; returns its width."""
        labels, self.widths = ["epoch"], [len("epoch")]
        above = [" " * len("epoch")]
        for group, paths in itertools.groupby(self.paths, lambda path: path[0]):
            own = [label for _, label in paths]
            title = self._title(group)
            if own == [""]:  # the hook logs a plain value
                own, title = [group], ""
            own = [shortened(label, cap) for label in own]
            widths = [max(LEAST_WIDTH, len(label)) for label in own]
            title = shortened(title, max(cap, _total(widths)))
            widths[-1] += max(0, len(title) - _total(widths))
            above.append(title.center(_total(widths)))
            labels += own
            self.widths += widths
        own = [shortened(label, cap) for label in last]
        labels += own
        self.widths += map(len, own)
        lines = [
            GAP.join(above),
            GAP.join(map(str.rjust, labels, self.widths)),
            GAP.join("-" * width for width in self.widths),
        ]
        self.header: str = "\n".join(line.rstrip() for line in lines)
        return _total(self.widths)

    def _title(self, group: str) -> str:
        is_free = all(hook != "training" for hook, _ in self.paths)
        return "training" if group == ROLLING and is_free else group

    def about_rest(self) -> str:
        """What was left out, in words; empty if nothing was."""
        if not self.left_out:
            return ""
        first = ".".join(filter(None, self.left_out[0]))
        number = len(self.left_out) - 1
        return f"(no room for {first}{f' and {number} more' if number else ''})"

    def line(
        self, first: str, cells: Mapping[tuple[str, str], str], last: Sequence[str]
    ) -> list[str]:
        """The padded cells of a line of the table."""
        texts = [first, *(cells.get(path, "-") for path in self.paths), *last]
        return [
            (text if len(text) <= width else f"{text[: width - 2]}..").rjust(width)
            for text, width in zip(texts, self.widths, strict=True)
        ]


def text_of(value: Any) -> str:
    """A value in one line; a number in at most `LEAST_WIDTH` letters."""
    if value is None:
        return "-"
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, numbers.Integral) and len(str(value)) <= LEAST_WIDTH:
        return str(value)
    if isinstance(value, numbers.Real):
        try:
            return _text_of_number(float(value))
        except OverflowError:  # an integer
            pass
    text = " ".join(str(value).split())
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _text_of_number(value: float) -> str:
    size = abs(value)
    if not math.isfinite(value):
        return str(value)
    if size == 0 or 1e-3 <= size < 1e3:
        return f"{value:.4f}"
    if 1e3 <= size < 1e5:
        return f"{value:.2f}"
    return f"{value:.2e}" if 1e-99 < size < 1e99 else f"{value:.1e}"


def shortened(text: str, width: int) -> str:
    """A text of at most this width: of a long one the beginning and the end.

    >>> shortened('MonitorLayerParameters_Hidden', 13)
    'Monitor..dden'
    """
    if len(text) <= width:
        return text
    end = (width - 2) // 3 + 1
    return f"{text[: width - 2 - end]}..{text[-end:]}"


def report_of(trainer: Any, net: Any, scores: Iterable[str]) -> Report:
    """What shows the training of a network, once its hooks have been started.

    Args:
        trainer: The trainer.
        net: The network.
        scores: Names of the losses and scores of the training batches.
    """
    if trainer.verbose != 1:
        return Report(trainer.verbose == 2)
    criteria = _criteria(ROLLING, net, trainer.train_scorers)
    for name, hook in trainer.hooks.items():
        if isinstance(getattr(hook, "scorers", None), list | tuple):
            criteria |= _criteria(name, net, hook.scorers)
    silent = {n for n, hook in trainer.hooks.items() if hook.verbose in (False, 2)}
    expected = [(ROLLING, score) for score in scores]
    for name in trainer.logs:
        if name in trainer.hooks and name not in silent:
            expected += [path for path, _ in leaves(name, trainer.logs[name])]
    # What these log has a column of its own.
    rates = {
        name
        for name, hook in trainer.hooks.items()
        if getattr(hook, "attr_name", "") == "learning_rate"
    }
    expected = [path for path in expected if path[0] not in rates]
    has_rate = hasattr(trainer.stepper, "learning_rate")
    return EpochTable(expected, criteria, trainer.logs, has_rate, rates)


def _criteria(
    name: str, net: Any, scorers: Iterable[Scorer]
) -> dict[tuple[str, str], str]:
    losses = [n for n, la in net.layers.items() if getattr(la, "is_loss", False)]
    known: dict[tuple[str, str], str] = {
        (name, loss): "min" for loss in ["total_loss", *losses]
    }
    for scorer in scorers:
        criterion = getattr(scorer, "criterion", None)
        if criterion is not None:
            known[name, scorer.__name__] = criterion
    return known


def _total(widths: list[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _width() -> int:
    if not is_terminal(sys.stdout):
        return WIDTH_ELSEWHERE
    return shutil.get_terminal_size((WIDTH_ELSEWHERE, 24)).columns - 1


def _has_colours() -> bool:
    """Whether the standard output shows colours, and is asked to; see no-color.org."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    knows_them = os.name != "nt" or "WT_SESSION" in os.environ
    return knows_them and is_terminal(sys.stdout)

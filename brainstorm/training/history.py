"""The logs of a training by epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brainstorm.structure.tables import Table
from brainstorm.training.utils import ROLLING, leaves
from brainstorm.utils import UnknownNameError, choices, import_extra, new_figure

__all__ = ["History"]


class History(list[dict[str, Any]]):
    """A row for each epoch: a dict of what was logged at its end.

    >>> history = History([{"epoch": 1, "valid.loss": 0.5}, {"epoch": 2}])
    >>> history.columns
    ['epoch', 'valid.loss']
    >>> print(history)
    epoch  valid.loss
        1         0.5
        2           -
    """

    @property
    def columns(self) -> list[str]:
        """The names of all entries, in the order in which they come up."""
        return list(dict.fromkeys(name for row in self for name in row))

    def to_frame(self) -> Any:
        """The rows as a DataFrame, with the epochs as its index.

        Raises:
            ImportError: pandas is not installed.
        """
        pandas = import_extra("pandas", "History.to_frame", "examples")
        return pandas.DataFrame(self, columns=self.columns).set_index("epoch")

    def plot(self, *names: str) -> Any:
        """Draw entries over epochs.

        Args:
            *names: Their names. Default: all numbers.

        Returns:
            The figure of matplotlib.

        Raises:
            ImportError: matplotlib is not installed.
            KeyError: There is no entry of such a name.
        """
        figure = new_figure("History.plot")
        axes = figure.add_subplot(xlabel="epoch")
        columns = self.columns
        for name in names or columns[1:]:
            if name not in columns:
                raise UnknownNameError(
                    f"nothing logs {name!r}; {choices(name, columns)}"
                )
            points = [
                (row["epoch"], row[name])
                for row in self
                if isinstance(row.get(name), int | float)
            ]
            if points:
                axes.plot(*zip(*points, strict=True), label=name, marker=".")
        if axes.lines:
            axes.locator_params(axis="x", integer=True)
            axes.legend()
        return figure

    def _repr_html_(self) -> str:
        """The table, for notebooks."""
        return Table(self._cells(), 0, has_sums=False).as_html()

    def _cells(self) -> list[tuple[str, ...]]:
        columns = self.columns
        rows = [tuple(_text(row.get(name)) for name in columns) for row in self]
        return [tuple(columns), *rows]

    def __str__(self) -> str:
        rows = self._cells()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(
                cell.rjust(width) for cell, width in zip(row, widths, strict=True)
            )
            for row in rows
        )


def history_of(
    logs: Mapping[str, Any], hooks: Mapping[str, Any], epochs: int
) -> History:
    """What was logged once in an epoch, by epochs.

    Args:
        logs: The logs of a trainer.
        hooks: Its hooks by name. Those of updates are left out.
        epochs: Number of the last epoch.
    """
    rows = {nr: {"epoch": nr} for nr in range(epochs + 1)}
    for name, log in logs.items():
        hook: Any = hooks.get(name)
        if name != ROLLING and getattr(hook, "timescale", None) != "epoch":
            continue
        first, interval = (1, 1) if name == ROLLING else (0, hook.interval)
        due = range(first, epochs + 1, interval)
        for (_, below), entries in leaves(name, log):
            path = f"{name}.{below}" if below else name
            # A hook that was added late, or logs nothing at first, has the last ones.
            for nr, value in zip(
                due[max(0, len(due) - len(entries)) :], entries, strict=False
            ):
                rows[nr][path] = value
    return History(row for row in rows.values() if len(row) > 1)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)

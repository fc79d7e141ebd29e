"""Tables, as text for terminals and as HTML for notebooks."""

from __future__ import annotations

import html
import itertools
from typing import NamedTuple


class Table(NamedTuple):
    """A table of texts, which can have several lines.

    Attributes:
        rows: The rows; the first one has the titles, the last one the sums.
        nr_texts: Number of leading columns that are no numbers.
        has_sums: Whether the last row has sums.
    """

    rows: list[tuple[str, ...]]
    nr_texts: int
    has_sums: bool = True

    def as_text(self) -> str:
        """The table in aligned columns."""
        cells = [[cell.split("\n") for cell in row] for row in self.rows]
        widths = [
            max(map(len, itertools.chain(*column)))
            for column in zip(*cells, strict=True)
        ]
        rule = "  ".join("-" * width for width in widths)
        lines = []
        for i, row in enumerate(cells):
            if i == 1 or (self.has_sums and i == len(cells) - 1):
                lines.append(rule)
            for parts in itertools.zip_longest(*row, fillvalue=""):
                padded = [
                    part.ljust(width) if column < self.nr_texts else part.rjust(width)
                    for column, (part, width) in enumerate(
                        zip(parts, widths, strict=True)
                    )
                ]
                lines.append("  ".join(padded).rstrip())
        return "\n".join(lines)

    def as_html(self) -> str:
        """The table as a ``<table>``."""
        rows = []
        for i, row in enumerate(self.rows):
            is_sum = self.has_sums and i == len(self.rows) - 1
            tag = "th" if i == 0 or is_sum else "td"
            cells = []
            for column, cell in enumerate(row):
                side = "left" if column < self.nr_texts else "right"
                style = f"text-align: {side}; vertical-align: top; padding: 0 0.6em"
                text = html.escape(cell).replace("\n", "<br>")
                cells.append(f'<{tag} style="{style}">{text}</{tag}>')
            rows.append(f"<tr>{''.join(cells)}</tr>")
        return "\n".join(["<table>", *rows, "</table>"])

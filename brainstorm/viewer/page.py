"""A page for browsers: one HTML file that needs nothing else."""

from __future__ import annotations

import functools
import html
import json
import os
import re
import tempfile
import webbrowser
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brainstorm.files import atomic_path, check_start

__all__ = ["NetworkPage"]

HERE = Path(__file__).parent
TEMPLATE, STYLE, SCRIPTS = "page.html", "view.css", ("charts.js", "cards.js", "view.js")
# In JSON these have other forms, which HTML does not take for its own.
ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}
HEIGHT = 760


class NetworkPage:
    """A page that shows a network; notebooks show it by itself.

    Args:
        snapshot: What there is to show, see `brainstorm.tools.view`.

    Attributes:
        snapshot (dict): The same, plain data.
    """

    def __init__(self, snapshot: Mapping[str, Any]):
        self.snapshot = snapshot

    @property
    def html(self) -> str:
        """The page as text."""
        return render(self.snapshot)

    def save(self, filename: str | os.PathLike[str]) -> None:
        """Write the page to a file, which shows it without anything else.

        Args:
            filename: Name of the file; its folder has to exist.

        Raises:
            FileFormatError: There is a file of another kind already.
            FileNotFoundError: The folder does not exist.
        """
        check_page_target(filename)
        with atomic_path(filename) as temporary:
            temporary.write_text(self.html, encoding="utf-8")

    def show(self) -> str:
        """Open the page in the browser.

        Returns:
            The name of the file, in the folder for temporary ones.
        """
        handle, name = tempfile.mkstemp(suffix=".html", prefix="brainstorm-")
        with open(handle, "w", encoding="utf-8") as file:
            file.write(self.html)
        open_in_browser(name)
        return name

    def __repr__(self) -> str:
        return f"<NetworkPage of {self.snapshot['title']!r}>"

    def _repr_html_(self) -> str:
        """The page in a frame, for notebooks."""
        title = html.escape(str(self.snapshot["title"]))
        return (
            f'<iframe title="{title}" sandbox="allow-scripts" width="100%"'
            f' height="{HEIGHT}" style="border: 1px solid #8888; border-radius: 6px"'
            f' srcdoc="{html.escape(self.html)}"></iframe>'
        )


def check_page_target(filename: str | os.PathLike[str]) -> None:
    """Refuse to replace what is no HTML file."""
    check_start(filename, rb"\s*<(!DOCTYPE )?html", "HTML file")


def open_in_browser(filename: str | os.PathLike[str]) -> None:
    """Have the browser show a file."""
    webbrowser.open(Path(filename).resolve().as_uri())


def to_json(value: Any) -> str:
    """A value as JSON that can stand inside an HTML page."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&]", lambda match: ESCAPES[match[0]], text)


def render(snapshot: Mapping[str, Any], live: bool = False) -> str:
    """The text of the page.

    Args:
        snapshot: What there is to show.
        live: Whether a server has newer ones, which the page is to ask for.
    """
    parts = {
        "title": html.escape(str(snapshot["title"])),
        "style": _part(STYLE),
        "live": "true" if live else "false",
        "data": to_json(snapshot),
        "script": "\n".join(map(_part, SCRIPTS)),
    }
    # In one go, so that nothing in a part is taken for a place of another.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _part(TEMPLATE))


@functools.cache
def _part(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")

"""Finding Nvidia's libraries, in the system or in their wheels."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
from collections.abc import Iterator
from pathlib import Path

MAJOR_VERSIONS = (13, 12, 11)


def load_library(name: str) -> ctypes.CDLL | None:
    """Load the newest version of ``cublas`` or ``nvrtc``, None if there is none."""
    for path in _candidates(name):
        with contextlib.suppress(OSError):
            return ctypes.CDLL(path)
    return None


def _candidates(name: str) -> Iterator[str]:
    for version in MAJOR_VERSIONS:
        yield f"lib{name}.so.{version}"
    yield f"lib{name}.so"
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in sorted(Path(folder).glob(f"*/lib/lib{name}.so.*"), reverse=True):
            yield str(path)

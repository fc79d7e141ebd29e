"""What the parts of OneDnnHandler count on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from brainstorm.handlers.numpy.memory import NumpyMemory
from brainstorm.handlers.onednn.bfloat16 import Conversions
from brainstorm.handlers.onednn.binding import Library
from brainstorm.handlers.onednn.session import Session


class OneDnnPart(NumpyMemory):
    """Base class of the parts that make up OneDnnHandler, which has these."""

    _large: int
    _library: Library
    _conversions: Conversions
    _find: Callable[..., Any]
    _does: Callable[..., bool]
    current_session: Callable[[], Session]

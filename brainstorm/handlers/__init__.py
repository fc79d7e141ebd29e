"""Handlers: where arrays live and who computes with them."""

from __future__ import annotations

from brainstorm.handlers import onednn
from brainstorm.handlers.base_handler import Handler
from brainstorm.handlers.choosing import choose_handler, describe_handler
from brainstorm.handlers.debug_handler import DebugHandler
from brainstorm.handlers.numpy_handler import NumpyHandler
from brainstorm.handlers.onednn_handler import OneDnnHandler
from brainstorm.handlers.pycuda_handler import PyCudaHandler
from brainstorm.optional import has_pycuda as has_pycuda

__all__ = [
    "DebugHandler",
    "Handler",
    "NumpyHandler",
    "OneDnnHandler",
    "PyCudaHandler",
    "default_handler",
    "describe",
]

onednn.OneDnnHandler = OneDnnHandler  # type: ignore[attr-defined]  # as it was imported before

default_handler: Handler = choose_handler()
"""The handler of networks that were given no other: OneDnnHandler where oneDNN is
installed, else NumpyHandler. The environment variable ``BRAINSTORM_HANDLER``
(``numpy``, ``onednn`` or ``auto``) overrides that."""


def describe(handler: Handler = default_handler) -> str:
    """What computes for a handler, in one line."""
    return describe_handler(handler)

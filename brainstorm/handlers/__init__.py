"""Handlers: where arrays live and who computes with them."""

from __future__ import annotations

import numpy as np

from brainstorm.handlers.base_handler import Handler
from brainstorm.handlers.debug_handler import DebugHandler
from brainstorm.handlers.numpy_handler import NumpyHandler
from brainstorm.handlers.pycuda_handler import PyCudaHandler

__all__ = [
    "DebugHandler",
    "Handler",
    "NumpyHandler",
    "PyCudaHandler",
    "default_handler",
]

default_handler = NumpyHandler(np.float32)
"""The handler of networks that were given no other."""

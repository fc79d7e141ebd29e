"""Which handler a network gets that was given none."""

from __future__ import annotations

import os

import numpy as np

from brainstorm.handlers.base_handler import Handler
from brainstorm.handlers.numpy_handler import NumpyHandler
from brainstorm.handlers.onednn_handler import OneDnnHandler
from brainstorm.utils import ValidationError, listing

VARIABLE = "BRAINSTORM_HANDLER"
CHOICES = ("auto", "numpy", "onednn")


def choose_handler() -> Handler:
    """The fastest handler in float32 that works here.

    The environment variable ``BRAINSTORM_HANDLER`` overrides the choice: 'numpy',
    'onednn', or 'auto' for oneDNN where there is one.

    Raises:
        ValidationError: The variable is set to something else.
        ImportError: It is 'onednn', and oneDNN can not be used.
    """
    choice = os.environ.get(VARIABLE) or "auto"
    if choice not in CHOICES:
        raise ValidationError(
            f"the environment variable {VARIABLE} is {choice!r}; choices are:"
            f" {listing(CHOICES)}"
        )
    if choice == "numpy":
        return NumpyHandler(np.float32)
    try:
        return OneDnnHandler()
    except ImportError:
        if choice == "onednn":
            raise
        return NumpyHandler(np.float32)


def describe_handler(handler: Handler) -> str:
    """What computes for a handler, in one line."""
    if isinstance(handler, OneDnnHandler):
        return handler.describe()
    name = type(handler).__name__
    return f"{name}: {np.dtype(handler.dtype).name}, NumPy {np.__version__}"

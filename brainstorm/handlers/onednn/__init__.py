"""The handler that computes with Intel's oneDNN, and its binding."""

from __future__ import annotations

from brainstorm.handlers.onednn.handler import OneDnnHandler

__all__ = ["OneDnnHandler"]

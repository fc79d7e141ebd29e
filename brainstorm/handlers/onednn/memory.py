"""Copying with oneDNN."""

from __future__ import annotations

from typing import Any

import numpy as np

from brainstorm.handlers.onednn.definitions import UnimplementedError
from brainstorm.handlers.onednn.part import OneDnnPart
from brainstorm.handlers.onednn.recipes import Call, Recipe


class OneDnnMemory(OneDnnPart):
    """Part of OneDnnHandler."""

    def copy_to(self, src: Any, dest: Any) -> None:
        # NumPy copies what lies side by side as fast, in one thread.
        is_plain = dest.size < self._large or src.shape != dest.shape
        is_plain = is_plain or (src.flags.c_contiguous and dest.flags.c_contiguous)
        if is_plain or not self._does(copy, (src, dest), 1.0):
            super().copy_to(src, dest)


def copy(session: Any, src: Any, dest: Any, factor: float) -> Call:
    """``dest = factor src``, for arrays that lie differently and share no memory."""
    if np.may_share_memory(src, dest):
        raise UnimplementedError("expected arrays that lie apart")
    recipe = Recipe(session, "copy_to", (src, dest))
    recipe.reorder(recipe.array(src), recipe.array(dest), factor=factor, quick=True)
    return recipe.call()

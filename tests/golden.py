"""Numbers that other libraries computed, see fixtures/golden/README.md."""

from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "fixtures" / "golden"


def golden(name):
    """The arrays of a file by their names."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return dict(file)

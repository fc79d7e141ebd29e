"""The source text of Python's own library."""

from __future__ import annotations

import platform
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainstorm.datasets.writing import write_characters
from brainstorm.utils import ValidationError

SIZE = 5_000_000
# What is installed beside it, tests, and tables that nobody would call a text.
EXCLUDED = {
    "dist-packages",
    "encodings",
    "pydoc_data",
    "site-packages",
    "test",
    "tests",
}

DESCRIPTION = """\
Source text of the standard library of Python {version}, to be predicted character by \
character.

'default' has the characters in sequences of 100, 'targets' those that follow each of \
them. Batches of 100 sequences continue each other: the sequence number i goes on in \
number i + 100. Characters are given as indices into the attribute 'unique', which has \
their ASCII codes. 'split' has 'training', 'validation' and 'test', about 90, 5 and 5 \
percent.
"""


def write(output: Path, paths: Sequence[Path] = (), size: int = SIZE) -> None:
    """Write a text of that many characters to an HDF5 file."""
    text = read_library(Path(sysconfig.get_path("stdlib")), size + 1)
    description = DESCRIPTION.format(version=platform.python_version())
    write_characters(output, description, text)


def read_library(folder: Path, size: int) -> bytes:
    """Put modules together, in random order and whole, until there is enough text.

    Raises:
        ValidationError: There is not enough.
    """
    paths: Any = sorted(
        path
        for path in folder.rglob("*.py")
        if not EXCLUDED & set(path.relative_to(folder).parts)
    )
    text = bytearray()
    for number in np.random.RandomState(0).permutation(len(paths)):
        module = paths[number].read_bytes()
        if module.isascii():
            text += module
        if len(text) >= size:
            return bytes(text[:size])
    raise ValidationError(
        f"the library has just {len(text)} characters, got the size {size - 1}"
    )

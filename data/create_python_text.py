"""Make PythonText.hdf5: the source text of Python's own standard library.

It lies on every machine with Python, so nothing is downloaded. The text differs a
little from one version of Python to the next.
"""

from __future__ import annotations

import argparse
import platform
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from _common import DataError, create_parser, run, write_characters

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


def create(args: argparse.Namespace) -> None:
    """Write the data set."""
    text = read_library(Path(sysconfig.get_path("stdlib")), args.size + 1)
    description = DESCRIPTION.format(version=platform.python_version())
    write_characters(args.output, description, text)


def read_library(folder: Path, size: int) -> bytes:
    """Put modules together, in random order and whole, until there is enough text.

    Raises:
        DataError: There is not enough.
    """
    paths = sorted(
        path
        for path in folder.rglob("*.py")
        if not EXCLUDED & set(path.relative_to(folder).parts)
    )
    np.random.RandomState(0).shuffle(paths)
    text = bytearray()
    for path in paths:
        module = path.read_bytes()
        if module.isascii():
            text += module
        if len(text) >= size:
            return bytes(text[:size])
    raise DataError(f"--size: the library has just {len(text) - 1} characters")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit code."""
    parser = create_parser(__doc__, "PythonText.hdf5")
    parser.add_argument(
        "--size",
        type=int,
        default=SIZE,
        help="number of characters; default: %(default)s",
    )
    return run(create, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())

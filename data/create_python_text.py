"""Make PythonText.hdf5: the source text of Python's own standard library.

It lies on every machine with Python, so nothing is downloaded. The text differs a
little from one version of Python to the next.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from _common import create_parser, run

from brainstorm.datasets import python_text
from brainstorm.utils import ValidationError


def create(args: argparse.Namespace) -> None:
    """Write the data set."""
    try:
        python_text.write(args.output, size=args.size)
    except ValidationError as error:
        raise ValidationError(f"--size: {error}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit code."""
    parser = create_parser(__doc__, "PythonText.hdf5")
    parser.add_argument(
        "--size",
        type=int,
        default=python_text.SIZE,
        help="number of characters; default: %(default)s",
    )
    return run(create, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())

"""Make HutterPrize.hdf5: 100 million characters of Wikipedia.

The text of the Hutter Prize is downloaded, 36 MB, or taken from --source.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from _common import (
    DataError,
    File,
    add_download_options,
    create_parser,
    get_files,
    run,
    write_characters,
)

MIRRORS = ("https://mattmahoney.net/dc", "http://mattmahoney.net/dc")
# Its publisher gives the checksum of the text, not that of the archive.
FILE = File("enwik8.zip", 36445475, None)
TEXT = File("enwik8", 100_000_000, "a1fa5ffddb56f4953e226637dabbb36a")

DESCRIPTION = """\
The text of the Hutter Prize, enwik8: the first 100 million bytes of a dump of the \
English Wikipedia of March 3, 2006, to be predicted byte by byte.

'default' has the bytes in sequences of 100, 'targets' those that follow each of them. \
Batches of 100 sequences continue each other: the sequence number i goes on in number \
i + 100. Bytes are given as indices into the attribute 'unique'. Of 'split', \
'training' has 90 million, 'validation' 5 million and 'test' 4.99 million.
"""


def create(args: argparse.Namespace) -> None:
    """Get the file and write the data set."""
    (path,) = get_files([FILE], MIRRORS, args)
    write_characters(args.output, DESCRIPTION, read_text(path))


def read_text(path: Path) -> bytes:
    """Read the text from the archive.

    Raises:
        DataError: It is not there, or not what it should be.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(TEXT.name) as f:
            content = f.read(TEXT.size + 1)
    except (zipfile.BadZipFile, OSError, EOFError, KeyError, zlib.error) as error:
        raise DataError(f"{path}: {error}") from error
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if (len(content), found) != (TEXT.size, TEXT.md5):
        raise DataError(
            f"{path}: expected {TEXT.size} characters with the MD5 checksum {TEXT.md5},"
            f" got {len(content)} with {found}"
        )
    return content


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit code."""
    parser = create_parser(__doc__, "HutterPrize.hdf5")
    add_download_options(parser)
    return run(create, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())

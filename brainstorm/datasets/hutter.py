"""The text of the Hutter Prize."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from brainstorm.datasets.getting import File
from brainstorm.datasets.writing import write_characters
from brainstorm.files import DAMAGE
from brainstorm.utils import FileFormatError

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


def write(output: Path, paths: Sequence[Path]) -> None:
    """Write the data set to an HDF5 file."""
    write_characters(output, DESCRIPTION, read_text(paths[0]))


def read_text(path: Path) -> bytes:
    """Read the text from the archive.

    Raises:
        FileFormatError: It is not there, or not what it should be.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(TEXT.name) as f:
            content = f.read(TEXT.size + 1)
    except (*DAMAGE, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise FileFormatError(f"{path}: {error}") from error
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if (len(content), found) != (TEXT.size, TEXT.md5):
        raise FileFormatError(
            f"{path}: expected {TEXT.size} characters with the MD5 checksum {TEXT.md5},"
            f" got {len(content)} with {found}"
        )
    return content

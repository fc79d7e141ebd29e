"""Downloads: checked, resumed where they broke off, and one process at a time."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from brainstorm.files import alone
from brainstorm.utils import DownloadError, FileFormatError

TIMEOUT = 60  # seconds without any data from a server
BLOCK = 2**16  # bytes


class File(NamedTuple):
    """A file that others publish.

    Attributes:
        name: Its name.
        size: Its size in bytes.
        md5: Its MD5 checksum; None if just the size is known.
    """

    name: str
    size: int
    md5: str | None


def check(path: Path, file: File) -> None:
    """Check that a file is what it should be.

    Raises:
        FileFormatError: It is not.
    """
    size = path.stat().st_size
    if size != file.size:
        raise FileFormatError(f"{path}: expected {file.size} bytes, got {size}")
    if file.md5 is not None:
        md5 = hashlib.md5(usedforsecurity=False)
        with open(path, "rb") as f:
            while block := f.read(BLOCK):
                md5.update(block)
        if md5.hexdigest() != file.md5:
            raise FileFormatError(
                f"{path}: expected the MD5 checksum {file.md5}, got {md5.hexdigest()}"
            )


def download(files: Sequence[File], mirrors: Sequence[str], folder: Path) -> list[Path]:
    """Download files into a folder, but for those that lie there and are right.

    A download that broke off goes on where it stopped. What has arrived is checked
    before it gets its name.

    Args:
        files: The files.
        mirrors: Folders on the internet that have them, to be tried in this order.
        folder: The folder.

    Returns:
        Their paths.

    Raises:
        DownloadError: A file is not to be had. Tells what to do.
    """
    return [_download(file, files, mirrors, folder) for file in files]


def _download(
    file: File, files: Sequence[File], mirrors: Sequence[str], folder: Path
) -> Path:
    path = folder / file.name
    problems = []
    with alone(path):
        if path.is_file():
            try:
                check(path, file)
                return path
            except FileFormatError as error:
                problems.append(str(error))
        # What has arrived stays there, for the next attempt to go on from.
        part = folder / f"{file.name}.part"
        for url in mirrors:
            try:
                _receive(f"{url.rstrip('/')}/{file.name}", part, file)
            except (OSError, ValueError, http.client.HTTPException) as error:
                problems.append(f"{url}: {getattr(error, 'reason', None) or error}")
                continue
            os.replace(part, path)
            return path
        missing = [f.name for f in files if not (folder / f.name).is_file()]
        hint = "What has arrived is kept; run this again to go on."
        if not part.exists():
            hint = (
                f"If you can get {' and '.join(missing or [file.name])} in another way,"
                f" put that into the folder {str(folder)!r} and run this again."
            )
    raise DownloadError(f"can not download {file.name}: {'; '.join(problems)}. {hint}")


def _receive(url: str, part: Path, file: File) -> None:
    """Download what is missing of a file, and check it."""
    start = part.stat().st_size if part.exists() else 0
    if start < file.size:
        headers = {"Range": f"bytes={start}-"} if start else {}
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            resumes = response.status == 206
            if resumes and not _begins_at(response, start):
                raise DownloadError("the server sends another part than asked for")
            start = start if resumes else 0
            length = response.headers.get("Content-Length")
            if length is not None and start + int(length) != file.size:
                # Such as the page on which one logs into a network.
                raise DownloadError(
                    f"expected {file.size} bytes, but the server has"
                    f" {start + int(length)}"
                )
            _write(response, part, start, file)
        received = part.stat().st_size
        if received < file.size:
            raise DownloadError(
                f"the connection ended after {received} of {file.size} bytes"
            )
    try:
        check(part, file)
    except FileFormatError:
        part.unlink()
        raise


def _begins_at(response: http.client.HTTPResponse, start: int) -> bool:
    return response.headers.get("Content-Range", "").startswith(f"bytes {start}-")


def _write(
    response: http.client.HTTPResponse, part: Path, start: int, file: File
) -> None:
    """Add what a server sends to a file, but no more than one byte too many."""
    progress = tqdm(
        desc=file.name,
        total=file.size,
        initial=start,
        unit="B",
        unit_scale=True,
        disable=None,  # where nobody watches
    )
    with open(part, "ab" if start else "wb") as out, progress:
        left = file.size + 1 - start
        while left and (block := response.read(min(BLOCK, left))):
            out.write(block)
            progress.update(len(block))
            left -= len(block)


# -- one at a time -----------------------------------------------------------

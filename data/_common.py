"""What the scripts in this folder share."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import os
import sys
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from brainstorm.files import atomic_hdf5

TIMEOUT = 60  # seconds without any data from a server
BLOCK = 2**16  # bytes


class DataError(Exception):
    """A data set can not be made; the message is for the user."""


# -- command line ------------------------------------------------------------


def create_parser(description: str, file_name: str) -> argparse.ArgumentParser:
    """The options of all scripts.

    Args:
        description: What the script does.
        file_name: Name of the file that it writes by default, into the folder that
            ``BRAINSTORM_DATA_DIR`` names, else into that of the scripts.
    """
    folder = os.environ.get("BRAINSTORM_DATA_DIR") or Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(folder, file_name),
        metavar="FILE",
        help="what to write; default: %(default)s",
    )
    return parser


def add_download_options(parser: argparse.ArgumentParser) -> None:
    """The options of scripts that download something."""
    parser.add_argument(
        "--source",
        type=Path,
        action="append",
        metavar="FILE",
        help="use this file, or those in this folder, and download nothing; can be"
        " given several times",
    )
    parser.add_argument(
        "--url",
        help="download from this folder on the internet in place of the usual ones",
    )


def run(create: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> int:
    """Make a data set, and tell the user how that went.

    Returns:
        The exit code: 0, or 1 if there is no data set.
    """
    try:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        create(args)
    except (DataError, OSError) as error:
        text = " ".join(str(error).split())
    except KeyboardInterrupt:
        text = "interrupted"
    else:
        print(f"wrote {args.output}")
        return 0
    print(f"error: {text}", file=sys.stderr)
    return 1


# -- getting files -----------------------------------------------------------


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


def get_files(
    files: Sequence[File], mirrors: Sequence[str], args: argparse.Namespace
) -> list[Path]:
    """Find or download some files, and check them.

    Downloaded ones lie beside the output. What lies there is not downloaded again.

    Args:
        files: The files.
        mirrors: Folders on the internet that have them, to be tried in this order.
        args: The options ``source``, ``url`` and ``output``.

    Returns:
        Their paths.

    Raises:
        DataError: A file is not to be had, or not what it should be.
    """
    if args.source:
        return [_find(file, args.source, alone=len(files) == 1) for file in files]
    urls = [args.url] if args.url else mirrors
    return [_download(file, urls, args.output.parent) for file in files]


def check(path: Path, file: File) -> None:
    """Check that a file is what it should be.

    Raises:
        DataError: It is not.
    """
    size = path.stat().st_size
    if size != file.size:
        raise DataError(f"{path}: expected {file.size} bytes, got {size}")
    if file.md5 is not None:
        md5 = hashlib.md5(usedforsecurity=False)
        with open(path, "rb") as f:
            while block := f.read(BLOCK):
                md5.update(block)
        if md5.hexdigest() != file.md5:
            raise DataError(
                f"{path}: expected the MD5 checksum {file.md5}, got {md5.hexdigest()}"
            )


def _find(file: File, sources: Sequence[Path], alone: bool) -> Path:
    """Look a file up among those that the user has named."""
    for source in sources:
        if not source.exists():
            raise DataError(f"--source: there is no {source}")
        path = source / file.name if source.is_dir() else source
        if path.is_file() and (path.name == file.name or (alone and path == source)):
            check(path, file)
            return path
    raise DataError(
        f"--source: {file.name} is not among {', '.join(map(str, sources))}"
    )


def _download(file: File, urls: Sequence[str], folder: Path) -> Path:
    path = folder / file.name
    if path.is_file():
        with contextlib.suppress(DataError):
            check(path, file)
            return path
    # What has arrived stays there, for the next attempt to go on from.
    part = folder / f"{file.name}.part"
    problems = []
    for url in urls:
        try:
            _receive(f"{url.rstrip('/')}/{file.name}", part, file)
        except (DataError, OSError, ValueError, http.client.HTTPException) as error:
            problems.append(f"{url}: {getattr(error, 'reason', None) or error}")
            continue
        os.replace(part, path)
        return path
    hint = "If you can get it in another way, name the file by --source."
    if part.exists():
        hint = "What has arrived is kept; run this again to go on."
    raise DataError(f"can not download {file.name}: {'; '.join(problems)}. {hint}")


def _receive(url: str, part: Path, file: File) -> None:
    """Download what is missing of a file, and check it."""
    start = part.stat().st_size if part.exists() else 0
    if start < file.size:
        headers = {"Range": f"bytes={start}-"} if start else {}
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            resumes = response.status == 206
            if resumes and not _begins_at(response, start):
                raise DataError("the server sends another part than asked for")
            _write(response, part, start if resumes else 0, file)
        received = part.stat().st_size
        if received < file.size:
            raise DataError(
                f"the connection ended after {received} of {file.size} bytes"
            )
    try:
        check(part, file)
    except DataError:
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


# -- writing data sets -------------------------------------------------------


class Images(NamedTuple):
    """Images of shape (N, H, W, C) and their labels of shape (N,), as integers."""

    images: np.ndarray
    labels: np.ndarray


def write_images(
    output: Path,
    description: str,
    training: Images,
    test: Images,
    nr_validation: int,
    brightest: int,
) -> None:
    """Write a data set of images to an HDF5 file.

    The group ``normalized_full`` has ``training`` and ``test``. In the group
    ``normalized_split`` the last part of the training data is ``validation`` instead.
    Each has ``default`` of shape (1, N, H, W, C), float32 in [0, 1], and ``targets`` of
    shape (1, N, 1).

    Args:
        output: Name of the file.
        description: For people to read, in the file's attribute ``description``.
        training: The training data.
        test: The test data.
        nr_validation: How many of the training data are for validation.
        brightest: The largest value of a pixel; the smallest is 0.
    """
    nr_training = len(training.labels) - nr_validation
    parts = {
        "normalized_full/training": training,
        "normalized_full/test": test,
        "normalized_split/training": Images(*(a[:nr_training] for a in training)),
        "normalized_split/validation": Images(*(a[nr_training:] for a in training)),
    }
    with atomic_hdf5(output) as f:
        f.attrs["description"] = description
        for name, (images, labels) in parts.items():
            group = f.create_group(name)
            pixels = group.create_dataset("default", (1, *images.shape), np.float32)
            for start in range(0, len(images), 1000):
                block = images[start : start + 1000]
                pixels[0, start : start + 1000] = block / np.float32(brightest)
            group["targets"] = labels.astype(np.int64).reshape(1, -1, 1)
        f["normalized_split/test"] = f["normalized_full/test"]  # the same, not a copy


STEPS = SEQUENCES = 100


def write_characters(output: Path, description: str, text: bytes) -> None:
    """Write a text to an HDF5 file, for learning to predict the next character.

    The group ``split`` has ``training``, ``validation`` and ``test``, which are about
    90, 5 and 5 percent of the text. Each has ``default`` of shape (100, N, 1), the
    characters, and ``targets``, the characters that follow them. In batches of 100
    sequences each sequence goes on where the one at its place in the batch before
    ended. Characters are numbers, those of their bytes in the attribute ``unique``.

    Args:
        output: Name of the file.
        description: For people to read, in the file's attribute ``description``.
        text: The text. What does not fill a batch at its end is left out.

    Raises:
        DataError: The text is too short.
    """
    block = STEPS * SEQUENCES
    nr_batches = (len(text) - 1) // block
    if nr_batches < 3:
        raise DataError(
            f"expected a text of more than {3 * block} characters, got {len(text)}"
        )
    codes = np.frombuffer(text, np.uint8)
    unique = np.unique(codes)
    numbers = np.searchsorted(unique, np.arange(256)).astype(np.uint8)[codes]
    nr_validation, nr_test = max((nr_batches + 1) // 20, 1), max(nr_batches // 20, 1)
    ends = np.cumsum([nr_batches - nr_validation - nr_test, nr_validation, nr_test])
    with atomic_hdf5(output) as f:
        f.attrs["description"] = description
        start = 0
        for name, end in zip(("training", "validation", "test"), ends, strict=True):
            group = f.create_group(f"split/{name}")
            for item, shift in (("default", 0), ("targets", 1)):
                part = numbers[start * block + shift : end * block + shift]
                group.create_dataset(
                    item,
                    data=_in_batches(part),
                    chunks=(STEPS, SEQUENCES, 1),
                    compression="gzip",
                )
            start = end
        for node in (f, f["split"]):
            node.attrs["unique"] = unique


def _in_batches(numbers: np.ndarray) -> np.ndarray:
    """Arrange numbers as (100, N, 1), see `write_characters`."""
    rows = numbers.reshape(SEQUENCES, -1, STEPS)  # (place in the batch, batch, step)
    return rows.transpose(2, 1, 0).reshape(STEPS, -1, 1)

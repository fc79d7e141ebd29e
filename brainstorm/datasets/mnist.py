"""MNIST: handwritten digits."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from brainstorm.datasets import writing
from brainstorm.datasets.getting import File
from brainstorm.datasets.writing import Images, write_images
from brainstorm.utils import FileFormatError

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    "https://storage.googleapis.com/cvdf-datasets/mnist",
    "http://yann.lecun.com/exdb/mnist",
)
FILES = (
    File("train-images-idx3-ubyte.gz", 9912422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
    File("train-labels-idx1-ubyte.gz", 28881, "d53e105ee54ea40749a09fcbcd1e9432"),
    File("t10k-images-idx3-ubyte.gz", 1648877, "9fb629c4189551a2d022fa330f9573f3"),
    File("t10k-labels-idx1-ubyte.gz", 4542, "ec29112dd5afa0611ce80d1b7f02629c"),
)
LARGEST = 2**26  # bytes to unpack of a file; the largest has 47 million

DESCRIPTION = """\
MNIST: handwritten digits, made by Yann LeCun, Corinna Cortes and Christopher J.C. \
Burges from data of the NIST.

'default' are images of 28 x 28 pixels from 0 (paper) to 1 (ink), 'targets' are the \
digits. 'normalized_full' has 60000 training and 10000 test images. In \
'normalized_split' the last 10000 training images are for validation.
"""


def write(output: Path, paths: Sequence[Path]) -> None:
    """Write the data set to an HDF5 file."""
    training, test = read_images(*paths[:2]), read_images(*paths[2:])
    nr_validation = writing.NR_VALIDATION
    write_images(output, DESCRIPTION, training, test, nr_validation, brightest=255)


def read_images(images_path: Path, labels_path: Path) -> Images:
    """Read the two files of the training or the test data."""
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise FileFormatError(
            f"{images_path} has {len(images)} images, but {labels_path} {len(labels)}"
            " labels"
        )
    return Images(images[..., np.newaxis], labels)


def read_idx(path: Path, nr_axes: int) -> np.ndarray:
    """Read a compressed file in the IDX format, with bytes as its values.

    It begins with two zeros, the type (8 for bytes) and the number of axes; then
    their lengths follow, four bytes each.

    Raises:
        FileFormatError: It is no such file.
    """
    try:
        with gzip.open(path) as f:
            content = f.read(LARGEST)
    except (OSError, EOFError, zlib.error) as error:
        raise FileFormatError(f"{path}: {error}") from error
    header = 4 + 4 * nr_axes
    if content[:4] != bytes([0, 0, 8, nr_axes]) or len(content) < header:
        raise FileFormatError(f"{path} is no IDX file of bytes with {nr_axes} axes")
    shape = np.frombuffer(content, ">u4", nr_axes, offset=4).tolist()
    if len(content) != header + math.prod(shape):
        raise FileFormatError(
            f"{path}: expected {math.prod(shape)} values of the shape {tuple(shape)},"
            f" got {len(content) - header}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)

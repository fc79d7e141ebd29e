"""CIFAR-10 and CIFAR-100, which come as pickles in a tar file."""

from __future__ import annotations

import codecs
import pickle
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from brainstorm.datasets import writing
from brainstorm.datasets.getting import File
from brainstorm.datasets.writing import Images, write_images
from brainstorm.utils import FileFormatError

MIRRORS = ("https://www.cs.toronto.edu/~kriz",)
FILE_10 = File("cifar-10-python.tar.gz", 170498071, "c58f30108f718f92721af3b95e74349a")
FILE_100 = File(
    "cifar-100-python.tar.gz", 169001437, "eb9058c3a382ffc7106e4002c42a8d85"
)
PARTS_10 = (
    [f"cifar-10-batches-py/data_batch_{i}" for i in range(1, 6)],
    ["cifar-10-batches-py/test_batch"],
)
PARTS_100 = (["cifar-100-python/train"], ["cifar-100-python/test"])
SHAPE = (3, 32, 32)  # of an image in the files
LARGEST = 2**28  # bytes of a member; the largest has 155 million

DESCRIPTION_10 = """\
CIFAR-10: small color images in 10 classes, collected by Alex Krizhevsky, Vinod Nair \
and Geoffrey Hinton.

'default' are images of 32 x 32 pixels in the channels red, green, blue, from 0 to 1. \
'targets' are their classes: airplane, automobile, bird, cat, deer, dog, frog, horse, \
ship, truck. 'normalized_full' has 50000 training and 10000 test images. In \
'normalized_split' the last 10000 training images are for validation.
"""
DESCRIPTION_100 = """\
CIFAR-100: small color images in 100 classes, collected by Alex Krizhevsky, Vinod Nair \
and Geoffrey Hinton.

'default' are images of 32 x 32 pixels in the channels red, green, blue, from 0 to 1. \
'targets' are their classes, the fine ones, from 0 (apple) to 99 (worm). \
'normalized_full' has 50000 training and 10000 test images. In 'normalized_split' the \
last 10000 training images are for validation.
"""


def write_10(output: Path, paths: Sequence[Path]) -> None:
    """Write CIFAR-10 to an HDF5 file."""
    training, test = read_archive(paths[0], PARTS_10, b"labels")
    _write(output, DESCRIPTION_10, training, test)


def write_100(output: Path, paths: Sequence[Path]) -> None:
    """Write CIFAR-100 to an HDF5 file."""
    training, test = read_archive(paths[0], PARTS_100, b"fine_labels")
    _write(output, DESCRIPTION_100, training, test)


def _write(output: Path, description: str, training: Images, test: Images) -> None:
    nr_validation = writing.NR_VALIDATION
    write_images(output, description, training, test, nr_validation, brightest=255)


def read_archive(
    path: Path, members: Sequence[Sequence[str]], labels_key: bytes
) -> list[Images]:
    """Read images and labels from the members of an archive.

    Args:
        path: The archive.
        members: For each of the results the members that it is made of.
        labels_key: Where the labels are in the dict that a member contains.

    Raises:
        FileFormatError: The archive is not as expected.
    """
    parts = []
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                _check(member)
            rest = archive.fileobj
            while rest is not None and rest.read(2**20):
                pass  # to the end, where its checksum is
            for names in members:
                read = [_read(archive.extractfile(n), n, labels_key) for n in names]
                images, labels = zip(*read, strict=True)
                parts.append(Images(np.concatenate(images), np.concatenate(labels)))
    except (tarfile.TarError, OSError, EOFError, zlib.error, KeyError) as error:
        raise FileFormatError(f"{path}: {error}") from error
    return parts


def _check(member: tarfile.TarInfo) -> None:
    """Refuse what has no place in such an archive, though nothing of it is unpacked."""
    leads_out = member.name.startswith(("/", "\\")) or ".." in member.name.split("/")
    if leads_out or not (member.isreg() or member.isdir()):
        raise FileFormatError(
            f"the archive is refused, since its member {member.name!r} is"
            f" {'outside of it' if leads_out else 'neither a file nor a folder'}"
        )
    if member.size > LARGEST:
        raise FileFormatError(f"{member.name!r} claims to have {member.size} bytes")


def _read(
    file: IO[bytes] | None, name: str, labels_key: bytes
) -> tuple[np.ndarray, np.ndarray]:
    if file is None:
        raise FileFormatError(f"{name} is no file")
    content = load_pickle(file, name)
    data = content.get(b"data") if isinstance(content, dict) else None
    labels = content.get(labels_key) if isinstance(content, dict) else None
    row = int(np.prod(SHAPE))
    if (
        not isinstance(data, np.ndarray)
        or data.dtype != np.uint8
        or data.shape[1:] != (row,)
        or not isinstance(labels, list)
        or len(labels) != len(data)
        or not all(isinstance(label, int) for label in labels)
    ):
        raise FileFormatError(
            f"{name}: expected a dict with bytes 'data' in rows of {row}, and as many"
            f" labels {labels_key.decode()!r}"
        )
    images = data.reshape(-1, *SHAPE).transpose(0, 2, 3, 1)
    return images, np.array(labels, dtype=np.int64)


# -- pickles -----------------------------------------------------------------


def load_pickle(file: IO[bytes], name: str) -> Any:
    """Load a pickle of dicts, lists, texts, numbers and arrays of bytes.

    Pickles can name any function that they want called. Here there are only the few
    that make an array, in versions that do nothing else.

    Raises:
        FileFormatError: It is not such a pickle.
    """
    try:
        return _Unpickler(file, encoding="bytes").load()
    except (
        pickle.UnpicklingError,
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        TypeError,
        ValueError,
    ) as error:
        raise FileFormatError(f"{name}: {error}") from error


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"the pickle asks for {module}.{name}, which is refused"
            ) from None


def _empty_array(array_type: object, shape: object, type_code: object) -> np.ndarray:
    return np.empty(0, np.uint8)  # the unpickler sets its content


def _dtype(code: bytes | str, align: object, copy: object) -> np.dtype:
    if code not in (b"u1", "u1"):
        raise pickle.UnpicklingError(f"expected an array of bytes, got {code!r}")
    return np.dtype(np.uint8)


def _encode(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes for Python 2 to read."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"unexpected encoding {encoding!r}")
    return codecs.latin_1_encode(text)[0]


_KNOWN = {
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
}

"""Reading of CIFAR-10 and CIFAR-100, which come as pickles in a tar file."""

from __future__ import annotations

import codecs
import pickle
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from _common import DataError, Images

SHAPE = (3, 32, 32)  # of an image in the files


def read_archive(
    path: Path, members: Sequence[Sequence[str]], labels_key: bytes
) -> list[Images]:
    """Read images and labels from the members of an archive.

    Args:
        path: The archive.
        members: For each of the results the members that it is made of.
        labels_key: Where the labels are in the dict that a member contains.

    Raises:
        DataError: The archive is not as expected.
    """
    parts = []
    try:
        with tarfile.open(path, "r:*") as archive:
            for names in members:
                read = [_read(archive.extractfile(n), n, labels_key) for n in names]
                images, labels = zip(*read, strict=True)
                parts.append(Images(np.concatenate(images), np.concatenate(labels)))
    except (tarfile.TarError, OSError, EOFError, zlib.error, KeyError) as error:
        raise DataError(f"{path}: {error}") from error
    return parts


def _read(
    file: IO[bytes] | None, name: str, labels_key: bytes
) -> tuple[np.ndarray, np.ndarray]:
    if file is None:
        raise DataError(f"{name} is no file")
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
        raise DataError(
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
        DataError: It is not such a pickle.
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
        raise DataError(f"{name}: {error}") from error


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

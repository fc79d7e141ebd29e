"""Which data sets there are, and where they are kept."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py

from brainstorm.datasets import cifar, digits, hutter, mnist, python_text
from brainstorm.datasets.getting import File, download
from brainstorm.files import alone, checked_name, reading
from brainstorm.utils import (
    FileFormatError,
    MissingFileError,
    UnknownNameError,
    ValidationError,
    choices,
)

__all__ = ["data_folder", "fetch", "load"]


@dataclass(frozen=True)
class DataSet:
    """A data set that can be made.

    Attributes:
        name: Its name, and that of its HDF5 file.
        summary: What it consists of.
        write: Writes the HDF5 file, given its path and those of the files.
        files: The files that it is made of; none where no download is needed.
        mirrors: Folders on the internet that have them.
        groups: Groups of the HDF5 file with and without ``validation``.
    """

    name: str
    summary: str
    write: Callable[[Path, Sequence[Path]], None]
    files: Sequence[File] = ()
    mirrors: Sequence[str] = ()
    groups: tuple[str, str | None] = ("normalized_split", "normalized_full")

    @property
    def size(self) -> int:
        """The number of bytes to download."""
        return sum(file.size for file in self.files)


DATA_SETS = {
    data_set.name: data_set
    for data_set in (
        DataSet(
            "Digits",
            "1797 handwritten digits of 8 x 8 pixels, from scikit-learn",
            digits.write,
        ),
        DataSet(
            "MNIST",
            "70000 handwritten digits of 28 x 28 pixels",
            mnist.write,
            mnist.FILES,
            mnist.MIRRORS,
        ),
        DataSet(
            "CIFAR-10",
            "60000 color images of 32 x 32 pixels in 10 classes",
            cifar.write_10,
            [cifar.FILE_10],
            cifar.MIRRORS,
        ),
        DataSet(
            "CIFAR-100",
            "60000 color images of 32 x 32 pixels in 100 classes",
            cifar.write_100,
            [cifar.FILE_100],
            cifar.MIRRORS,
        ),
        DataSet(
            "HutterPrize",
            "100 million characters of Wikipedia",
            hutter.write,
            [hutter.FILE],
            hutter.MIRRORS,
            ("split", None),
        ),
        DataSet(
            "PythonText",
            "5 million characters of Python's own library",
            python_text.write,
            groups=("split", None),
        ),
    )
}
# What people call them otherwise.
ALIASES = {"hutter": "HutterPrize", "enwik8": "HutterPrize", "python": "PythonText"}


def find(name: str) -> DataSet:
    """The data set of a name, however it is capitalized and hyphenated."""
    names = {_plain(known): known for known in DATA_SETS} | ALIASES
    known = names.get(_plain(name))
    if known is None:
        raise UnknownNameError(
            f"there is no data set {name!r}; {choices(name, DATA_SETS)}"
        )
    return DATA_SETS[known]


def _plain(name: object) -> str:
    return re.sub("[^a-z0-9]", "", str(name).lower())


def data_folder(folder: str | os.PathLike[str] | None = None) -> Path:
    """Where data sets are kept.

    Args:
        folder: The folder. Default: the one that the environment variable
            ``BRAINSTORM_DATA_DIR`` names, else ``.brainstorm/data`` in the user's home.

    Returns:
        Its path, whether it exists or not.
    """
    if folder is None:
        folder = os.environ.get("BRAINSTORM_DATA_DIR") or "~/.brainstorm/data"
    return Path(checked_name(folder)).expanduser()


def fetch(name: str, folder: str | os.PathLike[str] | None = None) -> Path:
    """The HDF5 file of a data set, which is made when it is first asked for.

    What has to be downloaded for that is checked, and kept beside it: a download that
    breaks off goes on the next time, and one can put these files there by hand. Several
    processes may ask at once: one makes the file, and the others wait.

    Args:
        name: ``'Digits'``, ``'MNIST'``, ``'CIFAR-10'``, ``'CIFAR-100'``,
            ``'HutterPrize'`` or ``'PythonText'``.
        folder: Where it is kept; see :func:`data_folder`.

    Returns:
        The path of the file.

    Raises:
        UnknownNameError: There is no such data set.
        DownloadError: A file can not be downloaded. Tells what to do.
        FileFormatError: A downloaded file is damaged.
        ImportError: The digits need scikit-learn.
    """
    data_set, place = find(name), data_folder(folder)
    path = place / f"{data_set.name}.hdf5"
    if path.is_file():
        return path
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MissingFileError(
            f"can not make the folder {str(place)!r} for data sets: {error.strerror};"
            " name another one in BRAINSTORM_DATA_DIR"
        ) from error
    with alone(path):
        if not path.is_file():
            files = download(data_set.files, data_set.mirrors, place)
            data_set.write(path, files)
    return path


def load(
    name: str, folder: str | os.PathLike[str] | None = None, validation: bool = True
) -> h5py.Group:
    """Open a data set, which is made when it is first asked for; see :func:`fetch`.

    >>> from brainstorm import Minibatches, datasets
    >>> data = datasets.load('Digits')                          # doctest: +SKIP
    >>> batches = Minibatches(100, **data['training'])          # doctest: +SKIP

    Args:
        name: Name of the data set.
        folder: Where it is kept; see :func:`data_folder`.
        validation: Whether a part of the training data is for validation instead.
            Texts have always such a part.

    Returns:
        A group of the HDF5 file, which is open for reading. It maps ``'training'``,
        ``'validation'`` (unless it is left out) and ``'test'`` to the datasets
        ``'default'`` and ``'targets'`` of shape ``(T, B, ...)``. ``data.file`` is the
        file; its attribute ``description`` tells where the data come from.

    Raises:
        ValidationError: The data set is never without validation.
        FileFormatError: The file in the folder is damaged, or no such data set.
        Exception: What :func:`fetch` raises.
    """
    data_set = find(name)
    group = data_set.groups[0 if validation else 1]
    if group is None:
        raise ValidationError(
            f"validation: {data_set.name} has always data for validation"
        )
    path = fetch(name, folder)
    with reading(path):
        file = h5py.File(path, "r")
    if not isinstance(file.get(group), h5py.Group):
        file.close()
        raise FileFormatError(
            f"{str(path)!r} has no group {group!r}, so it is not {data_set.name}:"
            " delete it, and it is made anew"
        )
    return file[group]

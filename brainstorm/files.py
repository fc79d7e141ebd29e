"""Writing files so that a crash at any moment leaves the old or the new one whole."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import h5py

from brainstorm.utils import FileFormatError

__all__ = ["atomic_hdf5", "atomic_path", "open_hdf5"]


@contextlib.contextmanager
def atomic_path(filename: str | os.PathLike) -> Iterator[Path]:
    """Replace a file in one go.

    Yields the path of an empty temporary file in the same folder. When the
    block ends, that file is flushed to the disk and renamed to `filename`,
    whose mode it takes over. When the block raises, it is removed and
    `filename` stays as it was.

    Raises:
        FileNotFoundError: The folder does not exist.
        IsADirectoryError: `filename` is a folder.
    """
    target = Path(os.path.realpath(filename))
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"can not write {str(filename)!r}:"
            f" there is no folder {str(target.parent)!r}"
        )
    if target.is_dir():
        raise IsADirectoryError(f"can not write {str(filename)!r}: it is a folder")
    handle, name = tempfile.mkstemp(
        prefix=f".{target.name}.", suffix=".tmp", dir=target.parent
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, _mode_for(target))
        _sync(temporary)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        _sync(target.parent)


@contextlib.contextmanager
def atomic_hdf5(filename: str | os.PathLike) -> Iterator[h5py.File]:
    """Write an HDF5 file that replaces `filename` once it is complete."""
    with atomic_path(filename) as temporary, h5py.File(temporary, "w") as f:
        yield f


@contextlib.contextmanager
def open_hdf5(filename: str | os.PathLike, kind: str) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading and check that it is of the given kind.

    Args:
        filename: The file.
        kind: What its attribute ``format`` has to say.

    Raises:
        FileNotFoundError: There is no such file.
        FileFormatError: It is damaged, or of another kind.
    """
    if not os.path.isfile(filename):
        raise FileNotFoundError(f"there is no file {str(filename)!r}")
    try:
        with h5py.File(filename, "r") as f:
            found = f.attrs.get("format")
            if isinstance(found, bytes):
                found = found.decode("utf-8", "replace")
            if not isinstance(found, str) or found != kind:
                raise FileFormatError(
                    f"{str(filename)!r} is not a {kind!r}: its format attribute"
                    f" is {found!r}"
                )
            yield f
    except FileFormatError:
        raise
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise FileFormatError(f"can not read {str(filename)!r}: {error}") from error


def _mode_for(target: Path) -> int:
    """The mode of the file that is replaced, or what the umask leaves of 0666."""
    if target.exists():
        return stat.S_IMODE(target.stat().st_mode)
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

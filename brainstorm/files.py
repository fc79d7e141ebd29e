"""Files: written so that a crash leaves the old or the new one whole, read with care.

Reading trusts nothing in an HDF5 file: what is read lies in the file itself, behind
plain links, and takes no more memory than the file can hold data for. What is damaged,
or another kind of file, is a FileFormatError.
"""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import math
import os
import re
import secrets
import stat
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from brainstorm.utils import (
    BrainstormError,
    FileFormatError,
    MissingFileError,
    NotAFileError,
    ValidationError,
    listing,
)

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

# Deflate can not compress to less than about 1/1032.
LARGEST_EXPANSION = 1100
SAFE_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE}
# What damaged files make h5py, JSON and constructors of described objects raise.
DAMAGE = (
    ArithmeticError,
    AttributeError,
    BrainstormError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
# Texts are what people could have typed, and logs, but no data.
LARGEST_TEXT = 256 * 2**20
# Of the 64 KB that HDF5 gives an object's header message.
LARGEST_ATTRIBUTE = 60_000


# -- writing -----------------------------------------------------------------


@contextlib.contextmanager
def atomic_path(filename: str | os.PathLike[str]) -> Iterator[Path]:
    """Replace a file in one go.

    Yields the path of an empty temporary file in the same folder. When the
    block ends, that file is flushed to the disk and renamed to `filename`,
    whose mode it takes over. When the block raises, it is removed and
    `filename` stays as it was. A killed process leaves a file whose name begins
    with a dot and ends with ``.tmp``.

    Raises:
        MissingFileError: The folder does not exist.
        NotAFileError: `filename` is a folder.
        PermissionError: `filename` is write-protected.
        FileFormatError: `filename` is a device, a pipe or the like.
    """
    target = _resolved(filename)
    mode = _mode_to_keep(target, str(filename))
    name = f".{target.name[:50]}.{secrets.token_hex(4)}.tmp"
    temporary = target.with_name(name)
    # A file that replaces a private one is private from the start.
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    os.close(os.open(temporary, flags, 0o666 if mode is None else 0o600))
    try:
        yield temporary
        if mode is not None:
            os.chmod(temporary, mode)
        _sync(temporary)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        _sync(target.parent)


@contextlib.contextmanager
def atomic_hdf5(
    filename: str | os.PathLike[str], kind: str | None = None
) -> Iterator[h5py.File]:
    """Write an HDF5 file that replaces `filename` once it is complete.

    Its attribute ``format`` says `kind`, which is checked by `check_target`.
    """
    check_target(filename, kind)
    with atomic_path(filename) as temporary, _Shield(temporary, "r+") as raw:
        try:
            with h5py.File(raw, "w") as f:
                if kind is not None:
                    f.attrs["format"] = np.bytes_(kind)
                yield f
        finally:
            if raw.error is not None:
                raise raw.error


def check_target(filename: str | os.PathLike[str], kind: str | None = None) -> None:
    """Check that an HDF5 file of some kind may be written.

    It may replace one of its kind, or an empty or damaged one. What is anything else
    already, a script or a data set perhaps, is not lost by a slip.
    """
    target = _resolved(filename)
    if _mode_to_keep(target, str(filename)) is None or not os.path.getsize(target):
        return
    found: str | None = "no HDF5 file"
    if h5py.is_hdf5(target):
        try:
            with h5py.File(target, "r") as f:
                found = _read_format(f, kind or "")
        except DAMAGE:
            return
        if found == kind:
            return
        found = f"its format attribute is {found!r}"
    raise _other_kind(filename, found)


def check_start(filename: str | os.PathLike[str], start: bytes, kind: str) -> None:
    """Check that a file may be written that is no HDF5 file.

    It may replace one of its kind, whose first bytes match the regular expression
    `start`, or an empty one.
    """
    target = _resolved(filename)
    if _mode_to_keep(target, str(filename)) is None:
        return
    with open(target, "rb") as f:
        found = f.read(100)
    if found and not re.match(start, found, re.DOTALL):
        raise _other_kind(filename, f"no {kind}")


def write_text_attribute(node: Any, name: str, text: str) -> None:
    """Write a text as attributes of a file, group or dataset.

    HDF5 has room for 64 KB in one attribute: what does not fit goes on in attributes
    called `name` and a dot and a number.
    """
    data = text.encode()
    starts = range(0, max(len(data), 1), LARGEST_ATTRIBUTE)
    for i, start in enumerate(starts):
        part = data[start : start + LARGEST_ATTRIBUTE]
        node.attrs[f"{name}.{i}" if i else name] = np.bytes_(part)


def _other_kind(filename: str | os.PathLike[str], found: str | None) -> FileFormatError:
    return FileFormatError(
        f"can not write {str(filename)!r}: there is a file of another kind already"
        f" ({found}). Delete it, or choose another name"
    )


class _Shield(io.FileIO):
    """Keeps errors while writing to itself: a full disk makes libhdf5 crash later."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while left and self.error is None:
                left = left[super().write(left) :]
        except OSError as error:
            self.error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            return size or 0 if self.error is not None else super().truncate(size)
        except OSError as error:
            self.error = error
            return size or 0


def checked_name(filename: str | os.PathLike[str]) -> str:
    """The name of a file as text, if it is one."""
    if not isinstance(filename, str | bytes | os.PathLike) or (
        "\0" in os.fsdecode(filename)
    ):
        raise ValidationError(f"expected the name of a file, got {filename!r}")
    return os.fsdecode(filename)


def _resolved(filename: str | os.PathLike[str]) -> Path:
    """The path of a file, behind links."""
    return Path(os.path.realpath(checked_name(filename)))


def _mode_to_keep(target: Path, filename: str) -> int | None:
    """The mode of the file to replace, None if there is none yet."""
    if not target.parent.is_dir():
        raise MissingFileError(
            f"can not write {filename!r}: there is no folder {str(target.parent)!r}"
        )
    if target.is_dir():
        raise NotAFileError(f"can not write {filename!r}: it is a folder")
    if not target.exists():
        return None
    if not target.is_file():
        raise FileFormatError(f"can not write {filename!r}: it is no regular file")
    if not os.access(target, os.W_OK):
        raise PermissionError(f"can not write {filename!r}: it is write-protected")
    return stat.S_IMODE(target.stat().st_mode)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# -- one at a time -----------------------------------------------------------


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Make a file while no other process or thread within such a block makes it.

    A lock file lies beside it meanwhile. One that a killed process has left is taken
    for nothing, since the lock is the operating system's.
    """
    lock = path.with_name(f".{path.name}.lock")
    handle = _locked(lock)
    try:
        yield
    finally:
        # While it is ours: whoever waits for this file looks for a new one then.
        with contextlib.suppress(OSError):  # on Windows, where others wait
            lock.unlink()
        os.close(handle)


def _locked(lock: Path) -> int:
    """A handle of a lock file that nobody else has locked or removed."""
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            with contextlib.suppress(OSError):  # file systems that can not lock
                _wait(handle)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), os.stat(lock)):
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


if sys.platform == "win32":

    def _wait(handle: int) -> None:
        while True:
            try:
                msvcrt.locking(handle, msvcrt.LK_LOCK, 1)
                return
            except OSError as error:
                if error.errno != errno.EDEADLOCK:  # after ten seconds
                    raise

else:

    def _wait(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX)


def cache_folder() -> Path:
    """Where files lie that are made anew when they are lost.

    Raises:
        RuntimeError: The user has no home.
    """
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root, "brainstorm")


# -- reading -----------------------------------------------------------------


@contextlib.contextmanager
def open_hdf5(filename: str | os.PathLike[str], kind: str) -> Iterator[h5py.File]:
    """Open an HDF5 file whose attribute ``format`` says that it is of this kind.

    Errors within the block are taken for damage of the file.
    """
    if not os.path.isfile(_resolved(filename)):
        raise MissingFileError(f"there is no file {str(filename)!r}")
    with reading(filename), h5py.File(filename, "r") as f:
        found = _read_format(f, kind)
        if found != kind:
            raise FileFormatError(
                f"it is not a {kind!r}: its format attribute is {found!r}"
            )
        yield f


@contextlib.contextmanager
def reading(filename: str | os.PathLike[str]) -> Iterator[None]:
    """Take errors within the block for damage of a file."""
    try:
        yield
    except DAMAGE as error:
        raise FileFormatError(f"can not read {str(filename)!r}: {error}") from error


def _read_format(f: h5py.File, default: str) -> str | None:
    """The attribute ``format``; `default` where it can not be read safely."""
    if "format" not in f.attrs:
        return None
    attribute = f.attrs.get_id("format")
    info = h5py.check_string_dtype(attribute.dtype)
    if info is None or attribute.shape != () or (info.length or 0) > 1000:
        return f"{attribute.dtype} of the shape {attribute.shape}"
    if info.length is None:
        # It lies on the heap, see below. What else is in the file has to tell.
        return default
    return f.attrs["format"].decode("utf-8", "replace")


def read_text_attribute(node: Any, name: str) -> str | None:
    """Read what `write_text_attribute` wrote; None if there is no such attribute.

    None, too, if it lies on the heap, see below: brainstorm 0.5 wrote such.
    """
    parts = []
    for i in itertools.count():
        part_name = f"{name}.{i}" if i else name
        if part_name not in node.attrs:
            break
        attribute = node.attrs.get_id(part_name)
        info = h5py.check_string_dtype(attribute.dtype)
        if info is None or attribute.shape != ():
            raise FileFormatError(
                f"expected a text as attribute {part_name!r}, got {attribute.dtype} of"
                f" the shape {attribute.shape}"
            )
        if info.length is None:
            return None
        parts.append(bytes(node.attrs[part_name]))
    return b"".join(parts).decode("utf-8") if parts else None


def read_group(parent: h5py.Group, name: str) -> h5py.Group:
    """A group in a group, reached by a plain link."""
    return _member(parent, name, h5py.Group, "group")


def read_array(
    parent: h5py.Group, name: str, shape: tuple[int, ...] | None = None
) -> np.ndarray:
    """Read a dataset of numbers, of that shape if it is given."""
    dataset = _member(parent, name, h5py.Dataset, "dataset")
    if dataset.shape is None or dataset.dtype.kind not in "biuf":
        raise FileFormatError(
            f"expected numbers as {name!r}, got {dataset.dtype} of the shape"
            f" {dataset.shape}"
        )
    if shape is not None and dataset.shape != shape:
        raise FileFormatError(
            f"expected {name!r} to have the shape {shape}, got {dataset.shape}"
        )
    _check_storage(dataset)
    return np.asarray(dataset[()])


def read_text(parent: h5py.Group, name: str) -> str:
    """Read a dataset that holds one text, not too long a one."""
    dataset = _member(parent, name, h5py.Dataset, "dataset")
    info = h5py.check_string_dtype(dataset.dtype)
    if info is None or dataset.shape not in [(), (1,)]:
        raise FileFormatError(
            f"expected one text as {name!r}, got {dataset.dtype} of the shape"
            f" {dataset.shape}"
        )
    _check_storage(dataset)
    if info.length is None:
        return _read_from_heap(dataset).decode("utf-8")
    if dataset.nbytes > LARGEST_TEXT:
        raise FileFormatError(f"{name!r} has {dataset.nbytes} bytes")
    return np.atleast_1d(dataset[()]).item().decode("utf-8")


def _read_from_heap(dataset: h5py.Dataset) -> bytes:
    """Read a text of any length, such as brainstorm 0.5 wrote, from the global heap.

    libhdf5 would trust this heap: a damaged one makes it loop without end. See "Global
    Heap" in the HDF5 file format specification.
    """
    with open(dataset.file.filename, "rb") as f:
        f.seek(dataset.id.get_offset())
        length, address, wanted = struct.unpack("<IQI", f.read(16))
        f.seek(address)
        signature, size = struct.unpack("<4s4xQ", f.read(16))
        heap = f.read(min(size, LARGEST_TEXT)) if signature == b"GCOL" else b""
    start = 0
    while start + 16 <= len(heap):
        number, size = struct.unpack_from("<H6xQ", heap, start)
        start += 16
        if number == wanted and length <= size <= len(heap) - start:
            return heap[start : start + length]
        start += -(-size // 8) * 8
    raise FileFormatError(f"the text {dataset.name!r} is not where it should be")


def read_tree(group: h5py.Group) -> dict[str, Any]:
    """Read all groups and datasets in a group, as nested dicts of arrays."""
    return _read_tree(group, {group.id})


def _read_tree(group: h5py.Group, seen: set[Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name in group:
        node = _member(group, name, (h5py.Group, h5py.Dataset), "group or dataset")
        # Links in a circle, or many to one dataset, would blow up.
        if node.id in seen:
            raise FileFormatError(f"{name!r} is in the file under another name too")
        seen.add(node.id)
        if isinstance(node, h5py.Group):
            tree[name] = _read_tree(node, seen)
        elif node.dtype.kind == "S":
            _check_storage(node)
            tree[name] = np.char.decode(np.asarray(node[()]), "utf-8")
        else:
            tree[name] = read_array(group, name)
    return tree


def _member(parent: h5py.Group, name: str, kind: Any, what: str) -> Any:
    """A member that a plain link leads to; other links lead to other files."""
    link = parent.get(name, getlink=True) if name in parent else None
    if link is not None and not isinstance(link, h5py.HardLink):
        raise FileFormatError(f"{name!r} is a link, and links are not followed")
    node = parent[name] if link is not None else None
    if not isinstance(node, kind):
        some = listing(itertools.islice(parent, 20))
        raise FileFormatError(f"there is no {what} {name!r}; there are: {some}")
    return node


def _check_storage(dataset: h5py.Dataset) -> None:
    """Check that the file holds the data, before memory is taken for them."""
    name, plan = dataset.name, dataset.id.get_create_plist()
    if dataset.is_virtual or plan.get_external_count():
        raise FileFormatError(f"the data of {name!r} are in another file")
    filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
    if not SAFE_FILTERS.issuperset(filters) or len(set(filters)) < len(filters):
        raise FileFormatError(f"{name!r} is packed in a way that is not supported")
    stored = dataset.id.get_storage_size()
    available = min(stored, os.path.getsize(dataset.file.filename))
    if h5py.h5z.FILTER_DEFLATE in filters:
        available *= LARGEST_EXPANSION
    needed = math.prod(dataset.shape) * dataset.dtype.itemsize
    chunk = math.prod(dataset.chunks or ()) * dataset.dtype.itemsize
    if needed > available or chunk > max(needed, 2**20):
        raise FileFormatError(
            f"{name!r} claims to hold {dataset.dtype} of the shape {dataset.shape},"
            f" which does not fit the {stored} bytes that are stored"
        )

"""The examples, which come with the library."""

from __future__ import annotations

import os
from pathlib import Path

from brainstorm.files import atomic_path, checked_name
from brainstorm.utils import MissingFileError, ValidationError, listing

__all__ = ["copy_examples"]


def copy_examples(
    folder: str | os.PathLike[str] = "examples", force: bool = False
) -> list[Path]:
    """Copy the examples to a folder, to run and to change them.

    Args:
        folder: The folder, which is made if it is not there.
        force: Whether to replace files of the same names. Without it nothing is copied
            if there is one.

    Returns:
        The paths of the copies.

    Raises:
        ValidationError: There are files of these names.
        MissingFileError: The folder can not be made.
    """
    target = Path(checked_name(folder)).expanduser()
    copies = {target / source.name: source for source in _examples()}
    there = [path.name for path in copies if path.exists() or path.is_symlink()]
    if there and not force:
        raise ValidationError(
            f"nothing is copied, since {str(target)!r} has {listing(there[:3])}"
            f"{' and others' if len(there) > 3 else ''} already: choose another folder,"
            " or have them replaced (--force)"
        )
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MissingFileError(
            f"can not make the folder {str(target)!r}: {error.strerror}"
        ) from error
    for path, source in copies.items():
        content = source.read_bytes()
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
    return list(copies)


def _examples() -> list[Path]:
    """The files of the examples: in the package, or beside it in a clone."""
    package = Path(__file__).resolve().parents[1]
    is_clone = (package.parent / "setup.py").is_file()
    folder = package.parent / "examples" if is_clone else package / "examples"
    found = [
        path for path in sorted(folder.glob("*")) if path.suffix in (".py", ".rst")
    ]
    if not found:
        raise MissingFileError(
            f"the installed library is incomplete: no {str(folder)!r}"
        )
    return found

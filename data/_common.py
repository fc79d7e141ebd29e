"""What the scripts in this folder share: their command line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from brainstorm.datasets.catalogue import DATA_SETS
from brainstorm.datasets.getting import File, check, download
from brainstorm.utils import BrainstormError, MissingFileError


def script_for(name: str, doc: str) -> Callable[..., int]:
    """The ``main`` of a script that makes a data set; it returns the exit code."""

    def create(args: argparse.Namespace) -> None:
        data_set = DATA_SETS[name]
        paths = get_files(data_set.files, data_set.mirrors, args)
        data_set.write(args.output, paths)

    def main(arguments: Sequence[str] | None = None) -> int:
        parser = create_parser(doc, f"{name}.hdf5")
        if DATA_SETS[name].files:
            add_download_options(parser)
        return run(create, parser.parse_args(arguments))

    return main


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
    except (BrainstormError, ImportError, OSError) as error:
        text = " ".join(str(error).split())
    except KeyboardInterrupt:
        text = "interrupted"
    else:
        print(f"wrote {args.output}")
        return 0
    print(f"error: {text}", file=sys.stderr)
    return 1


def get_files(
    files: Sequence[File], mirrors: Sequence[str], args: argparse.Namespace
) -> list[Path]:
    """Find or download some files, and check them.

    Args:
        files: The files.
        mirrors: Folders on the internet that have them.
        args: The options ``source``, ``url`` and ``output``.

    Returns:
        Their paths.
    """
    if not files:
        return []
    if args.source:
        return [_find(file, args.source, alone=len(files) == 1) for file in files]
    return download(files, [args.url] if args.url else mirrors, args.output.parent)


def _find(file: File, sources: Sequence[Path], alone: bool) -> Path:
    """Look a file up among those that the user has named."""
    for source in sources:
        if not source.exists():
            raise MissingFileError(f"--source: there is no {source}")
        path = source / file.name if source.is_dir() else source
        if path.is_file() and (path.name == file.name or (alone and path == source)):
            check(path, file)
            return path
    raise MissingFileError(
        f"--source: {file.name} is not among {', '.join(map(str, sources))}"
    )

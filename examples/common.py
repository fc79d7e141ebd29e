"""What the examples share: their options, and where they find their data."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py

import brainstorm as bs

DataSet = Mapping[str, Mapping[str, Any]]


def parse_arguments(
    doc: str, epochs: int, **options: str | tuple[float, str]
) -> argparse.Namespace:
    """The options that all examples have; the seed is set.

    Args:
        doc: What the example does.
        epochs: Default of ``--epochs``.
        **options: Help texts of further options by name, which are off by default; of
            those that are positive numbers the default and the help text.
    """
    parser = argparse.ArgumentParser(
        description=as_help(doc), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--epochs", type=int, default=epochs, help=f"default: {epochs}")
    add("--gpu", action="store_true", help="compute on an Nvidia GPU")
    add("--data", type=Path, help="HDF5 file with other data of the same kind")
    add("--seed", type=int, default=42, help="of all that is random")
    add("--output-dir", type=Path, default=Path(), help="folder for what is saved")
    for name, option in options.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(option, str):
            add(flag, action="store_true", help=option)
        else:
            default, text = option
            text = f"{text}; default: {default}"
            add(flag, type=type(default), default=default, help=text)
    args = parser.parse_args()
    check_arguments(parser, args)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    bs.global_rnd.set_seed(args.seed)
    return args


def as_help(doc: str) -> str:
    """What a script does, without the line below its title."""
    return re.sub(r"^=+\n", "", doc, flags=re.MULTILINE)


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the script with a line where an option makes no sense."""
    if args.epochs is not None and args.epochs < 1:
        parser.exit(2, f"{parser.prog}: --epochs: expected at least 1\n")
    for name, value in vars(args).items():
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if is_number and value <= 0 and name not in ("epochs", "seed"):
            flag = f"--{name.replace('_', '-')}"
            parser.exit(2, f"{parser.prog}: {flag}: expected a number above 0\n")
    if args.data and not args.data.is_file():
        parser.exit(2, f"{parser.prog}: --data: there is no file {str(args.data)!r}\n")


def load_data(file: Path | None, name: str, fallback: str | None = None) -> DataSet:
    """A data set by its parts ``'training'``, ``'validation'`` and ``'test'``.

    Args:
        file: The HDF5 file that the user asked for, if any.
        name: The data set to use by default.
        fallback: One that needs no download, to use as long as there is none.

    Returns:
        The parts, each a mapping from names to HDF5 datasets of shape (T, B, ...).
    """
    if file:
        return load_file(file)
    path = bs.datasets.data_folder() / f"{name}.hdf5"
    if fallback and not path.exists():
        print(f"There is no {path}. To make it, run: brainstorm data {name}")
        print(f"Going on with {fallback}, which needs no download.")
        name = fallback
    return bs.datasets.load(name)


def load_file(file: Path) -> DataSet:
    """The parts of a data set in an HDF5 file."""
    opened = h5py.File(file, "r")
    for group in ("normalized_split", "split"):
        if group in opened:
            return opened[group]
    return opened

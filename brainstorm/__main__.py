"""The command line: ``brainstorm info net.hdf5``, and ``python -m brainstorm``."""

from __future__ import annotations

import argparse
import sys
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from brainstorm import __version__, scorers, tools
from brainstorm.data_iterators import Minibatches
from brainstorm.files import atomic_hdf5, atomic_path
from brainstorm.structure.network import Network
from brainstorm.structure.prediction import arrange
from brainstorm.utils import (
    BrainstormError,
    FileFormatError,
    MissingInputError,
    ValidationError,
    get_inheritors,
    listing,
)

__all__ = ["main"]

SCORERS = {cls.__name__: cls for cls in get_inheritors(scorers.Scorer)}
DATA_HELP = "HDF5 or npz file with an array (T, B, ...) or (B, ...) for each input"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says.

    Args:
        arguments: The words of the command line. Default: those of the process.

    Returns:
        The exit status: 0, or 1 if something went wrong.
    """
    args = _parser().parse_args(arguments)
    try:
        args.command(args)
    except (BrainstormError, OSError, ImportError) as error:
        print(f"brainstorm {args.name}: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="brainstorm", description="Look at saved networks and use them."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="name", required=True)

    info = _command(commands, "info", _info, "print layers, shapes and memory")
    info.add_argument("--time-size", type=int, help="number of time steps")
    info.add_argument("--batch-size", type=int, help="number of sequences")

    draw = _command(commands, "draw", _draw, "draw a diagram of the layers")
    draw.add_argument("picture", help="file to write: .png, .svg or .pdf")

    evaluate = _command(commands, "evaluate", _evaluate, "print losses and scores")
    _add_data(evaluate)
    evaluate.add_argument(
        "--scorer",
        dest="scorers",
        action="append",
        default=[],
        choices=sorted(SCORERS),
        help="a score to compute; may be given several times",
    )

    predict = _command(commands, "predict", _predict, "compute outputs for data")
    _add_data(predict)
    predict.add_argument("predictions", help="file to write: .npy, .npz or .hdf5")
    return parser


def _command(commands: Any, name: str, function: Any, text: str) -> Any:
    command = commands.add_parser(name, help=text, description=text)
    command.set_defaults(command=function)
    command.add_argument("network", help="HDF5 file of the network")
    return command


def _add_data(command: argparse.ArgumentParser) -> None:
    command.add_argument("data", help=DATA_HELP)
    command.add_argument(
        "--group", default="", help="where in the file they are, as in a/test"
    )
    command.add_argument(
        "--output-name", help="such as Output.outputs.predictions", metavar="PATH"
    )
    command.add_argument("--batch-size", type=int, default=100, help="default: 100")


# -- the commands ------------------------------------------------------------


def _info(args: argparse.Namespace) -> None:
    net = Network.from_hdf5(args.network)
    tools.print_network_info(net, args.time_size, args.batch_size)


def _draw(args: argparse.Namespace) -> None:
    tools.draw_network(Network.from_hdf5(args.network), args.picture)


def _evaluate(args: argparse.Namespace) -> None:
    net = Network.from_hdf5(args.network)
    with ExitStack() as files:
        data, _ = arrange(net, _load(args, net, files))
        results = tools.evaluate(
            net,
            Minibatches(args.batch_size, shuffle=False, **data),
            [SCORERS[name]() for name in args.scorers],
            args.output_name or "",
            mask_name="mask" if "mask" in data else None,
        )
    for name, value in results.items():
        print(f"{name:<32}: {value:.6g}")


def _predict(args: argparse.Namespace) -> None:
    ending = Path(args.predictions).suffix.lower()
    if ending not in WRITERS:
        raise ValidationError(
            f"{args.predictions!r} has to end in one of {listing(WRITERS)}"
        )
    net = Network.from_hdf5(args.network)
    with ExitStack() as files:
        data = _load(args, net, files)
        predictions = net.predict(data, args.batch_size, args.output_name)
    WRITERS[ending](args.predictions, predictions)


# -- files -------------------------------------------------------------------


def _load(args: argparse.Namespace, net: Network, files: ExitStack) -> dict[str, Any]:
    """The arrays in a file that are inputs of the network."""
    with open(args.data, "rb"):  # tells at once if there is no such file
        is_hdf5 = h5py.is_hdf5(args.data)
    arrays = _in_hdf5(args, files) if is_hdf5 else _in_npz(args, files)
    names = [name for name in net.layers["Input"].out_shapes if name in arrays]
    if not names:
        raise MissingInputError(
            f"{args.data!r} has no data for the inputs"
            f" {listing(net.layers['Input'].out_shapes)}; there are: {listing(arrays)}"
        )
    return {name: arrays[name] for name in names}


def _in_hdf5(args: argparse.Namespace, files: ExitStack) -> Mapping[str, Any]:
    group = files.enter_context(h5py.File(args.data, "r"))
    for part in filter(None, args.group.split("/")):
        if not isinstance(group.get(part), h5py.Group):
            inner = [n for n in group if isinstance(group[n], h5py.Group)]
            raise FileFormatError(
                f"{args.data!r} has no group {part!r} in {group.name!r}; there are:"
                f" {listing(inner)}"
            )
        group = group[part]
    return group


def _in_npz(args: argparse.Namespace, files: ExitStack) -> Mapping[str, Any]:
    try:
        archive = files.enter_context(np.load(args.data, allow_pickle=False))
        arrays = {name: archive[name] for name in archive}
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise FileFormatError(
            f"{args.data!r} is neither an HDF5 file nor an npz file of numbers"
        ) from error
    prefix = f"{args.group}/" if args.group else ""
    return {
        n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)
    }


def _write_npy(filename: str, predictions: np.ndarray) -> None:
    with atomic_path(filename) as temporary, open(temporary, "wb") as f:
        np.save(f, predictions)


def _write_npz(filename: str, predictions: np.ndarray) -> None:
    with atomic_path(filename) as temporary, open(temporary, "wb") as f:
        np.savez_compressed(f, predictions=predictions)


def _write_hdf5(filename: str, predictions: np.ndarray) -> None:
    with atomic_hdf5(filename) as f:
        f.create_dataset("predictions", data=predictions, compression="gzip")


WRITERS = {
    ".npy": _write_npy,
    ".npz": _write_npz,
    ".hdf5": _write_hdf5,
    ".h5": _write_hdf5,
}

if __name__ == "__main__":
    sys.exit(main())

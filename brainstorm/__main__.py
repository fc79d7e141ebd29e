"""The command line: ``brainstorm info net.hdf5``, and ``python -m brainstorm``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from brainstorm import __version__, datasets, scorers, tools
from brainstorm.data_iterators import Minibatches
from brainstorm.datasets.catalogue import DATA_SETS
from brainstorm.files import (
    atomic_hdf5,
    atomic_path,
    check_start,
    check_target,
)
from brainstorm.structure.network import Network
from brainstorm.structure.prediction import (
    find_output,
    for_iterators,
    has_time,
)
from brainstorm.tools.data_files import Source, load_inputs
from brainstorm.training.utils import print_log, report
from brainstorm.utils import (
    BrainstormError,
    ValidationError,
    listing,
)
from brainstorm.viewer.page import check_page_target, open_in_browser

SCORERS = {
    name: getattr(scorers, name)
    for name in vars(scorers)["__all__"]
    if name[0].isupper() and name not in ("DataSetScorer", "Score", "Scorer")
}
FORMAT = "Predictions file v1.0"
DATA_HELP = (
    "HDF5 or npz file with an array (T, B, ...) or (B, ...) for each input, or npy file"
    " for the only one"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says.

    Args:
        arguments: The words of the command line. Default: those of the process.

    Returns:
        The exit status: 0, or 2 if something went wrong, which one line then tells;
        130 after Ctrl-C.
    """
    parser = _parser()
    args = parser.parse_args(arguments)
    if args.name is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        args.command(args)
    except (BrainstormError, OSError, ImportError, MemoryError) as error:
        message = " ".join(str(error).split())
        print(f"brainstorm {args.name}: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"brainstorm {args.name}: interrupted", file=sys.stderr)
        return 130
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Tell what is wrong without the usage, which takes several lines."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="brainstorm",
        description="Look at saved networks and use them; get data and examples.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="name")

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

    data = _plain_command(
        commands, "data", _data, "make the HDF5 file of a data set, or list them"
    )
    data.add_argument("data_set", nargs="?", help="its name; default: list all")
    data.add_argument("--dir", help="where it is kept; default: see the list")

    examples = _plain_command(commands, "examples", _examples, "copy the examples")
    examples.add_argument(
        "folder", nargs="?", default="examples", help="where to; default: %(default)s"
    )
    examples.add_argument(
        "--force", action="store_true", help="replace files that are there"
    )

    view = _command(commands, "view", _view, "show what is inside, in a browser")
    view.add_argument("data", nargs="?", help=f"{DATA_HELP}; default: none")
    _add_group(view)
    view.add_argument(
        "--example", type=int, default=0, help="which sequence to show; default: 0"
    )
    view.add_argument(
        "--output", metavar="FILE", help="HTML file to write; default: NETWORK.html"
    )
    view.add_argument("--no-browser", action="store_true", help="only write the file")
    return parser


def _plain_command(commands: Any, name: str, function: Any, text: str) -> Any:
    command = commands.add_parser(name, help=text, description=text)
    command.set_defaults(command=function)
    return command


def _command(commands: Any, name: str, function: Any, text: str) -> Any:
    command = _plain_command(commands, name, function, text)
    command.add_argument("network", help="HDF5 file of the network")
    return command


def _add_data(command: argparse.ArgumentParser) -> None:
    command.add_argument("data", help=DATA_HELP)
    _add_group(command)
    command.add_argument(
        "--output-name", help="such as Output.outputs.predictions", metavar="PATH"
    )
    command.add_argument("--batch-size", type=int, default=100, help="default: 100")


def _add_group(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--group", default="", help="where in the file they are, as in a/test"
    )


def _source(args: argparse.Namespace) -> Source:
    """Where the data are, of a command that `_add_data` has been called for."""
    return Source(args.data, args.group, args.output_name)


# -- the commands ------------------------------------------------------------


def _info(args: argparse.Namespace) -> None:
    net = Network.from_hdf5(args.network)
    tools.print_network_info(net, args.time_size, args.batch_size)


def _draw(args: argparse.Namespace) -> None:
    tools.draw_network(Network.from_hdf5(args.network), args.picture)


def _evaluate(args: argparse.Namespace) -> None:
    net = Network.from_hdf5(args.network)
    if args.output_name:
        find_output(net, args.output_name)  # without scorers nothing else would look
    path = args.output_name or net.output_name or ""
    with ExitStack() as files:
        data = for_iterators(net, load_inputs(net, _source(args), files))
        results = tools.evaluate(
            net,
            Minibatches(args.batch_size, shuffle=False, **data),
            [SCORERS[name]() for name in args.scorers],
            args.output_name or "",
            mask_name="mask" if "mask" in data and has_time(net, path) else None,
        )
    for name, value in results.items():
        print_log(name, value)


def _predict(args: argparse.Namespace) -> None:
    ending = Path(args.predictions).suffix.lower()
    if ending not in WRITERS:
        raise ValidationError(
            f"{args.predictions!r} has to end in one of {listing(WRITERS)}"
        )
    check, write = WRITERS[ending]
    check(args.predictions)
    if os.path.realpath(args.predictions) == os.path.realpath(args.data):
        raise ValidationError(f"{args.predictions!r} is the file of the data")
    net = Network.from_hdf5(args.network)
    with ExitStack() as files:
        data = load_inputs(net, _source(args), files)
        predictions = net.predict(data, args.batch_size, args.output_name)
    write(args.predictions, predictions)


def _data(args: argparse.Namespace) -> None:
    if args.data_set is not None:
        report(str(datasets.fetch(args.data_set, args.dir)))
        return
    folder = datasets.data_folder(args.dir)
    report(f"data sets, which are kept in {folder}:")
    for data_set in DATA_SETS.values():
        state = f"{data_set.size / 1e6:.0f} MB to download"
        if (folder / f"{data_set.name}.hdf5").is_file():
            state = "there"
        elif not data_set.size:
            state = "no download"
        report(f"  {data_set.name:<11}  {data_set.summary} ({state})")


def _examples(args: argparse.Namespace) -> None:
    copies = tools.copy_examples(args.folder, args.force)
    report(f"copied {len(copies)} files to {args.folder}")


def _view(args: argparse.Namespace) -> None:
    output = args.output or Path(args.network).with_suffix(".html").name
    check_page_target(output)
    net = Network.from_hdf5(args.network)
    title = Path(args.network).name
    page = tools.view(net, args.data, args.example, title, args.group)
    page.save(output)
    report(f"the page is in {output}")
    if not args.no_browser:
        open_in_browser(output)


# -- writing ------------------------------------------------------------------


def _write_numpy(filename: str, save: Callable[[Any], None]) -> None:
    with atomic_path(filename) as temporary, open(temporary, "wb") as f:
        save(f)


def _write_hdf5(filename: str, predictions: np.ndarray) -> None:
    with atomic_hdf5(filename, FORMAT) as f:
        f.create_dataset("predictions", data=predictions, compression="gzip")


# What checks that a file may be written, and what writes it.
WRITERS: dict[str, tuple[Callable[[str], None], Callable[[str, np.ndarray], None]]] = {
    ".npy": (
        lambda name: check_start(name, rb"\x93NUMPY", "npy file"),
        lambda name, array: _write_numpy(name, lambda f: np.save(f, array)),
    ),
    ".npz": (
        lambda name: check_start(name, rb"PK", "npz file"),
        lambda name, array: _write_numpy(
            name, lambda f: np.savez_compressed(f, predictions=array)
        ),
    ),
    ".hdf5": (lambda name: check_target(name, FORMAT), _write_hdf5),
}
WRITERS[".h5"] = WRITERS[".hdf5"]

if __name__ == "__main__":
    sys.exit(main())

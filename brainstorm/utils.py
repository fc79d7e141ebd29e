"""Exceptions and small helpers that the whole package shares."""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
import inspect
import io
import json
import math
import re
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np

from brainstorm.__about__ import __version__

if TYPE_CHECKING:
    from typing_extensions import Unpack as Unpack
else:
    Unpack = Any  # in annotations, which nothing evaluates

__all__ = [
    "BrainstormError",
    "DescriptionError",
    "DownloadError",
    "FileFormatError",
    "HandlerError",
    "InitializationError",
    "IteratorValidationError",
    "LayerValidationError",
    "MissingFileError",
    "MissingInputError",
    "NetworkValidationError",
    "NotAFileError",
    "RankError",
    "StructureValidationError",
    "UnknownLayerTypeError",
    "UnknownNameError",
    "ValidationError",
    "flatten_all_but_last",
    "flatten_features",
    "flatten_time",
    "flatten_time_and_features",
    "get_brainstorm_info",
    "get_by_path",
    "get_inheritors",
    "is_valid_layer_name",
    "product",
    "progress_bar",
]


class BrainstormError(Exception):
    """Base class of all exceptions that brainstorm raises by itself."""


class ValidationError(BrainstormError, ValueError):
    """Something that the user specified does not fit."""


class NetworkValidationError(ValidationError):
    """The layers do not form a network, or a pattern does not fit it."""


class LayerValidationError(NetworkValidationError):
    """A layer's arguments, or the shapes that reach it, do not fit."""


class UnknownLayerTypeError(LayerValidationError, TypeError):
    """There is no layer of that type."""


class IteratorValidationError(ValidationError):
    """A data iterator's arguments, or its data, do not fit."""


class StructureValidationError(ValidationError):
    """A shape template is malformed."""


class DescriptionError(ValidationError, TypeError):
    """Something can not be described, or not be made from a description."""


class InitializationError(BrainstormError):
    """An initializer can not produce values of the requested shape."""


class FileFormatError(BrainstormError, OSError):
    """A file is damaged, or is not of the expected kind."""


class RankError(BrainstormError):
    """Another process of a parallel training has failed."""


class HandlerError(BrainstormError):
    """A handler's operation got arguments that it can not work with."""


class UnknownNameError(BrainstormError, KeyError):
    """There is nothing of that name."""

    # KeyError would show the message in quotes.
    __str__: ClassVar[Callable[[BaseException], str]] = Exception.__str__


class MissingInputError(UnknownNameError):
    """Data for some input of the network is missing."""


class MissingFileError(BrainstormError, FileNotFoundError):
    """There is no such file, or no such folder to write it to."""


class DownloadError(BrainstormError, ConnectionError):
    """A file can not be downloaded."""


class NotAFileError(BrainstormError, IsADirectoryError):
    """Where a file should be is a folder."""


# What other libraries call what this one calls otherwise.
_ELSEWHERE = {
    "batchnormalization": "BatchNorm",
    "bcewithlogitsloss": "SigmoidCE",
    "conv1d": "Convolution1D",
    "conv2d": "Convolution2D",
    "conv2dtranspose": "ConvolutionTranspose2D",
    "convtranspose2d": "ConvolutionTranspose2D",
    "crossentropyloss": "SoftmaxCE",
    "dense": "FullyConnected",
    "elu": "el",
    "flatten": "Reshape",
    "huberloss": "Huber",
    "l1loss": "AbsoluteError",
    "layernormalization": "LayerNorm",
    "leaky_relu": "leaky_rel",
    "linear": "FullyConnected",
    "maxpool2d": "Pooling2D",
    "modelcheckpoint": "SaveBestNetwork",
    "mse": "MeanSquaredError",
    "mseloss": "SquaredError",
    "relu": "rel",
    "rnn": "Recurrent",
    "silu": "swish",
    "simplernn": "Recurrent",
    "smoothl1loss": "Huber",
}


def listing(names: Iterable[object]) -> str:
    """The names as text for an error message: ``'a', 'b'`` or ``(none)``."""
    return ", ".join(repr(n) for n in names) or "(none)"


def choices(wrong: object, names: Iterable[object]) -> str:
    """What there is to choose from, for an error message, and what was perhaps meant.

    >>> choices('LSTM', ['Gru', 'Lstm'])
    "choices are: 'Gru', 'Lstm'; did you mean 'Lstm'?"
    """
    names = list(names)
    meant = meant_by(wrong, names)
    return f"choices are: {listing(names)}" + (
        f"; did you mean {meant!r}?" if meant else ""
    )


def meant_by(wrong: object, names: Iterable[object]) -> str | None:
    """The name that somebody probably meant: as elsewhere, cut short or misspelt."""
    known = {name.lower(): name for name in names if isinstance(name, str)}
    text = str(wrong).lower()
    text = _ELSEWHERE.get(text, text).lower()
    longer = [name for name in known if len(text) > 2 and name.startswith(text)]
    found = [text] if text in known else longer
    found = found or difflib.get_close_matches(text, known, 1, 0.7)
    return known[found[0]] if found else None


Init = TypeVar("Init", bound=Callable[..., None])


def takes_from(base: Any, *names: str) -> Callable[[Init], Init]:
    """Have a constructor take arguments of its base class behind its own.

    It gets those that are given as ``**common``, to pass them on.
    """
    of_base = inspect.signature(base.__init__).parameters

    def decorate(init: Init) -> Init:
        *own, _ = inspect.signature(init).parameters.values()
        signature = inspect.Signature([*own, *(of_base[name] for name in names)])

        @functools.wraps(init)
        def wrapped(*args: Any, **kwargs: Any) -> None:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{type(args[0]).__name__}: {error}") from None
            init(**bound.arguments)

        typed: Any = wrapped
        typed.__signature__ = signature
        return typed

    return decorate


def hinting(module: str, names: Iterable[str]) -> Callable[[str], Any]:
    """A module's ``__getattr__``, which tells what was probably meant."""

    def missing(name: str) -> Any:
        meant = None if name.startswith("_") else meant_by(name, names)
        hint = f"; did you mean {meant!r}?" if meant else ""
        raise AttributeError(f"module {module!r} has no attribute {name!r}{hint}")

    return missing


def offer(package: dict[str, Any], but: Iterable[str] = ()) -> None:
    """Have a package offer what it imports: all but modules, and helpers from here.

    Its ``__all__`` is made of that, which type checkers find by themselves.
    """
    modules = {name: getattr(v, "__module__", "") for name, v in package.items()}
    offered = {n for n, m in modules.items() if m and m != __name__ and n[0] != "_"}
    package["__all__"] = sorted(offered.difference(but))
    package["__getattr__"] = hinting(package["__name__"], package["__all__"])


def missing_extra(what: str, package: str, extra: str) -> ImportError:
    """The error to raise when an optional dependency is not installed."""
    return ImportError(
        f"{what} needs {package}, which is not installed. Install it with:"
        f" {_install_line(extra)}"
    )


def import_extra(module: str, what: str, extra: str) -> ModuleType:
    """Import an optional dependency, which is called like its module, for `what`."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise missing_extra(what, module.split(".")[0], extra) from error


def new_figure(what: str, **arguments: Any) -> Any:
    """A figure of matplotlib for `what`, which shows itself in notebooks.

    Without pyplot: there is no window, and no global list of figures.
    """
    library = import_extra("matplotlib.figure", what, "examples")
    figure = library.Figure(layout="constrained", **arguments)
    figure._repr_png_ = functools.partial(_png_of, figure)
    return figure


def _png_of(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _install_line(extra: str) -> str:
    """A command that installs an extra from where this library came from.

    The registry is no such place: its brainstorm is version 0.5.
    """
    clone = Path(__file__).resolve().parents[1]
    if (clone / "setup.py").is_file():
        return f'pip install "{clone}[{extra}]"'
    try:
        installed = importlib.metadata.distribution("brainstorm")
    except importlib.metadata.PackageNotFoundError:
        return f'pip install ".[{extra}]" in the folder of a clone'
    source = json.loads(installed.read_text("direct_url.json") or "{}")
    if "vcs_info" in source:
        vcs = source["vcs_info"]
        url = f"{vcs['vcs']}+{source['url']}@{vcs['commit_id']}"
        return f'pip install "brainstorm[{extra}] @ {url}"'
    clone = Path(url2pathname(urlsplit(source.get("url", "")).path))
    if "dir_info" in source and clone.is_dir():
        return f'pip install "{clone}[{extra}]"'
    wanted = re.compile(rf"""(.*);.*\bextra == ["']{re.escape(extra)}["']""")
    found = filter(None, map(wanted.match, installed.requires or ()))
    return "pip install " + " ".join(f'"{match[1].strip()}"' for match in found)


# -- names and paths ---------------------------------------------------------


def is_valid_layer_name(name: object) -> bool:
    """Whether `name` can be a layer's name.

    Layer names are Python identifiers, but not ``default`` or ``fallback``, which mean
    something in the dicts given to ``Network.initialize``, and not ``parameters`` or
    ``gradients``, which are the network's flat arrays.
    """
    return (
        isinstance(name, str)
        and name.isidentifier()
        and name not in ("default", "fallback", "parameters", "gradients")
    )


def check_layer_name(name: object) -> None:
    """Refuse what can not be a layer's name."""
    if not is_valid_layer_name(name):
        raise LayerValidationError(
            f"{name!r} can not be the name of a layer: expected a Python identifier"
            " other than 'default', 'fallback', 'parameters' and 'gradients'"
        )


def get_by_path(tree: Mapping[str, Any], path: str) -> Any:
    """Look up a dotted path in nested mappings, or in views of buffers.

    >>> get_by_path({'validation': {'Accuracy': [0.5]}}, 'validation.Accuracy')
    [0.5]

    Raises:
        UnknownNameError: Names the part that is missing and the choices there.
    """
    node: Any = tree
    for part in path.split("."):
        members = (
            node if isinstance(node, Mapping) else getattr(node, "_asdict", dict)()
        )
        if part not in members:
            raise UnknownNameError(
                f"no {part!r} in path {path!r}; {choices(part, members)}"
            )
        node = members[part]
    return node


def flatten_keys(tree: Mapping[str, Any]) -> list[str]:
    """The dotted paths of all leaves of nested mappings, in their order.

    >>> flatten_keys({'a': 1, 'b': {'c': 2, 'd': 3}})
    ['a', 'b.c', 'b.d']
    """
    paths: list[str] = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            paths += [f"{key}.{rest}" for rest in flatten_keys(value)]
        else:
            paths.append(str(key))
    return paths


def get_inheritors(cls: type) -> set[type]:
    """All direct and indirect subclasses of `cls`."""
    found: set[type] = set()
    pending = [cls]
    while pending:
        children: list[type] = pending.pop().__subclasses__()
        for child in children:
            if child not in found:
                found.add(child)
                pending.append(child)
    return found


# -- names of version 0.5 ----------------------------------------------------

product: Callable[..., Any] = math.prod


def get_brainstorm_info() -> bytes:
    """What files say about who wrote them."""
    return f"Created with brainstorm {__version__}".encode()


# -- reshaping ---------------------------------------------------------------

# These give views: what is written there is written to the array. They raise a
# HandlerError where the array's strides do not allow that.


def flatten_time(array: Any) -> Any:
    """View ``(T, B, ...)`` as ``(T * B, ...)``."""
    return _view(array, (array.shape[0] * array.shape[1], *array.shape[2:]))


def flatten_time_and_features(array: Any) -> Any:
    """View ``(T, B, ...)`` as the matrix ``(T * B, F)``."""
    shape = array.shape
    return _view(array, (shape[0] * shape[1], math.prod(shape[2:])))


def flatten_features(array: Any, start_idx: int = 2) -> Any:
    """View ``(T, B, ...)`` as ``(T, B, F)``; the features begin at `start_idx`."""
    shape = array.shape
    return _view(array, (*shape[:start_idx], math.prod(shape[start_idx:])))


def flatten_all_but_last(array: Any) -> Any:
    """View ``(..., C)`` as the matrix ``(N, C)``."""
    return _view(array, (math.prod(array.shape[:-1]), array.shape[-1]))


def _view(array: Any, shape: tuple[int, ...]) -> Any:
    """Reshape without copying: layers would write into the copy."""
    view = array.reshape(shape)
    if isinstance(array, np.ndarray):
        is_copy = array.size and not np.may_share_memory(view, array)
    else:  # arrays of other handlers tell whose memory they are in, if any can copy
        is_copy = getattr(view, "memory", None) is not getattr(array, "memory", None)
    if is_copy:
        raise HandlerError(
            f"no view of this array of the shape {array.shape} and the strides"
            f" {array.strides} has the shape {shape}"
        )
    return view


# -- reporting ---------------------------------------------------------------


def progress_bar(
    maximum: float,
    prefix: str = "[",
    bar: str = "====1====2====3====4====5====6====7====8====9====0",
    suffix: str = "] Took: {0}\n",
) -> Generator[str, float, None]:
    """A progress bar as a coroutine: send it how far you are, print its answer.

    >>> bar = progress_bar(2, bar='1234', suffix=']')
    >>> print(next(bar), bar.send(1), bar.send(2))
    [ 12 34]

    Args:
        maximum: The value at which the bar is full.
        prefix: Text before the bar.
        bar: Text that appears bit by bit.
        suffix: Text after the full bar; ``{0}`` becomes the elapsed time.
    """
    started = time.monotonic()
    shown = 0
    out = prefix
    while shown < len(bar):
        reached = yield out
        fraction = min(max(reached / maximum, 0.0), 1.0) if maximum > 0 else 1.0
        upto = max(shown, int(fraction * len(bar)))
        out = bar[shown:upto]
        shown = upto
    minutes, seconds = divmod(time.monotonic() - started, 60)
    yield out + suffix.format(f"{int(minutes)}:{seconds:05.2f}")

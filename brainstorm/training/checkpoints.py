"""Checkpoints: a training and its network in an HDF5 file.

Attributes ``info`` and ``format``; group ``network``, like a network's file; dataset
``training``, UTF-8 JSON with the descriptions of stepper, scorers and hooks and with
the state of the trainer; group ``arrays``, the arrays in that state, which the JSON
refers to as ``{"@array": "<name>"}``.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from brainstorm import describable, files
from brainstorm.handlers.base_handler import Handler
from brainstorm.scorers import Scorer
from brainstorm.structure.network import Network
from brainstorm.structure.network_files import (
    in_order,
    read_network,
    write_info,
    write_network,
)
from brainstorm.training.steppers import TrainingStepper
from brainstorm.utils import FileFormatError, ValidationError, listing

if TYPE_CHECKING:
    from brainstorm.hooks.base_hook import Hook

FORMAT = "Checkpoint file v1.0"
ARRAY = "@array"
KEYS = {
    "carry_context": bool,
    "hooks": list,
    "state": dict,
    "stepper": dict,
    "train_scorers": list,
    "verbose": bool | int,
}
STATE_KEYS = {
    "context": dict,
    "data": dict,
    "epoch": dict | None,
    "epoch_nr": int,
    "global": list,
    "handler": dict,
    "handler_type": str,
    "hooks": dict,
    "logs": dict,
    "modifiers": dict,
    "network": list,
    "ranks": list,
    "results": dict,
    "stepper": dict,
    "update_nr": int,
}


def write_checkpoint(
    filename: str | os.PathLike[str], net: Network, training: Mapping[str, Any]
) -> None:
    """Write a network, and what is in a trainer by `KEYS`; see `Trainer.save`."""
    arrays: dict[str, np.ndarray] = {}
    hooks = training["hooks"].values()
    training = {
        "verbose": 2 if training["verbose"] == 2 else bool(training["verbose"]),
        "carry_context": bool(training["carry_context"]),
        "stepper": _describe(training["stepper"], TrainingStepper),
        "train_scorers": [_describe(s, Scorer) for s in training["train_scorers"]],
        "hooks": [[name, None] for name in training["hooks"]],
        "state": _pack(training["state"], arrays, "the training"),
    }
    for described, hook in zip(training["hooks"], hooks, strict=True):
        with contextlib.suppress(ValidationError):  # one is needed to load it then
            described[1] = _describe(hook)
    describable.check_names(training)
    with files.atomic_hdf5(filename, FORMAT) as f:
        write_info(f)
        write_network(f.create_group("network"), net, describable.get_description(net))
        f["training"] = np.bytes_(json.dumps(training).encode())
        group = f.create_group("arrays")
        for name, array in arrays.items():
            group[name] = array


@contextlib.contextmanager
def read_checkpoint(
    filename: str | os.PathLike[str], hooks: Iterable[Hook] | None
) -> Iterator[tuple[Network, dict[str, Any]]]:
    """Read what `write_checkpoint` was given; see `Trainer.load`.

    Whatever fails until a trainer has been made of it is an error of the file.
    """
    with files.open_hdf5(filename, FORMAT) as f:
        net, order = read_network(Network.uninitialized, files.read_group(f, "network"))
        training = _read_training(f)
        for part in ("stepper", "hooks"):
            training["state"][part] = _reordered(training["state"][part], order)
    descriptions = dict(training["hooks"])
    if hooks is not None:
        hooks = list(hooks)
        _check_names(hooks, descriptions)
    elif None in descriptions.values():
        lacking = [name for name, d in descriptions.items() if d is None]
        raise ValidationError(
            f"{str(filename)!r} does not describe the hooks {listing(lacking)}; make"
            f" all hooks as before, {listing(descriptions)}, and pass them as hooks"
        )
    with files.reading(filename):
        if hooks is None:
            hooks = [_create(d) for d in descriptions.values()]
            _check_names(hooks, descriptions)
        stepper = _create(training["stepper"], TrainingStepper)
        scorers = [_create(d, Scorer) for d in training["train_scorers"]]
        named = {hook.__name__: hook for hook in hooks}
        made = {"stepper": stepper, "train_scorers": scorers, "hooks": named}
        made_net: Any = net
        yield made_net, {**training, **made}


def _reordered(state: Any, order: np.ndarray | None) -> Any:
    """A state whose arrays with a value for each parameter have these in `order`."""
    if isinstance(state, dict):
        return {name: _reordered(value, order) for name, value in state.items()}
    if isinstance(state, list):
        return [_reordered(value, order) for value in state]
    is_flat = order is not None and getattr(state, "shape", None) == order.shape
    return in_order(state, order) if is_flat else state


# -- descriptions ------------------------------------------------------------


def _describe(part: Any, kind: type = describable.Describable) -> Any:
    """The description of a part of a trainer, of which it can be made again."""
    description = describable.get_description(part)
    try:
        _create(description, kind)
    except (FileFormatError, ValidationError) as error:
        raise ValidationError(
            f"can not save a {type(part).__name__} that could not be loaded: {error}"
        ) from error
    return description


def _create(description: Any, kind: type = describable.Describable) -> Any:
    """Make a part of a trainer; networks and handlers are none."""
    describable.check_types(
        description,
        lambda cls: issubclass(cls, kind) and not issubclass(cls, (Network, Handler)),
    )
    created = describable.create_from_description(description)
    if not isinstance(created, kind):
        raise FileFormatError(f"expected the description of a {kind.__name__}")
    return created


def _check_names(hooks: Iterable[Hook], names: Iterable[str]) -> None:
    given = [getattr(hook, "__name__", None) for hook in hooks]
    if sorted(map(str, given)) != sorted(names):
        raise ValidationError(
            f"the hooks of the checkpoint are {listing(names)}, got {listing(given)}"
        )


# -- values ------------------------------------------------------------------


def _read_training(f: h5py.File) -> dict[str, Any]:
    """The dataset ``training``, with its arrays in place."""
    training = json.loads(files.read_text(f, "training"))
    # Version 0.6.0 did not carry contexts.
    if isinstance(training, dict) and isinstance(training.get("state"), dict):
        training.setdefault("carry_context", False)
        training["state"].setdefault("context", {})
        training["state"].setdefault("ranks", [])
    _check_kinds(training, KEYS)
    arrays = files.read_tree(files.read_group(f, "arrays"))
    state = training["state"] = _unpack(training["state"], arrays)
    _check_kinds(state, STATE_KEYS)
    _check_logs(state["logs"])
    if arrays or min(state["epoch_nr"], state["update_nr"]) < 0:
        raise FileFormatError("there are arrays without use, or negative counts")
    if set(state["hooks"]) != set(dict(training["hooks"])):
        raise FileFormatError("the states are those of other hooks")
    return training


def _check_kinds(node: Any, kinds: Mapping[str, Any]) -> None:
    if not isinstance(node, dict) or set(node) != set(kinds):
        raise FileFormatError(f"expected a dict of {listing(kinds)}")
    for name, kind in kinds.items():
        # True is no count, though Python takes it for an integer.
        if not isinstance(node[name], kind) or (kind is int and node[name] is True):
            raise FileFormatError(f"expected {kind} as {name!r}")


def _check_logs(logs: Mapping[str, Any]) -> None:
    for name, node in logs.items():
        if isinstance(node, dict):
            _check_logs(node)
        elif not isinstance(node, list):
            raise FileFormatError(f"expected a list or a dict as the log {name!r}")


def _pack(value: Any, arrays: dict[str, np.ndarray], where: str) -> Any:
    """A value for JSON, which the arrays in it have been taken out of."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        name = str(len(arrays))
        arrays[name] = value
        return {ARRAY: name}
    if isinstance(value, (list, tuple)):
        return [_pack(v, arrays, f"{where}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str) or key == ARRAY:
                raise ValidationError(
                    f"can not save {where}: it has the key {key!r}, but keys have to be"
                    f" strings other than {ARRAY!r}"
                )
        return {k: _pack(v, arrays, f"{where}[{k!r}]") for k, v in value.items()}
    raise ValidationError(
        f"can not save {where}: expected None, bool, int, float, str, list, tuple, dict"
        f" or an array of numbers, got {type(value).__name__}"
    )


def _unpack(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """What `_pack` has packed; each array is taken from `arrays`, once."""
    if isinstance(value, list):
        return [_unpack(v, arrays) for v in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {ARRAY}:
        return arrays.pop(value[ARRAY])
    return {k: _unpack(v, arrays) for k, v in value.items()}

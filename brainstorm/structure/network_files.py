"""Networks in HDF5 files.

Attributes ``info``, ``format`` and optionally ``comment``; dataset
``description``, the network's description as UTF-8 JSON; dataset
``parameters``, the flat buffer, compressed. The format is that of brainstorm 0.5.

Where each parameter lies says the attribute ``layout`` of that dataset, a JSON list of
``{"path", "shape", "start", "stop"}``. Without it the rule of version 0.5 holds, which
is also today's: layers by name, the parameters of each as it declares them. Only what
the development version of 0.6.0 wrote has layers in canonical order.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import h5py
import numpy as np

from brainstorm import describable, files
from brainstorm.handlers import default_handler
from brainstorm.handlers.base_handler import Handler
from brainstorm.handlers.operations.activations import OTHER_NAMES
from brainstorm.structure.architecture import instantiate_layers_from_architecture
from brainstorm.structure.layer import Layer
from brainstorm.structure.layout import Hub, create_layout
from brainstorm.structure.running import RunningNetwork
from brainstorm.structure.trainable import OLD_JOINS
from brainstorm.utils import (
    FileFormatError,
    HandlerError,
    ValidationError,
    get_brainstorm_info,
    listing,
)
from brainstorm.value_modifiers import GradientModifier, ValueModifier

# Makes a network from its description, whose parameters are zeros.
Make = Callable[[Mapping[str, Any]], RunningNetwork]

KEYS = {
    "@type",
    "architecture",
    "handler",
    "initializers",
    "gradient_modifiers",
    "weight_modifiers",
    "output_name",
}
FORMAT = "Network file v1.0"
LAYOUT = "layout"
DEVELOPMENT = "Created with brainstorm 0.6"
# Handlers that are not the usual one for float32 on the CPU, where files name that.
HANDLER = "handler"
PLAIN_HANDLER = {"@type": "NumpyHandler", "dtype": "float32"}
# Values in the inputs, outputs and internals of one step of one sequence: 1 GiB of
# float32. Descriptions of larger networks are taken for damaged ones.
LARGEST_STEP = 2**28


def save_network(
    net: RunningNetwork, filename: str | os.PathLike[str], comment: str = ""
) -> None:
    """Write a network to an HDF5 file, which is replaced in one go."""
    if not isinstance(comment, str):
        raise ValidationError(f"expected a text as comment, got {comment!r}")
    with files.atomic_hdf5(filename, FORMAT) as f:
        write_info(f)
        if comment:
            files.write_text_attribute(f, "comment", comment)
        description = describable.get_description(net)
        handler = description["handler"]
        if handler["@type"] == "OneDnnHandler":
            # Its results are those of NumpyHandler, which all versions know.
            description["handler"] = PLAIN_HANDLER
        # The handler that networks have if nobody chooses one needs no mention.
        usual = net.handler is default_handler or handler == {"@type": "OneDnnHandler"}
        if description["handler"] == PLAIN_HANDLER and not usual:
            files.write_text_attribute(f, HANDLER, json.dumps(handler))
        write_network(f, net, description)


def load_network(make: Make, filename: str | os.PathLike[str]) -> Any:
    """Read a network from an HDF5 file, see `Network.from_hdf5`."""
    with files.open_hdf5(filename, FORMAT) as f:
        net, _ = read_network(make, f)
        text = files.read_text_attribute(f, HANDLER)
        if text is not None:
            handler = json.loads(text)
            describable.check_types(handler, lambda cls: issubclass(cls, Handler))
            net.set_handler(available_handler(handler))
        elif describable.get_description(net.handler) == PLAIN_HANDLER:
            net.set_handler(default_handler)
    return net


def write_info(f: h5py.File) -> None:
    """Write who wrote a file."""
    files.write_text_attribute(f, "info", get_brainstorm_info().decode())


def write_network(
    group: h5py.Group, net: RunningNetwork, description: Mapping[str, Any]
) -> None:
    """Write a description of a network, and its parameters."""
    describable.check_names(description)
    group["description"] = np.bytes_(json.dumps(_as_for_0_5(description)).encode())
    parameters = group.create_dataset(
        "parameters", data=net.get("parameters"), compression="gzip"
    )
    write_order(parameters, net.layers, create_layout(net.layers)[0][0])


def read_network(
    make: Make, group: h5py.Group
) -> tuple[RunningNetwork, np.ndarray | None]:
    """Read what `write_network` has written: a network, and `find_order`.

    Errors, of whatever kind, mean that it is damaged; see `open_hdf5`.
    """
    description = _checked(json.loads(files.read_text(group, "description")))
    architecture = description["architecture"]
    layers, hubs = _lay_out(architecture)
    # A network is made once it is known that its parameters are there.
    parameters = files.read_array(group, "parameters", (hubs[0].size,))
    order = find_order(group["parameters"], layers, hubs[0])
    if of_development_version(group["parameters"]):
        description["architecture"] = _with_old_joins(architecture, hubs)
    net = make(description)
    net.handler.set_from_numpy(net.buffer.parameters, in_order(parameters, order))
    return net, order


def available_handler(description: Mapping[str, Any]) -> Handler:
    """The described handler, or the default one where that can not run here.

    So networks trained on a GPU can be used on machines without one.
    """
    try:
        return describable.create_from_description(description)
    except (ImportError, HandlerError) as error:
        warnings.warn(
            f"the network gets the default handler instead of its own: {error}",
            stacklevel=2,
        )
        return default_handler


def _checked(description: Any) -> dict[str, Any]:
    """A description, once all but the architecture is known to be good."""
    if not isinstance(description, Mapping) or description.get("@type") != "Network":
        raise FileFormatError("expected a dict with '@type': 'Network'")
    if set(description) != KEYS:
        raise FileFormatError(
            f"expected the keys {listing(sorted(KEYS))}, got"
            f" {listing(sorted(description))}"
        )
    for key in KEYS - {"@type", "output_name"}:
        if not isinstance(description[key], Mapping):
            raise FileFormatError(f"expected a dict as {key!r}")
    if not isinstance(description["output_name"], str | None):
        raise FileFormatError("expected a text or null as 'output_name'")
    describable.check_types(
        description["handler"], lambda cls: issubclass(cls, Handler)
    )
    modifiers = [description[key] for key in ("weight_modifiers", "gradient_modifiers")]
    kinds = (ValueModifier, GradientModifier)
    describable.check_types(modifiers, lambda cls: issubclass(cls, kinds))
    return dict(description)


def _lay_out(architecture: Mapping[str, Any]) -> tuple[Mapping[str, Layer], list[Hub]]:
    """Layers and hubs, made without memory for anything being taken."""
    layers = instantiate_layers_from_architecture(architecture)
    hubs, _ = create_layout(layers)
    _, *others = (hub for hub in hubs if not hub.is_backward_only)
    step = sum(math.prod(hub.get_shape(1, 1)) for hub in others)
    if step > LARGEST_STEP:
        raise FileFormatError(
            f"one step of one sequence would take {step} values, but networks in files"
            f" take at most {LARGEST_STEP}; larger ones can be made from their"
            " architecture"
        )
    return layers, hubs


def _as_for_0_5(description: Mapping[str, Any]) -> dict[str, Any]:
    """A description whose activation functions have the names that 0.5 knows."""
    architecture = {
        layer: {
            key: OTHER_NAMES.get(value, value) if key == "activation" else value
            for key, value in properties.items()
        }
        for layer, properties in description["architecture"].items()
    }
    return {**description, "architecture": architecture}


def _with_old_joins(
    architecture: Mapping[str, Any], hubs: Sequence[Hub]
) -> Mapping[str, Any]:
    """An architecture that keeps the order of joined outputs in canonical order.

    What such outputs go into has its weights in that order.
    """
    old = {**architecture, "Input": {**architecture["Input"], **OLD_JOINS}}
    old_hubs, _ = create_layout(instantiate_layers_from_architecture(old))
    same = sorted(h.sources for h in hubs) == sorted(h.sources for h in old_hubs)
    return architecture if same else old


# -- the order of parameters -------------------------------------------------


class Place(NamedTuple):
    """A parameter and its part of the flat parameters."""

    path: str
    shape: tuple[int, ...]
    start: int
    stop: int


def write_order(dataset: h5py.Dataset, layers: Mapping[str, Layer], hub: Hub) -> None:
    """Say in a file where each of its parameters lies."""
    places = [place._asdict() for place in _places(layers, hub)]
    files.write_text_attribute(dataset, LAYOUT, json.dumps(places))


def find_order(
    dataset: h5py.Dataset, layers: Mapping[str, Layer], hub: Hub
) -> np.ndarray | None:
    """Where in the parameters of a file those of a network lie, one by one.

    None if the order is the same. The dataset is in a group like a network's file;
    `hub` is that of the network's parameters.
    """
    expected = _places(layers, hub)
    if LAYOUT in dataset.attrs:
        found = _read_places(files.read_text_attribute(dataset, LAYOUT), expected)
    elif of_development_version(dataset):
        run = list(layers)  # they come as they run
        places = sorted(expected, key=lambda p: run.index(p.path.partition(".")[0]))
        sizes = [place.stop - place.start for place in places]
        starts = itertools.accumulate(sizes, initial=0)
        found = dict(zip((place.path for place in places), starts, strict=False))
    else:
        return None
    if found == {place.path: place.start for place in expected}:
        return None
    parts = [np.arange(p.stop - p.start) + found[p.path] for p in expected]
    return np.concatenate(parts)


def in_order(array: np.ndarray, order: np.ndarray | None) -> np.ndarray:
    """Values for each parameter of a file, in the order that `find_order` gave."""
    return array if order is None else array[order]


def of_development_version(dataset: h5py.Dataset) -> bool:
    """Whether parameters without layout are from 0.6.0, not from 0.5."""
    info = files.read_text_attribute(dataset.file, "info") or ""
    return LAYOUT not in dataset.attrs and info.startswith(DEVELOPMENT)


def _places(layers: Mapping[str, Layer], hub: Hub) -> list[Place]:
    places = []
    for path in hub.sources:
        layer, _, name = path.split(".")
        shape = layers[layer].parameter_shapes[name].feature_shape
        places.append(Place(path, shape, *hub.slices[path]))
    return places


def _read_places(text: str | None, expected: Sequence[Place]) -> dict[str, int]:
    """Where parameters start as a file has it."""
    if text is None:
        raise FileFormatError("the list of parameters is no text of fixed length")
    places = []
    for entry in json.loads(text):
        try:
            path, shape, *ends = [entry[field] for field in Place._fields]
            is_good = isinstance(path, str) and all(
                type(n) is int for n in [*shape, *ends]
            )
        except (LookupError, TypeError):
            is_good = False
        if not is_good or len(entry) > len(Place._fields):
            raise FileFormatError(f"the list of parameters has the entry {entry!r}")
        places.append(Place(path, tuple(shape), *ends))
    shapes = {place.path: place.shape for place in places}
    wanted = {place.path: place.shape for place in expected}
    if shapes != wanted or len(places) != len(expected):
        differing = sorted(
            path for path in {*shapes, *wanted} if shapes.get(path) != wanted.get(path)
        )
        raise FileFormatError(
            "the list of parameters contradicts the architecture at"
            f" {listing(differing) if differing else 'paths that it has twice'}"
        )
    stop = 0
    for place in sorted(places, key=lambda place: place.start):
        if place.start != stop or place.stop - stop != np.prod(place.shape, dtype=int):
            raise FileFormatError(
                f"in the list of parameters {place.path!r} has the shape"
                f" {place.shape}, but lies from {place.start} to {place.stop}, where"
                f" the one before ends at {stop}"
            )
        stop = place.stop
    return {place.path: place.start for place in places}

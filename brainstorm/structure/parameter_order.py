"""Where each parameter lies in the flat parameters that a file holds.

Files say so themselves: the attribute ``layout`` of their dataset ``parameters`` is a
JSON list of ``{"path", "shape", "start", "stop"}``. Without it the rule of version 0.5
holds, which is also today's: layers by name, the parameters of each as it declares
them. Only what the development version of 0.6.0 wrote has layers in canonical order.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import h5py
import numpy as np

from brainstorm.files import read_text_attribute, write_text_attribute
from brainstorm.structure.layer import Layer
from brainstorm.structure.layout import Hub
from brainstorm.utils import FileFormatError, listing

LAYOUT = "layout"
DEVELOPMENT = "Created with brainstorm 0.6"


class Place(NamedTuple):
    """A parameter and its part of the flat parameters."""

    path: str
    shape: tuple[int, ...]
    start: int
    stop: int


def write_order(dataset: h5py.Dataset, layers: Mapping[str, Layer], hub: Hub) -> None:
    """Say in a file where each of its parameters lies."""
    places = [place._asdict() for place in _places(layers, hub)]
    write_text_attribute(dataset, LAYOUT, json.dumps(places))


def find_order(
    dataset: h5py.Dataset, layers: Mapping[str, Layer], hub: Hub
) -> np.ndarray | None:
    """Where in the parameters of a file those of a network lie, one by one.

    None if the order is the same. The dataset is in a group like a network's file;
    `hub` is that of the network's parameters.
    """
    expected = _places(layers, hub)
    if LAYOUT in dataset.attrs:
        found = _read_places(read_text_attribute(dataset, LAYOUT), expected)
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
    info = read_text_attribute(dataset.file, "info") or ""
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
        place = Place(**entry)
        numbers = [*place.shape, place.start, place.stop]
        if not isinstance(place.path, str) or any(type(n) is not int for n in numbers):
            raise FileFormatError(f"the list of parameters has the entry {entry}")
        places.append(place._replace(shape=tuple(place.shape)))
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

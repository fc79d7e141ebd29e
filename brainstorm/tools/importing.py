"""Weights from other libraries."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from brainstorm.checks import check_network
from brainstorm.files import checked_name, reading
from brainstorm.structure.network import Network
from brainstorm.structure.trainable import own_parameters
from brainstorm.tools.conversions import Arrays, Source, converted, number_of_arrays
from brainstorm.utils import (
    MissingFileError,
    ValidationError,
    choices,
    import_extra,
    listing,
)

__all__ = ["import_weights"]

MOST_MISFITS = 3  # are told in an error
# Of one of several layers, or directions, of a recurrent module.
_RECURRENT = re.compile(r"(weight_ih|weight_hh|bias_ih|bias_hh)_l(\d+)(_reverse)?$")


def import_weights(
    net: Network, source: Any, names: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Give a network the weights of a model of PyTorch or Keras.

    Layouts, orders of gates and signs are converted, so that both compute the same:
    kernels have their channels last, Linear layers behind a flattened image their
    columns in another order, LSTMs other orders of gates and one bias for two, and a
    BatchNorm keeps the negative mean and the deviation. What the other library does not
    have, peepholes and learned states, becomes 0. That the layers are wired alike, with
    the same activations, and the same epsilon, is for you to see to. GRUs with biases
    have one within the reset gate, and need ``Gru(n, recurrent_bias=True)``.

    ============================ =====================================================
    `source`                     modules
    ============================ =====================================================
    dict of arrays or tensors    of a ``state_dict()``, named ``'<module>.weight'`` etc.
    dict of lists of arrays      of Keras, ``{la.name: la.get_weights() for la in ...}``
    list of arrays               ``model.get_weights()`` of Keras, for layers in order
    file ``.safetensors``        as in a state_dict
    file ``.pt``, ``.pth``       a state_dict that ``torch.save`` wrote; needs torch
    file ``.h5``                 ``model.save_weights`` of Keras 3 wrote
    ============================ =====================================================

    Args:
        net: The network. Its parameters change only if all fit.
        source: Where the weights come from.
        names: The module for each layer. Those that are left out are found by the same
            name, or as the only ones of fitting shapes.

    Returns:
        The module that each layer got its parameters from.

    Raises:
        ImportError: safetensors, or torch, is missing.
        MissingFileError: There is no such file.
        ValidationError: Modules are left over, or lacking, or several would do; or
            shapes do not fit. Both are listed.
    """
    check_network(net)
    layers = [net.layers[n] for n, own in own_parameters(net.layers).items() if own]
    sources = _listed(layers, source) if _is_list(source) else _modules(source)
    by_name = {s.name: s for s in sources}
    chosen = _match(layers, by_name, dict(names or {}))
    found = {
        layer.name: converted(layer, by_name[chosen[layer.name]]) for layer in layers
    }
    for layer, arrays in found.items():
        for name, values in arrays.items():
            if name not in net.layers[layer].shared:
                target = net.buffer[layer].parameters[name]
                net.handler.set_from_numpy(target, np.ascontiguousarray(values))
    return chosen


# -- which module is which layer ---------------------------------------------


def _match(
    layers: Sequence[Any], sources: Mapping[str, Source], names: dict[str, str]
) -> dict[str, str]:
    """The module for each layer, by its name."""
    both = (
        f"the layers with parameters are {listing(la.name for la in layers)}, the"
        f" modules {listing(sources)}"
    )
    known = [layer.name for layer in layers]
    for layer, module in names.items():
        if layer not in known:
            raise ValidationError(
                f"names: there is no layer {layer!r} with parameters;"
                f" {choices(layer, known)}; {both}"
            )
        if module not in sources:
            raise ValidationError(
                f"names: there is no module {module!r}; {choices(module, sources)};"
                f" {both}"
            )
    if len(set(names.values())) < len(names):
        raise ValidationError(f"names: a module is named twice in {names}")
    for layer in known:
        if layer in sources and layer not in names and layer not in names.values():
            names[layer] = layer
    fitting = {
        layer.name: [n for n, s in sources.items() if not _misfit(layer, s)]
        for layer in layers
        if layer.name not in names
    }
    while fitting:
        free = {
            n: [m for m in f if m not in names.values()] for n, f in fitting.items()
        }
        certain = [name for name, modules in free.items() if len(modules) == 1]
        if not certain or not free[certain[0]]:
            name, modules = min(free.items(), key=lambda item: len(item[1]))
            reason = f"{listing(modules)} would do"
            if not modules:
                layer = next(la for la in layers if la.name == name)
                others = (s for n, s in sources.items() if n not in names.values())
                misfits = [text for s in others if (text := _misfit(layer, s))]
                reason = "; ".join(["none fits", *misfits[:MOST_MISFITS]])
            raise ValidationError(
                f"no module is certain for the layer {name!r}: {reason}; give names;"
                f" {both}"
            )
        names[certain[0]] = free[certain[0]][0]
        del fitting[certain[0]]
    if left := [name for name in sources if name not in names.values()]:
        raise ValidationError(f"no layer is left for {listing(left)}; {both}")
    return {name: names[name] for name in known}


def _misfit(layer: Any, source: Source) -> str:
    """Why a module does not fit a layer; '' if it does."""
    try:
        converted(layer, source)
    except ValidationError as error:
        return str(error)
    return ""


# -- reading -----------------------------------------------------------------


def _is_list(source: Any) -> bool:
    return isinstance(source, (list, tuple))


def _listed(layers: Iterable[Any], arrays: Sequence[Any]) -> list[Source]:
    """Arrays in the order of the layers, cut into those of each."""
    left = [_array(a, f"array {n}") for n, a in enumerate(arrays)]
    sources = []
    for layer in layers:
        count = number_of_arrays(layer)
        if len(left) < count:
            raise ValidationError(
                f"{len(arrays)} arrays are not enough: the layer {layer.name!r} needs"
                f" {count} of the {len(left)} that are left for it"
            )
        sources.append(Source(layer.name, {}, left[:count]))
        left = left[count:]
    if left:
        raise ValidationError(
            f"{len(left)} of {len(arrays)} arrays are left over, behind those of the"
            f" layers {listing(s.name for s in sources)}; the first left has the shape"
            f" {left[0].shape}"
        )
    return sources


def _modules(source: Any) -> list[Source]:
    if isinstance(source, (str, os.PathLike)):
        source = _read(source)
    if not isinstance(source, Mapping) or not source:
        raise ValidationError(
            "source: expected a dict or list of arrays, or a file, got"
            f" {type(source).__name__}"
        )
    if all(map(_is_list, source.values())):
        return [
            Source(name, {}, [_array(a, f"an array of {name!r}") for a in arrays])
            for name, arrays in source.items()
            if arrays
        ]
    grouped: dict[str, Arrays] = {}
    for path, value in source.items():
        name, _, own = str(path).rpartition(".")
        parent, _, last = name.rpartition(".")
        projections = (_joined(parent, f"{n}_proj_weight") for n in ("in", "q"))
        if last == "out_proj" and any(n in source for n in projections):
            name, own = parent, f"out_proj.{own}"
        if match := _RECURRENT.match(own):
            own, number, backward = match.groups()
            own = f"reverse_{own}" if backward else own
            if _joined(name, "weight_ih_l1") in source:
                name = _joined(name, f"l{number}")
        grouped.setdefault(name, {})[own] = _array(value, f"{path!r}")
    return [Source(name, arrays, ()) for name, arrays in grouped.items()]


def _joined(name: str, own: str) -> str:
    return f"{name}.{own}" if name else own


def _array(value: Any, what: str) -> np.ndarray:
    if hasattr(value, "detach"):  # a tensor, perhaps of a type that NumPy has not
        value = value.detach().cpu().double().numpy()
    try:
        return np.asarray(value, float)
    except (TypeError, ValueError) as error:
        raise ValidationError(
            f"source: {what} is no array of numbers: {error}"
        ) from None


def _read(filename: str | os.PathLike[str]) -> Any:
    name = os.fspath(checked_name(filename))
    if not os.path.isfile(name):
        raise MissingFileError(f"there is no file {name!r}")
    with reading(filename):
        if name.endswith(".safetensors"):
            need = "safetensors.numpy", "import_weights", "safetensors"
            return import_extra(*need).load_file(name)
        if name.endswith((".h5", ".hdf5")):
            return _read_keras(name)
        try:
            import torch
        except ImportError:
            raise ImportError(f"import_weights needs torch to read {name!r}") from None
        return torch.load(name, map_location="cpu", weights_only=True)


def _read_keras(name: str) -> dict[str, list[np.ndarray]]:
    """The arrays of each layer, in the order of `get_weights`."""
    found: dict[str, list[np.ndarray]] = {}
    order = ("query", "key", "value", "output", "forward", "backward")
    with h5py.File(name, "r") as file:
        layers = file.get("layers")
        if not isinstance(layers, h5py.Group):
            raise ValidationError(
                f"{name!r} has no group 'layers', as Keras 3 writes it"
            )

        def note(path: str, item: Any) -> None:
            parts = path.split("/")
            if isinstance(item, h5py.Dataset) and "seed_generator" not in parts:
                part = next(
                    (n for n, o in enumerate(order) if parts[1].startswith(o)), 0
                )
                key = part, int(parts[-1])
                arrays.setdefault(parts[0], {})[key] = item[()]

        arrays: dict[str, dict[tuple[int, int], np.ndarray]] = {}
        layers.visititems(note)
    for layer, by_key in arrays.items():
        found[layer] = [
            array for _, array in sorted(by_key.items(), key=lambda i: i[0])
        ]
    return found

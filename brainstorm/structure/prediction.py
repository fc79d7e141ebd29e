"""Using a network: arrays in, predictions out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from brainstorm.checks import checked_integer
from brainstorm.structure.buffer_structure import BufferStructure
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.external_data import check_dense, check_open, without_time
from brainstorm.structure.feedback import fed_back_output
from brainstorm.structure.layer import Layer
from brainstorm.structure.running import RunningNetwork
from brainstorm.utils import (
    FileFormatError,
    MissingInputError,
    NetworkValidationError,
    UnknownNameError,
    choices,
    listing,
    meant_by,
)


def predict(
    net: RunningNetwork,
    x: Any,
    batch_size: int,
    output_name: str | None = None,
    forced: Mapping[str, Any] | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> np.ndarray:
    """Run a network on data, see `Network.predict`."""
    batch_size = checked_integer(batch_size, "batch_size", 1)
    with net.lock:
        path = find_output(net, output_name)
        structure = _structure(net, path)
        needed, layers = inputs_of(net, path)
        data, has_time = arrange(net, named(x, needed))
        time_size, nr_sequences = sizes_of(net, data)
        shape = (time_size, nr_sequences)[2 - structure.buffer_type :]
        result = np.empty((*shape, *structure.feature_shape), net.handler.dtype)
        axis = structure.buffer_type - 1
        forced = _as_forced(forced, nr_sequences)
        for start in range(0, nr_sequences, batch_size):
            part = slice(start, start + batch_size)
            provide(net, cut(net, data, part))
            now = {n: v[:, part] for n, v in forced.items()}
            net.forward_pass(
                only=layers, forced=now, arguments=arguments, keeps_internals=False
            )
            values = net.get(path)[: time_size if axis else None]
            result[(slice(None),) * axis + (part,)] = values
        return result if has_time or not axis else result[0]


def _as_forced(forced: Any, nr_sequences: int) -> dict[str, np.ndarray]:
    """What is forced, as arrays (T, B, ...)."""
    if not isinstance(forced, Mapping | None):
        raise NetworkValidationError(f"forced: expected a dict, got {forced!r}")
    arrays = {name: np.asarray(values) for name, values in (forced or {}).items()}
    for name, array in arrays.items():
        if array.ndim < 3 or array.shape[1] != nr_sequences:
            raise NetworkValidationError(
                f"forced: expected an array of the shape (T, {nr_sequences}, ...) for"
                f" {name!r}, got {array.shape}"
            )
    return arrays


def find_output(net: RunningNetwork, output_name: str | None = None) -> str:
    """The path of the output that a network is used for.

    That is `output_name`, or else the network's own. Otherwise there has to be just
    one layer with ``predictions``; or without any, one layer that is no Loss and
    whose one output goes nowhere, or else is only compared with targets.
    """
    path = net.output_name if output_name is None else output_name
    if path is not None:
        _structure(net, path)
        return path
    found = [n for n, layer in net.layers.items() if "predictions" in layer.out_shapes]
    name = "predictions"
    if not found:
        ends = {
            n: la
            for n, la in net.layers.items()
            if not la.is_loss and all(map(fed_back_output, la.outgoing))
        }
        ends = ends or _before_losses(net)
        found = list(ends)
        name = next((o for la in ends.values() for o in la.out_shapes), name)
    if len(found) != 1 or name not in net.layers[found[0]].out_shapes:
        raise NetworkValidationError(
            "expected one layer with predictions, or one at the end of the network, but"
            f" found {listing(found)}: say which output to take by output_name, as in"
            " 'Output.outputs.predictions'"
        )
    return f"{found[0]}.outputs.{name}"


def _before_losses(net: RunningNetwork) -> dict[str, Layer]:
    """Layers whose outputs are compared with targets, and used for nothing else."""
    judging, judged = set(net.loss_layers), set()
    for name, layer in reversed([*net.layers.items()]):
        ends = {connection.end_layer for connection in layer.outgoing}
        if not ends or not ends <= judging:
            continue
        compares = "targets" in layer.in_shapes
        # What has a mask before a comparison is compared.
        is_compared = any("targets" in net.layers[end].in_shapes for end in ends)
        masks = "mask" in layer.in_shapes and not is_compared
        if compares or masks or set(layer.out_shapes) == {"loss"}:
            judging.add(name)
        if compares:
            judged |= {c.start_layer for c in layer.incoming}
    judged -= {*judging, "Input"}
    return {name: layer for name, layer in net.layers.items() if name in judged}


def inputs_of(net: RunningNetwork, path: str) -> tuple[list[str], set[str]]:
    """The inputs that an output depends on, and the layers that have to run."""
    start, _, output = path.split(".")
    needed: set[str] = set()
    seen: set[tuple[str, str]] = set()
    pending = [(start, output)]
    while pending:
        name, output = end = pending.pop()
        if end in seen:
            continue
        seen.add(end)
        layer = net.layers[name]
        if not layer.incoming:
            needed.add(output)
        # Predictions do not depend on the targets; the loss does.
        apart = output in layer.takes_no_output_deltas_from
        unused = layer.computes_no_input_deltas_for if apart else ()
        pending += [
            (c.start_layer, c.output_name)
            for c in layer.incoming
            if c.input_name not in unused
        ]
    inputs = [n for n in net.layers["Input"].out_shapes if n in needed]
    return inputs, {name for name, _ in seen}


def arrange(
    net: RunningNetwork, data: Mapping[str, Any]
) -> tuple[dict[str, Any], bool]:
    """Give data all dimensions of the network's inputs, as far as one can tell.

    Whether the first item has a dimension for time goes for all. Without, they get a
    time of one step, and a last dimension of 1 where that is all that is missing.
    Returns them, and whether there was one for time.
    """
    structures = net.layers["Input"].out_shapes
    unknown = [name for name in data if name not in structures]
    if unknown:
        raise UnknownNameError(
            f"the network has no input {listing(unknown)};"
            f" {choices(unknown[0], structures)}"
        )
    first = next((n for n in data if structures[n].buffer_type == 2), None)
    data = {n: _as_array(n, v) for n, v in data.items()}
    for name in without_time(structures, {n: v.shape for n, v in data.items()}):
        data[name] = np.asarray(data[name])[0]
    has_time = first is None or len(data[first].shape) >= len(structures[first].shape)
    return {n: _complete(v, structures[n], has_time) for n, v in data.items()}, has_time


def has_time(net: Any, path: str) -> bool:
    """Whether an output has a time, as far as it is an output."""
    layer, *_, name = path.split(".")
    structure = getattr(net.layers.get(layer), "out_shapes", {}).get(name)
    return structure is None or structure.scales_with_time


def for_iterators(net: RunningNetwork, data: Mapping[str, Any]) -> dict[str, Any]:
    """What `arrange` gives, as iterators take it: with one step where there is no time.

    Raises:
        UnknownNameError: The network has no such input (a KeyError).
        NetworkValidationError: Something is no array that can be read.
    """
    structures = net.layers["Input"].out_shapes
    return {
        name: np.asarray(values)[np.newaxis]
        if structures[name].buffer_type == 1
        else values
        for name, values in arrange(net, data)[0].items()
    }


def _as_array(name: str, values: Any) -> Any:
    """An array, or what can be sliced like one."""
    check_open(name, values)
    check_dense(name, values)
    if hasattr(values, "shape") and not hasattr(values, "iloc"):
        return values
    try:
        return np.asarray(values)
    except (TypeError, ValueError) as error:
        raise NetworkValidationError(
            f"the data for the input {name!r} does not form an array: {error}"
        ) from error


def _complete(values: Any, structure: BufferStructure, has_time: bool) -> Any:
    if structure.buffer_type == 2 and not has_time:
        values = np.asarray(values)[np.newaxis]
    if values.ndim == len(structure.shape) - 1 and structure.shape[-1] == 1:
        values = np.asarray(values)[..., np.newaxis]
    return values


def _structure(net: RunningNetwork, path: str) -> BufferStructure:
    parts = path.split(".") if isinstance(path, str) else []
    name, category, output = parts if len(parts) == 3 else ("", "", "")
    outputs = getattr(net.layers.get(name), "out_shapes", {})
    if category != "outputs" or output not in outputs:
        paths = [
            f"{n}.outputs.{o}" for n, la in net.layers.items() for o in la.out_shapes
        ]
        raise UnknownNameError(f"there is no output {path!r}; {choices(path, paths)}")
    if outputs[output].buffer_type == 0:
        raise NetworkValidationError(f"{path!r} has no values for the single sequences")
    return outputs[output]


def named(x: Any, needed: list[str]) -> dict[str, Any]:
    """The data by names of inputs, with those first that are needed."""
    if not isinstance(x, Mapping):
        if len(needed) != 1:
            raise NetworkValidationError(
                f"the output depends on the inputs {listing(needed)}: give a dict of"
                " arrays by these names"
            )
        return {needed[0]: x}
    missing = [name for name in needed if name not in x]
    if missing:
        raise MissingInputError(
            f"no data for the input {listing(missing)}; got {listing(x)}"
            + (f"; is {meant!r} meant?" if (meant := meant_by(missing[0], x)) else "")
        )
    return {**{name: x[name] for name in needed}, **x}


def needing_whole_sequences(
    net: RunningNetwork, layers: Collection[str] | None = None
) -> list[str]:
    """The layers, or those of a few, for which pieces of sequences are no use."""
    few = net.layers if layers is None else layers
    return [
        n for n, layer in net.layers.items() if layer.needs_whole_sequences and n in few
    ]


def sizes_of(net: RunningNetwork, data: Mapping[str, Any]) -> tuple[int, int]:
    """Numbers of time steps and of sequences."""
    sizes: dict[str, int] = {}
    for name, values in data.items():
        expected = net.layers["Input"].out_shapes[name].shape
        if len(values.shape) != len(expected):
            without_time = tuple(s for s in expected if s != "T")
            raise NetworkValidationError(
                f"expected data of the shape {expected} for the input {name!r}, or"
                f" {without_time} without time, got {tuple(values.shape)}"
            )
        for kind, size in zip(expected, values.shape, strict=True):
            if kind in ("T", "B") and sizes.setdefault(kind, size) != size:
                raise NetworkValidationError(
                    f"expected data of the shape {expected} for the input {name!r},"
                    f" {', '.join(f'{k} = {v}' for k, v in sizes.items())}; got"
                    f" {tuple(values.shape)}"
                )
    return sizes.get("T", 1), sizes.get("B", 0)


def cut(
    net: RunningNetwork, data: Mapping[str, Any], part: slice
) -> dict[str, np.ndarray]:
    """Some of the sequences."""
    structures = net.layers["Input"].out_shapes
    cut = {}
    for name, values in data.items():
        axis = structures[name].buffer_type - 1
        place = (slice(None),) * axis + (part,) if axis >= 0 else ...
        try:
            cut[name] = values[place]
        except OSError as error:
            raise FileFormatError(
                f"can not read the data for the input {name!r}: {error}"
            ) from error
    return cut


def provide(
    net: RunningNetwork, data: Mapping[str, Any], all_inputs: bool = False
) -> None:
    """Give a network data for some of its inputs, and zeros for the others."""
    net.provide_external_data(data, all_inputs=all_inputs)
    for name, buffer in BufferView.items(net.buffer.Input.outputs):
        if name not in data:
            net.handler.fill(buffer, 0.0)

"""All that a page shows of a network, as JSON has it."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from brainstorm.__about__ import __version__
from brainstorm.structure.buffer_structure import BufferStructure
from brainstorm.structure.construction import layer_type_name
from brainstorm.structure.feedback import fed_back_output
from brainstorm.structure.layer import Layer
from brainstorm.structure.network import Network
from brainstorm.structure.prediction import find_output, inputs_of, named, provide
from brainstorm.structure.taps import source_path
from brainstorm.structure.trainable import number_of_own
from brainstorm.structure.twins import twin_of
from brainstorm.utils import BrainstormError
from brainstorm.viewer.contents import describe_array, packed_size, plain_number
from brainstorm.viewer.graph import lay_out

# Letters that the values of all arrays take together, and of one array at most.
LARGEST_PAGE = 6_000_000
LARGEST_ARRAY = 2**17
# Rows of so many numbers may be square pictures; the least of those that are likely.
SMALLEST_PICTURE, LIKELY_PICTURE = 16, 49

# Where layers keep the structures of their buffers.
STRUCTURES = {
    "parameters": "parameter_shapes",
    "inputs": "in_shapes",
    "outputs": "out_shapes",
    "internals": "internal_shapes",
    "output_deltas": "out_shapes",
    "input_deltas": "in_shapes",
    "gradients": "parameter_shapes",
}
OF_BACKWARD = ("output_deltas", "input_deltas", "gradients")


class Run(NamedTuple):
    """A pass of a copy of a network over one sequence.

    Attributes:
        twin: The copy.
        layers: The names of the layers that have run.
        has_deltas: Whether there was a backward pass.
        unknown: Outputs of the Input for which there were no data.
        remark: What could not be done, and why.
    """

    twin: Network
    layers: Collection[str]
    has_deltas: bool = False
    unknown: Collection[str] = ()
    remark: str = ""


def take_snapshot(
    net: Network,
    title: str,
    batch: Mapping[str, Any] | None = None,
    example: int | None = None,
    history: Mapping[str, Any] | None = None,
    largest: int = LARGEST_PAGE,
) -> dict[str, Any]:
    """Describe a network and what happens in it, of which it notices nothing.

    Args:
        net: The network.
        title: What to call it.
        batch: Arrays ``(T, 1, ...)`` by the names of inputs: the example.
        example: The number of the example in the data.
        history: How a training went, see `Inspector`.
        largest: How many letters the values of all arrays may take together.

    Raises:
        MissingInputError: Data for an input are missing (a KeyError).
        NetworkValidationError: The data do not fit, or a layer can not be copied.
    """
    run = run_example(net, batch)
    known = {
        path: structure
        for layer in run.twin.layers.values()
        for path, structure in _known(run, layer, batch is not None)
    }
    steps = run.twin.time_size
    limit = _limit([s.get_shape(steps, 1) for s in known.values()], largest)
    contents = {
        path: _contents(run.twin, path, structure, limit)
        for path, structure in known.items()
    }
    loss = None
    if batch is not None and net.loss_layers and not run.unknown:
        loss = plain_number(run.twin.get_loss_values()["total_loss"])
    numbers = {name: number_of_own(layer) for name, layer in net.layers.items()}
    return {
        "title": title,
        "version": __version__,
        "summary": {
            "layers": len(net.layers),
            "parameters": sum(numbers.values()),
            "dtype": str(np.dtype(net.handler.dtype)),
            "handler": type(net.handler).__name__,
            "blank": bool(sum(numbers.values())) and not np.any(net.get("parameters")),
        },
        "example": None
        if batch is None
        else {
            "number": example,
            "steps": run.twin.time_size,
            "loss": loss,
            "deltas": run.has_deltas,
            "remark": run.remark,
        },
        "graph": lay_out(net.layers),
        "layers": [
            {
                "name": name,
                "type": layer_type_name(type(layer)),
                "arguments": _arguments(net.architecture[name]),
                "number": numbers[name],
                "buffers": list(_buffers(layer, contents)),
            }
            for name, layer in net.layers.items()
        ],
        "history": history,
    }


def run_example(net: Network, batch: Mapping[str, Any] | None) -> Run:
    """Have a copy of a network run over one sequence, forward and backward.

    Both passes are those of use: without dropout, with the statistics of a training.
    Without all targets only what the predictions depend on is run.
    """
    twin = twin_of(net)
    if batch is None:
        return Run(twin, ())
    missing = [name for name in net.layers["Input"].out_shapes if name not in batch]
    if missing:
        needed, layers = inputs_of(net, find_output(net))
        provide(twin, named(batch, needed))
        twin.forward_pass(only=layers)
        remark = f"without data for {', '.join(missing)} there are no deltas"
        return Run(twin, layers, unknown=missing, remark=remark)
    provide(twin, batch)
    twin.forward_pass()
    if not net.loss_layers:
        return Run(twin, set(net.layers), remark="without a loss there are no deltas")
    try:
        twin.backward_pass()
    except BrainstormError as error:
        return Run(twin, set(net.layers), remark=f"there are no deltas: {error}")
    return Run(twin, set(net.layers), True)


# -- arrays ----------------------------------------------------------------------


def _known(
    run: Run, layer: Layer, has_example: bool
) -> Iterator[tuple[str, BufferStructure]]:
    """The buffers of a layer that hold something, but no inputs that are outputs."""
    for category, attribute in STRUCTURES.items():
        for name, structure in getattr(layer, attribute).items():
            has_run = (
                has_example
                and layer.name in run.layers
                and (run.has_deltas or category not in OF_BACKWARD)
                and (run.has_deltas or not structure.is_backward_only)
                and not _depends_on(layer, category, name, run.unknown)
            )
            if (category == "parameters" or has_run) and not _source(
                layer, category, name
            ):
                yield f"{layer.name}.{category}.{name}", structure


def _depends_on(
    layer: Layer, category: str, name: str, unknown: Collection[str]
) -> bool:
    """Whether a buffer has nothing to tell without data for some inputs."""
    if not layer.incoming:
        return name in unknown
    touched = any(
        c.start_layer == "Input" and c.output_name in unknown for c in layer.incoming
    )
    independent = category == "outputs" and name in layer.takes_no_output_deltas_from
    return touched and not independent


def _source(layer: Layer, category: str, name: str) -> str | None:
    """The buffer whose memory an input is, if it is that of just one."""
    outputs = {"inputs": "outputs", "input_deltas": "output_deltas"}.get(category)
    incoming = [c for c in layer.incoming if c.input_name == name]
    if outputs is None or len(incoming) != 1:
        return None
    return source_path(incoming[0], outputs)


def _limit(shapes: list[tuple[int, ...]], largest: int) -> int:
    """How many values of each array there may be; 0 where only the rest has room."""
    limit = LARGEST_ARRAY
    while limit >= 16:
        if sum(packed_size(shape, limit) for shape in shapes) <= largest:
            return limit
        limit //= 2
    return 0


def _contents(
    net: Network, path: str, structure: BufferStructure, limit: int
) -> dict[str, Any]:
    array = net.get(path)
    if structure.buffer_type == 2:
        array = array[: net.time_size, 0]
    elif structure.buffer_type == 1:
        array = array[0]
    form, array = _formed(structure, array)
    picture, likely = None, False
    if form in ("matrix", "vector") and array.size:
        picture, likely = _picture(net.layers[path.split(".")[0]], path, array)
    rows = [0] if picture or form == "filters" else None
    contents = describe_array(array, limit, rows)
    if picture is not None and any(step > 1 for step in contents["steps"][1:]):
        picture = None
    return {"form": form, "picture": picture, "likely": likely, **contents}


def _formed(structure: BufferStructure, array: np.ndarray) -> tuple[str, np.ndarray]:
    """How to show an array, and it in the shape for that."""
    if array.size == 1:
        return "number", array.reshape(1)
    if structure.buffer_type == 2:
        if len(array) > 1:
            return "sequence", array.reshape(len(array), -1)
        array = array[0]
    while array.ndim > 1 and array.shape[0] == 1:
        array = array[0]
    if structure.buffer_type == 0:
        if array.ndim == 4:
            return "filters", array
        if array.ndim > 2:
            array = array.reshape(len(array), -1)
    elif array.ndim == 3:
        return "image", array
    elif array.ndim > 3:
        array = array.reshape(-1, array.shape[-1])
    return ("vector" if array.ndim == 1 else "matrix"), array


def _picture(
    layer: Layer, path: str, array: np.ndarray
) -> tuple[list[int] | None, bool]:
    """What shape rows have as pictures, if any, and whether it is likely that they are.

    Weights of pixels are pictures; of other rows nobody knows, but may want to see.
    """
    size = array.shape[-1]
    weighs = array.ndim == 2 and path.split(".")[1] in ("parameters", "gradients")
    if weighs:
        for structure in layer.in_shapes.values():
            features = structure.feature_shape
            if (
                len(features) == 3
                and features[0] > 1
                and structure.feature_size == size
            ):
                return list(features), True
    side = math.isqrt(size)
    if side * side != size or size < SMALLEST_PICTURE:
        return None, False
    starts = {c.start_layer for c in layer.incoming if weighs} or {layer.name}
    is_input = starts == {"Input"} and size >= LIKELY_PICTURE
    return ([side, side, 1], is_input) if weighs or is_input else (None, False)


# -- layers ----------------------------------------------------------------------


def _arguments(properties: Mapping[str, Any]) -> list[list[str]]:
    """The arguments of a layer, as text."""
    return [
        [name, json.dumps(value, default=str)[:200]]
        for name, value in properties.items()
        if not name.startswith("@")
    ]


def _buffers(layer: Layer, contents: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for category, attribute in STRUCTURES.items():
        for name, structure in getattr(layer, attribute).items():
            path = f"{layer.name}.{category}.{name}"
            entry: dict[str, Any] = {
                "path": path,
                "category": category,
                "structure": list(structure.shape),
                "backward": structure.is_backward_only or category in OF_BACKWARD,
            }
            source = _source(layer, category, name)
            if source is not None:
                entry["same"] = source
            if path in contents:
                entry["contents"] = contents[path]
            if category == "parameters" and name in layer.frozen:
                entry["remark"] = "frozen"
            if category == "parameters" and name in layer.shared:
                entry["remark"] = f"shared with {layer.shared[name]}"
            if category == "inputs" and any(
                c.input_name == name and fed_back_output(c) for c in layer.incoming
            ):
                entry["remark"] = "fed back from the step before"
            yield entry

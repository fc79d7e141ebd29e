"""What readouts are fitted to: the states that reach a layer, and its targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from brainstorm.checks import check_network
from brainstorm.data_iterators import DataIterator
from brainstorm.layers.fully_connected_layer import FullyConnectedLayerImpl
from brainstorm.structure import prediction
from brainstorm.structure.feedback import fed_back_output
from brainstorm.structure.network import Network
from brainstorm.utils import ValidationError, listing

# Inputs, targets, a mask or None, and whether it goes on with the batch before.
_Batch = tuple[dict[str, Any], Any, Any, bool]


class Readout:
    """A linear layer that is fitted to its inputs, and where its data come from.

    Attributes:
        name: Its name.
        fits_bias: Whether there is a bias that is fitted.
        needed: The network's inputs on which it depends.
        layers: The layers to run.
        has_time: Whether its inputs have a dimension of time.
        masks_steps: Whether there is an input ``'mask'`` of the network that is one of
            the steps to fit, rather than for a layer before.
    """

    net: Network
    name: str
    needed: list[str]
    layers: set[str]

    def __init__(self, net: Network, layer: Any):
        self.net, self.name = net, layer.name
        self.needed, self.layers = prediction.inputs_of(
            net, f"{layer.name}.outputs.default"
        )
        self.fits_bias: bool = layer.bias and "bias" not in layer.frozen
        kind = layer.in_shapes["default"].buffer_type
        self.has_time: bool = kind == 2
        mask = net.layers["Input"].out_shapes.get("mask")
        self.masks_steps = mask is None or mask.buffer_type == kind

    @property
    def layer(self) -> Any:
        """The layer, of which copies of the network have their own."""
        return self.net.layers[self.name]

    @classmethod
    def find(cls, net: Network, name: str | None) -> Readout:
        """The layer of that name, or else the one that the output comes from."""
        check_network(net)
        if name is None:
            name = prediction.find_output(net).split(".")[0]
            while not isinstance(net.layers[name], FullyConnectedLayerImpl):
                above = net.layers[name].incoming
                above = [c.start_layer for c in above if c.input_name == "default"]
                if len(above) != 1:
                    raise ValidationError(
                        "layer: the network's output does not come from one"
                        " FullyConnected layer; name the layer to fit"
                    )
                name = above[0]
        layer = net.layers.get(name)
        if not isinstance(layer, FullyConnectedLayerImpl):
            raise ValidationError(
                f"layer: expected the name of a FullyConnected layer, got {name!r}"
            )
        if layer.activation != "linear":
            raise ValidationError(
                f"layer: expected linear activation to fit {name!r}, got"
                f" {layer.activation!r}"
            )
        if "W" in layer.frozen:
            raise ValidationError(
                f"layer: expected weights that are trained, but those of {name!r} are"
                " frozen"
            )
        return cls(net, layer)

    def name_of_targets(self, names: Sequence[str]) -> str:
        """The name of the item with its targets."""
        if "targets" in names:
            return "targets"
        rest = [name for name in names if name not in self.needed]
        if len(rest) != 1:
            raise ValidationError(
                f"expected 'targets', or one item besides {listing(self.needed)} to be"
                f" the targets, there are: {listing(rest)}"
            )
        return rest[0]

    def fed_back_to(self) -> list[str]:
        """The inputs that it feeds back to, ``'layer.input'``."""
        paths: dict[str, set[str]] = {}
        for layer in self.net.layers.values():
            for c in layer.incoming:
                if fed_back_output(c) is not None:
                    path = f"{layer.name}.{c.input_name}"
                    paths.setdefault(path, set()).add(c.start_layer)
        found = [path for path, senders in paths.items() if self.name in senders]
        mixed = [path for path in found if len(paths[path]) > 1]
        if mixed or not found:
            raise ValidationError(
                f"teacher_forcing: expected inputs that {self.name!r} alone feeds back"
                f" to, got {listing(mixed or found)}"
            )
        return found

    def states(self) -> np.ndarray:
        """Its inputs (T, B, n), on the host."""
        array = self.net.buffer[self.name].inputs.default
        if not isinstance(array, np.ndarray):
            array = self.net.handler.get_numpy_copy(array)
        leading = array.shape[:2] if self.has_time else (1, array.shape[0])
        return array.reshape(*leading, -1)

    def parameters(self) -> tuple[np.ndarray, np.ndarray]:
        """Its weights (n, k) and bias (k,), zeros if there is none, in float64."""
        W = self.net.get(f"{self.name}.parameters.W").T.astype(np.float64)
        if not self.layer.bias:
            return W, np.zeros(W.shape[1])
        return W, self.net.get(f"{self.name}.parameters.bias").astype(np.float64)

    def fixed_bias(self) -> Any:
        """The frozen bias (k,), or 0 if it is fitted, too."""
        return 0.0 if self.fits_bias else self.parameters()[1]

    def set(self, W: np.ndarray, bias: np.ndarray) -> None:
        """Set the weights (n, k), and the bias (k,) if it is fitted."""
        parameters = self.net.buffer[self.name].parameters
        self.net.handler.set_from_numpy(parameters.W, W.T)
        if self.fits_bias:
            self.net.handler.set_from_numpy(parameters.bias, bias)

    def checked_targets(self, targets: Any, shape: tuple[int, int]) -> np.ndarray:
        """Targets (T, B, k)."""
        targets, out = np.asarray(targets), self.layer.out_shapes["default"]
        if targets.ndim == 2 and out.feature_size == 1:
            targets = targets[..., np.newaxis]
        expected, flat = (*shape, *out.feature_shape), (*shape, out.feature_size)
        if targets.shape not in (expected, flat):
            raise ValidationError(
                f"expected targets of the shape {expected} for {self.name!r}, got"
                f" {targets.shape}"
            )
        return targets.reshape(flat)


def rows_to_fit(
    readout: Readout,
    batch_size: int,
    warmup: int,
    teacher_forcing: bool,
    arguments: Mapping[str, Any] | None,
    x: Any,
    y: Any,
    mask: Any,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Run the network; states (N, n) and targets (N, k) of steps that count."""
    net, steps = readout.net, 0
    before: Any = None
    forced = dict.fromkeys(readout.fed_back_to() if teacher_forcing else [])
    if isinstance(x, DataIterator):
        batches = _of_iterator(readout, x, y, mask)
    else:
        batches = _of_arrays(readout, x, y, mask, batch_size)
    for inputs, targets, some_mask, continues in batches:
        context = net.get_context() if continues else None
        if not continues:
            _check_length(steps, warmup)
        prediction.provide(net, inputs)
        shape = (net.time_size if readout.has_time else 1, net.batch_size)
        targets = readout.checked_targets(targets, shape)
        if forced:
            first = before if continues else np.zeros_like(targets[:1])
            forced = dict.fromkeys(forced, np.concatenate([first, targets[:-1]]))
            before = targets[-1:]
        net.forward_pass(
            context=context,
            only=readout.layers,
            forced=forced or None,
            arguments=arguments,
            keeps_internals=False,
        )
        h = readout.states()
        late = max(0, warmup - (steps if continues else 0))
        steps = (steps if continues else 0) + len(h)
        h, targets = h[late:], targets[late:] - readout.fixed_bias()
        if some_mask is None:
            yield h.reshape(-1, h.shape[2]), targets.reshape(-1, targets.shape[2])
        else:
            counts = _checked_mask(some_mask, (len(h) + late, h.shape[1]))[late:]
            yield h[counts], targets[counts]
    _check_length(steps, warmup)


def _check_length(steps: int, warmup: int) -> None:
    if 0 < steps <= warmup:
        raise ValidationError(
            f"warmup: expected fewer steps than the sequences have, {steps}, got"
            f" {warmup}"
        )


def _checked_mask(mask: Any, shape: tuple[int, int]) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.shape not in (shape, (*shape, 1)):
        raise ValidationError(f"expected a mask of the shape {shape}, got {mask.shape}")
    return mask.reshape(shape) != 0


def _of_iterator(
    readout: Readout, data: DataIterator, y: Any, mask: Any
) -> Iterator[_Batch]:
    if y is not None or not isinstance(mask, (str, type(None))):
        raise ValidationError(
            "expected targets and mask to be items of the iterator, got arrays"
        )
    names = [n for n in data.data_shapes if n != (mask or "mask")]
    targets = readout.name_of_targets(names)
    if mask is None and readout.masks_steps:
        mask = "mask" if "mask" in data.data_shapes else None
    lacking = {*readout.needed, mask or targets} - set(data.data_shapes)
    if lacking:
        raise ValidationError(
            f"expected the iterator to have the items {listing(sorted(lacking))} too,"
            f" got {listing(data.data_shapes)}"
        )
    whole = prediction.needing_whole_sequences(readout.net, readout.layers)
    if whole and data.continues is not None:
        raise ValidationError(
            f"expected whole sequences, as the layer {listing(whole)} needs them, got"
            f" the pieces of a {type(data).__name__}"
        )
    for batch in data(readout.net.handler):
        yield (
            {name: batch[name] for name in readout.needed},
            batch[targets],
            None if mask is None else batch[mask],
            bool(data.continues),
        )


def _of_arrays(
    readout: Readout, x: Any, y: Any, mask: Any, batch_size: int
) -> Iterator[_Batch]:
    net, given = readout.net, prediction.named(x, readout.needed)
    if isinstance(mask, str) and mask not in given:
        raise ValidationError(f"mask: there is no {mask!r} in {listing(given)}")
    name = mask if isinstance(mask, str) else "mask"
    if y is None:
        y = given[readout.name_of_targets([n for n in given if n != name])]
    if mask is name or (mask is None and readout.masks_steps):
        mask = given.get(name)
    data, has_time = prediction.arrange(net, {n: given[n] for n in readout.needed})
    _, nr_sequences = prediction.sizes_of(net, data)
    targets = _with_time(y, has_time and readout.has_time)
    mask = None if mask is None else _with_time(mask, has_time and readout.has_time)
    for what, array in (("targets", targets), ("a mask", mask)):
        if array is not None and array.shape[1] != nr_sequences:
            raise ValidationError(
                f"expected {what} for {nr_sequences} sequences, got the shape"
                f" {array.shape}"
            )
    for start in range(0, nr_sequences, batch_size):
        part = slice(start, start + batch_size)
        yield (
            prediction.cut(net, data, part),
            targets[:, part],
            None if mask is None else mask[:, part],
            False,
        )


def _with_time(values: Any, has_time: bool) -> np.ndarray:
    values = np.asarray(values)
    values = values if has_time else values[np.newaxis]
    return values if values.ndim > 1 else values[..., np.newaxis]

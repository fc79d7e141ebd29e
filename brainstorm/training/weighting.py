"""Samples with weights in the loss, also of networks that were made without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from brainstorm.checks import checked_number
from brainstorm.describable import get_description
from brainstorm.structure.architecture import collect_all_connections
from brainstorm.structure.network import Network
from brainstorm.structure.prediction import find_output, inputs_of, named
from brainstorm.structure.trainable import own_parameters
from brainstorm.utils import ValidationError, choices

WEIGHTS = "weights"
"""Name of the input with the weights: (T, B, 1), or (B, 1) without time."""


@dataclass
class Samples:
    """Rows of data, each with a weight unless all count the same."""

    X: np.ndarray
    y: np.ndarray
    weights: np.ndarray | None = None

    def __getitem__(self, rows: np.ndarray) -> Samples:
        weights = None if self.weights is None else self.weights[rows]
        return Samples(self.X[rows], self.y[rows], weights)

    def weighted(self, weights: np.ndarray) -> Samples:
        """The samples whose weights are above 0, with these if they differ."""
        if not np.any(weights):
            raise ValidationError("sample_weight, class_weight: all samples weigh 0")
        # Samples that weigh nothing would have a part in a BatchNorm, and in a batch.
        rows = weights > 0
        kept, weights = self[rows], weights[rows]
        alike = np.all(weights == weights[0])
        return Samples(kept.X, kept.y, None if alike else weights)

    def prepared(self, net: Network) -> Network:
        """The network, able to take the weights."""
        return net if self.weights is None else with_weights(net)

    def for_net(self, net: Network) -> tuple[Any, np.ndarray]:
        """What `Trainer.fit` takes; the mean weight is 1."""
        if WEIGHTS not in net.layers["Input"].out_shapes:
            return self.X, self.y
        weights = np.ones(len(self.X)) if self.weights is None else self.weights
        inputs, _ = inputs_of(net, find_output(net))
        return {**named(self.X, inputs), WEIGHTS: weights / weights.mean()}, self.y


def with_weights(net: Network) -> Network:
    """The same network, with Mask layers that multiply the losses with weights.

    A network that has such an input already is returned as it is. Otherwise its
    parameters are copied, its handler is shared.

    Raises:
        ValidationError: A loss is not computed by a Loss layer.
    """
    if WEIGHTS in net.layers["Input"].out_shapes or not net.loss_layers:
        return net
    described = get_description(net)
    del described["handler"]
    architecture = described["architecture"]
    masks = {}
    for loss in net.loss_layers:
        if architecture[loss]["@type"] != "Loss":
            raise ValidationError(
                f"weights of samples need Loss layers; {loss!r} is of type"
                f" {architecture[loss]['@type']}: give the network an input"
                f" {WEIGHTS!r} of its own"
            )
        masks[loss] = f"{loss}_{WEIGHTS}"
        while masks[loss] in architecture:
            masks[loss] += "_"
    _insert(architecture, masks)
    described["output_name"] = find_output(net)
    weighted = Network.uninitialized(described)
    weighted.set_handler(net.handler)
    for layer, names in own_parameters(net.layers).items():
        for name in names:
            source = net.buffer[layer].parameters[name]
            net.handler.copy_to(source, weighted.buffer[layer].parameters[name])
    return weighted


def _insert(architecture: dict[str, Any], masks: dict[str, str]) -> None:
    """Put Mask layers before layers, and wire them to an input with the weights."""
    connections, wires = collect_all_connections(architecture), "@outgoing_connections"
    for layer in architecture.values():
        layer[wires] = {}
    for start, output, end, name in connections:
        path = f"{masks[end]}.default" if end in masks else f"{end}.{name}"
        architecture[start][wires].setdefault(output, []).append(path)
    for loss, mask in masks.items():
        architecture[mask] = {"@type": "Mask", wires: {"default": [f"{loss}.default"]}}
    inp = architecture["Input"]
    has_time = any("T" in shape for shape in inp["out_shapes"].values())
    inp["out_shapes"][WEIGHTS] = ["T", "B", 1] if has_time else ["B", 1]
    inp[wires][WEIGHTS] = [f"{mask}.mask" for mask in masks.values()]


def weights_of_classes(
    given: Any, classes: list[Any], indices: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """The weight of each class.

    Args:
        given: A dict of those that are not 1; or ``'balanced'``, for classes that have
            the same weight in total.
        classes: Names of the classes.
        indices: Indices of the samples' classes.
        weights: Weights of the samples.

    Raises:
        ValidationError: It is neither, or a weight is below 0, or of no class.
    """
    if isinstance(given, str) and given == "balanced":
        totals = np.bincount(indices, weights, len(classes))
        return 1 / np.where(totals, totals, 1)
    if not isinstance(given, Mapping):
        raise ValidationError(
            f"class_weight: expected a dict or 'balanced', got {given!r}"
        )
    unknown = [name for name in given if name not in classes]
    # A part of the data may lack classes that have a weight.
    if unknown and any(name not in given for name in classes):
        raise ValidationError(
            f"class_weight: there is no class {unknown[0]!r};"
            f" {choices(unknown[0], classes)}"
        )
    return np.array(
        [checked_number(given.get(c, 1), f"class_weight of {c!r}", 0) for c in classes]
    )

"""A layer on its own: what `brainstorm.testing` runs its checks on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from brainstorm.handlers import Handler
from brainstorm.layers.base_layer import Layer, get_layer_class_from_typename
from brainstorm.structure.architecture import instantiate_layers_from_architecture
from brainstorm.structure.buffer_structure import StructureTemplate
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.buffers import BufferManager
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.utils import ValidationError

Arrays = dict[str, np.ndarray]
Shape = tuple["str | int", ...]


class Specification(NamedTuple):
    """What makes a layer, apart from its wiring."""

    layer_type: str
    name: str
    kwargs: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.layer_type} layer {self.name!r}"

    @classmethod
    def of(cls, layer: Any, kwargs: Mapping[str, Any] | None) -> Specification:
        """That of a layer, or of what a function or class makes with `kwargs`."""
        if isinstance(layer, ConstructionWrapper):
            if kwargs:
                raise ValidationError(f"'kwargs' are of no use: {layer!r} is made")
        elif isinstance(layer, type) and issubclass(layer, Layer):
            layer = ConstructionWrapper.create(layer, **(kwargs or {}))
        elif callable(layer):
            layer = layer(**(kwargs or {}))
        if not isinstance(layer, ConstructionWrapper):
            raise ValidationError(
                "expected a layer, a function that makes one or a subclass of Layer,"
                f" got {layer!r}"
            )
        details = layer.layer
        return cls(details.layer_type, details.base_name, details.layer_kwargs)

    def default_shapes(self) -> dict[str, Shape]:
        """Shapes of inputs that match the layer's templates."""
        expected_inputs = get_layer_class_from_typename(self.layer_type).expected_inputs
        return {name: _default_shape(t) for name, t in expected_inputs.items()}

    def architecture(
        self,
        in_shapes: Mapping[str, Shape],
        joined_outputs: Iterable[str] | None = None,
    ) -> dict[str, Any]:
        """The layer behind an Input.

        With `joined_outputs` given, these and all inputs are joined with other
        features, so that they lie side by side in memory.
        """
        shapes: dict[str, Shape] = {}
        wires: dict[str, list[str]] = {n: [f"{self.name}.{n}"] for n in in_shapes}
        outgoing: dict[str, list[str]] = {}
        architecture: dict[str, Any] = {}
        joins = []
        if joined_outputs is not None:
            joins += [(n, outgoing) for n in joined_outputs]
            joins += [(n, wires) for n, s in in_shapes.items() if s[:2] == ("T", "B")]
        for i, (joined, connections) in enumerate(joins):
            join = f"{self.name}_join_{i}"
            architecture[join] = {"@type": "NoOp"}
            shapes[f"beside_{i}"] = ("T", "B", 2)
            wires[f"beside_{i}"] = [join]
            connections.setdefault(joined, []).append(join)
        architecture["Input"] = {
            "@type": "Input",
            "@outgoing_connections": wires,
            "out_shapes": {**shapes, **in_shapes},
        }
        architecture[self.name] = {
            "@type": self.layer_type,
            "@outgoing_connections": outgoing,
            **self.kwargs,
        }
        return architecture


def _default_shape(template: StructureTemplate) -> Shape:
    if template.shape == ("...",):
        return ("T", "B", 3)
    return tuple(3 if size in ("F", "...") else size for size in template.shape)


class Data(NamedTuple):
    """Values of the inputs, and their time and batch size."""

    sizes: tuple[int, int]
    inputs: Arrays


class Bench:
    """The layer with buffers of its own, on some handler.

    Attributes:
        random_state: If given, each forward pass begins with it.
    """

    def __init__(self, name: str, architecture: Mapping[str, Any], handler: Handler):
        layers = instantiate_layers_from_architecture(architecture)
        self.handler = handler
        self.layer = layers[name]
        self.layer.set_handler(handler)
        self.manager = BufferManager.from_layers(layers, handler)
        self.manager.ensure_backward()
        self.random_state: dict[str, Any] | None = None
        self.view = self.manager.views[name]

    def prepare_forward(
        self,
        data: Data,
        parameters: Arrays,
        context: Arrays | None = None,
        garbage: float | None = None,
    ) -> None:
        """Fill all that a forward pass may read, and the rest with `garbage`."""
        self.view = self.manager.resize(*data.sizes)[self.layer.name]
        self._load("inputs", data.inputs)
        self._load("parameters", parameters)
        if garbage is not None:
            for buffer in (*self.view.outputs, *self.view.internals):
                self.handler.fill(buffer, garbage)
            self.manager.resize(*data.sizes)  # clears what passes may rely on
        if context is None:
            self.manager.clear_context()
        else:
            self.manager.apply_context(context)
        if self.random_state is not None:
            self.handler.set_random_state(self.random_state)

    def forward(
        self,
        data: Data,
        parameters: Arrays,
        training_pass: bool = True,
        context: Arrays | None = None,
        garbage: float | None = None,
    ) -> Arrays:
        """Run a forward pass; returns the outputs."""
        self.prepare_forward(data, parameters, context, garbage)
        self.layer.forward_pass(self.view, training_pass)
        return self.read("outputs")

    def prepare_backward(
        self, deltas: Arrays, start: Arrays | None = None, garbage: float = 0.0
    ) -> None:
        """Fill all that a backward pass may read or add to.

        Args:
            deltas: Deltas of the outputs.
            start: What to add to, by path; zero by default.
            garbage: For internals that only backward passes need, if the layer
                does not count on zeros. Their context's steps are zero.
        """
        for name, structure in self.layer.internal_shapes.items():
            if structure.is_backward_only:
                buffer = self.view.internals[name]
                self.handler.fill(buffer, garbage if self.layer.honours_fresh else 0.0)
                if structure.context_size:
                    self.handler.fill(buffer[-structure.context_size :], 0.0)
        for path, array in self.slopes().items():
            value = (start or {}).get(path, np.zeros(array.shape))
            self.handler.set_from_numpy(self.view[path], value)
        self._load("output_deltas", deltas)

    def backward(
        self,
        deltas: Arrays,
        start: Arrays | None = None,
        garbage: float = 0.0,
        fresh: Iterable[str] = (),
        unwanted: Iterable[str] = (),
    ) -> Arrays:
        """Run a backward pass; returns input deltas and gradients."""
        self.prepare_backward(deltas, start, garbage)
        self.layer.fresh, self.layer.unwanted = frozenset(fresh), frozenset(unwanted)
        self.layer.backward_pass(self.view)
        return self.slopes()

    def slopes(self) -> Arrays:
        """Copies of the input deltas and gradients."""
        return {**self.read("input_deltas"), **self.read("gradients")}

    def read(self, category: str) -> Arrays:
        """Copies of buffers by path, without the steps of a context."""
        copies = {}
        for name, buffer in BufferView.items(self.view[category]):
            copy = self.handler.get_numpy_copy(buffer)
            if category in ("outputs", "output_deltas"):
                copy = copy[: len(copy) - self.layer.out_shapes[name].context_size]
            copies[f"{category}.{name}"] = copy
        return copies

    def _load(self, category: str, values: Arrays) -> None:
        """Set buffers; the steps of a context become zero."""
        for name, buffer in BufferView.items(self.view[category]):
            value = values[name]
            if len(value) < buffer.shape[0]:
                value = np.zeros(tuple(buffer.shape))
                value[: len(values[name])] = values[name]
            self.handler.set_from_numpy(buffer, value)

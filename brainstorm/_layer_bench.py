"""A layer on its own: what `brainstorm.testing` runs its checks on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from brainstorm.handlers import Handler
from brainstorm.layers.base_layer import Layer, get_layer_class_from_typename
from brainstorm.structure.architecture import instantiate_layers_from_architecture
from brainstorm.structure.buffer_structure import BufferStructure
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.buffers import BufferManager
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.utils import ValidationError, listing

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
        return {
            name: tuple(3 if size in ("F", "...") else size for size in template.shape)
            if template.shape != ("...",)
            else ("T", "B", 3)
            for name, template in expected_inputs.items()
        }

    def architecture(
        self,
        in_shapes: Mapping[str, Shape],
        joined_outputs: Mapping[str, BufferStructure] | None = None,
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
            inputs = {n: BufferStructure(*shape) for n, shape in in_shapes.items()}
            joins += [(n, s, outgoing) for n, s in joined_outputs.items()]
            joins += [(n, s, wires) for n, s in inputs.items()]
        joins = [join for join in joins if join[1].scales_with_batch_size]
        for i, (joined, structure, connections) in enumerate(joins):
            join = f"{self.name}_join_{i}"
            architecture[join] = {"@type": "NoOp"}
            shapes[f"beside_{i}"] = (*structure.scaling_shape, 2)
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


class Data(NamedTuple):
    """Values of the inputs, and their time and batch size."""

    sizes: tuple[int, int]
    inputs: Arrays


class Bench:
    """A layer of an architecture with buffers of its own, on some handler.

    `values` has `data`, `parameters` and `deltas`: values of the inputs, of the
    parameters and of the deltas of the outputs. If there is a `random_state`, each
    forward pass begins with it.
    """

    def __init__(
        self, name: str, architecture: Mapping[str, Any], handler: Handler, values: Any
    ):
        layers = instantiate_layers_from_architecture(architecture)
        self.handler, self.values = handler, values
        self.layer = layers[name]
        self.layer.set_handler(handler)
        self.manager = BufferManager.from_layers(layers, handler)
        self.manager.ensure_backward()
        self.random_state: dict[str, Any] | None = None
        self.view = self.manager.views[name]

    def prepare_forward(
        self,
        context: Arrays | None = None,
        garbage: float | None = None,
        data: Data | None = None,
    ) -> None:
        """Fill all that a forward pass may read, and the rest with `garbage`."""
        data = data or self.values.data
        self.manager.resize(*data.sizes)
        self._load("inputs", data.inputs)
        self._load("parameters", self.values.parameters)
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
        training_pass: bool = True,
        context: Arrays | None = None,
        garbage: float | None = None,
        data: Data | None = None,
    ) -> Arrays:
        self.prepare_forward(context, garbage, data)
        self.layer.forward_pass(self.view, training_pass)
        return self.read("outputs")

    def prepare_backward(
        self,
        start: Arrays | None = None,
        garbage: float = 0.0,
        factor: float = 1.0,
        deltas: Arrays | None = None,
    ) -> None:
        """Fill all that a backward pass may read or add to.

        `start` is what to add to, by path; zero by default. `garbage` is for internals
        that only backward passes need, if the layer does not count on zeros; their
        context's steps are zero. The deltas of the outputs are multiplied by `factor`.
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
        deltas = self.values.deltas if deltas is None else deltas
        self._load("output_deltas", {name: factor * d for name, d in deltas.items()})

    def backward(
        self,
        start: Arrays | None = None,
        fresh: Iterable[str] = (),
        unwanted: Iterable[str] = (),
        **more: Any,
    ) -> Arrays:
        self.prepare_backward(start, **more)
        self.layer.fresh, self.layer.unwanted = frozenset(fresh), frozenset(unwanted)
        self.layer.backward_pass(self.view)
        return self.slopes()

    def both_passes(
        self,
        training_pass: bool = True,
        context: Arrays | None = None,
        garbage: float = 0.0,
    ) -> Arrays:
        outputs = self.forward(training_pass, context, garbage)
        return {**outputs, **self.backward(garbage=garbage)}

    def both_passes_in_steps(self, context: Arrays | None) -> Arrays:
        """The results of passes over single steps, which hand deltas of states back."""
        steps = [self._step(t) for t in range(self.values.data.sizes[0])]
        contexts = [context]
        results: list[Arrays] = []
        for data in steps[:-1]:
            self.forward(True, contexts[-1], data=data)
            contexts.append(self.manager.get_context())
        deltas: dict[str, Any] = dict.fromkeys(self.layer.out_shapes, 0.0)
        for t in reversed(range(len(steps))):
            outputs = self.forward(True, contexts[t], data=steps[t])
            now = {n: d[t : t + 1] + deltas[n] for n, d in self.values.deltas.items()}
            results.insert(0, {**outputs, **self.backward(deltas=now)})
            for name, structure in self.layer.out_shapes.items():
                if structure.context_size:
                    buffer = self.view.output_deltas[name]
                    deltas[name] = self.handler.get_numpy_copy(buffer)[-1:]
        return {
            path: np.sum(each, axis=0)
            if path.startswith("gradients")
            else np.concatenate(each)
            for path in results[0]
            for each in [[one[path] for one in results]]
        }

    def _step(self, t: int) -> Data:
        (_, batch_size), inputs = self.values.data
        return Data((1, batch_size), {n: v[t : t + 1] for n, v in inputs.items()})

    def slopes(self) -> Arrays:
        return self.read("input_deltas", "gradients")

    def read(self, *categories: str) -> Arrays:
        """Copies of buffers by path, without the steps of a context."""
        copies = {}
        for category in categories:
            for name, buffer in BufferView.items(self.view[category]):
                copy = self.handler.get_numpy_copy(buffer)
                if category in ("outputs", "output_deltas"):
                    copy = copy[: len(copy) - self.layer.out_shapes[name].context_size]
                copies[f"{category}.{name}"] = copy
        return copies

    def _load(self, category: str, values: Arrays) -> None:
        """Set buffers; the steps of a context become zero."""
        for name, buffer in BufferView.items(self.view[category]):
            padded = np.zeros(tuple(buffer.shape))
            padded[: len(values[name])] = values[name]
            self.handler.set_from_numpy(buffer, padded)


class Difference(NamedTuple):
    """Where arrays differ most."""

    buffer: str
    place: tuple[int, ...]
    expected: float
    got: float
    wrong: int
    size: int

    @classmethod
    def find(
        cls, expected: Arrays, got: Arrays, atol: float = 0.0, rtol: float = 0.0
    ) -> Difference | None:
        """The largest one beyond the tolerances, if any; that of NaN is infinite."""
        worst, largest = None, 0.0
        for path, wanted in expected.items():
            with np.errstate(invalid="ignore"):
                excess = np.abs(got[path] - wanted) - (atol + rtol * np.abs(wanted))
            excess = np.where(np.isnan(excess), np.inf, excess)
            if excess.size and excess.max() > largest:
                largest = excess.max()
                i = np.unravel_index(excess.argmax(), excess.shape)
                index, count = tuple(map(int, i)), int((excess > 0).sum())
                values = float(wanted[i]), float(got[path][i])
                worst = cls(path, index, *values, count, excess.size)
        return worst

    def text(self, note: str) -> str:
        """What to tell about it."""
        return (
            f"{self.buffer}{note}: expected {self.expected:.9g} at {self.place}, got"
            f" {self.got:.9g} (the worst of {self.wrong} elements out of {self.size}"
            " that differ)"
        )


def tolerance_of(handler: Handler) -> float:
    """How far results on one handler may be apart that should be the same."""
    return 4096 * float(np.finfo(handler.dtype).eps)


def check_names(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    unknown = set(given) - set(known)
    if unknown:
        raise ValidationError(
            f"the layer has no {what} {listing(sorted(unknown))}; choices are:"
            f" {listing(known)}"
        )

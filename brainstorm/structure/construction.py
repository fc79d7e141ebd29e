"""Wiring of layers with ``>>`` and ``-``, before there is a network."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, TypeAlias, overload

from brainstorm.structure.layer import LAYER_TYPES, layer_type_name
from brainstorm.utils import NetworkValidationError, check_layer_name, listing

__all__ = ["ConstructionWrapper", "LayerDetails"]

_creation_counter = itertools.count()


@dataclass(eq=False, repr=False)
class LayerDetails:
    """What is known about a layer while the architecture is being wired.

    Attributes:
        layer_type (str): Name of the layer's type, e.g. ``'FullyConnected'``.
        layer_kwargs (dict): Arguments for the layer's implementation.
        outgoing (list): Tuples (output name, LayerDetails, input name).
        feedback (list): The same of connections that go back, one step later.
        scope (list): All layers connected to this one, which have this same list.
        trainable (bool): Whether training changes its parameters.
        shared (dict): The layers that hold some of its parameters, by their names; by
            None a layer that holds all of them.
    """

    layer_type: str
    base_name: str
    layer_kwargs: dict[str, Any]
    trainable: bool = True
    shared: dict[str | None, LayerDetails] = field(default_factory=dict)
    created: int = field(default_factory=_creation_counter.__next__)
    outgoing: list[tuple[str, LayerDetails, str]] = field(default_factory=list)
    feedback: list[tuple[str, LayerDetails, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scope: list[LayerDetails] = [self]

    @property
    def name(self) -> str:
        """The layer's name among the layers that it is connected to."""
        return unique_names(self.scope)[self]

    def connect(
        self,
        output_name: str,
        other: LayerDetails,
        input_name: str,
        as_feedback: bool = False,
    ) -> None:
        """Wire an output of this layer to an input of another."""
        connection = (output_name, other, input_name)
        connections = self.feedback if as_feedback else self.outgoing
        if connection in connections:
            raise NetworkValidationError(
                f"{self.name!r} is connected already: output {output_name!r} to input"
                f" {input_name!r} of {other.name!r}"
            )
        connections.append(connection)
        small, large = sorted((self.scope, other.scope), key=len)
        if small is not large:
            for layer in small:
                layer.scope = large
            large += small


def unique_names(layers: list[LayerDetails]) -> dict[LayerDetails, str]:
    """Names of connected layers: those that share a base name are numbered from 1."""
    groups: dict[str, list[LayerDetails]] = {}
    for layer in sorted(layers, key=lambda layer: layer.created):
        groups.setdefault(layer.base_name, []).append(layer)
    names = {group[0]: base for base, group in groups.items() if len(group) == 1}
    taken = set(names.values())
    for base, group in groups.items():
        if len(group) > 1:
            numbered = (f"{base}_{i}" for i in itertools.count(1))
            free = (name for name in numbered if name not in taken)
            names.update(zip(group, free, strict=False))
            taken.update(names[layer] for layer in group)
    return names


@dataclass(eq=False, repr=False)
class ConstructionWrapper:
    """A layer with one of its inputs and one of its outputs selected.

    ``a >> b`` connects a's output to b's input and gives b. ``b - 'out'`` and
    ``'in' - b`` select an output and an input other than ``'default'``; both
    make a new wrapper of the same layer. ``a << b`` gives a, in each step, what b's
    output was in the step before; it gives a.

    Several layers may stand on one side, in a list, tuple or set: ``[a, b] >> c`` and
    ``c >> [a, b]`` are the same as a line for each, in the order of a list, or in which
    the layers of a set were created. The latter gives a list of them.
    """

    layer: LayerDetails
    input_name: str = "default"
    output_name: str = "default"

    @classmethod
    def create(
        cls,
        layer_type: type | str,
        name: str | None = None,
        trainable: bool | None = None,
        **layer_kwargs: Any,
    ) -> ConstructionWrapper:
        """Start wiring a new layer.

        Args:
            layer_type: The layer's class ``FooLayerImpl``, or its name, which means the
                class that was defined last.
            name: Name of the layer. Defaults to the name of its type.
            trainable: Whether training changes its parameters; by default it does. A
                class that expects an argument of this name gets it instead.
            **layer_kwargs: Arguments for the layer's implementation. Newer ones are
                left out at their default: 0.5, too, reads what does not use them.

        Raises:
            LayerValidationError: The class or the name are not acceptable.
        """
        layer_type = layer_type_name(layer_type)
        layer_class = LAYER_TYPES.find(layer_type)
        if trainable is None:
            trainable = True
        elif "trainable" in getattr(layer_class, "expected_kwargs", ()):
            layer_kwargs["trainable"], trainable = trainable, True
        arguments = getattr(layer_class, "arguments", {})
        layer_kwargs = {
            argument: value
            for argument, value in layer_kwargs.items()
            if argument not in arguments
            or not arguments[argument].may_be_left_out(value)
        }
        base_name = str(layer_type) if name is None else name
        check_layer_name(base_name)
        return cls(LayerDetails(layer_type, base_name, layer_kwargs, trainable))

    @property
    def name(self) -> str:
        """The layer's name among the layers that it is connected to."""
        return self.layer.name

    def share(self, other: ConstructionWrapper, *names: str) -> ConstructionWrapper:
        """Use parameters of another layer instead of own ones.

        They have to have the same shapes. Their gradient is the sum of those of both
        layers; initializers, modifiers and so on see them at the other layer only::

            decoder = FullyConnected(100, name='Decoder').share(encoder, 'W')

        Args:
            other: The layer that holds the parameters.
            *names: Names of the parameters; all of them by default.

        Returns:
            This layer.

        Raises:
            NetworkValidationError: `other` is no other layer, or a name is no text.
                Making the network tells whether the parameters exist and fit.
        """
        if not isinstance(other, ConstructionWrapper) or other.layer is self.layer:
            raise NetworkValidationError(
                f"layer {self.name!r} can share parameters with another layer, not with"
                f" {other!r}"
            )
        if not all(isinstance(name, str) for name in names):
            raise NetworkValidationError(
                f"layer {self.name!r}: expected names of parameters to share, got"
                f" {listing(names)}"
            )
        self.layer.shared.update(dict.fromkeys(names or [None], other.layer))
        return self

    @overload
    def __rshift__(self, other: ConstructionWrapper) -> ConstructionWrapper: ...

    @overload
    def __rshift__(self, other: Layers) -> list[ConstructionWrapper]: ...

    def __rshift__(self, other: Any) -> Any:
        others = _each_of(other)
        if others is None:
            return NotImplemented
        for each in others:
            self.layer.connect(self.output_name, each.layer, each.input_name)
        return other if isinstance(other, ConstructionWrapper) else others

    def __rrshift__(self, other: Layers) -> ConstructionWrapper:
        others = _each_of(other)
        if others is None:
            return NotImplemented
        for each in others:
            each >> self
        return self

    def __lshift__(self, other: ConstructionWrapper | Layers) -> ConstructionWrapper:
        others = _each_of(other)
        if others is None:
            return NotImplemented
        for each in others:
            if each.input_name != "default":
                raise NetworkValidationError(
                    f"{each.input_name!r} - {each.name} names an input, but what is fed"
                    f" back is an output: expected {each.name} - {each.input_name!r}"
                )
            each.layer.connect(each.output_name, self.layer, self.input_name, True)
        return self

    def __sub__(self, output_name: str) -> ConstructionWrapper:
        if not isinstance(output_name, str):
            return NotImplemented
        return ConstructionWrapper(self.layer, self.input_name, output_name)

    def __rsub__(self, input_name: str) -> ConstructionWrapper:
        if not isinstance(input_name, str):
            return NotImplemented
        return ConstructionWrapper(self.layer, input_name, self.output_name)

    def __repr__(self) -> str:
        return f"<Layer: {self.input_name!r} - {self.name} - {self.output_name!r}>"


Layers: TypeAlias = Sequence[ConstructionWrapper] | AbstractSet[ConstructionWrapper]


def _each_of(layers: Any) -> list[ConstructionWrapper] | None:
    """Wired layers in their order, or None where there is something else.

    Raises:
        NetworkValidationError: A list, tuple or set is empty, or has something else.
    """
    if isinstance(layers, ConstructionWrapper):
        return [layers]
    if not isinstance(layers, list | tuple | set | frozenset):
        return None
    if not layers or not all(isinstance(each, ConstructionWrapper) for each in layers):
        raise NetworkValidationError(f"expected layers to wire, got {layers!r}")
    if isinstance(layers, set | frozenset):
        return sorted(layers, key=lambda each: each.layer.created)
    return [*layers]

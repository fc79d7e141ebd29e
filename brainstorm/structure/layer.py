"""The base class of all layers."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np

from brainstorm.checks import COUNT, Argument
from brainstorm.describable import Registry, TypeName
from brainstorm.handlers.base_handler import Handler
from brainstorm.structure.buffer_structure import BufferStructure, StructureTemplate
from brainstorm.structure.buffer_views import BufferView
from brainstorm.utils import (
    LayerValidationError,
    UnknownLayerTypeError,
    choices,
    listing,
    meant_by,
)

ENDING = "LayerImpl"
LAYER_TYPES = Registry()
"""The subclasses of `Layer` by the names of their types, see `Registry`."""

Structures: TypeAlias = dict[str, BufferStructure]
Setup: TypeAlias = tuple[Structures, Structures, Structures]
"""Outputs, parameters and internals of a layer, by their names."""
Result = TypeVar("Result")

# How to add what an operation would overwrite with.
_ADDING: dict[str, Callable[..., None]] = {
    "copy_to": lambda handler, a, out: handler.add_tt(a, out, out),
    "fill": lambda handler, out, value: handler.add_st(value, out, out),
    "mult_mv": lambda handler, *args: handler.mult_add_mv(*args),
    "mult_st": lambda handler, *args: handler.mult_add_st(*args),
    "mult_tt": lambda handler, *args: handler.mult_add_tt(*args),
}

# Beyond what any memory holds, where handlers fail without a word of the layer.
_MOST_NUMBERS = 2**50


def once_per_resize(method: Callable[..., Result]) -> Callable[..., Result]:
    """Remember what ``method(layer, buffers)`` returns, for each size of the network.

    Layers use it for lists of arrays; for reshaped views there are `Rows`. What it
    returned is kept with `buffers`, which have other content after a resize, and may
    have this one again.
    """
    key = f"_{method.__name__}"

    @functools.wraps(method)
    def lookup(self: Any, buffers: BufferView) -> Result:
        found = buffers.__dict__.get(key)
        if found is None:
            found = buffers.__dict__[key] = method(self, buffers)
        return found

    return lookup


# What a network sets does not change what it has recorded of passes.
_SET_BY_NETWORKS = frozenset(
    {
        *("handler", "fresh", "unwanted", "after_training", "begins", "exchange"),
        "keeps_internals",
    }
)


class Layer:
    """Base class of all layers.

    A layer owns no memory. It says in `setup` which buffers it needs, and its
    passes work on the views that they are given, through the operations of
    ``self.handler``. A subclass named ``FooLayerImpl`` is known as ``Foo`` in
    architectures and files; of several the one that was defined last, but types of the
    library keep their meaning, until a class is registered by hand.

    Passes *add* to input deltas and to gradients. A layer that sets
    `honours_fresh` promises to overwrite instead where ``self.fresh`` says so
    (the names of inputs, and ``'gradients'``): that memory then holds garbage.
    It saves clearing and adding, where a network finds that it is possible. Deltas
    of the inputs in ``self.unwanted`` are not needed; a layer may leave them out.
    `add_deltas` sees to both.

    Args:
        name: Name of the layer.
        in_shapes: Structure of each input.
        incoming_connections: Connections into this layer; also as `incoming`.
        outgoing_connections: Connections out of this layer; also as `outgoing`.
        **kwargs: Arguments of the layer, see `expected_kwargs`.

    Attributes:
        in_shapes, out_shapes, parameter_shapes, internal_shapes (dict): Structure
            of every buffer by its name; those of the inputs are sorted by name.
        incoming, outgoing (Sequence[Connection]): The connections.
        handler (Handler): Provides the operations.
        frozen (frozenset[str]): Names of parameters that are not trained.
        shared (dict[str, str]): Names of parameters that are those of another layer,
            and ``'layer.parameter'`` for each.

    Raises:
        LayerValidationError: Names of inputs or arguments are wrong, or a shape
            does not fit.
    """

    expected_inputs: Mapping[str, StructureTemplate] = {
        "default": StructureTemplate("T", "B", "...")
    }
    optional_inputs: Mapping[str, StructureTemplate] = {}
    """Inputs that may be connected besides `expected_inputs`."""
    arguments: Mapping[str, Argument] = {}
    """See `arguments_of`. They are checked, and are attributes, before `setup`."""
    reads_arguments: Sequence[str] = ()
    """Names of what `Network.forward_pass` may be given for it. In passes of such a
    layer ``self.arguments`` is a mapping with those that were given, not those of
    `arguments_of`. These passes are called each time, not replayed."""
    expected_kwargs: Sequence[str] | frozenset[str] = frozenset()
    """The names of the arguments; by default those of `arguments`."""
    computes_no_input_deltas_for: Sequence[str] = ()
    computes_no_gradients_for: Sequence[str] = ()
    takes_no_output_deltas_from: Sequence[str] = ()
    averaged_parameters: Sequence[str] = ()
    """Names of parameters that training passes change by themselves, to means over the
    batch; parallel training averages them over its processes."""
    first_values: Mapping[str, Any] = {}
    """What parameters begin with, unless an initializer is given for them by name."""
    is_loss = False
    """Whether its output ``loss`` is part of what training minimizes."""
    honours_fresh = False
    time_is_optional = False
    """Whether its inputs may have no time, ``('B', ...)``, and then none of them."""
    needs_whole_sequences = False
    """Whether a context is of no use to it, because it looks at all time steps."""
    stacks_parameters = False
    """Whether it uses its parameters as one array: they can not be shared singly."""
    has_surrogate_gradients = False
    """Whether its passes compute derivatives of something else. Where its attribute
    `smooth` is set, forward passes compute that: `check_layer` does so."""
    smooth = False
    repeats = False
    """Whether its passes make the same operations on the same buffers each time, so
    that networks may record and replay them. It counts for the very class that says so:
    a subclass says so itself."""
    follows_training = False
    """Whether a backward pass depends on the kind of the forward pass before, which is
    `after_training`: networks tell it then."""
    after_training = True
    follows_context = False
    """Whether its passes do less where no context was given, and sequences begin anew:
    networks tell it then by `begins`."""
    begins = False
    can_leave_out: Sequence[str] = ()
    """Names of internals that a forward pass need not fill where `keeps_internals` is
    False: networks say so where no backward pass follows. They run it again, with True,
    when somebody reads one; it has to find its state as it was, in the context's steps
    of its buffers."""
    keeps_internals = True
    overwrites: Mapping[str, str] = {}
    """Names of internals which, in a backward pass, can lie where the deltas of an
    output do, and that output: its deltas are not read once these are written. It
    counts for the very class that says so."""
    computed: Sequence[str] = ()
    """Names of internals (T, B, ...) that have no memory: they are made by `compute`
    when `Network.get` or `tools.extract` asks for them."""
    exchange: Any = None
    """What averages over the processes of a parallel training, if it is one."""
    out_shapes: Structures
    parameter_shapes: Structures
    internal_shapes: Structures

    def __init__(
        self,
        name: str,
        in_shapes: Mapping[str, BufferStructure],
        incoming_connections: Any = None,
        outgoing_connections: Any = None,
        **kwargs: Any,
    ):
        self.name = name
        self.in_shapes: dict[str, BufferStructure] = dict(in_shapes)
        if incoming_connections is None:
            incoming_connections = kwargs.pop("incoming", ())
        if outgoing_connections is None:
            outgoing_connections = kwargs.pop("outgoing", ())
        self.incoming = incoming_connections
        self.outgoing = outgoing_connections
        self.kwargs = kwargs
        self.handler: Handler = None  # type: ignore[assignment]
        self.fresh: frozenset[str] = frozenset()
        self.unwanted: frozenset[str] = frozenset()
        self.frozen: frozenset[str] = frozenset()
        self.shared: dict[str, str] = {}
        self._validate_kwargs()
        self.expected_inputs = self.inputs_to_expect(self.in_shapes)
        self._validate_in_shapes()
        self.in_shapes = {name: in_shapes[name] for name in sorted(in_shapes)}
        for argument, (default, check, _) in self.arguments.items():
            value = self.argument(argument, default, check.accept, check.expected)
            setattr(self, argument, check.convert(value))
        self.out_shapes, self.parameter_shapes, self.internal_shapes = self.setup(
            kwargs, self.in_shapes
        )
        self._validate_sizes()
        self._validate_connections()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__name__.endswith(ENDING):
            LAYER_TYPES.add(cls.__name__.removesuffix(ENDING), cls)
        if "arguments" in vars(cls) and "expected_kwargs" not in vars(cls):
            cls.expected_kwargs = frozenset(cls.arguments)

    @classmethod
    def register(cls) -> None:
        """Let the name of this class mean it, even if it is that of another one."""
        LAYER_TYPES[layer_type_name(cls)] = cls

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        changed = self.__dict__.get("_changed")
        if changed is None or name in _SET_BY_NETWORKS:
            return
        # Passes that are not replayed may take notes; but a pass may be replaced.
        if self.can_be_replayed() or callable(value):
            changed()()

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs."""
        return list(self.in_shapes)

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs."""
        return list(self.out_shapes)

    @property
    def has_time(self) -> bool:
        """Whether any of its inputs has a time."""
        return any(s.scales_with_time for s in self.in_shapes.values())

    def set_handler(self, new_handler: Handler) -> None:
        """Use the operations of another handler from now on."""
        self.handler = new_handler

    def can_be_replayed(self) -> bool:
        """Whether its own class says that it `repeats`, and it reads no arguments."""
        says_so = self.repeats and "repeats" in vars(type(self))
        return says_so and not self.reads_arguments

    @property
    def can_be_stepped(self) -> bool:
        """Whether passes over single steps give what a pass over all of them does.

        Only then it can be in a loop of feedback. By default, if it has no context. A
        layer with one may say that it can, if all of its state that needs deltas is in
        outputs, and if it leaves these in row -1 of the output deltas.
        """
        structures = (*self.out_shapes.values(), *self.internal_shapes.values())
        carried = (s.context_size and not s.is_backward_only for s in structures)
        return not self.needs_whole_sequences and not any(carried)

    # -- what a layer implements ---------------------------------------------

    def inputs_to_expect(
        self, given: Collection[str]
    ) -> Mapping[str, StructureTemplate]:
        """The inputs that have to be connected: `expected_inputs`, and optional ones.

        Layers with a variable number of inputs override this.

        Args:
            given: Names of the inputs that are connected.
        """
        optional = {n: t for n, t in self.optional_inputs.items() if n in given}
        return {**self.expected_inputs, **optional}

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        """Check the arguments and say which buffers are needed.

        Args:
            kwargs: The arguments given to the layer.
            in_shapes: Structure of each input.

        Returns:
            Structures of the outputs, the parameters and the internals, each as
            an ordered dict by name.
        """
        raise NotImplementedError

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        """Compute the outputs from the inputs; nothing by default."""

    def backward_pass(self, buffers: BufferView) -> None:
        """Add to the input deltas and the gradients, from the output deltas.

        Nothing by default.
        """

    def compute(self, name: str, buffers: BufferView) -> np.ndarray:
        """The values of an internal that is one of those in `computed`.

        It is computed from what the last forward pass has left in other buffers.
        """
        raise NotImplementedError

    # -- for passes ----------------------------------------------------------

    def add_deltas(self, input_name: str, operation: str, *args: Any) -> None:
        """Let an operation of the handler add to the deltas of an input.

        Deltas that are fresh are overwritten; for unwanted ones nothing is done.

        Args:
            input_name: Name of the input.
            operation: Name of an operation that overwrites: ``'copy_to'``, ``'fill'``,
                ``'mult_mv'``, ``'mult_st'``, ``'mult_tt'``; or of one whose last
                argument says whether to overwrite, such as ``'act_backward'``.
            *args: All arguments but that.
        """
        if input_name in self.unwanted:
            return
        is_fresh = input_name in self.fresh
        if operation not in _ADDING:
            getattr(self.handler, operation)(*args, is_fresh)
        elif is_fresh:
            getattr(self.handler, operation)(*args)
        else:
            _ADDING[operation](self.handler, *args)

    # -- checks --------------------------------------------------------------

    def error(self, text: str) -> LayerValidationError:
        """An exception that names this layer."""
        kind = type(self).__name__.removesuffix(ENDING)
        return LayerValidationError(f"{kind} layer {self.name!r}: {text}")

    def argument(
        self, name: str, default: Any, accept: Callable[[Any], bool], expected: str
    ) -> Any:
        """The value of an argument, checked.

        Args:
            name: Name of the argument.
            default: Its value where it is not given.
            accept: Tells whether a value is good.
            expected: What to tell the user who gave a bad one.
        """
        value = self.kwargs.get(name, default)
        try:
            good = bool(accept(value))
        except (ArithmeticError, TypeError, ValueError):
            good = False
        if not good:
            names = re.findall("'([^']*)'", expected)
            meant = meant_by(value, names) if isinstance(value, str) else None
            hint = f"; did you mean {meant!r}?" if meant else ""
            raise self.error(f"expected {expected} as {name!r}, got {value!r}{hint}")
        return value

    def same_shape(self, *input_names: str) -> BufferStructure:
        """The structure that these inputs share, checked."""
        first, *others = (self.in_shapes[name] for name in input_names)
        for name, structure in zip(input_names[1:], others, strict=True):
            if structure.shape != first.shape:
                raise self.error(
                    f"expected the same shape at input {name!r} as at"
                    f" {input_names[0]!r}, {first.shape}, got {structure.shape}"
                )
        return self.like(first)

    @staticmethod
    def like(structure: BufferStructure, *features: int) -> BufferStructure:
        """A structure of the same shape, or with other features, without context."""
        return BufferStructure(
            *structure.scaling_shape, *(features or structure.feature_shape)
        )

    def size_argument(self, name: str) -> int:
        """The value of an argument that counts something, checked."""
        return int(self.argument(name, None, COUNT.accept, COUNT.expected))

    def _validate_kwargs(self) -> None:
        """Check the names of the arguments; for subclasses to override, or extend."""
        unexpected = sorted(set(self.kwargs) - set(self.expected_kwargs))
        if unexpected:
            raise self.error(
                f"unexpected argument {listing(unexpected)};"
                f" {choices(unexpected[0], sorted(self.expected_kwargs))}"
            )

    def _validate_connections(self) -> None:
        """Check `incoming` and `outgoing` once the outputs are known; no check here."""

    def _validate_sizes(self) -> None:
        for kind, shapes in (
            ("output", self.out_shapes),
            ("parameter", self.parameter_shapes),
            ("internal", self.internal_shapes),
        ):
            for name, structure in shapes.items():
                if math.prod(structure.get_shape(1, 1)) > _MOST_NUMBERS:
                    raise self.error(
                        f"expected sizes that fit into memory, got {structure}"
                        f" for the {kind} {name!r}"
                    )

    def _validate_in_shapes(self) -> None:
        """Check `in_shapes`; for subclasses to override, or extend."""
        expected = self.expected_inputs
        if set(self.in_shapes) != set(expected):
            raise self.error(
                f"expected the inputs {listing(expected)} to be connected, got"
                f" {listing(sorted(self.in_shapes))}"
            )
        without = self.time_is_optional and not self.has_time
        for name, template in expected.items():
            if without:
                template = StructureTemplate(*template.shape[1:])
            if not template.matches(self.in_shapes[name]):
                raise self.error(
                    f"expected the shape {template} at input {name!r}, got"
                    f" {self.in_shapes[name].shape}"
                )


def layer_type_name(layer_class: type | str) -> str:
    """The type name of a layer's class: ``Foo`` for ``FooLayerImpl``.

    Args:
        layer_class: The class, which the result remembers; or its name.

    Raises:
        LayerValidationError: The class name does not end in ``LayerImpl``.
    """
    name = layer_class.__name__ if isinstance(layer_class, type) else layer_class
    if not isinstance(name, str) or not name.endswith(ENDING) or name == ENDING:
        raise LayerValidationError(
            f"the name of a layer's class has to end in {ENDING!r}, but {name!r} does"
            " not"
        )
    name = name.removesuffix(ENDING)
    if isinstance(layer_class, type):
        return TypeName(name, layer_class, LAYER_TYPES)
    return name


def get_layer_class_from_typename(type_name: str) -> type[Layer]:
    """The class that the name of a layer's type means.

    Raises:
        UnknownLayerTypeError: There is none; lists the choices.
        LayerValidationError: It is no layer.
    """
    layer_class = LAYER_TYPES.find(type_name)
    if layer_class is None:
        raise UnknownLayerTypeError(
            f"unknown layer type {type_name!r};"
            f" {choices(type_name, sorted(LAYER_TYPES))};"
            " if it is one of your own, import the module that defines it first"
        )
    if not issubclass(layer_class, Layer):
        raise LayerValidationError(f"{layer_class} is no subclass of Layer")
    return layer_class

"""The network: layers, their memory, and everything a user does with them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from brainstorm.describable import (
    Describable,
    create_from_description,
    get_description,
)
from brainstorm.handlers import default_handler
from brainstorm.handlers.base_handler import Handler
from brainstorm.initializers import evaluate_initializer
from brainstorm.layers.base_layer import Layer
from brainstorm.layers.loss_layer import LossLayerImpl
from brainstorm.randomness import Seedable
from brainstorm.structure.architecture import (
    generate_architecture,
    instantiate_layers_from_architecture,
    plain_architecture,
)
from brainstorm.structure.backpropagation import Backpropagation
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.buffers import BufferManager
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.structure.external_data import check_dense, check_shapes, shapes_of
from brainstorm.structure.listing import ProgramListing, list_program
from brainstorm.structure.modifiers import (
    Modifiers,
    TrainedPart,
    each_modifier,
    resolve_modifiers,
)
from brainstorm.structure.network_files import (
    available_handler,
    load_network,
    save_network,
)
from brainstorm.structure.network_info import network_info_html
from brainstorm.structure.passes import Pass, Passes
from brainstorm.structure.prediction import predict
from brainstorm.structure.trainable import (
    own_parameters,
    set_layer_properties,
    trained_slices,
    with_trainable,
)
from brainstorm.structure.turns import HERE, Turns
from brainstorm.structure.view_references import merge_references, resolve_references
from brainstorm.utils import (
    HandlerError,
    NetworkValidationError,
    UnknownNameError,
    listing,
)
from brainstorm.value_modifiers import GradientModifier

__all__ = ["Network"]

# As text, numbers take ten times their memory, and parameters are saved anyway.
_LARGEST_DESCRIBED = 10_000


class Network(Seedable):
    """A directed acyclic graph of layers, with the memory to run it.

    Made by `from_layer`, `from_architecture` or `from_hdf5`.

    Threads can share it: `predict`, `tools.evaluate`, `tools.extract` and the updates
    of a `Trainer`, with the hooks that follow them, take turns. Single steps belong
    together, so a thread that calls them itself has to have the network for itself::

        with net.lock:
            net.provide_external_data(data)
            net.forward_pass()
            loss = net.get_loss_values()

    Without the lock, `forward_pass`, `backward_pass` and what reads their results
    refuse to work on data that another thread has given meanwhile. Hooks must not wait
    for other threads that use the network.

    Attributes:
        layers (dict[str, Layer]): Layers by name, in canonical order.
        architecture (dict): What the network was made from.
        handler (Handler): Does the arithmetic.
        lock (Turns): Gives the network to one thread at a time; see above.
        output_name (str | None): Path of the output that scorers look at when
            they are not told otherwise.
        initializers (dict): Description of the last call of `initialize`, where
            functions and arrays of more than 10,000 numbers are only named.
        weight_modifiers, gradient_modifiers (dict): Lists of modifiers by layer
            and parameter.
        loss_layers (list[str]): Names of the layers whose losses are summed.
        before_next_run (Callable[[], None] | None): Called, once, before other data
            come or a forward pass, so that what the last one left can be looked at.
        trained_slices (list[slice]): Where in the flat parameters and gradients those
            lie that steppers change.
    """

    def __init__(
        self,
        layers: Mapping[str, Layer],
        buffer_manager: BufferManager,
        architecture: Mapping[str, Any],
        seed: int | None = None,
        handler: Handler = default_handler,
        passes: type[Passes] = Passes,
    ):
        super().__init__(seed)
        self.lock = Turns()
        self.layers = layers
        self.architecture = architecture
        self.handler = handler
        self.output_name: str | None = None
        self.initializers: dict[str, Any] = {}
        self.weight_modifiers: Modifiers = {}
        self.gradient_modifiers: Modifiers = {}
        self.before_next_run: Callable[[], None] | None = None
        self._buffer_manager = buffer_manager
        self.loss_layers = [
            name for name, la in layers.items() if isinstance(la, LossLayerImpl)
        ]
        self._input_shapes: dict[str, tuple[int, ...]] = {}
        views = buffer_manager.views.__dict__
        self._run_order = [(layer, views[name]) for name, layer in layers.items()]
        self._passes = passes(layers, buffer_manager)
        self.backpropagation = Backpropagation(layers, buffer_manager, self._passes)
        self._plan_training()
        self.set_handler(handler)

    # -- creating ------------------------------------------------------------

    @classmethod
    def from_layer(cls, some_layer: ConstructionWrapper) -> Network:
        """Create a network from wired layers.

        Args:
            some_layer: Any of the layers wired with ``>>``.

        Raises:
            NetworkValidationError: The layers do not form a network.
            LayerValidationError: A layer refuses its arguments or shapes.
        """
        if not isinstance(some_layer, ConstructionWrapper):
            raise NetworkValidationError(
                f"expected a layer wired with '>>', got {type(some_layer).__name__}"
            )
        return cls.from_architecture(generate_architecture(some_layer))

    @classmethod
    def from_architecture(cls, architecture: Mapping[str, Any]) -> Network:
        """Create a network from an architecture.

        Args:
            architecture: JSON-serializable description of all layers.

        Raises:
            NetworkValidationError: It does not describe a network.
            LayerValidationError: A layer refuses its arguments or shapes.
        """
        architecture = plain_architecture(architecture)
        layers = instantiate_layers_from_architecture(architecture)
        buffer_manager = BufferManager.from_layers(layers, default_handler)
        return cls(layers, buffer_manager, architecture)

    @classmethod
    def from_hdf5(cls, filename: str | os.PathLike) -> Network:
        """Load a network from an HDF5 file.

        A network whose handler can not run on this machine gets the default one, with
        a warning.

        See Also:
            `save_as_hdf5`

        Raises:
            FileNotFoundError: There is no such file.
            FileFormatError: It is damaged, or not a network's file.
        """
        return load_network(cls, filename)

    def save_as_hdf5(self, filename: str | os.PathLike, comment: str = "") -> None:
        """Save the description and the parameters to an HDF5 file.

        The file appears under its name only when it is complete.

        Args:
            filename: Name of the file; its folder has to exist.
            comment: Saved inside the file.
        """
        save_network(self, filename, comment)

    def __describe__(self) -> dict[str, Any]:
        return {
            "@type": "Network",
            "architecture": get_description(self.architecture),
            "handler": get_description(self.handler),
            "initializers": self.initializers,
            "gradient_modifiers": get_description(self.gradient_modifiers),
            "weight_modifiers": get_description(self.weight_modifiers),
            "output_name": self.output_name,
        }

    @classmethod
    def __new_from_description__(cls, description: Mapping[str, Any]) -> Network:
        net = cls.uninitialized(description)
        if net.initializers:
            net._initialize_as_described()
        return net

    @classmethod
    def uninitialized(cls, description: Mapping[str, Any]) -> Network:
        """A network made from a description, whose parameters are zeros."""
        net = cls.from_architecture(description["architecture"])
        net.output_name = description.get("output_name")
        net.initializers = description.get("initializers", {})
        for kind in ("gradient_modifiers", "weight_modifiers"):
            modifiers = create_from_description(description.get(kind, {}))
            if modifiers:
                of_weights = kind == "weight_modifiers"
                resolved = resolve_modifiers(
                    net.layers, modifiers, net.rnd.create_random_state(), of_weights
                )
                setattr(net, kind, resolved)
        if "handler" in description:
            net.set_handler(available_handler(description["handler"]))
        return net

    def _initialize_as_described(self) -> None:
        """Initialize as `initializers` say; they stay as they are."""
        description = self.initializers
        self.initialize(_create_initializers(description))
        self.initializers = description

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle as `save_as_hdf5` does: the description and parameters."""
        return _recreate, (get_description(self), self.get("parameters"))

    # -- looking inside ------------------------------------------------------

    def _repr_html_(self) -> str:
        """A table of the layers, for notebooks."""
        return network_info_html(self)

    def program(
        self,
        training_pass: bool = False,
        time_size: int | None = None,
        batch_size: int | None = None,
    ) -> ProgramListing:
        """List the operations of a step; runs nothing.

        >>> from brainstorm import tools
        >>> net = tools.create_net_from_spec("classification", 4, 3, "F5")
        >>> net.program().multiplications  # 4 x 5 + 5 x 3
        35

        Args:
            training_pass: Whether to list the forward pass of a training, with the
                backward pass. Otherwise a forward pass of an evaluation.
            time_size: Number of time steps. Default: that of the network's data.
            batch_size: Number of sequences. Default: that of the network's data.

        Returns:
            A list of operations, that shows as a table: the layers that call them,
            names and shapes of their buffers, their multiplications.
        """
        return list_program(self, training_pass, time_size, batch_size)

    @property
    def buffer(self) -> BufferView:
        """All buffers, in the handler's memory; `get` gives copies."""
        return self._buffer_manager.views

    @property
    def time_size(self) -> int:
        """Number of time steps of the current data."""
        return self._buffer_manager.time_size

    @property
    def batch_size(self) -> int:
        """Number of sequences in the current data."""
        return self._buffer_manager.batch_size

    def get(self, buffer_path: str) -> np.ndarray:
        """Get a NumPy copy of a buffer.

        Args:
            buffer_path: A dotted path, for example ``'parameters'`` or
                ``'Output.outputs.predictions'`` or ``'Lstm.internals.Fb'``.

        Raises:
            KeyError: There is no such buffer; lists the choices.
        """
        with self.lock:
            if "parameters" not in buffer_path.split("."):
                self.lock.check()
            self.backpropagation.check(buffer_path)
            buffer = self.buffer[buffer_path]
            if isinstance(buffer, BufferView):
                raise UnknownNameError(
                    f"{buffer_path!r} is not one buffer but a view of several:"
                    f" {listing(BufferView._asdict(buffer))}"
                )
            return self.handler.get_numpy_copy(buffer)

    def get_input(self, input_name: str) -> np.ndarray:
        """Get a NumPy copy of one of the named inputs.

        Raises:
            KeyError: There is no such input; lists the choices.
        """
        lock = self.lock
        with lock.steps:
            if lock.has_displaced:
                lock.check()
            return self.handler.get_numpy_copy(self.buffer.Input.outputs[input_name])

    get_inputs = get_input

    def get_loss_values(self) -> dict[str, float]:
        """The losses that the last forward pass computed.

        Returns:
            ``{'total_loss': sum}``, and each loss by the name of its layer where
            there are several.
        """
        views = self._buffer_manager.views
        losses = {
            name: self._as_float(views.__dict__[name].outputs.loss)
            for name in self.loss_layers
        }
        # Checked afterwards, as it takes less time than to have the lock meanwhile.
        self.lock.check()
        total = sum(losses.values(), 0.0)
        if len(losses) < 2:
            return {"total_loss": total}
        return {**losses, "total_loss": total}

    def _as_float(self, buffer: Any) -> float:
        return self.handler.get_numpy_copy(buffer).item()

    # -- setting up ----------------------------------------------------------

    def set_handler(self, new_handler: Handler) -> None:
        """Let another handler do the arithmetic from now on.

        The parameters move along; the content of other buffers is lost.
        """
        if not isinstance(new_handler, Handler):
            raise NetworkValidationError(
                f"expected a Handler, got {type(new_handler).__name__}"
            )
        with self.lock:
            if new_handler is not self._buffer_manager.handler:
                self._buffer_manager.set_handler(new_handler)
            self.handler = new_handler
            for layer in self.layers.values():
                layer.set_handler(new_handler)
            self._resized()

    def initialize(
        self,
        default_or_init_dict: Any = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Initialize the parameters.

        ``net.initialize(Gaussian())`` uses one initializer for everything.
        A dict, or keyword arguments, or both (keywords win) choose by name::

            net.initialize({'Conv*': {'W': Gaussian(0.01), 'bias': 0},
                            'default': Gaussian(0.1)},
                           fallback=Uniform(0.1))

        Keys are names of layers, or patterns with ``*``. Values are initializers
        or dicts by names of parameters, where ``*`` works too. ``'default'``, at
        both levels, counts where nothing else matches. ``'fallback'`` is used
        where an initializer can not work with a parameter's shape. Scalars,
        lists and arrays of the right shape count as initializers.

        Args:
            default_or_init_dict: An initializer or a dict.
            seed: Makes the initialization reproducible on its own.
            **kwargs: Entries of the dict.

        Raises:
            NetworkValidationError: A pattern matches nothing, or a parameter is
                matched by none or by several.
            InitializationError: An initializer failed and there is no fallback.
        """
        references = merge_references(default_or_init_dict, kwargs)
        chosen = resolve_references(own_parameters(self.layers), references)
        lost = [
            f"{layer}.{name}"
            for layer, parameters in chosen.items()
            for name, c in parameters.items()
            if c.value is None
        ]
        if lost:
            raise NetworkValidationError(f"nothing initializes {listing(lost)}")
        rnd = self.rnd.create_random_state(seed)
        values = {}
        for layer in sorted(chosen):
            for name in sorted(chosen[layer]):
                value, fallback = chosen[layer][name]
                path = f"{layer}.parameters.{name}"
                values[path] = evaluate_initializer(
                    value, tuple(self.buffer[path].shape), fallback, rnd.generate_seed()
                )
        with self.lock:
            for path, value in values.items():
                self.handler.set_from_numpy(self.buffer[path], value)
        self.initializers = _describe_initializers(references)

    def set_weight_modifiers(
        self, default_or_mod_dict: Any = None, **kwargs: Any
    ) -> None:
        """Install modifiers of the parameters.

        The trainer applies them after each update; `apply_weight_modifiers` does
        so too. Parameters are chosen as in `initialize`, but there is no
        fallback, and where several patterns match all of their modifiers run in order.
        A place can have one `ValueModifier` or a list, which runs in order; each
        place gets a copy of its own, with a seed of its own and its `layer_name` and
        `view_name`::

            net.set_weight_modifiers({'FC*': {'W': ConstrainL2Norm(1.0)}})

        Modifiers leave alone what is not trained: frozen parameters, and those that a
        layer changes by itself, such as the statistics of `BatchNorm`. To change these
        too, give their full names.

        Modifiers of the whole network, such as `ClipGlobalNorm`, are given as the
        outer ``'default'``. They are called once, after all others, whatever else
        matches, with all that is trained in one flat array.
        """
        references = merge_references(default_or_mod_dict, kwargs)
        rnd = self.rnd.create_random_state()
        self.weight_modifiers = resolve_modifiers(
            self.layers, references, rnd, of_weights=True
        )

    def set_gradient_modifiers(
        self, default_or_mod_dict: Any = None, **kwargs: Any
    ) -> None:
        """Install modifiers of the gradients.

        They run after each backward pass. See `set_weight_modifiers`; here
        `GradientModifier` objects, which see the parameters too, are also good. They
        never run for parameters that get no gradient.
        """
        references = merge_references(default_or_mod_dict, kwargs)
        rnd = self.rnd.create_random_state()
        self.gradient_modifiers = resolve_modifiers(self.layers, references, rnd)

    def set_trainable(self, default_or_dict: Any = None, **kwargs: Any) -> None:
        """Choose the parameters that training changes.

        Parameters are chosen as in `initialize`, with True or False for each; what
        nothing matches is trainable::

            net.set_trainable({'Conv*': False, 'Out': {'bias': False}})

        Frozen parameters keep their values, whatever steppers and modifiers do. Their
        gradients are 0. Layers below which nothing is trainable need no backward pass,
        so that training takes less time. The choice is part of the `architecture`.

        Raises:
            NetworkValidationError: A pattern matches nothing, several match a
                parameter, or a value is neither True nor False.
        """
        references = merge_references(default_or_dict, kwargs)
        chosen = resolve_references(own_parameters(self.layers), references)
        self.architecture = with_trainable(self.architecture, chosen)
        set_layer_properties(self.layers, self.architecture)
        self._plan_training()

    def _plan_training(self) -> None:
        """Take note of which parameters are trained."""
        self.backpropagation.plan()
        hubs = self._buffer_manager.hubs
        self.trained_slices = trained_slices(self.layers, hubs[0])
        self._trained_part = TrainedPart(self.trained_slices)

    # -- running -------------------------------------------------------------

    def provide_external_data(
        self, data: Mapping[str, Any], all_inputs: bool = True
    ) -> None:
        """Copy data to the outputs of the Input layer, resizing to fit it.

        Args:
            data: Arrays ``(T, B, ...)`` by the names of the inputs. More than the
                network has inputs are fine: what it does not know is left out.
            all_inputs: Whether to insist on data for every input.

        Raises:
            MissingInputError: Data for an input is missing (a KeyError).
            NetworkValidationError: A name is unknown, or a shape does not fit.
        """
        lock = self.lock
        with lock.steps:
            if lock.mark is not HERE.mark:
                lock.take_over()
            if self.before_next_run is not None:
                self._announce_run()
            structures = self.layers["Input"].out_shapes
            shapes = shapes_of(data)
            if len(shapes) > len(structures):
                data = {name: data[name] for name in data if name in structures}
                shapes = {name: shapes[name] for name in data}
            if shapes != self._input_shapes:
                for name, array in data.items():
                    check_dense(name, array)
                sizes = check_shapes(structures, shapes, all_inputs)
                self._buffer_manager.resize(
                    sizes.get("T", self.time_size), sizes.get("B", self.batch_size)
                )
                self._resized()
                self._input_shapes = shapes
            elif all_inputs and len(shapes) < len(structures):
                check_shapes(structures, shapes, all_inputs)
            targets = self._buffer_manager.views.Input.outputs.__dict__
            for name, array in data.items():
                self._provide(name, targets[name], array)

    def _announce_run(self) -> None:
        announce, self.before_next_run = self.before_next_run, None
        self.backpropagation.show()
        announce()

    def _provide(self, name: str, target: Any, array: Any) -> None:
        if isinstance(array, self.handler.array_type) and not isinstance(
            array, np.ndarray
        ):
            self.handler.copy_to(array, target)
            return
        try:
            self.handler.set_from_numpy(target, array)
        except HandlerError as error:
            raise HandlerError(f"data for the input {name!r}: {error}") from error

    def _resized(self) -> None:
        """Take note of other memory."""
        self._input_shapes = {}
        self.backpropagation.forget_memory()

    def predict(
        self, x: Any, batch_size: int = 100, output_name: str | None = None
    ) -> np.ndarray:
        """The network's output for some data, as in use, not as in training.

        >>> from brainstorm import Network, layers
        >>> inp = layers.Input({'default': ('T', 'B', 4)})
        >>> net = Network.from_layer(inp >> layers.FullyConnected(2))
        >>> net.predict(np.zeros((10, 4))).shape
        (10, 2)

        Targets, and what else the output does not depend on, are not needed. `net(x)`
        does the same.

        Args:
            x: Data of the shape (T, B, ...), or (B, ...) for one time step: an array
                or an HDF5 dataset. If the output depends on several inputs, a dict of
                these by name.
            batch_size: How many sequences to run at once.
            output_name: Path of the output. Default: the network's `output_name`, or
                the only output that can be meant.

        Returns:
            An array of the shape (T, B, ...), or (B, ...) if the data has no T.

        Raises:
            MissingInputError: Data for an input is missing (a KeyError).
            NetworkValidationError: Data does not fit, or several outputs can be meant.
            UnknownNameError: There is no such output or input (a KeyError).
        """
        return predict(self, x, batch_size, output_name)

    __call__ = predict

    def forward_pass(
        self,
        training_pass: bool = False,
        context: dict[str, Any] | None = None,
        only: Collection[str] | None = None,
    ) -> None:
        """Run the layers on the data given by `provide_external_data`.

        Args:
            training_pass: Whether this belongs to training; some layers, such as
                Dropout, then behave differently.
            context: State to continue from, as returned by `get_context`: it is
                taken as that of the step before the first. Zeros otherwise.
            only: Names of the layers to run. All by default.
        """
        lock = self.lock
        with lock.steps:
            if lock.has_displaced:
                lock.check()
            if self.before_next_run is not None:
                self._announce_run()
            if context is not None:
                self._buffer_manager.apply_context(context)
            chosen = None if only is None else frozenset(only)
            self._passes.run(
                ("forward", bool(training_pass), context is None, chosen),
                self._make_forward_pass,
            )

    def _make_forward_pass(
        self,
        this: Pass,
        training_pass: bool,
        begins: bool,
        only: Collection[str] | None,
    ) -> None:
        if begins:
            self._buffer_manager.clear_context(this.handler)
        order = self._run_order
        if only is not None:
            order = [(la, buffers) for la, buffers in order if la.name in only]
        this.run(order, "forward_pass", training_pass)

    def backward_pass(self, all_deltas: bool = True) -> None:
        """Compute all deltas and gradients, after a forward pass.

        Gradient modifiers are applied at the end.

        Args:
            all_deltas: With False, deltas on which no gradient depends, such as
                those that reach the Input layer, may be left out. They are NaN
                then. Steppers do this, as long as nobody has read deltas.
        """
        lock = self.lock
        with lock.steps:
            if lock.has_displaced:
                lock.check()
            self.backpropagation.run(all_deltas)
            if self.gradient_modifiers:
                self.apply_gradient_modifiers()

    def ask_for_deltas(self) -> None:
        """Have all deltas computed in training too, from now on."""
        self.backpropagation.wants_all = True

    def get_context(self) -> dict[str, np.ndarray]:
        """The state after the last step, to be given to `forward_pass`."""
        lock = self.lock
        with lock.steps:
            if lock.has_displaced:
                lock.check()
            return self._buffer_manager.get_context()

    def apply_gradient_modifiers(self) -> None:
        """Run the gradient modifiers; `backward_pass` does so by itself."""
        for layer, name, modifier in each_modifier(self.gradient_modifiers):
            both = isinstance(modifier, GradientModifier)
            categories = ("parameters", "gradients") if both else ("gradients",)
            self._modify(modifier, layer, name, *categories)

    def start_weight_modifiers(self) -> None:
        """Let the weight modifiers look at the weights before a training."""
        for layer, name, modifier in each_modifier(self.weight_modifiers):
            self._modify(modifier.start, layer, name, "parameters")

    def apply_weight_modifiers(self) -> None:
        """Run the weight modifiers; the trainer does so after each update."""
        for layer, name, modifier in each_modifier(self.weight_modifiers):
            self._modify(modifier, layer, name, "parameters")

    def _modify(
        self,
        modifier: Callable[..., None],
        layer: str,
        name: str | None,
        *categories: str,
    ) -> None:
        """Run a modifier on a parameter, unless it is frozen, or on all trained ones.

        Args:
            modifier: The modifier, or its `start`.
            layer: Name of the layer.
            name: Name of the parameter; None for all of the network.
            *categories: What to give it: ``'parameters'``, ``'gradients'``.
        """
        if name is None:
            arrays = (self.buffer[category] for category in categories)
            self._trained_part.apply(modifier, self.handler, *arrays)
        elif name not in self.layers[layer].frozen:
            view = self.buffer[layer]
            modifier(self.handler, *[view[category][name] for category in categories])


def _recreate(description: dict[str, Any], parameters: np.ndarray) -> Network:
    net = Network.uninitialized(description)
    net.handler.set_from_numpy(net.buffer.parameters, parameters)
    return net


def _create_initializers(description: Any) -> Any:
    """Initializers from what `_describe_initializers` made of them."""
    if isinstance(description, str):
        warnings.warn(
            f"the initializer {description} is only named in the description: the"
            " parameters that it is for become 0",
            stacklevel=2,
        )
        return 0.0
    if isinstance(description, Mapping) and "@type" not in description:
        return {k: _create_initializers(v) for k, v in description.items()}
    return create_from_description(description)


def _describe_initializers(references: Any) -> Any:
    """Describe initializers; functions and large arrays are only named."""
    if isinstance(references, Mapping):
        return {k: _describe_initializers(v) for k, v in references.items()}
    if isinstance(references, np.ndarray) and references.size > _LARGEST_DESCRIBED:
        return f"<array {references.shape}>"
    if callable(references) and not isinstance(references, Describable):
        return f"<{getattr(references, '__name__', type(references).__name__)}>"
    return get_description(references)

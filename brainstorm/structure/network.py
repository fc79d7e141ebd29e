"""The network: layers, their memory, and everything a user does with them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from brainstorm.describable import get_description
from brainstorm.handlers import default_handler
from brainstorm.structure.architecture import (
    generate_architecture,
    instantiate_layers_from_architecture,
    plain_architecture,
)
from brainstorm.structure.buffers import BufferManager
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.structure.generating import generate
from brainstorm.structure.initializing import (
    Initial,
    create_initializers,
    describe_initializers,
    initial_values,
)
from brainstorm.structure.listing import ProgramListing, list_program
from brainstorm.structure.network_files import (
    available_handler,
    load_network,
    save_network,
)
from brainstorm.structure.network_info import get_network_info, network_info_html
from brainstorm.structure.prediction import predict
from brainstorm.structure.running import RunningNetwork
from brainstorm.structure.trainable import (
    number_of_own,
    own_parameters,
    set_layer_properties,
    with_trainable,
)
from brainstorm.structure.view_references import merge_references, resolve_references
from brainstorm.utils import NetworkValidationError

__all__ = ["Network"]


class Network(RunningNetwork):
    """A graph of layers, acyclic but for feedback, with the memory to run it.

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
        loss_layers (list[str]): Names of the layers whose losses are summed.
        before_next_run (Callable[[], None] | None): Called, once, before other data
            come or a forward pass, so that what the last one left can be looked at.
        trained_slices (list[slice]): Where in the flat parameters and gradients those
            lie that steppers change.
    """

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
    def from_hdf5(cls, filename: str | os.PathLike[str]) -> Network:
        """Load a network from an HDF5 file.

        A network whose handler can not run on this machine gets the default one, with
        a warning.

        See Also:
            `save_as_hdf5`

        Raises:
            FileNotFoundError: There is no such file.
            FileFormatError: It is damaged, or not a network's file.
        """
        return load_network(cls.uninitialized, filename)

    def save_as_hdf5(self, filename: str | os.PathLike[str], comment: str = "") -> None:
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
            **self.modifiers.describe(),
            "output_name": self.output_name,
        }

    @classmethod
    def __new_from_description__(cls, description: Mapping[str, Any]) -> Network:
        net = cls.uninitialized(description)
        if net.initializers:  # which stay as they are
            net.initialize(create_initializers(net.initializers))
            net.initializers = description["initializers"]
        return net

    @classmethod
    def uninitialized(cls, description: Mapping[str, Any]) -> Network:
        """A network made from a description, whose parameters are zeros."""
        net = cls.from_architecture(description["architecture"])
        net.output_name = description.get("output_name")
        net.initializers = description.get("initializers", {})
        net.modifiers.set_as_described(description, net)
        if "handler" in description:
            net.set_handler(available_handler(description["handler"]))
        return net

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle as `save_as_hdf5` does: the description and parameters."""
        return _recreate, (get_description(self), self.get("parameters"))

    # -- looking inside ------------------------------------------------------

    def summary(
        self, time_size: int | None = None, batch_size: int | None = None
    ) -> str:
        """The layers with shapes, parameters and memory, as `print` shows a network.

        Args:
            time_size: Number of time steps. Default: that of the network's data.
            batch_size: Number of sequences. Default: that of the network's data.
        """
        return get_network_info(self, time_size, batch_size)

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        number = sum(map(number_of_own, self.layers.values()))
        return f"<Network of {len(self.layers)} layers, {number:,} parameters>"

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

    # -- setting up ----------------------------------------------------------

    def initialize(
        self,
        default_or_init_dict: Initial | Mapping[str, Any] | None = None,
        seed: int | None = None,
        **kwargs: Initial | Mapping[str, Any],
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
        lists and arrays of the right shape count as initializers, and so do the
        names ``'glorot'``, ``'he'``, ``'lecun'`` and ``'orthogonal'``, with 0 for
        biases; ``'auto'`` is he for rectifiers and glorot for all else.

        A parameter with a natural value (`Layer.first_values`), such as the standard
        deviations of `BatchNorm`, gets this unless it is chosen by its own name.

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
        rnd = self.rnd.create_random_state(seed)
        values = initial_values(self.layers, references, rnd)
        with self.lock:
            for path, value in values.items():
                self.handler.set_from_numpy(self.buffer[path], value)
        self.initializers: dict[str, Any] = describe_initializers(references)

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
        self.modifiers.install("weights", references, self.rnd.create_random_state())

    def set_gradient_modifiers(
        self, default_or_mod_dict: Any = None, **kwargs: Any
    ) -> None:
        """Install modifiers of the gradients.

        They run after each backward pass. See `set_weight_modifiers`; here
        `GradientModifier` objects, which see the parameters too, are also good. They
        never run for parameters that get no gradient.
        """
        references = merge_references(default_or_mod_dict, kwargs)
        self.modifiers.install("gradients", references, self.rnd.create_random_state())

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
        self.architecture: dict[str, Any] = with_trainable(self.architecture, chosen)
        set_layer_properties(self.layers, self.architecture)
        self._plan_training()

    # -- using ----------------------------------------------------------------

    def predict(
        self,
        x: Any,
        batch_size: int = 100,
        output_name: str | None = None,
        forced: Mapping[str, Any] | None = None,
        arguments: Mapping[str, Any] | None = None,
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
            forced: What to feed back, arrays (T, B, ...), see `forward_pass`.
            arguments: For layers that read arguments, see `forward_pass`.

        Returns:
            An array of the shape (T, B, ...), or (B, ...) if the data has no T.

        Raises:
            MissingInputError: Data for an input is missing (a KeyError).
            NetworkValidationError: Data does not fit, or several outputs can be meant.
            UnknownNameError: There is no such output, input or argument (a KeyError).
        """
        return predict(self, x, batch_size, output_name, forced, arguments)

    __call__ = predict

    def generate(
        self,
        steps: int,
        start: Any,
        feedback: Mapping[str, str] | None = None,
        context: Mapping[str, Any] | None = None,
        delta: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> np.ndarray | dict[str, np.ndarray]:
        """Go on with a series by what the network predicts, in a closed loop.

        The network runs over `start`, to get into its state. What it gives at the last
        step is the first step of the result, and its next input; and so on.

        >>> from brainstorm import Network, layers
        >>> inp = layers.Input({'default': ('T', 'B', 1)})
        >>> net = Network.from_layer(inp >> layers.FullyConnected(1, 'linear'))
        >>> net.initialize({'Fully*': {'W': 2.0, 'bias': 0.0}})
        >>> net.generate(4, start=np.ones((1, 1, 1))).ravel().tolist()
        [2.0, 4.0, 8.0, 16.0]

        Args:
            steps: Number of steps T' to generate.
            start: Data of the shape (T, B, ...), or (B, ...) for one time step; a dict
                of these by the names of the inputs if there are several. Inputs that
                are not fed back need T + T' - 1 steps.
            feedback: Names of inputs by the paths of the outputs that they are given.
                Default: the output of `predict`, and the only input that it needs.
            context: State to begin with, as returned by `get_context`. Default: zeros.
            delta: Whether outputs are what is to be added to the input, to give the
                next one.
            arguments: For layers that read arguments, see `forward_pass`.

        Returns:
            What is given to the inputs, an array of the shape (T', B, ...); if several
            outputs are fed back, a dict of these by their paths.

        Raises:
            NetworkValidationError: Data, context or sizes do not fit.
            UnknownNameError: There is no such output or input (a KeyError).
            ValidationError: `steps` is no positive integer.
        """
        return generate(self, steps, start, feedback, context, delta, arguments)


def _recreate(description: dict[str, Any], parameters: np.ndarray) -> Network:
    net = Network.uninitialized(description)
    net.handler.set_from_numpy(net.buffer.parameters, parameters)
    return net

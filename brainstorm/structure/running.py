"""Layers with the memory to run them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from brainstorm.handlers import default_handler
from brainstorm.handlers.base_handler import Handler
from brainstorm.randomness import Seedable
from brainstorm.structure.backpropagation import Backpropagation
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.buffers import BufferManager
from brainstorm.structure.external_data import (
    check_dense,
    check_shapes,
    shapes_of,
    without_time,
)
from brainstorm.structure.layer import Layer
from brainstorm.structure.layout import Hub
from brainstorm.structure.left_out import LeftOut
from brainstorm.structure.modifiers import Modifiers
from brainstorm.structure.passes import Pass, Passes
from brainstorm.structure.stepping import Stepping
from brainstorm.structure.turns import HERE, Turns
from brainstorm.utils import (
    HandlerError,
    NetworkValidationError,
    UnknownNameError,
    choices,
    flatten_features,
    listing,
)


class RunningNetwork(Seedable):
    """What a network is while it runs: layers, their memory, data and passes.

    It knows nothing of how networks are made, described, saved or used to predict.

    Attributes: see `brainstorm.structure.network.Network`.
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
        self.lock: Turns = Turns()
        self.layers = layers
        self.architecture = architecture
        self.handler: Handler = handler
        self.output_name: str | None = None
        self.initializers: dict[str, Any] = {}
        self.modifiers: Modifiers = Modifiers(layers, buffer_manager)
        self.before_next_run: Callable[[], None] | None = None
        self._buffer_manager = buffer_manager
        self.loss_layers: list[str] = [
            name for name, layer in layers.items() if layer.is_loss
        ]
        self._input_shapes: dict[str, tuple[int, ...]] = {}
        self._without_time: frozenset[str] = frozenset()
        views = buffer_manager.views.__dict__
        self._run_order = [(layer, views[name]) for name, layer in layers.items()]
        self._passes = passes(layers, buffer_manager)
        self._stepping = Stepping(layers, buffer_manager)
        self._left_out = LeftOut(layers, buffer_manager)
        self._give({})
        self.backpropagation: Backpropagation = Backpropagation(
            layers, buffer_manager, self._passes, self._stepping
        )
        self._plan_training()
        self.set_handler(handler)

    weight_modifiers: Any = property(
        lambda self: self.modifiers.of_weights,
        lambda self, modifiers: setattr(self.modifiers, "of_weights", modifiers),
        doc="Lists of modifiers of the parameters, by layer and parameter.",
    )
    gradient_modifiers: Any = property(
        lambda self: self.modifiers.of_gradients,
        lambda self, modifiers: setattr(self.modifiers, "of_gradients", modifiers),
        doc="Lists of modifiers of the gradients, by layer and parameter.",
    )

    def _plan_training(self) -> None:
        """Take note of which parameters are trained."""
        self.backpropagation.plan()
        self.modifiers.plan()
        self.trained_slices: list[slice] = self.modifiers.trained_slices

    # -- looking inside ------------------------------------------------------

    @property
    def buffer(self) -> BufferView:
        """All buffers, in the handler's memory; `get` gives copies."""
        return self._buffer_manager.views

    @property
    def parameter_hub(self) -> Hub:
        """Where the parameters lie in the flat array, and their gradients likewise."""
        return self._buffer_manager.hubs[0]

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
            layer, _, name = buffer_path.partition(".internals.")
            if layer in self.layers and name in self.layers[layer].computed:
                return self.layers[layer].compute(name, self.buffer[layer])
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
            name: self.handler.get_numpy_copy(views.__dict__[name].outputs.loss).item()
            for name in self.loss_layers
        }
        # Checked afterwards, as it takes less time than to have the lock meanwhile.
        self.lock.check()
        total = sum(losses.values(), 0.0)
        if len(losses) < 2:
            return {"total_loss": total}
        return {**losses, "total_loss": total}

    # -- memory and data -----------------------------------------------------

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
                self._left_out.forget()
                self._buffer_manager.set_handler(new_handler)
            self.handler = new_handler
            for layer in self.layers.values():
                layer.set_handler(new_handler)
            self._resized()

    def provide_external_data(
        self, data: Mapping[str, Any], all_inputs: bool = True
    ) -> None:
        """Copy data to the outputs of the Input layer, resizing to fit it.

        Args:
            data: Arrays ``(T, B, ...)`` by the names of the inputs; for inputs
                without time ``(1, B, ...)`` or ``(B, ...)``. More than the network has
                inputs are fine: what it does not know is left out.
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
            self.backpropagation.can_complete = False
            if self._left_out.layers:
                self._left_out.note_data()
            structures = self.layers["Input"].out_shapes
            shapes = shapes_of(data)
            if len(shapes) > len(structures):
                data = {name: data[name] for name in data if name in structures}
                shapes = {name: shapes[name] for name in data}
            if shapes != self._input_shapes:
                for name, array in data.items():
                    check_dense(name, array)
                single = without_time(structures, shapes)
                stripped = {n: s[n in single :] for n, s in shapes.items()}
                sizes = check_shapes(structures, stripped, all_inputs)
                self._left_out.forget()
                self._buffer_manager.resize(
                    sizes.get("T", self.time_size), sizes.get("B", self.batch_size)
                )
                self._resized()
                self._input_shapes, self._without_time = shapes, single
            elif all_inputs and len(shapes) < len(structures):
                check_shapes(structures, shapes, all_inputs)
            targets = self._buffer_manager.views.Input.outputs.__dict__
            for name, array in data.items():
                if name in self._without_time:
                    array = array[0]
                self._provide(name, targets[name], array)

    def _announce_run(self) -> None:
        announce, self.before_next_run = self.before_next_run, None
        self.backpropagation.show()
        if announce is not None:
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
        self._input_shapes = {}
        self.backpropagation.forget_memory()

    # -- passes --------------------------------------------------------------

    def forward_pass(
        self,
        training_pass: bool = False,
        context: Mapping[str, Any] | None = None,
        only: Collection[str] | None = None,
        forced: Mapping[str, Any] | None = None,
        arguments: Mapping[str, Any] | None = None,
        keeps_internals: bool = True,
    ) -> None:
        """Run the layers on the data given by `provide_external_data`.

        Args:
            training_pass: Whether this belongs to training; some layers, such as
                Dropout, then behave differently.
            context: State to continue from, as returned by `get_context`: it is
                taken as that of the step before the first. Zeros otherwise.
            only: Names of the layers to run. All by default.
            forced: What to feed back instead of the outputs of the step before: arrays
                (T, B, ...) by inputs that get feedback, such as ``'layer.input'``, or
                ``'layer'`` for the default one. Row t is what step t sees.
            arguments: What layers that read arguments are given, by name. None of those
                of passes before is kept.
            keeps_internals: With False, layers need not fill internals that only
                backward passes need, which takes memory and time. Where somebody reads
                them by `get` or `buffer`, or a backward pass follows, they are computed
                then, and kept by all passes from then on.

        Raises:
            UnknownNameError: An input gets no feedback, or no layer reads an argument
                of this name (a KeyError).
            NetworkValidationError: The context or what is forced do not fit.
        """
        lock = self.lock
        with lock.steps:
            if lock.has_displaced:
                lock.check()
            if self.before_next_run is not None:
                self._announce_run()
            self.backpropagation.can_complete = False
            if context is not None:
                self._buffer_manager.apply_context(context)
            if arguments is not None or self._given:
                self._give({} if arguments is None else arguments)
            stepping = self._stepping
            if forced is not None or stepping.forced:
                stepping.force({} if forced is None else forced)
            chosen = None if only is None else frozenset(only)
            left_out = self._left_out
            keeps = keeps_internals or left_out.is_wanted
            if left_out.layers or not keeps:
                left_out.begin(keeps, chosen)
            kind = bool(training_pass), context is None, chosen, stepping.forced, keeps
            self._passes.run(("forward", *kind), self._make_forward_pass)
            if left_out.layers:
                left_out.end()
            self.backpropagation.note_forward(kind[0], kind[1], chosen)

    def _give(self, arguments: Mapping[str, Any]) -> None:
        """Let layers have the arguments that they read."""
        if not isinstance(arguments, Mapping):
            raise NetworkValidationError(
                f"arguments: expected a dict, got {arguments!r}"
            )
        readers = [layer for layer in self.layers.values() if layer.reads_arguments]
        read = {name for layer in readers for name in layer.reads_arguments}
        unknown = [name for name in arguments if name not in read]
        if unknown:
            raise UnknownNameError(
                f"arguments: no layer of the network reads {listing(unknown)};"
                f" {choices(unknown[0], sorted(read))}"
            )
        for layer in readers:
            names = [name for name in layer.reads_arguments if name in arguments]
            layer.arguments = MappingProxyType({n: arguments[n] for n in names})
        self._given = bool(arguments)

    def _make_forward_pass(
        self,
        this: Pass,
        training_pass: bool,
        begins: bool,
        only: Any,
        forced: Any = None,
        keeps: bool = True,
    ) -> None:
        self._left_out.tell(keeps)
        if begins:
            self._buffer_manager.clear_context(this.handler)
        self.backpropagation.note_beginning(begins)
        order: Iterable[tuple[Layer, Any]] = self._run_order
        if only is not None:
            order = [(la, buffers) for la, buffers in order if la.name in only]
        order = self._stepping.forward(order, this.handler)
        this.run(order, "forward_pass", training_pass)

    def advance(
        self, feedback: tuple[tuple[str, str], ...], delta: bool, only: frozenset[str]
    ) -> None:
        """Run one step and get the next one ready, see `generating.generate`.

        The buffers have one time step. It goes on from the state of the step before,
        as `carry_on` leaves it, or that of `BufferManager.apply_context`.

        Args:
            feedback: Pairs of a path of an output, and the input that is to get it.
            delta: Whether to add the output to the input.
            only: Names of the layers to run.
        """
        with self.lock.steps:
            self.backpropagation.can_complete = False
            if self._left_out.layers:
                self._left_out.begin(True, only)
            self._passes.run(("advance", feedback, delta, only), self._make_step)
            if self._left_out.layers:
                self._left_out.end()
            self.backpropagation.note_forward(False, False, only)

    def _make_step(self, this: Pass, feedback: Any, delta: bool, only: Any) -> None:
        self._make_forward_pass(this, False, False, only)
        h = this.handler
        for output, name in feedback:
            source = flatten_features(self.buffer[output][:1])
            target = flatten_features(self.buffer.Input.outputs[name][:1])
            if delta:
                h.add_tt(source, target, target)
            else:
                h.copy_to(source, target)
        self._buffer_manager.carry_on(h)

    def go_on_from(self, context: Mapping[str, Any]) -> None:
        """Let the next `advance` go on from a state."""
        self._buffer_manager.apply_context(context)

    def backward_pass(self, all_deltas: bool = True) -> None:
        """Compute all deltas and gradients, after a forward pass.

        Gradient modifiers are applied at the end.

        Args:
            all_deltas: With False, deltas on which no gradient depends, such as
                those that reach the Input layer, may be left out, and all deltas may
                share memory, so that few are left at the end. Those that are not there
                are computed when they are read before the next pass, and are NaN
                after it. Steppers do this, as long as nobody has read deltas.
        """
        lock = self.lock
        with lock.steps:
            if lock.has_displaced:
                lock.check()
            if self._left_out.layers:
                self._left_out.complete()
            self.backpropagation.run(all_deltas)
            if self.modifiers.of_gradients:
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
        self.modifiers.apply_to_gradients()

    def start_weight_modifiers(self) -> None:
        """Let the weight modifiers look at the weights before a training."""
        self.modifiers.start()

    def apply_weight_modifiers(self) -> None:
        """Run the weight modifiers; the trainer does so after each update."""
        self.modifiers.apply_to_weights()

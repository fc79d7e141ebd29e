"""Checks that a layer keeps its promises, for the layers that you write.

>>> from brainstorm import layers
>>> check_layer(layers.FullyConnected(4, activation='tanh'))

says nothing if all is well, and otherwise raises a :class:`LayerCheckError` that
tells which check failed where.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from brainstorm._layer_bench import (
    Arrays,
    Bench,
    Data,
    Difference,
    Specification,
    check_names,
    tolerance_of,
)
from brainstorm.describable import get_description
from brainstorm.handlers import Handler, NumpyHandler
from brainstorm.initializers import evaluate_initializer
from brainstorm.layers.base_layer import Layer
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.utils import BrainstormError, listing

__all__ = ["LayerCheckError", "check_layer"]

STEP = 1e-6
NUMERIC_TOLERANCES = (1e-5, 1e-3)  # absolute, relative


class LayerCheckError(BrainstormError, AssertionError):
    """A layer failed one of the checks of `check_layer`.

    Attributes:
        check (str): Which one.
        layer (str): Type and name of the layer.
        buffer (str | None): The buffer that differs most, e.g. ``'gradients.W'``;
            None, as all that follow, if no buffer is to blame.
        index (tuple | None): Where in it.
        expected, got (float | None): The values there.
    """

    check: str
    layer: str
    buffer: str | None
    index: tuple[int, ...] | None
    expected: float | None
    got: float | None

    def __init__(
        self,
        check: str,
        layer: str,
        problem: str,
        buffer: str | None = None,
        index: tuple[int, ...] | None = None,
        expected: float | None = None,
        got: float | None = None,
    ):
        super().__init__(f"check {check!r} of {layer}: {problem}")
        self.check, self.layer, self.buffer = check, layer, buffer
        self.index, self.expected, self.got = index, expected, got


def check_layer(
    layer: ConstructionWrapper | Callable[..., ConstructionWrapper] | type[Layer],
    in_shapes: Mapping[str, Sequence[str | int]] | None = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    time_size: int = 3,
    batch_size: int = 2,
    handler: Handler | None = None,
    inputs: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Any] | None = None,
    delta_factor: float = 1.0,
    seed: int = 0,
) -> None:
    """Check a layer on its own, for example one that you wrote.

    ============== ===========================================================
    check          what has to hold
    ============== ===========================================================
    runs           passes raise no errors
    describable    made again from its architecture in JSON, it is the same
    unmodified     passes leave alone what they only read: inputs, parameters
                   (but those without gradients in training passes), outputs
                   and output deltas
    stale memory   it does not matter what outputs, internals and (with
                   `honours_fresh`) backward-only internals held before
    input deltas   they are the derivatives by the inputs
    gradients      they are the derivatives by the parameters
    adds           both are added to what is there, and nothing is added for
                   inputs and parameters that are declared to get none
    fresh          with `honours_fresh`, they overwrite what `fresh` names
    unwanted       without the deltas of some inputs, the rest is the same
    context        one pass over two sequences joined in time equals two
                   passes with the context handed on (but with
                   `needs_whole_sequences`); so do steps, if `can_be_stepped`
    resize         passes of another size in between change nothing
    joined         inputs and outputs may lie between features of others
    float32        it computes the same in float32
    handler        it computes the same on `handler`
    ============== ===========================================================

    Derivatives are those of a random weighting of the outputs, by central
    differences in float64 (step 1e-6, absolute tolerance 1e-5, relative 1e-3),
    with and without a context, for training passes and, where these compute
    something else, for evaluation passes. A layer that takes deltas from no output
    at all, such as `Loss`, has to compute the derivatives of the outputs' sum.
    The other checks run on `handler`, if there is one.

    At a kink differences tell nothing. Values are drawn between 0.05 and 1, and
    between -1 and -0.05, so that no input, parameter or output delta is near the
    usual kink at zero. A layer that has kinks elsewhere, or at zero of some sum
    that it computes, needs `inputs` and `parameters` that stay clear of them: for
    example inputs above zero, and weights whose rows have one sign each.

    A layer with `has_surrogate_gradients` is told by its attribute `smooth` to compute
    what its gradients are derivatives of.

    Random layers are checked with the same random numbers each time. Training
    passes on different handlers are not comparable then; evaluation passes are.

    Args:
        layer: A layer, such as ``Foo(3)``, or what makes one: a construction
            function ``Foo`` or a class ``FooLayerImpl``. Its wiring is ignored.
        in_shapes: Shape of each input as for an `Input` layer, for example
            ``{'default': ('T', 'B', 5)}``. By default made from `expected_inputs`,
            with 3 for all sizes that are free.
        kwargs: Arguments for the function or the class.
        time_size: Number of time steps.
        batch_size: Number of sequences.
        handler: Where else the layer has to work.
        inputs: Values for inputs by name, if random ones do not do: whatever is
            allowed as an initializer, such as an array or a function
            ``shape -> array``.
        parameters: Values for parameters by name, likewise.
        delta_factor: For layers that scale deltas: how many times the derivative
            the input deltas are.
        seed: Seed of all random values.

    Raises:
        LayerCheckError: A check failed.
        LayerValidationError: The layer refuses its arguments or `in_shapes`.
        ValidationError: An argument of `check_layer` does not fit.
    """
    sizes, seeds = (time_size, batch_size), np.random.RandomState(seed)
    specification = Specification.of(layer, kwargs)
    in_shapes = specification.default_shapes() if in_shapes is None else in_shapes
    shapes = {name: tuple(shape) for name, shape in in_shapes.items()}
    battery = _Battery(specification, shapes, handler, delta_factor, seeds)
    battery.provide(sizes, inputs or {}, parameters or {})
    battery.run()


class _Battery:
    """All checks of one layer.

    Attributes:
        reference, subject (Bench): The layer in float64, and where it is checked.
        data, other (Data): Two draws of the inputs.
        parameters, deltas (dict): Values of the parameters and of the output deltas.
        weights (dict): Weights of the outputs in the sum that is derived.
        is_random (bool): Whether training passes draw random numbers.
        modes, contexts (tuple): Values of `training_pass`, and contexts, to check.
    """

    def __init__(
        self,
        specification: Specification,
        in_shapes: dict[str, tuple[str | int, ...]],
        handler: Handler | None,
        delta_factor: float,
        rnd: np.random.RandomState,
    ):
        self.specification = specification
        self.in_shapes = in_shapes
        self.handler = handler
        self.delta_factor = delta_factor
        self.rnd = rnd
        self.check = "runs"
        self.is_random = False
        self.architecture = specification.architecture(in_shapes)
        self.reference = self.subject = self.bench(NumpyHandler(np.float64))
        if handler is not None:
            self.subject = self.bench(handler)
        self.layer = layer = self.reference.layer
        self.inputs_with_deltas = [
            n for n in layer.in_shapes if n not in layer.computes_no_input_deltas_for
        ]
        self.without_slopes = {
            *(f"input_deltas.{n}" for n in layer.computes_no_input_deltas_for),
            *(f"gradients.{n}" for n in layer.computes_no_gradients_for),
        }

    def bench(
        self, handler: Handler, architecture: Mapping[str, Any] | None = None
    ) -> Bench:
        architecture = architecture or self.architecture
        bench = Bench(self.specification.name, architecture, handler, self)
        if self.is_random:
            bench.random_state = handler.get_random_state()
        return bench

    def provide(
        self,
        sizes: tuple[int, int],
        inputs: Mapping[str, Any],
        parameters: Mapping[str, Any],
    ) -> None:
        layer = self.layer
        check_names("input", inputs, layer.in_shapes)
        check_names("parameter", parameters, layer.parameter_shapes)
        shapes = {n: s.get_shape(*sizes) for n, s in layer.in_shapes.items()}
        self.data = Data(sizes, self.draw(shapes, inputs))
        self.other = Data(sizes, self.draw(shapes, inputs))
        shapes = {n: s.get_shape(*sizes) for n, s in layer.parameter_shapes.items()}
        self.parameters = self.draw(shapes, parameters)
        outputs = layer.out_shapes.items()
        shapes = {n: layer.like(s).get_shape(*sizes) for n, s in outputs}
        self.deltas = self.draw(shapes)
        ignored = set(layer.takes_no_output_deltas_from)
        self.weights = {n: d for n, d in self.deltas.items() if n not in ignored}
        if not self.weights:
            self.weights = {n: np.ones(shape) for n, shape in shapes.items()}

    def draw(
        self, shapes: Mapping[str, tuple], chosen: Mapping[str, Any] | None = None
    ) -> Arrays:
        """Values by name: the chosen ones, else random ones that are not near zero."""
        values = {}
        for name, shape in shapes.items():
            if chosen and name in chosen:
                seed = self.rnd.randint(10**9)
                values[name] = evaluate_initializer(chosen[name], shape, seed=seed)
            else:
                signs = self.rnd.choice([-1.0, 1.0], shape)
                values[name] = signs * self.rnd.uniform(0.05, 1.0, shape)
        return values

    def run(self) -> None:
        checks = {
            "runs": self.find_situations,
            "describable": self.check_describable,
            "unmodified": self.check_unmodified,
            "stale memory": self.check_stale_memory,
            "input deltas": lambda: self.check_slopes(
                "input_deltas", self.data.inputs, self.delta_factor
            ),
            "gradients": lambda: self.check_slopes("gradients", self.parameters, 1.0),
            "adds": self.check_adds,
            "fresh": self.check_fresh,
            "unwanted": self.check_unwanted,
            "context": self.check_context,
            "resize": self.check_resize,
            "joined": self.check_joined,
            "float32": lambda: self.check_handler(NumpyHandler(np.float32)),
            "handler": lambda: self.check_handler(self.handler),
        }
        for self.check, function in checks.items():
            try:
                function()
            except LayerCheckError:
                raise
            except Exception as error:
                self.fail(f"{type(error).__name__}: {error}", cause=error)

    # -- what there is to distinguish ----------------------------------------

    def find_situations(self) -> None:
        """Find out whether the layer is random, and has several modes or contexts."""
        forward, handler = self.reference.forward, self.reference.handler
        random_state = handler.get_random_state()
        differ = Difference.find(forward(True), forward(False))
        self.modes = (True, False) if differ else (True,)
        self.is_random = handler.get_random_state() != random_state
        if self.is_random:
            for bench in (self.reference, self.subject):
                bench.random_state = bench.handler.get_random_state()
        forward(False, data=self.other)
        context = self.reference.manager.get_context()
        self.contexts = (None, context) if context else (None,)

    def situations(self) -> Iterator[tuple[str, bool, Arrays | None]]:
        """All modes with all contexts, and a note about each."""
        for training in self.modes:
            for context in self.contexts:
                note = "" if training else ", evaluation pass"
                note += "" if context is None else ", with a context"
                yield note, training, context

    def after_forward_passes(self) -> Iterator[tuple[str, Arrays]]:
        """A note about each situation, and the slopes in it, behind forward passes."""
        for note, training, context in self.situations():
            self.subject.forward(training, context)
            yield note, self.subject.backward()

    # -- the checks ----------------------------------------------------------

    def check_describable(self) -> None:
        description = json.loads(json.dumps(get_description(self.architecture)))
        # By now the name may mean another class.
        name = self.specification.name
        description[name]["@type"] = self.specification.layer_type
        bench = self.bench(self.subject.handler, description)
        for kind in ("out_shapes", "parameter_shapes", "internal_shapes"):
            before, after = getattr(self.layer, kind), getattr(bench.layer, kind)
            if list(before.items()) != list(after.items()):
                self.fail(f"{kind} were {before}, but are {after} afterwards")
        training = not self.is_random
        self.compare(self.subject.forward(training), bench.forward(training))

    def check_unmodified(self) -> None:
        bench, given = self.subject, ("inputs", "parameters")
        results = (*given, "outputs", "output_deltas")
        for note, training, context in self.situations():
            bench.prepare_forward(context, garbage=0.0)
            before = bench.read(*given)
            for name in self.layer.computes_no_gradients_for if training else ():
                del before[f"parameters.{name}"]
            bench.layer.forward_pass(bench.view, training)
            self.compare(before, bench.read(*given), 0.0, f"{note}, forward")
            bench.prepare_backward()
            before = bench.read(*results)
            bench.layer.fresh = bench.layer.unwanted = frozenset()
            bench.layer.backward_pass(bench.view)
            self.compare(before, bench.read(*results), 0.0, f"{note}, backward")

    def check_stale_memory(self) -> None:
        for note, training, context in self.situations():
            run = functools.partial(self.subject.both_passes, training, context)
            self.compare(run(), run(np.nan), note=note)

    def check_slopes(self, category: str, variables: Arrays, factor: float) -> None:
        self.reference.layer.smooth = self.layer.has_surrogate_gradients
        for note, training, context in self.situations():
            got = self.reference.both_passes(training, context)
            expected = {
                f"{category}.{name}": factor
                * self.differences(values, training, context)
                for name, values in variables.items()
                if f"{category}.{name}" not in self.without_slopes
            }
            self.compare(expected, got, NUMERIC_TOLERANCES, note)
        self.reference.layer.smooth = False

    def differences(
        self, values: np.ndarray, training: bool, context: Arrays | None
    ) -> np.ndarray:
        """Central differences of the weighted outputs by each of `values`."""
        slopes = np.empty(values.shape)
        for index in np.ndindex(values.shape):
            centre, sums = values[index], []
            for shifted in (centre + STEP, centre - STEP):
                values[index] = shifted
                out = self.reference.forward(training, context)
                weighted = (w * out[f"outputs.{n}"] for n, w in self.weights.items())
                sums.append(sum(part.sum() for part in weighted))
            values[index] = centre
            slopes[index] = (sums[0] - sums[1]) / (2 * STEP)
        return slopes

    def check_adds(self) -> None:
        for note, slopes in self.after_forward_passes():
            start = self.draw({path: array.shape for path, array in slopes.items()})
            expected = {
                path: start[path] + (0 if path in self.without_slopes else array)
                for path, array in slopes.items()
            }
            self.compare(expected, self.subject.backward(start), note=note)

    def check_fresh(self) -> None:
        if not self.layer.honours_fresh:
            return
        inputs = self.inputs_with_deltas
        choices = [[name] for name in inputs] + [["gradients"], ["gradients", *inputs]]
        for note, slopes in self.after_forward_passes():
            for fresh in choices:
                start = {
                    path: np.full(array.shape, np.nan)
                    for path, array in slopes.items()
                    if path not in self.without_slopes
                    and path.removeprefix("input_deltas.").split(".")[0] in fresh
                }
                got = self.subject.backward(start, fresh=fresh)
                self.compare(slopes, got, note=f"{note}, fresh: {listing(fresh)}")

    def check_unwanted(self) -> None:
        for note, slopes in self.after_forward_passes():
            for name in self.inputs_with_deltas:
                path = f"input_deltas.{name}"
                expected = {p: array for p, array in slopes.items() if p != path}
                got = self.subject.backward(unwanted=[name])
                self.compare(expected, got, note=f"{note}, unwanted: {name!r}")

    def check_context(self) -> None:
        if len(self.contexts) == 1 or self.layer.needs_whole_sequences:
            return
        forward, both = self.subject.forward, self.one_after_the_other()
        timed = [n for n, s in self.layer.out_shapes.items() if s.buffer_type == 2]
        for context in self.contexts:
            whole = forward(False, context, data=both)
            parts = [forward(False, context)]
            handed_on = self.subject.manager.get_context()
            parts.append(forward(False, handed_on, data=self.other))
            expected = {
                f"outputs.{n}": np.concatenate([one[f"outputs.{n}"] for one in parts])
                for n in timed
            }
            note = "" if context is None else ", with a context"
            self.compare(expected, whole, note=note)
            if self.layer.can_be_stepped and not self.is_random:
                whole = self.subject.both_passes(True, context)
                steps = self.subject.both_passes_in_steps(context)
                self.compare(whole, steps, note=f"{note}, in single steps")

    def one_after_the_other(self) -> Data:
        """Both draws, joined in time."""
        time_size, batch_size = self.data.sizes
        inputs = {}
        for name, values in self.data.inputs.items():
            timed = self.layer.in_shapes[name].buffer_type == 2
            following = self.other.inputs[name]
            inputs[name] = np.concatenate([values, following]) if timed else values
        return Data((2 * time_size, batch_size), inputs)

    def check_resize(self) -> None:
        training, longer = not self.is_random, self.one_after_the_other()
        new = self.bench(self.subject.handler)
        before = self.subject.both_passes(training)
        expected, got = (
            bench.forward(training, data=longer) for bench in (new, self.subject)
        )
        self.compare(expected, got, note=", after a shorter pass")
        after = self.subject.both_passes(training)
        self.compare(before, after, note=", after a longer pass")

    def check_joined(self) -> None:
        outputs = self.layer.out_shapes
        architecture = self.specification.architecture(self.in_shapes, outputs)
        bench = self.bench(self.subject.handler, architecture)
        bench.random_state = self.subject.random_state
        for training in self.modes:
            alone = self.subject.both_passes(training)
            note = "" if training else ", evaluation pass"
            # A copy in place of a view, made at a first pass, is stale afterwards.
            bench.forward(training, data=self.other)
            bench.backward(factor=2.0)
            self.compare(alone, bench.both_passes(training), note=note)

    def check_handler(self, handler: Handler | None) -> None:
        if handler is None:
            return
        bench = self.bench(handler)
        for note, training, context in self.situations():
            if not (self.is_random and training):
                expected = self.reference.both_passes(training, context)
                got = bench.both_passes(training, context)
                self.compare(expected, got, 4 * tolerance_of(handler), note)

    # -- reporting -----------------------------------------------------------

    def compare(
        self,
        expected: Arrays,
        got: Arrays,
        tolerance: float | tuple[float, float] | None = None,
        note: str = "",
    ) -> None:
        """Fail if what is expected differs from what is got under the same path.

        Args:
            expected: Arrays by path.
            got: Arrays by path; there may be more of them.
            tolerance: Absolute and relative one, or one number for both.
            note: For the error.
        """
        if tolerance is None:
            tolerance = tolerance_of(self.subject.handler)
        if not isinstance(tolerance, tuple):
            tolerance = (tolerance, tolerance)
        worst = Difference.find(expected, got, *tolerance)
        if worst is not None:
            self.fail(worst.text(note), *worst[:4])

    def fail(
        self, problem: str, *where: Any, cause: BaseException | None = None
    ) -> None:
        layer = str(self.specification)
        raise LayerCheckError(self.check, layer, problem, *where) from cause

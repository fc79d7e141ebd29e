"""Closed loops: a network goes on with a series by what it predicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from brainstorm.checks import checked_integer
from brainstorm.structure import prediction
from brainstorm.structure.running import RunningNetwork
from brainstorm.utils import NetworkValidationError, UnknownNameError, choices, listing


def generate(
    net: RunningNetwork,
    steps: int,
    start: Any,
    feedback: Mapping[str, str] | None,
    context: Mapping[str, Any] | None,
    delta: bool,
    arguments: Mapping[str, Any] | None = None,
) -> np.ndarray | dict[str, np.ndarray]:
    """Go on with a series, see `Network.generate`."""
    steps = checked_integer(steps, "steps", 1)
    with net.lock:
        pairs, needed, layers = _loop(net, feedback)
        data, _ = prediction.arrange(
            net,
            {n: v for n, v in prediction.named(start, needed).items() if n in needed},
        )
        structures, fed = net.layers["Input"].out_shapes, {name for _, name in pairs}
        driven = {
            name: data.pop(name)
            for name in needed
            if name not in fed and structures[name].buffer_type == 2
        }
        time_size, _ = prediction.sizes_of(net, data)
        for name, values in driven.items():
            if len(values) != time_size + steps - 1:
                raise NetworkValidationError(
                    f"expected {time_size + steps - 1} steps of the input {name!r},"
                    " which is not fed back, one for each step that the network runs;"
                    f" got {len(values)}"
                )
        prediction.provide(
            net, {**data, **{n: v[:time_size] for n, v in driven.items()}}
        )
        net.forward_pass(
            context=context, only=layers, arguments=arguments, keeps_internals=False
        )
        made = {}
        for output, name in pairs:
            first = net.get(output)[time_size - 1]
            if delta:
                first += np.reshape(data[name][-1], first.shape)
            made[output] = np.empty((steps, *first.shape), first.dtype)
            made[output][0] = first
        if steps > 1:
            static = {n: v for n, v in data.items() if n not in fed}
            _run(net, time_size, made, pairs, static, driven, delta, layers)
    return made if len(made) > 1 else made[pairs[0][0]]


def _run(
    net: RunningNetwork,
    time_size: int,
    made: dict[str, np.ndarray],
    pairs: tuple[tuple[str, str], ...],
    static: Mapping[str, Any],
    driven: Mapping[str, Any],
    delta: bool,
    layers: frozenset[str],
) -> None:
    """Make all steps but the first, one after the other."""
    handler, context = net.handler, net.get_context()
    inputs = net.buffer.Input.outputs
    first = {n: made[o][:1].reshape(1, *inputs[n].shape[1:]) for o, n in pairs}
    first.update((n, v[time_size : time_size + 1]) for n, v in driven.items())
    prediction.provide(net, {**static, **first})
    net.go_on_from(context)
    results = [(made[output], inputs[name]) for output, name in pairs]
    drives = [(inputs[name], values) for name, values in driven.items()]
    for step in range(1, len(results[0][0])):
        now = time_size - 1 + step
        for target, values in drives:
            handler.set_from_numpy(target, values[now : now + 1])
        net.advance(pairs, delta, layers)
        for result, source in results:
            result[step] = handler.get_numpy_copy(source).reshape(result.shape[1:])


def _loop(
    net: RunningNetwork, feedback: Mapping[str, str] | None
) -> tuple[tuple[tuple[str, str], ...], list[str], frozenset[str]]:
    """Pairs of output and input, all inputs that are needed, and the layers to run."""
    if feedback is None:
        output = prediction.find_output(net)
        needed, _ = prediction.inputs_of(net, output)
        if len(needed) != 1:
            raise NetworkValidationError(
                f"the output depends on the inputs {listing(needed)}: say by feedback"
                f" which one is given it, as in {{{output!r}: {needed[0]!r}}}"
            )
        feedback = {output: needed[0]}
    if not isinstance(feedback, Mapping) or not feedback:
        raise NetworkValidationError(
            "feedback: expected a dict of names of inputs by paths of outputs, got"
            f" {feedback!r}"
        )
    structures, inputs = net.layers["Input"].out_shapes, set()
    layers: set[str] = set()
    for output, name in feedback.items():
        name_, _, source = prediction.find_output(net, output).split(".")
        given = net.layers[name_].out_shapes[source]
        if name not in structures:
            raise UnknownNameError(
                f"feedback: the network has no input {name!r};"
                f" {choices(name, structures)}"
            )
        wanted = structures[name]
        if given.buffer_type != 2 or given.feature_size != wanted.feature_size:
            raise NetworkValidationError(
                f"feedback: expected an output of the size of the input {name!r},"
                f" {wanted.shape}, but that of {output!r} is {given.shape}"
            )
        some, above = prediction.inputs_of(net, output)
        inputs |= {*some, name}
        layers |= above
    whole = prediction.needing_whole_sequences(net, layers)
    if whole:
        raise NetworkValidationError(
            f"expected layers that can go on step by step, but {listing(whole)} needs"
            " whole sequences"
        )
    needed = [name for name in structures if name in inputs]
    return tuple(feedback.items()), needed, frozenset(layers)

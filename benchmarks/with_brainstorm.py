"""Works done by this library."""

from __future__ import annotations

from typing import Any

import numpy as np

import brainstorm as bs
from benchmarks.contestants import GRAPHS
from benchmarks.work import Run, Work


def make_runs(
    work: Work, handler: str, variant: str, precision: str = "f32"
) -> dict[str, Run]:
    """What trains and what evaluates: gets a number of steps, returns their losses."""
    net = make_network(work, handler, variant, precision)
    batch = make_batch(work)
    stepper = make_stepper(work)

    def train(steps: int) -> list[float]:
        stepper.start(net)
        losses = []
        for _ in range(steps):
            net.provide_external_data(batch)
            stepper.run()
            net.apply_weight_modifiers()
            losses.append(net.get_loss_values()["total_loss"])
        return losses

    def evaluate(steps: int) -> list[float]:
        losses = []
        for _ in range(steps):
            net.provide_external_data(batch)
            net.forward_pass(training_pass=False, keeps_internals=False)
            losses.append(net.get_loss_values()["total_loss"])
        return losses

    return {"evaluation": evaluate, "training": train}


def make_batch(work: Work) -> dict[str, np.ndarray]:
    return {
        "default": work.data.astype(np.float32, copy=False),
        "targets": work.targets.astype(np.float32),
    }


def make_stepper(work: Work) -> bs.training.TrainingStepper:
    steppers: dict[str, Any] = {
        "momentum": lambda rate: bs.training.MomentumStepper(
            rate, momentum=0.9, scale_learning_rate=False
        ),
        "adam": bs.training.AdamStepper,
    }
    return steppers[work.optimizer](work.learning_rate)


def make_network(
    work: Work, handler: str, variant: str, precision: str = "f32"
) -> bs.Network:
    inp, out = bs.tools.get_in_out_layers(
        "classification", work.shape[2:], work.classes
    )
    net = bs.Network.from_layer(work.layers(inp, variant) >> out)
    options: dict[str, Any] = {} if precision == "f32" else {"math_mode": precision}
    if GRAPHS in variant:
        options["graphs"] = True
    net.set_handler(getattr(bs.handlers, handler)(seed=1, **options))
    net.initialize(0)
    for layer, weights in work.weights.items():
        for name, values in weights.items():
            net.handler.set_from_numpy(net.buffer[layer].parameters[name], values)
    limit = bs.value_modifiers.ConstrainL2Norm(1.0)
    net.set_weight_modifiers({layer: {"W": limit} for layer in work.limited})
    return net


def make_product(handler: str, size: int) -> dict[str, Run]:
    """What multiplies two square matrices, and returns one of the numbers."""
    computing = getattr(bs.handlers, handler)()
    a, b, out = (computing.ones((size, size)) for _ in range(3))

    def run(steps: int) -> list[float]:
        for _ in range(steps):
            computing.dot_mm(a, b, out)
        return computing.get_numpy_copy(out[0])[:1].tolist()

    return {"product": run}

"""20-32-3 perceptron, batch of 16: provide data, momentum update, read the loss."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

import brainstorm as bs
from benchmarks.common import REFERENCE, Steps, handlers

LOSS_TOLERANCE = 1e-4

BATCH, INPUTS, HIDDEN, CLASSES = 16, 20, 32, 3
LEARNING_RATE, MOMENTUM = 0.01, 0.9


def steps() -> Steps:
    rnd = np.random.RandomState(1)
    data = rnd.randn(BATCH, INPUTS).astype(np.float32)
    targets = rnd.randint(CLASSES, size=BATCH)
    weights = {
        "Hidden": (0.3 * rnd.randn(HIDDEN, INPUTS)).astype(np.float32),
        "Output_projection": (0.3 * rnd.randn(CLASSES, HIDDEN)).astype(np.float32),
    }
    return {
        REFERENCE: torch_step(data, targets, weights),
        **{
            name: brainstorm_step(handler, data, targets, weights)
            for name, handler in handlers().items()
        },
    }


def brainstorm_step(
    handler: bs.handlers.Handler,
    data: np.ndarray,
    targets: np.ndarray,
    weights: dict[str, np.ndarray],
) -> Callable[[], float]:
    inp, out = bs.tools.get_in_out_layers("classification", INPUTS, CLASSES)
    net = bs.Network.from_layer(
        inp >> bs.layers.FullyConnected(HIDDEN, name="Hidden") >> out
    )
    net.set_handler(handler)
    net.initialize({name: {"W": w, "bias": 0} for name, w in weights.items()})
    stepper = bs.training.MomentumStepper(
        LEARNING_RATE, MOMENTUM, scale_learning_rate=False
    )
    stepper.start(net)
    batch = {
        "default": data[np.newaxis],
        "targets": targets.reshape(1, BATCH, 1).astype(np.float32),
    }

    def step() -> float:
        net.provide_external_data(batch)
        stepper.run()
        return net.get_loss_values()["total_loss"]

    return step


def torch_step(
    data: np.ndarray, targets: np.ndarray, weights: dict[str, np.ndarray]
) -> Callable[[], float]:
    hidden = torch.nn.Linear(INPUTS, HIDDEN)
    output = torch.nn.Linear(HIDDEN, CLASSES)
    model = torch.nn.Sequential(hidden, torch.nn.ReLU(), output)
    with torch.no_grad():
        for linear, w in zip((hidden, output), weights.values(), strict=True):
            linear.weight.copy_(torch.from_numpy(w))
            linear.bias.zero_()
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM)

    def step() -> float:
        x, t = torch.as_tensor(data), torch.as_tensor(targets)
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x), t)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step

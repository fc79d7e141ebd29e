"""784-1200-1200-10 perceptron, batch of 100: a step of Adam."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

import brainstorm as bs
from benchmarks.common import REFERENCE, Steps, handlers

LOSS_TOLERANCE = 1e-3

BATCH, INPUTS, HIDDEN, CLASSES = 100, 784, 1200, 10
LEARNING_RATE = 1e-4


def steps() -> Steps:
    rnd = np.random.RandomState(1)
    data = rnd.rand(BATCH, INPUTS).astype(np.float32)
    targets = rnd.randint(CLASSES, size=BATCH)
    shapes = {
        "Hidden_1": (HIDDEN, INPUTS),
        "Hidden_2": (HIDDEN, HIDDEN),
        "Output_projection": (CLASSES, HIDDEN),
    }
    weights = {
        name: (rnd.randn(*shape) / np.sqrt(shape[1])).astype(np.float32)
        for name, shape in shapes.items()
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
        inp
        >> bs.layers.FullyConnected(HIDDEN, name="Hidden_1")
        >> bs.layers.FullyConnected(HIDDEN, name="Hidden_2")
        >> out
    )
    net.set_handler(handler)
    net.initialize({name: {"W": w, "bias": 0} for name, w in weights.items()})
    stepper = bs.training.AdamStepper(LEARNING_RATE)
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
    linear = [torch.nn.Linear(w.shape[1], w.shape[0]) for w in weights.values()]
    model = torch.nn.Sequential(
        linear[0], torch.nn.ReLU(), linear[1], torch.nn.ReLU(), linear[2]
    )
    with torch.no_grad():
        for module, w in zip(linear, weights.values(), strict=True):
            module.weight.copy_(torch.from_numpy(w))
            module.bias.zero_()
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)

    def step() -> float:
        x, t = torch.as_tensor(data), torch.as_tensor(targets)
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x), t)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step

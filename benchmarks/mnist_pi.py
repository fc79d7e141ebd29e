"""784-1200-1200-10 perceptron with dropout and limited weights, batch of 100."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

import brainstorm as bs
from benchmarks.common import REFERENCE, Steps, handlers

# Everybody draws other masks.
LOSS_TOLERANCE = 0.3

BATCH, INPUTS, HIDDEN, CLASSES = 100, 784, 1200, 10
DROP_INPUTS, DROP_HIDDEN = 0.2, 0.5
LIMIT = 1.0
LEARNING_RATE, MOMENTUM = 0.01, 0.9


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
    layers = bs.layers
    inp, out = bs.tools.get_in_out_layers("classification", INPUTS, CLASSES)
    net = bs.Network.from_layer(
        inp
        >> layers.Dropout(DROP_INPUTS)
        >> layers.FullyConnected(HIDDEN, name="Hidden_1")
        >> layers.Dropout(DROP_HIDDEN)
        >> layers.FullyConnected(HIDDEN, name="Hidden_2")
        >> layers.Dropout(DROP_HIDDEN)
        >> out
    )
    net.set_handler(handler)
    net.initialize({name: {"W": w, "bias": 0} for name, w in weights.items()})
    constraint = bs.value_modifiers.ConstrainL2Norm(LIMIT)
    net.set_weight_modifiers({"Hidden*": {"W": constraint}})
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
        net.apply_weight_modifiers()
        return net.get_loss_values()["total_loss"]

    return step


def torch_step(
    data: np.ndarray, targets: np.ndarray, weights: dict[str, np.ndarray]
) -> Callable[[], float]:
    linear = [torch.nn.Linear(w.shape[1], w.shape[0]) for w in weights.values()]
    model = torch.nn.Sequential(
        torch.nn.Dropout(DROP_INPUTS),
        *(linear[0], torch.nn.ReLU(), torch.nn.Dropout(DROP_HIDDEN)),
        *(linear[1], torch.nn.ReLU(), torch.nn.Dropout(DROP_HIDDEN)),
        linear[2],
    )
    with torch.no_grad():
        for module, w in zip(linear, weights.values(), strict=True):
            module.weight.copy_(torch.from_numpy(w))
            module.bias.zero_()
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM)

    def step() -> float:
        x, t = torch.as_tensor(data), torch.as_tensor(targets)
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x), t)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for module in linear[:2]:
                norms = module.weight.norm(dim=1, keepdim=True)
                module.weight.div_((norms / LIMIT).clamp_(min=1))
        return loss.item()

    return step

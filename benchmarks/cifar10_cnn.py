"""The manual's CNN on CIFAR-10 shapes, batch of 100: momentum update, read the loss."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

import brainstorm as bs
from benchmarks.common import REFERENCE, Steps, handlers

LOSS_TOLERANCE = 1e-3

BATCH, CLASSES = 100, 10
LEARNING_RATE, MOMENTUM = 0.01, 0.9
CONVOLUTIONS = {"Conv1": (3, 32), "Conv2": (32, 32), "Conv3": (32, 64)}
FULL = {"FC": (3 * 3 * 64, 64), "Output_projection": (64, CLASSES)}


def steps() -> Steps:
    rnd = np.random.RandomState(1)
    data = rnd.rand(BATCH, 32, 32, 3).astype(np.float32)
    targets = rnd.randint(CLASSES, size=BATCH)
    shapes = {name: (f, 5, 5, c) for name, (c, f) in CONVOLUTIONS.items()}
    shapes |= {name: (n, i) for name, (i, n) in FULL.items()}
    weights = {
        name: (rnd.randn(*shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
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
    inp = bs.layers.Input(
        out_shapes={"default": ("T", "B", 32, 32, 3), "targets": ("T", "B", 1)}
    )
    layer = inp
    for name, (_, filters) in CONVOLUTIONS.items():
        layer = (
            layer
            >> bs.layers.Convolution2D(filters, kernel_size=5, padding=2, name=name)
            >> bs.layers.Pooling2D(kernel_size=3, stride=2)
        )
    out = bs.layers.SoftmaxCE(name="Output")
    (
        layer
        >> bs.layers.FullyConnected(64, name="FC")
        >> bs.layers.FullyConnected(CLASSES, "linear", name="Output_projection")
        >> out
    )
    inp - "targets" >> "targets" - out
    net = bs.Network.from_layer(out - "loss" >> bs.layers.Loss())
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
    modules: list[torch.nn.Module] = []
    for channels, filters in CONVOLUTIONS.values():
        modules += [
            torch.nn.Conv2d(channels, filters, 5, padding=2),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(3, 2),
        ]
    modules += [ChannelsLast(), torch.nn.Flatten()]
    modules += [torch.nn.Linear(*FULL["FC"]), torch.nn.ReLU()]
    modules += [torch.nn.Linear(*FULL["Output_projection"])]
    model = torch.nn.Sequential(*modules)
    trained = [m for m in modules if hasattr(m, "weight")]
    with torch.no_grad():
        for module, w in zip(trained, weights.values(), strict=True):
            w = torch.from_numpy(w)
            module.weight.copy_(w.permute(0, 3, 1, 2) if w.ndim == 4 else w)
            module.bias.zero_()
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM)
    images = np.ascontiguousarray(data.transpose(0, 3, 1, 2))

    def step() -> float:
        x, t = torch.as_tensor(images), torch.as_tensor(targets)
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x), t)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


class ChannelsLast(torch.nn.Module):
    """Gives the fully connected layer its inputs in the same order."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 2, 3, 1)

from __future__ import annotations

import math
from typing import Any

from benchmarks.work import Work
from brainstorm.layers import Convolution2D, FullyConnected, Pooling2D

BATCH, CLASSES, HIDDEN = 100, 10, 64
# Width of the images, and shape of the filters
CONVOLUTIONS = {
    "Conv1": (32, (32, 5, 5, 3)),
    "Conv2": (15, (32, 5, 5, 32)),
    "Conv3": (7, (64, 5, 5, 32)),
}
FLATTENED = 3 * 3 * 64


def layers(inp: Any, variant: str) -> Any:
    for name, (_, (filters, *_)) in CONVOLUTIONS.items():
        inp = inp >> Convolution2D(filters, kernel_size=5, padding=2, name=name)
        inp = inp >> Pooling2D(kernel_size=3, stride=2)
    return inp >> FullyConnected(HIDDEN, name="FC")


def model(variant: str) -> Any:
    from torch import nn

    class ChannelsLast(nn.Module):
        """Gives the fully connected layer its inputs in the same order."""

        def forward(self, x):
            return x.permute(0, 2, 3, 1)

    modules = {}
    for name, (_, (filters, *_, channels)) in CONVOLUTIONS.items():
        modules[name] = nn.Conv2d(channels, filters, 5, padding=2)
        modules[f"{name}_rel"] = nn.ReLU()
        modules[f"{name}_pool"] = nn.MaxPool2d(3, 2)
    return {
        **modules,
        "channels_last": ChannelsLast(),
        "flatten": nn.Flatten(),
        "FC": nn.Linear(FLATTENED, HIDDEN),
        "rel": nn.ReLU(),
        "Output_projection": nn.Linear(HIDDEN, CLASSES),
    }


def jax_model() -> Any:
    from jax.nn import relu

    from benchmarks.jax_layers import Convolution, Dense, Function, MaxPool

    modules = {}
    for name in CONVOLUTIONS:
        modules[name] = Convolution()
        modules[f"{name}_pool"] = MaxPool(3, 2)
    return {
        **modules,
        "flatten": Function(lambda x: x.reshape(len(x), -1)),
        "FC": Dense(relu),
        "Output_projection": Dense(),
    }


WORK = Work(
    "the manual's convolutional network on CIFAR-10's shapes, batch of 100",
    shape=(1, BATCH, 32, 32, 3),
    classes=CLASSES,
    parameters={
        **{name: {"W": filters} for name, (_, filters) in CONVOLUTIONS.items()},
        "FC": {"W": (HIDDEN, FLATTENED)},
        "Output_projection": {"W": (CLASSES, HIDDEN)},
    },
    layers=layers,
    model=model,
    jax_model=jax_model,
    products=(
        *(
            BATCH * width * width * math.prod(filters)
            for width, filters in CONVOLUTIONS.values()
        ),
        BATCH * FLATTENED * HIDDEN,
        BATCH * HIDDEN * CLASSES,
    ),
    learning_rate=1e-3,  # larger ones make much of differences in rounding
)

"""LSTM 64-128-64 with softmax at each of 50 steps, batch of 32, momentum update."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

import brainstorm as bs
from benchmarks.common import REFERENCE, Steps, handlers

# PyTorch has no peepholes. Ours start at zero and hardly move in a few updates.
LOSS_TOLERANCE = 1e-3

LEARNING_RATE, MOMENTUM = 1e-3, 0.9


class Work(NamedTuple):
    """Sizes, the batch and the weights: those of the LSTM by gate z, i, f, o."""

    sizes: tuple[int, int, int]
    data: np.ndarray
    targets: np.ndarray
    W: np.ndarray
    R: np.ndarray
    W_out: np.ndarray


def steps() -> Steps:
    return sequence_steps(time=50, batch=32, sizes=(64, 128, 64))


def sequence_steps(time: int, batch: int, sizes: tuple[int, int, int]) -> Steps:
    """Contestants that learn to name a class at each step of a sequence.

    Args:
        time: Number of steps.
        batch: Number of sequences.
        sizes: Numbers of inputs, of memory cells and of classes.
    """
    rnd = np.random.RandomState(1)

    def randn(*shape: int) -> np.ndarray:
        return (rnd.randn(*shape) / np.sqrt(shape[-1])).astype(np.float32)

    inputs, cells, classes = sizes
    work = Work(
        sizes,
        rnd.randn(time, batch, inputs).astype(np.float32),
        rnd.randint(classes, size=(time, batch, 1)),
        randn(4, cells, inputs),
        randn(4, cells, cells),
        randn(classes, cells),
    )
    contestants = {REFERENCE: torch_step(work)}
    for name, handler in handlers().items():
        contestants[name] = brainstorm_step(handler, work, peepholes=True)
        contestants[f"{name} (no peepholes)"] = brainstorm_step(
            handler, work, peepholes=False
        )
    return contestants


def brainstorm_step(
    handler: bs.handlers.Handler, work: Work, peepholes: bool
) -> Callable[[], float]:
    inputs, cells, classes = work.sizes
    inp = bs.layers.Input(
        out_shapes={"default": ("T", "B", inputs), "targets": ("T", "B", 1)}
    )
    (
        inp
        >> bs.layers.Lstm(cells, peepholes=peepholes)
        >> (bs.layers.FullyConnected(classes, "linear", name="Output"))
        >> (softmax := bs.layers.SoftmaxCE())
    )
    inp - "targets" >> "targets" - softmax
    net = bs.Network.from_layer(softmax - "loss" >> bs.layers.Loss())
    net.set_handler(handler)
    weights = {f"W{g}": w for g, w in zip("zifo", work.W, strict=True)}
    weights |= {f"R{g}": r for g, r in zip("zifo", work.R, strict=True)}
    net.initialize(0, Lstm={**weights, "default": 0}, Output={"W": work.W_out})
    stepper = bs.training.MomentumStepper(
        LEARNING_RATE, MOMENTUM, scale_learning_rate=False
    )
    stepper.start(net)
    batch = {"default": work.data, "targets": work.targets.astype(np.float32)}

    def step() -> float:
        net.provide_external_data(batch)
        stepper.run()
        return net.get_loss_values()["total_loss"]

    return step


def torch_step(work: Work) -> Callable[[], float]:
    inputs, cells, classes = work.sizes
    lstm = torch.nn.LSTM(inputs, cells)
    output = torch.nn.Linear(cells, classes)
    order = [1, 2, 0, 3]  # PyTorch's gates are i, f, z, o
    with torch.no_grad():
        lstm.weight_ih_l0.copy_(torch.from_numpy(np.concatenate(work.W[order])))
        lstm.weight_hh_l0.copy_(torch.from_numpy(np.concatenate(work.R[order])))
        output.weight.copy_(torch.from_numpy(work.W_out))
        for bias in (lstm.bias_ih_l0, lstm.bias_hh_l0, output.bias):
            bias.zero_()
    lstm.bias_hh_l0.requires_grad_(False)  # one bias is enough
    parameters = [p for m in (lstm, output) for p in m.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, LEARNING_RATE, MOMENTUM)

    def step() -> float:
        x, t = torch.as_tensor(work.data), torch.as_tensor(work.targets)
        optimizer.zero_grad()
        logits = output(lstm(x)[0]).flatten(0, 1)
        loss = functional.cross_entropy(logits, t.flatten(), reduction="sum")
        loss = loss / t.shape[1]
        loss.backward()
        optimizer.step()
        return loss.item()

    return step

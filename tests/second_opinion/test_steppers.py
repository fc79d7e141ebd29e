"""Steppers, clipping and schedules beside PyTorch's, in float64."""

import numpy as np
import pytest

from brainstorm import layers
from brainstorm.handlers import NumpyHandler
from brainstorm.structure.network import Network
from brainstorm.training import (
    AdaDeltaStepper,
    AdaGradStepper,
    AdamStepper,
    AdamWStepper,
    OneCycle,
    RmsPropStepper,
)
from brainstorm.value_modifiers import ClipGlobalNorm

torch = pytest.importorskip("torch")

PAIRS = {
    "Adam": (AdamStepper(0.02), {"lr": 0.02}),
    "AdamW": (AdamWStepper(0.02, weight_decay=0.1), {"lr": 0.02, "weight_decay": 0.1}),
    "RMSprop": (RmsPropStepper(0.02), {"lr": 0.02, "alpha": 0.9}),
    "Adadelta": (AdaDeltaStepper(0.7, 0.9), {"lr": 0.7, "rho": 0.9, "eps": 1e-6}),
    "Adagrad": (AdaGradStepper(0.02), {"lr": 0.02, "eps": 1e-8}),
}


@pytest.mark.parametrize("limit", [None, 0.3])
@pytest.mark.parametrize("name", PAIRS)
def test_stepper(name, limit):
    stepper, arguments = PAIRS[name]
    rnd = np.random.RandomState(0)
    W, bias = rnd.randn(4, 5), rnd.randn(4)
    inp = layers.Input({"default": ("T", "B", 5), "targets": ("T", "B", 4)})
    error = layers.SquaredError()
    inp >> layers.FullyConnected(4, activation="tanh", name="Fc") >> error
    inp - "targets" >> "targets" - error
    error - "loss" >> layers.Loss()
    net = Network.from_layer(inp)
    net.set_handler(NumpyHandler(np.float64))
    net.initialize({"Fc": {"W": W, "bias": bias}})
    if limit is not None:
        net.set_gradient_modifiers(ClipGlobalNorm(limit))
    theirs = [torch.tensor(v, requires_grad=True) for v in (W, bias)]
    optimizer = getattr(torch.optim, name)(theirs, **arguments)
    stepper.start(net)
    for _ in range(20):
        x, t = rnd.randn(1, 7, 5), rnd.randn(1, 7, 4)
        net.provide_external_data({"default": x, "targets": t})
        stepper.run()
        optimizer.zero_grad()
        y = torch.tanh(torch.tensor(x) @ theirs[0].T + theirs[1])
        (0.5 * (y - torch.tensor(t)) ** 2).sum().div(7).backward()
        if limit is not None:
            torch.nn.utils.clip_grad_norm_(theirs, limit)
        optimizer.step()
    # PyTorch adds 1e-6 to the norm.
    rtol = 1e-10 if limit is None else 1e-5
    for path, expected in (("Fc.parameters.W", 0), ("Fc.parameters.bias", 1)):
        np.testing.assert_allclose(
            net.get(path), theirs[expected].detach().numpy(), rtol=rtol, atol=rtol
        )


def test_one_cycle():
    total = 50
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.3, total_steps=total, pct_start=0.2
    )
    expected = []
    for _ in range(total):
        expected.append(theirs.get_last_lr()[0])
        optimizer.step()
        if len(expected) < total:
            theirs.step()
    # PyTorch's peak comes after 0.2 * 50 - 1 of 49 changes.
    ours = OneCycle(0.3, total - 1, rise=9 / 49)
    got = [ours(0, k, "update", 1, None, None, {}) for k in range(total)]
    np.testing.assert_allclose(got, expected, rtol=1e-10)

"""Works done by PyTorch, as its tutorials do them."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.work import Run, Work

# In the order in which PyTorch stacks their weights
GATES = {nn.LSTM: "ifzo", nn.GRU: "rzh", nn.RNN: ("",)}


class Chain(nn.Sequential):
    """Modules in a row; of those with several outputs the first goes on."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for module in self:
            x = module(x)
            if isinstance(x, tuple):
                x = x[0]
        return x


def use_gpu(tf32: bool = False) -> None:
    """Work on the GPU, in float32 throughout or with products in TF32."""
    torch.set_default_device("cuda")
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32


def make_runs(
    work: Work, kind: str, variant: str, precision: str = "f32"
) -> dict[str, Run]:
    """What trains and what evaluates: gets a number of steps, returns their losses."""
    torch.manual_seed(1)
    rounding = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    modules = work.model(variant)
    with torch.no_grad():
        for layer, weights in work.weights.items():
            _set_weights(_module(modules, layer), weights)
    model = Chain()
    for name, module in modules.items():
        model.add_module(name, module)
    time = work.shape[0]
    data, targets = _data(work), work.targets.reshape(-1)

    def loss_of(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        with rounding:
            logits = model(x)
            if time == 1:
                return functional.cross_entropy(logits, t)
            return functional.cross_entropy(logits.flatten(0, 1), t) * time

    optimizer, update = _make_update(work, model, "fused" in variant)
    if kind == "compiled":
        torch._logging.set_logs(dynamo=logging.ERROR)  # not of what it ignores
        loss_of = torch.compile(loss_of, dynamic=False)
        update = torch.compile(update, dynamic=False)

    def train(steps: int) -> list[float]:
        model.train()
        losses = []
        for _ in range(steps):
            loss = loss_of(torch.as_tensor(data), torch.as_tensor(targets))
            loss.backward()
            update()
            optimizer.zero_grad()
            losses.append(loss.item())
        return losses

    def evaluate(steps: int) -> list[float]:
        model.eval()
        with torch.inference_mode():
            return [
                loss_of(torch.as_tensor(data), torch.as_tensor(targets)).item()
                for _ in range(steps)
            ]

    return {"evaluation": evaluate, "training": train}


def _make_update(work: Work, model: nn.Module, fused: bool):
    parameters = [p for p in model.parameters() if p.requires_grad]
    options = {"lr": work.learning_rate} | ({"fused": True} if fused else {})
    if work.optimizer == "adam":
        optimizer = torch.optim.Adam(parameters, **options)
    else:
        optimizer = torch.optim.SGD(parameters, momentum=0.9, **options)
    limited = [model.get_submodule(name).weight for name in work.limited]

    def update() -> None:
        optimizer.step()
        with torch.no_grad():
            for weight in limited:
                norms = weight.norm(dim=1, keepdim=True)
                weight.div_(norms.clamp_(min=1))

    return optimizer, update


def _data(work: Work) -> np.ndarray:
    """As PyTorch likes it: no time unless there are sequences, channels first."""
    data = work.data[0] if work.shape[0] == 1 else work.data
    is_image = data.ndim == 4
    return np.ascontiguousarray(data.transpose(0, 3, 1, 2)) if is_image else data


def _module(modules: Mapping[str, nn.Module], layer: str) -> nn.Module:
    """A module, or one with a name such as ``'Block1_Wide'`` that is in another one."""
    if layer in modules:
        return modules[layer]
    owner, _, part = layer.partition("_")
    return getattr(modules[owner], part)


def _set_weights(module: nn.Module, weights: Mapping[str, np.ndarray]) -> None:
    if hasattr(module, "load"):
        module.load(weights)
        return
    for name, parameter in module.named_parameters():
        if "bias" in name:
            parameter.zero_()
    if type(module) in GATES:
        module.bias_hh_l0.requires_grad_(False)  # one bias is enough
        for kind, stacked in (("W", module.weight_ih_l0), ("R", module.weight_hh_l0)):
            gates = GATES[type(module)]
            for gate, part in zip(gates, stacked.chunk(len(gates)), strict=True):
                part.copy_(torch.from_numpy(weights[kind + gate]))
    else:
        W = torch.from_numpy(weights["W"])
        module.weight.copy_(W.permute(0, 3, 1, 2) if W.ndim == 4 else W)


def make_product(kind: str, size: int) -> dict[str, Run]:
    """What multiplies two square matrices, and returns one of the numbers."""
    a, b, out = (torch.ones(size, size) for _ in range(3))

    def run(steps: int) -> list[float]:
        for _ in range(steps):
            torch.mm(a, b, out=out)
        return [out[0, 0].item()]

    return {"product": run}

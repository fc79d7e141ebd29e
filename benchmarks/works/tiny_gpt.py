from __future__ import annotations

from typing import Any

from benchmarks.work import Work
from brainstorm import layers as bs_layers
from brainstorm.tools import transformer_block

TIME, BATCH, VOCABULARY, SIZE, HEADS, BLOCKS = 128, 32, 96, 128, 4, 4
NAMES = [f"Block{number}" for number in range(1, BLOCKS + 1)]


def layers(inp: Any, variant: str) -> Any:
    x = inp >> bs_layers.Embedding(VOCABULARY, SIZE, name="Embedding")
    x = x >> bs_layers.PositionalEncoding("learned", TIME, name="Positions")
    for name in NAMES:
        x = transformer_block(x, SIZE, HEADS, causal=True, name=name)
    return x >> bs_layers.LayerNorm(name="Norm")


def model(variant: str) -> Any:
    """As in nanoGPT: the batch comes first, and one product makes q, k and v."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Turn(nn.Module):
        """Between time first and batch first; indices lose their last axis."""

        def forward(self, x: Any) -> Any:
            return x.transpose(0, 1) if x.ndim == 3 and x.shape[2] > 1 else x[..., 0].T

    class Positions(nn.Embedding):
        def forward(self, x: Any) -> Any:
            return x + self.weight[: x.shape[1]]

        def load(self, weights: Any) -> None:
            self.weight.copy_(torch.from_numpy(weights["P"]))

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.all = nn.Linear(SIZE, 3 * SIZE)
            self.out = nn.Linear(SIZE, SIZE)

        def forward(self, x: Any) -> Any:
            batch, time, _ = x.shape
            q, k, v = (
                part.view(batch, time, HEADS, SIZE // HEADS).transpose(1, 2)
                for part in self.all(x).split(SIZE, dim=2)
            )
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.out(y.transpose(1, 2).reshape(batch, time, SIZE))

        def load(self, weights: Any) -> None:
            W = torch.cat([torch.from_numpy(weights[f"W{name}"]) for name in "qkv"])
            self.all.weight.copy_(W)
            self.out.weight.copy_(torch.from_numpy(weights["Wo"]))
            self.all.bias.zero_()
            self.out.bias.zero_()

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.Attention, self.Norm = Attention(), nn.LayerNorm(SIZE)
            self.Norm_2 = nn.LayerNorm(SIZE)
            self.Wide, self.Narrow = (
                nn.Linear(SIZE, 4 * SIZE),
                nn.Linear(4 * SIZE, SIZE),
            )

        def forward(self, x: Any) -> Any:
            x = x + self.Attention(self.Norm(x))
            wide = functional.gelu(self.Wide(self.Norm_2(x)), approximate="tanh")
            return x + self.Narrow(wide)

    return {
        "turn": Turn(),
        "Embedding": nn.Embedding(VOCABULARY, SIZE),
        "Positions": Positions(TIME, SIZE),
        **{name: Block() for name in NAMES},
        "Norm": nn.LayerNorm(SIZE),
        "turn_back": Turn(),
        "Output_projection": nn.Linear(SIZE, VOCABULARY),
    }


def jax_model() -> Any:
    from benchmarks import jax_layers as jl

    turn = jl.Function(lambda x: x.swapaxes(0, 1))
    return {
        "turn": turn,
        "Embedding": jl.Embedding(),
        "Positions": jl.Positions(),
        **{name: jl.Block(SIZE, HEADS) for name in NAMES},
        "Norm": jl.LayerNorm(SIZE),
        "turn_back": turn,
        "Output_projection": jl.Dense(),
    }


_SQUARE = TIME * BATCH * SIZE * SIZE
_WEIGHTS = TIME * TIME * BATCH * SIZE

WORK = Work(
    "4 blocks of a transformer, 4 heads of 32, on 96 letters; 128 steps, batch of 32",
    shape=(TIME, BATCH, 1),
    classes=VOCABULARY,
    parameters={
        "Embedding": {"W": (VOCABULARY, SIZE)},
        "Positions": {"P": (TIME, SIZE)},
        **{
            f"{name}_{layer}": shapes
            for name in NAMES
            for layer, shapes in {
                "Attention": {f"W{w}": (SIZE, SIZE) for w in "qkvo"},
                "Wide": {"W": (4 * SIZE, SIZE)},
                "Narrow": {"W": (SIZE, 4 * SIZE)},
            }.items()
        },
        "Output_projection": {"W": (VOCABULARY, SIZE)},
    },
    layers=layers,
    model=model,
    jax_model=jax_model,
    products=(
        0,
        *[4 * _SQUARE + 2 * _WEIGHTS + 8 * _SQUARE] * BLOCKS,
        TIME * BATCH * SIZE * VOCABULARY,
    ),
    optimizer="adam",
    learning_rate=1e-3,
    vocabulary=VOCABULARY,
)

"""Layers in plain JAX, as its users write them.

A layer makes of the work's weights what it learns, by `prepare`, and is called with
that, its inputs, and a key for random numbers, which is None in an evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Learned = dict[str, Any]


class Layer:
    """Learns nothing, unless it says what."""

    def prepare(self, weights: Mapping[str, Any]) -> Learned:
        return {}

    def __call__(self, p: Learned, x: jax.Array, key: jax.Array | None) -> jax.Array:
        raise NotImplementedError


@dataclass(frozen=True)
class Function(Layer):
    """Any function of the inputs."""

    function: Callable[[jax.Array], jax.Array]

    def __call__(self, p, x, key):
        return self.function(x)


@dataclass(frozen=True)
class Dense(Layer):
    activation: Callable[[jax.Array], jax.Array] = lambda x: x

    def prepare(self, weights):
        return {"W": weights["W"].T, "b": np.zeros(len(weights["W"]), np.float32)}

    def __call__(self, p, x, key):
        return self.activation(x @ p["W"] + p["b"])


@dataclass(frozen=True)
class Dropout(Layer):
    rate: float

    def __call__(self, p, x, key):
        if key is None:
            return x
        kept = jax.random.bernoulli(key, 1 - self.rate, x.shape)
        return jnp.where(kept, x / (1 - self.rate), 0)


class Convolution(Layer):
    """Rectified, on images of the same size; channels last."""

    def prepare(self, weights):
        W = weights["W"]
        return {"W": W.transpose(1, 2, 3, 0), "b": np.zeros(len(W), np.float32)}

    def __call__(self, p, x, key):
        axes = ("NHWC", "HWIO", "NHWC")
        x = lax.conv_general_dilated(x, p["W"], (1, 1), "SAME", dimension_numbers=axes)
        return jax.nn.relu(x + p["b"])


@dataclass(frozen=True)
class MaxPool(Layer):
    size: int
    stride: int

    def __call__(self, p, x, key):
        window, strides = (
            (1, number, number, 1) for number in (self.size, self.stride)
        )
        return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, "VALID")


class Embedding(Layer):
    def prepare(self, weights):
        return {"W": weights["W"]}

    def __call__(self, p, x, key):
        return p["W"][x[..., 0]]


class Recurrent(Layer):
    """A tanh layer, and what others have in common: one product for all gates."""

    gates: ClassVar[tuple[str, ...]] = ("",)

    def prepare(self, weights):
        W, R = (
            np.concatenate([weights[kind + gate] for gate in self.gates]).T
            for kind in "WR"
        )
        return {"W": W, "R": R, "b": np.zeros(W.shape[1], np.float32)}

    def __call__(self, p, x, key):
        def step(state, a):
            state = self.step(a, state, p["R"])
            return state, state[0]

        start = jnp.zeros((x.shape[1], p["R"].shape[0]))
        return lax.scan(step, (start, start), x @ p["W"] + p["b"])[1]

    def step(self, a, state, R):
        """The next outputs and cells from the gates' inputs and the last ones."""
        y = jnp.tanh(a + state[0] @ R)
        return y, y


class Lstm(Recurrent):
    gates = ("i", "f", "z", "o")

    def step(self, a, state, R):
        y, c = state
        i, f, z, o = jnp.split(a + y @ R, 4, axis=1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(z)
        return jax.nn.sigmoid(o) * jnp.tanh(c), c


class Gru(Recurrent):
    gates = ("r", "z", "h")

    def step(self, a, state, R):
        y, _ = state
        (r, z, h), (Rr, Rz, Rh) = (jnp.split(part, 3, axis=1) for part in (a, y @ R))
        z = jax.nn.sigmoid(z + Rz)
        y = (1 - z) * jnp.tanh(h + jax.nn.sigmoid(r + Rr) * Rh) + z * y
        return y, y


# -- what a transformer consists of, the batch first ----------------------------------


class Positions(Layer):
    def prepare(self, weights):
        return {"P": weights["P"]}

    def __call__(self, p, x, key):
        return x + p["P"][: x.shape[1]]


@dataclass(frozen=True)
class LayerNorm(Layer):
    size: int

    def prepare(self, weights):
        return {
            "gamma": np.ones(self.size, np.float32),
            "beta": np.zeros(self.size, np.float32),
        }

    def __call__(self, p, x, key):
        centered = x - x.mean(axis=-1, keepdims=True)
        variance = jnp.square(centered).mean(axis=-1, keepdims=True)
        return p["gamma"] * centered * lax.rsqrt(variance + 1e-5) + p["beta"]


@dataclass(frozen=True)
class CausalAttention(Layer):
    heads: int

    def prepare(self, weights):
        W = np.concatenate([weights[f"W{name}"] for name in "qkv"])
        all_three, out = ({"W": w} for w in (W, weights["Wo"]))
        return {"all": Dense().prepare(all_three), "out": Dense().prepare(out)}

    def __call__(self, p, x, key):
        batch, time, size = x.shape
        q, k, v = (
            part.reshape(batch, time, self.heads, size // self.heads)
            for part in jnp.split(Dense()(p["all"], x, key), 3, axis=2)
        )
        y = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        return Dense()(p["out"], y.reshape(x.shape), key)


@dataclass(frozen=True)
class Chain(Layer):
    """Named layers in a row; one with weights such as 'A_Wide' has a part 'Wide'."""

    layers: Mapping[str, Layer]

    def prepare(self, weights):
        learned = {}
        for name, layer in self.layers.items():
            parts = {
                key.removeprefix(f"{name}_"): values
                for key, values in weights.items()
                if key.startswith(f"{name}_")
            }
            learned[name] = layer.prepare(weights.get(name, parts))
        return learned

    def __call__(self, p, x, key):
        for number, (name, layer) in enumerate(self.layers.items()):
            own = None if key is None else jax.random.fold_in(key, number)
            x = layer(p[name], x, own)
        return x


@dataclass(frozen=True)
class Block(Layer):
    """A transformer's, with its norms in front."""

    size: int
    heads: int

    def _residual(self) -> tuple[Chain, Chain]:
        attention = {
            "Norm": LayerNorm(self.size),
            "Attention": CausalAttention(self.heads),
        }
        wide = {
            "Norm_2": LayerNorm(self.size),
            "Wide": Dense(jax.nn.gelu),
            "Narrow": Dense(),
        }
        return Chain(attention), Chain(wide)

    def prepare(self, weights):
        first, second = self._residual()
        return first.prepare(weights) | second.prepare(weights)

    def __call__(self, p, x, key):
        for part in self._residual():
            x = x + part(p, x, key)
        return x

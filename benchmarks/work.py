"""What a benchmark consists of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

Arrays = dict[str, dict[str, np.ndarray]]
Run = Callable[[int], list[float]]


@dataclass
class Work:
    """A network that learns to name classes, for this library, PyTorch and JAX.

    Args:
        description: What it is, in one line.
        shape: Shape of the data: time steps, batch, and features.
        classes: Number of classes.
        parameters: Shapes of all weights by layer and name. Biases begin with 0.
        layers: Gets the Input layer and a variant, and wires all layers between it and
            the projection to the classes, named "Output_projection".
        model: Gets a variant and makes the same in PyTorch: named modules in a row.
        jax_model: The same in JAX: named layers of `jax_layers` in a row.
        products: Number of multiplications in each layer's forward pass. The first of
            them needs no deltas of its inputs.
        optimizer: "momentum" or "adam".
        tolerance: How much the losses of training may differ, relatively.
        limited: Layers whose units' weights are made no longer than 1.
        vocabulary: If not 0, data are indices below it.
        our_variants, torch_variants: Names of ways to do it. The first is the default.
    """

    description: str
    shape: tuple[int, ...]
    classes: int
    parameters: dict[str, dict[str, tuple[int, ...]]]
    layers: Callable[[Any, str], Any]
    model: Callable[[str], Any]
    jax_model: Callable[[], Any]
    products: tuple[int, ...]
    optimizer: str = "momentum"
    learning_rate: float = 0.01
    tolerance: float = 1e-3
    limited: tuple[str, ...] = ()
    vocabulary: int = 0
    our_variants: tuple[str, ...] = ("",)
    torch_variants: tuple[str, ...] = ("",)

    @cached_property
    def data(self) -> np.ndarray:
        rnd = np.random.default_rng(1)
        if self.vocabulary:
            return rnd.integers(self.vocabulary, size=self.shape)
        return rnd.standard_normal(self.shape, np.float32)

    @cached_property
    def targets(self) -> np.ndarray:
        rnd = np.random.default_rng(2)
        return rnd.integers(self.classes, size=(*self.shape[:2], 1))

    @cached_property
    def weights(self) -> Arrays:
        """Made in place: memory given back would change how malloc behaves."""
        rnd = np.random.default_rng(3)
        weights: Arrays = {}
        for layer, shapes in self.parameters.items():
            weights[layer] = {}
            for name, shape in shapes.items():
                values = rnd.standard_normal(shape, np.float32)
                values /= np.sqrt(np.prod(shape[1:]), dtype=np.float32)
                weights[layer][name] = values
        return weights

    def with_little_data(self) -> Work:
        """The same network, on two short sequences."""
        time = min(self.shape[0], 2)
        return replace(self, shape=(time, 2, *self.shape[2:]))

    def make_arrays(self) -> None:
        """Make data, targets and weights, which are made when they are needed."""
        _ = self.data, self.targets, self.weights

    def flops(self, mode: str) -> int:
        """Floating point operations of products and convolutions in a step."""
        forward = sum(self.products)
        if mode == "evaluation":
            return 2 * forward
        return 2 * (3 * forward - self.products[0])

"""Names of version 0.5 for what :func:`brainstorm.testing.check_layer` does."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from brainstorm.layers.base_layer import Layer
from brainstorm.testing import check_layer

__all__ = ["get_test_configurations", "run_layer_tests"]


def get_test_configurations() -> list[dict[str, Any]]:
    """Sizes and activation functions to test a layer with, one dict for each test."""
    sizes = ((1, 1), (5, 3), (9, 2))
    return [
        {"time_steps": steps, "batch_size": batch, "activation": activation}
        for (steps, batch), activation in itertools.product(sizes, ("tanh", "sigmoid"))
    ]


def run_layer_tests(layer: Layer, spec: Mapping[str, Any]) -> None:
    """Check a layer that was made by itself; see `check_layer`.

    Args:
        layer: The layer, such as ``FooLayerImpl('Foo', in_shapes, size=3)``.
        spec: May have the sizes ``'time_steps'`` and ``'batch_size'``.

    Raises:
        LayerCheckError: A check failed.
    """
    check_layer(
        type(layer),
        {name: structure.shape for name, structure in layer.in_shapes.items()},
        kwargs=layer.kwargs,
        time_size=spec.get("time_steps", 3),
        batch_size=spec.get("batch_size", 2),
    )

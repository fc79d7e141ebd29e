"""Upsample2D; test_all_layers.py checks its derivatives."""

import numpy as np
import pytest

from brainstorm import Network, layers
from brainstorm.utils import LayerValidationError
from tests.layers.single_layer import SingleLayer, normal


@pytest.mark.parametrize("factor", [1, 2, (3, 1), (1, 2), [2, 3]])
def test_blocks_of_equal_pixels(factor):
    fy, fx = factor if isinstance(factor, (list, tuple)) else (factor, factor)
    x = normal(3, 2, 4, 5, 2)
    run = SingleLayer(layers.Upsample2D(factor), {"default": x}).forward()
    np.testing.assert_array_equal(run.y, x.repeat(fy, 2).repeat(fx, 3))
    dy = normal(*run.y.shape, seed=1)
    run.backward(default=dy)
    expected = dy.reshape(3, 2, 4, fy, 5, fx, 2).sum((3, 5))
    np.testing.assert_allclose(run["input_deltas.default"], expected, rtol=1e-12)


@pytest.mark.parametrize("factor", [0, -1, 2.0, (1, 2, 3), "2", None])
def test_bad_factors(factor):
    inp = layers.Input({"default": ("T", "B", 2, 2, 1)})
    with pytest.raises(LayerValidationError, match="Upsample2D.*as 'factor'"):
        Network.from_layer(inp >> layers.Upsample2D(factor))


@pytest.mark.parametrize("kind", [None, "cubic", 1, []])
def test_bad_kinds(kind):
    inp = layers.Input({"default": ("T", "B", 2, 2, 1)})
    with pytest.raises(LayerValidationError, match="'nearest' or 'bilinear' as 'kind'"):
        Network.from_layer(inp >> layers.Upsample2D(2, kind=kind))


def test_the_kind_is_described_where_it_is_not_nearest():
    images = {"default": normal(1, 1, 2, 2, 1)}
    for kind, described in (("nearest", None), ("bilinear", "bilinear")):
        run = SingleLayer(layers.Upsample2D(2, "U", kind=kind), images)
        assert run.net.architecture["U"].get("kind") == described

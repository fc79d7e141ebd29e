"""Copies of networks, made by pickle and copy."""

import copy
import pickle

import numpy as np
import pytest

import brainstorm as bs
from brainstorm.handlers import NumpyHandler
from brainstorm.value_modifiers import ClipGlobalNorm


@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))]
)
def test_copies_of_networks(again):
    net = bs.tools.create_net_from_spec("classification", 4, 3, "D F5")
    net.set_handler(NumpyHandler(np.float64))
    net.set_gradient_modifiers(ClipGlobalNorm(2))
    net.set_trainable({"FullyConnected": False})
    x = np.random.RandomState(0).randn(6, 4)
    expected = net(x)
    other = again(net)
    assert bs.get_description(other) == bs.get_description(net)
    np.testing.assert_array_equal(other(x), expected)
    other.initialize(0)
    np.testing.assert_array_equal(net(x), expected)
    assert np.any(other(x) != expected)

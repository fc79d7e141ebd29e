"""Modifiers that see all parameters, or all gradients, at once."""

import numpy as np
import pytest

import brainstorm as bs
from brainstorm import layers
from brainstorm.handlers import NumpyHandler
from brainstorm.value_modifiers import ClipGlobalNorm, GradientModifier, L2Decay


@pytest.fixture
def net():
    inp = layers.Input({"default": ("T", "B", 4)})
    (
        inp
        >> layers.FullyConnected(3, name="A")
        >> layers.FullyConnected(1, activation="linear", name="B")
        >> layers.Loss()
    )
    net = bs.Network.from_layer(inp)
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(bs.Gaussian(), seed=1)
    x = np.random.RandomState(2).randn(1, 6, 4)
    net.provide_external_data({"default": x})
    return net


def gradients(net):
    net.forward_pass(training_pass=True)
    net.backward_pass()
    return net.get("gradients")


def test_clipping_keeps_the_direction(net):
    free = gradients(net)
    norm = np.sqrt(np.sum(free**2))
    net.set_gradient_modifiers(ClipGlobalNorm(norm / 3))
    np.testing.assert_allclose(gradients(net), free / 3, rtol=1e-12)
    net.set_gradient_modifiers(ClipGlobalNorm(norm * 1.01))
    np.testing.assert_array_equal(gradients(net), free)


@pytest.mark.parametrize("as_list", [False, True])
def test_it_runs_after_all_others(net, as_list):
    free = gradients(net)
    decayed = free + 10 * net.get("parameters")
    clip = ClipGlobalNorm(0.5)
    if as_list:
        net.set_gradient_modifiers([clip, L2Decay(10)])
    else:
        net.set_gradient_modifiers(clip, **{"*": L2Decay(10)})
    expected = 0.5 * decayed / np.sqrt(np.sum(decayed**2))
    np.testing.assert_allclose(gradients(net), expected, rtol=1e-12)


def test_it_is_there_where_everything_else_has_its_own(net):
    net.set_gradient_modifiers(
        {"A": L2Decay(1), "B": L2Decay(1)}, default=[ClipGlobalNorm(0.5)]
    )
    assert np.sqrt(np.sum(gradients(net) ** 2)) == pytest.approx(0.5)


def test_parameters_of_the_whole_network(net):
    before = net.get("parameters")
    net.set_weight_modifiers(ClipGlobalNorm(0.1))
    net.apply_weight_modifiers()
    expected = 0.1 * before / np.sqrt(np.sum(before**2))
    np.testing.assert_allclose(net.get("parameters"), expected, rtol=1e-12)


class AddParameters(GradientModifier):
    """Sees parameters and gradients."""

    whole_network = True

    def __call__(self, handler, parameters, gradients):
        handler.add_tt(parameters, gradients, gradients)


def test_gradient_modifiers_of_the_whole_network(net):
    free = gradients(net)
    net.set_gradient_modifiers(AddParameters())
    np.testing.assert_allclose(gradients(net), free + net.get("parameters"))


def test_description_and_file(net, tmp_path):
    net.set_gradient_modifiers({"A": {"W": L2Decay(1)}}, default=ClipGlobalNorm(0.5))
    expected = gradients(net)
    net.save_as_hdf5(tmp_path / "net.hdf5")
    again = bs.Network.from_hdf5(tmp_path / "net.hdf5")
    again.provide_external_data({"default": net.get_input("default")})
    np.testing.assert_array_equal(gradients(again), expected)
    assert again.gradient_modifiers["default"][0].limit == 0.5
    assert bs.get_description(again) == bs.get_description(net)


@pytest.mark.parametrize("place", ["A", "*"])
def test_it_can_not_be_given_for_a_layer(net, place):
    with pytest.raises(ValueError, match=r"whole network: .* 'default', not for A\.W"):
        net.set_gradient_modifiers({place: ClipGlobalNorm(1)})


@pytest.mark.parametrize("limit", [0, -1, None, float("inf")])
def test_bad_limits(limit):
    with pytest.raises(bs.utils.ValidationError, match="ClipGlobalNorm: limit"):
        ClipGlobalNorm(limit)

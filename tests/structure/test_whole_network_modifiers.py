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


# -- what is not trained -----------------------------------------------------


@pytest.fixture
def mixed():
    """Frozen parameters, running statistics and timings between trained ones."""
    inp = layers.Input({"default": ("T", "B", 4)})
    (
        inp
        >> layers.FullyConnected(3, name="A")
        >> layers.BatchNorm(name="B")
        >> layers.FullyConnected(3, name="C")
        >> layers.Clockwork(3, name="D")
        >> layers.FullyConnected(2, name="E")
        >> layers.Loss()
    )
    net = bs.Network.from_layer(inp)
    net.set_handler(NumpyHandler(np.float64))
    statistics = {"gamma": 1.5, "beta": 0.5, "mu": 0.3, "sigma": 30.0}
    net.initialize(bs.Gaussian(), B=statistics, D={"timing": 2.0}, seed=1)
    net.set_trainable({"C": False, "E": {"bias": False}})
    x = np.random.RandomState(2).randn(3, 6, 4)
    net.provide_external_data({"default": x})
    return net


UNTRAINED = ["B.{}.mu", "B.{}.sigma", "C.{}.W", "C.{}.bias", "D.{}.timing", "E.{}.bias"]


def untrained(net, category="parameters"):
    return [net.get(path.format(category)) for path in UNTRAINED]


def trained(net, category="gradients"):
    flat = net.get(category)
    return np.concatenate([flat[part] for part in net.trained_slices])


def test_weights_that_are_not_trained_stay(mixed):
    before, expected = untrained(mixed), trained(mixed, "parameters")
    mixed.set_weight_modifiers(ClipGlobalNorm(0.1))
    mixed.apply_weight_modifiers()
    np.testing.assert_equal(untrained(mixed), before)
    expected *= 0.1 / np.linalg.norm(expected)
    np.testing.assert_allclose(trained(mixed, "parameters"), expected, rtol=1e-12)


@pytest.mark.parametrize("place", ["default", "*"])
def test_single_weights_that_are_not_trained_stay(mixed, place):
    before = untrained(mixed)
    mixed.set_weight_modifiers({place: bs.ClipValues(-0.1, 0.1)})
    mixed.apply_weight_modifiers()
    np.testing.assert_equal(untrained(mixed), before)
    np.testing.assert_equal(abs(trained(mixed, "parameters")).max(), 0.1)


@pytest.mark.parametrize("place", ["default", "*"])
def test_the_norm_is_that_of_the_gradients_that_are_used(mixed, place):
    mixed.set_gradient_modifiers({place: L2Decay(0.1)})
    mixed.set_trainable({"C": False, "E": {"bias": False}})
    gradients(mixed)
    free = trained(mixed)
    modifiers = {"default": [L2Decay(0.1), ClipGlobalNorm(0.5)]}
    if place == "*":
        modifiers = {"*": L2Decay(0.1), "default": ClipGlobalNorm(0.5)}
    mixed.set_gradient_modifiers(modifiers)
    gradients(mixed)
    assert np.linalg.norm(free) > 0.5
    np.testing.assert_allclose(
        trained(mixed), 0.5 * free / np.linalg.norm(free), rtol=1e-12
    )
    assert not any(g.any() for g in untrained(mixed, "gradients"))


class Noise(bs.ValueModifier):
    """Adds noise to everything, and remembers what it was called with."""

    whole_network = True

    def start(self, handler, view):
        self.sizes = [view.shape]

    def __call__(self, handler, view):
        self.sizes.append(view.shape)
        handler.add_tt(view, self.rnd.randn(*view.shape), view)


def test_modifiers_of_ones_own_see_what_is_trained_only(mixed):
    free, before = gradients(mixed), untrained(mixed)
    free = trained(mixed)
    mixed.set_weight_modifiers(Noise())
    mixed.set_gradient_modifiers(AddParameters())
    weights = trained(mixed, "parameters")
    gradients(mixed)
    np.testing.assert_allclose(trained(mixed), free + weights, rtol=1e-12)
    mixed.start_weight_modifiers()
    mixed.apply_weight_modifiers()
    noise = mixed.weight_modifiers["default"][0]
    assert noise.sizes == [weights.shape] * 2
    noise.rnd.reset()
    expected = weights + noise.rnd.randn(*weights.shape)
    np.testing.assert_allclose(trained(mixed, "parameters"), expected, rtol=1e-12)
    np.testing.assert_equal(untrained(mixed)[2:], before[2:])


def test_nothing_is_called_where_nothing_is_trained(net):
    net.set_trainable(False)
    net.set_weight_modifiers(Noise())
    net.start_weight_modifiers()
    net.apply_weight_modifiers()
    assert not hasattr(net.weight_modifiers["default"][0], "sizes")


def test_statistics_can_be_modified_by_name(mixed):
    limits = {"sigma": bs.ClipValues(0, 2)}
    mixed.set_weight_modifiers({"B": limits}, default=bs.ClipValues(-0.1, 0.1))
    for net in (mixed, bs.create_from_description(bs.get_description(mixed))):
        assert set(net.weight_modifiers["B"]) == {"gamma", "beta", "sigma"}
        assert "timing" not in net.weight_modifiers["D"]
    mixed.apply_weight_modifiers()
    assert (mixed.get("B.parameters.sigma") == 2).all()
    assert (mixed.get("B.parameters.mu") == 0.3).all()
    mixed.set_gradient_modifiers({"B": {"sigma": L2Decay(1)}, "D": {"*": L2Decay(1)}})
    assert set(mixed.gradient_modifiers["D"]) == {"W", "R", "bias"}
    gradients(mixed)
    assert not mixed.get("B.gradients.sigma").any()


# -- modifiers of single parameters ------------------------------------------


def test_all_that_match_run_in_order(net):
    before = net.get("A.parameters.W")
    net.set_weight_modifiers(
        {"*": {"W": bs.ClipValues(-0.05, 0.05)}, "A": {"W": Double()}},
        default=bs.ClipValues(0, 0),
    )
    net.apply_weight_modifiers()
    expected = 2 * before.clip(-0.05, 0.05)
    np.testing.assert_allclose(net.get("A.parameters.W"), expected, rtol=1e-12)
    assert not net.get("A.parameters.bias").any()
    net.set_weight_modifiers({"A": {"W": Double()}, "*": bs.ClipValues(-0.05, 0.05)})
    kinds = [type(m).__name__ for m in net.weight_modifiers["A"]["W"]]
    assert kinds == ["Double", "ClipValues"]


class Double(bs.ValueModifier):
    def __call__(self, handler, view):
        handler.mult_st(2.0, view, view)


def test_copies_know_their_place_and_have_seeds_of_their_own(net):
    def seeds():
        found = {}
        for kind in (net.weight_modifiers, net.gradient_modifiers):
            for layer, by_name in kind.items():
                for name, (modifier,) in by_name.items():
                    assert (modifier.layer_name, modifier.view_name) == (layer, name)
                    path = type(modifier).__name__, layer, name
                    found[path] = modifier.rnd.get_seed()
        return found

    def install(seed):
        net.rnd.set_seed(seed)
        net.set_weight_modifiers(double)
        net.set_gradient_modifiers(L2Decay(0.1))
        return seeds()

    double = Double()
    first = install(1)
    assert len(first) == len(set(first.values())) == 8
    assert install(1) == first
    assert not set(install(2).values()) & set(first.values())
    assert (double.layer_name, double.view_name) == (None, None)
    description = bs.get_description(net.weight_modifiers)
    assert description["A"]["W"] == [{"@type": "Double"}]
    net = bs.create_from_description(bs.get_description(net))
    assert len(set(seeds().values())) == 8

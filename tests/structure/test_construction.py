import numpy as np
import pytest

from brainstorm import layers
from brainstorm.layers.base_layer import Layer
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.structure.network import Network
from brainstorm.utils import LayerValidationError, NetworkValidationError


def layer(name=None, layer_type="FooLayerImpl"):
    return ConstructionWrapper.create(layer_type, name=name)


def test_connecting_gives_the_right_hand_side():
    a, b = layer(), layer()
    assert (a >> b) is b


def test_selecting_makes_a_new_wrapper_of_the_same_layer():
    a = layer()
    b = "in" - a - "out"
    assert b is not a
    assert b.layer is a.layer
    assert (b.input_name, b.output_name) == ("in", "out")
    assert (a.input_name, a.output_name) == ("default", "default")


def test_selection_works_inside_a_chain():
    a, b, c = layer("a"), layer("b"), layer("c")
    a - "x" >> "y" - b - "z" >> c
    assert a.layer.outgoing == [("x", b.layer, "y")]
    assert b.layer.outgoing == [("z", c.layer, "default")]


def test_a_lone_layer_keeps_the_plain_name():
    assert layer().name == "Foo"
    assert layer("bar").name == "bar"


def test_connected_layers_are_numbered_in_order_of_creation():
    a, b, c = layer(), layer(), layer()
    c >> a >> b
    assert [x.name for x in (a, b, c)] == ["Foo_1", "Foo_2", "Foo_3"]


def test_unconnected_layers_do_not_count():
    a, b = layer(), layer()
    assert (a.name, b.name) == ("Foo", "Foo")


def test_taken_names_are_skipped():
    a, b, c = layer(), layer("Foo_2"), layer()
    a >> b >> c
    assert [x.name for x in (a, b, c)] == ["Foo_1", "Foo_2", "Foo_3"]


def test_equal_names_given_by_hand_are_numbered_too():
    a, b = layer("x"), layer("x")
    a >> b
    assert (a.name, b.name) == ("x_1", "x_2")


def test_connecting_two_graphs_merges_their_names():
    a, b, c, d = (layer() for _ in range(4))
    a >> b
    c >> d
    assert (c.name, d.name) == ("Foo_1", "Foo_2")
    d >> a
    assert [x.name for x in (a, b, c, d)] == ["Foo_1", "Foo_2", "Foo_3", "Foo_4"]


@pytest.mark.parametrize(
    "name", ["default", "fallback", "1a", "a-b", "", "a.b", "gradients"]
)
def test_bad_names_are_refused(name):
    with pytest.raises(LayerValidationError, match="name of a layer"):
        layer(name)


def test_types_are_named_after_their_class():
    class BarLayerImpl(Layer):
        pass

    assert ConstructionWrapper.create(BarLayerImpl).layer.layer_type == "Bar"


def test_classes_without_the_ending_are_refused():
    class Bar(Layer):
        pass

    for layer_type in (Bar, "Bar"):
        with pytest.raises(LayerValidationError, match="'LayerImpl', but 'Bar'"):
            ConstructionWrapper.create(layer_type)
    for layer_type in ("", "LayerImpl", "LayerImplBar", 3, None):
        with pytest.raises(LayerValidationError, match="'LayerImpl', but"):
            ConstructionWrapper.create(layer_type)


def test_names_of_classes_lose_the_ending():
    assert ConstructionWrapper.create("BarLayerImpl").layer.layer_type == "Bar"


def test_the_same_connection_twice_is_refused():
    a, b = layer("a"), layer("b")
    a >> b
    with pytest.raises(NetworkValidationError, match="'a' is connected already"):
        a >> b


def test_only_layers_and_names_can_be_wired():
    with pytest.raises(TypeError, match="unsupported operand"):
        layer() >> "x"
    with pytest.raises(TypeError, match="unsupported operand"):
        layer() - 3
    with pytest.raises(TypeError, match="unsupported operand"):
        3 - layer()


# -- several layers on one side ----------------------------------------------------


@pytest.mark.parametrize("kind", [list, tuple, set, frozenset])
def test_several_layers_go_into_one(kind):
    a, b, c, end = (layer(name) for name in "zabe")
    assert (kind([a, "in" - c - "out", b]) >> end) is end
    assert [x.layer.outgoing for x in (a, b)] == [
        [("default", end.layer, "default")]
    ] * 2
    assert c.layer.outgoing == [("out", end.layer, "default")]


@pytest.mark.parametrize("kind", [list, tuple, set, frozenset])
def test_one_layer_goes_into_several(kind):
    a, b, c, d = (layer(name) for name in "abcd")
    others = kind([d, "in" - b, c])
    found = a - "out" >> others
    in_order = [d, b, c] if kind in (list, tuple) else [b, c, d]
    assert [x.layer for x in found] == [x.layer for x in in_order]
    assert a.layer.outgoing == [
        ("out", x.layer, "in" if x is b else "default") for x in in_order
    ]


def test_they_go_on_in_a_chain():
    a, b, c, d = (layer(name) for name in "abcd")
    assert (a >> [b, c] >> d) is d
    assert [x.layer.outgoing[0][1] for x in (b, c)] == [d.layer] * 2


def test_several_are_fed_back():
    a, b, c = (layer(name) for name in "abc")
    assert ("in" - a << {c, b - "out"}).layer is a.layer
    assert b.layer.feedback == [("out", a.layer, "in")]
    assert c.layer.feedback == [("default", a.layer, "in")]


@pytest.mark.parametrize("others", [[], (), set(), [3], ["in"], [None, layer()]])
def test_only_layers_can_be_wired_together(others):
    for wire in (lambda a: a >> others, lambda a: others >> a, lambda a: a << others):
        a = layer()
        with pytest.raises(
            NetworkValidationError, match="expected layers to wire, got"
        ):
            wire(a)
        assert not a.layer.outgoing
        assert not a.layer.feedback


def test_columns_are_those_of_the_layout():
    values = np.ones((1, 1, 3))

    def joined(wire):
        inp = layers.Input({"default": ("T", "B", 3)})
        made = [layers.FullyConnected(1, "linear", name) for name in "zba"]
        end = layers.NoOp("end")
        wire(inp, *made, end)
        net = Network.from_layer(end)
        net.initialize({name: {"W": i, "bias": 0} for i, name in enumerate("abz")})
        return net.predict(values).tolist()

    for wire in (
        lambda inp, z, b, a, end: inp >> [z, b, a] >> end,
        lambda inp, z, b, a, end: inp >> {z, b, a} >> end,
        lambda inp, z, b, a, end: inp >> (a, b, z) >> end,
    ):
        assert joined(wire) == [[[0, 3, 6]]]  # by name, whatever the order

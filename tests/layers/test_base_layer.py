"""What all layers have in common, and what holds for those of a user's own."""

import contextlib
import copy
import inspect
import json
import pickle

import numpy as np
import pytest

from brainstorm import Network, generate_architecture, layers
from brainstorm.handlers import NumpyHandler
from brainstorm.layers.base_layer import Layer, get_layer_class_from_typename
from brainstorm.layers.elementwise_layer import ElementwiseLayerImpl
from brainstorm.structure.buffer_structure import BufferStructure, StructureTemplate
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.structure.layer import LAYER_TYPES
from brainstorm.testing import check_layer
from brainstorm.utils import BrainstormError, LayerValidationError


def gain(factor, bases=(Layer,), name="GainLayerImpl", **members):
    """A new class of layers that multiply by a factor."""

    def setup(self, kwargs, in_shapes):
        return {"default": self.like(in_shapes["default"])}, {}, {}

    def forward_pass(self, buffers, training_pass=True):
        x, y = buffers.inputs.default, buffers.outputs.default
        self.handler.mult_st(factor, x, y)

    def backward_pass(self, buffers):
        dx, dy = buffers.input_deltas.default, buffers.output_deltas.default
        self.handler.mult_add_st(factor, dy, dx)

    methods = [setup, forward_pass, backward_pass]
    members = {f.__name__: f for f in methods} | {"__module__": "mine"} | members
    return type(name, bases, members)


def network(*classes, **kwargs):
    chain = layers.Input({"default": ("T", "B", 1)})
    for layer_class in classes:
        chain = chain >> ConstructionWrapper.create(layer_class, **kwargs)
    return Network.from_layer(chain)


def factor_of(net):
    return net.predict(np.ones((1, 1))).item()


# -- which class a name means ------------------------------------------------


def test_a_layer_is_of_the_class_that_it_was_wired_by():
    two, three = gain(2.0), gain(3.0)
    assert factor_of(network(two)) == 2
    assert factor_of(network(three)) == 3
    assert factor_of(network(two, three, two)) == 12
    net = network(two)
    assert type(net.layers["Gain"]) is two
    for other in (
        copy.deepcopy(net),
        Network.from_architecture(net.architecture),
        Network.from_architecture(copy.deepcopy(net.architecture)),
    ):
        assert type(other.layers["Gain"]) is two
    check_layer(two)
    check_layer(ConstructionWrapper.create(three))


def test_a_name_means_the_class_that_was_defined_last(tmp_path):
    two, three = gain(2.0), gain(3.0)
    assert get_layer_class_from_typename("Gain") is three
    architecture = json.loads(json.dumps(network(two).architecture))
    assert factor_of(Network.from_architecture(architecture)) == 3
    assert factor_of(network("GainLayerImpl")) == 3
    network(three).save_as_hdf5(tmp_path / "net.hdf5")
    assert factor_of(Network.from_hdf5(tmp_path / "net.hdf5")) == 3
    two.register()
    assert factor_of(Network.from_hdf5(tmp_path / "net.hdf5")) == 2


def test_a_class_defined_again_replaces_a_subclass_of_a_layer_of_the_library():
    gain(1.0, (ElementwiseLayerImpl,))
    corrected = gain(2.0)
    assert get_layer_class_from_typename("Gain") is corrected
    corrected = gain(3.0, (ElementwiseLayerImpl,))
    assert get_layer_class_from_typename("Gain") is corrected


def test_saving_says_that_the_name_means_another_class(tmp_path):
    two = gain(2.0)
    net = network(two)
    three = gain(3.0)
    message = r"'Gain' means mine\.GainLayerImpl, not .* call GainLayerImpl\.register"
    with pytest.warns(UserWarning, match=message):
        net.save_as_hdf5(tmp_path / "net.hdf5")
    with pytest.warns(UserWarning, match=message):
        data = pickle.dumps(net)
    assert type(pickle.loads(data).layers["Gain"]) is three


def test_types_of_the_library_keep_their_names(tmp_path):
    net = Network.from_layer(
        layers.Input({"default": ("T", "B", 1)}) >> layers.NoOp(name="A")
    )
    net.save_as_hdf5(tmp_path / "net.hdf5")
    library = LAYER_TYPES["NoOp"]
    stray = gain(2.0, name="NoOpLayerImpl")
    assert type(Network.from_hdf5(tmp_path / "net.hdf5").layers["A"]) is library
    assert factor_of(network(stray)) == 2
    with pytest.warns(UserWarning, match=r"'NoOp' means brainstorm\.layers\.noop"):
        network(stray).save_as_hdf5(tmp_path / "other.hdf5")
    try:
        stray.register()
        assert factor_of(Network.from_hdf5(tmp_path / "net.hdf5")) == 2
    finally:
        library.register()


def test_only_layers_can_be_wired():
    class OddLayerImpl:
        pass

    inp = layers.Input({"default": ("T", "B", 1)})
    with pytest.raises(LayerValidationError, match="OddLayerImpl.*no subclass"):
        Network.from_layer(inp >> ConstructionWrapper.create(OddLayerImpl))


def test_layers_of_layers_are_of_the_class_that_they_were_wired_by():
    def named(activation):
        class OwnLstmLayerImpl(get_layer_class_from_typename("Lstm")):
            own_activation = activation

        return OwnLstmLayerImpl

    first, _ = named("linear"), named("sigmoid")
    layer = layers.Bidirectional(ConstructionWrapper.create(first, size=2))
    net = Network.from_layer(layers.Input({"default": ("T", "B", 1)}) >> layer)
    assert {type(half) for half in net.layers["Bidirectional"].halves} == {first}


# -- checks that can be overridden -------------------------------------------


def test_own_checks_take_the_place_of_those_of_the_base():
    calls = []

    class LooseLayerImpl(gain(1.0)):
        def _validate_kwargs(self):
            calls.append(("kwargs", self.kwargs))

        def _validate_in_shapes(self):
            calls.append(("in_shapes", list(self.in_shapes)))

        def _validate_connections(self):
            ends = [c.end_layer for c in self.outgoing]
            calls.append(("connections", ends, list(self.out_shapes)))

    inp = layers.Input({"default": ("T", "B", 1), "b": ("T", "B", 1)})
    layer = ConstructionWrapper.create(LooseLayerImpl, unheard_of=3)
    inp >> layer >> layers.NoOp()
    inp - "b" >> "b" - layer
    net = Network.from_layer(layer)
    assert calls == [
        ("kwargs", {"unheard_of": 3}),
        ("in_shapes", ["default", "b"]),
        ("connections", ["NoOp"], ["default"]),
    ]
    assert list(net.layers["Loose"].in_shapes) == ["b", "default"]


@pytest.mark.parametrize(
    "check", ["_validate_kwargs", "_validate_in_shapes", "_validate_connections"]
)
def test_own_checks_may_refuse(check):
    def refuse(self):
        raise self.error("not today")

    with pytest.raises(LayerValidationError, match="^Gain layer 'Gain': not today$"):
        network(gain(1.0, **{check: refuse}))


def test_checks_of_the_base_can_be_extended():
    def _validate_kwargs(self):
        Layer._validate_kwargs(self)

    own = gain(1.0, _validate_kwargs=_validate_kwargs)
    with pytest.raises(LayerValidationError, match="unexpected argument 'size'"):
        network(own, size=2)


def test_inputs_are_sorted_by_name():
    class JoinLayerImpl(Layer):
        expected_inputs = {
            "b": StructureTemplate("T", "B", "..."),
            "a": StructureTemplate("T", "B", "..."),
            "C": StructureTemplate("T", "B", "..."),
        }

        def setup(self, kwargs, in_shapes):
            assert list(in_shapes) == ["C", "a", "b"]
            return {"default": self.like(in_shapes["a"])}, {}, {}

        def forward_pass(self, buffers, training_pass=True):
            C, a, b = buffers.inputs
            assert (C, a, b) == (buffers.inputs.C, buffers.inputs.a, buffers.inputs.b)

    layer = ConstructionWrapper.create(JoinLayerImpl)
    inp = layers.Input({n: ("T", "B", 1) for n in "aCb"})
    for name in "baC":
        inp - name >> name - layer
    Network.from_layer(layer).forward_pass()


def test_joined_inputs_keep_their_numbers():
    inp = layers.Input({f"x{i}": ("T", "B", 1) for i in range(12)})
    concat = layers.Concat()
    for i in range(12):
        inp - f"x{i}" >> f"inputs_{i + 1}" - concat
    net = Network.from_layer(concat)
    y = net.predict({f"x{i}": [[float(i)]] for i in range(12)})
    assert y.ravel().tolist() == list(range(12))


def test_passes_of_the_base_do_nothing():
    class IdleLayerImpl(Layer):
        def setup(self, kwargs, in_shapes):
            return {"default": BufferStructure("T", "B", 2)}, {}, {}

    net = network(IdleLayerImpl)
    net.provide_external_data({"default": np.ones((1, 3, 1))})
    net.forward_pass(training_pass=True)
    net.backward_pass()
    assert not net.get("Idle.outputs.default").any()


def test_a_layer_by_itself():
    structure = BufferStructure("T", "B", 3)
    layer = layers.noop_layer.NoOpLayerImpl(
        "one",
        {"default": structure},
        incoming_connections=["a"],
        outgoing_connections=["b"],
    )
    assert (layer.incoming, layer.outgoing, layer.kwargs) == (["a"], ["b"], {})


# -- deltas ------------------------------------------------------------------


@pytest.mark.parametrize("state", ["fresh", "added to", "unwanted"])
def test_deltas_are_overwritten_added_to_or_left_alone(state):
    shapes = {"default": BufferStructure("T", "B", 2)}
    layer = layers.noop_layer.NoOpLayerImpl("it", shapes)
    layer.set_handler(NumpyHandler(np.float64))
    layer.fresh = frozenset({"default"} if state == "fresh" else ())
    layer.unwanted = frozenset({"default"} if state == "unwanted" else ())
    rnd = np.random.RandomState(3)
    a, b, column, y = rnd.randn(4, 3, 2)
    column = column[:, :1].copy()
    before = rnd.randn(3, 2)
    mask = rnd.randint(0, 2, (3, 2)).astype(float)
    for operation, get_args, expected in (
        ("copy_to", lambda dx: (a, dx), a),
        ("fill", lambda dx: (dx, 3.0), np.full((3, 2), 3.0)),
        ("mult_mv", lambda dx: (a, column, dx), a * column),
        ("mult_st", lambda dx: (-2.0, a, dx), -2 * a),
        ("mult_tt", lambda dx: (a, b, dx), a * b),
        ("dropout_backward", lambda dx: (mask, a, dx), mask * a),
        ("act_backward", lambda dx: (a, y, b, dx, "tanh"), b * (1 - y * y)),
    ):
        dx = np.full((3, 2), np.nan) if state == "fresh" else before.copy()
        layer.add_deltas("default", operation, *get_args(dx))
        start = 0 if state == "fresh" else before
        changed = 0 if state == "unwanted" else expected
        np.testing.assert_allclose(dx, start + changed, rtol=1e-12, err_msg=operation)


# -- arguments ---------------------------------------------------------------


def test_an_argument_called_trainable_reaches_the_layer_that_expects_it():
    own = gain(1.0, expected_kwargs={"trainable"}, name="AwareLayerImpl")
    for layer_type in (own, "AwareLayerImpl"):
        for value in (False, True, "now and then"):
            net = network(layer_type, trainable=value)
            assert net.layers["Aware"].kwargs == {"trainable": value}
            assert "@trainable" not in net.architecture["Aware"]
        assert network(layer_type).layers["Aware"].kwargs == {}


def test_to_other_layers_trainable_is_whether_they_are_trained():
    for layer_type in (layers.fully_connected_layer.FullyConnectedLayerImpl,):
        layer = ConstructionWrapper.create(layer_type, size=2, trainable=False)
        assert generate_architecture(layer)["FullyConnected"]["@trainable"] is False


SIZED = {
    "FullyConnected": ({}, "size"),
    "Recurrent": ({}, "size"),
    "Lstm": ({}, "size"),
    "Gru": ({}, "size"),
    "Clockwork": ({}, "size"),
    "ClockworkLstm": ({}, "size"),
    "RecurrentLif": ({}, "size"),
    "Reservoir": ({}, "size"),
    "Attention": ({"heads": 1}, "size"),
    "Attention ": ({"size": 5}, "heads"),
    "PositionalEncoding": ({}, "length"),
    "Embedding": ({"vocabulary_size": 5}, "size"),
    "Embedding ": ({"size": 5}, "vocabulary_size"),
    "Convolution2D": ({"kernel_size": 1}, "num_filters"),
    "Convolution2D ": ({"num_filters": 1}, "kernel_size"),
    "Convolution2D  ": ({"num_filters": 1, "kernel_size": 1}, "stride"),
    "Convolution2D   ": ({"num_filters": 1, "kernel_size": 1}, "padding"),
    "ConvolutionTranspose2D": ({"kernel_size": 1}, "num_filters"),
    "ConvolutionTranspose2D ": ({"num_filters": 1}, "kernel_size"),
    "ConvolutionTranspose2D  ": ({"num_filters": 1, "kernel_size": 1}, "stride"),
    "ConvolutionTranspose2D   ": ({"num_filters": 1, "kernel_size": 1}, "padding"),
    "Convolution1D": ({"kernel_size": 1}, "num_filters"),
    "Convolution1D ": ({"num_filters": 1}, "kernel_size"),
    "Convolution1D  ": ({"num_filters": 1, "kernel_size": 1}, "stride"),
    "Convolution1D   ": ({"num_filters": 1, "kernel_size": 3}, "padding"),
    "Pooling2D": ({}, "kernel_size"),
    "Delay": ({}, "steps"),
    "Nvar": ({}, "delay"),
    "Nvar ": ({"delay": 2}, "stride"),
    "Reshape": ({}, "shape"),
}
NO_SIZES = [3.0, 2.5, True, "3", -1, 0, None, (), [], (2, 0), (1.0,), {"a": 1}, np.nan]
NO_SIZES += [np.float64(2), np.True_, np.array([1.5, 2]), np.array(1.5), 1j, object]
GOOD = [("FullyConnected", "None"), ("Reshape", "-1")]
GOOD += [(f"Convolution{kind}   ", "0") for kind in ("1D", "2D", "Transpose2D")]


def sized(key, value):
    kwargs, name = SIZED[key]
    kind = key.strip()
    shape = ("T", "B", 3, 3, 2) if "2D" in kind else ("T", "B", 2)
    if kind == "Embedding":
        shape = ("T", "B", 1)
    layer = getattr(layers, kind)(**kwargs, **{name: value})
    return Network.from_layer(layers.Input({"default": shape}) >> layer), kind, name


@pytest.mark.parametrize("value", NO_SIZES, ids=repr)
@pytest.mark.parametrize("key", SIZED)
def test_what_is_no_size_is_refused_by_name(key, value):
    if (key, repr(value)) in GOOD:
        return
    with pytest.raises(
        LayerValidationError, match=f"{key.strip()} .*as '{SIZED[key][1]}'"
    ):
        sized(key, value)


@pytest.mark.parametrize("number", [1, np.int64(1), np.uint8(1)], ids=type)
@pytest.mark.parametrize("key", [key for key in SIZED if key != "Reshape"])
def test_numpy_integers_are_sizes(key, number):
    net, kind, name = sized(key, number)
    value = getattr(net.layers[kind], name)
    assert value in (1, (1, 1))
    net.set_handler(NumpyHandler())
    net.initialize(1)
    steps = 1 if kind == "PositionalEncoding" else 2  # as many as it has positions
    shape = net.layers["Input"].out_shapes["default"].get_shape(steps, 2)
    net.provide_external_data({"default": np.zeros(shape)})
    net.forward_pass()


@pytest.mark.parametrize("key", ["FullyConnected", "Lstm", "Gru", "Embedding "])
@pytest.mark.parametrize("number", [10**30, 2**60])
def test_sizes_beyond_any_memory_are_refused_by_name(key, number):
    with pytest.raises(LayerValidationError, match=f"{key.strip()} .*fit into memory"):
        sized(key, number)


def test_every_argument_of_that_kind_is_among_them():
    counting = {"size", "num_filters", "kernel_size", "stride", "padding"}
    counting |= {"vocabulary_size", "shape", "steps", "delay", "heads", "length"}
    for name in layers.__all__:
        arguments = set(inspect.signature(getattr(layers, name)).parameters) & counting
        tested = {
            argument for key, (_, argument) in SIZED.items() if key.strip() == name
        }
        if name != "Pooling2D":  # which shares them with Convolution2D
            assert tested == arguments, name


ODD = ["x", b"x", 1j, [], {}, (1,), [2.5], np.array([1.0, 2.0]), object(), np.nan]
ODD += [-1, True, print, {1, 2}, "rel", iter([1]), 10**30, 2**62]


REQUIRED = {
    "Recurrent": {"size": 2},
    "Lstm": {"size": 2},
    "Gru": {"size": 2},
    "Clockwork": {"size": 2},
    "ClockworkLstm": {"size": 2},
    "RecurrentLif": {"size": 2},
    "Reservoir": {"size": 2},
    "Attention": {"size": 2, "heads": 1},
    "Convolution2D": {"num_filters": 2, "kernel_size": 1},
    "ConvolutionTranspose2D": {"num_filters": 2, "kernel_size": 1},
    "Convolution1D": {"num_filters": 2, "kernel_size": 1},
    "DeltasScaling": {"factor": 2.0},
    "Nvar": {"delay": 2},
    "Embedding": {"vocabulary_size": 3, "size": 2},
    "Input": {"out_shapes": {"default": ("T", "B", 2)}},
    "Pooling2D": {"kernel_size": 1},
    "Reshape": {"shape": -1},
}


@pytest.mark.parametrize("name", [n for n in layers.__all__ if n != "Bidirectional"])
def test_odd_arguments_give_errors_of_ours_if_any(name):
    function, required = getattr(layers, name), REQUIRED.get(name, {})
    shape = ("T", "B", 3, 3, 2) if "2D" in name or "Pooling" in name else ("T", "B", 2)
    input_names = get_layer_class_from_typename(name).expected_inputs
    for argument in inspect.signature(function).parameters:
        for value in ODD:
            with contextlib.suppress(BrainstormError):
                layer = function(**{**required, argument: value})
                if name != "Input":
                    inp = layers.Input(dict.fromkeys(input_names, shape))
                    for input_name in input_names:
                        inp - input_name >> input_name - layer
                Network.from_layer(layer)

import itertools

import numpy as np
import pytest

from brainstorm import layers
from brainstorm.handlers import NumpyHandler
from brainstorm.layers.highway_layer import HighwayLayerImpl
from brainstorm.structure.architecture import (
    generate_architecture,
    instantiate_layers_from_architecture,
)
from brainstorm.structure.buffer_structure import BufferStructure
from brainstorm.structure.buffers import (
    create_buffer_views_from_layout,
    get_total_size_slices_and_shapes,
)
from brainstorm.structure.layout import Hub, create_layout
from brainstorm.structure.network import Network
from brainstorm.utils import NetworkValidationError


def ordered(sources, sinks):
    structures = dict.fromkeys(sources, BufferStructure("T", "B", 1))
    return Hub.create(
        structures, {str(i): sink for i, sink in enumerate(sinks)}
    ).sources


def make_layers(some_layer):
    return instantiate_layers_from_architecture(generate_architecture(some_layer))


def make_views(some_layer, time_size=3, batch_size=2):
    """Views laid out by hand, as people do who test single layers."""
    hubs, layout = create_layout(make_layers(some_layer))
    total, slices, shapes = get_total_size_slices_and_shapes(
        hubs, time_size, batch_size
    )
    memory = np.arange(total, dtype=np.float32)
    buffers = [
        memory[s].reshape(shape) for s, shape in zip(slices, shapes, strict=True)
    ]
    return memory, create_buffer_views_from_layout(layout, buffers, hubs)


def two_consumers():
    inp = layers.Input({"default": ("T", "B", 4)})
    a = layers.FullyConnected(3, name="a")
    inp >> a
    a >> layers.FullyConnected(2, name="b")
    a >> layers.FullyConnected(2, name="c")
    return inp


def test_connected_buffers_are_the_same_memory():
    memory, views = make_views(two_consumers())
    for path in ("b.inputs.default", "c.inputs.default"):
        assert np.array_equal(views[path], views["a.outputs.default"])
        assert np.shares_memory(views[path], views["a.outputs.default"])
    assert views["a.outputs.default"].base is memory
    assert not np.shares_memory(views["b.outputs.default"], views["c.outputs.default"])


def test_a_layer_without_connections_can_be_laid_out_by_itself():
    shapes = {"H": (4,), "T": (4,), "x": (4,)}
    layer = HighwayLayerImpl(
        "one",
        {n: BufferStructure("T", "B", *s) for n, s in shapes.items()},
        incoming=set(),
        outgoing=set(),
    )
    hubs, layout = create_layout({"one": layer})
    total, slices, shapes = get_total_size_slices_and_shapes(hubs, 3, 2)
    memory = np.random.RandomState(0).rand(total)
    buffers = [memory[s].reshape(n) for s, n in zip(slices, shapes, strict=True)]
    view = create_buffer_views_from_layout(layout, buffers, hubs).one
    layer.set_handler(NumpyHandler(np.float64))
    layer.forward_pass(view)
    H, T, x = view.inputs
    assert np.allclose(view.outputs.default, T * H + (1 - T) * x)
    before = view.input_deltas.x.copy()
    layer.backward_pass(view)
    expected = before + (1 - T) * view.output_deltas.default
    assert np.allclose(view.input_deltas.x, expected)
    assert not np.shares_memory(view.inputs.x, view.input_deltas.x)


def test_views_come_in_the_promised_order():
    _, views = make_views(two_consumers())
    assert list(views._asdict()) == ["parameters", "gradients", "Input", "a", "b", "c"]
    assert list(views.a._asdict()) == [
        "inputs",
        "outputs",
        "parameters",
        "internals",
        "input_deltas",
        "output_deltas",
        "gradients",
    ]


def test_parameters_lie_in_one_flat_array_by_the_names_of_layers():
    inp = layers.Input({"default": ("T", "B", 4)})
    z = inp >> layers.FullyConnected(3, name="z")
    z >> layers.FullyConnected(2, name="B") >> layers.FullyConnected(2, name="a")
    _, views = make_views(inp)
    assert list(views._asdict())[2:] == ["Input", "z", "B", "a"]
    for kind in ("parameters", "gradients"):
        pieces = [p.ravel() for name in ("B", "a", "z") for p in views[name][kind]]
        assert np.array_equal(np.concatenate(pieces), views[kind])


def test_parameters_lie_in_one_flat_array():
    _, views = make_views(two_consumers())
    pieces = [p.ravel() for name in "abc" for p in views[name].parameters]
    assert np.array_equal(np.concatenate(pieces), views.parameters)
    assert views.parameters.shape == (15 + 8 + 8,)
    W, bias = views.a.parameters
    assert (W.shape, bias.shape) == ((3, 4), (3,))
    assert np.shares_memory(views.a.parameters._full_buffer, W)
    assert views.a.parameters._full_buffer.shape == (15,)


def joined():
    inp = layers.Input({"default": ("T", "B", 4)})
    a = layers.FullyConnected(3, name="a")
    b = layers.FullyConnected((2, 2), name="b")
    both = layers.NoOp(name="both")
    inp >> a >> both
    inp >> b >> both
    return inp


def test_several_outputs_join_along_the_features():
    _, views = make_views(joined())
    whole = views["both.inputs.default"]
    assert whole.shape == (3, 2, 7)
    a, b = views["a.outputs.default"], views["b.outputs.default"]
    assert np.array_equal(whole, np.concatenate([a, b.reshape(3, 2, 4)], axis=2))
    assert np.shares_memory(whole, a)
    assert np.shares_memory(whole, b)


def test_joined_outputs_lie_in_the_first_order_of_paths():
    """The first permutation in which the members of each input stand together."""
    inp = layers.Input({"default": ("T", "B", 4)})
    sources = {n: layers.FullyConnected(1, name=n) for n in ("z", "a", "m", "a_1")}
    previous = inp
    for layer in sources.values():  # they run in this order
        previous >> layer
        previous = layer
    groups = [("z", "a", "m", "a_1"), ("z", "a"), ("m", "a_1")]
    for i, group in enumerate(groups):
        end = layers.NoOp(name=f"end{i}")
        for name in group:
            sources[name] >> end
    hubs, _ = create_layout(make_layers(inp))
    for kind in ("outputs", "output_deltas"):
        (hub,) = (h for h in hubs if f"a.{kind}.default" in h.sources)
        assert hub.sources == first_by_brute_force(
            sorted(f"{name}.{kind}.default" for name in sources),
            [{f"{name}.{kind}.default" for name in group} for group in groups],
        )


def test_joined_networks_run_and_learn():
    net = Network.from_layer(joined())
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(lambda shape: np.ones(shape))
    net.provide_external_data({"default": np.arange(24.0).reshape(3, 2, 4)})
    net.forward_pass()
    sums = np.arange(24.0).reshape(3, 2, 4).sum(axis=2, keepdims=True) + 1
    assert np.array_equal(net.get("both.outputs.default"), np.repeat(sums, 7, axis=2))


def first_by_brute_force(sources, sinks):
    for order in itertools.permutations(sources):
        places = [[order.index(m) for m in sink] for sink in sinks]
        if all(max(p) - min(p) == len(p) - 1 for p in places):
            return list(order)
    raise AssertionError


def brute_force(sources, sinks):
    """Whether any order puts the members of each sink side by side."""
    for order in itertools.permutations(sources):
        places = [sorted(order.index(m) for m in sink) for sink in sinks]
        if all(p[-1] - p[0] == len(p) - 1 for p in places):
            return True
    return False


def test_orders_are_found_where_there_are_any():
    rnd = np.random.RandomState(0)
    found = 0
    for _ in range(300):
        sources = list("abcdef")
        sinks = [
            list(rnd.choice(sources, rnd.randint(2, 5), replace=False))
            for _ in range(rnd.randint(1, 5))
        ]
        possible = brute_force(sources, sinks)
        found += possible
        if possible:
            order = ordered(sources, sinks)
            assert brute_force([*order], sinks)
            for sink in sinks:
                places = sorted(order.index(m) for m in sink)
                assert places[-1] - places[0] == len(places) - 1
        else:
            with pytest.raises(NetworkValidationError, match="no order of outputs"):
                ordered(sources, sinks)
    assert 50 < found < 250


def test_thousands_of_outputs_join():
    inp = layers.Input({"default": ("T", "B", 1)})
    ends = [layers.NoOp(name=f"end{i}") for i in range(3)]
    for i in range(3000):
        middle = inp >> layers.NoOp(name=f"L{i:04}")
        middle >> ends[0]
        if i < 2000:
            middle >> ends[1]
        if i >= 1000:
            middle >> ends[2]
    hubs, _ = create_layout(make_layers(inp))
    (hub,) = (hub for hub in hubs if "end0.inputs.default" in hub.sinks)
    assert hub.slices["end0.inputs.default"] == (0, 3000)
    starts = hub.slices["end1.inputs.default"], hub.slices["end2.inputs.default"]
    assert starts == ((0, 2000), (1000, 3000))


def test_impossible_wiring_names_the_conflict():
    inp = layers.Input({"default": ("T", "B", 4)})
    a, b, c, d = (layers.FullyConnected(2, name=n) for n in "abcd")
    for layer in (a, b, c, d):
        inp >> layer
    for i, pair in enumerate([(a, b), (a, c), (a, d)]):
        end = layers.NoOp(name=f"end{i}")
        for layer in pair:
            layer >> end
    with pytest.raises(NetworkValidationError, match=r"a.outputs.default \+ b.outputs"):
        create_layout(make_layers(inp))


def test_backward_only_hubs_are_marked():
    hubs, _ = create_layout(make_layers(two_consumers()))
    for hub in hubs:
        kinds = {source.split(".")[1] for source in hub.sources}
        names = {source.split(".")[2] for source in hub.sources}
        backward = bool(kinds & {"gradients", "output_deltas"}) or names == {"dH"}
        assert hub.is_backward_only == backward

import itertools

import pytest

import brainstorm as bs
from brainstorm import layers
from brainstorm.viewer.graph import connection_label, lay_out


def diamond():
    inp = layers.Input({"default": ("T", "B", 3), "targets": ("T", "B", 2)})
    a, b = (layers.FullyConnected(4, name=name) for name in "ab")
    join, out = layers.FullyConnected(2, name="join"), layers.SquaredError("Error")
    inp >> a >> join >> out
    inp >> b >> join
    inp - "targets" >> "targets" - out - "loss" >> layers.Loss()
    return bs.Network.from_layer(inp)


def boxes(graph):
    for node in graph["nodes"]:
        half = node["width"] / 2
        yield node["x"] - half, node["x"] + half, node["y"], node["y"] + node["height"]


@pytest.fixture(params=["diamond", "deep", "many ways"])
def net(request):
    if request.param == "diamond":
        return diamond()
    if request.param == "deep":
        spec = " ".join(["F5"] * 30)
        return bs.tools.create_net_from_spec("classification", 4, 3, spec)
    inp = layers.Input({"default": ("T", "B", 3)})
    known = [inp]
    for i in range(8):
        new = layers.FullyConnected(2, name=f"layer_with_a_long_name_{i}")
        for one in known:
            one >> new
        known.append(new)
    return bs.Network.from_layer(inp)


def test_boxes_do_not_overlap_and_lie_in_the_drawing(net):
    graph = lay_out(net.layers)
    assert [node["name"] for node in graph["nodes"]] == list(net.layers)
    for left, right, top, bottom in boxes(graph):
        assert 0 <= left < right <= graph["width"]
        assert 0 <= top < bottom <= graph["height"]
    for one, other in itertools.combinations(boxes(graph), 2):
        beside = one[1] <= other[0] or other[1] <= one[0]
        assert beside or one[3] <= other[2] or other[3] <= one[2]


def test_connections_go_down_from_box_to_box_and_around_others(net):
    graph = lay_out(net.layers)
    place = {node["name"]: node for node in graph["nodes"]}
    expected = {
        (c.start_layer, c.end_layer)
        for layer in net.layers.values()
        for c in layer.outgoing
    }
    assert {(e["start"], e["end"]) for e in graph["edges"]} == expected
    assert len(graph["edges"]) == len(expected)
    for edge in graph["edges"]:
        start, end = place[edge["start"]], place[edge["end"]]
        assert edge["points"][0] == [start["x"], start["y"] + start["height"]]
        assert edge["points"][-1] == [end["x"], end["y"]]
        heights = [y for _, y in edge["points"]]
        assert heights == sorted(heights)
        for x, y in edge["points"][1:-1]:
            for left, right, top, bottom in boxes(graph):
                assert not (left < x < right and top <= y <= bottom)


def test_labels_and_kinds():
    graph = lay_out(diamond().layers)
    labels = {(e["start"], e["end"]): e["label"] for e in graph["edges"]}
    assert labels["Input", "Error"] == "targets"
    assert labels["Error", "Loss"] == "loss"
    assert labels["a", "join"] == ""
    kinds = {node["name"]: node["kind"] for node in graph["nodes"]}
    assert kinds == {
        "Input": "input",
        "a": "learns",
        "b": "learns",
        "join": "learns",
        "Error": "layer",
        "Loss": "loss",
    }
    assert connection_label("default", "default") == ""
    assert connection_label("default", "targets") == "to targets"
    assert connection_label("mask", "targets") == "mask to targets"


def test_feedback_is_marked():
    inp = layers.Input({"default": ("T", "B", 3)})
    one = layers.FullyConnected(4, name="one")
    two = layers.FullyConnected(4, name="two")
    inp >> one >> two
    one << two
    graph = lay_out(bs.Network.from_layer(inp).layers)
    (back,) = [edge for edge in graph["edges"] if edge["feedback"]]
    assert (back["start"], back["end"]) == ("two", "one")
    ranks = {node["name"]: node["y"] for node in graph["nodes"]}
    assert ranks["Input"] < ranks["one"] < ranks["two"]


def test_a_network_of_nothing_but_its_input():
    net = bs.Network.from_layer(layers.Input({"default": ("T", "B", 3)}))
    graph = lay_out(net.layers)
    assert [node["name"] for node in graph["nodes"]] == ["Input"]
    assert graph["edges"] == []

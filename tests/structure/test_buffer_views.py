import copy
import pickle

import numpy as np
import pytest

import brainstorm as bs
from brainstorm.structure.buffer_views import BufferView


def tree():
    inner = BufferView(["x", "y"], [1, 2], full_buffer=12)
    return BufferView(["a", "items"], [inner, 3])


def test_children_by_name_index_and_path():
    view = tree()
    assert view.a is view[0] is view["a"]
    assert view["a.y"] == view.a.y == 2
    assert view[-1] == 3
    x, y = view.a
    assert (x, y) == (1, 2)
    assert len(view) == 2
    assert view.a._full_buffer == 12


def test_names_of_list_methods_are_good_names():
    view = tree()
    assert view.items == 3
    assert BufferView.items(view) == [("a", view.a), ("items", 3)]


def test_behaves_like_a_dict():
    inner = tree().a
    assert inner.keys() == {"x", "y"}
    assert list(inner.values()) == [1, 2]
    assert list(inner.items()) == [("x", 1), ("y", 2)]
    assert "x" in inner
    assert "z" not in inner


def test_unknown_names_list_the_choices():
    view = tree()
    with pytest.raises(KeyError, match=r"no buffer 'b' in path 'b'.*'a', 'items'"):
        view["b"]
    with pytest.raises(KeyError, match=r"no buffer 'z' in path 'a.z'.*'x', 'y'"):
        view["a.z"]
    with pytest.raises(KeyError, match=r"'q' in path 'a.x.q'; choices are: \(none\)"):
        view["a.x.q"]
    with pytest.raises(AttributeError, match="no buffer 'b'; choices are: 'a'"):
        _ = view.b
    assert not hasattr(view, "_private")


@pytest.mark.parametrize(
    "look",
    [
        lambda view: view.y,
        lambda view: view["y"],
        lambda view: view[1],
        lambda view: list(view)[1],
        lambda view: dict(view.items())["y"],
        lambda view: 2 if "y" in view else None,
        len,
    ],
)
def test_incomplete_views_complete_themselves(look):
    calls = []

    def complete():
        calls.append(1)
        BufferView.fill(view, ["x", "y"], [1, 2], None)

    view = BufferView(["x"], [1], complete=complete)
    assert view.x == view["x"] == 1
    assert "x" in view
    assert calls == []
    assert look(view) == 2
    look(view)
    assert calls == [1]


@pytest.mark.parametrize(
    "look", [copy.copy, copy.deepcopy, pickle.dumps, lambda v: v == v]
)
def test_copying_completes_a_view(look):
    view = BufferView(["x"], [1], complete=lambda: view.adjust(["x", "y"], [1, 2]))
    look(view)
    assert view.y == 2


def arrays():
    inner = BufferView(["W", "keys"], [np.ones((2, 3)), np.zeros(4)])
    return BufferView(["_complete", "adjust"], [inner, np.arange(3.0)], np.arange(9.0))


def test_views_are_equal_if_names_and_values_are():
    assert arrays() == arrays()
    other = arrays()
    other["_complete.W"][0, 1] = 2
    assert arrays() != other
    assert arrays() != BufferView(["a", "adjust"], list(arrays()))
    assert arrays() != BufferView(["adjust", "_complete"], list(arrays())[::-1])
    assert arrays() != BufferView([], [])
    assert arrays() != [1, 2]
    assert BufferView(["a"], [np.ones(3)]) != BufferView(["a"], [np.ones((3, 1))])


def test_shallow_copies_share_their_buffers():
    view = arrays()
    other = copy.copy(view)
    assert type(other) is BufferView
    assert other is not view
    assert other == view
    assert other["adjust"] is view["adjust"]
    assert other._full_buffer is view._full_buffer


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda view: pickle.loads(pickle.dumps(view))]
)
def test_deep_copies_have_buffers_of_their_own(duplicate):
    view = arrays()
    other = duplicate(view)
    assert other == view
    assert list(other._asdict()) == list(view._asdict())
    assert np.array_equal(other._full_buffer, view._full_buffer)
    other["_complete.W"][...] = 7
    assert np.all(view["_complete.W"] == 1)


def test_whole_trees_are_copied():
    net = bs.tools.create_net_from_spec("classification", 4, 3, "F5 L3")
    net.provide_external_data(
        {"default": np.ones((2, 3, 4)), "targets": np.zeros((2, 3, 1))}
    )
    net.forward_pass()
    for duplicate in (copy.deepcopy, lambda view: pickle.loads(pickle.dumps(view))):
        other = duplicate(net.buffer)
        assert other == net.buffer
        assert other.Lstm.outputs.default is not net.buffer.Lstm.outputs.default


def test_views_can_be_adjusted():
    view = tree().a
    view.remembered = 3
    assert view.adjust(["y", "z"], [5, 6], full_buffer=56) is view
    assert view._asdict() == {"y": 5, "z": 6}
    assert list(view) == [5, 6]
    assert view._full_buffer == 56
    assert not hasattr(view, "x")
    assert not hasattr(view, "remembered")
    assert view.adjust([], [])._full_buffer is None
    with pytest.raises(ValueError, match="got 1 buffers for 2 names"):
        view.adjust(["a", "b"], [1])


def test_names_are_a_set():
    assert isinstance(tree().a.keys(), set)
    assert tree().a.keys() == {"x", "y"}
    assert tree().a.keys() & {"y", "z"} == {"y"}


def test_names_and_buffers_have_to_match():
    with pytest.raises(ValueError, match="got 1 buffers for 2 names"):
        BufferView(["a", "b"], [1])

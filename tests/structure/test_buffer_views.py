import pytest

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
    assert list(inner.keys()) == ["x", "y"]
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


def test_names_and_buffers_have_to_match():
    with pytest.raises(ValueError, match="got 1 buffers for 2 names"):
        BufferView(["a", "b"], [1])

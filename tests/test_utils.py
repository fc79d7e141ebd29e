import importlib.metadata
import json
import math
from pathlib import Path

import numpy as np
import pytest

from brainstorm import utils
from brainstorm.utils import (
    BrainstormError,
    HandlerError,
    ValidationError,
    flatten_all_but_last,
    flatten_features,
    flatten_keys,
    flatten_time,
    flatten_time_and_features,
    get_by_path,
    get_inheritors,
    is_valid_layer_name,
    listing,
    missing_extra,
    progress_bar,
)


def test_exceptions_are_of_one_family():
    assert issubclass(ValidationError, ValueError)
    for name in ("Network", "Layer", "Iterator", "Structure"):
        assert issubclass(getattr(utils, f"{name}ValidationError"), ValidationError)
    assert issubclass(utils.FileFormatError, OSError)
    assert issubclass(utils.MissingInputError, KeyError)
    for name in utils.__all__:
        if name.endswith("Error"):
            assert issubclass(getattr(utils, name), BrainstormError)


def test_missing_input_error_shows_its_message_unquoted():
    assert str(utils.MissingInputError("no 'targets'")) == "no 'targets'"


def test_listing():
    assert listing(["a", 3]) == "'a', 3"
    assert listing([]) == "(none)"


def test_missing_extra_gives_the_command():
    error = missing_extra("draw_network", "pygraphviz", "draw-net")
    assert isinstance(error, ImportError)
    clone = Path(utils.__file__).resolve().parents[1]
    assert str(error).endswith(f'Install it with: pip install "{clone}[draw-net]"')
    assert "draw_network needs pygraphviz" in str(error)


INSTALLED = (
    "Name: brainstorm\nVersion: 0.6.0\nRequires-Dist: bokeh>=3.1; extra == 'viz'\n"
)


@pytest.mark.parametrize(
    ("source", "command"),
    [
        (
            {
                "url": "https://a.org/b.git",
                "vcs_info": {"vcs": "git", "commit_id": "c"},
            },
            'pip install "brainstorm[viz] @ git+https://a.org/b.git@c"',
        ),
        (
            {"url": "file://FOLDER/a%20b", "dir_info": {}},
            'pip install "FOLDER/a b[viz]"',
        ),
        ({"url": "file://FOLDER/is/gone", "dir_info": {}}, 'pip install "bokeh>=3.1"'),
        (
            {"url": "https://a.org/b.whl", "archive_info": {}},
            'pip install "bokeh>=3.1"',
        ),
        (None, 'pip install "bokeh>=3.1"'),
    ],
)
def test_missing_extra_tells_where_the_library_came_from(
    tmp_path, monkeypatch, source, command
):
    metadata = tmp_path / "brainstorm-0.6.0.dist-info"
    for folder in (metadata, tmp_path / "a b"):
        folder.mkdir()
    (metadata / "METADATA").write_text(INSTALLED)
    if source is not None:
        text = json.dumps(source).replace("FOLDER", str(tmp_path))
        (metadata / "direct_url.json").write_text(text)
    found = importlib.metadata.Distribution.at(metadata)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: found)
    monkeypatch.setattr(utils, "__file__", str(tmp_path / "brainstorm" / "utils.py"))
    error = missing_extra("hook", "Bokeh", "viz")
    assert str(error).endswith(command.replace("FOLDER", str(tmp_path)))


def test_missing_extra_of_a_library_that_was_only_copied(tmp_path, monkeypatch):
    def not_installed(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", not_installed)
    monkeypatch.setattr(utils, "__file__", str(tmp_path / "brainstorm" / "utils.py"))
    error = missing_extra("hook", "Bokeh", "viz")
    assert 'pip install ".[viz]" in the folder of a clone' in str(error)


# -- names and paths ---------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "Lstm_1", "_x", "größe", "match", "in"])
def test_valid_layer_names(name):
    assert is_valid_layer_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "1a", "a b", "a.b", "a-b", "default", "fallback", "parameters", None, 3],
)
def test_invalid_layer_names(name):
    assert not is_valid_layer_name(name)


def test_get_by_path():
    tree = {"a": {"b": {"c": 1}}, "d": 2}
    assert get_by_path(tree, "a.b.c") == 1
    assert get_by_path(tree, "a.b") == {"c": 1}
    with pytest.raises(KeyError, match=r"no 'x' in path 'a\.x'.*'b'"):
        get_by_path(tree, "a.x")
    with pytest.raises(KeyError, match=r"no 'e'.*\(none\)"):
        get_by_path(tree, "d.e")


def test_flatten_keys_gives_paths_that_get_by_path_finds():
    tree = {"a": {"b": {"c": 1}, "e": [3]}, "d": 2}
    paths = flatten_keys(tree)
    assert paths == ["a.b.c", "a.e", "d"]
    assert [get_by_path(tree, p) for p in paths] == [1, [3], 2]


def test_get_inheritors_finds_grandchildren_once():
    class A: ...

    class B(A): ...

    class C(A): ...

    class D(B, C): ...

    assert get_inheritors(A) == {B, C, D}
    assert get_inheritors(D) == set()


# -- reshaping ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "shape", "expected"),
    [
        (flatten_time, (2, 3, 4, 5), (6, 4, 5)),
        (flatten_time, (2, 3), (6,)),
        (flatten_time_and_features, (2, 3, 4, 5), (6, 20)),
        (flatten_time_and_features, (2, 3), (6, 1)),
        (flatten_features, (2, 3, 4, 5), (2, 3, 20)),
        (flatten_all_but_last, (2, 3, 4, 5), (24, 5)),
        (flatten_all_but_last, (5,), (1, 5)),
        (flatten_all_but_last, (0, 5), (0, 5)),
    ],
)
def test_flattening_gives_views(function, shape, expected):
    array = np.arange(math.prod(shape)).reshape(shape)
    flat = function(array)
    assert flat.shape == expected
    np.testing.assert_array_equal(flat.ravel(), array.ravel())
    assert flat.size == 0 or np.shares_memory(flat, array)


# -- reporting ---------------------------------------------------------------


def test_progress_bar_prints_each_part_once():
    bar = progress_bar(10, prefix="[", bar="0123456789", suffix="] {0}\n")
    out = [next(bar)]
    out += [bar.send(v) for v in (1, 2.5, 2, 9)]
    assert out == ["[", "0", "1", "", "2345678"]
    last = bar.send(12)
    assert last.startswith("9] 0:0")
    with pytest.raises(StopIteration):
        bar.send(13)


def test_progress_bar_of_nothing_is_full_at_once():
    bar = progress_bar(0, prefix="", bar="ab", suffix="!")
    next(bar)
    assert bar.send(0) == "ab!"


def test_flattening_refuses_to_copy():
    joined = np.zeros((2, 3, 20))
    image = joined[:, :, 4:16].reshape(2, 3, 2, 2, 3)
    assert np.shares_memory(flatten_time_and_features(image), joined)
    with pytest.raises(HandlerError, match=r"shape \(2, 3, 2, 2, 3\).*shape \(24, 3\)"):
        flatten_all_but_last(image)

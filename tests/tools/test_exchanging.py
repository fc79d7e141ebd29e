import os
import struct
import sys

import numpy as np
import pytest

from brainstorm import layers
from brainstorm.handlers import NumpyHandler
from brainstorm.initializers import Gaussian
from brainstorm.structure.network import Network
from brainstorm.tools import load_safetensors, save_safetensors
from brainstorm.utils import FileFormatError, MissingFileError, ValidationError

safetensors = pytest.importorskip("safetensors.numpy")


@pytest.fixture
def net():
    inp = layers.Input({"default": ("T", "B", 4)})
    inp >> layers.Lstm(3) >> layers.FullyConnected((2, 5), name="Out")
    net = Network.from_layer(inp)
    net.initialize(Gaussian(0.3), seed=1)
    return net


@pytest.fixture
def path(net, tmp_path):
    path = tmp_path / "net.safetensors"
    save_safetensors(net, path)
    return path


def test_names_and_values(net, path):
    tensors = safetensors.load_file(path)
    assert len(tensors) == 15 + 2
    assert tensors["Out.W"].shape == (10, 3)
    assert tensors["Lstm.pi"].dtype == np.float32
    for name, tensor in tensors.items():
        layer, parameter = name.split(".")
        found = net.get(f"{layer}.parameters.{parameter}")
        np.testing.assert_array_equal(tensor, found)


def test_parameters_come_back(net, path):
    parameters = net.get("parameters")
    net.initialize(0)
    load_safetensors(net, path)
    np.testing.assert_array_equal(net.get("parameters"), parameters)
    net.set_handler(NumpyHandler(np.float64))
    load_safetensors(net, path)
    np.testing.assert_array_equal(net.get("parameters"), parameters)
    save_safetensors(net, path)
    assert safetensors.load_file(path)["Out.W"].dtype == np.float64
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("Out.W"), r"lacks 'Out.W', and it has \(none\)"),
        (lambda t: t.update(x=t["Out.W"]), r"lacks \(none\), and it has 'x'"),
        (
            lambda t: t.update({"Out.W": np.ones(30)}),
            r"'Out.W' .* got \(30,",
        ),
        (lambda t: t.update({"Out.W": np.ones((10, 3), int)}), "floats as 'Out.W'"),
    ],
)
def test_other_parameters_change_nothing(net, path, change, message):
    tensors = safetensors.load_file(path)
    change(tensors)
    safetensors.save_file(tensors, path)
    net.initialize(0)
    with pytest.raises(ValidationError, match=message):
        load_safetensors(net, path)
    assert not net.get("parameters").any()


def test_damaged_files(net, path):
    whole = path.read_bytes()
    header = b'{"Out.W":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4]}}'
    for content in (
        b"",
        b"hello world",
        whole[:100],
        whole[:-1],
        struct.pack("<Q", 2**60) + whole[8:],
        struct.pack("<Q", len(header)) + header + b"0000",
        whole.replace(b"F32", b"F99"),
    ):
        path.write_bytes(content)
        with pytest.raises(FileFormatError, match=r"can not read .*net\.safetensors"):
            load_safetensors(net, path)
    with pytest.raises(MissingFileError, match="there is no file"):
        load_safetensors(net, path.parent / "missing")
    with pytest.raises(MissingFileError, match="no folder"):
        save_safetensors(net, path.parent / "missing" / "file")


def test_files_of_other_kinds_are_not_replaced(net, path):
    path.write_text("some text")
    with pytest.raises(FileFormatError, match="no safetensors file"):
        save_safetensors(net, path)
    assert path.read_text() == "some text"
    with pytest.raises(ValidationError, match="the name of a file, got None"):
        load_safetensors(net, None)
    path.unlink()
    for _ in range(2):
        save_safetensors(net, path)


def test_missing_package(net, path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    for function in (save_safetensors, load_safetensors):
        with pytest.raises(ImportError, match=r"pip install .*\[safetensors\]"):
            function(net, path)


def test_shared_parameters_have_one_value(tmp_path):
    inp = layers.Input({"default": ("T", "B", 4)})
    first = layers.FullyConnected(4, name="First")
    inp >> first >> layers.FullyConnected(4, name="Second").share(first, "W")
    net = Network.from_layer(inp)
    net.initialize(Gaussian(0.3), seed=1)
    path, before = tmp_path / "net.safetensors", net.get("parameters")
    save_safetensors(net, path)
    load_safetensors(net, path)
    tensors = safetensors.load_file(path)
    for name in ("First.W", "Second.W"):
        safetensors.save_file({**tensors, name: tensors[name] + 1}, path)
        with pytest.raises(ValidationError, match=r"'Second\.W' and 'First\.W'"):
            load_safetensors(net, path)
        np.testing.assert_array_equal(net.get("parameters"), before)

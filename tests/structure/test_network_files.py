import json
import os

import h5py
import numpy as np
import pytest

import brainstorm as bs
from brainstorm import layers
from brainstorm.handlers import NumpyHandler
from brainstorm.utils import FileFormatError, HandlerError


def make_network():
    inp = layers.Input({"default": ("T", "B", 4)})
    inp >> layers.FullyConnected(5, "tanh", name="Hid")
    net = bs.Network.from_layer(inp)
    net.initialize(bs.Gaussian(0.3), seed=1)
    net.output_name = "Hid.outputs.default"
    return net


@pytest.fixture
def saved(tmp_path):
    net = make_network()
    filename = tmp_path / "net.hdf5"
    net.save_as_hdf5(filename, comment="a first try")
    return net, filename


def test_networks_come_back_the_same(saved):
    net, filename = saved
    again = bs.Network.from_hdf5(filename)
    assert np.array_equal(again.get("parameters"), net.get("parameters"))
    assert bs.get_description(again) == bs.get_description(net)
    x = np.random.RandomState(0).randn(2, 3, 4)
    for n in (net, again):
        n.provide_external_data({"default": x})
        n.forward_pass()
    path = "Hid.outputs.default"
    assert np.array_equal(net.get(path), again.get(path))


class AbsentHandler(NumpyHandler):
    """A handler that needs what this machine lacks, once `absent` is set."""

    absent = None

    def __init__(self, dtype=np.float32, seed=None):
        super().__init__(dtype, seed)
        if self.absent is not None:
            raise self.absent

    def __init_from_description__(self, description):
        self.__init__()


@pytest.mark.parametrize(
    "error", [ImportError("pip install what?"), HandlerError("found no GPU")]
)
def test_networks_load_where_their_handler_can_not_run(tmp_path, monkeypatch, error):
    net = make_network()
    net.set_handler(AbsentHandler())
    net.save_as_hdf5(tmp_path / "net.hdf5")
    monkeypatch.setattr(AbsentHandler, "absent", error)
    with pytest.warns(UserWarning, match=f"default handler instead .*: {error}"):
        again = bs.Network.from_hdf5(tmp_path / "net.hdf5")
    assert again.handler is bs.handlers.default_handler
    assert np.array_equal(again.get("parameters"), net.get("parameters"))


def test_the_file_is_laid_out_as_promised(saved):
    net, filename = saved
    with h5py.File(filename, "r") as f:
        assert f.attrs["format"] == b"Network file v1.0"
        assert f.attrs["info"] == f"Created with brainstorm {bs.__version__}".encode()
        assert f.attrs["comment"] == b"a first try"
        description = json.loads(f["description"][()].decode())
        assert set(description) == {
            "@type",
            "architecture",
            "handler",
            "initializers",
            "gradient_modifiers",
            "weight_modifiers",
            "output_name",
        }
        assert np.array_equal(f["parameters"], net.get("parameters"))
        assert f["parameters"].compression == "gzip"


def test_double_precision_survives(tmp_path):
    net = make_network()
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(bs.Gaussian(0.3), seed=1)
    net.save_as_hdf5(tmp_path / "net.hdf5")
    again = bs.Network.from_hdf5(tmp_path / "net.hdf5")
    assert again.handler.dtype == np.float64
    assert np.array_equal(again.get("parameters"), net.get("parameters"))


def test_saving_replaces_a_file_in_one_go(saved, monkeypatch):
    net, filename = saved
    os.chmod(filename, 0o640)
    before = filename.read_bytes()

    def fail(*args, **kwargs):
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(h5py.File, "create_dataset", fail)
        with pytest.raises(OSError, match="disk full"):
            net.save_as_hdf5(filename)
    assert filename.read_bytes() == before
    assert os.listdir(filename.parent) == [filename.name]
    net.initialize(0.5)
    net.save_as_hdf5(filename)
    assert np.all(bs.Network.from_hdf5(filename).get("parameters") == 0.5)
    assert filename.stat().st_mode & 0o777 == 0o640


def test_folders_have_to_exist(saved):
    net, filename = saved
    with pytest.raises(FileNotFoundError, match="no folder"):
        net.save_as_hdf5(filename.parent / "missing" / "net.hdf5")
    with pytest.raises(FileNotFoundError, match="no file"):
        bs.Network.from_hdf5(filename.parent / "other.hdf5")


def rewrite(filename, change):
    with h5py.File(filename, "r+") as f:
        change(f)


def description_with(**changes):
    def change(f):
        description = json.loads(f["description"][()].decode())
        description.update({k.replace("at_", "@"): v for k, v in changes.items()})
        text = json.dumps(description).encode()
        del f["description"]
        f["description"] = np.bytes_(text)

    return change


def replace(name, value):
    def change(f):
        del f[name]
        f[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.attrs.__delitem__("format"), "format attribute is None"),
        (lambda f: f.__delitem__("parameters"), "no dataset 'parameters'"),
        (lambda f: f.__delitem__("description"), "no dataset 'description'"),
        (
            replace("parameters", np.zeros(7)),
            r"'parameters' to have the shape \(25,\), got \(7,",
        ),
        (replace("parameters", np.zeros((5, 5))), r"\(25,\), got \(5, 5\)"),
        (replace("description", b"{"), "line 1 column 2"),
        (replace("description", b"[]"), "'@type': 'Network'"),
        (description_with(architecture={}), "exactly one layer of type 'Input'"),
        (description_with(layers={}), "expected the keys .* 'layers'"),
        (description_with(at_type="Gaussian"), "'@type': 'Network'"),
        (description_with(handler={"@type": "os.system"}), "os.system"),
        (description_with(output_name=3), "output_name"),
        (description_with(initializers=3), "initializers"),
        (description_with(weight_modifiers=[3]), "weight_modifiers"),
    ],
)
def test_damaged_files_are_refused(saved, change, message):
    _, filename = saved
    rewrite(filename, change)
    with pytest.raises(FileFormatError, match=message):
        bs.Network.from_hdf5(filename)


def test_truncated_and_foreign_files_are_refused(saved):
    _, filename = saved
    whole = filename.read_bytes()
    for content in (b"", b"hello", whole[: len(whole) // 2], whole[:-700]):
        filename.write_bytes(content)
        with pytest.raises(FileFormatError, match=r"net\.hdf5"):
            bs.Network.from_hdf5(filename)


def test_a_file_as_the_original_wrote_it(tmp_path):
    """Lists for shapes, null for what is not set, no comment: brainstorm 0.5."""
    description = {
        "@type": "Network",
        "architecture": {
            "Input": {
                "@type": "Input",
                "@outgoing_connections": {"default": ["Hid"]},
                "out_shapes": {"default": ["T", "B", 2]},
            },
            "Hid": {
                "@type": "FullyConnected",
                "@outgoing_connections": {},
                "activation": "linear",
                "size": 2,
            },
        },
        "handler": {"@type": "NumpyHandler"},
        "initializers": {"default": {"@type": "Gaussian", "std": 0.1, "mean": 0.0}},
        "gradient_modifiers": {},
        "weight_modifiers": {},
        "output_name": None,
    }
    text = json.dumps(description).encode()
    with h5py.File(tmp_path / "old.hdf5", "w") as f:
        f.attrs.create("info", b"Created with brainstorm 0.5")
        f.attrs.create("format", b"Network file v1.0")
        f["description"] = text
        f.create_dataset("parameters", data=[1, 2, 3, 4, 5, 6], compression="gzip")
    net = bs.Network.from_hdf5(tmp_path / "old.hdf5")
    net.provide_external_data({"default": np.array([[[1.0, 10.0]]])})
    net.forward_pass()
    assert np.array_equal(net.get("Hid.outputs.default"), [[[26.0, 49.0]]])


def test_files_do_not_tell_which_of_the_equal_handlers_wrote_them(tmp_path):
    """Version 0.5 knows no OneDnnHandler; here the default handler is as good."""
    net = make_network()
    path = tmp_path / "net.hdf5"
    net.save_as_hdf5(path)
    with h5py.File(path) as f:
        description = json.loads(f["description"][()])
    assert description["handler"] == {"@type": "NumpyHandler", "dtype": "float32"}
    assert bs.Network.from_hdf5(path).handler is bs.handlers.default_handler

import json
import os

import h5py
import numpy as np
import pytest

import brainstorm as bs
from brainstorm import layers
from brainstorm.files import read_text_attribute
from brainstorm.handlers import NumpyHandler
from brainstorm.utils import FileFormatError, HandlerError, ValidationError


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


# -- where the parameters lie ------------------------------------------------


def make_unsorted_network():
    """Layers run in another order than that of their names."""
    inp = layers.Input({"default": ("T", "B", 4)})
    inp >> layers.FullyConnected(5, name="z") >> layers.FullyConnected(2, name="a")
    net = bs.Network.from_layer(inp)
    net.initialize(bs.Gaussian(0.3), seed=1)
    return net


def test_files_list_their_parameters(tmp_path):
    net = make_unsorted_network()
    net.save_as_hdf5(tmp_path / "net.hdf5")
    with h5py.File(tmp_path / "net.hdf5") as f:
        entries = json.loads(f["parameters"].attrs["layout"])
        flat = f["parameters"][()]
    assert entries == [
        {"path": "a.parameters.W", "shape": [2, 5], "start": 0, "stop": 10},
        {"path": "a.parameters.bias", "shape": [2], "start": 10, "stop": 12},
        {"path": "z.parameters.W", "shape": [5, 4], "start": 12, "stop": 32},
        {"path": "z.parameters.bias", "shape": [5], "start": 32, "stop": 37},
    ]
    for e in entries:
        part = flat[e["start"] : e["stop"]].reshape(e["shape"])
        assert np.array_equal(part, net.get(e["path"]))


def reorder(places):
    """Write the parameters in another order than the library does."""

    def change(f):
        dataset = f["parameters"]
        entries = json.loads(dataset.attrs["layout"])
        old, start = dataset[()], 0
        parts = []
        for i in places:
            entry = entries[i]
            parts.append(old[entry["start"] : entry["stop"]])
            entry["start"], entry["stop"] = start, start + len(parts[-1])
            start = entry["stop"]
        dataset[...] = np.concatenate(parts)
        dataset.attrs["layout"] = np.bytes_(json.dumps(entries).encode())

    return change


@pytest.mark.parametrize("places", [(2, 3, 0, 1), (3, 1, 2, 0)])
@pytest.mark.parametrize("info", [b"Created with brainstorm 0.5", None])
def test_parameters_are_read_by_name(tmp_path, places, info):
    net = make_unsorted_network()
    net.save_as_hdf5(tmp_path / "net.hdf5")
    rewrite(tmp_path / "net.hdf5", reorder(places))
    if info is not None:
        rewrite(tmp_path / "net.hdf5", lambda f: f.attrs.__setitem__("info", info))
    again = bs.Network.from_hdf5(tmp_path / "net.hdf5")
    assert np.array_equal(again.get("parameters"), net.get("parameters"))


@pytest.mark.parametrize("info", ["0.5", "0.6.0"])
def test_without_a_list_the_version_tells(tmp_path, info):
    net = make_unsorted_network()
    net.save_as_hdf5(tmp_path / "net.hdf5")
    if info == "0.6.0":
        rewrite(tmp_path / "net.hdf5", reorder((2, 3, 0, 1)))

    def forget(f):
        del f["parameters"].attrs["layout"]
        f.attrs["info"] = np.bytes_(f"Created with brainstorm {info}")

    rewrite(tmp_path / "net.hdf5", forget)
    again = bs.Network.from_hdf5(tmp_path / "net.hdf5")
    assert np.array_equal(again.get("parameters"), net.get("parameters"))


def entries_with(change):
    def rewritten(f):
        entries = json.loads(f["parameters"].attrs["layout"])
        entries = change(entries) or entries
        f["parameters"].attrs["layout"] = np.bytes_(json.dumps(entries).encode())

    return rewritten


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e[:-1],
        lambda e: [*e, e[0]],
        lambda e: e[0].update(path="a.parameters.R"),
        lambda e: e[0].update(shape=[5, 2]),
        lambda e: e[0].update(shape=[10]),
        lambda e: e[0].update(stop=11),
        lambda e: e[0].update(start=-1),
        lambda e: e[1].update(start=0, stop=2),
        lambda e: e[2].update(start=13, stop=33),
        lambda e: e[0].update(start=0.0),
        lambda e: e[0].update(more=1),
        lambda e: e[0].pop("shape"),
        lambda e: {"a": 1},
        lambda e: "abc",
        lambda e: [3],
        lambda e: e[0].update(shape=None),
        lambda e: {**e[0], "path": ["a"]},
    ],
)
def test_lists_that_contradict_the_architecture_are_refused(tmp_path, change):
    make_unsorted_network().save_as_hdf5(tmp_path / "net.hdf5")
    rewrite(tmp_path / "net.hdf5", entries_with(change))
    with pytest.raises(FileFormatError, match="list of parameters") as refused:
        bs.Network.from_hdf5(tmp_path / "net.hdf5")
    assert "Place" not in str(refused.value)


def test_lists_that_are_no_text_are_refused(tmp_path):
    make_unsorted_network().save_as_hdf5(tmp_path / "net.hdf5")
    for value in (3, "on the heap", np.array([b"[]", b"[]"])):
        rewrite(
            tmp_path / "net.hdf5",
            lambda f, v=value: f["parameters"].attrs.__setitem__("layout", v),
        )
        with pytest.raises(FileFormatError):
            bs.Network.from_hdf5(tmp_path / "net.hdf5")


def test_comments_are_texts(saved):
    net, filename = saved
    before = filename.read_bytes()
    with pytest.raises(ValidationError, match="expected a text as comment, got 5"):
        net.save_as_hdf5(filename, comment=5)
    assert filename.read_bytes() == before


def test_long_comments_and_lists(tmp_path):
    """HDF5 has room for 64 KB in one attribute."""
    inp = last = layers.Input({"default": ("T", "B", 1)})
    for i in range(100):
        last = last >> layers.FullyConnected(1, name=f"{'layer_' * 60}{i}")
    net = bs.Network.from_layer(inp)
    net.initialize(bs.Gaussian(1))
    comment = "é" * 70_000
    net.save_as_hdf5(tmp_path / "net.hdf5", comment=comment)
    again = bs.Network.from_hdf5(tmp_path / "net.hdf5")
    assert np.array_equal(again.get("parameters"), net.get("parameters"))
    with h5py.File(tmp_path / "net.hdf5") as f:
        assert read_text_attribute(f, "comment") == comment
        assert len(read_text_attribute(f["parameters"], "layout")) > 64_000


# -- what 0.5 wrote and could load -------------------------------------------


def write_as_original(filename, architecture, parameters, weight_modifiers=None):
    description = {
        "@type": "Network",
        "architecture": architecture,
        "handler": {"@type": "NumpyHandler", "dtype": "float64"},
        "initializers": {},
        "gradient_modifiers": {},
        "weight_modifiers": weight_modifiers or {},
        "output_name": None,
    }
    with h5py.File(filename, "w") as f:
        f.attrs["info"] = "Created with brainstorm 0.5"
        f.attrs["format"] = "Network file v1.0"
        f["description"] = json.dumps(description).encode()
        f.create_dataset("parameters", data=parameters, compression="gzip")


def test_layers_with_odd_names_and_a_connection_twice(tmp_path):
    def dense(*ends):
        return {
            "@type": "FullyConnected",
            "@outgoing_connections": {"default": list(ends)},
            "activation": "linear",
            "size": 1,
        }

    architecture = {
        "Input": {
            "@type": "Input",
            "@outgoing_connections": {"default": ["in", "in.default"]},
            "out_shapes": {"default": ["T", "B", 1]},
        },
        "in": dense("fill", "fill"),
        "fill": dense("_complete"),
        "_complete": dense(),
    }
    # By name: _complete, fill, in; of each the weight and the bias.
    write_as_original(tmp_path / "net.hdf5", architecture, [2.0, 0, 3, 1, 5, 0])
    net = bs.Network.from_hdf5(tmp_path / "net.hdf5")
    assert net.predict(np.array([[1.0], [2.0]])).tolist() == [[32.0], [62.0]]
    assert net.get("in.parameters.W") == 5


def test_pixels_join_along_the_last_dimension(tmp_path):
    def pixels(channels):
        return {
            "@type": "Convolution2D",
            "@outgoing_connections": {"default": ["last"]},
            "activation": "linear",
            "kernel_size": [1, 1],
            "num_filters": channels,
        }

    architecture = {
        "Input": {
            "@type": "Input",
            "@outgoing_connections": {"default": ["b", "a"]},
            "out_shapes": {"default": ["T", "B", 1, 1, 2]},
        },
        "b": pixels(2),
        "a": pixels(1),
        "last": {**pixels(1), "@outgoing_connections": {}},
    }
    rnd = np.random.RandomState(0)
    a, b, last = rnd.randn(1, 2), rnd.randn(2, 2), rnd.randn(1, 3)
    flat = [*a.ravel(), 0, *b.ravel(), 0, 0, *last.ravel(), 0]
    write_as_original(tmp_path / "net.hdf5", architecture, flat)
    net = bs.Network.from_hdf5(tmp_path / "net.hdf5")
    assert net.layers["last"].in_shapes["default"].shape == ("T", "B", 1, 1, 3)
    x = rnd.randn(4, 2)
    expected = np.concatenate([x @ a.T, x @ b.T], axis=1) @ last.T
    found = net.predict(x.reshape(4, 1, 1, 2)).reshape(4, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_handler_that_was_chosen_comes_back(tmp_path, dtype):
    net = make_network()
    net.set_handler(NumpyHandler(dtype))
    net.save_as_hdf5(tmp_path / "net.hdf5")
    again = bs.Network.from_hdf5(tmp_path / "net.hdf5")
    assert type(again.handler) is NumpyHandler
    assert again.handler is not bs.handlers.default_handler
    assert again.handler.dtype == dtype


def test_only_handlers_are_made(tmp_path):
    make_network().save_as_hdf5(tmp_path / "net.hdf5")
    for text in ('{"@type": "Gaussian"}', "[]", "3", "{"):
        rewrite(
            tmp_path / "net.hdf5",
            lambda f, t=text: f.attrs.__setitem__("handler", np.bytes_(t)),
        )
        with pytest.raises(FileFormatError):
            bs.Network.from_hdf5(tmp_path / "net.hdf5")


def test_what_is_at_its_default_is_not_in_files(tmp_path):
    """Version 0.5 refuses arguments that it does not know."""
    inp = layers.Input({"default": ("T", "B", 4)})
    last = inp >> layers.FullyConnected() >> layers.Lstm(3)
    last >> layers.Recurrent(2) >> layers.Clockwork(2) >> layers.ClockworkLstm(2)
    net = bs.Network.from_layer(inp)
    net.save_as_hdf5(tmp_path / "net.hdf5")
    with h5py.File(tmp_path / "net.hdf5") as f:
        architecture = json.loads(f["description"][()])["architecture"]
    arguments = {
        name: sorted(key for key in properties if key[0] != "@")
        for name, properties in architecture.items()
    }
    assert arguments == {
        "Input": ["out_shapes"],
        "FullyConnected": ["activation"],
        "Lstm": ["activation", "size"],
        "Recurrent": ["activation", "size"],
        "Clockwork": ["activation", "size"],
        "ClockworkLstm": ["activation", "size"],
    }


class HalveTimes(bs.value_modifiers.ValueModifier):
    """A user's class whose members are not its arguments, as 0.5 let them be."""

    __undescribed__ = {"calls"}

    def __init__(self, times, unused=3):
        super().__init__()
        self.factor = 0.5**times
        self.calls = []

    def __init_from_description__(self, description):
        self.calls = ["again"]

    def __call__(self, handler, view):
        handler.mult_st(self.factor, view, view)


def test_modifiers_of_a_class_with_members_of_its_own(tmp_path):
    architecture = {
        "Input": {
            "@type": "Input",
            "@outgoing_connections": {"default": ["F"]},
            "out_shapes": {"default": ["T", "B", 2]},
        },
        "F": {"@type": "FullyConnected", "@outgoing_connections": {}, "size": 2},
    }
    modifiers = {"F": {"W": [{"@type": "HalveTimes", "factor": 0.25}]}}
    write_as_original(tmp_path / "0.hdf5", architecture, np.arange(6.0), modifiers)
    net = bs.Network.from_hdf5(tmp_path / "0.hdf5")
    net.save_as_hdf5(tmp_path / "1.hdf5")
    for again in (net, bs.Network.from_hdf5(tmp_path / "1.hdf5")):
        (modifier,) = again.weight_modifiers["F"]["W"]
        assert (type(modifier), modifier.calls) == (HalveTimes, ["again"])
        again.apply_weight_modifiers()
        assert np.array_equal(again.get("parameters"), [0, 0.25, 0.5, 0.75, 4, 5])

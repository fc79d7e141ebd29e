"""Files that were made to do harm: each is refused, and costs next to nothing."""

import json
import struct
import tracemalloc

import h5py
import numpy as np
import pytest

from brainstorm import layers
from brainstorm.files import open_hdf5, read_array, read_group, read_text, read_tree
from brainstorm.hooks import load_logs
from brainstorm.initializers import Gaussian
from brainstorm.structure.network import Network
from brainstorm.utils import FileFormatError

KIND = "Network file v1.0"
HUGE = 2**40


@pytest.fixture
def path(tmp_path):
    """The file of a network with the layer Hid: 4 inputs, 5 units, 25 parameters."""
    inp = layers.Input({"default": ("T", "B", 4)})
    inp >> layers.FullyConnected(5, "tanh", name="Hid")
    net = Network.from_layer(inp)
    net.initialize(Gaussian(0.3), seed=1)
    net.save_as_hdf5(tmp_path / "net.hdf5")
    return tmp_path / "net.hdf5"


def change_file(path, change):
    with h5py.File(path, "r+") as f:
        change(f)


def put(name, make):
    """Put something in the place of a dataset."""

    def change(f):
        del f[name]
        make(f, name)

    return change


def describe(change):
    """Change the description of the network."""

    def make(f, name):
        description = json.loads(ORIGINAL["description"])
        change(description)
        f[name] = np.bytes_(json.dumps(description).encode())

    return put("description", make)


ORIGINAL = {}


def assert_refused(path, message=None, limit=20 * 2**20):
    """Loading raises FileFormatError, and takes little memory until then."""
    tracemalloc.start()
    with pytest.raises(FileFormatError, match=message):
        Network.from_hdf5(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < limit


# -- data that are elsewhere, or nowhere -------------------------------------


def virtual(f, name):
    layout = h5py.VirtualLayout((25,), "f4")
    layout[:] = h5py.VirtualSource("other.hdf5", "secret", (25,))
    f.create_virtual_dataset(name, layout)


def external(f, name):
    f.create_dataset(name, (25,), "f4", external=[("secret", 0, 100)])


def unwritten(f, name, **kwargs):
    f.create_dataset(name, (25,), "f4", **kwargs)


def huge_chunks(f, name):
    # h5py refuses chunks larger than the data, libhdf5 does not.
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((2**28,))
    plan.set_deflate(4)
    space = h5py.h5s.create_simple((25,), (h5py.h5s.UNLIMITED,))
    kind = h5py.h5t.IEEE_F32LE
    dataset = h5py.h5d.create(f.id, name.encode(), kind, space, plan)
    dataset.write_direct_chunk((0,), b"x" * 200)


def twice_packed(f, name):
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((25,))
    plan.set_deflate(9)
    plan.set_deflate(9)
    space = h5py.h5s.create_simple((25,))
    h5py.h5d.create(f.id, name.encode(), h5py.h5t.IEEE_F32LE, space, plan)
    f[name][:] = 1


def unknown_filter(f, name):
    f.create_dataset(name, data=np.ones(25, "f4"), chunks=(25,), compression="lzf")


def references(f, name):
    f.create_dataset(name, data=[f.ref] * 25, dtype=h5py.ref_dtype)


def texts(f, name):
    f.create_dataset(name, data=["x"] * 25, dtype=h5py.string_dtype())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f, n: f.__setitem__(n, h5py.SoftLink("/description")), "is a link"),
        (lambda f, n: f.__setitem__(n, h5py.ExternalLink("a", "/b")), "is a link"),
        (lambda f, n: f.create_group(n), "no dataset 'parameters'"),
        (lambda f, n: f.__setitem__(n, np.dtype("f4")), "no dataset 'parameters'"),
        (virtual, "in another file"),
        (external, "in another file"),
        (unwritten, "does not fit the 0 bytes"),
        (lambda f, n: unwritten(f, n, compression="gzip"), "does not fit the 0 bytes"),
        (huge_chunks, "does not fit"),
        (twice_packed, "packed in a way"),
        (unknown_filter, "packed in a way"),
        (references, "expected numbers"),
        (texts, "expected numbers"),
        (lambda f, n: f.__setitem__(n, h5py.Empty("f4")), "expected numbers"),
        (lambda f, n: f.__setitem__(n, np.ones(25, "c8")), "expected numbers"),
        (lambda f, n: f.__setitem__(n, np.ones(25, "f4,i4")), "expected numbers"),
    ],
)
def test_parameters_that_are_not_in_the_file(path, make, message):
    change_file(path, put("parameters", make))
    assert_refused(path, message)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f, n: f.__setitem__(n, h5py.ExternalLink("a", "/b")), "is a link"),
        (lambda f, n: f.create_dataset(n, (HUGE,), "S1"), "one text"),
        (lambda f, n: f.create_dataset(n, (1,), f"S{2**30}"), "does not fit"),
        (lambda f, n: f.create_dataset(n, (), h5py.ref_dtype), "one text"),
        (lambda f, n: f.__setitem__(n, 3), "one text"),
        (lambda f, n: f.__setitem__(n, h5py.Empty("S5")), "one text"),
        (lambda f, n: f.__setitem__(n, np.bytes_(b"\xff")), "decode"),
        (lambda f, n: f.__setitem__(n, np.bytes_(b"[" * 100_000)), "recursion"),
        (lambda f, n: f.__setitem__(n, np.bytes_(b"1" * 10_000)), "limit"),
    ],
)
def test_descriptions_that_are_no_texts(path, make, message):
    change_file(path, put("description", make))
    assert_refused(path, message)


def test_the_format_may_be_hostile_too(path):
    for value in (np.zeros(7000), h5py.Empty("S3"), np.bytes_(b"x" * 50_000)):
        change_file(path, lambda f, v=value: f.attrs.__setitem__("format", v))
        assert_refused(path, "format attribute is")
    change_file(path, lambda f: f.attrs.create("format", [KIND] * 1000))
    assert_refused(path, "format attribute is")


def change_bytes(path, old, new):
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))


def test_texts_of_any_length_as_the_original_wrote_them(path):
    """They lie on a heap, which libhdf5 may search without end if it is damaged."""
    with open_hdf5(path, KIND) as f:
        text = read_text(f, "description")
    change_file(path, put("description", lambda f, n: f.__setitem__(n, text)))
    with h5py.File(path) as f:
        assert h5py.check_string_dtype(f["description"].dtype).length is None
    assert Network.from_hdf5(path).get("parameters").shape == (25,)
    whole = path.read_bytes()
    heap = whole.index(b"GCOL")
    size = struct.pack("<Q", len(text.encode()))
    reference = struct.pack("<IQI", len(text.encode()), heap, 1)
    for old, new in (
        (b"GCOL", b"GCOX"),
        (struct.pack("<H6x", 1) + size, struct.pack("<H6x", 2) + size),
        (struct.pack("<H6x", 1) + size, struct.pack("<H6xQ", 1, 2**64 - 1)),
        (struct.pack("<H6x", 1) + size, struct.pack("<H6xQ", 0, 0)),
        (reference, struct.pack("<IQI", 2**32 - 1, heap, 1)),
        (reference, struct.pack("<IQI", len(text), 2**63, 1)),
        (reference, struct.pack("<IQI", len(text), len(whole) - 8, 1)),
        (reference, struct.pack("<IQI", len(text), heap, 7)),
        (reference, struct.pack("<IQI", 3, heap, 1)),
    ):
        path.write_bytes(whole)
        change_bytes(path, old, new)
        assert_refused(path)


# -- descriptions ------------------------------------------------------------


def hid(**kwargs):
    return lambda d: d["architecture"]["Hid"].update(kwargs)


def wide_input(d):
    d["architecture"]["Input"]["out_shapes"]["default"][-1] = HUGE
    d["architecture"]["Hid"].update({"@type": "NoOp"})
    del d["architecture"]["Hid"]["size"], d["architecture"]["Hid"]["activation"]


GREEDY = {
    "@type": "Network",
    "architecture": {
        "Input": {"@type": "Input", "out_shapes": {"default": ["T", "B", HUGE]}},
    },
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (hid(size=10**7), r"shape \(50000000,\), got \(25,\)"),
        (hid(size=HUGE), "one step of one sequence would take"),
        (hid(size=10**400), "can not read"),
        (hid(size=1e308), "can not read"),
        (hid(size=float("inf")), "can not read"),
        (hid(size=float("nan")), "can not read"),
        (hid(size=-5), "size"),
        (hid(size={"@type": "Network"}), "size"),
        (hid(**{"@type": "os.system"}), "unknown layer type"),
        (hid(code="import os"), "unexpected argument 'code'"),
        (wide_input, "one step of one sequence would take"),
        (lambda d: d.update(handler=GREEDY), "a Network is out of place"),
        (lambda d: d.update(weight_modifiers={"Hid": {"W": GREEDY}}), "out of place"),
        (lambda d: d.update(gradient_modifiers={"default": [GREEDY]}), "out of place"),
        (lambda d: d.update(handler={"@type": "Gaussian"}), "out of place"),
        (lambda d: d.update(handler={}), "expected a Handler"),
        (lambda d: d["handler"].update(code=1), "'code'"),
        (lambda d: d.update(weight_modifiers={"Hid": {"W": [1]}}), "a modifier"),
        (lambda d: d.pop("output_name"), "expected the keys"),
        (lambda d: d.update({"@module": "os"}), "expected the keys"),
    ],
)
def test_descriptions_that_ask_for_too_much(path, change, message):
    with open_hdf5(path, KIND) as f:
        ORIGINAL["description"] = read_text(f, "description")
    change_file(path, describe(change))
    assert_refused(path, message)


# -- bombs -------------------------------------------------------------------


def test_what_is_packed_well_is_still_read(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as f:
        f.attrs["format"] = np.bytes_(KIND)
        f.create_dataset("zeros", data=np.zeros(10**6), compression="gzip")
        f.create_dataset("plain", data=np.zeros((2, 3), ">i2"))
        f.create_dataset("empty", data=np.zeros(0), compression="gzip")
        f.create_dataset("flag", data=True)
        shuffled = {"compression": "gzip", "shuffle": True}
        f.create_dataset("shuffled", data=np.arange(10**4), **shuffled)
    with open_hdf5(tmp_path / "a.hdf5", KIND) as f:
        assert read_array(f, "zeros", (10**6,)).sum() == 0
        assert read_array(f, "plain").shape == (2, 3)
        assert read_array(f, "empty").shape == (0,)
        assert read_array(f, "flag") == np.array(True)
        np.testing.assert_array_equal(read_array(f, "shuffled"), np.arange(10**4))
        with pytest.raises(FileFormatError, match="no group 'zeros'; there are: 'emp"):
            read_group(f, "zeros")


def bomb(f):
    """Six exabytes, of which nothing is stored."""
    shape = (2**20, 2**20, 2**20)
    f.create_dataset("bomb", shape, "f4", chunks=(2**10,) * 3, compression="gzip")


def many_links(f):
    f["a"] = np.zeros(10**5)
    for i in range(1000):
        f[str(i)] = f["a"]


def circle(f):
    f.create_group("a/b")
    f["a/b/c"] = f["a"]
    f["a/b/d"] = f["a"]


def root(f):
    f["a"] = f["/"]


def deep(f):
    group = f
    for _ in range(3000):
        group = group.create_group("a")


def links(f):
    f["a"] = h5py.SoftLink("/")


@pytest.mark.parametrize("make", [bomb, many_links, circle, root, deep, links])
def test_logs_that_blow_up(tmp_path, make):
    with h5py.File(tmp_path / "logs.hdf5", "w") as f:
        f.attrs["format"] = np.bytes_("Logs file v1.0")
        make(f)
    tracemalloc.start()
    with pytest.raises(FileFormatError, match="can not read .*logs.hdf5"):
        load_logs(tmp_path / "logs.hdf5")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * 2**20


def test_trees(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as f:
        f["a/b"] = [1, 2]
        f["a/c"] = np.char.encode(["x", "\xe4"], "utf-8")
    with h5py.File(tmp_path / "a.hdf5") as f:
        tree = read_tree(f)
    assert {k: v.tolist() for k, v in tree["a"].items()} == {
        "b": [1, 2],
        "c": ["x", "\xe4"],
    }

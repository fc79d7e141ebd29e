import copy

import h5py
import numpy as np
import pytest

import brainstorm as bs
from brainstorm import tools
from brainstorm.data_iterators import Minibatches, Online
from brainstorm.utils import (
    IteratorValidationError,
    MissingFileError,
    NetworkValidationError,
    ValidationError,
)
from brainstorm.viewer.contents import unpack


@pytest.fixture
def net():
    net = tools.create_net_from_spec("classification", 4, 3, "F5")
    net.initialize(bs.Gaussian(), seed=1)
    return net


@pytest.fixture
def data():
    rnd = np.random.RandomState(2)
    return {"default": rnd.randn(1, 10, 4), "targets": rnd.randint(3, size=(1, 10, 1))}


def shown(page, path):
    (buffer,) = [
        b
        for layer in page.snapshot["layers"]
        for b in layer["buffers"]
        if b["path"] == path
    ]
    return unpack(buffer["contents"])


@pytest.mark.parametrize(
    "give",
    [
        lambda d: d,
        lambda d: {n: v[0] for n, v in d.items()},
        lambda d: {"default": d["default"], "targets": d["targets"][..., 0]},
        lambda d: Minibatches(4, shuffle=False, **d),
        lambda d: Online(shuffle=False, **d),
        lambda d: Minibatches(3, shuffle=False, other=d["targets"], **d),
    ],
)
@pytest.mark.parametrize("example", [0, 7])
def test_data_of_all_kinds(net, data, give, example):
    page = tools.view(net, give(data), example)
    x = shown(page, "Input.outputs.default")
    np.testing.assert_allclose(x, data["default"][0, example], rtol=1e-6)
    predictions = shown(page, "Output.outputs.predictions")
    expected = net.predict(data["default"][:, example : example + 1]).ravel()
    np.testing.assert_allclose(predictions, expected, rtol=1e-5)
    assert page.snapshot["example"]["number"] == example


def test_a_group_of_an_hdf5_file(net, data, tmp_path):
    with h5py.File(tmp_path / "data.hdf5", "w") as file:
        for name, values in data.items():
            file[f"a/test/{name}"] = values
    with h5py.File(tmp_path / "data.hdf5") as file:
        page = tools.view(net, file["a/test"], 3)
    x = shown(page, "Input.outputs.default")
    np.testing.assert_allclose(x, data["default"][0, 3], rtol=1e-6)


def test_files(net, data, tmp_path):
    with h5py.File(tmp_path / "data.hdf5", "w") as file:
        for name, values in {**data, "other": np.zeros(3)}.items():
            file[f"a/test/{name}"] = values
    np.savez(tmp_path / "data.npz", **data)
    expected = tools.view(net, data, 3).snapshot
    for file in (tmp_path / "data.hdf5", str(tmp_path / "data.hdf5")):
        assert tools.view(net, file, 3, group="a/test").snapshot == expected
    assert tools.view(net, tmp_path / "data.npz", 3).snapshot == expected
    with pytest.raises(KeyError, match="by the argument group.* 'a/test'"):
        tools.view(net, tmp_path / "data.hdf5")


def test_an_array_for_the_input_of_the_predictions(net, data):
    expected = tools.view(net, {"default": data["default"]}, 3).snapshot
    assert tools.view(net, data["default"], 3).snapshot == expected
    assert tools.view(net, data["default"][0], 3).snapshot == expected


def test_iterators_go_on_as_if_nothing_had_been(net, data):
    iterator = Minibatches(3, **data)
    iterators = iterator, copy.deepcopy(iterator)
    tools.view(net, iterators[0], 4)
    batches = [[b["default"].copy() for b in it(net.handler)] for it in iterators]
    for one, other in zip(*batches, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (dict(example=10), ValidationError, "example: expected a number below 10"),
        (dict(example=-1), ValidationError, "example has to be a whole number"),
        (dict(example=1.5), ValidationError, "example has to be a whole number"),
        (dict(title=3), ValidationError, "title: expected a text, got 3"),
        (dict(data=7), NetworkValidationError, r"or \('B', 4\) without time, got"),
        (dict(data={}), ValidationError, "no sequences in these data"),
        (dict(data=np.zeros((1, 0, 4))), ValidationError, "no sequences"),
        (dict(data="nowhere.hdf5"), MissingFileError, "no file 'nowhere.hdf5'"),
        (dict(data={"defualt": np.zeros((1, 2, 4))}), KeyError, "'defualt'.*'default'"),
        (dict(data={"targets": np.zeros((1, 2, 1))}), KeyError, "input 'default'"),
        (
            dict(data={"default": np.zeros((1, 2, 5))}),
            NetworkValidationError,
            r"expected data of the shape \('T', 'B', 4\).*'default'",
        ),
        (
            dict(data=Minibatches(2, default=np.zeros((1, 2, 4)))),
            IteratorValidationError,
            "'targets'",
        ),
    ],
)
def test_bad_arguments(net, data, arguments, error, text):
    with pytest.raises(error, match=text):
        tools.view(net, **{"data": data, **arguments})


def test_examples_beyond_an_iterator(net, data):
    with pytest.raises(ValidationError, match="a number below 10, .* got 12"):
        tools.view(net, Minibatches(4, **data), 12)


def test_what_is_no_network():
    with pytest.raises(ValidationError, match=r"(?i)network"):
        tools.view("net.hdf5")

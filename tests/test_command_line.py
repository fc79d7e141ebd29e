"""The command line on saved networks and files of data."""

import subprocess
import sys

import h5py
import numpy as np
import pytest

import brainstorm as bs
from brainstorm.__main__ import main
from brainstorm.tools import create_net_from_spec


@pytest.fixture
def net(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = create_net_from_spec("classification", 4, 3, "F5")
    net.initialize(bs.Gaussian(), seed=1)
    net.save_as_hdf5("net.hdf5")
    return net


@pytest.fixture
def data(net):
    rnd = np.random.RandomState(2)
    x, y = rnd.randn(1, 30, 4), rnd.randint(3, size=(1, 30, 1))
    np.savez("data.npz", default=x, targets=y, names=np.arange(3))
    np.savez("flat.npz", **{"test/default": x[0], "test/targets": y[0, :, 0]})
    with h5py.File("data.hdf5", "w") as f:
        f["a/test/default"], f["a/test/targets"] = x, y
    return x, y


FILES = [["data.npz"], ["flat.npz", "--group=test"], ["data.hdf5", "--group", "a/test"]]


def test_info(net, capsys):
    assert main(["info", "net.hdf5", "--batch-size", "7"]) == 0
    out = capsys.readouterr().out
    assert out == bs.tools.get_network_info(net, 1, 7) + "\n"


def test_draw(net):
    pytest.importorskip("pygraphviz")
    assert main(["draw", "net.hdf5", "net.svg"]) == 0
    with open("net.svg") as f:
        assert "Output_projection" in f.read()


@pytest.mark.parametrize("file", FILES)
def test_evaluate(net, data, capsys, file):
    assert main(["evaluate", "net.hdf5", *file, "--scorer", "Accuracy"]) == 0
    x, y = data
    p = net(x)[0]
    loss = -np.mean(np.log(p[np.arange(30), y[0, :, 0]]))
    accuracy = np.mean(p.argmax(axis=1) == y[0, :, 0])
    words = capsys.readouterr().out.split()
    assert words[::3] == ["total_loss", "Accuracy"]
    assert float(words[2]) == pytest.approx(loss, rel=1e-4)
    assert float(words[5]) == pytest.approx(accuracy, rel=1e-4)


def read(file):
    if file.endswith(".hdf5"):
        with h5py.File(file) as f:
            return f["predictions"][:]
    loaded = np.load(file)
    return loaded if file.endswith(".npy") else loaded["predictions"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("out", ["p.npy", "p.npz", "p.hdf5"])
def test_predict(net, data, file, out):
    assert main(["predict", "net.hdf5", *file, out, "--batch-size=8"]) == 0
    expected = net(data[0])
    expected = expected[0] if file[0] == "flat.npz" else expected
    np.testing.assert_allclose(read(out), expected, rtol=1e-5)


def test_predict_another_output(net, data):
    name = "FullyConnected.outputs.default"
    main(["predict", "net.hdf5", "data.npz", "p.npy", "--output-name", name])
    assert read("p.npy").shape == (1, 30, 5)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["info", "nope.hdf5"], "nope.hdf5"),
        (["info", "data.hdf5"], "data.hdf5"),
        (["info", "net.hdf5", "--batch-size=0"], "at least 1"),
        (["draw", "net.hdf5", "net.txt"], "has to end in one of '.png'"),
        (["evaluate", "net.hdf5", "nope.npz"], "nope.npz"),
        (["evaluate", "net.hdf5", "text.npz"], "neither an HDF5 file nor an npz"),
        (["evaluate", "net.hdf5", "objects.npz"], "neither an HDF5 file nor an npz"),
        (["evaluate", "net.hdf5", "data.hdf5"], "no data for the inputs 'default'"),
        (["evaluate", "net.hdf5", "data.hdf5", "--group=a/b"], "there are: 'test'"),
        (["evaluate", "net.hdf5", "wrong.npz"], "the inputs of the network are"),
        (["predict", "net.hdf5", "wrong.npz", "p.txt"], "has to end in one of '.npy'"),
        (["predict", "net.hdf5", "wrong.npz", "p.npy"], r"expected data of the shape"),
        (["predict", "net.hdf5", "data.npz", "no/p.npy"], "no folder"),
    ],
)
def test_errors(net, data, capsys, arguments, text):
    if arguments[0] == "draw":
        pytest.importorskip("pygraphviz")
    with open("text.npz", "w") as f:
        f.write("some text")
    np.savez("objects.npz", default=np.array([{}, None], dtype=object))
    np.savez("wrong.npz", default=np.zeros((1, 5, 3)))
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"brainstorm {arguments[0]}: ")
    assert text in captured.err


@pytest.mark.parametrize("arguments", [[], ["nope"], ["evaluate", "a"]])
def test_usage(capsys, arguments):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "usage: brainstorm" in capsys.readouterr().err


def test_as_a_process(net):
    done = subprocess.run(
        [sys.executable, "-m", "brainstorm", "--version"],
        capture_output=True,
        text=True,
        cwd=bs.__path__[0] + "/..",
    )
    assert done.stdout == f"{bs.__version__}\n"

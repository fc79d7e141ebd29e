"""The command line on saved networks and files of data."""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import brainstorm as bs
from brainstorm import layers
from brainstorm.__main__ import main
from brainstorm.datasets.catalogue import DATA_SETS
from brainstorm.tools import create_net_from_spec
from brainstorm.viewer.contents import unpack
from tests.published import change


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


@pytest.mark.parametrize("shape", [(20,), (20, 1), (1, 20, 1)])
def test_evaluate_with_a_label_for_each_sequence(shape, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shapes = {"default": ("T", "B", 3), "targets": ("B", 1), "mask": ("T", "B", 1)}
    inp, pool, out = layers.Input(shapes), layers.TimePooling(), layers.SoftmaxCE("Out")
    inp >> pool >> layers.FullyConnected(2, "linear") >> out
    inp - "mask" >> "mask" - pool
    inp - "targets" >> "targets" - out - "loss" >> layers.Loss()
    net = bs.Network.from_layer(inp)
    net.initialize(bs.Gaussian(), seed=1)
    net.output_name = "Out.outputs.predictions"
    net.save_as_hdf5("pooled.hdf5")
    rnd = np.random.RandomState(3)
    x, y, mask = rnd.randn(7, 20, 3), rnd.randint(2, size=shape), np.ones((7, 20, 1))
    np.savez("labels.npz", default=x, targets=y, mask=mask)
    assert main(["evaluate", "pooled.hdf5", "labels.npz", "--scorer", "Accuracy"]) == 0
    right = net.predict({"default": x, "mask": mask}).argmax(axis=1) == y.ravel()
    assert float(capsys.readouterr().out.split()[-1]) == pytest.approx(right.mean())


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


def test_evaluate_counts_and_rankings(net, data, capsys):
    names = ["ConfusionMatrix", "F1", "RocAuc", "AveragePrecision", "Perplexity"]
    assert (
        main(["evaluate", "net.hdf5", FILES[0][0], *[f"--scorer={n}" for n in names]])
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["total_loss", *names]
    loss, matrix, *_, perplexity = [line.split(": ")[1] for line in lines]
    assert np.sum(json.loads(matrix)) == 30
    assert float(perplexity) == pytest.approx(np.exp(float(loss)), rel=1e-4)


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


@pytest.mark.parametrize("save", [np.save, np.savez, np.savez_compressed])
@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.dat"])
def test_an_array_without_a_name_is_the_only_input(net, data, save, name):
    with open(name, "wb") as f:
        save(f, data[0])
    assert main(["predict", "net.hdf5", name, "p.npy"]) == 0
    np.testing.assert_allclose(read("p.npy"), net(data[0]), rtol=1e-5)


def test_arrays_that_are_no_inputs_are_not_read(net, data):
    np.savez("more.npz", default=data[0], objects=np.array([{}, None], dtype=object))
    assert main(["predict", "net.hdf5", "more.npz", "p.npy"]) == 0


def two_inputs():
    inp, merge = layers.Input({n: ("T", "B", 2) for n in "ab"}), layers.Merge()
    inp - "a" >> "inputs_1" - merge
    inp - "b" >> "inputs_2" - merge
    return bs.Network.from_layer(merge >> layers.NoOp())


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
        (["predict", "net.hdf5", "data.hdf5", "p.npy"], "by --group: 'a/test'"),
        (["predict", "net.hdf5", "data.hdf5", "p.npy", "--group=b"], "are: 'a'"),
        (["predict", "net.hdf5", "data.hdf5", "p.npy", "--group=a/test/default"], "no"),
        (["evaluate", "net.hdf5", "x.npy"], "provides 'default', but the inputs"),
        (["predict", "two.hdf5", "x.npy", "p.npy"], "depends on the inputs 'a', 'b'"),
        (["predict", "net.hdf5", "half.npy", "p.npy"], "nor an npz or npy file"),
        (["predict", "net.hdf5", "huge.npy", "p.npy"], "nor an npz or npy file"),
        (["predict", "net.hdf5", "broken.npz", "p.npy"], "nor an npz or npy file"),
        (["predict", "net.hdf5", "objects.npy", "p.npy"], "nor an npz or npy file"),
        (["predict", "net.hdf5", "complex.npy", "p.npy"], "dtype complex128"),
        (["predict", "net.hdf5", "x.npy", "x.npy"], "is the file of the data"),
        (["predict", "net.hdf5", "x.npy", "p"], "has to end in one of '.npy'"),
        (["predict", "net.hdf5", "x.npy", "p.npy", "--output-name=A.b.c"], "'A.b.c'"),
        (["predict", "x.npy", "x.npy", "p.npy"], "can not read 'x.npy'"),
        (["evaluate", "net.hdf5", "data.hdf5", "--group=a/b"], "there are: 'test'"),
        (["evaluate", "net.hdf5", "wrong.npz"], "the inputs of the network are"),
        (["predict", "net.hdf5", "wrong.npz", "p.txt"], "has to end in one of '.npy'"),
        (["predict", "net.hdf5", "wrong.npz", "p.npy"], r"expected data of the shape"),
        (["predict", "net.hdf5", "data.npz", "no/p.npy"], "no folder"),
        (["predict", "net.hdf5", "data.npz", "data.npz"], "is the file of the data"),
        (["predict", "net.hdf5", "data.npz", "net.hdf5"], "file of another kind"),
        (["predict", "net.hdf5", "data.npz", "data.hdf5"], "file of another kind"),
        (["predict", "net.hdf5", "data.npz", "text.npz"], "no npz file"),
        (["predict", "net.hdf5", "data.npz", "text.npy"], "no npy file"),
        (["draw", "net.hdf5", "text.svg"], "no svg file"),
        (["info", "text.npz"], "can not read 'text.npz'"),
        (["info", "half.hdf5"], "can not read 'half.hdf5'"),
        (["evaluate", "net.hdf5", "half.hdf5"], "can not read 'half.hdf5'"),
        (["evaluate", "net.hdf5", "half.npz"], "neither an HDF5 file nor an npz"),
        (["evaluate", "net.hdf5", "."], "there is no file '.'"),
        (["evaluate", "net.hdf5", "empty.hdf5"], "no data for the inputs 'default'"),
        (["evaluate", "net.hdf5", "data.npz", "--group=a"], "begins with 'a/'; there"),
        (["evaluate", "net.hdf5", "data.npz", "--output-name=x"], "no output 'x'"),
        (["predict", "net.hdf5", "data.npz", "p.npy", "--batch-size=-1"], "got -1"),
        (["evaluate", "net.hdf5", "classes.npz"], "from 0 to 2, got 3.0"),
    ],
)
def test_errors(net, data, capsys, arguments, text):
    if arguments[0] == "draw":
        pytest.importorskip("pygraphviz")
    for name in ("text.npz", "text.npy", "text.svg"):
        Path(name).write_text("some text")
    for name in ("data.hdf5", "data.npz"):
        whole = Path(name).read_bytes()
        Path(name).with_stem("half").write_bytes(whole[: len(whole) // 2])
    with h5py.File("empty.hdf5", "w") as f:
        f["default"] = h5py.Empty("f")
        f["targets/inner"] = 1
        f["a"] = h5py.SoftLink("/nowhere")
    np.savez("classes.npz", default=data[0], targets=np.full((1, 30, 1), 3))
    np.savez("objects.npz", default=np.array([{}, None], dtype=object))
    np.save("x.npy", data[0])
    np.save("complex.npy", data[0] * 1j)
    np.save("objects.npy", np.array([{}, None], dtype=object))
    array = Path("x.npy").read_bytes()
    Path("half.npy").write_bytes(array[: len(array) // 2])
    huge = array.replace(b"30, 4), }" + 9 * b" ", b"30, 4000000000), }")
    assert len(huge) == len(array)
    assert huge != array
    Path("huge.npy").write_bytes(huge)
    packed = bytearray(Path("data.npz").read_bytes())
    packed[300:600] = bytes(300)
    Path("broken.npz").write_bytes(packed)
    two_inputs().save_as_hdf5("two.hdf5")
    np.savez("wrong.npz", default=np.zeros((1, 5, 3)))
    before = {path: path.read_bytes() for path in Path().iterdir()}
    assert main(arguments) == 2
    assert {path: path.read_bytes() for path in Path().iterdir()} == before
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(f"brainstorm {arguments[0]}: ")
    assert text in captured.err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nope"], "choose from 'info'"),
        (["evaluate", "a"], "required: data"),
        (["evaluate", "a", "b", "--batch-size=many"], "--batch-size: invalid int"),
        (["evaluate", "a", "b", "--scorer=Luck"], "choose from 'Accuracy'"),
    ],
)
def test_usage(capsys, arguments, text):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert text.replace("'", "") in line.replace("'", "")
    assert line.endswith("--help")


def test_without_arguments_the_help_is_printed(capsys):
    assert main([]) == 2
    err = capsys.readouterr().err
    assert "evaluate" in err
    assert "make the HDF5 file of a data set" in err
    assert "copy the examples" in err


def test_the_session_of_the_documentation(tmp_path, monkeypatch, capsys):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    root = Path(bs.__path__[0]).parent
    text = (root / "docs" / "network.rst").read_text()
    _, _, session = text.partition("   $ python examples/digits_mlp.py\n")
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, root / "examples" / "digits_mlp.py", "--epochs", "2"]
    subprocess.run([*command, "--stepper", "adam"], check=True, capture_output=True)
    results = []
    for line in session.partition("\n\n")[0].splitlines():
        program, *words = line.split()[1:]
        if program == "python":
            words[0] = root / words[0]
            subprocess.run([sys.executable, *words], check=True, capture_output=True)
        else:
            assert main(words) == 0, capsys.readouterr().err
            results.append(capsys.readouterr().out)
    assert len(results) == 3
    accuracy = float(results[1].partition("Accuracy")[2].partition(":")[2])
    predictions = np.load("predictions.npy")
    with h5py.File("Digits.hdf5") as f:
        targets = f["normalized_full/test/targets"][..., 0]
    assert np.mean(predictions.argmax(-1) == targets) == pytest.approx(accuracy)
    assert accuracy > 0.8


def test_data_sets_are_listed(tmp_path, capsys):
    (tmp_path / "MNIST.hdf5").write_text("")
    assert main(["data", "--dir", str(tmp_path)]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert str(tmp_path) in first
    assert [line.split()[0] for line in lines] == list(DATA_SETS)
    states = {line.split()[0]: line.rpartition("(")[2] for line in lines}
    assert states["Digits"] == "no download)"
    assert states["MNIST"] == "there)"
    assert states["CIFAR-10"] == "170 MB to download)"


def test_a_data_set_is_made(tmp_path, monkeypatch, capsys, small, server):
    server.files = small("MNIST")
    change(monkeypatch, "MNIST", mirrors=[server.url])
    monkeypatch.setenv("BRAINSTORM_DATA_DIR", str(tmp_path))
    assert main(["data", "mnist"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'MNIST.hdf5'}\n"
    with h5py.File(tmp_path / "MNIST.hdf5") as f:
        assert "normalized_split/validation" in f


def interrupted(*args):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["data", "MNSIT"], 2, "did you mean 'MNIST'"),
        (["data", "CIFAR-10"], 2, "put that into the folder"),
        (["data", "MNIST"], 130, "brainstorm data: interrupted"),
        (["examples", "file"], 2, "can not make the folder 'file'"),
        (["examples", "some"], 2, "'some' has 'common.py' already"),
    ],
)
def test_data_and_examples_that_are_not_to_be_had(
    words, status, text, tmp_path, monkeypatch, capsys, server
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BRAINSTORM_DATA_DIR", str(tmp_path / "data"))
    change(monkeypatch, "CIFAR-10", mirrors=[server.url])
    change(monkeypatch, "MNIST", files=(), write=interrupted)
    (tmp_path / "file").write_text("")
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "common.py").write_text("mine")
    assert main(words) == status
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert text in line
    assert [f.name for f in (tmp_path / "some").iterdir()] == ["common.py"]


def test_examples_are_copied(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    root = Path(bs.__path__[0]).parent
    assert main(["examples"]) == 0
    copied = {f.name: f.read_bytes() for f in (tmp_path / "examples").iterdir()}
    sources = [f for f in (root / "examples").iterdir() if f.suffix in (".py", ".rst")]
    assert copied == {f.name: f.read_bytes() for f in sources}
    assert f"copied {len(copied)} files to examples" in capsys.readouterr().out
    (tmp_path / "examples" / "common.py").write_text("mine")
    assert main(["examples"]) == 2
    assert (tmp_path / "examples" / "common.py").read_text() == "mine"
    assert main(["examples", "examples", "--force"]) == 0
    assert (tmp_path / "examples" / "common.py").read_bytes() == copied["common.py"]


def test_as_a_process(net):
    done = subprocess.run(
        [sys.executable, "-m", "brainstorm", "--version"],
        capture_output=True,
        text=True,
        cwd=bs.__path__[0] + "/..",
    )
    assert done.stdout == f"{bs.__version__}\n"


# -- view -------------------------------------------------------------------------


@pytest.fixture
def opened(monkeypatch):
    """The addresses that the browser is told to open."""
    found = []
    monkeypatch.setattr("webbrowser.open", found.append)
    return found


def snapshot_in(name):
    text = Path(name).read_text(encoding="utf-8")
    return json.loads(text.partition('id="data">')[2].partition("</script>")[0])


def test_view(net, opened, capsys):
    assert main(["view", "net.hdf5"]) == 0
    assert capsys.readouterr().out == "the page is in net.html\n"
    assert opened == [Path("net.html").resolve().as_uri()]
    snapshot = snapshot_in("net.html")
    assert snapshot["title"] == "net.hdf5"
    assert snapshot["example"] is None


@pytest.mark.parametrize("file", FILES)
def test_view_of_an_example(net, data, opened, file):
    output = ["--output", "page.html", "--no-browser"]
    assert main(["view", "net.hdf5", *file, "--example", "4", *output]) == 0
    assert opened == []
    snapshot = snapshot_in("page.html")
    assert snapshot["example"]["number"] == 4
    (shown,) = [
        b["contents"]
        for layer in snapshot["layers"]
        for b in layer["buffers"]
        if b["path"] == "Output.outputs.predictions"
    ]
    np.testing.assert_allclose(unpack(shown), net(data[0])[0, 4], rtol=1e-5)
    assert snapshot["example"]["deltas"] is True


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["nowhere.hdf5"], "there is no file 'nowhere.hdf5'"),
        (["net.hdf5", "nowhere.npz"], "there is no file 'nowhere.npz'"),
        (["net.hdf5", "data.npz", "--example", "30"], "a number below 30"),
        (["net.hdf5", "data.npz", "--example", "-1"], "example has to be"),
        (["net.hdf5", "other.npz"], "no data for the inputs 'default', 'targets'"),
        (["net.hdf5", "wrong.npz"], "expected data of the shape"),
        (["net.hdf5", "net.hdf5"], "no data for the inputs"),
        (["data.npz"], "data.npz"),
        (["net.hdf5", "--output", "net.hdf5"], "a file of another kind"),
        (["net.hdf5", "--output", "no/where.html"], "there is no folder"),
    ],
)
def test_view_of_what_is_not_there(net, data, opened, capsys, words, text):
    np.savez("other.npz", x=np.zeros((1, 3, 4)))
    np.savez("wrong.npz", default=np.zeros((1, 3, 5)))
    saved = Path("net.hdf5").read_bytes()
    assert main(["view", *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("brainstorm view: ")
    assert text in lines[0]
    assert opened == []
    assert not list(Path().glob("*.html"))
    assert Path("net.hdf5").read_bytes() == saved

import gzip
import importlib
import os
import pickle
import re
import socket
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import brainstorm as bs
from brainstorm.datasets.getting import File
from tests.published import (
    SMALL,
    change,
    check_images,
    cifar10_batches,
    cifar10_files,
    content_of,
    hutter_text,
    idx,
    python2_pickle,
    random_images,
    tar,
    zipped,
)

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = {path.stem for path in (ROOT / "data").glob("create_*.py")}
DOWNLOADING = ["create_cifar10", "create_cifar100", "create_hutter", "create_mnist"]


@pytest.fixture
def load(monkeypatch):
    """Imports a script, or what the scripts share."""
    monkeypatch.syspath_prepend(str(ROOT / "data"))
    return importlib.import_module


NAMES = {
    "create_mnist": "MNIST",
    "create_cifar10": "CIFAR-10",
    "create_cifar100": "CIFAR-100",
    "create_hutter": "HutterPrize",
}


@pytest.fixture
def prepared(load, small):
    """A script that expects a small data set, which is returned: bytes by name."""
    return lambda script: (load(script), small(NAMES[script]))


def error_of(capsys):
    """The one line that a script has written about what went wrong."""
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = [la for la in captured.err.splitlines() if la.startswith("error: ")]
    assert captured.err.rstrip().endswith(line)
    assert "Traceback" not in captured.err
    return line


# -- what is written ---------------------------------------------------------


def test_mnist(prepared, server, tmp_path, capsys):
    module, server.files = prepared("create_mnist")
    output = tmp_path / "new" / "MNIST.hdf5"
    assert module.main(["--output", str(output), "--url", server.url]) == 0
    assert capsys.readouterr().out == f"wrote {output}\n"
    training, test = random_images(50, 28, 28), random_images(9, 28, 28)
    training, test = ([i[..., np.newaxis], la] for i, la in (training, test))
    check_images(content_of(output), training, test, 7)
    with h5py.File(output) as f:
        assert f["normalized_full/training/default"].shape == (1, 50, 28, 28, 1)
        assert "Yann LeCun" in f.attrs["description"]
    assert [path for path, _ in server.requests] == [
        f"/some/folder/{name}" for name in server.files
    ]


@pytest.mark.parametrize(
    "dump", [python2_pickle, lambda v: pickle.dumps(v, protocol=2)]
)
def test_cifar10(prepared, tmp_path, monkeypatch, dump):
    monkeypatch.setitem(SMALL, "CIFAR-10", lambda: cifar10_files(dump))
    module, files = prepared("create_cifar10")
    source, output = tmp_path / "any.tar.gz", tmp_path / "CIFAR-10.hdf5"
    source.write_bytes(*files.values())
    assert module.main(["--output", str(output), "--source", str(source)]) == 0
    *batches, test = cifar10_batches().values()
    images = np.concatenate([images for images, _ in batches])
    labels = [label for _, labels in batches for label in labels]
    check_images(content_of(output), [images, labels], test, 7)
    with h5py.File(output) as f:
        assert f["normalized_full/training/default"].shape == (1, 40, 32, 32, 3)
        assert "airplane" in f.attrs["description"]


def test_cifar100(prepared, server, tmp_path):
    module, server.files = prepared("create_cifar100")
    output = tmp_path / "CIFAR-100.hdf5"
    assert module.main(["--output", str(output), "--url", server.url + "/"]) == 0
    training = random_images(30, 32, 32, 3, nr_classes=100)
    test = random_images(7, 32, 32, 3, nr_classes=100)
    check_images(content_of(output), training, test, 7)


def check_text(output, text, sizes):
    """Put the batches together again and compare them with the text."""
    found = content_of(output)
    with h5py.File(output) as f:
        unique = f.attrs["unique"]
        np.testing.assert_array_equal(f["split"].attrs["unique"], unique)
        assert f.attrs["description"]
    assert bytes(unique) == bytes(sorted(set(text)))
    start = 0
    for name, nr_batches in zip(("training", "validation", "test"), sizes, strict=True):
        for item, shift in (("default", 0), ("targets", 1)):
            data = found[f"split/{name}/{item}"]
            assert data.shape == (100, nr_batches * 100, 1)
            rows = [
                data[:, place::100, 0].T.ravel() for place in range(100)
            ]  # each place in the batches is one long piece of text
            part = bytes(unique[np.concatenate(rows)])
            assert part == text[start + shift :][: nr_batches * 10000]
        start += nr_batches * 10000
    assert len(found) == 6


def test_hutter(prepared, server, tmp_path):
    module, server.files = prepared("create_hutter")
    output = tmp_path / "HutterPrize.hdf5"
    assert module.main(["--output", str(output), "--url", server.url]) == 0
    check_text(output, hutter_text(), (5, 1, 1))


def test_digits(load, tmp_path):
    datasets = pytest.importorskip("sklearn.datasets")
    output = tmp_path / "Digits.hdf5"
    assert load("create_digits").main(["--output", str(output)]) == 0
    found = content_of(output)
    shapes = {name: data.shape for name, data in found.items()}
    for part, number in {
        "normalized_full/training": 1500,
        "normalized_full/test": 297,
        "normalized_split/training": 1200,
        "normalized_split/validation": 300,
        "normalized_split/test": 297,
    }.items():
        assert shapes.pop(f"{part}/default") == (1, number, 8, 8, 1)
        assert shapes.pop(f"{part}/targets") == (1, number, 1)
    assert not shapes

    def as_set(images, labels):
        return {(i.tobytes(), la) for i, la in zip(images, labels, strict=True)}

    images, labels = (
        np.concatenate(
            [found[f"normalized_full/{p}/{n}"][0] for p in ("training", "test")]
        )
        for n in ("default", "targets")
    )
    digits = datasets.load_digits()
    expected = (digits.images / 16).astype(np.float32)
    assert as_set(images, labels.ravel()) == as_set(expected, digits.target)
    counts = np.bincount(found["normalized_full/test/targets"].ravel())
    assert counts.min() > 15


def test_digits_without_sklearn(load, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    output = tmp_path / "Digits.hdf5"
    assert load("create_digits").main(["--output", str(output)]) == 1
    assert f'pip install "{ROOT}[examples]"' in error_of(capsys)


def test_python_text(load, tmp_path):
    output = tmp_path / "PythonText.hdf5"
    arguments = ["--output", str(output), "--size", "210000"]
    assert load("create_python_text").main(arguments) == 0
    found = content_of(output)
    sizes = [
        found[f"split/{p}/default"].shape[1] // 100
        for p in ("training", "validation", "test")
    ]
    assert sizes == [19, 1, 1]
    with h5py.File(output) as f:
        unique = f.attrs["unique"]
    assert unique.max() < 128
    data = found["split/training/default"]
    text = b"".join(
        bytes(unique[data[:, p::100].T.ravel()]) for p in range(100)
    ).decode()
    assert text.count("\n    def ") > 20
    assert text.count("import ") > 20


def test_python_text_is_the_same_each_time(load, tmp_path):
    files = [tmp_path / name for name in "ab"]
    for file in files:
        arguments = ["--output", str(file), "--size", "30000"]
        assert load("create_python_text").main(arguments) == 0
    first, second = map(content_of, files)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_python_text_of_another_size(load, tmp_path, capsys):
    main = load("create_python_text").main
    assert main(["--output", str(tmp_path / "a"), "--size", "29999"]) == 1
    assert "more than 30000 characters" in error_of(capsys)
    assert main(["--output", str(tmp_path / "a"), "--size", str(10**9)]) == 1
    assert "--size: the library has just" in error_of(capsys)
    assert list(tmp_path.iterdir()) == []


def test_iterators_read_the_files(prepared, server, tmp_path):
    module, server.files = prepared("create_mnist")
    output = tmp_path / "MNIST.hdf5"
    assert module.main(["--output", str(output), "--url", server.url]) == 0
    with h5py.File(output) as f:
        data = f["normalized_split/training"]
        net = bs.tools.create_net_from_spec("classification", (28, 28, 1), 10, "F5")
        scores = bs.tools.evaluate(net, bs.Minibatches(20, **data))
    assert 0 < scores["total_loss"] < 20


# -- sources -----------------------------------------------------------------


def test_sources_are_files_and_folders(prepared, server, tmp_path):
    module, files = prepared("create_mnist")
    folder, output = tmp_path / "folder", tmp_path / "MNIST.hdf5"
    folder.mkdir()
    first, *others = files
    (tmp_path / first).write_bytes(files[first])
    for name in others:
        (folder / name).write_bytes(files[name])
    sources = ["--source", str(folder), "--source", str(tmp_path / first)]
    arguments = ["--output", str(output), "--url", server.url, *sources]
    assert module.main(arguments) == 0
    assert len(content_of(output)) == 10
    assert server.requests == []


def test_missing_sources(prepared, tmp_path, capsys):
    module, _ = prepared("create_mnist")
    arguments = ["--output", str(tmp_path / "MNIST.hdf5"), "--source"]
    assert module.main([*arguments, str(tmp_path / "no")]) == 1
    assert f"--source: there is no {tmp_path / 'no'}" in error_of(capsys)
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(b"")
    assert module.main([*arguments, str(tmp_path / "t10k-images-idx3-ubyte.gz")]) == 1
    assert "train-images-idx3-ubyte.gz is not among" in error_of(capsys)


@pytest.mark.parametrize("script", DOWNLOADING)
def test_damaged_sources(prepared, tmp_path, capsys, script):
    module, files = prepared(script)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content[:-9] + b"x" + content[-8:])
    output = tmp_path / "data.hdf5"
    assert module.main(["--output", str(output), "--source", str(tmp_path)]) == 1
    error = error_of(capsys)
    assert re.search("MD5 checksum|Bad magic number", error), error
    assert not output.exists()


@pytest.mark.parametrize("script", DOWNLOADING)
def test_files_of_another_format(prepared, load, tmp_path, capsys, monkeypatch, script):
    module, files = prepared(script)
    monkeypatch.setattr(load("_common"), "check", lambda path, file: None)
    output = tmp_path / "data.hdf5"
    for bad in (b"", b"foo", gzip.compress(b"foo" * 1000), tar({"foo": b"foo"})):
        for name in files:
            (tmp_path / name).write_bytes(bad)
        assert module.main(["--output", str(output), "--source", str(tmp_path)]) == 1
        assert str(tmp_path) in error_of(capsys)
    assert not output.exists()
    assert not list(tmp_path.glob("*.tmp"))


def test_images_without_labels(prepared, load, tmp_path, capsys, monkeypatch):
    module, files = prepared("create_mnist")
    files["train-labels-idx1-ubyte.gz"] = idx(np.zeros(49, np.uint8))
    monkeypatch.setattr(load("_common"), "check", lambda path, file: None)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    output = tmp_path / "data.hdf5"
    assert module.main(["--output", str(output), "--source", str(tmp_path)]) == 1
    assert "50 images" in error_of(capsys)


# -- downloads ---------------------------------------------------------------


@pytest.mark.parametrize("script", DOWNLOADING)
def test_broken_downloads_are_resumed(prepared, server, tmp_path, capsys, script):
    module, server.files = prepared(script)
    name, content = next(iter(server.files.items()))
    arguments = ["--output", str(tmp_path / "data.hdf5"), "--url", server.url]
    server.breaks_at = len(content) // 2
    assert module.main(arguments) == 1
    assert f"ended after {server.breaks_at} of {len(content)}" in error_of(capsys)
    assert [f.name for f in tmp_path.iterdir()] == [f"{name}.part"]

    server.breaks_at = None
    server.requests.clear()
    assert module.main(arguments) == 0
    assert server.requests[0] == (f"/some/folder/{name}", f"bytes={len(content) // 2}-")
    written = {f.name for f in tmp_path.iterdir()}
    assert written == {"data.hdf5", *server.files}

    server.requests.clear()
    assert module.main(arguments) == 0
    assert server.requests == []


def test_server_that_can_not_resume(prepared, server, tmp_path):
    module, server.files = prepared("create_hutter")
    (tmp_path / "enwik8.zip.part").write_bytes(b"garbage")
    server.resumes = False
    arguments = ["--output", str(tmp_path / "data.hdf5"), "--url", server.url]
    assert module.main(arguments) == 0
    assert [wanted for _, wanted in server.requests] == ["bytes=7-"]


def test_damaged_part_is_not_kept(prepared, server, tmp_path, capsys):
    module, server.files = prepared("create_cifar10")
    (tmp_path / "cifar-10-python.tar.gz.part").write_bytes(b"garbage")
    arguments = ["--output", str(tmp_path / "data.hdf5"), "--url", server.url]
    assert module.main(arguments) == 1
    assert "MD5 checksum" in error_of(capsys)
    assert list(tmp_path.iterdir()) == []
    assert module.main(arguments) == 0


def test_damaged_file_is_downloaded_again(prepared, server, tmp_path):
    module, server.files = prepared("create_cifar10")
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"garbage")
    arguments = ["--output", str(tmp_path / "data.hdf5"), "--url", server.url]
    assert module.main(arguments) == 0


@pytest.mark.parametrize("change", [lambda c: c[:-1] + b"x", lambda c: c + b"x"])
@pytest.mark.parametrize("script", ["create_mnist", "create_cifar10"])
def test_wrong_content(prepared, server, tmp_path, capsys, script, change):
    module, files = prepared(script)
    server.files = {name: change(content) for name, content in files.items()}
    output = tmp_path / "data.hdf5"
    output.write_bytes(b"the old one")
    assert module.main(["--output", str(output), "--url", server.url]) == 1
    error = error_of(capsys)
    assert next(iter(files)) in error
    assert re.search("MD5 checksum|expected .* bytes", error)
    assert list(tmp_path.iterdir()) == [output]
    assert output.read_bytes() == b"the old one"


def test_wrong_text_in_the_archive(prepared, server, tmp_path, capsys, monkeypatch):
    module, server.files = prepared("create_hutter")
    text = hutter_text()[:-1] + b"b"
    server.files = {"enwik8.zip": zipped("enwik8", text)}
    size = len(server.files["enwik8.zip"])
    change(monkeypatch, "HutterPrize", files=[File("enwik8.zip", size, None)])
    output = tmp_path / "data.hdf5"
    assert module.main(["--output", str(output), "--url", server.url]) == 1
    assert "MD5 checksum" in error_of(capsys)
    assert not output.exists()


@pytest.mark.parametrize("script", DOWNLOADING)
def test_file_that_the_server_does_not_have(prepared, server, tmp_path, capsys, script):
    module, _ = prepared(script)
    output = tmp_path / "data.hdf5"
    assert module.main(["--output", str(output), "--url", server.url]) == 1
    assert "Not Found" in error_of(capsys)
    assert list(tmp_path.iterdir()) == []


def test_mirrors_are_tried_in_order(prepared, server, tmp_path, monkeypatch):
    module, server.files = prepared("create_mnist")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    mirrors = (f"http://127.0.0.1:{port}", server.url.replace("/some", "/other"))
    change(monkeypatch, "MNIST", mirrors=mirrors)
    output = tmp_path / "data.hdf5"
    assert module.main(["--output", str(output)]) == 0
    assert server.requests[0][0].startswith("/other/folder/train-images")


@pytest.mark.slow
def test_without_a_network_the_exit_code_is_1(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for script in DOWNLOADING:
        command = [sys.executable, str(ROOT / "data" / f"{script}.py")]
        command += ["--output", str(tmp_path / "x.hdf5")]
        command += ["--url", f"http://127.0.0.1:{port}"]
        path = str(Path(bs.__file__).parents[1])
        result = subprocess.run(
            command,
            env=os.environ | {"PYTHONPATH": path, "no_proxy": "*"},
            capture_output=True,
            text=True,
        )
        assert result.returncode == 1
        assert re.fullmatch(
            "error: can not download .*Connection refused.*\n", result.stderr
        )
        assert list(tmp_path.iterdir()) == []


def test_addresses_that_are_none(prepared, tmp_path, capsys):
    module, _ = prepared("create_hutter")
    output = tmp_path / "data.hdf5"
    assert module.main(["--output", str(output), "--url", "foo"]) == 1
    assert "unknown url type" in error_of(capsys)


@pytest.mark.parametrize(
    "bad",
    [
        [],
        {b"labels": [1]},
        {b"data": np.zeros((1, 3072), np.uint8)},
        {b"data": np.zeros((1, 3071), np.uint8), b"labels": [1]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]},
        {b"data": np.zeros((1, 3072), np.uint8), b"labels": [b"1"]},
        {b"data": [[0] * 3072], b"labels": [1]},
    ],
)
def test_members_of_another_structure(prepared, tmp_path, capsys, monkeypatch, bad):
    def files():
        names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
        members = {f"cifar-10-batches-py/{n}": python2_pickle(bad) for n in names}
        return {"cifar-10-python.tar.gz": tar(members)}

    monkeypatch.setitem(SMALL, "CIFAR-10", files)
    module, content = prepared("create_cifar10")
    (tmp_path / "a").write_bytes(*content.values())
    arguments = ["--output", str(tmp_path / "b"), "--source", str(tmp_path / "a")]
    assert module.main(arguments) == 1
    assert "data_batch_1: expected a dict" in error_of(capsys)


# -- command line ------------------------------------------------------------


def test_there_are_tests_for_all_scripts():
    assert {*DOWNLOADING, "create_digits", "create_python_text"} == SCRIPTS


@pytest.mark.parametrize(
    ("script", "name"),
    [
        ("create_mnist", "MNIST.hdf5"),
        ("create_cifar10", "CIFAR-10.hdf5"),
        ("create_cifar100", "CIFAR-100.hdf5"),
        ("create_hutter", "HutterPrize.hdf5"),
        ("create_digits", "Digits.hdf5"),
        ("create_python_text", "PythonText.hdf5"),
    ],
)
def test_help_and_default_output(load, script, name, monkeypatch, capsys):
    for folder in (None, "/some/folder"):
        if folder is None:
            monkeypatch.delenv("BRAINSTORM_DATA_DIR", raising=False)
        else:
            monkeypatch.setenv("BRAINSTORM_DATA_DIR", folder)
        with pytest.raises(SystemExit) as stop:
            load(script).main(["--help"])
        assert stop.value.code == 0
        text = "".join(capsys.readouterr().out.split())
        assert f"default:{folder or ROOT / 'data'}/{name}" in text

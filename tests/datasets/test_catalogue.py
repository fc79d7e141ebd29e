"""Data sets are made when they are first used."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest

import brainstorm as bs
from brainstorm import datasets
from brainstorm.datasets import cifar, hutter, mnist
from brainstorm.datasets.catalogue import ALIASES, DATA_SETS, find
from brainstorm.datasets.getting import alone
from brainstorm.utils import (
    DownloadError,
    FileFormatError,
    MissingFileError,
    UnknownNameError,
    ValidationError,
)
from tests.published import SMALL, change

LARGE = list(SMALL)


@pytest.fixture
def ours(small, server, monkeypatch):
    """A small data set on a server instead of the large one."""

    def prepare(name):
        server.files = small(name)
        change(monkeypatch, name, mirrors=[server.url])

    return prepare


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", LARGE)
def test_a_data_set_is_made_once(ours, server, tmp_path, name):
    ours(name)
    folder = tmp_path / "new" / "folder"
    data = datasets.load(name, folder)
    assert sorted(data) == ["test", "training", "validation"]
    for part in data.values():
        _, B, *_ = part["default"].shape
        assert part["targets"].shape[1] == B
        assert bs.Minibatches(10, **part).length == -(-B // 10)
    assert data.file.attrs["description"]
    data.file.close()
    assert names_in(folder) == sorted([f"{name}.hdf5", *server.files])
    server.requests.clear()
    path = datasets.fetch(name.lower(), str(folder))
    assert path == folder / f"{name}.hdf5"
    assert server.requests == []


def test_without_validation(ours, tmp_path):
    ours("MNIST")
    data = datasets.load("MNIST", tmp_path, validation=False)
    assert sorted(data) == ["test", "training"]
    assert data["training/default"].shape == (1, 50, 28, 28, 1)
    with pytest.raises(ValidationError, match="validation: PythonText has always"):
        datasets.load("PythonText", tmp_path, validation=False)


def test_digits_are_those_of_scikit_learn(tmp_path):
    sklearn = pytest.importorskip("sklearn.datasets")
    data = datasets.load("digits", tmp_path)
    sizes = {name: part["default"].shape for name, part in data.items()}
    assert sizes["training"] == (1, 1200, 8, 8, 1)
    labels = np.concatenate([part["targets"][0, :, 0] for part in data.values()])
    assert (
        np.bincount(labels).tolist()
        == np.bincount(sklearn.load_digits().target).tolist()
    )


def test_digits_without_scikit_learn(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match="Digits needs scikit-learn"):
        datasets.load("Digits", tmp_path)
    assert names_in(tmp_path) == []


@pytest.mark.slow
def test_python_text_is_read_in_order(tmp_path):
    data = datasets.load("PythonText", tmp_path)
    unique = data.attrs["unique"]
    text = unique[data["training/default"][:, ::100, 0].T.ravel()].tobytes().decode()
    assert text.count("\n    def ") > 20
    batches = bs.Minibatches(100, shuffle=False, **data["test"])
    first, second = list(batches())[:2]
    np.testing.assert_array_equal(first["targets"][-1], second["default"][0])


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("mnist", "MNIST"),
        ("CIFAR10", "CIFAR-10"),
        ("cifar_100", "CIFAR-100"),
        ("hutter", "HutterPrize"),
        ("enwik8", "HutterPrize"),
        ("Python text", "PythonText"),
    ],
)
def test_names_are_found_however_they_are_written(given, meant):
    assert find(given).name == meant
    assert set(ALIASES.values()) <= set(DATA_SETS)


@pytest.mark.parametrize("name", ["MNSIT", "", None])
def test_unknown_names(name, tmp_path):
    with pytest.raises(UnknownNameError, match="choices are: 'Digits', 'MNIST'"):
        datasets.load(name, tmp_path)
    with pytest.raises(UnknownNameError, match="did you mean 'MNIST'"):
        datasets.fetch("MNSIT", tmp_path)


def test_the_folder_is_given_by_argument_variable_or_home(monkeypatch, tmp_path):
    monkeypatch.setenv("BRAINSTORM_DATA_DIR", str(tmp_path))
    assert datasets.data_folder() == tmp_path
    assert datasets.data_folder("some") == Path("some")
    for nothing in (monkeypatch.delenv, lambda name: monkeypatch.setenv(name, "")):
        nothing("BRAINSTORM_DATA_DIR")
        assert datasets.data_folder() == Path.home() / ".brainstorm" / "data"


def test_folders_that_can_not_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(MissingFileError, match="folder .*BRAINSTORM_DATA_DIR"):
            datasets.fetch("Digits", folder)


def test_other_files_of_the_name_are_told(tmp_path):
    path = tmp_path / "MNIST.hdf5"
    path.write_text("foo")
    with pytest.raises(FileFormatError, match="can not read .*MNIST.hdf5"):
        datasets.load("MNIST", tmp_path)
    with h5py.File(path, "w") as f:
        f["default"] = 1
    with pytest.raises(FileFormatError, match="no group 'normalized_split'.* delete"):
        datasets.load("MNIST", tmp_path)


# -- downloads ---------------------------------------------------------------


def test_without_internet_one_is_told_what_to_do(ours, server, tmp_path):
    ours("MNIST")
    files, server.files = server.files, {}
    with pytest.raises(DownloadError, match="Not Found") as info:
        datasets.load("MNIST", tmp_path)
    assert str(tmp_path) in str(info.value)
    for name in files:
        assert name in str(info.value)
    assert names_in(tmp_path) == []
    # So it is done: by hand.
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    server.requests.clear()
    assert sorted(datasets.load("MNIST", tmp_path)) == [
        "test",
        "training",
        "validation",
    ]
    assert server.requests == []


def test_files_put_there_by_hand_are_checked(ours, server, tmp_path):
    ours("CIFAR-10")
    (name, content), server.files = *server.files.items(), {}
    (tmp_path / name).write_bytes(content[:-1] + b"x")
    with pytest.raises(DownloadError, match=f"{name}: expected the MD5.* Not Found"):
        datasets.fetch("CIFAR-10", tmp_path)


@pytest.mark.parametrize("name", ["MNIST", "CIFAR-100"])
def test_wrong_content_is_refused_by_name(ours, server, tmp_path, name):
    ours(name)
    server.files = {n: c[:-1] + b"x" for n, c in server.files.items()}
    with pytest.raises(
        DownloadError, match=f"{next(iter(server.files))}.*MD5 checksum"
    ):
        datasets.fetch(name, tmp_path)
    assert names_in(tmp_path) == []


def test_other_pages_than_the_file_do_not_replace_what_has_arrived(
    ours, server, tmp_path
):
    ours("HutterPrize")
    content = server.files["enwik8.zip"]
    part = tmp_path / "enwik8.zip.part"
    part.write_bytes(content[:1000])
    server.resumes, server.files = False, {"enwik8.zip": b"<p>Please log in</p>"}
    size = len(content)
    with pytest.raises(DownloadError, match=f"expected {size} bytes, .* has 20"):
        datasets.fetch("HutterPrize", tmp_path)
    assert part.read_bytes() == content[:1000]
    server.resumes, server.files = True, {"enwik8.zip": content}
    assert datasets.fetch("HutterPrize", tmp_path).is_file()
    assert server.requests[-1][1] == "bytes=1000-"


def test_a_broken_download_goes_on(ours, server, tmp_path):
    ours("HutterPrize")
    server.breaks_at = 1000
    with pytest.raises(DownloadError, match="ended after 1000 .* run this again"):
        datasets.fetch("HutterPrize", tmp_path)
    assert names_in(tmp_path) == ["enwik8.zip.part"]
    server.breaks_at = None
    assert datasets.fetch("HutterPrize", tmp_path).is_file()
    assert server.requests[-1][1] == "bytes=1000-"


def test_what_breaks_off_while_it_is_written_leaves_no_file(
    ours, tmp_path, monkeypatch
):
    ours("MNIST")

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(mnist, "read_idx", interrupted)
    with pytest.raises(KeyboardInterrupt):
        datasets.fetch("MNIST", tmp_path)
    assert all(name.endswith(".gz") for name in names_in(tmp_path))


def test_checksums_are_those_that_are_published():
    """As in torchvision's sources and on the page of the Hutter Prize's text."""
    assert [file.md5 for file in mnist.FILES] == [
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ]
    assert cifar.FILE_10.md5 == "c58f30108f718f92721af3b95e74349a"
    assert cifar.FILE_100.md5 == "eb9058c3a382ffc7106e4002c42a8d85"
    assert hutter.TEXT.md5 == "a1fa5ffddb56f4953e226637dabbb36a"


# -- at the same time --------------------------------------------------------


def test_threads_make_a_data_set_once(ours, server, tmp_path):
    ours("MNIST")
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(datasets.fetch("MNIST", tmp_path)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [tmp_path / "MNIST.hdf5"] * 4
    assert len(server.requests) == 4  # one for each file
    assert names_in(tmp_path) == sorted(["MNIST.hdf5", *server.files])


HOLD = """
import sys
from pathlib import Path
from brainstorm.datasets.getting import alone
with alone(Path(sys.argv[1])):
    print("mine", flush=True)
    sys.stdin.readline()
    if sys.argv[2:]:
        import os; os._exit(1)
    print("ended", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", [(), ("killed",)])
def test_processes_wait_for_each_other(tmp_path, end):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "x"), *end],
        env=os.environ | {"PYTHONPATH": str(Path(bs.__file__).parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    entered = threading.Event()

    def enter():
        with alone(tmp_path / "x"):
            entered.set()

    with process:
        assert process.stdout.readline() == "mine\n"
        thread = threading.Thread(target=enter)
        thread.start()
        assert not entered.wait(0.3)
        process.stdin.write("\n")
        process.stdin.close()
        assert entered.wait(600)
        thread.join()
    assert names_in(tmp_path) == []

"""What is in the files that others publish, or claims to be."""

import gzip
import io
import os
import pickle
import tarfile

import numpy as np
import pytest

from brainstorm.datasets import cifar, hutter, mnist, python_text
from brainstorm.datasets.cifar import load_pickle
from brainstorm.utils import FileFormatError, ValidationError
from tests.published import cifar10_files, cifar_member, idx, random_images, zipped

# -- pickles -----------------------------------------------------------------


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("evil",))


def test_pickles_run_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for bad in (
        pickle.dumps(Evil()),
        pickle.dumps({b"data": [Evil()]}),
        b"\x80\x02cbuiltins\neval\n(T\x01\x00\x00\x001tR.",
        pickle.dumps(np.array([Evil()], dtype=object)),
        pickle.dumps(np.zeros(3)),
        b"",
        b"\x80\x02",
        b"foo",
    ):
        with pytest.raises(FileFormatError, match="member: "):
            load_pickle(io.BytesIO(bad), "member")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("protocol", range(5))
def test_pickles_of_plain_data_are_read(protocol):
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for order in "CF":
        data = {b"data": np.array(array, order=order), b"labels": [1, 2, 3], b"x": None}
        content = pickle.dumps(data, protocol=protocol)
        found = load_pickle(io.BytesIO(content), "member")
        np.testing.assert_array_equal(found.pop(b"data"), array)
        assert found == {b"labels": [1, 2, 3], b"x": None}


# -- archives ----------------------------------------------------------------


def cifar100(tmp_path, *infos):
    """An archive that is good but for more members."""
    path = tmp_path / "cifar-100-python.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, number in (("train", 8), ("test", 7)):
            member = cifar_member(*random_images(number, 32, 32, 3), b"fine_labels")
            info = tarfile.TarInfo(f"cifar-100-python/{name}")
            info.size = len(member)
            archive.addfile(info, io.BytesIO(member))
        for info in infos:
            archive.addfile(info, io.BytesIO(b"x" * info.size))
    return path


def member(name, **attributes):
    info = tarfile.TarInfo(name)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info


def test_a_good_archive_is_read(tmp_path):
    folder = member("cifar-100-python", type=tarfile.DIRTYPE)
    path = cifar100(tmp_path, folder, member("cifar-100-python/meta", size=4))
    training, test = cifar.read_archive(path, cifar.PARTS_100, b"fine_labels")
    assert (len(training.images), len(test.labels)) == (8, 7)


@pytest.mark.parametrize("name", ["/etc/evil", "../evil", "a/../../evil", "\\evil"])
def test_members_that_lead_out_are_refused_by_name(tmp_path, name):
    path = cifar100(tmp_path, member(name, size=3))
    with pytest.raises(FileFormatError, match="refused, since its .*evil.* outside"):
        cifar.read_archive(path, cifar.PARTS_100, b"fine_labels")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused_by_name(tmp_path, kind):
    link = member("cifar-100-python/a", type=kind, linkname="cifar-100-python/a")
    path = cifar100(tmp_path, link)
    with pytest.raises(FileFormatError, match="'cifar-100-python/a' is neither a file"):
        cifar.read_archive(path, cifar.PARTS_100, b"fine_labels")


def test_members_that_are_too_large_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "LARGEST", 30000)
    path = cifar100(tmp_path, member("cifar-100-python/b", size=30001))
    with pytest.raises(FileFormatError, match="python/b' claims to have 30001 bytes"):
        cifar.read_archive(path, cifar.PARTS_100, b"fine_labels")


@pytest.mark.parametrize("keep", [10, 100, 5000, -8, -1])
def test_truncated_files_are_refused_by_name(tmp_path, keep):
    path = tmp_path / "the file"
    path.write_bytes(
        idx(np.random.RandomState(0).randint(0, 255, 9000, np.uint8))[:keep]
    )
    with pytest.raises(FileFormatError, match="the file"):
        mnist.read_idx(path, 1)
    path.write_bytes(cifar10_files()["cifar-10-python.tar.gz"][:keep])
    with pytest.raises(FileFormatError, match="the file"):
        cifar.read_archive(path, cifar.PARTS_10, b"labels")
    path.write_bytes(zipped("enwik8", os.urandom(6000))[:keep])
    with pytest.raises(FileFormatError, match="the file"):
        hutter.read_text(path)


def test_no_more_is_unpacked_than_there_can_be(tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "LARGEST", 1000)
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "w") as f:
        f.write(bytes([0, 0, 8, 1, 0, 1, 0, 0]) + bytes(2**16))
    with pytest.raises(FileFormatError, match="bomb.gz: expected 65536 .* got 992"):
        mnist.read_idx(path, 1)


def test_a_library_that_is_too_small_is_told(tmp_path):
    (tmp_path / "a.py").write_text("pass\n")
    with pytest.raises(ValidationError, match="just 5 characters, got the size 6"):
        python_text.read_library(tmp_path, 7)

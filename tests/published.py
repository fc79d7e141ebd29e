"""Small data sets in the formats of the large ones, and a server that has them."""

import contextlib
import dataclasses
import gzip
import hashlib
import http.server
import io
import re
import struct
import tarfile
import threading
import zipfile

import h5py
import numpy as np
import pytest

from brainstorm.datasets import hutter, writing
from brainstorm.datasets.catalogue import DATA_SETS
from brainstorm.datasets.getting import File


def content_of(path):
    """All datasets of an HDF5 file by their paths."""

    def collect(group):
        for node in group.values():
            if isinstance(node, h5py.Group):
                yield from collect(node)
            else:
                yield node.name[1:], node[()]

    with h5py.File(path) as f:
        return dict(collect(f))


# -- small files in the true formats -----------------------------------------


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(header + array.tobytes())


def python2_pickle(value):
    """A pickle as Python 2 wrote it, with the arrays of an old NumPy."""

    def dump(value):
        if value is None:
            return b"N"
        if isinstance(value, bytes):
            return b"T" + struct.pack("<i", len(value)) + value
        if isinstance(value, bool):
            return b"\x88" if value else b"\x89"
        if isinstance(value, int):
            return b"J" + struct.pack("<i", value)
        if isinstance(value, tuple):
            return b"(" + b"".join(map(dump, value)) + b"t"
        if isinstance(value, list):
            return b"](" + b"".join(map(dump, value)) + b"e"
        if isinstance(value, dict):
            items = [part for item in value.items() for part in item]
            return b"}(" + b"".join(map(dump, items)) + b"u"
        dtype = b"cnumpy\ndtype\n" + dump((b"u1", 0, 1)) + b"R"
        dtype += dump((3, b"|", None, None, None, -1, -1, 0)) + b"b"
        shape, raw = dump(value.shape), dump(value.tobytes())
        array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
        array += dump((0,)) + dump(b"b") + b"tR"
        return array + b"(" + dump(1) + shape + dtype + dump(False) + raw + b"tb"

    return b"\x80\x02" + dump(value) + b"."


def cifar_member(images, labels, key=b"labels", dump=python2_pickle):
    rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    names = [b"image_%d.png" % i for i in range(len(images))]
    return dump({b"data": rows, key: labels, b"batch_label": b"x", b"filenames": names})


def tar(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zipped(name, content):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def random_images(number, *shape, nr_classes=10):
    rnd = np.random.RandomState(number)
    images = rnd.randint(0, 256, (number, *shape)).astype(np.uint8)
    return images, rnd.randint(0, nr_classes, number).tolist()


def mnist_files():
    training, labels = random_images(50, 28, 28)
    test, test_labels = random_images(9, 28, 28)
    return {
        "train-images-idx3-ubyte.gz": idx(training),
        "train-labels-idx1-ubyte.gz": idx(np.array(labels, np.uint8)),
        "t10k-images-idx3-ubyte.gz": idx(test),
        "t10k-labels-idx1-ubyte.gz": idx(np.array(test_labels, np.uint8)),
    }


def cifar10_batches():
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    return {name: random_images(6 + i, 32, 32, 3) for i, name in enumerate(names)}


def cifar10_files(dump=python2_pickle):
    members = {
        f"cifar-10-batches-py/{name}": cifar_member(*batch, dump=dump)
        for name, batch in cifar10_batches().items()
    }
    return {"cifar-10-python.tar.gz": tar(members)}


def cifar100_files():
    members = {
        f"cifar-100-python/{name}": cifar_member(
            *random_images(number, 32, 32, 3, nr_classes=100), b"fine_labels"
        )
        for name, number in (("train", 30), ("test", 7))
    }
    return {"cifar-100-python.tar.gz": tar(members)}


def hutter_text(size=70001):
    characters = np.frombuffer(b"<abc>\n\xc3\xa9", np.uint8)
    return np.random.RandomState(0).choice(characters, size).tobytes()


def hutter_files():
    return {"enwik8.zip": zipped("enwik8", hutter_text())}


SMALL = {
    "MNIST": mnist_files,
    "CIFAR-10": cifar10_files,
    "CIFAR-100": cifar100_files,
    "HutterPrize": hutter_files,
}


def change(monkeypatch, name, **changes):
    """Change what is known of a data set."""
    monkeypatch.setitem(
        DATA_SETS, name, dataclasses.replace(DATA_SETS[name], **changes)
    )


@pytest.fixture
def small(monkeypatch):
    """Makes the library expect a small data set, which is returned: bytes by name."""

    def prepare(name):
        files = SMALL[name]()
        known = name != "HutterPrize"  # whose publisher tells the checksum of the text
        expected = [
            File(n, len(c), hashlib.md5(c).hexdigest() if known else None)
            for n, c in files.items()
        ]
        change(monkeypatch, name, files=expected)
        monkeypatch.setattr(writing, "NR_VALIDATION", 7)
        md5 = hashlib.md5(hutter_text()).hexdigest()
        monkeypatch.setattr(hutter, "TEXT", File("enwik8", 70001, md5))
        return files

    return prepare


# -- a server ----------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, name = self.server, self.path.rpartition("/")[2]
        wanted = self.headers.get("Range")
        server.requests.append((self.path, wanted))
        if name not in server.files:
            self.send_error(404)
            return
        content = server.files[name]
        start = 0
        if wanted and server.resumes:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted).group(1))
            self.send_response(206)
            size = len(content)
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop = len(content) if server.breaks_at is None else server.breaks_at
        with contextlib.suppress(ConnectionError):
            self.wfile.write(content[start:stop])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    """Sends `files`, up to byte number `breaks_at`; notes paths and ranges."""
    monkeypatch.setenv("no_proxy", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files, server.requests = {}, []
        server.resumes, server.breaks_at = True, None
        server.url = f"http://127.0.0.1:{server.server_port}/some/folder"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def check_images(found, training, test, nr_validation):
    """Compare datasets with the images and labels that they should hold."""
    split = len(training[1]) - nr_validation
    expected = {
        "normalized_full/training": training,
        "normalized_full/test": test,
        "normalized_split/training": [a[:split] for a in training],
        "normalized_split/validation": [a[split:] for a in training],
        "normalized_split/test": test,
    }
    assert set(found) == {f"{p}/{n}" for p in expected for n in ("default", "targets")}
    for part, (images, labels) in expected.items():
        default, targets = found[f"{part}/default"], found[f"{part}/targets"]
        assert default.dtype == np.float32
        np.testing.assert_allclose(default, images[np.newaxis] / 255.0, rtol=1e-6)
        assert targets.shape == (1, len(labels), 1)
        assert targets.ravel().tolist() == list(labels)

import os
import signal
import stat
import subprocess
import sys

import h5py
import numpy as np
import pytest

from brainstorm.files import atomic_hdf5, atomic_path, check_start, open_hdf5
from brainstorm.utils import FileFormatError, ValidationError

KIND = "Test file v1.0"


def write_valid(path, kind=KIND):
    with atomic_hdf5(path, kind) as f:
        f["data"] = np.arange(5)


# -- writing -----------------------------------------------------------------


def test_file_appears_when_the_block_ends(tmp_path):
    target = tmp_path / "a.txt"
    with atomic_path(target) as temporary:
        assert temporary.parent == tmp_path
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_failure_keeps_the_old_file_and_leaves_no_litter(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail():
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise error("stop")

    with pytest.raises(error):
        fail()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_failure_inside_hdf5_keeps_the_old_file(tmp_path):
    target = tmp_path / "a.hdf5"
    write_valid(target)

    def fail():
        with atomic_hdf5(target, KIND) as f:
            f["data"] = np.zeros(1000)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    with open_hdf5(target, KIND) as f:
        np.testing.assert_array_equal(f["data"], np.arange(5))
    assert os.listdir(tmp_path) == ["a.hdf5"]


def test_killed_while_writing_keeps_the_old_file(tmp_path):
    target = tmp_path / "a.hdf5"
    write_valid(target)
    code = (
        "import os, signal, sys\n"
        "from brainstorm.files import atomic_hdf5\n"
        "with atomic_hdf5(sys.argv[1], sys.argv[2]) as f:\n"
        "    f['data'] = list(range(10000))\n"
        "    f.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, "-c", code, str(target), KIND]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    with open_hdf5(target, KIND) as f:
        assert f["data"].shape == (5,)


@pytest.mark.skipif(os.name != "posix", reason="POSIX file modes")
def test_mode_is_kept_or_follows_the_umask(tmp_path):
    target = tmp_path / "a.txt"
    old = os.umask(0o027)
    try:
        with atomic_path(target) as temporary:
            temporary.write_text("new")
        assert stat.S_IMODE(target.stat().st_mode) == 0o640
        target.chmod(0o604)
        with atomic_path(target) as temporary:
            temporary.write_text("newer")
        assert stat.S_IMODE(target.stat().st_mode) == 0o604
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(old)


@pytest.mark.skipif(os.name != "posix", reason="POSIX file modes")
def test_the_umask_is_never_changed(tmp_path, monkeypatch):
    """It belongs to the whole process: other threads would notice."""
    monkeypatch.setattr(os, "umask", None)
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "a.txt").read_text() == "new"


@pytest.mark.skipif(os.name != "posix", reason="POSIX file modes")
def test_what_replaces_a_private_file_is_private_from_the_start(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("secret")
    target.chmod(0o600)
    with atomic_path(target) as temporary:
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600


def test_write_protected_files_stay(tmp_path, monkeypatch):
    target = tmp_path / "a.txt"
    target.write_text("old")
    # The superuser may write everything.
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(PermissionError, match="write-protected"), atomic_path(target):
        pass
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX")
def test_devices_and_pipes_are_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    for name in ("pipe", "null"):
        with (
            pytest.raises(FileFormatError, match="it is no regular file"),
            atomic_path(tmp_path / name),
        ):
            pass
    assert not os.path.isfile("/dev/null")


def test_long_names(tmp_path):
    target = tmp_path / ("\N{SNOWMAN}" * 85)  # 255 bytes
    with atomic_path(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_links_are_followed(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    link = tmp_path / "link"
    link.symlink_to(target)
    with atomic_path(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_missing_folder_and_folder_as_file_are_named(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"),
        atomic_path(tmp_path / "nowhere" / "a.txt"),
    ):
        pass
    with pytest.raises(IsADirectoryError, match="is a folder"), atomic_path(tmp_path):
        pass


def test_files_of_other_kinds_are_told_by_their_start(tmp_path):
    target = tmp_path / "a.bin"
    check_start(target, b"AB", "test file")
    for good in (b"", b"ABC"):
        target.write_bytes(good)
        check_start(target, b"AB", "test file")
    target.write_bytes(b"CAB")
    with pytest.raises(FileFormatError, match=r"of another kind already \(no test"):
        check_start(target, b"AB", "test file")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        check_start(tmp_path, b"AB", "test file")


@pytest.mark.parametrize("name", [None, 1, [], {}, "a\0b"])
def test_names_of_files_are_texts_or_paths(name):
    for function in (
        lambda: atomic_path(name).__enter__(),
        lambda: atomic_hdf5(name).__enter__(),
        lambda: open_hdf5(name, KIND).__enter__(),
        lambda: check_start(name, b"", KIND),
    ):
        with pytest.raises(ValidationError, match="expected the name of a file, got"):
            function()


# -- reading -----------------------------------------------------------------


def test_valid_files_open_for_reading_only(tmp_path):
    target = tmp_path / "a.hdf5"
    write_valid(target)
    with open_hdf5(target, KIND) as f:
        np.testing.assert_array_equal(f["data"], np.arange(5))
        assert f.mode == "r"


def test_a_format_of_any_length_is_not_read(tmp_path):
    """It lies on a heap that libhdf5 trusts; the original may have written such."""
    target = tmp_path / "a.hdf5"
    with h5py.File(target, "w") as f:
        f.attrs["format"] = KIND
    for kind in (KIND, "another kind"):
        with open_hdf5(target, kind) as f:
            assert f.attrs["format"] == KIND


def test_missing_file_is_named(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match=r"no file .*nothing\.hdf5"),
        open_hdf5(tmp_path / "nothing.hdf5", KIND),
    ):
        pass


@pytest.mark.parametrize(
    "found",
    [
        None,
        np.bytes_("Logs file v1.0"),
        3,
        np.array([]),
        [1, 2],
        np.bytes_(b"\xff"),
        h5py.Empty("f"),
    ],
)
def test_other_formats_are_refused(tmp_path, found):
    target = tmp_path / "a.hdf5"
    with h5py.File(target, "w") as f:
        if found is not None:
            f.attrs["format"] = found
    with pytest.raises(FileFormatError, match=r"a\.hdf5"), open_hdf5(target, KIND):
        pass


@pytest.mark.parametrize("keep", [0, 1, 100, 1000])
def test_truncated_files_are_refused(tmp_path, keep):
    target = tmp_path / "a.hdf5"
    write_valid(target)
    target.write_bytes(target.read_bytes()[:keep])
    with (
        pytest.raises(FileFormatError, match=r"can not read .*a\.hdf5"),
        open_hdf5(target, KIND),
    ):
        pass


def test_what_is_missing_inside_becomes_a_format_error(tmp_path):
    target = tmp_path / "a.hdf5"
    write_valid(target)
    with (
        pytest.raises(FileFormatError, match=r"can not read .*a\.hdf5") as caught,
        open_hdf5(target, KIND) as f,
    ):
        f["parameters"]
    assert isinstance(caught.value.__cause__, KeyError)


def test_files_of_another_kind_are_not_replaced(tmp_path):
    """A slip must not destroy a script or a data set."""
    target = tmp_path / "a.hdf5"

    def write(kind):
        with atomic_hdf5(target, kind) as f:
            f["data"] = 1

    target.write_text("print('hello')")
    with pytest.raises(FileFormatError, match=r"another kind already \(no HDF5 file\)"):
        write(KIND)
    assert target.read_text() == "print('hello')"

    target.unlink()
    write("Other file")
    with pytest.raises(FileFormatError, match=r"format attribute is 'Other file'"):
        write(KIND)
    write("Other file")

    with h5py.File(target, "w") as f:
        f["images"] = np.ones(3)
    before = target.read_bytes()
    with pytest.raises(FileFormatError, match="format attribute is None"):
        write(KIND)
    assert target.read_bytes() == before
    write(None)


@pytest.mark.parametrize("left", [0, 100])
def test_empty_and_damaged_files_are_replaced(tmp_path, left):
    target = tmp_path / "a.hdf5"
    write_valid(target)
    target.write_bytes(target.read_bytes()[:left])
    write_valid(target)
    with open_hdf5(target, KIND) as f:
        assert list(f["data"]) == [0, 1, 2, 3, 4]

"""A process that is killed while it saves leaves the old file or the new one."""

import os
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path):
    path = tmp_path / "net.hdf5"
    command = [sys.executable, "-m", "tests.robustness.killing_server", path, "200"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [int(line.split()[1]) for line in done.stdout.splitlines()]
    assert len(found) == 200
    # Many processes have saved something, and no file is older than one before.
    assert found == sorted(found)
    assert len(set(found)) > 20
    # Some were killed in the midst of it: their temporary files are still there.
    left = [name for name in os.listdir(tmp_path) if name != "net.hdf5"]
    assert 10 < len(left) <= 200
    assert all(name.startswith(".net.hdf5.") and name.endswith(".tmp") for name in left)

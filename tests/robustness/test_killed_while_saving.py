"""A process that is killed while it saves leaves the old file or the new one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path):
    path = tmp_path / "net.hdf5"
    command = [sys.executable, "-m", "tests.robustness.killing_server", path, "200"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == 200
    # What processes had saved is there, and no file is older than one before.
    before = 0
    for saves, found in ((int(a), int(b)) for a, b in lines):
        assert found >= before + saves
        before = found
    # Some were killed in the midst of it: their temporary files are still there.
    left = [name for name in os.listdir(tmp_path) if name != "net.hdf5"]
    assert 10 < len(left) <= 200
    assert all(name.startswith(".net.hdf5.") and name.endswith(".tmp") for name in left)

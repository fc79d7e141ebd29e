"""Run Python with the CUDA toolkit of Nvidia's wheels: ``toolkit.py -m pip ...``.

PyCUDA is built by it, which has no wheel, and finds its libraries. The wheels are those
of ``cuda-toolkit[cublas,cudart,curand,nvcc,nvrtc,profiler]``; the driver's library has
to be on the machine. This imports nothing of what it helps to install.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

DRIVER = "libcuda.so.1"


def find_toolkit() -> Path:
    """The folder that the wheels fill together, with bin, include and lib in it."""
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec and spec.submodule_search_locations) or ():
        for toolkit in sorted(Path(folder).glob("cu[0-9]*"), reverse=True):
            if (toolkit / "bin" / "nvcc").exists():
                return toolkit
    raise SystemExit("there is no nvcc in Nvidia's wheels: pip install cuda-toolkit")


def find_driver() -> str:
    """Path of the driver's library, wherever the loader finds it."""
    try:
        ctypes.CDLL(DRIVER)
    except OSError as error:
        raise SystemExit(f"there is no driver for Nvidia GPUs: {error}") from None
    maps = Path("/proc/self/maps").read_text()
    return re.findall(rf"(/\S*{re.escape(DRIVER.removesuffix('.1'))}\S*)", maps)[0]


def environment(toolkit: Path, driver: str, folder: Path) -> dict[str, str]:
    """Environment variables with which all of it is found.

    Args:
        toolkit: Of the wheels.
        driver: Path of the driver's library.
        folder: For links with the names that linkers look for.
    """
    (folder / "libcuda.so").symlink_to(driver)
    for path in (toolkit / "lib").glob("lib*.so.*"):
        link = folder / re.sub(r"\.so\..*", ".so", path.name)
        if not link.is_symlink():
            link.symlink_to(path)
    first = {
        "PATH": [toolkit / "bin"],
        "CPATH": [toolkit / "include"],
        "LIBRARY_PATH": [folder, toolkit / "lib"],
        "LD_LIBRARY_PATH": [toolkit / "lib"],
    }
    found = dict(os.environ)
    for name, folders in first.items():
        paths = [*map(str, folders), *filter(None, [found.get(name)])]
        found[name] = os.pathsep.join(paths)
    return found


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="cuda-toolkit-") as folder:
        env = environment(find_toolkit(), find_driver(), Path(folder))
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

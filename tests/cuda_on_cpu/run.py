"""Run Python where PyCUDA finds an emulated GPU: ``run.py -m pytest -m gpu tests``.

It is an emulation on the CPU, see ``__init__.py``: stand-ins for the driver, for nvcc
and for cuBLAS are built in a temporary folder, and found before the real ones. PyCUDA
itself is built against them by ``run.py -m pip install pycuda``; that needs g++ and
cuda.h, and pip keeps the result in a cache of its own.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def build(folder, headers):
    """Build the stand-ins.

    Args:
        folder: Where to put them, as a `Path`.
        headers: Folder of cuda.h.
    """
    driver = HERE / "driver.cpp"
    implemented = re.findall(r"^CUresult (cu\w+)\(", driver.read_text(), re.MULTILINE)
    names = (HERE / "driver_symbols.txt").read_text().split()
    others = [n for n in names if re.sub(r"_v\d+$", "", n) not in implemented]
    answer_all(folder / "driver_others.c", others, 801)  # not supported
    compile_library(
        folder, "libcuda.so.1", [driver, folder / "driver_others.c"], f"-I{headers}"
    )
    # Capturing products needs the stand-in driver.
    driver = ("-Wl,--no-as-needed", f"-L{folder}", "-l:libcuda.so.1")
    compile_library(folder, "libcublas.so.13", [HERE / "cublas.cpp"], *driver)
    functions = re.findall(r"\b(curandGet\w+)\(", (HERE / "curand.h").read_text())
    answer_all(folder / "curand.c", functions, 999)  # internal error
    versions = folder / "curand.map"
    versions.write_text("libcurand.so.10 { global: *; };\n")
    script = f"-Wl,--version-script={versions}"
    compile_library(folder, "libcurand.so.10", [folder / "curand.c"], script)
    (folder / "libcuda.so").symlink_to("libcuda.so.1")
    (folder / "libcurand.so").symlink_to("libcurand.so.10")
    (folder / "nvcc").symlink_to(HERE / "nvcc")
    (folder / "curand.h").symlink_to(HERE / "curand.h")


def cuda_headers():
    """The folder of cuda.h."""
    nvcc = shutil.which("nvcc")
    folders = [f for f in os.environ.get("CPATH", "").split(os.pathsep) if f]
    if nvcc:
        folders.append(Path(os.path.realpath(nvcc)).parents[1] / "include")
    folders += ["/usr/local/cuda/include", "/usr/include"]
    for folder in folders:
        if Path(folder, "cuda.h").is_file():
            return str(folder)
    raise SystemExit(f"cuda.h is in none of {[str(f) for f in folders]}")


def answer_all(path, names, answer):
    """Write functions that all give the same answer."""
    lines = [f"int {name}(void) {{ return {answer}; }}\n" for name in names]
    path.write_text('extern "C" {\n' + "".join(lines) + "}\n")


def compile_library(folder, name, sources, *options):
    command = ["g++", "-std=c++17", "-O2", "-shared", "-fPIC", "-x", "c++", *options]
    command += [f"-Wl,-soname,{name}", "-o", folder / name, *sources, "-ldl"]
    subprocess.run(command, check=True)


def environment(folder, headers):
    """Environment variables with which the stand-ins are found first."""
    env = {k: v for k, v in os.environ.items() if k not in ("CUDA_HOME", "CUDA_PATH")}
    cache = Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache", "brainstorm")
    first = {
        "PATH": [folder],
        "LD_LIBRARY_PATH": [folder],
        "LIBRARY_PATH": [folder],
        "CPATH": [folder, headers],
    }
    for name, folders in first.items():
        paths = [*map(str, folders), *filter(None, [env.get(name)])]
        env[name] = os.pathsep.join(paths)
    env["PIP_CACHE_DIR"] = str(cache / "tests" / "pip")
    env["XDG_CACHE_HOME"] = str(folder / "cache")
    env["REQUIRE_GPU"] = "1"
    return env


def main(arguments):
    headers = cuda_headers()
    with tempfile.TemporaryDirectory(prefix="cuda_on_cpu-") as name:
        folder = Path(name)
        build(folder, headers)
        print("PyCUDA finds an emulation on the CPU here, not a GPU.", flush=True)
        command = [sys.executable, *arguments]
        env = environment(folder, headers)
        return subprocess.run(command, env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

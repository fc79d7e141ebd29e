"""Run Python where PyCUDA finds an emulated GPU: ``run.py -m pytest -m gpu``.

It is an emulation on the CPU, see ``__init__.py``: stand-ins for the driver, for nvcc
and for cuBLAS are built in a temporary folder, and found before the real ones.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent

CURAND = ["GetDirectionVectors32", "GetDirectionVectors64", "GetScrambleConstants32"]
CURAND += ["GetScrambleConstants64", "GetVersion"]


def build(folder):
    """Build the stand-ins.

    Args:
        folder: Where to put them, as a `Path`.
    """
    headers = cuda_headers()
    compile_library(folder, "libcublas.so.13", [HERE / "cublas.cpp"])
    names = set((HERE / "driver_symbols.txt").read_text().split())
    probe = folder / "probe.so"
    compile_library(folder, probe.name, [HERE / "driver.cpp"], f"-I{headers}")
    listed = subprocess.run(
        ["nm", "-D", "--defined-only", probe],
        capture_output=True,
        text=True,
        check=True,
    )
    have = {line.split()[-1] for line in listed.stdout.splitlines()}
    missing = folder / "missing.c"
    stubs(missing, names - have, answer=801)
    compile_library(
        folder, "libcuda.so.1", [HERE / "driver.cpp", missing], f"-I{headers}"
    )
    stubs(folder / "curand.c", [f"curand{name}" for name in CURAND], answer=999)
    versions = folder / "curand.map"
    versions.write_text("libcurand.so.10 { global: *; };\n")
    script = f"-Wl,--version-script={versions}"
    compile_library(folder, "libcurand.so.10", [folder / "curand.c"], script)
    for name in ("libcuda.so", "libcurand.so"):
        found = next(p for p in folder.glob(f"{name}.*"))
        (folder / name).symlink_to(found.name)
    (folder / "nvcc").symlink_to(HERE / "nvcc")


def cuda_headers():
    """The folder of cuda.h."""
    nvcc = shutil.which("nvcc")
    folders = [f for f in os.environ.get("CPATH", "").split(os.pathsep) if f]
    if nvcc:
        folders.append(Path(os.path.realpath(nvcc)).parents[1] / "include")
    folders += ["/usr/local/cuda/include", "/usr/include"]
    for folder in folders:
        if Path(folder, "cuda.h").is_file():
            return folder
    raise SystemExit(f"cuda.h is in none of {[str(f) for f in folders]}")


def stubs(path, names, answer):
    """Write functions that all give the same answer."""
    lines = [f"int {name}(void) {{ return {answer}; }}\n" for name in sorted(names)]
    path.write_text('extern "C" {\n' + "".join(lines) + "}\n")


def compile_library(folder, name, sources, *options):
    command = ["g++", "-std=c++17", "-O2", "-shared", "-fPIC", "-x", "c++", *options]
    command += [f"-Wl,-soname,{name}", "-o", folder / name, *sources, "-ldl"]
    subprocess.run(command, check=True)


def environment(folder):
    """Environment variables with which the stand-ins are found first."""
    env = {k: v for k, v in os.environ.items() if k not in ("CUDA_HOME", "CUDA_PATH")}
    for name in ("PATH", "LD_LIBRARY_PATH", "LIBRARY_PATH"):
        env[name] = os.pathsep.join([str(folder), *filter(None, [env.get(name)])])
    env["XDG_CACHE_HOME"] = str(folder / "cache")
    env["REQUIRE_GPU"] = "1"
    return env


def main(arguments):
    with tempfile.TemporaryDirectory(prefix="cuda_on_cpu-") as name:
        folder = Path(name)
        build(folder)
        print("PyCUDA finds an emulation on the CPU here, not a GPU.", flush=True)
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=environment(folder), check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

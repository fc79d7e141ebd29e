"""Compiling the kernels for the GPU at hand, once per machine."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from importlib.resources import files
from pathlib import Path

from brainstorm.files import atomic_path, cache_folder
from brainstorm.handlers.cuda.libraries import load_library
from brainstorm.utils import HandlerError

HEADERS = ("common", "elementwise", "reductions")
TOPICS = (
    *("memory", "arithmetic", "activations", "products", "images", "losses", "dropout"),
    *("normalisation", "embedding", "sequences", "ctc", "recurrent", "lstm", "gru"),
    *("spiking", "updates"),
)


def kernel_source() -> str:
    """The text of all kernels as one."""
    folder = files(__package__) / "kernels"
    return "\n".join(
        f'#line 1 "{name}"\n{(folder / name).read_text(encoding="utf-8")}'
        for name in (*[f"{h}.cuh" for h in HEADERS], *[f"{t}.cu" for t in TOPICS])
    )


def kernel_parameters(source: str) -> dict[str, list[str]]:
    """The types of each kernel's parameters: ``float *``, ``int``, ``Layout``, ..."""
    parameters = {}
    text = re.sub(r"//[^\n]*|\\\n", " ", source)
    for name, listed in re.findall(r"__global__ void (\w+)\(([^)]*)\)", text):
        types = [re.sub(r"\w+$", "", part.strip()) for part in listed.split(",")]
        parameters[name] = [
            "pointer" if "*" in t else t.replace("const", "").strip() for t in types
        ]
    return parameters


def cached_cubin(arch: str) -> bytes:
    """The machine code of all kernels for ``sm_90`` or the like, if need be compiled.

    It is a cubin; or PTX, which the driver compiles, for a GPU that the compiler does
    not know yet.
    """
    with contextlib.suppress(OSError):
        return _cache_path(kernel_source(), arch).read_bytes()
    return renew_cubin(arch)


def renew_cubin(arch: str) -> bytes:
    """Compile all kernels, whatever the cache has, and replace it."""
    source = kernel_source()
    cubin = compile_kernels(source, arch)
    # A cache that can not be written costs time at the next start, nothing else.
    with contextlib.suppress(OSError):
        path = _cache_path(source, arch)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_bytes(cubin)
    return cubin


def _cache_path(source: str, arch: str) -> Path:
    """Where the machine code is kept."""
    digest = hashlib.sha256(f"{arch}\n{source}".encode()).hexdigest()[:32]
    return cache_folder() / f"kernels-{digest}.cubin"


def compile_kernels(source: str, arch: str) -> bytes:
    """Compile with nvcc if it is there, else with NVRTC."""
    nvcc = find_nvcc()
    if nvcc is not None:
        target = target_for(arch, nvcc_architectures(nvcc), nvcc)
        return compile_with_nvcc(source, target, nvcc)
    target = target_for(arch, nvrtc_architectures(), "NVRTC")
    return compile_with_nvrtc(source, target)


def target_for(arch: str, known: list[int], compiler: str) -> str:
    """What to have compiled for a GPU by a compiler that knows some numbers.

    It is `arch`; or, for a GPU newer than the compiler, the newest virtual architecture
    that it can run, for example ``compute_121``.
    """
    number = int(arch.removeprefix("sm_"))
    if not known or number in known:
        return arch
    older = [n for n in known if n < number]
    if not older:
        raise HandlerError(
            f"{compiler} does not compile for a GPU as old as {arch}, only from"
            f" sm_{min(known)} on: an older CUDA toolkit is needed"
        )
    return f"compute_{max(older)}"


def nvcc_architectures(nvcc: str) -> list[int]:
    """The numbers of the architectures that nvcc compiles for."""
    command = [nvcc, "--list-gpu-arch"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [int(number) for number in re.findall(r"compute_(\d+)\b", done.stdout)]


def nvrtc_architectures() -> list[int]:
    """The numbers of the architectures that NVRTC compiles for."""
    nvrtc, count = _nvrtc(), ctypes.c_int()
    if nvrtc.nvrtcGetNumSupportedArchs(ctypes.byref(count)):
        return []
    numbers = (ctypes.c_int * count.value)()
    return [] if nvrtc.nvrtcGetSupportedArchs(numbers) else list(numbers)


def find_nvcc() -> str | None:
    """Path of the CUDA compiler, None if there is none."""
    for folder in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")):
        path = folder and shutil.which("nvcc", path=os.path.join(folder, "bin"))
        if path:
            return path
    return shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")


def compile_with_nvcc(source: str, arch: str, nvcc: str) -> bytes:
    """Machine code from the compiler of the CUDA toolkit, PTX for ``compute_90``."""
    kind = "-ptx" if arch.startswith("compute") else "-cubin"
    with tempfile.TemporaryDirectory() as folder:
        text, compiled = Path(folder, "kernels.cu"), Path(folder, "kernels.out")
        text.write_text(source, encoding="utf-8")
        command = [
            nvcc,
            kind,
            f"-arch={arch}",
            "-std=c++17",
            "-o",
            str(compiled),
            str(text),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not compiled.is_file():
            raise HandlerError(_failure(nvcc, arch, done.stderr or done.stdout))
        # The driver wants text to end with a zero.
        return compiled.read_bytes() + (b"\0" if kind == "-ptx" else b"")


def compile_with_nvrtc(source: str, arch: str) -> bytes:
    """Machine code from the library NVRTC, PTX for ``compute_90``."""
    nvrtc, program = _nvrtc(), ctypes.c_void_p()
    options = [f"--gpu-architecture={arch}".encode(), b"--std=c++17"]
    created = nvrtc.nvrtcCreateProgram(
        ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None
    )
    if created:
        raise HandlerError(_failure("NVRTC", arch, f"error {created}"))
    try:
        failed = nvrtc.nvrtcCompileProgram(
            program, len(options), (ctypes.c_char_p * len(options))(*options)
        )
        if failed:
            log = _nvrtc_output(nvrtc, program, "ProgramLog").decode(errors="replace")
            raise HandlerError(_failure("NVRTC", arch, log))
        kind = "PTX" if arch.startswith("compute") else "CUBIN"
        return _nvrtc_output(nvrtc, program, kind)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _nvrtc() -> ctypes.CDLL:
    nvrtc = load_library("nvrtc")
    if nvrtc is None:
        raise HandlerError(
            "PyCudaHandler has to compile its kernels, but there is neither nvcc nor"
            " NVRTC. Install the CUDA toolkit and put its folder 'bin' on PATH, or:"
            " pip install nvidia-cuda-nvrtc"
        )
    return nvrtc


def _nvrtc_output(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{what}")(program, text)
    return text.raw


def _failure(compiler: str, arch: str, output: str) -> str:
    return f"{compiler} could not compile the kernels for {arch}:\n{output.strip()}"

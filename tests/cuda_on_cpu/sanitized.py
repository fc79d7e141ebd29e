"""PyCudaHandler on a process that emulates a GPU, under sanitizers.

It needs g++, and neither a GPU nor PyCUDA.
"""

import atexit
import contextlib
import functools
import hashlib
import os
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
from cuda_on_cpu.translate import HERE, translate

from brainstorm.handlers.cuda.compiler import kernel_source
from brainstorm.handlers.cuda.launcher import Launcher
from brainstorm.handlers.pycuda_handler import PyCudaHandler

SANITIZERS = [
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
]
SOURCES = ["shim.h", "runner.cpp", "cublas.cpp"]
PROBLEMS = {
    -1: "there is no such kernel",
    1: "the arguments are not those of the kernel",
    2: "the grid or the block is too large, or empty",
    3: "some threads wait at a barrier that others never reach",
    4: "the result depends on the order of threads or blocks",
}


class EmulationError(AssertionError):
    """A kernel did what it must not do."""


@functools.cache
def cache_folder():
    """Where programs are kept; among temporary files if one may not write at home."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    for root in (home, tempfile.gettempdir()):
        folder = Path(root, "brainstorm", "tests")
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
    raise OSError(f"can not write to {folder}")


def compile_program(source):
    """A program that runs these kernels, kept from run to run; returns its path."""
    text = translate(source) + f'#include "{HERE / "runner.cpp"}"\n'
    parts = [text, *[(HERE / name).read_text() for name in SOURCES], *SANITIZERS]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
    program = cache_folder() / f"cuda_on_cpu-{digest}"
    if not program.exists():
        unfinished = program.with_suffix(f".{os.getpid()}")
        command = ["g++", "-std=c++17", "-O1", "-g1", *SANITIZERS, "-o", unfinished]
        command += ["-x", "c++", "-", HERE / "cublas.cpp"]
        subprocess.run(command, input=text, text=True, check=True)
        unfinished.replace(program)  # whole, for other processes that look for it
    return program


class _Allocation:
    def __init__(self, device, size):
        self.device = device
        self.address = device.ask("A", "Q", size, answer="P")

    def __int__(self):
        return self.address

    def __del__(self):
        # It may be called in the middle of a message.
        self.device.unused.append(self.address)


class SanitizedDevice:
    """Has the methods of PyCudaDevice."""

    name = "emulation on the CPU, not a GPU"
    max_blocks = 8

    def __init__(self, program):
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
        )
        self.launched = set()
        self.unused = []
        atexit.register(self.close)

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()
        self.errors.close()

    def tell(self, command, kinds="", *values, data=b""):
        message = command.encode() + struct.pack("=" + kinds, *values) + data
        try:
            self.process.stdin.write(message)
        except BrokenPipeError:
            self.fail()

    def ask(self, command, kinds="", *values, data=b"", answer):
        self.tell(command, kinds, *values, data=data)
        return struct.unpack(answer, self.receive(struct.calcsize(answer)))[0]

    def receive(self, size):
        try:
            self.process.stdin.flush()
        except BrokenPipeError:
            self.fail()
        data = self.process.stdout.read(size)
        if len(data) < size:
            self.fail()
        return data

    def fail(self):
        self.process.wait()
        self.errors.seek(0)
        raise EmulationError(self.errors.read().decode(errors="replace"))

    def allocate(self, size):
        while self.unused:
            self.tell("F", "Q", self.unused.pop())
        return _Allocation(self, size)

    def write(self, address, values):
        assert values.flags.c_contiguous
        self.tell("W", "QQ", address, values.nbytes, data=values.tobytes())

    def read(self, values, address):
        self.tell("R", "QQ", address, values.nbytes)
        data = self.receive(values.nbytes)
        values[...] = np.frombuffer(data, values.dtype).reshape(values.shape)

    def kernel(self, name):
        return name

    def launch(self, kernel, grid, block, arguments):
        self.launched.add(kernel)
        text, sizes = kernel.encode(), struct.pack("6I", *grid, 1, *block)
        data = b"".join(
            struct.pack("Q", len(part)) + part for part in (text, sizes, arguments)
        )
        result = self.ask("L", data=data, answer="i")
        if result:
            raise EmulationError(f"{kernel}{grid, block}: {PROBLEMS[result]}")

    def sgemm(self, transa, transb, m, n, k, a, lda, b, ldb, add, c, ldc):
        sizes = (transa, transb, m, n, k, lda, ldb, ldc)
        status = self.ask("M", "8i3Qfi", *sizes, a, b, c, add, 0, answer="i")
        if status:
            raise EmulationError(f"cublasSgemm: status {status}")

    def sgemm_batched(self, transa, transb, mnk, a, b, c, count, add=False):
        places, distances, steps = zip(a, b, c, strict=True)
        sizes = (transa, transb, *mnk, *distances, count, add)
        status = self.ask("B", "10i3Q3q", *sizes, *places, *steps, answer="i")
        if status:
            raise EmulationError(f"cublasSgemmStridedBatched: status {status}")


class SanitizedCudaHandler(PyCudaHandler):
    """PyCudaHandler on an emulated GPU, the same one as long as it runs."""

    launcher = None
    records_leaves = True

    @staticmethod
    def _open():
        cls = SanitizedCudaHandler
        if cls.launcher is None or cls.launcher.device.process.poll() is not None:
            device = SanitizedDevice(compile_program(kernel_source()))
            cls.launcher = Launcher(device)
        return cls.launcher


@functools.cache
def has_compiler():
    """Whether there is g++, and what it needs for sanitizers."""
    if shutil.which("g++") is None:
        return False
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
        program = Path(folder, "nothing")
        command = ["g++", *SANITIZERS, "-o", program, "-x", "c++", "-"]
        made = subprocess.run(command, input=b"int main() {}", capture_output=True)
        return made.returncode == 0


def sanitized_handler(**kwargs):
    """A SanitizedCudaHandler; skips the test where g++ is missing."""
    if not has_compiler():
        pytest.skip("the emulation of a GPU needs g++ with its sanitizers")
    return SanitizedCudaHandler(**kwargs)

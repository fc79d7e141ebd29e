"""PyCudaHandler on a process that emulates a GPU, under sanitizers.

It needs g++, and neither a GPU nor PyCUDA.
"""

import atexit
import functools
import os
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest

from brainstorm.handlers.cuda.compiler import kernel_source
from brainstorm.handlers.pycuda_handler import PyCudaHandler
from cuda_on_cpu.translate import HERE, translate

SANITIZERS = [
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
]
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
def compile_runner():
    """Path of the program; it is compiled once in a process."""
    folder = Path(tempfile.mkdtemp(prefix="cuda_on_cpu-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    program = folder / "runner"
    (folder / "kernels.cpp").write_text(
        translate(kernel_source()) + f'#include "{HERE / "runner.cpp"}"\n'
    )
    subprocess.run(
        [
            *("g++", "-std=c++17", "-O1", "-g1", "-Wall", "-Werror", *SANITIZERS),
            *("-o", program, folder / "kernels.cpp", HERE / "cublas.cpp"),
        ],
        check=True,
    )
    return program


class _Allocation:
    def __init__(self, device, size):
        self.device = device
        self.address = device.ask("A", "Q", size, answer="P")

    def __int__(self):
        return self.address

    def __del__(self):
        self.device.tell("F", "Q", self.address)


class SanitizedDevice:
    """Has the methods of PyCudaDevice."""

    name = "emulation on the CPU, not a GPU"
    max_blocks = 8

    def __init__(self):
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [compile_runner()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
        )
        self.launched = set()
        atexit.register(self.close)

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()
        self.errors.close()

    def tell(self, command, kinds="", *values, data=b""):
        if not self.process.stdin.closed:
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

    def address(self, name):
        assert name == "failure"
        return self.ask("G", answer="Q")

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


class SanitizedCudaHandler(PyCudaHandler):
    """PyCudaHandler on an emulated GPU, the same one as long as it runs."""

    device = None

    def _open_device(self):
        cls = SanitizedCudaHandler
        if cls.device is None or cls.device.process.poll() is not None:
            cls.device = SanitizedDevice()
        return cls.device


def sanitized_handler(**kwargs):
    """A SanitizedCudaHandler; skips the test where g++ is missing."""
    if shutil.which("g++") is None:
        pytest.skip("the emulation of a GPU needs g++")
    return SanitizedCudaHandler(**kwargs)

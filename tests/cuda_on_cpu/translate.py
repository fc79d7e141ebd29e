"""Turning the text of CUDA kernels into C++ for g++: an emulation, not a GPU."""

import re
import subprocess
from pathlib import Path

HERE = Path(__file__).parent

FUNCTION = r"(?:__device__|__global__)[^;{}()]*?(\w+)\s*\([^)]*\)\s*\{"


def expand(source):
    """The text without macros, which make kernels."""
    command = ["g++", "-std=c++17", "-E", "-x", "c++", "-"]
    return subprocess.run(
        command, input=source, capture_output=True, text=True, check=True
    ).stdout


def kernel_names(text):
    """The names of all kernels in expanded text."""
    return re.findall(r"__global__\s+void\s+(\w+)\s*\(", text)


def translate(source):
    """C++ with all kernels, and a table of them as ``emulated_kernels``."""
    text = expand(source)
    lines = [f'#include "{HERE / "shim.h"}"', text]
    lines.append("static const emulation::Kernel emulated_table[] = {")
    barriers = functions_with_barriers(text)
    for name in kernel_names(text):
        lines.append(
            f'{{"{name}", [](const void *m) {{ emulation::enter({name}, m); }},'
            f" emulation::size_of_arguments({name}), {int(name in barriers)}}},"
        )
    lines.append("{nullptr, nullptr, 0, false}};")
    lines.append(
        'extern "C" const emulation::Kernel *emulated_kernels() {'
        " return emulated_table; }"
    )
    lines.append(
        'extern "C" int emulated_launch(const emulation::Kernel *kernel, const unsigned'
        " *grid, const unsigned *block, const void *memory, size_t size, int reverse) {"
        " return emulation::launch(*kernel, grid, block, memory, size, reverse); }"
    )
    return "\n".join(lines) + "\n"


def functions_with_barriers(text):
    """Names of all functions that reach a barrier, directly or through others."""
    bodies = {}
    starts = list(re.finditer(FUNCTION, text))
    ends = [m.start() for m in starts[1:]] + [len(text)]
    for match, end in zip(starts, ends, strict=True):
        bodies[match.group(1)] = text[match.end() : end]
    found = {"__syncthreads"}
    while True:
        pattern = re.compile(r"\b(" + "|".join(found) + r")\s*\(")
        more = {name for name, body in bodies.items() if pattern.search(body)} - found
        if not more:
            return found
        found |= more

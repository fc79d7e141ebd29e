"""What the machine is: its processor, vector extensions, clock, cores and caches."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import brainstorm as bs

CPUINFO = Path("/proc/cpuinfo")
CPU = Path("/sys/devices/system/cpu/cpu0")

# By Linux's names for them, on x86 and on ARM
EXTENSIONS = {
    "sse4_2": "SSE4.2",
    "avx": "AVX",
    "avx2": "AVX2",
    "fma": "FMA",
    "avx_vnni": "AVX-VNNI",
    "avx_ne_convert": "AVX-NE-CONVERT",
    "avx512f": "AVX-512",
    "avx512bw": "AVX-512 BW",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "avx512_fp16": "AVX-512 FP16",
    "amx_tile": "AMX",
    "amx_int8": "AMX INT8",
    "amx_bf16": "AMX BF16",
    "amx_fp16": "AMX FP16",
    "asimd": "NEON",
    "asimdhp": "NEON FP16",
    "asimddp": "NEON DotProd",
    "i8mm": "I8MM",
    "bf16": "BF16",
    "sve": "SVE",
    "sve2": "SVE2",
    "sme": "SME",
}


def describe(threads: int, cpuinfo: Path = CPUINFO, cpu: Path = CPU) -> str:
    """The processor in some lines; what the system does not tell is left out."""
    fields = read_fields(cpuinfo)
    facts = [
        processor_name(fields),
        f"{os.cpu_count()} cores",
        clock(fields, cpu),
        *caches(cpu),
    ]
    lines = [
        ", ".join(filter(None, facts)),
        ", ".join(extensions(fields)),
        onednn(threads),
    ]
    return "\n".join(filter(None, lines))


def read_fields(cpuinfo: Path) -> dict[str, str]:
    """What Linux tells of the first processor, and {} elsewhere."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    return fields


def processor_name(fields: dict[str, str]) -> str:
    """Its name, and the numbers that tell it from others where that says little."""
    names = (fields.get(key) for key in ("model name", "Model", "cpu model"))
    name = next(filter(None, names), platform.processor() or platform.machine())
    numbers = (
        f"{label} {fields[key]}"
        for key, label in (
            ("cpu family", "family"),
            ("model", "model"),
            ("stepping", "stepping"),
            ("CPU implementer", "implementer"),
            ("CPU part", "part"),
            ("CPU variant", "variant"),
        )
        if key in fields
    )
    listed = ", ".join(numbers)
    return f"{name} ({listed})" if listed else name


def extensions(fields: dict[str, str]) -> list[str]:
    """The vector extensions that matter for products."""
    flags = (fields.get("flags") or fields.get("Features", "")).split()
    return [EXTENSIONS[flag] for flag in EXTENSIONS if flag in flags]


def onednn(threads: int) -> str:
    """What oneDNN makes of it, where it is there."""
    try:
        return bs.handlers.OneDnnHandler(threads=threads).describe()
    except ImportError:
        return ""


def clock(fields: dict[str, str], cpu: Path = CPU) -> str:
    """The highest clock, or where the system hides it the present one."""
    try:
        kilohertz = float((cpu / "cpufreq" / "cpuinfo_max_freq").read_text())
    except (OSError, ValueError):
        try:
            kilohertz = 1e3 * float(fields.get("cpu MHz", ""))
        except ValueError:
            return ""
    return f"{1e-6 * kilohertz:.2f} GHz"


def caches(cpu: Path = CPU) -> list[str]:
    """Sizes of a core's caches, such as "L2 1 MiB"; those of instructions left out."""
    found = set()
    for folder in (cpu / "cache").glob("index*"):
        try:
            level, kind, size = (
                (folder / name).read_text().strip()
                for name in ("level", "type", "size")
            )
        except OSError:
            continue
        if kind != "Instruction" and (number := re.fullmatch(r"(\d+)K", size)):
            found.add((level, int(number[1])))
    return [
        f"L{level} {size / 1024:g} MiB" if size >= 1024 else f"L{level} {size} KiB"
        for level, size in sorted(found)
    ]

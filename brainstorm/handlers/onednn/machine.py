"""What is to be known of the processor."""

from __future__ import annotations

import contextlib
import functools
import platform
from pathlib import Path

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_PROCESSORS = Path("/proc/cpuinfo")
_USUAL_CACHE = 2**20
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


@functools.cache
def cache_size() -> int:
    """Bytes of a core's cache of the second level, as far as Linux tells."""
    return _cache_size(_CACHES)


def _cache_size(folder: Path) -> int:
    for cache in sorted(folder.glob("index*")):
        with contextlib.suppress(OSError, ValueError, LookupError):
            if int((cache / "level").read_text()) == 2:
                size = (cache / "size").read_text().strip()
                number = int(size[:-1]) * _UNITS[size[-1]]
                if number > 0:
                    return number
    return _USUAL_CACHE


@functools.cache
def processor() -> str:
    """What kind of processor this is, as far as the system tells."""
    found = {}
    with contextlib.suppress(OSError, ValueError):
        for line in _PROCESSORS.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if not name.strip():
                break  # after the first processor
            found[name.strip()] = " ".join(value.split())
    names = "vendor_id", "cpu family", "model", "stepping", "model name"
    known = [found[name] for name in names if name in found]
    return ", ".join(known) or platform.processor() or platform.machine()

"""A contestant in a process of its own: reads orders and answers, in lines of JSON.

Libraries that share a process disturb each other: each has threads of its own, and all
share one heap.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import math
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.works import load


def product_size(gpu: bool) -> int:
    """Number of rows of the matrices whose product shows what the machine can do."""
    return 8192 if gpu else 2048


class Worker:
    """Does one work in one way; with the work "product" it multiplies matrices."""

    def __init__(self, work: str, kind: str, variant: str, gpu: bool):
        is_torch = kind in ("eager", "compiled")
        module = "with_pytorch" if is_torch else "with_brainstorm"
        library = importlib.import_module(f"benchmarks.{module}")
        if gpu and is_torch:
            library.use_gpu()
        if work == "product":
            make = partial(library.make_product, kind, product_size(gpu))
        else:
            make = partial(library.make_runs, load(work), kind, variant)
        self.make_runs = make
        self.runs = make()

    def modes(self) -> list[str]:
        """What there is to run."""
        return list(self.runs)

    def run(self, mode: str, steps: int) -> dict[str, Any]:
        """Time steps; one before them fetches back what others drove from caches."""
        losses = self.runs[mode](1)
        start = time.perf_counter()
        losses += self.runs[mode](steps)
        return {"seconds": (time.perf_counter() - start) / steps, "losses": losses}

    def gpu_ms(self, mode: str, steps: int = 20) -> float:
        """Milliseconds in each step that the GPU is at work: all kernels and copies."""
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA]) as profiled:
            self.runs[mode](steps)
        events = profiled.key_averages()
        return sum(e.self_device_time_total for e in events) * 1e-3 / steps

    def megabytes(self, mode: str) -> float:
        """The most memory that a network and its steps have at any time.

        All that the libraries keep for good is there by now. So the network is made
        anew, and what the process grows by is the network's.
        """
        try:
            self.runs = {}
            before = _trimmed_size()
            self.runs = self.make_runs()
            self.runs[mode](3)
            _trimmed_size()
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak
            self.runs[mode](3)
            peak = _status("VmHWM") - _status("RssFile")
            return round((peak - before) * 1e-6, 1)
        except (AttributeError, OSError):  # not Linux with glibc
            return math.nan


def _trimmed_size() -> int:
    """Bytes, but those of files, when what is not needed was given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return _status("RssAnon")


def _status(field: str) -> int:
    """A number of bytes that Linux tells about this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return 1024 * int(value.split()[0])
    raise OSError(f"no {field}")


def main() -> None:
    worker = None
    for line in sys.stdin:
        order, *arguments = json.loads(line)
        try:
            if order == "start":
                worker = Worker(*arguments)
                arguments = []
                order = "modes"
            reply = {"answer": getattr(worker, order)(*arguments)}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()

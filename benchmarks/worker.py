"""A contestant in a process of its own: reads orders and answers, in lines of JSON.

Libraries that share a process disturb each other: each has threads of its own, and all
share one heap.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.work import Run, Work
from benchmarks.works import load

# What does the works of these kinds of contestants
MODULES = {
    "eager": "with_pytorch",
    "compiled": "with_pytorch",
    "jitted": "with_jax",
}


def product_size(gpu: bool) -> int:
    """Number of rows of the matrices whose product shows what the machine can do."""
    return 8192 if gpu else 2048


class Worker:
    """Does one work in one way; with the work "product" it multiplies matrices."""

    def __init__(
        self, work: str, kind: str, variant: str, gpu: bool, precision: str = "f32"
    ):
        module = MODULES.get(kind, "with_brainstorm")
        library = importlib.import_module(f"benchmarks.{module}")
        if gpu and module == "with_pytorch":
            library.use_gpu("TF32" in variant)
        self._peaks: dict[str, float] = {}
        if work == "product":
            self.runs = library.make_product(kind, product_size(gpu))
        else:
            self.runs = self._make_and_measure(
                lambda work: library.make_runs(work, kind, variant, precision),
                load(work),
            )

    def _make_and_measure(
        self, make: Callable[[Work], dict[str, Run]], work: Work
    ) -> dict[str, Run]:
        """What the work consists of; notes the most memory that it has at any time.

        What the libraries need for themselves they have after the same work on little
        data. It has to be the first real one: some keep temporary memory for good.
        """
        little = make(work.with_little_data())
        for mode in little:
            little[mode](3)
        del little
        work.make_arrays()
        before = _trimmed_size()
        runs = make(work)
        for mode, run in runs.items():
            run(3)
            _trimmed_size()
            _forget_peak()
            run(3)
            peak = _status("VmHWM") - _status("RssFile")
            self._peaks[mode] = round((peak - before) * 1e-6, 1)
        del run, runs
        return make(work)

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
        """The most memory that the network and its steps had at any time."""
        return self._peaks[mode]


def _trimmed_size() -> float:
    """Bytes, but those of files, when what is not needed was given back."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
    return _status("RssAnon")


def _forget_peak() -> None:
    with contextlib.suppress(OSError):  # not Linux
        Path("/proc/self/clear_refs").write_text("5")


def _status(field: str) -> float:
    """A number of bytes that Linux tells about this process, elsewhere NaN."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == field:
                return 1024 * int(value.split()[0])
    return math.nan


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

"""What all benchmarks share: timing in turns, a check of the losses, a table."""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

import brainstorm as bs

REFERENCE = "PyTorch eager"

Steps = dict[str, Callable[[], float]]


def use_gpu() -> None:
    """Have all contestants run on the GPU, in float32 throughout."""
    torch.set_default_device("cuda")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def on_gpu() -> bool:
    """Whether PyTorch was told to use the GPU."""
    return torch.get_default_device().type == "cuda"


def handlers() -> dict[str, bs.handlers.Handler]:
    """A new handler of each kind that runs where PyTorch does."""
    if on_gpu():
        return {"PyCudaHandler": bs.handlers.PyCudaHandler()}
    found = {"NumpyHandler": bs.handlers.NumpyHandler(np.float32)}
    with contextlib.suppress(ImportError):
        found["OneDnnHandler"] = bs.handlers.OneDnnHandler()
    return found


def describe_machine(threads: int) -> str:
    return (
        f"brainstorm {bs.__version__}, PyTorch {torch.__version__}, NumPy"
        f" {np.__version__}, Python {platform.python_version()},"
        f" {platform.machine()}, {threads} threads on {os.cpu_count()} cores,"
        f" load {os.getloadavg()[0]:.1f} (0: nothing else runs)"
    )


def check_losses(steps: Steps, tolerance: float, updates: int = 10) -> None:
    """Make sure that all contestants do the same work, and warm them up."""
    losses = {name: [step() for _ in range(updates)] for name, step in steps.items()}
    for name, values in losses.items():
        np.testing.assert_allclose(
            values, losses[REFERENCE], rtol=tolerance, err_msg=name
        )


def interleaved_times(
    steps: Steps, rounds: int, seconds: float = 0.1
) -> dict[str, list[float]]:
    """The time of a step in each round, all contestants taking turns in each.

    Taking turns spreads what else the machine does over all of them.

    Args:
        steps: The contestants.
        rounds: Number of rounds.
        seconds: How long one contestant steps in one round, at least one step.
    """
    repeats = {n: max(1, round(seconds / _time(s, 3))) for n, s in steps.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            times[name].append(_time(step, repeats[name]))
    return times


def gpu_times(steps: Steps, repeats: int = 20) -> dict[str, list[float]]:
    """The time in each step that the GPU is at work: all kernels and copies."""
    times: dict[str, list[float]] = {}
    for name, step in steps.items():
        with profile(activities=[ProfilerActivity.CUDA]) as profiled:
            for _ in range(repeats):
                step()
        total = sum(e.self_device_time_total for e in profiled.key_averages())
        times[name] = [total * 1e-6 / repeats]
    return times


def _time(step: Callable[[], float], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    return (time.perf_counter() - start) / repeats


def table(times: dict[str, list[float]]) -> str:
    """Median, fastest and slowest round in microseconds, and the medians' ratio."""
    reference = statistics.median(times[REFERENCE])
    lines = [f"{'us per step':24}{'median':>10}{'min':>10}{'max':>10}{'ratio':>8}"]
    for name, values in times.items():
        median = statistics.median(values)
        lines.append(
            f"{name:24}{median * 1e6:10.1f}{min(values) * 1e6:10.1f}"
            f"{max(values) * 1e6:10.1f}{median / reference:8.2f}"
        )
    return "\n".join(lines)

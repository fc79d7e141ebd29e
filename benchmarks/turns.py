"""Contestants that take turns, each in a process of its own."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

Step = Callable[[], float]
"""Does the work once, and returns a number that says how well."""
OURS = frozenset({"NumpyHandler", "OneDnnHandler"})


def main(
    module: str, tables: Mapping[str, Mapping[str, Callable[[], Step]]], steps: int
) -> None:
    """Run what a module compares: ``python -m module``.

    Args:
        module: Its name.
        tables: For each table, by its title, what makes each contestant ready.
        steps: How often each does its work in a turn.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}")
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    parser.add_argument("--rounds", type=int, default=10, help="default: 10")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        table, name = args.worker
        _work(tables[table][name])
        return
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(args.threads)
    for title, contestants in tables.items():
        _compare(module, title, contestants, args.rounds, steps)


def _work(make: Callable[[], Step]) -> None:
    """Do the work as often as each line says, and answer how long it takes."""
    step = make()
    for _ in range(3):
        result = step()
    print(result, flush=True)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        print(statistics.median(times), flush=True)


def _compare(
    module: str,
    title: str,
    contestants: Mapping[str, Callable[[], Step]],
    rounds: int,
    steps: int,
) -> None:
    processes, times = {}, {}
    for name in contestants:
        process = subprocess.Popen(
            [sys.executable, "-m", module, "--worker", title, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        if process.stdout.readline():
            processes[name], times[name] = process, []
        else:
            process.communicate()
            print(f"left out: {name}")
    for _ in range(rounds):
        for name, process in processes.items():
            process.stdin.write(f"{steps}\n")
            process.stdin.flush()
            times[name].append(float(process.stdout.readline()))
    print(f"{title:26}" + "".join(f"{n:>18}" for n in times))
    median = {name: statistics.median(values) for name, values in times.items()}
    rows = {"median": median, "min": {n: min(values) for n, values in times.items()}}
    for row, values in rows.items():
        print(f"{row:26}" + "".join(f"{1e3 * values[n]:18.3g}" for n in times))
    for peer in [name for name in times if name not in OURS]:
        ratios = (median[name] / median[peer] for name in times)
        print(f"{'median / ' + peer:26}" + "".join(f"{r:18.3g}" for r in ratios))
    for process in processes.values():
        process.communicate()

"""Run benchmarks: ``python -m benchmarks small``, with ``--gpu`` on the GPU."""

from __future__ import annotations

import argparse
import importlib
import os

WORKS = ["small", "adam", "mnist_pi", "cifar10_cnn", "lstm", "hutter"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("works", nargs="*", help=f"any of {WORKS}; default: all")
    parser.add_argument("--threads", type=int, default=2, help="default: 2")
    parser.add_argument("--rounds", type=int, default=30, help="default: 30")
    parser.add_argument("--gpu", action="store_true", help="PyCudaHandler and PyTorch")
    args = parser.parse_args()
    if unknown := set(args.works) - set(WORKS):
        parser.error(f"unknown: {sorted(unknown)}; choose from {WORKS}")

    # The libraries read these once, when they are loaded.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(args.threads)
    common = importlib.import_module("benchmarks.common")

    if args.gpu:
        common.use_gpu()
    print(common.describe_machine(args.threads))
    for name in args.works or WORKS:
        work = importlib.import_module(f"benchmarks.{name}")
        steps = work.steps()
        common.check_losses(steps, work.LOSS_TOLERANCE)
        times = common.interleaved_times(steps, args.rounds)
        print(f"\n{name}: {work.__doc__}\n{common.table(times)}")
        if args.gpu:
            print(f"of which the GPU works:\n{common.table(common.gpu_times(steps))}")


if __name__ == "__main__":
    main()

from __future__ import annotations

from dataclasses import replace

from benchmarks.works import mnist_pi

WORK = replace(
    mnist_pi.WORK,
    description="mnist_pi with Adam",
    optimizer="adam",
    learning_rate=1e-4,
)

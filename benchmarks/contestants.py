"""Who takes part, and how to talk to them."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.work import Work

ROOT = Path(__file__).resolve().parents[1]
# Names on the package index of what peers need, by kinds of contestants
PACKAGES = {"eager": "torch", "compiled": "torch", "jitted": "jax"}

GIB = 1 << 30
# Has glibc keep memory that it is given back, as PyTorch's tuning guide recommends.
TUNED = {
    "GLIBC_TUNABLES": f"glibc.malloc.mmap_threshold={GIB}"
    f":glibc.malloc.trim_threshold={2 * GIB}"
}
ON_CPU = {"JAX_PLATFORMS": "cpu"}

# A variant of PyTorch that rounds the factors of products to 10 bits on a GPU.
TF32 = "TF32"
# One of ours that starts whole passes as CUDA graphs.
GRAPHS = "graphs"


class ContestantError(Exception):
    """What went wrong in a contestant's process."""


@dataclass
class Contestant:
    """A process that does one work in one way, whenever it is asked to.

    Args:
        name: For the tables.
        kind: A handler's name, "eager" or "compiled" for PyTorch, "jitted" for JAX.
        variant: One of those of the work.
        environment: Environment variables for the process.
        precision: "f32", or "bf16" if factors of products may be rounded to bfloat16.
        root: The folder with the library to use.
    """

    name: str
    kind: str
    variant: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    first_losses: dict[str, list[float]] = field(default_factory=dict)
    precision: str = "f32"
    root: Path = ROOT

    @property
    def is_peer(self) -> bool:
        """Whether it does the work with another library."""
        return self.kind in PACKAGES

    @property
    def package(self) -> str | None:
        """What has to be installed for it, besides this library."""
        return PACKAGES.get(self.kind)

    @property
    def is_tuned(self) -> bool:
        """Whether it is not as it comes, but as it may be faster: malloc, or TF32."""
        return "GLIBC_TUNABLES" in self.environment or TF32 in self.variant

    def spawn(self) -> None:
        """Start the process; it waits for orders."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.root,
            # In a group of its own: groups with stopped processes end with the shell.
            preexec_fn=os.setpgrp,
            # Handlers are made as needed; by default none starts threads.
            env=os.environ | {"BRAINSTORM_HANDLER": "numpy"} | self.environment,
        )

    def start(self, work: str, gpu: bool, updates: int = 10) -> None:
        """Prepare the work, and do each part of it some times.

        Raises:
            ContestantError: It can not run here.
        """
        options = self.kind, self.variant, gpu, self.precision
        for mode in self.ask("start", work, *options):
            self.first_losses[mode] = self.ask("run", mode, updates)["losses"]

    def ask(self, order: str, *arguments: Any) -> Any:
        """Have a method of `Worker` called; nobody else runs meanwhile.

        The process is stopped in between, since its threads would go on spinning, those
        of OpenBLAS for a tenth of a second, and take time from others.

        Raises:
            ContestantError: It failed.
        """
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(json.dumps([order, *arguments]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        self.process.send_signal(signal.SIGSTOP)
        reply = json.loads(line) if line else {"error": "the process died"}
        if "error" in reply:
            raise ContestantError(reply["error"].splitlines()[0])
        return reply["answer"]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.communicate()


def find_contestants(
    gpu: bool, compiled: bool = False, work: Work | None = None
) -> list[Contestant]:
    """Everybody who could do a work, in each of its variants. None is started yet."""
    ours, torch = (work.our_variants, work.torch_variants) if work else (("",), ("",))
    if gpu:
        return [
            *_in_variants("PyCudaHandler", "PyCudaHandler", ours + _with(GRAPHS, ours)),
            *_in_variants("PyTorch eager", "eager", torch),
            *_in_variants("PyTorch eager", "eager", _with(TF32, torch), {}, TF32),
        ]
    found = [
        *_in_variants("NumpyHandler", "NumpyHandler", ours[:1]),
        *_in_variants("OneDnnHandler", "OneDnnHandler", ours),
        *_in_variants("PyTorch eager", "eager", torch),
        *_in_variants("PyTorch eager, tuned", "eager", torch, TUNED),
    ]
    if compiled:
        name = "PyTorch compiled"
        found += _in_variants(name, "compiled", torch[:1])
        found += _in_variants(f"{name}, tuned", "compiled", torch[:1], TUNED)
    name = "PyTorch autocast"
    return [
        *found,
        *_in_variants("JAX", "jitted", ("",), ON_CPU),
        *_in_variants("JAX, tuned", "jitted", ("",), ON_CPU | TUNED),
        *_in_variants("OneDnnHandler bf16", "OneDnnHandler", ours[:1], {}, "bf16"),
        *_in_variants(name, "eager", torch[:1], {}, "bf16"),
        *_in_variants(f"{name}, tuned", "eager", torch[:1], TUNED, "bf16"),
    ]


def _with(more: str, variants: tuple[str, ...]) -> tuple[str, ...]:
    """The first of the variants, with something added."""
    return tuple(f"{v}, {more}" if v else more for v in variants[:1])


def _in_variants(
    name: str,
    kind: str,
    variants: tuple[str, ...],
    environment: Mapping[str, str] = {},
    precision: str = "f32",
) -> list[Contestant]:
    return [
        Contestant(
            f"{name}, {v}" if v else name,
            kind,
            v,
            dict(environment),
            precision=precision,
        )
        for v in variants
    ]


def us_and_us_before(contestants: list[Contestant], before: Path) -> list[Contestant]:
    """Ours alone, and the same with the library that lies in another folder."""
    ours = [c for c in contestants if not c.is_peer]
    return ours + [replace(c, name=f"{c.name}, before", root=before) for c in ours]


def pairs(contestants: list[Contestant]) -> list[tuple[int, int]]:
    """The numbers of those who do the same, now and before, where both are there."""
    keys = [(c.kind, c.variant, c.precision, c.root == ROOT) for c in contestants]
    return [
        (number, keys.index((*key, False)))
        for number, (*key, is_now) in enumerate(keys)
        if is_now and (*key, False) in keys
    ]


def missing_packages(contestants: list[Contestant]) -> list[str]:
    """Names on the package index of what peers need and is not installed."""
    wanted = dict.fromkeys(c.package for c in contestants if c.package)
    return [name for name in wanted if importlib.util.find_spec(name) is None]


def extract(revision: str, folder: Path) -> None:
    """Put the library as it was at a commit into a folder, with today's benchmarks.

    Raises:
        ContestantError: There is no such commit.
    """
    command = ["git", "archive", "--format=tar", revision, "brainstorm"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True)
    if done.returncode:
        raise ContestantError(done.stderr.decode().strip())
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder)
    (folder / "benchmarks").symlink_to(ROOT / "benchmarks")

"""Who takes part, and how to talk to them."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

GIB = 1 << 30
# Has glibc keep memory that it is given back, as PyTorch's tuning guide recommends.
TUNED = {
    "GLIBC_TUNABLES": f"glibc.malloc.mmap_threshold={GIB}"
    f":glibc.malloc.trim_threshold={2 * GIB}"
}

# A variant of PyTorch that rounds the factors of products to 10 bits on a GPU.
TF32 = "TF32"


class ContestantError(Exception):
    """What went wrong in a contestant's process."""


@dataclass
class Contestant:
    """A process that does one work in one way, whenever it is asked to.

    Args:
        name: For the tables.
        kind: A handler's name, or "eager" or "compiled" for PyTorch.
        variant: One of those of the work.
        environment: Environment variables for the process.
        root: The folder with the library to use.
    """

    name: str
    kind: str
    variant: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    first_losses: dict[str, list[float]] = field(default_factory=dict)
    root: Path = ROOT

    @property
    def is_tuned(self) -> bool:
        """Whether it is PyTorch not as it comes, but in a way that may be faster."""
        return bool(self.environment) or TF32 in self.variant

    def start(self, work: str, gpu: bool, updates: int = 10) -> None:
        """Start the process, prepare the work, and do each part of it some times.

        Raises:
            ContestantError: It can not run here.
        """
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
        for mode in self.ask("start", work, self.kind, self.variant, gpu):
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
    gpu: bool,
    compiled: bool = False,
    before: Path | None = None,
    our_variants: tuple[str, ...] = ("",),
    torch_variants: tuple[str, ...] = ("",),
) -> list[Contestant]:
    """Everybody who can do a work, in each of its variants. None is started yet.

    With a folder of the library as it was `before`, these are we and we before.
    """
    if before is not None:
        ours = find_contestants(gpu, False, None, our_variants, ())
        ours = [c for c in ours if c.kind != "eager"]
        return [
            *ours,
            *[replace(c, name=f"{c.name}, before", root=before) for c in ours],
        ]
    if gpu:
        tf32 = [f"{variant}, {TF32}" if variant else TF32 for variant in torch_variants]
        return [
            *_in_variants("PyCudaHandler", "PyCudaHandler", our_variants),
            *_in_variants("PyTorch eager", "eager", torch_variants),
            *_in_variants("PyTorch eager", "eager", tuple(tf32[:1])),
        ]
    found = [
        *_in_variants("NumpyHandler", "NumpyHandler", our_variants[:1]),
        *_in_variants("OneDnnHandler", "OneDnnHandler", our_variants),
        *_in_variants("PyTorch eager", "eager", torch_variants),
        *_in_variants("PyTorch eager, tuned", "eager", torch_variants, **TUNED),
    ]
    if compiled:
        one = torch_variants[:1]
        found += [
            *_in_variants("PyTorch compiled", "compiled", one),
            *_in_variants("PyTorch compiled, tuned", "compiled", one, **TUNED),
        ]
    return found


def _in_variants(
    name: str, kind: str, variants: tuple[str, ...], **environment: str
) -> list[Contestant]:
    return [
        Contestant(f"{name}, {v}" if v else name, kind, v, environment)
        for v in variants
    ]


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

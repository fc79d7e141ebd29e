"""Loads files, each in a process of its own with little memory, time and rights.

Run as a script it reads lines ``kind path`` and answers each with one line: ``loaded``,
``refused``, ``crashed <signal>``, ``hung``, or ``broke <what happened>``. The processes
are forks of this one, so that Python starts once.
"""

import contextlib
import os
import resource
import signal
import sys
import traceback

import numpy as np

from brainstorm.hooks import load_logs
from brainstorm.structure.network import Network
from brainstorm.training import Trainer
from brainstorm.utils import FileFormatError

_ = np.char  # NumPy 2 imports it when it is used first.

LOADERS = {"network": Network.from_hdf5, "logs": load_logs, "checkpoint": Trainer.load}
MEMORY = 2 * 2**30
SECONDS = 600
LOADED, REFUSED, BROKE = 0, 10, 11
# Whatever runs code, starts something or reaches out, by the names of audit events.
FORBIDDEN = (
    "code.",
    "compile",
    "ctypes.",
    "exec",
    "import",
    "marshal.",
    "os.",
    "pickle.",
    "shutil.",
    "socket.",
    "subprocess.",
)


def load_in_child(kind, path, answer):
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(SECONDS)

    def audit(event, args):
        writes = (
            event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
        )
        if event.startswith(FORBIDDEN) or writes:
            os.write(answer, f"broke {event} {args!r}".encode()[:2000])
            os._exit(BROKE)

    sys.addaudithook(audit)
    try:
        LOADERS[kind](path)
    except FileFormatError:
        os._exit(REFUSED)
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        os.write(answer, f"broke {error!r} at {place}".encode()[:2000])
        os._exit(BROKE)
    os._exit(LOADED)


def load(kind, path):
    answer, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        load_in_child(kind, path, write_end)
    os.close(write_end)
    with os.fdopen(answer, "rb") as pipe:
        text = pipe.read().decode("utf-8", "replace").replace("\n", " ")
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return "hung" if number == signal.SIGALRM else f"crashed {number}"
    return {LOADED: "loaded", REFUSED: "refused"}.get(os.WEXITSTATUS(status), text)


def warm_up(kind, path):
    """Have all modules imported that loading and refusing take."""
    LOADERS[kind](path)
    for other in LOADERS.keys() - {kind}:
        with contextlib.suppress(FileFormatError):
            LOADERS[other](path)


if __name__ == "__main__":
    seen = set()
    for line in sys.stdin:
        kind, path = line.rstrip("\n").split(" ", 1)
        # The first file of a kind is a good one.
        if kind not in seen:
            seen.add(kind)
            warm_up(kind, path)
        print(load(kind, path), flush=True)

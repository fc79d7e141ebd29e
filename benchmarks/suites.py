"""Suites of checks that share a span of time: each gets a verdict, whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

PASSED, FAILED, LATE, LEFT_OUT = "passed", "FAILED", "LATE", "left out"


class LeftOutError(Exception):
    """Why a suite is not run."""


class LateError(Exception):
    """A suite did not end in its time."""


class Outcome(NamedTuple):
    """What became of a suite.

    Attributes:
        verdict: One of the words above.
        text: What there is to say, in one line.
    """

    verdict: str
    text: str


@dataclass
class Suite:
    """Something to check.

    Args:
        name: For the table, and for the file with what it printed.
        share: Of the time that there is, in relation to those of the others.
        run: ``run(seconds, log)`` does it in that time, writes what is printed to a
            file, and returns the outcome.
    """

    name: str
    share: float
    run: Callable[[float, Path], Outcome]


class Command(NamedTuple):
    """A command that has ended: its status, and all that it printed."""

    status: int
    output: str


def run_command(
    command: Sequence[str | Path],
    seconds: float,
    log: Path,
    cwd: Path | None = None,
    **environment: str,
) -> Command:
    """Run a command with all that it starts; nothing of that outlives the time.

    Raises:
        LeftOutError: There is no such program.
        LateError: It did not end in time; what it printed until then is in the file.
    """
    with log.open("a", encoding="utf-8") as file:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=os.environ | environment,
                start_new_session=True,
            )
        except OSError as error:
            raise LeftOutError(f"can not run {command[0]}: {error.strerror}") from None
        try:
            status = process.wait(max(seconds, 0))
        except subprocess.TimeoutExpired:
            raise LateError(f"did not end in its {seconds:.0f} s") from None
        finally:
            _end_session(process)
    return Command(status, log.read_text(encoding="utf-8", errors="replace"))


def _end_session(leader: subprocess.Popen) -> None:
    """End a process and all that it has started, in whatever groups these are."""
    for _ in range(500):  # some may be starting others, or need long to end
        if leader.poll() is None:
            leader.kill()
        members = _in_session(leader.pid)
        if leader.poll() is not None and not members:
            return
        for member in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(member, signal.SIGKILL)
        time.sleep(0.01)


def _in_session(session: int) -> list[int]:
    """The processes of a session, as far as Linux tells."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            _, _, fields = status.read_text().rpartition(")")
            state, _, _, its_session, *_ = fields.split()
            if int(its_session) == session and state != "Z":
                found.append(int(status.parent.name))
    return found


def run_suites(
    suites: Sequence[Suite], seconds: float, folder: Path, least: float = 1.0
) -> int:
    """Run suites one after the other, and print their verdicts.

    Each gets its share of what is left, so those after a quick one get more.

    Args:
        suites: What to run.
        seconds: Time for all of them.
        folder: Where to put what they print, a file each.
        least: With less time than that, in seconds, a suite is left out.

    Returns:
        0 if nothing has failed or taken too long, else 1.
    """
    end, lines, verdicts = time.monotonic() + seconds, [], []
    shares = [suite.share for suite in suites]
    for k, suite in enumerate(suites):
        began = time.monotonic()
        own = (end - began) * suite.share / sum(shares[k:])
        print(f"{suite.name}: at most {own:.0f} s", flush=True)
        verdict, text = _outcome(suite, own, folder, least)
        took = time.monotonic() - began
        verdicts.append(verdict)
        lines.append(f"{verdict:9} {suite.name:24} {took:6.1f} s   {text}")
        print(lines[-1], flush=True)
    print("\n" + "\n".join(["VERDICTS", *lines]))
    counts = [
        f"{verdicts.count(verdict)} {verdict}"
        for verdict in (PASSED, FAILED, LATE, LEFT_OUT)
        if verdict in verdicts
    ]
    print(f"{', '.join(counts)}; what they printed is in {folder}", flush=True)
    return int(FAILED in verdicts or LATE in verdicts)


def _outcome(suite: Suite, seconds: float, folder: Path, least: float) -> Outcome:
    if seconds < least:
        return Outcome(LEFT_OUT, "no time is left")
    log = folder / f"{suite.name.replace(' ', '-')}.log"
    try:
        return suite.run(seconds, log)
    except LeftOutError as error:
        return Outcome(LEFT_OUT, str(error))
    except LateError as error:
        return Outcome(LATE, f"{error}; last: {last_line(log)}")
    except Exception as error:  # the others are to be run all the same
        return Outcome(FAILED, f"{type(error).__name__}: {error}")


def last_line(log: Path) -> str:
    """The last line with something in it of what was printed."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:100] if lines else "nothing was printed"

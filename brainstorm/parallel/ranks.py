"""The processes of a parallel program, and what they tell each other.

No rank ever waits for one that has failed: whoever waits looks meanwhile whether a rank
has told of its failure, see `Ranks.fail`, and ends with a `RankError` then.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import math
import os
import pickle
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, NoReturn

import numpy as np

from brainstorm.utils import RankError, ValidationError, import_extra

__all__ = ["Ranks", "check_communicator", "ranks_of", "world"]

_FAILURE = 1  # tag of messages that tell of one
_LOOKS = 16  # how many times to look for a result before one for failures
_SECONDS = 2.0  # to get rid of these messages

# Processes that outnumber the cores have to let each other run.
_give_way = getattr(os, "sched_yield", lambda: time.sleep(0))


def world() -> Any:
    """The communicator of all processes, ``MPI.COMM_WORLD`` of mpi4py.

    Without ``mpiexec`` that is this one process.

    Raises:
        ImportError: mpi4py, or an MPI, is not installed.
    """
    return _mpi().COMM_WORLD


def _mpi() -> Any:
    try:
        return import_extra("mpi4py.MPI", "training on several ranks", "mpi")
    except RuntimeError as error:  # mpi4py is there, but no MPI
        raise ImportError(
            f"mpi4py finds no MPI ({error}); install that of the system, or"
            ' "pip install mpich"'
        ) from error


def check_communicator(comm: Any) -> None:
    """Check that something is a communicator of mpi4py, within one group of ranks."""
    mpi = _mpi()
    if not isinstance(comm, mpi.Intracomm) or comm == mpi.COMM_NULL:
        raise ValidationError(
            "comm: expected a communicator of mpi4py, such as MPI.COMM_WORLD, got"
            f" {comm!r}"
        )


def _reads_devices(mpi: Any) -> bool:
    """What MPICH, Open MPI and others tell by an extension of the standard."""
    query = getattr(ctypes.CDLL(mpi.__file__), "MPIX_Query_cuda_support", None)
    return query is not None and bool(query())


@contextlib.contextmanager
def ranks_of(comm: Any, ranks: Ranks | None = None) -> Iterator[Ranks]:
    """Ranks that begin and end something together, unless there are `ranks` already."""
    if ranks is not None:
        yield ranks
        return
    with Ranks(comm).together() as made:
        yield made


class Ranks:
    """The processes of a communicator.

    All of its methods but `fail` are to be called by all ranks in the same order. It
    has a communicator of its own, so that nothing else gets in between.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of the processes.
        neighbours: Number of those on the same node, this one included.
        cores: Number of cores for each of these.
        read_devices: Whether MPI says that messages may lie in the memory of GPUs.

    Args:
        comm: A communicator of mpi4py.

    Raises:
        ValidationError: It is none, or not of this use.
    """

    rank: int
    size: int

    def __init__(self, comm: Any):
        check_communicator(comm)
        self._mpi = mpi = _mpi()
        self._comm = comm.Dup()
        self.rank, self.size = self._comm.rank, self._comm.size
        node = self._comm.Split_type(mpi.COMM_TYPE_SHARED)
        self.neighbours: int = node.size
        self.cores: int = _cores_of_each(node.allgather(_cores()))
        node.Free()
        self.read_devices: bool = _reads_devices(mpi)
        self._looks = self._started = 0
        # Requests that are not done, with their numbers and the memory they write to.
        self._open: dict[int, _Open] = {}
        self._failures: list[_Failure] = []
        self._is_over = self._is_agreed = False

    def close(self) -> None:
        """Give the communicator back, unless a rank has failed."""
        if not self._is_over:
            self._comm.Free()
        elif self._open:  # their memory has to last as long as MPI does
            atexit.register(self._open.clear)

    # -- arrays --------------------------------------------------------------

    def start_sum(self, array: Any) -> Any:
        """Begin to replace an array by the sum of those of all ranks; see `wait`."""
        request = self._comm.Iallreduce(self._mpi.IN_PLACE, array, self._mpi.SUM)
        return self._opened(request, array)

    def _opened(self, request: Any, *memory: Any) -> Any:
        self._started += 1
        self._open[id(request)] = _Open(self._started, request, memory)
        return request

    def sum(self, array: np.ndarray) -> np.ndarray:
        """Replace an array by the sum of those of all ranks, and return it."""
        self.wait([self.start_sum(array)])
        return array

    def wait(self, requests: list[Any]) -> None:
        """Wait until all of these are done.

        Raises:
            RankError: A rank has failed meanwhile.
        """
        while not self._mpi.Request.Testall(requests):
            self._looks += 1
            if self._looks % _LOOKS == 0:
                self._look_for_failures(requests)
            _give_way()
        for request in requests:
            del self._open[id(request)]

    def advance(self, requests: list[Any]) -> None:
        """Let messages get on, if there is something for this rank to do."""
        self._mpi.Request.Testall(requests)

    def anywhere(self, flag: bool) -> bool:
        """Whether something is so on any of the ranks."""
        return bool(self.sum(np.array([flag], np.int64))[0])

    # -- objects -------------------------------------------------------------

    def gather(self, value: Any) -> list[Any]:
        """What all ranks give, in their order; it has to be fit for `pickle`."""
        data = np.frombuffer(pickle.dumps(value), np.uint8)
        sizes = np.zeros(self.size, np.int64)
        sizes[self.rank] = len(data)
        self.sum(sizes)
        ends = np.cumsum(sizes)
        everything = np.empty(ends[-1], np.uint8)
        starts = ends - sizes
        target = (everything, (sizes, starts), self._mpi.BYTE)
        request = self._comm.Iallgatherv(data, target)
        self.wait([self._opened(request, data, *target)])
        return [
            pickle.loads(everything[start:end].data)
            for start, end in zip(starts, ends, strict=True)
        ]

    def share(self, value: Any) -> Any:
        """What rank 0 gives."""
        data = pickle.dumps(value) if self.rank == 0 else b""
        size = self.sum(np.array([len(data)], np.int64))[0]
        buffer = np.frombuffer(data, np.uint8) if data else np.empty(size, np.uint8)
        if data:
            buffer = buffer.copy()
        request = self._comm.Ibcast([buffer, self._mpi.BYTE], root=0)
        self.wait([self._opened(request, buffer)])
        return value if self.rank == 0 else pickle.loads(buffer.data)

    # -- failures ------------------------------------------------------------

    @contextlib.contextmanager
    def together(self) -> Iterator[Ranks]:
        """While this lasts, a rank that fails ends the others, too.

        All ranks leave it together. The communicator is of no use after that.
        """
        try:
            yield self
            self.sum(np.zeros(1))
        except BaseException as error:
            if not (self._is_agreed or isinstance(error, RankError)):
                self.fail(error)
            raise
        finally:
            self.close()

    def refuse(self, error: Exception) -> NoReturn:
        """Raise an error that all ranks raise, because all know of the reason."""
        self._is_agreed = True
        raise error

    def fail(self, error: BaseException) -> None:
        """Tell all other ranks that this one has failed."""
        self._is_over = True
        kind = type(error).__name__
        failure = _Failure(self._started, f"{kind}: {error}" if str(error) else kind)
        note = pickle.dumps(tuple(failure))
        self._finish(
            self._comm.Isend([note, self._mpi.BYTE], other, _FAILURE)
            for other in range(self.size)
            if other != self.rank
        )

    def _finish(self, requests: Iterable[Any], last: float = math.inf) -> None:
        """Do what the others may still wait for, up to a number; they may fail, too."""
        mine = [one.request for one in self._open.values() if one.number <= last]
        pending, end = [*requests, *mine], time.monotonic() + _SECONDS
        while not self._mpi.Request.Testall(pending) and time.monotonic() < end:
            _give_way()

    def _look_for_failures(self, requests: list[Any]) -> None:
        """Raise an error if one of these will never be done."""
        status = self._mpi.Status()
        while self._comm.Iprobe(self._mpi.ANY_SOURCE, _FAILURE, status):
            note = bytearray(status.Get_count(self._mpi.BYTE))
            self._comm.Recv([note, self._mpi.BYTE], status.source, _FAILURE)
            started, text = pickle.loads(note)
            text = f"rank {status.source} has failed: {text}"
            self._failures.append(_Failure(started, text))
        if not self._failures:
            return
        first = min(self._failures)
        # It has taken part in all before that, which the others wait for, too.
        if max(self._open[id(one)].number for one in requests) > first.started:
            self._is_over = True
            self._finish([], first.started)
            raise RankError(first.text)


def _cores() -> set[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _cores_of_each(cores: list[set[int]]) -> int:
    """How many there are for each process, which may have the same or their own."""
    return max(1, min(*map(len, cores), len(set().union(*cores)) // len(cores)))


class _Open(NamedTuple):
    number: int
    request: Any
    memory: tuple[Any, ...]


class _Failure(NamedTuple):
    started: int  # number of the requests that the rank has taken part in
    text: str

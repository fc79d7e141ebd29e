"""A data iterator that reads the batches of another one ahead of time."""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from brainstorm.data_iterators.base import Batch, DataIterator
from brainstorm.data_iterators.checks import brief, check_value, expect, whole
from brainstorm.describable import of_library
from brainstorm.handlers.base_handler import Handler

__all__ = ["Prefetch"]

Members = dict[tuple[str, ...], Any]

END = object()  # in place of a batch, where there is none any more


class Prefetch(DataIterator):
    """Reads and augments the next batches in a thread while one is in use.

    The batches are those of the wrapped iterator in the same order, whatever the seed,
    and the wrapped iterator's state is at any time that of the batch yielded last: so a
    training goes on from a checkpoint exactly, also from one that was saved without
    Prefetch. What the reader raises is raised in place of the batch it did not read.
    The thread ends when enough is read, and when the iteration ends in whatever way.

    Put it around all others, since what is outside of it is done while nobody else
    works. It pays where reading and augmenting a batch takes long, and lets other
    threads work meanwhile: HDF5 files, large NumPy arrays.

    >>> import numpy as np
    >>> images = np.zeros((1, 50, 28, 28, 1), dtype=np.float32)
    >>> from brainstorm import Flip, Minibatches
    >>> batches = Prefetch(Flip(Minibatches(20, default=images)))
    >>> sorted(batch['default'].shape[1] for batch in batches())
    [10, 20, 20]

    An iterator of your own works on a copy of itself in the thread: what it changes are
    to be its members, and what a hook changes of it meanwhile counts from the next
    iteration on. Its batches are copied, so it may fill the same arrays anew.

    Args:
        iter: The iterator to wrap.
        depth: The number of batches to have ready beside the one in use, each of
            which takes memory.
    """

    draws = False
    data_shapes: dict[str, tuple[int, ...]]
    length: int | None

    def __init__(self, iter: DataIterator, depth: int = 1) -> None:
        expect(isinstance(iter, DataIterator), "iter", "a DataIterator", brief(iter))
        check_value("depth", depth, whole(1))
        # Without a seed of its own, all other seeds are as they are without it.
        self.data_shapes, self.length = dict(iter.data_shapes), iter.length
        self.iter = iter
        self.depth: int = int(depth)
        self._continues: dict[int, bool | None] = {}

    @property  # type: ignore[misc]  # nothing else sets it
    def continues(self) -> bool | None:
        """Whether the batch that this thread got last goes on with the one before."""
        return self._continues.get(threading.get_ident(), self.iter.continues)

    def __call__(self, handler: Handler | None = None) -> Iterator[Batch]:
        reader = _Reader(self.iter, handler, self.depth)
        try:
            while True:
                read = reader.take()
                _set_members(self.iter, read.changed)
                if read.error is not None:
                    raise read.error
                if read.batch is END:
                    return
                self._continues[threading.get_ident()] = read.continues
                yield read.batch
        finally:
            reader.close()

    def get_state(self) -> dict[str, Any]:
        return self.iter.get_state()

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.iter.set_state(state)


class Read(NamedTuple):
    """What came of an attempt to read a batch: it, or `END`, perhaps by an error."""

    batch: Any
    changed: Members  # Those of the iterator that reading has changed.
    continues: bool | None = None
    error: BaseException | None = None


class _Reader:
    """Reads batches from a copy of an iterator, in threads that soon end.

    There is one at a time. It ends once `depth` batches are ready, and taking one of
    these starts the next: nothing is left running by an iteration that nobody ends.
    """

    def __init__(self, iterator: DataIterator, handler: Any, depth: int) -> None:
        self.handler, self.depth = handler, depth
        self._twin = _twin(iterator)
        self._members = _members(self._twin)
        # Others may yield the same arrays again, with other values.
        self._copies = not all(of_library(type(it)) for it in _nested(iterator))
        self._batches: Iterator[Any] | None = None
        self._ready: deque[Read] = deque()
        self._news = threading.Condition()
        self._runs = self._is_over = False
        self._thread: threading.Thread | None = None

    def take(self) -> Read:
        """The next batch, waiting for it where necessary."""
        with self._news:
            self._go_on()
            self._news.wait_for(lambda: self._ready)
            read = self._ready.popleft()
            self._go_on()
        return read

    def close(self) -> None:
        """End the thread, after the batch that it is reading, and the iteration."""
        with self._news:
            self._is_over = True
        thread = self._thread
        if thread is not None and thread.is_alive():
            if thread is threading.current_thread():  # which collects garbage
                return
            thread.join()
        getattr(self._batches, "close", lambda: None)()

    def _go_on(self) -> None:
        if self._runs or self._is_over or len(self._ready) >= self.depth:
            return
        self._runs = True
        self._thread = threading.Thread(target=self._run, name="Prefetch")
        self._thread.start()

    def _run(self) -> None:
        while True:
            read = self._read()
            with self._news:
                self._ready.append(read)
                self._is_over |= read.batch is END
                self._runs = not self._is_over and len(self._ready) < self.depth
                self._news.notify()
                if not self._runs:
                    return

    def _read(self) -> Read:
        continues = problem = None
        try:
            if self._batches is None:
                self._batches = iter(self._twin(self.handler))
            batch = next(self._batches, END)
            continues = self._twin.continues
            if self._copies and isinstance(batch, Mapping):
                batch = {name: _copy_of(item) for name, item in batch.items()}
        except BaseException as error:  # It is for the one who takes the batch.
            batch, problem = END, error
        members = _members(self._twin)
        changed = {p: m for p, m in members.items() if _differ(m, self._members.get(p))}
        self._members = members
        return Read(batch, changed, continues, problem)


def _copy_of(item: Any) -> Any:
    return item.copy() if isinstance(item, np.ndarray) else item


# -- members of iterators ------------------------------------------------------


def _nested(iterator: DataIterator) -> Iterator[DataIterator]:
    """An iterator, and those in it."""
    yield iterator
    for member in vars(iterator).values():
        if isinstance(member, DataIterator):
            yield from _nested(member)


def _twin(iterator: DataIterator) -> Any:
    """A copy with iterators and random states of its own, and the same data."""
    shared = {
        id(member): member
        for one in _nested(iterator)
        for member in vars(one).values()
        if not isinstance(member, DataIterator | np.random.RandomState)
    }
    return copy.deepcopy(iterator, shared)


def _members(iterator: DataIterator) -> Members:
    """All members of an iterator and of those in it, by their paths.

    Random states are copied, one that several iterators share once.
    """
    memo: dict[int, Any] = {}

    def collect(one: DataIterator, path: tuple[str, ...]) -> Iterator[tuple]:
        for name, member in vars(one).items():
            if isinstance(member, DataIterator):
                yield from collect(member, (*path, name))
            elif isinstance(member, np.random.RandomState):
                yield (*path, name), copy.deepcopy(member, memo)
            else:
                yield (*path, name), member

    return dict(collect(iterator, ()))


def _set_members(iterator: DataIterator, members: Members) -> None:
    for path, member in members.items():
        owner = iterator
        for name in path[:-1]:
            owner = vars(owner)[name]
        vars(owner)[path[-1]] = member


def _differ(member: Any, before: Any) -> bool:
    if not isinstance(member, np.random.RandomState):
        return member is not before
    return not isinstance(before, np.random.RandomState) or any(
        not np.array_equal(a, b)
        for a, b in zip(member.get_state(), before.get_state(), strict=True)
    )

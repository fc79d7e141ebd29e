"""What the passes of an LSTM or GRU leave out, and what is prepared for its buffers.

All of it belongs to the memory of the cells, and goes with that. Layers that share
weights have a record each.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from brainstorm.handlers.onednn.definitions import UnimplementedError
from brainstorm.handlers.onednn.gru_library import LibraryGru
from brainstorm.handlers.onednn.keeping import (
    Kept,
    Region,
    address_of,
    owner_of,
)
from brainstorm.handlers.onednn.lstm_arrays import LstmArrays, LstmDeltas
from brainstorm.handlers.onednn.lstm_formats import split
from brainstorm.handlers.onednn.lstm_library import LibraryLstm, Part
from brainstorm.handlers.onednn.session import Session, named_errors
from brainstorm.handlers.operations.gru import GruOperations, GruWeights
from brainstorm.handlers.operations.lstm import LstmCells, LstmOperations
from brainstorm.handlers.operations.recurrent import Weights

# Passes that are kept for one layer, whose memory is used in as many sizes.
_MAX_PASSES = 256
# Backward passes that are kept for one of them.
_MAX_BACKWARD = 4


class Run:
    """A prepared forward pass, and the places that it works on.

    Args:
        what: The pass.
        arrays: Its arrays.
        cells: The places of the cells, but for rows that are computed.
    """

    def __init__(self, what: LibraryLstm, arrays: LstmArrays, cells: Any):
        self.what, self.cells = what, cells
        self.places: tuple[Any, ...] = arrays.places
        self.backward: Kept = Kept(_MAX_BACKWARD)


class Backward(NamedTuple):
    """A prepared backward pass, and the places of the deltas that it leaves out."""

    what: Callable[[], None]
    dy: Region
    deltas: Any


class Record:
    """What is known of the buffers of a layer: the last pass, and what it left out.

    Args:
        session: Where the passes run.

    Attributes:
        session: Likewise.
        last: The last forward pass, or None.
        rivals: Other records of memory that overlaps.
    """

    def __init__(self, session: Session):
        self.session = session
        self.last: Run | None = None
        self.rivals: list[Record] = []
        self._whole = Part(session)
        self._parts = [Part(part, self._whole.arenas) for part in session.parts]
        self._runs = Kept(_MAX_PASSES)
        self._lacks_cells = False
        self._last_backward: Backward | None = None  # whose deltas are left out
        self._lost: list[Region] = []  # deltas that can not be computed any more

    # -- running -------------------------------------------------------------

    def find(self, arrays: LstmArrays) -> Run:
        """The prepared pass on these arrays."""
        run = self._runs.get(arrays.places)
        if run is None:
            with (
                named_errors("lstm_forward", (arrays.x, arrays.weights.W)),
                self._losing(),
            ):
                cells = self._regions_of(arrays.cells)
                run = Run(self._make_pass(arrays), arrays, cells)
            self._runs.put(arrays.places, run)
        return run

    def _make_pass(self, arrays: LstmArrays) -> LibraryLstm:
        return LibraryLstm(self._whole, self._parts, arrays)

    def _regions_of(self, cells: Any) -> Any:
        """The places of cells, but for rows that are computed."""
        # There is a carried state, and the last step of it is computed.
        named = cells._asdict().items()
        return LstmCells(*[Region(cell, 1 + (n == "Ca")) for n, cell in named])

    def _regions_of_deltas(self, deltas: Any) -> Any:
        """The same for their deltas."""
        named = deltas._asdict().items()
        return LstmCells(*[Region(delta, n == "Ca") for n, delta in named])

    def forward(self, run: Run, handler: Any) -> None:
        """Run a forward pass."""
        for rival in self.rivals:
            rival.complete(handler)
        self._lose_deltas()
        with self._losing():
            run.what.forward()
        self.last = run
        self._lacks_cells = True

    def find_backward(
        self, arrays: LstmArrays, to: LstmDeltas, records: Records
    ) -> Backward | None:
        """The prepared backward pass of the last forward pass, if it was on these."""
        run = self.last
        if run is None or run.places[:-1] != arrays.places[:-1]:
            return None
        backward = run.backward.get(to.places)
        if backward is None:
            try:
                with named_errors("lstm_backward", (arrays.x, arrays.weights.W)):
                    backward = Backward(
                        run.what.prepare_backward(arrays, to),
                        Region(to.dy),
                        self._regions_of_deltas(to.cells),
                    )
            except UnimplementedError:
                return None
            run.backward.put(to.places, backward)
            records.note((to.dy, *to.cells), self)
        return backward

    def backward(self, backward: Backward) -> None:
        """Run a backward pass of the last forward pass."""
        self._lost = []
        backward.what()
        self._last_backward = backward

    # -- what is left out ----------------------------------------------------

    def leaves_out(self, array: np.ndarray) -> bool:
        """Whether content of an array is still to be computed."""
        regions: list[Region] = []
        if self._lacks_cells and self.last is not None:
            regions += self.last.cells
        if self._last_backward is not None:
            regions += self._last_backward.deltas
        return any(region.overlaps(array) for region in regions)

    def has_lost(self, array: np.ndarray) -> bool:
        """Whether content of an array was left out and can not be computed any more."""
        return any(region.overlaps(array) for region in self._lost)

    def found(self, array: np.ndarray) -> None:
        """Note that an array has been filled otherwise."""
        self._lost = [region for region in self._lost if not region.overlaps(array)]

    def forget(self, array: np.ndarray) -> None:
        """Note that an array has got new content, in place of what is left out."""
        self.found(array)
        if self._lacks_cells and self.last is not None:
            overlaps = any(region.overlaps(array) for region in self.last.cells)
            self._lacks_cells = not overlaps
        deltas = self._last_backward.deltas if self._last_backward else ()
        if any(region.overlaps(array) for region in deltas):
            self._last_backward = None

    def supersede(self) -> None:
        """Note that something else has run on the cells."""
        self._lose_deltas()
        self.last, self._lacks_cells = None, False

    def _lose_deltas(self) -> None:
        if self._last_backward is not None:
            self._lost = list(self._last_backward.deltas)
            self._last_backward = None

    @contextlib.contextmanager
    def _losing(self) -> Any:
        """What this does may fail and leave nothing to compute from."""
        try:
            yield
        except BaseException:
            self._lose_deltas()
            if self._lacks_cells and self.last is not None:
                self._lost += self.last.cells
            self.last, self._lacks_cells = None, False
            raise

    def complete(self, handler: Any) -> None:
        """Compute all that is left out, from what the last pass used."""
        backward, self._last_backward = self._last_backward, None
        lacks_cells, self._lacks_cells = self._lacks_cells, False
        if self.last is None or (backward is None and not lacks_cells):
            return
        used = self.last.what.used(handler.current_session())
        self._complete(
            handler, used, self.last.cells if lacks_cells else None, backward
        )

    def _complete(
        self,
        handler: Any,
        used: dict[str, np.ndarray],
        lacking: Any,
        backward: Backward | None,
    ) -> None:
        """Compute cells, if they are lacking, and the deltas of a backward pass."""
        assert self.last is not None
        weights = Weights(*map(used.get, Weights._fields))
        cells = _copies(self.last.cells)
        cells.Ca[-1] = used["c"]
        if lacking is not None:
            state = cells.Ca[-2].copy()
            outputs = np.empty_like(cells.Ca)
            outputs[-1] = used["y"]
            arrays = (used["x"], weights, cells, outputs)
            LstmOperations.lstm_forward(handler, *arrays, "tanh")
            cells.Ca[-2] = state  # looking does not change how it goes on
            _put_steps(cells, lacking)
        if backward is not None:
            deltas, dy = _copies(backward.deltas), backward.dy.array().copy()
            LstmOperations._lstm_deltas(handler, weights, cells, dy, deltas, "tanh")
            _put_steps(deltas, backward.deltas)
            for name, region in backward.deltas._asdict().items():
                if name != "Ca":
                    region.array()[-1] = 0.0


class GruRecord(Record):
    """The same for a layer of gated recurrent units."""

    def _make_pass(self, arrays: LstmArrays) -> LibraryLstm:
        return LibraryGru(self._whole, self._parts, arrays)

    def _regions_of(self, cells: Any) -> Any:
        return type(cells)(*map(Region, cells))

    def _regions_of_deltas(self, deltas: Any) -> Any:
        return self._regions_of(deltas)

    def _complete(
        self,
        handler: Any,
        used: dict[str, np.ndarray],
        lacking: Any,
        backward: Backward | None,
    ) -> None:
        assert self.last is not None
        x, weights = used["x"], GruWeights(used["W"], used["R"], *split(used["bias"]))
        cells = _copies(self.last.cells)
        outputs = np.empty((len(x) + 1, *used["y"].shape), np.float32)
        outputs[-1] = used["y"]
        GruOperations.gru_forward(handler, x, weights, cells, outputs, "tanh")
        if lacking is not None:
            _put(cells, lacking)
        if backward is not None:
            deltas, dy = _copies(backward.deltas), backward.dy.array().copy()
            gradients = GruWeights(*map(np.empty_like, weights))
            GruOperations.gru_backward(
                *(handler, x, weights, cells, outputs, dy, deltas, None, gradients),
                "tanh",
                fresh_gradients=True,
            )
            _put(deltas, backward.deltas)


class Records:
    """The records of a handler, by the memory that they are about."""

    def __init__(self) -> None:
        self.by_cells: dict[tuple[int, ...], Record] = {}
        self._by_owner: dict[int, list[Record]] = {}
        self._owners: dict[int, weakref.ref] = {}

    def __bool__(self) -> bool:
        return bool(self.by_cells)

    def __iter__(self) -> Any:
        return iter(list(self.by_cells.values()))

    def get(self, cells: LstmCells) -> Record | None:
        """The record of the memory of cells, or None."""
        return self.by_cells.get(_beginnings(cells))

    def add(self, cells: LstmCells, record: Record) -> None:
        """Keep a record for the memory of cells, in place of another one."""
        self.drop(cells)
        record.rivals = self.of(cells)
        for rival in record.rivals:
            rival.rivals.append(record)
        self.by_cells[_beginnings(cells)] = record
        self.note(cells, record)

    def note(self, arrays: Sequence[np.ndarray], record: Record) -> None:
        """Note that a record is about the memory of these arrays too."""
        for owner in {id(o): o for o in map(_owner, arrays)}.values():
            records = self._by_owner.setdefault(id(owner), [])
            if record not in records:
                records.append(record)
            if id(owner) not in self._owners:
                self._owners[id(owner)] = weakref.ref(owner, self._forget(id(owner)))

    def drop(self, cells: LstmCells) -> None:
        """Drop the record of the memory of cells, if there is one."""
        record = self.by_cells.pop(_beginnings(cells), None)
        if record is not None:
            self._retire(record)

    def of(self, arrays: Sequence[np.ndarray]) -> list[Record]:
        """The records that may be about memory of these arrays."""
        found: dict[int, Record] = {}
        for array in arrays:
            for record in self._by_owner.get(id(owner_of(array)), ()):
                found[id(record)] = record
        return list(found.values())

    def _forget(self, owner: int) -> Callable[[weakref.ref], None]:
        reference = weakref.ref(self)

        def forget(_: weakref.ref) -> None:
            records = reference()
            if records is not None:
                records._owners.pop(owner, None)
                for record in records._by_owner.pop(owner, ()):
                    records._retire(record)

        return forget

    def _retire(self, record: Record) -> None:
        record.last = None
        for rival in record.rivals:
            if record in rival.rivals:
                rival.rivals.remove(record)
        for key in [k for k, value in self.by_cells.items() if value is record]:
            del self.by_cells[key]
        for records in self._by_owner.values():
            if record in records:
                records.remove(record)


def _copies(regions: Any) -> Any:
    return type(regions)(*[region.array().copy() for region in regions])


def _put(values: Any, regions: Any) -> None:
    """Copy to where it belongs."""
    for array, region in zip(values, regions, strict=True):
        region.array()[...] = array


def _put_steps(values: LstmCells, regions: LstmCells) -> None:
    """Copy all but the carried state to where it belongs."""
    for array, region in zip(values, regions, strict=True):
        region.array()[:-1] = array[:-1]


def _beginnings(cells: LstmCells) -> tuple[int, ...]:
    return tuple(map(address_of, cells))


def _owner(array: np.ndarray) -> np.ndarray:
    owner = owner_of(array)
    if owner is None:
        raise UnimplementedError("expected memory of an array")
    return owner

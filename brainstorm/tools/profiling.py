"""A tool that measures what the time of a step goes into."""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from brainstorm.checks import check_network, checked_integer
from brainstorm.data_iterators import DataIterator
from brainstorm.data_iterators.holding import Share
from brainstorm.describable import create_from_description, get_description
from brainstorm.files import atomic_path
from brainstorm.handlers.base_handler import Handler
from brainstorm.layers.base_layer import Layer
from brainstorm.parallel.exchange import Exchange
from brainstorm.parallel.ranks import Ranks
from brainstorm.parallel.sharing import piece_of
from brainstorm.randomness import global_rnd
from brainstorm.structure.buffers import BufferManager
from brainstorm.structure.listing import ProgramListing, list_program
from brainstorm.structure.multiplications import count_multiplications
from brainstorm.structure.network import Network
from brainstorm.structure.passes import Passes
from brainstorm.structure.tables import Table
from brainstorm.structure.twins import twin_of
from brainstorm.tools.inspecting import picture_format
from brainstorm.training.resuming import restore, state_of
from brainstorm.training.steppers import TrainingStepper
from brainstorm.training.updates import Updates
from brainstorm.training.utils import check_iterator
from brainstorm.utils import (
    HandlerError,
    IteratorValidationError,
    ValidationError,
    new_figure,
)

__all__ = ["Cost", "Profile", "profile"]

NETWORK = "(network)"
BAR = 20  # Letters of a bar that is all of the time.
LONG_ENOUGH = 0.02  # Seconds that tell what the peak is.


class Cost(NamedTuple):
    """What a part of a step costs.

    Attributes:
        seconds: Its time.
        multiplications: Number of multiplications of its products and convolutions.
    """

    seconds: float
    multiplications: int

    def plus(self, other: Cost) -> Cost:
        """What both cost together."""
        return Cost(
            self.seconds + other.seconds, self.multiplications + other.multiplications
        )


# Pass, layer and operation.
Place = tuple[str, str, str]
NOTHING = Cost(0.0, 0)


class Profile:
    """What the time of a step goes into; it shows as a table.

    Args:
        costs: Costs by pass, layer and operation.
        peak: Multiplications per second, see below.
        title: What it is a profile of.

    Attributes:
        costs (dict[tuple[str, str, str], Cost]): By pass (``'forward'``,
            ``'backward'`` or ``'update'``), layer and operation, the longest first.
            What the network does itself is under ``'(network)'``, what a stepper does
            under its class, in brackets too.
        peak (float): Multiplications per second of the product of two large matrices,
            with the same handler.
    """

    def __init__(self, costs: Mapping[Place, Cost], peak: float, title: str):
        self.costs: dict[Place, Cost] = _sorted(costs)
        self.peak = peak
        self.title = title

    @property
    def by_layer(self) -> dict[str, Cost]:
        """Sums by layer, the longest first."""
        return self._sums(1)

    @property
    def by_operation(self) -> dict[str, Cost]:
        """Sums by operation, the longest first."""
        return self._sums(2)

    @property
    def total_seconds(self) -> float:
        """Time of a step: the sum of all operations."""
        return sum(cost.seconds for cost in self.costs.values())

    def share_of_time(self, cost: Cost) -> float:
        """Which part of the time of a step this is, from 0 to 1."""
        return cost.seconds / self.total_seconds if self.total_seconds else 0.0

    def share_of_peak(self, cost: Cost) -> float:
        """How near this comes to the peak, which is 1; 0 without multiplications."""
        most = cost.seconds * self.peak
        return cost.multiplications / most if most else 0.0

    def _sums(self, key: int) -> dict[str, Cost]:
        sums: dict[str, Cost] = {}
        for place, cost in self.costs.items():
            sums[place[key]] = sums.get(place[key], NOTHING).plus(cost)
        return _sorted(sums)

    # -- showing -------------------------------------------------------------

    def __str__(self) -> str:
        tables = (self._table(*part).as_text() for part in self._by_kind().items())
        return "\n\n".join([self.title, *tables, self._about_peak()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The tables, for notebooks."""
        tables = (self._table(*part).as_html() for part in self._by_kind().items())
        title, about = f"<p>{self.title}</p>", f"<p>{self._about_peak()}</p>"
        return "\n".join([title, *tables, about])

    def _about_peak(self) -> str:
        billions = self.peak / 1e9
        return f"Peak: {billions:.3g} billion multiplications per second"

    def _by_kind(self) -> dict[str, dict[str, Cost]]:
        return {"Operation": self.by_operation, "Layer": self.by_layer}

    def _table(self, kind: str, costs: Mapping[str, Cost]) -> Table:
        rows: list[tuple[str, ...]] = [
            (kind, "", "Share", "Microseconds", "Multiplications", "Of peak")
        ]
        total = functools.reduce(Cost.plus, costs.values(), NOTHING)
        for name, cost in [*costs.items(), ("All", total)]:
            share = self.share_of_time(cost)
            bar = "" if name == "All" else "#" * round(BAR * share)
            row = (name, bar, f"{share:.1%}", f"{1e6 * cost.seconds:,.1f}")
            counted = cost.multiplications
            of_peak = f"{self.share_of_peak(cost):.1%}"
            rows.append((*row, f"{counted:,}", of_peak) if counted else (*row, "", ""))
        return Table(rows, 2)

    def plot(self, filename: str | os.PathLike[str] | None = None) -> Any:
        """Draw a bar chart of the times, by operation and by layer.

        Darker parts of the bars are the time that the multiplications would take at
        the peak. Needs `matplotlib <https://matplotlib.org>`_.

        Args:
            filename: Name of a file to write the chart to; its folder has to exist.
                The ending ``.png``, ``.svg`` or ``.pdf`` decides on the format.

        Returns:
            The figure of matplotlib.

        Raises:
            ImportError: matplotlib is not installed.
            ValidationError: The file name has another ending.
            FileFormatError: There is a file of another kind already.
            FileNotFoundError: The folder does not exist.
        """
        file_format = None if filename is None else picture_format(filename, "filename")
        nr_bars = [len(costs) for costs in self._by_kind().values()]
        figure = new_figure("Profile.plot", figsize=(8.0, 1.6 + 0.3 * sum(nr_bars)))
        figure.suptitle(self.title, fontsize="medium", wrap=True)
        axes = figure.subplots(2, gridspec_kw={"height_ratios": nr_bars})
        for ax, (kind, costs) in zip(axes, self._by_kind().items(), strict=True):
            self._draw(ax, costs)
            ax.set_title(f"By {kind.lower()}", loc="left", fontsize="medium")
        axes[-1].set_xlabel("microseconds")
        if filename is not None:
            with atomic_path(filename) as temporary:
                figure.savefig(temporary, format=file_format)
        return figure

    def _draw(self, ax: Any, costs: Mapping[str, Cost]) -> None:
        names, values = list(costs), list(costs.values())
        micros = [1e6 * cost.seconds for cost in values]
        bars = ax.barh(names, micros, color="#cfe2f3")
        at_peak = [
            m * self.share_of_peak(c) for m, c in zip(micros, values, strict=True)
        ]
        ax.barh(names, at_peak, color="#3d78b5", label="multiplications at the peak")
        labels = [f" {self.share_of_time(cost):.1%}" for cost in values]
        ax.bar_label(bars, labels, fontsize="small")
        ax.invert_yaxis()
        ax.margins(x=0.12)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(loc="lower right", fontsize="small", frameon=False)


def profile(
    network: Network,
    data: Mapping[str, Any] | DataIterator,
    steps: int = 20,
    training: bool = True,
    stepper: TrainingStepper | None = None,
    comm: Any = None,
    bucket_size: int = 2**22,
) -> Profile:
    """Measure what the time of a step of a network goes into.

    The steps are run by a copy of the network, with memory and a handler of its own:
    network, stepper, data and random numbers stay as they are. Of each operation the
    median of its times counts. Modifiers are left out; each step begins without
    context.

    Args:
        network: The network.
        data: Arrays ``(T, B, ...)`` by the names of the inputs, or a data iterator. Of
            batches of several sizes, those of the most frequent size count.
        steps: How many steps to measure. An iterator is used again if it has less.
        training: Whether to run steps of training, with backward passes.
        stepper: Also does its updates, unless None.
        comm: A communicator of mpi4py, whose ranks run the steps together, each on its
            part of the batches. What they take to send gradients is ``exchange``, and
            to wait for what has not arrived by the end of a pass ``wait_for_ranks``.
        bucket_size: How many bytes of gradients they exchange at once.

    Returns:
        Times and shares of the peak by operation and by layer.

    Raises:
        ValidationError: An argument is not what it has to be.
        IteratorValidationError: The iterator provides no batches.
        MissingInputError: Data for an input is missing (a KeyError).
        NetworkValidationError: The data do not fit the network, or a layer can not be
            copied.

    For example::

        net = tools.create_net_from_spec("classification", 784, 10, "F100")
        batch = {"default": x, "targets": t}
        print(tools.profile(net, batch, stepper=SgdStepper(0.1)))
    """
    check_network(network)
    steps = checked_integer(steps, "steps", 1)
    if not isinstance(training, bool | np.bool_):
        raise ValidationError(f"training: expected True or False, got {training!r}")
    twin = twin_of(network, _TimedPasses)
    passes, batches = twin._passes, endless_batches(twin, data)
    run = _run_of(twin, bool(training), stepper)
    measured: dict[tuple[int, int], list[dict[Place, Cost]]] = {}
    with contextlib.ExitStack() as stack:
        stack.enter_context(same_state(data))
        if comm is not None:
            ranks = stack.enter_context(Ranks(comm).together())
            restore(data, ranks.share(state_of(data)))
            exchange = _TimedExchange(ranks, twin, bucket_size)
            batches, run = exchange.parts(batches), exchange.around(run)
            passes.anywhere = ranks.anywhere
        for batch in itertools.islice(batches, steps):
            twin.provide_external_data(batch)
            size = twin.time_size, twin.batch_size
            measured.setdefault(size, []).append(passes.measure(run))
    size, costs = max(measured.items(), key=lambda item: len(item[1]))
    outline = list_program(network, bool(training), *size)
    peak = _measure_peak(twin.handler, passes.wait)
    title = f"{outline.title}: medians of {len(costs)} steps"
    return Profile(_medians(costs, outline), peak, title)


# -- running ---------------------------------------------------------------------


def endless_batches(
    net: Network, data: Mapping[str, Any] | DataIterator
) -> Iterator[Mapping[str, Any]]:
    """Batches without end."""
    if not isinstance(data, Mapping):
        check_iterator(net, data, "data")
    while True:
        batch = None
        for batch in [data] if isinstance(data, Mapping) else data(net.handler):
            yield batch
        if batch is None:
            raise IteratorValidationError("data provides no batches")


@contextlib.contextmanager
def same_state(data: Any) -> Iterator[None]:
    """Have random numbers go on afterwards as if nothing had been drawn."""
    state, drawn = copy.deepcopy(state_of(data)), global_rnd.get_state()
    try:
        yield
    finally:
        restore(data, state)
        global_rnd.set_state(drawn)


def _run_of(
    net: Network, training: bool, stepper: TrainingStepper | None
) -> Callable[[], None]:
    """What does a step, on data that have been provided."""

    def run_passes() -> None:
        net.forward_pass(training_pass=training)
        if training:
            net.backward_pass(all_deltas=False)

    if stepper is None:
        return run_passes
    if not isinstance(stepper, TrainingStepper):
        kind = type(stepper).__name__
        raise ValidationError(f"stepper: expected a TrainingStepper, got {kind}")
    if not training:
        raise ValidationError("stepper: expected None where training is False")
    own = create_from_description(get_description(stepper))
    restore(own, state_of(stepper))
    own.start(net)
    passes: Any = net._passes  # those that `profile` has put there
    own._updates = _TimedUpdates(passes, f"({type(stepper).__name__})")
    return own.run


class _TimedPasses(Passes):
    """Measures the operations of the passes that it replays."""

    def __init__(self, layers: Mapping[str, Layer], manager: BufferManager):
        super().__init__(layers, manager)
        # What waits until the handler has done all that it was told.
        handler = manager.handler
        self.wait: Callable[[], Any] = lambda: None
        if not issubclass(handler.array_type, np.ndarray):
            self.wait = functools.partial(handler.get_numpy_copy, handler.zeros((1,)))
        self._costs: dict[Place, Cost] = {}
        self._recorded_now = False
        # Whether something is so on any of several ranks, which run again together.
        self.anywhere: Callable[[bool], bool] = bool

    def measure(self, run: Callable[[], None]) -> dict[Place, Cost]:
        """What each operation costs in a step that is replayed."""
        for _ in range(3):  # memory of backward passes may come after one that records
            self._costs, self._recorded_now = {}, False
            run()
            if not self.anywhere(self._recorded_now):
                return self._costs
        raise ValidationError("a step makes more leaf calls than can be recorded")

    def run(self, key: tuple[Any, ...], make: Callable[..., None]) -> None:
        place = key, self._manager.handler.home()
        program = self._manager.sized.programs.get(place)
        if program is None:
            self._recorded_now = True
            self._run_first(key, make)
            return
        self.wait()
        try:
            seconds = program.timed(self.wait)
        except HandlerError as error:
            self._raise_in_layer(program, error)
        for step, calls, time_of_step in zip(
            program.steps, program.calls_by_step(), seconds, strict=True
        ):
            if calls:
                number = count_multiplications(step.operation, step.arguments)
                named = key[0], step.layer or NETWORK, step.operation
                self.note(named, Cost(time_of_step, number))

    def note(self, place: Place, cost: Cost) -> None:
        """Note down an operation that has run."""
        self._costs[place] = self._costs.get(place, NOTHING).plus(cost)


class _TimedUpdates(Updates):
    """Measures the updates of a stepper."""

    def __init__(self, passes: _TimedPasses, name: str):
        super().__init__()
        self._passes = passes
        self._name = name

    def run(self, handler: Handler, operation: str, *args: Any) -> None:
        began = time.perf_counter()
        super().run(handler, operation, *args)
        self._passes.wait()
        cost = Cost(time.perf_counter() - began, 0)
        self._passes.note(("update", self._name, operation), cost)


class _TimedExchange(Exchange):
    """Measures how long to wait for other ranks."""

    def __init__(self, ranks: Ranks, net: Network, bucket_size: int):
        super().__init__(ranks, net, bucket_size)
        net.backpropagation.share(self)
        self._share = Share(ranks.rank, ranks.size)
        self._passes: Any = net._passes

    def parts(self, batches: Iterator[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """The parts of batches that this rank has."""
        for batch in batches:
            self.piece = piece_of(batch, self._share)
            yield self.piece.data

    def around(self, run: Callable[[], None]) -> Callable[[], None]:
        """What does an update with the others."""

        def run_together() -> None:
            with self.update(self.piece):
                run()

        return run_together

    def finish(self) -> None:
        """Wait for the gradients."""
        began = time.perf_counter()
        super().finish()
        cost = Cost(time.perf_counter() - began, 0)
        self._passes.note(("backward", NETWORK, "wait_for_ranks"), cost)


def _measure_peak(handler: Handler, wait: Callable[[], Any]) -> float:
    """Multiplications per second in a product of matrices, as large as need be."""
    best = 0.0
    for n in (512, 1024, 2048, 4096):
        a, b, out = (handler.ones((n, n)) for _ in range(3))
        seconds = []
        for _ in range(4):
            wait()
            began = time.perf_counter()
            handler.dot_mm(a, b, out)
            wait()
            seconds.append(time.perf_counter() - began)
        best = max(best, n**3 / min(seconds))
        if min(seconds) > LONG_ENOUGH:
            break
    return best


# -- summing up ------------------------------------------------------------------


def _medians(
    steps: list[dict[Place, Cost]], outline: ProgramListing
) -> dict[Place, Cost]:
    """Put together, with what is inside of layers that are called as a whole."""
    costs = {}
    for place, cost in {p: c for step in steps for p, c in step.items()}.items():
        median = np.median([step.get(place, NOTHING).seconds for step in steps])
        pass_name, layer, operation = place
        number = cost.multiplications
        if operation in ("forward_pass", "backward_pass"):
            rows = [r for r in outline if (r.pass_name, r.layer) == place[:2]]
            number = sum(row.multiplications for row in rows)
            if len(rows) == 1:
                operation = rows[0].operation
        costs[pass_name, layer, operation] = Cost(float(median), number)
    return costs


def _sorted(costs: Mapping[Any, Cost]) -> dict[Any, Cost]:
    return dict(sorted(costs.items(), key=lambda item: -item[1].seconds))

"""Averages of the parameters over a training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from brainstorm.checks import check_integer, check_number
from brainstorm.hooks.base_hook import Hook
from brainstorm.literals import Timescale
from brainstorm.structure.network import Network
from brainstorm.training.steppers import TrainingStepper
from brainstorm.utils import ValidationError

__all__ = ["AveragedWeights"]

Kind = Literal["ema", "swa"]


class AveragedWeights(Hook):
    """Average the parameters over the updates; training itself goes on without.

    ``'ema'`` is an exponential moving average, ``average = decay average + (1 - decay)
    parameters``, which begins with the first parameters that it gets; ``'swa'`` is the
    mean of all that it gets (Izmailov et al., *Averaging weights leads to wider optima
    and better generalization*, 2018), for example once an epoch and late in the
    training::

        averaged = hooks.AveragedWeights("swa", begin=20, timescale="epoch")
        trainer.add_hook(averaged)
        trainer.train(net, iterator)
        with averaged.in_use(net):
            trainer.evaluate(net, test=test_iterator)
            net.save_as_hdf5("averaged.hdf5")

    The average goes into checkpoints, and a training that is resumed has the same.
    All parameters are averaged, statistics of `BatchNorm` too, which are then not quite
    those of the averaged weights: with ``'swa'`` and large steps, run some training
    passes within :meth:`in_use` to gather them anew, and save the network there.

    Args:
        kind: ``'ema'`` or ``'swa'``.
        decay: Share of the average that is kept, in [0, 1); for ``'ema'``.
        begin: The number of the update, or epoch, to begin after.
        timescale, interval, name, verbose: See :class:`.Hook`.

    Attributes:
        average (numpy.ndarray | None): All parameters in a row; None before the first.
        count (int): How many have been averaged.
    """

    initial_state: ClassVar[dict[str, Any]] = {"average": None, "count": 0}
    __undescribed__: ClassVar[set[str] | dict[str, Any]] = {"average", "count"}
    saves: str = "averages"
    filename: str | None = None  # not in an evaluation

    average: np.ndarray | None
    count: int

    def __init__(
        self,
        kind: Kind = "ema",
        decay: float = 0.999,
        begin: int = 0,
        timescale: Timescale = "update",
        interval: int = 1,
        name: str | None = None,
        verbose: bool | int | None = None,
    ):
        super().__init__(name, timescale, interval, verbose)
        if kind not in get_args(Kind):
            raise ValidationError(
                f"{self.__name__}: kind has to be 'ema' or 'swa', not {kind!r}"
            )
        self.kind = kind
        self.decay: float = check_number(self, "decay", decay, 0, 1)
        self.begin: int = check_integer(self, "begin", begin, low=0)

    def start(
        self,
        net: Network,
        stepper: TrainingStepper,
        verbose: bool | int,
        named_data_iters: Mapping[str, Any],
    ) -> None:
        super().start(net, stepper, verbose, named_data_iters)
        if self.average is not None:
            self._checked(net)

    def __call__(
        self,
        epoch_nr: int,
        update_nr: int,
        net: Network,
        stepper: TrainingStepper,
        logs: dict[str, Any],
    ) -> Any:
        number = update_nr if self.timescale == "update" else epoch_nr
        if number <= self.begin:
            return
        values = net.handler.get_numpy_copy(net.buffer.parameters)
        self.count += 1
        if self.average is None:
            self.average = values
            return
        added = 1 / self.count if self.kind == "swa" else 1 - self.decay
        values -= self.average
        values *= added
        self.average += values

    @contextlib.contextmanager
    def in_use(self, net: Network) -> Iterator[None]:
        """Have a network compute with the average, within a ``with`` statement.

        After it the network has the parameters that it had before, whatever happens.

        Raises:
            ValidationError: There is no average yet, or it is that of another network.
        """
        average = self._checked(net)
        handler, parameters = net.handler, net.buffer.parameters
        with net.lock:
            before = handler.get_numpy_copy(parameters)
            try:
                handler.set_from_numpy(parameters, average)
                yield
            finally:
                net.handler.set_from_numpy(net.buffer.parameters, before)

    def put_into(self, net: Network) -> None:
        """Give a network the average as its parameters.

        Raises:
            ValidationError: There is no average yet, or it is that of another network.
        """
        net.handler.set_from_numpy(net.buffer.parameters, self._checked(net))

    def _checked(self, net: Network) -> np.ndarray:
        if self.average is None:
            raise ValidationError(
                f"{self.__name__}: nothing has been averaged so far; it begins after"
                f" {self.timescale} {self.begin}"
            )
        size = tuple(net.buffer.parameters.shape)
        if self.average.shape != size:
            raise ValidationError(
                f"{self.__name__}: expected a network with {self.average.size}"
                f" parameters, as were averaged, got one with {size[0]}"
            )
        return self.average

"""The trainer: it feeds a network with data, has it updated and calls the hooks."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from brainstorm.checks import check_network, checked_integer
from brainstorm.data_iterators import DataIterator
from brainstorm.describable import Describable
from brainstorm.hooks.monitoring import MonitorScores
from brainstorm.parallel.ranks import check_communicator
from brainstorm.randomness import global_rnd
from brainstorm.scorers import (
    Scorer,
    aggregate_losses_and_scores,
    gather_losses_and_scores,
)
from brainstorm.structure.network import Network
from brainstorm.training import fitting, utils
from brainstorm.training import hook_rules as rules
from brainstorm.training.adaptive_steppers import AdamStepper
from brainstorm.training.advice import advise, is_blank, warn_of_loss
from brainstorm.training.calling import HookCalls
from brainstorm.training.epoch_table import Report, report_of
from brainstorm.training.history import History, history_of
from brainstorm.training.resuming import TRAINING_DATA, Epoch, Resumable, undisturbed
from brainstorm.training.steppers import TrainingStepper
from brainstorm.training.team import Team
from brainstorm.training.utils import ROLLING, run_network
from brainstorm.utils import IteratorValidationError, ValidationError, listing

if TYPE_CHECKING:
    from brainstorm.hooks.base_hook import Hook

    of_class = classmethod
else:

    class of_class(classmethod):  # noqa: N801
        """A class method that instances refuse, since it would ignore what they are."""

        def __get__(self, instance: Any, owner: Any = None) -> Any:
            method = super().__get__(None, owner or type(instance))
            return method if instance is None else functools.partial(_refuse, method)


def _refuse(method: Any, *args: Any, **kwargs: Any) -> NoReturn:
    name = method.__name__
    raise ValidationError(
        f"Trainer.{name} makes a trainer of its own: Trainer.{name}(net, x, y,"
        " stepper=..., hooks=...); one that exists is used by trainer.train(net, ...)"
    )


__all__ = ["Trainer", "run_network"]


@dataclass(eq=False, repr=False)
class Trainer(HookCalls, Resumable, Describable):
    """Organizes the training of a network.

    It provides the network with data, lets a stepper update the parameters, calls
    the hooks and collects their logs.

    Args:
        stepper: Does the parameter updates: a TrainingStepper, or anything with the
            methods ``start(net)`` and ``run()``.
        verbose: Whether to print a line for each epoch; 2 prints all logs in full, as
            they come. Each hook can override it.
        carry_context: Whether the state of recurrent layers is carried on from batch to
            batch where these continue each other, as those of
            :class:`brainstorm.data_iterators.Subsequences` do: truncated
            backpropagation through time (Williams and Peng, *An efficient
            gradient-based algorithm for on-line training of recurrent network
            trajectories*, 1990). Deltas end where batches do.
        comm: A communicator of mpi4py, such as ``MPI.COMM_WORLD``: its processes train
            the network together, each on its part of each batch. See
            :doc:`/scaling`.
        bucket_size: How many bytes of gradients these exchange at once.

    Raises:
        ValidationError: `stepper` can not step.
    """

    __omit_defaults__ = True
    __default_values__: ClassVar[dict[str, Any]] = {"hooks": {}, "train_scorers": []}
    __undescribed__: ClassVar[set[str] | dict[str, Any]] = {"comm", "bucket_size"}

    stepper: TrainingStepper
    verbose: bool | int = True
    carry_context: bool = False
    comm: Any = None
    bucket_size: int = 2**22
    hooks: dict[str, Hook] = field(default_factory=dict, init=False)
    """The hooks by name, in the order in which they are called."""
    train_scorers: Sequence[Scorer] = field(default_factory=list, init=False)
    """Scorers to evaluate on the training batches as they go by; a list at first."""

    _is_training = _warned = False

    def __post_init__(self) -> None:
        stepper, carry_context = self.stepper, self.carry_context
        methods = (getattr(stepper, name, None) for name in ("start", "run"))
        if isinstance(stepper, type) or not all(map(callable, methods)):
            raise ValidationError(
                "Trainer: stepper has to be a TrainingStepper, such as"
                f" SgdStepper(), not {stepper!r}"
            )
        if self.verbose not in (False, True, 2):
            raise ValidationError(
                f"Trainer: verbose has to be False, True or 2, not {self.verbose!r}"
            )
        if not isinstance(carry_context, bool):
            raise ValidationError(
                f"Trainer: carry_context has to be True or False, not {carry_context!r}"
            )
        if self.comm is not None:
            check_communicator(self.comm)
        if carry_context and not hasattr(stepper, "context"):
            raise ValidationError(
                f"Trainer: carry_context needs a TrainingStepper, since {stepper!r} has"
                " no member context, from which its forward passes would go on"
            )

    @property
    def history(self) -> History:
        """The logs by epochs: what the trainer and hooks of epochs logged at their end.

        >>> from brainstorm import tools, Trainer
        >>> net = tools.create_net_from_spec('classification', 2, 2, 'F4')
        >>> trainer = Trainer.fit(net, [[0, 1], [1, 0]], [0, 1], epochs=3)
        >>> [row["epoch"] for row in trainer.history]
        [1, 2, 3]
        """
        return history_of(self.logs, self.hooks, self.current_epoch_nr)

    def plot(self, *names: str) -> Any:
        """Draw logs over epochs, see :meth:`.History.plot`."""
        return self.history.plot(*names)

    @of_class
    def fit(
        cls,  # noqa: N805
        net: Network,
        x: Any,
        y: Any = None,
        epochs: int = 10,
        batch_size: int = 100,
        stepper: TrainingStepper | None = None,
        train_scorers: Sequence[Scorer] = (),
        seed: int | None = None,
        verbose: bool | int = False,
        *,
        validation_data: Any = None,
        hooks: Sequence[Hook] = (),
        early_stopping: int | None = None,
        comm: Any = None,
    ) -> Trainer:
        """Train a network on arrays for some epochs: the common case in one line.

        The sequences are shuffled once, and the order of the batches in each epoch.
        A network that nobody has initialized is, by ``net.initialize('auto')``. For all
        else make a Trainer.

        >>> from brainstorm import tools, Trainer
        >>> net = tools.create_net_from_spec('classification', 2, 2, 'F4')
        >>> trainer = Trainer.fit(net, [[0, 1], [1, 0]], [0, 1], epochs=3)
        >>> len(trainer.logs['rolling_training']['total_loss'])
        3

        Args:
            net: The network.
            x: Inputs of the shape (T, B, ...), or (B, ...) for one time step. A dict
                of these by name if the network has several; it may hold the targets.
            y: Targets, likewise. A last dimension of 1 may be missing: (B,) for
                classes.
            epochs: Number of epochs.
            batch_size: Number of sequences in a batch.
            stepper: Does the updates. Default: ``AdamStepper()``.
            train_scorers: Scorers to evaluate on the training batches.
            seed: Makes the shuffling reproducible on its own.
            verbose: What to print, see :class:`Trainer`.
            validation_data: Other data ``(x, y)``, a dict of them, or a data iterator.
                Losses and scores on these are logged as ``validation``, before the
                training and after each epoch.
            hooks: Hooks to add. They find these data under that name.
            early_stopping: After how many epochs in which the loss has not been better,
                that of the validation data if there are some, to stop. The network gets
                the parameters back with which it was best.
            comm: A communicator, see :class:`Trainer`.

        Returns:
            The trainer. Its logs have the losses and scores of each epoch.

        Raises:
            ValidationError: The data, or another argument, does not fit.
        """
        check_network(net)
        epochs = checked_integer(epochs, "epochs", 0)
        stepper = AdamStepper() if stepper is None else stepper
        trainer = cls(stepper, verbose, comm=comm)
        trainer.train_scorers = train_scorers
        rnd = fitting.same_on_all_ranks(global_rnd.create_random_state(seed), comm)
        data = fitting.shuffled_batches(net, x, y, batch_size, rnd)
        utils.check_iterator(net, data, "the data")
        if is_blank(net):
            net.initialize("auto", seed=rnd.generate_seed())
        others = {}
        if validation_data is not None:
            others["validation"] = fitting.batches_of(net, validation_data, batch_size)
            monitor = MonitorScores("validation", train_scorers, name="validation")
            trainer.add_hook(monitor)
        for hook in (*hooks, *fitting.stoppers(early_stopping, bool(others))):
            trainer.add_hook(hook)
        fitting.train_epochs(trainer, net, data, epochs, **others)
        return trainer

    def __init_from_description__(self, description: dict[str, Any]) -> None:
        # Files may have sorted the names; the priorities tell the order.
        described, self.hooks = self.hooks, {}
        for hook in sorted(described.values(), key=lambda h: getattr(h, "priority", 0)):
            self.add_hook(hook)

    def add_hook(self, hook: Hook) -> None:
        """Add a hook, to be called after those that have been added before.

        Args:
            hook: The hook. Also a plain function with an attribute `timescale`, and
                perhaps `interval`, that takes the arguments of a hook's call.

        Raises:
            ValidationError: It is no hook, its name is taken, or it writes a file that
                another hook writes with other content.
        """
        is_class = isinstance(hook, type)
        if is_class or not callable(hook) or not hasattr(hook, "timescale"):
            hint = f"; give it an object: {hook.__name__}(...)" if is_class else ""
            raise ValidationError(f"add_hook: expected a Hook, got {hook!r}{hint}")
        rules.complete_hook(hook)
        name = hook.__name__
        if name in self.hooks or name == ROLLING:
            raise ValidationError(
                f"add_hook: the name {name!r} is taken; give the hook another one by"
                f" its argument name. Names in use: {listing([*self.hooks, ROLLING])}"
            )
        rules.check_file(hook, self.hooks.values())
        others = (other.priority for other in self.hooks.values())
        hook.priority = 1 + max(others, default=0)
        self.hooks[name] = hook

    def train(
        self,
        net: Network,
        training_data_iter: DataIterator,
        *others: Any,
        **named_data_iters: Any,
    ) -> None:
        """Train a network until a hook stops it.

        All hooks are called once before the first update; see also
        :class:`brainstorm.hooks.base_hook.Hook`. Calling it again continues: counts
        and logs go on, and hooks that would stop the training at once do so.

        Args:
            net: The network.
            training_data_iter: Provides the training batches, again each epoch.
            *others: Nothing; arrays are for :meth:`fit`.
            **named_data_iters: Further data iterators, for hooks to use by name.
                They find the training data as ``'training_data_iter'``.

        Raises:
            IteratorValidationError: The names of the training data are not those of
                the network's inputs, or there are no batches, or these never continue
                each other where the context is to be carried.
            ValidationError: The `train_scorers` do not fit, or this trainer is training
                already.
            KeyError: A hook needs a data iterator or a log that does not exist.
            RankError: Another process has failed, with which this one trains.
        """
        if others:
            raise ValidationError(
                "train: expected the network and one data iterator, and others by"
                f" name, got {len(others)} more; for arrays there is"
                " Trainer.fit(net, x, y, epochs)"
            )
        named_data_iters[TRAINING_DATA] = training_data_iter
        with self._together() as team:
            self._train(net, named_data_iters, team)

    def _train(self, net: Network, iterators: dict[str, Any], team: Team | None):
        training_data_iter = iterators[TRAINING_DATA]
        if team is not None:
            team.check(self, net, iterators)
        utils.check_iterator(net, training_data_iter, TRAINING_DATA, exactly=True)
        if self.carry_context:
            utils.check_continues(net, training_data_iter)
        scores = utils.check_scorers(net, self.train_scorers, "train_scorers")
        rules.check_watched_logs(self.hooks, self.logs, scores)
        if self._is_training:
            raise ValidationError(
                "the trainer is training already, in another thread or around a hook"
            )
        rules.complete_net(net)
        self.stepper.start(net)
        self._warned = not self._speaks or any(
            getattr(h, "check_training_loss", 0) for h in self.hooks.values()
        )
        with net.lock, contextlib.ExitStack() as started:
            self._is_training = True
            started.callback(setattr, self, "_is_training", False)
            if team is not None:
                iterators = team.start(net, self.stepper, iterators)
                started.callback(team.stop, net, iterators)
            if self._speaks:
                advise(net, self.hooks.values(), (self.stepper, *self.train_scorers))
            net.start_weight_modifiers()
            self._net, self._iterators = net, iterators
            self._start_hooks(self._acting.values(), net, iterators, started)
            started.callback(net.backpropagation.stop_keeping)
            # An epoch that is broken off is over; checkpoints know how far it was.
            started.callback(setattr, self, "_epoch", None)
            started.callback(setattr, net, "before_next_run", None)
            started.callback(setattr, self, "_report", Report())
            report = report_of(self, net, scores) if self._speaks else Report()
            self._report = started.enter_context(report)
            self._looked_at = self.current_update_nr
            batches = self._go_on()
            if batches is None:
                running = self._call_hooks_before_training(net)
            else:
                running = self._train_epoch(net, batches)
            while running:
                running = self._train_epoch(net)

    def evaluate(
        self, net: Network, **named_data_iters: DataIterator
    ) -> dict[str, dict[str, float]]:
        """Compute the losses and the `train_scorers` on data sets, and run the hooks.

        Hooks that log are called once each, whatever their timescale and interval, and
        their logs go into `results`. Left out are those that stop or save something,
        and monitors of data that are not given.

        Args:
            net: The network.
            **named_data_iters: The data iterators.

        Returns:
            The losses and scores by name for each data iterator, by its name. They
            are kept in `results` too, unless a hook of the same name logs there.

        Raises:
            IteratorValidationError: The names of the data are not those of the
                network's inputs.
            ValidationError: The `train_scorers` do not fit.
        """
        with self._together() as team:
            return self._evaluate(net, named_data_iters, team)

    def _evaluate(
        self, net: Network, iterators: dict[str, Any], team: Team | None
    ) -> dict[str, dict[str, float]]:
        utils.check_scorers(net, self.train_scorers, "train_scorers")
        for name, iterator in iterators.items():
            utils.check_iterator(net, iterator, name)
        if team is not None:
            iterators = team.shared(iterators)
        results = {}
        iter_names = (None, *iterators)
        hooks = [
            hook
            for hook in self._acting.values()
            if not (hook.repeatable or bool(getattr(hook, "saves", "")))
            and getattr(hook, "iter_name", None) in iter_names
        ]
        with net.lock, contextlib.ExitStack() as started:
            for name, iterator in iterators.items():
                results[name] = utils.compute_scores(net, iterator, self.train_scorers)
                if self.verbose and self._speaks:
                    utils.print_log(name, results[name])
            named = {n: r for n, r in results.items() if n not in self.hooks}
            self.results.update(named)
            started.callback(setattr, net, "before_next_run", None)
            self._start_hooks(hooks, net, iterators, started)
            self._call_hooks(net, hooks, self.results)
        return results

    # -- the training loop ---------------------------------------------------

    def _train_epoch(self, net: Network, batches: Iterator[Any] | None = None) -> bool:
        """Train for one epoch, or what is left of it, and return whether to go on."""
        if batches is None:
            self.current_epoch_nr += 1
            self._epoch = Epoch.begin(self._iterators[TRAINING_DATA])
            self._report.begin(f"Epoch {self.current_epoch_nr}")
            batches = self._batches()
            stopped = False
        else:
            self._report.begin(f"Epoch {self.current_epoch_nr} goes on")
            due = rules.due_after_update(self._acting, self.current_update_nr)
            stopped = self._call_hooks(net, [h for h in due if h.repeatable])
        scores = self._now().scores
        if not stopped:
            with utils.ending(batches):
                stopped = self._train_batches(net, batches)
            for hook in self._acting.values():
                if hasattr(hook, "end_epoch"):
                    hook.end_epoch(net, self.current_update_nr)
        self._report.end_epoch(self.stepper)
        self._epoch = None
        if self._team is not None:
            scores = self._team.merged(scores)
        if not scores:
            raise IteratorValidationError(f"{TRAINING_DATA} provides no batches")
        rolling = aggregate_losses_and_scores(scores, net, self.train_scorers)
        utils.add_log(self.logs, ROLLING, rolling)
        self._report.log(ROLLING, rolling, self.verbose if self._speaks else False)
        due = rules.due_after_epoch(self._acting, self.current_epoch_nr)
        stopped |= self._call_hooks(net, due)
        self._report.end_round(self.current_epoch_nr)
        self._finish_round()
        return not stopped

    def _train_batches(self, net: Network, batches: Iterable[Any]) -> bool:
        """Do the updates of an epoch, and return whether a hook stopped them."""
        epoch, team = self._now(), self._team
        training_data = self._iterators[TRAINING_DATA]
        all_ours = all(map(rules.is_ours, self.hooks.values()))
        for batch in batches:
            if not all_ours:
                net.backpropagation.keeps_parameters = self._may_be_read_next()
            net.before_next_run = None
            net.lock.give_way()
            net.provide_external_data(batch)
            self._run_stepper(net)
            continues = bool(getattr(training_data, "continues", False))
            if team is None or team.has_data:
                gather_losses_and_scores(
                    net, self.train_scorers, epoch.scores, continues=continues
                )
            if team is not None:
                team.finish_update()
            net.apply_weight_modifiers()
            self.current_update_nr += 1
            if not self._warned:
                loss = epoch.scores["total_loss"][-1][1]
                if team is not None:
                    loss = net.get_loss_values()["total_loss"]
                self._warned = warn_of_loss(net, loss, self.current_update_nr)
            epoch.nr_batches += 1
            stopped = False
            due = rules.due_after_update(self._acting, self.current_update_nr)
            if due:
                with undisturbed(training_data):
                    stopped = self._call_hooks(net, due)
            self._finish_round()
            if stopped:
                return True
        return False

    def _may_be_read_next(self) -> bool:
        """Whether an unknown hook may be called after the next update."""
        length = getattr(self._iterators[TRAINING_DATA], "length", None)
        is_last = length is None or self._now().nr_batches + 1 >= length
        called = rules.due_after_update(self._acting, self.current_update_nr + 1)
        if is_last or called:  # one of these may end the epoch
            called += rules.due_after_epoch(self._acting, self.current_epoch_nr)
        return not all(map(rules.is_ours, called))

    def _run_stepper(self, net: Network) -> None:
        """Do an update, going on from the state that the one before has left."""
        run = self.stepper.run
        if self._team is not None:
            run = functools.partial(self._team.update, run)
        if not self.carry_context:
            run()
            return
        continues = self._iterators[TRAINING_DATA].continues
        self.stepper.context = (self._context or None) if continues else None
        try:
            run()
        finally:
            self.stepper.context = None
        has_data = self._team is None or self._team.has_data
        self._context = net.get_context() if has_data else {}

    def _batches(self) -> Iterator[Any]:
        data, handler = self._iterators[TRAINING_DATA], self._trained_net().handler
        if self._team is not None:
            return self._team.pieces(data, handler)
        return iter(data(handler))

"""What a trainer does with its hooks, and as one of several processes."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from brainstorm.parallel.ranks import Ranks
from brainstorm.structure.network import Network
from brainstorm.training import hook_rules as rules
from brainstorm.training import utils
from brainstorm.training.epoch_table import Report
from brainstorm.training.team import Team

if TYPE_CHECKING:
    from brainstorm.hooks.base_hook import Hook


class HookCalls:
    """The part of a trainer that calls hooks."""

    hooks: dict[str, Hook]
    logs: dict[str, Any]
    comm: Any
    bucket_size: int
    stepper: Any
    verbose: bool | int
    current_epoch_nr: int
    current_update_nr: int

    _looked_at = 0
    _report = Report()
    _team: Team | None = None
    _speaks = True  # whether this process prints, draws and writes files
    _acting: Mapping[str, Hook] = {}  # the hooks that it calls

    # -- several processes ---------------------------------------------------

    @contextlib.contextmanager
    def _together(self) -> Iterator[Team | None]:
        """With a communicator, have all ranks begin and end this together."""
        before = {n: getattr(self, n) for n in ("_team", "_speaks", "_acting")}
        if self.comm is None:
            self._acting = self.hooks
            try:
                yield None
            finally:
                vars(self).update(before)
            return
        with Ranks(self.comm).together() as ranks:
            team = self._team = Team(ranks, self.bucket_size)
            self._speaks = team.speaks
            self._acting = team.acting(self.hooks)
            try:
                yield team
            finally:
                vars(self).update(before)  # hooks may evaluate meanwhile

    def _start_hooks(
        self,
        hooks: Iterable[Hook],
        net: Network,
        iterators: dict[str, Any],
        started: contextlib.ExitStack,
    ) -> None:
        for hook in hooks:
            hook.speaks = self._speaks
            with rules.deltas_for(hook, net):
                hook.start(net, self.stepper, self.verbose, iterators)
            started.callback(hook.stop)

    # -- calling them -------------------------------------------------------------

    def _call_hooks_before_training(self, net: Network) -> bool:
        """Call all hooks once at 0; on resuming only those that may stop it."""
        hooks = list(self._acting.values())
        if self.current_epoch_nr or self.current_update_nr:
            hooks = [hook for hook in hooks if hook.repeatable]
        else:
            self._report.begin("Before Training")
            for hook in hooks:
                hook.reset()
        stopped = self._call_hooks(net, hooks)
        self._report.end_round(self.current_epoch_nr)
        self._finish_round()
        return not stopped

    def _finish_round(self) -> None:
        """Let hooks that save the trainer do so, now that all others are done."""
        for hook in self._acting.values():
            if hasattr(hook, "finish_round"):
                hook.finish_round(self)

    def _call_hooks(
        self, net: Network, hooks: Iterable[Hook], logs: dict[str, Any] | None = None
    ) -> bool:
        """Call hooks, add their logs, and return whether one wants to stop."""
        stopped = False
        shown = self._report if logs is None else Report()
        logs = self.logs if logs is None else logs
        for hook in hooks:
            verbose = self.verbose if hook.verbose is None else hook.verbose
            verbose = verbose if self._speaks else False
            log, reason = self._call(hook, net)
            if self._team is not None:
                log, reason = self._team.agreed(hook, log, reason)
            if reason is not None:
                stopped = True
                if verbose:
                    shown.say(f"{hook.__name__} >> Stopping the training. {reason}")
                log, verbose = reason.value, False
                # Words would spoil a log of numbers.
                words_between = isinstance(log, str) and hook.__name__ in logs
                if hook.repeatable or words_between:
                    log = None
            if log is not None:
                utils.add_log(logs, hook.__name__, log)
                shown.log(hook.__name__, log, verbose)
        return stopped

    def _call(self, hook: Hook, net: Network) -> tuple[Any, StopIteration | None]:
        """Call a hook; returns its log, and its reason to stop, if it has one."""
        net.before_next_run = functools.partial(self._let_look, net)
        try:
            with rules.deltas_for(hook, net):
                log = hook(
                    epoch_nr=self.current_epoch_nr,
                    update_nr=self.current_update_nr,
                    net=net,
                    stepper=self.stepper,
                    logs=self.logs,
                )
        except StopIteration as reason:
            return None, reason
        return log, None

    def _let_look(self, net: Network) -> None:
        """Let hooks read what the update has left, before others run the network."""
        nr = self.current_update_nr
        if nr > self._looked_at:
            self._looked_at = nr
            net.backpropagation.complete_for_hooks()
            for hook in self._acting.values():
                # At the end of an epoch also those are called that are not due.
                at_end = hook.timescale == "epoch" or hook.repeatable
                if hasattr(hook, "look") and (at_end or rules.is_due(hook, nr)):
                    hook.look(net, nr)

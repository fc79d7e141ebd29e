"""What a trainer has to know about its hooks, and what it gives them and networks."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from brainstorm.describable import of_library
from brainstorm.handlers import default_handler
from brainstorm.structure.network import Network
from brainstorm.structure.turns import Turns
from brainstorm.training.utils import ROLLING
from brainstorm.utils import UnknownNameError, ValidationError, choices

if TYPE_CHECKING:
    from brainstorm.hooks.base_hook import Hook


def is_ours(hook: Any) -> bool:
    """Whether the library defines a hook, so that it is known what it reads."""
    return of_library(type(hook)) and of_library(type(getattr(hook, "schedule", hook)))


def is_due(hook: Hook, count: int) -> bool:
    """Whether a hook is called at this count of epochs or updates."""
    return count % hook.interval == 0


def due_after_update(hooks: Mapping[str, Hook], update_nr: int) -> list[Hook]:
    """The hooks to call after the update of this number."""
    due = (hook for hook in hooks.values() if is_due(hook, update_nr))
    return [hook for hook in due if hook.timescale == "update"]


def due_after_epoch(hooks: Mapping[str, Hook], epoch_nr: int) -> list[Hook]:
    """The hooks to call at the end of the epoch of this number.

    Update hooks that watch logs are among them: the logs of epoch hooks reach them
    while the network is still the one that these describe.
    """
    return [
        hook
        for hook in hooks.values()
        if (hook.timescale == "update" and hook.repeatable)
        or (hook.timescale == "epoch" and is_due(hook, epoch_nr))
    ]


def deltas_for(hook: Hook, net: Network) -> contextlib.AbstractContextManager[None]:
    """While this lasts, a hook gets all deltas that it reads."""
    if is_ours(hook):
        return contextlib.nullcontext()
    return net.backpropagation.computed_when_read()


def _nothing(*args: Any, **kwargs: Any) -> None:
    pass


def complete_hook(hook: Any) -> None:
    """Give a function what the trainer expects of a hook."""
    does_nothing = dict.fromkeys(("reset", "set_state", "start", "stop"), _nothing)
    _complete(
        hook,
        __name__=type(hook).__name__,
        get_state=dict,
        interval=1,
        repeatable=False,
        verbose=None,
        watched_logs=tuple,
        **does_nothing,
    )


def complete_net(net: Any) -> None:
    """Give what stands in for a network, in a test, what the trainer expects of one."""
    if hasattr(net, "lock"):
        return
    backpropagation = SimpleNamespace(
        complete=_nothing,
        computed_when_read=contextlib.nullcontext,
        stop_keeping=_nothing,
    )
    _complete(
        net,
        apply_weight_modifiers=_nothing,
        backpropagation=backpropagation,
        batch_size=1,
        handler=default_handler,
        lock=Turns(),
        start_weight_modifiers=_nothing,
    )


def _complete(instance: Any, **members: Any) -> None:
    for name, value in members.items():
        if not hasattr(instance, name):
            setattr(instance, name, value)


def check_file(hook: Hook, others: Iterable[Hook]) -> None:
    """Check that no two hooks write different things to one file."""
    file = _file_of(hook)
    for other in others:
        same = type(hook) is type(other) and getattr(hook, "saves", "") == "the newest"
        if file is not None and file == _file_of(other) and not same:
            raise ValidationError(
                f"add_hook: {hook.__name__!r} and {other.__name__!r} would write to"
                f" the same file, {file!r}; give one of them another"
            )


def check_watched_logs(
    hooks: Mapping[str, Hook], logs: Mapping[str, Any], scores: Iterable[str]
) -> None:
    """Check as far as it can be known that the logs that hooks read will exist.

    They are among those so far, those of other hooks, and the losses and scores of the
    training batches, which have the names `scores`.
    """
    rolling = [f"{ROLLING}.{name}" for name in scores]
    logging = [name for name, hook in hooks.items() if not hook.repeatable]
    known = [*dict.fromkeys([*logging, *logs, ROLLING])]
    # Other hooks may write into the logs by themselves.
    all_known = all(map(is_ours, hooks.values()))
    for hook in hooks.values():
        for path in hook.watched_logs():
            root = path.partition(".")[0]
            unknown = all_known and root not in known
            if unknown or (root == ROLLING and path not in rolling):
                raise UnknownNameError(
                    f"{hook.__name__} needs the log {path!r}, but nothing logs under"
                    " that name;"
                    f" {choices(path, rolling if root == ROLLING else known)}"
                )


def _file_of(hook: Any) -> str | None:
    """The file that a hook writes, None if there is none."""
    if not getattr(hook, "saves", "") or hook.filename is None:
        return None
    return os.path.realpath(hook.filename)

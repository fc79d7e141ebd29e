"""What a trainer says where others would be silent: what a beginner forgets."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from brainstorm.structure.network import Network
from brainstorm.utils import listing


def advise(net: Network, hooks: Iterable[Any], scorers: Iterable[Any]) -> None:
    """Warn of what is probably not meant, before a network is trained."""
    if not hasattr(net, "initializers"):  # it stands in for a network, in a test
        return
    if is_blank(net):
        warnings.warn(
            "nothing has initialized, loaded or filled this network: all parameters"
            " are where they began, at 0 most of them; call for example"
            " net.initialize(bs.initializers.Gaussian(0.1)) before the training",
            stacklevel=_outside(),
        )
    for name in sorted(_idle_masks(net, hooks, scorers)):
        warnings.warn(
            f"the mask {name!r} is used by no layer, no scorer and no hook, so padding"
            " counts like data: wire it into a Mask or Bidirectional layer, give"
            f" scorers mask_name={name!r}, or leave it out",
            stacklevel=_outside(),
        )


def is_blank(net: Network) -> bool:
    """Whether nobody has initialized, loaded or filled a network's parameters."""
    if net.initializers or not net.buffer.parameters.size:
        return False
    return not np.any(net.get("parameters"))


def _idle_masks(net: Network, hooks: Iterable[Any], scorers: Iterable[Any]) -> set[str]:
    """Inputs with "mask" in their names that lead nowhere and that nobody reads."""
    layer = net.layers["Input"]
    wired = {connection.output_name for connection in layer.outgoing}
    found = {n for n in layer.out_shapes if "mask" in n.lower()} - wired
    readers = [*hooks, *scorers]
    for hook in hooks:
        scorers = getattr(hook, "scorers", ())
        readers += scorers if isinstance(scorers, Iterable) else ()
    return found - {getattr(reader, "mask_name", None) for reader in readers}


def warn_of_loss(net: Network, loss: float, update_nr: int) -> bool:
    """Warn if a loss of the last update is not finite; returns whether it is so.

    Args:
        net: The network, as the update has left it.
        loss: The total loss.
        update_nr: Number of the update.
    """
    if math.isfinite(loss):
        return False
    values = net.get_loss_values().items()
    wrong = [name for name, loss in values if not math.isfinite(loss)]
    layer = _first_broken(net)
    where = f", and layer {layer!r} is the first with such outputs" if layer else ""
    warnings.warn(
        f"update {update_nr}: {listing(wrong)} is not finite{where}. A smaller learning"
        " rate may help; the hook StopOnNan would stop here",
        stacklevel=_outside(),
    )
    return True


def _first_broken(net: Network) -> str | None:
    """The first layer with outputs that are not finite."""
    for name, layer in net.layers.items():
        outputs = net.buffer[name].outputs
        if any(not net.handler.is_fully_finite(outputs[o]) for o in layer.out_shapes):
            return name
    return None


def _outside() -> int:
    """The `stacklevel` of the code that called the library."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals["__name__"].startswith("brainstorm."):
        level, frame = level + 1, frame.f_back
    return level

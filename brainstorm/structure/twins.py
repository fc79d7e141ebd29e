"""Copies of networks to try things out on, of which the original notices nothing."""

from __future__ import annotations

import copy
from typing import Any

from brainstorm.describable import create_from_description, get_description
from brainstorm.handlers.base_handler import Handler
from brainstorm.randomness import RandomState
from brainstorm.structure.buffers import BufferManager
from brainstorm.structure.layer import Layer
from brainstorm.structure.passes import Passes
from brainstorm.utils import NetworkValidationError


def twin_of(net: Any, passes: type[Passes] = Passes) -> Any:
    """A network that does what another one does, for data of the same sizes.

    It has copies of the layers as they are now, memory and a handler of its own. It
    draws no seeds from `global_rnd`, and its random numbers are others. It has the
    parameters, but no data, and no modifiers.
    """
    handler = create_from_description(get_description(net.handler))
    handler.rnd = RandomState(0)
    with net.lock:
        layers = _copies(net.layers, net.handler, handler)
        manager = BufferManager.from_layers(layers, handler)
        manager.resize(net.time_size, net.batch_size)
        parameters = net.handler.get_numpy_copy(net.buffer.parameters)
        handler.set_from_numpy(manager.views.parameters, parameters)
    twin = type(net)(
        layers, manager, net.architecture, seed=0, handler=handler, passes=passes
    )
    twin.backpropagation.wants_all = net.backpropagation.wants_all
    return twin


def _copies(
    layers: dict[str, Layer], handler: Handler, new_handler: Handler
) -> dict[str, Layer]:
    memo = {id(handler): new_handler}
    copies = {}
    for name, layer in layers.items():
        try:
            own = copy.copy(layer)
            for name_ in ("_changed", "arguments"):  # belong to the network
                own.__dict__.pop(name_, None)
            copies[name] = copy.deepcopy(own, memo)
        except Exception as error:
            raise NetworkValidationError(
                f"layer {name!r} can not be copied: {error}"
            ) from error
    return copies

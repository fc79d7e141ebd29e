"""What ranks exchange during an update: gradients, losses and statistics.

The loss of a batch is a mean over its sequences. So the whole batch's loss, gradients
and statistics are the weighted means of those of the ranks' parts, where a part weighs
as many sequences as it has.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from brainstorm.parallel.ranks import Ranks
from brainstorm.parallel.sharing import Piece
from brainstorm.structure.feedback import find_loops
from brainstorm.structure.layer import Layer
from brainstorm.structure.layout import Hub
from brainstorm.structure.network import Network
from brainstorm.structure.trainable import is_trained
from brainstorm.utils import IteratorValidationError

__all__ = ["Bucket", "Exchange", "plan_buckets"]


class Bucket(NamedTuple):
    """A part of the flat gradients that is exchanged in one message.

    Attributes:
        after: Number of layers of the backward pass after which they are complete.
        part: Where they lie.
    """

    after: int
    part: slice


class Exchange:
    """Makes the gradients of a backward pass those of the whole batch.

    Attributes:
        is_active: Whether an update runs, in which all ranks take part.
        piece: What the rank has got of the current batch.

    Args:
        ranks: The ranks.
        net: The network.
        bucket_size: How many bytes of gradients to gather at least, before these
            are sent while the backward pass goes on with other layers.
    """

    def __init__(self, ranks: Ranks, net: Network, bucket_size: int):
        self.is_active: bool = False
        self.piece: Piece = Piece({}, 0, 1, 1)
        self._ranks, self._net = ranks, net
        self._bucket_size = bucket_size
        self._sent: list[_Message] = []
        self._summary: Any = None
        self._request: Any = None
        self._statistics = [
            (name, parameter)
            for name, layer in net.layers.items()
            for parameter in layer.averaged_parameters
        ]

    @property
    def weight(self) -> float:
        """The share of the batch that this rank has."""
        return self.piece.count / self.piece.total

    @contextlib.contextmanager
    def update(self, piece: Piece) -> Iterator[None]:
        """While this lasts, backward passes compute the gradients of the batch."""
        self.piece, self._summary = piece, None
        self.is_active = True
        try:
            yield
        finally:
            self.is_active = False

    # -- gradients -----------------------------------------------------------

    def buckets(self, order: Sequence[str]) -> list[Bucket]:
        """What to send when, in a backward pass of these layers."""
        net = self._net
        numbers = self._bucket_size // np.dtype(net.handler.dtype).itemsize
        return plan_buckets(net.layers, net.parameter_hub, order, numbers)

    def begin(self, gradients: Any) -> None:
        """Begin to exchange a part of the gradients, an array of the handler."""
        self._begin_summary()
        self._ranks.advance([message.request for message in self._sent])
        self._sent.append(self._send(gradients, self.weight))

    def finish(self) -> None:
        """Wait until all gradients are those of the batch."""
        self._receive(self._sent)
        self._sent = []
        self._end_summary()

    def average(self, array: Any) -> None:
        """Replace an array, a mean over the rank's part, by that over the batch."""
        if self.is_active:
            self._receive([self._send(array, self.weight)])

    def average_deltas(self, array: Any) -> None:
        """Likewise for means of deltas, which are those of the loss of the part."""
        if self.is_active:
            self._receive([self._send(array, self.weight**2)])
            scale = 1 / self.weight if self.weight else 0.0
            handler: Any = self._net.handler
            handler.mult_st(scale, array, array)

    def _send(self, array: Any, weight: float) -> _Message:
        handler: Any = self._net.handler
        handler.mult_st(weight, array, array)
        sent = handler.message_of(array, self._ranks.read_devices)
        return _Message(array, sent, self._ranks.start_sum(sent))

    def _receive(self, messages: Sequence[_Message]) -> None:
        self._ranks.wait([message.request for message in messages])
        for array, received, _ in messages:
            if received is not array:
                self._net.handler.set_from_numpy(array, received)

    # -- losses and statistics -----------------------------------------------

    def _begin_summary(self) -> None:
        """Send what there is to know of the batch once a forward pass is done."""
        if self._summary is not None:
            return
        values = [self._net.handler.get_numpy_copy(a) for a in self._arrays()]
        numbers = np.concatenate([np.zeros(0), *map(np.ravel, values)])
        sizes = self.piece.count, self.piece.total
        weighted = np.where(self.weight, numbers, 0.0) * self.weight
        self._summary = np.concatenate([sizes, weighted]).astype(np.float64)
        self._request = self._ranks.start_sum(self._summary)

    def finish_update(self) -> None:
        """Have losses and statistics in the network that are those of the batch."""
        self._end_summary()
        handler, start = self._net.handler, 2
        for array in self._arrays():
            shape = tuple(array.shape)
            stop = start + math.prod(shape)
            values = self._summary[start:stop].reshape(shape)
            handler.set_from_numpy(array, values.astype(handler.dtype))
            start = stop

    def _end_summary(self) -> None:
        self._begin_summary()
        if self._request is None:
            return
        self._ranks.wait([self._request])
        self._request = None
        count, total = self._summary[:2]
        if count != self.piece.total or total != self._ranks.size * count:
            sizes = self._ranks.gather(self.piece.total)
            self._ranks.refuse(
                IteratorValidationError(
                    f"ranks 0 to {self._ranks.size - 1} have batches of {sizes}"
                    " sequences, but data iterators have to be the same on all ranks"
                )
            )

    def _arrays(self) -> list[Any]:
        views = self._net.buffer
        losses = [views[name].outputs.loss for name in self._net.loss_layers]
        return losses + [views[n].parameters[p] for n, p in self._statistics]

    def merged_statistics(self, log: Any, are_deltas: bool) -> Any:
        """Dicts of ``min``, ``avg`` and ``max`` over the batch, from those of parts.

        Deltas are those of the loss of a part; they become those of the batch's.
        """
        parts = [
            part for part in self._ranks.gather((self.piece.count, log)) if part[0]
        ]
        total = sum(count for count, _ in parts)
        scales = [count / total if are_deltas else 1.0 for count, _ in parts]
        return _merged([(*part, s) for part, s in zip(parts, scales, strict=True)])

    # -- states of all sequences ---------------------------------------------

    def gather(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """Arrays (T, b, ...) of all sequences of the batch, from those of each part."""
        if not self.is_active:
            return list(arrays)
        parts = self._ranks.gather([a[:, : self.piece.count] for a in arrays])
        return [
            np.concatenate(of_ranks, axis=1) for of_ranks in zip(*parts, strict=True)
        ]


def _merged(parts: Sequence[tuple[int, Any, float]]) -> Any:
    first = parts[0][1]
    if isinstance(first, Mapping):
        return {n: _merge_one(n, [(c, p[n], s) for c, p, s in parts]) for n in first}
    return first


def _merge_one(name: str, parts: Sequence[tuple[int, Any, float]]) -> Any:
    if isinstance(parts[0][1], Mapping):
        return _merged(parts)
    values = [scale * value for _, value, scale in parts]
    if name == "avg":
        return float(np.average(values, weights=[count for count, *_ in parts]))
    return float((np.min if name == "min" else np.max)(values))


class _Message(NamedTuple):
    array: Any
    sent: Any
    request: Any


def plan_buckets(
    layers: Mapping[str, Layer], hub: Hub, order: Sequence[str], numbers: int
) -> list[Bucket]:
    """Cut the gradients into buckets, in the order in which they become complete.

    Args:
        layers: The layers in canonical order.
        hub: The hub of the parameters, where the gradients lie likewise.
        order: Names of the layers as the backward pass runs them.
        numbers: The least number of gradients in a bucket, but for the last ones.
    """
    done = _numbers_done(layers, order)
    buckets: list[Bucket] = []
    is_full = True
    for path in reversed(hub.sources):
        name, _, parameter = path.split(".")
        if not is_trained(layers, name, parameter):
            continue
        start, stop = hub.slices[path]
        after = done.get(f"{name}.{parameter}", 0)
        if not is_full and buckets[-1].part.start == stop:
            last = buckets.pop()
            after, stop = max(after, last.after), last.part.stop
        buckets.append(Bucket(after, slice(start, stop)))
        is_full = stop - start >= numbers
    return sorted(buckets, key=lambda bucket: bucket.after)


def _numbers_done(layers: Mapping[str, Layer], order: Sequence[str]) -> dict[str, int]:
    """How many layers have run when the gradient of a parameter is complete."""
    numbers = {name: i + 1 for i, name in enumerate(order)}
    for loop in find_loops(layers):  # these run in turns
        last = max((numbers.get(name, 0) for name in loop), default=0)
        numbers.update({name: last for name in loop if name in numbers})
    done: dict[str, int] = {}
    for name, number in numbers.items():
        layer = layers[name]
        for parameter in layer.parameter_shapes:
            owned = layer.shared.get(parameter, f"{name}.{parameter}")
            done[owned] = max(done.get(owned, 0), number)
    return done

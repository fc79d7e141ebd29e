"""Tools that wire blocks of layers."""

from __future__ import annotations

from typing import Any

from brainstorm import layers
from brainstorm.checks import checked_integer
from brainstorm.literals import Activation
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.utils import ValidationError

__all__ = ["residual", "transformer_block"]


def residual(
    start: ConstructionWrapper, *block: ConstructionWrapper, name: str | None = None
) -> ConstructionWrapper:
    """Wire a block of layers around which what goes into it is added to its output.

    He et al., *Deep residual learning for image recognition*, 2016. The block has to
    keep the shape.

    >>> from brainstorm import Network, layers
    >>> inp = layers.Input({'default': ('T', 'B', 8)})
    >>> block = layers.FullyConnected(20), layers.FullyConnected(8, 'linear')
    >>> end = residual(inp, *block)
    >>> list(Network.from_layer(end).layers)
    ['Input', 'FullyConnected_1', 'FullyConnected_2', 'Add']

    Args:
        start: What goes into the block.
        *block: Its layers, in a row.
        name: Name of the `Add` layer at its end.

    Returns:
        The Add layer.

    Raises:
        ValidationError: `start` or the block are no layers, or there are none.
    """
    if not block or not all(
        isinstance(w, ConstructionWrapper) for w in (start, *block)
    ):
        raise ValidationError(
            f"residual: expected layers to start from, and of the block, got {start!r}"
            f" and {list(block)!r}"
        )
    last = start
    for layer in block:
        last = last >> layer
    return join_residual(start, last, name)


def join_residual(
    start: ConstructionWrapper, end: ConstructionWrapper, name: str | None = None
) -> ConstructionWrapper:
    """Add what goes into a block that is wired to what comes out."""
    both = layers.Add(name=name)
    start >> "inputs_1" - both
    end >> "inputs_2" - both
    return both


def transformer_block(
    start: ConstructionWrapper,
    size: int,
    heads: int,
    causal: bool = False,
    *,
    widening: int = 4,
    activation: Activation = "gelu",
    dropout: float = 0.0,
    memory: ConstructionWrapper | None = None,
    mask: ConstructionWrapper | None = None,
    name: str | None = None,
    **attention: Any,
) -> ConstructionWrapper:
    """Wire a block of a transformer, with its norms in front.

    Vaswani et al., *Attention is all you need*, 2017; Radford et al., *Language models
    are unsupervised multitask learners*, 2019. It consists of residual blocks: a
    `LayerNorm` and an `Attention`; with a memory another such pair, which looks at it;
    a LayerNorm and two `FullyConnected` layers.

    >>> from brainstorm import Network, layers
    >>> inp = layers.Input({'default': ('T', 'B', 8)})
    >>> net = Network.from_layer(transformer_block(inp, 8, heads=2, name='A'))
    >>> list(net.layers)
    ['Input', 'A_Norm', 'A_Attention', 'A_Attended', 'A_Norm_2', 'A_Wide',
    'A_Narrow', 'A']

    Args:
        start: What goes into the block: (T, B, size).
        size: Number of features.
        heads: Number of heads, a divisor of the size.
        causal: Whether steps see no later ones.
        widening: How many times `size` the first FullyConnected layer has.
        activation: Its activation function.
        dropout: Probability to drop what attention and the last layer give.
        memory: What else to look at, if anything: (T, B, ...).
        mask: 0 for steps that are not looked at: (T, B, 1). If there is a memory, it is
            that of the memory.
        name: Name of the block, and start of the names of its layers.
        **attention: Further arguments of `Attention`, such as ``rotary=True``.

    Returns:
        The last Add layer.

    Raises:
        ValidationError: An argument does not fit.
        LayerValidationError: A layer refuses it, when the network is made.
    """
    size = checked_integer(size, "transformer_block: size", 1)
    widening = checked_integer(widening, "transformer_block: widening", 1)
    prefix = f"{name or 'Block'}_"

    def attend(x: ConstructionWrapper, kind: str, number: str, **inputs: Any) -> Any:
        layer = layers.Attention(
            *(size, heads, causal and "memory" not in inputs),
            name=f"{prefix}{kind}",
            **({} if "memory" in inputs else attention),
        )
        for input_name, source in inputs.items():
            if source is not None:
                source >> input_name - layer
        norm = layers.LayerNorm(name=f"{prefix}Norm{number}")
        return residual(x, norm, layer, *drop(), name=f"{prefix}Attended{number}")

    def drop() -> list[ConstructionWrapper]:
        return [layers.Dropout(dropout)] if dropout else []

    number, given = "_2", {} if memory is not None else {"mask": mask}
    x = attend(start, "Attention", "", **given)
    if memory is not None:
        x, number = attend(x, "Memory", "_2", memory=memory, mask=mask), "_3"
    return residual(
        x,
        layers.LayerNorm(name=f"{prefix}Norm{number}"),
        layers.FullyConnected(widening * size, activation, name=f"{prefix}Wide"),
        layers.FullyConnected(size, "linear", name=f"{prefix}Narrow"),
        *drop(),
        name=name or "Block",
    )

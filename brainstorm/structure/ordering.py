"""Orders in which given sets of items stand together, each as one block.

A tree holds all of them at once (Booth and Lueker, *Testing for the consecutive ones
property, interval graphs, and graph planarity using PQ-tree algorithms*, 1976). A node
stands for its items side by side: the children of a P node may come in any order, those
of a Q node in the one they have or in its reverse. Nothing here calls itself, because
trees may be deep.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

Items = frozenset[str]


@dataclass(eq=False)
class _Node:
    """A P node, a Q node, or a leaf, which has one item and no children."""

    items: Items
    children: list[_Node] = field(default_factory=list)
    is_q: bool = False
    first: int = 0  # the least place of an item that can stand at its beginning


class _NoOrderError(Exception):
    """The blocks contradict each other."""


def order_with_blocks(
    items: Sequence[str], blocks: Iterable[Iterable[str]]
) -> list[str] | None:
    """The first order in which the members of each block stand together, if any.

    That is the one with the least item in front, as they are sorted here, then the
    least item behind it, and so on. All items are different. The time it takes grows
    with the number of items times that of blocks.
    """
    if not items:
        return []
    root = _join([_Node(frozenset([item])) for item in items])[0]
    try:
        for block in blocks:
            _restrict(root, frozenset(block))
    except _NoOrderError:
        return None
    return _first_order(root, {item: place for place, item in enumerate(items)})


def _join(nodes: list[_Node], is_q: bool = False) -> list[_Node]:
    """One node of several, in a list; one alone stays what it is."""
    if len(nodes) < 2:
        return nodes
    return [_Node(frozenset().union(*(n.items for n in nodes)), nodes, is_q)]


def _kind(node: _Node, block: Items) -> int:
    """Whether none, some or all of a node's items are in a block: 0, 1 or 2."""
    if block.isdisjoint(node.items):
        return 0
    return 2 if node.items <= block else 1


def _restrict(node: _Node, block: Items) -> None:
    """Leave only the orders in which a block stands together."""
    while True:
        groups: tuple[list[_Node], list[_Node], list[_Node]] = ([], [], [])
        empty, partial, full = groups
        for child in node.children:
            groups[_kind(child, block)].append(child)
        if len(partial) != 1 or full:
            break
        node = partial[0]
    if len(partial) > 2:
        raise _NoOrderError
    if len(partial) + len(full) < 2:
        return
    if node.is_q:
        _restrict_q_node(node, block, len(partial) + len(full))
        return
    together = _join(full)
    if partial:
        together = _full_last(partial[0], block) + together
    if len(partial) > 1:
        together += reversed(_full_last(partial[1], block))
    if empty:
        node.children = empty + _join(together, is_q=bool(partial))
    elif partial:
        node.children, node.is_q = together, True


def _restrict_q_node(node: _Node, block: Items, size: int) -> None:
    """The same for a Q node, `size` of whose children have items of it: two or more."""
    kinds = [_kind(child, block) for child in node.children]
    start = next(i for i, kind in enumerate(kinds) if kind)
    stop = start + size
    if 0 in kinds[start:stop] or 1 in kinds[start + 1 : stop - 1]:
        raise _NoOrderError
    node.children[start:stop] = [
        *_full_last(node.children[start], block),
        *node.children[start + 1 : stop - 1],
        *reversed(_full_last(node.children[stop - 1], block)),
    ]


def _full_last(node: _Node, block: Items) -> list[_Node]:
    """The parts of a node, first those without items of a block, then those of it."""
    if _kind(node, block) != 1:
        return [node]
    left: list[_Node] = []
    right: list[_Node] = []  # from the end
    while True:
        groups: tuple[list[_Node], list[_Node], list[_Node]] = ([], [], [])
        empty, partial, full = groups
        kinds = [_kind(child, block) for child in node.children]
        if node.is_q and kinds[0] > kinds[-1]:
            kinds.reverse()
            node.children.reverse()
        for child, kind in zip(node.children, kinds, strict=True):
            groups[kind].append(child)
        if len(partial) > 1 or (node.is_q and kinds != sorted(kinds)):
            raise _NoOrderError
        left += empty if node.is_q else _join(empty)
        right += reversed(full if node.is_q else _join(full))
        if not partial:
            return left + right[::-1]
        node = partial[0]


def _first_order(root: _Node, places: Mapping[str, int]) -> list[str]:
    """The first of the orders that a tree holds."""
    nodes = [root]
    for node in nodes:  # parents before their children
        nodes += node.children
    for node in reversed(nodes):
        if not node.children:
            (item,) = node.items
            node.first = places[item]
            continue
        if not node.is_q:
            node.children.sort(key=lambda child: child.first)
        elif node.children[0].first > node.children[-1].first:
            node.children.reverse()
        node.first = node.children[0].first
    order: list[str] = []
    pending = [root]
    while pending:
        node = pending.pop()
        pending += reversed(node.children)
        order += [] if node.children else node.items
    return order

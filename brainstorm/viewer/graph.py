"""Places the layers of a network for a drawing: in ranks, from top to bottom.

The rank of a layer is the longest way from the Input to it. Within the ranks, layers
are put near those that they are connected to (Sugiyama, Tagawa and Toda, *Methods for
visual understanding of hierarchical system structures*, 1981). Connections that skip
ranks go through places of their own, so that they go around other layers.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from brainstorm.layers.input_layer import InputLayerImpl
from brainstorm.structure.construction import layer_type_name
from brainstorm.structure.feedback import fed_back_output
from brainstorm.structure.layer import Layer
from brainstorm.structure.network_info import describe_shapes

# Pixels of a letter of names, and of the smaller ones below them.
LETTER, SMALL_LETTER = 7.6, 6.4
WIDEST, NARROWEST, THREAD = 236, 96, 12
BOX_HEIGHT, RANK_GAP, GAP, MARGIN = 46, 44, 26, 14
SWEEPS = 8
# Longer detours than this are drawn straight: each place takes time.
MOST_PLACES = 4000


class Place(NamedTuple):
    """A layer, or where a connection passes a rank."""

    layer: str
    connection: int = -1
    rank: int = 0


def lay_out(layers: Mapping[str, Layer]) -> dict[str, Any]:
    """Boxes and connections of a drawing, in pixels.

    Args:
        layers: Layers by name, in canonical order.

    Returns:
        ``width``, ``height``, ``nodes`` (with the center ``x`` and the top ``y``, the
        ``width`` and ``height`` of each) and ``edges`` (with the ``points`` that they
        go through, and ``feedback``, whether they are those of a later step).
    """
    forward, feedback = _edges(layers)
    ranks = _ranks(layers, forward)
    ways = _ways(ranks, forward)
    rows = _rows(ranks, ways)
    neighbours = _neighbours(ways)
    _sort_rows(rows, neighbours)
    nodes = {name: _node(layer) for name, layer in layers.items()}
    widths = {
        place: nodes[place.layer]["width"] if place.connection < 0 else THREAD
        for row in rows
        for place in row
    }
    centers = _centers(rows, neighbours, widths)
    _straighten(ways, rows, widths, centers)
    left = min(x - widths[p] / 2 for p, x in centers.items()) - MARGIN
    right = max(x + widths[p] / 2 for p, x in centers.items()) + MARGIN
    for name, node in nodes.items():
        node["x"] = round(centers[Place(name, rank=ranks[name])] - left, 1)
        node["y"] = MARGIN + ranks[name] * (BOX_HEIGHT + RANK_GAP)
    edges = []
    for (start, end), way in zip(forward, ways, strict=True):
        points = [[nodes[start]["x"], nodes[start]["y"] + BOX_HEIGHT]]
        for place in way[1:-1]:
            top = MARGIN + place.rank * (BOX_HEIGHT + RANK_GAP)
            x = round(centers[place] - left, 1)
            points += [[x, top], [x, top + BOX_HEIGHT]]
        points.append([nodes[end]["x"], nodes[end]["y"]])
        edges.append(_edge(start, end, forward[start, end], points, False))
    for (start, end), labels in feedback.items():
        points = [
            [nodes[n]["x"] + nodes[n]["width"] / 2, nodes[n]["y"] + BOX_HEIGHT / 2]
            for n in (start, end)
        ]
        edges.append(_edge(start, end, labels, points, True))
    longest = max((len(" ".join(ls)) for ls in feedback.values()), default=0)
    return {
        "width": round(right - left + (50 + LETTER * longest if feedback else 0)),
        "height": 2 * MARGIN + len(rows) * (BOX_HEIGHT + RANK_GAP) - RANK_GAP,
        "nodes": list(nodes.values()),
        "edges": edges,
    }


def connection_label(output_name: str, input_name: str) -> str:
    """What a connection connects, where that is not the default."""
    if input_name in ("default", output_name):
        return "" if output_name == "default" else output_name
    if output_name == "default":
        return f"to {input_name}"
    return f"{output_name} to {input_name}"


# -- what is to be drawn ---------------------------------------------------------

Edges = dict[tuple[str, str], list[str]]


def _edges(layers: Mapping[str, Layer]) -> tuple[Edges, Edges]:
    """The labels of what connects two layers, and of what is fed back."""
    forward: Edges = {}
    feedback: Edges = {}
    for layer in layers.values():
        for c in layer.outgoing:
            fed_back = fed_back_output(c)
            edges = forward if fed_back is None else feedback
            label = connection_label(fed_back or c.output_name, c.input_name)
            labels = edges.setdefault((c.start_layer, c.end_layer), [])
            labels += [label] if label else []
    return forward, feedback


def _node(layer: Layer) -> dict[str, Any]:
    kind = "layer"
    if isinstance(layer, InputLayerImpl):
        kind = "input"
    elif layer.is_loss:
        kind = "loss"
    elif layer.parameter_shapes:
        kind = "learns"
    title = layer_type_name(type(layer))
    sizes = describe_shapes(layer.out_shapes).replace("\n", ", ")
    text = sizes if title == layer.name else f"{title}  {sizes}"
    letters = max(LETTER * len(layer.name), SMALL_LETTER * len(text))
    return {
        "name": layer.name,
        "type": title,
        "sizes": sizes,
        "kind": kind,
        "width": round(min(WIDEST, max(NARROWEST, 26 + letters))),
        "height": BOX_HEIGHT,
    }


def _edge(
    start: str, end: str, labels: list[str], points: list[list[float]], feedback: bool
) -> dict[str, Any]:
    return {
        "start": start,
        "end": end,
        "label": ", ".join(labels),
        "points": points,
        "feedback": feedback,
    }


# -- where it is to be drawn -----------------------------------------------------


def _ranks(layers: Mapping[str, Layer], edges: Edges) -> dict[str, int]:
    before: dict[str, list[str]] = {name: [] for name in layers}
    for start, end in edges:
        before[end].append(start)
    ranks: dict[str, int] = {}
    for name in layers:  # in topological order
        ranks[name] = 1 + max((ranks[n] for n in before[name]), default=-1)
    return ranks


def _ways(ranks: Mapping[str, int], edges: Edges) -> list[list[Place]]:
    """The places that each connection goes through, with those of its layers."""
    left = MOST_PLACES
    ways = []
    for i, (start, end) in enumerate(edges):
        between = range(ranks[start] + 1, ranks[end])
        left -= len(between)
        places = [Place(start, i, rank) for rank in between if left >= 0]
        ends = (Place(name, rank=ranks[name]) for name in (start, end))
        ways.append([next(ends), *places, next(ends)])
    return ways


def _rows(ranks: Mapping[str, int], ways: list[list[Place]]) -> list[list[Place]]:
    rows: list[list[Place]] = [[] for _ in range(1 + max(ranks.values()))]
    for name, rank in ranks.items():
        rows[rank].append(Place(name, rank=rank))
    for way in ways:
        for place in way[1:-1]:
            rows[place.rank].append(place)
    return rows


Neighbours = dict[Place, tuple[list[Place], list[Place]]]


def _neighbours(ways: list[list[Place]]) -> Neighbours:
    """Those above and those below each place."""
    neighbours: Neighbours = {}
    for way in ways:
        for upper, lower in itertools.pairwise(way):
            neighbours.setdefault(upper, ([], []))[1].append(lower)
            neighbours.setdefault(lower, ([], []))[0].append(upper)
    return neighbours


def _sort_rows(rows: list[list[Place]], neighbours: Neighbours) -> None:
    """Bring what is connected near to each other."""
    position = {place: float(i) for row in rows for i, place in enumerate(row)}
    for sweep in range(SWEEPS):
        side = sweep % 2
        for row in rows[:: -1 if side else 1]:
            wanted = {}
            for place in row:
                others = neighbours.get(place, ([], []))[side]
                wanted[place] = (
                    sum(position[other] for other in others) / len(others)
                    if others
                    else position[place]
                )
            row.sort(key=wanted.__getitem__)
            position.update((place, float(i)) for i, place in enumerate(row))


def _centers(
    rows: list[list[Place]], neighbours: Neighbours, widths: Mapping[Place, float]
) -> dict[Place, float]:
    """Horizontal centers: near those of the neighbours, but apart from each other."""
    centers: dict[Place, float] = {}
    for row in rows:
        at = 0.0
        whole = sum(widths[p] + GAP for p in row) - GAP
        for place in row:
            centers[place] = at + widths[place] / 2 - whole / 2
            at += widths[place] + GAP
    for sweep in range(2 * SWEEPS):
        side = sweep % 2
        for row in rows[:: -1 if side else 1]:
            wanted = []
            for place in row:
                above, below = neighbours.get(place, ([], []))
                others = (above, below)[side] or [place]
                wanted.append(sum(centers[other] for other in others) / len(others))
            _spread(row, wanted, widths, centers)
    return centers


def _spread(
    row: list[Place],
    wanted: list[float],
    widths: Mapping[Place, float],
    centers: dict[Place, float],
) -> None:
    """Place a row as it is wanted, in its order and without overlaps.

    What would overlap forms a block, which lies where its members want it on average.
    """
    offsets, at = [], 0.0
    for i, place in enumerate(row):
        at += (widths[row[i - 1]] + widths[place]) / 2 + GAP if i else 0.0
        offsets.append(at)
    blocks: list[list[float]] = []  # sum of what is wanted, number
    for want, offset in zip(wanted, offsets, strict=True):
        blocks.append([want - offset, 1.0])
        while len(blocks) > 1 and _mean(blocks[-2]) > _mean(blocks[-1]):
            total, number = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += number
    starts = [_mean(block) for block in blocks for _ in range(int(block[1]))]
    for place, start, offset in zip(row, starts, offsets, strict=True):
        centers[place] = start + offset


def _straighten(
    ways: list[list[Place]],
    rows: list[list[Place]],
    widths: Mapping[Place, float],
    centers: dict[Place, float],
) -> None:
    """Have connections go straight down where there is room.

    Those that skip ranks, and those between layers that have no other neighbours there.
    """
    beside: dict[Place, tuple[Place | None, Place | None]] = {}
    for row in rows:
        for before, place, after in zip(
            [None, *row], row, [*row[1:], None], strict=False
        ):
            beside[place] = before, after

    def has_room(place: Place, x: float) -> bool:
        before, after = beside[place]
        half = widths[place] / 2 + GAP / 2
        return (
            before is None or centers[before] + widths[before] / 2 <= x - half
        ) and (after is None or centers[after] - widths[after] / 2 >= x + half)

    starts = Counter(way[0] for way in ways)
    ends = Counter(way[-1] for way in ways)
    for start, *places, end in sorted(ways, key=lambda way: way[0].rank):
        alone = not places and starts[start] == ends[end] == 1
        if alone and has_room(end, centers[start]):
            centers[end] = centers[start]
        for x in sorted({centers[place] for place in places}, key=abs, reverse=True):
            if all(has_room(place, x) for place in places):
                centers.update(dict.fromkeys(places, x))
                break


def _mean(block: list[float]) -> float:
    return block[0] / block[1]

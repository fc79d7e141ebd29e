"""Draw the memory of a small network: writes pictures/layout.svg beside this file.

Run it when the layout of networks has changed, and look at the picture.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

import brainstorm as bs
from brainstorm.structure.layout import Hub, create_layout

UNIT = 40  # width of a feature in pixels
HEIGHT = 24
LEFT = 16
WIDTH = 760
SOURCE, SINK = "#cfe2f3", "#fde9c9"


def network() -> bs.Network:
    """Two layers whose outputs go side by side into a third; one has a reader more."""
    inp, out = bs.tools.get_in_out_layers("classification", 4, 3)
    a = bs.layers.FullyConnected(5, activation="linear", name="A")
    b = bs.layers.FullyConnected(4, activation="linear", name="B")
    inp >> a >> out
    inp >> b >> out
    b >> bs.layers.L2Decay(name="C") - "loss" >> bs.layers.Loss(name="LossC")
    return bs.Network.from_layer(out)


def box(x: float, y: float, width: float, color: str, text: str) -> str:
    """A labeled rectangle; a narrow one gets the last part of the label alone."""
    if len(text) * 6 > width:
        text = text.rpartition(".")[2]
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{HEIGHT}" fill="{color}"'
        f' stroke="#555" rx="3"/><text x="{x + width / 2}" y="{y + 16}"'
        f' text-anchor="middle">{escape(text)}</text>'
    )


def draw_hub(hub: Hub, title: str, top: int) -> tuple[list[str], int]:
    """A hub's sources above, its sinks below; returns the parts and where it ends."""
    parts = [f'<text x="{LEFT}" y="{top + 14}" font-weight="bold">{title}</text>']
    y = top + 22
    scale = min(UNIT, (WIDTH - 2 * LEFT) / hub.size)
    for path in hub.sources:
        start, stop = hub.slices[path]
        parts.append(box(LEFT + start * scale, y, (stop - start) * scale, SOURCE, path))
    for path in hub.sinks:
        y += HEIGHT + 4
        start, stop = hub.slices[path]
        parts.append(box(LEFT + start * scale, y, (stop - start) * scale, SINK, path))
    return parts, y + HEIGHT + 18


def main() -> None:
    """Write the picture."""
    hubs, _ = create_layout(network().layers)
    parameters = hubs[0]
    joined = next(hub for hub in hubs if "A.outputs.default" in hub.sources)
    deltas = next(hub for hub in hubs if "A.output_deltas.default" in hub.sources)
    parts, y = [], 10
    for hub, title in (
        (joined, f"hub of type 2, (T, B, {joined.size}): forward"),
        (deltas, f"hub of type 2, (T, B, {deltas.size}): backward only"),
        (parameters, f"hub of type 0, ({parameters.size},): all parameters"),
    ):
        drawn, y = draw_hub(hub, title, y)
        parts += drawn
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}"'
        f' width="{WIDTH}" height="{y}" font-family="Helvetica, Arial, sans-serif"'
        ' font-size="11">\n' + "\n".join(parts) + "\n</svg>\n"
    )
    (Path(__file__).parent / "pictures" / "layout.svg").write_text(svg)


if __name__ == "__main__":
    main()

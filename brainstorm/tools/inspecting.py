"""Tools that show what a network consists of."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from brainstorm.files import atomic_path, check_start, checked_name
from brainstorm.layers.input_layer import InputLayerImpl
from brainstorm.structure.architecture import Connection
from brainstorm.structure.construction import layer_type_name
from brainstorm.structure.feedback import fed_back_output
from brainstorm.structure.network import Network
from brainstorm.structure.network_info import describe_shapes, get_network_info
from brainstorm.utils import ValidationError, import_extra, listing

__all__ = ["draw_network", "get_network_info", "print_network_info"]

# Endings, and what such files begin with.
FORMATS = {"png": rb"\x89PNG", "svg": rb"<(\?xml|!DOCTYPE svg|svg)", "pdf": rb"%PDF"}


def print_network_info(
    network: Network, time_size: int | None = None, batch_size: int | None = None
) -> None:
    """Print detailed information about a network.

    For each layer: the shapes of its inputs, outputs and parameters, the number of
    its parameters and its memory. See `get_network_info`, which returns the text.

    Args:
        network: The network.
        time_size: Number of time steps. Default: that of the network's data.
        batch_size: Number of sequences. Default: that of the network's data.

    Raises:
        ValidationError: A size is not positive.
    """
    print(get_network_info(network, time_size, batch_size))


def draw_network(
    network: Network, file_name: str | os.PathLike[str] = "network.png"
) -> Drawing:
    """Write a diagram of a network to a file.

    Each layer is a box with its name, its type and the sizes of its outputs. Arrows
    are the connections; what they connect is named where it is not the default. Those
    of feedback, which is given one step later, are dashed.

    Needs `pygraphviz <https://pygraphviz.github.io>`_.

    Args:
        network: The network.
        file_name: Name of the file; its folder has to exist. The ending ``.png``,
            ``.svg`` or ``.pdf`` decides on the format.

    Returns:
        The drawing, which notebooks show.

    Raises:
        ImportError: pygraphviz is not installed.
        ValidationError: The file name has another ending.
        FileFormatError: There is a file of another kind already.
        FileNotFoundError: The folder does not exist.
    """
    pygraphviz = import_extra("pygraphviz", "draw_network", "draw-net")
    file_format = picture_format(file_name)
    graph = pygraphviz.AGraph(directed=True, strict=False)
    graph.node_attr.update(shape="box", style="rounded,filled", fontname="Helvetica")
    graph.edge_attr.update(fontname="Helvetica", fontsize="10")
    for name, layer in network.layers.items():
        # What learns, what enters and what is minimized stand out.
        color = "#cfe2f3" if layer.parameter_shapes else "#f3f3f3"
        if layer.is_loss or isinstance(layer, InputLayerImpl):
            color = "#fde9c9"
        titles = dict.fromkeys([name, layer_type_name(type(layer))])
        label = "\n".join([*titles, describe_shapes(layer.out_shapes)])
        graph.add_node(name, label=label, fillcolor=color)
    for layer in network.layers.values():
        for c in layer.outgoing:
            fed_back = fed_back_output(c)
            label = _edge_label(c._replace(output_name=fed_back or c.output_name))
            style = {"style": "dashed"} if fed_back else {}
            graph.add_edge(c.start_layer, c.end_layer, label=label, **style)
    with atomic_path(file_name) as temporary:
        temporary.write_bytes(graph.draw(format=file_format, prog="dot"))
    return Drawing(graph.draw(format="svg", prog="dot").decode(), os.fspath(file_name))


class Drawing(NamedTuple):
    """A diagram that notebooks show.

    Attributes:
        svg: It as text.
        file_name: Where it has been written to.
    """

    svg: str
    file_name: str

    def __repr__(self) -> str:
        return f"<Drawing in {self.file_name!r}>"

    def _repr_svg_(self) -> str:
        return self.svg


def picture_format(
    file_name: str | os.PathLike[str], argument: str = "file_name"
) -> str:
    """The format of a picture that may be written, which its ending says."""
    file_format = Path(checked_name(file_name)).suffix[1:].lower()
    if file_format not in FORMATS:
        endings = listing(f".{name}" for name in FORMATS)
        raise ValidationError(
            f"{argument}: {os.fspath(file_name)!r} has to end in one of {endings}"
        )
    check_start(file_name, FORMATS[file_format], f"{file_format} file")
    return file_format


def _edge_label(c: Connection) -> str:
    """What is not the default; the space keeps it off the arrow."""
    if c.input_name in ("default", c.output_name):
        return "" if c.output_name == "default" else f" {c.output_name}"
    if c.output_name == "default":
        return f" to {c.input_name}"
    return f" {c.output_name} to {c.input_name}"

import re
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest

import brainstorm as bs
from brainstorm import layers
from brainstorm.handlers import NumpyHandler
from brainstorm.structure.network_info import network_info_html
from brainstorm.tools import (
    create_net_from_spec,
    draw_network,
    get_network_info,
    print_network_info,
)
from brainstorm.utils import FileFormatError, ValidationError


def small_net():
    return create_net_from_spec("classification", (4, 2), 3, "F5")


def net_with_all_types():
    """One input with time, one without, and one constant loss each."""
    inp = layers.Input({"default": ("T", "B", 3), "static": ("B", 5)})
    inp >> layers.FullyConnected(4, "linear", name="Fc") >> layers.Loss(name="A")
    inp - "static" >> layers.Loss(name="B")
    return bs.Network.from_layer(inp)


def cells(line):
    return re.split(r"\s{2,}", line.strip())


def row(text, name):
    return next(cells(li) for li in text.splitlines() if li.split()[:1] == [name])


# -- the tables --------------------------------------------------------------


def test_text_is_as_expected():
    assert get_network_info(small_net(), 2, 10) == (
        """\
Layer              Type            Inputs     Outputs        Parameters  Number   Memory   in use
-----------------  --------------  ---------  -------------  ----------  ------  -------  -------
Input              Input                      4 x 2                           0  1.44 kB    720 B
                                              targets 1
FullyConnected     FullyConnected  4 x 2      5              W 5 x 8         45  1.96 kB    980 B
                                                             bias 5
Output_projection  FullyConnected  5          3              W 3 x 5         18    624 B    312 B
                                                             bias 3
Output             SoftmaxCE       3          predictions 3                   0    880 B    320 B
                                   targets 1  loss 1
Loss               Loss            1          loss 1 in all                   0      8 B      4 B
-----------------  --------------  ---------  -------------  ----------  ------  -------  -------
All                                                                          63  4.91 kB  2.34 kB

Shapes are those of one time step of one sequence, if nothing else is said.
Memory is that of a training with 2 time steps of 10 sequences in float32:

Buffers              constant  per sequence  per time step      all
-------------------  --------  ------------  -------------  -------
parameters              252 B                                 252 B
outputs                   4 B                      1.68 kB  1.68 kB
internals                                            400 B    400 B
gradients               252 B                                 252 B
deltas                    4 B                      1.68 kB  1.68 kB
internals, backward                                  640 B    640 B
-------------------  --------  ------------  -------------  -------
All                     512 B                       4.4 kB  4.91 kB"""  # noqa: E501
    )


@pytest.mark.parametrize("spec", ["F5", "R4 L3", "B F5"])
@pytest.mark.parametrize("T", [1, 3])
def test_memory_is_what_a_network_allocates(spec, T):
    net = create_net_from_spec("regression", 3, 2, spec)
    net.set_handler(NumpyHandler(np.float64))
    B = 1000  # so that three digits are enough
    d = {"default": np.ones((T, B, 3)), "targets": np.ones((T, B, 2))}
    net.provide_external_data(d)
    net.forward_pass()
    net.backward_pass()
    allocated = sum(hub.nbytes for hub in net._buffer_manager.hub_buffers)
    text = get_network_info(net)
    assert f"{T} time step" in text
    assert "1000 sequences in float64" in text
    value, unit = cells(text.splitlines()[-1])[-1].split()
    found = float(value) * {"B": 1, "kB": 1e3, "MB": 1e6}[unit]
    assert found == pytest.approx(allocated, rel=5e-3)


def test_buffers_of_all_types():
    text = get_network_info(net_with_all_types(), 10, 2)
    layers_text, _, memory_text = text.split("\n\n")
    assert row(layers_text, "B") == [
        "B",
        "Loss",
        "5 per sequence",
        "loss 1 in all",
        "0",
        "8 B",
        "4 B",
    ]
    assert "static 5 per sequence" in layers_text
    # Bytes of: two losses; static; default and the output of Fc.
    assert row(memory_text, "outputs") == ["outputs", "8 B", "40 B", "560 B", "608 B"]
    assert row(memory_text, "parameters") == ["parameters", "64 B", "64 B"]


def test_large_memory_has_a_large_unit():
    text = get_network_info(small_net(), 1000, 10**9)
    assert cells(text.splitlines()[-1])[-1] == "220 TB"
    text = get_network_info(small_net(), 1, 10**6)
    assert cells(text.splitlines()[-1])[-1] == "220 MB"


def test_printing(capsys):
    net = small_net()
    print_network_info(net)
    assert capsys.readouterr().out == get_network_info(net, 1, 1) + "\n"
    print_network_info(net, 2, 3)
    assert capsys.readouterr().out == get_network_info(net, 2, 3) + "\n"


@pytest.mark.parametrize("sizes", [(0, 1), (1, -1), (1.5, 1), (1, "1")])
def test_sizes_are_positive_integers(sizes):
    with pytest.raises(ValidationError, match="time_size|batch_size has to be a whole"):
        get_network_info(small_net(), *sizes)


def test_html_has_the_cells_of_the_text():
    net = small_net()
    root = ET.fromstring(f"<div>{network_info_html(net)}</div>".replace("<br>", " "))
    text = get_network_info(net)
    words = " ".join("".join(root.itertext()).split())
    found = [" ".join(t.itertext()) for t in root.iter("td")]
    assert "FullyConnected" in found
    assert "W 5 x 8 bias 5" in found
    assert "predictions 3 loss 1" in found
    assert len(root.findall("table")) == 2
    for word in text.split():
        assert set(word) == {"-"} or word in words


# -- drawing -----------------------------------------------------------------


def texts_of_svg(path):
    """The texts in each node and at each edge of a drawing."""
    svg = "{http://www.w3.org/2000/svg}"
    nodes, edges = {}, []
    for group in ET.parse(path).iter(f"{svg}g"):
        texts = [text.text.strip() for text in group.iter(f"{svg}text")]
        if group.get("class") == "node":
            nodes[group.find(f"{svg}title").text] = texts
        elif group.get("class") == "edge":
            edges.append((group.find(f"{svg}title").text, *texts))
    return nodes, sorted(edges)


def test_drawing_shows_layers_and_connections(tmp_path):
    pytest.importorskip("pygraphviz")
    inp = layers.Input({"default": ("T", "B", 4, 2), "targets": ("T", "B", 4, 2)})
    highway = layers.Highway()
    inp >> layers.FullyConnected((4, 2), name="H") >> "H" - highway
    inp >> "x" - highway
    inp >> "T" - highway
    out = layers.SquaredError(name="Out")
    highway >> out
    inp - "targets" >> "targets" - out - "loss" >> layers.Loss()
    draw_network(bs.Network.from_layer(inp), tmp_path / "net.svg")
    nodes, edges = texts_of_svg(tmp_path / "net.svg")
    assert nodes == {
        "Input": ["Input", "4 x 2", "targets 4 x 2"],
        "H": ["H", "FullyConnected", "4 x 2"],
        "Highway": ["Highway", "4 x 2"],
        "Out": ["Out", "SquaredError", "predictions 4 x 2", "loss 4 x 2"],
        "Loss": ["Loss", "loss 1 in all"],
    }
    assert edges == [
        ("H->Highway", "to H"),
        ("Highway->Out",),
        ("Input->H",),
        ("Input->Highway", "to T"),
        ("Input->Highway", "to x"),
        ("Input->Out", "targets"),
        ("Out->Loss", "loss"),
    ]


def test_output_and_input_with_different_names(tmp_path):
    pytest.importorskip("pygraphviz")
    inp = layers.Input({"a": ("T", "B", 2), "b": ("T", "B", 2)})
    merge = layers.Merge()
    inp - "a" >> "inputs_1" - merge
    inp - "b" >> "inputs_2" - merge
    merge >> layers.Loss()
    draw_network(bs.Network.from_layer(inp), tmp_path / "net.svg")
    edges = texts_of_svg(tmp_path / "net.svg")[1]
    assert edges == [
        ("Input->Merge", "a to inputs_1"),
        ("Input->Merge", "b to inputs_2"),
        ("Merge->Loss",),
    ]


@pytest.mark.parametrize(
    ("name", "start"),
    [("a.png", b"\x89PNG"), ("a.PDF", b"%PDF"), ("a.b.svg", b"<?xml")],
)
def test_format_is_that_of_the_ending(tmp_path, name, start):
    pytest.importorskip("pygraphviz")
    draw_network(small_net(), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)
    assert [f.name for f in tmp_path.iterdir()] == [name]


def test_default_file_name(tmp_path, monkeypatch):
    pytest.importorskip("pygraphviz")
    monkeypatch.chdir(tmp_path)
    draw_network(small_net())
    assert [f.name for f in tmp_path.iterdir()] == ["network.png"]


@pytest.mark.parametrize("name", ["net", "net.jpg", ".png"])
def test_unknown_endings(tmp_path, name):
    pytest.importorskip("pygraphviz")
    with pytest.raises(ValidationError, match=r"file_name: .*'.png', '.svg', '.pdf'"):
        draw_network(small_net(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_drawing_replaces_no_files_of_other_kinds(tmp_path):
    pytest.importorskip("pygraphviz")
    file = tmp_path / "net.png"
    file.write_text("some text")
    with pytest.raises(FileFormatError, match="no png file"):
        draw_network(small_net(), file)
    assert file.read_text() == "some text"
    file.unlink()
    for kind in ("png", "svg", "pdf"):
        for _ in range(2):
            draw_network(small_net(), file.with_suffix(f".{kind}"))
    with pytest.raises(ValidationError, match="the name of a file, got None"):
        draw_network(small_net(), None)


def test_drawing_needs_an_existing_folder(tmp_path):
    pytest.importorskip("pygraphviz")
    with pytest.raises(FileNotFoundError, match="no folder"):
        draw_network(small_net(), tmp_path / "no" / "net.png")


def test_without_pygraphviz(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygraphviz", None)
    with pytest.raises(ImportError, match=r"pip install .*\[draw-net\]"):
        draw_network(small_net())

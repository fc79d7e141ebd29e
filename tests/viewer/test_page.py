import html
import json
import re
import webbrowser
from pathlib import Path

import pytest

import brainstorm as bs
from brainstorm.utils import FileFormatError, MissingFileError, NotAFileError
from brainstorm.viewer.page import HERE, SCRIPTS, STYLE, TEMPLATE, NetworkPage, render

HOSTILE = "</script><script>document.title='gone'</script><!-- & \u2028 {{data}} \""


@pytest.fixture
def page():
    net = bs.tools.create_net_from_spec("classification", 4, 3, "F5")
    return bs.tools.view(net, title="mine")


def embedded(text):
    (data,) = re.findall(
        r'<script type="application/json" id="data">(.*?)</script', text
    )
    return json.loads(data)


def test_the_page_has_the_snapshot(page):
    assert embedded(page.html) == page.snapshot
    assert "<title>mine</title>" in page.html
    assert repr(page) == "<NetworkPage of 'mine'>"


def test_the_page_loads_nothing(page):
    text = re.sub(r'id="data">.*?</script', "", page.html, flags=re.DOTALL)
    text = text.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|//\w|@import|url\((?!#)|<link|\bsrc=", text)
    assert "default-src 'none'" in text


def test_parts_lie_in_the_package():
    names = {path.name for path in HERE.iterdir() if path.suffix not in (".py", ".pyc")}
    assert names - {"__pycache__"} == {TEMPLATE, STYLE, *SCRIPTS}


def hostile(value):
    """The same with hostile names everywhere."""
    if isinstance(value, dict):
        return {key: hostile(item) for key, item in value.items()}
    if isinstance(value, list):
        return [hostile(item) for item in value]
    return value.replace("FullyConnected", HOSTILE) if isinstance(value, str) else value


def test_texts_can_not_break_out(page):
    snapshot = {**hostile(page.snapshot), "title": HOSTILE}
    text = render(snapshot)
    assert embedded(text) == snapshot
    assert text.count("<script") == text.count("</script") == 2
    assert f"<title>{html.escape(HOSTILE)}</title>" in text
    assert "<!--" not in text


def test_notebooks_get_a_frame(page):
    frame = NetworkPage({**page.snapshot, "title": HOSTILE})._repr_html_()
    attributes = dict(re.findall(r'(\w+)="([^"]*)"', frame))
    assert html.unescape(attributes["title"]) == HOSTILE
    assert attributes["sandbox"] == "allow-scripts"
    assert embedded(html.unescape(attributes["srcdoc"]))["title"] == HOSTILE
    assert re.fullmatch(r"<iframe [^<>]*></iframe>", frame)


def test_save(page, tmp_path):
    file = tmp_path / "net.html"
    page.save(file)
    assert file.read_text(encoding="utf-8") == page.html
    page.save(str(file))
    assert [path.name for path in tmp_path.iterdir()] == ["net.html"]


def test_other_files_are_not_replaced(page, tmp_path):
    file = tmp_path / "net.html"
    file.write_bytes(b"\x89HDF\r\n")
    with pytest.raises(FileFormatError, match="another kind"):
        page.save(file)
    assert file.read_bytes() == b"\x89HDF\r\n"
    with pytest.raises(MissingFileError):
        page.save(tmp_path / "nowhere" / "net.html")
    with pytest.raises(NotAFileError):
        page.save(tmp_path)


def test_show(page, monkeypatch, tmp_path):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    name = page.show()
    assert Path(name).read_text(encoding="utf-8") == page.html
    assert opened == [Path(name).as_uri()]

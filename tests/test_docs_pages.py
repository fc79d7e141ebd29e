"""The documentation as readers find it: links, names, pictures, search.

Two tests look at the pages in Chromium, where it is installed.
"""

from __future__ import annotations

import contextlib
import functools
import html
import http.server
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
from html.parser import HTMLParser
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from test_docs import public_names

import brainstorm as bs

pytestmark = pytest.mark.slow

PACKAGES = {"bs", "brainstorm", *bs.__all__} | {
    name for name in dir(bs) if type(getattr(bs, name)) is type(bs)
}
HEADINGS = {"h1", "h2", "h3", "h4", "dt", "pre", "title"}


class Page(HTMLParser):
    """Links, places, pictures, and the literals that are no links, of a page."""

    def __init__(self, text):
        super().__init__()
        self.open, self.literals = [], []
        self.links, self.places, self.pictures = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.places.update(value for key, value in attrs.items() if key == "id")
        if tag == "img":
            self.pictures.append((attrs.get("src"), attrs.get("alt")))
        self.links += [attrs[key] for key in ("href", "src") if attrs.get(key)]
        if tag not in ("img", "link", "meta", "input", "br", "hr", "col", "path"):
            self.open.append(tag)
        if tag == "code" and "xref" in attrs.get("class", ""):
            self.open.append("a")  # a reference, which the build checks
        if tag == "code" and not self.is_link_or_heading():
            self.literals.append("")

    def handle_endtag(self, tag):
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data):
        if "code" in self.open and not self.is_link_or_heading():
            self.literals[-1] += data

    def is_link_or_heading(self):
        return not {"a", *HEADINGS}.isdisjoint(self.open)


@pytest.fixture(scope="module")
def pages(built):
    """All pages but those of source code, by their paths."""
    files = [f for f in built.rglob("*.html") if "_modules" not in f.parts]
    return {
        f.relative_to(built).as_posix(): Page(f.read_text(encoding="utf-8"))
        for f in files
        if "_static" not in f.parts
    }


def test_links_lead_somewhere(built, pages):
    broken = []
    for path, page in pages.items():
        for link in page.links:
            target = urlsplit(urljoin(f"http://here/{path}", link))
            if target.netloc != "here" or link.startswith(("data:", "javascript:")):
                continue
            file, place = unquote(target.path[1:]) or "index.html", target.fragment
            known = file in pages or (built / file).is_file()
            if not known or (
                place and file in pages and unquote(place) not in pages[file].places
            ):
                broken.append(f"{path}: {link}")
    assert broken == []


def test_pictures_have_alternative_texts(pages):
    pictures = [found for page in pages.values() for found in page.pictures]
    assert len(pictures) >= 8
    for source, text in pictures:
        # Those in the gallery's list stand beside a text.
        assert text or source.endswith("_thumb.png"), source
        assert not text.endswith((".svg", ".png")), source


def is_public_name(text, names):
    """Whether a literal names something of the library: `Lstm(5)`, `bs.Trainer`."""
    *owners, name = re.sub(r"\([^()]*\)$", "", text).split(".")
    is_word = re.fullmatch("[a-z]+", name) and not owners
    return name in names and not is_word and set(owners) <= PACKAGES


def test_names_are_links_to_the_reference(pages):
    names = {name for _, name in public_names()} | set(bs.layers.__all__)
    bare = {
        f"{path}: {text}"
        for path, page in pages.items()
        for text in page.literals
        if is_public_name(text, names)
    }
    assert bare == set()


def test_bare_names_are_noticed():
    page = Page(
        "<p><code>Lstm(5)</code> <a><code>Gru</code></a></p><h1><code>Lif</code>"
    )
    assert page.literals == ["Lstm(5)"]
    names = {"Lstm", "split"}
    found = [
        "Lstm(5)",
        "bs.layers.Lstm",
        "tools.split",
        "split",
        "nn.Lstm",
        "Lstm.size",
    ]
    assert [is_public_name(text, names) for text in found] == [True] * 3 + [False] * 3


# -- in a browser ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def show(built, short_folder):
    """A function that runs a script in Chromium and returns what it hands over.

    The script is the body of an async function `(open)`. `await open(path, width)`
    gives the window of a page, in a frame that is so wide.
    """
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("Chromium is not installed")
    handler = functools.partial(QuietHandler, directory=built)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def run(script):
        page = built / "test_in_chromium.html"
        page.write_text(TEMPLATE.replace("SCRIPT", script), encoding="utf-8")
        profile = tempfile.mkdtemp(dir=short_folder)
        options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
        options += " --disable-background-networking --disable-component-update"
        options += " --disable-sync --disable-dev-shm-usage --virtual-time-budget=20000"
        url = f"http://127.0.0.1:{server.server_port}/{page.name}"
        result = subprocess.run(
            [
                chromium,
                "--dump-dom",
                *options.split(),
                f"--user-data-dir={profile}",
                url,
            ],
            env={**os.environ, "TMPDIR": short_folder},
            capture_output=True,
            text=True,
            timeout=600,
        )
        page.unlink()
        found = re.search(r'<pre id="result">(.*?)</pre>', result.stdout, re.DOTALL)
        assert found, result.stdout[-2000:] + result.stderr[-2000:]
        return json.loads(html.unescape(found[1]))

    yield run
    server.shutdown()
    server.server_close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def copyfile(self, source, outputfile):
        with contextlib.suppress(ConnectionError):
            super().copyfile(source, outputfile)


TEMPLATE = """<!DOCTYPE html><body><script>
const open_page = (path, width) => new Promise(done => {
  const frame = document.createElement("iframe");
  frame.style = `width: ${width}px; height: 800px; border: 0`;
  frame.onload = () => done(frame.contentWindow);
  frame.src = path;
  document.body.append(frame);
});
const later = milliseconds => new Promise(done => setTimeout(done, milliseconds));
const script = async open => { SCRIPT };
script(open_page).then(value => {
  document.body.innerHTML = '<pre id="result"></pre>';
  document.getElementById("result").textContent = JSON.stringify(value);
});
</script>"""


def test_pages_fit_on_a_phone_and_on_a_screen(show):
    pages = ["index.html", "ten_minutes.html", "layers/recurrent.html"]
    pages += ["performance.html", "api/handlers/base.html"]
    sizes = show(f"""
        const sizes = [];
        for (const page of {pages}) for (const width of [375, 1280]) {{
          const w = await open(page, width);
          sizes.push([page, w.innerWidth, w.document.scrollingElement.scrollWidth]);
        }}
        return sizes;""")
    assert len(sizes) == 10
    assert {width for _, width, _ in sizes} == {375, 1280}
    assert [size for size in sizes if size[2] > size[1]] == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("model summary", "ten_minutes.html"),
        ("callback", "hooks.html"),
        ("quickstart", "ten_minutes.html"),
        ("dropout", "layers/regularization.html"),
    ],
)
def test_search_finds(words, expected, show):
    found = show(f"""
        const w = await open("search.html?q={words.replace(" ", "+")}", 1000);
        await later(3000);
        return [...w.document.querySelectorAll("ul.search li a")].map(a => a.href);""")
    pages = [urlsplit(link).path[1:] for link in found]
    assert expected in pages[:8]

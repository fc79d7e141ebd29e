"""All code in the documentation runs, and the documentation builds without warnings.

The blocks ``.. code-block:: python`` of a page run one after the other, in one
namespace and in an empty folder. Where they show a session, ``>>>``, its output
counts. A comment ``.. The code of PAGE comes first.`` has the blocks of another page
run before them.
Blocks with the option ``:class: not-run`` are left out: they need a GPU, or show code
that is no program.
"""

from __future__ import annotations

import doctest
import importlib
import inspect
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path

import pytest

import brainstorm as bs
from brainstorm.describable import of_library
from brainstorm.structure.layer import LAYER_TYPES

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = sorted(
    path.relative_to(DOCS).as_posix()
    for path in DOCS.rglob("*.rst")
    # Those are made from scripts, which the build runs.
    if path.parent.name != "examples" and "_build" not in path.parts
)
BLOCK = re.compile(
    r"^(?P<indent> *)\.\. code-block:: python\n"
    r"(?P<options>(?:(?P=indent)   :.*\n)*)"
    r"(?P<code>(?:(?P=indent)   .*\n|[ ]*\n)+)",
    re.MULTILINE,
)
BEFORE = re.compile(r"^\.\. The code of (\S+) comes first\.$", re.MULTILINE)
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def code_blocks(text):
    """Number of the first line and code of each block that is to be run."""
    for match in BLOCK.finditer(text):
        if "not-run" not in match["options"]:
            first_line = text.count("\n", 0, match.start("code")) + 1
            yield first_line, textwrap.dedent(match["code"])


def run_page(path, namespace=None):
    namespace = {"__name__": "__main__"} if namespace is None else namespace
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    text = path.read_text(encoding="utf-8")
    for other in BEFORE.findall(text):
        run_page(path.parent / other, namespace)
    for line, code in code_blocks(text):
        if code.lstrip().startswith(">>>"):
            test = doctest.DocTestParser().get_doctest(
                code, namespace, path.name, str(path), line - 1
            )
            failures = []
            runner.run(test, out=failures.append, clear_globs=False)
            namespace.update(test.globs)
            assert not failures, "".join(failures)
        else:
            exec(compile("\n" * (line - 1) + code, str(path), "exec"), namespace)


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """A folder to work in, with a network of version 0.5, and no data sets."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BRAINSTORM_DATA_DIR", str(tmp_path))
    original = Path(__file__).parent / "fixtures" / "original" / "lstm.hdf5"
    shutil.copy(original, tmp_path / "old.hdf5")


@pytest.mark.usefixtures("own_folder")
@pytest.mark.parametrize("page", PAGES)
def test_code_of_the_page_runs(page):
    bs.global_rnd.set_seed(1)
    text = (DOCS / page).read_text(encoding="utf-8")
    for module in re.findall(r"from (sklearn|mpi4py)", text):
        pytest.importorskip(module)
    run_page(DOCS / page)


def test_blocks_are_found_and_failures_noticed(tmp_path):
    page = tmp_path / "page.rst"
    template = ".. code-block:: python\n\n   x = 1\n\nText\n\n{}"
    session = ".. code-block:: python\n\n   >>> x\n   {}\n"
    page.write_text(template.format(session.format(1)))
    run_page(page)
    page.write_text(template.format(session.format(2)))
    with pytest.raises(AssertionError, match="Expected"):
        run_page(page)
    page.write_text(template.format(session.format(1)))
    second = tmp_path / "second.rst"
    second.write_text(".. The code of page.rst comes first.\n\n" + session.format(1))
    run_page(second)


DIFF = re.compile(
    r"^\.\. code-block:: diff\n   :caption: (?P<file>\S+)\n\n"
    r"(?P<lines>(?:   .*\n|[ ]*\n)+)",
    re.MULTILINE,
)


def changes(section):
    """Files of the repository, and what to change in them, as a page tells."""
    for match in DIFF.finditer(section):
        lines = textwrap.dedent(match["lines"]).strip("\n").split("\n")
        old = [line[1:] for line in lines if line[:1] != "+"]
        new = [line[1:] for line in lines if line[:1] != "-"]
        yield match["file"], "\n".join(old), "\n".join(new)


def change(root, section):
    """Apply the changes of a section, and return the files."""
    files = set()
    for file, old, new in changes(section):
        path = root / file
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1 if old else new, f"{file}: {old}"
        text = text.replace(old, new) if old else text + new + "\n"
        path.write_text(text, encoding="utf-8")
        files.add(file)
    return files


@pytest.mark.slow
@pytest.mark.parametrize(
    ("title", "most", "tests"),
    [
        ("Into the library", 2, "row_norms"),
        ("A new activation function", 4, "hard_tanh"),
        ("A new activation function", 4, "hard_tanh and emulated"),
    ],
)
def test_the_page_of_operations_adds_them_to_all_handlers(title, most, tests, tmp_path):
    if "emulated" in tests and shutil.which("g++") is None:
        pytest.skip("the emulation of a GPU needs g++")
    page = (DOCS / "own_operation.rst").read_text(encoding="utf-8")
    for folder in ("brainstorm", "tests", "docs"):
        shutil.copytree(DOCS.parent / folder, tmp_path / folder)
    shutil.copy(DOCS.parent / "pyproject.toml", tmp_path)
    files = change(tmp_path, page.partition(f"\n{title}\n---")[2].partition("\n---")[0])
    assert 0 < len(files) <= most
    if "emulated" not in tests:
        tests += " and not emulated and not cuda"
    modules = [file for file in files if file.startswith("tests/")]
    modules += ["tests/handlers/test_views.py", "tests/handlers/test_zero_sizes.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    result = subprocess.run(
        [*command, "-m", "not gpu", "-k", tests, *modules],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout


@pytest.mark.slow
def test_the_documentation_builds_without_warnings(built):
    index = (built / "index.html").read_text(encoding="utf-8")
    assert "brainstorm" in index
    for page in PAGES:
        assert (built / page).with_suffix(".html").exists()


def documented_names(built):
    """Names, without modules, of the classes and functions in the reference."""
    inventory = (built / "objects.inv").read_bytes()
    lines = zlib.decompress(inventory.split(b"\n", 4)[4]).decode().splitlines()
    entries = [line.split()[:2] for line in lines]
    kinds = ("py:class", "py:function", "py:exception")
    return {name.rpartition(".")[2] for name, kind in entries if kind in kinds}


def public_names():
    """Module and name of all public classes and functions, where they are defined.

    Modules that have no `__all__` are internal, save for the layers in them.
    """
    for info in pkgutil.walk_packages(bs.__path__, "brainstorm."):
        if any(part.startswith("_") for part in info.name.split(".")[1:]):
            continue
        try:
            module = importlib.import_module(info.name)
        except ImportError:  # an optional dependency
            continue
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            is_code = inspect.isclass(value) or inspect.isfunction(value)
            if is_code and value.__module__.startswith("brainstorm"):
                yield value.__module__, value.__name__
    for cls in LAYER_TYPES.values():
        if of_library(cls):
            yield cls.__module__, cls.__name__


def test_classes_tell_of_all_their_arguments():
    modules = [bs.hooks, bs.training, bs.scorers, bs.data_iterators]
    silent = {
        f"{name}.{argument}"
        for module in modules
        for name in module.__all__
        if "__init__" in vars(cls := getattr(module, name))
        for argument in inspect.signature(cls).parameters
        if not re.search(rf"(?m)^ +[*\w, ]*\b{argument}\b[\w, ]*:", cls.__doc__)
    }
    assert silent == set()


@pytest.mark.slow
def test_the_reference_has_every_public_name(built):
    known = documented_names(built)
    missing = {
        f"{module}.{name}"
        for module, name in public_names()
        if name not in known and not module.startswith("brainstorm.tests")
    }
    assert missing == set()

"""Every script of the examples has a page that shows how it ran."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import brainstorm as bs

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = {path.name for path in (ROOT / "examples").glob("*.py")} - {"common.py"}
NOT_RUN = {"parallel_digits.py", "search_digits.py"}  # they need MPI, and Dask


def test_every_script_is_listed():
    page = (ROOT / "docs" / "gallery.rst").read_text(encoding="utf-8")
    shown = re.findall(r"examples/scripts/(\w+\.py)", page)
    assert len(shown) == len(set(shown))
    assert set(shown) == SCRIPTS


def test_every_script_has_its_arguments():
    pytest.importorskip("sphinx")
    settings = runpy.run_path(str(ROOT / "docs" / "runs.py"))
    assert set(settings["ARGUMENTS"]) == SCRIPTS
    run = re.compile(settings["RUN"])
    found = {name for name in SCRIPTS if run.search(f"/some/parallel/{name}")}
    assert SCRIPTS - found == NOT_RUN


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_pages_show_code_output_and_a_picture(built, name):
    page = (built / "examples" / name).with_suffix(".html").read_text(encoding="utf-8")
    assert "highlight-Python" in page
    was_run = name not in NOT_RUN
    assert was_run == ("Here it ran as" in page) == ("sphx-glr-script-out" in page)
    assert str(ROOT) not in page
    assert "ipynb" not in page


@pytest.mark.slow
def test_the_build_says_what_it_lacks(tmp_path):
    code = (
        "import sys; sys.modules['sphinx_gallery'] = None\n"
        "from sphinx.cmd.build import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "-q", ROOT / "docs", tmp_path],
        env=os.environ | {"PYTHONPATH": str(Path(bs.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert (
        "the documentation needs sphinx_gallery: pip install '.[docs]'" in done.stderr
    )

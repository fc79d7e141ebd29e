import configparser
import importlib.metadata
import os
import re
import runpy
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from packaging.markers import Marker

import brainstorm

ROOT = Path(__file__).resolve().parents[1]
DEMO_COMMAND = "python -m pip install tox && python -m tox -e demo"
TEST_COMMAND = "python -m pip install tox && python -m tox -e test"


@pytest.fixture(scope="module")
def setup_py():
    return runpy.run_path(str(ROOT / "setup.py"), run_name="setup_py")


# -- version and files -------------------------------------------------------


def test_setup_and_changelog_have_the_version_of_the_package(setup_py):
    assert setup_py["read_version"]() == brainstorm.__version__
    newest = re.search(r"^(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.rst").read_text(), re.M)
    assert newest.group(1) == brainstorm.__version__


def test_package_is_marked_as_typed():
    assert Path(brainstorm.__file__).with_name("py.typed").is_file()


def test_installed_package_has_exactly_the_files_of_the_source():
    site = [sysconfig.get_path("purelib")]
    found = list(importlib.metadata.distributions(name="brainstorm", path=site))
    if not found:
        pytest.skip("the package is not installed")
    if '"editable": true' in (found[0].read_text("direct_url.json") or ""):
        pytest.skip("the package is installed as a link to the source")
    installed = {
        f.as_posix()
        for f in found[0].files
        if f.parts[0] == "brainstorm" and f.suffix != ".pyc"
    }
    source = {
        f.relative_to(ROOT).as_posix()
        for f in (ROOT / "brainstorm").rglob("*")
        if f.is_file() and f.suffix != ".pyc"
    }
    assert installed == source, "an old build/ folder can be the reason: delete it"
    assert found[0].version == brainstorm.__version__


# -- requirements ------------------------------------------------------------


def names(requirements):
    return {re.match(r"[\w-]+", r).group() for r in requirements}


IMPORT_WITH_REQUIREMENTS_ONLY = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

allowed = sys.stdlib_module_names | {"brainstorm", "numpy", "h5py", "tqdm"}
sys.meta_path.insert(0, Block())
import brainstorm
print(sorted({m.partition(".")[0] for m in sys.modules} - sys.stdlib_module_names))
"""


def test_import_needs_only_the_requirements():
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT_WITH_REQUIREMENTS_ONLY],
        env=os.environ | {"PYTHONPATH": str(Path(brainstorm.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert "'brainstorm'" in result.stdout


def test_extras_of_the_manual_and_design(setup_py):
    extras = setup_py["optional_requirements"]()
    assert names(extras["pycuda"]) == {"pycuda", "scikit-cuda"}
    assert names(extras["draw_net"]) == {"pygraphviz"}
    assert names(extras["live_viz"]) == {"bokeh"}
    assert names(extras["onednn"]) == {"onednn-cpu-gomp"}
    assert "scikit-learn" in names(extras["examples"])
    assert names(extras["sklearn"]) == {"scikit-learn"}
    assert names(extras["onnx"]) == {"onnx", "onnxruntime"}
    assert {"tests", "docs", "all"} <= set(extras)


def test_onednn_is_asked_for_only_where_it_has_a_wheel(setup_py):
    [requirement] = setup_py["optional_requirements"]()["onednn"]
    marker = Marker(requirement.partition(";")[2])
    for system, machine, expected in [
        ("Linux", "x86_64", True),
        ("Linux", "aarch64", False),
        ("Darwin", "x86_64", False),
        ("Windows", "AMD64", False),
    ]:
        environment = {"platform_system": system, "platform_machine": machine}
        assert marker.evaluate(environment) is expected


BUILD_NEEDS = [
    "bin/nvcc",
    "bin/g++",
    "include/cuda.h",
    "include/curand.h",
    "include/Python.h",
    "lib64/stubs/libcuda.so",
    "lib/libcurand.so",
]


@pytest.fixture
def toolkit(tmp_path, monkeypatch):
    """A machine that has nothing but what PyCUDA needs for its build."""
    for name in BUILD_NEEDS:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("CPATH", raising=False)
    monkeypatch.delenv("LIBRARY_PATH", raising=False)
    monkeypatch.setattr(
        Path, "exists", lambda p: tmp_path in p.parents and os.path.exists(p)
    )
    return tmp_path


def test_all_has_pycuda_where_it_can_be_built(setup_py, toolkit):
    extras = setup_py["optional_requirements"]()
    parts = set(extras) - {"all", "tests", "docs"}
    assert set(extras["all"]) == {r for name in parts for r in extras[name]}


@pytest.mark.parametrize("missing", BUILD_NEEDS)
def test_all_is_without_pycuda_where_it_can_not_be_built(setup_py, toolkit, missing):
    (toolkit / missing).unlink()
    extras = setup_py["optional_requirements"]()
    assert not names(extras["all"]) & {"pycuda", "scikit-cuda"}
    assert {"pygraphviz", "bokeh"} <= names(extras["all"])


def test_headers_and_libraries_are_found_on_the_compilers_paths(
    setup_py, toolkit, monkeypatch
):
    (toolkit / "include" / "curand.h").rename(toolkit / "curand.h")
    (toolkit / "lib" / "libcurand.so").rename(toolkit / "libcurand.so")
    assert not setup_py["pycuda_can_be_built"]()
    monkeypatch.setenv("CPATH", f"/nowhere{os.pathsep}{toolkit}")
    monkeypatch.setenv("LIBRARY_PATH", str(toolkit))
    assert setup_py["pycuda_can_be_built"]()


# -- the commands ------------------------------------------------------------


def test_readme_begins_with_the_two_commands():
    indented = re.findall(r"^    (.+)$", (ROOT / "README.rst").read_text(), re.M)
    assert indented[:2] == [DEMO_COMMAND, TEST_COMMAND]


def test_ci_runs_the_test_command_of_the_readme():
    script = ROOT / ".ci" / "run"
    assert script.read_text().splitlines()[-1] == TEST_COMMAND
    assert os.access(script, os.X_OK)


def test_tox_has_the_environments_that_the_readme_names():
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    readme = (ROOT / "README.rst").read_text()
    contributing = (ROOT / "CONTRIBUTING.rst").read_text()
    for name in set(re.findall(r"tox -e (\w+)", readme + contributing)):
        assert tox.has_section(f"testenv:{name}")
    assert "examples/digits_mlp.py" in tox["testenv:demo"]["commands"]

import configparser
import email.parser
import importlib.metadata
import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
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


def packaged(root):
    """The files that belong into the package, by their names in there."""
    files = {
        f.relative_to(root).as_posix()
        for f in (root / "brainstorm").rglob("*")
        if f.is_file() and f.suffix != ".pyc"
    }
    examples = [*(root / "examples").glob("*.py"), root / "examples" / "README.rst"]
    assert len(examples) > 10
    return files | {f"brainstorm/examples/{f.name}" for f in examples}


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
    assert installed == packaged(ROOT), (
        "an old build/ folder can be the reason: delete it"
    )
    assert found[0].version == brainstorm.__version__


BUILD = """
import sys
from setuptools import build_meta
print(getattr(build_meta, f"build_{sys.argv[1]}")(sys.argv[2]))
"""


def build(kind, source, folder):
    """Build a distribution of a folder with the source."""
    command = [sys.executable, "-c", BUILD, kind, str(folder)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """What a source distribution has."""
    folder = tmp_path_factory.mktemp("built")
    ignored = shutil.ignore_patterns(
        *(".git", ".tox", ".*_cache", ".hypothesis", "build", "*.egg-info", "_build")
    )
    shutil.copytree(ROOT, folder / "clone", ignore=ignored)
    # What examples have written, and Python has compiled, does not belong into them.
    (folder / "clone" / "examples" / "digits_mlp.png").write_bytes(b"x")
    (folder / "clone" / "examples" / "digits_mlp.hdf5").write_bytes(b"x")
    (folder / "clone" / "examples" / "__pycache__").mkdir(exist_ok=True)
    (folder / "clone" / "examples" / "__pycache__" / "x.pyc").write_bytes(b"x")
    with tarfile.open(build("sdist", folder / "clone", folder)) as sdist:
        sdist.extractall(folder, filter="data")
    (source,) = folder.glob("brainstorm-*/")
    return source


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    """What a wheel that was built from the source distribution has."""
    folder = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(build("wheel", source, folder)) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.mark.slow
def test_source_distributions_have_all_that_is_tracked(source):
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    git = shutil.which("git") and subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True
    )
    if git is None or git.returncode:
        pytest.skip("this is no clone, or there is no git")
    tracked = {name for name in git.stdout.splitlines() if (ROOT / name).is_file()}
    packed = {f.relative_to(source).as_posix() for f in source.rglob("*")}
    assert "docs/index.rst" in packed
    assert tracked - packed == set()


@pytest.mark.slow
def test_metadata_are_fit_for_an_index(wheel):
    (path,) = wheel.glob("*.dist-info/METADATA")
    metadata = email.parser.Parser().parsestr(path.read_text(encoding="utf-8"))
    assert metadata["License-Expression"] == "MIT"
    assert "Classifier: License" not in path.read_text(encoding="utf-8")
    urls = dict(url.split(", ") for url in metadata.get_all("Project-URL"))
    assert {"Source", "Documentation", "Changelog", "Issues"} <= set(urls)
    assert all(url.startswith("https://") for url in urls.values())
    readme = metadata.get_payload()
    links = re.findall(r"<(\S+)>`_|image:: (\S+)", readme)
    assert len(links) >= 8
    for link in map("".join, links):
        version = f"v{brainstorm.__version__}"
        kind, file = link.removeprefix(f"{urls['Source']}/").split(f"/{version}/")
        assert kind in ("blob", "tree", "raw")
        assert (ROOT / file).is_dir() == (kind == "tree"), link
        assert (ROOT / file).exists(), link


def test_the_citation_is_of_this_version():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search("^version: (.*)$", text, re.M)[1] == brainstorm.__version__


@pytest.mark.slow
def test_wheels_of_source_distributions_have_the_files_of_the_source(wheel):
    files = {f.relative_to(wheel).as_posix() for f in wheel.rglob("*") if f.is_file()}
    assert {f for f in files if f.startswith("brainstorm/")} == packaged(ROOT)
    assert "brainstorm/py.typed" in files


@pytest.mark.slow
def test_examples_run_without_the_repository(wheel, tmp_path):
    def run(*words, folder=tmp_path):
        done = subprocess.run(
            [sys.executable, *words],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(wheel), "BRAINSTORM_DATA_DIR": "."},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("-m", "brainstorm", "examples", "here")
    copied = {f.name for f in (tmp_path / "here").iterdir()}
    assert {f"brainstorm/examples/{name}" for name in copied} == {
        name for name in packaged(ROOT) if name.startswith("brainstorm/examples/")
    }
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    script = str(tmp_path / "here" / "sequence_with_mask.py")
    assert "depths" in run(script, "--epochs", "1", folder=elsewhere)
    pytest.importorskip("sklearn")
    output = run(str(tmp_path / "here" / "mnist_pi.py"), "--epochs=1", folder=elsewhere)
    assert "brainstorm data MNIST" in output
    assert (elsewhere / "Digits.hdf5").is_file()


# -- requirements ------------------------------------------------------------


def names(requirements):
    return {re.match(r"[\w-]+", r).group() for r in requirements}


IMPORT_WITH_REQUIREMENTS_ONLY = """
import sys

class Only:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in allowed:
            return self.finder.find_spec(name, path, target)

allowed = sys.stdlib_module_names | {"brainstorm", "numpy", "h5py", "tqdm"}
sys.meta_path[:] = map(Only, sys.meta_path)
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
    assert names(extras["draw-net"]) == {"pygraphviz"}
    assert names(extras["live-viz"]) == {"bokeh"}
    assert names(extras["tensorboard"]) == {"tensorboard"}
    assert names(extras["mlflow"]) == {"mlflow-skinny", "sqlalchemy", "alembic"}
    assert names(extras["notebook"]) == {"ipywidgets"}
    assert names(extras["reservoir"]) == {"scipy"}
    assert names(extras["mpi"]) == {"mpi4py"}
    assert names(extras["onednn"]) == {"onednn-cpu-gomp"}
    assert "scikit-learn" in names(extras["examples"])
    assert names(extras["sklearn"]) == {"scikit-learn"}
    assert names(extras["onnx"]) == {"onnx", "onnxruntime"}
    assert {"tests", "docs", "all"} <= set(extras)


def test_names_of_extras_have_hyphens(setup_py):
    assert not [name for name in setup_py["optional_requirements"]() if "_" in name]
    texts = [*ROOT.glob("*.rst"), *(ROOT / "docs").glob("*.rst"), ROOT / "tox.ini"]
    texts += [*ROOT.glob("*/*.py"), *(ROOT / "brainstorm").rglob("*.py")]
    assert len(texts) > 100
    for path in texts:
        text = path.read_text(encoding="utf-8")
        for extras in re.findall(r"pip install \S*\[([\w,-]+)\]", text):
            assert "_" not in extras, path
        # The registry's brainstorm is of 2015.
        assert not re.search(r"pip install \W?brainstorm\[[^\]]*\](?! @)", text), path


def test_metadata_have_both_spellings_of_extras(setup_py):
    """They are two extras to pip before version 23.3."""
    both = setup_py["with_underscores"]
    assert both("Provides-Extra: draw-net") == "Provides-Extra: draw_net"
    line = "Requires-Dist: onednn-cpu-gomp>=2; os == 'a-b' and extra == "
    assert both(f"{line}'live-viz'") == f"{line}'live_viz'"
    assert both("Requires-Dist: scikit-learn") == "Requires-Dist: scikit-learn"


@pytest.fixture(scope="module", params=["pip==23.2", "pip"])
def fresh(request, tmp_path_factory):
    """A clone, and a function that runs a line of the docs in a new environment."""
    folder = tmp_path_factory.mktemp("fresh")
    environment, clone = folder / "env", folder / "a clone"
    ignored = shutil.ignore_patterns(".*", "build", "*.egg-info", "_build")
    shutil.copytree(ROOT, clone, ignore=ignored)
    venv.create(environment, with_pip=True)
    variables = {n: v for n, v in os.environ.items() if n != "PYTHONPATH"}
    variables["PATH"] = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"

    def run(line):
        result = subprocess.run(
            ["bash", "-c", line],
            cwd=clone,
            env=variables,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        assert "does not provide the extra" not in result.stderr
        return result.stdout

    run(f"python -m pip install --upgrade '{request.param}'")
    run.is_old = request.param != "pip"
    return run


@pytest.mark.slow
def test_what_the_docs_print_installs(fresh):
    texts = [ROOT / "README.rst", ROOT / "docs" / "installation.rst"]
    texts.append(ROOT / "examples" / "README.rst")
    lines = {
        line.strip("`")
        for path in texts
        for line in re.findall(
            r"`pip install [^`]*`|(?<=\$ )pip install .*", path.read_text()
        )
    }
    assert len(lines) >= 4
    lines = [] if fresh.is_old else sorted(lines - {"pip install brainstorm"})
    for line in lines:
        assert "brainstorm-" in fresh(line.replace("install", "install --dry-run", 1))
    for name in ("draw-net", "draw_net", "live-viz", "live_viz"):
        wanted = "pygraphviz-" if "draw" in name else "bokeh-"
        assert wanted in fresh(f'pip install --dry-run ".[{name}]"')


@pytest.mark.slow
def test_what_errors_print_installs(fresh):
    """In the clone, and elsewhere with what is installed."""
    fresh("pip install ." if fresh.is_old else "pip install -e .")
    missing = "import brainstorm as bs; bs.tools.draw_network(None, 'a.svg')"
    for folder in (".", "/"):
        fresh("pip uninstall -y pygraphviz")
        line = fresh(f'cd {folder}; python -c "{missing}" 2>&1 | tail -1')
        assert "ImportError: draw_network needs pygraphviz" in line
        fresh(f"cd /; {line.partition('Install it with: ')[2]}")
        fresh("python -c 'import pygraphviz, brainstorm'")


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

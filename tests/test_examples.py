import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import brainstorm as bs

ROOT = Path(__file__).resolve().parents[1]


def run_example(name, *arguments):
    result = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *arguments],
        env=os.environ | {"PYTHONPATH": str(Path(bs.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def run_digits_mlp(folder, *arguments):
    """The test accuracy of the example, after a look at the files that it writes."""
    pytest.importorskip("sklearn")
    image = pytest.importorskip("matplotlib.image")
    output = run_example("digits_mlp.py", "--output-dir", str(folder), *arguments)
    assert sorted(f.name for f in folder.iterdir()) == [
        "digits_mlp.hdf5",
        "digits_mlp.png",
    ]
    assert image.imread(folder / "digits_mlp.png").std() > 0
    net = bs.Network.from_hdf5(str(folder / "digits_mlp.hdf5"))
    assert net.layers["Hidden"].out_shapes["default"].feature_size == 500
    last_line = output.rstrip().splitlines()[-1]
    return float(re.fullmatch(r"test accuracy: ([01]\.\d{3})", last_line).group(1))


def test_digits_mlp_learns_and_writes_network_and_picture(tmp_path):
    assert run_digits_mlp(tmp_path, "--epochs", "2") > 0.8


@pytest.mark.slow
def test_digits_mlp_reaches_its_accuracy(tmp_path):
    assert run_digits_mlp(tmp_path) >= 0.96


def test_examples_tell_their_options():
    for script in sorted((ROOT / "examples").glob("*.py")):
        assert "--epochs" in run_example(script.name, "--help")


def test_example_in_the_readme_learns(tmp_path, capsys):
    readme = (ROOT / "README.rst").read_text()
    block = re.search(r"code-block:: python\n\n((?:    .*\n|\n)+)", readme).group(1)
    script = tmp_path / "example.py"
    script.write_text("if True:\n" + block)
    runpy.run_path(str(script))
    assert float(capsys.readouterr().out.split()[-1]) > 0.9

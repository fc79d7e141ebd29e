"""Type checkers accept the library, and find the faults of those who use it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from brainstorm import initializers, literals, scorers
from brainstorm.data_iterators import encoding
from brainstorm.handlers.onednn.definitions import MATH_MODES
from brainstorm.handlers.operations.activations import ACTIVATIONS, OTHER_NAMES
from brainstorm.handlers.operations.surrogates import SURROGATES
from brainstorm.hooks import EarlyStopper, Hook
from brainstorm.structure.initializing import NAMED
from brainstorm.tools.building import OUTPUT_LAYERS
from brainstorm.utils import ValidationError

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "tests" / "fixtures" / "typed_script.py"

TABLES = {
    "Activation": {*ACTIVATIONS, *OTHER_NAMES},
    "Distribution": initializers.VarianceScaling.DISTRIBUTIONS,
    "Fan": initializers.VarianceScaling.FANS,
    "InitializerName": {*NAMED, "auto"},
    "MathMode": MATH_MODES,
    "ScaledActivation": {*initializers.DenseSqrtFanInOut.SCALES, *OTHER_NAMES},
    "Surrogate": SURROGATES,
    "TaskType": OUTPUT_LAYERS,
    "WalkActivation": initializers.RandomWalk.GAINS,
}


@pytest.mark.parametrize("name", TABLES)
def test_names_are_those_of_the_tables(name):
    names = get_args(getattr(literals, name))
    assert len(set(names)) == len(names)
    assert set(names) == set(TABLES[name])


@pytest.mark.parametrize(
    ("kind", "use"),
    [
        (literals.Timescale, lambda name: Hook(timescale=name)),
        (literals.Criterion, lambda name: EarlyStopper("Hook.log", 1, name)),
        (literals.Average, scorers.Precision),
        (literals.ScoredValues, lambda name: scorers.Score(len, name)),
        (
            literals.LatencyMethod,
            lambda name: encoding.check_value("method", name, encoding._METHOD),
        ),
    ],
)
def test_all_names_are_accepted_and_no_others(kind, use):
    for name in get_args(kind):
        use(name)
    with pytest.raises(ValidationError):
        use("quux")


@pytest.mark.slow
def test_mypy_accepts_the_library_and_finds_the_faults_of_a_user(tmp_path):
    pytest.importorskip("mypy")
    if np.lib.NumpyVersion(np.__version__) >= "2.5.0":
        pytest.skip("mypy 2.4 takes hints of NumPy 2.5 for others")
    lines = SCRIPT.read_text(encoding="utf-8").splitlines()
    wrong = {n for n, line in enumerate(lines, 1) if line.endswith("# wrong")}
    assert len(wrong) > 50
    command = [sys.executable, "-m", "mypy", f"--cache-dir={tmp_path}"]
    done = subprocess.run(
        [*command, "--no-error-summary", "brainstorm", str(SCRIPT)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert not done.stderr
    found = re.findall(rf".*{SCRIPT.name}:(\d+): error:.*\n", done.stdout)
    in_library = re.findall(r"^brainstorm.*: error:.*", done.stdout, re.MULTILINE)
    assert in_library == []
    reported = set(map(int, found))
    assert {lines[n - 1] for n in wrong - reported} == set()  # were not found
    assert {lines[n - 1] for n in reported - wrong} == set()  # are no faults


@pytest.mark.slow
def test_pyright_knows_the_types_of_nearly_all_public_names():
    pytest.importorskip("basedpyright")
    command = [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable]
    done = subprocess.run(
        [*command, "--verifytypes", "brainstorm", "--ignoreexternal", "--outputjson"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    report = json.loads(done.stdout)["typeCompleteness"]
    assert report["pyTypedPath"] == str(ROOT / "brainstorm" / "py.typed")
    assert sum(report["exportedSymbolCounts"].values()) > 4000
    unknown = [s["name"] for s in report["symbols"] if not s["isTypeKnown"]]
    assert report["completenessScore"] >= 0.95, unknown

"""How the scripts of ``examples/`` are run for their pages: offline, and briefly.

Each gets the arguments of its line here, and the folder for what it writes; `None` are
those that need more than the documentation has. Data sets that would be downloaded are
not there; `stand_in_text` makes a short text.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import h5py
from docutils import nodes
from sphinx.application import Sphinx

import brainstorm as bs

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "_build" / "examples"
SCRIPTS = FOLDER / "scripts"  # copies, without the folders beside them
TEXT = FOLDER / "text.hdf5"
ARGUMENTS = {
    "bidirectional_labels.py": "--epochs 2",
    "brainpy_nodes.py": "--epochs 20",
    "brainpy_training.py": "--epochs 50",
    "cifar10_cnn.py": "--epochs 1",
    "custom_layer.py": "--epochs 5",
    "digits_cnn.py": "--epochs 3",
    "digits_mlp.py": "--epochs 15",
    "force_learning.py": "--epochs 2",
    "search_grid.py": "--epochs 4",
    "highway.py": "--epochs 5",
    "hutter_lstm.py": "--epochs 1 --data text.hdf5",
    "image_residual.py": "--epochs 2 --blocks 1 --size 8",
    "imbalanced_classes.py": "",
    "watch_gates.py": "--epochs 20",
    "mnist_pi.py": "--epochs 3",
    "multi_label.py": "--epochs 2",
    "nvar_lorenz.py": "",
    "onnx_runtime.py": "",
    "parallel_digits.py": None,
    "regression.py": "--epochs 100",
    "reservoir_mackey_glass.py": "--epochs 1",
    "search_digits.py": None,
    "sequence_with_mask.py": "--epochs 2",
    "serve_threads.py": "",
    "spiking_classification.py": "--epochs 20 --plot",
    "text_sampling.py": "--epochs 4 --data text.hdf5",
    "tiny_gpt.py": "--epochs 2 --size 32 --blocks 2 --heads 2 --data text.hdf5",
    "transfer_digits.py": "",
}
RUN = rf"/(?!{'|'.join(n for n, given in ARGUMENTS.items() if given is None)})\w+\.py$"


def arguments(gallery_conf: dict, script_vars: dict) -> list[str]:
    """The arguments of a script."""
    words = ARGUMENTS[Path(script_vars["src_file"]).name].split()
    words = [str(TEXT) if word == TEXT.name else word for word in words]
    return [*words, "--output-dir", str(FOLDER)]


def complete(app: Sphinx, docname: str, source: list[str]) -> None:
    """Tell on a script's page how it ran, and nothing of this machine's folders."""
    folder, _, name = docname.rpartition("/")
    if folder == "examples" and f"{name}.py" in ARGUMENTS:
        given = ARGUMENTS[f"{name}.py"]
        line = "It is not run on this page."
        if given is not None:
            line = f"Here it ran as ``{f'python {name}.py {given}'.strip()}``."
        text = re.sub(r"(\n=+\n)", rf"\1\n{line}\n", source[0], count=1)
        # The options of a script are no use in a notebook.
        text = re.sub(r"(?m)^ *\.\. container::.*-jupyter\n\s*:download:.*\n", "", text)
        source[0] = text.replace(f"{FOLDER}{os.sep}", "")


def describe(app: Sphinx, doctree: nodes.document) -> None:
    """Give the small pictures alternative texts."""
    for image in doctree.findall(nodes.image):
        script = re.search(r"sphx_glr_(\w+)_thumb", image["uri"])
        if script and not image.get("alt"):
            image["alt"] = f"What {script[1]}.py draws"


def gather() -> None:
    """Copy the scripts to where they run, and drop pages of those that are gone."""
    shutil.rmtree(SCRIPTS, ignore_errors=True)
    SCRIPTS.mkdir(parents=True)
    examples = HERE.parent / "examples"
    for path in [*examples.glob("*.py"), examples / "README.rst"]:
        shutil.copy(path, SCRIPTS)
    for page in (HERE / "examples").glob("*.rst"):
        if page.stem != "index" and f"{page.stem}.py" not in ARGUMENTS:
            page.unlink()


def prepare(app: Sphinx) -> None:
    """Have no data sets but those that need no download."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    os.environ["BRAINSTORM_DATA_DIR"] = str(FOLDER)
    os.environ["NO_COLOR"] = "1"
    if not TEXT.exists():
        stand_in_text()


def stand_in_text() -> None:
    """Write the beginnings of the parts of `PythonText`, in the same layout.

    There the sequence number i goes on in number i + 100.
    """
    data = bs.datasets.load("PythonText")
    with h5py.File(TEXT, "w") as file:
        split = file.create_group("split")
        split.attrs.update(data["training"].parent.attrs)
        for part, values in data.items():
            for name, sequences in values.items():
                steps = len(sequences)
                text = sequences[:].reshape(steps, -1, 100).transpose(2, 1, 0).ravel()
                short = text[: 600 * steps].reshape(100, 6, steps)
                split[f"{part}/{name}"] = short.transpose(2, 1, 0).reshape(
                    steps, 600, 1
                )


def setup(app: Sphinx) -> dict:
    """Register with Sphinx."""
    app.connect("builder-inited", prepare, priority=100)  # before the scripts run
    app.connect("source-read", complete)
    app.connect("doctree-read", describe)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

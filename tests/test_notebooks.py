"""A session in a notebook."""

import os
import re
from pathlib import Path

import pytest

import brainstorm

CELLS = [
    """
import numpy as np
import brainstorm as bs
bs.global_rnd.set_seed(1)
rnd = np.random.RandomState(1)
x = rnd.randn(200, 2)
y = (x.sum(axis=1) > 0).astype(int)
net = bs.tools.create_net_from_spec("classification", 2, 2, "F8")
net
""",
    "print(net.summary(1, 20))",
    """
trainer = bs.Trainer.fit(
    net, x, y, epochs=3, batch_size=20, verbose=True,
    stepper=bs.training.AdamStepper(0.05),
    validation_data=(x, y), hooks=[bs.hooks.ProgressBar()],
)
""",
    "trainer.history",
    "trainer.plot()",
    "bs.tools.LearningRateFinder(net, bs.Minibatches(20, default=x[None],"
    " targets=y[None, :, None])).plot()",
    """
bs.Trainer.fit(net, x, y, epochs=1, verbose=2, hooks=[bs.hooks.ProgressBar()])
float((net.predict(x).argmax(axis=1) == y).mean())
""",
]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """What each of the cells has shown."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    for library in ("ipykernel", "ipywidgets", "matplotlib"):
        pytest.importorskip(library)
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(code.strip()) for code in CELLS]
    folder = tmp_path_factory.mktemp("notebook")
    client = nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": os.fspath(folder)}}
    )
    here = Path(brainstorm.__file__).parents[1]
    client.execute(env={**os.environ, "PYTHONPATH": os.fspath(here)})
    return [cell.outputs for cell in notebook.cells]


def data_of(outputs, kind):
    return [o["data"][kind] for o in outputs if kind in o.get("data", {})]


def text_of(outputs, name="stdout"):
    return "".join(o["text"] for o in outputs if o.get("name") == name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of Jupyter's libraries
def test_a_session(outputs):
    shown, summary, training, history, plot, rates, last = outputs
    assert "<table" in data_of(shown, "text/html")[0]
    assert "FullyConnected" in text_of(summary)
    # The widget of each epoch is gone, its line is there.
    lines = [line for line in text_of(training).splitlines() if line.strip()]
    assert lines[0].split() == ["training", "validation"]
    assert [line.split()[0] for line in lines[3:]] == ["0", "1", "2", "3"]
    assert text_of(training, "stderr") == ""
    assert len(data_of(training, "application/vnd.jupyter.widget-view+json")) == 3
    (table,) = data_of(history, "text/html")
    assert table.count("<tr>") == 5
    for pictures in (plot, rates):
        (picture,) = data_of(pictures, "image/png")
        assert picture.startswith("iVBORw0KGgo")
    assert "- Epoch 1 -" in text_of(last)
    *_, score = data_of(last, "text/plain")
    assert re.fullmatch(r"(0\.9\d*|1\.0)", score)

"""Draw the pictures of the documentation into the folder pictures beside this file.

Needs what ``pip install ".[examples,draw-net,live-viz]"`` installs, and Chromium for
those that are pages. OMP_NUM_THREADS=1 makes the profile that of an idle machine. Run
it when what they show has changed, and look at them:
``python docs/draw_pictures.py`` draws all, and takes names, such as ``training``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops
from sklearn.datasets import load_digits

import brainstorm as bs

PICTURES = Path(__file__).parent / "pictures"
FONT = "font-family: Helvetica, Arial, sans-serif; font-size: 14px"


def digits() -> tuple:
    """Images and classes for training, then for validation."""
    x, y = load_digits(return_X_y=True)
    x = x / 16
    return (x[:1300], y[:1300]), (x[1300:1500], y[1300:1500])


def digits_network() -> bs.Network:
    """The network of the page *Ten minutes*."""
    bs.global_rnd.set_seed(1)
    return bs.tools.create_net_from_spec("classification", 64, 10, "F100 D")


def training() -> None:
    """Accuracy in training and validation, as on that page."""
    (x, y), validation = digits()
    trainer = bs.Trainer.fit(
        digits_network(),
        *(x, y),
        epochs=20,
        batch_size=50,
        stepper=bs.training.AdamStepper(0.005),
        train_scorers=[bs.scorers.Accuracy()],
        validation_data=validation,
    )
    figure = trainer.history.plot("rolling_training.Accuracy", "validation.Accuracy")
    figure.set_size_inches(6.4, 3.4)
    figure.savefig(PICTURES / "training.png", dpi=110)
    shrink(PICTURES / "training.png")


def network() -> None:
    """The layers of an LSTM network."""
    inp, out = bs.tools.get_in_out_layers("classification", 4, 3)
    net = bs.Network.from_layer(inp >> bs.layers.Lstm(5, name="Lstm") >> out)
    bs.tools.draw_network(net, str(PICTURES / "network.svg"))


def notebook() -> None:
    """What a notebook shows of a network."""
    table = digits_network()._repr_html_()
    prompt = '<p style="color: #777; margin: 0 0 8px">In [1]: <b>net</b></p>'
    screenshot(f'<body style="{FONT}">{prompt}{table}</body>', "notebook", 880, 560)


def profile() -> None:
    """The share of each operation in the time of a step of a small LSTM network."""
    rnd = np.random.RandomState(0)
    net = bs.tools.create_net_from_spec("classification", 20, 5, "L64")
    data = {"default": rnd.randn(50, 20, 20), "targets": np.zeros((50, 20, 1))}
    stepper = bs.training.MomentumStepper(0.1, momentum=0.9)
    figure = bs.tools.profile(net, data, stepper=stepper).plot()
    figure.savefig(PICTURES / "profile.png", dpi=90)
    shrink(PICTURES / "profile.png")


def live() -> None:
    """The plots of a BokehVisualizer at the end of a training."""
    (x, y), validation = digits()
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "live.html"
        names = ["rolling_training.Accuracy", "validation.Accuracy"]
        names += ["rolling_training.total_loss", "validation.total_loss"]
        plots = bs.hooks.BokehVisualizer(names, filename=page)
        bs.Trainer.fit(
            digits_network(),
            *(x, y),
            epochs=15,
            batch_size=50,
            stepper=bs.training.AdamStepper(0.005),
            train_scorers=[bs.scorers.Accuracy()],
            validation_data=validation,
            hooks=[plots],
        )
        plots.shut_down()
        screenshot(page.read_text(encoding="utf-8"), "live", 760, 760)


def screenshot(html: str, name: str, width: int, height: int) -> None:
    """Have Chromium show a page, and write what it shows."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit(f"{name}.png needs Chromium, which is not installed")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(f'<!DOCTYPE html><meta charset="utf-8">{html}', "utf-8")
        subprocess.run(
            [
                *(chromium, "--headless", "--no-sandbox", "--disable-gpu"),
                *("--no-first-run", "--disable-background-networking"),
                *(f"--user-data-dir={folder}/profile", "--hide-scrollbars"),
                *(f"--window-size={width},{height}", "--virtual-time-budget=5000"),
                f"--screenshot={PICTURES / name}.png",
                page.as_uri(),
            ],
            check=True,
            stderr=subprocess.DEVNULL,
        )
    shrink(PICTURES / f"{name}.png")


def shrink(path: Path) -> None:
    """Cut the white border off, and keep 64 colors."""
    picture = Image.open(path).convert("RGB")
    white = Image.new("RGB", picture.size, "white")
    left, top, right, bottom = ImageChops.difference(picture, white).getbbox()
    edge = (max(0, left - 8), max(0, top - 8))
    edge += (min(picture.width, right + 8), min(picture.height, bottom + 8))
    picture.crop(edge).quantize(64).save(path, optimize=True)


DRAWINGS = {f.__name__: f for f in (training, network, notebook, profile, live)}


if __name__ == "__main__":
    for drawing in sys.argv[1:] or DRAWINGS:
        DRAWINGS[drawing]()

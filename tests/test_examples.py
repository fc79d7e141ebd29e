import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import brainstorm as bs
from tests.parallel import launching

ROOT = Path(__file__).resolve().parents[1]
NOT_AN_EXAMPLE = "common.py"
EXAMPLES = sorted(
    script.name
    for script in (ROOT / "examples").glob("*.py")
    if script.name != NOT_AN_EXAMPLE
)


def slow(*cases):
    return [pytest.param(*case, marks=pytest.mark.slow) for case in cases]


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Where the examples put their data; nothing is there at first."""
    return tmp_path_factory.mktemp("data")


def run_example(name, *arguments, data_dir=""):
    result = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)],
        env=os.environ
        | {
            "PYTHONPATH": str(Path(bs.__file__).parents[1]),
            "BRAINSTORM_DATA_DIR": str(data_dir),
        },
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(
    "name", ["regression.py", pytest.param("digits_mlp.py", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--epochs -1", "expected at least 1"),
        *slow(("--data none.hdf5", "no file 'none.hdf5'")),
    ],
)
def test_options_that_make_no_sense_end_with_a_line(name, words, text):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *words.split()],
        env=os.environ | {"PYTHONPATH": str(Path(bs.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert text in line


def result_of(output):
    """What the last line says after its colon."""
    return float(output.rstrip().splitlines()[-1].rpartition(":")[2])


def run_digits_mlp(folder, *arguments):
    """The test accuracy of the example, after a look at the files that it writes."""
    pytest.importorskip("sklearn")
    image = pytest.importorskip("matplotlib.image")
    output = run_example("digits_mlp.py", "--output-dir", folder, *arguments)
    assert sorted(f.name for f in folder.iterdir()) == [
        "digits_mlp.hdf5",
        "digits_mlp.png",
    ]
    assert image.imread(folder / "digits_mlp.png").std() > 0
    net = bs.Network.from_hdf5(str(folder / "digits_mlp.hdf5"))
    assert net.layers["Hidden"].out_shapes["default"].feature_size == 500
    last_line = output.rstrip().splitlines()[-1]
    return float(re.fullmatch(r"test accuracy: ([01]\.\d{3})", last_line).group(1))


@pytest.mark.parametrize("options", [(), *slow([("--stepper", "adam")])])
def test_digits_mlp_learns_and_writes_network_and_picture(options, tmp_path):
    assert run_digits_mlp(tmp_path, "--epochs", "2", *options) > 0.8


@pytest.mark.slow
def test_digits_mlp_reaches_its_accuracy(tmp_path):
    assert run_digits_mlp(tmp_path) >= 0.96


@pytest.mark.slow
def test_digits_mlp_reaches_its_accuracy_sooner_with_adam(tmp_path):
    assert run_digits_mlp(tmp_path, "--stepper", "adam") >= 0.96


# A short run of each does clearly better than by chance; what the scripts reach in
# full is in examples/README.rst.
@pytest.mark.parametrize(
    ("name", "epochs", "at_least"),
    [
        ("regression.py", 20, 0.3),
        *slow(
            ("bidirectional_labels.py", 2, 0.9),
            ("brainpy_nodes.py", 20, 0.9),
            ("brainpy_training.py", 150, 0.7),
            ("custom_layer.py", 3, 0.8),
            ("digits_cnn.py", 1, 0.5),
            ("search_grid.py", 2, 0.8),
            ("highway.py", 5, 0.15),
            ("mnist_pi.py", 5, 0.6),
            ("multi_label.py", 2, 0.74),
            ("sequence_with_mask.py", 4, 0.6),
            ("serve_threads.py", 2, 0.8),
            ("transfer_digits.py", 40, 0.9),
        ),
    ],
)
def test_examples_learn_without_download(name, epochs, at_least, tmp_path, data_dir):
    pytest.importorskip("sklearn")
    options = ("--epochs", epochs, "--output-dir", tmp_path)
    output = run_example(name, *options, data_dir=data_dir)
    assert result_of(output) >= at_least


@pytest.mark.slow
def test_onnx_runtime_computes_the_same(tmp_path, data_dir):
    pytest.importorskip("sklearn")
    pytest.importorskip("onnxruntime")
    options = ("--epochs", 2, "--output-dir", tmp_path)
    output = run_example("onnx_runtime.py", *options, data_dir=data_dir)
    assert float(re.search("largest difference: (.*)", output)[1]) < 1e-5
    assert result_of(output) >= 0.8


@pytest.mark.slow
def test_the_partner_of_a_bracket_is_decided_by_what_comes_after_it(tmp_path):
    options = ("--epochs", 2, "--output-dir", tmp_path)
    assert (
        result_of(run_example("bidirectional_labels.py", "--forward", *options)) < 0.9
    )


@pytest.mark.slow
def test_rare_classes_are_found_by_their_weights(tmp_path, data_dir):
    pytest.importorskip("sklearn")
    output = run_example(
        "imbalanced_classes.py", "--output-dir", tmp_path, data_dir=data_dir
    )
    *_, without, weighted = output.splitlines()
    assert result_of(weighted) > result_of(without) + 0.2


@pytest.mark.slow
def test_gates_open_when_they_are_told(tmp_path):
    image = pytest.importorskip("matplotlib.image")
    output = run_example("watch_gates.py", "--output-dir", tmp_path)
    shut, opened = (
        float(re.search(rf"gates {word}: +\[([\d.]+)", output)[1])
        for word in ("without", "with the sign")
    )
    assert opened > shut + 0.3
    assert image.imread(tmp_path / "watch_gates.png").std() > 0


@pytest.mark.slow
def test_text_sampling_writes_at_three_temperatures(tmp_path):
    pytest.importorskip("matplotlib")
    write_text(tmp_path / "text.hdf5")
    options = ("--data", tmp_path / "text.hdf5", "--output-dir", tmp_path)
    output = run_example("text_sampling.py", "--epochs", 1, *options)
    texts = re.findall(r"(?s)---- at temperature (\S+):\n(.*?)\n(?=----|bits)", output)
    assert [number for number, _ in texts] == ["0.3", "0.7", "1.0"]
    assert len({text for _, text in texts}) == 3
    assert {len(text) for _, text in texts} == {10 + 160}  # write_text has 10 steps
    assert 1 < result_of(output) < 4


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2])
def test_parallel_digits_learns_on_ranks(size, tmp_path, data_dir):
    pytest.importorskip("sklearn")
    script = ROOT / "examples" / "parallel_digits.py"
    arguments = ("-m", "mpi4py", script, "--epochs", 6, "--output-dir", tmp_path)
    command = launching.command(size, *arguments)
    done = subprocess.run(
        command[-len(arguments) - 1 :] if size == 1 else command,
        env=launching.environment() | {"BRAINSTORM_DATA_DIR": str(data_dir)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ranks: ") == done.stdout.count("Stopping") == 1
    assert f"ranks: {size}\n" in done.stdout
    assert result_of(done.stdout) >= 0.7
    assert [f.name for f in tmp_path.iterdir()] == ["parallel_digits_best.hdf5"]


@pytest.mark.slow
def test_search_on_two_processes_finds_what_one_does(tmp_path, data_dir):
    pytest.importorskip("distributed")
    searches = pytest.importorskip("sklearn.model_selection")
    datasets = pytest.importorskip("sklearn.datasets")
    from brainstorm.estimators import NetworkClassifier

    with h5py.File(tmp_path / "digits.hdf5", "w") as file:
        X, y = datasets.load_digits(return_X_y=True)
        for split in ("training", "validation", "test"):
            file[f"{split}/default"] = X[np.newaxis, :300] / 16
            file[f"{split}/targets"] = y[np.newaxis, :300, np.newaxis]
    options = ("--epochs", 2, "--data", tmp_path / "digits.hdf5")
    output = run_example("search_digits.py", *options, data_dir=data_dir)
    workers, *scores, _ = output.splitlines()
    assert workers == "workers: 2"
    search = searches.GridSearchCV(
        NetworkClassifier(epochs=2, batch_size=20, random_state=42),
        {"network": ["F30", "F100"], "stepper__learning_rate": [0.001, 0.01]},
        cv=3,
    ).fit(X[:300] / 16, y[:300])
    found = [float(line.rpartition(": ")[2]) for line in scores]
    assert found == pytest.approx(search.cv_results_["mean_test_score"], abs=1e-3)


@pytest.mark.slow
def test_spiking_classification_learns_and_draws(tmp_path):
    image = pytest.importorskip("matplotlib.image")
    rnd = np.random.RandomState(1)
    with h5py.File(tmp_path / "spikes.hdf5", "w") as file:
        file["split/training/default"] = rnd.random_sample((60, 20, 10)) < 0.05
        file["split/training/targets"] = rnd.randint(2, size=(1, 20, 1))
    options = ("--data", tmp_path / "spikes.hdf5", "--epochs", 80, "--plot")
    name = "spiking_classification"
    output = run_example(f"{name}.py", *options, "--output-dir", tmp_path)
    assert result_of(output) >= 0.8
    assert image.imread(tmp_path / f"{name}.png").std() > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 42])
def test_spiking_classification_reaches_its_accuracy(seed, tmp_path):
    options = ("--seed", seed, "--output-dir", tmp_path)
    assert result_of(run_example("spiking_classification.py", *options)) >= 0.95
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_force_learning_makes_its_movements_by_itself(tmp_path):
    image = pytest.importorskip("matplotlib.image")
    options = ("--epochs", 2, "--output-dir", tmp_path)
    assert result_of(run_example("force_learning.py", *options)) <= 0.05
    assert image.imread(tmp_path / "force_learning.png").std() > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [42, 1])
def test_nvar_goes_on_with_the_series_of_lorenz(seed, tmp_path):
    image = pytest.importorskip("matplotlib.image")
    output = run_example("nvar_lorenz.py", "--seed", seed, "--output-dir", tmp_path)
    assert result_of(output) <= 1e-3
    *_, valid, _ = output.splitlines()
    assert float(re.search(r"for (\S+) Lyapunov times", valid)[1]) >= 5
    assert image.imread(tmp_path / "nvar_lorenz.png").std() > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 42])
def test_force_learning_reaches_its_accuracy(seed, tmp_path):
    pytest.importorskip("matplotlib")
    options = ("--seed", seed, "--output-dir", tmp_path)
    output = run_example("force_learning.py", *options)
    while_learning = float(output.splitlines()[-2].rpartition(":")[2])
    assert while_learning <= 0.02
    assert result_of(output) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("reservoirs", [1, 5])
def test_reservoirs_go_on_with_mackey_glass(reservoirs, tmp_path):
    pytest.importorskip("matplotlib")
    options = ("--epochs", reservoirs, "--output-dir", tmp_path)
    output = run_example("reservoir_mackey_glass.py", *options)
    assert output.count("of a closed loop") == reservoirs
    assert result_of(output) <= 0.15
    assert (tmp_path / "reservoir_mackey_glass.png").exists()


def write_images(path, **parts):
    """A data set of random images for two epochs' worth of looking at the code."""
    rnd = np.random.RandomState(1)
    with h5py.File(path, "w") as f:
        for part, size in parts.items():
            group = f.create_group(f"normalized_split/{part}")
            group["default"] = rnd.rand(1, size, 8, 8, 1)
            group["targets"] = rnd.randint(10, size=(1, size, 1))


def test_cifar10_cnn_runs_and_saves_the_best_network(tmp_path):
    write_images(tmp_path / "images.hdf5", training=100, validation=50)
    options = ("--data", tmp_path / "images.hdf5", "--output-dir", tmp_path)
    output = run_example("cifar10_cnn.py", "--epochs", 1, *options)
    assert 0 <= result_of(output) <= 1
    net = bs.Network.from_hdf5(str(tmp_path / "cifar10_cnn_best.hdf5"))
    assert net.layers["Conv3"].out_shapes["default"].feature_shape == (7, 7, 64)


def write_text(path, steps=10, nr_batches=3):
    """A random text in sequences of which number i goes on in number i + 100."""
    text = np.random.RandomState(1).randint(5, size=100 * nr_batches * steps + 1)
    arrays = np.empty((2, steps, 100 * nr_batches, 1), int)
    for place in range(100):
        for batch in range(nr_batches):
            start = (place * nr_batches + batch) * steps
            for shift in range(2):
                piece = text[start + shift : start + shift + steps]
                arrays[shift, :, 100 * batch + place, 0] = piece
    with h5py.File(path, "w") as f:
        for part in ("training", "validation", "test"):
            f[f"split/{part}/default"], f[f"split/{part}/targets"] = arrays


def test_hutter_lstm_runs_on_other_text(tmp_path):
    write_text(tmp_path / "text.hdf5")
    options = ("--data", tmp_path / "text.hdf5", "--output-dir", tmp_path)
    output = run_example("hutter_lstm.py", "--epochs", 1, *options)
    assert 1 < result_of(output) < 4  # log2(5) is the best that there is


def test_hutter_lstm_refuses_sequences_that_do_not_continue_each_other(tmp_path):
    write_text(tmp_path / "text.hdf5")
    with h5py.File(tmp_path / "text.hdf5", "r+") as f:
        part = f["split/validation"]
        for name in part:
            part[name][...] = part[name][...][:, ::-1]
    options = ("--data", tmp_path / "text.hdf5", "--output-dir", tmp_path)
    with pytest.raises(AssertionError, match="validation: .* continue each other"):
        run_example("hutter_lstm.py", *options)


@pytest.mark.slow
def test_tiny_gpt_learns_writes_and_shows_its_heads(tmp_path):
    image = pytest.importorskip("matplotlib.image")
    write_text(tmp_path / "text.hdf5")
    options = ("--data", tmp_path / "text.hdf5", "--output-dir", tmp_path)
    sizes = ("--size", 8, "--blocks", 1, "--heads", 2, "--characters", 23)
    output = run_example("tiny_gpt.py", "--epochs", 1, *options, *sizes)
    assert 1 < result_of(output) < 4  # log2(5) is the best that there is
    written = output.rstrip().splitlines()[-2]
    assert re.search(r"[ !\"#$]{28}$", written)  # 5 to start with, and 23 more
    assert image.imread(tmp_path / "tiny_gpt.png").std() > 0
    net = bs.Network.from_hdf5(str(tmp_path / "tiny_gpt_best.hdf5"))
    assert net.layers["Block1_Attention"].context_size == 10


@pytest.mark.slow
def test_options_that_are_no_positive_numbers_end_with_a_line(tmp_path):
    pytest.importorskip("matplotlib")
    for name in ("tiny_gpt.py", "image_residual.py"):
        with pytest.raises(AssertionError, match="--size: expected a number above 0"):
            run_example(name, "--size", 0, "--output-dir", tmp_path)


@pytest.mark.slow
def test_image_residual_learns_and_can_do_without_additions(tmp_path, data_dir):
    pytest.importorskip("sklearn")
    options = ("--epochs", 3, "--output-dir", tmp_path)
    output = run_example("image_residual.py", *options, data_dir=data_dir)
    assert result_of(output) >= 0.85
    options = ("--epochs", 1, "--blocks", 1, "--plain", "--output-dir", tmp_path)
    output = run_example("image_residual.py", *options, data_dir=data_dir)
    assert "9 layers of convolutions" in output


def test_missing_data_are_told_how_to_get(tmp_path, data_dir):
    pytest.importorskip("sklearn")
    options = ("--epochs", 1, "--output-dir", tmp_path)
    output = run_example("mnist_pi.py", *options, data_dir=data_dir)
    assert "MNIST.hdf5" in output
    assert "brainstorm data MNIST" in output


@pytest.mark.slow
def test_digits_cnn_reaches_its_accuracy(tmp_path, data_dir):
    pytest.importorskip("sklearn")
    output = run_example("digits_cnn.py", "--output-dir", tmp_path, data_dir=data_dir)
    assert result_of(output) >= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_tell_their_options(name):
    output = run_example(name, "--help")
    for option in ("--epochs", "--gpu", "--data"):
        assert option in output


def test_example_in_the_readme_learns(tmp_path, capsys):
    readme = (ROOT / "README.rst").read_text()
    block = re.search(r"code-block:: python\n\n((?:    .*\n|\n)+)", readme).group(1)
    script = tmp_path / "example.py"
    script.write_text("if True:\n" + block)
    runpy.run_path(str(script))
    assert float(capsys.readouterr().out.split()[-1]) > 0.9

"""Files of earlier versions are read, and mean what they meant then.

``tests/fixtures`` has the programs that wrote them. Files of releases never change.
"""

import json
import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from brainstorm import layers, tools
from brainstorm.data_iterators import Minibatches
from brainstorm.describable import get_description
from brainstorm.files import open_hdf5, read_array
from brainstorm.handlers import NumpyHandler
from brainstorm.hooks import load_logs
from brainstorm.initializers import Gaussian
from brainstorm.structure.architecture import generate_architecture
from brainstorm.structure.network import Network
from brainstorm.training import (
    MomentumStepper,
    NesterovStepper,
    SgdStepper,
    Trainer,
)

FIXTURES = Path(__file__).parent.parent / "fixtures"
# The first were written half way to the release.
RELEASES = ("0.6.0.dev0", "0.6.0")


@pytest.fixture
def make_release_files(monkeypatch):
    monkeypatch.syspath_prepend(str(FIXTURES))
    import make_release_files

    yield make_release_files
    del sys.modules["make_release_files"]


ORIGINALS = sorted(path.stem for path in (FIXTURES / "original").glob("*.hdf5"))


def load_original(name):
    computed = np.load(FIXTURES / "original" / f"{name}.npz")
    net = Network.from_hdf5(FIXTURES / "original" / f"{name}.hdf5")
    np.testing.assert_array_equal(net.get("parameters"), computed["parameters"])
    kinds = [key.partition(".") for key in computed.files]
    data = {rest: computed[f"data.{rest}"] for kind, _, rest in kinds if kind == "data"}
    net.provide_external_data(data)
    return net, computed


def assert_agrees(actual, expected):
    np.testing.assert_allclose(
        actual, expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max()
    )


def test_there_are_files_of_the_original():
    assert len(ORIGINALS) == 7


@pytest.mark.parametrize("name", ORIGINALS)
def test_passes_give_what_the_original_computed(name):
    net, computed = load_original(name)
    net.forward_pass(training_pass=True)
    net.backward_pass()
    assert_agrees(net.get_loss_values()["total_loss"], computed["loss"])
    paths = [key.partition(".")[2] for key in computed.files if key[:6] == "value."]
    assert "gradients" in paths
    for path in paths:
        assert_agrees(net.get(path), computed[f"value.{path}"])
    net.forward_pass()
    assert_agrees(net.get_loss_values()["total_loss"], computed["eval_loss"])


@pytest.mark.parametrize(
    ("kind", "stepper"),
    [
        ("sgd", SgdStepper(0.05)),
        ("momentum", MomentumStepper(0.05, 0.9)),
        ("nesterov", NesterovStepper(0.05, 0.9)),
    ],
)
@pytest.mark.parametrize("name", ORIGINALS)
def test_updates_give_what_the_original_computed(name, kind, stepper):
    net, computed = load_original(name)
    stepper.start(net)
    for _ in range(5):
        stepper.run()
    assert_agrees(net.get("parameters"), computed[f"after.{kind}"])


@pytest.mark.parametrize("name", ORIGINALS)
def test_files_of_the_original_survive_being_saved(name, tmp_path):
    """By name, however the layers of the file that is written are ordered."""
    net, computed = load_original(name)
    net.save_as_hdf5(tmp_path / "again.hdf5")
    again = Network.from_hdf5(tmp_path / "again.hdf5")
    np.testing.assert_array_equal(again.get("parameters"), computed["parameters"])


def wire_original(name):
    """The last layer of a network in `original`, wired as a script of 2015 did."""
    nr_inputs = {"batchnorm": 5, "lstm": 4}.get(name, 6)
    inp, out = tools.get_in_out_layers("classification", nr_inputs, 3)
    fc = layers.FullyConnected
    if name == "batchnorm":
        inp >> fc(6) >> layers.BatchNorm() >> out
    elif name == "lstm":
        inp >> layers.Lstm(6) >> out
    elif name == "clockwork_lstm":
        inp >> layers.ClockworkLstm(6, name="cw") >> out
    elif name == "merge":
        merge = layers.Merge()
        inp >> fc(4, "tanh", name="a") >> "inputs_1" - merge >> out
        inp >> fc(3, name="b") >> "inputs_2" - merge
    return out


@pytest.mark.parametrize("name", ["batchnorm", "clockwork_lstm", "lstm", "merge"])
def test_wiring_gives_the_architecture_that_the_original_wrote(name):
    with h5py.File(FIXTURES / "original" / f"{name}.hdf5") as f:
        description = json.loads(f["description"][()])
    architecture = generate_architecture(wire_original(name))
    assert json.loads(json.dumps(architecture)) == description["architecture"]
    assert get_description(Gaussian(0.5)) == description["initializers"]["default"]


def test_joined_outputs_as_in_the_original():
    """In the order of sorted paths in which each input's stand together."""
    computed = np.load(FIXTURES / "joins_0.5.npz")
    net = Network.from_hdf5(FIXTURES / "joins_0.5.hdf5")
    net.set_handler(NumpyHandler(np.float64))
    np.testing.assert_allclose(
        net.predict(computed["default"]), computed["output"], rtol=1e-12
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_network_of_the_original_format(dtype):
    """Against outputs computed by formulas in NumPy."""
    expected = np.load(FIXTURES / "network_0.5.npz")
    net = Network.from_hdf5(FIXTURES / "network_0.5.hdf5")
    net.set_handler(NumpyHandler(dtype))
    assert net.output_name == "Output.outputs.predictions"
    assert net.initializers["default"]["@type"] == "Gaussian"
    net.provide_external_data(
        {name: expected[name] for name in ("default", "targets", "mask")}
    )
    net.forward_pass()
    rtol = 1e-4 if dtype is np.float32 else 1e-12
    np.testing.assert_allclose(
        net.get(net.output_name), expected["predictions"], rtol=rtol
    )
    loss = net.get_loss_values()["total_loss"]
    np.testing.assert_allclose(loss, expected["loss"], rtol=rtol)


def test_networks_saved_again_keep_the_format_of_the_original(tmp_path):
    """What 0.5 wrote and what is written now differ in nothing that it reads."""
    Network.from_hdf5(FIXTURES / "network_0.5.hdf5").save_as_hdf5(tmp_path / "again")
    with (
        h5py.File(FIXTURES / "network_0.5.hdf5") as old,
        h5py.File(tmp_path / "again") as new,
    ):
        assert set(new) == set(old)
        assert new.attrs["format"] == old.attrs["format"]
        for name in ("shape", "dtype", "compression"):
            found = getattr(new["parameters"], name)
            assert found == getattr(old["parameters"], name)
        np.testing.assert_array_equal(new["parameters"], old["parameters"])
        assert isinstance(new["description"][()], bytes)


def parameters_of(net, version):
    """All parameters; before the release layers lay in the order in which they run."""
    if version != "0.6.0.dev0":
        return net.get("parameters")
    layers = {name: net.buffer[name].parameters for name in net.layers}
    assert list(layers) != sorted(layers)
    return np.concatenate(
        [net.handler.get_numpy_copy(p).ravel() for v in layers.values() for p in v]
    )


@pytest.mark.parametrize("version", RELEASES)
def test_files_of_a_release(version):
    expected = np.load(FIXTURES / f"release_{version}.npz")
    net = Network.from_hdf5(FIXTURES / f"network_{version}.hdf5")
    np.testing.assert_array_equal(parameters_of(net, version), expected["parameters"])
    logs = load_logs(FIXTURES / f"logs_{version}.hdf5")
    assert logs["validation"]["total_loss"] == expected["losses"].tolist()
    with open_hdf5(FIXTURES / f"buffers_{version}.hdf5", "Buffers file v1.0") as f:
        predictions = read_array(f, "Output.outputs.predictions")
    assert predictions.shape == (3, 10, 3)
    np.testing.assert_allclose(predictions.sum(axis=2), 1, rtol=1e-5)


@pytest.mark.parametrize("version", RELEASES)
def test_trainings_of_a_release_go_on(
    version, tmp_path, monkeypatch, make_release_files
):
    expected = np.load(FIXTURES / f"release_{version}.npz")
    monkeypatch.chdir(tmp_path)
    shutil.copy(FIXTURES / f"checkpoint_{version}.hdf5", "checkpoint.hdf5")
    trainer, net = Trainer.load("checkpoint.hdf5")
    assert (trainer.current_epoch_nr, trainer.current_update_nr) == (2, 6)
    batches, others = make_release_files.make_iterators()
    trainer.train(net, batches, **others)
    assert trainer.current_update_nr == 8
    # Other versions of NumPy and other processors may round otherwise.
    np.testing.assert_allclose(
        parameters_of(net, version), expected["parameters"], rtol=1e-3, atol=1e-5
    )
    losses = trainer.logs["validation"]["total_loss"]
    np.testing.assert_allclose(losses, expected["losses"], rtol=1e-4)


# -- files of the development version, whose parameters lie in another order --------


@pytest.fixture
def development(monkeypatch):
    monkeypatch.syspath_prepend(str(FIXTURES))
    import make_development_files

    yield make_development_files, np.load(FIXTURES / "development.npz")
    del sys.modules["make_development_files"]


@pytest.mark.parametrize("stepper", ["adam", "nesterov"])
def test_networks_of_the_development_version(stepper, development, tmp_path):
    """Their flat parameters and their joined outputs are in the order of running."""
    made_by, expected = development
    x = made_by.make_data()["default"]
    net = Network.from_hdf5(FIXTURES / f"development_{stepper}.hdf5")
    assert_agrees(net.predict(x), expected[f"{stepper}.predictions"])
    net.save_as_hdf5(tmp_path / "again.hdf5")
    again = Network.from_hdf5(tmp_path / "again.hdf5")
    assert_agrees(again.predict(x), expected[f"{stepper}.predictions"])


@pytest.mark.parametrize("stepper", ["adam", "nesterov"])
def test_trainings_of_the_development_version_go_on(
    stepper, development, tmp_path, monkeypatch
):
    """Moments, velocities and the best parameters so far are in that order too."""
    made_by, expected = development
    data = made_by.make_data()
    monkeypatch.chdir(tmp_path)
    checkpoint = FIXTURES / f"development_{stepper}_checkpoint.hdf5"
    trainer, net = Trainer.load(checkpoint)
    trainer.train(net, Minibatches(3, **data), valid=Minibatches(12, **data))
    np.testing.assert_allclose(
        net.predict(data["default"]), expected[f"{stepper}.predictions"], rtol=1e-9
    )
    best = trainer.hooks["SaveBestNetwork"].load_best_network()
    assert_agrees(best.predict(data["default"]), expected[f"{stepper}.best"])

"""Files of earlier versions are read, and mean what they meant then.

``tests/fixtures`` has the programs that wrote them. Files of releases never change.
"""

import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from brainstorm.files import open_hdf5, read_array
from brainstorm.handlers import NumpyHandler
from brainstorm.hooks import load_logs
from brainstorm.structure.network import Network
from brainstorm.training import Trainer

FIXTURES = Path(__file__).parent.parent / "fixtures"
RELEASES = ("0.6.0",)


@pytest.fixture
def make_release_files(monkeypatch):
    monkeypatch.syspath_prepend(str(FIXTURES))
    import make_release_files

    yield make_release_files
    del sys.modules["make_release_files"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_network_of_the_original(dtype):
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


@pytest.mark.parametrize("version", RELEASES)
def test_files_of_a_release(version):
    expected = np.load(FIXTURES / f"release_{version}.npz")
    net = Network.from_hdf5(FIXTURES / f"network_{version}.hdf5")
    np.testing.assert_array_equal(net.get("parameters"), expected["parameters"])
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
        net.get("parameters"), expected["parameters"], rtol=1e-3, atol=1e-5
    )
    losses = trainer.logs["validation"]["total_loss"]
    np.testing.assert_allclose(losses, expected["losses"], rtol=1e-4)

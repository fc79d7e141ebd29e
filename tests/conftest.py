import gc
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# Not what was found out for the one who runs the tests.
os.environ["BRAINSTORM_TUNING"] = "off"

from brainstorm import layers
from brainstorm.data_iterators import Minibatches
from brainstorm.describable import Describable
from brainstorm.handlers import NumpyHandler
from brainstorm.layers.base_layer import Layer
from brainstorm.structure.network import Network
from tests.published import server as server
from tests.published import small as small

# Scripts with mistakes, and those that make the files.
collect_ignore = ["fixtures"]

GPU = ("test_cuda_", "test_pycuda_")
DOCS = Path(__file__).resolve().parents[1] / "docs"

# How long values take to be drawn is a matter of the machine.
settings.register_profile(
    "any machine",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("any machine")


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Have the collector leave the many thousands of tests alone, which all stay."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Refuse names with addresses, which differ between parallel workers.

    What computes on the emulated GPU is slow, all of it together.
    """
    for item in items:
        if " at 0x" in item.nodeid:
            raise pytest.UsageError(f"give the parameters ids: {item.nodeid}")
        if "emulated" in item.nodeid or item.path.name.startswith(GPU):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The folder of the HTML pages, which all workers share."""
    pytest.importorskip("pydata_sphinx_theme")
    fcntl = pytest.importorskip("fcntl")
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    log = folder / "docs.log"
    with (folder / "docs.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not log.exists():
            command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q"]
            command += ["-b", "html", "-d", folder / "doctrees", DOCS, folder / "html"]
            result = subprocess.run(command, capture_output=True, text=True)
            log.write_text(result.stderr if result.returncode else "", encoding="utf-8")
    assert log.read_text(encoding="utf-8") == ""
    return folder / "html"


@pytest.fixture(autouse=True, scope="session")
def surroundings():
    """What is the same for all who run the tests, and for processes that these start.

    Servers of the tests are asked themselves, even where others are not.
    """
    with pytest.MonkeyPatch.context() as patch:
        known = [os.environ[n] for n in ("no_proxy", "NO_PROXY") if os.environ.get(n)]
        patch.setenv("no_proxy", ",".join([*known[:1], "127.0.0.1", "localhost"]))
        patch.setenv("PYTHONPATH", str(DOCS.parent), prepend=os.pathsep)
        patch.setenv("COLUMNS", "80")
        patch.delenv("FORCE_COLOR", raising=False)
        yield


@pytest.fixture(scope="session")
def short_folder():
    """A temporary folder whose path is short: sockets of browsers lie in there."""
    with tempfile.TemporaryDirectory(
        dir="/tmp" if os.access("/tmp", os.W_OK) else None, ignore_cleanup_errors=True
    ) as folder:
        yield folder


@pytest.fixture(autouse=True, scope="module")
def own_classes(request):
    """Names mean the classes of the tests that run, as if there were no others."""
    for cls in vars(request.module).values():
        if isinstance(cls, type) and cls.__module__ == request.module.__name__:
            if issubclass(cls, Describable):
                Describable.__init_subclass__.__func__(cls)
            if issubclass(cls, Layer):
                Layer.__init_subclass__.__func__(cls)


@pytest.fixture
def ctrl_c():
    """Ctrl-C interrupts, also where the tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def net():
    """A linear regression 3 -> 2: loss = sum 0.5 (x W' + b - t)^2 / batch size."""
    inp = layers.Input({"default": ("T", "B", 3), "targets": ("T", "B", 2)})
    error = layers.SquaredError(name="Output")
    inp >> layers.FullyConnected(2, activation="linear", name="Fc") >> error
    inp - "targets" >> "targets" - error
    error - "loss" >> layers.Loss()
    net = Network.from_layer(inp)
    net.set_handler(NumpyHandler(np.float64))
    rnd = np.random.RandomState(1)
    net.initialize({"Fc": {"W": rnd.randn(2, 3), "bias": rnd.randn(2)}})
    return net


@pytest.fixture
def data():
    rnd = np.random.RandomState(2)
    return {"default": rnd.randn(1, 10, 3), "targets": rnd.randn(1, 10, 2)}


@pytest.fixture
def batches(data):
    """Three batches of 4, 4 and 2."""
    return Minibatches(4, shuffle=False, **data)

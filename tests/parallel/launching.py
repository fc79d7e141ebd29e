"""Runs functions of the tests on several ranks: one launch for many of them.

A case is a function ``case(comm)``. On each rank it returns something for JSON; what it
raises counts as a text.
"""

import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# More ranks than cores, and ranks of the superuser, are what it would refuse.
OF_OPEN_MPI = "OMPI_MCA_rmaps_base_oversubscribe", "OMPI_ALLOW_RUN_AS_ROOT"
OF_OPEN_MPI = *OF_OPEN_MPI, "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"


def mpiexec():
    """The launcher that belongs to the MPI of mpi4py; skips the test without one.

    MPICH crashes where ranks do not get the shared memory that they want.
    """
    pytest.importorskip("mpi4py")
    if Path("/dev/shm").is_dir():
        free = shutil.disk_usage("/dev/shm").free
        if free < 8 * 2**20:
            pytest.skip("/dev/shm is too small for MPI")
        if free < 64 * 2**20:
            os.environ.setdefault("UCX_TLS", "tcp,self")
    beside = Path(sys.executable).parent / "mpiexec"
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        pytest.skip("there is no mpiexec")
    return found


def environment():
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    threads = dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"], "1")
    return {**os.environ, **threads, "PYTHONPATH": path}


def command(size, *args):
    for name in OF_OPEN_MPI:
        os.environ.setdefault(name, "1")
    return [mpiexec(), "-n", str(size), sys.executable, *map(str, args)]


def on_ranks(size, module, *cases, seconds=600, **variables):
    """Run cases of a module on ranks.

    Returns:
        What they returned: by the name of the case a list by ranks.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = command(size, "-m", __name__, folder, module, *cases)
        done = subprocess.run(
            run,
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env={**environment(), **variables},
            timeout=seconds,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        files = [Path(folder, str(rank)) for rank in range(size)]
        by_rank = [json.loads(file.read_text()) for file in files]
    return {case: [results[case] for results in by_rank] for case in cases}


def run(case, comm):
    try:
        return case(comm)
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


def main(folder, module, *cases):
    from mpi4py import MPI

    warnings.simplefilter("error")
    found = importlib.import_module(module)
    results = {}
    for name in cases:
        results[name] = run(getattr(found, name), MPI.COMM_WORLD)
        MPI.COMM_WORLD.Barrier()
    Path(folder, str(MPI.COMM_WORLD.rank)).write_text(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])

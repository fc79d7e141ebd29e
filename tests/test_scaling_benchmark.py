"""The model of `benchmarks.scaling`, and that it measures. Nothing is timed."""

import argparse
import itertools
import math

import pytest

from benchmarks import scaling
from benchmarks.scaling import Link, Step, efficiency, limit

LINK = Link("some", latency=1e-5, bandwidth=1e9, hides=0.0)


def test_a_sum_over_ranks():
    assert LINK.seconds(1, 10**6) == 0
    # Two ranks send each other all there is, or both halves: the same bytes.
    assert LINK.seconds(2, 10**6) == pytest.approx(1e-3, rel=0.02)
    assert LINK.seconds(2, 8) == pytest.approx(5e-6, rel=0.01)
    # A ring sends all twice, however many there are.
    assert LINK.seconds(64, 10**9) == pytest.approx(2.0, rel=0.03)
    # Short messages take as many rounds as the number of ranks can be halved.
    assert LINK.seconds(1024, 8) == pytest.approx(10 * LINK.latency, rel=0.01)


def test_efficiency_falls_with_ranks_and_slow_links():
    step = Step(seconds=0.05, gradients=10**7, last=10**6, backward=0.02)
    fast = Link("fast", 1e-6, 1e11, hides=0.0)
    for link in (LINK, fast):
        shares = [efficiency(step, n, link) for n in scaling.RANKS]
        assert shares[0] == 1
        assert all(a >= b > 0 for a, b in itertools.pairwise(shares))
        assert all(map(math.isfinite, shares))
    assert efficiency(step, 64, fast) > efficiency(step, 64, LINK)
    assert limit(step, 64, fast) == "compute"
    assert limit(step, 64, LINK) == "bandwidth"
    late = Link("late", 1e-3, 1e11, hides=0.0)
    assert limit(step, 64, late) == "latency"


def test_an_exchange_hides_behind_what_is_left_of_the_pass():
    hiding = Link("hiding", 1e-5, 1e9, hides=1.0)
    step = Step(seconds=0.05, gradients=10**7, last=10**6, backward=1.0)
    assert step.with_ranks(2, hiding) == pytest.approx(0.05 + hiding.seconds(2, 10**6))
    busy = Step(seconds=0.05, gradients=10**7, last=10**6, backward=0.001)
    expected = 0.05 + LINK.seconds(2, 10**7) - 0.001
    assert busy.with_ranks(2, hiding) == pytest.approx(expected)


@pytest.mark.slow
def test_it_measures(capsys, tmp_path, monkeypatch):
    pytest.importorskip("mpi4py")
    pytest.importorskip("matplotlib")
    if scaling.launcher() is None:
        pytest.skip("there is no mpiexec")
    args = argparse.Namespace(handler="NumpyHandler", rounds=2, threads=1)
    found = {"small": scaling.report("small", args)}
    shown = capsys.readouterr().out
    assert "two ranks, predicted" in shown
    assert "200 Gb/s InfiniBand" in shown
    step, links = found["small"]
    assert step.gradients >= step.last > 0
    assert [link.bandwidth > 0 for link in links] == [True] * 4
    scaling.plot(found, str(tmp_path / "plot.png"))
    assert (tmp_path / "plot.png").stat().st_size > 1000

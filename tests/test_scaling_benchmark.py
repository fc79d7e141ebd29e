"""The model of how training scales, and the command that measures for it."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import allreduce, ranks, scaling
from benchmarks.allreduce import Link, Message, Step
from benchmarks.works import load
from tests.parallel import launching

ROOT = Path(__file__).resolve().parents[1]

LINK = Link("link", 2e-6, 1e9, 1e-10)


@pytest.mark.parametrize(
    ("algorithm", "ranks", "messages", "sent", "added"),
    [
        ("recursive_doubling", 2, 1, 1, 1),
        ("recursive_doubling", 8, 3, 3, 3),
        ("recursive_doubling", 6, 4, 4, 3),  # two ranks stand back
        ("halving_doubling", 2, 2, 1, 0.5),
        ("halving_doubling", 8, 6, 2 * 7 / 8, 7 / 8),
        ("halving_doubling", 4096, 24, 2 * 4095 / 4096, 4095 / 4096),
        ("halving_doubling", 6, 6, 2 * 3 / 4 + 2, 3 / 4 + 1),
        ("ring", 2, 2, 1, 0.5),
        ("ring", 6, 10, 2 * 5 / 6, 5 / 6),
        ("ring", 8, 14, 2 * 7 / 8, 7 / 8),
    ],
)
def test_costs_of_algorithms(algorithm, ranks, messages, sent, added):
    size = 1e6
    expected = messages * 2e-6 + sent * size / 1e9 + added * size * 1e-10
    found = getattr(allreduce, algorithm)(size, ranks, LINK)
    assert found == pytest.approx(expected, rel=1e-12)


def summed_by_ring(arrays):
    """Sum arrays as `ring` says; returns them, rounds, and numbers that each sends."""
    p = len(arrays)
    parts, rounds, sent = [np.split(a.copy(), p) for a in arrays], 0, 0
    for gathers in (False, True):
        for step in range(p - 1):
            moving = [(r, (r - step + gathers) % p) for r in range(p)]
            messages = [(r, part, parts[r][part].copy()) for r, part in moving]
            for r, part, message in messages:
                target = parts[(r + 1) % p]
                target[part] = message + (0 if gathers else target[part])
            rounds, sent = rounds + 1, sent + len(messages[0][2])
    return [np.concatenate(own) for own in parts], rounds, sent


def summed_by_halves(arrays):
    """The same as `halving_doubling` says."""
    p, size, rounds, sent = len(arrays), len(arrays[0]), 0, 0
    arrays, own = [a.copy() for a in arrays], [(0, size)] * p
    distances = [2**i for i in range(p.bit_length() - 1)]
    for d in distances:
        before = [a.copy() for a in arrays]
        for r in range(p):
            start, stop = own[r]
            half = (start + stop) // 2
            own[r] = (half, stop) if r & d else (start, half)
            part = slice(*own[r])
            arrays[r][part] = before[r][part] + before[r ^ d][part]
        rounds, sent = rounds + 1, sent + (stop - start) // 2
    for d in reversed(distances):
        before, held = [a.copy() for a in arrays], list(own)
        for r in range(p):
            (start, stop), other = held[r], held[r ^ d]
            arrays[r][slice(*other)] = before[r ^ d][slice(*other)]
            own[r] = min(start, other[0]), max(stop, other[1])
        rounds, sent = rounds + 1, sent + stop - start
    return arrays, rounds, sent


@pytest.mark.parametrize("ranks", [2, 4, 8])
@pytest.mark.parametrize(
    ("algorithm", "summed"),
    [("ring", summed_by_ring), ("halving_doubling", summed_by_halves)],
)
def test_costs_are_those_of_doing_it(algorithm, summed, ranks):
    arrays = list(np.random.RandomState(1).randint(9, size=(ranks, 16)))
    results, rounds, sent = summed(arrays)
    for result in results:
        np.testing.assert_array_equal(result, sum(arrays))
    link = Link("link", 1.0, 1e3)
    expected = rounds + sent / 1e3
    assert getattr(allreduce, algorithm)(16, ranks, link) == pytest.approx(expected)


def test_short_and_long_messages_go_different_ways():
    assert allreduce.allreduce(1e9, 1, LINK) == 0
    for size, best in ((8, "recursive_doubling"), (1e8, "halving_doubling")):
        found = allreduce.allreduce(size, 1024, LINK)
        assert found == getattr(allreduce, best)(size, 1024, LINK)
    assert allreduce.allreduce(1e8, 6, LINK) == allreduce.ring(1e8, 6, LINK)


@pytest.mark.parametrize("ranks", [2, 4])
def test_links_are_fitted(ranks):
    link = Link("here", 3e-6, 2e9)
    sizes = [16, 1024, 2**20, 2**24]
    rounds = {2: 1, 4: 2}[ranks]
    seconds = [
        rounds * link.latency + 2 * (1 - 1 / ranks) * n / link.bandwidth for n in sizes
    ]
    found = allreduce.fit("here", sizes, seconds, ranks)
    assert found.latency == pytest.approx(3e-6)
    assert found.bandwidth == pytest.approx(2e9)
    if ranks == 2:
        times = [allreduce.allreduce(n, 2, found) for n in sizes]
        np.testing.assert_allclose(times, seconds)


STEP = Step(
    [1, 100, 200],
    [1e-3, 10e-3, 20e-3],
    [2e-3, 20e-3, 40e-3],
    [5e-3, 5e-3, 5e-3],
    [Message(0.5, 4_000_000), Message(1.0, 1_000_000)],
    extra=1e-3,
)
FAST = Link("fast", 0.0, 1e9)


def test_time_of_a_step():
    assert STEP.compute(100) == pytest.approx(35e-3)
    assert STEP.compute(150) == pytest.approx(50e-3)
    assert STEP.seconds(100, 1, FAST, overlap=True) == pytest.approx(35e-3)
    # 4 MB take 4 ms on two ranks, from 20 ms on; 1 MB one, from 30 ms on
    assert STEP.seconds(100, 2, FAST, overlap=True) == pytest.approx(37e-3)
    assert STEP.seconds(100, 2, FAST, overlap=False) == pytest.approx(41e-3)
    # the second has to wait for the first: 10 + 10 + 40 + 10 + 5 + 1
    slow = replace(FAST, bandwidth=1e8)
    assert STEP.seconds(100, 2, slow, overlap=True) == pytest.approx(76e-3)
    assert STEP.seconds(100, 2, slow, overlap=False) == pytest.approx(86e-3)


def test_efficiency_and_what_limits_it():
    weak = STEP.efficiency(100, 100, 2, FAST, overlap=True)
    assert weak == pytest.approx(35 / 37)
    strong = STEP.efficiency(200, 100, 2, FAST, overlap=False)
    assert strong == pytest.approx(65 / 2 / 41)
    assert STEP.limit(200, 100, 2, FAST) == "small batches"
    assert STEP.limit(100, 100, 2, replace(FAST, bandwidth=1e8)) == "bandwidth"
    assert STEP.limit(100, 100, 2, replace(FAST, latency=0.1)) == "latency"
    busy = replace(STEP, extra=0.1)
    assert busy.limit(100, 100, 2, FAST) == "the calls of an exchange"


def test_tables():
    lines = scaling.table("work", STEP, [FAST], 200, weak=False).splitlines()
    assert "all ranks have 200 sequences" in lines[0]
    assert [int(line.split()[0]) for line in lines[3:-1]] == [2**i for i in range(8)]
    values = [float(word) for word in lines[4].split()]
    assert values == [2, 37.0, 88, 79]
    assert lines[-1] == "fast: below 80% from 4 ranks on, by small batches"
    lines = scaling.table("work", STEP, [FAST], 100, weak=True).splitlines()
    assert lines[-2].split()[0] == "4096"
    assert lines[-1] == "fast: 80% and more as far as this goes"


@pytest.mark.parametrize("name", ["small", "mnist_pi", "lstm"])
def test_messages_are_all_gradients(name):
    summary, *messages = ranks.Member().messages(name, "NumpyHandler")
    assert summary[1] == 8 * 3  # two sizes and a loss
    net = ranks.make_network(load(name), "NumpyHandler", load(name).our_variants[0])
    sizes = [size for _, size in messages]
    assert sum(sizes) == net.get("parameters").nbytes
    ready = [share for share, _ in messages]
    assert ready == sorted(ready)
    assert 0 < ready[0] <= ready[-1] <= 1
    if name == "mnist_pi":  # the last layers are ready first
        inputs, hidden, classes, batch = 784, 1200, 10, 100
        last = 2 * batch * hidden * (hidden + classes)
        assert ready[0] == pytest.approx(last / (last + batch * inputs * hidden))


def test_a_bucket_for_everything_leaves_nothing_to_overlap():
    member = ranks.Member()
    _, *several = member.messages("mnist_pi", "NumpyHandler")
    _, *single = member.messages("mnist_pi", "NumpyHandler", scaling.ALL)
    size = 4 * (785 * 1200 + 1201 * 1200 + 1201 * 10)
    assert single == [(1.0, size)]
    assert len(several) == 2
    hidden_1 = 4 * 785 * 1200
    # The first layer computes no deltas of its inputs.
    left = 784 * 1200 / (784 * 1200 + 2 * 1200 * 1200 + 2 * 1200 * 10)
    assert scaling.describe_messages("mnist_pi", several).splitlines() == [
        f"mnist_pi: {size:,} bytes of gradients in 2 messages",
        f"{size - hidden_1:14,} bytes, {left:4.0%} of the backward pass to come",
        f"{hidden_1:14,} bytes,   0% of the backward pass to come",
    ]


def test_what_limits_ranks_that_there_are():
    found = scaling.Check(10e-3, 12e-3, 12e-3, 13e-3, 13e-3)
    assert found.limit().startswith("3 ms are lost, 2 of them since ranks that compute")
    found = scaling.Check(10e-3, 11e-3, 12e-3, 13e-3, 14e-3)
    assert found.limit().startswith("4 ms are lost, 3 of them in the exchange, for")


def test_bad_arguments(capsys):
    for words in (["lenet"], ["--ranks", "1"], ["--link", "ours:1"], ["--steps", "0"]):
        with pytest.raises(SystemExit):
            scaling.parse(words)
        assert "error" in capsys.readouterr().err
    assert scaling.parse_link("ours:2:12.5") == Link("ours", 2e-6, 12.5e9)


def run(*words):
    launching.mpiexec()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scaling", "small", "--steps", "2", *words],
        cwd=ROOT,
        env=launching.environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_command_measures_predicts_and_draws(tmp_path):
    image = pytest.importorskip("matplotlib.image")
    file = tmp_path / "scaling.png"
    words = "--largest", "4096", "--link", "ours:2:12.5", "--plot"
    output = run(*words, str(file))
    for text in (
        "adding included",
        "small: 2 ranks of 16 sequences each",
        "measured / predicted",
        "ms are lost",
        "small: weak scaling, each rank has 16 sequences",
        "small: strong scaling, all ranks have 32 sequences",
        "ours: ",
    ):
        assert text in output
    assert image.imread(file).std() > 0


@pytest.mark.slow
def test_buckets_and_a_single_one_take_turns():
    output = run("--overlap", "--rounds", "1")
    assert "small: 3,084 bytes of gradients in 1 messages" in output
    rows = output.partition("small: batches of 32 in all")[2].splitlines()[1:]
    names = [row[:40].strip() for row in rows]
    assert names == ["2 ranks, in buckets", "2 ranks, at the end"]
    assert rows[0].endswith("1.000x")


@pytest.mark.slow
def test_ranks_and_threads_take_turns():
    output = run("--turns", "--rounds", "1")
    rows = output.partition("small: batches of 32 in all")[2].splitlines()[1:]
    assert [row[:40].strip() for row in rows] == [
        "2 ranks x 1 thread",
        "1 process x 1 thread",
        "1 process x 2 threads",
    ]
    assert rows[0].endswith("1.000x")

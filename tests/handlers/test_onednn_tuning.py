"""Which of the library's ways OneDnnHandler goes: tried out, kept, and agreeing."""

import contextlib
import json
import os
import subprocess
import sys
import textwrap
import threading
import warnings

import numpy as np
import pytest

import brainstorm as bs
from brainstorm.handlers import NumpyHandler
from brainstorm.handlers.onednn import binding, convolutions, images, machine, tuning
from brainstorm.handlers.onednn.definitions import (
    Algorithm,
    LastReachedError,
    Layout,
    Prop,
)
from brainstorm.handlers.onednn.recipes import layout
from brainstorm.handlers.onednn.tuning import FIRST, Tuning, Way
from brainstorm.handlers.onednn_handler import OneDnnHandler
from brainstorm.handlers.operations.images import Windows
from brainstorm.utils import ValidationError
from tests.handlers.handler_cases import onednn_handler

KEY, WAYS = "a convolution", {"outputs": Way(1, False)}


@pytest.fixture(autouse=True)
def library():
    onednn_handler()
    return binding.load_library()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The file in which choices are kept, which is not there yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "brainstorm" / tuning.FILE


@pytest.fixture
def handler_with(cache, monkeypatch):
    """Makes a handler for some value of the variable."""

    def make(mode):
        monkeypatch.setenv(tuning.VARIABLE, mode)
        return OneDnnHandler(threads=1)

    return make


@pytest.fixture
def deciding(monkeypatch):
    """Instead of the clock something else decides which call is faster."""

    def decide(is_faster):
        monkeypatch.setattr(tuning, "_MIN_WORK", 1)
        monkeypatch.setattr(tuning, "_is_clearly_faster", is_faster)

    return decide


@pytest.fixture
def used(monkeypatch):
    """Which implementations are asked for, by kind: their numbers from 0 on."""
    numbers, primitive = [], binding.Library.primitive

    def note(self, kind, *args, **kwargs):
        if "convolution" in kind:
            numbers.append((kind, args[5] if len(args) > 5 else 0))
        return primitive(self, kind, *args, **kwargs)

    monkeypatch.setattr(binding.Library, "primitive", note)
    return numbers


def randn(*shape, seed=0):
    return np.random.RandomState(seed).randn(*shape).astype(np.float32)


# -- convolutions of all kinds -----------------------------------------------

SHAPES = {
    "plain": ((6, 9, 8, 16), (16, 3, 3, 16), 1, (1, 1), (1, 1), 1),
    "colours": ((3, 12, 11, 3), (20, 5, 5, 3), 2, (2, 1), (1, 1), 1),
    "dilated": ((4, 9, 9, 3), (8, 3, 3, 3), 2, (1, 1), (2, 2), 1),
    "groups": ((2, 8, 8, 8), (16, 3, 3, 4), 1, (1, 1), (1, 1), 2),
    "channel by channel": ((5, 8, 8, 32), (32, 3, 3, 1), 1, (1, 1), (1, 1), 32),
    "pixels": ((3, 8, 8, 16), (24, 1, 1, 16), 0, (1, 1), (1, 1), 1),
}


class Convolution:
    """Both passes, on arrays that begin with the same values for each handler."""

    def __init__(self, handler, name="plain", fresh=True, activation="rel"):
        shape, kernels, padding, stride, dilation, groups = SHAPES[name]
        self.windows = Windows(kernels[1:3], padding, stride, dilation, groups)
        size = self.windows.counted(shape)
        shapes = shape, kernels, kernels[:1], (shape[0], *size, kernels[0])
        x, W, bias, y = (randn(*s, seed=n) for n, s in enumerate(shapes))
        dx, dW, dbias, dy = (randn(*s, seed=9 + n) for n, s in enumerate(shapes))
        arrays = (x, W, bias, y, dx, dW, dbias, dy)
        self.arrays = [handler.create_from_numpy(a) for a in arrays]
        self.handler, self.activation, self.fresh = handler, activation, fresh

    def forward(self):
        x, W, bias, y, *_ = self.arrays
        _, padding, stride, *other = self.windows
        given = x, W, bias, y, padding, stride, self.activation, *other
        self.handler.conv2d_forward_batch(*given)
        return [y]

    def backward(self):
        x, W, _, y, dx, dW, dbias, dy = self.arrays
        _, padding, stride, *other = self.windows
        self.handler.conv2d_backward_batch(
            *(x, W, padding, stride, dx, dy, dW, dbias, self.activation, y),
            *(self.fresh, self.fresh, *other),
        )
        return [dx, dW, dbias]

    def both(self):
        return [a.copy() for a in (*self.forward(), *self.backward())]


@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "added"])
@pytest.mark.parametrize(
    "name",
    [
        name if name == "groups" else pytest.param(name, marks=pytest.mark.slow)
        for name in SHAPES
    ],
)
def test_all_ways_agree(handler_with, name, fresh):
    """What any way computes is what NumPy does in float64."""
    exact = Convolution(NumpyHandler(np.float64), name, fresh)
    forward, backward = exact.forward(), exact.backward()
    ours = Convolution(handler_with("off"), name, fresh)
    ours.forward()
    x, W, bias, y, dx, dW, dbias, dy = ours.arrays
    session = ours.handler.current_session()
    before = [a.copy() for a in (y, dx, dW, dbias)]

    def check(build, arrays, options, slot, results, expected):
        def prepare(ways):
            return build(session, *arrays, *options, ways)

        others = list(tuning._others(prepare, {}, slot))
        assert others
        for ways, call in [({}, prepare({})), *others]:
            for array, start in zip((y, dx, dW, dbias), before, strict=True):
                array[...] = start
            call()
            for got, correct in zip(results, expected, strict=True):
                np.testing.assert_allclose(
                    got, correct, rtol=1e-4, atol=2e-4, err_msg=str(ways)
                )

    options = ours.windows, "rel"
    arrays = x, W, bias, y
    check(convolutions._convolution, arrays, options, "outputs", [y], forward)
    arrays = x, W, dx, dy, dW, dbias, y
    options = *options, fresh, fresh
    how = convolutions._convolution_backward, arrays, options
    for slot in ("weight_deltas", "in_deltas"):
        check(*how, slot, [dx, dW, dbias], backward)


TUNED = sorted(images.FUSED - convolutions._ONLY_FIRST)


@pytest.mark.parametrize("activation", TUNED)
def test_all_ways_keep_nan(handler_with, activation):
    ours = Convolution(handler_with("off"), "groups", activation=activation)
    exact = Convolution(NumpyHandler(np.float64), "groups", activation=activation)
    for each in (ours, exact):
        each.arrays[0][1, 4, 3, 2] = np.nan
    (expected,) = exact.forward()
    assert 0 < np.isnan(expected).sum() < expected.size
    session, (x, W, bias, y, *_) = ours.handler.current_session(), ours.arrays

    def prepare(ways):
        arrays, options = (x, W, bias, y), (ours.windows, activation)
        return convolutions._convolution(session, *arrays, *options, ways)

    for ways, call in tuning._others(prepare, {}, "outputs"):
        call()
        np.testing.assert_allclose(y, expected, 1e-4, 1e-4, err_msg=str(ways))


@pytest.mark.parametrize("activation", sorted(convolutions._ONLY_FIRST))
def test_functions_that_only_first_choices_are_for(
    handler_with, cache, deciding, activation
):
    deciding(lambda *calls: True)
    Convolution(handler_with("on"), activation=activation).forward()
    content = json.loads(cache.read_text())
    assert list(content["choices"].values()) == [{}]
    for key in content["choices"]:
        content["choices"][key] = {"outputs": [1, False]}
    cache.write_text(json.dumps(content))
    (y,) = Convolution(handler_with("kept"), activation=activation).forward()
    (expected,) = Convolution(handler_with("off"), activation=activation).forward()
    np.testing.assert_array_equal(y, expected)


def test_implementations_by_number(library):
    x, w, y = randn(2, 8, 9, 9), randn(16, 8, 3, 3), randn(2, 16, 7, 7)
    args = (
        *(Prop.FORWARD_TRAINING, Algorithm.CONVOLUTION_DIRECT),
        *(layout(x), Layout(w.shape), None, layout(y)),
        *((1, 1), (0, 0), (0, 0), (0, 0)),
    )

    def make(number):
        return library.primitive("convolution_forward", args, number=number)

    found = []
    with contextlib.suppress(LastReachedError):
        for number in range(99):
            found.append(make(number))
    names = [primitive.implementation for primitive in found]
    assert 1 < len(names) < 99
    assert len(set(names)) > 1
    assert all(make(number) is primitive for number, primitive in enumerate(found))
    found.clear()  # whatever the library's own cache has now
    assert [make(number).implementation for number in range(len(names))] == names
    assert [make(number).implementation for number in range(len(names))] == names
    with pytest.raises(LastReachedError, match="last implementation reached"):
        make(99)


# -- trying out --------------------------------------------------------------


def test_what_is_faster_is_kept_and_used(handler_with, cache, deciding, used):
    deciding(lambda *calls: True)  # the last way of each
    first = Convolution(handler_with("on")).both()
    content = json.loads(cache.read_text())
    chosen = [dict(ways) for ways in content["choices"].values()]
    assert sorted(name for ways in chosen for name in ways) == [
        *("in_deltas", "outputs", "weight_deltas")
    ]
    assert any(number for ways in chosen for number, _ in ways.values())

    deciding(lambda *calls: pytest.fail("it is known"))
    for mode in ("on", "kept", ""):
        used.clear()
        again = Convolution(handler_with(mode)).both()
        for one, other in zip(first, again, strict=True):
            np.testing.assert_array_equal(one, other)
        assert any(number for _, number in used)
    used.clear()
    off = Convolution(handler_with("off")).both()
    assert used
    assert not any(number for _, number in used)
    for one, other in zip(first, off, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_only_what_is_asked_for_is_tried(handler_with, cache, deciding):
    deciding(lambda *calls: pytest.fail("nobody asked for it"))
    for mode in ("kept", "off", ""):
        Convolution(handler_with(mode)).both()
    assert not cache.parent.exists()


def test_first_choices_are_kept_too(handler_with, cache, deciding):
    deciding(lambda *calls: False)
    expected = Convolution(handler_with("off")).both()
    got = Convolution(handler_with("on")).both()
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert list(json.loads(cache.read_text())["choices"].values()) == [{}, {}]
    deciding(lambda *calls: pytest.fail("it is known"))
    Convolution(handler_with("on")).both()


def test_little_work_is_not_worth_it(handler_with, cache, monkeypatch):
    monkeypatch.setattr(tuning, "_is_clearly_faster", lambda *calls: pytest.fail("no"))
    monkeypatch.setattr(tuning, "_MIN_WORK", 10**9)
    Convolution(handler_with("on")).both()
    assert not cache.exists()


@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "added"])
def test_arrays_keep_their_values_meanwhile(handler_with, deciding, fresh):
    ours = Convolution(handler_with("on"), fresh=fresh)
    exact = Convolution(NumpyHandler(np.float64), fresh=fresh)
    tries = []

    def run_and_look(call, other, clock):
        call()
        other()
        tries.append(call)
        for array, before in zip(ours.arrays, values, strict=True):
            np.testing.assert_array_equal(array, before)
        return True

    deciding(run_and_look)
    values = [a.copy() for a in ours.arrays]
    forward = ours.forward()
    values = [a.copy() for a in ours.arrays]
    results = [*forward, *ours.backward()]
    assert tries
    for got, expected in zip(
        results, [*exact.forward(), *exact.backward()], strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("error", [MemoryError, bs.utils.HandlerError])
@pytest.mark.parametrize("where", ["_like", "_is_clearly_faster"])
def test_what_fails_meanwhile_leaves_the_first_choice(
    handler_with, cache, deciding, monkeypatch, where, error, used
):
    tries = []

    def fail(*args):
        tries.append(args)
        raise error

    deciding(lambda *calls: True)
    monkeypatch.setattr(tuning, where, fail)
    expected = Convolution(handler_with("off")).both()
    handler = handler_with("on")
    used.clear()
    for _ in range(2):  # tried once for each pass, not again
        got = Convolution(handler).both()
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_array_equal(one, other)
        assert len(tries) == 2
        handler._start_anew()
    assert json.loads(cache.read_text())["choices"] == {}


def test_arrays_with_gaps_are_tried_in_their_layout():
    array = randn(3, 8, 10, 12)[::2, 1:, ::-1, 2:7]
    like = tuning._like(array)
    assert like.strides == array.strides
    assert like.shape == array.shape
    assert not np.may_share_memory(like, array)
    like[...] = 1
    assert tuning._like(None) is None


def test_times_decide_where_they_agree():
    """In the middle of all rounds as at best, and not where they are all over."""

    def decide(ours, others):
        now = [0.0]
        times = {True: iter(ours), False: iter(others)}

        def run(is_mine):
            now[0] += next(times[is_mine])

        return tuning._is_clearly_faster(
            lambda: run(True), lambda: run(False), lambda: now[0]
        )

    rounds = tuning._ROUNDS
    assert decide([9.0] + [0.8] * rounds, [1.0] * rounds)
    assert not decide([9.0] + [0.95] * rounds, [1.0] * rounds)
    assert not decide([0.5] + [2.0] * 3, [1.0] * 3)
    assert not decide([9.0, 0.5] + [0.95] * rounds, [1.0] * rounds)
    with pytest.raises(bs.utils.HandlerError, match="busy"):
        decide([0.8] * (rounds + 1), [1.0, 2.0, 2.0] * rounds)


def test_networks_compute_the_same_when_replayed(handler_with, deciding):
    deciding(lambda *calls: True)
    inp, out = bs.tools.get_in_out_layers("classification", (8, 8, 16), 10)
    conv = bs.layers.Convolution2D(16, 3, padding=1)
    net = bs.Network.from_layer(inp >> conv >> out)
    net.set_handler(handler_with("on"))
    net.initialize(bs.Gaussian(0.1), seed=1)
    data = {"default": randn(1, 6, 8, 8, 16), "targets": np.zeros((1, 6, 1))}
    results = []
    for _ in range(3):
        net.provide_external_data(data)
        net.forward_pass()
        net.backward_pass()
        results.append(net.get("gradients").copy())
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


# -- what choices depend on --------------------------------------------------


def test_what_a_choice_is_for(library):
    def key(arrays, options=("rel",), machine="m", threads=1, mode="f32"):
        session = OneDnnHandler(threads=threads, math_mode=mode).current_session()
        build = convolutions.convolution
        return Tuning("on", machine).key_of(session, build, arrays, options)

    x, y = randn(4, 6), randn(4, 6)
    same = key((x, None)), key((y, None))
    assert len(set(same)) == 1
    others = [
        *(key((x, y)), key((x[:3], None)), key((x[:, ::2], None)), key((None, x))),
        *(key((x.T, None)), key((x, None), ("tanh",)), key((x, None), machine="n")),
        *(key((x, None), threads=2), key((x, None), mode="bf16")),
        key((x.astype(float), None)),
    ]
    assert len({same[0], *others}) == 1 + len(others)


def test_what_the_machine_is(tmp_path, monkeypatch, library):
    text = "processor\t: 0\nmodel\t\t: 17\nmodel name\t: A  B\nflags : x\n\nmodel: 18\n"
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(machine, "_PROCESSORS", tmp_path / "cpuinfo")
    assert machine.processor.__wrapped__() == "17, A B"
    monkeypatch.setattr(machine, "_PROCESSORS", tmp_path)
    assert isinstance(machine.processor.__wrapped__(), str)
    monkeypatch.setenv(tuning.VARIABLE, "kept")
    name = tuning.tuning_of(library)._machine
    assert library.version in name
    assert machine.processor() in name
    assert library.instruction_set in name


def test_the_variable(handler_with):
    with pytest.raises(ValidationError, match="BRAINSTORM_TUNING is 'fast'; choices"):
        handler_with("fast")


# -- the file ----------------------------------------------------------------

GOOD = {"format": "brainstorm tuning", "version": 1, "choices": {}}
DAMAGED = {
    "empty": "",
    "cut off": json.dumps(GOOD)[:-5],
    "other bytes": b"\xff\xfe\x00",
    "zeros": bytes(100),
    "a number": "1",
    "a list": "[]",
    "deep": "[" * 100_000,
    "another format": json.dumps({**GOOD, "format": "notes"}),
    "no format": json.dumps({"choices": {KEY: {"outputs": [3, False]}}}),
    "another version": json.dumps({**GOOD, "version": 2}),
    "a list of choices": json.dumps({**GOOD, "choices": [1]}),
    "no choices": json.dumps({**GOOD, "choices": None}),
}
WRONG = [
    1, None, [], "ab", {"outputs": 1}, {"outputs": None}, {"outputs": []},
    {"outputs": [1]}, {"outputs": [1, False, 2]}, {"outputs": ["1", False]},
    {"outputs": [1.0, False]}, {"outputs": [True, False]}, {"outputs": [-1, False]},
    {"outputs": [10**30, False]}, {"outputs": [1, 1]}, {"outputs": "ab"},
    {"outputs": {"a": 1, "b": 2}},
]  # fmt: skip


def write(cache, content):
    cache.parent.mkdir(parents=True, exist_ok=True)
    content = content.encode() if isinstance(content, str) else content
    cache.write_bytes(content)


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_files_are_ignored_and_rewritten(cache, content):
    write(cache, content)
    before = cache.read_bytes()
    assert Tuning("kept", path=cache).find(KEY) is None
    assert cache.read_bytes() == before
    ours = Tuning("on", path=cache)
    assert ours.tries(KEY)
    assert ours.keep(KEY, WAYS) == WAYS
    assert Tuning("kept", path=cache).find(KEY) == WAYS
    assert json.loads(cache.read_text())["version"] == 1


def test_wrong_choices_are_ignored_one_by_one(cache):
    content = {str(number): ways for number, ways in enumerate(WRONG)}
    content = {**content, KEY: {"outputs": [1, False], "other": [0, True]}}
    write(cache, json.dumps({**GOOD, "choices": content}))
    ours = Tuning("on", path=cache)
    assert ours.find(KEY) == {"outputs": Way(1, False), "other": Way(0, True)}
    assert [ours.find(str(number)) for number in range(len(WRONG))] == (
        [None] * len(WRONG)
    )
    assert ours.keep("0", WAYS) == WAYS
    assert Tuning("kept", path=cache).find("0") == WAYS


def test_choices_that_the_library_does_not_have(handler_with, cache, deciding):
    deciding(lambda *calls: True)
    Convolution(handler_with("on")).both()
    content = json.loads(cache.read_text())
    for ways in content["choices"].values():
        ways.update({name: [tuning._MOST_IMPLEMENTATIONS - 1, False] for name in ways})
    cache.write_text(json.dumps(content))
    expected = Convolution(handler_with("off")).both()
    for one, other in zip(
        Convolution(handler_with("kept")).both(), expected, strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_where_what_is_kept_needs_more_memory_than_there_is(
    handler_with, deciding, monkeypatch
):
    deciding(lambda *calls: True)
    Convolution(handler_with("on")).both()
    expected = Convolution(handler_with("off")).both()
    build = convolutions._convolution

    def fail(*given):
        if given[-1]:
            raise MemoryError
        return build(*given)

    fail.__name__ = build.__name__
    monkeypatch.setattr(convolutions, "_convolution", fail)
    y = Convolution(handler_with("kept")).both()[0]
    np.testing.assert_array_equal(y, expected[0])


def test_only_plain_files_of_some_size_are_read(cache, monkeypatch):
    write(cache, json.dumps({**GOOD, "choices": {KEY: {"outputs": [1, False]}}}))
    assert Tuning("kept", path=cache).find(KEY) == WAYS
    monkeypatch.setattr(tuning, "_LARGEST_FILE", 10)
    assert Tuning("kept", path=cache).find(KEY) is None
    cache.unlink()
    if hasattr(os, "mkfifo"):  # which nobody writes into
        os.mkfifo(cache)
        assert Tuning("kept", path=cache).find(KEY) is None


def folder_in_its_place(cache):
    cache.mkdir(parents=True)


def file_in_the_folders_place(cache):
    cache.parent.parent.mkdir()
    cache.parent.write_text("")


@pytest.mark.parametrize("spoil", [folder_in_its_place, file_in_the_folders_place])
def test_where_nothing_can_be_kept_nothing_is_tried(
    handler_with, cache, deciding, spoil
):
    spoil(cache)
    deciding(lambda *calls: pytest.fail("it could not be kept"))
    expected = Convolution(handler_with("off")).both()
    Convolution(handler_with("kept")).both()  # without a word
    ours = Convolution(handler_with("on"))
    with pytest.warns(UserWarning, match="BRAINSTORM_TUNING.* can not be kept") as told:
        got = ours.both()
    assert len(told) == 1
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_folders_without_write_permission(cache):
    if os.name != "posix" or os.geteuid() == 0:
        pytest.skip("everything may be written")
    cache.parent.mkdir(parents=True)
    cache.parent.chmod(0o500)
    with pytest.warns(UserWarning, match="can not be kept"):
        assert not Tuning("on", path=cache).tries(KEY)


def test_without_a_home(monkeypatch, library):
    def no_home():
        raise RuntimeError("no home")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(tuning, "cache_folder", no_home)
    monkeypatch.setenv(tuning.VARIABLE, "on")
    ours = tuning.tuning_of(library)
    assert ours.find(KEY) is None
    with pytest.warns(UserWarning, match="there is no folder"):
        assert not ours.tries(KEY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not ours.tries(KEY)


def test_what_was_kept_before_counts(cache):
    one, other = Tuning("on", path=cache), Tuning("on", path=cache)
    assert one.find(KEY) is None
    assert other.find(KEY) is None
    assert one.keep(KEY, WAYS) == WAYS
    assert other.keep(KEY, {"outputs": Way(2, True)}) == WAYS
    assert other.find(KEY) == WAYS


def test_old_choices_make_room(cache, monkeypatch):
    monkeypatch.setattr(tuning, "_MOST_CHOICES", 3)
    ours = Tuning("on", path=cache)
    for number in range(5):
        assert ours.keep(str(number), WAYS) == WAYS
    found = Tuning("kept", path=cache)
    assert [found.find(str(n)) for n in range(5)] == [None, None, WAYS, WAYS, WAYS]


def test_threads_keep_all_choices(cache):
    results = {}

    def keep(number):
        ours = Tuning("on", path=cache)
        for k in range(5):
            ours.keep(f"{number} {k}", WAYS)
        results[number] = ours.keep("of all", {"outputs": Way(number, False)})

    threads = [threading.Thread(target=keep, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = Tuning("kept", path=cache)
    assert all(found.find(f"{n} {k}") == WAYS for n in range(4) for k in range(5))
    assert [*results.values()] == [found.find("of all")] * 4
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]


@pytest.mark.slow
def test_processes_keep_all_choices(cache):
    code = """
    import sys
    from pathlib import Path
    from brainstorm.handlers.onednn.tuning import Tuning, Way
    path, number = Path(sys.argv[1]), int(sys.argv[2])
    print("ready", flush=True)
    sys.stdin.readline()
    tuning = Tuning("on", path=path)
    for k in range(10):
        tuning.keep(f"{number} {k}", {"outputs": Way(k, True)})
    print(tuning.keep("of all", {"outputs": Way(number, False)})["outputs"].number)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(cache)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*command, str(n)], **pipes) for n in range(3)]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    found = Tuning("kept", path=cache)
    for number in range(3):
        for k in range(10):
            assert found.find(f"{number} {k}") == {"outputs": Way(k, True)}
    assert [int(answer) for answer in answers] == [
        found.find("of all")["outputs"][0]
    ] * 3


def test_the_first_way_is_the_default():
    assert Way() == FIRST == (0, False)

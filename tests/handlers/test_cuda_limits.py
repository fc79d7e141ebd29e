"""PyCudaHandler at its limits: extreme numbers, many of them, and large sizes."""

import gc
import math
import threading

import numpy as np
import pytest

import brainstorm as bs
from brainstorm.handlers import NumpyHandler
from brainstorm.handlers.cuda import compiler, ctc, products
from brainstorm.handlers.cuda.arrays import CudaArray
from brainstorm.handlers.operations.recurrent import RecurrentCells, Weights
from brainstorm.utils import HandlerError, flatten_time
from tests.handlers.handler_cases import HANDLERS, check, handler_params

CUDA = [p for p in handler_params() if "cuda" in str(getattr(p, "values", [p])[0])]


@pytest.fixture(params=CUDA, scope="module")
def handler(request):
    return HANDLERS[request.param]()


@pytest.fixture(scope="module")
def emulated():
    return HANDLERS["cuda-emulated"]()


def count_calls(monkeypatch, owner, name):
    """A list that receives the arguments of all calls of a method."""
    function, calls = getattr(owner, name), []

    def counted(*args, **kwargs):
        calls.append(args)
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)
    return calls


def assert_close(handler, array, expected, rtol=3e-7):
    got = handler.get_numpy_copy(array)
    np.testing.assert_allclose(got, expected, rtol, 1e-38)


# -- numbers -------------------------------------------------------------------


def test_sigmoids_are_exact_to_rounding(handler):
    x = np.float32([-87, -50, -20, -16, -5, -1e-9, 0, 1, 20, 88, 200])
    y = handler.zeros(x.shape)
    handler.sigmoid(handler.create_from_numpy(x), y)
    assert_close(handler, y, 1 / (1 + np.exp(-x.astype(float))))


@pytest.mark.parametrize("target", [0.0, 1.0, 0.3])
def test_sigmoid_ce_is_exact_up_to_the_limit(handler, target):
    x = np.linspace(-17, 17, 3001).astype(np.float32)
    array, p, loss = [handler.create_from_numpy(x) for _ in range(3)]
    targets = handler.create_from_numpy(np.full(x.shape, np.float32(target)))
    handler.sigmoid_ce_forward(array, targets, p, loss)
    limit, exact = -np.log(1e-6), x.astype(float)
    of_one = np.minimum(np.logaddexp(0, -exact), limit)
    of_zero = np.minimum(np.logaddexp(0, exact), limit)
    t = float(np.float32(target))
    assert_close(handler, loss, t * of_one + (1 - t) * of_zero, 1e-6)


def test_softmax_ce_is_exact_up_to_the_limit(handler):
    x = np.zeros((40, 3), np.float32)
    x[:, 0] = np.linspace(-20, 100, 40)
    x[:, 1] = 0.5
    p, loss = handler.zeros(x.shape), handler.zeros((40, 1))
    targets = handler.zeros((40, 1))
    handler.softmax_ce_forward(handler.create_from_numpy(x), targets, p, loss)
    exact = x.astype(float)
    others = np.logaddexp(exact[:, 1], exact[:, 2]) - exact[:, 0]
    expected = np.minimum(np.logaddexp(0, others), -np.log(1e-6))
    assert_close(handler, loss, expected[:, np.newaxis], 3e-6)


def test_ctc_is_exact_where_the_labels_are_certain(handler):
    x = np.zeros((6, 1, 3), np.float32)
    x[:, 0, 1] = 9.0
    targets = np.zeros((6, 1, 1), np.float32)
    targets[0] = 1
    results = []
    for chosen in (NumpyHandler(np.float64), handler):
        got = [chosen.zeros(shape) for shape in (x.shape, x.shape, (1, 1))]
        arrays = [chosen.create_from_numpy(a) for a in (x, targets)]
        chosen.ctc_forward(*arrays, None, *got)
        results.append(chosen.get_numpy_copy(got[2]))
    np.testing.assert_allclose(results[1], results[0], 1e-6)
    assert 0 < results[0] < 1e-2


def test_sums_of_many_numbers(handler):
    count, value = 131_073, float(np.float32(0.1))
    a = handler.create_from_numpy(np.full((count, 2), value))
    columns, rows = handler.zeros((1, 2)), handler.zeros((2, 1))
    everything = handler.zeros((1,))
    handler.sum_t(a, 0, columns)
    handler.sum_t(a.reshape((2, count)), 1, rows)
    handler.sum_t(a, None, everything)
    assert_close(handler, columns, np.full((1, 2), count * value))
    assert_close(handler, rows, np.full((2, 1), count * value))
    assert_close(handler, everything, [2 * count * value])


@pytest.mark.parametrize("cols", [3, 9001])
@pytest.mark.parametrize("scale", [1e20, 1.0, 1e-30])
def test_norms_of_extreme_values(handler, scale, cols):
    m = np.linspace(-1, 1, 2 * cols).reshape(2, cols) * scale
    m[1] *= 1e-7  # within the limit
    m = m.astype(np.float32)
    array = handler.create_from_numpy(m)
    handler.constrain_rows(array, 0.01 * scale, handler.zeros((2, 1)))
    exact = m.astype(float)
    norms = np.sqrt((exact**2).sum(1, keepdims=True))
    expected = exact / np.maximum(1, norms / np.float32(0.01 * scale))
    np.testing.assert_allclose(handler.get_numpy_copy(array), expected, 1e-6)
    assert (handler.get_numpy_copy(array)[1] == m[1]).all()


def test_a_long_row_is_the_work_of_many_blocks(handler, monkeypatch):
    launches = count_calls(monkeypatch, handler._gpu, "launch")
    handler.constrain_rows(handler.ones((1, 100_000)), 1.0, handler.zeros((1, 1)))
    assert [grid for _, grid, *_ in launches] == 2 * [
        (min(25, handler.context.max_blocks), 1)
    ]


def test_rows_are_added_to_in_order_and_in_linear_time(handler):
    # With a loop over all pairs this would take hours on the emulation.
    rnd = np.random.RandomState(0)
    indices = np.floor(50 * rnd.rand(100_000, 1) ** 3).astype(np.float32)
    a, out = rnd.randn(100_000, 2).astype(np.float32), np.ones((50, 2), np.float32)
    array = handler.create_from_numpy(out)
    moved = [handler.create_from_numpy(v) for v in (a, indices)]
    handler.add_to_rows(*moved, array)
    np.add.at(out, indices[:, 0].astype(int), a)  # one after the other, too
    assert (handler.get_numpy_copy(array) == out).all()


@pytest.mark.parametrize("bad", [-1, 3, 1.5, np.nan])
def test_indices_of_rows_to_add_to_are_checked(handler, bad):
    out = handler.zeros((3, 2))
    indices = handler.create_from_numpy(np.float32([[1], [bad]]))
    handler.add_to_rows(handler.ones((2, 2)), indices, out)
    with pytest.raises(HandlerError, match="^add_to_rows: .* from 0 to 2, got"):
        handler.get_numpy_copy(out)
    check(handler, out, [[0, 0], [1, 1], [0, 0]])


def test_ctc_of_long_sequences_takes_little_memory(handler):
    rnd = np.random.RandomState(0)
    targets = rnd.randint(1, 4, (50, 5, 1)) * (rnd.rand(50, 5, 1) < 0.3)
    targets[:, 3:] = 0
    values = [rnd.randn(50, 5, 5), targets, [[50], [49], [43], [0], [1]]]
    results = []
    for chosen in (NumpyHandler(np.float64), handler):
        got = [chosen.zeros(shape) for shape in ((50, 5, 5), (50, 5, 5), (5, 1))]
        chosen.ctc_forward(*[chosen.create_from_numpy(v) for v in values], *got)
        results.append([chosen.get_numpy_copy(array) for array in got])
    for expected, array in zip(*results, strict=True):
        np.testing.assert_allclose(array, expected, 1e-5, 1e-6)
    for steps in (1, 2, 100, 9999, 10_000):
        assert ctc.paths_of(steps)[1] <= 4 * (math.sqrt(steps) + 2) * (steps + 1)


@pytest.mark.parametrize("batch", [0, 2])
def test_sequences_without_steps(handler, batch):
    loss = handler.ones((batch, 1))
    x, targets = handler.zeros((0, batch, 3)), handler.zeros((0, batch, 1))
    handler.ctc_forward(x, targets, None, x, x, loss)
    check(handler, loss, np.zeros((batch, 1)))
    lengths = handler.ones((batch, 1))
    handler.sequence_lengths(targets, lengths)
    check(handler, lengths, np.zeros((batch, 1)))


def test_normalising_rows_without_columns(handler):
    empty, none = handler.zeros((3, 0)), handler.zeros((0,))
    mean, sigma = handler.ones((3, 1)), handler.zeros((3, 1))
    handler.layer_norm_forward(empty, none, none, mean, sigma, empty, 0.25)
    check(handler, mean, np.zeros((3, 1)))
    check(handler, sigma, np.full((3, 1), 0.5))
    handler.layer_norm_backward(empty, none, mean, sigma, empty, empty, none, none)


# -- checks --------------------------------------------------------------------


def test_numbers_are_checked_each_time(handler):
    array = handler.ones((4,))
    for good, bad in [(0.5, 1.5), (np.float64(0.5), np.float64(-1)), (1, 2)]:
        for _ in range(2):
            handler.generate_probability_mask(array, good)
            with pytest.raises(HandlerError, match=r"'probability': .* \[0, 1\]"):
                handler.generate_probability_mask(array, bad)
    for _ in range(2):
        handler.clip_t(array, 0.0, 1.0, array)
        with pytest.raises(HandlerError, match="'a_max': expected at least a_min"):
            handler.clip_t(array, 1.0, 0.0, array)
        handler.fill_gaussian(0.0, 1.0, array)
        with pytest.raises(HandlerError, match="'std'"):
            handler.fill_gaussian(0.0, -1.0, array)
    matrix = handler.ones((2, 3))
    handler.sum_t(matrix, np.int64(1), handler.zeros((2, 1)))
    with pytest.raises(HandlerError, match="'axis'"):
        handler.sum_t(matrix, np.int64(7), handler.zeros((2, 1)))


def test_arguments_of_kernels_that_are_no_numbers(handler):
    m, v = handler.ones((2, 3)), handler.ones((3,))
    column = handler.ones((2, 1))
    with pytest.raises(HandlerError, match="^layer_norm_forward: expected numbers"):
        handler.layer_norm_forward(m, v, v, column, column, m, "small")
    images = handler.ones((1, 2, 2, 1))
    with pytest.raises(HandlerError, match="^avgpool2d_forward_batch: .*too large"):
        handler.avgpool2d_forward_batch(
            *(images, (2, 2), handler.ones((1, 1, 1, 1))), 0, (2**40, 1)
        )


def imagined(handler, *shape):
    """An array that has no memory, for operations that never get to it."""
    return CudaArray.on(None, handler.ones((1,)).pointer, shape)


def test_sizes_that_do_not_fit_into_32_bits_are_refused(handler):
    def array(*shape):
        return imagined(handler, *shape)

    with pytest.raises(HandlerError, match="^dot_mm: argument 'a': sizes"):
        handler.dot_mm(array(2**31, 1), array(1, 1), array(2**31, 1))
    # Each size fits, but not the number of all steps of all sequences.
    large = 2**16
    y, units = array(large + 1, large, 1), array(1)
    with pytest.raises(HandlerError, match="^recurrent_forward: argument 'x': sizes"):
        handler.recurrent_forward(
            *(array(large, large, 1), Weights(array(1, 1), array(1, 1), units)),
            *(RecurrentCells(y), y, "tanh"),
        )
    products._check_sizes(2**31 - 1)
    with pytest.raises(HandlerError, match="at most 2147483647"):
        products._check_sizes(1, 2**31)


def test_helpers_that_make_views_do_not_make_copies(handler):
    whole = handler.zeros((3, 6, 2))
    assert flatten_time(whole[1:]).shape == (12, 2)
    assert handler.overlap(flatten_time(whole[..., :1]), whole) == "part"
    with pytest.raises(HandlerError, match="no view of this array of the shape"):
        flatten_time(whole[:, 1:4])


# -- threads -------------------------------------------------------------------


def test_failures_belong_to_threads(handler):
    parameters, ones = handler.ones((4,)), handler.ones((4,))
    errors, failed, done = [], threading.Event(), threading.Event()

    def fail():
        bad = handler.create_from_numpy(np.float32([[7.0]]))
        out = handler.zeros((1, 1))
        handler.index_m_by_v(handler.ones((1, 3)), bad, out)
        own = handler.ones((4,))
        handler.sgd_update(own, ones, 0.5)
        failed.set()
        done.wait()
        try:
            handler.get_numpy_copy(out)
        except HandlerError as error:
            errors.append(str(error))
        errors.append(handler.get_numpy_copy(own).tolist())

    thread = threading.Thread(target=fail)
    thread.start()
    failed.wait()
    handler.sgd_update(parameters, ones, 0.5)
    check(handler, parameters, [0.5] * 4)
    done.set()
    thread.join()
    assert errors[0].startswith("index_m_by_v: ")
    assert errors[1] == [1.0] * 4


def calls_of_a_pass(handler, monkeypatch, layer, steps):
    """How often the GPU is called once a pass is recorded; nothing is prepared then."""
    calls = []
    for name in ("launch", "sgemm", "sgemm_batched"):
        function = getattr(type(handler.context), name)

        def noted(*args, function=function):
            calls.append(args)
            return function(handler.context, *args)

        monkeypatch.setattr(handler.context, name, noted)
    inp, out = bs.tools.get_in_out_layers("classification", 2, 3)
    net = bs.Network.from_layer(inp >> layer >> out)
    net.set_handler(handler)
    net.initialize(1.0)
    data = {"default": np.ones((steps, 2, 2)), "targets": np.zeros((steps, 2, 1))}
    net.provide_external_data(data)
    for _ in range(2):
        calls.clear()
        net.forward_pass(training_pass=True)
        net.backward_pass(all_deltas=False)
    return len(calls)


@pytest.mark.parametrize("name", ["Recurrent", "Clockwork", "Lstm", "Gru"])
def test_a_time_step_takes_two_kernels(emulated, monkeypatch, name):
    """A product and one for all else, in each direction."""
    few, many = (
        calls_of_a_pass(emulated, monkeypatch, getattr(bs.layers, name)(3), steps)
        for steps in (3, 8)
    )
    assert many - few == 2 * 2 * 5


def test_temporary_memory_goes_with_the_last_network(emulated):
    def run_network(handler):
        net = bs.tools.create_net_from_spec("classification", (6, 6, 1), 2, "C3:3 R2")
        net.set_handler(handler)
        net.provide_external_data(
            {"default": np.ones((2, 3, 6, 6, 1)), "targets": np.ones((2, 3, 1))}
        )
        net.forward_pass()
        net.backward_pass()
        return net

    gc.collect()
    other = HANDLERS["cuda-emulated"]()
    first, second = run_network(emulated), run_network(other)
    kept = emulated._gpu._workspace.buffers
    assert kept
    del first
    gc.collect()
    assert kept
    loss = second.get_loss_values()["total_loss"]
    del second
    gc.collect()
    assert not kept
    assert np.isfinite(
        [loss, run_network(emulated).get_loss_values()["total_loss"]]
    ).all()


# -- GPUs newer than the compiler ----------------------------------------------


def test_what_is_compiled_for_which_gpu():
    known = [75, 90, 120]
    assert compiler.target_for("sm_90", known, "nvcc") == "sm_90"
    assert compiler.target_for("sm_100", known, "nvcc") == "compute_90"
    assert compiler.target_for("sm_200", known, "nvcc") == "compute_120"
    assert compiler.target_for("sm_200", [], "nvcc") == "sm_200"
    with pytest.raises(HandlerError, match="as old as sm_61, only from sm_75 on"):
        compiler.target_for("sm_61", known, "nvcc")


@pytest.mark.parametrize("kind", ["nvcc", "NVRTC"])
def test_gpus_newer_than_the_compiler_get_ptx(kind, monkeypatch):
    if kind == "NVRTC":
        monkeypatch.setattr(compiler, "find_nvcc", lambda: None)
        if compiler.load_library("nvrtc") is None:
            pytest.skip("NVRTC was not found")
        known = compiler.nvrtc_architectures()
    else:
        if compiler.find_nvcc() is None:
            pytest.skip("nvcc was not found")
        known = compiler.nvcc_architectures(compiler.find_nvcc())
    source = 'extern "C" __global__ void f(float *a) { *a = 1.0f; }'
    ptx = compiler.compile_kernels(source, "sm_999")
    assert f".target sm_{max(known)}".encode() in ptx
    assert b".entry f(" in ptx
    assert ptx.endswith(b"\0")
    assert compiler.compile_kernels(source, f"sm_{max(known)}").startswith(b"\x7fELF")

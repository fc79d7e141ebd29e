"""What PyCudaHandler promises beyond the operations themselves."""

import copy
import ctypes
import json
import os
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
from cuda_on_cpu.sanitized import SanitizedCudaHandler, sanitized_handler

import brainstorm as bs
from brainstorm.describable import create_from_description, get_description
from brainstorm.handlers import DebugHandler, NumpyHandler, PyCudaHandler
from brainstorm.handlers.cuda import (
    compiler,
    ctc,
    cublas,
    device,
    libraries,
    products,
)
from brainstorm.handlers.cuda.arrays import OperationError, place_of
from brainstorm.randomness import global_rnd
from brainstorm.utils import HandlerError
from tests.handlers.handler_cases import Arrays, check, pycuda_handler

KINDS = ["emulated", pytest.param("pycuda", marks=pytest.mark.gpu)]


def new_handler(kind, **kwargs):
    if kind == "emulated":
        return sanitized_handler(**kwargs)
    pycuda_handler()  # skips the test without a GPU
    return PyCudaHandler(**kwargs)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def handler(kind):
    return new_handler(kind)


# -- whole networks ------------------------------------------------------------

NETWORKS = {
    "images": ((6, 6, 2), "C4:3 P2 B F8"),
    "sequences": (6, "L5 R4"),
    "dense": (6, "Ft8 D0.0 F5"),
}
STEPPERS = {
    "momentum": lambda: bs.training.MomentumStepper(0.1, 0.9),
    "nesterov": lambda: bs.training.NesterovStepper(0.1, 0.9),
    "adam": lambda: bs.training.AdamStepper(0.01),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("stepper", STEPPERS)
def test_training_gives_what_numpy_gives(handler, name, stepper):
    in_shape, spec = NETWORKS[name]
    losses = []
    for chosen in (NumpyHandler(np.float64), handler):
        bs.global_rnd.set_seed(1)
        net = bs.tools.create_net_from_spec("classification", in_shape, 3, spec)
        net.set_handler(chosen)
        current = STEPPERS[stepper]()
        current.start(net)
        rnd = np.random.RandomState(0)
        shape = in_shape if isinstance(in_shape, tuple) else (in_shape,)
        data = {"default": rnd.randn(4, 5, *shape)}
        data["targets"] = rnd.randint(0, 3, (4, 5, 1))
        losses.append([])
        for _ in range(5):
            net.provide_external_data(data)
            current.run()
            losses[-1].append(net.get_loss_values()["total_loss"])
        losses[-1].append(np.abs(net.get("parameters")).sum())
    np.testing.assert_allclose(losses[1], losses[0], 1e-4)
    assert losses[0][4] < losses[0][0]


def test_trainer_and_files(handler, tmp_path):
    bs.global_rnd.set_seed(1)
    net = bs.tools.create_net_from_spec("classification", 6, 3, "D.2 F8")
    net.set_handler(handler)
    rnd = np.random.RandomState(0)
    data = {"default": rnd.randn(1, 30, 6), "targets": rnd.randint(0, 3, (1, 30, 1))}
    trainer = bs.Trainer(bs.training.SgdStepper(0.1), verbose=False)
    trainer.train_scorers = [bs.scorers.Accuracy()]
    trainer.add_hook(bs.hooks.StopAfterEpoch(2))
    trainer.train(net, bs.Minibatches(10, **data))
    assert np.isfinite(trainer.logs["rolling_training"]["total_loss"]).all()
    net.save_as_hdf5(str(tmp_path / "net.hdf5"))
    description = json.loads(json.dumps(get_description(net)))
    assert description["handler"]["@type"] == type(handler).__name__
    loaded = bs.Network.from_hdf5(str(tmp_path / "net.hdf5"))
    assert type(loaded.handler) is type(handler)
    assert (loaded.get("parameters") == net.get("parameters")).all()


# -- bad arguments -------------------------------------------------------------


def test_arrays_of_others_are_refused_by_name(handler):
    array = handler.zeros((2, 3))
    for wrong in (np.zeros((2, 3), np.float32), [[0.0] * 3] * 2, None, 1.0):
        for arguments in ([wrong, array, array], [array, wrong, array]):
            with pytest.raises(HandlerError, match="^mult_tt: argument '[ab]': .*Cuda"):
                handler.mult_tt(*arguments)
    with pytest.raises(HandlerError, match="^fill: argument 'mem'"):
        handler.fill(np.zeros(3), 1.0)
    with pytest.raises(HandlerError, match="^sgd_update: argument 'gradients'"):
        handler.sgd_update(handler.zeros((3,)), np.zeros(3), 0.1)
    with pytest.raises(HandlerError, match="on the GPU"):
        handler.create_from_numpy(array)


def test_shapes_are_checked_each_time(handler):
    a, b = handler.zeros((2, 3)), handler.zeros((3, 2))
    for _ in range(2):
        handler.add_tt(a, a, a)
        with pytest.raises(HandlerError, match=r"^add_tt: argument 'b': .*\(3, 2\)"):
            handler.add_tt(a, b, a)
        with pytest.raises(HandlerError, match="^dot_mm: can not multiply"):
            handler.dot_mm(a, a, a)
        with pytest.raises(HandlerError, match="^sum_t: argument 'axis'"):
            handler.sum_t(a, 2, a)
    image = handler.zeros((1, 2, 2, 1))
    with pytest.raises(HandlerError, match="^maxpool2d_forward_batch: .* strides"):
        handler.maxpool2d_forward_batch(image, (1, 1), image, 0, (0, 1), image)


def test_views_that_no_kernel_takes_are_copied(handler):
    whole = handler.zeros((6, 4))
    spread = whole[:, :1].reshape((2, 3))
    handler.set_from_numpy(spread, values := np.float32([[1, 2, 4], [3, 5, 7]]))
    product = handler.zeros((2, 2))
    handler.dot_mm(spread, spread, product, False, True)
    check(handler, product, values @ values.T)
    handler.binarize_v(handler.create_from_numpy(np.float32([[2], [0]])), spread)
    check(handler, spread, [[0, 0, 1], [1, 0, 0]])
    handler.softmax_m(handler.zeros((2, 3)), spread)
    check(handler, spread, np.full((2, 3), 1 / 3))
    check(handler, whole[:, 1:], np.zeros((6, 3)))
    # Inside of an operation they are refused.
    with pytest.raises(OperationError, match="the last axis has to be dense"):
        place_of(spread)


@pytest.mark.parametrize("bad", ["x", None])
def test_scalars_that_are_no_numbers_are_refused(handler, bad):
    array = handler.ones((2,))
    with pytest.raises(HandlerError, match="^mult_st: expected numbers, got"):
        handler.mult_st(bad, array, array)
    handler.mult_st(np.float64(0.5), array, array)
    check(handler, array, [0.5, 0.5])


def test_unknown_activations_list_the_choices(handler):
    a = handler.zeros((2, 2))
    for call in (
        lambda: handler.affine(a, a, None, a, a, "x"),
        lambda: handler.act_backward(a, a, a, a, "x"),
    ):
        with pytest.raises(KeyError, match="'linear', 'rel'"):
            call()


# -- products ------------------------------------------------------------------


@pytest.mark.parametrize("transa", [False, True])
@pytest.mark.parametrize("transb", [False, True])
@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("add", [False, True])
def test_long_sums_are_cut_into_parts(handler, transa, transb, strided, add):
    arrays = Arrays(handler, 1, strided)
    k = 2 * 2053  # both are prime
    a = arrays.randn(*((k, 3) if transa else (3, k)))
    b = arrays.randn(*((4, k) if transb else (k, 4)))
    out, before = arrays.flat().destination(arrays.randn(3, 4), not add)
    operation = handler.dot_add_mm if add else handler.dot_mm
    operation(arrays.put(a), arrays.put(b), out, transa=transa, transb=transb)
    product = (a.T if transa else a) @ (b.T if transb else b)
    check(handler, out, before + product, scale=1000)


def test_products_are_cut_where_that_keeps_more_multiprocessors_busy(handler):
    parts = products._parts_of_sums
    assert parts(32, 75, 102400, 16 * 132) == 50  # of 2048
    assert parts(32, 75, 2 * 2048 - 1, 16 * 132) == 1
    assert parts(4000, 1000, 102400, 16 * 132) == 1  # there is enough to do
    assert parts(0, 3, 102400, 16 * 132) == 1
    assert parts(1, 1, 2 * 2053, handler.context.max_blocks) == 2


# -- connectionist temporal classification -------------------------------------


def test_ctc_goes_through_few_sequences_at_once(handler, monkeypatch):
    # Two fit, of five sequences.
    monkeypatch.setattr(ctc, "PATHS_SIZE", 2 * ctc.paths_of(40)[1])
    rnd = np.random.RandomState(4)
    targets = rnd.randint(1, 4, (40, 5, 1)) * (rnd.rand(40, 5, 1) < 0.4)
    values = [3 * rnd.randn(40, 5, 6), targets, [[38], [40], [39], [40], [40]]]
    results = []
    for chosen in (NumpyHandler(np.float64), handler):
        got = [chosen.zeros(shape) for shape in ((40, 5, 6), (40, 5, 6), (5, 1))]
        chosen.ctc_forward(*[chosen.create_from_numpy(v) for v in values], *got)
        results.append([chosen.get_numpy_copy(array) for array in got])
    for expected, array in zip(*results, strict=True):
        np.testing.assert_allclose(array, expected, 1e-5, 1e-6)


def test_ctc_does_not_lose_what_is_not_a_number(handler):
    x = np.zeros((4, 3, 3))
    x[1, 1] = np.nan
    x[2, 2, 1:] = -np.inf  # only the blank is possible
    targets = np.zeros((4, 3, 1))
    targets[0], targets[1:3, 2, 0] = 2, [1, 2]
    values = [x, targets, [[4], [4], [3]]]
    results = []
    for chosen in (NumpyHandler(np.float64), handler):
        got = [chosen.zeros(shape) for shape in ((4, 3, 3), (4, 3, 3), (3, 1))]
        with np.errstate(invalid="ignore"):
            chosen.ctc_forward(*[chosen.create_from_numpy(v) for v in values], *got)
        results.append([chosen.get_numpy_copy(array) for array in got])
    for expected, array in zip(*results, strict=True):
        np.testing.assert_allclose(array, expected, 1e-5, 1e-6)
    assert np.isnan(results[1][2][1, 0])
    assert np.isposinf(results[1][2][2, 0])


# -- errors that depend on values ----------------------------------------------


def softmax_ce(handler, targets):
    rows = len(targets)
    handler.softmax_ce_forward(
        handler.ones((rows, 3)),
        handler.create_from_numpy(np.reshape(targets, (rows, 1))),
        p := handler.zeros((rows, 3)),
        handler.zeros((rows, 1)),
    )
    return p


def test_updates_wait_until_an_error_was_told(handler):
    parameters, ones = handler.ones((4,)), handler.ones((4,))

    def updates():
        handler.sgd_update(parameters, ones, 0.1)
        handler.momentum_update(parameters, ones, handler.zeros((4,)), 0.1, 0.5)
        handler.nesterov_ahead(parameters, handler.ones((4,)), 0.5)
        handler.nesterov_correct(parameters, ones, handler.zeros((4,)), 0.1)
        handler.adam_update(
            *(parameters, ones, handler.zeros((4,)), handler.zeros((4,))),
            *(0.1, 0.9, 0.9, 1e-3, 0.1, 1),
        )
        handler.rms_prop_update(parameters, ones, handler.ones((4,)), 0.1, 0.9, 0.1)
        handler.ada_grad_update(parameters, ones, handler.ones((4,)), 0.1, 0.1)
        handler.ada_delta_update(
            parameters, ones, handler.ones((4,)), handler.ones((4,)), 0.1, 0.9, 0.1
        )

    softmax_ce(handler, [0, 3, 1])
    updates()
    with pytest.raises(HandlerError, match="^softmax_ce_forward: .* 0 to 2, got 3.0"):
        handler.get_numpy_copy(parameters)
    check(handler, parameters, [1.0] * 4)
    updates()
    assert (handler.get_numpy_copy(parameters) < 1).all()
    check(handler, softmax_ce(handler, [0, 2]), np.full((2, 3), 1 / 3))


def test_asking_for_finite_numbers_tells_errors(handler):
    softmax_ce(handler, [0.5])
    with pytest.raises(HandlerError, match="softmax_ce_forward: .* got 0.5"):
        handler.is_fully_finite(handler.ones((2,)))
    assert handler.is_fully_finite(handler.ones((2,)))


@pytest.mark.parametrize("bad", [-1, 3, 1.5, 1e30, np.nan, np.inf])
def test_bad_indices(handler, bad):
    v = handler.create_from_numpy(np.array([[1], [bad]]))
    out = handler.ones((2, 3))
    handler.binarize_v(v, out)
    text = rf"^binarize_v: .* 0 to 2, got {float(np.float32(bad))!r}".replace(
        "+", r"\+"
    )
    with pytest.raises(HandlerError, match=text):
        handler.get_numpy_copy(out)
    check(handler, out, [[0, 1, 0], [0, 0, 0]])
    picked = handler.zeros((2, 1))
    handler.index_m_by_v(handler.ones((2, 3)), v, picked)
    with pytest.raises(HandlerError, match="^index_m_by_v: .* from 0 to 2"):
        handler.get_numpy_copy(picked)
    check(handler, picked, [[1], [np.nan]])


# -- randomness ----------------------------------------------------------------


def draw(handler):
    mask, normal = handler.zeros((5, 41)), handler.zeros((30,))
    handler.generate_probability_mask(mask, 0.5)
    handler.fill_gaussian(0.0, 1.0, normal)
    arrays = [handler.get_numpy_copy(a).ravel() for a in (mask, normal)]
    return np.concatenate([*arrays, handler.rnd.rand(3)])


def philox(counter, key):
    """Philox 4x32-10 with Python's integers, after the paper's pseudocode."""
    left_0, right_0, left_1, right_1 = counter
    k0, k1 = key
    for _ in range(10):
        high_0, low_0 = divmod(0xD2511F53 * left_0, 2**32)
        high_1, low_1 = divmod(0xCD9E8D57 * left_1, 2**32)
        left_0, right_0 = high_1 ^ right_0 ^ k0, low_1
        left_1, right_1 = high_0 ^ right_1 ^ k1, low_0
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return left_0, right_0, left_1, right_1


def test_philox_is_the_published_generator():
    # Known answers that come with the authors' library Random123.
    assert philox([0] * 4, [0] * 2) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    assert philox(
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], [0xA4093822, 0x299F31D0]
    ) == (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)


@pytest.mark.parametrize("call", [0, 2**32 + 5])
def test_random_numbers_are_those_of_philox(kind, call):
    handler = new_handler(kind, seed=7)
    state = handler.get_random_state()
    state["generator"] = {"seed": 12345, "call": call}
    handler.set_random_state(state)
    n = 300
    words = [philox([i, 0, call % 2**32, call >> 32], [12345, 0]) for i in range(n)]
    uniform = (np.array(words).ravel()[:n] >> 8) / 2**24
    for probability in (0.1, 0.5, 0.9):
        handler.set_random_state(state)
        mask = handler.zeros((3, n // 3))
        handler.generate_probability_mask(mask, probability)
        check(handler, mask, np.reshape(uniform < np.float32(probability), (3, -1)))
    handler.set_random_state(state)
    normal = handler.zeros((n,))
    handler.fill_gaussian(2.0, 3.0, normal)
    radius = np.sqrt(-2 * np.log(uniform[0::2] + 2.0**-24))
    angle = 2 * np.pi * uniform[1::2]
    expected = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    np.testing.assert_allclose(
        handler.get_numpy_copy(normal), 2 + 3 * expected.ravel(), atol=1e-4
    )


def test_global_seed_determines_everything(kind):
    handler, drawn = new_handler(kind), []
    for seed in (5, 5, 6):
        global_rnd.set_seed(seed)
        drawn.append(draw(handler))
        assert (draw(handler) != drawn[-1]).any()
    global_rnd.set_seed(5)
    drawn.append(draw(new_handler(kind)))
    assert (drawn[0] == drawn[1]).all()
    assert (drawn[0] == drawn[3]).all()
    assert (drawn[0] != drawn[2]).any()


def test_own_seed_is_independent_of_the_global_one(kind):
    first = draw(new_handler(kind, seed=3))
    handler = new_handler(kind, seed=3)
    global_rnd.set_seed(1)
    assert (draw(handler) == first).all()
    handler.rnd.set_seed(3)
    assert (draw(handler) == first).all()
    assert (draw(new_handler(kind, seed=4)) != first).any()


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda h: pickle.loads(pickle.dumps(h))]
)
def test_copies_draw_the_same_numbers(kind, copied):
    handler = new_handler(kind, seed=4)
    draw(handler)
    twin = copied(handler)
    assert twin is not handler
    assert (draw(handler) == draw(twin)).all()
    twin.act_func["tanh"](twin.ones((2,)), twin.zeros((2,)))


def test_random_state_round_trip(kind):
    handler = new_handler(kind, seed=1)
    draw(handler)
    state = json.loads(json.dumps(handler.get_random_state()))
    expected = draw(handler)
    for restored in (handler, new_handler(kind)):
        restored.set_random_state(state)
        assert (draw(restored) == expected).all()


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state.clear(),
        lambda state: state.update(rnd=["MT19937", [1, 2], 0, 0, 0.0]),
        lambda state: state.update(generator={"seed": 1}),
        lambda state: state.update(generator={"seed": -1, "call": 0}),
        lambda state: state.update(generator={"seed": 1, "call": 2**64}),
        lambda state: state.update(generator=3),
    ],
)
def test_damaged_random_states_change_nothing(kind, damage):
    handler = new_handler(kind, seed=1)
    state = handler.get_random_state()
    damage(state)
    with pytest.raises(HandlerError, match="random state"):
        handler.set_random_state(state)
    assert (draw(handler) == draw(new_handler(kind, seed=1))).all()


def test_masks_do_not_depend_on_the_layout(kind):
    masks = []
    for strided in (False, True):
        handler = new_handler(kind, seed=2)
        mask = Arrays(handler, strided=strided).garbage((3, 4, 5))
        handler.generate_probability_mask(mask, 0.5)
        masks.append(handler.get_numpy_copy(mask))
    # Five axes that can not be merged.
    handler = new_handler(kind, seed=2)
    whole = handler.zeros((3, 4, 3, 4, 7))
    part = whole[:, 1:3, :2, 1:2, 1:6]
    handler.generate_probability_mask(part, 0.5)
    assert (masks[0] == masks[1]).all()
    assert (handler.get_numpy_copy(part).ravel() == masks[0].ravel()).all()
    assert handler.get_numpy_copy(whole).sum() == masks[0].sum()


# -- memory --------------------------------------------------------------------


def test_scratch_is_reused(handler):
    first = handler.scratch((100, 3), 7)
    assert handler.scratch((100, 3), 7) is first
    assert handler.overlap(handler.scratch((50,), 7), first) == "part"
    assert handler.overlap(handler.scratch((50,), 8), first) == "none"
    grown = handler.scratch((1000, 3), 7)
    assert handler.overlap(handler.scratch((100, 3), 7), grown) == "part"
    for n in range(2000):
        assert handler.scratch((n,), 7).shape == (n,)


MODIFIERS = {
    "weights": {"default": bs.value_modifiers.ConstrainL2Norm(1.0)},
    "gradients": {"default": bs.value_modifiers.ClipGlobalNorm(1.0)},
}


@pytest.mark.parametrize("stepper", STEPPERS)
def test_a_training_step_neither_allocates_nor_waits(handler, stepper, monkeypatch):
    bs.global_rnd.set_seed(1)
    net = bs.tools.create_net_from_spec("classification", (6, 6, 2), 3, "C4:3 P2 D F8")
    net.set_handler(handler)
    net.set_weight_modifiers({"F*": MODIFIERS["weights"]})
    net.set_gradient_modifiers(MODIFIERS["gradients"])
    stepper = STEPPERS[stepper]()
    stepper.start(net)
    data = {"default": np.ones((2, 5, 6, 6, 2)), "targets": np.ones((2, 5, 1))}

    def step():
        net.provide_external_data(data)
        with monkeypatch.context() as patch:
            if losses:
                patch.setattr(handler.context, "allocate", None)
                patch.setattr(handler.context, "read", None)
            stepper.run()
            net.apply_weight_modifiers()
        losses.append(net.get_loss_values()["total_loss"])

    losses = []
    for _ in range(4):
        step()
    assert len(set(losses)) == 4


@pytest.mark.gpu
def test_the_driver_is_not_waited_for():
    handler = new_handler("pycuda")
    driver = ctypes.CDLL("libcuda.so.1")
    if not hasattr(driver, "emulated_waits"):
        pytest.skip("only the stand-in driver counts")
    net = bs.tools.create_net_from_spec("classification", 6, 3, "L5 R4 D F8")
    net.set_handler(handler)
    stepper = bs.training.AdamStepper(0.01)
    stepper.start(net)
    counts = []
    for _ in range(3):
        data = {"default": np.ones((3, 5, 6)), "targets": np.ones((3, 5, 1))}
        net.provide_external_data(data)
        counts.append(driver.emulated_waits())
        stepper.run()
        counts.append(driver.emulated_waits())
        net.get_loss_values()
    assert counts[1] > counts[0]  # memory is allocated
    assert counts[3] > counts[1]  # the loss is read
    assert counts[5] == counts[4]


def test_wrapping_in_a_debug_handler(handler):
    debug = DebugHandler(handler)
    a = debug.ones((2, 2))
    debug.add_tt(a, a, a)
    check(debug, a, np.full((2, 2), 2.0))
    with pytest.raises(HandlerError, match="finite"):
        debug.log_t(debug.zeros((2,)), debug.zeros((2,)))
    with pytest.raises(HandlerError, match="overlap"):
        debug.dot_mm(a, a, a, transb=True)
    targets = debug.create_from_numpy(np.array([[7.0]]))
    with pytest.raises(HandlerError, match="from 0 to 2, got 7.0"):
        debug.softmax_ce_forward(
            debug.ones((1, 3)), targets, debug.zeros((1, 3)), debug.zeros((1, 1))
        )


def test_description():
    handler = sanitized_handler(seed=3)
    description = {"@type": "SanitizedCudaHandler", "seed": 3}
    assert get_description(handler) == description
    assert type(create_from_description(description)) is SanitizedCudaHandler
    assert get_description(sanitized_handler()) == {"@type": "SanitizedCudaHandler"}


# -- without a GPU, a driver, a library or a compiler --------------------------


@pytest.fixture
def unopened(monkeypatch):
    """As if no handler had been made in this process."""
    open_anew = staticmethod(PyCudaHandler._open.__wrapped__)
    monkeypatch.setattr(PyCudaHandler, "_open", open_anew)


def test_without_pycuda(monkeypatch, unopened):
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(ImportError, match=r"pip install .*\[pycuda\]"):
        PyCudaHandler()


class BrokenPyCuda:
    """Stands for a PyCUDA whose libraries are missing."""

    def find_spec(self, name, path=None, target=None):
        if name == "pycuda":
            raise ImportError("libcuda.so.1: cannot open shared object file")


def test_without_a_driver(monkeypatch, unopened):
    for name in [n for n in sys.modules if n.partition(".")[0] == "pycuda"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [BrokenPyCuda(), *sys.meta_path])
    with pytest.raises(ImportError, match=r"libcuda\.so\.1.*Nvidia GPU.*nvidia-smi"):
        PyCudaHandler()


class FakeDriver:
    """What PyCUDA's driver module would do on other machines."""

    class Error(Exception):
        pass

    class MemoryError(Error):
        pass

    class Device:
        @staticmethod
        def count():
            return 0

    def __init__(self, fails):
        self.fails = fails

    def init(self):
        if self.fails:
            raise self.Error("cuInit failed: no CUDA-capable device is detected")


@pytest.mark.parametrize(
    ("fails", "text"), [(True, "can not use .* cuInit failed"), (False, "found no GPU")]
)
def test_without_a_gpu(monkeypatch, unopened, fails, text):
    monkeypatch.setattr(device, "_import_driver", lambda: FakeDriver(fails))
    with pytest.raises(HandlerError, match=f"PyCudaHandler {text}.*nvidia-smi"):
        PyCudaHandler()


def test_without_cublas(monkeypatch):
    monkeypatch.setattr(cublas, "load_library", lambda name: None)
    with pytest.raises(HandlerError, match="cuBLAS, .* pip install nvidia-cublas"):
        cublas.Cublas()


def test_without_a_compiler(monkeypatch):
    monkeypatch.setattr(compiler, "find_nvcc", lambda: None)
    monkeypatch.setattr(compiler, "load_library", lambda name: None)
    with pytest.raises(
        HandlerError, match="neither nvcc nor NVRTC.*pip install nvidia"
    ):
        compiler.compile_kernels("", "sm_90")


def test_libraries_that_are_not_there():
    assert libraries.load_library("no_such_library") is None


def test_kernels_are_compiled_once(monkeypatch, tmp_path):
    compiled = []

    def compile_kernels(source, arch):
        compiled.append(arch)
        return f"{arch} {len(compiled)}".encode()

    monkeypatch.setattr(compiler, "compile_kernels", compile_kernels)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert compiler.cached_cubin("sm_90") == b"sm_90 1"
    assert compiler.cached_cubin("sm_90") == b"sm_90 1"
    assert compiler.cached_cubin("sm_75") == b"sm_75 2"
    assert compiler.renew_cubin("sm_90") == b"sm_90 3"
    assert compiler.cached_cubin("sm_90") == b"sm_90 3"
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert compiler.cached_cubin("sm_90") == b"sm_90 4"


# -- with PyCUDA, on a GPU or an emulation of one ------------------------------


@pytest.mark.gpu
def test_running_out_of_memory():
    handler = new_handler("pycuda")
    with pytest.raises(HandlerError, match="^allocate: .* out of memory"):
        handler.allocate((2**29, 2**10))
    array = handler.zeros((2, 2))
    check(handler, array, np.zeros((2, 2)))


@pytest.mark.gpu
def test_failing_launches_name_the_operation():
    handler = new_handler("pycuda")
    array = handler.zeros((2, 2))
    launcher = handler._gpu
    with pytest.raises(HandlerError, match="the GPU failed, now or .* before: cu"):
        launcher.device.launch(launcher.kernel("copy_to"), (0, 1), (1, 1, 1), b"")
    check(handler, array, np.zeros((2, 2)))


@pytest.mark.gpu
def test_other_threads():
    handler = new_handler("pycuda")
    sums = []

    def work(number):
        array = handler.ones((100, 50))
        for _ in range(20):
            total = handler.zeros((1,))
            handler.mult_st(float(number), handler.ones((100, 50)), array)
            handler.sum_t(array, None, total)
        sums.append((number, float(handler.get_numpy_copy(total)[0])))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sums) == [(i, 5000.0 * i) for i in range(4)]


@pytest.mark.gpu
def test_a_damaged_cache_is_replaced(monkeypatch, tmp_path):
    new_handler("pycuda")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    device.PyCudaDevice()
    [path] = tmp_path.glob("brainstorm/*.cubin")
    good = path.read_bytes()
    path.write_bytes(b"damaged" * 1000)
    assert device.PyCudaDevice().kernel("copy_to")
    assert len(path.read_bytes()) == len(good)


NEWER_GPU = """
from brainstorm.handlers import PyCudaHandler
from brainstorm.handlers.cuda import compiler

compile_with, compiled = compiler.compile_with_nvcc, []
compiler.compile_with_nvcc = lambda *a: compiled.append(a[1]) or compile_with(*a)
handler = PyCudaHandler()
print(compiled, handler.get_numpy_copy(handler.ones((2,))).tolist())
"""


@pytest.mark.gpu
def test_gpus_that_the_compiler_does_not_know(tmp_path):
    new_handler("pycuda")
    if not hasattr(ctypes.CDLL("libcuda.so.1"), "emulated_waits"):
        pytest.skip("only the stand-in driver tells what GPU it is")
    env = {"EMULATED_CAPABILITY": "99", "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", NEWER_GPU],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **env},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == "['compute_90'] [1.0, 1.0]"


HANDLER_IN_A_THREAD = """
import threading
from brainstorm.handlers import PyCudaHandler

handlers = [PyCudaHandler()]
thread = threading.Thread(target=lambda: handlers.append(PyCudaHandler()))
thread.start()
thread.join()
print([handler.get_numpy_copy(handler.ones((2,))).tolist() for handler in handlers])
"""


@pytest.mark.gpu
def test_processes_end_quietly():
    new_handler("pycuda")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", HANDLER_IN_A_THREAD],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == "[[1.0, 1.0], [1.0, 1.0]]"

"""What NumpyHandler promises beyond the operations themselves."""

import copy
import inspect
import json
import pickle
import threading
import tracemalloc

import numpy as np
import pytest

from brainstorm.describable import create_from_description, get_description
from brainstorm.handlers import NumpyHandler, default_handler
from brainstorm.handlers.base_handler import OPERATIONS, Handler
from brainstorm.handlers.numpy.memory import Pages
from brainstorm.randomness import global_rnd
from brainstorm.utils import HandlerError, ValidationError
from tests.handlers import argument_cases
from tests.handlers.handler_cases import Arrays, in_records

FLOATS = [np.float16, np.float32, np.float64, np.longdouble]


NUMPY_BUFFERS_LITTLE = np.lib.NumpyVersion(np.__version__) >= "2.3.0"


# -- memory --------------------------------------------------------------------

SIZES = {"M": 4000, "N": 40, "I": 30, "C": 37, "*S": (3, 70001), "*L": (3000, 7)}
SIZES |= {"A": 9, "B": 11, "A+B": 20, "T": 5, "U": 6, "G": 160, "V": 500, "F": 2}
PRODUCT = {"P": 4000, "Q": 30, "R": 30, "S": 40}
OTHER_SIZES = {
    "dot_mm": PRODUCT,
    "dot_add_mm": PRODUCT,
    "batch_dot_mm": PRODUCT,
    "batch_dot_add_mm": PRODUCT,
    "sum_t": {"*S": (4000, 37), "*R": (4000, 1)},
    "broadcast_t": {"*S": (4000, 1), "*R": (4000, 37)},
    "constrain_rows": {"N": 4000},
    "gru_forward": {"G": 120},
    "gru_backward": {"G": 120},
    "gru_outputs": {"G": 120},
    "adam_update": {"N": 200000},
    **{f"nvar_{k}": {"L": 3, "Q": 1 + 3 + 6 + 15} for k in ("forward", "backward")},
    "sgd_update": {"N": 200000},
    "momentum_update": {"N": 200000},
    "nesterov_ahead": {"N": 200000},
    "nesterov_correct": {"N": 200000},
}
SCALARS = {
    "s": 0.3,
    "val": 0.4,
    "a_min": 0.2,
    "a_max": 0.4,
    "axis": 1,
    "mean": 0.1,
    "std": 0.2,
    "probability": 0.7,
    "drop_prob": 0.3,
    "learning_rate": 0.1,
    "momentum": 0.9,
    "limit": 0.5,
    "decay": 0.9,
    "epsilon": 1e-5,
    "beta1": 0.9,
    "beta2": 0.99,
    "weight_decay": 0.1,
    "update_nr": 3,
    "activation": "tanh",
    "orders": (2, 4),
    "constant": True,
    "heads": 2,
    "causal": True,
    **{
        name: argument_cases.SCALARS[name]
        for name in ("threshold", "neuron", "surrogate", "parameters")
    },
}
VALUES = {"targets": 0.0, "v": 0.0, "timing": 2.0}
MOVES_DATA = {"get_numpy_copy", "set_from_numpy"}
# These have tests of their own; ctc looks for the labels of each sequence.
ELSEWHERE = ("2d_", "recurrent", "lstm", "clockwork", "ctc")
SINGLE = [
    name
    for name in OPERATIONS
    if name not in MOVES_DATA and not any(part in name for part in ELSEWHERE)
]


def arguments_for(handler, name, strided, flags):
    """Arrays of the shapes that an operation expects, and values that fit."""
    spec = OPERATIONS[name]
    sizes = SIZES | OTHER_SIZES.get(name, {})
    arguments = {}
    for argument, shape in {**spec.read, **spec.write, **spec.add}.items():
        dims = ()
        # Spikes that come back have a carried row, which is that of the first kind.
        kind = shape.split("|")[0 if name.startswith("lif") else -1]
        for part in kind.split(","):
            size = int(part) if part.isdigit() else sizes[part]
            dims += size if isinstance(size, tuple) else (size,)
        # Flat buffers, weights and vectors of parameters are never strided.
        arrays = Arrays(handler, strided=strided and len(dims) > 1)
        value = (
            0.0
            if argument in ("targets", "indices")
            or name in ("binarize_v", "index_m_by_v")
            else 0.5
        )
        arguments[argument] = arrays.put(np.full(dims, value))
    arguments = in_records(name, arguments)
    for argument in inspect.signature(getattr(Handler, name)).parameters:
        if argument in SCALARS:
            arguments.setdefault(argument, SCALARS[argument])
        elif argument.startswith("fresh"):
            arguments[argument] = flags
    # Most derivatives need one of them.
    if name.endswith("_deriv") or name == "act_backward":
        arguments.setdefault("x", arguments.get("y"))
        arguments.setdefault("y", arguments.get("x"))
    return arguments


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("fresh", [False, True])
def test_operations_allocate_nothing(name, strided, fresh):
    handler = NumpyHandler(np.float32)
    arguments = arguments_for(handler, name, strided, fresh)
    run = getattr(handler, name)
    run(**arguments)
    # Other threads may allocate too, but not each time.
    peak = min(traced_peak(run, arguments) for _ in range(3))
    # Small objects count too; the smallest array of M elements has 16 KB. NumPy may
    # buffer 8192 elements of each of three operands; matrices here are larger.
    # np.add.at always does; nvar works on columns.
    dense = not strided and not name.startswith(("add_to_rows", "nvar"))
    little = NUMPY_BUFFERS_LITTLE and dense
    buffers = 0 if little else 3 * 8192 * 4
    assert peak < 8192 + buffers


def traced_peak(run, arguments):
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        run(**arguments)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def test_every_operation_is_specified():
    public = {
        name
        for name, member in inspect.getmembers(Handler, inspect.isfunction)
        if not name.startswith("_")
    }
    others = {"allocate", "zeros", "ones", "scratch", "create_from_numpy", "overlap"}
    others |= {"get_random_state", "set_random_state", "complete", "check_limit"}
    others |= {"do", "record", "release", "release_after", "share_cores", "message_of"}
    assert public - others == set(OPERATIONS)


def test_scratch_is_reused():
    handler = NumpyHandler()
    first = handler.scratch((100, 3))
    assert handler.scratch((100, 3)) is first
    assert np.shares_memory(handler.scratch((50,)), first)
    assert not np.shares_memory(handler.scratch((50,), 1), first)
    grown = handler.scratch((1000, 3))
    assert np.shares_memory(handler.scratch((100, 3)), grown)


def test_number_of_scratch_views_is_bounded():
    handler = NumpyHandler()
    for n in range(2000):
        assert handler.scratch((n,)).shape == (n,)
    assert len(handler._workspace.views) < 1000


def test_threads_do_not_disturb_each_other():
    handler = NumpyHandler(np.float64)
    wrong = []

    def work(seed):
        arrays = Arrays(handler, seed)
        rows = 10 + 7 * seed
        x, dy = arrays.randn(rows, 400), arrays.randn(rows, 400)
        x_, dy_, out = arrays.put(x), arrays.put(dy), arrays.garbage(x.shape)
        p, total = arrays.garbage(x.shape), arrays.garbage((1,))
        for _ in range(30):
            handler.softmax_m(x_, p)
            handler.sum_t(p, None, total)
            handler.tanh_deriv(None, x_, dy_, out)
            if abs(total[0] - rows) > 1e-9 or not np.allclose(out, dy * (1 - x**2)):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# -- types, descriptions, copies -----------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
def test_any_float_type(dtype):
    handler = NumpyHandler(dtype)
    assert handler.dtype == dtype
    a = handler.create_from_numpy(np.array([[1, 2], [3, 4]]))
    out = handler.zeros((2, 2))
    handler.dot_mm(a, a, out, transb=True)
    assert out.dtype == dtype
    assert out.tolist() == [[5, 11], [11, 25]]
    handler.dropout_forward(a, out, out.copy(), 0.5)
    assert set(out.ravel().tolist()) <= {0, 2}
    handler.fill_gaussian(0, 1, out)
    assert len(set(out.ravel().tolist())) > 1
    p, loss = handler.zeros((2, 2)), handler.zeros((2, 1))
    handler.softmax_ce_forward(a, handler.ones((2, 1)), p, loss)
    np.testing.assert_allclose(loss.astype(float), np.log(1 + np.exp(-1.0)), 5e-3)


@pytest.mark.parametrize("seed", [-1, 2**32, 0.5, "x"])
def test_bad_seeds_are_refused(seed):
    with pytest.raises(ValidationError, match="seed"):
        NumpyHandler(seed=seed)


@pytest.mark.parametrize("dtype", [int, complex, bool, "S3", "nonsense", object])
def test_other_types_are_refused(dtype):
    with pytest.raises(ValidationError, match="floating point type"):
        NumpyHandler(dtype)


def test_default_handler():
    assert default_handler.dtype == np.float32


def test_description():
    assert get_description(NumpyHandler()) == {
        "@type": "NumpyHandler",
        "dtype": "float32",
    }
    description = json.loads(json.dumps(get_description(NumpyHandler("float64", 7))))
    assert description == {"@type": "NumpyHandler", "dtype": "float64", "seed": 7}
    handler = create_from_description(description)
    assert type(handler) is NumpyHandler
    assert (handler.dtype, handler.seed) == (np.float64, 7)


def test_description_may_lack_the_dtype():
    handler = create_from_description({"@type": "NumpyHandler"})
    assert handler.dtype == np.float32


@pytest.mark.parametrize(
    "members", [{"rnd": 3}, {"dtype": "int32"}, {"dtype": 7}, {"array_type": "list"}]
)
def test_bad_descriptions_are_refused(members):
    with pytest.raises(ValidationError, match="dtype"):
        create_from_description({"@type": "NumpyHandler", **members})


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda h: pickle.loads(pickle.dumps(h))]
)
def test_copies_draw_the_same_numbers(copied):
    handler = NumpyHandler(np.float64, seed=4)
    draw(handler)
    twin = copied(handler)
    assert twin is not handler
    assert twin.dtype == np.float64
    assert (draw(handler) == draw(twin)).all()
    twin.act_func["tanh"](twin.ones((2,)), twin.zeros((2,)))


# -- randomness ----------------------------------------------------------------


def draw(handler):
    mask, normal = handler.zeros((5, 41)), handler.zeros((30,))
    handler.generate_probability_mask(mask, 0.5)
    handler.fill_gaussian(0.0, 1.0, normal)
    return np.concatenate([mask.ravel(), normal, handler.rnd.rand(3)])


def test_global_seed_determines_everything():
    handler = NumpyHandler(np.float64)
    drawn = []
    for seed in (5, 5, 6):
        global_rnd.set_seed(seed)
        drawn.append(draw(handler))
        assert (draw(handler) != drawn[-1]).any()
    global_rnd.set_seed(5)
    drawn.append(draw(NumpyHandler(np.float64)))
    assert (drawn[0] == drawn[1]).all()
    assert (drawn[0] == drawn[3]).all()
    assert (drawn[0] != drawn[2]).any()


def test_own_seed_is_independent_of_the_global_one():
    first = draw(NumpyHandler(seed=3))
    handler = NumpyHandler(seed=3)
    global_rnd.set_seed(1)
    assert (draw(handler) == first).all()
    later = draw(handler)
    global_rnd.set_seed(1)
    assert (draw(handler) != later).any()
    assert (draw(NumpyHandler(seed=4)) != first).any()


def test_seeding_rnd_seeds_the_masks():
    handler = NumpyHandler()
    handler.rnd.set_seed(9)
    first = draw(handler)
    assert (draw(handler) != first).any()
    handler.rnd.set_seed(9)
    assert (draw(handler) == first).all()


def test_random_state_round_trip():
    handler = NumpyHandler()
    draw(handler)
    handler.generate_probability_mask(handler.zeros((3,)), 0.5)
    handler.rnd.randn()
    state = json.loads(json.dumps(handler.get_random_state()))
    expected = draw(handler), draw(handler)
    other = NumpyHandler()
    for restored in (handler, other):
        restored.set_random_state(state)
        assert (draw(restored) == expected[0]).all()
        assert (draw(restored) == expected[1]).all()


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state.clear(),
        lambda state: state.update(rnd=["MT19937", [1, 2], 0, 0, 0.0]),
        lambda state: state.pop("generator"),
        lambda state: state["generator"].update(state={"state": [1]}),
        lambda state: state["generator"].update(bit_generator="PCG64"),
        lambda state: state.update(generator=3),
    ],
)
def test_damaged_random_states_change_nothing(damage):
    handler = NumpyHandler(seed=1)
    state = handler.get_random_state()
    damage(state)
    with pytest.raises(HandlerError, match="random state"):
        handler.set_random_state(state)
    assert (draw(handler) == draw(NumpyHandler(seed=1))).all()


def test_masks_do_not_depend_on_the_layout():
    wide = np.zeros((5, 8000), np.float32)[:, 1:7998]
    flat = np.zeros((5, 7997), np.float32)
    NumpyHandler(seed=2).generate_probability_mask(wide, 0.5)
    NumpyHandler(seed=2).generate_probability_mask(flat, 0.5)
    assert (wide == flat).all()


def test_mask_of_certain_outcomes():
    handler, mask = NumpyHandler(), np.zeros((200, 200), np.float32)
    handler.generate_probability_mask(mask, 1.0)
    assert (mask == 1).all()
    handler.generate_probability_mask(mask, 0.0)
    assert (mask == 0).all()


@pytest.mark.parametrize("shape", [(40000,), (5, 8000), (0, 3), ()])
def test_gaussian(shape):
    out = np.full(shape, np.nan, np.float32)
    NumpyHandler(seed=3).fill_gaussian(-2.0, 0.5, out)
    assert np.isfinite(out).all()
    if out.size > 1:
        z = np.sort((out.ravel().astype(float) + 2) / 0.5)
        # Kolmogorov-Smirnov distance from the normal distribution, 0.1 % level.
        from math import erf, sqrt

        cdf = np.array([0.5 * (1 + erf(v / sqrt(2))) for v in z])
        assert np.abs(cdf - np.arange(1, z.size + 1) / z.size).max() < 1.95 / 200


@pytest.mark.parametrize("make", ["zeros", "allocate"])
def test_large_arrays_have_pages_of_their_own(make):
    handler = NumpyHandler(np.float32)
    array = getattr(handler, make)((3, 200, 1000))
    assert type(array.base) is Pages
    assert array.flags.writeable
    assert array.flags.c_contiguous
    assert array.shape == (3, 200, 1000)
    assert array.dtype == np.float32
    assert not array.any()
    view = array[1, ::2].reshape(-1)[5:]
    row = array[1]
    row[...] = np.arange(1000)
    assert row.base is array  # whoever has a part keeps all of it
    del array
    np.testing.assert_array_equal(row[0], np.arange(1000))
    assert not view.any()
    with pytest.raises(MemoryError):
        getattr(handler, make)((2**55, 3))

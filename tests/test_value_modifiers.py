import copy
import json
import math
import pickle
import tracemalloc

import numpy as np
import pytest

from brainstorm.describable import create_from_description, get_description
from brainstorm.handlers import NumpyHandler, default_handler
from brainstorm.utils import ValidationError
from brainstorm.value_modifiers import (
    ClipValues,
    ConstrainL2Norm,
    FreezeValues,
    GradientModifier,
    L1Decay,
    L2Decay,
    MaskValues,
    ValueModifier,
)


@pytest.fixture(params=[np.float64, np.float32], ids=["float64", "float32"])
def handler(request):
    return NumpyHandler(request.param)


def values(shape, seed=1):
    return np.random.RandomState(seed).randn(*shape)


def modified(handler, modifier, start):
    """What a modifier makes of an array, which has to be modified in place."""
    view = handler.create_from_numpy(start)
    modifier(handler, view)
    return handler.get_numpy_copy(view)


def tolerance(handler):
    return 1e-6 if handler.dtype == np.float32 else 1e-14


# -- ConstrainL2Norm ---------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 4), (1, 5), (6, 1), (5, 2, 3, 2)])
def test_constrain_l2_norm(handler, shape):
    start = values(shape)
    start[0] *= 1e-3
    limit = 0.9
    rows = start.reshape(shape[0], -1)
    norms = np.array([math.sqrt(sum(x * x for x in row)) for row in rows])
    expected = (rows / np.maximum(1, norms / limit)[:, None]).reshape(shape)
    result = modified(handler, ConstrainL2Norm(limit), start)
    np.testing.assert_allclose(result, expected, rtol=5 * tolerance(handler))


def test_constrain_l2_norm_leaves_small_rows_and_biases_untouched(handler):
    small = values((3, 4)) * 0.01
    np.testing.assert_array_equal(
        modified(handler, ConstrainL2Norm(1.0), small), small.astype(handler.dtype)
    )
    bias = values((10,)) * 100
    np.testing.assert_array_equal(
        modified(handler, ConstrainL2Norm(1.0), bias), bias.astype(handler.dtype)
    )
    zeros = np.zeros((3, 4))
    np.testing.assert_array_equal(modified(handler, ConstrainL2Norm(1.0), zeros), zeros)


# -- ClipValues, MaskValues, FreezeValues ------------------------------------


@pytest.mark.parametrize(
    ("arguments", "low", "high"),
    [((), -1, 1), ((-0.5, 0.25), -0.5, 0.25), ((0, math.inf), 0, None)],
)
def test_clip_values(handler, arguments, low, high):
    start = values((3, 4, 2)) * 2
    expected = np.clip(start.astype(handler.dtype), low, high)
    result = modified(handler, ClipValues(*arguments), start)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("mask", [[[1, 0], [0.5, -1]], np.array([[True, False]] * 2)])
def test_mask_values(handler, mask):
    start = values((2, 2))
    expected = np.asarray(mask, dtype=float) * start
    result = modified(handler, MaskValues(mask), start)
    np.testing.assert_allclose(result, expected, rtol=tolerance(handler))


def test_freeze_values_at_given_weights(handler):
    weights = values((2, 3), seed=5)
    result = modified(handler, FreezeValues(weights.tolist()), values((2, 3)))
    np.testing.assert_array_equal(result, weights.astype(handler.dtype))


def test_freeze_values_at_first_seen(handler):
    modifier = FreezeValues()
    first = values((2, 3)).astype(handler.dtype)
    np.testing.assert_array_equal(modified(handler, modifier, first), first)
    np.testing.assert_array_equal(modified(handler, modifier, values((2, 3), 2)), first)
    other = NumpyHandler(np.float64)
    np.testing.assert_array_equal(modified(other, modifier, values((2, 3), 3)), first)


@pytest.mark.parametrize(
    ("modifier", "message"),
    [
        (
            MaskValues([1, 0, 1]),
            r"MaskValues: expected mask of shape \(2, 3\), got \(3,\)",
        ),
        (
            FreezeValues([[1, 2]]),
            r"FreezeValues: expected weights .*\(2, 3\), .*\(1, 2\)",
        ),
    ],
)
def test_wrong_shapes_are_named_and_change_nothing(handler, modifier, message):
    view = handler.create_from_numpy(np.ones((2, 3)))
    with pytest.raises(ValidationError, match=message):
        modifier(handler, view)
    assert (handler.get_numpy_copy(view) == 1).all()


def test_freeze_values_refuses_a_second_shape(handler):
    modifier = FreezeValues()
    modified(handler, modifier, np.ones((2, 3)))
    with pytest.raises(ValidationError, match=r"\(3, 2\), got \(2, 3\)"):
        modified(handler, modifier, np.ones((3, 2)))


# -- gradient modifiers ------------------------------------------------------


@pytest.mark.parametrize(
    ("modifier", "change"),
    [
        (L1Decay(0.3), lambda w: 0.3 * np.sign(w)),
        (L2Decay(0.3), lambda w: 0.3 * w),
        (L1Decay(0), lambda w: 0 * w),
    ],
)
@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 2, 2)])
def test_decay(handler, modifier, change, shape):
    parameters, gradients = values(shape, 1), values(shape, 2)
    parameters.flat[0] = 0.0
    p, g = handler.create_from_numpy(parameters), handler.create_from_numpy(gradients)
    modifier(handler, p, g)
    np.testing.assert_allclose(
        handler.get_numpy_copy(g),
        gradients + change(parameters),
        rtol=10 * tolerance(handler),
        atol=tolerance(handler),
    )
    np.testing.assert_array_equal(
        handler.get_numpy_copy(p), parameters.astype(handler.dtype)
    )


# -- what they have in common ------------------------------------------------

MASK = np.arange(6.0).reshape(2, 3)
ALL = [
    ConstrainL2Norm(0.5),
    ClipValues(-0.2, 0.1),
    MaskValues(MASK),
    FreezeValues(MASK),
    FreezeValues(),
    L1Decay(0.1),
    L2Decay(0.2),
]
every_modifier = pytest.mark.parametrize(
    "modifier", ALL, ids=lambda m: type(m).__name__
)


def run(modifier, handler, *arrays):
    """The last of the arrays after the modifier was called with them."""
    if isinstance(modifier, GradientModifier):
        views = [handler.create_from_numpy(a) for a in (arrays[0], arrays[-1])]
    else:
        views = [handler.create_from_numpy(arrays[-1])]
    modifier(handler, *views)
    return handler.get_numpy_copy(views[-1])


@every_modifier
def test_description_restores_an_equal_modifier(modifier):
    handler = NumpyHandler(np.float64)
    run(modifier, handler, values((2, 3)))
    description = get_description(modifier)
    restored = create_from_description(json.loads(json.dumps(description)))
    assert type(restored) is type(modifier)
    assert get_description(restored) == description
    start = values((2, 3))
    np.testing.assert_array_equal(
        run(restored, handler, start), run(modifier, handler, start)
    )


def test_descriptions_hold_the_arguments_alone():
    assert get_description(ClipValues()) == {
        "@type": "ClipValues",
        "low": -1.0,
        "high": 1.0,
    }
    modifier = FreezeValues()
    modified(NumpyHandler(np.float64), modifier, np.ones(3))
    assert get_description(modifier) == {"@type": "FreezeValues", "weights": None}


@every_modifier
@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_copies_do_not_take_the_handler_along(modifier, duplicate):
    handler = NumpyHandler(np.float64)
    start = values((2, 3))
    expected = run(modifier, handler, start)
    twin = duplicate(modifier)
    assert not any(isinstance(v, NumpyHandler) for v in vars(twin).values())
    np.testing.assert_array_equal(run(twin, handler, start), expected)


@every_modifier
def test_handler_can_be_changed(modifier):
    modifier = copy.deepcopy(modifier)
    start = values((2, 3)).astype(np.float32).astype(np.float64)
    for dtype in (np.float64, np.float32, np.float64):
        result = run(modifier, NumpyHandler(dtype), start)
        assert result.dtype == dtype
        fresh = run(copy.deepcopy(modifier), NumpyHandler(dtype), start)
        np.testing.assert_array_equal(result, fresh)


@pytest.mark.parametrize(
    "modifier",
    [
        ConstrainL2Norm(0.5),
        ClipValues(),
        MaskValues(np.ones((1000, 100))),
        FreezeValues(),
        L1Decay(0.1),
        L2Decay(0.1),
    ],
    ids=lambda m: type(m).__name__,
)
def test_calls_after_the_first_make_no_arrays(modifier, monkeypatch):
    handler = NumpyHandler(np.float32)
    arrays = [handler.create_from_numpy(values((1000, 100), s)) for s in (1, 2)]
    arguments = arrays if isinstance(modifier, GradientModifier) else arrays[:1]
    modifier(handler, *arguments)
    for name in ("allocate", "zeros", "ones", "create_from_numpy", "get_numpy_copy"):
        monkeypatch.setattr(NumpyHandler, name, None)
    tracemalloc.start()
    modifier(handler, *arguments)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # NumPy's own buffer for broadcasting, 8192 items, is not ours to avoid.
    assert peak < 40_000 < arrays[0].nbytes


def test_one_modifier_serves_arrays_of_several_shapes(handler):
    modifier = L1Decay(1.0)
    for shape in [(2, 3), (4,), (2, 3)]:
        parameters, gradients = values(shape), np.zeros(shape)
        result = run(modifier, handler, parameters, gradients)
        np.testing.assert_array_equal(result, np.sign(parameters))


def test_own_modifiers_need_no_constructor(handler):
    class Double(ValueModifier):
        def __call__(self, handler, view):
            handler.mult_st(2, view, view)

    np.testing.assert_array_equal(modified(handler, Double(), np.ones(3)), [2, 2, 2])
    assert get_description(Double()) == {"@type": "Double"}


@pytest.mark.parametrize("kind", [ValueModifier, GradientModifier])
def test_base_classes_are_abstract(kind):
    arguments = [None] * (2 if kind is ValueModifier else 3)
    with pytest.raises(NotImplementedError, match=kind.__name__):
        kind()(*arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConstrainL2Norm(0), "ConstrainL2Norm: limit.*above 0"),
        (lambda: ConstrainL2Norm(-1), "ConstrainL2Norm: limit"),
        (lambda: ConstrainL2Norm(None), "ConstrainL2Norm: limit"),
        (lambda: ClipValues(1, 0), "ClipValues: low is 1, above high, 0"),
        (lambda: ClipValues(high=math.nan), "ClipValues: high"),
        (lambda: ClipValues("a"), "ClipValues: low"),
        (lambda: MaskValues(None), "MaskValues: mask"),
        (lambda: MaskValues([[1], [1, 2]]), "MaskValues: mask"),
        (lambda: FreezeValues("a"), "FreezeValues: weights"),
        (lambda: L1Decay(-1), "L1Decay: factor.*>= 0"),
        (lambda: L2Decay("a"), "L2Decay: factor"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValidationError, match=message):
        make()


def test_freeze_values_takes_what_each_training_starts_with(handler):
    modifier = FreezeValues()
    for seed in (1, 2):
        start = values((2, 3), seed).astype(handler.dtype)
        modifier.start(handler, handler.create_from_numpy(start))
        for changed in (3, 4):
            result = modified(handler, modifier, values((2, 3), changed))
            np.testing.assert_array_equal(result, start)


def test_freeze_values_at_given_weights_looks_at_nothing_else(handler):
    modifier = FreezeValues(np.ones((2, 3)))
    modifier.start(handler, handler.create_from_numpy(values((2, 3))))
    assert (modified(handler, modifier, values((2, 3))) == 1).all()


class AddNoise(ValueModifier):
    def __call__(self, handler, view):
        handler.add_tt(view, self.rnd.randn(*view.shape), view)


def test_random_modifiers_go_on_from_their_state():
    modifier, handler = AddNoise(seed=3), NumpyHandler(np.float64)
    for draws in (0, 1, 3):
        for _ in range(draws):
            modified(handler, modifier, np.zeros(5))
        state = modifier.get_state()
        expected = modified(handler, modifier, np.zeros(5))
        other = AddNoise()
        other.set_state(state)
        np.testing.assert_array_equal(modified(handler, other, np.zeros(5)), expected)
    assert ClipValues().get_state().keys() == {"seed"}


def test_the_default_handler_takes_arrays_of_doubles():
    m = np.random.RandomState(0).randn(4, 5)
    norms = np.sqrt((m**2).sum(axis=1, keepdims=True))
    expected = m / np.maximum(1, norms / 0.5)
    ConstrainL2Norm(0.5)(default_handler, m)
    np.testing.assert_allclose(m, expected, rtol=1e-6)

"""DebugHandler refuses what other handlers take for granted."""

import inspect

import numpy as np
import pytest

from brainstorm.describable import create_from_description, get_description
from brainstorm.handlers import DebugHandler, NumpyHandler
from brainstorm.utils import HandlerError, ValidationError
from tests.handlers.argument_cases import Case


@pytest.fixture
def handler():
    return DebugHandler(NumpyHandler(np.float64))


def z(*shape):
    return np.zeros(shape)


WRONG_SHAPES = [
    ("add_tt", (z(2, 3), z(3, 2), z(2, 3)), "'b'", r"\(2, 3\)", r"\(3, 2\)"),
    ("abs_t", (z(2), z(2, 1)), "'out'", r"\(2,\)", r"\(2, 1\)"),
    ("mult_mv", (z(2, 3), z(3), z(2, 3)), "'v'", r"\(1, 3\) or \(2, 1\)", r"\(3,\)"),
    ("add_mv", (z(2, 3), z(2, 3), z(2, 3)), "'v'", r"\(1, 3\)", r"\(2, 3\)"),
    ("dot_mm", (z(2, 3), z(4, 3), z(2, 4)), "multiply", r"\(2, 3\)", r"\(4, 3\)"),
    ("dot_mm", (z(2, 3), z(3, 4), z(4, 2)), "'out'", r"\(2, 4\)", r"\(4, 2\)"),
    ("dot_add_mm", (z(2), z(3, 4), z(4, 2)), "'a'", r"\(P, Q\)", r"\(2,\)"),
    ("sum_t", (z(2, 3), 0, z(2)), "'out'", r"\(1, 3\) or \(3,\)", r"\(2,\)"),
    ("sum_t", (z(2, 3), None, z(2)), "'out'", "single", r"\(2,\)"),
    ("sum_t", (z(2, 3), 2, z(2)), "'axis'", r"\[0, 1\]", "2"),
    ("sum_t", (z(2, 3, 4), 1, z(2)), "'a'", "1 or 2 dim", r"\(2, 3, 4\)"),
    ("merge_tt", (z(2, 3), z(2, 1), z(2, 5)), "'out'", r"\(2, 4\)", r"\(2, 5\)"),
    ("merge_tt", (z(2, 3), z(1, 1), z(2, 4)), "'b'", r"\(2, B\)", r"\(1, 1\)"),
    ("split_add_tt", (z(2, 5), z(2, 3), z(2, 3)), "'x'", r"\(2, 6\)", r"\(2, 5\)"),
    ("binarize_v", (z(2, 2), z(2, 3)), "'v'", r"\(M, 1\)", r"\(2, 2\)"),
    ("index_m_by_v", (z(2, 3), z(3, 1), z(2, 1)), "'v'", r"\(2, 1\)", r"\(3, 1\)"),
    ("broadcast_t", (z(2, 3), 1, z(2, 6)), "'a'", "size 1", r"\(2, 3\)"),
    ("broadcast_t", (z(2, 1), 1, z(3, 6)), "'out'", r"\(2, 1\)", r"\(3, 6\)"),
    ("broadcast_t", (z(2, 1), 5, z(2, 6)), "'axis'", r"\[0, 1\]", "5"),
    ("sgd_update", (z(3), z(4), 0.1), "'", r"\(4,\)", r"\(3,\)"),
    ("constrain_rows", (z(3, 2), 1.0, z(3)), "'norms'", "3, 1|N, 1", r"\(3,\)"),
    (
        "affine",
        (z(2, 3), z(4, 3), z(5), z(2, 4), z(2, 4), "rel"),
        "'bias'",
        r"\(4,\)",
        r"\(5,\)",
    ),
    (
        "softmax_ce_forward",
        (z(2, 3), z(2), z(2, 3), z(2, 1)),
        "'targets'",
        r"\(2, 1\)",
        r"\(2,\)",
    ),
    (
        "conv2d_forward_batch",
        (z(1, 5, 5, 2), z(3, 2, 2, 2), z(3), z(1, 5, 4, 3), 0, (1, 1)),
        "'outputs'",
        r"\(4, 4\)",
        r"\(5, 4\)",
    ),
    (
        "maxpool2d_forward_batch",
        (z(1, 4, 4, 2), (2, 2), z(1, 4, 2, 2), 0, (2, 2), z(1, 4, 2, 2)),
        "'outputs'",
        r"\(2, 2\)",
        r"\(4, 2\)",
    ),
]


@pytest.mark.parametrize(
    ("name", "arguments", "argument", "expected", "got"), WRONG_SHAPES
)
def test_shapes(handler, name, arguments, argument, expected, got):
    with pytest.raises(HandlerError) as error:
        getattr(handler, name)(*arguments)
    assert str(error.value).startswith(name + ": ")
    error.match(argument)
    error.match(expected)
    error.match(got)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (np.zeros((2, 3), np.float32), "expected dtype float64, got dtype float32"),
        (np.zeros((2, 3), int), "expected dtype float64, got dtype int64"),
        ([[0.0] * 3] * 2, "expected an array of type ndarray, got a list"),
        (None, "expected an array of type ndarray, got a NoneType"),
        (1.0, "expected an array of type ndarray, got a float"),
    ],
)
def test_types(handler, wrong, text):
    right = z(2, 3)
    for i, argument in enumerate(("a", "b", "out")):
        arguments = [right, right, right]
        arguments[i] = wrong
        with pytest.raises(
            HandlerError, match=f"mult_tt: argument '{argument}': {text}"
        ):
            handler.mult_tt(*arguments)
    with pytest.raises(HandlerError, match="tanh: argument 'x'"):
        handler.act_func["tanh"](wrong, right)
    with pytest.raises(HandlerError, match="sigmoid: argument 'x'"):
        handler.inplace_act_func["sigmoid"](wrong)
    with pytest.raises(HandlerError, match="el_deriv: argument 'y'"):
        handler.inplace_act_func_deriv["el"](wrong, right)


def test_aliasing(handler):
    a, big = z(3, 3), z(3, 6)
    handler.add_tt(a, a, a)
    handler.softmax_m(a, a)
    handler.mult_mv(a, a[:1], z(3, 3))
    handler.add_tt(big[:, :3], big[:, 3:], big[:, 3:])
    for name, arguments, text in [
        ("dot_mm", (a, z(3, 3), a), "'out' must not overlap 'a'$"),
        ("dot_add_mm", (z(3, 3), a, a), "'out' must not overlap 'b'$"),
        ("add_tt", (a, big[:, :3], big[:, 1:4]), "'out' must not overlap 'b' in part"),
        ("mult_mv", (z(3, 3), a[:1], a), "'out' must not overlap 'v' in part"),
        ("sum_t", (a, 0, a[0]), "'out' must not overlap 'a'"),
        ("merge_tt", (big[:, :2], a, big[:, :5]), "'out' must not overlap 'a'"),
        ("split_add_tt", (big, a, a), "'out_b' must not overlap 'out_a'"),
        ("sgd_update", (a[0], a[0], 0.1), "'parameters' must not overlap 'gradients'"),
        ("index_m_by_v", (a, z(3, 1), a[:, :1]), "'out' must not overlap 'm'"),
        ("sigmoid_ce_forward", (a, z(3, 3), a, z(3, 3)), "'predictions' .* 'x'"),
    ]:
        with pytest.raises(HandlerError, match=f"{name}: argument {text}"):
            getattr(handler, name)(*arguments)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_finite_inputs(handler, bad):
    a, out = z(2, 2), z(2, 2)
    a[1, 0] = bad
    text = "argument '{}': expected finite numbers, got NaN or infinity in it"
    with pytest.raises(HandlerError, match="sign_t: " + text.format("a")):
        handler.sign_t(a, out)
    with pytest.raises(HandlerError, match="mult_add_tt: " + text.format("out")):
        handler.mult_add_tt(out, out.copy(), a)
    # What is overwritten does not matter.
    handler.sign_t(out, a)
    assert (a == 0).all()


def test_finite_destinations_unless_fresh(handler):
    dx = np.full((2, 2), np.nan)
    ones = np.ones((2, 2))
    with pytest.raises(HandlerError, match="dropout_backward: argument 'dx'"):
        handler.dropout_backward(ones, ones.copy(), dx)
    handler.dropout_backward(ones, ones.copy(), dx, fresh_dx=True)
    assert (dx == 1).all()


def test_finite_results(handler):
    for name, arguments in [
        ("log_t", (z(2), z(2))),
        ("divide_tt", (z(2), z(2), z(2))),
        ("sqrt_t", (z(2) - 1, z(2))),
        ("mult_st", (1e300, z(2) + 1e300, z(2))),
    ]:
        with pytest.raises(HandlerError, match=f"{name}: .*'out': expected finite res"):
            getattr(handler, name)(*arguments)


def test_data_moves_unchecked(handler):
    a = handler.create_from_numpy(np.array([np.nan, 1.0]))
    assert not handler.is_fully_finite(a)
    handler.set_from_numpy(a, np.array([np.inf, 2.0]))
    assert handler.get_numpy_copy(a).tolist() == [np.inf, 2.0]
    handler.fill(a, float("nan"))
    assert np.isnan(a).all()


def test_reading_what_was_never_written(handler):
    with pytest.raises(HandlerError, match="add_st: argument 't': expected finite"):
        handler.add_st(1.0, handler.allocate((3,)), handler.allocate((3,)))


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("add_st", (float("nan"), z(2), z(2)), "'s': expected a number"),
        ("mult_st", (np.float64("nan"), z(2), z(2)), "'s': expected a number"),
        ("clip_t", (z(2), 1.0, 0.0, z(2)), "'a_max': expected at least a_min = 1.0"),
        ("fill_gaussian", (0.0, -1.0, z(2)), "'std': expected a number in"),
        ("generate_probability_mask", (z(2), 1.5), "'probability': .* got 1.5"),
        ("dropout_forward", (z(2), z(2), z(2), -0.5), "'drop_prob': .* got -0.5"),
        ("constrain_rows", (z(2, 2), 0, z(2, 1)), "'limit': .* got 0"),
        ("binarize_v", (z(2, 1) + 3, z(2, 3)), "'v': .* from 0 to 2, got 3.0"),
        ("index_m_by_v", (z(2, 3), z(2, 1) - 1, z(2, 1)), "'v': .* got -1.0"),
        (
            "affine",
            (z(2, 3), z(4, 3), None, None, z(2, 4), "rel"),
            "'h': expected an array for 'rel', got None",
        ),
        (
            "affine",
            (z(2, 3), None, None, None, z(2, 4), "linear"),
            "'W': expected an array of type ndarray, got a NoneType",
        ),
        (
            "maxpool2d_forward_batch",
            (z(1, 4, 4, 2), (2, 2), z(1, 2, 2, 2), 0, (0, 2), z(1, 2, 2, 2)),
            r"strides of at least 1, got 0 and \(0, 2\)",
        ),
        (
            "conv2d_forward_batch",
            (
                *(z(1, 4, 4, 2), z(2, 2, 2, 2), z(2), z(1, 3, 3, 2)),
                *(0, (1, 1), "linear", (0, 1)),
            ),
            r"dilations and groups of at least 1, got \(0, 1\) and 1",
        ),
        (
            "conv2d_forward_batch",
            (
                *(z(1, 4, 4, 4), z(3, 2, 2, 2), z(3), z(1, 3, 3, 3)),
                *(0, (1, 1), "linear", (1, 1), 2),
            ),
            "'weights': expected a multiple of 2 kernels, each with 1 / 2 of the 4",
        ),
        (
            "avgpool2d_forward_batch",
            (z(1, 2, 4, 2), (3, 2), z(1, 0, 2, 2), 0, (1, 2)),
            r"'outputs': expected \(0, 2\) for height and width",
        ),
    ],
)
def test_values(handler, name, arguments, text):
    with pytest.raises(HandlerError, match=f"^{name}: .*{text}"):
        getattr(handler, name)(*arguments)


@pytest.mark.parametrize("shape", [3, [3], (-1,), (2.0,), ("a",), None])
def test_shapes_of_new_arrays(handler, shape):
    for name in ("allocate", "zeros", "ones", "scratch"):
        with pytest.raises(HandlerError, match=f"{name}: argument 'shape'"):
            getattr(handler, name)(shape)


def test_wrapping():
    inner = NumpyHandler(np.float32, seed=3)
    handler = DebugHandler(inner)
    assert handler.dtype == np.float32
    assert handler.array_type is np.ndarray
    assert handler.rnd is inner.rnd
    assert handler.EMPTY is inner.EMPTY
    assert DebugHandler(handler).ones((2,)).tolist() == [1, 1]
    for wrong in (None, np.ndarray, NumpyHandler):
        with pytest.raises(ValidationError, match="wraps a Handler"):
            DebugHandler(wrong)


def test_operations_of_the_wrapped_handler_alone():
    class Extended(NumpyHandler):
        def twice(self, a):
            return 2 * a

    handler = DebugHandler(Extended())
    assert handler.twice(3) == 6
    with pytest.raises(AttributeError, match="thrice"):
        handler.thrice(3)


def test_signatures_are_kept():
    for name in ("dot_mm", "affine_backward", "fill"):
        wrapped = inspect.signature(getattr(DebugHandler, name))
        assert wrapped == inspect.signature(getattr(NumpyHandler, name)) or (
            list(wrapped.parameters)
            == list(inspect.signature(getattr(NumpyHandler, name)).parameters)
        )


def test_description():
    description = get_description(DebugHandler(NumpyHandler("float64", 3)))
    assert description == {
        "@type": "DebugHandler",
        "handler": {"@type": "NumpyHandler", "dtype": "float64", "seed": 3},
    }
    handler = create_from_description(description)
    assert type(handler) is DebugHandler
    assert handler.dtype == np.float64
    assert handler.handler.seed == 3


@pytest.mark.parametrize("name", ["gru_forward", "gru_backward"])
def test_a_recurrent_bias_needs_the_reset_after_the_product(handler, name):
    case = Case(name)
    case.run(handler, case.arrays)
    case.others["reset_after"] = False
    with pytest.raises(HandlerError, match="recurrent_bias': expected None where"):
        case.run(handler, case.arrays)

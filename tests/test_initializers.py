import copy
import json
import math

import numpy as np
import pytest

from brainstorm.describable import create_from_description, get_description
from brainstorm.initializers import (
    ArrayInitializer,
    DenseSqrtFanIn,
    DenseSqrtFanInOut,
    EchoState,
    Gaussian,
    Identity,
    Initializer,
    KaimingNormal,
    KaimingUniform,
    LecunNormal,
    LecunUniform,
    LstmOptInit,
    Orthogonal,
    RandomWalk,
    Sparse,
    SparseInputs,
    SparseOutputs,
    TruncatedNormal,
    Uniform,
    VarianceScaling,
    XavierNormal,
    XavierUniform,
    evaluate_initializer,
)
from brainstorm.randomness import RandomState, global_rnd
from brainstorm.utils import InitializationError, ValidationError

ALL = [
    ArrayInitializer(np.arange(64.0).reshape(8, 8)),
    DenseSqrtFanIn(),
    DenseSqrtFanInOut("tanh"),
    EchoState(0.8),
    EchoState(0.9, connectivity=0.5, values=Gaussian()),
    Gaussian(),
    Identity(),
    LstmOptInit(1.0, Gaussian(), Uniform(), [[0.5] * 8] * 2),
    Orthogonal(),
    RandomWalk("rel"),
    Sparse(Gaussian(), density=0.3),
    SparseInputs(Gaussian(), connections=3),
    SparseOutputs(Uniform(), connections=3),
    TruncatedNormal(0.3),
    VarianceScaling(2.0, "fan_out", "uniform"),
    XavierNormal(),
    Uniform(),
]

every_initializer = pytest.mark.parametrize(
    "initializer", ALL, ids=lambda i: type(i).__name__
)


def draws(seed):
    return np.random.RandomState(seed)


# -- what they have in common ------------------------------------------------


@every_initializer
def test_values_are_new_float64_arrays_of_the_shape(initializer):
    first, second = initializer((8, 8)), initializer((8, 8))
    assert first.shape == (8, 8)
    assert first.dtype == np.float64
    assert not np.shares_memory(first, second)
    assert np.isfinite(first).all()


@every_initializer
def test_seed_makes_values_reproducible(initializer):
    def values(seed):
        return evaluate_initializer(initializer, (8, 8), seed=seed)

    first = values(3)
    initializer((8, 8))
    np.testing.assert_array_equal(values(3), first)
    if not isinstance(initializer, ArrayInitializer):
        assert (values(4) != first).any()


@every_initializer
def test_description_restores_an_equal_initializer(initializer):
    description = get_description(initializer)
    restored = create_from_description(json.loads(json.dumps(description)))
    assert type(restored) is type(initializer)
    assert get_description(restored) == description
    np.testing.assert_array_equal(
        evaluate_initializer(restored, (8, 8), seed=3),
        evaluate_initializer(initializer, (8, 8), seed=3),
    )


@every_initializer
def test_copies_are_independent(initializer):
    initializer.set_seed(5)
    twin = copy.deepcopy(initializer)
    expected = initializer((8, 8))
    np.testing.assert_array_equal(twin((8, 8)), expected)


def test_random_state_comes_from_global_rnd():
    def values():
        global_rnd.set_seed(42)
        return Gaussian()((3, 3))

    np.testing.assert_array_equal(values(), values())
    assert type(Gaussian().rnd) is RandomState


def test_contained_initializers_get_different_seeds():
    blocks = LstmOptInit(Gaussian(), Gaussian(), Gaussian(), Gaussian())
    values = evaluate_initializer(blocks, (8, 3), seed=1).reshape(4, 6)
    assert len({tuple(v) for v in values}) == 4


@pytest.mark.parametrize(
    ("initializer", "shape"),
    [
        (ArrayInitializer([1, 2, 3]), (3, 1)),
        (ArrayInitializer(1.0), (3,)),
        (DenseSqrtFanIn(), (4,)),
        (DenseSqrtFanInOut(), (4,)),
        (EchoState(), (4,)),
        (EchoState(), (4, 3)),
        (EchoState(), (2, 2, 2)),
        (Identity(), (4,)),
        (Identity(), (4, 3)),
        (Identity(enforce_square=False), (4,)),
        (Orthogonal(), (4,)),
        (RandomWalk(), (4,)),
        (RandomWalk(), (3, 4)),
        (SparseInputs(1.0, 2), (4,)),
        (SparseInputs(1.0, 5), (4, 6)),
        (SparseOutputs(1.0, 5), (6, 4)),
        (SparseOutputs(1.0, 2), (2, 2, 2)),
        (LstmOptInit(), (6, 3)),
        (LstmOptInit(), ()),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, Initializer) else str(v),
)
def test_shapes_that_do_not_fit_let_the_fallback_take_over(initializer, shape):
    name = type(initializer).__name__
    with pytest.raises(InitializationError, match=name) as caught:
        initializer(shape)
    assert str(shape) in str(caught.value)
    values = evaluate_initializer(initializer, shape, fallback=0.5)
    np.testing.assert_array_equal(values, np.full(shape, 0.5))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ArrayInitializer("a"), "ArrayInitializer: array"),
        (lambda: ArrayInitializer([[1], [1, 2]]), "ArrayInitializer: array"),
        (lambda: DenseSqrtFanIn("sine"), "DenseSqrtFanIn.*'sine'.*'rel', 'tanh'"),
        (lambda: DenseSqrtFanIn(-1), "DenseSqrtFanIn: scale.*>= 0"),
        (lambda: DenseSqrtFanInOut("el"), "DenseSqrtFanInOut.*'el'.*'sigmoid'"),
        (lambda: DenseSqrtFanInOut(None), "DenseSqrtFanInOut: scale"),
        (lambda: EchoState(-0.5), "EchoState: spectral_radius"),
        (lambda: EchoState(connectivity=0), "EchoState: connectivity .*above 0"),
        (lambda: EchoState(values="a"), "EchoState: values"),
        (lambda: Gaussian(std=-1), "Gaussian: std.*-1"),
        (lambda: Gaussian(mean="a"), "Gaussian: mean"),
        (lambda: Gaussian(math.nan), "Gaussian: std.*nan"),
        (lambda: Identity(std=-1), "Identity: std"),
        (lambda: Identity(scale=None), "Identity: scale"),
        (lambda: LstmOptInit(forget_gate="one"), "LstmOptInit: forget_gate"),
        (lambda: Orthogonal(math.inf), "Orthogonal: scale"),
        (lambda: RandomWalk("tanh"), "RandomWalk.*'tanh'.*'linear', 'rel'"),
        (lambda: RandomWalk(scale="x"), "RandomWalk: scale"),
        (lambda: RandomWalk(["rel"]), "RandomWalk: act_func"),
        (lambda: Sparse(1.0, 1.5), "Sparse: density .* up to 1, not 1.5"),
        (lambda: Sparse(None), "Sparse: sub_initializer"),
        (lambda: SparseInputs(None), "SparseInputs: sub_initializer"),
        (lambda: SparseInputs(1.0, 0), "SparseInputs: connections.*at least 1"),
        (lambda: SparseOutputs(1.0, 1.5), "SparseOutputs: connections.*1.5"),
        (lambda: TruncatedNormal(low=1.0, high=1.0), "TruncatedNormal: .* got 1.0 and"),
        (lambda: TruncatedNormal(low=7.0, high=9.0), "TruncatedNormal: .* got 7.0 and"),
        (lambda: Uniform(1, 0), "Uniform: low"),
        (lambda: VarianceScaling(0), "VarianceScaling: scale has to be above 0"),
        (lambda: VarianceScaling(1, "fan"), "mode 'fan'.*'fan_in', 'fan_out'"),
        (lambda: VarianceScaling(distribution=3), "distribution 3 .*'uniform'"),
        (lambda: XavierNormal("cauchy"), "distribution 'cauchy'"),
        (lambda: Uniform(high="a"), "Uniform: high"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValidationError, match=message):
        make()


def test_bad_arguments_in_descriptions_are_refused_too():
    with pytest.raises(ValidationError, match="Gaussian: std"):
        create_from_description({"@type": "Gaussian", "std": -1})


def test_base_class_is_abstract():
    with pytest.raises(NotImplementedError, match="Mine"):
        type("Mine", (Initializer,), {})()((3,))


# -- the formulas ------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (2, 3, 4)])
def test_gaussian(shape):
    values = evaluate_initializer(Gaussian(std=0.5, mean=2.0), shape, seed=9)
    np.testing.assert_array_equal(values, draws(9).randn(*shape) * 0.5 + 2.0)


@pytest.mark.parametrize(
    ("arguments", "low", "high"),
    [((), -0.1, 0.1), ((0.5,), -0.5, 0.5), ((-0.5,), -0.5, 0.5), ((1, 3), 1, 3)],
)
def test_uniform(arguments, low, high):
    values = evaluate_initializer(Uniform(*arguments), (3, 4), seed=9)
    np.testing.assert_allclose(
        values, draws(9).rand(3, 4) * (high - low) + low, rtol=1e-15, atol=1e-16
    )


@pytest.mark.parametrize(
    ("scale", "factor"),
    [
        ("rel", math.sqrt(6)),
        ("tanh", math.sqrt(3)),
        ("sigmoid", 4 * math.sqrt(3)),
        ("linear", 1),
        (0.7, 0.7),
    ],
)
@pytest.mark.parametrize(("shape", "n_in"), [((5, 3), 3), ((5, 2, 3, 4), 24)])
def test_dense_sqrt_fan_in(scale, factor, shape, n_in):
    values = evaluate_initializer(DenseSqrtFanIn(scale), shape, seed=9)
    expected = factor * (2 * draws(9).rand(*shape) - 1) / np.sqrt(n_in)
    np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize(
    ("scale", "factor"),
    [
        ("rel", math.sqrt(12)),
        ("tanh", math.sqrt(6)),
        ("sigmoid", 4 * math.sqrt(6)),
        ("linear", 1),
        (0.7, 0.7),
    ],
)
@pytest.mark.parametrize(("shape", "fans"), [((5, 3), 8), ((5, 2, 3, 4), 29)])
def test_dense_sqrt_fan_in_out(scale, factor, shape, fans):
    values = evaluate_initializer(DenseSqrtFanInOut(scale), shape, seed=9)
    expected = factor * (2 * draws(9).rand(*shape) - 1) / np.sqrt(fans)
    np.testing.assert_array_equal(values, expected)


def test_dense_sqrt_default_is_for_rel():
    assert get_description(DenseSqrtFanIn())["scale"] == "rel"
    assert get_description(DenseSqrtFanInOut())["scale"] == "rel"


def test_both_dense_sqrt_agree_where_inputs_equal_outputs():
    np.testing.assert_allclose(
        evaluate_initializer(DenseSqrtFanIn(), (6, 6), seed=1),
        evaluate_initializer(DenseSqrtFanInOut(), (6, 6), seed=1),
    )


@pytest.mark.parametrize("radius", [1.0, 0.77, 0.0])
def test_echo_state(radius):
    values = evaluate_initializer(EchoState(radius), (20, 20), seed=9)
    # For large k, ||A^k||^(1/k) is the spectral radius (Gelfand).
    growth = np.linalg.norm(np.linalg.matrix_power(values, 512)) ** (1 / 512)
    assert growth == pytest.approx(radius, rel=1e-2)
    uniform = draws(9).uniform(-0.5, 0.5, size=(20, 20))
    ratio = values / uniform
    np.testing.assert_allclose(ratio, ratio[0, 0])


def test_echo_state_scales_after_the_mask():
    initializer = EchoState(0.7, connectivity=0.2)
    initializer.set_seed(1)
    made = initializer((60, 60))
    assert np.abs(np.linalg.eigvals(made)).max() == pytest.approx(0.7)
    assert np.mean(made != 0) == pytest.approx(0.2, abs=0.03)
    signs = EchoState(1.0, 0.3, lambda shape: np.ones(shape))((50, 50))
    assert len(np.unique(signs)) == 2
    assert np.abs(np.linalg.eigvals(signs)).max() == pytest.approx(1)


def test_echo_state_without_connectivity_draws_as_before():
    made, rnd = EchoState(0.7), RandomState(3)
    made.set_seed(3)
    values = rnd.uniform(-0.5, 0.5, size=(9, 9))
    expected = values / np.abs(np.linalg.eigvals(values)).max() * 0.7
    np.testing.assert_allclose(made((9, 9)), expected, rtol=1e-12)
    assert get_description(EchoState(0.7)) == {
        "@type": "EchoState",
        "spectral_radius": 0.7,
    }


def test_echo_state_of_a_matrix_without_cycles():
    with pytest.raises(InitializationError, match=r"matrices \(5, 5\)"):
        EchoState(values=np.eye(5, k=1))((5, 5))


def test_sparse_keeps_each_value_with_the_same_probability():
    made = Sparse(lambda shape: np.full(shape, 3.0), 0.25)((20, 30, 40))
    assert set(np.unique(made)) == {0, 3}
    assert np.mean(made == 3) == pytest.approx(0.25, abs=0.02)
    np.testing.assert_array_equal(Sparse(2.0, 1)((3,)), 2)


@pytest.mark.parametrize(
    ("mode", "shape", "fan"),
    [
        ("fan_in", (30, 40, 50), 2000),
        ("fan_out", (30, 40, 50), 30),
        ("fan_avg", (30, 40, 50), 1015),
        *((mode, (60000,), 60000) for mode in ("fan_in", "fan_out", "fan_avg")),
    ],
)
@pytest.mark.parametrize("distribution", ["truncated_normal", "normal", "uniform"])
def test_variance_scaling(mode, shape, fan, distribution):
    initializer = VarianceScaling(1.7, mode, distribution)
    initializer.set_seed(1)
    made = initializer(shape)
    std = np.sqrt(1.7 / fan)
    assert made.shape == shape
    assert made.std() == pytest.approx(std, rel=0.02)
    assert made.mean() == pytest.approx(0, abs=0.02 * std)
    bound = {"truncated_normal": 2 / 0.87962566103423978, "uniform": np.sqrt(3)}
    largest = np.abs(made).max() / std
    bound = bound.get(distribution, 6)
    assert 0.7 * bound < largest <= bound


@pytest.mark.parametrize(
    ("initializer", "variance", "distribution"),
    [
        (KaimingNormal(), 2 / 400, "truncated_normal"),
        (KaimingUniform(), 2 / 400, "uniform"),
        (LecunNormal(), 1 / 400, "truncated_normal"),
        (LecunUniform(), 1 / 400, "uniform"),
        (XavierNormal(), 1 / 300, "truncated_normal"),
        (XavierUniform(), 1 / 300, "uniform"),
        (XavierNormal("normal"), 1 / 300, "normal"),
    ],
)
def test_named_variances(initializer, variance, distribution):
    initializer.set_seed(1)
    assert initializer((200, 400)).var() == pytest.approx(variance, rel=0.03)
    assert initializer.distribution == distribution


def test_drawing_leaves_global_rnd_alone():
    initializer = XavierNormal()
    state = global_rnd.get_state()[1].copy()
    initializer((5, 5))
    np.testing.assert_array_equal(global_rnd.get_state()[1], state)


def test_truncated_normal():
    initializer = TruncatedNormal(0.5, 10.0, -1.0, 3.0)
    initializer.set_seed(1)
    made = initializer((50, 400))
    assert 9.5 <= made.min() < 9.51
    assert 11.3 < made.max() <= 11.5
    # The mean of a standard normal distribution between -1 and 3.
    assert (made.mean() - 10) / 0.5 == pytest.approx(0.2828, abs=0.02)
    assert TruncatedNormal()(()).shape == ()


def test_identity():
    values = evaluate_initializer(Identity(2.0, std=0.5), (3, 3), seed=9)
    expected = [[2, 0, 0], [0, 2, 0], [0, 0, 2]] + 0.5 * draws(9).randn(3, 3)
    np.testing.assert_allclose(values, expected, rtol=1e-15)


def test_identity_may_be_oblong():
    values = Identity(std=0, enforce_square=False)((2, 3))
    np.testing.assert_array_equal(values, [[1, 0, 0], [0, 1, 0]])


@pytest.mark.parametrize("shape", [(4, 4), (3, 7), (7, 3), (5, 2, 2), (3, 2, 2, 2)])
def test_orthogonal(shape):
    values = evaluate_initializer(Orthogonal(2.0), shape, seed=9)
    assert values.shape == shape
    matrix = values.reshape(shape[0], -1)
    gram = (
        matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    )
    np.testing.assert_allclose(gram, 4 * np.eye(len(gram)), atol=1e-12)


def test_orthogonal_spans_what_the_drawn_matrix_spans():
    tall = evaluate_initializer(Orthogonal(), (7, 3), seed=9)
    drawn = draws(9).randn(7, 3)
    np.testing.assert_allclose(tall @ tall.T @ drawn, drawn, atol=1e-12)
    wide = evaluate_initializer(Orthogonal(), (3, 7), seed=9)
    drawn = draws(9).randn(3, 7)
    np.testing.assert_allclose(drawn @ wide.T @ wide, drawn, atol=1e-12)
    square = evaluate_initializer(Orthogonal(), (4, 4), seed=9)
    drawn = draws(9).randn(4, 4)
    turned = square.T @ drawn @ drawn.T @ square
    np.testing.assert_allclose(turned, np.diag(np.diag(turned)), atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "gain"),
    [
        (("linear",), math.exp(1 / 20)),
        (("rel",), math.sqrt(2) * math.exp(1.2 / 7.6)),
        (("rel", 3.0), 3.0),
    ],
)
def test_random_walk(arguments, gain):
    values = evaluate_initializer(RandomWalk(*arguments), (10, 10), seed=9)
    np.testing.assert_allclose(values, gain * draws(9).randn(10, 10) / 10, rtol=1e-14)


def test_random_walk_rel_of_small_matrices():
    values = evaluate_initializer(RandomWalk("rel"), (2, 2), seed=9)
    gain = math.sqrt(2) * math.exp(1.2 / 3.6)
    np.testing.assert_allclose(values, gain * draws(9).randn(2, 2) / 2, rtol=1e-14)


@pytest.mark.parametrize(("kind", "axis"), [(SparseInputs, 0), (SparseOutputs, 1)])
@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (4, 4)])
def test_sparse(kind, axis, shape):
    initializer = kind(Gaussian(std=1.0), connections=4)
    values = evaluate_initializer(initializer, shape, seed=9)
    assert ((values != 0).sum(axis=axis) == 4).all()
    kept = values[values != 0]
    np.testing.assert_array_equal(
        values, np.where(values != 0, evaluate_same_gaussian(shape), 0)
    )
    assert len(kept) == 4 * shape[1 - axis]


def evaluate_same_gaussian(shape):
    seed = draws(9).randint(0, 10**9)
    return draws(seed).randn(*shape)


def test_sparse_places_differ_between_lines():
    values = evaluate_initializer(SparseOutputs(1.0, 2), (20, 10), seed=1)
    assert len({tuple(row) for row in values}) > 10
    counts = values.sum(axis=0)
    assert counts.min() > 0


def test_sparse_with_all_connections_is_dense():
    assert (SparseInputs(2.0, 4)((4, 6)) == 2).all()
    assert (SparseOutputs([[1, 2], [3, 4]], 2)((2, 2)) == [[1, 2], [3, 4]]).all()


def test_sparse_passes_on_that_the_inner_one_can_not():
    with pytest.raises(InitializationError, match="EchoState"):
        SparseInputs(EchoState(), 2)((3, 4))


def test_lstm_opt_init_fills_blocks_in_order():
    initializer = LstmOptInit(
        1, ArrayInitializer([[2, 3]]), [[4, 5]], np.full((1, 2), 6)
    )
    np.testing.assert_array_equal(initializer((4, 2)), [[1, 1], [2, 3], [4, 5], [6, 6]])
    np.testing.assert_array_equal(
        LstmOptInit(forget_gate=1)((8,)), [0, 0, 0, 0, 1, 1, 0, 0]
    )


def test_array_initializer_keeps_its_own_copy():
    source = np.ones(3)
    initializer = ArrayInitializer(source)
    source[0] = 5
    initializer((3,))[1] = 7
    np.testing.assert_array_equal(initializer((3,)), np.ones(3))


# -- evaluate_initializer ----------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (2, [[2, 2, 2], [2, 2, 2]]),
        (np.float32(0.5), [[0.5] * 3] * 2),
        (True, [[1] * 3] * 2),
        ([[1, 2, 3], [4, 5, 6]], [[1, 2, 3], [4, 5, 6]]),
        (np.arange(6).reshape(2, 3), [[0, 1, 2], [3, 4, 5]]),
        (np.ones, [[1] * 3] * 2),
        (lambda shape: np.full(shape, 7, dtype=int), [[7] * 3] * 2),
    ],
)
def test_evaluate_accepts(source, expected):
    values = evaluate_initializer(source, [2, 3])
    assert values.dtype == np.float64
    np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize(
    "source", [[1, 2, 3], [[1], [2]], [[1]], np.ones((3, 2)), lambda shape: np.ones(3)]
)
def test_evaluate_does_not_broadcast(source):
    with pytest.raises(InitializationError, match=r"expected.*\(2, 3\)"):
        evaluate_initializer(source, (2, 3))
    assert (evaluate_initializer(source, (2, 3), fallback=1) == 1).all()


@pytest.mark.parametrize("source", ["a", None, [[1, 2], [3]], lambda shape: "a", {}])
def test_evaluate_refuses_what_is_not_numbers(source):
    with pytest.raises(ValidationError, match="initial value"):
        evaluate_initializer(source, (2, 3), fallback=0)


def test_evaluate_gives_copies():
    source = np.zeros(3)
    evaluate_initializer(source, (3,))[0] = 1
    assert source[0] == 0


def test_fallback_is_used_only_when_needed_and_is_seeded():
    def never(shape):
        raise RuntimeError("not to be called")

    evaluate_initializer(Gaussian(), (3,), fallback=never)
    values = evaluate_initializer(EchoState(), (3,), fallback=Gaussian(1.0), seed=9)
    np.testing.assert_array_equal(values, draws(9).randn(3))
    with pytest.raises(InitializationError, match="Identity"):
        evaluate_initializer(EchoState(), (3,), fallback=Identity())


def test_without_seed_the_stream_continues():
    initializer = Gaussian(1.0)
    initializer.set_seed(9)
    both = [evaluate_initializer(initializer, (2,)) for _ in range(2)]
    np.testing.assert_array_equal(np.concatenate(both), draws(9).randn(4))


class Ramp(Initializer):
    """As one written for brainstorm 0.5."""

    def __init__(self, slope=1.0, seed=None):
        super().__init__(seed=seed)
        self.slope = slope

    def __call__(self, shape):
        self._assert_atleast2d(shape)
        return self.slope * np.arange(shape[1]) + self.rnd.randn(*shape)


def test_initializers_of_ones_own():
    np.testing.assert_array_equal(Ramp(seed=3)((2, 3)), Ramp(seed=3)((2, 3)))
    assert not np.array_equal(Ramp()((2, 3)), Ramp()((2, 3)))
    with pytest.raises(InitializationError, match=r"Ramp needs at least two .*\(3,\)"):
        Ramp()((3,))
    again = create_from_description(get_description(Ramp(slope=2.0)))
    assert (again.slope, again((4, 2)).shape) == (2.0, (4, 2))


@pytest.mark.parametrize("initializer", [DenseSqrtFanIn, DenseSqrtFanInOut])
def test_relu_is_another_name_for_rel(initializer):
    assert initializer("relu").scale == "rel"

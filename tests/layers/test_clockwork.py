import numpy as np
import pytest

from brainstorm import layers
from brainstorm.structure.network import Network
from brainstorm.training import MomentumStepper
from brainstorm.utils import HandlerError
from tests.layers.single_layer import SingleLayer, normal

TIMING = [1, 2, 3, 100]
T, B, N = 9, 2, 4

MAKE = {"Clockwork": layers.Clockwork, "ClockworkLstm": layers.ClockworkLstm}
PLAIN = {"Clockwork": layers.Recurrent, "ClockworkLstm": layers.Lstm}
KEPT = {"Clockwork": ["internals.Ha"], "ClockworkLstm": ["internals.Ca"]}

every_kind = pytest.mark.parametrize("kind", MAKE)


def single(make, timing=None, steps=T):
    run = SingleLayer(make(N), {"default": normal(steps, B, 3)})
    rnd = np.random.RandomState(1)
    for name, structure in run.net.layers[run.name].parameter_shapes.items():
        if name != "timing":
            run.set(f"parameters.{name}", rnd.randn(*structure.shape))
    if timing is not None:
        run.set("parameters.timing", timing)
    return run


@every_kind
def test_units_change_only_in_their_steps(kind):
    run = single(MAKE[kind], TIMING).forward()
    for path in ["outputs.default", *KEPT[kind]]:
        values = run[path]
        for t in range(1, T):
            for unit, timing in enumerate(TIMING):
                same = values[t, :, unit] == values[t - 1, :, unit]
                assert same.all() == (t % timing != 0), (path, t, unit)


@every_kind
def test_all_units_are_updated_in_the_first_step(kind):
    clockwork = single(MAKE[kind], TIMING, 1).forward()
    plain = single(PLAIN[kind], steps=1).forward()
    np.testing.assert_array_equal(clockwork.y, plain.y)


@every_kind
def test_with_timings_of_one_nothing_is_special(kind):
    clockwork = single(MAKE[kind], 1).forward()
    plain = single(PLAIN[kind]).forward()
    np.testing.assert_array_equal(clockwork.y, plain.y)
    dy = normal(T + 1, B, N, seed=2)
    for run in (clockwork, plain):
        run.backward(default=dy)
    for name in plain.net.layers[plain.name].parameter_shapes:
        np.testing.assert_allclose(
            clockwork[f"gradients.{name}"], plain[f"gradients.{name}"], atol=1e-12
        )


@every_kind
def test_steps_are_counted(kind):
    run = single(MAKE[kind], TIMING).forward()
    expected = np.append(np.arange(1, T + 1), 0)  # row -1 is the state before
    np.testing.assert_array_equal(run["internals.step"][:, 0, 0], expected)
    context = run.net.get_context()
    assert (context[f"{kind}.internals.step"] == T).all()
    run.net.forward_pass(context=context)
    np.testing.assert_array_equal(run["internals.step"][:-1, 0, 0], expected[:-1] + T)


@every_kind
def test_sequences_of_a_batch_may_be_in_different_steps(kind):
    """The counts belong to each sequence."""
    run = single(MAKE[kind], TIMING).forward()
    context = run.net.get_context()
    context[f"{kind}.internals.step"][0, :, 0] = [1, 3]
    run.net.forward_pass(context=context)
    y = run.y
    changed = y[0] != y[-1]
    assert changed[0].tolist() == [True, False, False, False]  # step 1
    assert changed[1].tolist() == [True, False, True, False]  # step 3


@every_kind
def test_timings_need_not_be_integers(kind):
    run = single(MAKE[kind], [1, 1.5, 2.5, 4.5]).forward()
    y = run.y[:-1]
    changes = [(np.flatnonzero(y[1:, 0, k] != y[:-1, 0, k]) + 1) for k in range(N)]
    assert [c.tolist() for c in changes] == [list(range(1, T)), [3, 6], [5], []]


@every_kind
def test_timing_gets_no_gradient_and_is_not_trained(kind):
    inp = layers.Input({"default": ("T", "B", 3)})
    net = Network.from_layer(inp >> MAKE[kind](N, name="C") >> layers.Loss())
    net.initialize(0.3, C={"timing": TIMING, "default": 0.3})
    net.provide_external_data({"default": normal(T, B, 3)})
    stepper = MomentumStepper(0.1, 0.9)
    stepper.start(net)
    for _ in range(3):
        stepper.run()
    np.testing.assert_array_equal(net.get("C.gradients.timing"), 0)
    np.testing.assert_array_equal(net.get("C.parameters.timing"), TIMING)
    assert np.abs(net.get("gradients")).max() > 0


@every_kind
def test_timings_below_one_are_refused_when_run(kind):
    run = single(MAKE[kind], [1, 2, 0.5, 3])
    with pytest.raises(HandlerError, match=r"timings .* at least 1, got 0\.5"):
        run.forward()
    run.set("parameters.timing", TIMING)
    run.forward()  # still usable


@every_kind
def test_buffers(kind):
    runs = single(MAKE[kind]), single(PLAIN[kind])
    clockwork, plain = (run.net.layers[run.name] for run in runs)
    assert list(clockwork.parameter_shapes) == [*plain.parameter_shapes, "timing"]
    assert clockwork.parameter_shapes["timing"].shape == (N,)
    assert list(clockwork.internal_shapes) == [*plain.internal_shapes, "step"]
    step = clockwork.internal_shapes["step"]
    assert step.shape == ("T", "B", 1)
    assert step.context_size == 1

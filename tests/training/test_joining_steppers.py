"""GradientAccumulation: several batches are as one."""

import copy

import numpy as np
import pytest

from brainstorm import Trainer, hooks
from brainstorm.data_iterators import Minibatches
from brainstorm.describable import create_from_description, get_description
from brainstorm.training import (
    AdamStepper,
    ForwardStepper,
    GradientAccumulation,
    Linear,
    LionStepper,
    MomentumStepper,
    MuonStepper,
    NesterovStepper,
    SgdStepper,
)
from brainstorm.utils import ValidationError

STEPPERS = [
    SgdStepper(0.1),
    MomentumStepper(0.1, 0.9),
    AdamStepper(0.01),
    LionStepper(0.01),
    MuonStepper(0.01),
]


def rows(seed, count):
    rnd = np.random.RandomState(seed)
    return {"default": rnd.randn(1, count, 3), "targets": rnd.randn(1, count, 2)}


@pytest.mark.parametrize("stepper", STEPPERS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("sizes", [[4], [3, 3], [5, 1, 2]])
def test_an_update_is_that_of_the_joined_batch(net, stepper, sizes):
    start = net.get("parameters").copy()
    joined = copy.deepcopy(stepper)
    parts = GradientAccumulation(copy.deepcopy(stepper), len(sizes))
    data = [[rows(10 * i + k, n) for k, n in enumerate(sizes)] for i in range(3)]
    joined.start(net)
    for batches in data:
        whole = {n: np.concatenate([b[n] for b in batches], 1) for n in batches[0]}
        net.provide_external_data(whole)
        joined.run()
    expected = net.get("parameters").copy()
    net.handler.set_from_numpy(net.buffer.parameters, start)
    parts.start(net)
    for batches in data:
        for batch in batches:
            net.provide_external_data(batch)
            before = net.get("parameters").copy()
            parts.run()
            moved = not np.array_equal(net.get("parameters"), before)
            assert moved == (parts.batch_count == 0)
    np.testing.assert_allclose(net.get("parameters"), expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("stepper", STEPPERS, ids=lambda s: type(s).__name__)
def test_it_goes_on_from_its_state(net, stepper):
    start = net.get("parameters").copy()

    def run(stepper, batches):
        for seed in batches:
            net.provide_external_data(rows(seed, 3))
            stepper.run()

    first = GradientAccumulation(copy.deepcopy(stepper), 3)
    assert first.get_state() == {}
    first.start(net)
    run(first, range(8))
    expected = net.get("parameters").copy()
    net.handler.set_from_numpy(net.buffer.parameters, start)
    first = GradientAccumulation(copy.deepcopy(stepper), 3)
    first.start(net)
    run(first, range(4))
    second = create_from_description(get_description(first))
    second.set_state(first.get_state())
    second.start(net)
    assert (second.batch_count, second.sequences) == (1, 3)
    run(second, range(4, 8))
    np.testing.assert_array_equal(net.get("parameters"), expected)


def test_checkpoints_are_exact(net, tmp_path):
    start = net.get("parameters").copy()

    def trainer(epochs):
        made = Trainer(GradientAccumulation(AdamStepper(0.05), 3), verbose=False)
        made.add_hook(hooks.StopAfterEpoch(epochs))
        return made

    def data():
        return Minibatches(2, shuffle=False, **rows(0, 8))  # four batches: one is left

    trainer(4).train(net, data())
    expected = net.get("parameters").copy()
    net.handler.set_from_numpy(net.buffer.parameters, start)
    half = trainer(2)
    half.train(net, data())
    half.save(tmp_path / "half.hdf5")
    stop = [hooks.StopAfterEpoch(4)]
    again, other = Trainer.load(tmp_path / "half.hdf5", hooks=stop)
    other.set_handler(net.handler)
    again.train(other, data())
    np.testing.assert_array_equal(other.get("parameters"), expected)


def test_schedules_change_the_stepper(net):
    stepper = GradientAccumulation(SgdStepper(0.5), 2)
    trainer = Trainer(stepper, verbose=False)
    schedule = Linear(0.5, 0.1, num_changes=2)
    trainer.add_hook(hooks.ModifyStepperAttribute(schedule, "learning_rate"))
    trainer.add_hook(hooks.StopAfterEpoch(4))
    trainer.train(net, Minibatches(4, **rows(0, 8)))
    assert stepper.stepper.learning_rate == pytest.approx(0.1)
    assert stepper.learning_rate == stepper.stepper.learning_rate
    assert "learning_rate" not in vars(stepper)
    assert not hasattr(stepper, "momentum")


@pytest.mark.parametrize("n", [0, -1, 1.5, "2", None, True])
def test_bad_numbers(n):
    with pytest.raises(ValidationError, match="GradientAccumulation: n has to be"):
        GradientAccumulation(SgdStepper(), n)


@pytest.mark.parametrize(
    "stepper",
    [
        *(NesterovStepper(), ForwardStepper(), None, 3),
        GradientAccumulation(SgdStepper(), 2),
    ],
    ids=lambda s: type(s).__name__,
)
def test_bad_steppers(stepper):
    with pytest.raises(ValidationError, match="stepper has to be one with an update"):
        GradientAccumulation(stepper, 2)


@pytest.mark.parametrize("counts", [[1], [-1, 2], [0.5, 1], "a", [np.nan, 1]])
def test_bad_states(net, counts):
    stepper = GradientAccumulation(SgdStepper(), 2)
    with pytest.raises(ValidationError, match="GradientAccumulation: counts"):
        stepper.set_state({"total": np.zeros(8), "counts": counts})
    with pytest.raises(ValidationError, match="consists of 'total'"):
        stepper.set_state({"velocity": np.zeros(8)})

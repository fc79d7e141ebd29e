import numpy as np
import pytest

from brainstorm import layers, tools
from brainstorm.data_iterators import Minibatches, Undivided
from brainstorm.handlers import NumpyHandler
from brainstorm.hooks import (
    ModifyStepperAttribute,
    MonitorLayerDeltas,
    MonitorLayerGradients,
    MonitorLayerInOuts,
    MonitorLayerParameters,
    MonitorLoss,
    MonitorScores,
    StopAfterEpoch,
)
from brainstorm.scorers import MeanSquaredError
from brainstorm.structure.network import Network
from brainstorm.training import (
    AdamStepper,
    Linear,
    MomentumStepper,
    MultiStep,
    SgdStepper,
    Trainer,
)
from brainstorm.utils import IteratorValidationError, ValidationError


def train(net, iterator, *hooks, stepper=None, epochs=1, **named):
    trainer = Trainer(stepper or SgdStepper(0.1), verbose=False)
    for hook in hooks:
        trainer.add_hook(hook)
    trainer.add_hook(StopAfterEpoch(epochs))
    trainer.train(net, iterator, **named)
    return trainer.logs


def statistics(values):
    return {
        "min": pytest.approx(values.min()),
        "avg": pytest.approx(values.mean()),
        "max": pytest.approx(values.max()),
    }


def last(log):
    """The newest entries of nested logs."""
    if isinstance(log, dict):
        return {name: last(entries) for name, entries in log.items()}
    return log[-1]


def backpropagate(net, data):
    """Outputs, deltas and gradients of the linear regression in conftest.py."""
    x, t = data["default"][0], data["targets"][0]
    W, bias = net.get("Fc.parameters.W"), net.get("Fc.parameters.bias")
    y = x @ W.T + bias
    dy = (y - t) / len(x)
    return x, y, dy, dy @ W, {"W": dy.T @ x, "bias": dy.sum(axis=0)}


# -- scores ------------------------------------------------------------------


def test_monitors_of_losses_and_scores(net, data, batches):
    few = {name: array[:, :3] for name, array in data.items()}
    scorer = MeanSquaredError(out_name="Output.outputs.predictions")
    logs = train(
        net,
        batches,
        MonitorLoss("training_data_iter"),
        MonitorScores("few", [scorer], name="validation"),
        stepper=SgdStepper(0.0),
        few=Undivided(**few),
    )

    def loss(part):
        _, y, *_ = backpropagate(net, part)
        return 0.5 * np.sum((y - part["targets"][0]) ** 2) / len(y)

    assert logs["MonitorLoss"] == {"total_loss": pytest.approx([loss(data)] * 2)}
    assert logs["validation"] == {
        "total_loss": pytest.approx([loss(few)] * 2),
        "MeanSquaredError": pytest.approx([loss(few)] * 2),
    }


def test_monitors_run_no_training_pass():
    inp = layers.Input({"default": ("T", "B", 500), "targets": ("T", "B", 500)})
    error = layers.SquaredError()
    inp >> layers.Dropout(0.5) >> error
    inp - "targets" >> "targets" - error
    error - "loss" >> layers.Loss()
    net = Network.from_layer(inp)
    ones = np.ones((1, 1, 500))
    iterator = Undivided(default=ones, targets=ones)
    logs = train(net, iterator, MonitorLoss("training_data_iter"))
    assert logs["MonitorLoss"]["total_loss"] == [0, 0]
    assert logs["rolling_training"]["total_loss"][0] > 100


def test_unknown_iterators(net, data, batches):
    with pytest.raises(
        KeyError, match=r"named 'tset'; choices are: 'test', 'training_"
    ):
        train(net, batches, MonitorLoss("tset"), test=batches)
    only_x = Undivided(default=data["default"])
    with pytest.raises(IteratorValidationError, match="test provides 'default', but"):
        train(net, batches, MonitorScores("test", []), test=only_x)


@pytest.mark.parametrize(
    ("scorers", "text"),
    [
        (MeanSquaredError(), "MonitorScores: scorers have to be a list"),
        (["Accuracy"], "scorers have to be a list of scorers"),
        ([MeanSquaredError(), MeanSquaredError()], "more than one .*MeanSquaredError"),
    ],
)
def test_bad_scorers(net, batches, scorers, text):
    with pytest.raises(ValidationError, match=text):
        train(net, batches, MonitorScores("test", scorers), test=batches)


# -- layers ------------------------------------------------------------------


def test_monitor_layer_parameters(net, batches):
    W, bias = net.get("Fc.parameters.W"), net.get("Fc.parameters.bias")
    logs = train(net, batches, MonitorLayerParameters("Fc"))["MonitorParameters_Fc"]
    norms = np.sqrt((W**2).sum(axis=1))
    first = {n: {k: v[0] for k, v in log.items()} for n, log in logs.items()}
    assert first == {
        "W": {
            **statistics(W),
            "min_L2_norm": pytest.approx(norms.min()),
            "avg_L2_norm": pytest.approx(norms.mean()),
            "max_L2_norm": pytest.approx(norms.max()),
        },
        "bias": statistics(bias),
    }
    assert last(logs)["W"]["avg"] == pytest.approx(net.get("Fc.parameters.W").mean())


def test_monitors_of_one_batch(net, data):
    x, y, dy, dx, gradients = backpropagate(net, data)
    logs = train(
        net,
        Undivided(**data),
        MonitorLayerGradients("Fc"),
        MonitorLayerDeltas("Fc"),
        MonitorLayerInOuts("Fc", name="in and out"),
    )
    assert last(logs["MonitorGradients_Fc"]) == {
        name: statistics(values) for name, values in gradients.items()
    }
    assert last(logs["MonitorDeltas_Fc"]) == {
        "output_deltas": {"default": statistics(dy)},
        "input_deltas": {"default": statistics(dx)},
        "internals": {},
    }
    assert last(logs["in and out"]) == {
        "inputs": {"default": statistics(x)},
        "outputs": {"default": statistics(y)},
    }
    # Nothing has been computed before the first update.
    assert len(logs["in and out"]["inputs"]["default"]["min"]) == 1


def test_monitor_layer_deltas_of_internals(data, batches):
    inp = layers.Input({"default": ("T", "B", 3), "targets": ("T", "B", 2)})
    error = layers.SquaredError()
    inp >> layers.FullyConnected(2, activation="tanh", name="Fc") >> error
    inp - "targets" >> "targets" - error
    error - "loss" >> layers.Loss()
    net = Network.from_layer(inp)
    net.initialize(0.1)
    logs = train(net, Undivided(**data), MonitorLayerDeltas("Fc"))["MonitorDeltas_Fc"]
    y = net.get("Fc.outputs.default")
    dH = (y - data["targets"]) / 10 * (1 - y**2)
    assert logs["internals"].keys() == {"dH"}
    assert logs["internals"]["dH"].keys() == statistics(dH).keys()
    for name, values in logs["internals"]["dH"].items():
        assert values[0] == pytest.approx(statistics(dH)[name].expected, abs=1e-6)


@pytest.mark.parametrize("layer_name", ["Input", "Output", "Loss"])
def test_monitors_work_on_all_layers(net, batches, layer_name):
    train(
        net,
        batches,
        MonitorLayerDeltas(layer_name),
        MonitorLayerGradients(layer_name),
        MonitorLayerInOuts(layer_name),
        MonitorLayerParameters(layer_name),
    )


def test_monitor_layers_without_finite_values(net, batches):
    W = net.buffer.Fc.parameters.W
    for values in ([np.inf, -np.inf, 1], [1, 2, np.nan], [1e300, 1e308, 1e308]):
        W[:] = [values, [1, 2, 3]]
        hook = MonitorLayerParameters("Fc")
        log = train(net, batches, hook, epochs=0)[hook.__name__]
        assert not np.isfinite(log["W"]["max_L2_norm"][0])
    assert log["W"]["max"] == [1e308]
    net.buffer.Fc.gradients.W[:] = [[np.inf, -np.inf, 1], [1, 2, 3]]
    hook = MonitorLayerGradients("Fc")
    assert np.isnan(hook(1, 1, net, None, {})["W"]["avg"])


@pytest.mark.parametrize(
    "monitor",
    [
        MonitorLayerDeltas,
        MonitorLayerGradients,
        MonitorLayerInOuts,
        MonitorLayerParameters,
    ],
)
def test_unknown_layers(net, batches, monitor):
    with pytest.raises(KeyError, match=r"no layer 'FC'; choices are: 'Input', 'Fc'"):
        train(net, batches, monitor("FC"))


# -- ModifyStepperAttribute --------------------------------------------------


def test_modify_stepper_attribute(net, batches):
    stepper = SgdStepper(9.0)
    hook = ModifyStepperAttribute(Linear(0.3, 0.1, 2))
    logs = train(net, batches, hook, stepper=stepper, epochs=3)
    assert logs[hook.__name__] == pytest.approx([0.3, 0.2, 0.1, 0.1])
    assert stepper.learning_rate == pytest.approx(0.1)


def test_modify_another_attribute_after_updates(net, batches):
    stepper = MomentumStepper(0.1, 0.9)
    seen = []

    def schedule(epoch_nr, update_nr, timescale, interval, net, stepper, logs):
        seen.append((epoch_nr, update_nr, timescale, interval, stepper.momentum))
        return update_nr / 10

    hook = ModifyStepperAttribute(schedule, "momentum", "update", interval=2)
    train(net, batches, hook, stepper=stepper)
    assert seen == [(0, 0, "update", 2, 0.9), (1, 2, "update", 2, 0.0)]
    assert stepper.momentum == 0.2


def test_a_changing_learning_rate_prints_little(net, batches, capsys):
    trainer = Trainer(SgdStepper())
    trainer.add_hook(ModifyStepperAttribute(Linear(1, 0, 3), timescale="update"))
    trainer.add_hook(StopAfterEpoch(1))
    trainer.train(net, batches)
    assert "ModifyStepperAttribute" not in capsys.readouterr().out


def test_bad_arguments_of_modify_stepper_attribute(net, batches):
    with pytest.raises(
        ValidationError, match=r"no attribute 'momentum'; .* 'learning_"
    ):
        train(net, batches, ModifyStepperAttribute(Linear(1, 0, 3), "momentum"))
    with pytest.raises(
        ValidationError, match=r"schedule has to be a Schedule, not 0.1"
    ):
        ModifyStepperAttribute(0.1)
    with pytest.raises(ValidationError, match=r"learning_rate .* not 'slow'"):
        train(net, batches, ModifyStepperAttribute(lambda *args: "slow"))


def validation(data):
    return {name: array[:, :3] * 5 for name, array in data.items()}


@pytest.mark.parametrize("timescale", ["update", "epoch"])
@pytest.mark.parametrize("monitor", [MonitorLayerDeltas, MonitorLayerInOuts])
def test_monitors_after_hooks_that_run_the_network(
    net, data, batches, monitor, timescale
):
    initial = net.get("parameters")
    alone = train(net, batches, monitor("Fc", name="m", timescale=timescale))
    net.handler.set_from_numpy(net.buffer.parameters, initial)
    logs = train(
        net,
        batches,
        MonitorLoss("valid", timescale="update"),
        MonitorLoss("valid", "at the end"),
        monitor("Fc", name="m", timescale=timescale),
        valid=Undivided(**validation(data)),
    )
    assert logs["m"] == alone["m"]


def test_monitors_leave_out_the_carried_state():
    inp, out = tools.get_in_out_layers("regression", 1, 1)
    net = Network.from_layer(inp >> layers.Recurrent(3, name="R") >> out)
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(0, R={"bias": 10.0, "default": 0})
    data = {"default": np.zeros((1, 8, 1)), "targets": np.ones((1, 8, 1))}
    logs = train(
        net,
        Minibatches(4, **data),
        MonitorLayerInOuts("R", name="states"),
        MonitorLayerDeltas("R", name="deltas"),
        stepper=SgdStepper(0.0),
    )
    assert last(logs["states"]["outputs"]["default"])["avg"] == pytest.approx(
        np.tanh(10), rel=1e-12
    )
    expected = statistics(net.get("R.output_deltas.default")[:1])
    assert last(logs["deltas"]["output_deltas"]["default"]) == expected
    assert logs["states"]["inputs"]["default"]["max"] == [0.0]


@pytest.mark.parametrize(
    ("stepper", "attribute", "value", "text"),
    [
        (MomentumStepper(0.1, 0.5), "momentum", 1.0, r"momentum .* \[0, 1\), not 1.0"),
        (SgdStepper(0.1), "learning_rate", -0.1, "learning_rate .* not -0.1"),
        (AdamStepper(), "epsilon", 0.0, "epsilon has to be above 0"),
        (AdamStepper(), "beta2", 1.5, "beta2 .* not 1.5"),
    ],
)
def test_schedules_give_what_the_stepper_takes(
    net, batches, stepper, attribute, value, text
):
    before = getattr(stepper, attribute)
    hook = ModifyStepperAttribute(
        MultiStep(before, [2], [value]), attribute, timescale="update"
    )
    with pytest.raises(ValidationError, match=text):
        train(net, batches, hook, stepper=stepper)
    assert getattr(stepper, attribute) == before

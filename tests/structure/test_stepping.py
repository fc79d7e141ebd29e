"""Loops of feedback run step by step: outputs, gradients, forced feedback."""

import itertools
import sys

import numpy as np
import pytest

import brainstorm as bs
from brainstorm import layers
from brainstorm.handlers import DebugHandler, NumpyHandler
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.structure.network import Network
from brainstorm.utils import NetworkValidationError, UnknownNameError
from tests.golden import golden
from tests.handlers.handler_cases import HANDLERS, handler_params
from tests.structure.loops import (
    Dense,
    by_hand,
    custom,
    data,
    differences,
    echo,
    every_kind,
    network,
    reservoir,
    run,
    self_feedback,
    several,
    small,
    two_loops,
)


def test_a_loop_does_what_its_formula_says():
    net, x = echo(), data(6)["default"]
    h, y, fed_back = by_hand(net, x)
    for _ in range(3):  # recorded, replayed
        np.testing.assert_allclose(net.predict(x), y, 1e-12)
        np.testing.assert_allclose(net.get("R.outputs.default")[:-1], h, 1e-12)
        np.testing.assert_allclose(
            net.get("R.inputs.default")[..., 3:], fed_back, 1e-12
        )
        name = "fed_back_default_to_R_default"
        np.testing.assert_allclose(net.get(f"O.internals.{name}"), fed_back, 1e-12)
    assert (net.get("R.outputs.default")[-1] == 0).all()


def test_inner_states_are_those_of_the_steps():
    net, x = echo(), data(5)["default"]
    h, _, fed_back = by_hand(net, x)
    net.provide_external_data({"default": x})
    net.forward_pass()
    before = np.concatenate([np.zeros((1, 2, 4)), h[:-1]])
    W, R, b = (net.get(f"R.parameters.{n}") for n in ("W", "R", "bias"))
    expected = np.concatenate([x, fed_back], axis=2) @ W.T + before @ R.T + b
    np.testing.assert_allclose(net.get("R.internals.Ha")[:-1], expected, 1e-12)


@every_kind
@pytest.mark.parametrize("steps", [1, 4])
def test_gradients(kind, steps):
    net, given = network(kind), data(steps)
    run(net, data(3, seed=7))
    context = net.get_context()
    for begin, all_deltas in itertools.product((None, context), (True, False)):
        expected = differences(net, given, begin)
        run(net, given, context=begin)
        net.backward_pass(all_deltas)
        np.testing.assert_allclose(net.get("gradients"), expected, 1e-5, 1e-8)
        assert np.abs(expected).max() > 1e-2


@every_kind
def test_deltas_of_inputs(kind):
    net, given = network(kind), data(4)
    run(net, given)
    net.backward_pass()
    got = net.get("Input.output_deltas.default")
    x, step = given["default"], 1e-6
    for index in np.ndindex(x.shape):
        losses = []
        for sign in (1, -1):
            x[index] += sign * step
            losses.append(run(net, given))
            x[index] -= sign * step
        slope = (losses[0] - losses[1]) / (2 * step)
        np.testing.assert_allclose(got[index], slope, 1e-5, 1e-8)


@pytest.mark.parametrize("kind", [several, self_feedback, two_loops, custom])
@pytest.mark.parametrize("name", handler_params("numpy64", "numpy32", "onednn"))
def test_the_same_on_every_handler(kind, name):
    results = []
    for handler in (NumpyHandler(np.float64), HANDLERS[name]()):
        net = network(kind, handler)
        for steps in (3, 5, 1, 3):  # memory comes and goes
            given = data(steps)
            run(net, given)
            net.backward_pass(all_deltas=steps != 5)
        paths = ["gradients", "Z.outputs.default"]
        paths += [f"{n}.output_deltas.default" for n in net.layers if n != "Error"][
            1:-1
        ]
        results.append(
            [net.get(path) for path in paths] + [*net.get_context().values()]
        )
    for expected, got in zip(*results, strict=True):
        np.testing.assert_allclose(got, expected, 1e-3, 1e-5)


@every_kind
def test_single_steps_are_one_pass_exactly(kind):
    net, given = network(kind), data(5)
    run(net, given)
    whole = net.get("Z.outputs.default")
    end = net.get_context()
    context = None
    for t in range(5):
        run(net, {n: v[t : t + 1] for n, v in given.items()}, context=context)
        context = net.get_context()
        np.testing.assert_array_equal(net.get("Z.outputs.default")[0], whole[t])
    assert set(context) == set(end)
    for name, state in end.items():
        np.testing.assert_array_equal(context[name], state)


def test_the_context_has_what_is_fed_back():
    net, x = echo(), data(6)["default"]
    _, y, _ = by_hand(net, x)
    net.predict(x[:4])
    context = net.get_context()
    np.testing.assert_allclose(context["O.outputs.default"][0], y[3], 1e-12)
    net.provide_external_data({"default": x[4:]})
    net.forward_pass(context=context)
    np.testing.assert_allclose(net.get("O.outputs.default"), y[4:], 1e-12)
    net.forward_pass()  # begins anew
    np.testing.assert_allclose(
        net.get("O.outputs.default"), by_hand(net, x[4:])[1], 1e-12
    )


def test_generating_goes_on():
    net = small(
        lambda inp: (
            (r := inp >> layers.Recurrent(4, name="R"))
            << (r >> layers.FullyConnected(3, "linear", name="O"))
        )
    )
    x = data(4)["default"]
    made = net.generate(3, x, {"O.outputs.default": "default"})
    expected = list(x)
    for _ in range(3):
        expected.append(by_hand(net, np.array(expected))[1][-1])
    np.testing.assert_allclose(made, expected[4:], 1e-10)


def test_replays_call_no_python_for_steps():
    """Longer sequences call more functions of NumPy, but none of Python."""
    net = network(several)
    counts = []
    for steps in (3, 30):
        given, calls = data(steps), []
        for _ in range(3):
            run(net, given)
            net.backward_pass(all_deltas=False)
        sys.setprofile(lambda frame, event, arg, to=calls: to.append(event))
        try:
            net.forward_pass(training_pass=True)
            net.backward_pass(all_deltas=False)
        finally:
            sys.setprofile(None)
        counts.append(calls.count("call"))
    assert counts[0] == counts[1]


# -- forced feedback ---------------------------------------------------------


def test_forced_feedback_replaces_the_outputs():
    net, x = echo(), data(5)["default"]
    values = np.random.RandomState(3).randn(5, 2, 2)
    h, y, _ = by_hand(net, x, forced=values)
    np.testing.assert_allclose(net.predict(x, forced={"R": values}), y, 1e-12)
    np.testing.assert_allclose(
        net.predict(x, batch_size=1, forced={"R.default": values.tolist()}), y, 1e-12
    )
    np.testing.assert_allclose(net.predict(x), by_hand(net, x)[1], 1e-12)
    net.provide_external_data({"default": x})
    net.forward_pass(forced={"R": values})
    np.testing.assert_allclose(net.get("R.outputs.default")[:-1], h, 1e-12)


def test_forcing_what_would_be_fed_back_changes_nothing():
    net, given = network(several), data(5)
    loss = run(net, given)
    path = "internals.fed_back_default_to_R_default"
    fed_back = np.concatenate([net.get(f"{n}.{path}") for n in "GO"], axis=2)
    output = net.get("O.outputs.default")
    shifted = np.concatenate([np.zeros_like(output[:1]), output[:-1]])
    got = net.get("O.internals.fed_back_default_to_G_default")
    np.testing.assert_array_equal(got, shifted)
    for forced in ({"R": fed_back}, {"G": shifted}, {"R": fed_back, "G": shifted}):
        assert run(net, given, forced=forced) == pytest.approx(loss, rel=1e-12)
    assert run(net, given) == loss


@pytest.mark.parametrize("names", [("R",), ("G",), ("R", "G")])
def test_gradients_stop_at_forced_feedback(names):
    net, given = network(several), data(4)
    sizes = {"R": 5, "G": 2}
    forced = {n: np.random.RandomState(4).randn(4, 2, sizes[n]) for n in names}
    run(net, given, forced=forced)
    net.backward_pass()
    got, step, parameters = net.get("gradients"), 1e-6, net.buffer.parameters
    for i in range(parameters.size):
        losses = []
        for sign in (1, -1):
            parameters[i] += sign * step
            losses.append(run(net, given, forced=forced))
            parameters[i] -= sign * step
        slope = (losses[0] - losses[1]) / (2 * step)
        np.testing.assert_allclose(got[i], slope, 1e-5, 1e-8)


def test_wrong_forced_feedback_is_refused():
    net, x = echo(), data(5)["default"]
    expected = net.predict(x)
    good = np.zeros((5, 2, 2))
    for wrong, message in (
        ({"R": good[:4]}, r"shape \(5, 2, 2\) for 'R.default', got \(4, 2, 2\)"),
        ({"R": good[..., :1]}, r"got \(5, 2, 1\)"),
        ({"R": np.zeros((5, 3, 2))}, r"shape \(T, 2, ...\) for 'R', got \(5, 3, 2\)"),
        ({"O": good}, "nothing is fed back to 'O'; choices are: 'R.default'"),
        ({"R.other": good}, "nothing is fed back to 'R.other'"),
        ({"R": good, "R.default": good}, "two values for one input: 'R', 'R.default'"),
        ([good], "expected a dict"),
    ):
        with pytest.raises((NetworkValidationError, UnknownNameError), match=message):
            net.predict(x, forced=wrong)
    np.testing.assert_array_equal(net.predict(x), expected)


def test_training_continues_sequences():
    """Trained in pieces with the carried context, as a whole for the forward passes."""
    net = network(reservoir, DebugHandler(NumpyHandler(np.float64)))
    given = data(6)
    outputs = bs.tools.extract(
        net, bs.data_iterators.Undivided(**given), ["Z.outputs.default"]
    )
    run(net, given)
    np.testing.assert_array_equal(
        outputs["Z.outputs.default"], net.get("Z.outputs.default")
    )
    trainer = bs.Trainer(bs.training.SgdStepper(0.05), verbose=False)
    before = run(net, given)
    iterator = bs.data_iterators.Subsequences(bs.data_iterators.Undivided(**given), 2)
    trainer.add_hook(bs.hooks.StopAfterEpoch(5))
    trainer.train(net, iterator)
    assert run(net, given) < before


STEPPED = {
    "recurrent": layers.Recurrent(4, name="L", initial_state="learned"),
    "leaking": layers.Recurrent(4, name="L", leak=0.3),
    "leaking inside": layers.Recurrent(4, name="L", leak=0.3, leak_inside=True),
    "gru": layers.Gru(4, name="L"),
    "clockwork": layers.Clockwork(4, name="L"),
    "leaky": layers.Leaky(3.0, name="L", learn_tau=True),
    "lif": layers.Lif(3.0, name="L", threshold=0.3),
    "refractory": layers.Lif(3.0, name="L", threshold=0.3, refractory=2, reset="soft"),
    "recurrent lif": layers.RecurrentLif(4, 3.0, name="L", threshold=0.3),
    "layer norm": layers.LayerNorm(name="L"),
    "highway": layers.Elementwise("swish", name="L"),
    "dropout": layers.Dropout(0.0, name="L"),
}


@pytest.mark.parametrize(
    "name", handler_params("numpy32", "composed", "onednn", "debug")
)
@pytest.mark.parametrize("kind", STEPPED)
def test_steps_are_what_a_whole_sequence_is(kind, name):
    """Feedback that is multiplied by zeros changes nothing, forward and backward."""
    details = STEPPED[kind].layer

    def wire(inp):
        first = inp >> Dense(4, "First")
        middle = ConstructionWrapper.create(
            f"{details.layer_type}LayerImpl", name="L", **details.layer_kwargs
        )
        out = first >> middle >> Dense(2, "O")
        first << out
        return out

    net = network(wire, HANDLERS[name]())
    if kind == "clockwork":
        net.handler.set_from_numpy(net.buffer.L.parameters.timing, [1, 2, 3, 1])
    W = net.get("First.parameters.W")
    W[:, 3:] = 0
    net.handler.set_from_numpy(net.buffer.First.parameters.W, W)
    given, results = data(7), []
    fed_back = np.zeros((7, 2, 2))
    for forced in (None, {"First": fed_back}):
        run(net, given, forced=forced)
        fed_back[:] = net.get("First.inputs.default")[..., 3:]
        net.backward_pass()
        paths = [
            f"L.{c}.{n}"
            for c in ("outputs", "output_deltas")
            for n in net.layers["L"].out_shapes
        ]
        paths += [f"L.internals.{n}" for n in net.layers["L"].internal_shapes]
        paths += ["gradients", "First.input_deltas.default"]
        results.append({path: net.get(path) for path in paths})
        results[-1].update(net.get_context())
    assert np.abs(fed_back).max() > 0.01
    tolerance = 1e-10 if name == "numpy64" else 1e-4
    for path, expected in results[1].items():
        np.testing.assert_allclose(
            results[0][path], expected, tolerance, tolerance, err_msg=path
        )


# -- random networks -------------------------------------------------------------


def random_loops(rnd):
    """Wires some layers, and feeds back some of their outputs."""

    def wire(x):
        made = [x]
        for i in range(rnd.randint(2, 7)):
            name, size = f"{rnd.choice(list('ABMNXYZ'))}{i}", int(rnd.randint(1, 4))
            new = [
                Dense(size, name),
                layers.Recurrent(size, name=name, initial_state="learned"),
                layers.Gru(size, name=name),
                layers.Leaky(3.0, name=name, learn_tau=True),
            ][rnd.randint(4)]
            sources = {-1 if rnd.rand() < 0.75 else rnd.randint(i + 1) - i - 1}
            sources |= {rnd.randint(i + 1) - i - 1} if rnd.rand() < 0.25 else set()
            [made[source] for source in sources] >> new
            made.append(new)
        for _ in range(rnd.randint(1, 4)):
            receiver, sender = sorted(rnd.randint(1, len(made), 2))
            made[receiver] << made[sender]
        return made[-2:] >> Dense(2, "Last")

    return wire


@pytest.mark.parametrize(
    "seeds", [range(12), pytest.param(range(12, 400), marks=pytest.mark.slow)]
)
def test_random_networks(seeds):
    """Gradients, and single steps; what can not be wired is refused by name."""
    made = 0
    for seed in seeds:
        rnd = np.random.RandomState(seed)
        try:
            net = network(random_loops(rnd))
        except NetworkValidationError:
            continue
        made, steps = made + 1, int(rnd.randint(1, 5))
        given, context = data(steps, seed=seed), None
        if rnd.rand() < 0.5:
            run(net, data(2, seed=seed))
            context = net.get_context()
        expected = differences(net, given, context)
        run(net, given, context=context)
        net.backward_pass(all_deltas=bool(rnd.rand() < 0.5))
        got = net.get("gradients")
        np.testing.assert_allclose(got, expected, 1e-5, 1e-7, err_msg=str(seed))
        whole = net.get("Z.outputs.default")
        for t in range(steps):
            now = {name: values[t : t + 1] for name, values in given.items()}
            run(net, now, context=context)
            context = net.get_context()
            np.testing.assert_allclose(net.get("Z.outputs.default")[0], whole[t], 1e-14)
    assert made > len(seeds) / 3


# -- the numbers of others -----------------------------------------------------


def reservoir_of(z, W, bias, kind):
    """A leaky reservoir with its readout fed back; in parts, its states are as well."""
    size, outputs = z["Wrec"].shape[0], z["Wfb"].shape[0]
    inp = layers.Input(
        {"default": ("T", "B", z["x"].shape[2]), "targets": ("T", "B", outputs)}
    )
    leak, weights = float(z["leaky_rate"]), [z["Wff"], z["Wfb"]]
    if kind is None:
        drive = inp >> Dense(size, "Drive", bias=False)
        tau = -1 / float(np.log(1 - leak))
        r = drive >> layers.Leaky(tau, "R", gain="integrate")
        drive << r
        initial = {"Drive": np.concatenate([*weights, z["Wrec"]]).T}
    else:
        drive = r = inp >> kind(size, name="R", bias=False, leak=leak)
        initial = {"R": {"W": np.concatenate(weights).T, "R": z["Wrec"].T}}
    out = r >> layers.FullyConnected(outputs, "linear", name="O")
    drive << out
    error = out >> layers.SquaredError(name="Error")
    inp - "targets" >> "targets" - error
    net = Network.from_layer(error - "loss" >> layers.Loss())
    net.set_handler(NumpyHandler(np.float64))
    net.initialize({**initial, "O": {"W": W.T, "bias": bias}})
    return net


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)


reservoirs = pytest.mark.parametrize(
    "kind",
    [layers.Recurrent, layers.Reservoir, None],
    ids=["recurrent", "reservoir", "in parts"],
)


@reservoirs
def test_a_reservoir_with_feedback_by_others(kind):
    z = golden("feedback_reservoir")
    net = reservoir_of(z, z["W"], z["b"], kind)
    close(net.predict(z["x"], output_name="O.outputs.default"), z["y"])
    close(net.get("R.outputs.default")[:-1], z["states"])
    receiver = "R" if kind else "Drive"
    close(net.get(f"{receiver}.inputs.default")[..., 3:5], z["feedback"])
    forced = [z["feedback"]]
    if kind is None:
        forced += [np.concatenate([z["states"][:1] * 0, z["states"][:-1]])]
    forced = {f"{receiver}.feedback": np.concatenate(forced, axis=2)}
    close(net.predict(z["x"], output_name="O.outputs.default", forced=forced), z["y"])


@reservoirs
def test_force_learning_by_others(kind):
    z = golden("force_feedback")
    net = reservoir_of(z, z["W0"], z["b0"], kind)
    stepper = bs.training.RlsStepper(ridge=1.0)
    stepper.start(net)
    for t in range(len(z["x"])):
        now = slice(t, t + 1)
        net.provide_external_data(
            {"default": z["x"][now], "targets": z["targets"][now]}
        )
        stepper.run()
        stepper.context = net.get_context()
        close(net.get("O.outputs.default")[0], z["output"][t])
        close(net.get("R.outputs.default")[0], z["states"][t])
        close(net.get("O.parameters.W").T, z["W"][t])
        close(net.get("O.parameters.bias"), z["b"][t])
        close(stepper.get_state()["P"], z["P"][t])

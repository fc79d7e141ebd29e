import json
import tracemalloc

import h5py
import numpy as np
import pytest

import brainstorm as bs
from brainstorm import layers
from brainstorm.handlers import DebugHandler, NumpyHandler
from brainstorm.training import MomentumStepper
from brainstorm.utils import (
    HandlerError,
    InitializationError,
    LayerValidationError,
    NetworkValidationError,
)


def classifier(hidden="rel", drop_prob=None):
    inp = layers.Input({"default": ("T", "B", 4), "targets": ("T", "B", 1)})
    out = layers.SoftmaxCE(name="Output")
    chain = inp >> layers.FullyConnected(5, hidden, name="Hid")
    if drop_prob is not None:
        chain = chain >> layers.Dropout(drop_prob)
    chain >> layers.FullyConnected(3, "linear", name="Proj") >> out
    inp - "targets" >> "targets" - out - "loss" >> layers.Loss()
    return bs.Network.from_layer(out)


def data(time_size=2, batch_size=6, seed=0):
    rnd = np.random.RandomState(seed)
    return {
        "default": rnd.randn(time_size, batch_size, 4).astype(np.float32),
        "targets": rnd.randint(0, 3, (time_size, batch_size, 1)).astype(np.float32),
    }


def run(net, batch=None, backward=True):
    net.provide_external_data(data() if batch is None else batch)
    net.forward_pass(training_pass=True)
    if backward:
        net.backward_pass()
    return net.get_loss_values()["total_loss"]


# -- running -------------------------------------------------------------------


def test_a_forward_pass_computes_what_the_formulas_say():
    net = classifier("tanh")
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(bs.Gaussian(0.5), seed=3)
    batch = data()
    loss = run(net, batch)
    W1, b1 = (net.get(f"Hid.parameters.{n}") for n in ("W", "bias"))
    W2, b2 = (net.get(f"Proj.parameters.{n}") for n in ("W", "bias"))
    h = np.tanh(batch["default"].astype(float) @ W1.T + b1)
    e = np.exp(h @ W2.T + b2)
    p = e / e.sum(-1, keepdims=True)
    assert np.allclose(net.get("Output.outputs.predictions"), p)
    picked = np.take_along_axis(p, batch["targets"].astype(int), 2)
    assert np.allclose(net.get("Output.outputs.loss"), -np.log(picked))
    assert loss == pytest.approx(-np.log(picked).sum() / 6)


def test_gradients_match_finite_differences():
    net = classifier("sigmoid")
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(bs.Gaussian(0.5), seed=3)
    run(net)
    gradients, parameters = net.get("gradients"), net.get("parameters")
    for i in range(parameters.size):
        losses = []
        for step in (1e-6, -1e-6):
            net.buffer.parameters[i] = parameters[i] + step
            losses.append(run(net, backward=False))
        net.buffer.parameters[i] = parameters[i]
        assert gradients[i] == pytest.approx((losses[0] - losses[1]) / 2e-6, 1e-4, 1e-8)


def test_backward_passes_do_not_pile_up():
    net = classifier()
    net.initialize(bs.Gaussian(0.5), seed=3)
    run(net)
    first = {p: net.get(p) for p in ("gradients", "Hid.input_deltas.default")}
    for _ in range(3):
        net.backward_pass()
    for path, value in first.items():
        assert np.array_equal(net.get(path), value)


def fan_out(hidden_type):
    """Two consumers of one output, one of which may not honour `fresh`."""
    inp = layers.Input({"default": ("T", "B", 4), "targets": ("T", "B", 4)})
    hid = layers.FullyConnected(4, "tanh", name="Hid")
    inp >> hid
    for i in "12":
        out = layers.SquaredError(name=f"Out{i}")
        hid >> hidden_type(name=f"Branch{i}") >> out - "loss" >> layers.Loss(float(i))
        inp - "targets" >> "targets" - out
    return bs.Network.from_layer(hid)


def test_two_consumers_of_one_output_both_contribute():
    net = fan_out(layers.NoOp)
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(bs.Gaussian(0.5), seed=3)
    batch = {"default": data()["default"], "targets": data(seed=1)["default"]}
    for _ in range(2):
        run(net, batch)
        y = net.get("Hid.outputs.default")
        assert np.shares_memory(
            net.buffer.Branch1.inputs.default, net.buffer.Hid.outputs.default
        )
        expected = (1 + 2) * (y - batch["targets"]) / 6
        assert np.allclose(net.get("Hid.output_deltas.default"), expected)


def test_losses_are_told_apart():
    net = fan_out(layers.NoOp)
    net.initialize(bs.Gaussian(0.5), seed=3)
    batch = {"default": data()["default"], "targets": data(seed=1)["default"]}
    run(net, batch)
    values = net.get_loss_values()
    assert set(values) == {"Loss_1", "Loss_2", "total_loss"}
    assert values["Loss_2"] == pytest.approx(2 * values["Loss_1"])
    assert values["total_loss"] == pytest.approx(3 * values["Loss_1"])


def test_handlers_can_be_swapped_at_any_time():
    net = classifier()
    net.initialize(bs.Gaussian(0.5), seed=3)
    loss, parameters = run(net), net.get("parameters")
    gradients = net.get("gradients")
    for handler in (
        NumpyHandler(np.float64),
        DebugHandler(NumpyHandler(np.float32)),
        NumpyHandler(np.float32),
    ):
        net.set_handler(handler)
        assert np.array_equal(net.get("parameters"), parameters)
        assert run(net) == pytest.approx(loss, 1e-5)
        assert np.allclose(net.get("gradients"), gradients, rtol=1e-4, atol=1e-6)
    with pytest.raises(NetworkValidationError, match="expected a Handler, got str"):
        net.set_handler("numpy")


def test_batches_may_change_their_size():
    net = classifier()
    net.initialize(bs.Gaussian(0.5), seed=3)
    fresh = classifier()
    fresh.initialize(bs.Gaussian(0.5), seed=3)
    for sizes in [(2, 6), (1, 3), (4, 7), (2, 6), (1, 3)]:
        run(net, data(*sizes))
        assert (net.time_size, net.batch_size) == sizes
        assert net.get("Hid.outputs.default").shape == (*sizes, 5)
    run(fresh, data(1, 3))
    assert np.array_equal(net.get("gradients"), fresh.get("gradients"))


# -- memory --------------------------------------------------------------------


class CountingHandler(NumpyHandler):
    allocated = 0

    def zeros(self, shape):
        self.allocated += int(np.prod(shape))
        return super().zeros(shape)

    allocate = zeros


def test_forward_passes_never_allocate_backward_buffers():
    net = classifier(drop_prob=0.5)
    net.set_handler(CountingHandler())
    net.initialize(bs.Gaussian(0.5))
    net.provide_external_data(data(3, 50))
    net.forward_pass()
    net.get_loss_values()
    # parameters; Input, Hid, H, Dropout, mask, Proj, predictions, loss, Loss
    parameters, per_step = 25 + 18, 5 + 5 + 5 + 5 + 5 + 3 + 3 + 1
    first_allocation = 1 * 1 * per_step
    expected = parameters + 3 * 50 * per_step + 1 + first_allocation
    assert net.handler.allocated == expected
    for path in ("Output.outputs.predictions", "Hid.internals.H", "parameters"):
        net.get(path)
    assert net.buffer.Hid.outputs.default.shape == (3, 50, 5)
    assert net.handler.allocated == expected
    assert net.get("Hid.output_deltas.default").shape == (3, 50, 5)
    assert net.handler.allocated > expected


@pytest.mark.parametrize("hidden", ["rel", "tanh", "sigmoid", "el", "linear"])
def test_a_step_allocates_nothing(hidden):
    inp = layers.Input({"default": ("T", "B", 90), "targets": ("T", "B", 1)})
    out = layers.SoftmaxCE(name="Output")
    (
        inp
        >> layers.FullyConnected(80, hidden)
        >> layers.Dropout(0.3)
        >> layers.Elementwise("tanh")
        >> layers.NoOp()
        >> layers.FullyConnected(70, "linear")
        >> out
    )
    inp - "targets" >> "targets" - out - "loss" >> layers.Loss()
    net = bs.Network.from_layer(out)
    net.set_handler(NumpyHandler(np.float32))
    net.initialize(bs.Gaussian(0.1), seed=1)
    rnd = np.random.RandomState(0)
    batch = {
        "default": rnd.randn(2, 60, 90).astype(np.float32),
        "targets": rnd.randint(0, 70, (2, 60, 1)).astype(np.float32),
    }
    stepper = MomentumStepper(0.1, 0.9)
    stepper.start(net)

    def step():
        net.provide_external_data(batch)
        stepper.run()
        net.get_loss_values()

    for _ in range(3):
        step()
    tracemalloc.start()
    try:
        step()
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        step()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Before 2.4, NumPy buffers 8192 elements when it reduces rows of a matrix.
    old = np.lib.NumpyVersion(np.__version__) < "2.4.0"
    assert peak - before < 4096 + (8192 * 4 if old else 0)


# -- data ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"targets": None}, KeyError, "no data for the input 'targets'"),
        (
            {"x": np.zeros((2, 6, 1)), "targets": None},
            NetworkValidationError,
            "no input 'x'; choices",
        ),
        (
            {"default": np.zeros((2, 6, 5))},
            NetworkValidationError,
            r"shape \('T', 'B', 4\) for the input 'default'.*got \(2, 6, 5\)",
        ),
        (
            {"default": np.zeros((2, 6))},
            NetworkValidationError,
            r"'default'.*got \(2, 6\)",
        ),
        (
            {"targets": np.zeros((2, 7, 1))},
            NetworkValidationError,
            r"'targets', T = 2, B = 6; got \(2, 7, 1\)",
        ),
        ({"default": np.zeros((2, 0, 4))}, NetworkValidationError, "'default'"),
        ({"default": 3}, NetworkValidationError, r"'default'.*got \(\)"),
        (
            {"default": np.full((2, 6, 4), "a")},
            bs.utils.BrainstormError,
            "'default'.*str|<U1",
        ),
        (
            {"default": np.zeros((2, 6, 4), complex)},
            bs.utils.BrainstormError,
            "complex",
        ),
    ],
)
def test_bad_data_is_refused_and_the_network_stays_usable(change, error, message):
    net = classifier()
    net.initialize(bs.Gaussian(0.5), seed=3)
    loss = run(net)
    bad = {k: v for k, v in {**data(), **change}.items() if v is not None}
    with pytest.raises(error, match=message):
        net.provide_external_data(bad)
    assert run(net) == loss


@pytest.mark.parametrize("wrong", [None, 3, [1.0], {"default": [[1], [1, 2]]}])
def test_data_are_a_dict_of_arrays(wrong):
    net = classifier()
    with pytest.raises(
        NetworkValidationError, match="^data: expected a dict of arrays"
    ):
        net.provide_external_data(wrong)
    run(net)


def test_inputs_can_be_left_out_on_request():
    net = classifier()
    net.initialize(bs.Gaussian(0.5), seed=3)
    net.provide_external_data({"default": data()["default"]}, all_inputs=False)
    net.forward_pass()
    predictions = net.get("Output.outputs.predictions")
    run(net)
    assert np.array_equal(net.get("Output.outputs.predictions"), predictions)
    with pytest.raises(KeyError, match="no data for the input 'targets'"):
        net.provide_external_data({"default": data()["default"]})


def test_any_numbers_are_data():
    net = classifier()
    net.initialize(bs.Gaussian(0.5), seed=3)
    batch = data()
    loss = run(net, batch)
    batch["targets"] = batch["targets"].astype(int)
    assert run(net, batch) == loss
    batch["default"] = batch["default"].astype(float)
    assert run(net, {k: v.tolist() for k, v in batch.items()}) == loss


def test_targets_that_are_no_classes_are_named():
    net = classifier()
    net.initialize(bs.Gaussian(0.5), seed=3)
    for wrong in (3, -1, 0.5, np.nan):
        batch = data()
        batch["targets"][1, 2] = wrong
        with pytest.raises(bs.utils.HandlerError, match=str(wrong)):
            run(net, batch)
    run(net)


def test_inputs_and_buffers_can_be_read():
    net = classifier()
    batch = data()
    run(net, batch)
    assert np.array_equal(net.get_input("default"), batch["default"])
    assert np.array_equal(net.get_inputs("targets"), batch["targets"])
    copy = net.get("Hid.parameters.W")
    copy[...] = 7
    assert not np.any(net.get("Hid.parameters.W") == 7)
    with pytest.raises(KeyError, match=r"no buffer 'Hit' in path.*'Hid'"):
        net.get("Hit.outputs.default")
    with pytest.raises(KeyError, match="a view of several: 'W', 'bias'"):
        net.get("Hid.parameters")
    with pytest.raises(KeyError, match=r"'nope'.*'default', 'targets'"):
        net.get_input("nope")


# -- initializing and modifying ---------------------------------------------------


def test_initialize_gives_the_numbers_that_the_seed_promises():
    net = classifier()
    net.initialize({"*": {"W": bs.Gaussian(0.3), "bias": bs.Uniform(0.2)}}, seed=42)
    seeds = np.random.RandomState(42)
    for layer in ("Hid", "Proj"):
        rnd = np.random.RandomState(seeds.randint(0, 10**9))
        W = net.get(f"{layer}.parameters.W")
        assert np.allclose(W, rnd.randn(*W.shape) * 0.3)
        rnd = np.random.RandomState(seeds.randint(0, 10**9))
        bias = net.get(f"{layer}.parameters.bias")
        assert np.allclose(bias, rnd.rand(*bias.shape) * 0.4 - 0.2)


def test_initialize_accepts_numbers_arrays_and_functions():
    net = classifier()
    net.initialize(
        default=0.5,
        Hid={"bias": [1, 2, 3, 4, 5]},
        Proj={"W": lambda s: np.full(s, 2.0)},
    )
    assert np.all(net.get("Hid.parameters.W") == 0.5)
    assert np.array_equal(net.get("Hid.parameters.bias"), [1, 2, 3, 4, 5])
    assert np.all(net.get("Proj.parameters.W") == 2)


def test_fallback_is_used_where_an_initializer_fails():
    net = classifier()
    net.initialize({"default": bs.Orthogonal(), "fallback": 0.25}, seed=1)
    assert np.all(net.get("Hid.parameters.bias") == 0.25)
    W = net.get("Proj.parameters.W")
    assert np.allclose(W @ W.T, np.eye(3), atol=1e-6)
    with pytest.raises(InitializationError, match="two dimensions"):
        net.initialize(bs.Orthogonal())


@pytest.mark.parametrize(
    ("references", "message"),
    [
        ({"Hid": 1}, "nothing initializes 'Proj.W', 'Proj.bias'"),
        ({"default": 1, "Hit*": 2}, "'Hit\\*' matches no parameter"),
        ({"Hid*": 1, "H*": 2, "Proj": 0}, "several patterns match Hid.W"),
    ],
)
def test_failed_initialization_changes_nothing(references, message):
    net = classifier()
    net.initialize(bs.Gaussian(0.5), seed=3)
    before = net.get("parameters")
    with pytest.raises(NetworkValidationError, match=message):
        net.initialize(references)
    with pytest.raises(InitializationError, match="expected initial values of shape"):
        net.initialize({"default": 1, "Proj": {"W": [1, 2]}})
    assert np.array_equal(net.get("parameters"), before)


def test_weight_modifiers_run_in_order_on_request():
    net = classifier()
    net.initialize(5.0)
    net.set_weight_modifiers(
        Hid={"W": [bs.ClipValues(-1, 1), bs.MaskValues(np.eye(5, 4))]}
    )
    net.apply_weight_modifiers()
    assert np.array_equal(net.get("Hid.parameters.W"), np.eye(5, 4))
    assert np.all(net.get("Hid.parameters.bias") == 5)


def test_gradient_modifiers_run_after_the_backward_pass():
    net = classifier()
    net.initialize(bs.Gaussian(0.5), seed=3)
    run(net)
    plain = net.get("gradients")
    net.set_gradient_modifiers(bs.value_modifiers.L2Decay(0.1))
    run(net)
    expected = plain + 0.1 * net.get("parameters")
    assert np.allclose(net.get("gradients"), expected, atol=1e-6)
    net.set_gradient_modifiers(default=bs.ClipValues(-1e-3, 1e-3))
    run(net)
    assert np.allclose(net.get("gradients"), plain.clip(-1e-3, 1e-3), atol=1e-8)


def test_each_place_gets_its_own_modifier():
    net = classifier()
    net.initialize(bs.Gaussian(0.5), seed=3)
    before = net.get("parameters")
    net.set_weight_modifiers(bs.FreezeValues())
    net.apply_weight_modifiers()
    net.initialize(0)
    net.apply_weight_modifiers()
    assert np.array_equal(net.get("parameters"), before)


@pytest.mark.parametrize(
    ("references", "message"),
    [
        ({"fallback": bs.ClipValues()}, "can not have a 'fallback'"),
        ({"Hid": 3}, "expected a modifier for Hid.W, got 3"),
        ({"Hid": lambda handler, view: None}, "Hid.W, got <function.*can be saved"),
        ({"Hid": {"W": [bs.ClipValues]}}, "modifier for Hid.W, got <class"),
        ({"Hit": bs.ClipValues()}, "'Hit' matches no parameter"),
    ],
)
def test_bad_modifiers_are_refused(references, message):
    net = classifier()
    for install in (net.set_weight_modifiers, net.set_gradient_modifiers):
        with pytest.raises(NetworkValidationError, match=message):
            install(references)


@pytest.mark.parametrize("run", ["forward_pass", "backward_pass"])
def test_errors_of_operations_name_the_layer(monkeypatch, run):
    net = classifier()
    net.forward_pass()
    name = next(name for name in net.layers if name != "Input")

    def fail(*args):
        raise HandlerError("no good")

    monkeypatch.setattr(net.layers[name], run, fail)
    with pytest.raises(HandlerError, match=f"layer '{name}': no good"):
        getattr(net, run)()


def test_gradient_modifiers_do_not_modify_weights():
    net = classifier()
    with pytest.raises(NetworkValidationError, match="L2Decay for Hid.W modifies grad"):
        net.set_weight_modifiers({"Hid": {"W": [bs.ClipValues(), bs.L2Decay(0.1)]}})
    assert net.weight_modifiers == {}
    with pytest.raises(NetworkValidationError, match="L1Decay for Hid.W"):
        net.set_weight_modifiers({"Hid": {"W": bs.L1Decay(0.1)}})


# -- describing ----------------------------------------------------------------


def test_networks_are_describable():
    net = classifier()
    net.initialize({"default": bs.Gaussian(0.3), "Hid": {"bias": [1, 2, 3, 4, 5]}})
    net.set_weight_modifiers(Hid={"W": bs.ConstrainL2Norm(1.0)})
    net.set_gradient_modifiers(default=[bs.ClipValues(-2, 2)])
    net.output_name = "Output.outputs.predictions"
    description = bs.get_description(net)
    again = bs.create_from_description(json.loads(json.dumps(description)))
    assert bs.get_description(again) == description
    assert list(again.layers) == list(net.layers)
    assert again.output_name == net.output_name
    assert again.weight_modifiers["Hid"]["W"][0].limit == 1.0


def test_only_wired_layers_make_networks():
    with pytest.raises(NetworkValidationError, match="expected a layer wired with"):
        bs.Network.from_layer("Input")


def test_dropout_follows_the_global_seed():
    masks = []
    for _ in range(2):
        bs.global_rnd.set_seed(1234)
        net = classifier(drop_prob=0.5)
        net.initialize(bs.Gaussian(0.5))
        run(net)
        masks.append((net.get("Dropout.internals.mask"), net.get("parameters")))
    assert np.array_equal(masks[0][0], masks[1][0])
    assert np.array_equal(masks[0][1], masks[1][1])
    run(net)
    assert not np.array_equal(net.get("Dropout.internals.mask"), masks[0][0])


# -- deltas that nobody needs ----------------------------------------------------


def test_training_leaves_out_deltas_that_no_gradient_depends_on():
    net = classifier(drop_prob=0.0)
    net.initialize(bs.Gaussian(0.5), seed=3)
    run(net)
    gradients, deltas = net.get("gradients"), net.get("Hid.input_deltas.default")
    fresh = classifier(drop_prob=0.0)
    fresh.initialize(bs.Gaussian(0.5), seed=3)
    run(fresh, backward=False)
    fresh.backward_pass(all_deltas=False)
    assert np.array_equal(fresh.get("gradients"), gradients)
    assert np.all(np.isnan(fresh.buffer.Hid.input_deltas.default))
    assert np.all(np.isfinite(fresh.get("Proj.input_deltas.default")))
    for path in ("Hid.input_deltas.default", "Input.output_deltas.default"):
        with pytest.raises(KeyError, match="nobody had asked for deltas"):
            fresh.get(path)
    fresh.backward_pass(all_deltas=False)
    assert np.array_equal(fresh.get("Hid.input_deltas.default"), deltas)


def test_deltas_asked_for_before_training_are_computed():
    net = classifier()
    net.initialize(bs.Gaussian(0.5), seed=3)
    net.get("Hid.input_deltas.default")
    run(net, backward=False)
    net.backward_pass(all_deltas=False)
    assert np.any(net.get("Input.output_deltas.default"))


def test_layers_before_the_first_parameters_are_skipped():
    inp = layers.Input({"default": ("T", "B", 4), "targets": ("T", "B", 3)})
    out = layers.SquaredError(name="Out")
    inp >> layers.Dropout(0.0) >> layers.NoOp() >> layers.FullyConnected(3) >> out
    inp - "targets" >> "targets" - out - "loss" >> layers.Loss()
    net = bs.Network.from_layer(out)
    net.initialize(bs.Gaussian(0.5), seed=3)
    batch = {"default": data()["default"], "targets": data()["default"][..., :3]}
    run(net, batch)
    gradients = net.get("gradients")
    run(net, batch, backward=False)
    net.backward_pass(all_deltas=False)
    assert np.array_equal(net.get("gradients"), gradients)
    for name in ("Dropout", "NoOp", "Input"):
        assert np.all(np.isnan(net.buffer[name].output_deltas.default))


def test_large_initial_arrays_are_only_named():
    inp = layers.Input({"default": ("T", "B", 200)})
    net = bs.Network.from_layer(inp >> layers.FullyConnected(300, name="FC"))
    net.initialize(0, FC={"W": np.zeros((300, 200)), "bias": np.ones(300)})
    described = net.initializers["FC"]
    assert described == {"W": "<array (300, 200)>", "bias": [1.0] * 300}


# -- architectures -----------------------------------------------------------------


def make_architecture():
    return {
        "Input": {
            "@type": "Input",
            "@outgoing_connections": {"default": ["F"]},
            "out_shapes": {"default": ["T", "B", 3]},
        },
        "F": {"@type": "FullyConnected", "size": [2]},
    }


def test_networks_do_not_follow_what_becomes_of_an_architecture(tmp_path):
    architecture = make_architecture()
    net = bs.Network.from_architecture(architecture)
    architecture["F"]["size"][0] = 7
    architecture["Input"]["@outgoing_connections"]["default"].append("G")
    architecture["Input"]["out_shapes"]["default"][2] = 9
    del architecture["F"]["@type"]
    assert net.architecture == make_architecture()
    net.save_as_hdf5(tmp_path / "net.hdf5")
    assert bs.Network.from_hdf5(tmp_path / "net.hdf5").architecture == (
        make_architecture()
    )


def test_architectures_go_into_json():
    """NumPy's numbers, in whatever they are, are plain ones there."""
    shape = tuple(np.array([8, 8, 2]))
    inp = layers.Input(
        {"default": ("T", "B", *shape), "targets": ["T", "B", np.int8(1)]}
    )
    out = layers.SoftmaxCE(name="Output")
    last = inp >> layers.Convolution2D(np.int64(3), tuple(np.array([3, 3])))
    last = last >> layers.Dropout(np.float32(0.5)) >> layers.FullyConnected(np.int32(5))
    last >> layers.FullyConnected((np.uint8(3),), "linear") >> out
    inp - "targets" >> "targets" - out - "loss" >> layers.Loss()
    architecture = bs.generate_architecture(inp)
    net = bs.Network.from_layer(inp)
    for arch in (architecture, net.architecture):
        again = bs.Network.from_architecture(json.loads(json.dumps(arch)))
        assert again.get("parameters").shape == net.get("parameters").shape
    direct = make_architecture()
    direct["F"]["size"] = np.int64(2)
    direct["Input"]["@outgoing_connections"]["default"] = {"F"}
    json.dumps(bs.Network.from_architecture(direct).architecture)


@pytest.mark.parametrize(
    "shape", [(None, 4), ("T", "B", None), ("T", "B", [4]), ("T",)]
)
def test_inputs_without_a_shape_are_refused(shape):
    with pytest.raises(LayerValidationError, match="Input layer 'Input': shape of"):
        bs.Network.from_layer(layers.Input({"default": shape}) >> layers.NoOp())


# -- descriptions ------------------------------------------------------------------


def test_networks_made_from_a_description_are_initialized():
    net = classifier()
    net.initialize({"default": bs.Gaussian(0.3), "Hid": {"bias": [1, 2, 3, 4, 5]}})
    description = json.loads(json.dumps(bs.get_description(net)))
    made = []
    for _ in range(2):
        bs.global_rnd.set_seed(77)
        made.append(bs.create_from_description(description))
    W = made[0].get("Hid.parameters.W")
    assert 0.1 < W.std() < 0.6
    assert not np.array_equal(W, net.get("Hid.parameters.W"))
    assert np.array_equal(made[0].get("Hid.parameters.bias"), [1, 2, 3, 4, 5])
    assert np.array_equal(made[0].get("parameters"), made[1].get("parameters"))
    bs.global_rnd.set_seed(77)
    other = bs.Network.from_architecture(net.architecture)
    other.initialize({"default": bs.Gaussian(0.3), "Hid": {"bias": [1, 2, 3, 4, 5]}})
    assert np.array_equal(made[0].get("parameters"), other.get("parameters"))
    bare = bs.create_from_description(bs.get_description(classifier()))
    assert not bare.get("parameters").any()


def test_initializers_that_are_only_named_are_told_of():
    net = classifier()
    net.initialize(
        {"default": bs.Gaussian(0.3), "Hid": {"W": lambda shape: np.ones(shape)}}
    )
    with pytest.warns(UserWarning, match="the initializer <<lambda>> is only named"):
        again = bs.create_from_description(bs.get_description(net))
    assert not again.get("Hid.parameters.W").any()
    assert again.get("Hid.parameters.bias").any()
    assert bs.get_description(again) == bs.get_description(net)


def test_files_draw_no_random_numbers(tmp_path):
    net = classifier()
    net.initialize(bs.Gaussian(0.3))
    net.save_as_hdf5(tmp_path / "net.hdf5")
    drawn = []
    for load, source in (
        (bs.Network.from_hdf5, tmp_path / "net.hdf5"),
        (bs.Network.from_architecture, net.architecture),
    ):
        bs.global_rnd.set_seed(5)
        load(source)
        drawn.append(bs.global_rnd.generate_seed())
    assert drawn[0] == drawn[1]


# -- deltas that were left out -----------------------------------------------------


@pytest.mark.parametrize("handler", [None, NumpyHandler(np.float64)])
def test_deltas_left_out_before_are_whole_again(handler):
    """The NaN that tells of them reaches memory to which nobody writes, too."""
    expected = None
    for sizes in ([], [(2, 6)], [(3, 7)], [(1, 2), (3, 7), (2, 6)]):
        net = classifier()
        if handler is not None:
            net.set_handler(handler)
        net.initialize(bs.Gaussian(0.3), seed=1)
        stepper = MomentumStepper(0.0)
        stepper.start(net)
        for size in sizes:
            net.provide_external_data(data(*size))
            stepper.run()
        for size in ((2, 6), (4, 8), (1, 2), (2, 6)):
            net.provide_external_data(data(*size))
            net.forward_pass(training_pass=True)
            net.backward_pass()
            deltas = {
                f"{name}.{kind}.{buffer}": net.get(f"{name}.{kind}.{buffer}")
                for name in net.layers
                for kind in ("input_deltas", "output_deltas")
                for buffer in net.buffer[name][kind]._asdict()
            }
            assert all(np.all(np.isfinite(array)) for array in deltas.values())
            assert not deltas["Output.input_deltas.targets"].any()
        expected = expected or deltas
        for path, array in deltas.items():
            np.testing.assert_array_equal(array, expected[path])


def test_unknown_deltas_list_the_choices():
    net = classifier()
    net.initialize(bs.Gaussian(0.3))
    stepper = MomentumStepper(0.0)
    stepper.start(net)
    net.provide_external_data(data())
    stepper.run()
    with pytest.raises(KeyError, match="no buffer 'Nope' in path .*'Hid'"):
        net.get("Nope.input_deltas.x")
    with pytest.raises(KeyError, match="no buffer 'x' in path .*'default'"):
        net.get("Hid.input_deltas.x")
    with pytest.raises(KeyError, match="not one buffer"):
        net.get("Hid.input_deltas")


# -- data that are no arrays -------------------------------------------------------


def test_closed_files_and_sparse_data_are_refused_by_name(tmp_path):
    net = classifier()
    net.initialize(0.1)
    good = data()
    with h5py.File(tmp_path / "data.hdf5", "w") as f:
        f["x"] = good["default"]
        closed = f["x"]

    class Sparse:
        shape = good["default"].shape

        def toarray(self):
            raise AssertionError

    for wrong, message in (
        (closed, "file .* 'default' is closed"),
        (Sparse(), "sparse"),
    ):
        with pytest.raises(NetworkValidationError, match=message):
            net.provide_external_data({**good, "default": wrong})
        with pytest.raises(NetworkValidationError, match=message):
            net.predict(wrong)
    run(net, good)

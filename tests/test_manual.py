"""Every code example in the manual of version 0.5, in the order of its chapters.

They stand as in the manual, but for what cannot run as printed; a comment tells:

- ``proBABILITIES`` and ``probabilities`` are the output ``predictions`` since 0.5,
- names that an example takes for granted (a network, a trainer, data) are made first,
- where the manual contradicts itself, what its reference chapters say.
"""

from __future__ import annotations

import os

import h5py
import numpy as np
import pytest

import brainstorm as bs
from brainstorm import Network, layers
from brainstorm.data_iterators import Minibatches
from brainstorm.handlers import NumpyHandler
from brainstorm.hooks import StopAfterThresholdReached
from brainstorm.initializers import (
    EchoState,
    Gaussian,
    SparseInputs,
    SparseOutputs,
    Uniform,
)
from brainstorm.tools import create_net_from_spec, extract_and_save
from brainstorm.utils import HandlerError
from brainstorm.value_modifiers import (
    ClipValues,
    ConstrainL2Norm,
    FreezeValues,
    MaskValues,
)

RND = np.random.RandomState(0)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bs.global_rnd.set_seed(42)


def network_of(**hidden):
    """A network with the given layers in a row."""
    inp, out = bs.tools.get_in_out_layers("classification", 4, 3)
    last = inp
    for name, layer in hidden.items():
        assert layer.name == name
        last = last >> layer
    return Network.from_layer(last >> out)


def iterator(batch_size=10, size=20):
    return Minibatches(
        batch_size,
        default=RND.randn(1, size, 4),
        targets=RND.randint(3, size=(1, size, 1)),
    )


# -- 2 Walkthrough -------------------------------------------------------------------


def test_walkthrough(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "CIFAR-10.hdf5", "w") as f:
        for part in ("training", "validation"):
            group = f.create_group(f"normalized_split/{part}")
            group["default"] = RND.rand(1, 20, 32, 32, 3)
            group["targets"] = RND.randint(10, size=(1, 20, 1))
    monkeypatch.setenv("BRAINSTORM_DATA_DIR", str(tmp_path))

    bs.global_rnd.set_seed(42)

    data_dir = os.environ.get("BRAINSTORM_DATA_DIR", "../data")
    data_file = os.path.join(data_dir, "CIFAR-10.hdf5")
    ds = h5py.File(data_file, "r")["normalized_split"]

    getter_tr = Minibatches(
        100, default=ds["training"]["default"], targets=ds["training"]["targets"]
    )
    getter_va = Minibatches(
        100, default=ds["validation"]["default"], targets=ds["validation"]["targets"]
    )

    inp, fc = bs.tools.get_in_out_layers("classification", (32, 32, 3), 10)

    (
        inp
        >> bs.layers.Convolution2D(32, kernel_size=(5, 5), padding=2, name="Conv1")
        >> bs.layers.Pooling2D(type="max", kernel_size=(3, 3), stride=(2, 2))
        >> bs.layers.Convolution2D(32, kernel_size=(5, 5), padding=2, name="Conv2")
        >> bs.layers.Pooling2D(type="max", kernel_size=(3, 3), stride=(2, 2))
        >> bs.layers.Convolution2D(64, kernel_size=(5, 5), padding=2, name="Conv3")
        >> bs.layers.Pooling2D(type="max", kernel_size=(3, 3), stride=(2, 2))
        >> bs.layers.FullyConnected(64, name="FC")
        >> fc
    )

    network = bs.Network.from_layer(fc)

    # network.set_handler(PyCudaHandler()): see test_set_handler_to_the_gpu

    network.initialize(
        {
            "Conv*": {"W": Gaussian(0.01), "bias": 0},
            "FC": {"W": Gaussian(0.1), "bias": 0},
            "Output_projection": {"W": Gaussian(0.1), "bias": 0},
        }
    )

    trainer = bs.Trainer(bs.training.MomentumStepper(learning_rate=0.01, momentum=0.9))
    trainer.add_hook(bs.hooks.ProgressBar())

    # 'Output.outputs.proBABILITIES' in the manual
    scorers = [bs.scorers.Accuracy(out_name="Output.outputs.predictions")]
    trainer.train_scorers = scorers
    trainer.add_hook(bs.hooks.MonitorScores("valid_getter", scorers, name="validation"))

    trainer.add_hook(
        bs.hooks.SaveBestNetwork(
            "validation.Accuracy",
            filename="cifar10_cnn_best.hdf5",
            name="best weights",
            criterion="max",
        )
    )

    trainer.add_hook(bs.hooks.StopAfterEpoch(1))  # 20 in the manual

    trainer.train(network, getter_tr, valid_getter=getter_va)

    assert 0 <= max(trainer.logs["validation"]["Accuracy"]) <= 1
    assert len(trainer.logs["rolling_training"]["Accuracy"]) == 1
    assert (tmp_path / "cifar10_cnn_best.hdf5").exists()


# -- 3 Data format -------------------------------------------------------------------


def test_data_example():
    # The manual's T and B are the letters, as in its chapter 9.4.2. Its target has two
    # features, but SoftmaxCE takes one class index, so the hidden layer has 2 outputs.
    inp = layers.Input({"my_inputs": ("T", "B", 50), "my_targets": ("T", "B", 1)})
    hid = layers.FullyConnected(100, name="Hidden")
    out = layers.SoftmaxCE(name="Output")
    loss = layers.Loss()
    inp - "my_inputs" >> hid >> out
    inp - "my_targets" >> "targets" - out - "loss" >> loss
    network = Network.from_layer(loss)

    network.initialize(Gaussian())
    network.provide_external_data(
        {
            "my_inputs": RND.randn(3, 7, 50),
            "my_targets": RND.randint(100, size=(3, 7, 1)),
        }
    )
    network.forward_pass()
    predictions = network.get("Output.outputs.predictions")
    assert predictions.shape == (3, 7, 100)
    np.testing.assert_allclose(predictions.sum(axis=2), 1, rtol=1e-5)


def test_file_format():
    with h5py.File("demo.hdf5", "w") as f:
        f["training/input_data"] = np.random.randn(7, 100, 15)
        f["training/targets"] = np.random.randn(7, 100, 2)
        f["training/static_data"] = np.random.randn(1, 100, 4)

    ds = h5py.File("demo.hdf5", "r")

    online_train_iter = bs.Online(**ds["training"])
    minibatch_train_iter = bs.Minibatches(100, **ds["training"])

    assert online_train_iter.length == 100
    (batch,) = minibatch_train_iter(None)
    assert {name: array.shape for name, array in batch.items()} == {
        "input_data": (7, 100, 15),
        "targets": (7, 100, 2),
        "static_data": (1, 100, 4),
    }


# -- 4 Network -----------------------------------------------------------------------


@pytest.mark.gpu
def test_set_handler_to_the_gpu():
    from brainstorm.handlers import PyCudaHandler

    try:
        PyCudaHandler()
    except (ImportError, HandlerError) as error:
        pytest.skip(str(error))
    net = network_of()
    net.initialize(Gaussian())
    x = RND.randn(5, 4)
    expected = net.predict(x)
    net.set_handler(PyCudaHandler())
    np.testing.assert_allclose(net.predict(x), expected, rtol=1e-4)


def test_modifiers_may_be_none():
    net = network_of()
    net.set_weight_modifiers()
    net.set_gradient_modifiers()
    assert not net.weight_modifiers
    assert not net.gradient_modifiers


def test_running_and_accessing_internals():
    net = network_of(Lstm=layers.Lstm(5))
    net.initialize(Gaussian())
    my_data = next(iterator()(net.handler))
    net.provide_external_data(my_data)
    net.forward_pass()
    net.backward_pass()
    for path in (
        "parameters",
        "Lstm.parameters.Wz",
        "gradients",
        "Lstm.gradients.Wz",
        "Lstm.inputs.default",
        "Lstm.outputs.default",
        "Lstm.input_deltas.default",
        "Lstm.output_deltas.default",
        "Lstm.internals.Fb",
    ):
        buffer = net.handler.get_numpy_copy(net.buffer[path])
        np.testing.assert_array_equal(net.get(path), buffer)
    # get_inputs in chapter 4, get_input in the reference
    np.testing.assert_allclose(net.get_input("default"), my_data["default"], rtol=1e-6)


def test_loading_and_saving():
    net = network_of()
    net.initialize(Gaussian())
    filename = "network.hdf5"
    net.save_as_hdf5(filename)
    loaded = Network.from_hdf5(filename)
    np.testing.assert_array_equal(loaded.get("parameters"), net.get("parameters"))


# -- 8.1 Network ---------------------------------------------------------------------


def test_get():
    net = network_of(Lstm=layers.Lstm(5))
    net.initialize(Gaussian())
    net.provide_external_data({"default": RND.randn(2, 3, 4)}, all_inputs=False)
    net.forward_pass()

    parameters = net.get("parameters")
    outputs = net.get("Output.outputs.predictions")  # proBABILITIES of an OutputLayer
    forget_gates = net.get("Lstm.internals.Fb")

    assert parameters.ndim == 1
    assert outputs.shape == (2, 3, 3)
    assert forget_gates.shape == (3, 3, 5)
    with pytest.raises(KeyError, match="no buffer 'OutputLayer'.*choices are"):
        net.get("OutputLayer.outputs.predictions")


def two_layers():
    return network_of(
        RegularLayer=layers.FullyConnected(5, name="RegularLayer"),
        LstmLayer=layers.Lstm(5, name="LstmLayer"),
    )


def test_initialize_by_default():
    net = two_layers()
    net.initialize(Gaussian(), seed=1)
    one = net.get("parameters")
    net.initialize(default=Gaussian(), seed=1)
    np.testing.assert_array_equal(net.get("parameters"), one)
    assert 0.05 < one.std() < 0.2


def test_initialize_by_dict_and_by_keywords():
    net = two_layers()
    # Every parameter has to match: the helper's projection is named too.
    net.initialize(
        {"RegularLayer": Uniform(), "LstmLayer": Gaussian(), "Output_projection": 0}
    )
    assert abs(net.get("RegularLayer.parameters.W")).max() <= 0.1
    net.initialize(
        RegularLayer=Uniform(), LstmLayer=Uniform(), Output_projection=Uniform()
    )
    assert 0 < abs(net.get("parameters")).max() <= 0.1


def test_initialize_patterns():
    net = network_of(
        layer_1=layers.FullyConnected(5, name="layer_1"),
        layer_2=layers.FullyConnected(5, name="layer_2"),
    )
    INIT, INIT_A, INIT_B = 1, 2, 3
    net.initialize({"layer_*": INIT, "default": 0})
    assert (net.get("layer_2.parameters.W") == 1).all()
    assert (net.get("Output_projection.parameters.W") == 0).all()
    net.initialize({"layer_1": {"W": INIT_A, "bias": INIT_B}, "default": 0})
    assert (net.get("layer_1.parameters.W") == 2).all()
    assert (net.get("layer_1.parameters.bias") == 3).all()
    net.initialize({"layer_1": {"b*": INIT_B, "default": INIT}, "default": 0})
    assert (net.get("layer_1.parameters.W") == 1).all()
    assert (net.get("layer_1.parameters.bias") == 3).all()
    net.initialize({"default": bs.Orthogonal(), "fallback": INIT}, seed=1)
    assert (net.get("layer_1.parameters.bias") == 1).all()
    W = net.get("layer_2.parameters.W")
    np.testing.assert_allclose(W @ W.T, np.eye(5), atol=1e-5)


def test_initialize_with_values():
    net = network_of(
        RnnLayer=layers.Recurrent(5, name="RnnLayer"),
        ForwardLayer=layers.FullyConnected(5, name="ForwardLayer"),
    )
    # The bias of the manual's RnnLayer is called b; that of Recurrent is bias.
    net.initialize(
        default=0, RnnLayer={"bias": [1, 2, 3, 4, 5]}, ForwardLayer=bs.Gaussian()
    )
    assert net.get("RnnLayer.parameters.bias").tolist() == [1, 2, 3, 4, 5]
    assert (net.get("RnnLayer.parameters.R") == 0).all()
    assert net.get("ForwardLayer.parameters.W").std() > 0


def test_initialize_with_seed():
    net, other = network_of(), network_of()
    net.initialize({"default": bs.Gaussian()}, seed=1234)
    other.initialize({"default": bs.Gaussian()}, seed=1234)
    np.testing.assert_array_equal(net.get("parameters"), other.get("parameters"))


def test_set_gradient_modifiers():
    net = network_of(
        FullyConnectedLayer=layers.FullyConnected(4, name="FullyConnectedLayer")
    )
    net.initialize(Gaussian(10.0))
    MASK = np.eye(4)
    net.set_gradient_modifiers(
        default=bs.value_modifiers.ClipValues(-1, 1),
        # {'W': [...]} alone leaves the bias without match: the manual's default is
        # that of the outer level, which is inherited.
        FullyConnectedLayer={
            "W": [bs.value_modifiers.ClipValues(), bs.value_modifiers.MaskValues(MASK)]
        },
    )
    net.provide_external_data(next(iterator()(net.handler)))
    net.forward_pass(training_pass=True)
    net.backward_pass()
    gradients = net.get("FullyConnectedLayer.gradients.W")
    assert (gradients[MASK == 0] == 0).all()
    assert (gradients != 0).any()
    assert abs(net.get("gradients")).max() <= 1


def test_set_weight_modifiers():
    net = network_of(
        FullyConnectedLayer=layers.FullyConnected(4, name="FullyConnectedLayer")
    )
    net.initialize(Gaussian(10.0))
    my_mask = np.eye(4)
    # RescaleIncomingWeights is no modifier of 0.5; its place takes ConstrainL2Norm.
    net.set_weight_modifiers(
        default=bs.ClipValues(-1, 1),
        FullyConnectedLayer={"W": [bs.ConstrainL2Norm(1), bs.MaskValues(my_mask)]},
    )
    net.apply_weight_modifiers()
    W = net.get("FullyConnectedLayer.parameters.W")
    assert (W[my_mask == 0] == 0).all()
    assert (np.linalg.norm(W, axis=1) <= 1 + 1e-5).all()
    assert abs(net.get("Output_projection.parameters.W")).max() == 1


def test_context_continues_a_sequence():
    net = network_of(Recurrent=layers.Recurrent(5))
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(Gaussian())
    x = RND.randn(6, 2, 4)
    whole = net.predict(x)
    net.provide_external_data({"default": x[:4]}, all_inputs=False)
    net.forward_pass()
    context = net.get_context()
    net.provide_external_data({"default": x[4:]}, all_inputs=False)
    net.forward_pass(context=context)
    np.testing.assert_allclose(net.get("Output.outputs.predictions"), whole[4:])


# -- 8.3 Tools -----------------------------------------------------------------------


def test_extract_and_save():
    network = network_of(Hid1=layers.FullyConnected(5, name="Hid1"))
    network.initialize(Gaussian())
    x_test = RND.randn(1, 250, 4)

    getter = Minibatches(100, shuffle=False, default=x_test)
    extract_and_save(
        network,
        getter,
        ["Output.outputs.predictions", "Hid1.internals.H"],
        "network_features.hdf5",
    )

    with h5py.File("network_features.hdf5") as f:
        predictions = f["Output.outputs.predictions"][:]
        assert f["Hid1.internals.H"].shape == (1, 250, 5)
    np.testing.assert_allclose(predictions, network.predict(x_test), rtol=1e-6)


def test_get_in_out_layers():
    from brainstorm import tools

    inp, out = tools.get_in_out_layers("classification", 784, 10)
    net = Network.from_layer(inp >> layers.FullyConnected(1000) >> out)
    assert net.get("FullyConnected.parameters.W").shape == (1000, 784)
    assert net.get("Output_projection.parameters.W").shape == (10, 1000)
    assert "Output" in net.layers


def kinds(net):
    return [
        type(layer).__name__.removesuffix("LayerImpl") for layer in net.layers.values()
    ]


def test_create_net_from_spec_for_mnist_pi():
    net = create_net_from_spec("classification", 784, 10, "D.2 F1200 D F1200 D")
    assert kinds(net)[:6] == ["Input", *2 * ["Dropout", "FullyConnected"], "Dropout"]
    drops = [net.layers[f"Dropout_{i}"].kwargs.get("drop_prob", 0.5) for i in (1, 2, 3)]
    assert drops == [0.2, 0.5, 0.5]


def test_create_net_from_spec_for_cifar10_cnn():
    # (3, 32, 32) in the manual, whose images are NHWC everywhere else
    net = create_net_from_spec(
        "classification",
        (32, 32, 3),
        10,
        "C32:5p2 P3s2 C32:5p2 P3s2 C64:5p2 P3s2 F64",
    )
    assert kinds(net)[1:7] == 3 * ["Convolution2D", "Pooling2D"]
    assert net.layers["Convolution2D_3"].out_shapes["default"].feature_shape == (
        7,
        7,
        64,
    )


# -- 8.5 Initializers ----------------------------------------------------------------


def test_echo_state():
    net = network_of(Recurrent=layers.Recurrent(5))
    net.initialize(default=Gaussian(), Recurrent={"R": EchoState(0.77)})
    radius = abs(np.linalg.eigvals(net.get("Recurrent.parameters.R"))).max()
    assert radius == pytest.approx(0.77, rel=1e-4)


@pytest.mark.parametrize(
    ("initializer", "axis"), [(SparseInputs, 0), (SparseOutputs, 1)]
)
def test_sparse_initializers(initializer, axis):
    inp, out = bs.tools.get_in_out_layers("classification", 30, 30)
    net = Network.from_layer(inp >> layers.FullyConnected(30) >> out)
    # A bias has no inputs to choose from, so it needs another initializer. SparseInputs
    # fills columns, as 0.5 did, so that seeds give the same numbers.
    net.initialize(
        default=0, FullyConnected={"W": initializer(Gaussian(), connections=10)}
    )
    W = net.get("FullyConnected.parameters.W")
    assert ((W != 0).sum(axis=axis) == 10).all()


# -- 8.6 Hooks -----------------------------------------------------------------------


def trained(*hooks):
    """The trainer after some epochs with the hooks, on data that teach nothing."""
    trainer = bs.Trainer(bs.training.SgdStepper(0.01), verbose=False)
    scorer = bs.scorers.Accuracy()
    trainer.add_hook(
        bs.hooks.MonitorScores("valid_getter", [scorer], name="validation")
    )
    for hook in hooks:
        trainer.add_hook(hook)
    trainer.add_hook(bs.hooks.StopAfterEpoch(20))
    net = network_of()
    net.initialize(Gaussian())
    net.output_name = "Output.outputs.predictions"
    trainer.train(net, iterator(), valid_getter=iterator())
    return trainer


@pytest.mark.parametrize(
    "hook",
    [
        bs.hooks.EarlyStopper("validation.Accuracy", patience=10, criterion="max"),
        bs.hooks.EarlyStopper("validation.total_loss", patience=5, criterion="min"),
    ],
)
def test_early_stopper(hook):
    trainer = trained(hook)
    log = trainer.logs["validation"][hook.log_name.partition(".")[2]]
    best = np.argmax(log) if hook.criterion == "max" else np.argmin(log)
    assert len(log) - 1 == min(best + hook.patience, 20)


@pytest.mark.parametrize(
    "hook",
    [
        bs.hooks.SaveBestNetwork(
            "validation.Accuracy", filename="best_acc.h5", criterion="max"
        ),
        bs.hooks.SaveBestNetwork(
            "validation.total_loss", filename="best_loss.h5", criterion="min"
        ),
    ],
)
def test_save_best_network(hook):
    trained(hook)
    assert isinstance(Network.from_hdf5(hook.filename), Network)


@pytest.mark.parametrize(
    "hook",
    [
        StopAfterThresholdReached(
            "validation.Accuracy", threshold=0.01, criterion="max"
        ),  # 0.97 in the manual
        StopAfterThresholdReached(
            "validation.total_loss", threshold=9.9, criterion="min"
        ),  # 0.2 in the manual
    ],
)
def test_stop_after_threshold_reached(hook):
    assert trained(hook).current_epoch_nr == 0


# -- 8.7 Value modifiers -------------------------------------------------------------


@pytest.mark.parametrize(
    "modifier",
    [
        ClipValues(),
        ConstrainL2Norm(1.0),  # the manual leaves out the limit, which has no default
        FreezeValues(),  # set_constraints in the manual is set_weight_modifiers
        MaskValues(np.zeros((5, 5))),
    ],
)
def test_value_modifiers(modifier):
    net = network_of(RnnLayer=layers.Recurrent(5, name="RnnLayer"))
    net.initialize(Gaussian(3.0), seed=1)
    before = net.get("RnnLayer.parameters.R")
    # The recurrent weights are R; 'HR' and 'HX' are names of before 0.5.
    net.set_weight_modifiers(RnnLayer={"R": modifier})
    net.apply_weight_modifiers()
    if isinstance(modifier, FreezeValues):
        net.initialize(0)
        net.apply_weight_modifiers()
    after = net.get("RnnLayer.parameters.R")
    lengths = np.maximum(1, np.linalg.norm(before, axis=1, keepdims=True))
    expected = {
        ClipValues: before.clip(-1, 1),
        ConstrainL2Norm: before / lengths,
        FreezeValues: before,
        MaskValues: 0 * before,
    }[type(modifier)]
    np.testing.assert_allclose(after, expected, rtol=1e-5)


# -- 9 Internals ---------------------------------------------------------------------


def test_architecture():
    architecture = {
        "Input": {
            "@type": "Input",
            "@outgoing_connections": {
                "default": ["hidden_layer"],
                "targets": ["output_layer.targets"],
            },
            "out_shapes": {
                "default": ("T", "B", 784),
                "targets": ("T", "B", 1),
            },
        },
        "hidden_layer": {
            "@type": "FullyConnected",
            "@outgoing_connections": {"default": ["output_projection"]},
            "activation": "rel",
            "size": 100,
        },
        "output_projection": {
            "@type": "FullyConnected",
            "@outgoing_connections": {"default": ["output_layer"]},
            "activation": "linear",
            "size": (10,),
        },
        "output_layer": {
            "@type": "SoftmaxCE",  # the manual lacks this comma
            "@outgoing_connections": {"loss": ["loss_layer"]},
        },
        "loss_layer": {
            "@outgoing_connections": {},
            "@type": "Loss",
            "importance": 1.0,
        },
    }
    net = Network.from_architecture(architecture)
    net.initialize(0)
    data = {"default": np.ones((1, 5, 784)), "targets": np.ones((1, 5, 1))}
    net.provide_external_data(data)
    net.forward_pass()
    assert net.get_loss_values()["total_loss"] == pytest.approx(np.log(10), rel=1e-5)


def test_full_layout_example():
    """The network of chapter 9.4.6, as far as it is not of before 0.5.

    Its layers Rnn and MseLayer are Recurrent and SquaredError, ``net_out`` is the input
    ``default`` of the latter, and build_net is Network.from_layer. Its tree has one
    buffer for each type; here each hub has its own, so slices are within hubs. In that
    of the parameters layers are sorted by name, as files of 0.5 have them: OutLayer has
    the first 60.
    """
    from brainstorm.structure.layout import create_layout

    mse = layers.SquaredError(name="Mse")
    inputs = layers.Input(
        out_shapes={"input_data": ("T", "B", 4), "targets": ("T", "B", 10)}
    )
    rnn = layers.Recurrent(5, name="Rnn")
    out_layer = layers.FullyConnected(10, name="OutLayer")
    inputs - "input_data" >> rnn >> out_layer >> mse
    inputs - "targets" >> "targets" - mse
    net = Network.from_layer(mse)

    _, layout = create_layout(net.layers)
    assert [n for n in layout if n in net.layers] == ["Input", "Rnn", "OutLayer", "Mse"]
    rnn_nodes = layout["Rnn"]
    assert rnn_nodes["@type"] == "BufferView"
    W, R, bias = (rnn_nodes["parameters"][name] for name in ("W", "R", "bias"))
    assert [W["@slice"], R["@slice"], bias["@slice"]] == [
        (60, 80),
        (80, 105),
        (105, 110),
    ]
    assert W["@shape"] == (5, 4)  # (4, 5) in the manual; weights are (out, in)
    assert R["@shape"] == (5, 5)
    out = layout["OutLayer"]["parameters"]
    assert [out["W"]["@slice"], out["bias"]["@slice"]] == [(0, 50), (50, 60)]
    assert rnn_nodes["outputs"]["default"]["@context_size"] == 1
    # What the input layer writes is where the recurrent one reads.
    read, written = (
        rnn_nodes["inputs"]["default"],
        layout["Input"]["outputs"]["input_data"],
    )
    assert (read["@hub"], read["@slice"]) == (written["@hub"], written["@slice"])


# -- Scripts in the manual's style, with what its examples use ------------------------


def test_permutation_invariant_mnist(tmp_path):
    """The network of mnist_pi, wired by hand: dropout, and limited incoming weights."""
    with h5py.File(tmp_path / "MNIST.hdf5", "w") as f:
        for part in ("training", "validation"):
            group = f.create_group(f"normalized_split/{part}")
            group["default"] = RND.rand(1, 30, 28, 28, 1)
            group["targets"] = RND.randint(10, size=(1, 30, 1))
    bs.global_rnd.set_seed(42)
    ds = h5py.File(tmp_path / "MNIST.hdf5", "r")["normalized_split"]
    x_tr, y_tr = ds["training"]["default"][:], ds["training"]["targets"][:]
    x_va, y_va = ds["validation"]["default"][:], ds["validation"]["targets"][:]
    getter_tr = Minibatches(10, default=x_tr, targets=y_tr)
    getter_va = Minibatches(10, default=x_va, targets=y_va)

    inp, fc = bs.tools.get_in_out_layers(
        "classification", (28, 28, 1), 10, projection_name="FC"
    )
    network = bs.Network.from_layer(
        inp
        >> bs.layers.Dropout(drop_prob=0.2)
        >> bs.layers.FullyConnected(12, name="Hid1", activation="rel")
        >> bs.layers.Dropout(drop_prob=0.5)
        >> bs.layers.FullyConnected(12, name="Hid2", activation="rel")
        >> bs.layers.Dropout(drop_prob=0.5)
        >> fc
    )
    network.initialize(bs.initializers.Gaussian(0.1))
    network.set_weight_modifiers({"FC": bs.value_modifiers.ConstrainL2Norm(0.2)})

    trainer = bs.Trainer(bs.training.MomentumStepper(learning_rate=0.1, momentum=0.9))
    trainer.add_hook(bs.hooks.ProgressBar())
    scorers = [bs.scorers.Accuracy(out_name="Output.outputs.predictions")]
    trainer.add_hook(bs.hooks.MonitorScores("valid_getter", scorers, name="validation"))
    saver = bs.hooks.SaveBestNetwork(
        "validation.Accuracy",
        filename="mnist_pi_best.hdf5",
        name="best weights",
        criterion="max",
    )
    trainer.add_hook(saver)
    trainer.add_hook(bs.hooks.StopAfterEpoch(2))
    trainer.train(network, getter_tr, valid_getter=getter_va)

    best = max(trainer.logs["validation"]["Accuracy"])
    assert saver.best_so_far == best
    assert len(trainer.logs["validation"]["Accuracy"]) == 3
    norms = np.linalg.norm(network.get("FC.parameters.W"), axis=1)
    assert norms.max() == pytest.approx(0.2, rel=1e-5)
    found = bs.tools.evaluate(saver.load_best_network(), getter_va, scorers)
    assert found["Accuracy"] == pytest.approx(best)


def test_next_characters():
    """A character model: an LSTM on one-hot text, with a rate that falls."""
    bs.global_rnd.set_seed(42)
    text = RND.randint(5, size=(11, 20, 1))
    characters = bs.data_iterators.OneHot(
        Minibatches(5, x=text[:-1], targets=text[1:], shuffle=False), {"x": 5}
    )
    inp, fc = bs.tools.get_in_out_layers("classification", 5, 5, data_name="x")
    network = bs.Network.from_layer(inp >> bs.layers.Lstm(10, name="lstm") >> fc)
    network.initialize(
        {"default": Gaussian(0.1), "lstm": {"bf": bs.initializers.Uniform(4, 6)}}
    )
    trainer = bs.Trainer(bs.training.SgdStepper(learning_rate=1.0))
    trainer.add_hook(bs.hooks.MonitorLoss("valid_getter", name="validation"))
    trainer.add_hook(
        bs.hooks.EarlyStopper("validation.total_loss", patience=10, criterion="min")
    )
    schedule = bs.training.schedules.Exponential(1.0, 0.5)
    trainer.add_hook(bs.hooks.ModifyStepperAttribute(schedule, "learning_rate"))
    trainer.add_hook(
        bs.hooks.SaveBestNetwork("validation.total_loss", criterion="min", name="best")
    )
    trainer.add_hook(bs.hooks.StopAfterEpoch(2))
    trainer.train(network, characters, valid_getter=characters)
    assert trainer.stepper.learning_rate == 0.25
    assert trainer.logs["ModifyStepperAttribute"] == [1.0, 0.5, 0.25]
    losses = trainer.logs["validation"]["total_loss"]
    found = bs.tools.evaluate(trainer.hooks["best"].load_best_network(), characters)
    assert found["total_loss"] == pytest.approx(min(losses), rel=1e-5)

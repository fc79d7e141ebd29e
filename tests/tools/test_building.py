import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import brainstorm as bs
from brainstorm import layers
from brainstorm.data_iterators import Minibatches
from brainstorm.handlers import NumpyHandler
from brainstorm.scorers import Accuracy
from brainstorm.tools import create_net_from_spec, evaluate, get_in_out_layers
from brainstorm.tools.spec import parse_spec
from brainstorm.utils import LayerValidationError, ValidationError


def connections(net):
    """All wires as texts, like ``'Input.targets > Output.targets'``."""
    return {
        f"{name}.{output} > {end if '.' in end else end + '.default'}"
        for name, properties in net.architecture.items()
        for output, ends in properties["@outgoing_connections"].items()
        for end in ends
    }


def types(net):
    return {name: p["@type"] for name, p in net.architecture.items()}


# -- get_in_out_layers -------------------------------------------------------


def test_example_of_the_manual():
    inp, out = bs.tools.get_in_out_layers("classification", 784, 10)
    net = bs.Network.from_layer(inp >> layers.FullyConnected(1000) >> out)
    assert types(net) == {
        "Input": "Input",
        "FullyConnected": "FullyConnected",
        "Output_projection": "FullyConnected",
        "Output": "SoftmaxCE",
        "Loss": "Loss",
    }
    assert connections(net) == {
        "Input.default > FullyConnected.default",
        "FullyConnected.default > Output_projection.default",
        "Output_projection.default > Output.default",
        "Input.targets > Output.targets",
        "Output.loss > Loss.default",
    }
    assert net.architecture["Output_projection"]["activation"] == "linear"
    assert net.layers["Output_projection"].parameter_shapes["W"].shape == (10, 1000)


@pytest.mark.parametrize(
    ("task_type", "layer_type", "out_shape", "targets_shape"),
    [
        ("classification", "SoftmaxCE", 7, (1,)),
        ("classification", "SoftmaxCE", (3, 7), (3, 1)),
        ("multi-label", "SigmoidCE", 7, (7,)),
        ("multi-label", "SigmoidCE", (3, 7), (3, 7)),
        ("regression", "SquaredError", 1, (1,)),
        ("regression", "SquaredError", [3, 7], (3, 7)),
    ],
)
def test_tasks_have_their_losses_and_targets(
    task_type, layer_type, out_shape, targets_shape
):
    inp, out = get_in_out_layers(task_type, (4, 5), out_shape)
    net = bs.Network.from_layer(inp >> out)
    assert types(net)["Output"] == layer_type
    assert net.layers["Input"].out_shapes["default"].shape == ("T", "B", 4, 5)
    shape = net.layers["Input"].out_shapes["targets"].shape
    assert shape == ("T", "B", *targets_shape)


def test_names_of_data_and_layers():
    inp, out = get_in_out_layers(
        "regression", 3, 2, "x", "t", "Proj", "Out", mask_name="m"
    )
    net = bs.Network.from_layer(inp >> out)
    assert {n: s.shape for n, s in net.layers["Input"].out_shapes.items()} == {
        "x": ("T", "B", 3),
        "t": ("T", "B", 2),
        "m": ("T", "B", 1),
    }
    assert connections(net) == {
        "Input.x > Proj.default",
        "Proj.default > Out.default",
        "Input.t > Out.targets",
        "Out.loss > Mask.default",
        "Input.m > Mask.mask",
        "Mask.default > Loss.default",
    }


@pytest.mark.parametrize("argument", ["out_layer_name", "outlayer_name"])
def test_projection_is_named_after_the_output_layer(argument):
    inp, out = get_in_out_layers("regression", 3, 2, **{argument: "Foo"})
    assert set(bs.Network.from_layer(inp >> out).layers) == {
        "Input",
        "Foo_projection",
        "Foo",
        "Loss",
    }


def test_only_steps_in_the_mask_count():
    inp, out = get_in_out_layers("regression", 3, 2, mask_name="mask")
    net = bs.Network.from_layer(inp >> out)
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(bs.Gaussian(1), seed=1)
    rnd = np.random.RandomState(0)
    x, t = rnd.randn(4, 5, 3), rnd.randn(4, 5, 2)
    mask = rnd.randint(0, 2, (4, 5, 1)).astype(float)
    net.provide_external_data({"default": x, "targets": t, "mask": mask})
    net.forward_pass()
    net.backward_pass()
    error = x @ net.get("Output_projection.parameters.W").T - t
    error += net.get("Output_projection.parameters.bias")
    expected = np.sum(0.5 * error**2 * mask) / 5
    assert net.get_loss_values()["total_loss"] == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(
        net.get("Output_projection.gradients.bias"),
        np.sum(error * mask, axis=(0, 1)) / 5,
    )


@pytest.mark.parametrize(
    ("out_shape", "use_conv", "layer_type"),
    [
        ((4, 5, 2), None, "Convolution2D"),
        ((4, 5, 2), True, "Convolution2D"),
        ((4, 5, 2), False, "FullyConnected"),
        ((4, 2), None, "FullyConnected"),
        (2, None, "FullyConnected"),
        (2, False, "FullyConnected"),
    ],
)
def test_projection_of_images_is_convolutional(out_shape, use_conv, layer_type):
    inp, out = get_in_out_layers(
        "classification", (4, 5, 3), out_shape, use_conv=use_conv
    )
    net = bs.Network.from_layer(inp >> out)
    assert types(net)["Output_projection"] == layer_type
    shape = (out_shape,) if isinstance(out_shape, int) else out_shape
    assert net.layers["Output"].out_shapes["predictions"].feature_shape == shape
    if layer_type == "Convolution2D":
        shape = net.layers["Output_projection"].parameter_shapes["W"].shape
        assert shape == (2, 1, 1, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"task_type": "clasification"},
            ["task_type", "clasification", "'multi-label'"],
        ),
        ({"in_shape": 0}, ["in_shape", "positive integer", "0"]),
        ({"in_shape": (3, -1)}, ["in_shape", "(3, -1)"]),
        ({"in_shape": ()}, ["in_shape", "()"]),
        ({"in_shape": "784"}, ["in_shape", "'784'"]),
        ({"out_shape": 2.5}, ["out_shape", "2.5"]),
        ({"out_shape": 1}, ["out_shape", "at least 2 classes", "got 1"]),
        ({"out_shape": 10, "use_conv": True}, ["out_shape", "use_conv", "(10,)"]),
        ({"targets_name": "default"}, ["targets_name", "differ", "'default'"]),
        ({"mask_name": "targets"}, ["mask_name", "differ", "'targets'"]),
        (
            {"out_layer_name": "a", "outlayer_name": "b"},
            ["outlayer_name", "'a'", "'b'"],
        ),
    ],
)
def test_bad_arguments(arguments, words):
    good = {"task_type": "classification", "in_shape": 784, "out_shape": 10}
    with pytest.raises(ValidationError) as error:
        get_in_out_layers(**{**good, **arguments})
    for word in words:
        assert word in str(error.value)


# -- the spec ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("", []),
        ("F50", [("FullyConnected", {"size": 50})]),
        ("Fl1", [("FullyConnected", {"activation": "linear", "size": 1})]),
        ("Rr20", [("Recurrent", {"activation": "rel", "size": 20})]),
        ("Ls30", [("Lstm", {"activation": "sigmoid", "size": 30})]),
        ("Ft4", [("FullyConnected", {"activation": "tanh", "size": 4})]),
        ("B", [("BatchNorm", {})]),
        ("D", [("Dropout", {})]),
        ("D.2", [("Dropout", {"drop_prob": 0.2})]),
        ("D0.25", [("Dropout", {"drop_prob": 0.25})]),
        ("D0", [("Dropout", {"drop_prob": 0.0})]),
        ("B, D.2 ,", [("BatchNorm", {}), ("Dropout", {"drop_prob": 0.2})]),
        ("C32:3", [("Convolution2D", {"num_filters": 32, "kernel_size": (3, 3)})]),
        (
            "C6:3d2g3p1s2 U2",
            [
                (
                    "Convolution2D",
                    {
                        **{"num_filters": 6, "kernel_size": (3, 3), "padding": 1},
                        **{"dilation": (2, 2), "groups": 3, "stride": (2, 2)},
                    },
                ),
                ("Upsample2D", {"factor": 2}),
            ],
        ),
        ("C32/3", [("Convolution2D", {"num_filters": 32, "kernel_size": (3, 3)})]),
        (
            "Cs8:5p2s3",
            [
                (
                    "Convolution2D",
                    {
                        "activation": "sigmoid",
                        "num_filters": 8,
                        "kernel_size": (5, 5),
                        "padding": 2,
                        "stride": (3, 3),
                    },
                )
            ],
        ),
        ("P3", [("Pooling2D", {"kernel_size": (3, 3)})]),
        (
            "Pa12s4p0",
            [
                (
                    "Pooling2D",
                    {
                        "type": "avg",
                        "kernel_size": (12, 12),
                        "stride": (4, 4),
                        "padding": 0,
                    },
                )
            ],
        ),
        ("Pm2", [("Pooling2D", {"type": "max", "kernel_size": (2, 2)})]),
        (
            "E65:8 Wl (N Ac8:2) (Fg5 (B))",
            [
                ("Embedding", {"vocabulary_size": 65, "size": 8}),
                ("PositionalEncoding", {"kind": "learned"}),
                (
                    "Add",
                    {
                        "block": [
                            ("LayerNorm", {}),
                            ("Attention", {"causal": True, "size": 8, "heads": 2}),
                        ]
                    },
                ),
                (
                    "Add",
                    {
                        "block": [
                            ("FullyConnected", {"activation": "gelu", "size": 5}),
                            ("Add", {"block": [("BatchNorm", {})]}),
                        ]
                    },
                ),
            ],
        ),
        (
            "D.2F12DF3",
            [
                ("Dropout", {"drop_prob": 0.2}),
                ("FullyConnected", {"size": 12}),
                ("Dropout", {}),
                ("FullyConnected", {"size": 3}),
            ],
        ),
    ],
)
def test_parsing(spec, expected):
    assert parse_spec(spec) == expected


@given(st.lists(st.sampled_from([" ", "\t", "\n", ""]), min_size=30, max_size=30))
def test_whitespace_is_ignored_everywhere(spaces):
    spec = "D.25Fs120BCt3/5p2s3Pa3Lt7"
    spaced = "".join(space + c for space, c in zip(spaces, spec, strict=False))
    assert parse_spec(spaced) == parse_spec(spec)


@pytest.mark.parametrize(
    ("spec", "place", "expected"),
    [
        (
            "H5",
            0,
            "the letter of a layer (F, R, L, G, X, B, D, C, P, U, E, W, A, N, ()",
        ),
        ("F50 f20", 4, "the letter of a layer"),
        ("F", 1, "the size"),
        ("F 50 F", 6, "the size"),
        ("F0", 1, "the size, an integer >= 1,"),
        ("Fx5", 1, "the size"),
        ("F5.5", 2, "the letter of a layer"),
        (",F5", 0, "the letter of a layer"),
        ("F5,,F6", 3, "the letter of a layer"),
        ("F,5", 1, "the size"),
        ("F-5", 1, "the size"),
        ("B3", 1, "the letter of a layer"),
        ("F5 D1", 4, "the probability, a number in [0, 1), of Dropout"),
        ("D1.5", 1, "the probability"),
        ("D..5", 1, "the probability"),
        ("C:3", 1, "the number of filters"),
        ("C32", 3, "':' and the size of the kernel of Convolution2D"),
        ("C32:", 4, "the size of the kernel"),
        ("C3:3p", 5, "the padding"),
        ("C3:3s0", 5, "the stride"),
        ("C3:3p1p2", 6, "just one padding"),
        ("P3s2 s3", 5, "just one stride"),
        ("Px", 1, "the size of the kernel"),
        ("C3:3d2d2", 6, "just one dilation"),
        ("C3:3g0", 5, "the groups"),
        ("P3d2", 2, "the letter of a layer"),
        ("U", 1, "the factor"),
        ("E5", 2, "':' and the size of Embedding"),
        ("E:5", 1, "the number of words"),
        ("A4 F5", 3, "':' and the number of heads of Attention"),
        ("Ac:4", 2, "the size"),
        ("A4:0", 3, "the number of heads"),
        ("()", 1, "the letter of a layer"),
        ("F5)", 2, "the letter of a layer"),
        (
            "(F5 (B) N",
            9,
            "the letter of a layer (F, R, L, G, X, B, D, C, P, U, E, W, A, N",
        ),
    ],
)
def test_errors_show_the_place(spec, place, expected):
    with pytest.raises(ValidationError) as error:
        parse_spec(spec)
    message, text, mark = str(error.value).split("\n")
    assert message.startswith("spec: expected " + expected)
    assert message.endswith(f"at position {place}:")
    assert text.strip() == spec
    assert mark.index("^") - text.index(spec) == place


def test_place_is_right_among_whitespace():
    with pytest.raises(ValidationError) as error:
        parse_spec("F 5\n\tQ")
    _, text, mark = str(error.value).split("\n")
    assert text[mark.index("^")] == "Q"


def test_spec_is_a_text():
    with pytest.raises(ValidationError, match="spec: expected a text, got 50"):
        create_net_from_spec("regression", 3, 2, 50)


# -- create_net_from_spec ----------------------------------------------------


def test_mnist_example_of_the_manual():
    net = create_net_from_spec("classification", 784, 10, "D.2 F1200 D F1200 D")
    assert connections(net) == {
        "Input.default > Dropout_1.default",
        "Dropout_1.default > FullyConnected_1.default",
        "FullyConnected_1.default > Dropout_2.default",
        "Dropout_2.default > FullyConnected_2.default",
        "FullyConnected_2.default > Dropout_3.default",
        "Dropout_3.default > Output_projection.default",
        "Output_projection.default > Output.default",
        "Input.targets > Output.targets",
        "Output.loss > Loss.default",
    }
    drop_probs = [net.architecture[f"Dropout_{i}"]["drop_prob"] for i in (1, 2, 3)]
    assert drop_probs == [0.2, 0.5, 0.5]
    assert net.architecture["FullyConnected_1"]["activation"] == "rel"
    assert net.layers["FullyConnected_2"].parameter_shapes["W"].shape == (1200, 1200)
    assert net.output_name == "Output.outputs.predictions"


def test_cifar10_example_of_the_manual():
    net = create_net_from_spec(
        "classification",
        (32, 32, 3),
        10,
        "C32:5p2 P3s2 C32:5p2 P3s2 C64:5p2 P3s2 F64",
    )
    shapes = {
        n: la.out_shapes["default"].feature_shape
        for n, la in net.layers.items()
        if "default" in la.out_shapes
    }
    assert shapes == {
        "Input": (32, 32, 3),
        "Convolution2D_1": (32, 32, 32),
        "Pooling2D_1": (15, 15, 32),
        "Convolution2D_2": (15, 15, 32),
        "Pooling2D_2": (7, 7, 32),
        "Convolution2D_3": (7, 7, 64),
        "Pooling2D_3": (3, 3, 64),
        "FullyConnected": (64,),
        "Output_projection": (10,),
    }


def test_all_layers_with_a_mask_train():
    net = create_net_from_spec(
        "multi-label", (6, 6, 2), 3, "C4:3p1 B Pa2s2 Fs9 D.1 R7 L8", mask_name="mask"
    )
    rnd = np.random.RandomState(0)
    net.provide_external_data(
        {
            "default": rnd.randn(4, 5, 6, 6, 2),
            "targets": rnd.randint(0, 2, (4, 5, 3)),
            "mask": np.ones((4, 5, 1)),
        }
    )
    net.forward_pass(training_pass=True)
    net.backward_pass()
    assert np.isfinite(net.get_loss_values()["total_loss"])
    assert np.abs(net.get("Convolution2D.gradients.W")).max() > 0


def test_initial_parameters():
    net = create_net_from_spec("classification", 200, 10, "Fr300 Ft100 Fs100 B")

    def uniform_over(layer, scale):
        W = net.get(f"{layer}.parameters.W")
        bound = scale / math.sqrt(sum(W.shape))
        return 0.98 * bound < np.abs(W).max() <= bound * (1 + 1e-6)

    assert uniform_over("FullyConnected_1", math.sqrt(12))
    assert uniform_over("FullyConnected_2", math.sqrt(6))
    assert uniform_over("FullyConnected_3", 4 * math.sqrt(6))
    assert uniform_over("Output_projection", 1)
    assert net.get("FullyConnected_1.parameters.bias").std() == pytest.approx(
        0.1, rel=0.3
    )
    for name, value in {"gamma": 1, "beta": 0, "mu": 0, "sigma": 1}.items():
        assert (net.get(f"BatchNorm.parameters.{name}") == value).all()


def test_initial_parameters_come_from_the_global_seed():
    def parameters(seed):
        bs.global_rnd.set_seed(seed)
        return create_net_from_spec("regression", 3, 2, "F5 L4").get("parameters")

    np.testing.assert_array_equal(parameters(1), parameters(1))
    assert (parameters(1) != parameters(2)).any()


def test_network_survives_saving(tmp_path):
    net = create_net_from_spec("classification", (6, 6, 1), 10, "C3:3 P2s2 F5")
    net.save_as_hdf5(tmp_path / "net.hdf5")
    loaded = bs.Network.from_hdf5(tmp_path / "net.hdf5")
    assert loaded.output_name == net.output_name
    np.testing.assert_array_equal(loaded.get("parameters"), net.get("parameters"))


def test_layers_check_the_shapes_that_reach_them():
    with pytest.raises(LayerValidationError, match="Pooling2D"):
        create_net_from_spec("classification", (8, 8, 1), 10, "P3s3 P3")


# -- masks -------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["XL4", "XGt3 F5", "XR4 XR3"])
def test_padding_has_no_influence(spec):
    net = create_net_from_spec("classification", 3, 2, spec, mask_name="mask")
    rnd = np.random.default_rng(0)
    x, t = rnd.normal(size=(6, 4, 3)), rnd.integers(2, size=(6, 4, 1))
    mask = np.ones((6, 4, 1))
    mask[3:, 1], mask[5:, 2] = 0, 0
    other = {"default": np.where(mask, x, 9.0), "targets": np.where(mask, t, 1 - t)}
    both = []
    for data in ({"default": x, "targets": t}, other):
        iterator = Minibatches(4, **data, mask=mask, shuffle=False)
        predictions = net.predict({**data, "mask": mask})
        both.append((predictions * mask, evaluate(net, iterator, [Accuracy()])))
    np.testing.assert_array_equal(both[0][0], both[1][0])
    assert both[0][1] == both[1][1]
    # With padding that counted, the accuracy would be another one.
    rows = net.predict({"default": x, "mask": mask}).argmax(-1) == t[..., 0]
    assert both[0][1]["Accuracy"] == pytest.approx(np.mean(rows[mask[..., 0] == 1]))


def test_a_layer_that_reads_both_ways_needs_a_recurrent_one():
    with pytest.raises(ValidationError, match=r"recurrent layer \(R, L, G\)"):
        create_net_from_spec("classification", 3, 2, "XF4")

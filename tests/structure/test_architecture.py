import itertools
import json
import random

import pytest

from brainstorm import layers
from brainstorm.structure.architecture import (
    Connection,
    canonical_layer_order,
    collect_all_connections,
    generate_architecture,
    instantiate_layers_from_architecture,
)
from brainstorm.utils import LayerValidationError, NetworkValidationError


def manual_example():
    """The architecture of the manual's chapter 9.3."""
    return {
        "Input": {
            "@type": "Input",
            "@outgoing_connections": {
                "default": ["hidden_layer"],
                "targets": ["output_layer.targets"],
            },
            "out_shapes": {"default": ("T", "B", 784), "targets": ("T", "B", 1)},
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
            "@type": "SoftmaxCE",
            "@outgoing_connections": {"loss": ["loss_layer"]},
        },
        "loss_layer": {
            "@outgoing_connections": {},
            "@type": "Loss",
            "importance": 1.0,
        },
    }


def spelled_out(architecture):
    """With ``.default``, which may be omitted, as version 0.5 wrote it to files."""
    for properties in architecture.values():
        ends = properties["@outgoing_connections"]
        for name, inputs in ends.items():
            ends[name] = [i if "." in i else f"{i}.default" for i in inputs]
    return architecture


def test_wiring_generates_the_manuals_architecture():
    inp = layers.Input({"default": ("T", "B", 784), "targets": ("T", "B", 1)})
    out = layers.SoftmaxCE(name="output_layer")
    (
        inp
        >> layers.FullyConnected(100, name="hidden_layer")
        >> layers.FullyConnected((10,), "linear", name="output_projection")
        >> out - "loss"
        >> layers.Loss(name="loss_layer")
    )
    inp - "targets" >> "targets" - out
    assert generate_architecture(inp) == spelled_out(manual_example())
    assert generate_architecture(out) == spelled_out(manual_example())


def test_the_manuals_architecture_makes_layers():
    made = instantiate_layers_from_architecture(manual_example())
    assert list(made) == [
        "Input",
        "hidden_layer",
        "output_projection",
        "output_layer",
        "loss_layer",
    ]
    assert made["output_projection"].parameter_shapes["W"].shape == (10, 100)
    assert list(made["output_layer"].in_shapes) == ["default", "targets"]


def test_architectures_survive_json():
    architecture = json.loads(json.dumps(manual_example()))
    made = instantiate_layers_from_architecture(architecture)
    assert made["output_projection"].out_shapes["default"].shape == ("T", "B", 10)


def test_connections_can_be_a_list():
    architecture = {
        "Input": {"@type": "Input", "@outgoing_connections": ["A", "B.x"]},
        "A": {"@outgoing_connections": ("B.y",)},
        "B": {},
    }
    assert collect_all_connections(architecture) == [
        Connection("Input", "default", "A", "default"),
        Connection("Input", "default", "B", "x"),
        Connection("A", "default", "B", "y"),
    ]


def test_canonical_order_takes_sinks_in_descending_order():
    # By hand: sinks E, D; then C (into E), A (into D), ordered C, A; then B; reversed.
    edges = [("B", "C"), ("B", "A"), ("C", "E"), ("A", "D")]
    connections = [Connection(s, "default", e, "default") for s, e in edges]
    assert canonical_layer_order("ABCDE", connections) == ["B", "A", "C", "D", "E"]


def test_canonical_order_waits_for_all_successors():
    edges = [("I", "A"), ("A", "B"), ("B", "Z"), ("I", "Z")]
    connections = [Connection(s, "default", e, "default") for s, e in edges]
    assert canonical_layer_order("IABZ", connections) == ["I", "A", "B", "Z"]


def test_thousands_of_layers_come_in_any_order():
    ends = [f"L{i}" for i in range(3000)]
    chain = {
        "Input": {"@type": "Input", "out_shapes": {"default": ("T", "B", 1)}},
        **{name: {"@type": "NoOp"} for name in ends},
    }
    for start, end in itertools.pairwise(chain):
        chain[start]["@outgoing_connections"] = {"default": [end]}
    for seed in range(2):
        names = list(chain)
        random.Random(seed).shuffle(names)
        architecture = {name: chain[name] for name in names}
        layers = instantiate_layers_from_architecture(architecture)
        assert list(layers) == ["Input", *ends]
        assert layers["L2999"].incoming == [
            Connection("L2998", "default", "L2999", "default")
        ]
    closed = {**chain, "L2999": {**chain["L2999"], "@outgoing_connections": ["L5"]}}
    message = r"cycle: L5 >> L6 >> .* >> L14 >> \.\.\. >> L2999 >> L5$"
    with pytest.raises(NetworkValidationError, match=message):
        instantiate_layers_from_architecture(closed)


def changed(layer, **properties):
    architecture = manual_example()
    properties = {k.replace("at_", "@"): v for k, v in properties.items()}
    architecture[layer] = {**architecture.get(layer, {}), **properties}
    return architecture


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ([], "expected a dict"),
        ({}, "exactly one layer of type 'Input'"),
        ({"a-b": {"@type": "NoOp"}}, "'a-b' can not be the name"),
        ({3: {"@type": "NoOp"}}, "3 can not be the name"),
        ({"default": {"@type": "NoOp"}}, "'default' can not be the name"),
        ({"a": 3}, "layer 'a': expected a dict"),
        (changed("extra", size=3), "layer 'extra': .*'@type', got None"),
        (
            changed("output_layer", at_outgoing_connections={"loss": ["nothing"]}),
            "'output_layer' is connected to 'nothing', which does not exist",
        ),
        (
            changed("output_layer", at_outgoing_connections={"loss": "loss_layer"}),
            "layer 'output_layer': expected '@outgoing_connections'",
        ),
        (
            changed("output_layer", at_outgoing_connections={"lost": ["loss_layer"]}),
            "'output_layer' has no output 'lost' .* 'predictions', 'loss'",
        ),
        (
            changed("loss_layer", at_outgoing_connections={"loss": ["hidden_layer"]}),
            "cycle: hidden_layer >> output_projection >> output_layer >> loss_layer"
            " >> hidden_layer",
        ),
        (
            changed("loss_layer", at_outgoing_connections={"loss": ["Input"]}),
            "Input layer can not have incoming connections, but 'loss_layer'",
        ),
        (
            changed("alone", at_type="NoOp", at_outgoing_connections={}),
            "not connected to the Input: 'alone'",
        ),
        (
            changed("Other", at_type="Input", out_shapes={"default": ("T", "B", 1)}),
            "exactly one layer of type 'Input'",
        ),
    ],
)
def test_invalid_architectures_are_refused(architecture, message):
    with pytest.raises(NetworkValidationError, match=message):
        instantiate_layers_from_architecture(architecture)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (
            changed("hidden_layer", at_type="Nothing"),
            "'Nothing'; choices are: .*'Loss'",
        ),
        (changed("hidden_layer", size=-1), "'hidden_layer': .*'size', got -1"),
        (changed("hidden_layer", size=2.5), "'hidden_layer': .*'size', got 2.5"),
        (changed("hidden_layer", size="a"), "'hidden_layer': .*'size', got 'a'"),
        (changed("hidden_layer", activation="?"), "one of 'linear', .*, got '?'"),
        (changed("hidden_layer", **{"@type": "No"}), "'hidden_layer': unknown layer"),
        (changed("hidden_layer", sise=1), "unexpected argument 'sise'; choices are"),
        (changed("loss_layer", importance="big"), "'loss_layer': .*'importance'"),
        (
            changed("Input", out_shapes={"default": ("T", "B", 784)}),
            "'output_layer': expected the inputs 'default', 'targets'",
        ),
        (
            changed(
                "Input",
                out_shapes={"default": ("T", "B", 784), "targets": ("T", "B", 2)},
            ),
            "'output_layer': expected the shape .* at input 'targets'",
        ),
        (changed("Input", out_shapes={"default": ("T", 7)}), "'Input': shape of"),
        (changed("Input", out_shapes={}), "'Input': expected a dict of shapes"),
        (changed("Input", out_shapes={"a b": ("T", "B", 7)}), "got 'a b'"),
    ],
)
def test_layers_refuse_what_does_not_fit(architecture, message):
    if "targets" not in architecture["Input"]["out_shapes"]:
        del architecture["Input"]["@outgoing_connections"]["targets"]
    with pytest.raises(LayerValidationError, match=message):
        instantiate_layers_from_architecture(architecture)


def test_joined_outputs_have_to_be_of_one_type():
    inp = layers.Input({"a": ("T", "B", 2), "b": ("B", 2)})
    both = layers.NoOp(name="both")
    inp - "a" >> both
    inp - "b" >> both
    with pytest.raises(NetworkValidationError, match="buffer types at input 'default'"):
        instantiate_layers_from_architecture(generate_architecture(both))

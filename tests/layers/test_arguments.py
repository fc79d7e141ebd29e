"""Arguments of layers: declared by the functions that wire them."""

import inspect

import numpy as np
import pytest

from brainstorm import generate_architecture, layers
from brainstorm.layers.arguments import COUNT, FLAG, Check, arguments_of
from brainstorm.layers.base_layer import Layer, get_layer_class_from_typename
from brainstorm.structure.buffer_structure import BufferStructure
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.utils import LayerValidationError


def Tuned(rate, times=2, name=None, *, log=False, level=None, trainable=True):
    return ConstructionWrapper.create(TunedLayerImpl, **locals())


class TunedLayerImpl(Layer):
    arguments = arguments_of(
        Tuned,
        rate=Check(lambda r: r > 0, "a number above 0", float),
        times=COUNT,
        log=FLAG,
        level=Check(lambda level: level is None or level > 0, "a level or None"),
    )

    def setup(self, kwargs, in_shapes):
        self.seen = self.rate, self.times, self.log, self.level
        return {"default": self.like(in_shapes["default"])}, {}, {}


def tuned(**kwargs):
    return TunedLayerImpl("it", {"default": BufferStructure("T", "B", 1)}, **kwargs)


def test_values_and_defaults_are_attributes():
    layer = tuned(rate=3)
    assert layer.seen == (3.0, 2, False, None)
    assert isinstance(layer.rate, float)
    assert tuned(rate=1, times=5, log=True, level=4).seen == (1.0, 5, True, 4)
    assert TunedLayerImpl.expected_kwargs == {"rate", "times", "log", "level"}


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "expected a number above 0 as 'rate', got None"),
        ({"rate": "x"}, "expected a number above 0 as 'rate', got 'x'"),
        ({"rate": 1, "times": 0}, "expected a positive integer as 'times', got 0"),
        ({"rate": 1, "log": 1}, "expected True or False as 'log', got 1"),
        ({"rate": 1, "size": 1}, "unexpected argument 'size'; choices are: 'level'"),
    ],
)
def test_bad_ones_are_refused(kwargs, message):
    with pytest.raises(LayerValidationError, match=f"^Tuned layer 'it': {message}"):
        tuned(**kwargs)


def test_newer_ones_go_into_architectures_where_they_are_not_at_their_default():
    def given(layer):
        described = generate_architecture(layer)[layer.name]
        return {n: v for n, v in described.items() if n[0] != "@"}

    assert given(Tuned(1)) == {"rate": 1, "times": 2}
    assert given(Tuned(1, log=False, level=None)) == {"rate": 1, "times": 2}
    named = Tuned(2, 3, "named", log=True, level=1, trainable=False)
    assert given(named) == {"rate": 2, "times": 3, "log": True, "level": 1}
    assert generate_architecture(named)["named"]["@trainable"] is False
    # What equals a default, but is of another type, is wrong and is told.
    assert given(Tuned(1, log=0)) == {"rate": 1, "times": 2, "log": 0}


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("Loss", "importance"),
        ("DeltasScaling", "factor"),
        ("LayerNorm", "epsilon"),
        ("BatchNorm", "epsilon"),
        ("BatchNorm", "decay"),
        ("Dropout", "drop_prob"),
    ],
)
def test_numbers_are_real_and_finite(name, argument):
    layer_class = get_layer_class_from_typename(name)
    shapes = {"default": BufferStructure("T", "B", 2)}
    for good in (0.5, np.float32(0.5), np.float64(0.5)):
        layer = layer_class("it", shapes, **{argument: good})
        assert getattr(layer, argument) == 0.5
    for bad in (0.5j, np.array([0.5]), "0.5", None, np.nan, np.inf, 10**400):
        with pytest.raises(LayerValidationError, match=f"{name}.*{argument}"):
            layer_class("it", shapes, **{argument: bad})


def test_a_subclass_may_expect_more():
    class WiderLayerImpl(TunedLayerImpl):
        expected_kwargs = TunedLayerImpl.expected_kwargs | {"width"}

    layer = WiderLayerImpl(
        "it", {"default": BufferStructure("T", "B", 1)}, rate=1, width=3
    )
    assert (layer.rate, layer.kwargs["width"]) == (1.0, 3)


@pytest.mark.parametrize("name", layers.__all__)
def test_layers_have_the_arguments_of_their_functions(name):
    parameters = inspect.signature(getattr(layers, name)).parameters
    layer_class = get_layer_class_from_typename(name)
    assert set(parameters) - {"name", "trainable"} == layer_class.expected_kwargs
    assert list(layer_class.arguments) == [
        n for n in parameters if n not in ("name", "trainable")
    ]
    for argument, (default, _, _) in layer_class.arguments.items():
        declared = parameters[argument].default
        assert default == (None if declared is inspect.Parameter.empty else declared)
    for parameter in parameters.values():
        assert parameter.annotation is not parameter.empty

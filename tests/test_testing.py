import numpy as np
import pytest

from brainstorm import layers
from brainstorm.handlers import DebugHandler, NumpyHandler
from brainstorm.layers.base_layer import Layer, once_per_resize
from brainstorm.structure.buffer_structure import BufferStructure, StructureTemplate
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.testing import LayerCheckError, check_layer
from brainstorm.utils import (
    BrainstormError,
    LayerValidationError,
    ValidationError,
)

# -- a custom layer that is right, and what can be wrong with it -----------------


class ScaleLayerImpl(Layer):
    """Computes ``y = scale * x + bias`` with numbers for each feature."""

    expected_kwargs = frozenset({"options"})

    def setup(self, kwargs, in_shapes):
        shape = in_shapes["default"].shape
        size = BufferStructure(shape[-1])
        internals = {"copy": BufferStructure(*shape)}
        return (
            {"default": BufferStructure(*shape)},
            {"scale": size, "bias": size},
            internals,
        )

    def matrices(self, buffers):
        x, y = buffers.inputs.default, buffers.outputs.default
        row = (1, x.shape[-1])
        return x, y, *(p.reshape(row) for p in buffers.parameters)

    def forward_pass(self, buffers, training_pass=True):
        x, y, scale, bias = self.matrices(buffers)
        self.handler.copy_to(buffers.inputs.default, buffers.internals.copy)
        for t in range(x.shape[0]):
            self.handler.mult_mv(x[t], scale, y[t])
            self.handler.add_mv(y[t], bias, y[t])

    def backward_pass(self, buffers):
        x, _, scale, _ = self.matrices(buffers)
        dx, dy = buffers.input_deltas.default, buffers.output_deltas.default
        self.add_deltas(dy, scale, dx)
        product = self.handler.allocate(x.shape)
        self.handler.mult_tt(buffers.internals.copy, dy, product)
        self.add_gradients(product, dy, *buffers.gradients)

    def add_deltas(self, dy, scale, dx):
        for t in range(dx.shape[0]):
            self.handler.mult_add_mv(dy[t], scale, dx[t])

    def add_gradients(self, product, dy, dscale, dbias):
        sums = self.handler.allocate(dbias.shape)
        for array, gradient in ((product, dscale), (dy, dbias)):
            for part in array:
                self.handler.sum_t(part, 0, sums)
                self.handler.add_tt(sums, gradient, gradient)


class WrongGradientLayerImpl(ScaleLayerImpl):
    def add_gradients(self, product, dy, dscale, dbias):
        super().add_gradients(product, dy, dscale, dbias)
        self.handler.add_st(0.01, dbias, dbias)


class WrongDeltasLayerImpl(ScaleLayerImpl):
    def add_deltas(self, dy, scale, dx):
        self.handler.add_tt(dy, dx, dx)


class OverwritesDeltasLayerImpl(ScaleLayerImpl):
    def add_deltas(self, dy, scale, dx):
        for t in range(dx.shape[0]):
            self.handler.mult_mv(dy[t], scale, dx[t])


class OverwritesGradientsLayerImpl(ScaleLayerImpl):
    def add_gradients(self, product, dy, dscale, dbias):
        self.handler.fill(dscale, 0.0)
        super().add_gradients(product, dy, dscale, dbias)


class ModifiesInputLayerImpl(ScaleLayerImpl):
    def forward_pass(self, buffers, training_pass=True):
        super().forward_pass(buffers, training_pass)
        self.handler.mult_st(2.0, buffers.inputs.default, buffers.inputs.default)


class ModifiesParameterLayerImpl(ScaleLayerImpl):
    def forward_pass(self, buffers, training_pass=True):
        super().forward_pass(buffers, training_pass)
        self.handler.fill(buffers.parameters.scale, 1.0)


class ModifiesOutputDeltasLayerImpl(ScaleLayerImpl):
    def backward_pass(self, buffers):
        super().backward_pass(buffers)
        dy = buffers.output_deltas.default
        self.handler.mult_st(2.0, dy, dy)


class StaleInternalsLayerImpl(ScaleLayerImpl):
    def forward_pass(self, buffers, training_pass=True):
        copy = buffers.internals.copy
        self.handler.mult_st(0.0, copy, copy)  # does not clear NaN
        self.handler.add_tt(buffers.inputs.default, copy, copy)
        before = self.handler.create_from_numpy(self.handler.get_numpy_copy(copy))
        super().forward_pass(buffers, training_pass)
        self.handler.copy_to(before, copy)


class StaleOutputsLayerImpl(ScaleLayerImpl):
    def forward_pass(self, buffers, training_pass=True):
        y = buffers.outputs.default
        self.handler.fill(y[:1], 0.0)
        if y.shape[0] > 1:
            self.handler.add_tt(y[1:], y[1:], y[1:])


class NotFreshDeltasLayerImpl(ScaleLayerImpl):
    honours_fresh = True  # but it adds


class DeltasForNobodyLayerImpl(ScaleLayerImpl):
    computes_no_input_deltas_for = ("default",)


class GradientForNobodyLayerImpl(ScaleLayerImpl):
    computes_no_gradients_for = ("scale",)


class SkipsTooMuchLayerImpl(ScaleLayerImpl):
    def backward_pass(self, buffers):
        if "default" not in self.unwanted:
            super().backward_pass(buffers)


class KeepsItsViewsLayerImpl(ScaleLayerImpl):
    def matrices(self, buffers):
        x, y, *parameters = super().matrices(buffers)
        self.kept = getattr(self, "kept", y)
        return x[: len(self.kept)], self.kept, *parameters


class CopiesByReshapingLayerImpl(Layer):
    def setup(self, kwargs, in_shapes):
        return {"default": self.like(in_shapes["default"])}, {}, {}

    @once_per_resize
    def matrices(self, buffers):
        arrays = buffers.inputs.default, buffers.outputs.default
        return [array.reshape((-1, array.shape[-1])) for array in arrays]

    def forward_pass(self, buffers, training_pass=True):
        self.handler.copy_to(*self.matrices(buffers))

    def backward_pass(self, buffers):
        dx, dy = buffers.input_deltas.default, buffers.output_deltas.default
        self.handler.add_tt(dy, dx, dx)


class LosesDigitsLayerImpl(ScaleLayerImpl):
    def forward_pass(self, buffers, training_pass=True):
        super().forward_pass(buffers, training_pass)
        y = buffers.outputs.default
        self.handler.add_st(1e6, y, y)
        self.handler.add_st(-1e6, y, y)


class OneHandlerOnlyLayerImpl(ScaleLayerImpl):
    def forward_pass(self, buffers, training_pass=True):
        super().forward_pass(buffers, training_pass)
        if isinstance(self.handler, DebugHandler):
            self.handler.fill(buffers.outputs.default, 1.0)


class NotDescribableLayerImpl(ScaleLayerImpl):
    pass


class NeedsATupleLayerImpl(ScaleLayerImpl):
    def setup(self, kwargs, in_shapes):
        outputs, parameters, internals = super().setup(kwargs, in_shapes)
        if isinstance(kwargs["options"], tuple):
            internals["more"] = BufferStructure(1)
        return outputs, parameters, internals


class RaisesLayerImpl(ScaleLayerImpl):
    def forward_pass(self, buffers, training_pass=True):
        raise KeyError("nothing there")


class EvaluatesOtherwiseLayerImpl(ScaleLayerImpl):
    """Evaluation passes double the output, but backward passes do not care."""

    def forward_pass(self, buffers, training_pass=True):
        super().forward_pass(buffers, training_pass)
        if not training_pass:
            y = buffers.outputs.default
            self.handler.add_tt(y, y, y)


WRONG = {
    RaisesLayerImpl: ("runs", None),
    NeedsATupleLayerImpl: ("describable", None),
    ModifiesInputLayerImpl: ("unmodified", "inputs.default"),
    ModifiesParameterLayerImpl: ("unmodified", "parameters.scale"),
    ModifiesOutputDeltasLayerImpl: ("unmodified", "output_deltas.default"),
    StaleInternalsLayerImpl: ("stale memory", "gradients.scale"),
    StaleOutputsLayerImpl: ("stale memory", "outputs.default"),
    WrongDeltasLayerImpl: ("input deltas", "input_deltas.default"),
    EvaluatesOtherwiseLayerImpl: ("input deltas", "input_deltas.default"),
    WrongGradientLayerImpl: ("gradients", "gradients.bias"),
    OverwritesDeltasLayerImpl: ("adds", "input_deltas.default"),
    OverwritesGradientsLayerImpl: ("adds", "gradients.scale"),
    DeltasForNobodyLayerImpl: ("adds", "input_deltas.default"),
    GradientForNobodyLayerImpl: ("adds", "gradients.scale"),
    NotFreshDeltasLayerImpl: ("fresh", "input_deltas.default"),
    SkipsTooMuchLayerImpl: ("unwanted", "gradients.bias"),
    KeepsItsViewsLayerImpl: ("resize", "outputs.default"),
    CopiesByReshapingLayerImpl: ("joined", "outputs.default"),
    LosesDigitsLayerImpl: ("float32", "outputs.default"),
}


SHAPES = {CopiesByReshapingLayerImpl: {"default": ("T", "B", 2, 3)}}


@pytest.mark.parametrize("layer", WRONG)
def test_what_is_wrong_is_found_and_named(layer):
    kwargs = {"options": (1, 2)} if "options" in layer.expected_kwargs else {}
    with pytest.raises(LayerCheckError) as caught:
        check_layer(layer, SHAPES.get(layer), kwargs=kwargs)
    error = caught.value
    assert (error.check, error.buffer) == WRONG[layer]
    assert f"check {error.check!r}" in str(error)
    assert layer.__name__.removesuffix("LayerImpl") in str(error)
    if error.buffer:
        assert error.buffer in str(error)
        assert str(error.index) in str(error)


def test_what_is_wrong_on_one_handler_is_found():
    check_layer(OneHandlerOnlyLayerImpl)
    with pytest.raises(LayerCheckError) as caught:
        check_layer(
            OneHandlerOnlyLayerImpl, handler=DebugHandler(NumpyHandler(np.float64))
        )
    assert caught.value.check == "handler"


def test_what_is_not_describable_is_found():
    with pytest.raises(LayerCheckError) as caught:
        check_layer(NotDescribableLayerImpl, kwargs={"options": {1, 2}})
    assert caught.value.check == "describable"


# -- layers with a context -------------------------------------------------------


class SumLayerImpl(Layer):
    """Computes ``y[t] = weight * y[t-1] + x[t]``."""

    honours_fresh = True
    first_step = True  # whether the gradient sees it

    def setup(self, kwargs, in_shapes):
        structure = BufferStructure(*in_shapes["default"].shape, context_size=1)
        deltas = BufferStructure(
            *structure.shape, context_size=1, is_backward_only=True
        )
        parameters = {"weight": BufferStructure(1, 1)}
        return {"default": structure}, parameters, {"dy": deltas}

    def forward_pass(self, buffers, training_pass=True):
        h = self.handler
        x, y, w = buffers.inputs.default, buffers.outputs.default, self.weight(buffers)
        for t in range(x.shape[0]):
            h.copy_to(x[t], y[t])
            h.mult_add_st(w, y[t - 1], y[t])

    def weight(self, buffers):
        return float(self.handler.get_numpy_copy(buffers.parameters.weight)[0, 0])

    def backward_pass(self, buffers):
        h = self.handler
        y, w = buffers.outputs.default, self.weight(buffers)
        dx, dy = buffers.input_deltas.default, buffers.internals.dy
        T = dx.shape[0]
        h.copy_to(buffers.output_deltas.default, dy)
        gradient = 0.0
        for t in reversed(range(T)):
            if t > 0:
                h.mult_add_st(w, dy[t], dy[t - 1])
            if t > 0 or self.first_step:
                product = h.get_numpy_copy(y[t - 1]) * h.get_numpy_copy(dy[t])
                gradient += product.sum()
        if "default" in self.fresh:
            h.copy_to(dy[:T], dx)
        else:
            h.add_tt(dy[:T], dx, dx)
        (dw,) = buffers.gradients
        if "gradients" in self.fresh:
            h.fill(dw, 0.0)
        h.add_st(gradient, dw, dw)


class GradientWithoutContextLayerImpl(SumLayerImpl):
    first_step = False


def test_layers_with_a_context():
    check_layer(SumLayerImpl)
    check_layer(SumLayerImpl, time_size=1, batch_size=1)


def test_deltas_of_the_state_that_are_promised_but_not_left_are_found():
    class PromisesLayerImpl(SumLayerImpl):
        can_be_stepped = True

    with pytest.raises(LayerCheckError, match="in single steps") as caught:
        check_layer(PromisesLayerImpl)
    assert caught.value.check == "context"
    check_layer(PromisesLayerImpl, time_size=1)

    class KeepsItLayerImpl(PromisesLayerImpl):
        def backward_pass(self, buffers):
            super().backward_pass(buffers)
            first = buffers.internals.dy[0]
            self.handler.mult_st(
                self.weight(buffers), first, buffers.output_deltas.default[-1]
            )

    check_layer(KeepsItLayerImpl)


def test_a_context_that_is_not_carried_on_is_found():
    class StartsAfreshLayerImpl(SumLayerImpl):
        def forward_pass(self, buffers, training_pass=True):
            self.handler.fill(buffers.outputs.default[-1:], 0.0)
            super().forward_pass(buffers, training_pass)

    with pytest.raises(LayerCheckError) as caught:
        check_layer(StartsAfreshLayerImpl)
    assert caught.value.check == "context"
    assert caught.value.buffer == "outputs.default"
    assert caught.value.index[0] == 3  # the first step of the second pass


def test_a_gradient_that_leaves_out_the_carried_state_is_found():
    with pytest.raises(LayerCheckError, match="with a context") as caught:
        check_layer(GradientWithoutContextLayerImpl)
    assert (caught.value.check, caught.value.buffer) == (
        "gradients",
        "gradients.weight",
    )


# -- ways to use it ---------------------------------------------------------------


def Scale(options=None, name=None):
    return ConstructionWrapper.create(ScaleLayerImpl, name=name, options=options)


@pytest.mark.parametrize("layer", [ScaleLayerImpl, Scale, Scale(name="Mine")])
def test_classes_functions_and_layers_are_accepted(layer):
    check_layer(layer)


def test_arguments_reach_the_layer():
    with pytest.raises(LayerValidationError, match="unexpected argument 'size'"):
        check_layer(ScaleLayerImpl, kwargs={"size": 3})
    check_layer(Scale, kwargs={"options": 3})
    with pytest.raises(ValidationError, match="'kwargs' are of no use"):
        check_layer(Scale(), kwargs={"options": 3})


@pytest.mark.parametrize("layer", [3, "Scale", dict])
def test_other_things_are_refused(layer):
    with pytest.raises(ValidationError, match="expected a layer"):
        check_layer(layer)


def test_shapes_follow_from_the_templates():
    seen = {}

    class ShapesLayerImpl(ScaleLayerImpl):
        expected_inputs = {
            "a": StructureTemplate("T", "B", "F", 2),
            "b": StructureTemplate("B", "F"),
            "c": StructureTemplate("..."),
        }

        def setup(self, kwargs, in_shapes):
            seen.update({name: s.shape for name, s in in_shapes.items()})
            raise self.error("enough")

    with pytest.raises(LayerValidationError, match="enough"):
        check_layer(ShapesLayerImpl)
    assert seen == {"a": ("T", "B", 3, 2), "b": ("B", 3), "c": ("T", "B", 3)}


def test_shapes_may_be_given():
    check_layer(ScaleLayerImpl, {"default": ("T", "B", 7)})
    with pytest.raises(LayerValidationError, match="'default' to be connected"):
        check_layer(ScaleLayerImpl, {"other": ("T", "B", 7)})


def test_values_may_be_given():
    def zeros(shape):
        shapes.append(shape)
        return np.zeros(shape)

    shapes = []
    check_layer(layers.L1Decay, inputs={"default": 0.5})
    with pytest.raises(LayerCheckError, match="input deltas"):  # its kink
        check_layer(
            layers.FullyConnected(2, "rel"),
            time_size=2,
            batch_size=4,
            inputs={"default": zeros},
            parameters={"bias": [0, 0]},
        )
    assert set(shapes) == {(2, 4, 3)}
    with pytest.raises(ValidationError, match=r"no input 'x'; choices.*'default'"):
        check_layer(ScaleLayerImpl, inputs={"x": 0})
    with pytest.raises(ValidationError, match=r"no parameter 'x'; choices.*'bias'"):
        check_layer(ScaleLayerImpl, parameters={"x": 0})
    with pytest.raises(BrainstormError, match="shape"):
        check_layer(ScaleLayerImpl, parameters={"bias": [1, 2]})


def test_layers_may_scale_their_deltas():
    with pytest.raises(LayerCheckError) as caught:
        check_layer(layers.DeltasScaling(2.0))
    error = caught.value
    assert error.check == "input deltas"
    assert error.got == pytest.approx(2 * error.expected)
    check_layer(layers.DeltasScaling(2.0), delta_factor=2.0)


def test_sizes_are_those_asked_for():
    class SizesLayerImpl(ScaleLayerImpl):
        def forward_pass(self, buffers, training_pass=True):
            assert buffers.inputs.default.shape in {(4, 5, 3), (8, 5, 3)}
            super().forward_pass(buffers, training_pass)

    check_layer(SizesLayerImpl, time_size=4, batch_size=5)
    with pytest.raises(LayerCheckError, match="AssertionError"):
        check_layer(SizesLayerImpl, time_size=1)


def test_checks_are_reproducible():
    def message(seed):
        with pytest.raises(LayerCheckError) as caught:
            check_layer(WrongGradientLayerImpl, seed=seed)
        return str(caught.value)

    assert message(1) == message(1)
    assert message(1) != message(2)


def test_the_handler_is_the_one_that_is_checked():
    used = []

    class Spy(NumpyHandler):
        def mult_mv(self, m, v, out):
            used.append("spy")
            super().mult_mv(m, v, out)

    check_layer(ScaleLayerImpl, handler=Spy(np.float32))
    assert used


def test_errors_tell_expected_and_got():
    with pytest.raises(LayerCheckError) as caught:
        check_layer(WrongGradientLayerImpl)
    error = caught.value
    assert isinstance(error, AssertionError)
    assert isinstance(error, BrainstormError)
    assert error.got - error.expected == pytest.approx(0.01)
    assert len(error.index) == 1
    for number in (error.expected, error.got):
        assert f"{number:.9g}" in str(error)
    assert "of 3 elements out of 3" in str(error)
    assert error.layer == "WrongGradient layer 'WrongGradient'"


def test_errors_of_the_layer_are_the_cause():
    with pytest.raises(LayerCheckError, match="nothing there") as caught:
        check_layer(RaisesLayerImpl)
    assert isinstance(caught.value.__cause__, KeyError)


def test_random_values_keep_off_zero():
    seen = []

    class LooksLayerImpl(ScaleLayerImpl):
        def backward_pass(self, buffers):
            for path in ("inputs.default", "parameters.scale", "output_deltas.default"):
                seen.append(np.abs(self.handler.get_numpy_copy(buffers[path])).min())
            super().backward_pass(buffers)

    check_layer(LooksLayerImpl, time_size=5, batch_size=20)
    assert min(seen) == pytest.approx(0.05, abs=0.01)
    assert min(seen) > 0.0499  # in float32 too

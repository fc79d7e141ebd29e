"""A handler that was written for brainstorm 0.5 runs all layers and steppers.

It has the operations of the manual's section 8.9 with their arguments, and nothing of
what came later; its `__init__` sets what there was to set.
"""

import copy

import numpy as np
import pytest

import brainstorm as bs
from brainstorm import layers
from brainstorm.handlers import DebugHandler, Handler, NumpyHandler
from brainstorm.randomness import RandomState, global_rnd
from brainstorm.utils import ValidationError


def windows(images, window, padding, stride):
    """Each output's place, and the part of the padded images that it sees."""
    height, width = (images.shape[1 + i] + 2 * padding - window[i] for i in (0, 1))
    for i, top in enumerate(range(0, height + 1, stride[0])):
        for j, left in enumerate(range(0, width + 1, stride[1])):
            yield i, j, slice(top, top + window[0]), slice(left, left + window[1])


def pad(images, padding, value=0.0):
    p = (padding, padding)
    return np.pad(images, ((0, 0), p, p, (0, 0)), constant_values=value)


class OriginalHandler(Handler):
    __undescribed__ = {"context", "EMPTY", "rnd", "array_type", "dtype"}

    def __init__(self, dtype=np.float64, seed=None):
        self.dtype = dtype
        self.context = "numpy"
        self.EMPTY = np.zeros(0, dtype)
        self.rnd = RandomState(seed)
        self.array_type = np.ndarray
        self.act_func = {
            "linear": self.copy_to,
            "rel": self.rel,
            "sigmoid": self.sigmoid,
            "tanh": self.tanh,
            "el": self.el,
        }
        self.act_func_deriv = {
            "linear": lambda x, y, dy, dx: self.copy_to(dy, dx),
            "rel": self.rel_deriv,
            "sigmoid": self.sigmoid_deriv,
            "tanh": self.tanh_deriv,
            "el": self.el_deriv,
        }

    def allocate(self, shape):
        return np.zeros(shape, self.dtype)

    def ones(self, shape):
        return np.ones(shape, self.dtype)

    def zeros(self, shape):
        return np.zeros(shape, self.dtype)

    def create_from_numpy(self, arr):
        return np.array(arr, self.dtype)

    def get_numpy_copy(self, mem):
        return mem.copy()

    def set_from_numpy(self, mem, arr):
        mem[:] = arr

    def copy_to(self, src, dest):
        dest[:] = src

    def copy_to_if(self, src, dest, cond):
        dest[cond != 0] = src[cond != 0]

    def fill(self, mem, val):
        mem.fill(val)

    def fill_gaussian(self, mean, std, out):
        out[:] = std * self.rnd.standard_normal(out.shape) + mean

    def fill_if(self, mem, val, cond):
        mem[cond != 0] = val

    def generate_probability_mask(self, mask, probability):
        mask[:] = self.rnd.uniform(size=mask.shape) < probability

    def is_fully_finite(self, a):
        return bool(np.all(np.isfinite(a)))

    def abs_t(self, a, out):
        np.abs(a, out)

    def add_into_if(self, a, out, cond):
        out[cond != 0] += a[cond != 0]

    def add_mv(self, m, v, out):
        out[:] = m + v

    def add_st(self, s, t, out):
        out[:] = s + t

    def add_tt(self, a, b, out):
        np.add(a, b, out)

    def binarize_v(self, v, out):
        out[:] = 0.0
        out[np.arange(len(v)), v[:, 0].astype(int)] = 1

    def broadcast_t(self, a, axis, out):
        out[:] = np.repeat(a, out.shape[axis], axis)

    def clip_t(self, a, a_min, a_max, out):
        np.clip(a, a_min, a_max, out)

    def divide_mv(self, m, v, out):
        out[:] = m / v

    def divide_tt(self, a, b, out):
        np.divide(a, b, out)

    def dot_add_mm(self, a, b, out, transa=False, transb=False):
        out += np.dot(a.T if transa else a, b.T if transb else b)

    def dot_mm(self, a, b, out, transa=False, transb=False):
        out[:] = np.dot(a.T if transa else a, b.T if transb else b)

    def index_m_by_v(self, m, v, out):
        out[:, 0] = m[np.arange(len(v)), v[:, 0].astype(int)]

    def log_t(self, a, out):
        np.log(a, out)

    def merge_tt(self, a, b, out):
        out[:] = np.concatenate((a, b), -1)

    def modulo_tt(self, a, b, out):
        np.mod(a, b, out)

    def mult_add_mv(self, m, v, out):
        out[:] = out + m * v

    def mult_add_st(self, s, t, out):
        out[:] = out + s * t

    def mult_add_tt(self, a, b, out):
        out[:] = out + a * b

    def mult_mv(self, m, v, out):
        out[:] = m * v

    def mult_st(self, s, t, out):
        np.multiply(s, t, out)

    def mult_tt(self, a, b, out):
        np.multiply(a, b, out)

    def sign_t(self, a, out):
        np.sign(a, out)

    def split_add_tt(self, x, out_a, out_b):
        size = out_a.shape[-1]
        out_a += x[..., :size]
        out_b += x[..., size:]

    def sqrt_t(self, a, out):
        np.sqrt(a, out)

    def subtract_mv(self, m, v, out):
        out[:] = m - v

    def subtract_tt(self, a, b, out):
        np.subtract(a, b, out)

    def sum_t(self, a, axis, out):
        keepdims = axis is not None and out.ndim == a.ndim
        np.sum(a, axis=axis, out=out, keepdims=keepdims)

    def softmax_m(self, m, out):
        e = np.exp(m - m.max(axis=1, keepdims=True))
        out[:] = e / e.sum(axis=1, keepdims=True)

    def rel(self, x, y):
        np.maximum(x, 0, out=y)

    def rel_deriv(self, x, y, dy, dx):
        dx[:] = dy * (y > 0)

    def tanh(self, x, y):
        np.tanh(x, y)

    def tanh_deriv(self, x, y, dy, dx):
        dx[:] = dy * (1 - y * y)

    def sigmoid(self, x, y):
        y[:] = 1 / (1 + np.exp(-np.maximum(x, -700)))

    def sigmoid_deriv(self, x, y, dy, dx):
        dx[:] = dy * y * (1 - y)

    def el(self, x, y):
        y[:] = np.where(x < 0, np.exp(np.minimum(x, 0)) - 1, x)

    def el_deriv(self, x, y, dy, dx):
        dx[:] = np.where(y < 0, dy * (y + 1), dy)

    def conv2d_forward_batch(self, inputs, weights, bias, outputs, padding, stride):
        padded = pad(inputs, padding)
        for i, j, y, x in windows(inputs, weights.shape[1:3], padding, stride):
            seen = padded[:, y, x].reshape(len(inputs), -1)
            outputs[:, i, j] = seen.dot(weights.reshape(len(weights), -1).T) + bias

    def conv2d_backward_batch(
        self,
        inputs,
        weights,
        padding,
        stride,
        in_deltas,
        out_deltas,
        weight_deltas,
        bias_deltas,
    ):
        padded = pad(inputs, padding)
        deltas = np.zeros_like(padded)
        for i, j, y, x in windows(inputs, weights.shape[1:3], padding, stride):
            dh = out_deltas[:, i, j]
            weight_deltas += np.einsum("nf,nklc->fklc", dh, padded[:, y, x])
            deltas[:, y, x] += np.einsum("nf,fklc->nklc", dh, weights)
        bias_deltas += out_deltas.sum((0, 1, 2))
        height, width = in_deltas.shape[1:3]
        in_deltas += deltas[:, padding : padding + height, padding : padding + width]

    def maxpool2d_forward_batch(self, inputs, window, outputs, padding, stride, argmax):
        padded = pad(inputs, padding, -np.inf)
        for i, j, y, x in windows(inputs, window, padding, stride):
            seen = padded[:, y, x].reshape(len(inputs), -1, inputs.shape[3])
            argmax[:, i, j] = seen.argmax(1)
            outputs[:, i, j] = seen.max(1)

    def maxpool2d_backward_batch(
        self, inputs, window, outputs, padding, stride, argmax, in_deltas, out_deltas
    ):
        deltas = pad(np.zeros_like(inputs), padding)
        for i, j, y, x in windows(inputs, window, padding, stride):
            seen = deltas[:, y, x]
            for k, (a, b) in enumerate(np.ndindex(*window)):
                seen[:, a, b] += out_deltas[:, i, j] * (argmax[:, i, j] == k)
        height, width = in_deltas.shape[1:3]
        in_deltas += deltas[:, padding : padding + height, padding : padding + width]

    def avgpool2d_forward_batch(self, inputs, window, outputs, padding, stride):
        padded = pad(inputs, padding, np.nan)
        for i, j, y, x in windows(inputs, window, padding, stride):
            outputs[:, i, j] = np.nanmean(padded[:, y, x], axis=(1, 2))

    def avgpool2d_backward_batch(
        self, inputs, window, outputs, padding, stride, in_deltas, out_deltas
    ):
        deltas = pad(np.zeros_like(inputs), padding)
        real = pad(np.ones_like(inputs), padding)
        for i, j, y, x in windows(inputs, window, padding, stride):
            count = real[:, y, x].sum(axis=(1, 2))
            deltas[:, y, x] += (out_deltas[:, i, j] / count)[:, None, None]
        height, width = in_deltas.shape[1:3]
        in_deltas += deltas[:, padding : padding + height, padding : padding + width]


IMAGE = ("T", "B", 5, 6, 2)
HIDDEN = {
    **{
        name: lambda x, name=name: x >> layers.FullyConnected(4, name)
        for name in ("linear", "rel", "tanh", "sigmoid", "el")
    },
    "Recurrent": lambda x: x >> layers.Recurrent(4),
    "Lstm": lambda x: x >> layers.Lstm(4),
    "Clockwork": lambda x: x >> layers.Clockwork(4),
    "ClockworkLstm": lambda x: x >> layers.ClockworkLstm(4),
    "Gru": lambda x: x >> layers.Gru(4),
    "Bidirectional": lambda x: x >> layers.Bidirectional(layers.Lstm(4)),
    "BatchNorm": lambda x: x >> layers.BatchNorm(),
    "LayerNorm": lambda x: x >> layers.LayerNorm(),
    "Elementwise": lambda x: x >> layers.Elementwise("tanh"),
    "Convolution": lambda x: x >> layers.Convolution2D(3, (3, 2), padding=1),
    "two convolutions": lambda x: (
        x
        >> layers.Convolution2D(3, (2, 2), stride=(2, 1), activation="tanh")
        >> layers.Convolution2D(2, (2, 3), activation="linear")
    ),
    "MaxPooling": lambda x: x >> layers.Pooling2D((2, 3), "max", (2, 2), 1),
    "AveragePooling": lambda x: x >> layers.Pooling2D((2, 3), "avg", (2, 2), 1),
}


@pytest.mark.parametrize("hidden", HIDDEN)
def test_layers(hidden):
    is_image = "ool" in hidden or "onv" in hidden
    shape = IMAGE[2:] if is_image else (5,)
    rnd = np.random.RandomState(0)
    data = {"default": rnd.randn(4, 3, *shape), "targets": rnd.randint(0, 3, (4, 3, 1))}
    found = []
    for handler in (OriginalHandler(), NumpyHandler(np.float64)):
        i = layers.Input({"default": ("T", "B", *shape), "targets": ("T", "B", 1)})
        out = layers.SoftmaxCE(name="Output")
        (HIDDEN[hidden](i) >> layers.FullyConnected(3, "linear") >> out)
        i - "targets" >> "targets" - out
        out - "loss" >> layers.Loss()
        net = bs.Network.from_layer(i)
        net.set_handler(handler)
        net.initialize(bs.Gaussian(0.5), seed=3)
        for name in net.layers:
            if "timing" in net.buffer[name].parameters.keys():  # noqa: SIM118
                timing = net.buffer[name].parameters.timing
                handler.set_from_numpy(timing, np.array([1, 2, 2, 3.0]))
        net.provide_external_data(data)
        net.forward_pass(training_pass=True)
        net.backward_pass()
        gradients = net.get("gradients").copy()
        losses = []
        stepper = bs.training.MomentumStepper(0.05, 0.9)
        stepper.start(net)
        for _ in range(3):
            stepper.run()
            losses.append(net.get_loss_values()["total_loss"])
        found.append((gradients, losses, net.get("parameters")))
    for ours, expected in zip(*found, strict=True):
        np.testing.assert_allclose(ours, expected, 1e-7, 1e-9)


def test_debug_handler_wraps_it():
    handler = DebugHandler(OriginalHandler())
    out = handler.zeros((2,))
    handler.add_tt(handler.ones((2,)), handler.ones((2,)), out)
    assert out.tolist() == [2, 2]
    assert handler.overlap(out, out[:1]) == "part"


def test_activations_that_came_later():
    x = np.linspace(-30, 30, 41)
    handler = OriginalHandler()
    for name in ("softplus", "leaky_rel", "gelu", "swish"):
        y, dx, expected, slopes = (np.zeros_like(x) for _ in range(4))
        getattr(handler, name)(x, y)
        getattr(NumpyHandler(np.float64), name)(x, expected)
        np.testing.assert_allclose(y, expected, 1e-9, 1e-15)
        getattr(handler, name + "_deriv")(x, y, np.cos(x), dx)
        getattr(NumpyHandler(np.float64), name + "_deriv")(x, y, np.cos(x), slopes)
        np.testing.assert_allclose(dx, slopes, 1e-9, 1e-12)


def test_convolution_of_input_deltas_that_nobody_wants():
    handler, image = OriginalHandler(), np.ones((1, 2, 2, 1))
    W, dW, dbias = (np.ones(shape) for shape in [(1, 1, 1, 1), (1, 1, 1, 1), 1])
    handler.conv2d_backward_batch(
        image, W, 0, (1, 1), None, image, dW, dbias, "rel", image, fresh_gradients=True
    )
    assert (dW.item(), dbias.item()) == (4, 4)


def test_rnd_is_its_own():
    handler = OriginalHandler(seed=5)
    assert handler.rnd.get_seed() == handler.seed == 5
    global_rnd.set_seed(1)
    drawn = handler.rnd.rand()
    assert drawn == np.random.RandomState(5).rand()


@pytest.mark.parametrize("make", [NumpyHandler, lambda: DebugHandler(NumpyHandler())])
def test_rnd_can_be_set(make):
    handler, rnd = make(), RandomState(7)
    handler.rnd = rnd
    masks = []
    for _ in range(2):
        global_rnd.set_seed(1)
        assert handler.rnd is rnd
        masks.append(handler.zeros((50,)))
        handler.generate_probability_mask(masks[-1], 0.5)
    assert (masks[0] != masks[1]).any()
    again = NumpyHandler(seed=7)
    mask = again.zeros((50,))
    again.generate_probability_mask(mask, 0.5)
    assert (mask == masks[0]).all()
    for wrong in (None, 3, np.random.RandomState(3), "rnd"):
        with pytest.raises(ValidationError, match="RandomState as 'rnd', got a"):
            handler.rnd = wrong
    assert handler.rnd is rnd


def test_copies_keep_the_random_state_that_was_set():
    handler = NumpyHandler()
    handler.rnd = RandomState(7)
    handler.rnd.rand()
    twin = copy.deepcopy(handler)
    global_rnd.set_seed(4)
    assert twin.rnd.rand() == handler.rnd.rand()

"""Layers and a small training run beside PyTorch's, in float64."""

import functools

import numpy as np
import pytest

from brainstorm import layers
from brainstorm.handlers import NumpyHandler
from brainstorm.structure.network import Network
from brainstorm.training import MomentumStepper

torch = pytest.importorskip("torch")

CLOSE = {"rtol": 1e-10, "atol": 1e-12}


def normal(*shape, seed=0):
    return np.random.RandomState(seed).randn(*shape)


def tensor(values, requires_grad=False):
    return torch.tensor(values, dtype=torch.float64, requires_grad=requires_grad)


def weighted(layer, inputs, weights, output="default"):
    """A network whose loss is the sum of the weighted outputs of a layer."""
    batch_size = weights.shape[1]
    data = {**inputs, "weights": weights * batch_size}  # Loss divides by it
    inp = layers.Input({n: ("T", "B", *v.shape[2:]) for n, v in data.items()})
    for name in inputs:
        inp - name >> name - layer
    mask = layers.Mask()
    layer - output >> mask >> layers.Loss()
    inp - "weights" >> "mask" - mask
    net = Network.from_layer(inp)
    net.set_handler(NumpyHandler(np.float64))
    net.provide_external_data(data)
    return net


# -- batch normalization ---------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 4, 3, 2, 3)])
def test_batch_norm(shape, training):
    x, weights = 2.0 * normal(*shape) + 1.0, normal(*shape, seed=1)
    gamma, beta = normal(3, seed=2), normal(3, seed=3)
    mean, variance = normal(3, seed=4), np.array([0.5, 1.0, 2.0])

    module = torch.nn.BatchNorm1d(3, eps=1e-3, momentum=0.2, dtype=torch.float64)
    module.train(training)
    module.load_state_dict(
        {
            "weight": tensor(gamma),
            "bias": tensor(beta),
            "running_mean": tensor(mean),
            "running_var": tensor(variance),
            "num_batches_tracked": torch.tensor(0),
        }
    )
    x_torch = tensor(x.reshape(-1, 3), requires_grad=True)
    y_torch = module(x_torch)
    (y_torch * tensor(weights.reshape(-1, 3))).sum().backward()

    net = weighted(layers.BatchNorm(decay=0.8, epsilon=1e-3), {"default": x}, weights)
    sigma = np.sqrt(variance + 1e-3)
    start = {"gamma": gamma, "beta": beta, "mu": -mean, "sigma": sigma}
    net.initialize({"BatchNorm": start})
    net.forward_pass(training_pass=training)
    net.backward_pass()

    def same(path, expected):
        expected = expected.detach().numpy().reshape(net.get(path).shape)
        np.testing.assert_allclose(net.get(path), expected, **CLOSE)

    same("BatchNorm.outputs.default", y_torch)
    same("BatchNorm.input_deltas.default", x_torch.grad)
    same("BatchNorm.gradients.gamma", module.weight.grad)
    same("BatchNorm.gradients.beta", module.bias.grad)
    same("BatchNorm.parameters.mu", -module.running_mean)


# -- losses ------------------------------------------------------------------------


def compare_loss(layer, output, x, targets, loss_torch, weights):
    """`loss_torch` maps a tensor like x to losses of the shape of `weights`."""
    inputs = {"default": x} if targets is None else {"default": x, "targets": targets}
    net = weighted(layer, inputs, weights, output)
    net.forward_pass(training_pass=True)
    net.backward_pass()
    x_torch = tensor(x, requires_grad=True)
    loss = loss_torch(x_torch)
    (loss.reshape(weights.shape) * tensor(weights)).sum().backward()
    name = layer.name
    got = net.get(f"{name}.outputs.{output}")
    np.testing.assert_allclose(
        got, loss.detach().numpy().reshape(weights.shape), **CLOSE
    )
    got = net.get(f"{name}.input_deltas.default")
    np.testing.assert_allclose(got, x_torch.grad.numpy(), **CLOSE)


def test_softmax_ce():
    targets = np.random.RandomState(1).randint(0, 4, (3, 5, 1))

    def loss(x):
        labels = torch.tensor(targets.ravel(), dtype=torch.int64)
        entropy = torch.nn.functional.cross_entropy
        return entropy(x.reshape(-1, 4), labels, reduction="none")

    layer = layers.SoftmaxCE()
    compare_loss(layer, "loss", normal(3, 5, 4), targets, loss, normal(3, 5, 1, seed=2))


def test_sigmoid_ce():
    targets = np.random.RandomState(1).uniform(0, 1, (3, 5, 4))

    def loss(x):
        entropy = torch.nn.functional.binary_cross_entropy_with_logits
        return entropy(x, tensor(targets), reduction="none")

    layer = layers.SigmoidCE()
    compare_loss(layer, "loss", normal(3, 5, 4), targets, loss, normal(3, 5, 4, seed=2))


def test_binomial_cross_entropy():
    p, targets = np.random.RandomState(1).uniform(0.05, 0.95, (2, 3, 5, 4))

    def loss(x):
        entropy = torch.nn.functional.binary_cross_entropy
        return entropy(x, tensor(targets), reduction="none").sum(-1)

    layer = layers.BinomialCrossEntropy()
    compare_loss(layer, "default", p, targets, loss, normal(3, 5, 1, seed=2))


@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0, 3.0]])
@pytest.mark.parametrize("smoothing", [0.0, 0.15])
def test_smooth_and_weighted_softmax_ce(smoothing, weights):
    targets = np.random.RandomState(1).randint(0, 4, (3, 5, 1))

    def loss(x):
        return torch.nn.functional.cross_entropy(
            x.reshape(-1, 4),
            torch.tensor(targets.ravel(), dtype=torch.int64),
            weight=None if weights is None else tensor(weights),
            label_smoothing=smoothing,
            reduction="none",
        )

    layer = layers.SoftmaxCE(label_smoothing=smoothing, class_weights=weights)
    compare_loss(layer, "loss", normal(3, 5, 4), targets, loss, normal(3, 5, 1, seed=2))


@pytest.mark.parametrize("positive_weight", [3.5, [3.5, 0.2, 1.0, 7.0]])
def test_sigmoid_ce_with_a_positive_weight(positive_weight):
    targets = np.random.RandomState(1).uniform(0, 1, (3, 5, 4))

    def loss(x):
        entropy = torch.nn.functional.binary_cross_entropy_with_logits
        weight = tensor(positive_weight)
        return entropy(x, tensor(targets), pos_weight=weight, reduction="none")

    layer = layers.SigmoidCE(positive_weight=positive_weight)
    compare_loss(layer, "loss", normal(3, 5, 4), targets, loss, normal(3, 5, 4, seed=2))


@pytest.mark.parametrize("delta", [None, 0.4, 2.0])
def test_absolute_error_and_huber(delta):
    targets = normal(3, 5, 4, seed=1)

    def loss(x):
        if delta is None:
            return torch.nn.functional.l1_loss(x, tensor(targets), reduction="none")
        huber = torch.nn.functional.huber_loss
        return huber(x, tensor(targets), reduction="none", delta=delta)

    layer = layers.AbsoluteError() if delta is None else layers.Huber(delta)
    compare_loss(layer, "loss", normal(3, 5, 4), targets, loss, normal(3, 5, 4, seed=2))


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax(name):
    make = {"softmax": layers.Softmax, "log_softmax": layers.LogSoftmax}[name]
    function = functools.partial(getattr(torch, name), dim=-1)
    x, weights = 3 * normal(3, 5, 4), normal(3, 5, 4, seed=2)
    compare_loss(make(), "default", x, None, function, weights)


@pytest.mark.parametrize("factor", [(2, 3), (1, 4), (3, 1)])
@pytest.mark.parametrize("size", [(4, 5), (1, 2)])
@pytest.mark.parametrize("kind", ["nearest", "bilinear"])
def test_upsampling(kind, size, factor):
    larger_size = size[0] * factor[0], size[1] * factor[1]
    x, weights = normal(2, 3, *size, 2), normal(2, 3, *larger_size, 2, seed=1)

    def upsampled(x):
        images = x.reshape(6, *size, 2).permute(0, 3, 1, 2)
        larger = torch.nn.functional.interpolate(images, scale_factor=factor, mode=kind)
        return larger.permute(0, 2, 3, 1)

    layer = layers.Upsample2D(factor, kind=kind)
    compare_loss(layer, "default", x, None, upsampled, weights)


# -- training ------------------------------------------------------------------------

SHAPES = {"Hid.W": (5, 4), "Hid.bias": (5,), "Proj.W": (3, 5), "Proj.bias": (3,)}


def momentum_in_torch(start, x, targets, steps):
    parameters = {n: tensor(v, requires_grad=True) for n, v in start.items()}
    labels = torch.tensor(targets.ravel(), dtype=torch.int64)
    optimizer = torch.optim.SGD(parameters.values(), lr=0.2, momentum=0.9)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        h = torch.tanh(
            tensor(x).reshape(-1, 4) @ parameters["Hid.W"].T + parameters["Hid.bias"]
        )
        y = h @ parameters["Proj.W"].T + parameters["Proj.bias"]
        loss = torch.nn.functional.cross_entropy(y, labels, reduction="sum") / 6
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, {n: p.detach().numpy() for n, p in parameters.items()}


def test_five_momentum_updates_of_a_small_network():
    x = normal(2, 6, 4)
    targets = np.random.RandomState(1).randint(0, 3, (2, 6, 1))
    start = {n: normal(*s, seed=i) for i, (n, s) in enumerate(SHAPES.items())}

    inp = layers.Input({"default": ("T", "B", 4), "targets": ("T", "B", 1)})
    out = layers.SoftmaxCE(name="Out")
    hidden = inp >> layers.FullyConnected(5, "tanh", name="Hid")
    hidden >> layers.FullyConnected(3, "linear", name="Proj") >> out
    inp - "targets" >> "targets" - out
    out - "loss" >> layers.Loss()
    net = Network.from_layer(inp)
    net.set_handler(NumpyHandler(np.float64))
    for path, value in start.items():
        layer, name = path.split(".")
        net.buffer[layer].parameters[name][...] = value
    stepper = MomentumStepper(0.2, momentum=0.9, scale_learning_rate=False)
    stepper.start(net)
    losses = []
    for _ in range(5):
        net.provide_external_data({"default": x, "targets": targets})
        stepper.run()
        losses.append(net.get_loss_values()["total_loss"])

    expected_losses, expected = momentum_in_torch(start, x, targets, 5)
    np.testing.assert_allclose(losses, expected_losses, **CLOSE)
    assert losses[-1] < losses[0]
    for path, value in expected.items():
        got = net.get(path.replace(".", ".parameters."))
        np.testing.assert_allclose(got, value, **CLOSE)


# -- layer normalization and embedding -------------------------------------------


def test_layer_norm():
    x, weights = normal(3, 4, 5), normal(3, 4, 5, seed=1)
    gamma, beta = normal(5, seed=2), normal(5, seed=3)
    net = weighted(layers.LayerNorm(1e-3), {"default": x}, weights)
    net.initialize({"LayerNorm": {"gamma": gamma, "beta": beta}})
    net.forward_pass(training_pass=True)
    net.backward_pass()
    module = torch.nn.LayerNorm(5, eps=1e-3, dtype=torch.float64)
    module.load_state_dict({"weight": tensor(gamma), "bias": tensor(beta)})
    x_torch = tensor(x, requires_grad=True)
    y_torch = module(x_torch)
    (y_torch * tensor(weights)).sum().backward()
    for path, expected in (
        ("outputs.default", y_torch.detach()),
        ("input_deltas.default", x_torch.grad),
        ("gradients.gamma", module.weight.grad),
        ("gradients.beta", module.bias.grad),
    ):
        np.testing.assert_allclose(net.get(f"LayerNorm.{path}"), expected, **CLOSE)


def test_embedding():
    indices = np.random.RandomState(0).randint(0, 6, (3, 4, 1))
    W, weights = normal(6, 5), normal(3, 4, 5, seed=1)
    net = weighted(layers.Embedding(6, 5), {"default": indices}, weights)
    net.initialize({"Embedding": {"W": W}})
    net.forward_pass(training_pass=True)
    net.backward_pass()
    W_torch = tensor(W, requires_grad=True)
    y = torch.nn.functional.embedding(torch.tensor(indices[..., 0]), W_torch)
    (y * tensor(weights)).sum().backward()
    np.testing.assert_allclose(
        net.get("Embedding.outputs.default"), y.detach(), **CLOSE
    )
    np.testing.assert_allclose(net.get("Embedding.gradients.W"), W_torch.grad, **CLOSE)


# -- attention -------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("names", [(), ("memory",), ("mask",), ("memory", "mask")])
def test_attention(causal, names):
    """Beside MultiheadAttention, whose own projections take the same parameters."""
    given = {"memory": normal(5, 3, 6, seed=1), "mask": np.ones((5, 3, 1))}
    given["mask"][3:, 1] = given["mask"][4:, 2] = 0
    inputs = {"default": normal(5, 3, 6), **{name: given[name] for name in names}}
    weights = normal(5, 3, 6, seed=2)
    module = torch.nn.MultiheadAttention(6, 2, dtype=torch.float64)
    for seed, parameter in enumerate(module.parameters(), 3):
        parameter.data = tensor(normal(*parameter.shape, seed=seed))
    x = tensor(inputs["default"], requires_grad=True)
    memory = tensor(given["memory"], requires_grad=True) if "memory" in names else x
    y, attention = module(
        *(x, memory, memory),
        key_padding_mask=torch.tensor(given["mask"][..., 0].T == 0)
        if "mask" in names
        else None,
        attn_mask=torch.ones(5, 5, dtype=bool).triu(1) if causal else None,
        average_attn_weights=False,
    )
    (y * tensor(weights)).sum().backward()

    net = weighted(layers.Attention(6, 2, causal, name="A"), inputs, weights)
    all_of = {"W": (module.in_proj_weight, module.out_proj.weight)}
    all_of["b"] = module.in_proj_bias, module.out_proj.bias
    values, gradients = {}, {}
    for kind, (stacked, last) in all_of.items():
        for result, arrays in (
            (values, (stacked.detach(), last.detach())),
            (gradients, (stacked.grad, last.grad)),
        ):
            parts = [*np.split(arrays[0].numpy(), 3), arrays[1].numpy()]
            result.update({kind + w: a for w, a in zip("qkvo", parts, strict=True)})
    net.initialize({"A": values})
    net.forward_pass(training_pass=True)
    net.backward_pass()
    expected = {
        "outputs.default": y.detach(),
        "internals.weights": attention.detach().permute(2, 0, 1, 3),
        "input_deltas.default": x.grad,
        **{f"gradients.{name}": array for name, array in gradients.items()},
    }
    if "memory" in names:
        expected["input_deltas.memory"] = memory.grad
    for path, array in expected.items():
        np.testing.assert_allclose(net.get(f"A.{path}"), array, 1e-12, 1e-12)


def test_attention_of_given_queries_keys_and_values():
    """Beside scaled_dot_product_attention, over more than one block of queries."""
    q, k, v, dy = (normal(150, 2, 6, seed=seed) for seed in range(4))

    def by_heads(array):
        return tensor(array.reshape(150, 2, 3, 2).transpose(1, 2, 0, 3), True)

    tensors = [by_heads(array) for array in (q, k, v)]
    y = torch.nn.functional.scaled_dot_product_attention(*tensors, is_causal=True)
    (y * by_heads(dy)).sum().backward()
    handler, found = NumpyHandler(np.float64), [np.empty_like(q) for _ in range(4)]
    handler.attention_forward(q, k, v, None, found[0], 3, causal=True)
    handler.attention_backward(q, k, v, None, dy, *found[1:], 3, causal=True)
    for array, of in zip(found, (y.detach(), *(a.grad for a in tensors)), strict=True):
        expected = of.permute(2, 0, 1, 3).reshape(150, 2, 6)
        np.testing.assert_allclose(array, expected, 1e-12, 1e-12)


# -- connectionist temporal classification ---------------------------------------


def test_ctc():
    steps, batch, classes = 12, 5, 4
    rnd = np.random.RandomState(0)
    lengths, counts = [12, 9, 7, 12, 6], [4, 3, 0, 6, 1]
    x, weights = 2 * rnd.randn(steps, batch, classes), rnd.randn(batch)
    targets = np.zeros((steps, batch, 1))
    for b, count in enumerate(counts):
        targets[:count, b, 0] = rnd.randint(1, classes, count)
    mask = (np.arange(steps)[:, None, None] < np.array(lengths)[:, None]).astype(float)
    data = {"default": x, "targets": targets, "mask": mask}
    inp = layers.Input({n: ("T", "B", *v.shape[2:]) for n, v in data.items()})
    ctc = layers.Ctc(name="Ctc")
    for name in data:
        inp - name >> name - ctc
    net = Network.from_layer(inp)
    net.set_handler(NumpyHandler(np.float64))
    net.provide_external_data(data)
    net.forward_pass(training_pass=True)
    net.backward_pass()
    layer, view = net.layers["Ctc"], net.buffer.Ctc
    net.handler.set_from_numpy(view.output_deltas.loss, weights[:, np.newaxis])
    layer.backward_pass(view)
    x_torch = tensor(x, requires_grad=True)
    loss = torch.nn.functional.ctc_loss(
        torch.log_softmax(x_torch, 2),
        torch.tensor(targets[:, :, 0].T.astype(int)),
        torch.tensor(lengths),
        torch.tensor(counts),
        reduction="none",
    )
    (loss * tensor(weights)).sum().backward()
    np.testing.assert_allclose(
        net.get("Ctc.outputs.loss")[:, 0], loss.detach(), **CLOSE
    )
    np.testing.assert_allclose(
        net.get("Ctc.input_deltas.default"), x_torch.grad, rtol=1e-8, atol=1e-10
    )

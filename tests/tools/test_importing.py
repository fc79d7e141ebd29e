"""Weights of real models of PyTorch and Keras: both compute the same."""

import os

import numpy as np
import pytest

import brainstorm as bs
from brainstorm import layers
from brainstorm.handlers import NumpyHandler
from brainstorm.tools import import_weights
from brainstorm.utils import MissingFileError, ValidationError

# Keras's variables do not take NumPy's `copy`.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

CLOSE = {"rtol": 1e-9, "atol": 1e-10}
SINGLE = {"rtol": 1e-4, "atol": 1e-5}  # Keras computes in float32
LEFT = "left for 'c'; the layers .* 'Hidden', 'Out', the modules 'a', 'b', 'c'"
NONE = "layer 'Hidden': none fits.*modules 'a', 'b'"


def normal(*shape, seed=0):
    return np.random.RandomState(seed).randn(*shape)


def network(shape, *chain):
    inp = layers.Input({"default": ("T", "B", *shape)})
    for layer in chain:
        inp = inp >> layer
    net = bs.Network.from_layer(inp)
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(7.0)
    return net


def mlp():
    return network(
        (4,),
        layers.FullyConnected(5, "tanh", name="Hidden"),
        layers.FullyConnected(3, "linear", name="Out"),
    )


def dense_state(**changes):
    state = {
        "a.weight": normal(5, 4),
        "a.bias": normal(5, seed=1),
        "b.weight": normal(3, 5, seed=2),
        "b.bias": normal(3, seed=3),
    }
    return {**state, **changes}


def test_a_dict_of_arrays():
    net, state = mlp(), dense_state()
    assert import_weights(net, state) == {"Hidden": "a", "Out": "b"}
    x = normal(2, 3, 4)
    h = np.tanh(x @ state["a.weight"].T + state["a.bias"])
    expected = h @ state["b.weight"].T + state["b.bias"]
    np.testing.assert_allclose(net.predict(x), expected, **CLOSE)


def test_names_decide_where_several_would_do():
    net = network((4,), *(layers.FullyConnected(4, name=n) for n in ("A", "B")))
    state = {f"{n}.weight": normal(4, 4, seed=k) for k, n in enumerate("xy")}
    with pytest.raises(ValidationError, match=r"'x', 'y' would do; give names"):
        import_weights(net, state)
    assert import_weights(net, state, {"A": "y"}) == {"A": "y", "B": "x"}
    np.testing.assert_array_equal(net.get("A.parameters.W"), state["y.weight"])
    assert not net.get("A.parameters.bias").any()  # there was none
    same = {n.upper().replace("X", "B").replace("Y", "A"): a for n, a in state.items()}
    same = {n.replace("WEIGHT", "weight"): a for n, a in same.items()}
    assert import_weights(net, same) == {"A": "A", "B": "B"}


@pytest.mark.parametrize(
    ("changes", "names", "message"),
    [
        (
            {"c.weight": np.ones((2, 2))},
            None,
            r"left for 'c'; the layers .* 'Hidden', 'Out', the modules 'a', 'b', 'c'",
        ),
        (
            {"a.weight": np.ones((4, 5))},
            None,
            r"layer 'Hidden': none fits.*modules 'a', 'b'",
        ),
        (
            {"a.weight": np.ones((4, 5))},
            {"Hidden": "a"},
            r"'Hidden'.*from 'a': expected W of the shape \(5, 4\), got \(4, 5\)",
        ),
        ({"a.scale": np.ones(5)}, {"Hidden": "a"}, "expected 'weight', 'bias', got"),
        ({}, {"Hiden": "a"}, "no layer 'Hiden'.*mean 'Hidden'.*modules 'a', 'b'"),
        ({}, {"Hidden": "aa"}, "no module 'aa'.*the layers with parameters are"),
        ({}, {"Hidden": "a", "Out": "a"}, "named twice"),
        ({"a.bias": "text"}, None, "'a.bias' is no array"),
    ],
)
def test_what_does_not_fit_changes_nothing(changes, names, message):
    net = mlp()
    with pytest.raises(ValidationError, match=message):
        import_weights(net, dense_state(**changes), names)
    assert np.all(net.get("parameters") == 7)


def test_bad_sources(tmp_path):
    for source in (None, 3, {}, {"a.weight": {}}):
        with pytest.raises(ValidationError, match="source: "):
            import_weights(mlp(), source)
    with pytest.raises(MissingFileError, match=r"no file .*none\.pt"):
        import_weights(mlp(), tmp_path / "none.pt")
    arrays = [*dense_state().values(), np.ones(3)]
    with pytest.raises(ValidationError, match="left over"):
        import_weights(mlp(), arrays)
    with pytest.raises(ValidationError, match="not enough: .*'Out' needs 2 of the 0"):
        import_weights(mlp(), [np.ones((4, 5)), np.ones(5)])
    leaky = network((3,), layers.Clockwork(2, name="Clock"))
    with pytest.raises(ValidationError, match="layer 'Clock', a Clockwork,.*imported"):
        import_weights(leaky, {"a.weight": np.ones((2, 3))}, {"Clock": "a"})


def test_layers_with_less_than_the_module():
    net = network((4,), layers.FullyConnected(5, bias=False, name="Hidden"))
    state = {"a.weight": normal(5, 4), "a.bias": normal(5)}
    with pytest.raises(ValidationError, match="'Hidden'.*: the layer has no bias"):
        import_weights(net, state, {"Hidden": "a"})


# -- PyTorch -----------------------------------------------------------------


@pytest.fixture
def torch():
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    return torch


def same_as(torch, module, net, x, their_x=None, turn=lambda y: y):
    """Import the weights of a module, and compare what both compute."""
    module = module.double().eval()
    import_weights(net, module.state_dict())
    with torch.no_grad():
        y = module(torch.tensor(x if their_x is None else their_x))
    y = turn(y[0] if isinstance(y, tuple) else y).numpy()
    np.testing.assert_allclose(net.predict(x), y.reshape(net.predict(x).shape), **CLOSE)


def test_images(torch):
    nn = torch.nn
    module = nn.Sequential(
        nn.Conv2d(2, 4, (3, 2), 1, 1, dilation=(1, 2), groups=2),
        nn.ReLU(),
        nn.BatchNorm2d(4),
        nn.ConvTranspose2d(4, 3, 2, 2),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(3 * 12 * 10, 5),
    )
    module[2].running_mean += torch.randn(4)
    module[2].running_var *= torch.rand(4) + 0.5
    net = network(
        (6, 5, 2),
        layers.Convolution2D(4, (3, 2), 1, 1, "rel", dilation=(1, 2), groups=2),
        layers.BatchNorm(epsilon=1e-5),
        layers.ConvolutionTranspose2D(3, 2, 2, activation="tanh"),
        layers.FullyConnected(5, "linear"),
    )
    x = normal(2, 3, 6, 5, 2)
    same_as(torch, module, net, x, x.reshape(6, 6, 5, 2).transpose(0, 3, 1, 2).copy())


def test_words(torch):
    nn = torch.nn
    module = nn.Sequential(nn.Embedding(7, 4), nn.LayerNorm(4), nn.Linear(4, 3))
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    net = network(
        *((1,), layers.Embedding(7, 4), layers.LayerNorm()),
        layers.FullyConnected(3, "linear"),
    )
    x = np.random.RandomState(0).randint(0, 7, (5, 3, 1))
    same_as(torch, module, net, x.astype(float), x[..., 0])


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("bias", [True, False])
def test_recurrent_layers(torch, kind, bias):
    module = getattr(torch.nn, kind)(3, 4, bias=bias)
    make = {"RNN": layers.Recurrent, "LSTM": layers.Lstm, "GRU": layers.Gru}[kind]
    options = {"bias": bias}
    if kind == "GRU":
        options["recurrent_bias"] = bias
        if bias:
            with pytest.raises(ValidationError, match="Gru with recurrent_bias=True"):
                import_weights(network((3,), make(4)), module.state_dict(), {"Gru": ""})
    same_as(torch, module, network((3,), make(4, **options)), normal(6, 2, 3))


def test_what_a_layer_lacks_is_told_where_modules_are_found_by_their_shapes(torch):
    modules = {"rnn": torch.nn.GRU(3, 4), "out": torch.nn.Linear(4, 2)}
    net = network((3,), layers.Gru(4), layers.FullyConnected(2, name="Last"))
    text = "none fits; layer 'Gru', a Gru, from 'rnn':.*Gru with recurrent_bias=True"
    with pytest.raises(ValidationError, match=text):
        import_weights(net, torch.nn.ModuleDict(modules).state_dict())


@pytest.mark.parametrize("recurrent_bias", [False, True])
def test_second_biases_of_a_gru(torch, recurrent_bias):
    module = torch.nn.GRU(3, 4)
    torch.nn.init.zeros_(module.bias_hh_l0[8:])
    net = network((3,), layers.Gru(4, recurrent_bias=recurrent_bias))
    same_as(torch, module, net, normal(6, 2, 3))
    without = torch.nn.GRU(3, 4, bias=False)
    same_as(torch, without, net, normal(6, 2, 3))


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_both_directions(torch, kind):
    module = getattr(torch.nn, kind)(3, 4, num_layers=2, bidirectional=True)
    make = {"LSTM": layers.Lstm, "GRU": layers.Gru}[kind]
    options = {"recurrent_bias": True} if kind == "GRU" else {}
    both = (layers.Bidirectional(make(4, **options), name=n) for n in "AB")
    net = network((3,), *both)
    same_as(torch, module, net, normal(6, 2, 3))
    one = getattr(torch.nn, kind)(3, 4, bidirectional=True).state_dict()
    with pytest.raises(ValidationError, match="expected 'weight_ih'.*'reverse_weight"):
        import_weights(network((3,), make(4, name="One")), one, {"One": ""})


def test_several_layers_of_one_module(torch):
    module = torch.nn.LSTM(3, 4, num_layers=2)
    net = network((3,), layers.Lstm(4, name="A"), layers.Lstm(4, name="B"))
    same_as(torch, module, net, normal(6, 2, 3))


def test_convolution_of_sequences(torch):
    module = torch.nn.Conv1d(4, 6, 3, padding=1, groups=2)
    net = network((4,), layers.Convolution1D(6, 3, activation="linear", groups=2))
    x = normal(7, 2, 4)
    same_as(
        torch, module, net, x, x.transpose(1, 2, 0).copy(), lambda y: y.permute(2, 0, 1)
    )


@pytest.mark.parametrize("bias", [True, False])
def test_attention(torch, bias):
    class Self(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mha = torch.nn.MultiheadAttention(6, 2, bias=bias)

        def forward(self, x):
            return self.mha(x, x, x)

    module = Self()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    same_as(
        torch, module, network((6,), layers.Attention(6, 2, bias=bias)), normal(5, 3, 6)
    )


def test_files(torch, tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh())
    state = {"a." + n.removeprefix("0."): v for n, v in module.state_dict().items()}
    expected = state["a.weight"].numpy()
    torch.save(state, tmp_path / "state.pt")
    net = network((4,), layers.FullyConnected(5, name="Hidden"))
    import_weights(net, tmp_path / "state.pt")
    np.testing.assert_array_equal(net.get("Hidden.parameters.W"), expected)
    pytest.importorskip("safetensors")
    from safetensors.torch import save_file

    save_file(state, tmp_path / "state.safetensors")
    net.initialize(7.0)
    assert import_weights(net, tmp_path / "state.safetensors") == {"Hidden": "a"}
    np.testing.assert_array_equal(net.get("Hidden.parameters.W"), expected)
    (tmp_path / "bad.pt").write_bytes(b"no state")
    with pytest.raises(Exception, match="pt"):
        import_weights(net, tmp_path / "bad.pt")


# -- Keras -------------------------------------------------------------------


@pytest.fixture
def keras():
    os.environ.setdefault("KERAS_BACKEND", "torch")
    pytest.importorskip("torch")
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(1)
    return keras


def randomized(model):
    for k, variable in enumerate(model.weights):
        values = 0.5 * normal(*variable.shape, seed=k)
        variable.assign(np.abs(values) + 0.1 if "variance" in variable.path else values)
    return model


def as_keras(model, x):
    return np.asarray(model.predict(x, verbose=0))


@pytest.mark.slow
def test_images_of_keras(keras, tmp_path):
    k = keras.layers
    model = keras.Sequential(
        [
            keras.Input((6, 5, 4)),
            k.Conv2D(4, (3, 2), padding="same", activation="tanh", groups=2),
            k.BatchNormalization(),
            k.Conv2DTranspose(3, 2, strides=2, activation="relu"),
            k.Flatten(),
            k.Dense(3),
        ]
    )
    randomized(model)
    net = network(
        (6, 5, 4),
        layers.Convolution2D(4, (3, 3), 1, 1, "tanh", groups=2),
        layers.BatchNorm(epsilon=1e-3),
        layers.ConvolutionTranspose2D(3, 2, 2, activation="rel"),
        layers.FullyConnected(3, "linear"),
    )
    # 'same' of an even kernel pads on the right alone: a third column of zeros here.
    weights = model.get_weights()
    weights[0] = np.pad(weights[0], ((0, 0), (1, 0), (0, 0), (0, 0)))
    import_weights(net, weights)
    x = normal(1, 4, 6, 5, 4)
    np.testing.assert_allclose(net.predict(x)[0], as_keras(model, x[0]), **SINGLE)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["SimpleRNN", "LSTM", "GRU", "GRU before"])
def test_sequences_of_keras(keras, kind, tmp_path):
    name, *before = kind.split()
    options = {"reset_after": False} if before else {}
    rnn = getattr(keras.layers, name)(4, return_sequences=True, **options)
    model = randomized(keras.Sequential([keras.Input((None, 3)), rnn]))
    make = {"SimpleRNN": layers.Recurrent, "LSTM": layers.Lstm, "GRU": layers.Gru}[name]
    net = network((3,), make(4, **options))
    if kind == "GRU":
        with pytest.raises(ValidationError, match="Gru with recurrent_bias=True"):
            import_weights(net, model.get_weights())
        net = network((3,), make(4, recurrent_bias=True))
        wrong = network((3,), layers.Gru(4, reset_after=False))
        with pytest.raises(
            ValidationError, match="expected a Gru with reset_after=True"
        ):
            import_weights(wrong, model.get_weights())
    x = normal(6, 2, 3)
    expected = as_keras(model, x.swapaxes(0, 1)).swapaxes(0, 1)
    model.save_weights(tmp_path / "model.weights.h5")
    by_name = {la.name: la.get_weights() for la in model.layers}
    for source in (model.get_weights(), by_name, tmp_path / "model.weights.h5"):
        net.initialize(7.0)
        import_weights(net, source)
        np.testing.assert_allclose(net.predict(x), expected, **SINGLE)


@pytest.mark.slow
def test_both_directions_of_keras(keras, tmp_path):
    rnn = keras.layers.Bidirectional(keras.layers.LSTM(4, return_sequences=True))
    model = randomized(keras.Sequential([keras.Input((None, 3)), rnn]))
    net, x = network((3,), layers.Bidirectional(layers.Lstm(4))), normal(6, 2, 3)
    expected = as_keras(model, x.swapaxes(0, 1)).swapaxes(0, 1)
    model.save_weights(tmp_path / "model.weights.h5")
    for source in (model.get_weights(), tmp_path / "model.weights.h5"):
        net.initialize(7.0)
        import_weights(net, source)
        np.testing.assert_allclose(net.predict(x), expected, **SINGLE)


@pytest.mark.slow
def test_attention_of_keras(keras, tmp_path):
    inp = keras.Input((None, 6))
    attention = keras.layers.MultiHeadAttention(2, 3)
    normed = keras.layers.LayerNormalization(epsilon=1e-5)(attention(inp, inp))
    conv = keras.layers.Conv1D(4, 3, padding="causal", activation="tanh")
    model = randomized(keras.Model(inp, conv(normed)))
    net = network(
        *((6,), layers.Attention(6, 2), layers.LayerNorm()),
        layers.Convolution1D(4, 3, padding="causal", activation="tanh"),
    )
    x = normal(5, 2, 6)
    expected = as_keras(model, x.swapaxes(0, 1)).swapaxes(0, 1)
    model.save_weights(tmp_path / "model.weights.h5")
    for source in (model.get_weights(), tmp_path / "model.weights.h5"):
        net.initialize(7.0)
        import_weights(net, source)
        np.testing.assert_allclose(net.predict(x), expected, **SINGLE)

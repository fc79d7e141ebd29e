"""`Trainer.fit`: the common case in one line."""

import numpy as np
import pytest

import brainstorm as bs
from brainstorm.scorers import Accuracy
from brainstorm.tools import create_net_from_spec
from brainstorm.training import AdamStepper, SgdStepper
from brainstorm.utils import ValidationError


def blobs(n=60):
    rnd = np.random.RandomState(0)
    classes = np.repeat([0, 1, 2], n // 3)
    return rnd.randn(n, 2) + 5 * np.eye(3)[classes, :2], classes


def classifier():
    net = create_net_from_spec("classification", 2, 3, "F8")
    net.initialize(bs.Gaussian(0.3), seed=1)
    return net


@pytest.mark.parametrize("dims", ["x(B,F) y(B)", "x(B,F) y(B,1)", "x(T,B,F) y(T,B)"])
def test_it_learns(dims):
    x, y = blobs()
    given = {"x(B,F) y(B)": (x, y), "x(B,F) y(B,1)": (x, y[:, None])}
    given = given.get(dims, (x[None], y[None]))
    net = classifier()
    trainer = bs.Trainer.fit(
        net,
        *given,
        epochs=30,
        batch_size=10,
        stepper=AdamStepper(0.02),
        train_scorers=[Accuracy()],
    )
    log = trainer.logs["rolling_training"]
    assert len(log["total_loss"]) == len(log["Accuracy"]) == 30
    assert trainer.current_update_nr == 180
    assert np.mean(net(x).argmax(axis=1) == y) > 0.95


def test_all_updates_are_as_by_hand():
    x, y = np.arange(6.0).reshape(3, 2) / 6, np.array([[1.0], [2.0], [3.0]])
    net = create_net_from_spec("regression", 2, 1, "")
    net.initialize(0)
    bs.Trainer.fit(net, x, y, epochs=2, batch_size=3, stepper=SgdStepper(0.1))
    W, b = np.zeros(2), 0.0
    for _ in range(2):
        error = x @ W + b - y[:, 0]
        W, b = W - 0.1 * error @ x / 3, b - 0.1 * error.mean()
    np.testing.assert_allclose(
        net.get("Output_projection.parameters.W")[0], W, rtol=1e-5
    )


def test_the_sequences_are_shuffled_and_stay_together():
    x = np.arange(40.0).reshape(20, 2) / 40
    seen = []
    net = create_net_from_spec("regression", 2, 2, "")

    class Spy(SgdStepper):
        def run(self):
            np.testing.assert_array_equal(
                self.net.get_input("default"), self.net.get_input("targets")
            )
            seen.append(self.net.get_input("default")[0])
            super().run()

    bs.Trainer.fit(net, x, x, epochs=1, batch_size=5, stepper=Spy(), seed=1)
    rows = np.concatenate(seen)
    assert not np.array_equal(rows, x.astype(rows.dtype))
    np.testing.assert_array_equal(np.sort(rows, axis=0), x.astype(rows.dtype))
    first, seen[:] = list(seen), []
    bs.Trainer.fit(net, x, x, epochs=1, batch_size=5, stepper=Spy(), seed=1)
    np.testing.assert_array_equal(first, seen)


def test_named_data():
    x, y = blobs()
    data = {"default": x, "targets": y}
    trainer = bs.Trainer.fit(classifier(), data, epochs=1)
    assert trainer.current_epoch_nr == 1


def test_training_goes_on():
    x, y = blobs()
    net = classifier()
    trainer = bs.Trainer.fit(net, x, y, epochs=1)
    assert isinstance(trainer.stepper, AdamStepper)
    trainer.add_hook(bs.hooks.StopAfterEpoch(3))
    data = bs.Minibatches(default=x[None], targets=y[None, :, None])
    trainer.train(net, data)
    assert len(trainer.logs["rolling_training"]["total_loss"]) == 3


def test_it_reports(capsys):
    bs.Trainer.fit(classifier(), *blobs(), epochs=1)
    assert capsys.readouterr().out == ""
    bs.Trainer.fit(classifier(), *blobs(), epochs=1, verbose=True)
    assert "total_loss" in capsys.readouterr().out
    bs.Trainer.fit(classifier(), *blobs(), epochs=1, verbose=2)
    assert "Epoch 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("x", "y", "arguments", "text"),
    [
        (np.zeros((5, 2)), np.zeros(4), {}, "targets"),
        (np.zeros((5, 3)), np.zeros(5), {}, r"expected data of the shape .*2\)"),
        (np.zeros((5, 2)), None, {}, "the data provides 'default', but the inputs"),
        ({"x": np.zeros((5, 2))}, np.zeros(5), {}, "y: expected one input"),
        (np.zeros((5, 2)), np.zeros(5), {"batch_size": 0}, "batch_size"),
        (np.zeros((5, 2)), np.zeros(5), {"stepper": 0.1}, "TrainingStepper"),
        (np.zeros((5, 2)), np.zeros(5), {"epochs": -1}, "epochs .* at least 0, got -1"),
        (np.zeros((5, 2)), np.zeros(5), {"epochs": 1.5}, "epochs .* got 1.5"),
        (np.zeros((5, 2)), np.zeros(5), {"epochs": None}, "epochs .* got None"),
        (np.zeros((0, 2)), np.zeros(0), {}, "expected some data, got none"),
        ([[1, 2], [3]], np.zeros(2), {}, "input 'default' does not form an array"),
        (np.zeros((5, 2)), ["a"] * 5, {}, "'targets': expected floats, integers"),
    ],
)
def test_bad_arguments(x, y, arguments, text):
    with pytest.raises(ValidationError, match=text):
        bs.Trainer.fit(classifier(), x, y, **arguments)


# -- validation, hooks, early stopping ---------------------------------------


def test_validation_data_are_evaluated_each_epoch():
    x, y = blobs()
    scorers = [bs.scorers.Accuracy()]
    net = classifier()
    for given in ((x, y), {"default": x, "targets": y}, bs.Undivided(**whole(x, y))):
        trainer = bs.Trainer.fit(
            net, x, y, epochs=2, train_scorers=scorers, validation_data=given
        )
        log = trainer.logs["validation"]
        assert sorted(log) == ["Accuracy", "total_loss"]
        assert len(log["Accuracy"]) == 3
        assert list(trainer.hooks) == ["validation"]
    expected = bs.tools.evaluate(net, bs.Undivided(**whole(x, y)), scorers)
    assert log["Accuracy"][-1] == expected["Accuracy"]


def whole(x, y):
    x, y = np.asarray(x), np.asarray(y)
    return {"default": x.reshape(1, *x.shape), "targets": y.reshape(1, -1, 1)}


def test_validation_does_not_change_the_training():
    x, y = blobs()
    nets = [classifier(), classifier()]
    for net, more in zip(nets, [{}, {"validation_data": (x, y)}], strict=True):
        net.initialize(bs.Gaussian(0.1), seed=1)
        bs.Trainer.fit(net, x, y, epochs=2, seed=3, **more)
    a, b = (net.get("parameters") for net in nets)
    np.testing.assert_array_equal(a, b)


def test_hooks_are_called():
    seen = []

    def note(epoch_nr, **kwargs):
        seen.append(epoch_nr)

    note.timescale = "epoch"
    bs.Trainer.fit(classifier(), *blobs(), epochs=3, hooks=[note])
    assert seen == [0, 1, 2, 3]


@pytest.mark.parametrize("validates", [True, False])
def test_early_stopping_restores_the_best(validates):
    x, y = blobs()
    net = classifier()
    more = {"validation_data": (x, y)} if validates else {}
    trainer = bs.Trainer.fit(
        net, x, y, epochs=50, stepper=SgdStepper(1e4), early_stopping=2, **more
    )
    name = "validation" if validates else "rolling_training"
    losses = trainer.logs[name]["total_loss"]
    assert len(losses) < 50
    assert int(np.argmin(losses)) == len(losses) - 3
    if validates:
        found = bs.tools.evaluate(net, bs.Undivided(**whole(x, y)))
        assert found["total_loss"] == pytest.approx(min(losses))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"validation_data": 3}, "validation_data: expected a pair"),
        ({"validation_data": ([[1, 2]], [[1, 2]])}, "targets|default"),
        ({"early_stopping": 0}, "early_stopping"),
        ({"hooks": [bs.hooks.StopOnNan]}, r"an object: StopOnNan\("),
    ],
)
def test_bad_validation(arguments, text):
    with pytest.raises(ValidationError, match=text):
        bs.Trainer.fit(classifier(), *blobs(), epochs=1, **arguments)

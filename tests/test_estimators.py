"""Networks as estimators of scikit-learn."""

import copy
import pickle

import numpy as np
import pytest

import brainstorm as bs
from brainstorm.hooks import Hook, ModifyStepperAttribute
from brainstorm.training import (
    AdamStepper,
    Exponential,
    MomentumStepper,
    NesterovStepper,
    SgdStepper,
)

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from brainstorm.estimators import NetworkClassifier, NetworkRegressor


@parametrize_with_checks([NetworkClassifier(random_state=0)])
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([NetworkRegressor(random_state=0)])
def test_checks_of_regressors(estimator, check):
    check(estimator)


def test_classifier():
    X, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    model = make_pipeline(
        StandardScaler(), NetworkClassifier("F20", epochs=30, random_state=1)
    )
    assert cross_val_score(model, X, names, cv=3).min() > 0.9
    model.fit(X, names)
    probabilities = model.predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_array_equal(
        model.predict(X), model.classes_[probabilities.argmax(axis=1)]
    )
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), probabilities)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_regressor(dtype):
    X = np.random.RandomState(0).randn(200, 3).astype(dtype)
    y = X @ np.array([[1.0, 2.0], [0.0, -1.0], [0.5, 0.0]], dtype)
    model = NetworkRegressor("", epochs=50, random_state=1).fit(X, y)
    assert model.score(X, y) > 0.99
    assert model.predict(X).dtype == dtype
    assert model.predict(X).shape == y.shape
    assert model.fit(X, y[:, 0]).predict(X).shape == (200,)
    assert len(model.loss_curve_) == 50


def test_search_over_networks():
    X, y = load_iris(return_X_y=True)
    search = GridSearchCV(
        NetworkClassifier(epochs=5, random_state=0),
        {"network": ["", "F5"], "stepper": [None, SgdStepper(0.01)]},
        cv=2,
    )
    search.fit(X, y)
    assert len(search.cv_results_["params"]) == 4


def test_random_state():
    X, y = load_iris(return_X_y=True)
    model = NetworkClassifier("D.5 F10", epochs=2, random_state=3)
    first = model.fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(clone(model).fit(X, y).predict_proba(X), first)
    other = clone(model).set_params(random_state=4).fit(X, y).predict_proba(X)
    assert np.any(other != first)


def test_own_networks_and_steppers():
    def make(nr_features, nr_classes):
        assert (nr_features, nr_classes) == (4, 3)
        net = bs.tools.create_net_from_spec("classification", 4, 3, "Ft7")
        net.initialize(bs.Gaussian(), seed=1)
        return net

    X, y = load_iris(return_X_y=True)
    stepper = SgdStepper(0.05)
    model = NetworkClassifier(make, epochs=50, stepper=stepper, random_state=0)
    assert model.fit(X, y).score(X, y) > 0.8
    assert "7" in bs.tools.get_network_info(model.network_)
    assert stepper.net is None


@pytest.mark.parametrize("network", [3, lambda n, m: None])
def test_bad_networks(network):
    with pytest.raises(bs.utils.ValidationError, match="network: expected a line like"):
        NetworkClassifier(network).fit([[0.0], [1.0]], [0, 1])


@pytest.mark.parametrize("kind", [NetworkClassifier, NetworkRegressor])
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"network": "Q3"}, "spec: expected the letter of a layer"),
        ({"epochs": -1}, "epochs .* at least 0, got -1"),
        ({"epochs": 1.5}, "epochs .* got 1.5"),
        ({"batch_size": 0}, "batch_size: expected an integer >= 1, got 0"),
        ({"stepper": "adam"}, "stepper has to be a TrainingStepper"),
        ({"random_state": "x"}, "'x' cannot be used to seed"),
    ],
)
def test_bad_arguments(kind, arguments, text):
    with pytest.raises(ValueError, match=text):
        kind(**arguments).fit([[0.0], [1.0]], [0, 1])


def test_no_epochs():
    model = NetworkRegressor("", epochs=0).fit([[0.0], [1.0]], [0, 1])
    assert model.loss_curve_ == []


def by_function(nr_features, nr_outputs):
    net = bs.tools.create_net_from_spec(
        "classification", nr_features, nr_outputs, "F8 D"
    )
    net.initialize(bs.Gaussian(0.5))
    return net


@pytest.mark.parametrize("network", ["F8 D", "D.2 F8 B D", by_function])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_random_state_determines_all(network, dtype):
    X = np.random.RandomState(0).randn(60, 4).astype(dtype)
    y = (X[:, 0] > 0).astype(int)

    def outputs(seed, other_seed):
        bs.global_rnd.set_seed(other_seed)
        model = NetworkClassifier(network, epochs=3, random_state=seed).fit(X, y)
        assert model.network_.handler is not bs.handlers.default_handler
        again = pickle.loads(pickle.dumps(model))
        np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
        return model.predict_proba(X)

    first = outputs(3, 1)
    np.testing.assert_array_equal(outputs(3, 2), first)
    np.testing.assert_array_equal(outputs(np.random.RandomState(3), 3), first)
    assert not np.array_equal(outputs(4, 1), first)


def test_the_global_random_numbers_go_on_as_before():
    drawn = []

    def fails(nr_features, nr_outputs):
        drawn.append(bs.global_rnd.rand())
        raise ZeroDivisionError

    X, y = np.zeros((4, 2)), [0, 1, 0, 1]
    bs.global_rnd.set_seed(1)
    expected = bs.global_rnd.rand(3)
    bs.global_rnd.set_seed(1)
    for random_state in (5, 5, None):
        with pytest.raises(ZeroDivisionError):
            NetworkClassifier(fails, random_state=random_state).fit(X, y)
    assert drawn[0] == drawn[1]
    assert drawn[2] == expected[0]
    np.testing.assert_array_equal(bs.global_rnd.rand(2), expected[1:])


# -- arguments of the stepper ------------------------------------------------


def test_arguments_of_the_stepper():
    momentum = MomentumStepper(0.1, 0.5)
    model = NetworkClassifier(stepper=momentum)
    params = model.get_params()
    assert params["stepper__learning_rate"] == 0.1
    assert params["stepper__momentum"] == 0.5
    assert not any(name.startswith("stepper__") for name in model.get_params(False))
    assert model.set_params(stepper__learning_rate=0.2, epochs=3) is model
    assert (model.stepper.learning_rate, model.stepper.momentum) == (0.2, 0.5)
    assert model.epochs == 3
    assert momentum.learning_rate == 0.1
    assert model.get_params()["stepper__learning_rate"] == 0.2
    model.set_params(stepper=SgdStepper(0.3), stepper__learning_rate=0.4)
    assert repr(clone(model).stepper) == "SgdStepper(learning_rate=0.4)"
    pipeline = make_pipeline(StandardScaler(), NetworkClassifier())
    pipeline.set_params(networkclassifier__stepper__beta1=0.8)
    stepper = pipeline[-1].stepper
    assert (stepper.learning_rate, stepper.beta1) == (0.01, 0.8)


def test_set_learning_rate_is_that_of_a_stepper():
    X, y = load_iris(return_X_y=True)
    model = NetworkClassifier("F5", epochs=3, random_state=0)
    model.set_params(stepper__learning_rate=0.1)
    other = NetworkClassifier("F5", epochs=3, random_state=0, stepper=AdamStepper(0.1))
    assert model.fit(X, y).loss_curve_ == other.fit(X, y).loss_curve_


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"stepper__lerning_rate": 1}, "did you mean 'learning_rate'"),
        (
            {"stepper__learning_rate": -1},
            "SgdStepper: learning_rate has to be a finite",
        ),
        ({"stepper": 3, "stepper__beta": 1}, "stepper__beta: int has no such argument"),
        ({"steper__beta": 1}, "Invalid parameter 'steper'"),
    ],
)
def test_bad_arguments_of_the_stepper(params, text):
    model = NetworkClassifier(stepper=SgdStepper(0.5))
    with pytest.raises(ValueError, match=text):
        model.set_params(**params)
    assert model.stepper.learning_rate == 0.5


# -- validation, hooks -------------------------------------------------------


class Watch(Hook):
    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        return {"update": update_nr, "rate": stepper.learning_rate}


def test_validation_and_early_stopping():
    X, y = load_iris(return_X_y=True)
    options = {"stepper": SgdStepper(3.0), "random_state": 0, "epochs": 100}
    model = NetworkClassifier("F20", early_stopping=3, **options).fit(X, y)
    losses = [row["validation.total_loss"] for row in model.history_]
    best = int(np.argmin(losses))
    assert len(losses) == best + 4 < 100
    assert len(model.loss_curve_) == best + 3
    # The best parameters are those that predict now.
    rnd = np.random.RandomState(0)
    rnd.randint(2**31 - 1, size=3)
    _, test = train_test_split(
        np.arange(150), test_size=0.1, random_state=rnd, stratify=y
    )
    loss = -np.log(model.predict_proba(X)[test, y[test]]).mean()
    np.testing.assert_allclose(loss, min(losses), rtol=1e-9)
    assert np.bincount(y[test]).tolist() == [5, 5, 5]


def test_early_stopping_without_validation():
    X, y = np.ones((30, 4)), np.ones(30)  # any order has this loss to the last bit
    model = NetworkRegressor("", early_stopping=2, validation_fraction=0, epochs=9)
    model.set_params(stepper=SgdStepper(0.0)).fit(X, y)
    assert len(model.loss_curve_) == 3
    assert model.history_.columns == ["epoch", "rolling_training.total_loss"]


def test_validation_alone_and_hooks():
    X, y = load_iris(return_X_y=True)
    watch = Watch("watch")
    model = NetworkRegressor(
        "F3", 2, 10, validation_fraction=0.2, hooks=[watch], stepper=SgdStepper(0.1)
    )
    for _ in range(2):
        model.fit(X, y)
        assert [row["watch.update"] for row in model.history_] == [0, 12, 24]
        assert all("validation.total_loss" in row for row in model.history_)
    assert "priority" not in vars(watch)
    schedule = ModifyStepperAttribute(Exponential(1.0, 0.5))
    model.set_params(hooks=[schedule, Watch("watch")]).fit(X, y)
    assert [row["watch.rate"] for row in model.history_] == [1, 0.5, 0.25]
    assert model.stepper.learning_rate == 0.1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"early_stopping": 0, "validation_fraction": 0},
            "early_stopping has to be a whole number",
        ),
        (
            {"early_stopping": True, "validation_fraction": 0},
            "early_stopping has to be a whole number",
        ),
        ({"validation_fraction": 1.0}, r"validation_fraction .* in \[0, 1\)"),
        ({"validation_fraction": "a"}, "validation_fraction has to be a finite"),
        ({"validation_fraction": 0.3}, "validation_fraction: 0.3 of 4 samples can not"),
        ({"hooks": Watch()}, "hooks: expected a list, got Watch"),
        ({"hooks": [3]}, "add_hook: expected a Hook, got 3"),
        ({"class_weight": "fair"}, "class_weight: expected a dict or 'balanced'"),
        ({"class_weight": {2: 1, 0: 1}}, "class_weight: there is no class 2"),
        ({"class_weight": {0: -1}}, "class_weight of 0 has to be a finite number >= 0"),
        ({"class_weight": {0: 0, 1: 0}}, "all samples weigh 0"),
    ],
)
def test_bad_new_arguments(arguments, text):
    model = NetworkClassifier("F2", 1, **arguments)
    with pytest.raises(ValueError, match=text):
        model.fit([[0.0], [1.0], [0.0], [1.0]], [0, 1, 1, 1])


def test_what_was_fitted_stays_when_another_fit_fails():
    X, y = load_iris(return_X_y=True)
    classifier = NetworkClassifier("F5", 2).fit(X, y)
    regressor = NetworkRegressor("F5", 2).fit(X, X)
    before = classifier.predict(X), regressor.predict(X)
    for model, targets in ((classifier, y % 2 + 7), (regressor, y)):
        with pytest.raises(ValueError, match="batch_size"):
            model.set_params(batch_size=0).fit(X, targets)
    np.testing.assert_array_equal(classifier.predict(X), before[0])
    np.testing.assert_array_equal(regressor.predict(X), before[1])


# -- going on ----------------------------------------------------------------


def test_warm_start():
    X, y = load_iris(return_X_y=True)
    model = NetworkClassifier("F5", 3, random_state=0, warm_start=True)
    model.set_params(stepper=SgdStepper(0.05)).fit(X, y)
    net, first = model.network_, model.network_.get("parameters")
    model.set_params(stepper__learning_rate=0.0).fit(X, y)
    assert model.network_ is net
    np.testing.assert_array_equal(net.get("parameters"), first)
    assert len(model.loss_curve_) == 6
    assert [row["epoch"] for row in model.history_] == [1, 2, 3, 4, 5, 6]
    assert model.loss_curve_[3] == pytest.approx(model.loss_curve_[5])
    with pytest.raises(ValueError, match="y: the classes are 0, 1, 2, got 3 as well"):
        model.fit(X, y + 1)
    with pytest.raises(ValueError, match="3 features"):
        model.fit(X[:, :3], y)
    assert model.score(X, y) > 0.5
    with pytest.raises(ValueError, match="was made by 'F5', not by 'F6'; warm_start"):
        copy.deepcopy(model).set_params(network="F6").fit(X, y)
    model.set_params(warm_start=False).fit(X[:, :3], y + 1)
    assert model.classes_.tolist() == [1, 2, 3]
    assert len(model.loss_curve_) == 3


@pytest.mark.parametrize("stepper", [None, NesterovStepper(0.05, 0.9)])
def test_partial_fit_goes_on(stepper):
    # One batch an epoch, so that their order does not count.
    X, y = load_iris(return_X_y=True)
    arguments = {"batch_size": 150, "random_state": 0, "stepper": stepper}
    whole = NetworkClassifier("F5", 4, **arguments).fit(X, y)
    model = NetworkClassifier("F5", hooks=[Watch("watch")], **arguments)
    model.partial_fit(X, y, classes=[2, 1, 0])
    model = pickle.loads(pickle.dumps(model.partial_fit(X, y)))
    model.partial_fit(X, y, classes=[0, 1, 2])
    model = copy.deepcopy(model).partial_fit(X[::-1], y[::-1])
    np.testing.assert_allclose(model.loss_curve_, whole.loss_curve_, rtol=1e-9)
    np.testing.assert_allclose(model.predict_proba(X), whole.predict_proba(X))
    assert [row["epoch"] for row in model.history_] == [0, 1, 2, 3, 4]
    assert [row["watch.update"] for row in model.history_] == [0, 1, 2, 3, 4]


def test_partial_fit_keeps_no_data():
    X = np.random.RandomState(0).randn(2000, 20)
    model = NetworkRegressor("", 1, early_stopping=2, random_state=0).fit(X, X[:, 0])
    assert len(pickle.dumps(model)) < X.nbytes / 10


def test_partial_fit_after_other_calls():
    X, y = load_iris(return_X_y=True)
    model = NetworkRegressor("F3", 3, early_stopping=2, random_state=0).fit(X, y)
    with pytest.raises(ValueError, match="early_stopping and validation_fraction are"):
        model.partial_fit(X, y)
    model.set_params(early_stopping=None, stepper__learning_rate=0.0)
    before = model.predict(X)
    model.partial_fit(X, y)
    np.testing.assert_array_equal(model.predict(X), before)
    assert [row["epoch"] for row in model.history_] == [0, 1, 2, 3, 4]
    model.set_params(stepper=SgdStepper(0.01)).partial_fit(X, y, sample_weight=y + 1)
    model.partial_fit(X, y)
    assert np.any(model.predict(X) != before)
    assert len(model.loss_curve_) == 6
    with pytest.raises(ValueError, match="y: expected"):
        model.partial_fit(X, X)


def test_bad_calls_of_partial_fit():
    X, y = [[0.0], [1.0]], [0, 1]
    model = NetworkClassifier("F2", class_weight="balanced")
    with pytest.raises(ValueError, match="the first call needs the classes"):
        model.partial_fit(X, y)
    with pytest.raises(ValueError, match="class_weight has to be a dict"):
        model.partial_fit(X, y, classes=[0, 1])
    model.set_params(class_weight=None)
    with pytest.raises(ValueError, match="y: the classes are 0, 2, got 1 as well"):
        model.partial_fit(X, y, classes=[0, 2])
    model.partial_fit(X, y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="the classes were 0, 1, 2, now they are 0, 1"):
        model.partial_fit(X, y, classes=[0, 1])
    assert model.partial_fit(X, [2, 2]).predict_proba(X).shape == (2, 3)


# -- weights -----------------------------------------------------------------


def own_network(nr_features, nr_outputs):
    inp = bs.layers.Input({"x": ("B", nr_features), "y": ("B", nr_outputs)})
    out = bs.layers.FullyConnected(nr_outputs, "linear", name="Out")
    error = bs.layers.SquaredError(name="Error")
    inp - "x" >> bs.layers.FullyConnected(4, "tanh") >> out >> error
    inp - "y" >> "targets" - error
    net = bs.Network.from_layer(error - "loss" >> bs.layers.Loss())
    net.initialize(bs.Gaussian(0.5))
    net.output_name = "Out.outputs.default"
    return net


@pytest.mark.parametrize("network", ["F6 B F5", "XR4", own_network])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_are_numbers_of_copies(network, dtype):
    # One batch an epoch: batches of other sizes would be others. The statistics of
    # a BatchNorm are those of the samples that are there, however they weigh.
    rnd = np.random.RandomState(0)
    X = rnd.randn(40, 3).astype(dtype)
    y = X @ rnd.randn(3, 2).astype(dtype)
    weights = rnd.randint(0, 4, 40) if network != "F6 B F5" else rnd.randint(0, 2, 40)
    make = lambda: NetworkRegressor(network, 20, 200, random_state=0)  # noqa: E731
    weighted = make().fit(X, y, 5 * weights)
    copies = make().fit(np.repeat(X, weights, axis=0), np.repeat(y, weights, axis=0))
    tolerance = {np.float32: 1e-3, np.float64: 1e-9}[dtype]
    np.testing.assert_allclose(weighted.loss_curve_, copies.loss_curve_, tolerance)
    np.testing.assert_allclose(
        weighted.predict(X), copies.predict(X), tolerance, tolerance
    )
    plain = make().fit(X, y)
    assert np.abs(weighted.predict(X) - plain.predict(X)).max() > 0.01
    alike = make().fit(X, y, np.full(40, 0.3))
    assert alike.loss_curve_ == plain.loss_curve_


def test_weights_in_validation():
    X, y = load_iris(return_X_y=True)
    weights = np.random.RandomState(1).rand(150)
    options = {"validation_fraction": 0.4, "random_state": 0}
    model = NetworkClassifier("F5", 2, **options).fit(X, y, weights)
    rnd = np.random.RandomState(0)
    rnd.randint(2**31 - 1, size=3)
    _, test = train_test_split(
        np.arange(150), test_size=0.4, random_state=rnd, stratify=y
    )
    losses = -np.log(model.predict_proba(X)[test, y[test]])
    expected = np.average(losses, weights=weights[test])
    assert model.history_[-1]["validation.total_loss"] == pytest.approx(expected)


def test_class_weights():
    rnd = np.random.RandomState(0)
    X, y = rnd.randn(90, 2), np.repeat(["a", "b", "c"], [60, 20, 10])
    make = lambda w: NetworkClassifier("F4", 5, random_state=0, class_weight=w)  # noqa: E731
    given = np.repeat([1.0, 3.0, 6.0], [60, 20, 10])
    expected = make(None).fit(X, y, given).loss_curve_
    for weights in ("balanced", {"b": 3, "c": 6}, {"a": 0.5, "b": 1.5, "c": 3}):
        curve = make(weights).fit(X, y).loss_curve_
        np.testing.assert_allclose(curve, expected, rtol=1e-9)
    assert make({"a": 1, "b": 1, "c": 1, "d": 2}).fit(X, y).loss_curve_ == (
        make(None).fit(X, y).loss_curve_
    )
    # What is balanced are the weights of the samples.
    weights = rnd.randint(1, 4, 90)
    rows = np.repeat(np.arange(90), weights)
    arguments = {"batch_size": 500, "class_weight": "balanced", "random_state": 0}
    weighted = NetworkClassifier("F4", 5, **arguments).fit(X, y, weights)
    copies = NetworkClassifier("F4", 5, **arguments).fit(X[rows], y[rows])
    np.testing.assert_allclose(weighted.loss_curve_, copies.loss_curve_, rtol=1e-9)
    without = make({"c": 0}).fit(X, y)
    assert without.classes_.tolist() == ["a", "b", "c"]
    assert not np.any(without.predict(X) == "c")


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ([1, -1], "sample_weight: expected numbers of at least 0, got -1"),
        ([0, 0], "all samples weigh 0|at least one non-zero"),
        ([1, 2, 3], "sample_weight.shape"),
        ([1, np.nan], "NaN"),
    ],
)
def test_bad_weights(weights, text):
    for model in (NetworkClassifier("", 1), NetworkRegressor("", 1)):
        with pytest.raises(ValueError, match=text):
            model.fit([[0.0], [1.0]], [0, 1], sample_weight=weights)

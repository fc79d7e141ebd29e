"""Networks as estimators of scikit-learn."""

import pickle

import numpy as np
import pytest

import brainstorm as bs
from brainstorm.training import SgdStepper

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from brainstorm.estimators import NetworkClassifier, NetworkRegressor


@parametrize_with_checks(
    [NetworkClassifier(random_state=0), NetworkRegressor(random_state=0)]
)
def test_checks_of_scikit_learn(estimator, check):
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

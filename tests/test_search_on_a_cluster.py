"""Estimators in searches on a cluster of Dask, as the documentation shows them."""

import textwrap

import numpy as np
import pytest

import brainstorm as bs
from tests.test_docs import BLOCK, DOCS

pytest.importorskip("sklearn")
pytest.importorskip("distributed")

import distributed
import joblib
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_validate

from brainstorm.estimators import NetworkClassifier, NetworkRegressor

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    """Two processes of one thread each."""
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        dashboard_address=None,
    ) as cluster:
        yield cluster


@pytest.fixture
def on_dask(cluster):
    with distributed.Client(cluster), joblib.parallel_config(backend="dask"):
        yield cluster


def data():
    rnd = np.random.RandomState(1)
    X = rnd.randn(60, 4)
    return X, (X[:, 0] * X[:, 1] > 0).astype(int)


def own_network(nr_features, nr_outputs):
    inp, out = bs.tools.get_in_out_layers("classification", nr_features, nr_outputs)
    hidden = bs.layers.FullyConnected(7, activation="tanh")
    return bs.Network.from_layer(inp >> hidden >> bs.layers.Dropout(0.2) >> out)


def test_the_search_of_the_documentation_is_that_of_one_process(cluster, monkeypatch):
    text = (DOCS / "how_to" / "search.rst").read_text(encoding="utf-8")
    first, *_, with_dask = (
        textwrap.dedent(match["code"])
        for match in BLOCK.finditer(text)
        if ">>>" not in match["code"]
    )
    monkeypatch.setattr("dask.distributed.LocalCluster", lambda **sizes: cluster)
    monkeypatch.setattr(type(cluster), "close", lambda self: None)
    scope = {"__name__": "__main__"}
    exec(first, scope)
    alone = scope["search"]
    scope["search"] = clone(alone)
    exec(with_dask, scope)
    search = scope["search"]
    assert search is not alone
    for name, values in alone.cv_results_.items():
        if name.endswith("score"):
            np.testing.assert_array_equal(search.cv_results_[name], values, name)
    assert search.best_params_ == alone.best_params_


@pytest.mark.parametrize(
    "make",
    [
        lambda: NetworkClassifier("F9 D F5", epochs=3, random_state=3),
        lambda: NetworkClassifier(
            own_network,
            epochs=3,
            random_state=3,
            stepper=bs.training.MomentumStepper(0.05, momentum=0.5),
            early_stopping=2,
        ),
        lambda: NetworkRegressor("F6", epochs=3, random_state=3),
    ],
)
def test_fitted_estimators_come_back_the_same(make, on_dask):
    X, y = data()
    found = cross_validate(make(), X, y, cv=3, return_estimator=True)
    with joblib.parallel_config(backend="sequential"):
        expected = cross_validate(make(), X, y, cv=3, return_estimator=True)
    np.testing.assert_array_equal(found["test_score"], expected["test_score"])
    for one, other in zip(found["estimator"], expected["estimator"], strict=True):
        np.testing.assert_array_equal(
            one.network_.get("parameters"), other.network_.get("parameters")
        )
        np.testing.assert_array_equal(one.predict(X), other.predict(X))


def test_workers_share_the_candidates(on_dask):
    def where(estimator, X, y):
        worker = distributed.get_worker()
        return 1000 * worker.state.nthreads + worker.name

    search = GridSearchCV(
        NetworkClassifier("F4", epochs=1, random_state=1),
        {"network": ["F4", "F5", "F6", "F7"], "epochs": [5, 6]},
        scoring=where,
        refit=False,
        cv=2,
    )
    search.fit(*data())
    places = {
        search.cv_results_[f"split{i}_test_score"][j] for i in (0, 1) for j in range(8)
    }
    assert places <= {1000, 1001}  # one thread each

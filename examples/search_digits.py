"""Search for good settings of a network on several processes, or machines, by Dask
================================================================================

A search of scikit-learn hands its trainings to processes that wait for work. These two
lines start two of them on this machine::

    pip install "dask[distributed]"
    python examples/search_digits.py

On a cluster start ``dask scheduler`` on one machine, ``dask worker
tcp://ADDRESS:8786 --nthreads 1`` on the others, and give this script ``--scheduler
tcp://ADDRESS:8786``. The data are the digits that come with scikit-learn.
"""

import contextlib

import joblib
from common import load_data, parse_arguments
from sklearn.model_selection import GridSearchCV

from brainstorm.estimators import NetworkClassifier


def main() -> None:
    """Search, and tell how well each setting did."""
    scheduler = "", "address of a Dask scheduler, for a cluster that runs already"
    args = parse_arguments(__doc__, epochs=10, scheduler=scheduler)
    if args.gpu:
        raise SystemExit("--gpu: estimators compute on the CPU")
    data = load_data(args.data, "Digits")
    X = data["training"]["default"][0].reshape(-1, 64)
    y = data["training"]["targets"][0].reshape(-1).astype(int)

    classifier = NetworkClassifier(
        epochs=args.epochs, batch_size=20, random_state=args.seed
    )
    settings = {"network": ["F30", "F100"], "stepper__learning_rate": [0.001, 0.01]}
    search = GridSearchCV(classifier, settings, cv=3)

    from dask.distributed import Client, LocalCluster  # for nothing but this

    with contextlib.ExitStack() as opened:
        cluster = args.scheduler or opened.enter_context(
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
        )
        client = opened.enter_context(Client(cluster))
        print(f"workers: {len(client.scheduler_info()['workers'])}")
        # Each of them gets the data once, and fits networks to parts of them.
        opened.enter_context(joblib.parallel_config(backend="dask", scatter=[X, y]))
        search.fit(X, y)

    for setting, score in zip(
        search.cv_results_["params"],
        search.cv_results_["mean_test_score"],
        strict=True,
    ):
        print(f"{setting}: {score:.3f}")
    test_X = data["test"]["default"][0].reshape(-1, 64)
    test_y = data["test"]["targets"][0].reshape(-1).astype(int)
    print(f"test accuracy: {search.score(test_X, test_y):.3f}")


# Processes that are started import this script.
if __name__ == "__main__":
    main()

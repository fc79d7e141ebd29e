"""Networks as estimators of scikit-learn, for its pipelines, searches and so on.

Needs `scikit-learn <https://scikit-learn.org>`_, and is not imported with
``brainstorm``:

>>> from brainstorm.estimators import NetworkClassifier
>>> classifier = NetworkClassifier('F20', epochs=30, random_state=1)
>>> X, y = [[0.0, 1.0], [1.0, 0.0]] * 20, ['left', 'right'] * 20
>>> classifier.fit(X, y).predict([[0.1, 0.9]])
array(['left'], dtype='<U5')
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from brainstorm.describable import create_from_description, get_description
from brainstorm.handlers import NumpyHandler, default_handler
from brainstorm.randomness import RandomState, global_rnd
from brainstorm.structure.network import Network
from brainstorm.structure.turns import Turns
from brainstorm.tools import create_net_from_spec
from brainstorm.training import AdamStepper, Trainer, TrainingStepper
from brainstorm.utils import ValidationError, missing_extra

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise missing_extra("brainstorm.estimators", "scikit-learn", "sklearn") from error

__all__ = ["NetworkClassifier", "NetworkRegressor"]

_SEEDING = Turns()
DTYPES = [np.float64, np.float32]


@dataclass(eq=False, repr=False)
class _NetworkEstimator(BaseEstimator):
    """What both estimators share."""

    network: str | Callable[[int, int], Network] = "F100"
    epochs: int = 100
    batch_size: int = 32
    stepper: TrainingStepper | None = None
    random_state: Any = None
    verbose: bool = False

    def _train(self, task: str, X: np.ndarray, y: np.ndarray, nr_outputs: int) -> None:
        rnd = check_random_state(self.random_state)
        seeds = rnd.randint(2**31 - 1, size=3).tolist()
        net = self._make_network(task, X.shape[1], nr_outputs, seeds[0])
        # A handler of its own: the default one belongs to everybody.
        if X.dtype == np.float64:
            net.set_handler(NumpyHandler(np.float64, seed=seeds[1]))
        else:
            described = {**get_description(default_handler), "seed": seeds[1]}
            net.set_handler(create_from_description(described))
        stepper = AdamStepper(0.01) if self.stepper is None else self.stepper
        options = {"stepper": copy.deepcopy(stepper), "seed": seeds[2]}
        options |= {"epochs": self.epochs, "batch_size": self.batch_size}
        trainer = Trainer.fit(net, X, y, verbose=self.verbose, **options)
        self.network_ = net
        log = trainer.logs.get("rolling_training", {"total_loss": []})
        self.loss_curve_ = log["total_loss"]

    def _make_network(
        self, task: str, nr_features: int, nr_outputs: int, seed: int
    ) -> Network:
        if isinstance(self.network, str):
            net = create_net_from_spec(task, nr_features, nr_outputs, self.network)
            net.initialize(create_from_description(net.initializers), seed=seed)
            return net
        net = None
        if callable(self.network):
            seeded = self.random_state is not None
            with _seeding(seed) if seeded else contextlib.nullcontext():
                net = self.network(nr_features, nr_outputs)
        if not isinstance(net, Network):
            raise ValidationError(
                "network: expected a line like 'F100', or a function that makes a"
                f" Network, got {self.network!r}"
            )
        return net

    def _outputs(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=DTYPES)
        return self.network_.predict(X)


@contextlib.contextmanager
def _seeding(seed: int) -> Iterator[None]:
    """Have what is drawn from `global_rnd` determined, for a while."""
    with _SEEDING:
        before = global_rnd.get_state()
        global_rnd.set_state(RandomState(seed).get_state())
        try:
            yield
        finally:
            global_rnd.set_state(before)


class NetworkClassifier(ClassifierMixin, _NetworkEstimator):
    """Classifies with a network, trained on the cross-entropy of the classes.

    Data in float32 is computed with the default handler, all other in float64.

    Args:
        network: A line for `tools.create_net_from_spec`, such as ``'D.2 F100 D F50'``;
            or a function that makes a network, given the numbers of
            features and of classes.
        epochs: Number of epochs.
        batch_size: Number of samples in a batch.
        stepper: Does the updates. Default: ``AdamStepper(0.01)``.
        random_state: Seed of initial weights, shuffling and dropout, as in
            scikit-learn; and of what a function `network` draws from
            `brainstorm.global_rnd`.
        verbose: Whether to print how the training goes.

    Attributes:
        classes_ (ndarray): The classes.
        network_ (Network): The trained network.
        loss_curve_ (list[float]): The loss in each epoch.
    """

    def fit(self, X: Any, y: Any) -> NetworkClassifier:
        """Train a new network.

        Args:
            X: Samples (B, F).
            y: Their classes (B,), numbers or texts.

        Returns:
            This estimator.
        """
        X, y = validate_data(self, X, y, dtype=DTYPES)
        check_classification_targets(y)
        self.classes_, indices = np.unique(y, return_inverse=True)
        # With a single class there is one more that never comes.
        self._train("classification", X, indices, max(2, len(self.classes_)))
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probabilities (B, C) of the classes for samples (B, F)."""
        outputs = self._outputs(X)[:, : len(self.classes_)]
        return outputs / outputs.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable classes (B,) for samples (B, F)."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]


class NetworkRegressor(RegressorMixin, _NetworkEstimator):
    """Predicts numbers with a network, trained on the squared error.

    Features and targets should have a scale of about 1. Data in float32 is computed
    with the default handler, all other in float64.

    Args:
        network: A line for `tools.create_net_from_spec`, such as ``'F100 F50'``; or a
            function that makes a network, given the numbers of features
            and of targets.
        epochs, batch_size, stepper, random_state, verbose: See
            :class:`NetworkClassifier`.

    Attributes:
        network_ (Network): The trained network.
        loss_curve_ (list[float]): The loss in each epoch.
    """

    def fit(self, X: Any, y: Any) -> NetworkRegressor:
        """Train a new network.

        Args:
            X: Samples (B, F).
            y: Their targets, (B,) or (B, N).

        Returns:
            This estimator.
        """
        X, y = validate_data(
            self, X, y, dtype=DTYPES, multi_output=True, y_numeric=True
        )
        self._single = y.ndim == 1
        y = y.reshape(len(y), -1)
        self._train("regression", X, y, y.shape[1])
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The targets, (B,) or (B, N), for samples (B, F)."""
        outputs = self._outputs(X)
        return outputs[:, 0] if self._single else outputs

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

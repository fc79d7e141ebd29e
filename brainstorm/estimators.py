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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from brainstorm.checks import check_number
from brainstorm.describable import create_from_description, get_description
from brainstorm.handlers import Handler, NumpyHandler, default_handler
from brainstorm.hooks.base_hook import Hook
from brainstorm.literals import TaskType
from brainstorm.randomness import RandomState, global_rnd
from brainstorm.structure.network import Network
from brainstorm.structure.turns import Turns
from brainstorm.tools import create_net_from_spec
from brainstorm.training import AdamStepper, Trainer, TrainingStepper
from brainstorm.training.declared import arguments_of, with_arguments
from brainstorm.training.fitting import shuffled_batches, train_epochs
from brainstorm.training.history import History
from brainstorm.training.resuming import restore, state_of
from brainstorm.training.utils import ROLLING
from brainstorm.training.weighting import Samples, weights_of_classes
from brainstorm.utils import ValidationError, listing, missing_extra

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.model_selection import train_test_split
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import (
        _check_sample_weight,
        check_is_fitted,
        validate_data,
    )
except ImportError as error:
    raise missing_extra("brainstorm.estimators", "scikit-learn", "sklearn") from error

__all__ = ["NetworkClassifier", "NetworkRegressor"]

_SEEDING = Turns()
DTYPES = [np.float64, np.float32]
STEPPER = "stepper__"


@dataclass(eq=False, repr=False)
class _NetworkEstimator(BaseEstimator):
    """What both estimators share."""

    network: str | Callable[[int, int], Network] = "F100"
    epochs: int = 100
    batch_size: int = 32
    stepper: TrainingStepper | None = None
    random_state: Any = None
    verbose: bool | int = False
    early_stopping: int | None = None
    validation_fraction: float | None = None
    hooks: Sequence[Hook] = ()
    warm_start: bool = False

    # -- arguments of the stepper ----------------------------------------------

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments by name; those of the stepper as ``stepper__learning_rate``.

        Args:
            deep: Whether to list those of the stepper.
        """
        params = super().get_params(deep)
        if deep:
            inner = arguments_of(self._stepper())
            params |= {STEPPER + name: value for name, value in inner.items()}
        return params

    def set_params(self, **params: Any) -> Any:
        """Set arguments by name, as `get_params` lists them.

        Arguments of the stepper make a new one: the one that was given stays as it is.

        Returns:
            This estimator.

        Raises:
            ValidationError: There is no such argument, or it may not have this value.
        """
        inner = {n: v for n, v in params.items() if n.startswith(STEPPER)}
        own = {n: v for n, v in params.items() if n not in inner}
        if inner:
            own["stepper"] = with_arguments(self._stepper(own), inner, STEPPER)
        return super().set_params(**own)

    def _stepper(self, params: Mapping[str, Any] | None = None) -> Any:
        stepper = (params or {}).get("stepper", self.stepper)
        return AdamStepper(0.01) if stepper is None else stepper

    # -- training --------------------------------------------------------------

    def _goes_on(self) -> bool:
        """Whether `fit` begins with the network that is there."""
        return self.warm_start and hasattr(self, "network_")

    def _kept_network(self) -> Network:
        if self.network != self._given_network:
            raise ValidationError(
                f"network: the one to go on with was made by {self._given_network!r},"
                f" not by {self.network!r}; warm_start=False makes a new one"
            )
        return self.network_

    def _train(
        self,
        task: TaskType,
        samples: Samples,
        nr_outputs: int,
        epochs: int | None = None,
    ) -> None:
        """Train anew; from the parameters that are there if it is to be so."""
        rnd = check_random_state(self.random_state)
        seeds = rnd.randint(2**31 - 1, size=3).tolist()
        goes_on = self._goes_on()
        if goes_on:
            net = self._kept_network()
        else:
            net = self._make_network(task, samples.X.shape[1], nr_outputs, seeds[0])
            net.set_handler(_handler(samples.X.dtype, seeds[1]))
        samples, held_out = self._split(samples, task == "classification", rnd)
        net = samples.prepared(net)
        if not isinstance(self.hooks, list | tuple):
            raise ValidationError(f"hooks: expected a list, got {self.hooks!r}")
        hooks = copy.deepcopy(list(self.hooks))
        trainer = Trainer.fit(
            net,
            *samples.for_net(net),
            self.epochs if epochs is None else epochs,
            self.batch_size,
            copy.deepcopy(self._stepper()),
            seed=seeds[2],
            verbose=self.verbose,
            validation_data=None if held_out is None else held_out.for_net(net),
            hooks=hooks,
            early_stopping=self.early_stopping,
        )
        self._remember(net, trainer, 0, keeps=goes_on)
        # Those of the validation and of the stopping are for this call alone.
        own = {id(hook) for hook in hooks}
        trainer.hooks = {n: h for n, h in trainer.hooks.items() if id(h) in own}
        self._rnd = rnd

    def _train_on(self, task: TaskType, samples: Samples, nr_outputs: int) -> None:
        """Train for an epoch more, from where the training stands."""
        if self.early_stopping is not None or self.validation_fraction:
            raise ValidationError(
                "partial_fit trains on all samples, for one epoch: early_stopping and"
                " validation_fraction are for fit"
            )
        if not hasattr(self, "network_"):
            self._train(task, samples, nr_outputs, epochs=1)
            return
        net, trainer = samples.prepared(self._kept_network()), self._trainer
        if repr(self.stepper) != self._given_stepper:
            stepper = copy.deepcopy(self._stepper())
            if type(stepper) is type(trainer.stepper):
                restore(stepper, state_of(trainer.stepper))
            trainer.stepper = stepper
        elif net is not self.network_:
            restore(trainer.stepper, state_of(trainer.stepper))
        trainer.verbose = self.verbose
        rnd = RandomState(int(self._rnd.randint(2**31 - 1)))
        data = shuffled_batches(net, *samples.for_net(net), self.batch_size, rnd)
        start = trainer.current_epoch_nr
        train_epochs(trainer, net, data, 1)
        self._remember(net, trainer, start, keeps=True)

    def _remember(
        self, net: Network, trainer: Trainer, start: int, keeps: bool
    ) -> None:
        """Keep what was trained, and the logs of the epochs after `start`."""
        losses, rows = (self.loss_curve_, self.history_) if keeps else ([], [])
        shift = len(losses) - start
        new = [
            {**row, "epoch": row["epoch"] + shift}
            for row in trainer.history
            if row["epoch"] > start or not rows
        ]
        log = trainer.logs.get(ROLLING, {"total_loss": []})["total_loss"]
        self.network_: Network = net
        self.loss_curve_: list[float] = [*losses, *log[start:]]
        self._trainer: Trainer = trainer
        self.history_: History = History([*rows, *new])
        self._given_network, self._given_stepper = self.network, repr(self.stepper)
        # The data are not to be pickled.
        trainer._iterators = {}

    def _split(
        self, samples: Samples, stratify: bool, rnd: np.random.RandomState
    ) -> tuple[Samples, Samples | None]:
        """The samples to train on, and those to validate with, if any."""
        share = self.validation_fraction
        if share is None:
            share = 0 if self.early_stopping is None else 0.1
        if not check_number(self, "validation_fraction", share, 0, 1):
            return samples, None
        rows = np.arange(len(samples.X))
        classes = samples.y if stratify else None
        try:
            train, test = train_test_split(
                rows, test_size=float(share), random_state=rnd, stratify=classes
            )
        except ValueError as error:
            raise ValidationError(
                f"validation_fraction: {share} of {len(rows)} samples can not be set"
                f" aside: {error}"
            ) from error
        return samples[train], samples[test]

    def _make_network(
        self, task: TaskType, nr_features: int, nr_outputs: int, seed: int
    ) -> Network:
        if isinstance(self.network, str):
            net = create_net_from_spec(task, nr_features, nr_outputs, self.network)
            net.initialize(create_from_description(net.initializers), seed=seed)
            return net
        made: Any = None
        if callable(self.network):
            seeded = self.random_state is not None
            with _seeding(seed) if seeded else contextlib.nullcontext():
                made = self.network(nr_features, nr_outputs)
        if not isinstance(made, Network):
            raise ValidationError(
                "network: expected a line like 'F100', or a function that makes a"
                f" Network, got {self.network!r}"
            )
        return made

    def _outputs(self, X: Any) -> np.ndarray:
        check_is_fitted(self, "network_")
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


def _weighted(X: np.ndarray, y: np.ndarray, sample_weight: Any) -> Samples:
    if sample_weight is None:
        return Samples(X, y)
    weights = _check_sample_weight(sample_weight, X, dtype=np.float64)
    if np.any(weights < 0):
        raise ValidationError(
            f"sample_weight: expected numbers of at least 0, got {weights.min()}"
        )
    return Samples(X, y).weighted(weights)


def _handler(dtype: np.dtype, seed: int) -> Handler:
    """A handler of its own: the default one belongs to everybody."""
    if dtype == np.float64:
        return NumpyHandler(np.float64, seed=seed)
    described = {**get_description(default_handler), "seed": seed}
    return create_from_description(described)


@dataclass(eq=False, repr=False)
class NetworkClassifier(ClassifierMixin, _NetworkEstimator):
    """Classifies with a network, trained on the cross-entropy of the classes.

    Data in float32 is computed with the default handler, all other in float64.

    Args:
        network: A line for `tools.create_net_from_spec`, such as ``'D.2 F100 D F50'``;
            or a function that makes a network, given the numbers of
            features and of classes.
        epochs: Number of epochs.
        batch_size: Number of samples in a batch.
        stepper: Does the updates. Default: ``AdamStepper(0.01)``. Its arguments are
            arguments of this estimator too, in `get_params`, `set_params` and
            searches: ``stepper__learning_rate``.
        random_state: Seed of initial weights, shuffling and dropout, as in
            scikit-learn; and of what a function `network` draws from
            `brainstorm.global_rnd`.
        verbose: What to print of the training, see :class:`.Trainer`.
        early_stopping: After how many epochs in which the loss has not been better to
            stop, that of samples that were set aside if there are some. The network
            gets the parameters back with which it was best.
        validation_fraction: Share of the samples to set aside and validate with after
            each epoch, of all classes alike; hooks find them as ``'validation'``.
            Default: 0.1 with `early_stopping`, otherwise 0.
        hooks: Hooks for the trainer. Each `fit` works with copies of them.
        warm_start: Whether `fit` begins with the parameters that `fit` or `partial_fit`
            has left. Stepper and hooks begin anew.
        class_weight: Weights of the classes, a dict of those that are not 1;
            ``'balanced'`` gives all classes the same weight in total.

    Attributes:
        classes_ (ndarray): The classes.
        network_ (Network): The trained network.
        loss_curve_ (list[float]): The loss in each epoch.
        history_ (History): What was logged in each epoch, see :attr:`.Trainer.history`.
    """

    class_weight: Mapping[Any, float] | Literal["balanced"] | None = None

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> NetworkClassifier:
        """Train a new network.

        Args:
            X: Samples (B, F).
            y: Their classes (B,), numbers or texts.
            sample_weight: Weights (B,) of the samples in the loss, relative to their
                mean. Those of 0 count as if they were not there.

        Returns:
            This estimator.
        """
        goes_on = self._goes_on()
        samples = self._samples(X, y, sample_weight, reset=not goes_on)
        classes = self.classes_ if goes_on else np.unique(samples.y)
        self._train(*self._coded(samples, classes))
        self.classes_: np.ndarray = classes
        return self

    def partial_fit(
        self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None
    ) -> NetworkClassifier:
        """Train for one epoch more; stepper, hooks and logs go on.

        Args:
            X: Samples (B, F).
            y: Their classes (B,).
            classes: All classes that will ever come; the first call needs them.
            sample_weight: As in `fit`, relative to the mean of these samples.

        Returns:
            This estimator.
        """
        first = not hasattr(self, "network_")
        if first and classes is None:
            raise ValidationError("partial_fit: the first call needs the classes")
        if self.class_weight == "balanced":
            raise ValidationError(
                "partial_fit does not know all samples: class_weight has to be a dict,"
                " not 'balanced'"
            )
        samples = self._samples(X, y, sample_weight, reset=first)
        classes = self.classes_ if classes is None else np.unique(classes)
        if not first and not np.array_equal(classes, self.classes_):
            raise ValidationError(
                f"partial_fit: the classes were {listing(self.classes_.tolist())}, now"
                f" they are {listing(classes.tolist())}"
            )
        self._train_on(*self._coded(samples, classes))
        self.classes_ = classes
        return self

    def _samples(self, X: Any, y: Any, sample_weight: Any, reset: bool) -> Samples:
        X, y = validate_data(self, X, y, dtype=DTYPES, reset=reset)
        check_classification_targets(y)
        return _weighted(X, y, sample_weight)

    def _coded(
        self, samples: Samples, classes: np.ndarray
    ) -> tuple[TaskType, Samples, int]:
        """What to train: the samples with numbers for classes, weighted by class."""
        names = classes.tolist()
        unknown = np.setdiff1d(samples.y, classes).tolist()
        if unknown:
            raise ValidationError(
                f"y: the classes are {listing(names)}, got {listing(unknown)} as well"
            )
        indices = np.searchsorted(classes, samples.y)
        samples = Samples(samples.X, indices, samples.weights)
        if self.class_weight is not None:
            weights = samples.weights
            weights = np.ones(len(indices)) if weights is None else weights
            by_class = weights_of_classes(self.class_weight, names, indices, weights)
            samples = samples.weighted(weights * by_class[indices])
        # With a single class there is one more that never comes.
        return "classification", samples, max(2, len(names))

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
        early_stopping, validation_fraction, hooks, warm_start: Likewise.

    Attributes:
        network_ (Network): The trained network.
        loss_curve_ (list[float]): The loss in each epoch.
        history_ (History): What was logged in each epoch, see :attr:`.Trainer.history`.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> NetworkRegressor:
        """Train a new network.

        Args:
            X: Samples (B, F).
            y: Their targets, (B,) or (B, N).
            sample_weight: See :meth:`NetworkClassifier.fit`.

        Returns:
            This estimator.
        """
        samples, shape = self._samples(X, y, sample_weight, not self._goes_on())
        self._train("regression", samples, samples.y.shape[1])
        self._shape = shape
        return self

    def partial_fit(
        self, X: Any, y: Any, sample_weight: Any = None
    ) -> NetworkRegressor:
        """Train for one epoch more; stepper, hooks and logs go on.

        Args:
            X: Samples (B, F).
            y: Their targets, (B,) or (B, N).
            sample_weight: As in `fit`, relative to the mean of these samples.

        Returns:
            This estimator.
        """
        first = not hasattr(self, "network_")
        samples, shape = self._samples(X, y, sample_weight, first)
        self._train_on("regression", samples, samples.y.shape[1])
        self._shape = shape
        return self

    def _samples(
        self, X: Any, y: Any, sample_weight: Any, reset: bool
    ) -> tuple[Samples, tuple[int, ...]]:
        checks = {"dtype": DTYPES, "multi_output": True, "y_numeric": True}
        X, y = validate_data(self, X, y, reset=reset, **checks)
        shape = y.shape[1:]
        if not reset and shape != self._shape:
            raise ValidationError(
                f"y: expected {self._shape} targets for each sample, as before, got"
                f" {shape}"
            )
        return _weighted(X, y.reshape(len(y), -1), sample_weight), shape

    def predict(self, X: Any) -> np.ndarray:
        """The targets, (B,) or (B, N), for samples (B, F)."""
        outputs = self._outputs(X)
        return outputs if self._shape else outputs[:, 0]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

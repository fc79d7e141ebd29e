"""Scorers of classes, and of whole data sets, against those of scikit-learn."""

import functools
import json
import math

import numpy as np
import pytest

import brainstorm as bs
from brainstorm import layers
from brainstorm.describable import create_from_description, get_description
from brainstorm.scorers import (
    F1,
    AveragePrecision,
    ConfusionMatrix,
    DataSetScorer,
    Perplexity,
    Precision,
    Recall,
    RocAuc,
    Score,
    TopKAccuracy,
    aggregate_losses_and_scores,
    gather_losses_and_scores,
)
from brainstorm.utils import DescriptionError, ValidationError

metrics = pytest.importorskip("sklearn.metrics")

N = 103
OUT = "Out.outputs.default"
AVERAGES = ["macro", "micro", "weighted", None]
pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.UndefinedMetricWarning"
)


def make(columns, classes=None, seed=0):
    """Targets, predictions with ties, and weights of which some are 0."""
    rnd = np.random.RandomState(seed)
    predicted = rnd.randint(0, 9, (N, columns)) / 8
    predicted /= 1 if columns == 1 else predicted.sum(axis=1, keepdims=True) + 1e-9
    labels = rnd.randint(0, classes or max(columns, 2), (N, 1))
    # Better than chance, so that scores differ.
    own = labels == np.arange(columns) if columns > 1 else labels
    predicted += own * (rnd.rand(N, 1) < 0.3) * 0.25
    weights = rnd.randint(0, 4, (N, 1)) / 2
    return labels, predicted, weights


def identity(columns, targets=1):
    """A network whose output is its input."""
    inp = layers.Input(
        {"default": ("B", columns), "targets": ("B", targets), "mask": ("B", 1)}
    )
    net = bs.Network.from_layer(inp >> layers.NoOp(name="Out"))
    net.set_handler(bs.handlers.NumpyHandler(np.float64))
    return net


def scored(scorer, labels, predicted, weights=None, batch_size=30):
    """The score of a data set in batches, the last of which is smaller."""
    net, scores = identity(predicted.shape[1], labels.shape[1]), {}
    mask = np.ones((len(labels), 1)) if weights is None else weights
    for start in range(0, len(labels), batch_size):
        part = slice(start, start + batch_size)
        net.provide_external_data(
            {"default": predicted[part], "targets": labels[part], "mask": mask[part]}
        )
        net.forward_pass()
        name = None if weights is None else "mask"
        gather_losses_and_scores(net, [scorer], scores, OUT, mask_name=name)
    return aggregate_losses_and_scores(scores, net, [scorer])[scorer.__name__]


def same(ours, theirs):
    assert ours == pytest.approx(theirs, rel=1e-9, nan_ok=True)


def flat(weights):
    return None if weights is None else weights[:, 0]


WEIGHTED = pytest.mark.parametrize("weighted", [False, True])


# -- counts --------------------------------------------------------------------

PAIRS = [
    (Precision, metrics.precision_score),
    (Recall, metrics.recall_score),
    (F1, metrics.f1_score),
]


@WEIGHTED
@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize(("scorer", "function"), PAIRS)
@pytest.mark.parametrize("classes", [4, 3])
def test_counts_of_several_classes(scorer, function, average, weighted, classes):
    labels, predicted, weights = make(4, classes)
    if classes == 3:  # and class 2 is never predicted, class 3 is nowhere
        predicted[:, 2:] = -1
    weights = weights if weighted else None
    expected = function(
        labels[:, 0],
        predicted.argmax(axis=1),
        labels=range(4) if average is None else None,
        average=average,
        sample_weight=flat(weights),
    )
    same(scored(scorer(average), labels, predicted, weights), expected)
    one_hot = np.eye(4)[labels[:, 0]]
    same(scored(scorer(average), one_hot, predicted, weights), expected)


@WEIGHTED
@pytest.mark.parametrize(("scorer", "function"), PAIRS)
@pytest.mark.parametrize("columns", [1, 2])
def test_counts_of_two_classes(scorer, function, columns, weighted):
    labels, predicted, weights = make(columns)
    weights = weights if weighted else None
    chosen = predicted.argmax(axis=1) if columns == 2 else predicted[:, 0] >= 0.5
    for average in ("binary", "macro"):
        expected = function(
            labels[:, 0],
            chosen.astype(int),
            average=average,
            sample_weight=flat(weights),
        )
        same(scored(scorer(average), labels, predicted, weights), expected)
    assert scorer("binary")(labels, predicted).tolist() == (
        scorer()(labels, predicted).tolist()
    )


@WEIGHTED
@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize(("scorer", "function"), PAIRS)
def test_counts_of_labels(scorer, function, average, weighted):
    _, predicted, weights = make(2)
    labels = np.random.RandomState(1).randint(0, 2, (N, 2))
    weights = weights if weighted else None
    expected = function(
        labels,
        (predicted >= 0.4).astype(int),
        average=average,
        sample_weight=flat(weights),
    )
    scorer = scorer(average, multilabel=True, threshold=0.4)
    same(scored(scorer, labels, predicted, weights), expected)


@WEIGHTED
@pytest.mark.parametrize("columns", [1, 2, 5])
def test_confusion_matrices(columns, weighted):
    labels, predicted, weights = make(columns, seed=3)
    weights = weights if weighted else None
    chosen = predicted.argmax(axis=1) if columns > 1 else predicted[:, 0] >= 0.5
    expected = metrics.confusion_matrix(
        labels, chosen.astype(int), sample_weight=flat(weights)
    )
    assert scored(ConfusionMatrix(), labels, predicted, weights) == expected.tolist()


@pytest.mark.parametrize("scorer", [Precision, Recall, F1])
def test_nothing_positive_scores_zero_without_a_warning(scorer):
    labels, predicted = np.zeros((4, 1)), np.zeros((4, 1))
    assert scored(scorer(), labels, predicted) == 0.0


# -- rankings ------------------------------------------------------------------


@WEIGHTED
@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize(
    ("scorer", "function"),
    [
        (RocAuc, metrics.roc_auc_score),
        (AveragePrecision, metrics.average_precision_score),
    ],
)
def test_rankings_of_two_classes(scorer, function, columns, weighted):
    labels, predicted, weights = make(columns)
    weights = weights if weighted else None
    expected = function(labels[:, 0], predicted[:, -1], sample_weight=flat(weights))
    same(scored(scorer(), labels, predicted, weights), expected)


@WEIGHTED
@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("one_hot", [False, True])
def test_rankings_of_several_classes(average, one_hot, weighted):
    labels, predicted, weights = make(4)
    predicted /= predicted.sum(axis=1, keepdims=True)  # as scikit-learn demands
    targets = np.eye(4)[labels[:, 0]] if one_hot else labels
    weights = weights if weighted else None
    of_auc = {"average": average, "sample_weight": flat(weights)}
    if average == "micro" or (weighted and average is None):
        auc = metrics.roc_auc_score(np.eye(4)[labels[:, 0]], predicted, **of_auc)
    else:
        auc = metrics.roc_auc_score(
            labels[:, 0], predicted, multi_class="ovr", **of_auc
        )
    same(scored(RocAuc(average), targets, predicted, weights), auc)
    precision = metrics.average_precision_score(labels[:, 0], predicted, **of_auc)
    same(scored(AveragePrecision(average), targets, predicted, weights), precision)


@pytest.mark.parametrize("average", AVERAGES)
def test_rankings_of_labels(average):
    _, predicted, weights = make(3)
    labels = np.random.RandomState(1).randint(0, 2, (N, 3))
    arguments = {"average": average, "sample_weight": flat(weights)}
    expected = metrics.roc_auc_score(labels, predicted, **arguments)
    same(scored(RocAuc(average), labels, predicted, weights), expected)
    expected = metrics.average_precision_score(labels, predicted, **arguments)
    same(scored(AveragePrecision(average), labels, predicted, weights), expected)


def test_classes_that_are_missing_have_no_ranking():
    labels, predicted, _ = make(4, 3)
    present = [
        metrics.roc_auc_score(labels[:, 0] == i, predicted[:, i]) for i in range(3)
    ]
    same(scored(RocAuc(None), labels, predicted), [*present, math.nan])
    same(scored(RocAuc("macro"), labels, predicted), np.mean(present))
    share = np.bincount(labels[:, 0])
    weighted = np.average(present, weights=share)
    same(scored(RocAuc("weighted"), labels, predicted), weighted)


@pytest.mark.parametrize("scorer", [RocAuc(), AveragePrecision()])
def test_no_positive_row_is_nan_without_a_warning(scorer):
    assert math.isnan(scored(scorer, np.zeros((5, 1)), np.arange(5.0)[:, None]))
    assert math.isnan(scored(scorer, np.zeros((5, 3)), np.eye(5, 3)))


def test_no_negative_row():
    ones, predicted = np.ones((5, 1)), np.arange(5.0)[:, None]
    assert math.isnan(scored(RocAuc(), ones, predicted))
    assert scored(AveragePrecision(), ones, predicted) == 1.0


# -- rows ----------------------------------------------------------------------


@WEIGHTED
@pytest.mark.parametrize("k", [1, 2, 4])
def test_top_k_accuracy(k, weighted):
    labels, predicted, weights = make(5)
    predicted += np.arange(5) * -1e-6  # without ties, of which scikit-learn takes last
    weights = weights if weighted else None
    expected = metrics.top_k_accuracy_score(
        labels[:, 0], predicted, k=k, labels=range(5), sample_weight=flat(weights)
    )
    same(scored(TopKAccuracy(k), labels, predicted, weights), expected)


def test_the_first_of_equal_predictions_is_the_highest():
    predicted = np.array([[1.0, 2, 2, 0]] * 4)
    hits = [
        TopKAccuracy(k).score_rows(np.arange(4)[:, None], predicted).tolist()
        for k in (1, 2, 3, 4)
    ]
    assert hits[0] == [False, True, False, False]
    assert hits[1] == [False, True, True, False]
    assert hits[2] == [True, True, True, False]
    assert hits[3] == [True] * 4
    nothing = np.full((1, 4), np.nan)
    assert not TopKAccuracy(2).score_rows(np.zeros((1, 1)), nothing).any()


@WEIGHTED
@pytest.mark.parametrize("columns", [1, 3])
def test_perplexity(columns, weighted):
    labels, predicted, weights = make(columns)
    predicted = np.clip(predicted, 0.05, 0.9)
    weights = weights if weighted else np.ones((N, 1))
    total = sum(
        w * math.log(p[y] if columns > 1 else (p[0] if y else 1 - p[0]))
        for (y,), p, (w,) in zip(labels, predicted, weights, strict=True)
    )
    expected = math.exp(-total / weights.sum())
    same(scored(Perplexity(), labels, predicted, weights), expected)


def test_perplexities_that_are_known():
    labels = np.arange(8)[:, None]
    assert scored(Perplexity(), labels, np.full((8, 8), 1 / 8)) == pytest.approx(8)
    assert scored(Perplexity(), labels, np.eye(8)) == 1
    assert scored(Perplexity(), labels, np.eye(8)[::-1]) == math.inf


def test_rows_of_weight_0_may_hold_anything():
    labels, predicted, weights = make(3)
    labels[weights[:, 0] == 0] = 99
    predicted[weights[:, 0] == 0] = np.nan
    for scorer in (
        TopKAccuracy(2),
        ConfusionMatrix(),
        F1(),
        RocAuc(),
        Score(lambda true, predicted, sample_weight: predicted.sum(), name="sum"),
        bs.scorers.Accuracy(),
    ):
        assert np.isfinite(scored(scorer, labels, predicted, weights)).all()
    targets = np.where(weights == 0, np.inf, 1.0) * np.ones((N, 3))
    mse = bs.scorers.MeanSquaredError()
    assert np.isfinite(scored(mse, targets, predicted, weights))


# -- functions -----------------------------------------------------------------


@WEIGHTED
def test_functions_of_scikit_learn(weighted):
    labels, predicted, weights = make(3)
    weights = weights if weighted else None
    more = {"sample_weight": flat(weights)}
    chosen = predicted.argmax(axis=1)
    scorer = Score(metrics.cohen_kappa_score, "classes")
    assert scorer.__name__ == "cohen_kappa_score"
    expected = metrics.cohen_kappa_score(labels[:, 0], chosen, **more)
    same(scored(scorer, labels, predicted, weights), expected)
    same(scored(scorer, np.eye(3)[labels[:, 0]], predicted, weights), expected)
    scorer = Score(
        functools.partial(metrics.fbeta_score, beta=2, average=None), "classes"
    )
    assert scorer.__name__ == "fbeta_score"
    expected = metrics.fbeta_score(labels[:, 0], chosen, beta=2, average=None, **more)
    same(scored(scorer, labels, predicted, weights), expected.tolist())
    targets = np.random.RandomState(0).randn(N, 3)
    expected = metrics.r2_score(targets, predicted, **more)
    same(scored(Score(metrics.r2_score), targets, predicted, weights), expected)
    labels, predicted, _ = make(1)
    expected = metrics.brier_score_loss(
        labels[:, 0], np.minimum(predicted, 1)[:, 0], **more
    )
    scorer = Score(metrics.brier_score_loss)
    same(scored(scorer, labels, np.minimum(predicted, 1), weights), expected)


def test_functions_of_ones_own():
    def largest(true, predicted):
        assert true.shape == (N,)
        assert predicted.shape == (N, 2)
        return abs(predicted - true[:, None]).max()

    labels, predicted, weights = make(2)
    expected = abs(predicted - labels).max()
    assert scored(Score(largest), labels, predicted) == expected
    with pytest.raises(ValidationError, match="largest: .*sample_weight"):
        scored(Score(largest), labels, predicted, weights)
    with pytest.raises(DescriptionError, match="function"):
        get_description(Score(largest))
    assert repr(Score(largest, "classes")) == "Score(function=largest, takes='classes')"


class Span(DataSetScorer):
    """A scorer of the whole data set that can be saved."""

    def score_data(self, true_labels, predicted, weights):
        return np.ptp(predicted, axis=0)


class Rows(bs.scorers.Scorer):
    """Returns lists of any length."""

    def __call__(self, true_labels, predicted, mask=None):
        return [[p] * i for i, p in enumerate(predicted[:, 0].tolist())]

    @staticmethod
    def aggregate(errors):
        return sum(len(rows) for _, rows in errors)


def test_a_batch_may_give_lists():
    labels, predicted, _ = make(2)
    assert scored(Rows(), labels, predicted) == N


def test_many_batches():
    labels, predicted, weights = make(3)
    span = np.ptp(predicted, axis=0).tolist()
    assert scored(Span(), labels, predicted, batch_size=1) == span
    for scorer in (RocAuc(), F1(), ConfusionMatrix(), Perplexity()):
        whole = scored(scorer, labels, np.minimum(predicted, 1), weights, N)
        one = scored(scorer, labels, np.minimum(predicted, 1), weights, 1)
        assert one == pytest.approx(np.array(whole), rel=1e-9)


# -- errors --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make_it", "text"),
    [
        (lambda: TopKAccuracy(0), "TopKAccuracy: k has to be"),
        (lambda: F1("mean"), "F1: average has to be one of .*'mean'"),
        (lambda: RocAuc("mean"), "RocAuc: average has to be one of .*'mean'"),
        (lambda: F1(threshold="a"), "F1: threshold has to be"),
        (lambda: ConfusionMatrix("a"), "ConfusionMatrix: threshold has to be"),
        (lambda: Score("r2"), "Score: expected a function, got 'r2'"),
        (lambda: Score(max, "labels"), "takes has to be .*'labels'"),
    ],
)
def test_bad_arguments(make_it, text):
    with pytest.raises(ValidationError, match=text):
        make_it()


def test_unknown_arguments_name_the_class():
    with pytest.raises(TypeError, match="F1: .*'avrage'"):
        F1(avrage="macro")
    with pytest.raises(TypeError, match="MonitorLoss: .*'iter_name'"):
        bs.hooks.MonitorLoss()


OF_CLASSES = [ConfusionMatrix(), F1(), Recall(), Precision(), RocAuc()]
OF_CLASSES += [AveragePrecision(), TopKAccuracy(2), Perplexity()]


@pytest.mark.parametrize("scorer", OF_CLASSES)
def test_labels_have_to_fit(scorer):
    predicted = np.full((2, 3), 1 / 3)
    with pytest.raises(ValidationError, match=rf"{scorer.__name__}: .*from 0 to 2.*3"):
        scorer(np.array([[1], [3]]), predicted)
    with pytest.raises(
        ValidationError, match=rf"{scorer.__name__}: .*\(2, 3\).*\(2, 2"
    ):
        scorer(np.eye(2), predicted)
    if scorer not in OF_CLASSES[4:6]:
        with pytest.raises(ValidationError, match="one class in each row"):
            scorer(np.ones((2, 3)), predicted)


@pytest.mark.parametrize("scorer", [RocAuc(), F1(multilabel=True)])
def test_labels_have_to_be_zeros_and_ones(scorer):
    with pytest.raises(ValidationError, match="of 0 and 1, got .*0.5"):
        scorer(np.array([[1, 0.5]]), np.ones((1, 2)))


def test_sizes_have_to_fit():
    labels, predicted = np.zeros((4, 1)), np.full((4, 3), 1 / 3)
    with pytest.raises(ValidationError, match=r"at least 5.*k=5.*\(4, 3\)"):
        TopKAccuracy()(labels, predicted)
    for scorer in (F1("binary"), RocAuc("binary")):
        with pytest.raises(
            ValidationError, match=f"{scorer.__name__}: .*two classes.*3"
        ):
            scorer(labels, predicted)
    with pytest.raises(ValidationError, match="F1: .*'binary'.*2"):
        F1("binary", multilabel=True)(np.ones((4, 2)), np.ones((4, 2)))
    with pytest.raises(ValidationError, match="Perplexity: .*probabilities.*-1"):
        Perplexity()(labels, np.full((4, 3), -1.0))


@pytest.mark.parametrize("scorer", [*OF_CLASSES, Score(max), Span()])
def test_nothing_is_nan(scorer):
    assert np.isnan(scorer.aggregate([]))
    labels, predicted, weights = make(3)
    score = scored(scorer, labels, np.minimum(predicted, 1), 0 * weights)
    zeros = isinstance(scorer, ConfusionMatrix)
    assert np.isnan(score).all() if not zeros else score == np.zeros((3, 3)).tolist()


# -- in a training -------------------------------------------------------------


@pytest.mark.parametrize(
    "scorer",
    [
        F1("macro", name="f"),
        RocAuc(None),
        ConfusionMatrix(0.3),
        TopKAccuracy(3),
        Span(),
    ],
)
def test_they_are_described(scorer):
    again = create_from_description(json.loads(json.dumps(get_description(scorer))))
    assert type(again) is type(scorer)
    assert vars(again) == vars(scorer)
    assert repr(again) == repr(scorer)


SCORERS = [ConfusionMatrix(), F1(), RocAuc(), AveragePrecision(), Perplexity(), Span()]


def classifier():
    inp = layers.Input({"default": ("T", "B", 4), "targets": ("T", "B", 1)})
    out = layers.SoftmaxCE(name="Output")
    inp >> layers.Recurrent(5) >> layers.FullyConnected(3, "linear") >> out
    inp - "targets" >> "targets" - out - "loss" >> layers.Loss()
    net = bs.Network.from_layer(out)
    net.initialize(bs.Gaussian(0.3), seed=1)
    return net


def make_data():
    rnd = np.random.RandomState(0)
    x, y = rnd.randn(6, 10, 4), rnd.randint(0, 3, (6, 10, 1))
    return {"default": x, "targets": y}


def test_pieces_of_sequences_give_the_score_of_the_whole():
    net, data = classifier(), make_data()
    whole = bs.tools.evaluate(net, bs.Undivided(**data), SCORERS)
    pieces = bs.Subsequences(bs.Minibatches(4, shuffle=False, **data), 4)
    in_pieces = bs.tools.evaluate(net, pieces, SCORERS)
    assert np.sum(whole["ConfusionMatrix"]) == 60
    for scorer in SCORERS:
        name = scorer.__name__
        np.testing.assert_allclose(in_pieces[name], whole[name], rtol=1e-5)


def test_an_interrupted_training_goes_on(tmp_path):
    filename = tmp_path / "training.hdf5"

    class Stop(bs.hooks.Hook):
        def __call__(self, epoch_nr, update_nr, net, stepper, logs):
            if update_nr == 6:
                raise KeyboardInterrupt

    def trainer(*hooks):
        made = bs.Trainer(bs.training.SgdStepper(0.1), verbose=False)
        made.train_scorers = SCORERS
        kept = bs.hooks.SaveCheckpoint(filename, timescale="update")
        monitor = bs.hooks.MonitorScores("valid", SCORERS, name="valid")
        for hook in (monitor, bs.hooks.StopAfterEpoch(2), kept, *hooks):
            made.add_hook(hook)
        return made

    def iterators():
        data = make_data()
        return bs.Minibatches(3, shuffle=False, **data), bs.Undivided(**data)

    expected = trainer()
    data, valid = iterators()
    expected.train(classifier(), data, valid=valid)
    data, valid = iterators()
    with pytest.raises(KeyboardInterrupt):
        trainer(Stop("stop", "update")).train(classifier(), data, valid=valid)
    hooks = [*trainer().hooks.values(), bs.hooks.StopAfterEpoch(9, name="stop")]
    again, net = bs.Trainer.load(filename, hooks)
    data, valid = iterators()
    again.train(net, data, valid=valid)
    assert again.logs == expected.logs
    matrices = again.logs["rolling_training"]["ConfusionMatrix"]
    assert [np.sum(matrix) for matrix in matrices] == [60, 60]
    bs.hooks.saving.save_logs(tmp_path / "logs.hdf5", again.logs)
    logs = bs.hooks.load_logs(tmp_path / "logs.hdf5")
    assert logs["valid"] == again.logs["valid"]

import collections
import json
import math

import numpy as np
import pytest

from brainstorm import layers
from brainstorm.describable import create_from_description, get_description
from brainstorm.scorers import (
    Accuracy,
    Hamming,
    MeanSquaredError,
    Scorer,
    aggregate_losses_and_scores,
    gather_losses_and_scores,
)
from brainstorm.structure.network import Network
from brainstorm.utils import ValidationError

PREDICTED = np.array(
    [[0.7, 0.2, 0.1], [0.1, 0.2, 0.7], [0.3, 0.4, 0.3], [0.5, 0.1, 0.4]], np.float32
)
CLASSES = np.array([[0], [2], [0], [1]], np.float32)
MASK = np.array([[1], [0.5], [1], [0]], np.float32)


class FakeNetwork:
    """What scorers need of a network, with fixed contents."""

    layers = {}
    loss_layers = ()

    def __init__(self, outputs, inputs, losses=None, output_name=None):
        self.outputs = outputs
        self.inputs = inputs
        self.losses = losses or {"total_loss": 1.0}
        self.output_name = output_name
        self.time_size, self.batch_size = next(iter(inputs.values())).shape[:2]

    def get(self, path):
        return self.outputs[path]

    def get_input(self, name):
        return self.inputs[name]

    def get_loss_values(self):
        return self.losses


# -- single scorers ------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8])
def test_accuracy_counts_correct_classes(dtype):
    assert Accuracy()(CLASSES.astype(dtype), PREDICTED) == 2


def test_accuracy_with_mask():
    assert Accuracy()(CLASSES, PREDICTED, MASK) == 1.5


def test_accuracy_with_one_hot_targets():
    one_hot = np.eye(3)[CLASSES[:, 0].astype(int)]
    assert Accuracy()(one_hot, PREDICTED) == 2
    assert Accuracy()(one_hot, PREDICTED, MASK) == 1.5


@pytest.mark.parametrize(
    ("labels", "predicted", "words"),
    [
        (np.zeros((4, 1)), np.zeros((4, 1)), ["MyScore", "at least 2", "(4, 1)"]),
        (np.zeros((4, 2)), np.zeros((4, 3)), ["MyScore", "(4, 2)", "(4, 3)"]),
    ],
)
def test_accuracy_refuses_shapes_that_make_no_sense(labels, predicted, words):
    with pytest.raises(ValidationError) as error:
        Accuracy(name="MyScore")(labels, predicted)
    for word in words:
        assert word in str(error.value)


LABELS = np.array([[1, 0, 0], [1, 1, 1], [0, 0, 0], [0, 1, 0]])


@pytest.mark.parametrize(
    ("threshold", "correct"), [(0.5, (3, 1, 3, 1)), (0.4, (3, 1, 2, 0))]
)
def test_hamming_averages_over_the_labels_of_a_row(threshold, correct):
    predicted = PREDICTED.astype(np.float64)
    total = Hamming(threshold)(LABELS, predicted)
    assert total == pytest.approx(sum(correct) / 3, rel=1e-12)
    masked = Hamming(threshold)(LABELS.astype(np.float32), predicted, MASK)
    expected = (correct[0] + 0.5 * correct[1] + correct[2]) / 3
    assert masked == pytest.approx(expected, rel=1e-12)


def test_mean_squared_error_is_half_the_sum_over_features():
    targets = np.random.RandomState(0).randn(4, 3)
    rows = [
        sum(0.5 * (float(PREDICTED[i, j]) - targets[i, j]) ** 2 for j in range(3))
        for i in range(4)
    ]
    assert MeanSquaredError()(targets, PREDICTED) == pytest.approx(sum(rows), rel=1e-12)
    masked = rows[0] + 0.5 * rows[1] + rows[2]
    score = MeanSquaredError()(targets, PREDICTED, MASK)
    assert score == pytest.approx(masked, rel=1e-12)


def test_sums_are_made_in_double_precision():
    predicted = np.full((100_000, 1), 0.1, np.float32)
    score = MeanSquaredError()(np.zeros_like(predicted), predicted)
    assert score == pytest.approx(0.5 * 100_000 * float(np.float32(0.1)) ** 2, rel=1e-9)


def test_mean_squared_error_of_unsigned_targets():
    targets = np.array([[3], [255]], np.uint8)
    predicted = np.array([[1], [0]], np.uint8)
    assert MeanSquaredError()(targets, predicted) == 0.5 * (4 + 255**2)


@pytest.mark.parametrize("scorer", [Hamming(), MeanSquaredError()])
def test_targets_need_the_shape_of_the_predictions(scorer):
    with pytest.raises(ValidationError, match=r"\(4, 3\), got \(4, 1\)"):
        scorer(CLASSES, PREDICTED)


def test_aggregate_divides_the_sums():
    assert Scorer.aggregate([(4, 3), (2, 1.5), (1, 0)]) == 4.5 / 7
    assert Accuracy().aggregate([(4, 3)]) == 0.75


@pytest.mark.parametrize("entries", [[], [(0, 0.0)], [(0.0, 0.0), (0.0, 0.0)]])
def test_aggregate_of_nothing_is_nan(entries):
    assert math.isnan(Scorer.aggregate(entries))


def test_names():
    assert Accuracy().__name__ == Accuracy.__name__ == "Accuracy"
    assert Hamming(name="labels").__name__ == "labels"


def test_scorers_are_described_and_made_again():
    scorer = Hamming(0.3, "Out.outputs.predictions", "labels", "mask", "score")
    description = json.loads(json.dumps(get_description(scorer)))
    copied = create_from_description(description)
    assert type(copied) is Hamming
    assert copied.__name__ == "score"
    assert vars(copied) == vars(scorer)
    assert get_description(MeanSquaredError()) == {"@type": "MeanSquaredError"}


# -- gathering -----------------------------------------------------------------

PATH = "Output.outputs.predictions"


def network(**kwargs):
    outputs = {PATH: PREDICTED.reshape(2, 2, 3), "other": np.eye(3)[None, [2, 1, 1, 0]]}
    outputs["other"] = outputs["other"].reshape(2, 2, 3)
    inputs = {
        "targets": CLASSES.reshape(2, 2, 1),
        "labels": np.full((2, 2, 1), 2.0),
        "mask": MASK.reshape(2, 2, 1),
    }
    return FakeNetwork(outputs, inputs, **kwargs)


def gathered(net, scorers, **kwargs):
    scores = {}
    gather_losses_and_scores(net, scorers, scores, **kwargs)
    return scores


def test_losses_and_scores_are_gathered_over_batches():
    net = network(losses={"total_loss": 3.0, "Loss_1": 1.0}, output_name=PATH)
    scores = {}
    gather_losses_and_scores(net, [Accuracy()], scores)
    net.losses = {"total_loss": 6.0, "Loss_1": 4.0}
    net.batch_size = 1
    net.outputs[PATH] = PREDICTED[[3, 1]].reshape(2, 1, 3)
    net.inputs["targets"] = CLASSES[[1, 1]].reshape(2, 1, 1)
    gather_losses_and_scores(net, [Accuracy()], scores)
    assert scores == {
        "total_loss": [(2, 3.0), (1, 6.0)],
        "Loss_1": [(2, 1.0), (1, 4.0)],
        "Accuracy": [(4, 2.0), (2, 1.0)],
    }
    results = aggregate_losses_and_scores(scores, net, [Accuracy()])
    assert results == {"total_loss": 4.0, "Loss_1": 2.0, "Accuracy": 0.5}
    assert list(results) == ["total_loss", "Loss_1", "Accuracy"]


@pytest.mark.parametrize(
    ("scorer", "arguments", "output_name"),
    [
        (Accuracy(PATH), {"out_name": "other"}, "other"),
        (Accuracy(), {"out_name": PATH}, "other"),
        (Accuracy(), {}, PATH),
    ],
)
def test_whose_name_of_the_output_counts(scorer, arguments, output_name):
    net = network(output_name=output_name)
    assert gathered(net, [scorer], **arguments)["Accuracy"] == [(4, 2.0)]


@pytest.mark.parametrize(
    ("scorer", "arguments", "expected"),
    [
        (Accuracy(PATH), {}, 2),
        (Accuracy(PATH), {"targets_name": "labels"}, 1),
        (Accuracy(PATH, "labels"), {}, 1),
        (Accuracy(PATH, "labels"), {"targets_name": "targets"}, 1),
    ],
)
def test_whose_name_of_the_targets_counts(scorer, arguments, expected):
    assert gathered(network(), [scorer], **arguments)["Accuracy"] == [(4, expected)]


@pytest.mark.parametrize(
    ("scorer", "arguments", "expected"),
    [
        (Accuracy(PATH), {"mask_name": None}, (4, 2)),
        (Accuracy(PATH), {"mask_name": "mask"}, (2.5, 1.5)),
        (Accuracy(PATH, mask_name="mask"), {}, (2.5, 1.5)),
        (Accuracy(PATH, mask_name="mask"), {"mask_name": "labels"}, (2.5, 1.5)),
    ],
)
def test_whose_name_of_the_mask_counts(scorer, arguments, expected):
    assert gathered(network(), [scorer], **arguments)["Accuracy"] == [expected]


def test_an_output_has_to_be_named():
    with pytest.raises(ValidationError, match=r"Accuracy.*out_name.*output_name"):
        gathered(network(), [Accuracy()])


def test_unknown_names_are_key_errors():
    with pytest.raises(KeyError, match="Nothing.outputs.default"):
        gathered(network(), [Accuracy("Nothing.outputs.default")])
    with pytest.raises(KeyError, match="nothing"):
        gathered(network(), [Accuracy(PATH, "nothing")])


def test_own_scorer():
    class Worst(Scorer):
        def __call__(self, true_labels, predicted, mask=None):
            return abs(true_labels - predicted[:, :1]).max()

        @staticmethod
        def aggregate(errors):
            return max(score for _, score in errors)

    scores = {"Worst": [(4, 0.25)], "total_loss": []}
    gather_losses_and_scores(network(), [Worst(PATH)], scores)
    result = aggregate_losses_and_scores(scores, network(), [Worst(PATH)])
    assert result["Worst"] == pytest.approx(1.9, rel=1e-6)


class Scaled(Scorer):
    """Does without the constructor of its base class, as users wrote them."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, true_labels, predicted, mask=None):
        return self.factor * len(predicted)


def test_own_scorer_with_a_constructor_of_its_own():
    scorer, scores = Scaled(3), {}
    gather_losses_and_scores(network(), [scorer], scores, PATH)
    assert scores["Scaled"] == [(4, 12)]
    again = create_from_description(get_description(scorer))
    assert (again.factor, again.__name__) == (3, "Scaled")


def test_what_many_batches_leave_stays_small():
    class Last(Scorer):
        def __call__(self, true_labels, predicted, mask=None):
            return float(len(labels))

        @staticmethod
        def aggregate(errors):
            return list(errors)

    net, scores, labels = network(output_name=PATH), {}, []
    scorers = [Accuracy(), Last(PATH)]
    rnd = np.random.RandomState(0)
    losses, sizes = rnd.rand(1000), rnd.randint(1, 9, 1000)
    for loss, size in zip(losses, sizes, strict=True):
        net.losses, net.batch_size = {"total_loss": loss}, size
        gather_losses_and_scores(net, scorers, scores)
        labels.append(0)
    assert len(scores["total_loss"]) <= 101
    assert len(scores["Accuracy"]) <= 101
    results = aggregate_losses_and_scores(scores, net, scorers)
    assert results["total_loss"] == pytest.approx(np.average(losses, weights=sizes))
    assert results["Accuracy"] == 0.5
    assert results["Last"] == [(4, float(i)) for i in range(1000)]


def test_a_default_dict_will_do():
    scores = collections.defaultdict(list)
    gather_losses_and_scores(network(), [Accuracy(PATH)], scores)
    assert scores == {"total_loss": [(2, 1.0)], "Accuracy": [(4, 2.0)]}


def test_losses_without_time_count_once_for_each_sequence():
    """A sum over time goes on from piece to piece, a penalty is there once."""
    inp = layers.Input({"default": ("T", "B", 1), "penalty": ("B", 1)})
    inp >> layers.Loss(name="Sum")
    inp - "penalty" >> layers.Loss(name="Penalty")
    net = Network.from_layer(inp)
    scores = {}
    for steps, continues in ((3, False), (2, True), (2, True), (1, False)):
        net.provide_external_data(
            {"default": np.ones((steps, 4, 1)), "penalty": np.full((4, 1), 0.5)}
        )
        net.forward_pass()
        gather_losses_and_scores(net, [], scores, continues=continues)
    assert scores == {
        "Sum": [(4, 7.0), (4, 1.0)],
        "Penalty": [(4, 0.5), (4, 0.5)],
        "total_loss": [(4, 7.5), (4, 1.5)],
    }


@pytest.mark.parametrize("name", ["Accuracy", "total_loss"])
def test_two_scores_of_one_name_are_refused(name):
    with pytest.raises(ValidationError, match=f"{name!r}.*name="):
        aggregate_losses_and_scores({}, network(), [Accuracy(), Hamming(name=name)])


def test_nothing_gathered_gives_nan():
    results = aggregate_losses_and_scores({}, network(), [Accuracy()])
    assert set(results) == {"total_loss", "Accuracy"}
    assert all(math.isnan(value) for value in results.values())


def test_a_mask_of_zeros_gives_nan():
    net = network()
    net.inputs["mask"] = np.zeros((2, 2, 1))
    scores = gathered(net, [Accuracy(PATH, mask_name="mask")])
    results = aggregate_losses_and_scores(scores, net, [Accuracy()])
    assert math.isnan(results["Accuracy"])


def test_the_carried_state_of_recurrent_outputs_is_not_scored():
    net = network()
    net.outputs[PATH] = np.concatenate([net.outputs[PATH], np.full((1, 2, 3), 9.0)])
    assert gathered(net, [Accuracy(PATH)])["Accuracy"] == [(4, 2.0)]


def test_a_prediction_for_each_pixel():
    rnd = np.random.RandomState(0)
    predicted, classes = rnd.rand(2, 3, 4, 5, 6), rnd.randint(0, 6, (2, 3, 4, 5, 1))
    mask = np.array([[1, 0, 1], [0, 0, 2.0]]).reshape(2, 3, 1)
    net = FakeNetwork({PATH: predicted}, {"targets": classes, "mask": mask})
    correct = predicted.argmax(axis=-1) == classes[..., 0]
    expected = sum(
        mask[t, b, 0] * correct[t, b, y, x] for t, b, y, x in np.ndindex(2, 3, 4, 5)
    )
    scores = gathered(net, [Accuracy(PATH)], mask_name="mask")
    assert scores["Accuracy"] == [(4 * 20, expected)]
    net.inputs["mask"] = np.broadcast_to(mask[..., None, None], (2, 3, 4, 5, 1))
    assert gathered(net, [Accuracy(PATH)], mask_name="mask") == scores


@pytest.mark.parametrize("shape", [(2, 2, 3), (1, 2, 1), (2, 2, 3, 1)])
def test_masks_of_other_shapes_are_refused(shape):
    net = network()
    net.inputs["mask"] = np.ones(shape)
    with pytest.raises(ValidationError) as error:
        gathered(net, [Accuracy(PATH)], mask_name="mask")
    for word in ("Accuracy", "(2, 2, 1)", str(shape)):
        assert word in str(error.value)


def test_different_numbers_of_rows_are_refused():
    net = network()
    net.inputs["targets"] = np.zeros((2, 1, 1))
    with pytest.raises(ValidationError, match=r"\(2, 2, 3\).*\(2, 1, 1\)"):
        gathered(net, [Accuracy(PATH)])


@pytest.mark.parametrize("threshold", ["a", None, float("nan")])
def test_bad_thresholds_are_refused(threshold):
    with pytest.raises(ValidationError, match="Hamming: threshold has to be"):
        Hamming(threshold)

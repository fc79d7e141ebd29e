import numpy as np
import pytest

from brainstorm.data_iterators import Undivided
from brainstorm.scorers import MeanSquaredError
from brainstorm.training.utils import (
    check_iterator,
    check_scorers,
    compute_scores,
    run_network,
)
from brainstorm.utils import IteratorValidationError, MissingInputError, ValidationError


def squared_errors(net, data):
    """Half the squared error of each sequence, summed over features."""
    W, bias = net.get("Fc.parameters.W"), net.get("Fc.parameters.bias")
    error = data["default"][0] @ W.T + bias - data["targets"][0]
    return 0.5 * (error**2).sum(axis=1)


def test_run_network_goes_through_all_batches(net, data, batches):
    expected = squared_errors(net, data)
    seen = []
    for i in run_network(net, batches):
        assert i == len(seen)
        seen.append(net.get_loss_values()["total_loss"])
    means = [expected[:4].mean(), expected[4:8].mean(), expected[8:].mean()]
    np.testing.assert_allclose(seen, means)


def test_run_network_takes_what_an_iterator_yields(net, data, batches):
    expected = squared_errors(net, data)
    assert list(run_network(net, batches(net.handler))) == [0, 1, 2]
    assert list(run_network(net, [data])) == [0]
    assert net.get_loss_values()["total_loss"] == pytest.approx(expected.mean())


def test_run_network_without_all_inputs(net, data):
    only_x = Undivided(default=data["default"])
    with pytest.raises(MissingInputError, match="targets"):
        list(run_network(net, only_x))
    assert list(run_network(net, only_x, all_inputs=False)) == [0]
    W, bias = net.get("Fc.parameters.W"), net.get("Fc.parameters.bias")
    np.testing.assert_allclose(
        net.get("Fc.outputs.default")[0], data["default"][0] @ W.T + bias
    )


def test_compute_scores_averages_over_all_sequences(net, data, batches):
    expected = squared_errors(net, data).mean()
    scorer = MeanSquaredError(out_name="Output.outputs.predictions", name="MSE")
    scores = compute_scores(net, batches, [scorer])
    assert scores == pytest.approx({"total_loss": expected, "MSE": expected})


def test_compute_scores_passes_names_on(net, data, batches):
    scores = compute_scores(
        net, batches, [MeanSquaredError()], "Fc.outputs.default", "targets"
    )
    expected = squared_errors(net, data).mean()
    assert scores["MeanSquaredError"] == pytest.approx(expected)


def test_check_iterator(net, data):
    check_iterator(net, Undivided(**data), "train")
    with pytest.raises(
        IteratorValidationError,
        match=r"train provides 'default', but the inputs .* are 'default', 'targets'",
    ):
        check_iterator(net, Undivided(default=data["default"]), "train")
    with pytest.raises(IteratorValidationError, match="expected a data iterator"):
        check_iterator(net, data, "train")


def test_check_scorers(net):
    names = check_scorers(net, [MeanSquaredError(), MeanSquaredError(name="b")], "me")
    assert names == ["total_loss", "MeanSquaredError", "b"]
    with pytest.raises(ValidationError, match=r"more than one .* 'MeanSquaredError'"):
        check_scorers(net, [MeanSquaredError(), MeanSquaredError()], "me")
    with pytest.raises(ValidationError, match=r"more than one .* 'total_loss'"):
        check_scorers(net, [MeanSquaredError(name="total_loss")], "me")
    with pytest.raises(ValidationError, match="me: scorers have to be a list"):
        check_scorers(net, MeanSquaredError(), "me")

"""The layout that all data sets have."""

import numpy as np
import pytest

from brainstorm.datasets.writing import write_characters
from brainstorm.utils import ValidationError
from tests.published import content_of


def test_texts_continue_from_batch_to_batch(tmp_path):
    text = bytes(i % 251 for i in range(30001))
    write_characters(tmp_path / "text.hdf5", "d", text)
    training = content_of(tmp_path / "text.hdf5")["split/training/default"]
    assert training.shape == (100, 100, 1)
    text = bytes(i // 100 % 251 for i in range(10000 * 21 + 1))
    write_characters(tmp_path / "text.hdf5", "d", text)
    data = content_of(tmp_path / "text.hdf5")["split/training/default"]
    first, second = data[:, :100], data[:, 100:200]
    np.testing.assert_array_equal((first[-1] + 1) % 251, second[0])


def test_short_texts_are_refused(tmp_path):
    with pytest.raises(ValidationError, match="more than 30000 characters, got 30000"):
        write_characters(tmp_path / "text.hdf5", "d", bytes(30000))
    assert list(tmp_path.iterdir()) == []

"""The handwritten digits that come with scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from brainstorm.datasets.writing import Images, write_images
from brainstorm.utils import missing_extra

NR_TEST = 297
NR_VALIDATION = 300

DESCRIPTION = """\
Handwritten digits, made by E. Alpaydin and C. Kaynak; these are the test images of \
the data set 'Optical Recognition of Handwritten Digits' in the UCI Machine Learning \
Repository, which come with scikit-learn.

'default' are images of 8 x 8 pixels from 0 (paper) to 1 (ink), 'targets' are the \
digits, both in random order. 'normalized_full' has 1500 training and 297 test images. \
In 'normalized_split' the last 300 training images are for validation.
"""


def write(output: Path, paths: Sequence[Path] = ()) -> None:
    """Write the data set to an HDF5 file.

    Raises:
        ImportError: There is no scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise missing_extra(
            "the data set Digits", "scikit-learn", "examples"
        ) from error
    digits = load_digits()
    # Neighbors in the data are by the same writer.
    order = np.random.RandomState(0).permutation(len(digits.target))
    images, labels = digits.images[order, :, :, np.newaxis], digits.target[order]
    test = Images(images[-NR_TEST:], labels[-NR_TEST:])
    training = Images(images[:-NR_TEST], labels[:-NR_TEST])
    write_images(output, DESCRIPTION, training, test, NR_VALIDATION, brightest=16)

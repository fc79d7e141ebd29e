"""Make Digits.hdf5: 1797 handwritten digits of 8 x 8 pixels.

They come with scikit-learn, so nothing is downloaded.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from _common import DataError, Images, create_parser, run, write_images

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


def create(args: argparse.Namespace) -> None:
    """Write the data set."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        clone = Path(__file__).resolve().parents[1]
        raise DataError(
            "the digits need scikit-learn, which is not installed. Install it with:"
            f' pip install "{clone}[examples]"'
        ) from error
    digits = load_digits()
    # Neighbors in the data are by the same writer.
    order = np.random.RandomState(0).permutation(len(digits.target))
    images, labels = digits.images[order, :, :, np.newaxis], digits.target[order]
    test = Images(images[-NR_TEST:], labels[-NR_TEST:])
    training = Images(images[:-NR_TEST], labels[:-NR_TEST])
    write_images(args.output, DESCRIPTION, training, test, NR_VALIDATION, brightest=16)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit code."""
    return run(create, create_parser(__doc__, "Digits.hdf5").parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())

"""How data sets are written: the layout that all of them have."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from brainstorm.files import atomic_hdf5
from brainstorm.utils import ValidationError

STEPS = SEQUENCES = 100
NR_VALIDATION = 10000  # of the training images of the large data sets


class Images(NamedTuple):
    """Images of shape (N, H, W, C) and their labels of shape (N,), as integers."""

    images: np.ndarray
    labels: np.ndarray


def write_images(
    output: Path,
    description: str,
    training: Images,
    test: Images,
    nr_validation: int,
    brightest: int,
) -> None:
    """Write a data set of images to an HDF5 file.

    The group ``normalized_full`` has ``training`` and ``test``. In the group
    ``normalized_split`` the last part of the training data is ``validation`` instead.
    Each has ``default`` of shape (1, N, H, W, C), float32 in [0, 1], and ``targets`` of
    shape (1, N, 1).

    Args:
        output: Name of the file.
        description: For people to read, in the file's attribute ``description``.
        training: The training data.
        test: The test data.
        nr_validation: How many of the training data are for validation.
        brightest: The largest value of a pixel; the smallest is 0.
    """
    nr_training = len(training.labels) - nr_validation
    parts = {
        "normalized_full/training": training,
        "normalized_full/test": test,
        "normalized_split/training": Images(*(a[:nr_training] for a in training)),
        "normalized_split/validation": Images(*(a[nr_training:] for a in training)),
    }
    with atomic_hdf5(output) as f:
        f.attrs["description"] = description
        for name, (images, labels) in parts.items():
            group = f.create_group(name)
            pixels = group.create_dataset("default", (1, *images.shape), np.float32)
            for start in range(0, len(images), 1000):
                block = images[start : start + 1000]
                pixels[0, start : start + 1000] = block / np.float32(brightest)
            group["targets"] = labels.astype(np.int64).reshape(1, -1, 1)
        f["normalized_split/test"] = f["normalized_full/test"]  # the same, not a copy


def write_characters(output: Path, description: str, text: bytes) -> None:
    """Write a text to an HDF5 file, for learning to predict the next character.

    The group ``split`` has ``training``, ``validation`` and ``test``, which are about
    90, 5 and 5 percent of the text. Each has ``default`` of shape (100, N, 1), the
    characters, and ``targets``, the characters that follow them. In batches of 100
    sequences each sequence goes on where the one at its place in the batch before
    ended. Characters are numbers, those of their bytes in the attribute ``unique``.

    Args:
        output: Name of the file.
        description: For people to read, in the file's attribute ``description``.
        text: The text. What does not fill a batch at its end is left out.

    Raises:
        ValidationError: The text is too short.
    """
    block = STEPS * SEQUENCES
    nr_batches = (len(text) - 1) // block
    if nr_batches < 3:
        raise ValidationError(
            f"expected a text of more than {3 * block} characters, got {len(text)}"
        )
    codes = np.frombuffer(text, np.uint8)
    unique = np.unique(codes)
    numbers = np.searchsorted(unique, np.arange(256)).astype(np.uint8)[codes]
    nr_validation, nr_test = max((nr_batches + 1) // 20, 1), max(nr_batches // 20, 1)
    ends = np.cumsum([nr_batches - nr_validation - nr_test, nr_validation, nr_test])
    with atomic_hdf5(output) as f:
        f.attrs["description"] = description
        start = 0
        for name, end in zip(("training", "validation", "test"), ends, strict=True):
            group = f.create_group(f"split/{name}")
            for item, shift in (("default", 0), ("targets", 1)):
                part = numbers[start * block + shift : end * block + shift]
                group.create_dataset(
                    item,
                    data=_in_batches(part),
                    chunks=(STEPS, SEQUENCES, 1),
                    compression="gzip",
                )
            start = end
        for node in (f, f["split"]):
            node.attrs["unique"] = unique


def _in_batches(numbers: np.ndarray) -> np.ndarray:
    """Arrange numbers as (100, N, 1), see `write_characters`."""
    rows = numbers.reshape(SEQUENCES, -1, STEPS)  # (place in the batch, batch, step)
    return rows.transpose(2, 1, 0).reshape(STEPS, -1, 1)

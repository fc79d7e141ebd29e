"""Make CIFAR-100.hdf5: 60000 color images of 32 x 32 pixels in 100 classes.

The data set is downloaded, 169 MB, or taken from --source.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from _cifar import read_archive
from _common import (
    File,
    add_download_options,
    create_parser,
    get_files,
    run,
    write_images,
)

MIRRORS = ("https://www.cs.toronto.edu/~kriz",)
FILE = File("cifar-100-python.tar.gz", 169001437, "eb9058c3a382ffc7106e4002c42a8d85")
TRAINING = ["cifar-100-python/train"]
TEST = ["cifar-100-python/test"]
NR_VALIDATION = 10000

DESCRIPTION = """\
CIFAR-100: small color images in 100 classes, collected by Alex Krizhevsky, Vinod Nair \
and Geoffrey Hinton.

'default' are images of 32 x 32 pixels in the channels red, green, blue, from 0 to 1. \
'targets' are their classes, the fine ones, from 0 (apple) to 99 (worm). \
'normalized_full' has 50000 training and 10000 test images. In 'normalized_split' the \
last 10000 training images are for validation.
"""


def create(args: argparse.Namespace) -> None:
    """Get the file and write the data set."""
    (path,) = get_files([FILE], MIRRORS, args)
    training, test = read_archive(path, [TRAINING, TEST], b"fine_labels")
    write_images(args.output, DESCRIPTION, training, test, NR_VALIDATION, brightest=255)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit code."""
    parser = create_parser(__doc__, "CIFAR-100.hdf5")
    add_download_options(parser)
    return run(create, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())

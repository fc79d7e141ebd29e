"""Make MNIST.hdf5: 70000 handwritten digits of 28 x 28 pixels.

The four files of the data set are downloaded, 12 MB, or taken from --source.
"""

import sys

from _common import script_for

main = script_for("MNIST", __doc__)

if __name__ == "__main__":
    sys.exit(main())

"""Make CIFAR-100.hdf5: 60000 color images of 32 x 32 pixels in 100 classes.

The data set is downloaded, 169 MB, or taken from --source.
"""

import sys

from _common import script_for

main = script_for("CIFAR-100", __doc__)

if __name__ == "__main__":
    sys.exit(main())
